//! One page for one or several runs: figures side by side, plots over each other. It needs nothing but itself.

use std::fmt::Write as _;

use super::figures::{figures, millis};
use super::measure::Tick;
use super::plot::{Plot, css_colour};
use super::report::Report;
use crate::error::Result;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:960px;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;width:100%}\
td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}\
svg{max-width:100%;height:auto}.key{display:inline-block;width:.8em;height:.8em;margin-right:.4em}\
.bad{color:#b00020}p{max-width:46em}";

/// The page of these runs, of which there is one at least.
pub fn page(reports: &[Report]) -> Result<String> {
    let mut page = String::from("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>mimeo storm</title>");
    let _ = write!(page, "<style>{STYLE}</style><h1>mimeo storm</h1>");
    runs(&mut page, reports);
    let names = figures(&reports[0]).map(|(name, _)| name);
    table(&mut page, "Figures", &names, reports, |report| figures(report).map(|(_, value)| value).to_vec());
    for (title, svg) in plots(reports)? {
        let _ = write!(page, "<h2>{title}</h2>{}{svg}", legend(reports));
    }
    procedures(&mut page, reports);
    errors(&mut page, reports);
    page.push_str("</html>\n");
    Ok(page)
}

/// What each run was.
fn runs(page: &mut String, reports: &[Report]) {
    let of = |report: &Report| {
        let facts = &report.facts;
        let duration = facts.duration_secs.map_or_else(String::new, |secs| format!(", {secs} s"));
        let speed = facts.speed.map_or_else(|| "without pauses".to_owned(), |speed| format!("speed {speed}"));
        let cells = [
            facts.server.clone(),
            facts.export.clone(),
            facts.load.clone(),
            facts.clients.to_string(),
            format!("{} loop, {speed}{duration}", facts.pace),
            facts.ramp.clone(),
            facts.seed.to_string(),
            facts.started_at.clone(),
        ];
        cells.to_vec()
    };
    let names = ["server", "exports", "load", "clients", "pace", "ramp", "seed", "started"];
    table(page, "Runs", &names, reports, of);
}

/// One column for each run.
fn table(page: &mut String, title: &str, names: &[&str], reports: &[Report], cells: impl Fn(&Report) -> Vec<String>) {
    let _ = write!(page, "<h2>{title}</h2><table><tr><th></th>");
    for (i, report) in reports.iter().enumerate() {
        let _ = write!(page, "<th>{}{}</th>", key(i), escaped(&report.facts.name));
    }
    let columns: Vec<Vec<String>> = reports.iter().map(cells).collect();
    for (row, name) in names.iter().enumerate() {
        let _ = write!(page, "</tr><tr><td>{name}</td>");
        for column in &columns {
            let _ = write!(page, "<td>{}</td>", escaped(&column[row]));
        }
    }
    page.push_str("</tr></table>");
}

fn key(i: usize) -> String {
    format!("<span class=\"key\" style=\"background:{}\"></span>", css_colour(i))
}

fn legend(reports: &[Report]) -> String {
    let one = |(i, report): (usize, &Report)| format!("{}{} ", key(i), escaped(&report.facts.name));
    format!("<div>{}</div>", reports.iter().enumerate().map(one).collect::<String>())
}

fn plots(reports: &[Report]) -> Result<Vec<(&'static str, String)>> {
    let lines = |of: fn(&Report) -> Vec<(f64, f64)>| reports.iter().map(of).collect();
    let booted = Plot { x: "seconds since the start", y: "clients booted", lines: lines(booted) };
    let rate = Plot {
        x: "seconds since the start",
        y: "operations/s",
        lines: lines(|r| over_time(r, |t| t.operations_per_sec)),
    };
    let read = Plot {
        x: "seconds since the start",
        y: "bytes read/s",
        lines: lines(|r| over_time(r, |t| t.bytes_read_per_sec)),
    };
    let tail = Plot {
        x: "seconds since the start",
        y: "p99",
        lines: lines(|r| answered(over_time(r, |t| t.p99_micros as f64))),
    };
    let curve = Plot { x: "part of the calls that is not slower", y: "latency", lines: lines(percentiles) };
    Ok(vec![
        ("Clients booted", booted.linear()?),
        ("Latency, by percentile", curve.percentiles()?),
        ("Latency, p99 of each second", tail.latencies()?),
        ("Operations", rate.linear()?),
        ("Bytes read", read.linear()?),
    ])
}

fn over_time(report: &Report, of: fn(&Tick) -> f64) -> Vec<(f64, f64)> {
    report.ticks.iter().map(|tick| (tick.at_secs, of(tick))).collect()
}

/// Without the seconds in which nothing was answered.
fn answered(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.into_iter().filter(|(_, micros)| *micros > 0.0).collect()
}

fn booted(report: &Report) -> Vec<(f64, f64)> {
    let at = &report.boots.at_secs;
    let part = report.boots.clients_booted as f64 / at.len().max(1) as f64;
    let reached = at.iter().enumerate().map(|(i, secs)| (*secs, (i + 1) as f64 * part));
    std::iter::once((0.0, 0.0)).chain(reached).collect()
}

/// What is slower than all calls but the last has no place on the axis.
fn percentiles(report: &Report) -> Vec<(f64, f64)> {
    let below_one = report.latency_curve.iter().filter(|(quantile, _)| *quantile < 1.0);
    below_one.map(|(quantile, micros)| (1.0 / (1.0 - quantile), (*micros).max(1) as f64)).collect()
}

fn procedures(page: &mut String, reports: &[Report]) {
    let heads = ["procedure", "calls", "errors", "p50", "p99", "p99.9", "max", "service p50"];
    for (i, report) in reports.iter().enumerate() {
        let _ = write!(page, "<h2>{}Procedures of {}</h2><table><tr>", key(i), escaped(&report.facts.name));
        page.extend(heads.map(|head| format!("<th>{head}</th>")));
        for one in &report.procedures {
            let times = &one.latency;
            let _ = write!(page, "</tr><tr><td>{}</td><td>{}</td><td>{}</td>", one.procedure, times.count, one.errors);
            for micros in
                [times.p50_micros, times.p99_micros, times.p999_micros, times.max_micros, one.service.p50_micros]
            {
                let _ = write!(page, "<td>{}</td>", millis(micros));
            }
        }
        page.push_str("</tr></table>");
    }
}

fn errors(page: &mut String, reports: &[Report]) {
    for (i, report) in reports.iter().enumerate().filter(|(_, report)| !report.errors.is_empty()) {
        let _ = write!(page, "<h2 class=\"bad\">{}Errors of {}</h2><table>", key(i), escaped(&report.facts.name));
        for (kind, count) in &report.errors {
            let _ = write!(page, "<tr><td>{}</td><td>{count}</td></tr>", escaped(kind));
        }
        page.push_str("</table><ul>");
        for example in &report.error_examples {
            let _ = write!(page, "<li>{}</li>", escaped(example));
        }
        page.push_str("</ul>");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storm::report::tests::sample;

    #[test]
    fn a_page_holds_all_runs_and_loads_nothing() {
        let page = page(&[sample("ours"), sample("<null> & co")]).unwrap();
        for wanted in ["ours", "&lt;null&gt; &amp; co", "NFS3ERR_IO", "a&lt;b&gt;/x", "first booted", "<svg"] {
            assert!(page.contains(wanted), "{wanted}");
        }
        assert_eq!(page.matches("<svg").count(), 5);
        for foreign in ["<null>", "<script", " src=", "@import", "<link"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        // Names of XML's own are no addresses to load.
        let addresses = page.matches("http").count() - page.matches("http://www.w3.org/").count();
        assert_eq!(addresses, 0);
    }
}

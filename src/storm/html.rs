//! One page for one or several runs: who was faster, plots over each other, all figures side by side. It needs
//! nothing but itself, and can be printed.

mod headline;
mod tables;

use std::fmt::Write as _;

use super::measure::Tick;
use super::plot::{Plot, css_colour};
use super::report::Report;
use crate::error::Result;

const STYLE: &str = include_str!("html/style.css");
/// Runs that are shorter have no plots by the second.
const LEAST_TICKS: usize = 4;
const MIB: f64 = 1048576.0;

/// One run at least.
type Runs<'a> = &'a [Report];

/// The page of these runs, of which there is one at least. The others are compared with the first.
pub fn page(reports: &[Report]) -> Result<String> {
    let mut page = String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    let title = headline::title(reports);
    page.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    let _ = write!(page, "<title>{title}</title><style>{STYLE}</style></head><body>");
    headline::put(&mut page, reports);
    page.push_str("<h2>Over time, and call by call</h2>");
    for drawn in plots(reports) {
        let svg = (drawn.draw)(&drawn.plot)?;
        let _ = write!(page, "<figure><figcaption>{}<small>{}</small></figcaption>", drawn.title, drawn.says);
        let _ = write!(page, "{}{svg}</figure>", legend(reports));
    }
    tables::all_figures(&mut page, reports);
    tables::procedures(&mut page, reports);
    tables::errors(&mut page, reports);
    tables::runs(&mut page, reports);
    page.push_str(WORDS);
    page.push_str("</body></html>\n");
    Ok(page)
}

const WORDS: &str = "<h2>What the words mean</h2><dl>\
<dt>booted</dt><dd>A client that has come to the end of its load. Times count from the start of the storm; its <i>own \
boot</i> from its own start.</dd>\
<dt>latency</dt><dd>From when a call should have gone out to its answer: time that it waited because the server was slow \
is in it.</dd>\
<dt>service time</dt><dd>From when the call did go out.</dd>\
<dt>p99</dt><dd>99 of 100 calls were not slower.</dd>\
<dt>read from disk</dt><dd>What the server's disk read meanwhile; the name is that of the counter.</dd>\
<dt>server CPU</dt><dd>What the server's process computed, for each GiB that was read or written.</dd>\
<dt>generator busy</dt><dd>How much of its cores' time the load generator needed: near 100 % it may have been the slower \
side.</dd></dl><footer>Made by <code>mimeo storm</code>.</footer>";

fn key(i: usize) -> String {
    format!("<span class=\"key\" style=\"background:{}\"></span>", colour(i))
}

/// Of the `i`th run, as CSS has it.
fn colour(i: usize) -> String {
    css_colour(i)
}

fn legend(reports: &[Report]) -> String {
    let one = |(i, report): (usize, &Report)| format!("{}<b>{}</b>", key(i), escaped(&report.facts.name));
    format!("<div class=\"legend\">{}</div>", reports.iter().enumerate().map(one).collect::<String>())
}

/// A plot, and what is said about it.
struct Drawn {
    title: &'static str,
    says: &'static str,
    plot: Plot,
    draw: fn(&Plot) -> Result<String>,
}

/// Those that show anything.
fn plots(reports: &[Report]) -> Vec<Drawn> {
    const TIME: &str = "seconds since the start";
    let lines = |of: fn(&Report) -> Vec<(f64, f64)>| reports.iter().map(of).collect();
    let by_second = reports.iter().any(|report| report.ticks.len() >= LEAST_TICKS);
    let boots = reports.iter().any(|report| !report.boots.at_secs.is_empty());
    let drawn = |title, says, plot, draw: fn(&Plot) -> Result<String>| Drawn { title, says, plot, draw };
    let all = [
        boots.then(|| {
            let plot = Plot { x: TIME, y: "clients booted", lines: lines(booted) };
            drawn("Clients booted", "the steeper, the better", plot, Plot::linear)
        }),
        Some({
            let plot = Plot { x: "part of all calls", y: "latency", lines: lines(percentiles) };
            drawn(
                "Latency, by percentile",
                "from the median on: so many of all calls were not slower",
                plot,
                Plot::percentiles,
            )
        }),
        by_second.then(|| {
            let lines = lines(|r| over_time(r, |t| t.bytes_read_per_sec / MIB));
            drawn("Data read", "each second", Plot { x: TIME, y: "MiB/s", lines }, Plot::linear)
        }),
        by_second.then(|| {
            let lines = lines(|r| over_time(r, |t| t.operations_per_sec));
            drawn("Calls answered", "each second", Plot { x: TIME, y: "calls/s", lines }, Plot::linear)
        }),
        by_second.then(|| {
            let lines = lines(|r| answered(over_time(r, |t| t.p99_micros as f64)));
            drawn("Latency, p99", "of each second's calls", Plot { x: TIME, y: "p99", lines }, Plot::latencies)
        }),
    ];
    all.into_iter().flatten().collect()
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
    // Steps: nobody is booted in part.
    let step = |(i, secs): (usize, &f64)| [(*secs, i as f64 * part), (*secs, (i + 1) as f64 * part)];
    std::iter::once((0.0, 0.0)).chain(at.iter().enumerate().flat_map(step)).collect()
}

/// From the median on. What is slower than all calls but the last has no place on the axis.
fn percentiles(report: &Report) -> Vec<(f64, f64)> {
    let shown = report.latency_curve.iter().filter(|(quantile, _)| (0.5..1.0).contains(quantile));
    shown.map(|(quantile, micros)| (1.0 / (1.0 - quantile), (*micros).max(1) as f64)).collect()
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

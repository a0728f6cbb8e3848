//! The tables of a page: one column, or one group of columns, for each run.

use std::fmt::Write as _;

use super::headline::own_facts;
use super::{Runs, escaped, key};
use crate::storm::figures::{figures, grouped};
use crate::storm::report::{Procedure, Report};

/// What each run was.
pub fn runs(page: &mut String, runs: Runs<'_>) {
    let mut rows: Vec<(&str, Vec<String>)> = vec![
        ("server", runs.iter().map(|report| report.facts.server.clone()).collect()),
        ("exports", runs.iter().map(|report| report.facts.export.clone()).collect()),
    ];
    rows.extend(own_facts(runs).map(|(name, of)| (*name, runs.iter().map(of).collect())));
    rows.push(("started", runs.iter().map(started).collect()));
    head(page, "Runs", runs);
    for (name, cells) in rows {
        row(page, name, &cells);
    }
    page.push_str("</table>");
}

/// RFC 3339 to the second, in words.
fn started(report: &Report) -> String {
    let text = &report.facts.started_at;
    text.get(..19).map_or_else(|| text.clone(), |text| format!("{} UTC", text.replace('T', " ")))
}

/// All figures; what was measured in none of the runs is left out.
pub fn all_figures(page: &mut String, runs: Runs<'_>) {
    let columns: Vec<_> = runs.iter().map(figures).collect();
    head(page, "All figures", runs);
    let mut group = "";
    for (i, figure) in columns[0].iter().enumerate() {
        let cells: Vec<String> = columns.iter().map(|column| column[i].value.clone()).collect();
        if cells.iter().all(|cell| cell == "-") {
            continue;
        }
        if figure.group != group {
            group = figure.group;
            let _ = write!(page, "<tr class=\"group\"><td colspan=\"{}\">{group}</td></tr>", runs.len() + 1);
        }
        row(page, figure.name, &cells);
    }
    page.push_str("</table>");
}

fn head(page: &mut String, title: &str, runs: Runs<'_>) {
    let _ = write!(page, "<h2>{title}</h2><table><tr><th></th>");
    for (i, report) in runs.iter().enumerate() {
        let _ = write!(page, "<th>{}{}</th>", key(i), escaped(&report.facts.name));
    }
    page.push_str("</tr>");
}

fn row(page: &mut String, name: &str, cells: &[String]) {
    let _ = write!(page, "<tr><td>{name}</td>");
    page.extend(cells.iter().map(|cell| format!("<td>{}</td>", escaped(cell))));
    page.push_str("</tr>");
}

/// Latencies by procedure, in the order of RFC 1813: of each run p50, p99 and the greatest.
pub fn procedures(page: &mut String, runs: Runs<'_>) {
    page.push_str("<h2>Latency by procedure, in ms</h2><table><tr><th></th><th></th>");
    for (i, report) in runs.iter().enumerate() {
        let _ = write!(page, "<th class=\"sep\" colspan=\"3\">{}{}</th>", key(i), escaped(&report.facts.name));
    }
    page.push_str("</tr><tr><th>procedure</th><th>calls</th>");
    runs.iter().for_each(|_| page.push_str("<th class=\"sep\">p50</th><th>p99</th><th>max</th>"));
    page.push_str("</tr>");
    for name in names(runs) {
        let of = |report: &'_ Report| report.procedures.iter().position(|one| one.procedure == name);
        let all: Vec<Option<&Procedure>> = runs.iter().map(|report| Some(&report.procedures[of(report)?])).collect();
        let calls = all.iter().flatten().map(|one| one.latency.count).max().unwrap_or(0);
        let _ = write!(page, "<tr><td>{}</td><td>{}</td>", escaped(name), grouped(calls as f64));
        for one in all {
            let Some(one) = one else {
                page.push_str("<td class=\"sep\">-</td><td>-</td><td>-</td>");
                continue;
            };
            let micros = [one.latency.p50_micros, one.latency.p99_micros, one.latency.max_micros];
            let [p50, p99, max] = micros.map(|micros| format!("{:.2}", micros as f64 / 1000.0));
            let _ = write!(page, "<td class=\"sep\">{p50}</td><td>{p99}</td><td>{max}</td>");
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
}

/// The procedures of all runs, each once.
fn names(runs: Runs<'_>) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for one in runs.iter().flat_map(|report| &report.procedures) {
        if !names.contains(&&*one.procedure) {
            names.push(&one.procedure);
        }
    }
    names
}

pub fn errors(page: &mut String, runs: Runs<'_>) {
    for (i, report) in runs.iter().enumerate().filter(|(_, report)| !report.errors.is_empty()) {
        let name = escaped(&report.facts.name);
        let _ = write!(page, "<h2>{}Errors of {name}</h2><table><tr><th>kind</th><th>times</th></tr>", key(i));
        for (kind, count) in &report.errors {
            let _ = write!(page, "<tr><td>{}</td><td>{}</td></tr>", escaped(kind), grouped(*count as f64));
        }
        page.push_str("</table><p>One of each:</p><ul>");
        for example in &report.error_examples {
            let _ = write!(page, "<li>{}</li>", escaped(example));
        }
        page.push_str("</ul>");
    }
}

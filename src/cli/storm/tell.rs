//! A storm's end, for people.

use super::super::output::{count, table};
use crate::storm::{Report, figures, millis};

/// The figures of one or several runs side by side; of the first also its procedures and errors.
pub fn compared(reports: &[Report]) -> String {
    let mut header = vec![""];
    let names: Vec<String> = reports.iter().map(|report| format!(">{}", report.facts.name)).collect();
    header.extend(names.iter().map(String::as_str));
    let columns: Vec<_> = reports.iter().map(figures).collect();
    let row = |i: usize| {
        let cells = columns.iter().map(|column| column[i].value.clone());
        std::iter::once(columns[0][i].name.to_owned()).chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = (0..columns.first().map_or(0, |column| column.len())).map(row).collect();
    let parts = [table(&header, rows), reports.first().map_or_else(String::new, details)];
    parts.join("\n\n")
}

fn details(report: &Report) -> String {
    let row = |one: &crate::storm::Procedure| {
        let times = [one.latency.p50_micros, one.latency.p99_micros, one.latency.p999_micros, one.latency.max_micros];
        let counts = [one.procedure.clone(), one.latency.count.to_string(), one.errors.to_string()];
        counts.into_iter().chain(times.map(millis)).collect()
    };
    let header = ["PROCEDURE", ">CALLS", ">ERRORS", ">P50", ">P99", ">P99.9", ">MAX"];
    let mut text = table(&header, report.procedures.iter().map(row));
    if !report.errors.is_empty() {
        let rows = report.errors.iter().map(|(kind, count)| vec![kind.clone(), count.to_string()]);
        text = format!("{text}\n\n{}", table(&["ERROR", ">TIMES"], rows));
    }
    [Some(text)].into_iter().chain(remarks(report)).flatten().collect::<Vec<_>>().join("\n")
}

/// What a reader has to know to judge the figures.
fn remarks(report: &Report) -> [Option<String>; 4] {
    let unprivileged = report.unprivileged_connections;
    let from_port = || format!("{} from ports above 1023; a server may refuse them", count(unprivileged, "connection"));
    let left_out = report.facts.steps_left_out;
    let again = (report.reconnects, report.retransmissions, report.jukebox_retries);
    let lost = || format!("{} reconnects, {} calls sent again, {} more after JUKEBOX", again.0, again.1, again.2);
    [
        (unprivileged > 0).then(from_port),
        (left_out > 0).then(|| format!("{} cannot be done again", count(left_out, "recorded operation"))),
        (again != (0, 0, 0)).then(lost),
        report.interrupted.then(|| "interrupted: the figures are those until then".to_owned()),
    ]
}

/// The first errors, in full.
pub fn examples(report: &Report) -> String {
    const SHOWN: usize = 3;
    report.error_examples.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ")
}

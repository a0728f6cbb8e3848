//! The figures of a run that people compare, in words: one list for tables and pages.

use humansize::{BINARY, format_size};

use super::report::{Report, Spread};

/// How many there are.
const FIGURES: usize = 22;

/// Each with its name, in the order in which they are read.
pub fn figures(report: &Report) -> [(&'static str, String); FIGURES] {
    let checked = |bytes: u64| if report.verified { size(bytes) } else { NONE.to_owned() };
    let disk = report.disk.as_ref();
    let boots = &report.boots;
    let Spread { p50_micros, p99_micros, p999_micros, max_micros, .. } = report.latency;
    [
        ("clients booted", format!("{} of {}", boots.clients_booted, report.facts.clients)),
        ("clients that gave up", boots.clients_failed.to_string()),
        ("first booted", secs(boots.first_secs)),
        ("median booted", secs(boots.median_secs)),
        ("last booted", secs(boots.last_secs)),
        ("own boot, median", secs(boots.own_median_secs)),
        ("own boot, p99", secs(boots.own_p99_secs)),
        ("operations/s", format!("{:.0}", report.operations_per_sec)),
        ("read/s", size(report.bytes_read_per_sec as u64)),
        ("written/s", size(report.bytes_written_per_sec as u64)),
        ("latency p50", millis(p50_micros)),
        ("latency p99", millis(p99_micros)),
        ("latency p99.9", millis(p999_micros)),
        ("latency max", millis(max_micros)),
        ("service time p50", millis(report.service.p50_micros)),
        ("service time p99", millis(report.service.p99_micros)),
        ("bytes wrong", checked(report.bytes_wrong)),
        ("bytes verified", checked(report.bytes_verified)),
        ("bytes not verified", checked(report.bytes_unverified)),
        ("read from disk", disk.map_or(NONE.to_owned(), |disk| format!("{} ({})", size(disk.bytes_read), disk.source))),
        ("errors", report.errors_total().to_string()),
        ("steps not sent", report.steps_not_sent.to_string()),
    ]
}

/// What was not measured.
const NONE: &str = "-";

fn size(bytes: u64) -> String {
    format_size(bytes, BINARY)
}

fn secs(value: Option<f64>) -> String {
    value.map_or(NONE.to_owned(), |secs| format!("{secs:.3} s"))
}

/// Microseconds, for people.
pub fn millis(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1000.0)
}

//! The figures of a run that people compare, in words: one list for tables and pages. And those that a comparison
//! begins with, as numbers.

use humansize::{BINARY, format_size};

use super::report::{Report, Spread};

/// One figure of one run.
pub struct Figure {
    /// What it is about.
    pub group: &'static str,
    pub name: &'static str,
    pub value: String,
}

/// In the order in which they are read; the same for every run.
pub fn figures(report: &Report) -> Vec<Figure> {
    let groups = [
        ("boots", boots(report)),
        ("load", load(report)),
        ("latency", latency(report)),
        ("bytes", bytes(report)),
        ("cost", cost(report)),
        ("trouble", trouble(report)),
    ];
    let figure = |group| move |(name, value)| Figure { group, name, value };
    groups.into_iter().flat_map(|(group, figures)| figures.into_iter().map(figure(group))).collect()
}

type Named = Vec<(&'static str, String)>;

fn boots(report: &Report) -> Named {
    let boots = &report.boots;
    vec![
        ("clients booted", format!("{} of {}", boots.clients_booted, report.facts.clients)),
        ("clients that gave up", boots.clients_failed.to_string()),
        ("first booted", secs(boots.first_secs)),
        ("median booted", secs(boots.median_secs)),
        ("last booted", secs(boots.last_secs)),
        ("own boot, median", secs(boots.own_median_secs)),
        ("own boot, p99", secs(boots.own_p99_secs)),
    ]
}

fn load(report: &Report) -> Named {
    vec![
        ("operations/s", format!("{:.0}", report.operations_per_sec)),
        ("read/s", size(report.bytes_read_per_sec as u64)),
        ("written/s", size(report.bytes_written_per_sec as u64)),
    ]
}

fn latency(report: &Report) -> Named {
    let Spread { p50_micros, p99_micros, p999_micros, max_micros, .. } = report.latency;
    vec![
        ("latency p50", millis(p50_micros)),
        ("latency p99", millis(p99_micros)),
        ("latency p99.9", millis(p999_micros)),
        ("latency max", millis(max_micros)),
        ("service time p50", millis(report.service.p50_micros)),
        ("service time p99", millis(report.service.p99_micros)),
    ]
}

fn bytes(report: &Report) -> Named {
    let checked = |bytes: u64| if report.verified { size(bytes) } else { NONE.to_owned() };
    vec![
        ("bytes wrong", checked(report.bytes_wrong)),
        ("bytes verified", checked(report.bytes_verified)),
        ("bytes not verified", checked(report.bytes_unverified)),
    ]
}

fn cost(report: &Report) -> Named {
    let disk = report.disk.as_ref();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    vec![
        ("read from disk", or_none(disk.map(|disk| format!("{} ({})", size(disk.bytes_read), disk.source)))),
        ("server CPU per GiB", or_none(report.server_cpu_per_gib().map(|secs| format!("{secs:.3} s")))),
        ("generator busy", or_none(report.generator_busy().map(|part| format!("{:.0} %", part * 100.0)))),
    ]
}

fn trouble(report: &Report) -> Named {
    vec![("errors", report.errors_total().to_string()), ("steps not sent", report.steps_not_sent.to_string())]
}

/// A figure that runs are compared by.
pub struct Headline {
    pub name: &'static str,
    pub more_is_better: bool,
    /// Nothing where it was not measured.
    pub value: fn(&Report) -> Option<f64>,
    pub text: fn(f64) -> String,
}

/// What a comparison begins with.
pub const HEADLINES: [Headline; 6] = [
    Headline {
        name: "Last client booted after",
        more_is_better: false,
        value: |report| report.boots.last_secs,
        text: |secs| format!("{secs:.1} s"),
    },
    Headline {
        name: "Calls answered per second",
        more_is_better: true,
        value: |report| Some(report.operations_per_sec),
        text: grouped,
    },
    Headline {
        name: "Data read per second",
        more_is_better: true,
        value: |report| Some(report.bytes_read_per_sec),
        text: |bytes| size(bytes as u64),
    },
    Headline {
        name: "Latency of 99 of 100 calls at most",
        more_is_better: false,
        value: |report| Some(report.latency.p99_micros as f64),
        text: |micros| millis(micros as u64),
    },
    Headline {
        name: "Server CPU for each GiB",
        more_is_better: false,
        value: Report::server_cpu_per_gib,
        text: |secs| format!("{secs:.2} s"),
    },
    Headline {
        name: "Read from the server's disk",
        more_is_better: false,
        value: |report| report.disk.as_ref().map(|disk| disk.bytes_read as f64),
        text: |bytes| size(bytes as u64),
    },
];

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

/// 1234567.8 as `1,234,568`.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let parts: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storm::report::tests::sample;

    #[test]
    fn every_run_has_the_same_figures() {
        let names = |report: &Report| figures(report).iter().map(|figure| figure.name).collect::<Vec<_>>();
        let (one, mut other) = (sample("a"), sample("b"));
        (other.verified, other.disk, other.server_cpu_secs) = (true, None, Some(2.0));
        assert_eq!(names(&one), names(&other));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0.0, 999.6, 1000.0, 1_234_567.8].map(grouped), ["0", "1,000", "1,000", "1,234,568"]);
    }
}

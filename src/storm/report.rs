//! What came of a storm, as a document: one form for `--json`, for tables, for pages and for comparing runs.
//! `docs/storm.md` defines each figure.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::measure::{Boot, Counts, Series, Tick};
use super::wire::PROCEDURES;
use crate::error::{Error, Result};

/// The form of the document.
const FORM: u32 = 1;
/// Longest document that is read, in bytes.
const MAX_DOCUMENT: u64 = 64 << 20;
/// Points of a percentile curve or a distribution: enough for a plot.
const MAX_POINTS: usize = 1000;
/// Reports in one comparison.
const MAX_REPORTS: usize = 32;

/// What is known of a storm before it begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// What this run is called in comparisons.
    pub name: String,
    pub server: String,
    pub export: String,
    /// `trace FILE`, or `mix NAME`.
    pub load: String,
    pub clients: u32,
    /// `closed` or `open`.
    pub pace: String,
    /// `null`: no waiting at all.
    pub speed: Option<f64>,
    pub ramp: String,
    pub duration_secs: Option<f64>,
    pub seed: u64,
    /// RFC 3339.
    pub started_at: String,
    /// Recorded operations that cannot be done again.
    pub steps_left_out: u64,
}

/// What the server's disk read during the storm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskBytes {
    /// `mimeo` (chunks that it loaded, decompressed) or the name of a device.
    pub source: String,
    pub bytes_read: u64,
}

/// What was measured around a storm.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// Whether bytes were compared.
    pub verified: bool,
    pub disk: Option<DiskBytes>,
    pub server_cpu: Option<Duration>,
    /// Of this process.
    pub generator_cpu: Option<Duration>,
}

/// Times of many calls or boots, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub count: u64,
    pub min_micros: u64,
    pub mean_micros: f64,
    pub p50_micros: u64,
    pub p90_micros: u64,
    pub p99_micros: u64,
    pub p999_micros: u64,
    pub max_micros: u64,
}

impl Spread {
    fn of(times: &Histogram<u64>) -> Self {
        if times.is_empty() {
            return Self::default();
        }
        Self {
            count: times.len(),
            min_micros: times.min(),
            mean_micros: times.mean(),
            p50_micros: times.value_at_quantile(0.5),
            p90_micros: times.value_at_quantile(0.9),
            p99_micros: times.value_at_quantile(0.99),
            p999_micros: times.value_at_quantile(0.999),
            max_micros: times.max(),
        }
    }
}

/// One procedure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Procedure {
    pub procedure: String,
    pub errors: u64,
    pub latency: Spread,
    pub service: Spread,
}

/// When clients were done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Boots {
    pub clients_mounted: u64,
    pub clients_booted: u64,
    pub clients_failed: u64,
    /// Since the start of the storm; `null` if none is.
    pub first_secs: Option<f64>,
    pub median_secs: Option<f64>,
    pub last_secs: Option<f64>,
    /// Since each client's own start.
    pub own_median_secs: Option<f64>,
    pub own_p99_secs: Option<f64>,
    pub own_max_secs: Option<f64>,
    /// Since the start of the storm, ascending; of many, one in so many.
    pub at_secs: Vec<f64>,
}

/// The whole document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The form of this document.
    pub storm: u32,
    #[serde(flatten)]
    pub facts: Facts,
    pub elapsed_secs: f64,
    pub interrupted: bool,
    pub boots: Boots,
    pub operations: u64,
    pub operations_per_sec: f64,
    pub bytes_read: u64,
    pub bytes_read_per_sec: f64,
    pub bytes_written: u64,
    pub bytes_written_per_sec: f64,
    /// Whether bytes were compared.
    pub verified: bool,
    pub bytes_verified: u64,
    pub bytes_unverified: u64,
    pub bytes_wrong: u64,
    /// From when a call should have gone out.
    pub latency: Spread,
    /// From when it went out.
    pub service: Spread,
    /// (quantile, microseconds) of the latency.
    pub latency_curve: Vec<(f64, u64)>,
    pub procedures: Vec<Procedure>,
    pub errors: BTreeMap<String, u64>,
    /// One of each kind, in full.
    pub error_examples: Vec<String>,
    pub steps_not_sent: u64,
    pub lookups_added: u64,
    pub reconnects: u64,
    pub retransmissions: u64,
    pub jukebox_retries: u64,
    pub unprivileged_connections: u64,
    pub disk: Option<DiskBytes>,
    /// CPU time of the server's process and of the generator's, in seconds.
    #[serde(default)]
    pub server_cpu_secs: Option<f64>,
    #[serde(default)]
    pub generator_cpu_secs: Option<f64>,
    /// Cores that the generator may run on.
    #[serde(default)]
    pub generator_cores: Option<usize>,
    pub ticks: Vec<Tick>,
}

impl Report {
    pub fn new(facts: Facts, outcome: Outcome, around: Around) -> Self {
        let Around { verified, disk, server_cpu, generator_cpu } = around;
        let Outcome { tally, ticks, elapsed, interrupted } = outcome;
        let all = tally.all();
        let counts = tally.counts;
        let per_sec = |n: u64| n as f64 / elapsed.as_secs_f64().max(1e-6);
        let named = tally.series.iter().zip(PROCEDURES);
        let procedures = named.filter_map(|(series, name)| series.as_ref().map(|series| procedure(name, series)));
        Self {
            storm: FORM,
            facts,
            elapsed_secs: elapsed.as_secs_f64(),
            interrupted,
            boots: boots(&tally.boots, &counts),
            operations: all.latency.len(),
            operations_per_sec: per_sec(all.latency.len()),
            bytes_read: counts.bytes_read,
            bytes_read_per_sec: per_sec(counts.bytes_read),
            bytes_written: counts.bytes_written,
            bytes_written_per_sec: per_sec(counts.bytes_written),
            verified,
            bytes_verified: counts.bytes_verified,
            bytes_unverified: counts.bytes_unverified,
            bytes_wrong: counts.bytes_wrong,
            latency: Spread::of(&all.latency),
            service: Spread::of(&all.service),
            latency_curve: curve(&all.latency),
            procedures: procedures.collect(),
            error_examples: tally.errors.values().map(|kind| kind.example.clone()).collect(),
            errors: tally.errors.into_iter().map(|(kind, all)| (kind, all.times)).collect(),
            steps_not_sent: counts.not_sent,
            lookups_added: counts.lookups_added,
            reconnects: counts.reconnects,
            retransmissions: counts.retransmissions,
            jukebox_retries: counts.jukebox,
            unprivileged_connections: counts.unprivileged,
            disk,
            server_cpu_secs: server_cpu.map(|time| time.as_secs_f64()),
            generator_cpu_secs: generator_cpu.map(|time| time.as_secs_f64()),
            generator_cores: std::thread::available_parallelism().ok().map(usize::from),
            ticks,
        }
    }

    /// CPU seconds of the server for each GiB that was read or written.
    pub fn server_cpu_per_gib(&self) -> Option<f64> {
        let gib = (self.bytes_read + self.bytes_written) as f64 / f64::from(1 << 30);
        self.server_cpu_secs.filter(|_| gib > 0.0).map(|secs| secs / gib)
    }

    /// The part of its cores' time that the generator was busy.
    pub fn generator_busy(&self) -> Option<f64> {
        Some(self.generator_cpu_secs? / (self.generator_cores? as f64 * self.elapsed_secs.max(1e-6)))
    }

    /// Whether nothing went wrong: no error, no wrong byte, no client that gave up.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.boots.clients_failed == 0 && self.bytes_wrong == 0
    }

    pub fn errors_total(&self) -> u64 {
        self.errors.values().sum()
    }
}

fn procedure(name: &str, series: &Series) -> Procedure {
    let (latency, service) = (Spread::of(&series.latency), Spread::of(&series.service));
    Procedure { procedure: name.to_owned(), errors: series.errors, latency, service }
}

/// The percentile curve: dense where it is near 1.
fn curve(times: &Histogram<u64>) -> Vec<(f64, u64)> {
    let points = times.iter_quantiles(5).map(|point| (point.quantile_iterated_to(), point.value_iterated_to()));
    points.take(MAX_POINTS).collect()
}

fn boots(boots: &[Boot], counts: &Counts) -> Boots {
    let ascending = |of: fn(&Boot) -> Duration| {
        let mut secs: Vec<f64> = boots.iter().map(|boot| of(boot).as_secs_f64()).collect();
        secs.sort_by(f64::total_cmp);
        secs
    };
    let (at, own) = (ascending(|boot| boot.at), ascending(|boot| boot.took));
    Boots {
        clients_mounted: counts.mounted,
        clients_booted: boots.len() as u64,
        clients_failed: counts.failed,
        first_secs: at.first().copied(),
        median_secs: rank(&at, 0.5),
        last_secs: at.last().copied(),
        own_median_secs: rank(&own, 0.5),
        own_p99_secs: rank(&own, 0.99),
        own_max_secs: own.last().copied(),
        at_secs: thinned(at),
    }
}

/// The least value that so large a part of all does not exceed.
fn rank(ascending: &[f64], part: f64) -> Option<f64> {
    let rank = (part * ascending.len() as f64).ceil() as usize;
    ascending.get(rank.saturating_sub(1)).copied()
}

/// Every so manyth, the last one included.
fn thinned(values: Vec<f64>) -> Vec<f64> {
    let step = values.len().div_ceil(MAX_POINTS).max(1);
    let last = values.len() % step;
    values.into_iter().enumerate().filter(|(i, _)| (i + 1) % step == last % step).map(|(_, value)| value).collect()
}

/// Reports of runs before.
pub fn read_reports(paths: &[impl AsRef<Path>]) -> Result<Vec<Report>> {
    if paths.len() > MAX_REPORTS {
        let what = format!("{} runs in one comparison", paths.len());
        return Err(Error::invalid(what).remedy(format!("compare at most {MAX_REPORTS}")));
    }
    paths.iter().map(|path| read_report(path.as_ref())).collect()
}

fn read_report(path: &Path) -> Result<Report> {
    let name = || format!("run {}", path.display());
    let refuse = |error: Error| Error::new(error.kind(), name()).because(error).remedy("give what `--json` printed");
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(|e| Error::io(name(), e))?;
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut text).map_err(|e| Error::io(name(), e))?;
    if text.len() as u64 > MAX_DOCUMENT {
        return Err(refuse(Error::invalid(format!("it is longer than {MAX_DOCUMENT} bytes"))));
    }
    let report: Report =
        serde_json::from_slice(&text).map_err(|e| refuse(Error::invalid("it is no report of a storm").because(e)))?;
    if report.storm != FORM {
        return Err(refuse(Error::invalid(format!("its form is {}, this mimeo reads {FORM} only", report.storm))));
    }
    Ok(report)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::storm::measure::{CallTimes, Tally};

    pub fn sample(name: &str) -> Report {
        let mut tally = Tally::default();
        for i in 1..=1000u64 {
            let time = Duration::from_micros(i * 100);
            tally.call(&CallTimes { procedure: 6, latency: time, service: time, failed: false });
        }
        tally.error("READ NFS3ERR_IO", || "READ /clones/a<b>/x: NFS3ERR_IO".to_owned());
        tally.counts = Counts { bytes_read: 4_096_000, mounted: 3, ..Counts::default() };
        for secs in [4, 2, 9] {
            tally.boots.push(Boot { at: Duration::from_secs(secs), took: Duration::from_secs(secs - 1) });
        }
        let ticks = (1..=10).map(|i| Tick { at_secs: f64::from(i), operations_per_sec: 100.0, ..Tick::default() });
        let facts = Facts {
            name: name.to_owned(),
            server: "127.0.0.1:2049".to_owned(),
            export: "/clones/desk-{:04}".to_owned(),
            load: "mix boot".to_owned(),
            clients: 3,
            pace: "closed".to_owned(),
            speed: Some(1.0),
            ramp: "all".to_owned(),
            duration_secs: None,
            seed: 1,
            started_at: "2026-01-01T00:00:00.000Z".to_owned(),
            steps_left_out: 0,
        };
        let elapsed = Duration::from_secs(10);
        Report::new(facts, Outcome { tally, ticks: ticks.collect(), elapsed, interrupted: false }, Around::default())
    }

    #[test]
    fn figures_are_what_they_say() {
        let report = sample("a");
        let within = |value: u64, wanted: u64| value.abs_diff(wanted) * 500 <= wanted;
        let Spread { count, p50_micros, p99_micros, max_micros, .. } = report.latency;
        assert!(
            count == 1000 && within(p50_micros, 50_000) && within(p99_micros, 99_000) && within(max_micros, 100_000)
        );
        assert_eq!((report.operations_per_sec, report.bytes_read_per_sec), (100.0, 409_600.0));
        let Boots { first_secs, median_secs, last_secs, own_median_secs, .. } = report.boots;
        assert_eq!([first_secs, median_secs, last_secs, own_median_secs], [2.0, 4.0, 9.0, 3.0].map(Some));
        assert!(!report.is_clean());
        assert!(report.latency_curve.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn what_is_printed_can_be_compared() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        let report = sample("a");
        fs::write(&path, serde_json::to_vec(&report).unwrap()).unwrap();
        let read = read_reports(&[&path]).unwrap().remove(0);
        assert_eq!((read.facts, read.boots, read.latency), (report.facts, report.boots, report.latency));
        assert_eq!((read.errors, read.ticks), (report.errors, report.ticks));
        fs::write(&path, "{}").unwrap();
        assert!(read_reports(&[&path]).unwrap_err().to_string().contains("no report of a storm"));
    }

    #[test]
    fn long_distributions_are_thinned_and_keep_their_end() {
        for n in [0usize, 1, 999, 1000, 1001, 9999, 10_000] {
            let thin = thinned((0..n).map(|i| i as f64).collect());
            assert!(thin.len() <= MAX_POINTS, "{n}: {}", thin.len());
            assert_eq!(thin.last().copied(), n.checked_sub(1).map(|i| i as f64), "{n}");
        }
    }
}

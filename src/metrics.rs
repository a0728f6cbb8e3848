//! Every metric: name, kind, unit and help in one table.
//!
//! Nothing is counted on the way of a request for the sake of this module: a scrape takes
//! [`Readings`] from counters that the layers keep anyway and writes them down in OpenMetrics text.
//! `docs/metrics.md` lists the same names, and a test holds it to that. Names are stable.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// What the daemon's parts said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    pub images: u64,
    pub versions: u64,
    pub clones: u64,
    pub catalog_revision: u64,
    pub cache_loads: u64,
    pub cache_loaded_bytes: u64,
    pub ahead_loads: u64,
    pub ahead_loaded_bytes: u64,
    pub ahead_used: u64,
    pub ahead_used_bytes: u64,
    pub ahead_wasted_bytes: u64,
    pub cache_bytes: u64,
    pub cache_capacity_bytes: u64,
    pub store_chunks: u64,
    pub store_bytes: u64,
    pub store_quarantined: u64,
    pub imports_done: u64,
    pub imports_failed: u64,
    pub uptime_secs: u64,
}

/// Whether a metric only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

/// One metric.
pub struct Metric {
    /// Without the prefix `mimeo_` and without unit and `_total`, which follow from the rest.
    stem: &'static str,
    pub kind: Kind,
    unit: Option<Unit>,
    pub help: &'static str,
    read: fn(&Readings) -> u64,
}

impl Metric {
    /// The name as it is scraped.
    pub fn name(&self) -> String {
        let unit = self.unit.as_ref().map_or(String::new(), |unit| format!("_{}", unit.as_str()));
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("mimeo_{}{unit}{total}", self.stem)
    }

    fn encode(&self, readings: &Readings, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let value = (self.read)(readings);
        let metric_type = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        };
        let encoder = encoder.encode_descriptor(self.stem, self.help, self.unit.as_ref(), metric_type)?;
        match self.kind {
            Kind::Counter => ConstCounter::new(value).encode(encoder),
            Kind::Gauge => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder),
        }
    }
}

const fn gauge(stem: &'static str, unit: Option<Unit>, help: &'static str, read: fn(&Readings) -> u64) -> Metric {
    Metric { stem, kind: Kind::Gauge, unit, help, read }
}

const fn counter(stem: &'static str, unit: Option<Unit>, help: &'static str, read: fn(&Readings) -> u64) -> Metric {
    Metric { stem, kind: Kind::Counter, unit, help, read }
}

/// Every metric.
pub static METRICS: [Metric; 19] = [
    gauge("images", None, "Images in the catalog.", |r| r.images),
    gauge("versions", None, "Versions that are served or still read by a clone.", |r| r.versions),
    gauge("clones", None, "Clones in the catalog.", |r| r.clones),
    gauge("catalog_revision", None, "Changes that the catalog has seen.", |r| r.catalog_revision),
    counter("cache_loads", None, "Chunks read from disk into the cache.", |r| r.cache_loads),
    counter("cache_loaded", Some(Unit::Bytes), "Bytes of these, decompressed.", |r| r.cache_loaded_bytes),
    counter("ahead_loads", None, "Of the loads, those ahead of any reader.", |r| r.ahead_loads),
    counter("ahead_loaded", Some(Unit::Bytes), "Bytes of these, decompressed.", |r| r.ahead_loaded_bytes),
    counter("ahead_used", None, "Chunks read ahead that a reader then asked for.", |r| r.ahead_used),
    counter("ahead_used", Some(Unit::Bytes), "Bytes of these.", |r| r.ahead_used_bytes),
    counter("ahead_wasted", Some(Unit::Bytes), "Bytes read ahead and dropped unused.", |r| r.ahead_wasted_bytes),
    gauge("cache_used", Some(Unit::Bytes), "Memory held by cached chunks.", |r| r.cache_bytes),
    gauge("cache_capacity", Some(Unit::Bytes), "What the cache may hold.", |r| r.cache_capacity_bytes),
    gauge("store_chunks", None, "Distinct chunks in the store.", |r| r.store_chunks),
    gauge("store_used", Some(Unit::Bytes), "Bytes that they take in packs.", |r| r.store_bytes),
    gauge("store_quarantined", None, "Chunks known to be damaged; never served.", |r| r.store_quarantined),
    counter("imports_done", None, "Imports that made a version since the start.", |r| r.imports_done),
    counter("imports_failed", None, "Imports that failed or were cancelled since the start.", |r| r.imports_failed),
    gauge("uptime", Some(Unit::Seconds), "Time since the daemon started.", |r| r.uptime_secs),
];

/// What imports count, since no other layer does.
#[derive(Debug, Default)]
pub struct ImportCounters {
    done: AtomicU64,
    failed: AtomicU64,
}

impl ImportCounters {
    pub fn count(&self, succeeded: bool) {
        let counter = if succeeded { &self.done } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Table(Arc<Readings>);

impl Collector for Table {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        METRICS.iter().try_for_each(|metric| metric.encode(&self.0, &mut encoder))
    }
}

/// The content type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `readings` as OpenMetrics text.
pub fn encode(readings: Readings) -> String {
    let mut registry = Registry::with_prefix("mimeo");
    registry.register_collector(Box::new(Table(Arc::new(readings))));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("writing to a string cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_text_agree() {
        let text = encode(Readings { clones: 1000, cache_loaded_bytes: 77, ..Readings::default() });
        for metric in &METRICS {
            let line = format!("\n{} ", metric.name());
            assert!(text.contains(&line), "{} is missing in\n{text}", metric.name());
        }
        assert!(text.contains("\nmimeo_clones 1000\n"), "{text}");
        assert!(text.contains("\nmimeo_cache_loaded_bytes_total 77\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn every_metric_is_documented() {
        let docs = include_str!("../docs/metrics.md");
        for metric in &METRICS {
            assert!(docs.contains(&format!("`{}`", metric.name())), "{} is not in docs/metrics.md", metric.name());
        }
    }
}

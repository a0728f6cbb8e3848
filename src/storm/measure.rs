//! What clients report while they run, and what becomes of it.
//!
//! Clients write into shards, each under a lock of its own that they hold for the time of one entry. Once a
//! second the shards are emptied into the totals; what they held is that second's tick. Histograms are HDR
//! (three significant digits, in microseconds), so a percentile is exact to 0.1 %.
//!
//! Two times are kept of each call: the latency, from when it should have gone out to its answer, and the
//! service time, from when it did go out. In a closed loop the first includes what a client waits for a free
//! place among its calls under way; in an open loop all that it fell behind.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::wire::PROCEDURES;

/// More kinds of errors than these are counted as one.
const MAX_ERROR_KINDS: usize = 64;
const OTHER_ERRORS: &str = "other errors";

/// Of one procedure, or of all.
#[derive(Clone, Debug)]
pub struct Series {
    pub latency: Histogram<u64>,
    pub service: Histogram<u64>,
    /// Of these, calls whose answer was an error that the trace does not have.
    pub errors: u64,
}

impl Default for Series {
    fn default() -> Self {
        let new = || Histogram::new(3).expect("three significant digits are allowed");
        Self { latency: new(), service: new(), errors: 0 }
    }
}

impl Series {
    fn record(&mut self, call: &CallTimes) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(1, MAX_MICROS);
        self.latency.record(micros(call.latency)).expect(GROWS);
        self.service.record(micros(call.service)).expect(GROWS);
        self.errors += u64::from(call.failed);
    }

    pub fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect(GROWS);
        self.service.add(&other.service).expect(GROWS);
        self.errors += other.errors;
    }
}

/// Why a histogram takes any time that is bounded.
const GROWS: &str = "a histogram grows as it must";
/// Longest time that is told apart.
const MAX_MICROS: u64 = 24 * 3600 * 1_000_000;

/// One call that was answered.
#[derive(Clone, Copy, Debug)]
pub struct CallTimes {
    pub procedure: u32,
    pub latency: Duration,
    pub service: Duration,
    pub failed: bool,
}

/// One client that has come to the end of its plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Boot {
    /// Since the start of the storm.
    pub at: Duration,
    /// Since the client's own start.
    pub took: Duration,
}

/// Counts that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// Of the bytes read: compared with what they have to be, and right.
    pub bytes_verified: u64,
    /// Compared, and wrong.
    pub bytes_wrong: u64,
    /// Not compared, because nobody knows what they have to be.
    pub bytes_unverified: u64,
    /// Clients that mounted.
    pub mounted: u64,
    /// Clients that gave up.
    pub failed: u64,
    /// Connections made from a port above 1023.
    pub unprivileged: u64,
    pub reconnects: u64,
    pub retransmissions: u64,
    /// Calls that were answered JUKEBOX and made again.
    pub jukebox: u64,
    /// LOOKUPs that no plan has, for handles that it takes for known.
    pub lookups_added: u64,
    /// Steps that were due at the end and had not gone out.
    pub not_sent: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        let Self {
            bytes_read,
            bytes_written,
            bytes_verified,
            bytes_wrong,
            bytes_unverified,
            mounted,
            failed,
            unprivileged,
            reconnects,
            retransmissions,
            jukebox,
            lookups_added,
            not_sent,
        } = other;
        self.bytes_read += bytes_read;
        self.bytes_written += bytes_written;
        self.bytes_verified += bytes_verified;
        self.bytes_wrong += bytes_wrong;
        self.bytes_unverified += bytes_unverified;
        self.mounted += mounted;
        self.failed += failed;
        self.unprivileged += unprivileged;
        self.reconnects += reconnects;
        self.retransmissions += retransmissions;
        self.jukebox += jukebox;
        self.lookups_added += lookups_added;
        self.not_sent += not_sent;
    }
}

/// Errors of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    pub times: u64,
    /// One of them, in full.
    pub example: String,
}

/// What was reported in some time.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By procedure, as they are numbered.
    pub series: [Option<Box<Series>>; PROCEDURES.len()],
    pub counts: Counts,
    /// By kind.
    pub errors: BTreeMap<String, Failures>,
    pub boots: Vec<Boot>,
}

impl Tally {
    pub fn call(&mut self, call: &CallTimes) {
        if let Some(series) = self.series.get_mut(call.procedure as usize) {
            series.get_or_insert_default().record(call);
        }
    }

    /// Count an error of a kind; `example` says which object it was about.
    pub fn error(&mut self, kind: &str, example: impl FnOnce() -> String) {
        self.count_errors(kind, 1, example);
    }

    fn count_errors(&mut self, kind: &str, times: u64, example: impl FnOnce() -> String) {
        let full = self.errors.len() >= MAX_ERROR_KINDS && !self.errors.contains_key(kind);
        let kind = if full { OTHER_ERRORS } else { kind };
        match self.errors.get_mut(kind) {
            Some(known) => known.times += times,
            None => drop(self.errors.insert(kind.to_owned(), Failures { times, example: example() })),
        }
    }

    fn add(&mut self, other: Self) {
        for (mine, theirs) in self.series.iter_mut().zip(&other.series) {
            if let Some(theirs) = theirs {
                mine.get_or_insert_default().add(theirs);
            }
        }
        self.counts.add(&other.counts);
        other.errors.into_iter().for_each(|(kind, new)| self.count_errors(&kind, new.times, || new.example));
        self.boots.extend(other.boots);
    }

    /// All procedures together.
    pub fn all(&self) -> Series {
        let mut all = Series::default();
        self.series.iter().flatten().for_each(|series| all.add(series));
        all
    }

    pub fn errors_total(&self) -> u64 {
        self.errors.values().map(|kind| kind.times).sum()
    }
}

/// One second of a storm.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Tick {
    /// Its end, since the start of the storm.
    pub at_secs: f64,
    pub operations_per_sec: f64,
    pub bytes_read_per_sec: f64,
    pub bytes_written_per_sec: f64,
    /// Of the latency, in microseconds; 0 if nothing was answered.
    pub p50_micros: u64,
    pub p99_micros: u64,
    pub p999_micros: u64,
    /// Errors in it.
    pub errors: u64,
    /// Clients so far.
    pub mounted: u64,
    pub booted: u64,
    pub failed: u64,
}

/// Where clients report to.
pub struct Meters {
    shards: Vec<Mutex<Tally>>,
    totals: Mutex<Totals>,
}

/// All that was reported until the last tick.
#[derive(Default)]
struct Totals {
    tally: Tally,
    ticks: Vec<Tick>,
}

impl Meters {
    pub fn new(shards: usize) -> Self {
        Self { shards: (0..shards.max(1)).map(|_| Mutex::default()).collect(), totals: Mutex::default() }
    }

    /// The shard of a client.
    pub fn of(&self, client: u32) -> &Mutex<Tally> {
        &self.shards[client as usize % self.shards.len()]
    }

    /// Empty the shards into the totals: the time since the last tick becomes one.
    pub fn tick(&self, now: Duration) -> Tick {
        let mut fresh = Tally::default();
        self.shards.iter().for_each(|shard| fresh.add(std::mem::take(&mut *shard.lock())));
        let mut totals = self.totals.lock();
        let since = totals.ticks.last().map_or(0.0, |tick| tick.at_secs);
        let secs = (now.as_secs_f64() - since).max(1e-6);
        let all = fresh.all().latency;
        let per_sec = |n: u64| n as f64 / secs;
        let mut tick = Tick {
            at_secs: now.as_secs_f64(),
            operations_per_sec: per_sec(all.len()),
            bytes_read_per_sec: per_sec(fresh.counts.bytes_read),
            bytes_written_per_sec: per_sec(fresh.counts.bytes_written),
            p50_micros: all.value_at_quantile(0.5),
            p99_micros: all.value_at_quantile(0.99),
            p999_micros: all.value_at_quantile(0.999),
            errors: fresh.errors_total(),
            ..Tick::default()
        };
        totals.tally.add(fresh);
        let counts = totals.tally.counts;
        (tick.mounted, tick.booted, tick.failed) = (counts.mounted, totals.tally.boots.len() as u64, counts.failed);
        totals.ticks.push(tick);
        tick
    }

    /// All of it; what was reported since the last tick becomes one.
    pub fn finish(self, now: Duration) -> (Tally, Vec<Tick>) {
        self.tick(now);
        let Totals { tally, ticks } = self.totals.into_inner();
        (tally, ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(procedure: u32, millis: u64) -> CallTimes {
        let time = Duration::from_millis(millis);
        CallTimes { procedure, latency: time, service: time / 2, failed: false }
    }

    #[test]
    fn ticks_hold_their_own_second_and_totals_hold_all() {
        let meters = Meters::new(2);
        for (client, millis) in [(0, 10), (1, 20), (2, 30)] {
            meters.of(client).lock().call(&call(6, millis));
        }
        let first = meters.tick(Duration::from_secs(1));
        assert_eq!((first.operations_per_sec, first.p50_micros / 1000), (3.0, 20));
        meters.of(0).lock().call(&call(1, 500));
        meters.of(1).lock().boots.push(Boot { at: Duration::from_secs(2), took: Duration::from_secs(1) });
        let (tally, ticks) = meters.finish(Duration::from_secs(3));
        assert_eq!((ticks.len(), ticks[1].operations_per_sec, ticks[1].booted), (2, 0.5, 1));
        let all = tally.all();
        assert_eq!((all.latency.len(), all.latency.max() / 1000, all.service.max() / 1000), (4, 500, 250));
        assert_eq!(tally.series.iter().flatten().count(), 2);
    }

    #[test]
    fn kinds_of_errors_are_bounded() {
        let mut tally = Tally::default();
        for kind in 0..1000 {
            tally.error(&format!("kind {kind}"), || format!("object {kind}"));
        }
        assert_eq!((tally.errors.len(), tally.errors_total()), (MAX_ERROR_KINDS + 1, 1000));
        let other = &tally.errors[OTHER_ERRORS];
        assert_eq!((other.times, &*other.example), (1000 - MAX_ERROR_KINDS as u64, "object 64"));
    }
}

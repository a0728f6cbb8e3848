//! Wall time and monotonic time.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A point in wall time: seconds since 1970 (negative before it) and nanoseconds below a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

impl Time {
    pub const fn new(secs: i64, nanos: u32) -> Self {
        Self { secs, nanos }
    }

    /// The next representable instant. Used where a time must grow although the clock did not.
    #[must_use]
    pub fn next(self) -> Self {
        if self.nanos < 999_999_999 {
            Self { secs: self.secs, nanos: self.nanos + 1 }
        } else {
            Self { secs: self.secs + 1, nanos: 0 }
        }
    }

    /// RFC 3339 in UTC, to the millisecond.
    pub fn rfc3339(self) -> String {
        let nanos = i32::try_from(self.nanos).unwrap_or(0) / 1_000_000 * 1_000_000;
        // What no calendar has (beyond the year 9999) is shown as seconds.
        Timestamp::new(self.secs, nanos).map_or_else(|_| self.secs.to_string(), |t| format!("{t:.3}"))
    }

    /// Milliseconds since 1970, 0 before.
    pub fn millis(self) -> u64 {
        u64::try_from(self.secs).map_or(0, |s| s.saturating_mul(1000) + u64::from(self.nanos / 1_000_000))
    }
}

pub trait Clock: Send + Sync + 'static {
    /// Wall time. May step in either direction.
    fn now(&self) -> Time;
    /// Time since some fixed start. Never steps back.
    fn uptime(&self) -> Duration;
}

/// The machine's clock.
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is where wall time comes from")]
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
    }

    fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that moves only when told to. Tests set it, also backwards.
pub struct ManualClock {
    nanos: AtomicU64,
    /// By how many seconds wall time is off.
    wall_secs: AtomicI64,
}

impl ManualClock {
    pub fn at_secs(secs: u64) -> Self {
        Self { nanos: AtomicU64::new(secs * 1_000_000_000), wall_secs: AtomicI64::new(0) }
    }

    pub fn set_secs(&self, secs: u64) {
        self.nanos.store(secs * 1_000_000_000, Ordering::SeqCst);
    }

    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::SeqCst);
    }

    /// As a start of the process does it: uptime begins anew, wall time goes on.
    pub fn restart(&self) {
        let secs = self.nanos.swap(0, Ordering::SeqCst) / 1_000_000_000;
        self.step_wall(secs as i64);
    }

    /// Let wall time step, in either direction, and uptime go on as it was.
    pub fn step_wall(&self, secs: i64) {
        self.wall_secs.fetch_add(secs, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        let nanos = self.nanos.load(Ordering::SeqCst);
        let secs = (nanos / 1_000_000_000) as i64 + self.wall_secs.load(Ordering::SeqCst);
        Time { secs, nanos: (nanos % 1_000_000_000) as u32 }
    }

    fn uptime(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_to_the_millisecond() {
        assert_eq!(Time::new(0, 0).rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Time::new(1_784_600_000, 123_999_999).rfc3339(), "2026-07-21T02:13:20.123Z");
        assert_eq!(Time::new(i64::MAX, 0).rfc3339(), i64::MAX.to_string());
    }
}

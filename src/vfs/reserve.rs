//! What must stay free on the disk, so that reading, removing and collecting go on when it is full.
//!
//! The disk is asked now and then, never by who holds the lock of an overlay. In between, what writes
//! take is counted; and of what they took lately some may not have reached the disk yet, so that its
//! answer leaves it out.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::{Env, Space};
use crate::error::{Error, Result};

/// How long an answer of the disk counts.
const FRESH: Duration = Duration::from_secs(1);
/// How many bytes are taken before the disk is asked again all the same.
const ASK_AFTER: u64 = 16 << 20;
/// Most bytes that were taken and are not on the disk: what waits in the log, about.
const MAX_PENDING: u64 = 128 << 20;

pub(super) struct Reserve {
    env: Env,
    dir: PathBuf,
    asked: Mutex<Asked>,
    /// The last answer to who wanted to know, and when that was.
    told: Mutex<Option<(Duration, Space)>>,
    /// What may be taken before the reserve is touched.
    left: AtomicI64,
    /// Bytes that were taken since the disk was asked.
    taken: AtomicU64,
}

#[derive(Default)]
struct Asked {
    /// After the clock's start.
    at: Option<Duration>,
    /// Bytes that were taken before, and may not be on the disk yet.
    pending: u64,
    /// When the last of them may be counted as written.
    settled: Duration,
}

impl Reserve {
    pub fn new(env: Env, dir: PathBuf) -> Self {
        Self {
            env,
            dir,
            asked: Mutex::default(),
            told: Mutex::default(),
            left: AtomicI64::new(0),
            taken: AtomicU64::new(0),
        }
    }

    /// What the disk has and has free; as of a second ago at most, as clients ask often.
    pub fn space(&self) -> Result<Space> {
        let now = self.env.clock.uptime();
        let mut told = self.told.lock();
        match *told {
            Some((at, space)) if now.saturating_sub(at) < FRESH => Ok(space),
            _ => {
                let space = self.ask()?;
                *told = Some((now, space));
                Ok(space)
            }
        }
    }

    fn ask(&self) -> Result<Space> {
        self.env.disk.space(&self.dir).map_err(|e| Error::io(format!("the disk of {}", self.dir.display()), e))
    }

    /// Ask the disk, if the last answer is old.
    pub fn refresh(&self) -> Result<()> {
        let now = self.env.clock.uptime();
        // Who finds somebody asking takes the last answer.
        let Some(mut asked) = self.asked.try_lock() else { return Ok(()) };
        let fresh = asked.at.is_some_and(|at| now.saturating_sub(at) < FRESH);
        if fresh && self.taken.load(Ordering::Relaxed) < ASK_AFTER {
            return Ok(());
        }
        let space = self.ask()?;
        let taken = self.taken.swap(0, Ordering::Relaxed);
        if now >= asked.settled {
            asked.pending = 0;
        }
        if taken > 0 {
            (asked.pending, asked.settled) = ((asked.pending + taken).min(MAX_PENDING), now + FRESH);
        }
        asked.at = Some(now);
        let left = i128::from(space.free) - i128::from(space.reserve()) - i128::from(asked.pending);
        self.left.store(left.clamp(i64::MIN.into(), i64::MAX.into()) as i64, Ordering::Relaxed);
        Ok(())
    }

    /// A write took so many bytes.
    pub fn take(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.left.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Whether no more than the reserve is left.
    pub fn is_touched(&self) -> bool {
        self.left.load(Ordering::Relaxed) < 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::{ManualClock, SeededRng, SimDisk};

    #[test]
    fn what_was_taken_counts_before_the_disk_shows_it() {
        let (disk, clock) = (Arc::new(SimDisk::new(1)), Arc::new(ManualClock::at_secs(1)));
        disk.set_capacity(1 << 30);
        let env = Env { disk: disk.clone(), clock: clock.clone(), rng: Arc::new(SeededRng::new(1)) };
        let reserve = Reserve::new(env, PathBuf::from("/"));
        reserve.refresh().unwrap();
        assert!(!reserve.is_touched());
        assert_eq!(reserve.space().unwrap().total, 1 << 30);
        disk.set_capacity(1 << 31);
        assert_eq!(reserve.space().unwrap().total, 1 << 30, "asked a moment ago");
        clock.advance(FRESH);
        assert_eq!(reserve.space().unwrap().total, 1 << 31);
        disk.set_capacity(1 << 30);
        // No time passes, and nothing reaches the disk.
        let taken = (1..=1100).take_while(|_| {
            reserve.take(1 << 20);
            reserve.refresh().unwrap();
            !reserve.is_touched()
        });
        assert!(taken.count() > 1000, "as the disk shows, most of it has room");
        reserve.take(1 << 30);
        assert!(reserve.is_touched(), "and yet it is taken");
        for _ in 0..2 {
            clock.advance(FRESH);
            reserve.refresh().unwrap();
        }
        assert!(!reserve.is_touched(), "if the disk still has the room, it was not needed");
    }
}

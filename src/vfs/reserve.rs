//! What must stay free on the disk, so that reading, removing and collecting go on when it is full.
//!
//! The disk is asked at most once in [`FRESH`], however many writes come, and never by who holds the
//! lock of an overlay: the reserve is far larger than what fits into that time, and the log has the
//! last word.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::{Env, Space};
use crate::error::{Error, Result};

/// How long an answer of the disk counts.
const FRESH: Duration = Duration::from_secs(1);

pub(super) struct Reserve {
    env: Env,
    dir: PathBuf,
    /// When the disk was asked, after the clock's start.
    asked: Mutex<Option<Duration>>,
    touched: AtomicBool,
}

impl Reserve {
    pub fn new(env: Env, dir: PathBuf) -> Self {
        Self { env, dir, asked: Mutex::new(None), touched: AtomicBool::new(false) }
    }

    pub fn space(&self) -> Result<Space> {
        self.env.disk.space(&self.dir).map_err(|e| Error::io(format!("the disk of {}", self.dir.display()), e))
    }

    /// Ask the disk, if the last answer is old.
    pub fn refresh(&self) -> Result<()> {
        let now = self.env.clock.uptime();
        // Who finds somebody asking takes the last answer.
        let Some(mut asked) = self.asked.try_lock() else { return Ok(()) };
        if asked.is_none_or(|asked| now.saturating_sub(asked) >= FRESH) {
            let space = self.space()?;
            self.touched.store(space.free < space.reserve(), Ordering::Relaxed);
            *asked = Some(now);
        }
        Ok(())
    }

    /// Whether less than the reserve was free.
    pub fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }
}

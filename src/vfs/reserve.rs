//! What must stay free on the disk, so that reading, removing and collecting go on when it is full.
//!
//! The disk is asked at most once in [`FRESH`], however many writes come: the reserve is far larger
//! than what fits into that time, and the log has the last word.

use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::{Env, Space};
use crate::error::{Error, Result};

/// How long an answer of the disk counts.
const FRESH: Duration = Duration::from_secs(1);

pub(super) struct Reserve {
    env: Env,
    dir: PathBuf,
    /// When the disk was asked, and whether writes took from the reserve.
    last: Mutex<Option<(Duration, bool)>>,
}

impl Reserve {
    pub fn new(env: Env, dir: PathBuf) -> Self {
        Self { env, dir, last: Mutex::new(None) }
    }

    pub fn space(&self) -> Result<Space> {
        self.env.disk.space(&self.dir).map_err(|e| Error::io(format!("the disk of {}", self.dir.display()), e))
    }

    /// Whether less than the reserve is free.
    pub fn is_touched(&self) -> Result<bool> {
        let now = self.env.clock.uptime();
        let mut last = self.last.lock();
        if let Some((asked, touched)) = *last
            && now.saturating_sub(asked) < FRESH
        {
            return Ok(touched);
        }
        let space = self.space()?;
        let touched = space.free < space.reserve();
        *last = Some((now, touched));
        Ok(touched)
    }
}

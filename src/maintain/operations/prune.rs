//! Forgetting operations that ended long ago, and the snapshots that they took.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::env::{Env, Time};
use crate::error::Result;
use crate::image::{Fleet, Retention};
use crate::maintain::worker::{Step, Worker};

/// By how much the wall clock may be set forward while the daemon runs, in seconds.
const MAX_STEP_SECS: i64 = 3600;

pub struct Prune {
    fleet: Arc<Fleet>,
    env: Env,
    keep: Retention,
    /// By both clocks.
    begun: (Time, Duration),
}

impl Prune {
    pub fn new(fleet: Arc<Fleet>, env: Env, keep: Retention) -> Self {
        let begun = (env.clock.now(), env.clock.uptime());
        Self { fleet, env, keep, begun }
    }

    /// Whether the wall clock went on about as time did: else nothing is judged by its age.
    fn is_steady(&self) -> bool {
        let (wall, uptime) = self.begun;
        let passed = (self.env.clock.uptime() - uptime).as_secs();
        let shown = self.env.clock.now().secs.saturating_sub(wall.secs);
        shown <= i64::try_from(passed).unwrap_or(i64::MAX).saturating_add(MAX_STEP_SECS)
    }
}

impl Worker for Prune {
    fn name(&self) -> &'static str {
        "prune operations"
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        async move {
            if !self.is_steady() {
                return Ok(Step::IDLE);
            }
            self.fleet.forget_operations(self.keep).await?;
            let more = self.fleet.forget_snapshots(self.keep.window).await? > 0;
            Ok(Step { more, ..Step::IDLE })
        }
        .boxed()
    }
}

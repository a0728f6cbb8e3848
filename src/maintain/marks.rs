//! Letting go of the positions of overlays that nothing names any more, after the grace.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::worker::{Step, Worker};
use crate::env::Env;
use crate::error::Result;
use crate::image::Fleet;

pub struct Marks {
    fleet: Arc<Fleet>,
    env: Env,
    grace: Duration,
}

impl Marks {
    pub fn new(fleet: Arc<Fleet>, env: Env, grace: Duration) -> Self {
        Self { fleet, env, grace }
    }
}

impl Worker for Marks {
    fn name(&self) -> &'static str {
        "marks"
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        async {
            self.fleet.forget_marks(self.env.clock.uptime(), self.grace).await;
            Ok(Step::IDLE)
        }
        .boxed()
    }
}

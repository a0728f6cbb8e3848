//! Forgetting operations that ended long ago, and the snapshots that they took.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::error::Result;
use crate::image::{Fleet, Retention};
use crate::maintain::worker::{Step, Worker};

pub struct Prune {
    fleet: Arc<Fleet>,
    keep: Retention,
}

impl Prune {
    pub fn new(fleet: Arc<Fleet>, keep: Retention) -> Self {
        Self { fleet, keep }
    }
}

impl Worker for Prune {
    fn name(&self) -> &'static str {
        "prune operations"
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        async move {
            self.fleet.forget_operations(self.keep).await?;
            let more = self.fleet.forget_snapshots(self.keep.window).await? > 0;
            Ok(Step { more, ..Step::IDLE })
        }
        .boxed()
    }
}

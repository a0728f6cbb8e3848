//! Flattening of clones with many sealed layers, one at a time.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::worker::{Step, Worker};
use crate::error::Result;
use crate::image::Fleet;

pub struct Flatten {
    fleet: Arc<Fleet>,
}

impl Flatten {
    pub fn new(fleet: Arc<Fleet>) -> Self {
        Self { fleet }
    }

    async fn clone(&self) -> Result<Step> {
        let deep = self.fleet.deep_clones();
        let Some(clone) = deep.first() else { return Ok(Step::IDLE) };
        self.fleet.flatten(clone).await?;
        Ok(Step { bytes: 0, more: deep.len() > 1 })
    }
}

impl Worker for Flatten {
    fn name(&self) -> &'static str {
        "flatten"
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        self.clone().boxed()
    }
}

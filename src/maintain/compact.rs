//! Compaction of the delta log, one segment at a time.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::worker::{Step, Worker};
use crate::error::Result;
use crate::overlay::OverlayStore;

pub struct Compact {
    overlays: Arc<OverlayStore>,
}

impl Compact {
    pub fn new(overlays: Arc<OverlayStore>) -> Self {
        Self { overlays }
    }

    async fn segment(&self) -> Result<Step> {
        let done = self.overlays.compact().await?;
        Ok(Step { bytes: done.bytes_moved, more: done.segments_emptied > 0 })
    }
}

impl Worker for Compact {
    fn name(&self) -> &'static str {
        "compact"
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        self.segment().boxed()
    }
}

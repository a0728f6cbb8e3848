//! Compaction of the delta log, one segment at a time.
//!
//! Owns the pass: the segments that are sparse when it begins, each of which is tried once. So what it
//! writes, and a segment that cannot be emptied, keep no other work from its turn.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::worker::{Step, Worker};
use crate::error::Result;
use crate::overlay::OverlayStore;
use crate::overlay::log::SegmentId;

pub struct Compact {
    overlays: Arc<OverlayStore>,
    /// What is left of this pass, the next one last.
    pass: Vec<SegmentId>,
}

impl Compact {
    pub fn new(overlays: Arc<OverlayStore>) -> Self {
        Self { overlays, pass: Vec::new() }
    }

    async fn segment(&mut self) -> Result<Step> {
        if self.pass.is_empty() {
            self.pass = self.overlays.sparse_segments().await?;
        }
        let done = self.overlays.compact(self.pass.pop()).await?;
        Ok(Step { bytes: done.bytes_moved, more: !self.pass.is_empty() })
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

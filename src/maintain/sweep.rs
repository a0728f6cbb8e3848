//! Sweeping: what large files left behind when they were removed.
//!
//! Only in the overlays of current views: those of former views go as a whole, and a change there would
//! make it look as if somebody still wrote to them.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::worker::{Step, Worker};
use crate::error::Result;
use crate::image::Fleet;
use crate::overlay::{OverlayId, OverlayStore, SweepCursor};

pub struct Sweep {
    fleet: Arc<Fleet>,
    overlays: Arc<OverlayStore>,
    /// What is left of this round, the next one last.
    todo: Vec<OverlayId>,
    cursor: SweepCursor,
}

impl Sweep {
    pub fn new(fleet: Arc<Fleet>, overlays: Arc<OverlayStore>) -> Self {
        Self { fleet, overlays, todo: Vec::new(), cursor: SweepCursor::default() }
    }

    async fn round(&mut self) -> Result<Step> {
        if self.todo.is_empty() {
            self.todo = self.unswept();
        }
        let Some(id) = self.todo.last() else { return Ok(Step::IDLE) };
        let swept = self.overlays.sweep(*id, std::mem::take(&mut self.cursor)).await;
        match swept {
            Ok(Some(next)) => self.cursor = next,
            Ok(None) | Err(_) => drop(self.todo.pop()),
        }
        swept?;
        Ok(Step { bytes: 0, more: !self.todo.is_empty() })
    }

    fn unswept(&self) -> Vec<OverlayId> {
        let unswept = self.overlays.unswept();
        if unswept.is_empty() {
            return unswept;
        }
        let state = self.fleet.catalog().state();
        let current: std::collections::HashSet<OverlayId> = state.clones().map(|clone| clone.view.top).collect();
        unswept.into_iter().filter(|id| current.contains(id)).collect()
    }
}

impl Worker for Sweep {
    fn name(&self) -> &'static str {
        "sweep"
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        self.round().boxed()
    }
}

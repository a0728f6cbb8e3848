//! Mounts that wait for the switches of their clones: those that one operation staged are switched together.
//!
//! Owns who waits. The first one is switched at once; who comes meanwhile waits for that, and goes with all others that
//! do, in one commit. A clone that is used, or whose private writes conflict, is left out and goes on waiting for its
//! next mount.
//!
//! Invariant: an operation has an entry exactly as long as a task switches those who wait there. The callers see to it
//! that a clone waits once.
//!
//! Failure story: if all of them together are refused for the sake of one, they are tried one by one, and each is told
//! what became of it.

use std::collections::HashMap;
use std::mem::take;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::repoint::{RepointDone, RepointOutcome};
use super::{Activated, Fleet};
use crate::error::{Error, Result};
use crate::image::readers::Quiet;
use crate::image::record::{CloneRecord, ExportId, OperationId};

/// Who waits, by the operation that staged the clone.
pub(super) type Mounts = Mutex<HashMap<OperationId, Vec<Mount>>>;

/// A clone that is switched when nobody uses it, and who wants to know.
pub(super) struct Mount {
    clone: Arc<CloneRecord>,
    quiet: Arc<dyn Quiet>,
    answer: oneshot::Sender<Result<Activated>>,
}

/// Each clone as its own mount sees it.
struct Each(HashMap<ExportId, Arc<dyn Quiet>>);

impl Quiet for Each {
    fn is_quiet(&self, clone: ExportId) -> bool {
        self.0.get(&clone).is_some_and(|quiet| quiet.is_quiet(clone))
    }
}

impl Fleet {
    /// Make the switch that this operation staged for a clone, with those of others that wait.
    pub(super) async fn activate_with_others(
        &self,
        by: OperationId,
        clone: Arc<CloneRecord>,
        quiet: Arc<dyn Quiet>,
    ) -> Result<Activated> {
        let (answer, told) = oneshot::channel();
        let mount = Mount { clone, quiet, answer };
        let first = {
            let mut mounts = self.mounts.lock();
            let first = !mounts.contains_key(&by);
            mounts.entry(by).or_default().push(mount);
            first
        };
        if first {
            let fleet = self.clone();
            self.runtime().spawn(async move { fleet.switch_mounted(by).await });
        }
        told.await.unwrap_or_else(|_| Err(Error::internal("the switch of a clone at its mount was broken off")))
    }

    /// Until nobody waits for a switch by this operation.
    async fn switch_mounted(&self, by: OperationId) {
        while let Some(mounts) = self.waiting(by) {
            self.switch_together(mounts).await;
        }
    }

    fn waiting(&self, by: OperationId) -> Option<Vec<Mount>> {
        let mut mounts = self.mounts.lock();
        let waiting = mounts.get_mut(&by).map(take).filter(|waiting| !waiting.is_empty());
        if waiting.is_none() {
            mounts.remove(&by);
        }
        waiting
    }

    async fn switch_together(&self, mounts: Vec<Mount>) {
        if mounts.len() > 1
            && let Ok(Activated { outcome: Ok(done), .. }) = self.activate_mounts(&mounts).await
        {
            return mounts.into_iter().for_each(|mount| mount.tell(&done));
        }
        for mount in mounts {
            match self.activate_mounts(std::slice::from_ref(&mount)).await {
                Ok(Activated { outcome: Ok(done), .. }) => mount.tell(&done),
                // Who gave up does not want to know.
                failed => drop(mount.answer.send(failed)),
            }
        }
    }

    async fn activate_mounts(&self, mounts: &[Mount]) -> Result<Activated> {
        let clones = mounts.iter().map(|mount| mount.clone.clone()).collect();
        let each = mounts.iter().map(|mount| (mount.clone.id, mount.quiet.clone())).collect();
        self.activate_staged(clones, Some(Arc::new(Each(each)))).await
    }
}

impl Mount {
    /// What became of this one.
    fn tell(self, done: &RepointDone) {
        let Self { clone, answer, .. } = self;
        let RepointDone { operation, at, outcome, left } = done;
        let outcome = match left.iter().find(|left| left.id() == clone.id) {
            Some(left) => Err(left.error(&clone.name)),
            None => {
                let clones = outcome.clones.iter().filter(|of| of.id == clone.id).cloned().collect();
                let outcome = RepointOutcome { version: outcome.version.clone(), clones };
                Ok(RepointDone { operation: *operation, at: *at, outcome, left: Vec::new() })
            }
        };
        let _ = answer.send(Ok(Activated { staged_by: *operation, clones: vec![clone], outcome }));
    }
}

//! Giving back what nobody shows any more: overlays that no view names, and versions that no sealed
//! layer shows. In small batches, each of which excludes a flush, not a reader.

use std::collections::HashSet;

use super::OverlayStore;
use crate::error::{Error, Result};
use crate::overlay::index::Index;
use crate::overlay::{OverlayId, Position};

/// Rows that one batch looks at.
const BATCH: usize = 1000;

/// What was given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    pub overlays: u64,
    pub values: u64,
}

impl OverlayStore {
    /// Drop every overlay that is not in `roots`. `roots` must be of a moment after which no view can
    /// begin to name another old one.
    pub async fn purge_overlays(&self, roots: &HashSet<OverlayId>) -> Result<Purged> {
        let mut purged = Purged::default();
        for id in self.all().into_iter().map(|overlay| overlay.id).filter(|id| !roots.contains(id)) {
            while let more @ 1.. = self.purge_batch(move |index| index.purge_overlay(id, BATCH)).await? {
                purged.values += more;
            }
            self.forget(id).await?;
            purged.overlays += 1;
        }
        Ok(purged)
    }

    /// Drop the versions of overlay `id` that no mark shows.
    pub async fn purge_history(&self, id: OverlayId) -> Result<Purged> {
        let Some(overlay) = self.find(id) else { return Ok(Purged::default()) };
        let (mut purged, mut from) = (Purged::default(), Vec::new());
        loop {
            // Marks that are added later name positions that no dropped version is shown at.
            let marks: Vec<Position> = overlay.lock().marks().to_vec();
            let begin = std::mem::take(&mut from);
            let (dropped, next) = self.exclusively(move |index| index.purge_history(id, &marks, &begin, BATCH)).await?;
            purged.values += dropped;
            match next {
                Some(next) => from = next,
                None => return Ok(purged),
            }
        }
    }

    async fn purge_batch(&self, work: impl FnOnce(&Index) -> Result<u64> + Send + 'static) -> Result<u64> {
        self.exclusively(work).await
    }

    /// Run `work` on the index while nothing is flushed.
    pub(super) async fn exclusively<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Index) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _turn = self.flushing.lock().await;
        let index = self.index.clone();
        let done = tokio::task::spawn_blocking(move || work(&index)).await;
        done.map_err(|e| Error::internal("cleaning the index").because(e))?
    }

    /// Take an overlay without values out of the table and the index.
    async fn forget(&self, id: OverlayId) -> Result<()> {
        self.exclusively(move |index| index.forget_overlay(id)).await?;
        self.shard(id).write().overlays.remove(&id);
        self.dirty.lock().remove(&id);
        Ok(())
    }
}

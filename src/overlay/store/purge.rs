//! Giving back what nobody shows any more: overlays that no view names, and versions that no sealed
//! layer shows. In small batches, each of which excludes a flush, not a reader.

use std::sync::Arc;

use super::OverlayStore;
use crate::error::{Error, Result};
use crate::meta::Durability;
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
    /// Drop the overlays `dead`, which nothing names any more. `is_named` is asked of each right before:
    /// one that is named after all stays.
    pub async fn purge_overlays(
        self: &Arc<Self>,
        dead: &[OverlayId],
        mut is_named: impl FnMut(OverlayId) -> bool,
    ) -> Result<Purged> {
        let mut purged = Purged::default();
        if dead.is_empty() {
            return Ok(purged);
        }
        // What one has in memory would come back behind the purge.
        self.flush(Durability::Buffered).await?;
        for id in dead {
            if is_named(*id) || self.is_held(*id) {
                continue;
            }
            purged.values += self.purge_overlay(*id).await?;
            purged.overlays += 1;
        }
        Ok(purged)
    }

    async fn purge_overlay(&self, id: OverlayId) -> Result<u64> {
        let mut values = 0;
        while let more @ 1.. = self.exclusively(move |index| index.purge_overlay(id, BATCH)).await? {
            values += more;
        }
        self.forget(id).await?;
        Ok(values)
    }

    /// Drop the versions of overlay `id` that no mark shows, nor any of `kept`.
    pub async fn purge_history(&self, id: OverlayId, kept: &[Position]) -> Result<Purged> {
        let Some(overlay) = self.find(id) else { return Ok(Purged::default()) };
        let (mut purged, mut from) = (Purged::default(), Vec::new());
        loop {
            // Marks that are added later name positions that no dropped version is shown at.
            let mut marks = [overlay.lock().marks(), kept, &self.held_positions(id)].concat();
            marks.sort_unstable();
            let begin = std::mem::take(&mut from);
            let (dropped, next) = self.exclusively(move |index| index.purge_history(id, &marks, &begin, BATCH)).await?;
            purged.values += dropped;
            match next {
                Some(next) => from = next,
                None => return Ok(purged),
            }
        }
    }

    /// Run `work` on the index while nothing is flushed.
    pub(super) async fn exclusively<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Index) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.flushing.clone().lock_owned().await;
        // The turn ends with the work, also if nobody waits for that any more.
        let work = move |index: &Index| {
            let done = work(index);
            drop(turn);
            done
        };
        self.on_index(work).await
    }

    /// Run `work`, which blocks, on the index.
    pub(super) async fn on_index<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Index) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let index = self.index.clone();
        let done = tokio::task::spawn_blocking(move || work(&index)).await;
        done.map_err(|e| Error::internal("changing the index").because(e))?
    }

    /// Take an overlay without values out of the table and the index.
    async fn forget(&self, id: OverlayId) -> Result<()> {
        self.exclusively(move |index| index.forget_overlay(id)).await?;
        self.shard(id).write().overlays.remove(&id);
        self.dirty.lock().remove(&id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use crate::overlay::tests::world::World;

    /// Else a flush would run beside it.
    #[tokio::test]
    async fn work_that_nobody_waits_for_keeps_its_turn_to_the_end() {
        let world = World::new(1).await;
        let (end, ended) = mpsc::channel::<()>();
        {
            let mut work = std::pin::pin!(world.store().exclusively(move |_| {
                ended.recv().unwrap();
                Ok(())
            }));
            assert!(futures_util::poll!(&mut work).is_pending());
        }
        assert!(world.store().flushing.try_lock().is_err());
        end.send(()).unwrap();
        drop(world.store().flushing.lock().await);
    }
}

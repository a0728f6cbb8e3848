//! The worker that brings changes from memory to the index.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::OverlayStore;
use crate::error::{Error, Result};
use crate::meta::Durability;
use crate::overlay::OverlayId;
use crate::overlay::index::{Flush, Index, OverlayRow};
use crate::overlay::log::Lsn;
use crate::overlay::memtable::Memtable;
use crate::overlay::record::Receipt;
use crate::overlay::state::Overlay;
use crate::overlay::touched::{MAX_KNOWN_IN_ALL, Touched};

/// Longest that a change stays in memory alone, about.
const PERIOD: Duration = Duration::from_secs(2);
/// Flushes between two trims of the receipts.
const TRIM_EVERY: u64 = 64;

/// Flush until the store is dropped.
pub(super) fn spawn(store: &Arc<OverlayStore>) {
    let weak = Arc::downgrade(store);
    tokio::spawn(async move {
        while let Some(store) = wait(&weak).await {
            if let Err(error) = store.flush(Durability::Buffered).await {
                tracing::error!(%error, "private writes could not be brought into their index; no more are taken");
                store.fail(&error);
                return;
            }
            store.trim_known(MAX_KNOWN_IN_ALL);
        }
    });
}

/// Until there is something to flush; `None` if the store is gone.
async fn wait(weak: &Weak<OverlayStore>) -> Option<Arc<OverlayStore>> {
    // Without the store: who drops it wants its files closed.
    let wanted = weak.upgrade()?.flush_wanted.clone();
    let _ = tokio::time::timeout(PERIOD, wanted.notified()).await;
    weak.upgrade()
}

/// One overlay's part of a flush.
struct Part {
    overlay: Arc<Overlay>,
    table: Arc<Memtable>,
    row: OverlayRow,
    sealed: bool,
}

impl OverlayStore {
    /// Bring everything that changed so far into the index. It goes on also if nobody waits any more: what
    /// it has taken, no other flush would take.
    pub async fn flush(self: &Arc<Self>, durability: Durability) -> Result<()> {
        let store = self.clone();
        let flushed = tokio::spawn(async move { store.flush_all(durability).await }).await;
        flushed.map_err(|e| Error::internal("flushing the overlays").because(e))?
    }

    async fn flush_all(self: &Arc<Self>, durability: Durability) -> Result<()> {
        let _turn = self.flushing.lock().await;
        let cut = self.cut();
        // Also if nothing changed: what the index holds must be durable in the log, and is by now.
        self.log.sync(self.log.end()).await?;
        let store = self.clone();
        let written = tokio::task::spawn_blocking(move || store.write(&cut, durability)).await;
        written.map_err(|e| Error::internal("writing the index").because(e))??;
        self.flushed.send_modify(|flushes| *flushes += 1);
        Ok(())
    }

    /// Refuse changes from now on.
    fn fail(&self, error: &Error) {
        self.failed.lock().get_or_insert_with(|| error.to_string());
        self.flushed.send_modify(|flushes| *flushes += 1);
    }

    /// Swap the memory of every overlay that changed.
    fn cut(&self) -> Cut {
        // A record is in its overlay's memory before the overlay is unlocked, so whatever is in the log up
        // to here is in what is taken below.
        let from = self.log.end();
        let dirty: Vec<OverlayId> = self.dirty.lock().drain().collect();
        let parts = dirty.into_iter().filter_map(|id| self.find(id)).map(|overlay| {
            let mut state = overlay.lock();
            let (table, row) = state.begin_flush();
            // What was replayed into an overlay that nobody read may erase what has older versions.
            let sealed = state.sealed || matches!(state.touched, Touched::Unread);
            drop(state);
            Part { overlay, table, row, sealed }
        });
        Cut { from, parts: parts.collect(), receipts: std::mem::take(&mut *self.receipts.lock()) }
    }

    /// Write what was cut. Blocks.
    fn write(&self, cut: &Cut, durability: Durability) -> Result<()> {
        for part in &cut.parts {
            let Part { overlay, table, row, sealed } = part;
            self.index.flush(&Flush { overlay: overlay.id, row: *row, table, sealed: *sealed })?;
            overlay.lock().end_flush();
            self.memory.fetch_sub(table.bytes as i64, Ordering::Relaxed);
        }
        if !cut.parts.is_empty() || durability == Durability::Synced {
            checkpoint(&self.index, cut, durability)?;
        }
        if self.flushed.borrow().is_multiple_of(TRIM_EVERY) { self.index.trim_receipts() } else { Ok(()) }
    }
}

/// What one flush takes.
struct Cut {
    /// Everything in the log up to here is in `parts`, or was flushed before.
    from: Lsn,
    parts: Vec<Part>,
    receipts: Vec<(Lsn, Receipt)>,
}

fn checkpoint(index: &Index, cut: &Cut, durability: Durability) -> Result<()> {
    index.checkpoint(cut.from, &cut.receipts, durability)
}

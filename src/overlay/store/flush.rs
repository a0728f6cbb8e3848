//! The worker that brings changes from memory to the index.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::OverlayStore;
use crate::error::{Error, ErrorKind, Result};
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
            match store.flush(Durability::Buffered).await {
                Ok(()) => {}
                // The log says so itself, and goes on by itself.
                Err(error) if error.kind() == ErrorKind::NoSpace => tracing::debug!(%error, "nothing is flushed"),
                Err(error) => {
                    tracing::error!(%error, "private writes could not be brought into their index; no more are taken");
                    return;
                }
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
    /// Bring everything that changed so far into the index. `NoSpace` if the log waits for space; then
    /// nothing has happened, and it may be tried again.
    pub async fn flush(self: &Arc<Self>, durability: Durability) -> Result<()> {
        let store = self.clone();
        // A task of its own: what a flush took from the overlays must reach the index, also if nobody waits
        // for it any more.
        let flush = self.runtime().spawn(async move { store.flush_to_the_end(durability).await });
        flush.await.map_err(|e| Error::internal("flushing the overlays").because(e))?
    }

    async fn flush_to_the_end(self: &Arc<Self>, durability: Durability) -> Result<()> {
        let _turn = self.flushing.lock().await;
        self.check_failed()?;
        let cut = self.cut();
        // Also if nothing changed: what the index holds must be durable in the log, and is by now.
        if let Err(error) = self.settle(self.log.end()).await {
            self.put_back(cut);
            return Err(error);
        }
        let store = self.clone();
        let written = tokio::task::spawn_blocking(move || store.write(&cut, durability)).await;
        let written = written.unwrap_or_else(|e| Err(Error::internal("flushing the overlays").because(e)));
        match &written {
            // What was not written is in no memory that a later flush would take: none may pass it by.
            Err(error) => self.fail(error),
            Ok(()) => self.flushed.send_modify(|flushes| *flushes += 1),
        }
        written
    }

    /// Undo a cut of which nothing was written.
    fn put_back(&self, cut: Cut) {
        let Cut { parts, mut receipts, .. } = cut;
        for part in parts {
            drop(part.table);
            let less = part.overlay.lock().abandon_flush();
            self.memory.fetch_sub(less as i64, Ordering::Relaxed);
            self.dirty.lock().insert(part.overlay.id);
        }
        let mut newer = self.receipts.lock();
        receipts.append(&mut newer);
        *newer = receipts;
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

//! Read-ahead's reads: beside those that somebody waits for, one range of a pack each.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use super::Shared;
use crate::chunk::ChunkId;
use crate::chunk::ahead::{Batch, Round, TableWanted, TrailId, Work};
use crate::chunk::pack::{Location, read_table};
use crate::error::Result;

impl Shared {
    /// The chunk, if it was read ahead; it is in the cache from then on.
    pub(super) fn take_ahead(self: &Arc<Self>, id: &ChunkId) -> Option<Bytes> {
        let keep = |bytes: &Bytes| self.cache.insert(id, bytes);
        let (bytes, work) = self.ahead.take(id, keep, &|id| self.cache.is_known(id))?;
        self.go(work);
        Some(bytes)
    }

    /// [`take_ahead`](Self::take_ahead), also of what is being read ahead. Is called where nobody else loads it.
    pub(super) async fn await_ahead(self: &Arc<Self>, id: &ChunkId) -> Option<Bytes> {
        if let Some(done) = self.ahead.loading(id) {
            // It ends by being closed.
            let _ = done.acquire().await;
        }
        let (bytes, work) = self.ahead.take(id, |_| (), &|id| self.cache.is_known(id))?;
        self.go(work);
        Some(bytes)
    }

    /// A reader misses the chunk there, and reads it.
    pub(super) fn note_miss(self: &Arc<Self>, round: Round, at: &Location) {
        self.go(self.ahead.missed(round, at, &|id| self.cache.is_known(id)));
    }

    fn go(self: &Arc<Self>, work: Option<Work>) {
        // Outside of a runtime there is nobody to do it: dropped, it never was.
        if let (Some(work), Ok(runtime)) = (work, tokio::runtime::Handle::try_current()) {
            runtime.spawn(Arc::clone(self).work(work));
        }
    }

    async fn work(self: Arc<Self>, first: Work) {
        let mut next = Some(first);
        while let Some(work) = next {
            let trail = match work {
                Work::Table(wanted) => {
                    let pack = wanted.pack;
                    match self.read_table(wanted).await {
                        Ok(trail) => trail,
                        Err(error) => return tracing::debug!(%pack, %error, "nothing is read ahead"),
                    }
                }
                Work::Read(batch) => {
                    let (trail, pack) = (batch.trail, batch.pack);
                    // A wide window is more than one read.
                    self.go(self.ahead.next(trail, &|id| self.cache.is_known(id)));
                    let shared = self.clone();
                    if let Err(error) = self.loaders.run(move || shared.read_batch(batch)).await.flatten() {
                        return tracing::debug!(%pack, %error, "nothing more is read ahead");
                    }
                    trail
                }
            };
            next = self.ahead.next(trail, &|id| self.cache.is_known(id));
        }
    }

    async fn read_table(&self, wanted: TableWanted) -> Result<TrailId> {
        let (frames, _) = read_table(&*self.blobs, wanted.pack).await?;
        Ok(wanted.learn(frames.into()))
    }

    /// Read a batch and verify it on this thread.
    fn read_batch(&self, mut batch: Batch) -> Result<()> {
        let frames = batch.frames().to_vec();
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return Ok(()) };
        let range = first.span.payload().start..last.span.payload().end;
        let start = range.start;
        let payloads = match self.blobs.read(&batch.pack.name(), range) {
            Ok(payloads) => payloads,
            Err(error) => {
                batch.failed();
                return Err(error);
            }
        };
        for frame in frames {
            let payload = frame.span.payload();
            let (from, to) = ((payload.start - start) as usize, (payload.end - start) as usize);
            // What is damaged is told to the reader who wants it.
            batch.arrived(self.decode(frame.id, payloads.slice(from..to), &frame.span).ok());
        }
        Ok(())
    }
}

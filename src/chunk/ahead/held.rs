//! What was read ahead and nobody has asked for yet, and what is on its way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::trails::TrailId;
use crate::chunk::ChunkId;
use crate::chunk::pack::Frame;

/// For which trail a chunk was read, and where in its pack the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub trail: TrailId,
    pub end: u64,
}

enum What {
    /// Closed when it has arrived, or failed.
    Loading(Arc<Semaphore>),
    /// And the number under which `order` has it.
    Here(Bytes, u64),
}

#[derive(Default)]
pub struct Held {
    chunks: HashMap<ChunkId, (Place, What)>,
    /// Those that are here, the oldest first.
    order: BTreeMap<u64, ChunkId>,
    next: u64,
    bytes: u64,
}

impl Held {
    /// Chunks that are here or on their way.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes of those that are here.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn has(&self, id: &ChunkId) -> bool {
        self.chunks.contains_key(id)
    }

    pub fn loading(&self, id: &ChunkId) -> Option<Arc<Semaphore>> {
        match self.chunks.get(id) {
            Some((_, What::Loading(done))) => Some(done.clone()),
            _ => None,
        }
    }

    /// It is on its way.
    pub fn begin(&mut self, frame: &Frame, trail: TrailId) {
        let place = Place { trail, end: frame.span.payload().end };
        self.chunks.insert(frame.id, (place, What::Loading(Arc::new(Semaphore::new(0)))));
    }

    pub fn arrived(&mut self, id: &ChunkId, bytes: Bytes) {
        let Some((_, what)) = self.chunks.get_mut(id) else { return };
        self.bytes += bytes.len() as u64;
        self.order.insert(self.next, *id);
        if let What::Loading(done) = std::mem::replace(what, What::Here(bytes, self.next)) {
            done.close();
        }
        self.next += 1;
    }

    /// It does not arrive.
    pub fn forget(&mut self, id: &ChunkId) {
        if let Some((_, What::Loading(done))) = self.chunks.remove(id) {
            done.close();
        }
    }

    /// The chunk, if it is here: not any more.
    pub fn take(&mut self, id: &ChunkId) -> Option<(Bytes, Place)> {
        let (place, What::Here(bytes, number)) = self.chunks.get(id)? else { return None };
        let taken = (bytes.clone(), *place);
        self.order.remove(number);
        self.bytes -= taken.0.len() as u64;
        self.chunks.remove(id);
        Some(taken)
    }

    /// Give up the oldest that is here.
    pub fn evict(&mut self) -> Option<(Place, Bytes)> {
        let (_, id) = self.order.pop_first()?;
        let (place, What::Here(bytes, _)) = self.chunks.remove(&id)? else { return None };
        self.bytes -= bytes.len() as u64;
        Some((place, bytes))
    }
}

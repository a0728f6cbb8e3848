//! Read-ahead: chunks that lie behind those that were just missed, loaded before anybody asks.
//!
//! Owns what decides about it ([`trails`]), what it has loaded and nobody has asked for yet ([`held`]), and what it
//! may cost. A trail is a place in a pack up to which chunks were missed. Where the next READ misses just behind it,
//! the trail is followed: the pack's next chunks are loaded, more of them the more turn out to be used. Packs are
//! written in the order of files, or of a boot; so this follows files, folders and boots, whoever reads them.
//!
//! Invariants: a hit in the cache touches nothing here. Speculation pays from a credit: loading a chunk costs its
//! length, using it gives that back, and all that readers wanted earns one part in [`EARNS`] of its length; so what
//! nobody wanted is never more than that part of what somebody did, and [`START`]. What is held and unused is at
//! most the configured limit, and reads under way are at most [`READS`]. A chunk is never read for both a reader and
//! this module.
//!
//! Failure story: what cannot be read ahead is forgotten, with its trail; a reader that wants it reads it and gets
//! its own error.

mod held;
#[cfg(test)]
mod tests;
mod trails;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::held::Held;
pub use self::trails::TrailId;
use self::trails::Trails;
use super::ChunkId;
use super::pack::{Frame, Location, PackId};

/// What readers wanted earns one part in so many as credit.
const EARNS: u64 = 64;
/// Credit at the start, in bytes.
const START: u64 = 256 << 10;
/// Reads under way at a time, over the whole store.
const READS: usize = 4;
/// Payload that is read at once, in bytes; a single chunk may be longer.
const MAX_READ: u64 = 512 << 10;

/// One reader's misses that are loaded together: they are one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round(u64);

/// What is to be done next for a trail.
pub enum Work {
    /// Its pack's table is needed first.
    Table(TableWanted),
    Read(Batch),
}

/// What read-ahead did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AheadStats {
    /// Chunks that it loaded, and their bytes.
    pub loads: u64,
    pub loaded_bytes: u64,
    /// Of these, what a reader then asked for.
    pub used: u64,
    pub used_bytes: u64,
    /// And what went unused, to make room.
    pub wasted_bytes: u64,
}

/// Read-ahead of one store.
pub struct Ahead {
    /// Bytes that may be held unused; 0 turns it off.
    limit: u64,
    state: Mutex<State>,
    /// Chunks that are held or being loaded: while there are none, a miss takes no lock.
    entries: AtomicUsize,
    rounds: AtomicU64,
}

#[derive(Default)]
struct State {
    credit: u64,
    held: Held,
    trails: Trails,
    reads: usize,
    stats: AheadStats,
}

impl Ahead {
    pub fn new(limit: u64) -> Arc<Self> {
        let state = State { credit: START.min(limit), ..State::default() };
        Arc::new(Self { limit, state: Mutex::new(state), entries: AtomicUsize::new(0), rounds: AtomicU64::new(0) })
    }

    pub fn stats(&self) -> AheadStats {
        self.state.lock().stats
    }

    /// Misses that are noted from here on with this are one access.
    pub fn begin_round(&self) -> Option<Round> {
        (self.limit > 0).then(|| Round(self.rounds.fetch_add(1, Ordering::Relaxed)))
    }

    /// A reader's miss is about to be read. `is_known` tells which chunks are in the cache or on their way.
    pub fn missed(self: &Arc<Self>, round: Round, at: &Location, is_known: &dyn Fn(&ChunkId) -> bool) -> Option<Work> {
        let mut state = self.state.lock();
        self.earn(&mut state, u64::from(at.span.raw_len));
        let trail = state.trails.missed(round, at)?;
        self.next_in(&mut state, trail, is_known)
    }

    /// The chunk, if it is held. It is `keep`'s from then on, before any other reader can miss it.
    pub fn take(
        self: &Arc<Self>,
        id: &ChunkId,
        keep: impl FnOnce(&Bytes),
        is_known: &dyn Fn(&ChunkId) -> bool,
    ) -> Option<(Bytes, Option<Work>)> {
        if self.entries.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut state = self.state.lock();
        let (bytes, place) = state.held.take(id)?;
        keep(&bytes);
        self.note_entries(&state);
        let len = bytes.len() as u64;
        state.stats.used += 1;
        state.stats.used_bytes += len;
        self.refund(&mut state, len);
        self.earn(&mut state, len);
        state.trails.used(place);
        let work = self.next_in(&mut state, place.trail, is_known);
        Some((bytes, work))
    }

    /// Closed when the chunk has been read ahead, or has not: `None` if it is not being read.
    pub fn loading(&self, id: &ChunkId) -> Option<Arc<Semaphore>> {
        if self.entries.load(Ordering::Acquire) == 0 { None } else { self.state.lock().held.loading(id) }
    }

    /// What is to be done next for the trail of a table or a batch.
    pub fn next(self: &Arc<Self>, trail: TrailId, is_known: &dyn Fn(&ChunkId) -> bool) -> Option<Work> {
        self.next_in(&mut self.state.lock(), trail, is_known)
    }

    fn next_in(
        self: &Arc<Self>,
        state: &mut State,
        trail: TrailId,
        is_known: &dyn Fn(&ChunkId) -> bool,
    ) -> Option<Work> {
        if state.reads == READS {
            return None;
        }
        let State { credit, held, trails, .. } = state;
        let wanted = trails.plan(trail, *credit)?;
        let Some(frames) = wanted.frames else {
            return Some(Work::Table(TableWanted { ahead: self.clone(), trail, pack: wanted.pack, learnt: false }));
        };
        // Before it is asked what is known: a reader who begins to load a chunk right after that has to look here.
        self.entries.store(usize::MAX, Ordering::Release);
        let mut chosen: Vec<Frame> = Vec::new();
        let (mut stored, mut passed) = (0, 0);
        for frame in frames.iter() {
            let known = held.has(&frame.id) || is_known(&frame.id);
            let (len, stored_len) = (u64::from(frame.span.raw_len), u64::from(frame.span.stored_len));
            // One read is one range: it ends where a chunk is known, or nothing more may be read.
            if !chosen.is_empty() && (known || stored + stored_len > MAX_READ) || !known && len > *credit {
                break;
            }
            passed += 1;
            if !known {
                *credit -= len;
                stored += stored_len;
                held.begin(frame, trail);
                chosen.push(*frame);
            }
        }
        trails.passed(trail, passed);
        self.note_entries(state);
        if chosen.is_empty() {
            return None;
        }
        state.reads += 1;
        Some(Work::Read(Batch { ahead: self.clone(), trail, pack: wanted.pack, frames: chosen, arrived: 0 }))
    }

    fn arrived(&self, frame: &Frame, bytes: Option<Bytes>) {
        // What goes gives memory back to the system: after the lock.
        let mut evicted = Vec::new();
        let mut state = self.state.lock();
        match bytes {
            Some(bytes) => {
                state.stats.loads += 1;
                state.stats.loaded_bytes += bytes.len() as u64;
                state.held.arrived(&frame.id, bytes);
                self.make_room(&mut state, &mut evicted);
            }
            None => {
                state.held.forget(&frame.id);
                self.refund(&mut state, u64::from(frame.span.raw_len));
            }
        }
        self.note_entries(&state);
    }

    fn make_room(&self, state: &mut State, evicted: &mut Vec<Bytes>) {
        while state.held.bytes() > self.limit {
            let Some((place, bytes)) = state.held.evict() else { return };
            state.stats.wasted_bytes += bytes.len() as u64;
            state.trails.wasted(place.trail);
            evicted.push(bytes);
        }
    }

    fn earn(&self, state: &mut State, wanted: u64) {
        self.refund(state, wanted / EARNS);
    }

    fn refund(&self, state: &mut State, bytes: u64) {
        state.credit = (state.credit + bytes).min(self.limit);
    }

    fn note_entries(&self, state: &State) {
        self.entries.store(state.held.len(), Ordering::Release);
    }
}

/// A table that a trail waits for. Dropped without one, the trail ends.
pub struct TableWanted {
    ahead: Arc<Ahead>,
    trail: TrailId,
    pub pack: PackId,
    learnt: bool,
}

impl TableWanted {
    /// The table; the trail goes on with [`Ahead::next`].
    pub fn learn(mut self, frames: Arc<[Frame]>) -> TrailId {
        self.learnt = true;
        self.ahead.state.lock().trails.learn(self.pack, frames);
        self.trail
    }
}

impl Drop for TableWanted {
    fn drop(&mut self) {
        if !self.learnt {
            self.ahead.state.lock().trails.end(self.trail);
        }
    }
}

/// Chunks that lie side by side in a pack, to be read at once. What has not arrived when this is dropped, nobody
/// waits for any more.
pub struct Batch {
    ahead: Arc<Ahead>,
    pub trail: TrailId,
    pub pack: PackId,
    frames: Vec<Frame>,
    arrived: usize,
}

impl Batch {
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The next chunk in order, or `None` if its bytes are not what they should be.
    pub fn arrived(&mut self, bytes: Option<Bytes>) {
        if let Some(frame) = self.frames.get(self.arrived) {
            self.ahead.arrived(frame, bytes);
            self.arrived += 1;
        }
    }

    /// The pack could not be read there.
    pub fn failed(self) {
        self.ahead.state.lock().trails.end(self.trail);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        while self.arrived < self.frames.len() {
            self.arrived(None);
        }
        self.ahead.state.lock().reads -= 1;
    }
}

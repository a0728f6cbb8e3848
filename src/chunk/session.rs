//! An import session: writes new chunks, all or nothing.
//!
//! Owns the pack that is being filled, the packs of the session that are being written, and the
//! session's rows in the scratch tables. Invariants: a session finds committed chunks and its own,
//! never those of another session, so that what an abort takes away is whole packs that nobody else
//! refers to; a chunk is stored once however many threads put it at once; memory is bounded by the
//! open pack and [`MAX_WRITES`](writer::MAX_WRITES) packs under way, however large the import.
//!
//! Commit, and what a crash at each point leaves (`docs/decisions/0002-packs-and-cutting.md`):
//! 1. The last pack is sealed; all packs are durable blobs. Crash: no record names them, the next
//!    open deletes them.
//! 2. **The decision**: one synced batch records all packs as sealed. Crash: the next open indexes
//!    them from their tables.
//! 3. The chunks go from the staging table into the index; one synced batch marks the packs indexed.
//!
//! Failure story: a pack that cannot be written fails the session; every later `put` and the commit
//! say why. A session that is dropped, or whose commit fails before the decision, removes its packs.
//! If the decision itself fails nobody knows whether it is durable: the packs stay, and the next open
//! finds out.

mod scratch;
mod staging;
mod writer;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use self::scratch::Scratch;
use self::staging::Staging;
use self::writer::PackWriter;
use super::pack::{PackBuilder, encode};
use super::store::index::{Found, PackState};
use super::store::{Shared, blocking};
use super::{ChunkId, ChunkSink, MAX_CHUNK, Stored};
use crate::error::{Error, Result};

/// Writes chunks that become findable together at [`commit`](Session::commit).
pub struct Session {
    shared: Arc<Shared>,
    runtime: Handle,
    staging: Arc<Staging>,
    scratch: Arc<Scratch>,
    writer: PackWriter,
    open: Mutex<OpenPack>,
    counters: Counters,
    /// Set before the decision is written: from then on the packs are not ours to delete.
    decided: bool,
    /// Nothing is left for `drop` to do.
    ended: bool,
}

/// The pack that is being filled.
#[derive(Default)]
struct OpenPack {
    pack: Option<PackBuilder>,
    /// Packs that were full so far: a chunk looked for before one of them left may have left with it.
    seals: u64,
}

#[derive(Default)]
struct Counters {
    chunks_new: AtomicU64,
    chunks_dup: AtomicU64,
    bytes_raw: AtomicU64,
    bytes_dup: AtomicU64,
    bytes_stored: AtomicU64,
}

/// What a session has written so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Chunks that were not there before.
    pub chunks_new: u64,
    /// Puts of chunks that were there, from before or from this session.
    pub chunks_dup: u64,
    /// Bytes of the new chunks.
    pub bytes_raw: u64,
    /// Bytes of the others.
    pub bytes_dup: u64,
    /// Bytes that the new chunks take in packs.
    pub bytes_stored: u64,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, runtime: Handle) -> Self {
        let key = shared.next_session();
        Self {
            staging: Arc::new(Staging::new(shared.index.clone(), key)),
            scratch: Arc::new(Scratch::new(shared.index.clone(), key)),
            writer: PackWriter::new(shared.blobs.clone(), runtime.clone()),
            open: Mutex::default(),
            counters: Counters::default(),
            decided: false,
            ended: false,
            shared,
            runtime,
        }
    }

    pub fn stats(&self) -> SessionStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SessionStats {
            chunks_new: read(&self.counters.chunks_new),
            chunks_dup: read(&self.counters.chunks_dup),
            bytes_raw: read(&self.counters.bytes_raw),
            bytes_dup: read(&self.counters.bytes_dup),
            bytes_stored: read(&self.counters.bytes_stored),
        }
    }

    /// Keep a row in the session's private, sorted space on disk; gone when the session ends. Blocks.
    pub fn scratch_put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.scratch.put(key, value)
    }

    pub fn scratch_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.scratch.get(key)
    }

    /// Visit the rows `from <= key < to` (`to` empty: to the end) in order, until `visit` breaks. Sees
    /// every put that returned before. Blocks.
    pub fn scratch_scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        self.scratch.scan(from, to, visit)
    }

    /// Make all chunks durable and findable. After an error none is, except where the error came
    /// after the decision: then the next open makes them findable.
    pub async fn commit(mut self) -> Result<SessionStats> {
        let last = self.open.lock().pack.take();
        if let Some(last) = last {
            let staging = self.staging.clone();
            let staged = move || staging.stage(last.id(), last.frames()).map(|()| last.seal());
            self.writer.submit(blocking(staged).await?).await?;
        }
        let packs = self.writer.finish().await?;
        if !packs.is_empty() {
            self.decided = true;
            let (index, staging) = (self.shared.index.clone(), self.staging.clone());
            blocking(move || {
                index.record_packs(&packs, PackState::Sealed)?;
                staging.publish()?;
                index.record_packs(&packs, PackState::Indexed)
            })
            .await?;
        }
        self.ended = true;
        clear_rows(self.staging.clone(), self.scratch.clone()).await;
        Ok(self.stats())
    }

    /// Take everything back, and return when it is gone. Dropping the session does the same in the
    /// background.
    pub async fn abort(mut self) {
        self.writer.remove_all().await;
        self.ended = true;
        clear_rows(self.staging.clone(), self.scratch.clone()).await;
    }

    /// The stored length of a chunk that needs no storing, and the count of seals at that moment.
    fn look_up(&self, id: &ChunkId) -> Result<(Option<u32>, u64)> {
        if let Found::Good(location) = self.shared.index.find(id)? {
            return Ok((Some(location.span.stored_len), 0));
        }
        let (found, seals) = {
            let open = self.open.lock();
            (open.find(id), open.seals)
        };
        // A pack is staged before it leaves: what was in neither at this moment was not put.
        Ok((found.map_or_else(|| self.staging.find(id), |len| Ok(Some(len)))?, seals))
    }

    /// Append a chunk that a look-up at `seals` did not find.
    fn store(&self, id: ChunkId, bytes: &[u8], seals: u64) -> Result<Stored> {
        let (payload, encoding) = encode(bytes, self.shared.options.zstd_level);
        let mut open = self.open.lock();
        // Another thread may have put it while this one compressed it.
        let mut known = open.find(&id);
        if known.is_none() && open.seals != seals {
            known = self.staging.find(&id)?;
        }
        if let Some(stored_len) = known {
            return Ok(Stored { id, stored_len, fresh: false });
        }
        self.pack_with_room(&mut open, payload.len())?.push(id, bytes.len(), &payload, encoding);
        Ok(Stored { id, stored_len: payload.len() as u32, fresh: true })
    }

    /// The open pack; a full one is handed on first. Waits with the lock held if too many packs are
    /// under way: that is what slows an import down to the speed of the disk.
    fn pack_with_room<'a>(&self, open: &'a mut OpenPack, stored_len: usize) -> Result<&'a mut PackBuilder> {
        if let Some(full) = open.pack.take_if(|pack| !pack.has_room(stored_len)) {
            open.seals += 1;
            self.staging.stage(full.id(), full.frames()).inspect_err(|e| self.writer.fail(e))?;
            self.writer.submit_blocking(full.seal())?;
        }
        if open.pack.is_none() {
            open.pack = Some(PackBuilder::new(self.shared.next_pack()?, self.shared.options.pack_bytes));
        }
        Ok(open.pack.as_mut().expect("it was made just now"))
    }
}

impl ChunkSink for Session {
    /// Blocks for the index, and when a pack is full and others are being written. Must not be called
    /// from a task of the runtime that the session began on.
    fn put(&self, bytes: &[u8]) -> Result<Stored> {
        if bytes.is_empty() || bytes.len() > MAX_CHUNK {
            return Err(Error::internal(format!(
                "a chunk of {} bytes was put; 1 to {MAX_CHUNK} are allowed",
                bytes.len()
            )));
        }
        self.writer.check()?;
        let id = ChunkId::of(bytes);
        let stored = match self.look_up(&id)? {
            (Some(stored_len), _) => Stored { id, stored_len, fresh: false },
            (None, seals) => self.store(id, bytes, seals)?,
        };
        self.counters.note(&stored, bytes.len() as u64);
        Ok(stored)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (writer, staging, scratch) = (self.writer.clone(), self.staging.clone(), self.scratch.clone());
        let abort = !self.decided;
        self.runtime.spawn(async move {
            if abort {
                writer.remove_all().await;
            }
            clear_rows(staging, scratch).await;
        });
    }
}

/// Give the session's rows back.
async fn clear_rows(staging: Arc<Staging>, scratch: Arc<Scratch>) {
    let cleared = blocking(move || staging.clear().and_then(|()| scratch.clear())).await;
    if let Err(error) = cleared {
        tracing::warn!(%error, "scratch rows of an import stay until the next start");
    }
}

impl OpenPack {
    fn find(&self, id: &ChunkId) -> Option<u32> {
        self.pack.as_ref()?.find(id).map(|span| span.stored_len)
    }
}

impl Counters {
    fn note(&self, stored: &Stored, len: u64) {
        let (chunks, bytes) = match stored.fresh {
            true => (&self.chunks_new, &self.bytes_raw),
            false => (&self.chunks_dup, &self.bytes_dup),
        };
        chunks.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(len, Ordering::Relaxed);
        if stored.fresh {
            self.bytes_stored.fetch_add(u64::from(stored.stored_len), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;

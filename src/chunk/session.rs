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

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use self::scratch::{Scratch, VisitRow};
use self::staging::Staging;
use self::writer::PackWriter;
use super::pack::{Encoding, PackBuilder, encode};
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

/// A chunk on its way into a pack.
struct Prepared<'b> {
    id: ChunkId,
    raw_len: usize,
    state: PutState<'b>,
}

enum PutState<'b> {
    /// It needs no storing, and takes so many bytes.
    Known(u32),
    /// A look-up at `seals` did not find it.
    New { payload: Cow<'b, [u8]>, encoding: Encoding, seals: u64 },
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
    pub fn scratch_scan(&self, from: &[u8], to: &[u8], visit: &mut VisitRow<'_>) -> Result<()> {
        self.scratch.scan(from, to, visit)
    }

    /// What is put from here on goes into another pack. Blocks.
    pub fn end_pack(&self) -> Result<()> {
        let mut open = self.open.lock();
        match open.pack.take() {
            Some(pack) => self.hand_on(&mut open, pack),
            None => Ok(()),
        }
    }

    /// Make all chunks durable and findable. After an error none is, except where the error came
    /// after the decision: then the next open makes them findable.
    pub async fn commit(mut self) -> Result<SessionStats> {
        if let Some(last) = self.open.get_mut().pack.take() {
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

    /// Store chunks that are read together: those that are new lie side by side, whatever other threads put
    /// meanwhile. Blocks as [`put`](ChunkSink::put) does.
    pub fn put_all<'b>(&self, chunks: impl IntoIterator<Item = &'b [u8]>) -> Result<Vec<Stored>> {
        let prepared: Result<Vec<_>> = chunks.into_iter().map(|bytes| self.prepare(bytes)).collect();
        let prepared = prepared?;
        let mut open = self.open.lock();
        prepared.into_iter().map(|chunk| self.append(&mut open, chunk)).collect()
    }

    /// All of a put that needs no lock.
    fn prepare<'b>(&self, bytes: &'b [u8]) -> Result<Prepared<'b>> {
        if bytes.is_empty() || bytes.len() > MAX_CHUNK {
            return Err(Error::internal(format!(
                "a chunk of {} bytes was put; 1 to {MAX_CHUNK} are allowed",
                bytes.len()
            )));
        }
        self.writer.check()?;
        let id = ChunkId::of(bytes);
        let (known, seals) = self.look_up(&id)?;
        let state = match known {
            Some(stored_len) => PutState::Known(stored_len),
            None => {
                let (payload, encoding) = encode(bytes, self.shared.options.zstd_level);
                PutState::New { payload, encoding, seals }
            }
        };
        Ok(Prepared { id, raw_len: bytes.len(), state })
    }

    /// Append a chunk, unless it is there.
    fn append(&self, open: &mut OpenPack, chunk: Prepared<'_>) -> Result<Stored> {
        let Prepared { id, raw_len, state } = chunk;
        let stored = match state {
            PutState::Known(stored_len) => Stored { id, stored_len, fresh: false },
            PutState::New { payload, encoding, seals } => {
                // Another thread may have put it while this one compressed it.
                let mut known = open.find(&id);
                if known.is_none() && open.seals != seals {
                    known = self.staging.find(&id)?;
                }
                if known.is_none() {
                    self.pack_with_room(open, payload.len())?.push(id, raw_len, &payload, encoding);
                }
                Stored { id, stored_len: known.unwrap_or(payload.len() as u32), fresh: known.is_none() }
            }
        };
        self.counters.note(&stored, raw_len as u64);
        Ok(stored)
    }

    /// The open pack; a full one is handed on first. Waits with the lock held if too many packs are
    /// under way: that is what slows an import down to the speed of the disk.
    fn pack_with_room<'a>(&self, open: &'a mut OpenPack, stored_len: usize) -> Result<&'a mut PackBuilder> {
        if let Some(full) = open.pack.take_if(|pack| !pack.has_room(stored_len)) {
            self.hand_on(open, full)?;
        }
        if open.pack.is_none() {
            open.pack = Some(PackBuilder::new(self.shared.next_pack()?, self.shared.options.pack_bytes));
        }
        Ok(open.pack.as_mut().expect("it was made just now"))
    }

    /// A pack that was the open one goes to be written.
    fn hand_on(&self, open: &mut OpenPack, full: PackBuilder) -> Result<()> {
        open.seals += 1;
        self.staging.stage(full.id(), full.frames()).inspect_err(|e| self.writer.fail(e))?;
        self.writer.submit_blocking(full.seal())
    }
}

impl ChunkSink for Session {
    /// Blocks for the index, and when a pack is full and others are being written. Must not be called
    /// from a task of the runtime that the session began on.
    fn put(&self, bytes: &[u8]) -> Result<Stored> {
        let chunk = self.prepare(bytes)?;
        if let PutState::Known(stored_len) = chunk.state {
            let stored = Stored { id: chunk.id, stored_len, fresh: false };
            self.counters.note(&stored, bytes.len() as u64);
            return Ok(stored);
        }
        self.append(&mut self.open.lock(), chunk)
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

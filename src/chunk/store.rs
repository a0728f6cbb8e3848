//! The chunk store: packs in a blob store, found through the index, read through the cache.
//!
//! Owns the way of a chunk from its name to its verified bytes, the start of the store, and the
//! numbers given to packs and sessions. Invariants: bytes are answered only if their BLAKE3 is their
//! name; pack names are never used twice, because each start has an epoch of its own.
//!
//! Failure story: a chunk that is damaged, cut short or whose pack is gone is quarantined and answered
//! `Corrupt`, from then on without another read, until an import stores it anew. A failure of the disk
//! itself (`Io`) is passed on and remembers nothing. Reads go on when the index refuses writes.

mod ahead;
pub(in crate::chunk) mod index;
mod recover;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, try_join_all};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::index::{Found, Index, Quarantined};
use super::ahead::{Ahead, AheadStats, Round};
use super::blob::SharedBlobs;
use super::loaders::Loaders;
use super::pack::{Encoding, Location, MAX_PACK, MIN_PACK, PackId, Span, decode};
use super::turns::{Lane, Turn, Turns};
use super::{ChunkCache, ChunkId, ChunkSource, Session};
use crate::env::{Env, MemoryFile};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{KvStore, Table};

/// Chunks that are loaded at a time: what keeps an SSD busy, and is not much to wait behind.
const LOADS: usize = 16;

/// How a store is to be run. Nothing in here is part of the format.
#[derive(Clone, Copy, Debug)]
pub struct ChunkStoreOptions {
    /// Memory for verified chunks.
    pub cache_bytes: u64,
    /// Memory for chunks that were read ahead and nobody has asked for yet; 0: nothing is read ahead.
    pub read_ahead_bytes: u64,
    /// Size of a pack, `MIN_PACK..=MAX_PACK`; an import holds up to three in memory.
    pub pack_bytes: usize,
    /// Level of compression; 0 for none.
    pub zstd_level: i32,
}

impl Default for ChunkStoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20, read_ahead_bytes: 8 << 20, pack_bytes: 32 << 20, zstd_level: 1 }
    }
}

/// What the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreUsage {
    pub packs: u64,
    /// Chunks in packs; a chunk that two imports wrote at once counts twice.
    pub chunks: u64,
    /// Bytes of these chunks.
    pub raw_bytes: u64,
    /// Bytes that they take in packs.
    pub stored_bytes: u64,
    /// Chunks that are known to be damaged.
    pub quarantined: u64,
}

/// Chunks on stable storage.
pub struct ChunkStore {
    shared: Arc<Shared>,
}

/// What the store, its sessions and loads under way have in common.
pub(super) struct Shared {
    pub index: Arc<Index>,
    pub blobs: SharedBlobs,
    pub options: ChunkStoreOptions,
    env: Env,
    cache: ChunkCache,
    ahead: Arc<Ahead>,
    turns: Arc<Turns>,
    loaders: Loaders,
    epoch: u64,
    next_pack: AtomicU32,
    next_session: AtomicU64,
}

impl ChunkStore {
    /// The tables that `index` must have.
    pub const TABLES: &'static [Table] = &[index::CHUNKS, index::PACKS, index::QUARANTINE, index::STORE];
    /// The tables that hold nothing over a restart.
    pub const SCRATCH: &'static [Table] = &[index::STAGING, index::SCRATCH];

    /// Open the store and bring packs and index together (see `recover`). `Corrupt` if the index is
    /// older than the packs.
    pub async fn open(
        index: Arc<dyn KvStore>,
        blobs: SharedBlobs,
        env: Env,
        options: ChunkStoreOptions,
    ) -> Result<Arc<Self>> {
        if !(MIN_PACK..=MAX_PACK).contains(&options.pack_bytes) {
            let what = format!("packs of {} bytes", options.pack_bytes);
            return Err(Error::invalid(what).remedy(format!("choose a size from {MIN_PACK} to {MAX_PACK} bytes")));
        }
        let index = blocking(move || Index::new(index).map(Arc::new)).await?;
        let epoch = recover::recover(&index, &blobs).await?;
        let cache = ChunkCache::new(options.cache_bytes);
        let ahead = Ahead::new(options.read_ahead_bytes);
        let (turns, loaders) = (Turns::new(LOADS), Loaders::start(LOADS)?);
        let (next_pack, next_session) = (AtomicU32::new(0), AtomicU64::new(0));
        let shared =
            Shared { index, blobs, options, env, cache, ahead, turns, loaders, epoch, next_pack, next_session };
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }

    /// Begin to write chunks. Must be called where a tokio runtime is entered.
    pub fn begin(&self) -> Result<Session> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|e| Error::internal("an import session needs a tokio runtime").because(e))?;
        Ok(Session::new(self.shared.clone(), runtime))
    }

    pub fn cache(&self) -> &ChunkCache {
        &self.shared.cache
    }

    pub fn ahead(&self) -> AheadStats {
        self.shared.ahead.stats()
    }

    /// Let loads that were handed to threads come to their end; no more are. Blocks for that.
    pub fn close(&self) {
        self.shared.loaders.close();
    }

    /// Add up all packs. Blocks for a scan of their records.
    pub fn usage(&self) -> Result<StoreUsage> {
        let mut usage = StoreUsage::default();
        self.shared.index.packs(&mut |_, record| {
            usage.packs += 1;
            usage.chunks += u64::from(record.totals.chunks);
            usage.raw_bytes += record.totals.raw_bytes;
            usage.stored_bytes += record.totals.stored_bytes;
        })?;
        self.quarantined(&mut |_, _| usage.quarantined += 1)?;
        Ok(usage)
    }

    /// Bytes that the chunk takes in its pack, `None` if there is no such chunk. Blocks.
    pub fn stored_len(&self, id: &ChunkId) -> Result<Option<u32>> {
        Ok(self.shared.index.location(id)?.map(|location| location.span.stored_len))
    }

    /// Those of `ids` that are in packs, each once with its length, in the order in which packs have them: read
    /// so, a disk goes forward. Blocks.
    pub fn in_disk_order(&self, mut ids: Vec<ChunkId>) -> Result<Vec<(ChunkId, u32)>> {
        ids.sort_unstable();
        ids.dedup();
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(Location { pack, span }) = self.shared.index.location(&id)? {
                found.push(((pack.epoch, pack.seq, span.offset), (id, span.raw_len)));
            }
        }
        found.sort_unstable_by_key(|(place, _)| *place);
        Ok(found.into_iter().map(|(_, chunk)| chunk).collect())
    }

    /// Visit every chunk in quarantine, with the name of its pack and why it is there. Blocks.
    pub fn quarantined(&self, visit: &mut dyn FnMut(ChunkId, String)) -> Result<()> {
        self.shared.index.quarantine_list(&mut |id, bad| {
            visit(id, format!("pack {}: {}", bad.location.pack, bad.reason));
            ControlFlow::Continue(())
        })
    }
}

impl ChunkSource for ChunkStore {
    fn cached(&self, id: &ChunkId) -> Option<Bytes> {
        self.shared.cache.get(id).or_else(|| self.shared.take_ahead(id))
    }

    fn memory(&self) -> Option<Arc<MemoryFile>> {
        self.shared.cache.memory().cloned()
    }

    fn load(&self, id: ChunkId) -> BoxFuture<'static, Result<Bytes>> {
        self.shared.clone().load(id, Lane::Upkeep, None).boxed()
    }

    /// What follows in the packs may be read ahead.
    fn load_all(&self, ids: &[ChunkId], lane: Lane) -> BoxFuture<'static, Result<Vec<Bytes>>> {
        let round = self.shared.ahead.begin_round();
        try_join_all(ids.iter().map(|id| self.shared.clone().load(*id, lane, round))).boxed()
    }
}

impl Shared {
    /// A name for a new pack.
    pub fn next_pack(&self) -> Result<PackId> {
        let next = |seq: u32| seq.checked_add(1);
        let seq = self.next_pack.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let used_up = |_| {
            Error::new(ErrorKind::Unavailable, "all pack names of this start are used").remedy("restart the daemon")
        };
        Ok(PackId { epoch: self.epoch, seq: seq.map_err(used_up)? })
    }

    /// What all keys of a new session begin with.
    pub fn next_session(&self) -> [u8; 16] {
        let session = self.next_session.fetch_add(1, Ordering::Relaxed);
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.epoch.to_be_bytes());
        key[8..].copy_from_slice(&session.to_be_bytes());
        key
    }

    async fn load(self: Arc<Self>, id: ChunkId, lane: Lane, round: Option<Round>) -> Result<Bytes> {
        let (tell, told) = oneshot::channel();
        // A task of its own: others wait for this load, and for this turn, whatever becomes of the caller.
        tokio::spawn(self.load_in_turn(id, lane, round, tell));
        let interrupted = |e| Error::new(ErrorKind::Unavailable, format!("load of chunk {id}")).because(e);
        told.await.map_err(interrupted)?
    }

    async fn load_in_turn(
        self: Arc<Self>,
        id: ChunkId,
        lane: Lane,
        round: Option<Round>,
        mut tell: oneshot::Sender<Result<Bytes>>,
    ) {
        // Who waits for another's load needs no turn for that.
        let mut turn = None;
        if !self.cache.is_loading(&id) {
            turn = tokio::select! {
                turn = self.turns.take(lane) => Some(turn),
                // Nobody wants it any more.
                () = tell.closed() => return,
            };
        }
        let loaded = match self.cache.get(&id) {
            Some(bytes) => Ok(bytes),
            None => {
                let turn = turn.filter(|_| !self.cache.is_loading(&id));
                self.cache.get_or_load(&id, self.read(id, round, turn)).await
            }
        };
        tell.send(loaded).ok();
    }

    /// The chunk, if it was read ahead; else read and verified.
    async fn read(self: &Arc<Self>, id: ChunkId, round: Option<Round>, turn: Option<Turn>) -> Result<Bytes> {
        if let Some(bytes) = self.await_ahead(&id).await.or_else(|| self.cache.get(&id)) {
            return Ok(bytes);
        }
        let shared = self.clone();
        let work = move || {
            let loaded = shared.read_here(id, round);
            drop(turn);
            loaded
        };
        self.loaders.run(work).await?
    }

    /// Read and verify a chunk on this thread.
    fn read_here(self: &Arc<Self>, id: ChunkId, round: Option<Round>) -> Result<Bytes> {
        let location = match self.index.find(&id)? {
            Found::Good(location) => location,
            Found::Bad(bad) => return Err(bad_chunk(id, bad.location.pack, &bad.reason)),
            Found::Absent => return Err(absent(id)),
        };
        if let Some(round) = round {
            let shared = self.clone();
            // Not on this thread, which gives way: others wait for what that locks.
            Handle::current().spawn(async move { shared.note_miss(round, &location) });
        }
        let payload = match self.blobs.read(&location.pack.name(), location.span.payload()) {
            Ok(payload) => payload,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Corrupt) => {
                return Err(self.quarantine(id, location, e.to_string()));
            }
            Err(e) => return Err(e),
        };
        self.decode(id, payload, &location.span).map_err(|reason| self.quarantine(id, location, reason))
    }

    /// The verified chunk where it is to stay, or what is wrong with its payload.
    fn decode(&self, id: ChunkId, payload: Bytes, span: &Span) -> Result<Bytes, String> {
        let bytes = self.loaders.compute(|| verify(id, payload, span))?;
        self.cache.count(&bytes);
        Ok(match (self.cache.place(&bytes), span.encoding) {
            (Some(placed), _) => placed,
            // It may be a slice of more, all of which it would keep in memory.
            (None, Encoding::Raw) => Bytes::copy_from_slice(&bytes),
            (None, Encoding::Zstd) => bytes,
        })
    }

    fn quarantine(&self, id: ChunkId, location: Location, reason: String) -> Error {
        let error = bad_chunk(id, location.pack, &reason);
        tracing::error!(%error, "chunk quarantined");
        let bad = Quarantined { location, since: self.env.clock.now(), reason };
        if let Err(failed) = self.index.quarantine(&id, &bad) {
            // Not remembered; the next reader finds the damage again.
            tracing::warn!(chunk = %id, error = %failed, "the quarantine was not recorded");
        }
        error
    }
}

/// The chunk, if its payload is that.
fn verify(id: ChunkId, payload: Bytes, span: &Span) -> Result<Bytes, String> {
    decode(payload, span).and_then(|bytes| match ChunkId::of(&bytes) {
        found if found == id => Ok(bytes),
        found => Err(format!("its bytes are those of {found}")),
    })
}

fn bad_chunk(id: ChunkId, pack: PackId, reason: &str) -> Error {
    Error::corrupt(format!("chunk {id} in pack {pack} is damaged: {reason}"))
        .remedy("import the image again from its source, or restore the pack from a backup")
}

fn absent(id: ChunkId) -> Error {
    Error::corrupt(format!("chunk {id} is missing")).remedy("import the image again from its source")
}

/// Run what blocks where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let joined = tokio::task::spawn_blocking(f).await;
    joined.map_err(|e| Error::new(ErrorKind::Unavailable, "the chunk store was interrupted").because(e))?
}

#[cfg(test)]
pub(in crate::chunk) mod tests;

//! How readers get chunks: try, and if something is missing, load it and try again.
//!
//! Everything that reads manifests and files is written as plain functions over a [`Fetch`]. A
//! function that needs a chunk which is not in the cache notes the id and stops with
//! [`Stop::Missing`]; [`Fetch::run`] loads all that was noted and calls the function again. Loaded
//! chunks are held by the `Fetch` until it is dropped, so a retry always gets further, however small
//! the cache. A run that finds everything cached allocates nothing and never waits.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, try_join, try_join_all};
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{ChunkId, Lane, MemoKey, memo};
use crate::env::MemoryFile;
use crate::error::{Error, Result};

/// Chunks that one `Fetch` asks for at once; the rest waits for the next round.
const MAX_LOADS: usize = 64;

/// Where verified chunks come from.
pub trait ChunkSource: Send + Sync + 'static {
    /// The chunk, if it is in memory.
    fn cached(&self, id: &ChunkId) -> Option<Bytes>;
    /// Whether readers may keep what they decode. Who wants to see each access says no.
    fn may_be_kept(&self) -> bool {
        true
    }
    /// Load, verify and cache the chunk. Once begun, it goes on if the future is dropped.
    fn load(&self, id: ChunkId) -> BoxFuture<'static, Result<Bytes>>;
    /// The file in memory in which some of them lie, if there is one.
    fn memory(&self) -> Option<Arc<MemoryFile>> {
        None
    }
    /// Load chunks that one reader misses together, in the turn of his lane.
    fn load_all(&self, ids: &[ChunkId], _lane: Lane) -> BoxFuture<'static, Result<Vec<Bytes>>> {
        try_join_all(ids.iter().map(|id| self.load(*id))).boxed()
    }
}

/// What became of a chunk that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub id: ChunkId,
    /// Bytes that it takes in a pack (compressed where that is smaller), without the frame.
    pub stored_len: u32,
    /// False if it was there before.
    pub fresh: bool,
}

/// Where new chunks go. `put` blocks, and may be called from many threads.
pub trait ChunkSink: Send + Sync {
    /// Store `bytes` (1..=`MAX_CHUNK` of them) under their hash; stored once however often put.
    fn put(&self, bytes: &[u8]) -> Result<Stored>;
}

/// Why a reading function stopped.
#[derive(Debug)]
pub enum Stop {
    /// Chunks were noted in the `Fetch`: load them and call again.
    Missing,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The result of a reading function that may have to be called again.
pub type Step<T> = std::result::Result<T, Stop>;

/// A place in the log of private writes: (segment, offset of the data).
pub type BlockKey = (u32, u32);

/// What a `Fetch` awaits besides chunks.
type Wait = BoxFuture<'static, Result<Option<(BlockKey, Bytes)>>>;

/// One reader's view of a [`ChunkSource`].
pub struct Fetch<'a> {
    source: &'a dyn ChunkSource,
    /// Keep what is decoded for later readers of this thread.
    keeps: bool,
    /// For whom it loads.
    lane: Lane,
    held: SmallVec<[(ChunkId, Bytes); 0]>,
    wanted: SmallVec<[ChunkId; 0]>,
    /// Private data, loaded.
    blocks: SmallVec<[(BlockKey, Bytes); 0]>,
    waits: Vec<Wait>,
    /// A long walk, and how far it came.
    walk: Option<([u8; 32], u64)>,
}

impl<'a> Fetch<'a> {
    pub fn new(source: &'a dyn ChunkSource) -> Self {
        Self {
            source,
            keeps: false,
            lane: Lane::default(),
            held: SmallVec::new(),
            wanted: SmallVec::new(),
            blocks: SmallVec::new(),
            waits: Vec::new(),
            walk: None,
        }
    }

    /// For requests: keep what is decoded, for later ones on this thread.
    #[must_use]
    pub fn keeping(self) -> Self {
        Self { keeps: self.source.may_be_kept(), ..self }
    }

    /// Whose turn it takes to load chunks.
    pub fn load_for(&mut self, lane: Lane) {
        self.lane = lane;
    }

    /// The chunk `id`, which is a page of a tree.
    pub fn page(&mut self, id: &ChunkId) -> Step<Bytes> {
        if self.keeps
            && let Some(kept) = memo::page(id)
        {
            return Ok(kept);
        }
        let bytes = self.get(id)?;
        if self.keeps {
            memo::put_page(*id, bytes.clone());
        }
        Ok(bytes)
    }

    /// The value that `make` decodes from chunks, if there is one. `key` must say all that it depends on, and
    /// it must own its bytes.
    pub fn decoded<T: Any + Send + Sync>(
        &mut self,
        key: MemoKey,
        make: impl FnOnce(&mut Self) -> Step<Option<T>>,
    ) -> Step<Option<Arc<T>>> {
        if self.keeps
            && let Some(kept) = memo::get(&key)
        {
            return Ok(Some(kept));
        }
        let Some(made) = make(self)?.map(Arc::new) else { return Ok(None) };
        if self.keeps {
            memo::put(key, made.clone());
        }
        Ok(Some(made))
    }

    /// Whether nothing is noted: a call that stopped now would never get further.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.waits.is_empty()
    }

    /// Note that `what` has to end before the call makes sense again: `return Err(fetch.wait_for(..))`.
    pub fn wait_for(&mut self, what: impl Future<Output = Result<()>> + Send + 'static) -> Stop {
        self.waits.push(what.map(|done| done.map(|()| None)).boxed());
        Stop::Missing
    }

    /// Whether the progress of any walk was noted.
    pub fn has_walk(&self) -> bool {
        self.walk.is_some()
    }

    /// How far the walk that `what` names came in an earlier run.
    pub fn walked(&self, what: &[u8; 32]) -> Option<u64> {
        self.walk.filter(|(walk, _)| walk == what).map(|(_, at)| at)
    }

    /// Note how far a walk came that has found nothing yet, so that the next run need not repeat it.
    pub fn note_walk(&mut self, what: [u8; 32], at: u64) {
        self.walk = Some((what, at));
    }

    /// The private data at `key`; loads it if it was not loaded by this `Fetch` before.
    pub fn block(&mut self, key: BlockKey, load: impl FnOnce() -> BoxFuture<'static, Result<Bytes>>) -> Step<Bytes> {
        if let Some((_, bytes)) = self.blocks.iter().find(|(held, _)| *held == key) {
            return Ok(bytes.clone());
        }
        if self.waits.len() < MAX_LOADS {
            self.waits.push(load().map(move |loaded| loaded.map(|bytes| Some((key, bytes)))).boxed());
        }
        Err(Stop::Missing)
    }

    /// The chunk, or `Stop::Missing` after noting that it is wanted.
    pub fn get(&mut self, id: &ChunkId) -> Step<Bytes> {
        if let Some(bytes) = self.source.cached(id) {
            return Ok(bytes);
        }
        if let Some((_, bytes)) = self.held.iter().find(|(held, _)| held == id) {
            return Ok(bytes.clone());
        }
        if self.wanted.len() < MAX_LOADS && !self.wanted.contains(id) {
            self.wanted.push(*id);
        }
        Err(Stop::Missing)
    }

    /// Load and await what was noted.
    pub async fn fill(&mut self) -> Result<()> {
        let (wanted, waits) = (std::mem::take(&mut self.wanted), std::mem::take(&mut self.waits));
        let loads = self.source.load_all(&wanted, self.lane);
        let (loaded, ended) = try_join(loads, try_join_all(waits)).await?;
        self.held.extend(wanted.into_iter().zip(loaded));
        self.blocks.extend(ended.into_iter().flatten());
        Ok(())
    }

    /// Drop what is held for retries. For long walks, between two steps of one walk.
    pub fn release(&mut self) {
        self.held.clear();
        self.blocks.clear();
    }

    /// Call `f` until it has all its chunks.
    pub async fn run<T>(&mut self, mut f: impl FnMut(&mut Self) -> Step<T>) -> Result<T> {
        loop {
            match f(self) {
                Ok(value) => return Ok(value),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Missing) => self.fill().await?,
            }
        }
    }

    /// [`run`](Self::run) for a thread that may block. Must be called where a tokio runtime is
    /// entered, but not from one of its tasks.
    pub fn run_blocking<T>(&mut self, f: impl FnMut(&mut Self) -> Step<T>) -> Result<T> {
        tokio::runtime::Handle::current().block_on(self.run(f))
    }
}

/// Chunks in memory: the twin of the chunk store. Nothing is "cached" until it was loaded once, so
/// that the retry path runs too.
#[derive(Default)]
pub struct MemoryChunks {
    chunks: Mutex<HashMap<ChunkId, (Bytes, bool)>>,
}

impl MemoryChunks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of chunks and their bytes.
    pub fn usage(&self) -> (usize, u64) {
        let chunks = self.chunks.lock();
        (chunks.len(), chunks.values().map(|(bytes, _)| bytes.len() as u64).sum())
    }

    /// Forget a chunk, as if it were lost.
    pub fn remove(&self, id: &ChunkId) {
        self.chunks.lock().remove(id);
    }

    /// Every id, sorted.
    pub fn ids(&self) -> Vec<ChunkId> {
        let mut ids: Vec<_> = self.chunks.lock().keys().copied().collect();
        ids.sort();
        ids
    }
}

impl ChunkSink for MemoryChunks {
    fn put(&self, bytes: &[u8]) -> Result<Stored> {
        let id = ChunkId::of(bytes);
        let mut chunks = self.chunks.lock();
        let fresh = !chunks.contains_key(&id);
        if fresh {
            chunks.insert(id, (Bytes::copy_from_slice(bytes), false));
        }
        Ok(Stored { id, stored_len: bytes.len() as u32, fresh })
    }
}

impl ChunkSource for MemoryChunks {
    fn cached(&self, id: &ChunkId) -> Option<Bytes> {
        self.chunks.lock().get(id).filter(|(_, loaded)| *loaded).map(|(bytes, _)| bytes.clone())
    }

    fn load(&self, id: ChunkId) -> BoxFuture<'static, Result<Bytes>> {
        let found = self.chunks.lock().get_mut(&id).map(|entry| {
            entry.1 = true;
            entry.0.clone()
        });
        async move { found.ok_or_else(|| Error::corrupt(format!("chunk {id} is missing"))) }.boxed()
    }
}

//! The cache of verified chunks that all readers of all clones share.
//!
//! Owns the decompressed bytes of recently used chunks, up to a byte budget. Eviction is that of
//! `quick_cache` (clock-pro, near S3-FIFO): one long scan does not push out what is read often.
//! Invariants: only verified bytes come in; however many readers miss a chunk at once, one loads it
//! and the others wait for it. A hit touches one shard's read lock and no counter, so that many cores
//! can hit at once; only misses are counted. What is long lies in a file in memory, so that it can leave
//! through a socket without being copied.
//!
//! Failure story: a load that fails caches nothing, answers its own caller, and lets the next waiter
//! try.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use rustc_hash::FxHashSet;

use super::cutter::BLOCK;
use super::{ChunkId, MAX_CHUNK};
use crate::env::MemoryFile;
use crate::error::Result;

/// What an entry costs beyond its payload: key, handle, table slot, allocation headers.
const ENTRY_OVERHEAD: u64 = 128;

/// Chunks from this length on lie in the file in memory: for shorter pieces copying is as fast.
const MIN_PLACED: usize = 32 * 1024;
/// In units of which they take memory.
const PAGE: u64 = 4096;

/// Verified chunks in memory.
pub struct ChunkCache {
    memory: Option<Arc<MemoryFile>>,
    chunks: Cache<ChunkId, Bytes, ChunkWeight, BuildHasherDefault<IdHasher>>,
    /// Chunks that `get_or_load` loads.
    loading: Mutex<FxHashSet<ChunkId>>,
    loads: AtomicU64,
    loaded_bytes: AtomicU64,
}

/// What the cache holds and has loaded since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    pub chunks: u64,
    /// Payload and overhead of what is cached.
    pub bytes: u64,
    pub capacity_bytes: u64,
    /// Chunks that were read and verified, for a reader or ahead of him.
    pub loads: u64,
    /// Their decompressed bytes.
    pub loaded_bytes: u64,
}

impl ChunkCache {
    /// An empty cache that holds up to `capacity_bytes`.
    pub fn new(capacity_bytes: u64) -> Self {
        let expected = usize::try_from(capacity_bytes / BLOCK as u64).unwrap_or(usize::MAX).max(1);
        let chunks = Cache::with(
            expected,
            capacity_bytes,
            ChunkWeight,
            BuildHasherDefault::default(),
            DefaultLifecycle::default(),
        );
        Self {
            memory: memory(capacity_bytes),
            chunks,
            loading: Mutex::default(),
            loads: AtomicU64::new(0),
            loaded_bytes: AtomicU64::new(0),
        }
    }

    /// Where long chunks lie.
    pub fn memory(&self) -> Option<&Arc<MemoryFile>> {
        self.memory.as_ref()
    }

    /// A copy in the file in memory, where what is long is to stay. What is cached should have been here.
    pub fn place(&self, bytes: &[u8]) -> Option<Bytes> {
        self.memory.as_ref().filter(|_| bytes.len() >= MIN_PLACED).and_then(|memory| memory.place(bytes))
    }

    /// The chunk, if it is here.
    pub fn get(&self, id: &ChunkId) -> Option<Bytes> {
        self.chunks.get(id)
    }

    /// The chunk; `load` runs only if it is neither here nor being loaded by another caller.
    pub async fn get_or_load(&self, id: &ChunkId, load: impl Future<Output = Result<Bytes>>) -> Result<Bytes> {
        // Longer than the load itself: until the chunk is in the cache.
        let mut mark = None;
        let load = async {
            mark = Some(Mark::set(&self.loading, *id));
            load.await
        };
        self.chunks.get_or_insert_async(id, load).await
    }

    /// Keep a chunk that nobody loads.
    pub fn insert(&self, id: &ChunkId, bytes: &Bytes) {
        self.chunks.insert(*id, bytes.clone());
    }

    pub fn is_loading(&self, id: &ChunkId) -> bool {
        self.loading.lock().contains(id)
    }

    /// Whether it is here or being loaded.
    pub fn is_known(&self, id: &ChunkId) -> bool {
        // In this order: what was being loaded is here before it is no longer.
        self.is_loading(id) || self.chunks.contains_key(id)
    }

    /// A chunk was read from disk and verified.
    pub fn count(&self, bytes: &Bytes) {
        self.loads.fetch_add(1, Ordering::Relaxed);
        self.loaded_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    /// What a chunk of `len` bytes costs of the budget.
    pub const fn cost(len: u32) -> u64 {
        let len = len as u64;
        ENTRY_OVERHEAD + if len < MIN_PLACED as u64 { len } else { len.next_multiple_of(PAGE) }
    }

    pub fn stats(&self) -> CacheStats {
        CacheStats {
            chunks: self.chunks.len() as u64,
            bytes: self.chunks.weight(),
            capacity_bytes: self.chunks.capacity(),
            loads: self.loads.load(Ordering::Relaxed),
            loaded_bytes: self.loaded_bytes.load(Ordering::Relaxed),
        }
    }
}

/// A chunk is being loaded, until this is dropped.
struct Mark<'a> {
    loading: &'a Mutex<FxHashSet<ChunkId>>,
    id: ChunkId,
}

impl<'a> Mark<'a> {
    fn set(loading: &'a Mutex<FxHashSet<ChunkId>>, id: ChunkId) -> Self {
        loading.lock().insert(id);
        Self { loading, id }
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        self.loading.lock().remove(&self.id);
    }
}

#[derive(Clone)]
struct ChunkWeight;

impl Weighter<ChunkId, Bytes> for ChunkWeight {
    fn weight(&self, _id: &ChunkId, bytes: &Bytes) -> u64 {
        ChunkCache::cost(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
    }
}

/// A file with a slot for each long chunk that fits the budget, and as many for those that were evicted and are
/// still being sent.
fn memory(capacity_bytes: u64) -> Option<Arc<MemoryFile>> {
    let slots = usize::try_from(capacity_bytes).ok()? / MIN_PLACED * 2;
    if slots == 0 {
        return None;
    }
    match MemoryFile::new(slots, MAX_CHUNK) {
        Ok(memory) => Some(memory),
        Err(error) => {
            tracing::warn!(%error, "chunks are copied on their way out: there is no file in memory for them");
            None
        }
    }
}

/// A chunk id is a hash already: take eight bytes of it.
#[derive(Clone, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length that precedes the bytes: the same for every id.
    fn write_usize(&mut self, _len: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;
    use crate::error::Error;

    fn chunk(n: u32, len: usize) -> (ChunkId, Bytes) {
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        (ChunkId::of(&bytes), Bytes::from(bytes))
    }

    #[test]
    fn the_hash_is_part_of_the_id() {
        let hasher = BuildHasherDefault::<IdHasher>::default();
        let id = ChunkId(std::array::from_fn(|i| i as u8));
        assert_eq!(hasher.hash_one(id), u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7]));
    }

    #[tokio::test]
    async fn many_waiters_one_load() {
        let cache = ChunkCache::new(1 << 20);
        let (id, bytes) = chunk(1, 100);
        let calls = AtomicU64::new(0);
        let load = || async {
            calls.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(bytes.clone())
        };
        let waiters = (0..50).map(|_| cache.get_or_load(&id, load()));
        let got = futures_util::future::try_join_all(waiters).await.unwrap();
        assert!(got.iter().all(|b| *b == bytes));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn long_chunks_lie_in_the_file_and_others_do_not() {
        let cache = ChunkCache::new(1 << 20);
        for (n, len) in [(1, MIN_PLACED), (2, MIN_PLACED - 1)] {
            let (id, bytes) = chunk(n, len);
            let placed = cache.place(&bytes);
            assert_eq!(placed.is_some(), len >= MIN_PLACED);
            cache.insert(&id, &placed.unwrap_or(bytes.clone()));
            let cached = cache.get(&id).unwrap();
            assert_eq!(cached, bytes);
            assert_eq!(cache.memory().unwrap().offset_of(&cached[10..]).is_some(), len >= MIN_PLACED);
        }
    }

    #[tokio::test]
    async fn a_failed_load_caches_nothing() {
        let cache = ChunkCache::new(1 << 20);
        let (id, bytes) = chunk(1, 100);
        let failed = cache.get_or_load(&id, async { Err(Error::corrupt("broken")) }).await;
        assert_eq!(failed.unwrap_err().what(), "broken");
        assert_eq!(cache.get(&id), None);
        assert_eq!(cache.get_or_load(&id, async { Ok(bytes.clone()) }).await.unwrap(), bytes);
        assert_eq!(cache.get(&id), Some(bytes));
    }

    #[tokio::test]
    async fn the_budget_holds_and_a_scan_leaves_what_is_hot() {
        let cache = ChunkCache::new(4 << 20);
        let hot: Vec<_> = (0..16).map(|n| chunk(n, BLOCK)).collect();
        for (id, bytes) in &hot {
            cache.get_or_load(id, async { Ok(bytes.clone()) }).await.unwrap();
            assert!(cache.get(id).is_some() && cache.get(id).is_some());
        }
        for n in 100..1000 {
            let (id, bytes) = chunk(n, BLOCK);
            cache.get_or_load(&id, async { Ok(bytes) }).await.unwrap();
            assert!(cache.stats().bytes <= cache.stats().capacity_bytes);
        }
        let kept = hot.iter().filter(|(id, _)| cache.get(id).is_some()).count();
        assert!(kept >= 14, "{kept} of 16 hot chunks survived the scan");
    }

    /// What `mimeo warm` does to a cache that is full of what was once read often.
    #[tokio::test]
    async fn what_is_loaded_and_looked_at_once_displaces_what_nobody_asks_for_any_more() {
        let cache = ChunkCache::new(4 << 20);
        for n in 0..64 {
            let (id, bytes) = chunk(n, BLOCK);
            cache.get_or_load(&id, async { Ok(bytes) }).await.unwrap();
            assert!(cache.get(&id).is_some() && cache.get(&id).is_some());
        }
        let warmed: Vec<_> = (100..132).map(|n| chunk(n, BLOCK)).collect();
        for (id, bytes) in &warmed {
            cache.get_or_load(id, async { Ok(bytes.clone()) }).await.unwrap();
            cache.get(id);
        }
        let kept = warmed.iter().filter(|(id, _)| cache.get(id).is_some()).count();
        assert!(kept >= 29, "{kept} of 32 warmed chunks stayed");
    }

    #[tokio::test]
    async fn a_chunk_larger_than_the_cache_is_still_answered() {
        let cache = ChunkCache::new(0);
        let (id, bytes) = chunk(1, BLOCK);
        assert_eq!(cache.get_or_load(&id, async { Ok(bytes.clone()) }).await.unwrap(), bytes);
        assert_eq!(cache.get(&id), None);
    }
}

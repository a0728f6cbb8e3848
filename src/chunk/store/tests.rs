use std::collections::BTreeSet;
use std::ops::Range;

use futures_util::future::try_join_all;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::*;
use crate::chunk::blob::{BlobStore, LocalBlobs, MemoryBlobs};
use crate::chunk::{ChunkSink, Stored};
use crate::meta::{MemoryKv, RocksKv, RocksOptions};

pub(in crate::chunk) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// `n` chunks that do not compress, of 40 KiB: six fill a pack of the smallest size.
pub(in crate::chunk) fn chunks(seed: u64, n: u64) -> Vec<Vec<u8>> {
    (0..n).map(|i| noise(seed * 1000 + i, 40 << 10)).collect()
}

/// What outlives a process: the disk below a store.
#[derive(Clone, Default)]
pub(in crate::chunk) struct World {
    pub kv: Arc<MemoryKv>,
    pub blobs: MemoryBlobs,
}

impl World {
    pub async fn open(&self) -> Arc<ChunkStore> {
        self.try_open().await.unwrap()
    }

    pub async fn try_open(&self) -> Result<Arc<ChunkStore>> {
        open(self.kv.clone(), Arc::new(self.blobs.clone())).await
    }

    pub async fn pack_names(&self) -> Vec<String> {
        self.blobs.list("packs/").await.unwrap()
    }

    /// A new process on the same disk. What it leaves unfinished when it ends, it never does.
    fn life<T>(&self, f: impl AsyncFnOnce(&Self) -> T) -> T {
        runtime().block_on(f(self))
    }

    fn rows(&self, table: Table) -> usize {
        let mut rows = 0;
        let count = &mut |_: &[u8], _: &[u8]| {
            rows += 1;
            ControlFlow::Continue(())
        };
        self.kv.scan(table, &[], &[], count).unwrap();
        rows
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

async fn open(kv: Arc<dyn KvStore>, blobs: SharedBlobs) -> Result<Arc<ChunkStore>> {
    let options = ChunkStoreOptions { cache_bytes: 8 << 20, pack_bytes: MIN_PACK, ..ChunkStoreOptions::default() };
    ChunkStore::open(kv, blobs, Env::real(), options).await
}

/// Put from a thread that may block, as an import does.
pub(in crate::chunk) async fn put_all(session: Session, chunks: Vec<Vec<u8>>) -> (Session, Result<Vec<Stored>>) {
    let puts = move || {
        let stored = chunks.iter().map(|chunk| session.put(chunk)).collect();
        (session, stored)
    };
    tokio::task::spawn_blocking(puts).await.unwrap()
}

pub(in crate::chunk) async fn import(store: &ChunkStore, chunks: &[Vec<u8>]) -> Result<()> {
    let (session, stored) = put_all(store.begin()?, chunks.to_vec()).await;
    stored?;
    session.commit().await.map(|_| ())
}

/// How many of the chunks can be read; anything but "missing" is a failure.
async fn readable(store: &ChunkStore, chunks: &[Vec<u8>]) -> usize {
    let mut found = 0;
    for chunk in chunks {
        match store.load(ChunkId::of(chunk)).await {
            Ok(bytes) => {
                assert_eq!(bytes, chunk);
                found += 1;
            }
            Err(error) => assert!(error.what().contains("is missing"), "{error}"),
        }
    }
    found
}

/// No row of the index points into nothing, and no pack is there without a record.
async fn check_whole(world: &World, store: &ChunkStore) {
    let mut ids = Vec::new();
    let collect = &mut |key: &[u8], _: &[u8]| {
        ids.push(ChunkId::from_slice(key).unwrap());
        ControlFlow::Continue(())
    };
    world.kv.scan(index::CHUNKS, &[], &[], collect).unwrap();
    for id in ids {
        store.load(id).await.unwrap();
    }
    let mut recorded = Vec::new();
    store
        .shared
        .index
        .packs(&mut |pack, record| {
            assert_eq!(record.state, index::PackState::Indexed);
            recorded.push(pack.name());
        })
        .unwrap();
    assert_eq!(world.pack_names().await, recorded);
}

#[tokio::test]
async fn what_was_committed_is_read_back_after_a_restart() {
    let world = World::default();
    let mut all = chunks(1, 20);
    all.extend((0..5000_u32).map(|n| n.to_be_bytes().to_vec()));
    all.push(vec![b'x'; crate::chunk::MAX_CHUNK]);
    let store = world.open().await;
    import(&store, &all).await.unwrap();
    assert_eq!((world.rows(index::STAGING), readable(&store, &all).await), (0, all.len()));
    let usage = store.usage().unwrap();
    assert_eq!((usage.chunks, usage.raw_bytes), (5021, 20 * 40960 + 20000 + 262_144));
    assert_eq!(usage.packs, world.pack_names().await.len() as u64);
    assert!(usage.stored_bytes < 20 * 40960 + 20000 + 1000, "{usage:?}");
    drop(store);
    world.kv.crash();
    let store = world.open().await;
    assert_eq!(readable(&store, &all).await, all.len());
    assert_eq!(store.stored_len(&ChunkId::of(&all[0])).unwrap(), Some(40960));
    assert_eq!(store.stored_len(&ChunkId([0; 32])).unwrap(), None);
    check_whole(&world, &store).await;
}

#[test]
fn the_real_thing_end_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, dropped) = (chunks(2, 15), chunks(3, 8));
    let open_real = async || {
        let options = RocksOptions { scratch: ChunkStore::SCRATCH.to_vec(), ..RocksOptions::default() };
        let tables = [ChunkStore::TABLES, ChunkStore::SCRATCH].concat();
        let kv = RocksKv::open(dir.path().join("index"), &tables, options).unwrap();
        let blobs = LocalBlobs::open(Env::real().disk, dir.path().to_owned()).unwrap();
        open(Arc::new(kv), Arc::new(blobs)).await.unwrap()
    };
    runtime().block_on(async {
        let store = open_real().await;
        import(&store, &kept).await.unwrap();
        let (session, stored) = put_all(store.begin().unwrap(), dropped.clone()).await;
        stored.unwrap();
        session.abort().await;
        assert_eq!(readable(&store, &kept).await, 15);
    });
    runtime().block_on(async {
        let store = open_real().await;
        assert_eq!(readable(&store, &kept).await, 15);
        assert_eq!(readable(&store, &dropped).await, 0);
        assert_eq!(store.usage().unwrap().packs, 3);
    });
}

/// Import `new` beside `old` until the `n`th index write fails; true if it never came to that.
fn crash_at_write(n: u64, kept_batches: usize, cleanup: bool) -> bool {
    let (world, old, new) = (World::default(), chunks(1, 8), chunks(2, 14));
    let committed = world.life(async |world| {
        let store = world.open().await;
        import(&store, &old).await.unwrap();
        world.kv.fail_writes_after(n);
        let committed = import(&store, &new).await.is_ok();
        if cleanup {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        committed
    });
    world.kv.crash_keeping(kept_batches);
    world.life(async |world| {
        let store = world.open().await;
        assert_eq!(readable(&store, &old).await, old.len(), "write {n}, {kept_batches} kept: old chunks are lost");
        let found = readable(&store, &new).await;
        let all_or_nothing = if committed { found == new.len() } else { found == 0 || found == new.len() };
        assert!(all_or_nothing, "write {n}, {kept_batches} kept: {found} of {} are there", new.len());
        check_whole(world, &store).await;
        import(&store, &new).await.unwrap();
        assert_eq!(readable(&store, &new).await, new.len());
    });
    committed
}

#[test]
fn a_crash_at_any_index_write_leaves_all_or_nothing() {
    for kept_batches in 0..4 {
        for cleanup in [false, true] {
            let steps = (0..).find(|n| crash_at_write(*n, kept_batches, cleanup)).unwrap();
            assert!(steps >= 5, "only {steps} writes: the test has lost its subject");
        }
    }
}

#[test]
fn a_crash_in_the_recovery_is_recovered_from() {
    let crash_again_at = |n: u64| {
        let (world, new) = (World::default(), chunks(2, 14));
        world.life(async |world| {
            let store = world.open().await;
            let (session, stored) = put_all(store.begin().unwrap(), new.clone()).await;
            stored.unwrap();
            // The last pack is staged, the packs are recorded, and no more.
            world.kv.fail_writes_after(2);
            session.commit().await.unwrap_err();
        });
        world.kv.crash();
        let recovered = world.life(async |world| {
            world.kv.fail_writes_after(n);
            world.try_open().await.is_ok()
        });
        world.kv.crash();
        world.life(async |world| {
            let store = world.open().await;
            assert_eq!(readable(&store, &new).await, new.len(), "write {n} of the recovery");
            check_whole(world, &store).await;
        });
        recovered
    };
    let steps = (0..).find(|n| crash_again_at(*n)).unwrap();
    assert!(steps >= 5, "only {steps} writes: the test has lost its subject");
}

#[test]
fn a_pack_that_cannot_be_written_fails_the_import_and_leaves_nothing() {
    for n in 0..4 {
        let (world, old, new) = (World::default(), chunks(1, 8), chunks(2, 20));
        world.life(async |world| {
            let store = world.open().await;
            import(&store, &old).await.unwrap();
            let packs = world.pack_names().await;
            world.blobs.fail_puts_after(n);
            let (session, stored) = put_all(store.begin().unwrap(), new.clone()).await;
            let error = match stored {
                Err(error) => {
                    session.abort().await;
                    error
                }
                Ok(_) => session.commit().await.unwrap_err(),
            };
            assert!(error.what().contains("failed as told"), "{error}");
            while world.pack_names().await != packs {
                tokio::task::yield_now().await;
            }
            assert_eq!(readable(&store, &new).await, 0);
            world.blobs.fail_puts_after(u64::MAX);
            import(&store, &new).await.unwrap();
            assert_eq!(readable(&store, &new).await, new.len());
            check_whole(world, &store).await;
        });
    }
}

#[tokio::test]
async fn packs_of_a_dead_import_go_at_the_next_open() {
    let world = World::default();
    let store = world.open().await;
    import(&store, &chunks(1, 3)).await.unwrap();
    let (session, stored) = put_all(store.begin().unwrap(), chunks(2, 20)).await;
    stored.unwrap();
    while world.pack_names().await.len() < 4 {
        tokio::task::yield_now().await;
    }
    std::mem::forget(session);
    world.blobs.put("packs/readme", Bytes::from_static(b"not a pack")).await.unwrap();
    world.kv.crash();
    let store = world.open().await;
    assert_eq!(world.pack_names().await.len(), 2, "the committed pack and the foreign file stay");
    assert_eq!(readable(&store, &chunks(1, 3)).await, 3);
    assert_eq!(readable(&store, &chunks(2, 20)).await, 0);
}

#[tokio::test]
async fn an_index_older_than_the_packs_is_refused_and_nothing_deleted() {
    let world = World::default();
    import(&*world.open().await, &chunks(1, 3)).await.unwrap();
    let no_index = World { kv: Arc::default(), blobs: world.blobs.clone() };
    let error = no_index.try_open().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("same backup"), "{error}");
    let young = World { kv: Arc::default(), blobs: MemoryBlobs::new() };
    young.open().await;
    drop(world.open().await);
    let store = world.open().await;
    import(&store, &chunks(2, 3)).await.unwrap();
    let old_index = World { kv: young.kv.clone(), blobs: world.blobs.clone() };
    assert!(old_index.try_open().await.is_err());
    assert_eq!(world.pack_names().await.len(), 2);
}

#[tokio::test]
async fn pack_names_are_never_used_again() {
    let world = World::default();
    let mut seen = BTreeSet::new();
    for round in 0..5 {
        let store = world.open().await;
        let (session, stored) = put_all(store.begin().unwrap(), chunks(round, 13)).await;
        stored.unwrap();
        while world.pack_names().await.is_empty() {
            tokio::task::yield_now().await;
        }
        for name in world.pack_names().await {
            assert!(seen.insert(name.clone()), "{name} again");
        }
        session.abort().await;
        world.kv.crash();
    }
}

/// Counts reads, and lets none through without a permit.
pub(in crate::chunk) struct Gate {
    pub inner: MemoryBlobs,
    pub reads: AtomicU64,
    pub permits: Arc<Semaphore>,
}

impl Gate {
    pub fn over(world: &World, permits: usize) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(permits));
        Arc::new(Self { inner: world.blobs.clone(), reads: AtomicU64::new(0), permits })
    }
}

impl BlobStore for Gate {
    fn put(&self, name: &str, bytes: Bytes) -> BoxFuture<'static, Result<()>> {
        self.inner.put(name, bytes)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> BoxFuture<'static, Result<Bytes>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let (permits, read) = (self.permits.clone(), self.inner.get_range(name, range));
        async move {
            let _permit = permits.acquire().await.unwrap();
            read.await
        }
        .boxed()
    }

    fn len(&self, name: &str) -> BoxFuture<'static, Result<Option<u64>>> {
        self.inner.len(name)
    }

    fn list(&self, prefix: &str) -> BoxFuture<'static, Result<Vec<String>>> {
        self.inner.list(prefix)
    }

    fn delete(&self, name: &str) -> BoxFuture<'static, Result<()>> {
        self.inner.delete(name)
    }
}

#[tokio::test]
async fn readers_of_one_missing_chunk_share_one_load_that_outlives_them() {
    let world = World::default();
    let gate = Gate::over(&world, 0);
    let store = open(world.kv.clone(), gate.clone()).await.unwrap();
    let chunk = chunks(1, 1).remove(0);
    let id = ChunkId::of(&chunk);
    import(&store, std::slice::from_ref(&chunk)).await.unwrap();
    assert_eq!(store.cached(&id), None);
    let first = tokio::spawn(store.load(id));
    while gate.reads.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let waiters: Vec<_> = (0..30).map(|_| tokio::spawn(store.load(id))).collect();
    tokio::task::yield_now().await;
    gate.permits.add_permits(1);
    for got in try_join_all(waiters).await.unwrap() {
        assert_eq!(got.unwrap(), chunk);
    }
    assert_eq!(gate.reads.load(Ordering::SeqCst), 1);
    assert_eq!(store.cached(&id).unwrap(), chunk);
    assert_eq!((store.cache().stats().loads, store.cache().stats().loaded_bytes), (1, 40960));
}

#[tokio::test]
async fn one_chunk_does_not_wait_for_all_that_another_reader_wants() {
    let world = World::default();
    let gate = Gate::over(&world, 0);
    let store = open(world.kv.clone(), gate.clone()).await.unwrap();
    let (many, one) = (chunks(1, 200), chunks(2, 1));
    import(&store, &[many.clone(), one.clone()].concat()).await.unwrap();
    let ids = |chunks: &[Vec<u8>]| chunks.iter().map(|chunk| ChunkId::of(chunk)).collect::<Vec<_>>();
    let greedy = tokio::spawn(store.load_all(&ids(&many), Lane::Export(1)));
    while gate.reads.load(Ordering::SeqCst) < LOADS as u64 {
        tokio::task::yield_now().await;
    }
    let load = store.load_all(&ids(&one), Lane::Export(2));
    let reads = gate.clone();
    let polite = tokio::spawn(async move { load.await.map(|_| reads.reads.load(Ordering::SeqCst)) });
    tokio::task::yield_now().await;
    gate.permits.add_permits(1);
    let before = polite.await.unwrap().unwrap();
    assert!(before <= 4 * LOADS as u64, "{before} reads before one chunk was there");
    assert_eq!(greedy.await.unwrap().unwrap(), many);
}

/// A connection that waits for its client to take replies polls nothing meanwhile.
#[tokio::test]
async fn a_reader_who_is_not_polled_keeps_nobody_else_waiting() {
    let world = World::default();
    let store = world.open().await;
    let (many, one) = (chunks(1, 100), chunks(2, 1));
    import(&store, &[many.clone(), one.clone()].concat()).await.unwrap();
    let ids = |chunks: &[Vec<u8>]| chunks.iter().map(|chunk| ChunkId::of(chunk)).collect::<Vec<_>>();
    let mut stuck = store.load_all(&ids(&many), Lane::Export(1));
    assert!((&mut stuck).now_or_never().is_none());
    let load = store.load_all(&ids(&one), Lane::Export(2));
    let loaded = tokio::time::timeout(std::time::Duration::from_secs(60), load).await;
    assert_eq!(loaded.expect("all turns are held by who is not polled").unwrap(), one);
}

#[tokio::test]
async fn a_damaged_chunk_is_quarantined_and_an_import_repairs_it() {
    let world = World::default();
    let all = chunks(1, 3);
    let store = world.open().await;
    import(&store, &all).await.unwrap();
    let pack = world.pack_names().await.remove(0);
    let bad = ChunkId::of(&all[1]);
    let span = store.shared.index.location(&bad).unwrap().unwrap().span;
    assert!(world.blobs.corrupt(&pack, span.payload().start as usize + 77));
    for _ in 0..2 {
        let error = store.load(bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.what().contains(&bad.to_string()) && error.what().contains(&pack), "{error}");
        assert_eq!(store.cached(&bad), None);
    }
    assert_eq!(store.load(ChunkId::of(&all[0])).await.unwrap(), all[0]);
    assert_eq!(store.usage().unwrap().quarantined, 1);
    let other = chunks(2, 1);
    import(&store, &other).await.unwrap();
    world.kv.crash();
    let store = world.open().await;
    assert!(
        world.blobs.corrupt(&pack, span.payload().start as usize + 77),
        "the bytes are well again, the record stays"
    );
    assert_eq!(store.load(bad).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let (session, stored) = put_all(store.begin().unwrap(), all.clone()).await;
    assert_eq!(stored.unwrap().iter().map(|s| s.fresh).collect::<Vec<_>>(), [false, true, false]);
    session.commit().await.unwrap();
    assert_eq!(readable(&store, &all).await, 3);
    assert_eq!(store.usage().unwrap().quarantined, 0);
    world.kv.crash();
    assert_eq!(readable(&*world.open().await, &all).await, 3);
}

#[tokio::test]
async fn a_lost_pack_hurts_its_own_chunks_only() {
    let world = World::default();
    let store = world.open().await;
    import(&store, &chunks(1, 2)).await.unwrap();
    let lost = world.pack_names().await.remove(0);
    import(&store, &chunks(2, 2)).await.unwrap();
    world.blobs.delete(&lost).await.unwrap();
    let store = world.open().await;
    let error = store.load(ChunkId::of(&chunks(1, 2)[0])).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.what().contains(&lost), "{error}");
    assert_eq!(readable(&store, &chunks(2, 2)).await, 2);
}

#[tokio::test]
async fn a_pack_size_that_cannot_be_is_refused() {
    let world = World::default();
    for pack_bytes in [0, MIN_PACK - 1, MAX_PACK + 1] {
        let options = ChunkStoreOptions { pack_bytes, ..ChunkStoreOptions::default() };
        let blobs = Arc::new(world.blobs.clone());
        let error = ChunkStore::open(world.kv.clone(), blobs, Env::real(), options).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

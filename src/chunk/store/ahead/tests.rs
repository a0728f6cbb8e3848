//! Read-ahead of a store: readers that go through its packs in order.

use std::sync::atomic::Ordering;

use futures_util::future::try_join_all;
use tokio::sync::Semaphore;

use super::*;
use crate::chunk::blob::BlobStore;
use crate::chunk::store::tests::{Gate, World, chunks, import};
use crate::chunk::{AheadStats, ChunkSource, ChunkStore, ChunkStoreOptions, Fetch};
use crate::env::Env;
use crate::error::ErrorKind;

/// Chunks of 40 KiB in one pack.
const COUNT: u64 = 60;

/// A store that was started anew after an import, over a gate that is open.
async fn cold(world: &World, all: &[Vec<u8>]) -> (Arc<ChunkStore>, Arc<Gate>) {
    let gate = Gate::over(world, Semaphore::MAX_PERMITS);
    let options = ChunkStoreOptions { cache_bytes: 64 << 20, ..ChunkStoreOptions::default() };
    let open = || ChunkStore::open(world.kv.clone(), gate.clone(), Env::real(), options);
    import(&open().await.unwrap(), all).await.unwrap();
    let store = open().await.unwrap();
    gate.reads.store(0, Ordering::SeqCst);
    (store, gate)
}

async fn read(store: &ChunkStore, chunk: &[u8]) -> Result<Bytes> {
    let id = ChunkId::of(chunk);
    Fetch::new(store).run(|fetch| fetch.get(&id)).await
}

/// Wait until nothing is being read ahead.
async fn settle(store: &ChunkStore, all: &[Vec<u8>]) {
    while all.iter().any(|chunk| store.shared.ahead.loading(&ChunkId::of(chunk)).is_some()) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_pack_that_is_read_in_order_is_read_in_few_pieces() {
    let (world, all) = (World::default(), chunks(1, COUNT));
    let (store, gate) = cold(&world, &all).await;
    for chunk in &all {
        assert_eq!(read(&store, chunk).await.unwrap(), *chunk);
    }
    let AheadStats { loads, used, .. } = store.ahead();
    assert!(loads >= COUNT - 6 && used == loads, "{loads} loads, {used} of them used");
    assert_eq!(store.cache().stats().loads, COUNT);
    assert!(gate.reads.load(Ordering::SeqCst) < COUNT * 2 / 3, "{:?}", gate.reads);
    for chunk in &all {
        assert_eq!(store.cached(&ChunkId::of(chunk)).unwrap(), *chunk, "it is cached, and not a second time");
    }
    assert_eq!(store.ahead().used, used);
}

#[tokio::test]
async fn each_chunk_is_read_once_however_many_readers_race() {
    let (world, all) = (World::default(), chunks(1, COUNT));
    let (store, _gate) = cold(&world, &all).await;
    let all = Arc::new(all);
    let readers = (0..20).map(|n| {
        let (store, all) = (store.clone(), all.clone());
        tokio::spawn(async move {
            for i in 0..all.len() {
                // Some begin in the middle.
                let chunk = &all[(i + n % 4 * 15) % all.len()];
                assert_eq!(read(&store, chunk).await.unwrap(), *chunk);
            }
        })
    });
    try_join_all(readers).await.unwrap();
    assert_eq!(store.cache().stats().loads, COUNT);
    assert_eq!(store.cache().stats().loaded_bytes, COUNT * 40960);
    assert!(store.ahead().used > 0, "{:?}", store.ahead());
}

#[tokio::test]
async fn a_reader_waits_for_what_is_being_read_ahead() {
    let (world, all) = (World::default(), chunks(1, COUNT));
    let (store, gate) = cold(&world, &all).await;
    read(&store, &all[0]).await.unwrap();
    read(&store, &all[1]).await.unwrap();
    settle(&store, &all).await;
    // The table is there: what the next chunk's use sets off is one read, which does not come.
    gate.permits.forget_permits(Semaphore::MAX_PERMITS);
    assert_eq!(read(&store, &all[2]).await.unwrap(), all[2]);
    let next = ChunkId::of(&all[3]);
    while store.shared.ahead.loading(&next).is_none() {
        tokio::task::yield_now().await;
    }
    let waiter = tokio::spawn({
        let (store, chunk) = (store.clone(), all[3].clone());
        async move { read(&store, &chunk).await }
    });
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    gate.permits.add_permits(1000);
    assert_eq!(waiter.await.unwrap().unwrap(), all[3]);
    settle(&store, &all).await;
    assert_eq!(store.cache().stats().loads, 2 + store.ahead().loads, "the waiter read nothing by itself");
}

#[tokio::test]
async fn damage_that_is_met_ahead_fails_only_who_asks_for_it() {
    let (world, all) = (World::default(), chunks(1, COUNT));
    let (store, _gate) = cold(&world, &all).await;
    let pack = world.pack_names().await.remove(0);
    let bad = ChunkId::of(&all[20]);
    let span = store.shared.index.location(&bad).unwrap().unwrap().span;
    assert!(world.blobs.corrupt(&pack, span.payload().start as usize + 5));
    for (n, chunk) in all.iter().enumerate() {
        match read(&store, chunk).await {
            Ok(bytes) => assert_eq!(bytes, *chunk),
            Err(error) => assert!(n == 20 && error.kind() == ErrorKind::Corrupt, "chunk {n}: {error}"),
        }
    }
    assert_eq!(read(&store, &all[20]).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(store.usage().unwrap().quarantined, 1);
}

#[tokio::test]
async fn a_pack_that_cannot_be_read_ahead_hurts_nobody_who_does_not_want_it() {
    let (world, all) = (World::default(), chunks(1, COUNT));
    let (store, _gate) = cold(&world, &all).await;
    read(&store, &all[0]).await.unwrap();
    let pack = world.pack_names().await.remove(0);
    let location = store.shared.index.location(&ChunkId::of(&all[1])).unwrap().unwrap();
    // A reader goes on while the pack goes: neither its table nor what follows can be had.
    world.blobs.delete(&pack).await.unwrap();
    store.shared.note_miss(store.shared.ahead.begin_round().unwrap(), &location);
    settle(&store, &all).await;
    assert_eq!(store.ahead().loads, 0);
    assert_eq!(read(&store, &all[0]).await.unwrap(), all[0]);
    assert_eq!(store.usage().unwrap().quarantined, 0);
    assert_eq!(read(&store, &all[2]).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

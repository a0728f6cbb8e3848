use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::thread;

use super::*;
use crate::chunk::ChunkSource;
use crate::chunk::store::tests::{World, chunks, noise, put_all};
use crate::error::ErrorKind;

fn fresh(stored: Result<Vec<Stored>>) -> usize {
    stored.unwrap().iter().filter(|stored| stored.fresh).count()
}

#[tokio::test]
async fn a_chunk_is_stored_once() {
    let world = World::default();
    let store = world.open().await;
    // More than one pack, so that repeats are found open, staged, and in the index.
    let all = chunks(1, 20);
    let (session, stored) = put_all(store.begin().unwrap(), all.clone()).await;
    assert_eq!(fresh(stored), 20);
    let (session, stored) = put_all(session, all.clone()).await;
    assert_eq!(fresh(stored), 0);
    let expected =
        SessionStats { chunks_new: 20, chunks_dup: 20, bytes_raw: 819_200, bytes_dup: 819_200, bytes_stored: 819_200 };
    assert_eq!(session.commit().await.unwrap(), expected);
    let (session, stored) = put_all(store.begin().unwrap(), all).await;
    let stored = stored.unwrap();
    assert!(stored.iter().all(|s| !s.fresh && s.stored_len == 40960));
    assert_eq!(session.commit().await.unwrap().chunks_new, 0);
    assert_eq!(world.pack_names().await.len(), 4, "an import without news writes no pack");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn threads_that_put_the_same_chunks_store_them_once() {
    let world = World::default();
    let store = world.open().await;
    let all = chunks(1, 60);
    let session = store.begin().unwrap();
    let (session, all) = tokio::task::spawn_blocking(move || {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| all.iter().for_each(|chunk| assert_eq!(session.put(chunk).unwrap().stored_len, 40960)));
            }
        });
        (session, all)
    })
    .await
    .unwrap();
    // As a task of its own, as the daemon does it.
    let stats = tokio::spawn(session.commit()).await.unwrap().unwrap();
    assert_eq!((stats.chunks_new, stats.chunks_dup), (60, 180));
    assert_eq!(store.usage().unwrap().chunks, 60);
    for chunk in &all {
        assert_eq!(store.load(ChunkId::of(chunk)).await.unwrap(), chunk);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn chunks_that_are_put_together_lie_side_by_side_whoever_else_puts() {
    let world = World::default();
    let store = world.open().await;
    let session = store.begin().unwrap();
    let runs: Vec<_> = (0..8).map(|seed| chunks(seed, 10)).collect();
    let (session, runs) = tokio::task::spawn_blocking(move || {
        thread::scope(|scope| {
            for run in &runs {
                scope.spawn(|| session.put_all(run.iter().map(Vec::as_slice)).unwrap());
            }
        });
        (session, runs)
    })
    .await
    .unwrap();
    tokio::spawn(session.commit()).await.unwrap().unwrap();
    let order = store.in_disk_order(runs.concat().iter().map(|chunk| ChunkId::of(chunk)).collect()).unwrap();
    let order: Vec<ChunkId> = order.into_iter().map(|(id, _)| id).collect();
    for run in &runs {
        let ids: Vec<ChunkId> = run.iter().map(|chunk| ChunkId::of(chunk)).collect();
        assert!(order.chunks(10).any(|together| together == ids), "a run is torn apart");
    }
}

#[tokio::test]
async fn an_aborted_session_leaves_nothing() {
    let world = World::default();
    let store = world.open().await;
    for explicit in [true, false] {
        let (session, stored) = put_all(store.begin().unwrap(), chunks(1, 20)).await;
        assert_eq!(fresh(stored), 20);
        session.scratch_put(b"k", b"v").unwrap();
        if explicit {
            session.abort().await;
        } else {
            drop(session);
            while !world.pack_names().await.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        assert!(world.pack_names().await.is_empty());
        assert!(store.load(ChunkId::of(&chunks(1, 1)[0])).await.unwrap_err().what().contains("missing"));
    }
}

#[tokio::test]
async fn two_sessions_do_not_lean_on_each_other() {
    let world = World::default();
    let store = world.open().await;
    let shared = chunks(1, 10);
    let (first, stored) = put_all(store.begin().unwrap(), shared.clone()).await;
    assert_eq!(fresh(stored), 10);
    let (second, stored) = put_all(store.begin().unwrap(), shared.clone()).await;
    assert_eq!(fresh(stored), 10, "what is not committed may still go away");
    let (third, stored) = put_all(store.begin().unwrap(), [shared.clone(), chunks(2, 3)].concat()).await;
    assert_eq!(fresh(stored), 13);
    first.abort().await;
    second.commit().await.unwrap();
    third.commit().await.unwrap();
    for chunk in shared.iter().chain(&chunks(2, 3)) {
        assert_eq!(store.load(ChunkId::of(chunk)).await.unwrap(), chunk);
    }
}

#[tokio::test]
async fn a_chunk_of_a_wrong_length_is_refused() {
    let store = World::default().open().await;
    let session = store.begin().unwrap();
    assert_eq!(session.put(&[]).unwrap_err().kind(), ErrorKind::Internal);
    assert!(session.put(&vec![1; MAX_CHUNK + 1]).is_err());
    assert!(session.put(&noise(1, MAX_CHUNK)).unwrap().fresh);
    session.abort().await;
}

#[tokio::test]
async fn scratch_space_is_sorted_private_and_unbounded_by_its_buffer() {
    let store = World::default().open().await;
    let (session, other) = (store.begin().unwrap(), store.begin().unwrap());
    other.scratch_put(b"a", b"other").unwrap();
    let mut model = BTreeMap::new();
    for n in 0..3000_u64 {
        let row = noise(n, 600);
        session.scratch_put(&row[..9], &row).unwrap();
        model.insert(row[..9].to_vec(), row);
    }
    session.scratch_put(b"a", b"old").unwrap();
    session.scratch_put(b"a", b"mine").unwrap();
    model.insert(b"a".to_vec(), b"mine".to_vec());
    assert_eq!(session.scratch_get(b"a").unwrap().unwrap(), b"mine");
    let scan = |from: &[u8], to: &[u8], limit: usize| {
        let mut rows = Vec::new();
        session
            .scratch_scan(from, to, &mut |key, value| {
                rows.push((key.to_vec(), value.to_vec()));
                if rows.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        rows
    };
    assert!(scan(b"", b"", 0).into_iter().eq(model.clone()));
    assert!(
        scan(b"a", b"c", 0)
            .into_iter()
            .eq(model.range(b"a".to_vec()..b"c".to_vec()).map(|(k, v)| (k.clone(), v.clone())))
    );
    assert_eq!(scan(b"a", b"", 1), [(b"a".to_vec(), b"mine".to_vec())]);
    let (key, value) = model.last_key_value().unwrap();
    assert_eq!(session.scratch_get(key).unwrap().as_ref(), Some(value));
    assert_eq!(session.scratch_get(b"nowhere").unwrap(), None);
    session.abort().await;
    assert_eq!(other.scratch_get(b"a").unwrap().unwrap(), b"other");
}

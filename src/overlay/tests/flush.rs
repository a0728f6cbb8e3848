//! Goal: whoever goes away while a flush runs, and whatever stands in its way, no change is passed by.
//! Method: one overlay over a log whose disk is full for a while, so that a flush waits where we want.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::chunk::{Fetch, MemoryChunks};
use crate::env::{Env, ManualClock, SeededRng, SimDisk};
use crate::error::ErrorKind;
use crate::manifest::Ino;
use crate::meta::{Durability, MemoryKv};
use crate::overlay::keys::Key;
use crate::overlay::log::{DeltaLog, Health, LocalLog, LogOptions};
use crate::overlay::store::Commit;
use crate::overlay::{Counts, OverlayId, OverlayOptions, OverlayStore, Position};

const ID: OverlayId = OverlayId(7);

/// A store whose values are short texts.
struct Bare {
    disk: Arc<SimDisk>,
    kv: Arc<MemoryKv>,
    chunks: Arc<MemoryChunks>,
    log: Arc<LocalLog>,
    store: Arc<OverlayStore>,
}

impl Bare {
    async fn new() -> Self {
        Self::open(Arc::new(SimDisk::new(1)), Arc::new(MemoryKv::new())).await
    }

    async fn open(disk: Arc<SimDisk>, kv: Arc<MemoryKv>) -> Self {
        let clock = Arc::new(ManualClock::at_secs(1));
        let env = Env { disk: disk.clone(), clock, rng: Arc::new(SeededRng::new(2)) };
        let epoch = OverlayStore::next_epoch(&*kv).unwrap();
        let log = LocalLog::open(env, PathBuf::from("/log"), epoch, LogOptions::default()).unwrap();
        let chunks = Arc::new(MemoryChunks::new());
        let options = OverlayOptions { cache_bytes: 1 << 20 };
        let store = OverlayStore::open(log.clone(), kv.clone(), chunks.clone(), epoch, HashMap::new(), options).await;
        Self { disk, kv, chunks, log, store: store.unwrap() }
    }

    async fn put(&self, ino: u64, text: &'static str) {
        let mut fetch = Fetch::new(&*self.chunks);
        let put = fetch.run(|fetch| {
            let state = self.store.lock_for_change(fetch, ID)?;
            let values = vec![(Key::node(Ino(ino)), Some(Bytes::from_static(text.as_bytes())), None)];
            let counts = Counts { bytes: 0, inodes: 1 };
            Ok(self.store.commit(state, Commit { values, data: SmallVec::new(), counts, receipt: None })?)
        });
        put.await.unwrap();
    }

    async fn get(&self, ino: u64) -> Option<Bytes> {
        let mut fetch = Fetch::new(&*self.chunks);
        let got = fetch.run(|fetch| {
            let Some(overlay) = self.store.find(ID) else { return Ok(None) };
            let state = self.store.lock(fetch, &overlay)?;
            state.get(&self.store.index, fetch, &Key::node(Ino(ino)), Position::MAX)
        });
        got.await.unwrap().and_then(|version| version.value)
    }

    /// Fill the disk, and wait until the log has noticed.
    async fn fill(&self) {
        self.disk.set_capacity(0);
        drop(self.log.sync(self.log.end()));
        while self.log.health() == Health::Good {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Make room, and wait until the log goes on.
    async fn make_room(&self) {
        self.disk.set_capacity(1 << 40);
        self.log.sync(self.log.end()).await.unwrap();
    }

    async fn restart(self) -> Self {
        let Self { disk, kv, store, log, .. } = self;
        disk.crash();
        kv.crash_keeping(usize::MAX);
        drop((store, log));
        Self::open(disk, kv).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_cannot_begin_puts_back_what_it_took() {
    let bare = Bare::new().await;
    bare.put(1, "first").await;
    bare.fill().await;
    let refused = bare.store.flush(Durability::Synced).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoSpace);
    assert_eq!(bare.get(1).await.as_deref(), Some(&b"first"[..]));
    bare.make_room().await;
    bare.put(1, "second").await;
    bare.put(2, "other").await;
    bare.store.flush(Durability::Synced).await.unwrap();
    let bare = bare.restart().await;
    assert_eq!(bare.get(1).await.as_deref(), Some(&b"second"[..]));
    assert_eq!(bare.get(2).await.as_deref(), Some(&b"other"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_nobody_waits_for_any_more_loses_nothing() {
    let bare = Bare::new().await;
    bare.put(1, "first").await;
    bare.fill().await;
    {
        let mut flush = Box::pin(bare.store.flush(Durability::Synced));
        // It has taken its cut, and waits for the log.
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut flush).await.is_err());
    }
    bare.make_room().await;
    bare.store.flush(Durability::Synced).await.unwrap();
    let bare = bare.restart().await;
    assert_eq!(bare.get(1).await.as_deref(), Some(&b"first"[..]));
}

//! The same for what the stores keep: the catalog's log and records, packs and the chunk index.
//!
//! Method: a fixed history on the twins in memory, with a clock and dice that repeat; every row and
//! every blob is dumped and compared with the frozen dump; then the dump alone is opened and asked.
//! `MIMEO_BLESS=1` writes the dumps anew, for a new format version.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use mimeo::chunk::blob::{BlobStore, MemoryBlobs};
use mimeo::chunk::{ChunkId, ChunkSink, ChunkSource, ChunkStore, ChunkStoreOptions, MemoryChunks};
use mimeo::env::{Env, ManualClock, SeededRng, SimDisk, Time};
use mimeo::image::{
    CATALOG_TABLES, Catalog, Change, CloneTarget, Content, Draft, Fate, Fleet, KvCatalogLog, Labels, Lagging,
    NewClones, NewFork, NewOperation, NewSnapshot, NewVersion, Next, OnFailure, OperationId, OperationState,
    PolicyEdits, RepointPlan, Rollout, Sealed, Shown, Squash, VersionRef, ViewSwitch, WaveSpec, Writes,
};
use mimeo::meta::{Batch, Durability, KvStore, MemoryKv, Table};
use mimeo::overlay::log::{LocalLog, LogOptions};
use mimeo::overlay::{Counts, Layer, OverlayOptions, OverlayStore};

use super::{fixture, unhex};

pub fn env() -> Env {
    Env {
        disk: Arc::new(SimDisk::new(1)),
        clock: Arc::new(ManualClock::at_secs(1_800_000_000)),
        rng: Arc::new(SeededRng::new(1)),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `table key value` lines.
fn rows(kv: &MemoryKv, tables: &[Table]) -> String {
    let mut out = String::new();
    for table in tables {
        kv.scan(table, &[], &[], &mut |key, value| {
            out += &format!("{table} {} {}\n", hex(key), hex(value));
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    out
}

/// The store that such lines describe.
fn restore(text: &str, tables: &[Table]) -> Arc<MemoryKv> {
    let (kv, mut batch) = (MemoryKv::new(), Batch::new());
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let Some(table) = tables.iter().find(|table| **table == fields[0]) {
            batch.put(table, unhex(fields[1]), unhex(fields[2]));
        }
    }
    kv.write(batch, Durability::Synced).unwrap();
    Arc::new(kv)
}

pub fn assert_frozen(path: &Path, dump: &str) {
    if std::env::var_os("MIMEO_BLESS").is_some() {
        std::fs::write(path, dump).unwrap();
    }
    let frozen = std::fs::read_to_string(path).unwrap_or_default();
    assert!(frozen == dump, "the bytes of {} are not those that are written now:\n{dump}", path.display());
}

/// Real overlays, in which nothing was written.
async fn fleet(catalog: &Arc<Catalog>) -> Fleet {
    let kv = Arc::new(MemoryKv::new());
    let log = LocalLog::open(env(), "/log".into(), 1, LogOptions::default()).unwrap();
    let (chunks, options) = (Arc::new(MemoryChunks::new()), OverlayOptions { cache_bytes: 0 });
    Fleet::new(catalog.clone(), OverlayStore::open(log, kv, chunks, 1, HashMap::new(), options).await.unwrap())
}

async fn history(catalog: &Arc<Catalog>) {
    let labels = |pair: &str| Labels::parse([pair]).unwrap();
    let image = catalog.create_or_get_image("os", labels("tier=gold")).await.unwrap();
    for manifest in [[0x11; 32], [0x22; 32]] {
        let new = NewVersion {
            image: image.id,
            manifest: ChunkId(manifest),
            created: image.created,
            source: "/srv/os".into(),
            author: "uid 0".into(),
            labels: labels("build=7"),
            consistency: "unknown".into(),
            inodes: 5,
            bytes_logical: 1000,
            bytes_stored: 700,
            bytes_added: 600,
        };
        catalog.add_version(new).await.unwrap();
    }
    catalog.tag(VersionRef::number("os", 1), "stable").await.unwrap();
    let clones = NewClones {
        version: VersionRef::number("os", 1),
        names: vec!["a".into(), "b".into()],
        labels: labels("pool=demo"),
    };
    catalog.create_clones(clones).await.unwrap();
    let fleet = fleet(catalog).await;
    let (b, to) = (CloneTarget::Names(vec!["b".into()]), VersionRef::number("os", 2));
    let plan = RepointPlan::new("os", to, b.clone()).with(Writes::Keep);
    fleet.repoint(plan).await.unwrap();
    let edits = PolicyEdits {
        allow: Some(vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()]),
        read_only: Some(true),
        squash: Some(Squash::Root),
        privileged_port: Some(false),
        quota: Some(Some(1 << 30)),
        ..PolicyEdits::default()
    };
    catalog.set_clones(b, edits).await.unwrap();
    private_writes(catalog).await;
    let target = CloneTarget::Names(vec!["a".into()]);
    let new = NewSnapshot { target, name: "nightly".into(), labels: labels("keep=yes") };
    fleet.snapshot(new).await.unwrap();
    let fork = NewFork { source: "a@nightly".parse().unwrap(), name: "c".into(), labels: Labels::new() };
    fleet.fork(fork).await.unwrap();
    operations(&fleet).await;
}

/// A halted operation of which a clone is gone, and one that waits for its time.
async fn operations(fleet: &Fleet) {
    let gates = ["true", "http://up/", "clients:3"].map(|gate| gate.parse().unwrap()).to_vec();
    let rollout = Rollout { gates, on_failure: OnFailure::Halt, ..Rollout::default() };
    let clones = NewClones {
        version: VersionRef::number("os", 1),
        names: ["d", "e", "f"].map(str::to_owned).to_vec(),
        labels: Labels::new(),
    };
    fleet.catalog().create_clones(clones).await.unwrap();
    let to = |names: &[&str]| {
        let names = CloneTarget::Names(names.iter().map(|&name| name.to_owned()).collect());
        RepointPlan::new("os", VersionRef::number("os", 2), names)
    };
    let waves = vec![WaveSpec::Count(1)];
    let new = NewOperation { repoint: to(&["d", "e"]), waves: waves.clone(), rollout: rollout.clone(), at: None };
    let id = fleet.start(new).await.unwrap().id;
    fleet.switch_wave(id, 0).await.unwrap();
    let waiting = fleet.catalog().state().operation(id).unwrap().clone();
    fleet.fail(&waiting, "nobody reads").await.unwrap();
    fleet.remove_clones(CloneTarget::Names(vec!["e".into()])).await.unwrap();
    let at = Some(Time::new(1_900_000_000, 0));
    fleet.start(NewOperation { repoint: to(&["f"]), waves, rollout, at }).await.unwrap();
}

/// Clone `a` as if it had been written, restored, and left behind.
async fn private_writes(catalog: &Catalog) {
    let layer = |overlay, upto, bytes| Layer { overlay, upto, counts: Counts { bytes, inodes: 3 } };
    let switch = move |draft: &mut Draft| {
        let clone = draft.find_clone("a")?.clone();
        let switch = ViewSwitch {
            clones: vec![clone.id],
            shown: Shown::Same(Content { layers: vec![layer(clone.view.top, 5, 4096)], ..Content::of_version(1) }),
            at: draft.now(),
            operation: OperationId(draft.new_id()?),
            first_overlay: draft.new_id()?,
            sealed: Sealed::from_layers([layer(clone.view.top, 300, 1 << 20)]),
        };
        draft.apply(Change::Switch(switch))?;
        let lagging = Lagging { version: 2, since: draft.now(), operation: OperationId(7) };
        draft.apply(Change::SetLagging { clones: vec![clone.id], lagging: Some(lagging) })
    };
    catalog.transact("write and restore", switch).await.unwrap();
}

async fn open_catalog(kv: Arc<MemoryKv>) -> Arc<Catalog> {
    Catalog::open(Arc::new(KvCatalogLog::open(kv).unwrap()), env()).await.unwrap()
}

fn assert_history(catalog: &Catalog) {
    let state = catalog.state();
    let (a, b) = (state.clone_named("a").unwrap(), state.clone_named("b").unwrap());
    assert_eq!((a.view.version, a.view.layers.len(), a.view.layers[0].upto), (1, 1, 5));
    assert_eq!(
        (a.pins[0].sealed.unwrap().upto, a.turns[0].view, a.turns[0].layers.len(), a.lagging.unwrap().version),
        (300, 2, 2, 2)
    );
    assert_eq!(
        (b.export.squash, b.export.allow.as_ref().unwrap().len(), b.quota),
        (Some(Squash::Root), 2, Some(1 << 30))
    );
    let (c, nightly) = (state.clone_named("c").unwrap(), state.find_snapshot(a, "nightly").unwrap());
    assert_eq!((c.depth, &c.view.layers, nightly.labels.get("keep")), (1, &nightly.layers, Some("yes")));
    assert_eq!((b.view.version, b.view.number, b.pins[0].view.version), (2, 2, 1));
    assert_eq!(b.labels.get("pool"), Some("demo"));
    let stable = state.find_version(&"os@stable".parse().unwrap()).unwrap();
    assert_eq!((stable.number, stable.manifest), (1, ChunkId([0x11; 32])));
    assert_eq!(state.store().unwrap().handle_keys.len(), 1);
    let operations: Vec<_> = state.operations().collect();
    let [whole, halted, scheduled] = operations[..] else { panic!("{operations:?}") };
    assert_eq!((&whole.state, whole.count(&[Fate::Switched])), (&OperationState::Done, 1));
    assert_eq!((halted.next, halted.count(&[Fate::Switched]), &*halted.gone[0].name), (Next::Gate(0), 1, "e"));
    let f = state.clone_named("f").unwrap();
    assert_eq!((state.planned(f.id), f.staged.as_ref().unwrap().at), (Some(scheduled.id), scheduled.plan.at));
}

#[tokio::test]
async fn the_catalogs_log_and_records_are_frozen() {
    let kv = Arc::new(MemoryKv::new());
    let catalog = open_catalog(kv.clone()).await;
    history(&catalog).await;
    assert_frozen(&fixture("catalog-log.hex"), &rows(&kv, &CATALOG_TABLES));
    catalog.close().await.unwrap();
    assert_frozen(&fixture("catalog-records.hex"), &rows(&kv, &CATALOG_TABLES));
}

#[tokio::test]
async fn a_frozen_catalog_opens_from_its_log_and_from_its_records() {
    for name in ["catalog-log.hex", "catalog-records.hex"] {
        let text = std::fs::read_to_string(fixture(name)).unwrap();
        assert_history(&*open_catalog(restore(&text, &CATALOG_TABLES)).await);
    }
}

const DATA: [&[u8]; 2] = [b"the first chunk of the fixture", b"and the second one"];

async fn open_chunks(kv: Arc<MemoryKv>, blobs: Arc<MemoryBlobs>) -> Arc<ChunkStore> {
    // Without compression: zstd's bytes are zstd's own affair.
    let options = ChunkStoreOptions { zstd_level: 0, ..ChunkStoreOptions::default() };
    ChunkStore::open(kv, blobs, env(), options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_and_the_chunk_index_are_frozen() {
    let (kv, blobs) = (Arc::new(MemoryKv::new()), Arc::new(MemoryBlobs::new()));
    let store = open_chunks(kv.clone(), blobs.clone()).await;
    let session = store.begin().unwrap();
    DATA.iter().for_each(|data| assert!(session.put(data).unwrap().fresh));
    session.commit().await.unwrap();
    let mut dump = rows(&kv, ChunkStore::TABLES);
    for name in blobs.list("").await.unwrap() {
        let len = blobs.len(&name).await.unwrap().unwrap();
        dump += &format!("blob {name} {}\n", hex(&blobs.get_range(&name, 0..len).await.unwrap()));
    }
    assert_frozen(&fixture("packs.hex"), &dump);
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_packs_are_read() {
    let text = std::fs::read_to_string(fixture("packs.hex")).unwrap();
    let blobs = Arc::new(MemoryBlobs::new());
    for line in text.lines().filter_map(|line| line.strip_prefix("blob ")) {
        let (name, bytes) = line.split_once(' ').unwrap();
        blobs.put(name, unhex(bytes).into()).await.unwrap();
    }
    let store = open_chunks(restore(&text, ChunkStore::TABLES), blobs).await;
    for data in DATA {
        assert_eq!(&store.load(ChunkId::of(data)).await.unwrap()[..], data);
    }
}

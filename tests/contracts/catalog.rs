//! The contract of `CatalogLog`, over RocksDB, over keys in memory, and in memory; and what the
//! catalog makes of it: group commit, crashes at every write, reopening.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use mimeo::chunk::{ChunkId, MemoryChunks};
use mimeo::env::{Env, ManualClock, RealDisk, SeededRng, SimDisk, Time};
use mimeo::error::Result;
use mimeo::image::{
    CATALOG_TABLES, Catalog, CatalogLog, Change, ChangeSet, CloneTarget, Fleet, KvCatalogLog, LabelEdits, Labels,
    MemoryCatalogLog, NewClones, NewFork, NewOperation, NewSnapshot, NewVersion, Next, Outcome, PolicyEdits,
    RepointPlan, Retention, Rev, Rollout, SnapshotTarget, State, VersionRef, WatchError, Writes,
};
use mimeo::meta::{Batch, Durability, KvStore, MemoryKv, RocksKv, RocksOptions};
use mimeo::overlay::log::{LocalLog, LogOptions};
use mimeo::overlay::{OverlayOptions, OverlayStore};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

type Log = Arc<dyn CatalogLog>;

/// Where a log keeps its change sets: opens the same log again and again.
type Storage = Box<dyn Fn() -> Log>;

fn over_keys(kv: Arc<dyn KvStore>) -> Storage {
    Box::new(move || Arc::new(KvCatalogLog::open(kv.clone()).unwrap()))
}

fn rocks(path: &std::path::Path) -> RocksKv {
    RocksKv::open(path, &CATALOG_TABLES, RocksOptions::default()).unwrap()
}

async fn contract<G>(make: impl Fn() -> (Storage, G)) {
    for case in 0..5 {
        let (storage, _guard) = make();
        match case {
            0 => commits_are_compare_and_set(&storage).await,
            1 => watchers_see_every_set_in_order(&storage).await,
            2 => who_watches_from_too_far_back_is_told(&storage).await,
            3 => a_checkpoint_is_the_replay_of_all_sets(&storage).await,
            _ => racing_commits_make_one_order(&storage).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_over_rocksdb() {
    contract(|| {
        let dir = tempfile::tempdir().unwrap();
        (over_keys(Arc::new(rocks(dir.path()))), dir)
    })
    .await;
}

#[tokio::test]
async fn log_over_keys_in_memory() {
    contract(|| (over_keys(Arc::new(MemoryKv::new())), ())).await;
}

#[tokio::test]
async fn log_in_memory() {
    contract(|| {
        let log = MemoryCatalogLog::new();
        let storage: Storage = Box::new(move || Arc::new(log.clone()));
        (storage, ())
    })
    .await;
}

/// A change set that can be told from others: it grants identifiers up to `next`.
fn grant(next: u64) -> Arc<ChangeSet> {
    Arc::new(ChangeSet { changes: vec![Change::GrantIds { next }] })
}

async fn commits_are_compare_and_set(storage: &Storage) {
    let log = storage();
    assert_eq!(log.checkpoint().await.unwrap(), State::default());
    assert_eq!(log.commit(Rev(0), grant(2001)).await.unwrap(), Outcome::Done(Rev(1)));
    for base in [0, 2, u64::MAX] {
        assert_eq!(log.commit(Rev(base), grant(9999)).await.unwrap(), Outcome::Refused(Rev(1)));
    }
    assert_eq!(log.commit(Rev(1), grant(2002)).await.unwrap(), Outcome::Done(Rev(2)));
    assert_eq!(log.backlog().sets, 2);
    let state = storage().checkpoint().await.unwrap();
    assert_eq!((state.rev(), state.next_id()), (Rev(2), 2002), "what was refused left nothing");
}

async fn watchers_see_every_set_in_order(storage: &Storage) {
    let log = storage();
    for rev in 0..3 {
        log.commit(Rev(rev), grant(2000 + rev)).await.unwrap();
    }
    let (from_start, from_now) = (log.watch(Rev(0)), log.watch(Rev(3)));
    let later = async {
        for rev in 3..6 {
            log.commit(Rev(rev), grant(2000 + rev)).await.unwrap();
        }
    };
    let (all, new, ()) =
        tokio::join!(from_start.take(6).collect::<Vec<_>>(), from_now.take(3).collect::<Vec<_>>(), later);
    let expected: Vec<_> = (0..6).map(|rev| (Rev(rev + 1), grant(2000 + rev))).collect();
    assert_eq!(all.into_iter().map(|item| item.unwrap()).collect::<Vec<_>>(), expected);
    assert_eq!(new.into_iter().map(|item| item.unwrap()).collect::<Vec<_>>(), expected[3..]);
}

async fn who_watches_from_too_far_back_is_told(storage: &Storage) {
    let log = storage();
    for rev in 0..4 {
        log.commit(Rev(rev), grant(2000 + rev)).await.unwrap();
    }
    let state = log.checkpoint().await.unwrap();
    log.save(Arc::new(state)).await.unwrap();
    assert_eq!(log.backlog().sets, 0);
    log.commit(Rev(4), grant(3000)).await.unwrap();
    let mut behind = log.watch(Rev(3));
    assert!(matches!(behind.next().await, Some(Err(WatchError::Compacted))));
    assert!(behind.next().await.is_none());
    assert_eq!(log.watch(Rev(4)).next().await.unwrap().unwrap(), (Rev(5), grant(3000)));
}

async fn a_checkpoint_is_the_replay_of_all_sets(storage: &Storage) {
    let log = storage();
    let world = World::open(log.clone(), 1).await;
    for step in 0..STEPS {
        world.step(step).await.unwrap();
        if step % 4 == 1 {
            log.save(world.catalog.state()).await.unwrap();
            log.save(world.catalog.state()).await.unwrap();
        }
        assert_eq!(log.checkpoint().await.unwrap(), *world.catalog.state(), "after step {step}");
        assert_eq!(storage().checkpoint().await.unwrap(), *world.catalog.state(), "after step {step}");
    }
    let ahead = State::clone(&world.catalog.state());
    world.catalog.id_range(1).await.unwrap();
    log.save(Arc::new(ahead)).await.unwrap();
    assert_eq!(log.backlog().sets, 1, "an older checkpoint leaves the log behind it");
    assert_eq!(storage().checkpoint().await.unwrap(), *world.catalog.state());
}

async fn racing_commits_make_one_order(storage: &Storage) {
    let log = storage();
    let racers = (0..8).map(|_| {
        let log = log.clone();
        tokio::spawn(async move {
            let (mut base, mut done) = (Rev(0), Vec::new());
            while done.len() < 5 {
                match log.commit(base, grant(2000 + base.0)).await.unwrap() {
                    Outcome::Done(rev) => {
                        assert_eq!(rev, base.next());
                        done.push(rev);
                        base = rev;
                    }
                    Outcome::Refused(head) => base = head,
                    Outcome::Unknown => panic!("no fault was injected"),
                }
            }
            done
        })
    });
    let mut revs: Vec<Rev> = join_all(racers).await.into_iter().flat_map(|done| done.unwrap()).collect();
    revs.sort();
    assert_eq!(revs, (1..=40).map(Rev).collect::<Vec<_>>());
    assert_eq!(storage().checkpoint().await.unwrap().rev(), Rev(40));
}

/// A catalog with repeatable time and randomness, and a fixed list of things to do with it.
struct World {
    catalog: Arc<Catalog>,
    fleet: Fleet,
}

/// Clones of this catalog that nobody has written to.
async fn unwritten(catalog: &Arc<Catalog>, env: Env) -> Result<Fleet> {
    let env = Env { disk: Arc::new(SimDisk::new(1)), ..env };
    let log = LocalLog::open(env, "/log".into(), 1, LogOptions::default())?;
    let (kv, chunks) = (Arc::new(MemoryKv::new()), Arc::new(MemoryChunks::new()));
    let (marks, options) = (catalog.state().marked_overlays(), OverlayOptions { cache_bytes: 0 });
    Ok(Fleet::new(catalog.clone(), OverlayStore::open(log, kv, chunks, 1, marks, options).await?))
}

fn names(names: &[&str]) -> CloneTarget {
    CloneTarget::Names(names.iter().map(|&name| name.to_owned()).collect())
}

fn policy() -> PolicyEdits {
    PolicyEdits { read_only: Some(true), quota: Some(Some(4096)), ..PolicyEdits::default() }
}

const STEPS: usize = 23;

impl World {
    async fn open(log: Log, seed: u64) -> Self {
        Self::try_open(log, seed).await.unwrap()
    }

    async fn try_open(log: Log, seed: u64) -> Result<Self> {
        let clock = Arc::new(ManualClock::at_secs(1_800_000_000));
        let env = Env { disk: Arc::new(RealDisk), clock, rng: Arc::new(SeededRng::new(seed)) };
        let catalog = Catalog::open(log, env.clone()).await?;
        Ok(Self { fleet: unwritten(&catalog, env).await?, catalog })
    }

    /// Every step is one change set.
    async fn step(&self, step: usize) -> Result<()> {
        match step {
            0 => self.create_image("os").await,
            1 | 2 | 8 => self.add_version("os").await,
            3 => self.create_clones("os@v1", 0..5).await,
            4 => self.create_clones("os", 5..8).await,
            5 => self.repoint(2, CloneTarget::All).await,
            6 => self.repoint(1, CloneTarget::Names(vec!["c1".into(), "c6".into()])).await,
            7 => self.catalog.tag("os@v2".parse()?, "stable").await.map(drop),
            9 => self.catalog.remove_version("os@v1".parse()?).await.map(drop),
            10 => self.repoint(3, CloneTarget::Select("pool=a".parse()?)).await,
            11 => self.catalog.label_clones(names(&["c2"]), LabelEdits::parse(["pool-", "x=y"])?).await.map(drop),
            12 => self.fleet.remove_clones(names(&["c0", "c7"])).await.map(drop),
            13 => {
                let oldest = self.catalog.state().find_clone("c1")?.pins.last().map_or(0, |pin| pin.view.number);
                self.fleet.drop_pin("c1", oldest).await.map(drop)
            }
            14 => self.snapshot(names(&["c1", "c2", "c3"]), "s").await,
            15 => self
                .fleet
                .fork(NewFork { source: "c1@s".parse()?, name: "f1".into(), labels: Labels::new() })
                .await
                .map(drop),
            16 => self.catalog.set_clones(names(&["c1", "f1"]), policy()).await.map(drop),
            17 => self.fleet.restore("c2", "s").await.map(drop),
            18 => self.fleet.label_snapshot("c1", "s", LabelEdits::parse(["a=b"])?).await.map(drop),
            19 => self.fleet.remove_snapshots("c3", SnapshotTarget::Names(vec!["s".into()])).await.map(drop),
            20 => self.fleet.remove_clones(names(&["c1"])).await.map(drop),
            21 => self.fleet.drop_pins(CloneTarget::All).await.map(drop),
            _ => self.create_image("another").await,
        }
    }

    async fn create_image(&self, name: &str) -> Result<()> {
        self.catalog.create_or_get_image(name, Labels::new()).await.map(drop)
    }

    async fn add_version(&self, image: &str) -> Result<()> {
        let image = self.catalog.state().find_image(image)?.id;
        let new = NewVersion {
            image,
            manifest: ChunkId::of(b"a tree"),
            created: Time::new(1_800_000_000, 0),
            source: "/source".into(),
            author: "somebody".into(),
            labels: Labels::parse(["os=debian"])?,
            consistency: "unknown".into(),
            inodes: 10,
            bytes_logical: 100,
            bytes_stored: 90,
            bytes_added: 80,
        };
        self.catalog.add_version(new).await.map(drop)
    }

    async fn create_clones(&self, version: &str, numbers: std::ops::Range<u64>) -> Result<()> {
        let names = numbers.map(|i| format!("c{i}")).collect();
        let labels = Labels::parse(["pool=a"])?;
        self.catalog.create_clones(NewClones { version: version.parse()?, names, labels }).await.map(drop)
    }

    async fn repoint(&self, number: u32, target: CloneTarget) -> Result<()> {
        let to = VersionRef::number("os", number);
        self.fleet.repoint(RepointPlan::new("os", to, target).with(Writes::Stay)).await.map(drop)
    }

    async fn snapshot(&self, target: CloneTarget, name: &str) -> Result<()> {
        self.fleet.snapshot(NewSnapshot { target, name: name.into(), labels: Labels::new() }).await.map(drop)
    }
}

/// The workload with a checkpoint after every fourth step; stops at the first error. Answers the
/// states that were published, by revision.
async fn run(kv: &Arc<MemoryKv>) -> Vec<State> {
    let mut published = vec![State::default()];
    let log: Log = Arc::new(KvCatalogLog::open(kv.clone()).unwrap());
    let Ok(world) = World::try_open(log.clone(), 1).await else { return published };
    published.push(State::clone(&world.catalog.state()));
    for step in 0..STEPS {
        if world.step(step).await.is_err() {
            break;
        }
        published.push(State::clone(&world.catalog.state()));
        if step % 4 == 3 && log.save(world.catalog.state()).await.is_err() {
            break;
        }
    }
    published
}

/// Method: run once to learn the states and to count the writes; then fail at each write, cut the
/// power with any number of unsynced batches on the disk, reopen, and compare.
#[tokio::test]
async fn a_crash_at_any_write_leaves_a_prefix_with_all_that_was_answered() {
    let kv = Arc::new(MemoryKv::new());
    let expected = run(&kv).await;
    assert_eq!(expected.len(), STEPS + 2);
    assert!(expected.iter().enumerate().all(|(rev, state)| state.rev() == Rev(rev as u64)));
    for fail_at in 0..kv.count_writes() {
        for kept in 0..3 {
            let kv = Arc::new(MemoryKv::new());
            kv.fail_writes_after(fail_at);
            let answered = run(&kv).await;
            kv.crash_keeping(kept);
            let found = KvCatalogLog::open(kv.clone()).unwrap().checkpoint().await.unwrap();
            let rev = found.rev().0 as usize;
            assert!(rev + 1 >= answered.len(), "write {fail_at}: revision {rev}, answered {}", answered.len() - 1);
            assert!(rev <= answered.len(), "write {fail_at}: at most the one change that failed");
            assert_eq!(found, expected[rev], "write {fail_at}, {kept} batches kept");
            let world = World::open(Arc::new(KvCatalogLog::open(kv).unwrap()), 2).await;
            world.create_image("after-the-crash").await.unwrap();
        }
    }
}

#[tokio::test]
async fn callers_that_wait_together_share_a_sync() {
    let kv = Arc::new(MemoryKv::new());
    let world = World::open(Arc::new(KvCatalogLog::open(kv.clone()).unwrap()), 1).await;
    for step in 0..2 {
        world.step(step).await.unwrap();
    }
    let before = kv.count_writes();
    let callers = (0..16).map(|i| world.create_clones("os", i..i + 1));
    assert!(join_all(callers).await.iter().all(|made| made.is_ok()));
    assert_eq!(world.catalog.state().clone_count(), 16);
    assert!(kv.count_writes() - before < 16, "{} writes for 16 callers", kv.count_writes() - before);
}

#[tokio::test]
async fn ten_thousand_clones_are_repointed_by_one_key() {
    let kv = Arc::new(MemoryKv::new());
    let world = World::open(Arc::new(KvCatalogLog::open(kv.clone()).unwrap()), 1).await;
    for step in 0..3 {
        world.step(step).await.unwrap();
    }
    world.create_clones("os@v1", 0..10_000).await.unwrap();
    let writes = kv.count_writes();
    let keys = log_keys(&*kv);
    world.repoint(2, CloneTarget::All).await.unwrap();
    assert_eq!((kv.count_writes() - writes, log_keys(&*kv) - keys), (1, 1));
    let reopened = KvCatalogLog::open(kv).unwrap().checkpoint().await.unwrap();
    assert_eq!(reopened.clones().filter(|clone| clone.view.version == 2).count(), 10_000);
}

fn log_keys(kv: &dyn KvStore) -> usize {
    let mut keys = 0;
    kv.scan("log", &[], &[], &mut |_, _| {
        keys += 1;
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    keys
}

#[tokio::test]
async fn rocksdb_reopens_after_a_close_and_after_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = None;
    for (half, steps) in [0..STEPS / 2, STEPS / 2..STEPS].into_iter().enumerate() {
        let log = Arc::new(KvCatalogLog::open(Arc::new(rocks(dir.path()))).unwrap());
        let world = World::open(log.clone(), 1).await;
        let found = State::clone(&world.catalog.state());
        assert!(last.is_none_or(|last: State| last == found));
        for step in steps {
            world.step(step).await.unwrap();
        }
        if half == 1 {
            world.catalog.close().await.unwrap();
            assert_eq!(log.backlog().sets, 0);
        }
        last = Some(State::clone(&world.catalog.state()));
        drop(world);
        // The committer lets go of the log when it finds that the catalog is gone.
        while Arc::strong_count(&log) > 1 {
            tokio::task::yield_now().await;
        }
    }
    let found = KvCatalogLog::open(Arc::new(rocks(dir.path()))).unwrap().checkpoint().await.unwrap();
    assert_eq!(last.unwrap(), found);
}

#[tokio::test]
async fn a_damaged_store_is_told_by_the_name_of_what_is_damaged() {
    let damage = |table, key: Vec<u8>, value: Option<Vec<u8>>| {
        let mut batch = Batch::new();
        match value {
            Some(value) => batch.put(table, key, value),
            None => batch.delete(table, key),
        }
        batch
    };
    let log_key = |rev: u64| rev.to_be_bytes().to_vec();
    for (batch, named) in [
        (damage("log", log_key(22), None), "change set 22 is missing"),
        (damage("log", log_key(22), Some(vec![3, 0xff])), "change set 22 cannot be read"),
        (damage("log", log_key(22), Some(vec![1])), "has format 1"),
        (damage("meta", b"applied".to_vec(), Some(vec![])), "checkpoint is empty"),
        (damage("records", vec![4, 0, 7], Some(vec![3])), "record 040007"),
        (damage("records", vec![77], Some(vec![3])), "record 4d is of no known kind"),
    ] {
        let kv = Arc::new(MemoryKv::new());
        assert_eq!(run(&kv).await.len(), STEPS + 2);
        kv.write(batch, Durability::Synced).unwrap();
        let error = match KvCatalogLog::open(kv) {
            Ok(log) => log.checkpoint().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), mimeo::error::ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

/// Goal: whatever the history, the store gives back the state that was live. Method: random verbs,
/// sensible or not, with random checkpoints, crashes and reopenings.
#[tokio::test]
async fn random_histories_survive_reopening() {
    for seed in 0..20 {
        println!("seed {seed}");
        let mut rng = SmallRng::seed_from_u64(seed);
        let kv = Arc::new(MemoryKv::new());
        for _ in 0..4 {
            let log: Log = Arc::new(KvCatalogLog::open(kv.clone()).unwrap());
            let world = World::open(log.clone(), seed).await;
            for _ in 0..rng.random_range(0..40) {
                // Most fail somewhere: an unknown clone, a removed version. That is part of it.
                let _ = random_step(&world, &mut rng).await;
                if rng.random_ratio(1, 10) {
                    log.save(world.catalog.state()).await.unwrap();
                }
            }
            let live = world.catalog.state();
            kv.crash_keeping(rng.random_range(0..3));
            let found = KvCatalogLog::open(kv.clone()).unwrap().checkpoint().await.unwrap();
            assert_eq!(found, *live, "seed {seed}");
            let planned = |state: &State| state.clones().map(|clone| state.planned(clone.id)).collect::<Vec<_>>();
            assert_eq!(planned(&found), planned(&live), "seed {seed}");
        }
    }
}

/// An operation begins, or one that is there takes a step, whether that makes sense or not.
async fn operation_step(world: &World, to: VersionRef, target: CloneTarget, rng: &mut SmallRng) -> Result<()> {
    let (fleet, state) = (&world.fleet, world.catalog.state());
    let known: Vec<_> = state.operations().cloned().collect();
    let step = rng.random_range(0..10);
    if known.is_empty() || step < 2 {
        let image = to.image.clone();
        let (gates, at) =
            (vec!["true".parse()?; rng.random_range(0..2)], rng.random::<bool>().then_some(Time::new(9, 9)));
        let rollout = Rollout { gates, ..Rollout::default() };
        let repoint = RepointPlan::new(&image, to, target).with(Writes::Stay);
        return fleet.start(NewOperation { repoint, waves: vec!["1".parse()?], rollout, at }).await.map(drop);
    }
    let operation = &known[rng.random_range(0..known.len())];
    let (id, next) = (operation.id, operation.next);
    match (step, next) {
        (2..6, Next::Start) => fleet.begin(id).await,
        (2..6, Next::Wave(wave)) => fleet.switch_wave(id, wave).await,
        (2..6, Next::Gate(wave)) => fleet.pass_gate(id, wave).await,
        (6, _) => fleet.fail(operation, "as told").await,
        (7, _) => fleet.pause(id).await.map(drop),
        (8, _) => fleet.resume(id).await.map(drop),
        (9, _) if rng.random() => fleet.abort(id).await.map(drop),
        _ => {
            let keep = Retention { operations: 2, age: Duration::ZERO, window: Duration::ZERO };
            fleet.forget_operations(keep).await.map(drop)
        }
    }
}

async fn random_step(world: &World, rng: &mut SmallRng) -> Result<()> {
    let (catalog, fleet) = (&world.catalog, &world.fleet);
    let image = ["os", "db"][rng.random_range(0..2)];
    let version = VersionRef::number(image, rng.random_range(1..6));
    let first = rng.random_range(0..12);
    let some: Vec<_> = (first..first + rng.random_range(1..3)).map(|i: u64| format!("c{i}")).collect();
    let (clone, names) = (some[0].clone(), CloneTarget::Names(some));
    let snapshot = format!("s{}", rng.random_range(0..3));
    match rng.random_range(0..24) {
        0 => world.create_image(image).await,
        1 | 2 => world.add_version(image).await,
        3 | 4 => world.create_clones(&version.to_string(), first..first + 3).await,
        5 | 6 => {
            let target = if rng.random() { CloneTarget::All } else { names };
            let writes = if rng.random() { Writes::Stay } else { Writes::Discard };
            fleet.repoint(RepointPlan::new(image, version, target).with(writes)).await.map(drop)
        }
        7 => catalog.remove_version(version).await.map(drop),
        8 => fleet.remove_clones(names).await.map(drop),
        9 => catalog.label_clones(names, LabelEdits::parse([format!("n={first}")])?).await.map(drop),
        10 => fleet.drop_pins(names).await.map(drop),
        11 | 12 => world.snapshot(names, &snapshot).await,
        13 => fleet.restore(&clone, &snapshot).await.map(drop),
        14 => {
            let source = format!("{clone}@{snapshot}").parse()?;
            let name = format!("c{}", rng.random_range(0..15));
            fleet.fork(NewFork { source, name, labels: Labels::new() }).await.map(drop)
        }
        15 => fleet.remove_snapshots(&clone, SnapshotTarget::Names(vec![snapshot])).await.map(drop),
        16 => catalog.set_clones(names, policy()).await.map(drop),
        17..23 => operation_step(world, version, names, rng).await,
        _ if rng.random() => catalog.remove_image(image).await.map(drop),
        _ => catalog.tag(version, "stable").await.map(drop),
    }
}

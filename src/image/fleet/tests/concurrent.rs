//! Goal: switches, and whatever else is done to clones and versions meanwhile, run one after another or are
//! refused with a clear conflict; nothing is ever half done. Method: rounds of tasks that begin together, in
//! an order of the dice; somebody looks at every state that he can get hold of.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use super::world::{A, World, select};
use super::*;
use crate::image::record::VersionNumber;
use crate::image::{Labels, NewClones, VersionRef, Writes};
use crate::manifest::Ino;

/// Clones that are there from first to last; every switch is meant for all of them.
const FIXED: [&str; 8] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
const ROUNDS: u64 = 40;

/// The one version that the fixed clones show.
fn shown(state: &State) -> VersionNumber {
    let version = |name: &&str| state.find_clone(name).unwrap().view.version;
    let versions: BTreeSet<_> = FIXED.iter().map(version).collect();
    assert_eq!(versions.len(), 1, "half of a switch at revision {}", state.rev().0);
    versions.into_iter().next().unwrap()
}

/// On how many of the fixed clones there is a snapshot of this name.
fn count_snapshots(state: &State, name: &str) -> usize {
    let has = |clone: &&&str| state.find_snapshot(state.find_clone(clone).unwrap(), name).is_ok();
    FIXED.iter().filter(has).count()
}

/// Look at states until told to stop; answers how many different ones there were.
fn watch(world: &Arc<World>, stop: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let (world, stop) = (world.clone(), stop.clone());
    tokio::spawn(async move {
        let (mut seen, mut last) = (0, None);
        while !stop.load(Ordering::Relaxed) {
            let state = world.catalog.state();
            shown(&state);
            if last.replace(state.rev()) != Some(state.rev()) {
                seen += 1;
            }
            tokio::task::yield_now().await;
        }
        seen
    })
}

type Task = JoinHandle<(&'static str, Result<()>)>;

fn task(what: &'static str, work: impl Future<Output = Result<()>> + Send + 'static) -> Task {
    tokio::spawn(async move { (what, work.await) })
}

fn repoint(world: &Arc<World>, version: VersionNumber, writes: Writes) -> Task {
    let world = world.clone();
    task("repoint", async move { world.repoint(version, CloneTarget::All, writes).await.map(drop) })
}

fn create(world: &Arc<World>, name: String, version: VersionNumber) -> Task {
    let world = world.clone();
    let new = NewClones { version: VersionRef::number("os", version), names: vec![name], labels: Labels::default() };
    task("create", async move { world.catalog.create_clones(new).await.map(drop) })
}

/// What is begun together in a round. The target of one switch is removed meanwhile.
fn tasks(world: &Arc<World>, rng: &mut SmallRng, round: u64, target: VersionNumber) -> Vec<Task> {
    let mut policy = || [Writes::Keep, Writes::Discard, Writes::Keep][rng.random_range(0..3)].clone();
    let (first, second, third) = (policy(), policy(), policy());
    let fleet = world.fleet.clone();
    let removed = CloneTarget::Names(vec![format!("x{}", round.saturating_sub(1))]);
    let remove = task("remove", async move { fleet.remove_clones(removed).await.map(drop) });
    let fleet = world.fleet.clone();
    let new = NewSnapshot { target: select("pool=a"), name: format!("s{round}"), labels: Labels::new() };
    let snapshot = task("snapshot", async move { fleet.snapshot(new).await.map(drop) });
    let catalog = world.catalog.clone();
    let gone = VersionRef::number("os", target);
    // A switch takes longer to begin.
    let turns = 1 << rng.random_range(0..15);
    let remove_version = task("remove the version", async move {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        catalog.remove_version(gone).await.map(drop)
    });
    let (writer, written) = (world.clone(), FIXED[rng.random_range(0..FIXED.len())]);
    let write = task("write", async move {
        writer.write(written, A, 1000 + round).await;
        Ok(())
    });
    let importer = world.clone();
    let import = task("import", async move {
        importer.add_version("os", [("a", A, 1), ("b", Ino(100_000 + round), 500 + round)]).await;
        Ok(())
    });
    let mut tasks = vec![
        repoint(world, 1, first),
        repoint(world, 2, second),
        repoint(world, target, third),
        create(world, format!("x{round}"), 1),
        create(world, format!("y{round}"), target),
        remove,
        snapshot,
        remove_version,
        write,
        import,
    ];
    tasks.shuffle(rng);
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_done_together_is_done_one_after_another_or_refused() {
    let seed = std::env::var("MIMEO_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}: MIMEO_SEED={seed} repeats the dice");
    let mut rng = SmallRng::seed_from_u64(seed);
    let world = Arc::new(World::new().await);
    world.clones(&FIXED).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = watch(&world, &stop);
    // Of each kind, how many were done and refused.
    let mut counts: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    for round in 0..ROUNDS {
        let target = world.add_version("os", [("a", A, 1), ("b", Ino(1000 + round), 100 + round)]).await;
        for (what, outcome) in join_all(tasks(&world, &mut rng, round, target)).await.into_iter().map(Result::unwrap) {
            counts.entry(what).or_default()[usize::from(outcome.is_err())] += 1;
            if let Err(error) = outcome {
                let clear = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound);
                assert!(clear && error.remedy_text().is_some(), "{what}: {error:?}");
            }
        }
        check(&world, round, target).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(watcher.await.unwrap() > ROUNDS, "somebody looked between the changes");
    println!("done and refused: {counts:?}");
    assert!(counts.values().all(|[done, _]| *done > 0), "each was done at least once: {counts:?}");
}

/// What must be so between rounds; and room for the next.
async fn check(world: &Arc<World>, round: u64, target: VersionNumber) {
    let state = world.catalog.state();
    assert!([1, 2, target].contains(&shown(&state)), "round {round}");
    let taken = count_snapshots(&state, &format!("s{round}"));
    assert!([0, FIXED.len()].contains(&taken), "{taken} snapshots of {}", FIXED.len());
    for clone in state.clones() {
        assert!(state.version(clone.image, clone.view.version).is_some(), "{} shows no version", clone.name);
    }
    for name in FIXED {
        let number = world.read(name, A).await;
        assert!(number == 1 || (1000..=1000 + round).contains(&number), "{name} has {number}");
    }
    world.fleet.drop_pins(CloneTarget::All).await.unwrap();
    for clone in world.fleet.deep_clones() {
        world.fleet.flatten(&clone).await.unwrap();
    }
    let snapshots = SnapshotTarget::Names(vec![format!("s{round}")]);
    for name in FIXED.iter().filter(|_| taken > 0) {
        world.fleet.remove_snapshots(name, snapshots.clone()).await.unwrap();
    }
}

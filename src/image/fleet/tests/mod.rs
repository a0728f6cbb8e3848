//! Goal: what one does with running clones is of one instant, keeps what it says, and leaves
//! everybody else alone. Method: a real store of overlays on a simulated disk; writers that take the
//! same steps as the front end.

mod activation;
mod all_or_none;
mod concurrent;
mod ending;
mod going_on;
mod operations;
mod predict;
mod rollback;
mod world;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use self::world::{A, B, World, names, select, to};
use super::*;
use crate::image::labels::{LabelEdits, Labels};
use crate::image::{CloneRef, Fate, MAX_LAYERS, RepointPlan, Writes};

fn fork(source: &str, name: &str) -> NewFork {
    NewFork { source: source.parse::<CloneRef>().unwrap(), name: name.into(), labels: Labels::new() }
}

#[tokio::test]
async fn a_snapshot_shows_what_was_there_and_the_clone_goes_on() {
    let mut world = World::new().await;
    world.clones(&["desk"]).await;
    world.snapshot("desk", "clean").await.unwrap();
    for number in 100..110 {
        world.write("desk", A, number).await;
        world.snapshot("desk", &format!("s{number}")).await.unwrap();
    }
    world.write("desk", A, 999).await;
    world.overlays.sync().await.unwrap();
    for crashed in [false, true] {
        assert_eq!(world.read("desk", A).await, 999, "crashed: {crashed}");
        assert_eq!(world.read_at("desk", "clean", A).await, 1);
        for number in 100..110 {
            assert_eq!(world.read_at("desk", &format!("s{number}"), A).await, number, "crashed: {crashed}");
        }
        world.crash().await;
    }
    assert_eq!(world.get("desk").view.number, 1, "no view was switched");
    assert!(world.snapshot_of("desk", "clean").layers.is_empty());
    let counts = world.snapshot_of("desk", "s100").counts();
    assert_eq!((counts.bytes, counts.inodes), (8, 1));
}

/// All are removed in an order of their own; after each, those that are left read what they read.
#[tokio::test]
async fn snapshots_are_removed_in_any_order() {
    let world = World::new().await;
    world.clones(&["desk"]).await;
    let mut left: Vec<u64> = (100..112).collect();
    for number in &left {
        world.write("desk", A, *number).await;
        world.snapshot("desk", &format!("s{number}")).await.unwrap();
    }
    let top = world.get("desk").view.top;
    for step in [5usize, 0, 7, 3, 3, 1, 2, 2, 1, 0, 1, 0] {
        let gone = format!("s{}", left.remove(step));
        let removed = world.fleet.remove_snapshots("desk", SnapshotTarget::Names(vec![gone])).await.unwrap();
        assert_eq!(removed.len(), 1);
        world.write("desk", B, 7).await;
        world.overlays.flush(crate::meta::Durability::Buffered).await.unwrap();
        for number in &left {
            assert_eq!(world.read_at("desk", &format!("s{number}"), A).await, *number);
        }
        assert_eq!(world.catalog.state().marks(top).len(), left.len());
    }
    let unknown = world.fleet.remove_snapshots("desk", SnapshotTarget::Names(vec!["s100".into()])).await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Two clones are written in turn, number by number; a snapshot of both must find them at most one
/// apart, the first one ahead; and the same for two files of one clone.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn snapshots_of_a_set_are_of_one_instant() {
    let world = Arc::new(World::new().await);
    world.clones(&["x", "y"]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (world, stop) = (world.clone(), stop.clone());
        async move {
            for number in 1000.. {
                for (clone, ino) in [("x", A), ("x", B), ("y", A), ("y", B)] {
                    world.write(clone, ino, number).await;
                }
                if stop.load(Ordering::Relaxed) {
                    return number;
                }
            }
            unreachable!("there are many numbers")
        }
    });
    while world.read("y", B).await < 1000 {
        tokio::task::yield_now().await;
    }
    for round in 0..50 {
        let new = NewSnapshot { target: select("pool=a"), name: format!("r{round}"), labels: Labels::new() };
        assert_eq!(world.fleet.snapshot(new).await.unwrap().len(), 2);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 1001, "the writer went on between the snapshots");
    for round in 0..50 {
        let mut seen = Vec::new();
        for (clone, ino) in [("x", A), ("x", B), ("y", A), ("y", B)] {
            seen.push(world.read_at(clone, &format!("r{round}"), ino).await);
        }
        assert!(seen.is_sorted_by(|before, after| before >= after) && seen[0] - seen[3] <= 1, "{seen:?}");
    }
}

#[tokio::test]
async fn a_restore_goes_back_in_place_and_forth_again() {
    let mut world = World::new().await;
    world.clones(&["desk"]).await;
    world.write("desk", A, 100).await;
    world.snapshot("desk", "monday").await.unwrap();
    world.write("desk", A, 200).await;
    let former = world.get("desk");
    let done = world.fleet.restore("desk", "monday").await.unwrap();
    assert_eq!(world.read("desk", A).await, 100);
    assert_eq!(done.clone.view.number, 2);
    assert_eq!(done.before.name.as_ref(), done.operation.snapshot_name());
    assert!(done.before.auto() && done.before.operation == Some(done.operation));
    assert_eq!(world.read_at("desk", &done.before.name, A).await, 200);
    assert!(done.clone.switched > former.switched);
    // The former view stays writable for who holds a handle into it, and shows nowhere else.
    assert!(world.write_in(&world.get("desk"), &former.view, A, 201).await);
    world.write("desk", A, 101).await;
    assert_eq!(world.read_in(&former, &former.view, A).await, 201);
    assert_eq!(world.read_at("desk", &done.before.name, A).await, 200);
    world.overlays.sync().await.unwrap();
    world.crash().await;
    let back = world.fleet.restore("desk", &done.before.name).await.unwrap();
    assert_eq!(world.read("desk", A).await, 200);
    assert_eq!(world.read_at("desk", &back.before.name, A).await, 101);
    assert_eq!(world.read_at("desk", "monday", A).await, 100);
    assert_eq!(back.clone.turns.iter().map(|turn| turn.view).collect::<Vec<_>>(), [2, 3]);
    let error = world.fleet.restore("desk", "tuesday").await.unwrap_err();
    assert_eq!((error.kind(), error.remedy_text().is_some()), (ErrorKind::NotFound, true));
}

#[tokio::test]
async fn a_restore_beyond_the_layers_is_refused_with_what_helps() {
    let world = World::new().await;
    world.clones(&["desk"]).await;
    for round in 0..=MAX_LAYERS as u64 {
        world.write("desk", A, round).await;
        world.snapshot("desk", &format!("s{round}")).await.unwrap();
        let restored = world.fleet.restore("desk", &format!("s{round}")).await;
        match restored {
            Ok(done) => assert_eq!(done.clone.view.layers.len() as u64, round + 1),
            Err(error) => {
                assert_eq!((round, error.kind()), (MAX_LAYERS as u64, ErrorKind::Conflict));
                assert!(error.remedy_text().unwrap().contains("flattened"));
                assert_eq!(world.read("desk", A).await, round, "nothing changed");
                let fork = world.fleet.fork(fork(&format!("desk@s{round}"), "late")).await;
                assert_eq!(fork.unwrap_err().kind(), ErrorKind::Conflict);
                return;
            }
        }
    }
    panic!("never refused");
}

#[tokio::test]
async fn a_fork_shows_its_source_at_one_instant_and_depends_on_nothing() {
    let mut world = World::new().await;
    world.clones(&["desk"]).await;
    world.write("desk", A, 100).await;
    world.snapshot("desk", "s").await.unwrap();
    world.write("desk", A, 200).await;
    let quota = crate::image::PolicyEdits { quota: Some(Some(1 << 20)), ..Default::default() };
    world.catalog.set_clones(names(&["desk"]), quota).await.unwrap();
    let running = world.fleet.fork(fork("desk", "now")).await.unwrap();
    let then = world.fleet.fork(fork("desk@s", "then")).await.unwrap();
    let deeper = world.fleet.fork(fork("then", "deeper")).await.unwrap();
    assert_eq!((running.depth, then.depth, deeper.depth, running.quota), (1, 1, 2, Some(1 << 20)));
    world.write("desk", A, 300).await;
    world.write("now", B, 201).await;
    world.write("then", A, 101).await;
    world.fleet.remove_clones(names(&["desk"])).await.unwrap();
    world.overlays.sync().await.unwrap();
    world.crash().await;
    for (clone, a, b) in [("now", 200, 201), ("then", 101, 2), ("deeper", 100, 2)] {
        assert_eq!((world.read(clone, A).await, world.read(clone, B).await), (a, b), "{clone}");
    }
    assert_eq!(world.catalog.state().snapshot_count(), 0, "they went with their clone");
    let counts = world.fleet.counts(&world.get("now").view);
    assert_eq!((counts.bytes, counts.inodes), (16, 2));
    let taken = world.fleet.fork(fork("now", "then")).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Exists);
}

#[tokio::test]
async fn forks_of_forks_end_at_the_limit() {
    let world = World::new().await;
    world.clones(&["f0"]).await;
    let fleet = Fleet::new(world.catalog.clone(), world.overlays.clone()).with_fork_depth(2);
    for (source, name) in [("f0", "f1"), ("f1", "f2")] {
        fleet.fork(fork(source, name)).await.unwrap();
    }
    let error = fleet.fork(fork("f2", "f3")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.what().contains("clones.max_fork_depth") && error.remedy_text().is_some(), "{error}");
}

#[tokio::test]
async fn conflicts_refuse_a_repoint_by_name() {
    let world = World::new().await;
    let all: Vec<String> = (0..8).map(|i| format!("d{i}")).collect();
    world.clones(&all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for clone in &all[1..] {
        world.write(clone, B, 100).await;
    }
    let before = world.catalog.state();
    let error = world.repoint(2, CloneTarget::All, Writes::Keep).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    for word in ["\"d1\"", "\"d5\"", "and 2 clones more"] {
        assert!(error.what().contains(word), "{error}");
    }
    assert!(error.what().contains("/b: changed in the clone, changed in the image"), "{error}");
    assert!(!error.what().contains("\"d6\"") && error.remedy_text().unwrap().contains("--writes"), "{error}");
    assert_eq!(*world.catalog.state(), *before);
    let same = world.repoint(1, CloneTarget::All, Writes::Keep).await.unwrap();
    assert_eq!(
        (same.outcome.switched(), same.outcome.count(&[Fate::Unchanged])),
        (0, 8),
        "nothing to switch, nothing to refuse"
    );
}

#[tokio::test]
async fn clones_with_private_writes_stay_and_are_marked_as_lagging() {
    let world = World::new().await;
    world.clones(&["clean", "dirty"]).await;
    world.write("dirty", A, 100).await;
    let done = world.repoint(2, CloneTarget::All, Writes::Stay).await.unwrap();
    assert_eq!(
        (done.outcome.switched(), done.outcome.count(&[Fate::Stays]), done.outcome.count(&[Fate::Discarded])),
        (1, 1, 0)
    );
    let dirty = world.get("dirty");
    assert_eq!((dirty.view.version, dirty.view.number, dirty.lagging.map(|l| l.version)), (1, 1, Some(2)));
    assert_eq!((world.get("clean").view.version, world.read("dirty", A).await), (2, 100));
    let settled = world.repoint(1, names(&["dirty"]), Writes::Stay).await.unwrap();
    assert_eq!(
        (settled.outcome.count(&[Fate::Unchanged]), world.get("dirty").lagging),
        (1, None),
        "meant to show what it shows"
    );
}

#[tokio::test]
async fn discarded_writes_are_in_a_snapshot_and_in_the_pin() {
    let world = World::new().await;
    world.clones(&["clean", "dirty"]).await;
    world.write("dirty", A, 100).await;
    let former = world.get("dirty");
    let done = world.repoint(2, CloneTarget::All, Writes::Discard).await.unwrap();
    assert_eq!(
        (done.outcome.switched(), done.outcome.count(&[Fate::Stays]), done.outcome.count(&[Fate::Discarded])),
        (2, 0, 1)
    );
    assert_eq!((world.read("dirty", A).await, world.get("dirty").view.version), (1, 2));
    assert_eq!(world.read_at("dirty", &done.operation.snapshot_name(), A).await, 100);
    assert_eq!(world.read_in(&former, &former.view, A).await, 100);
    assert_eq!((world.get("dirty").turns.len(), world.get("clean").turns.len()), (1, 0));
    assert_eq!(world.catalog.state().snapshot_count(), 1, "none of the clean one");
    // Discard alone: the version that it shows.
    world.write("dirty", A, 300).await;
    let done = world.repoint(2, CloneTarget::All, Writes::Discard).await.unwrap();
    assert_eq!(
        (done.outcome.switched(), done.outcome.count(&[Fate::Unchanged]), world.read("dirty", A).await),
        (1, 1, 1)
    );
    // And back again.
    let restored = world.fleet.restore("dirty", &done.operation.snapshot_name()).await.unwrap();
    assert_eq!((world.read("dirty", A).await, restored.clone.pins.len()), (300, 3));
    assert_eq!(world.fleet.drop_pins(CloneTarget::All).await.unwrap().len(), 4);
    assert!(!world.write_in(&former, &former.view, A, 1).await, "the former view is gone");
}

/// A clone whose private writes are discarded every night has no room for it one day: the refusal says
/// what helps, and it does.
#[tokio::test]
async fn discards_go_on_for_ever_if_pins_are_dropped() {
    let world = World::new().await;
    world.clones(&["desk"]).await;
    let mut refused = 0;
    for night in 0..200u64 {
        world.write("desk", A, night).await;
        if let Err(error) = world.repoint(1, CloneTarget::All, Writes::Discard).await {
            assert!(error.to_string().contains("mimeo pins --drop --clone desk"), "{error}");
            assert_eq!(world.read("desk", A).await, night, "nothing changed");
            world.fleet.drop_pins(names(&["desk"])).await.unwrap();
            world.repoint(1, CloneTarget::All, Writes::Discard).await.unwrap();
            refused += 1;
        }
        assert_eq!(world.read("desk", A).await, 1);
    }
    assert!((2..8).contains(&refused), "refused {refused} times");
}

/// Writers count up while their clone is switched, restored and snapshotted. What they wrote last,
/// after all of it, is in the view that is shown then, and no snapshot has what came later.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn writers_find_the_new_view_after_a_switch() {
    let world = Arc::new(World::new().await);
    world.clones(&["desk"]).await;
    let (stop, number) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1000)));
    let writers = [A, B].map(|ino| {
        let (world, stop, number) = (world.clone(), stop.clone(), number.clone());
        tokio::spawn(async move {
            loop {
                let last = stop.load(Ordering::Relaxed);
                let next = number.fetch_add(1, Ordering::Relaxed);
                world.write("desk", ino, next).await;
                if last {
                    return next;
                }
            }
        })
    });
    let mut newest = Vec::new();
    for round in 0..20 {
        world.repoint(1, CloneTarget::All, Writes::Discard).await.unwrap();
        world.snapshot("desk", &format!("s{round}")).await.unwrap();
        newest.push(number.load(Ordering::Relaxed));
        world.fleet.restore("desk", &format!("s{round}")).await.unwrap();
        if round % 5 == 4 {
            world.fleet.drop_pins(CloneTarget::All).await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for (writer, ino) in writers.into_iter().zip([A, B]) {
        let last = writer.await.unwrap();
        assert_eq!(world.read("desk", ino).await, last);
        for (round, newest) in newest.iter().enumerate() {
            assert!(world.read_at("desk", &format!("s{round}"), ino).await < *newest, "round {round}");
        }
    }
}

#[tokio::test]
async fn a_repoint_switches_ten_thousand_clones_with_one_change() {
    let world = World::new().await;
    let many: Vec<String> = (0..10_000).map(|i| format!("desk-{i:05}")).collect();
    world.clones(&many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (before, commits) = (world.catalog.state(), world.log.count_commits());
    let done = world.repoint(2, CloneTarget::All, Writes::Keep).await.unwrap();
    assert_eq!((done.outcome.switched(), done.outcome.count(&[Fate::Unchanged])), (10_000, 0));
    assert_eq!((world.log.count_commits() - commits, world.catalog.state().rev()), (1, before.rev().next()));
    assert!(world.catalog.state().clones().all(|clone| clone.view.version == 2 && clone.pins.len() == 1));
    assert!(before.clones().all(|clone| clone.view.version == 1), "an older revision stays as it was");
    assert!(world.catalog.state().clones().all(|clone| clone.turns.is_empty()), "nothing changes its handle");
}

#[tokio::test]
async fn repoint_and_back_keeps_one_pin_and_its_times_grow() {
    let world = World::new().await;
    world.clones(&["a"]).await;
    let mut last = world.get("a").switched;
    for (round, number) in [2, 1, 2, 1].into_iter().enumerate() {
        world.clock.set_secs(1_700_000_000 - 10 * round as u64);
        let done = world.repoint(number, CloneTarget::All, Writes::Keep).await.unwrap();
        let clone = world.get("a");
        assert_eq!((clone.view.version, clone.view.number, clone.pins.len()), (number, round as u64 + 2, 1));
        assert_eq!(clone.pins[0].operation, done.operation);
        assert!(clone.switched > last);
        last = clone.switched;
    }
    let again = world.repoint(1, CloneTarget::All, Writes::Keep).await.unwrap();
    assert_eq!((again.outcome.switched(), again.outcome.count(&[Fate::Unchanged])), (0, 1));
    assert_eq!(world.fleet.drop_pins(CloneTarget::All).await.unwrap().len(), 1);
    assert!(world.get("a").pins.is_empty());
}

#[tokio::test]
async fn a_repoint_names_what_is_wrong_and_changes_nothing() {
    let world = World::new().await;
    world.add_version("other", [("a", A, 1), ("b", B, 2)]).await;
    world.clones(&["a"]).await;
    let new =
        crate::image::NewClones { version: "other".parse().unwrap(), names: vec!["b".into()], labels: Labels::new() };
    world.catalog.create_clones(new).await.unwrap();
    let os = |number, target| to("os", number, target, Writes::Keep);
    let before = world.catalog.state();
    for (plan, kind, named) in [
        (os(1, names(&["a", "b"])), ErrorKind::Invalid, "\"b\""),
        (os(1, names(&["a", "gone"])), ErrorKind::NotFound, "\"gone\""),
        (os(1, names(&[])), ErrorKind::Invalid, "no clone"),
        (os(1, select("pool=z")), ErrorKind::NotFound, "pool=z"),
        (os(3, CloneTarget::All), ErrorKind::NotFound, "os@v3"),
        (to("nope", 1, CloneTarget::All, Writes::Keep), ErrorKind::NotFound, "\"nope\""),
        (
            RepointPlan { image: "os".into(), ..to("other", 1, CloneTarget::All, Writes::Stay) },
            ErrorKind::Invalid,
            "other@v1",
        ),
    ] {
        let error = world.fleet.repoint(plan).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.what().contains(named), "{error}");
    }
    assert_eq!(*world.catalog.state(), *before);
    let done = world.repoint(2, select("pool=a"), Writes::Keep).await.unwrap();
    assert_eq!((done.outcome.switched(), done.outcome.version.number), (1, 2), "the selection stays within the image");
}

#[tokio::test]
async fn sets_are_named_or_selected_and_never_all_by_an_oversight() {
    let world = World::new().await;
    world.clones(&["a", "b"]).await;
    let label = |target| world.catalog.label_clones(target, LabelEdits::parse(["x=1"]).unwrap());
    assert_eq!(label(CloneTarget::All).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(label(select("pool=z")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(label(select("pool=a")).await.unwrap().len(), 2);
    assert_eq!(world.fleet.remove_clones(CloneTarget::All).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(world.fleet.remove_clones(select("x=1")).await.unwrap().len(), 2);
}

#[tokio::test]
async fn snapshots_have_names_and_labels_of_their_own() {
    let world = World::new().await;
    world.clones(&["a"]).await;
    world.snapshot("a", "s").await.unwrap();
    for (name, kind) in [("s", ErrorKind::Exists), ("before-op-1", ErrorKind::Invalid), ("x/y", ErrorKind::Invalid)] {
        assert_eq!(world.snapshot("a", name).await.unwrap_err().kind(), kind, "{name}");
    }
    let labelled = world.fleet.label_snapshot("a", "s", LabelEdits::parse(["keep=yes"]).unwrap()).await.unwrap();
    assert_eq!(labelled.snapshot.labels.get("keep"), Some("yes"));
    world.snapshot("a", "t").await.unwrap();
    let kept = SnapshotTarget::Select("!keep".parse().unwrap());
    assert_eq!(world.fleet.remove_snapshots("a", kept).await.unwrap().len(), 1);
    assert_eq!(world.catalog.state().snapshot_count(), 1);
}

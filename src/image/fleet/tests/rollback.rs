//! Rollback: clones show again what they showed, private writes included, and that can be undone.

use super::world::{A, B, World, names, to};
use super::*;
use crate::image::policy::{OnConflict, SwitchPolicy};
use crate::image::record::OperationId;
use crate::image::{Fate, OperationState, Rollout, SnapshotTarget, Writes};

/// What a clone shows: its version, and the numbers in `a` and in its `b`.
async fn shown(world: &World, clone: &str) -> (u32, u64, u64) {
    let version = world.get(clone).view.version;
    let b = if version == 1 { B } else { crate::manifest::Ino(12) };
    (version, world.read(clone, A).await, world.read(clone, b).await)
}

async fn to_v2(world: &World, writes: Writes) -> OperationId {
    world.fleet.repoint(to("os", 2, CloneTarget::All, writes)).await.unwrap().operation
}

#[tokio::test]
async fn a_rollback_brings_private_writes_back_and_can_be_undone() {
    for writes in [Writes::Keep, Writes::Discard] {
        let mut world = World::new().await;
        world.clones(&["clean", "dirty"]).await;
        world.write("dirty", A, 100).await;
        let op = to_v2(&world, writes.clone()).await;
        world.write("dirty", A, 101).await;
        world.write("clean", A, 7).await;
        world.snapshot("dirty", "newer").await.unwrap();

        let done = world.fleet.rollback(op, 0).await.unwrap();
        assert_eq!((done.restored.len(), done.left.len()), (2, 0));
        assert_eq!(shown(&world, "dirty").await, (1, 100, 2), "{writes}: as it was before");
        assert_eq!(shown(&world, "clean").await, (1, 1, 2));
        assert_eq!(world.snapshot_of("dirty", "newer").version, 2, "newer snapshots are untouched");
        let record = world.catalog.state().find_operation(op).unwrap().clone();
        assert_eq!(record.state, OperationState::RolledBack { by: done.operation, why: None });
        assert!(world.fleet.rollback(op, 0).await.unwrap_err().what().contains("rolled back by"));

        world.crash().await;
        let undone = world.fleet.rollback(done.operation, 0).await.unwrap();
        assert_eq!(undone.restored.len(), 2);
        assert_eq!(shown(&world, "dirty").await, (2, 101, 20), "{writes}: what was written in between is there again");
        assert_eq!(shown(&world, "clean").await, (2, 7, 20));
    }
}

#[tokio::test]
async fn a_clone_that_was_switched_since_refuses_the_rollback_or_is_left() {
    let world = World::new().await;
    world.clones(&["one", "two"]).await;
    let op = to_v2(&world, Writes::Keep).await;
    world.repoint(1, names(&["two"]), Writes::Keep).await.unwrap();
    world.repoint(2, names(&["two"]), Writes::Keep).await.unwrap();
    let refused = world.fleet.rollback(op, 0).await.unwrap_err();
    assert!(refused.what().contains("\"two\"") && refused.what().contains("has switched it since"), "{refused}");
    assert_eq!((world.get("one").view.version, world.get("two").view.version), (2, 2), "nothing was rolled back");
    let done = world.fleet.rollback(op, 1).await.unwrap();
    assert_eq!((done.restored.len(), &*done.left[0].0), (1, "two"));
    assert_eq!((world.get("one").view.version, world.get("two").view.version), (1, 2));
}

#[tokio::test]
async fn without_its_snapshot_a_clone_is_found_in_its_pin_and_else_left() {
    let world = World::new().await;
    world.clones(&["dirty"]).await;
    world.write("dirty", A, 100).await;
    let op = to_v2(&world, Writes::Discard).await;
    let gone = SnapshotTarget::Names(vec![op.snapshot_name()]);
    world.fleet.remove_snapshots("dirty", gone.clone()).await.unwrap();
    let done = world.fleet.rollback(op, 0).await.unwrap();
    assert_eq!(shown(&world, "dirty").await, (1, 100, 2));

    world.fleet.rollback(done.operation, 0).await.unwrap();
    let op = world.fleet.repoint(to("os", 1, CloneTarget::All, Writes::Keep)).await.unwrap().operation;
    world.write("dirty", A, 5).await;
    let op2 = to_v2(&world, Writes::Discard).await;
    world.fleet.remove_snapshots("dirty", SnapshotTarget::Names(vec![op2.snapshot_name()])).await.unwrap();
    world.fleet.drop_pins(CloneTarget::All).await.unwrap();
    let refused = world.fleet.rollback(op2, 0).await.unwrap_err();
    assert!(refused.what().contains(&format!("its snapshot {} was removed", op2.snapshot_name())), "{refused}");
    assert!(world.fleet.rollback(op, 0).await.is_err(), "that one is not what made the view");
}

#[tokio::test]
async fn a_halted_operation_is_rolled_back_as_far_as_it_came() {
    let world = World::new().await;
    world.clones(&["a1", "a2", "b1"]).await;
    world.write("b1", B, 9).await;
    let waves = vec!["2".parse().unwrap()];
    let repoint = to("os", 2, CloneTarget::All, Writes::Keep);
    let new = NewOperation { repoint, waves, rollout: Rollout::default(), at: None };
    let op = world.fleet.start(new).await.unwrap().id;
    world.fleet.switch_wave(op, 0).await.unwrap();
    assert!(world.fleet.rollback(op, 0).await.unwrap_err().what().contains("goes on"));
    let conflict = world.fleet.switch_wave(op, 1).await.unwrap_err();
    world.fleet.fail(&world.operation(op), conflict.what()).await.unwrap();
    let done = world.fleet.rollback(op, 0).await.unwrap();
    assert_eq!(done.restored.len(), 2);
    let record = world.catalog.state().find_operation(done.operation).unwrap().clone();
    assert_eq!(record.count(&[Fate::RestoredClean]), 2);
    for clone in ["a1", "a2", "b1"] {
        assert_eq!(world.get(clone).view.version, 1);
    }
}

/// An automatic snapshot is there for a rollback, and goes when its time is over; others stay.
#[tokio::test]
async fn automatic_snapshots_are_kept_for_the_window() {
    let world = World::new().await;
    world.clones(&["dirty"]).await;
    world.write("dirty", A, 100).await;
    world.snapshot("dirty", "mine").await.unwrap();
    let op = to_v2(&world, Writes::Discard).await;
    let window = std::time::Duration::from_secs(3600);
    world.clock.advance(window - std::time::Duration::from_secs(1));
    assert!(world.fleet.outdated_snapshots(window).is_empty());
    world.clock.advance(std::time::Duration::from_secs(1));
    let outdated = world.fleet.outdated_snapshots(window);
    assert_eq!(world.fleet.forget_snapshots(&outdated, window).await.unwrap(), 1);
    assert_eq!(world.fleet.forget_snapshots(&outdated, window).await.unwrap(), 0);
    let state = world.catalog.state();
    let left: Vec<_> = state.snapshots_of(world.get("dirty").id).map(|snapshot| snapshot.name.to_string()).collect();
    assert_eq!(left, ["mine"]);
    drop(state);
    world.fleet.rollback(op, 0).await.unwrap();
    assert_eq!(shown(&world, "dirty").await, (1, 100, 2), "the pin still has it");
}

#[tokio::test]
async fn a_rollback_of_a_clone_without_private_writes_can_be_undone_without_pins() {
    let world = World::new().await;
    world.clones(&["clean", "dirty"]).await;
    let op = to_v2(&world, Writes::Keep).await;
    world.write("dirty", A, 100).await;
    let back = world.fleet.rollback(op, 0).await.unwrap().operation;
    let record = world.catalog.state().find_operation(back).unwrap().clone();
    assert_eq!((record.count(&[Fate::RestoredClean]), record.count(&[Fate::Restored])), (1, 1));
    world.fleet.drop_pins(CloneTarget::All).await.unwrap();
    world.fleet.rollback(back, 0).await.unwrap();
    assert_eq!((shown(&world, "clean").await, shown(&world, "dirty").await), ((2, 1, 20), (2, 100, 20)));
}

/// What a conflict left of both sides goes, and the base that was kept for it stays as long as it is read.
#[tokio::test]
async fn a_rollback_of_a_conflict_that_a_side_won() {
    for conflict in [OnConflict::CloneWins, OnConflict::ImageWins] {
        let world = World::new().await;
        world.clones(&["dirty"]).await;
        world.write("dirty", B, 9).await;
        let policy = SwitchPolicy { conflict: Some(conflict), ..Writes::Keep.into() };
        let op = world.fleet.repoint(to("os", 2, CloneTarget::All, Writes::Keep).with(policy)).await.unwrap().operation;
        assert_eq!(world.get("dirty").view.bases, [1], "{conflict}: its other bytes are those of v1");
        world.catalog.remove_version("os@v1".parse().unwrap()).await.unwrap();
        world.fleet.drop_pins(CloneTarget::All).await.unwrap();
        assert_eq!(world.read("dirty", B).await, 9, "{conflict}");
        world.fleet.rollback(op, 0).await.unwrap();
        assert_eq!(shown(&world, "dirty").await, (1, 1, 9));
    }
}

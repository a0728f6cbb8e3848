//! Pins that end one by one, and switches that wait.

use super::activation::Nobody;
use super::*;
use crate::image::policy::{Activation, SwitchPolicy};
use crate::image::record::{ExportId, OperationId, Staged};
use crate::image::{PinnedViews, VersionNumber, VersionRef};
use crate::manifest::Ino;

/// Let a switch to a version wait for clones; answers who staged it.
async fn stage(world: &World, clones: &[&str], version: VersionNumber, policy: SwitchPolicy) -> OperationId {
    let target = names(clones);
    let stage = move |draft: &mut Draft| {
        let (operation, since) = (OperationId(draft.new_id()?), draft.now());
        let staged = Staged { version, policy: policy.clone(), operation, since, at: None };
        let clones = target.choose(draft)?.iter().map(|clone| clone.id).collect();
        draft.apply(Change::Stage { clones, staged: Some(Arc::new(staged)) })?;
        Ok(operation)
    };
    world.catalog.transact("stage", stage).await.unwrap()
}

fn discard() -> SwitchPolicy {
    SwitchPolicy { activation: Some(Activation::OnMount), ..Writes::Discard.into() }
}

fn pinned(clone: &CloneRecord) -> Vec<u64> {
    clone.pins.iter().map(|pin| pin.view.number).collect()
}

#[tokio::test]
async fn one_pin_is_dropped_and_the_others_stay() {
    let mut world = World::new().await;
    world.clones(&["desk"]).await;
    for (number, version) in [(100, 2), (200, 1), (300, 2)] {
        world.write("desk", A, number).await;
        world.repoint(version, names(&["desk"]), Writes::Discard).await.unwrap();
    }
    assert_eq!(pinned(&world.get("desk")), [3, 2, 1]);
    let error = world.fleet.drop_pin("desk", 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("view 1") && error.remedy_text().is_some(), "{error}");
    assert_eq!(world.fleet.drop_pin("desk", 9).await.unwrap_err().kind(), ErrorKind::NotFound);
    let ended = world.fleet.drop_pin("desk", 1).await.unwrap();
    assert_eq!((ended.pin.view.number, ended.pin.view.version), (1, 1));
    let desk = world.get("desk");
    assert_eq!(pinned(&desk), [3, 2]);
    for (pin, number) in desk.pins.iter().zip([300, 200]) {
        assert_eq!(world.read_in(&desk, &pin.view, A).await, number);
    }
    world.overlays.sync().await.unwrap();
    world.crash().await;
    assert_eq!(world.get("desk"), desk);
}

#[tokio::test]
async fn a_clean_pin_goes_before_older_ones() {
    let world = World::new().await;
    world.clones(&["desk"]).await;
    let third = world.add_version("os", [("a", Ino(30), 3), ("b", Ino(31), 4)]).await;
    world.write("desk", A, 100).await;
    for version in [2, third, 1] {
        world.repoint(version, names(&["desk"]), Writes::Discard).await.unwrap();
    }
    assert_eq!(pinned(&world.get("desk")), [3, 2, 1]);
    world.fleet.drop_pin("desk", 2).await.unwrap();
    assert_eq!(pinned(&world.get("desk")), [3, 1]);
}

#[tokio::test]
async fn pins_expire_as_far_as_none_is_held_back() {
    let world = World::new().await;
    world.clones(&["x", "y"]).await;
    for version in [2, 1, 2] {
        for clone in ["x", "y"] {
            world.write(clone, A, 100 + u64::from(version)).await;
        }
        world.repoint(version, names(&["x", "y"]), Writes::Discard).await.unwrap();
    }
    let (x, y) = (world.get("x").id, world.get("y").id);
    let gone = ExportId(4711);
    let views = PinnedViews::from([(x, vec![3, 1, 2, 77]), (y, vec![1, 3]), (gone, vec![1])]);
    let ended = world.fleet.expire_pins(views).await.unwrap();
    assert_eq!(ended.len(), 4);
    assert_eq!((pinned(&world.get("x")), pinned(&world.get("y"))), (vec![], vec![3, 2]));
    assert_eq!(world.fleet.expire_pins(PinnedViews::from([(x, vec![1])])).await.unwrap(), []);
}

#[tokio::test]
async fn a_pin_holds_what_nobody_else_names() {
    let world = World::new().await;
    world.clones(&["desk"]).await;
    world.write("desk", A, 100).await;
    let held = |world: &World| {
        let (state, desk) = (world.catalog.state(), world.get("desk"));
        desk.pins.iter().map(|pin| world.fleet.bytes_held(&state, &desk, pin)).collect::<Vec<_>>()
    };
    let done = world.repoint(2, names(&["desk"]), Writes::Discard).await.unwrap();
    assert_eq!(held(&world), [0], "the automatic snapshot names the same");
    let snapshot = SnapshotTarget::Names(vec![done.operation.snapshot_name()]);
    world.fleet.remove_snapshots("desk", snapshot).await.unwrap();
    assert_eq!(held(&world), [8]);
    world.fleet.drop_pins(names(&["desk"])).await.unwrap();
    assert_eq!(held(&world), [0; 0]);
}

#[tokio::test]
async fn what_was_staged_is_made_with_the_policy_that_it_came_with() {
    let world = World::new().await;
    world.clones(&["x", "y", "z"]).await;
    world.write("y", A, 100).await;
    let first = stage(&world, &["x", "y"], 2, discard()).await;
    let second = stage(&world, &["z"], 2, discard()).await;
    let done = world.fleet.activate(select("pool=a")).await.unwrap();
    assert_eq!(done.iter().map(|done| done.staged_by).collect::<Vec<_>>(), [first, second]);
    assert_eq!(done[0].outcome.as_ref().unwrap().outcome.switched(), 2);
    assert_eq!(done[0].outcome.as_ref().unwrap().outcome.count(&[Fate::Discarded]), 1);
    for clone in ["x", "y", "z"] {
        let clone = world.get(clone);
        assert_eq!((clone.view.version, clone.view.number, &clone.staged), (2, 2, &None));
    }
    let error = world.fleet.activate(names(&["x"])).await.unwrap_err();
    assert_eq!((error.kind(), error.remedy_text().is_some()), (ErrorKind::NotFound, true));
    let x = world.get("x").id;
    assert!(world.fleet.activate_mounted(x, Arc::new(Nobody)).await.unwrap().is_none());
}

/// A second MNT that comes late must not discard what was written since the first.
#[tokio::test]
async fn what_is_staged_is_made_once() {
    let world = Arc::new(World::new().await);
    world.clones(&["desk"]).await;
    stage(&world, &["desk"], 2, discard()).await;
    let stale = world.get("desk");
    world.fleet.activate(names(&["desk"])).await.unwrap();
    world.write("desk", A, 100).await;
    let again = world.fleet.activate_staged(vec![stale], None).await.unwrap();
    assert_eq!(again.outcome.unwrap().outcome.switched(), 0);
    assert_eq!((world.get("desk").view.number, world.read("desk", A).await), (2, 100));
}

#[tokio::test]
async fn what_is_withdrawn_is_not_made() {
    let world = World::new().await;
    world.clones(&["x", "y"]).await;
    stage(&world, &["x"], 2, discard()).await;
    let stale = world.get("x");
    let withdrawn = world.fleet.unstage(names(&["x", "y"])).await.unwrap();
    assert_eq!(withdrawn.iter().map(|clone| &*clone.name).collect::<Vec<_>>(), ["x"]);
    let late = world.fleet.activate_staged(vec![stale], None).await.unwrap();
    assert_eq!(late.outcome.unwrap().outcome.switched(), 0);
    assert_eq!(world.get("x").view.number, 1);
    assert_eq!(world.fleet.unstage(names(&["x"])).await.unwrap(), []);
}

#[tokio::test]
async fn a_switch_that_leaves_its_clone_as_it_is_waits_no_more() {
    let world = World::new().await;
    world.clones(&["x", "y"]).await;
    world.write("x", A, 100).await;
    stage(&world, &["x"], 2, Writes::Stay.into()).await;
    stage(&world, &["y"], 1, SwitchPolicy::default()).await;
    world.fleet.activate(names(&["x", "y"])).await.unwrap();
    let (x, y) = (world.get("x"), world.get("y"));
    assert_eq!((x.view.number, &x.staged, x.lagging.map(|lagging| lagging.version)), (1, &None, Some(2)));
    assert_eq!((y.view.number, &y.staged, y.lagging), (1, &None, None));
}

#[tokio::test]
async fn a_switch_that_fails_goes_on_waiting() {
    let world = World::new().await;
    world.clones(&["desk"]).await;
    let third = world.add_version("os", [("a", Ino(30), 3), ("b", Ino(31), 4)]).await;
    stage(&world, &["desk"], third, discard()).await;
    world.catalog.remove_version(VersionRef::number("os", third)).await.unwrap();
    let done = world.fleet.activate(names(&["desk"])).await.unwrap();
    assert_eq!(done[0].outcome.as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    let desk = world.get("desk");
    assert!(desk.staged.is_some() && desk.view.number == 1);
}

//! Goal: a good store is clean, whatever was done with it, and each kind of damage is found, and told as
//! what it is with the object named. Method: damage one thing (a row, a byte of a segment, a record of
//! the catalog, or a tree by changes that no file service makes) and compare the whole report.

mod rows;
mod views;
pub mod world;

use self::world::{A, DIR, F, World};
use crate::image::{CloneTarget, SnapshotTarget};
use crate::manifest::{FileKind, Ino};

const ROOT: Ino = Ino::ROOT;

/// A store in which everything was done once.
async fn busy() -> World {
    let mut world = World::new().await;
    let new = world.make("desk", ROOT, "new", FileKind::Directory).await;
    let x = world.make("desk", new, "x", FileKind::Regular).await;
    world.write("desk", x, 5, &[1; 100_000]).await;
    world.write("desk", F, 1000, b"private").await;
    world.remove("desk", ROOT, "h1").await;
    world.rename("desk", (ROOT, "a"), (DIR, "a2")).await;
    world.rename("desk", (DIR, "sub"), (new, "sub")).await;
    world.snapshot("desk", "first").await;
    world.write("desk", x, 70_000, &[2; 10]).await;
    world.truncate("desk", F, 3).await;
    world.link("desk", A, ROOT, "a3").await;
    world.remove("desk", new, "sub").await;
    world.snapshot("desk", "second").await;
    world.remove("desk", DIR, "h2").await;
    world.remove("desk", DIR, "f").await;
    world.fork("desk@first", "fork").await;
    world.write("fork", x, 0, &[3; 10]).await;
    world.remove("fork", new, "sub").await;
    world.fork("fork", "fork-of-fork").await;
    world.make("fork-of-fork", DIR, "deep", FileKind::Fifo).await;
    world.fleet().restore("desk", "second").await.unwrap();
    world.remove("desk", DIR, "f").await;
    world.new_clone("idle").await;
    world
}

#[tokio::test]
async fn a_good_store_is_clean() {
    let mut world = busy().await;
    let checked = world.assert_clean().await.checked;
    assert_eq!((checked.versions, checked.clones, checked.snapshots), (1, 4, 3));
    assert_eq!((checked.overlays, checked.overlays_reclaimable), (4, 0));
    assert_eq!((checked.objects, checked.names, checked.bytes), (15, 12, 100_010));
    assert_eq!((checked.pieces_read, checked.chunks_read), (5, 20));
    world.restart().await;
    let again = world.assert_clean().await.checked;
    assert_eq!(again, checked, "a restart changes nothing");
    let fleet = world.fleet();
    fleet.remove_clones(CloneTarget::Names(vec!["desk".into()])).await.unwrap();
    fleet.remove_clones(CloneTarget::Names(vec!["fork-of-fork".into()])).await.unwrap();
    let checked = world.assert_clean().await.checked;
    assert_eq!((checked.overlays, checked.overlays_reclaimable), (4, 2), "of desk the fork still shows a layer");
}

/// Of what was removed after the snapshot that showed it, nothing comes back after a crash.
#[tokio::test]
async fn what_was_removed_stays_removed_over_a_crash() {
    let mut world = World::new().await;
    let file = world.make("desk", DIR, "new", FileKind::Regular).await;
    world.snapshot("desk", "s").await;
    world.write("desk", file, 0, b"later").await;
    world.fleet().remove_snapshots("desk", SnapshotTarget::Names(vec!["s".into()])).await.unwrap();
    world.restart().await;
    world.remove("desk", DIR, "new").await;
    world.store().sync().await.unwrap();
    world.crash().await;
    world.assert_clean().await;
    world.snapshot("desk", "after").await;
    world.write("desk", F, 0, b"more").await;
    world.assert_clean().await;
}

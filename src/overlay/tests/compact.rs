//! Goal: compaction gives space back whoever refers to it, loses nothing in a power cut, and comes to an
//! end. Method: segments small enough to fill by hand, and a look at which are left.

use super::world::{FILES, ViewId, World};
use crate::manifest::Ino;
use crate::meta::Durability;
use crate::overlay::log::SegmentId;

/// Holds three buckets.
const SEGMENT: u32 = 256 << 10;
const B: Ino = FILES[1].1;
const C: Ino = FILES[2].1;

fn segments(world: &World) -> Vec<SegmentId> {
    world.store().log.segments().iter().map(|(id, _)| *id).collect()
}

fn open_segment(world: &World) -> SegmentId {
    *segments(world).last().unwrap()
}

/// Fill the open segment, and begin the next, with what nobody refers to afterwards.
async fn roll(world: &World, view: ViewId) {
    let first = open_segment(world);
    while open_segment(world) == first {
        world.write(view, C, 0, &[9; 60_000]).await;
        world.sync().await;
    }
    world.write(view, C, 0, &[7; 60_000]).await;
    world.flush().await;
}

/// Data that only an older version refers to is moved when its segment gets sparse, and again when the
/// segment that it was moved to does.
#[tokio::test]
async fn data_that_was_moved_for_a_snapshot_is_moved_again() {
    let mut world = World::with_segments(1, SEGMENT).await;
    let view = world.new_view();
    world.write(view, B, 0, &[1; 5000]).await;
    let snapshot = world.snapshot(view).await;
    // Zeros are not stored: of this key, nothing but the older version is ever moved.
    world.write(view, B, 0, &[0; 6000]).await;
    let seen = (world.seen(view).await, world.seen(snapshot).await);
    for round in 0..3 {
        let first = open_segment(&world);
        roll(&world, view).await;
        world.compact().await;
        assert!(!segments(&world).contains(&first), "round {round}: {first} is there");
        let now = (world.seen(view).await.files["b"].clone(), world.seen(snapshot).await);
        assert_eq!(now, (seen.0.files["b"].clone(), seen.1.clone()), "round {round}");
        world.check_counts().await;
    }
    world.restart(0).await;
    assert_eq!(world.seen(snapshot).await, seen.1);
}

/// A flattened overlay refers to data of which no record in the log says so.
#[tokio::test]
async fn data_of_a_flattened_overlay_is_moved() {
    let mut world = World::with_segments(2, SEGMENT).await;
    let mut view = world.new_view();
    for byte in 1..4 {
        world.write(view, B, u64::from(byte) * 1000, &[byte; 1500]).await;
        let sealed = world.snapshot(view).await;
        view = world.fork(sealed);
    }
    world.flatten(view).await;
    let other = world.new_view();
    world.keep_only(&[view, other]).await;
    let seen = world.seen(view).await;
    for round in 0..3 {
        let first = open_segment(&world);
        roll(&world, other).await;
        world.compact().await;
        assert!(!segments(&world).contains(&first), "round {round}: {first} is there");
        assert_eq!(world.seen(view).await, seen, "round {round}");
        world.check_counts().await;
    }
    world.restart(0).await;
    assert_eq!(world.seen(view).await, seen);
}

/// What a sealed layer shows is not there twice after its segment was emptied.
#[tokio::test]
async fn sealed_data_is_not_doubled() {
    let mut world = World::with_segments(3, SEGMENT).await;
    let view = world.new_view();
    world.write(view, B, 0, &[1; 5000]).await;
    let snapshot = world.snapshot(view).await;
    let other = world.new_view();
    roll(&world, other).await;
    world.compact().await;
    world.check_counts().await;
    let live: i64 = world.store().index.live().values().sum();
    assert_eq!(live, 5000 + 60_000, "the snapshot's, and the other view's");
    assert!(world.seen(snapshot).await.files["b"].starts_with(&[1; 5000]));
}

/// A segment that cannot be emptied, as its live bytes were counted wrong, is tried once in a pass.
#[tokio::test]
async fn a_segment_that_cannot_be_emptied_ends_no_pass() {
    let world = &mut World::with_segments(4, SEGMENT).await;
    let view = world.new_view();
    world.write(view, B, 0, &[1; 5000]).await;
    let first = open_segment(world);
    roll(world, view).await;
    world.miscount(first, 100);
    let mut pass = world.store().sparse_segments().await.unwrap();
    assert_eq!(pass.iter().filter(|id| **id == first).count(), 1);
    while !pass.is_empty() {
        world.store().compact(pass.pop()).await.unwrap();
    }
    assert!(segments(world).contains(&first));
    assert_eq!(world.store().compact(Some(first)).await.unwrap().bytes_moved, 0);
}

/// Rows that were not synced say that a segment may go; after a power cut they are gone, and replay needs
/// the segment.
#[tokio::test]
async fn a_segment_is_removed_only_behind_what_is_on_stable_storage() {
    let mut world = World::with_segments(5, 2048).await;
    let (view, first) = (world.new_view(), open_segment(&world));
    let mut model = world.base_model();
    let create = async |world: &World, model: &mut super::Model, n: usize| {
        let name = format!("n{n}");
        let ino = world.create(view, &name).await;
        model.create(&name, ino);
    };
    create(&world, &mut model, 0).await;
    world.store().flush(Durability::Synced).await.unwrap();
    for n in 1..40 {
        create(&world, &mut model, n).await;
    }
    world.store().flush(Durability::Buffered).await.unwrap();
    world.store().remove_empty().await.unwrap();
    assert!(!segments(&world).contains(&first), "nothing refers to it");
    world.restart(0).await;
    assert_eq!(world.seen(view).await, model.seen());
}

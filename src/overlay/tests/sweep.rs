//! Goal: a file of any size can be cut and removed, by records of bounded size; what it leaves behind goes
//! in the background, and snapshots keep theirs. Method: files of a byte here and there.

use super::world::{ViewId, World};
use crate::manifest::Ino;
use crate::overlay::bucket::BUCKET;
use crate::overlay::tree::MAX_ERASED;

/// Names that are gone are walked through in bounded runs, by who looks for what is left among them.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_row_of_removed_names_is_walked_in_parts() {
    let mut world = World::new(1).await;
    let view = world.new_view();
    let names: Vec<String> = (0..40_000).map(|n| format!("name {n}")).collect();
    for names in names.chunks(1000) {
        world.create_all(view, names).await;
    }
    // A snapshot, so that what is removed leaves a mark.
    world.snapshot(view).await;
    world.flush().await;
    for cold in [false, true] {
        if cold {
            world.restart(1).await;
        } else {
            for names in names.chunks(1000) {
                world.remove_all(view, names).await;
            }
            world.sync().await;
            world.flush().await;
        }
        let left: Vec<String> = world.seen(view).await.files.into_keys().collect();
        assert_eq!(left, ["a", "b", "c"], "cold: {cold}");
    }
}

/// Beyond what one change erases, twice.
const MANY: u64 = 2 * MAX_ERASED as u64 + 10;

/// A file with one byte in each of [`MANY`] buckets.
async fn large(world: &World, view: ViewId, name: &str) -> Ino {
    let ino = world.create(view, name).await;
    let places: Vec<u64> = (0..MANY).map(|bucket| bucket * BUCKET + 7).collect();
    for places in places.chunks(60) {
        world.dot(view, ino, places).await;
    }
    assert_eq!(world.bytes(view), MANY);
    ino
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_at_once_and_its_data_later() {
    for crashed in [false, true] {
        let mut world = World::new(1).await;
        let view = world.new_view();
        large(&world, view, "large").await;
        world.flush().await;
        world.remove(view, "large").await;
        assert_eq!(world.seen(view).await, world.base_model().seen());
        if crashed {
            world.sync().await;
            world.restart(1).await;
        }
        assert!(world.sweep().await > 2, "in several steps");
        assert_eq!(world.bytes(view), 0);
        world.flush().await;
        world.check_counts().await;
        assert_eq!(world.seen(view).await, world.base_model().seen());
        assert_eq!(world.sweep().await, 0, "nothing is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_keeps_what_its_clone_sweeps() {
    let mut world = World::new(1).await;
    let view = world.new_view();
    let ino = large(&world, view, "large").await;
    let snapshot = world.snapshot(view).await;
    world.remove(view, "large").await;
    world.sweep().await;
    world.flush().await;
    world.check_counts().await;
    for bucket in [0, 1, MANY / 2, MANY - 1] {
        assert_eq!(world.bytes_at(snapshot, ino, bucket * BUCKET + 6, 2).await, b"\0x");
    }
    assert_eq!(world.bytes(view), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_cut_from_its_end_in_steps() {
    let mut world = World::new(1).await;
    let view = world.new_view();
    let ino = large(&world, view, "large").await;
    assert_eq!(world.truncate(view, ino, 3 * BUCKET).await, 3);
    assert_eq!(world.bytes(view), 3);
    // A lonely byte far out costs no step for the hole before it.
    world.dot(view, ino, &[1 << 42]).await;
    assert_eq!(world.truncate(view, ino, 0).await, 1);
    assert_eq!(world.bytes(view), 0);
    world.flush().await;
    world.check_counts().await;
}

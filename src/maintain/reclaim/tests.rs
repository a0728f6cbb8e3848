//! Goal: what nothing names goes, and nothing else, each thing after its own grace. Method: a store in
//! memory, a clock that stands still, and rounds one by one.

use std::time::Duration;

use super::Reclaim;
use crate::image::CloneTarget;
use crate::maintain::fsck::tests::world::{A, F, World};
use crate::maintain::worker::Worker;
use crate::meta::Durability;
use crate::overlay::OverlayId;

const GRACE: Duration = Duration::from_secs(120);

fn reclaim(world: &World) -> Reclaim {
    Reclaim::new(world.catalog.clone(), world.store().clone(), world.env.clone(), GRACE)
}

/// The overlays that a round at this moment would purge.
fn dead(reclaim: &mut Reclaim, world: &World) -> Vec<OverlayId> {
    let (now, ids) = (world.env.clock.uptime(), world.store().ids());
    reclaim.dead(now, &ids, &world.catalog.state().overlay_roots())
}

async fn step(reclaim: &mut Reclaim) {
    reclaim.step().await.unwrap();
}

/// A clone's first write comes between the look for overlays without a name and the purge.
#[tokio::test]
async fn an_overlay_that_is_made_while_others_are_purged_stays() {
    let mut world = World::new().await;
    world.new_clone("gone").await;
    world.write("gone", A, 0, b"gone").await;
    let (gone, mut reclaim) = (world.top("gone"), reclaim(&world));
    world.fleet().remove_clones(CloneTarget::Names(vec!["gone".into()])).await.unwrap();
    assert_eq!(dead(&mut reclaim, &world), []);
    world.clock.advance(GRACE);
    let dead = dead(&mut reclaim, &world);
    assert_eq!(dead, [gone]);
    world.new_clone("late").await;
    world.write("late", A, 0, b"late").await;
    world.write("desk", F, 0, b"desk").await;
    reclaim.purge(&dead).await.unwrap();
    assert_eq!(world.store().position(gone), 0);
    for _ in 0..2 {
        assert!(world.read("late", A).await.starts_with(b"late") && world.read("desk", F).await.starts_with(b"desk"));
        world.assert_clean().await;
        world.restart().await;
    }
}

/// The catalog has the last word, whatever was found before.
#[tokio::test]
async fn an_overlay_that_the_newest_catalog_names_is_not_purged() {
    let world = World::new().await;
    world.write("desk", A, 0, b"desk").await;
    reclaim(&world).purge(&[world.top("desk")]).await.unwrap();
    assert!(world.read("desk", A).await.starts_with(b"desk"));
}

/// A purge leaves nothing of what was in memory only.
#[tokio::test]
async fn what_was_not_flushed_goes_with_its_overlay() {
    let mut world = World::new().await;
    world.write("desk", A, 0, b"desk").await;
    let mut reclaim = reclaim(&world);
    world.fleet().remove_clones(CloneTarget::Names(vec!["desk".into()])).await.unwrap();
    step(&mut reclaim).await;
    world.clock.advance(GRACE);
    step(&mut reclaim).await;
    world.store().flush(Durability::Synced).await.unwrap();
    assert_eq!((world.count_rows("overlays"), world.count_rows("heads")), (0, 0));
    world.crash().await;
    assert_eq!(world.store().ids(), []);
}

/// A snapshot every minute, the last three kept: the older versions stay as few as the snapshots.
#[tokio::test]
async fn histories_are_cleaned_although_marks_change_all_the_time() {
    let world = World::new().await;
    let mut reclaim = reclaim(&world);
    for minute in 0..20u8 {
        world.write("desk", A, 0, &[minute; 50]).await;
        world.snapshot("desk", &format!("s{minute}")).await;
        if let Some(old) = minute.checked_sub(3) {
            world.remove_snapshot("desk", &format!("s{old}")).await;
        }
        world.store().flush(Durability::Buffered).await.unwrap();
        step(&mut reclaim).await;
        world.clock.advance(Duration::from_secs(60));
    }
    // A node and a bucket for each of three snapshots, and of two more within their grace.
    assert!(world.count_rows("history") <= 2 * 5, "{} rows", world.count_rows("history"));
    world.assert_clean().await;
}

/// What was shown until a moment ago may still be read; what was lost before it goes.
#[tokio::test]
async fn each_lost_mark_has_its_own_grace() {
    let world = World::new().await;
    let mut reclaim = reclaim(&world);
    for name in ["first", "second"] {
        world.write("desk", A, 0, name.as_bytes()).await;
        world.snapshot("desk", name).await;
    }
    world.write("desk", A, 0, b"third").await;
    world.store().flush(Durability::Buffered).await.unwrap();
    step(&mut reclaim).await;
    world.clock.advance(GRACE);
    step(&mut reclaim).await;
    let rows = world.count_rows("history");
    world.remove_snapshot("desk", "first").await;
    step(&mut reclaim).await;
    world.clock.advance(GRACE / 2);
    world.remove_snapshot("desk", "second").await;
    step(&mut reclaim).await;
    assert_eq!(world.count_rows("history"), rows);
    world.clock.advance(GRACE / 2);
    step(&mut reclaim).await;
    assert_eq!(world.count_rows("history"), rows / 2, "the first one's grace is over, not the second one's");
    world.clock.advance(GRACE / 2);
    step(&mut reclaim).await;
    assert_eq!(world.count_rows("history"), 0);
}

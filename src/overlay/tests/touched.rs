//! Goal: what overlays keep in memory of which objects they have is bounded over all of them, and always
//! right. Method: many objects, the count, and views that must show the same before and after.

use super::world::World;
use crate::overlay::touched::{MAX_KNOWN, Touched};

/// Numbers that all overlays of the store keep, counted one by one.
fn known(world: &World) -> usize {
    let has = |overlay: &std::sync::Arc<crate::overlay::state::Overlay>| {
        let state = overlay.lock();
        let known = matches!(state.touched, Touched::Known(_));
        (0..5000).filter(|ino| known && state.may_have(crate::manifest::Ino(*ino))).count()
    };
    world.store().all().iter().map(has).sum()
}

fn is_unread(world: &World, id: crate::overlay::OverlayId) -> bool {
    matches!(world.store().find(id).unwrap().lock().touched, Touched::Unread)
}

#[tokio::test]
async fn numbers_are_let_go_beyond_a_budget_of_the_store() {
    let mut world = World::new(1).await;
    let views: Vec<_> = (0..20).map(|_| world.new_view()).collect();
    let mut models = vec![world.base_model(); views.len()];
    for n in 0..30 {
        for (view, model) in views.iter().zip(&mut models) {
            let name = format!("n{n}");
            let ino = world.create(*view, &name).await;
            model.create(&name, ino);
        }
    }
    // Each has its root and its files.
    assert_eq!((known(&world), world.store().known.get()), (20 * 31, 20 * 31));
    world.store().trim_known(100);
    assert_eq!(known(&world), 20 * 31, "nothing is in the index yet");
    world.flush().await;
    world.store().trim_known(100);
    assert!(known(&world) <= 100 && known(&world) == world.store().known.get());
    for (view, model) in views.iter().zip(&models) {
        assert_eq!(world.seen(*view).await, model.seen());
    }
    assert_eq!(known(&world), 20 * 31, "read again");
    world.restart(100).await;
    assert_eq!(world.store().known.get(), 0);
    for (view, model) in views.iter().zip(&models) {
        assert_eq!(world.seen(*view).await, model.seen());
    }
    world.keep_only(&[]).await;
    assert_eq!(world.store().known.get(), 0, "purged overlays count no more");
}

#[tokio::test]
async fn numbers_that_nobody_wants_go_first() {
    let mut world = World::new(2).await;
    let (quiet, busy) = (world.new_view(), world.new_view());
    for view in [quiet, busy] {
        world.create(view, "new").await;
    }
    world.flush().await;
    world.store().trim_known(4);
    assert!(!is_unread(&world, world.top(quiet)) && !is_unread(&world, world.top(busy)), "within the budget");
    // Once around: wanted ones are spared until all were asked.
    world.store().all().iter().for_each(|overlay| overlay.lock().let_go_touched(false));
    world.seen(busy).await;
    world.store().trim_known(2);
    assert!(is_unread(&world, world.top(quiet)) && !is_unread(&world, world.top(busy)));
}

/// After a crash an overlay is read while what was replayed into memory is on its way to the index.
#[tokio::test]
async fn what_is_flushed_while_an_overlay_is_read_is_not_missed() {
    let mut world = World::new(3).await;
    let view = world.new_view();
    world.create(view, "old").await;
    world.store().flush(crate::meta::Durability::Synced).await.unwrap();
    let new = world.create(view, "new").await;
    world.sync().await;
    world.restart(0).await;
    let overlay = world.store().find(world.top(view)).unwrap();
    let replayed = overlay.lock().inodes_in_memory();
    let read = world.store().index.inodes(overlay.id, MAX_KNOWN).unwrap().unwrap();
    assert!(!read.contains(&new.0) && replayed.contains(&new.0));
    world.flush().await;
    overlay.lock().set_touched(world.store().known.known(read.into_iter().chain(replayed)), false);
    assert!(world.seen(view).await.files.contains_key("new"));
}

//! Goal: the private state of a stack of layers is what a tree of them shows, all of it and nothing that
//! came later. Method: stacks of several layers that were written further, each number and name asked for
//! by itself.

use super::world::{ViewId, World};
use crate::manifest::Ino;
use crate::overlay::changes::{PrivateName, PrivateObject};

/// More than some pages of rows.
const MANY: usize = 700;

async fn check(world: &World, view: ViewId) -> (Vec<PrivateObject>, Vec<PrivateName>) {
    let private = world.store().private(world.sealed(view)).await.unwrap();
    let objects: Vec<_> = private.objects().map(Result::unwrap).collect();
    let names: Vec<_> = private.names().map(Result::unwrap).collect();
    assert!(objects.is_sorted_by_key(|object| object.ino));
    assert!(names.is_sorted_by_key(|name| (name.dir, name.cookie)));
    let told: Vec<_> = objects.iter().map(|object| (object.ino, object.node.clone())).collect();
    assert_eq!(told, world.private_objects(view).await);
    for name in &names {
        assert_eq!(world.entry_at(view, name.dir, name.cookie).await, name.entry);
    }
    assert_eq!(private.names_of(Ino::ROOT).map(Result::unwrap).collect::<Vec<_>>(), names, "there is no other");
    assert_eq!(private.names_of(Ino(2)).count(), 0);
    (objects, names)
}

#[tokio::test(flavor = "multi_thread")]
async fn private_state_is_merged_over_layers_as_of_their_positions() {
    let mut world = World::new(1).await;
    let view = world.new_view();
    let names: Vec<String> = (0..MANY).map(|n| format!("name {n}")).collect();
    world.create_all(view, &names).await;
    world.write(view, Ino(11), 10, b"lower").await;
    let lower = world.snapshot(view).await;
    // What comes after the position, by the same overlay.
    world.remove_all(view, &names[..300]).await;
    world.write(view, Ino(11), 60_000, b"later").await;
    world.write(view, Ino(12), 0, b"later").await;
    let middle = world.fork(lower);
    world.remove_all(middle, &names[100..200]).await;
    world.write(middle, Ino(11), 12, b"middle").await;
    world.remove(middle, "a").await;
    let middle = world.snapshot(middle).await;
    let upper = world.fork(middle);
    world.truncate(upper, Ino(11), 13).await;
    world.create(upper, "name 150").await;
    let upper = world.snapshot(upper).await;

    for restarted in [false, true] {
        if restarted {
            world.restart(1).await;
        }
        let (objects, names) = check(&world, lower).await;
        // The root, b, and what was made.
        assert_eq!((objects.len(), names.len()), (MANY + 2, MANY));
        let (objects, _) = check(&world, middle).await;
        let b = objects.iter().find(|object| object.ino == Ino(11)).unwrap();
        assert_eq!((b.bytes_private, b.shows_image_upto), (11, 70_000), "each layer's own");
        let (objects, names) = check(&world, upper).await;
        let gone = |ino| objects.iter().find(|object| object.ino == ino).is_some_and(|object| object.node.is_none());
        assert!(gone(Ino(10)));
        assert_eq!(objects.iter().filter(|object| object.node.is_none()).count(), 101);
        assert_eq!(names.iter().filter(|name| name.entry.is_none()).count(), 100);
        let b = objects.iter().find(|object| object.ino == Ino(11)).unwrap();
        assert_eq!((b.bytes_private, b.shows_image_upto), (11, 13));
    }
    assert_eq!(world.store().private(&[]).await.unwrap().objects().count(), 0);
}

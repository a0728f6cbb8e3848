//! A switch as a reader sees it: old handles, new lookups, listings that run across, restarts.

use std::collections::BTreeSet;
use std::fs;

use mimeo::image::CloneTarget;
use mimeo::vfs::{Refusal, Vfs};

use crate::world::{World, noise, write};

/// An image of two versions that differ in `changed`, `gone` and `fresh`, with one clone on v1.
async fn two_versions(world: &World) -> mimeo::vfs::Object {
    let source = world.source("src");
    write(&source, "same", noise(1, 200_000));
    write(&source, "changed", noise(2, 200_000));
    write(&source, "gone", b"gone");
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "desk").await;
    write(&source, "changed", noise(3, 150_000));
    fs::remove_file(source.join("gone")).unwrap();
    write(&source, "fresh", b"fresh");
    world.import("img", &source).await.unwrap();
    root
}

#[tokio::test(flavor = "multi_thread")]
async fn old_handles_read_old_bytes_new_lookups_new_ones_and_back() {
    let world = World::new().await;
    let root = two_versions(&world).await;
    let (same, changed, gone) = (
        world.find(root, "same").await.unwrap(),
        world.find(root, "changed").await.unwrap(),
        world.find(root, "gone").await.unwrap(),
    );
    let before = world.attr(same).await.unwrap();
    let root_before = world.attr(root).await.unwrap();

    world.repoint("img", 2).await;
    assert_eq!(world.find(root, "same").await.unwrap(), same);
    assert_eq!(world.attr(same).await.unwrap(), before, "an unchanged file is served bit for bit as before");
    assert!(world.read(changed).await.unwrap() == noise(2, 200_000), "the old handle means the old bytes");
    let now = world.find(root, "changed").await.unwrap();
    assert_ne!(now, changed);
    assert!(world.read(now).await.unwrap() == noise(3, 150_000));
    assert_eq!(world.read(gone).await.unwrap(), b"gone");
    assert_eq!(world.find(root, "gone").await.unwrap_err().why, Refusal::NotFound);
    assert!(world.attr(root).await.unwrap().ctime > root_before.ctime, "directories show the switch");

    world.repoint("img", 1).await;
    assert_eq!(world.find(root, "changed").await.unwrap(), changed);
    assert!(world.read(now).await.unwrap() == noise(3, 150_000), "the other version's handle lives on in a pin");
    let clone = world.catalog.state().clone_named("desk").unwrap().clone();
    assert_eq!((clone.view.number, clone.pins.len()), (3, 1), "back and forth leaves one pin");
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_outlive_a_restart() {
    let world = World::new().await;
    let root = two_versions(&world).await;
    let changed = world.find(root, "changed").await.unwrap();
    world.repoint("img", 2).await;
    let keys = world.vfs.handle_keys();
    let world = world.restart().await;
    assert_eq!(world.vfs.handle_keys(), keys);
    assert!(world.read(changed).await.unwrap() == noise(2, 200_000));
    assert_eq!(world.read_path(root, "fresh").await, b"fresh");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_across_a_switch_has_each_unchanged_entry_exactly_once() {
    let world = World::new().await;
    let source = world.source("src");
    (0..2000).for_each(|i| write(&source, &format!("dir/keep{i}"), b"k"));
    (0..500).for_each(|i| write(&source, &format!("dir/old{i}"), b"o"));
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "desk").await;
    (0..500).for_each(|i| fs::remove_file(source.join(format!("dir/old{i}"))).unwrap());
    (0..700).for_each(|i| write(&source, &format!("dir/new{i}"), b"n"));
    world.import("img", &source).await.unwrap();
    let dir = world.find(root, "dir").await.unwrap();
    let (mut after, mut seen, mut round) = (0, Vec::new(), 0);
    loop {
        let (entries, eof) = world.list(dir, after, 3000).await;
        after = entries.last().map_or(after, |(_, cookie)| *cookie);
        seen.extend(entries.into_iter().map(|(name, _)| name));
        if eof {
            break;
        }
        world.repoint("img", 1 + round % 2).await;
        round += 1;
    }
    assert!(round > 20, "the listing did not run across switches");
    let kept: Vec<_> = seen.iter().filter(|name| name.starts_with(b"keep")).collect();
    assert_eq!(kept.len(), 2000, "complete, and nothing twice");
    assert_eq!(kept.iter().collect::<BTreeSet<_>>().len(), 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_clone_is_stale_and_its_name_gives_another_export() {
    let world = World::new().await;
    let root = two_versions(&world).await;
    world.fleet.remove_clones(CloneTarget::Names(vec!["desk".into()])).await.unwrap();
    assert_eq!(world.attr(root).await.unwrap_err().why, Refusal::Stale);
    let again = world.clone_of("img", "desk").await;
    assert_ne!(again.export, root.export);
    assert_eq!(world.attr(root).await.unwrap_err().why, Refusal::Stale);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_asked_on_every_request() {
    let world = World::new().await;
    let root = two_versions(&world).await;
    let stranger = mimeo::vfs::Caller {
        peer: "10.1.2.3:700".parse().unwrap(),
        anonymous: false,
        uid: 0,
        gid: 0,
        groups: Default::default(),
    };
    let mut rq = world.vfs.begin(&stranger);
    let refused = world.vfs.getattr(&mut rq, root).unwrap().unwrap_err();
    assert_eq!(refused.why, Refusal::Access);
    assert!(refused.attr.is_none(), "a stranger learns nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_has_one_set_of_attributes_whichever_way_it_is_reached() {
    let world = World::new().await;
    let source = world.source("src");
    write(&source, "gone/file", b"x");
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "desk").await;
    let gone = world.find(root, "gone").await.unwrap();
    fs::remove_dir_all(source.join("gone")).unwrap();
    write(&source, "other", b"y");
    world.import("img", &source).await.unwrap();
    world.repoint("img", 2).await;
    let up = world.run(|vfs, rq| vfs.lookup(rq, gone, b"..")).await.unwrap();
    assert_eq!(up.object, root);
    assert_eq!(up.attr, world.attr(root).await.unwrap());
}

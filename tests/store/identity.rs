//! Identity over re-import: which objects keep number, handle and ctime (docs/semantics.md).

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;

use mimeo::vfs::{Attr, Object};

use crate::world::{World, chmod, noise, write};

/// Import `source` as the next version and give (object, attributes) of each path in it.
async fn import_and_look(world: &World, source: &std::path::Path, paths: &[&str]) -> HashMap<String, (Object, Attr)> {
    let done = world.import("img", source).await.unwrap();
    let root = world.root(&format!("/images/img@v{}", done.version.number)).await;
    let mut seen = HashMap::new();
    for path in paths {
        if let Ok(object) = world.find(root, path).await {
            seen.insert((*path).to_string(), (object, world.attr(object).await.unwrap()));
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_keeps_number_and_ctime_changed_does_not() {
    let world = World::new().await;
    let source = world.source("src");
    write(&source, "dir/same", noise(1, 100_000));
    write(&source, "dir/data", b"old");
    write(&source, "dir/mode", b"mode");
    write(&source, "quiet/file", b"quiet");
    write(&source, "kind", b"a file");
    symlink("a", source.join("link")).unwrap();
    let paths = ["", "dir", "dir/same", "dir/data", "dir/mode", "quiet", "quiet/file", "kind", "link"];
    let v1 = import_and_look(&world, &source, &paths).await;

    write(&source, "dir/data", b"new");
    chmod(&source, "dir/mode", 0o600);
    fs::remove_file(source.join("kind")).unwrap();
    symlink("x", source.join("kind")).unwrap();
    fs::remove_file(source.join("link")).unwrap();
    symlink("b", source.join("link")).unwrap();
    let v2 = import_and_look(&world, &source, &paths).await;

    for path in ["", "dir", "dir/same", "dir/mode", "quiet", "quiet/file"] {
        assert_eq!(v1[path].0.ino, v2[path].0.ino, "{path} keeps its number");
    }
    for path in ["dir/data", "kind", "link"] {
        assert_ne!(v1[path].0.ino, v2[path].0.ino, "{path} gets a new number");
    }
    for path in ["dir/same", "quiet", "quiet/file"] {
        assert_eq!(v1[path].1.ctime, v2[path].1.ctime, "{path} did not change");
    }
    for path in ["dir", "dir/mode", ""] {
        assert!(v1[path].1.ctime < v2[path].1.ctime, "{path} changed");
    }
    assert!(v1[""].0.ino == 1 && v2[""].0.ino == 1, "the root is 1 everywhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_is_a_new_number_and_a_directory_keeps_its_own_by_path() {
    let world = World::new().await;
    let source = world.source("src");
    write(&source, "before/file", b"x");
    write(&source, "stays/file", b"y");
    let v1 = import_and_look(&world, &source, &["before/file", "stays"]).await;
    fs::rename(source.join("before"), source.join("after")).unwrap();
    fs::remove_dir_all(source.join("stays")).unwrap();
    write(&source, "stays/other", b"z");
    let v2 = import_and_look(&world, &source, &["after/file", "stays"]).await;
    assert_ne!(v1["before/file"].0.ino, v2["after/file"].0.ino);
    assert_eq!(v1["stays"].0.ino, v2["stays"].0.ino);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_link_set_that_splits_the_first_path_keeps_the_number() {
    let world = World::new().await;
    let source = world.source("src");
    write(&source, "b", b"data");
    fs::hard_link(source.join("b"), source.join("a")).unwrap();
    fs::hard_link(source.join("b"), source.join("c")).unwrap();
    let paths = ["a", "b", "c"];
    let v1 = import_and_look(&world, &source, &paths).await;
    assert_eq!(v1["a"].1.nlink, 3);
    // a and c stay together, b is on its own with the same data.
    fs::remove_file(source.join("b")).unwrap();
    write(&source, "b", b"data");
    let v2 = import_and_look(&world, &source, &paths).await;
    assert_eq!(v2["a"].0.ino, v1["a"].0.ino);
    assert_eq!(v2["c"].0.ino, v1["a"].0.ino);
    assert_ne!(v2["b"].0.ino, v1["a"].0.ino);
    assert_eq!((v2["a"].1.nlink, v2["b"].1.nlink), (2, 1));
    assert!(v2["a"].1.ctime > v1["a"].1.ctime, "the link count changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_objects_that_join_the_first_path_gives_the_number() {
    let world = World::new().await;
    let source = world.source("src");
    write(&source, "m", b"data");
    write(&source, "n", b"data");
    let v1 = import_and_look(&world, &source, &["m", "n"]).await;
    fs::remove_file(source.join("n")).unwrap();
    fs::hard_link(source.join("m"), source.join("n")).unwrap();
    // A new path that sorts before both has no number to give: m's is kept.
    fs::hard_link(source.join("m"), source.join("a")).unwrap();
    let v2 = import_and_look(&world, &source, &["a", "m", "n"]).await;
    for path in ["a", "m", "n"] {
        assert_eq!(v2[path].0.ino, v1["m"].0.ino, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_source_adds_next_to_nothing_and_changes_no_ctime() {
    let world = World::new().await;
    let source = world.source("src");
    (0..500).for_each(|i| write(&source, &format!("d{}/f{i}", i % 7), noise(i, 3000)));
    let paths = ["", "d0", "d0/f0", "d3/f3"];
    let v1 = import_and_look(&world, &source, &paths).await;
    let done = world.import("img", &source).await.unwrap();
    assert_eq!(done.version.bytes_added, 0);
    assert_eq!(done.kept, done.stats.inodes - 1, "all but the root, which is not counted");
    let v3 = import_and_look(&world, &source, &paths).await;
    for path in paths {
        let (old, new) = (v1[path].1, v3[path].1);
        assert_eq!(Attr { fsid: 0, ..old }, Attr { fsid: 0, ..new }, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_keep_their_cookies() {
    let world = World::new().await;
    let source = world.source("src");
    (0..300).for_each(|i| write(&source, &format!("f{i}"), b"x"));
    world.import("img", &source).await.unwrap();
    let v1: HashMap<_, _> = world.list(world.root("/images/img@v1").await, 0, u32::MAX).await.0.into_iter().collect();
    (0..300).step_by(3).for_each(|i| fs::remove_file(source.join(format!("f{i}"))).unwrap());
    (300..400).for_each(|i| write(&source, &format!("f{i}"), b"x"));
    world.import("img", &source).await.unwrap();
    let v2: HashMap<_, _> = world.list(world.root("/images/img@v2").await, 0, u32::MAX).await.0.into_iter().collect();
    let common: Vec<_> = v2.keys().filter(|name| v1.contains_key(*name)).collect();
    assert_eq!(common.len(), 200);
    common.iter().for_each(|name| assert_eq!(v1[*name], v2[*name]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_removed_by_name_still_gives_its_numbers_while_clones_show_it() {
    let world = World::new().await;
    let source = world.source("src");
    write(&source, "file", b"same");
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "c").await;
    let before = world.find(root, "file").await.unwrap();
    let ctime = world.attr(before).await.unwrap().ctime;
    world.catalog.remove_version(mimeo::image::VersionRef::number("img", 1)).await.unwrap();
    world.import("img", &source).await.unwrap();
    world.repoint("img", 2).await;
    assert_eq!(world.find(root, "file").await.unwrap(), before);
    assert_eq!(world.attr(before).await.unwrap().ctime, ctime);
}

//! Promotion: the version is what the clone showed, and keeps of its base what the rules say.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use mimeo::error::ErrorKind;
use mimeo::image::import::{ImportDone, Progress};
use mimeo::image::promote::{PromoteRequest, run_promote};
use mimeo::image::{CloneTarget, Labels, NewSnapshot, OnConflict, RepointPlan, SwitchPolicy, VersionRef};
use mimeo::manifest::FileKind;
use mimeo::vfs::{Attr, CreateHow, NewAttr, NewObject, Object, Place, Vfs};

use crate::world::{World, noise, write};

/// Three sections of an import, the last one short.
const DISK: usize = 40 << 20;

fn request(source: &str, image: &str) -> PromoteRequest {
    let labels = Labels::parse(["from=clone"]).unwrap();
    PromoteRequest { source: source.parse().unwrap(), image: image.into(), labels, author: "me".into() }
}

async fn promote(world: &World, source: &str, image: &str) -> ImportDone {
    let progress = Arc::new(Progress::default());
    run_promote(&world.import_context(), &world.fleet, request(source, image), progress).await.unwrap()
}

/// An image with all sorts of objects, and a clone of it.
async fn world() -> (World, Object) {
    let world = World::new().await;
    let source = world.source("src");
    write(&source, "dir/same", noise(1, 200_000));
    write(&source, "dir/mode", b"mode");
    write(&source, "dir/moved", b"moved");
    write(&source, "dir/cut", noise(2, 100_000));
    write(&source, "disk.img", noise(3, DISK));
    write(&source, "gone", b"gone");
    write(&source, "quiet/file", b"quiet");
    fs::hard_link(source.join("dir/same"), source.join("dir/twin")).unwrap();
    symlink("dir/same", source.join("link")).unwrap();
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "desk").await;
    (world, root)
}

async fn put(world: &World, file: Object, offset: u64, data: &[u8]) {
    world.run(|vfs, rq| vfs.write(rq, file, offset, data, false)).await.unwrap();
}

async fn create(world: &World, dir: Object, name: &str) -> Object {
    let place = Place { dir, name: name.as_bytes() };
    let how = CreateHow::Guarded(NewAttr { mode: Some(0o640), ..NewAttr::default() });
    world.run(|vfs, rq| vfs.create(rq, place, how)).await.unwrap().object.unwrap().0
}

async fn resize(world: &World, file: Object, size: u64) {
    let new = NewAttr { size: Some(size), ..NewAttr::default() };
    world.run(|vfs, rq| vfs.setattr(rq, file, new, None)).await.unwrap();
}

/// One of each change.
async fn change(world: &World, root: Object) {
    let at = |dir, name: &'static str| Place { dir, name: name.as_bytes() };
    let dir = world.find(root, "dir").await.unwrap();
    put(world, world.find(root, "disk.img").await.unwrap(), 20 << 20, &noise(9, 4096)).await;
    resize(world, world.find(root, "dir/cut").await.unwrap(), 5000).await;
    let mode = world.find(root, "dir/mode").await.unwrap();
    let new = NewAttr { mode: Some(0o600), ..NewAttr::default() };
    world.run(|vfs, rq| vfs.setattr(rq, mode, new, None)).await.unwrap();
    world.run(|vfs, rq| vfs.rename(rq, at(dir, "moved"), at(root, "there"))).await.unwrap();
    world.run(|vfs, rq| vfs.remove(rq, at(root, "gone"))).await.unwrap();
    let same = world.find(root, "dir/same").await.unwrap();
    world.run(|vfs, rq| vfs.link(rq, same, at(root, "triplet"))).await.unwrap();
    let make = |what| world.run(move |vfs, rq| vfs.make(rq, at(root, "made"), what, NewAttr::default()));
    let made = make(NewObject::Directory).await.unwrap().object.unwrap().0;
    put(world, create(world, made, "new").await, 100_000, b"behind a hole").await;
    resize(world, create(world, made, "sparse").await, 64 << 30).await;
    let link = NewObject::Symlink(b"made/new");
    world.run(|vfs, rq| vfs.make(rq, at(made, "link"), link, NewAttr::default())).await.unwrap();
    let pipe = NewObject::Fifo;
    world.run(|vfs, rq| vfs.make(rq, at(made, "pipe"), pipe, NewAttr::default())).await.unwrap();
}

/// Every path with its object, its attributes, and what it holds; of the sparse file the size is enough.
async fn tree(world: &World, root: Object) -> BTreeMap<String, (Object, Attr, Vec<u8>)> {
    let (mut seen, mut left) = (BTreeMap::new(), vec![(String::new(), root)]);
    while let Some((path, object)) = left.pop() {
        let attr = world.attr(object).await.unwrap();
        let mut data = Vec::new();
        match attr.kind {
            FileKind::Directory => {
                for name in world.names(object).await {
                    let name = String::from_utf8(name).unwrap();
                    let below = world.find(object, &name).await.unwrap();
                    left.push((format!("{path}/{name}"), below));
                }
            }
            FileKind::Regular if attr.size < 1 << 30 => data = world.read(object).await.unwrap(),
            FileKind::Symlink => {
                data = world.run(|vfs, rq| vfs.readlink(rq, object)).await.unwrap().target.to_vec();
            }
            _ => {}
        }
        seen.insert(path, (object, attr, data));
    }
    seen
}

/// What must be the same in the clone and in the version; sizes of directories are their server's.
fn visible(attr: &Attr) -> (FileKind, u32, u32, u32, u32, u64, mimeo::env::Time) {
    let size = if attr.kind == FileKind::Directory { 0 } else { attr.size };
    (attr.kind, attr.mode, attr.nlink, attr.uid, attr.gid, size, attr.mtime)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_version_is_what_the_clone_showed() {
    let (world, root) = world().await;
    let image = world.root("/images/img@v1").await;
    let before = tree(&world, image).await;
    change(&world, root).await;
    let clone = tree(&world, root).await;
    let done = promote(&world, "desk", "img").await;
    assert_eq!((done.version.number, done.version.consistency.as_str()), (2, "crash"));
    assert_eq!((done.version.source.as_str(), done.version.labels.get("from")), ("clone desk", Some("clone")));
    assert!(done.version.bytes_added < 24 << 20, "a section of the disk: {}", done.version.bytes_added);
    let promoted = tree(&world, world.root("/images/img@v2").await).await;
    assert!(clone.keys().eq(promoted.keys()), "{:?}", promoted.keys());
    for (path, (_, attr, data)) in &clone {
        assert!(promoted[path].2 == *data, "{path} holds something else");
        assert_eq!(visible(&promoted[path].1), visible(attr), "{path}");
    }
    let ino = |tree: &BTreeMap<String, (Object, Attr, Vec<u8>)>, path: &str| tree[path].0.ino;
    for path in ["", "/dir", "/dir/same", "/dir/twin", "/dir/mode", "/quiet", "/quiet/file", "/link"] {
        assert_eq!(ino(&promoted, path), ino(&before, path), "{path} keeps its number");
    }
    for path in ["/disk.img", "/dir/cut", "/made/new", "/made/sparse"] {
        assert_ne!(ino(&promoted, path), ino(&clone, path), "{path} has private data");
    }
    assert_eq!(ino(&promoted, "/triplet"), ino(&promoted, "/dir/same"));
    assert_eq!(promoted["/quiet"].1.ctime, before["/quiet"].1.ctime, "nothing changed there");
    assert_eq!(world.catalog.state().snapshot_count(), 0, "the hold is gone");
    // The clone goes on with what is its own, and a clone of the version is another.
    put(&world, clone["/made/new"].0, 0, b"later").await;
    assert!(world.read(promoted["/made/new"].0).await.unwrap() == clone["/made/new"].2);
    let copy = world.clone_of("img", "copy").await;
    assert!(world.read_path(copy, "disk.img").await == clone["/disk.img"].2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_becomes_a_version_of_another_image() {
    let (world, root) = world().await;
    let file = world.find(root, "dir/mode").await.unwrap();
    put(&world, file, 0, b"then").await;
    let target = CloneTarget::Names(vec!["desk".into()]);
    let new = NewSnapshot { target, name: "s".into(), labels: Labels::default() };
    world.fleet.snapshot(new).await.unwrap();
    put(&world, file, 0, b"now.").await;
    let done = promote(&world, "desk@s", "other").await;
    assert_eq!((done.image.as_str(), done.version.number, done.kept), ("other", 1, 0));
    assert_eq!(done.version.source, "clone desk@s");
    assert_eq!(world.catalog.state().snapshot_count(), 1, "the snapshot stays, the hold does not");
    world.fleet.remove_clones(CloneTarget::Names(vec!["desk".into()])).await.unwrap();
    world.catalog.remove_image("img").await.unwrap();
    let copy = world.clone_of("other", "copy").await;
    assert_eq!(world.read_path(copy, "dir/mode").await, b"then");
    assert!(world.read_path(copy, "dir/same").await == noise(1, 200_000));
    assert_ne!(world.find(copy, "dir/same").await.unwrap().ino, file.ino);
}

/// A disk that was kept over a version that has another one is still a disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_disk_is_promoted_as_a_disk() {
    let world = World::new().await;
    let source = world.source("src");
    let mut disk = noise(4, 2 << 20);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    write(&source, "vm", &disk);
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "desk").await;
    put(&world, world.find(root, "vm").await.unwrap(), 510, &[0, 0]).await;
    disk[1 << 20] ^= 1;
    write(&source, "vm", &disk);
    world.import("img", &source).await.unwrap();
    let plan = |clone: &str, number| {
        let policy = SwitchPolicy { conflict: Some(OnConflict::CloneWins), ..SwitchPolicy::default() };
        let target = CloneTarget::Names(vec![clone.into()]);
        RepointPlan::new("img", VersionRef::number("img", number), target).with(policy)
    };
    world.fleet.repoint(plan("desk", 2)).await.unwrap();
    let kept = world.read_path(root, "vm").await;
    promote(&world, "desk", "img").await;
    let copy = world.clone_of("img", "copy").await;
    assert!(world.read_path(copy, "vm").await == kept);
    // A conflict says what is a disk: by its first bytes and its name, this one would be none.
    put(&world, world.find(copy, "vm").await.unwrap(), 0, b"mine").await;
    write(&source, "vm", b"no disk");
    world.import("img", &source).await.unwrap();
    let predicted = world.fleet.predict(&plan("copy", 4)).await.unwrap();
    assert!(predicted.outcome.clones[0].conflicts[0].disk_image);
}

/// What a promotion leaves that did not get to its end: nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_fails_leaves_nothing() {
    let (world, root) = world().await;
    put(&world, world.find(root, "gone").await.unwrap(), 0, b"mine").await;
    let run = async |request, progress: Arc<Progress>| {
        run_promote(&world.import_context(), &world.fleet, request, progress).await.unwrap_err()
    };
    let cancelled = Arc::new(Progress::default());
    cancelled.cancel();
    let error = run(request("desk", "img"), cancelled).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    for (source, image, kind) in [
        ("nope", "img", ErrorKind::NotFound),
        ("desk@nope", "img", ErrorKind::NotFound),
        ("desk", "no/name", ErrorKind::Invalid),
    ] {
        let error = run(request(source, image), Arc::default()).await;
        assert_eq!(error.kind(), kind, "{error}");
    }
    let state = world.catalog.state();
    assert_eq!((state.snapshot_count(), state.images().count(), state.versions().count()), (0, 1, 1));
    assert_eq!(world.read_path(root, "gone").await, b"mine");
}

/// A second promotion over the first: what did not change since keeps its number and its times.
#[tokio::test(flavor = "multi_thread")]
async fn promotions_of_a_clone_of_a_promotion_keep_what_is_the_same() {
    let (world, root) = world().await;
    change(&world, root).await;
    promote(&world, "desk", "img").await;
    let second = world.clone_of("img", "second").await;
    let new = world.find(second, "made/new").await.unwrap();
    put(&world, new, 0, b"again").await;
    promote(&world, "second", "img").await;
    let [v2, v3] = [2, 3].map(|n| format!("/images/img@v{n}"));
    let (v2, v3) = (tree(&world, world.root(&v2).await).await, tree(&world, world.root(&v3).await).await);
    for (path, (object, attr, _)) in &v2 {
        let (now, now_attr, _) = &v3[path];
        match path.as_str() {
            "/made/new" => assert_ne!(now.ino, object.ino),
            "/made" => assert_eq!(now.ino, object.ino),
            _ => assert_eq!((now.ino, now_attr.ctime), (object.ino, attr.ctime), "{path}"),
        }
    }
}

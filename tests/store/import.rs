//! A folder comes out as it went in, and a folder that cannot be imported leaves nothing behind.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};

use mimeo::env::Time;
use mimeo::error::ErrorKind;
use mimeo::vfs::{FileKind, Vfs};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::world::{World, chmod, noise, write};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_object_comes_out_as_it_went_in() {
    let world = World::new().await;
    let source = world.source("src");
    write(&source, "bin/tool", noise(1, 300_000));
    chmod(&source, "bin/tool", 0o4755);
    write(&source, "empty", b"");
    fs::hard_link(source.join("bin/tool"), source.join("tool-too")).unwrap();
    symlink("bin/tool", source.join("link")).unwrap();
    mknodat(CWD, source.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    fs::create_dir(source.join("void")).unwrap();
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "c").await;

    assert_eq!(world.read_path(root, "bin/tool").await, noise(1, 300_000));
    assert_eq!(world.read_path(root, "empty").await, b"");
    let tool = world.attr(world.find(root, "bin/tool").await.unwrap()).await.unwrap();
    let meta = fs::metadata(source.join("bin/tool")).unwrap();
    assert_eq!((tool.mode, tool.uid, tool.gid, tool.nlink), (0o4755, meta.uid(), meta.gid(), 2));
    assert_eq!(tool.mtime, Time::new(meta.mtime(), meta.mtime_nsec() as u32));
    let too = world.find(root, "tool-too").await.unwrap();
    assert_eq!(too, world.find(root, "bin/tool").await.unwrap(), "two names, one object");
    let link = world.find(root, "link").await.unwrap();
    let target = world.run(|vfs, rq| vfs.readlink(rq, link)).await.unwrap();
    assert_eq!((&target.target[..], target.attr.kind), (&b"bin/tool"[..], FileKind::Symlink));
    for (name, kind) in [("fifo", FileKind::Fifo), ("socket", FileKind::Socket), ("void", FileKind::Directory)] {
        assert_eq!(world.attr(world.find(root, name).await.unwrap()).await.unwrap().kind, kind);
    }
    let names = world.names(root).await;
    assert_eq!(names, [&b"bin"[..], b"empty", b"fifo", b"link", b"socket", b"tool-too", b"void"]);
    assert_eq!(world.attr(root).await.unwrap().nlink, 4, "2 and two subdirectories");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new().await;
    let source = world.source("src");
    let name = b"caf\xe9 \x01\xff";
    fs::write(source.join(std::ffi::OsStr::from_bytes(name)), b"x").unwrap();
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "c").await;
    let found = world.run(|vfs, rq| vfs.lookup(rq, root, name)).await.unwrap();
    assert_eq!(world.read(found.object).await.unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_file_reads_back_and_stores_only_its_data() {
    let world = World::new().await;
    let source = world.source("src");
    let file = fs::File::create(source.join("disk.img")).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_all_at(&noise(2, 100_000), 12_345_678_901).unwrap();
    file.write_all_at(&noise(3, 70_000), (1 << 40) - 70_000).unwrap();
    drop(file);
    let done = world.import("img", &source).await.unwrap();
    assert!(done.version.bytes_added < 600_000, "stored {} bytes for 170,000", done.version.bytes_added);
    let root = world.clone_of("img", "c").await;
    let disk = world.find(root, "disk.img").await.unwrap();
    let attr = world.attr(disk).await.unwrap();
    assert_eq!(attr.size, 1 << 40);
    assert!(attr.used < 600_000);
    for (offset, expected) in
        [(12_345_678_901, noise(2, 100_000)), ((1 << 40) - 70_000, noise(3, 70_000)), (1 << 39, vec![0; 200_000])]
    {
        let data = world.run(|vfs, rq| vfs.read(rq, disk, offset, expected.len() as u32)).await.unwrap();
        assert!(data.slices.concat() == expected, "at {offset}");
    }
    // Around the edge of data: zeros before, bytes from there on.
    let edge = world.run(|vfs, rq| vfs.read(rq, disk, 12_345_678_891, 20)).await.unwrap();
    assert_eq!(edge.slices.concat(), [&[0; 10][..], &noise(2, 10)].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_read_by_sections_and_reads_back() {
    let world = World::new().await;
    let source = world.source("src");
    let bytes = noise(4, 50 * 1024 * 1024 + 4321);
    write(&source, "large", &bytes);
    write(&source, "large-too", &bytes);
    let done = world.import("img", &source).await.unwrap();
    assert!(done.version.bytes_added < bytes.len() as u64 * 11 / 10, "equal files are stored once");
    let root = world.clone_of("img", "c").await;
    assert!(world.read_path(root, "large").await == bytes);
    assert!(world.read_path(root, "large-too").await == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_imported_is_named_and_leaves_nothing() {
    let world = World::new().await;
    let missing = world.dir.path().join("nowhere");
    let error = world.import("img", &missing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("nowhere"), "{error}");

    let empty = world.source("empty");
    let error = world.import("img", &empty).await.unwrap_err();
    assert!(error.to_string().contains("is empty"), "{error}");

    write(world.dir.path(), "file", b"x");
    let error = world.import("img", &world.dir.path().join("file")).await.unwrap_err();
    assert!(error.to_string().contains("not a folder"), "{error}");

    let fine = world.source("fine");
    write(&fine, "x", b"x");
    let error = world.import("no/slash", &fine).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(world.catalog.state().images().count(), 0);
    assert_eq!(world.chunks.usage().unwrap().packs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_changes_while_it_is_read_fails_the_import() {
    let world = World::new().await;
    let source = world.source("src");
    write(&source, "a", noise(5, 64 * 1024 * 1024));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (path, stop) = (source.join("a"), stop.clone());
        std::thread::spawn(move || {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                file.write_all_at(b"moved", 7).unwrap();
            }
        })
    };
    let error = world.import("img", &source).await.unwrap_err();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("changed while it was read"), "{error}");
    assert_eq!(world.catalog.state().images().count(), 0);
    assert_eq!(world.chunks.usage().unwrap().packs, 0, "the packs of a failed import go away by themselves");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_image_is_imported_by_one_import_at_a_time() {
    let world = World::new().await;
    let source = world.source("src");
    write(&source, "file", noise(6, 8 * 1024 * 1024));
    let (first, second) = tokio::join!(world.import("img", &source), world.import("img", &source));
    let refused = [first, second].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert_eq!(refused.len(), 1, "one goes on, the other is told at once");
    assert_eq!(refused[0].kind(), ErrorKind::Conflict);
    assert!(refused[0].to_string().contains("is being imported already"), "{}", refused[0]);
    assert_eq!(world.import("img", &source).await.unwrap().version.number, 2, "afterwards it is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_pack_is_healed_by_importing_again() {
    let world = World::new().await;
    let source = world.source("src");
    write(&source, "file", noise(7, 3_000_000));
    world.import("img", &source).await.unwrap();
    let dir = world.stop().await;
    fs::remove_dir_all(dir.path().join("data/packs")).unwrap();
    let world = World::open(dir).await;
    let done = world.import("img", &source).await.unwrap();
    assert!(done.version.bytes_added > 3_000_000, "what was lost is stored again: {}", done.version.bytes_added);
    let root = world.clone_of("img", "c").await;
    assert!(world.read_path(root, "file").await == noise(7, 3_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_come_out_as_they_went_in() {
    let world = World::new().await;
    let source = world.source("src");
    let device = rustix::fs::makedev(7, 300);
    let made = mknodat(CWD, source.join("dev"), FileType::CharacterDevice, Mode::from_raw_mode(0o620), device);
    if made.is_err() {
        println!("skipped: this user may not make device nodes ({made:?})");
        return;
    }
    mknodat(CWD, source.join("blk"), FileType::BlockDevice, Mode::from_raw_mode(0o660), device).unwrap();
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "c").await;
    for (name, kind) in [("dev", FileKind::Char), ("blk", FileKind::Block)] {
        let attr = world.attr(world.find(root, name).await.unwrap()).await.unwrap();
        assert_eq!((attr.kind, attr.rdev), (kind, (7, 300)));
    }
}

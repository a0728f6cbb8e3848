//! The contract of `Disk`: real filesystem and simulated disk.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use mimeo::env::{Disk, RealDisk, SimDisk, create_dir_durably};

/// Everything that the users of a disk rely on, below the empty directory `root`.
fn contract(disk: &dyn Disk, root: &Path) {
    files_grow_and_are_read_at_offsets(disk, root);
    parts_are_appended_in_order(disk, root);
    names_are_created_renamed_and_removed(disk, root);
    directories_are_made_listed_and_synced(disk, root);
    errors_tell_kinds_apart(disk, root);
    let space = disk.space(root).unwrap();
    assert!(space.free > 0 && space.free <= space.total, "{space:?}");
}

fn files_grow_and_are_read_at_offsets(disk: &dyn Disk, root: &Path) {
    let path = root.join("grows");
    let file = disk.create(&path).unwrap();
    assert!(file.is_empty().unwrap());
    file.append(b"hello ").unwrap();
    file.append(b"").unwrap();
    file.append(b"world").unwrap();
    file.sync().unwrap();
    assert_eq!(file.len().unwrap(), 11);

    let again = disk.open(&path).unwrap();
    again.append(b"!").unwrap();
    let mut buf = [0; 6];
    file.read_at(&mut buf, 6).unwrap();
    assert_eq!(&buf, b"world!", "what one handle appends another one reads");
    file.read_at(&mut [], 12).unwrap();
    for offset in [7, 12, 1 << 40] {
        assert_eq!(file.read_at(&mut buf, offset).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
    disk.unlink(&path).unwrap();
}

fn parts_are_appended_in_order(disk: &dyn Disk, root: &Path) {
    let path = root.join("parts");
    let file = disk.create(&path).unwrap();
    // More parts than one system call takes, some of them empty.
    let parts: Vec<Vec<u8>> = (0..3000_usize).map(|i| vec![i as u8; i % 7]).collect();
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    file.append_vectored(&slices).unwrap();
    file.append_vectored(&slices[..1]).unwrap();
    file.append_vectored(&[]).unwrap();
    let mut read = vec![0; parts.concat().len()];
    assert_eq!(file.len().unwrap(), read.len() as u64);
    file.read_at(&mut read, 0).unwrap();
    assert_eq!(read, parts.concat());
    disk.unlink(&path).unwrap();
}

fn names_are_created_renamed_and_removed(disk: &dyn Disk, root: &Path) {
    let (a, b) = (root.join("a"), root.join("b"));
    let file = disk.create(&a).unwrap();
    file.append(b"a").unwrap();
    disk.create(&b).unwrap().append(b"other").unwrap();
    disk.rename(&a, &b).unwrap();
    assert_eq!(disk.list(root).unwrap(), ["b"]);
    assert_eq!(disk.open(&b).unwrap().len().unwrap(), 1, "rename replaces");

    disk.unlink(&b).unwrap();
    assert!(disk.list(root).unwrap().is_empty());
    let mut buf = [0];
    file.read_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"a", "an open file outlives its name");
}

fn directories_are_made_listed_and_synced(disk: &dyn Disk, root: &Path) {
    let deep = root.join("x/y/z");
    create_dir_durably(disk, &deep).unwrap();
    disk.create_dir_all(&deep).unwrap();
    for name in ["b", "B", "a.b", "a"] {
        disk.create(&deep.join(name)).unwrap();
    }
    disk.sync_dir(&deep).unwrap();
    assert_eq!(disk.list(&deep).unwrap(), ["B", "a", "a.b", "b"]);
    assert_eq!(disk.list(&root.join("x")).unwrap(), ["y"], "one level");
    disk.rename(&deep.join("a"), &root.join("x/moved")).unwrap();
    assert_eq!(disk.list(&root.join("x")).unwrap(), ["moved", "y"]);
}

fn errors_tell_kinds_apart(disk: &dyn Disk, root: &Path) {
    let (file, dir, missing) = (root.join("file"), root.join("dir"), root.join("missing"));
    disk.create(&file).unwrap();
    disk.create_dir_all(&dir).unwrap();
    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();

    assert_eq!(kind(disk.create(&file).map(drop)), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.create(&missing.join("f")).map(drop)), ErrorKind::NotFound);
    assert_eq!(kind(disk.create(&file.join("f")).map(drop)), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.open(&missing).map(drop)), ErrorKind::NotFound);
    assert_eq!(kind(disk.open(&dir).map(drop)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.open(&file.join("f")).map(drop)), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.rename(&missing, &file)), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(&file, &missing.join("f"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(&file, &dir)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.unlink(&missing)), ErrorKind::NotFound);
    assert_eq!(kind(disk.unlink(&dir)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.list(&file).map(drop)), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.list(&missing).map(drop)), ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir(&missing)), ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir(&file)), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.create_dir_all(&file)), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.create_dir_all(&file.join("d"))), ErrorKind::NotADirectory);
}

#[test]
fn real_disk() {
    let dir = tempfile::tempdir().unwrap();
    contract(&RealDisk, dir.path());
}

#[test]
fn sim_disk() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/root")).unwrap();
    contract(&disk, Path::new("/root"));
}

#[test]
fn a_durable_directory_survives_with_all_its_parents() {
    for seed in 0..32 {
        let disk = SimDisk::new(seed);
        let deep = Path::new("data/packs/0");
        create_dir_durably(&disk, deep).unwrap();
        disk.crash();
        assert!(disk.list(deep).unwrap().is_empty(), "seed {seed}");
    }
}

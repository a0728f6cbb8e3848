use super::*;

const SEEDS: std::ops::Range<u64> = 0..64;

fn path(name: &str) -> PathBuf {
    Path::new("/d").join(name)
}

/// A disk with a durable directory `/d`.
fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn sync_names(disk: &SimDisk) {
    disk.sync_dir(Path::new("/d")).unwrap();
}

fn bytes(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(&path(name)).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// A durable file, and further bytes of it that are not.
fn half_synced(disk: &SimDisk, synced: &[u8], more: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.create(&path("f")).unwrap();
    file.append(synced).unwrap();
    file.sync().unwrap();
    sync_names(disk);
    file.append(more).unwrap();
    file
}

#[test]
fn synced_bytes_survive_and_a_prefix_of_the_rest() {
    let (mut shortest, mut longest, mut garbled) = (usize::MAX, 0, false);
    for seed in SEEDS {
        let disk = disk(seed);
        half_synced(&disk, &[1; 1000], &[2; 2000]);
        disk.crash();
        let after = bytes(&disk, "f").unwrap();
        assert!(after.len() >= 1000 && after[..1000].iter().all(|b| *b == 1), "seed {seed}");
        let whole_sectors = (after.len().saturating_sub(1) / 512 * 512).max(1000);
        assert!(after[1000.min(whole_sectors)..whole_sectors].iter().all(|b| *b == 2), "seed {seed}");
        garbled |= after[1000..].iter().any(|b| *b != 2);
        (shortest, longest) = (shortest.min(after.len()), longest.max(after.len()));
    }
    assert_eq!((shortest, longest, garbled), (1000, 3000, true));
}

#[test]
fn names_are_durable_with_their_directory_only() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in SEEDS {
        let disk = disk(seed);
        disk.create(&path("kept")).unwrap();
        disk.create(&path("gone")).unwrap();
        sync_names(&disk);
        disk.create(&path("new")).unwrap().sync().unwrap();
        disk.unlink(&path("gone")).unwrap();
        disk.crash();
        assert!(bytes(&disk, "kept").is_some(), "seed {seed}");
        outcomes.insert((bytes(&disk, "new").is_some(), bytes(&disk, "gone").is_some()));
    }
    assert_eq!(outcomes.len(), 4, "all four outcomes happen");
}

#[test]
fn a_rename_happens_or_not() {
    let mut replaced = [0; 2];
    for seed in SEEDS {
        let disk = disk(seed);
        for (name, content) in [("old", b"old"), ("new", b"new")] {
            let file = disk.create(&path(name)).unwrap();
            file.append(content).unwrap();
            file.sync().unwrap();
        }
        sync_names(&disk);
        disk.rename(&path("new"), &path("old")).unwrap();
        disk.crash();
        match (bytes(&disk, "old").as_deref(), bytes(&disk, "new").as_deref()) {
            (Some(b"old"), Some(b"new")) => replaced[0] += 1,
            (Some(b"new"), None) => replaced[1] += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(replaced[0] > 0 && replaced[1] > 0);
}

#[test]
fn a_file_never_has_two_names_after_a_crash() {
    for seed in SEEDS {
        let disk = disk(seed);
        disk.create_dir_all(&path("tmp")).unwrap();
        sync_names(&disk);
        disk.create(&path("tmp/1")).unwrap().append(b"x").unwrap();
        disk.rename(&path("tmp/1"), &path("f")).unwrap();
        sync_names(&disk);
        disk.crash();
        assert!(bytes(&disk, "f").is_some(), "seed {seed}");
        assert_eq!(bytes(&disk, "tmp/1"), None, "seed {seed}");
    }
}

#[test]
fn a_failed_sync_loses_what_a_later_sync_cannot_bring_back() {
    let mut lost = 0;
    for seed in SEEDS {
        let disk = disk(seed);
        let file = half_synced(&disk, &[1; 512], &[2; 2048]);
        disk.fail_after(0, Fault::Io);
        file.sync().unwrap_err();
        file.sync().unwrap();
        assert_eq!(bytes(&disk, "f").unwrap()[512..], [2; 2048], "the page cache still has it");
        disk.crash();
        let after = bytes(&disk, "f").unwrap();
        assert_eq!((after.len(), &after[..512]), (2560, &[1; 512][..]), "seed {seed}");
        lost += after.iter().filter(|b| **b == 0).count();
    }
    assert!(lost > 0);
}

#[test]
fn a_halted_disk_answers_nothing_until_the_crash() {
    let disk = disk(1);
    let file = half_synced(&disk, b"kept", b"");
    let before = disk.count_mutations();
    disk.halt_after(1);
    file.append(b"one").unwrap();
    file.append(b"two").unwrap_err();
    file.read_at(&mut [0; 4], 0).unwrap_err();
    disk.list(Path::new("/d")).unwrap_err();
    assert!(disk.create(&path("g")).is_err());
    assert_eq!(disk.count_mutations(), before + 1);
    disk.crash();
    file.len().unwrap_err();
    assert!(bytes(&disk, "f").unwrap().starts_with(b"kept"));
    disk.create(&path("g")).unwrap();
}

#[test]
fn a_full_disk_takes_what_fits_and_has_room_after_an_unlink() {
    let disk = disk(1);
    disk.set_capacity(10);
    let file = disk.create(&path("f")).unwrap();
    let error = file.append(&[1; 16]).unwrap_err();
    assert_eq!((error.kind(), file.len().unwrap()), (io::ErrorKind::StorageFull, 10));
    assert_eq!(disk.space(Path::new("/d")).unwrap(), Space { total: 10, free: 0 });
    disk.unlink(&path("f")).unwrap();
    disk.create(&path("g")).unwrap().append(&[1; 10]).unwrap();
}

#[test]
fn one_seed_is_one_disk() {
    let run = |seed| {
        let disk = disk(seed);
        half_synced(&disk, &[1; 100], &[2; 5000]);
        disk.create(&path("g")).unwrap();
        disk.crash();
        (bytes(&disk, "f"), bytes(&disk, "g"))
    };
    assert!(SEEDS.map(run).eq(SEEDS.map(run)));
}

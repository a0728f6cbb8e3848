use super::*;

const T: Table = "rows";

fn batch(key: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(T, key, "value");
    batch
}

/// Let the next write-ahead logs of the store at `path` go to a device that is always full.
fn fill_the_disk(path: &Path) {
    let names = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let number =
        |path: PathBuf| path.file_stem().unwrap().to_string_lossy().trim_start_matches("MANIFEST-").parse::<u64>();
    let last = names.filter_map(|path| number(path).ok()).max().unwrap();
    for next in last + 1..last + 32 {
        std::os::unix::fs::symlink("/dev/full", path.join(format!("{next:06}.log"))).unwrap();
    }
}

#[test]
fn a_full_disk_poisons_writes_and_leaves_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksKv::open(dir.path(), &[T], RocksOptions::default()).unwrap();
    store.write(batch("before"), Durability::Synced).unwrap();
    fill_the_disk(dir.path());
    // A flush begins a new log.
    store.db.flush_cf(store.family(T).unwrap()).unwrap();

    let error = store.write(batch("after"), Durability::Synced).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    let refused = store.write(batch("after"), Durability::Buffered).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    assert!(refused.to_string().contains(dir.path().to_str().unwrap()), "{refused}");
    assert!(refused.to_string().contains("No space left"), "the cause is named: {refused}");
    assert_eq!(store.get(T, b"before").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(store.get(T, b"after").unwrap(), None);
}

#[test]
fn automatic_resume_is_off() {
    let dir = tempfile::tempdir().unwrap();
    drop(RocksKv::open(dir.path(), &[T], RocksOptions::default()).unwrap());
    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let file = names.filter(|path| path.to_string_lossy().contains("OPTIONS-")).max().unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    for line in ["max_bgerror_resume_count=0", "paranoid_checks=true", "partition_filters=true"] {
        assert!(text.contains(line), "{line} is not in effect");
    }
}

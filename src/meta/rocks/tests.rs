use super::*;

const T: Table = "rows";

fn batch(key: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(T, key, "value");
    batch
}

#[test]
fn a_failure_poisons_writes_and_leaves_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksKv::open(dir.path(), &[T], RocksOptions::default()).unwrap();
    store.write(batch("before"), Durability::Synced).unwrap();

    // The crate gives no way to make an error of RocksDB but to get one.
    let cause = RocksKv::open(dir.path(), &[T], RocksOptions::default()).err().unwrap().to_string();
    let Err(failure) = DB::open(&Options::default(), dir.path()) else { panic!("opened twice") };
    let error = store.poison(failure);
    assert_eq!(error.kind(), ErrorKind::Io, "{cause}");

    let refused = store.write(batch("after"), Durability::Buffered).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    assert!(refused.to_string().contains(dir.path().to_str().unwrap()), "{refused}");
    assert!(refused.to_string().contains("lock"), "the cause is named: {refused}");
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

//! What only the twin can do: fail and forget as told.

use super::*;

const T: Table = "t";

fn put(kv: &MemoryKv, key: &str, durability: Durability) -> Result<()> {
    let mut batch = Batch::new();
    batch.put(T, key, "value");
    kv.write(batch, durability)
}

fn scan_cached(kv: &MemoryKv, to: &str) -> (usize, Cached<()>) {
    let mut rows = 0;
    let scanned = kv.scan_cached(T, b"", to.as_bytes(), &mut |_, _| {
        rows += 1;
        ControlFlow::Continue(())
    });
    (rows, scanned.unwrap())
}

#[test]
fn one_read_fails_and_only_that_one() {
    let kv = MemoryKv::new();
    put(&kv, "a", Durability::Synced).unwrap();
    kv.fail_read_after(1);
    kv.get(T, b"a").unwrap();
    assert_eq!(kv.scan(T, b"", b"", &mut |_, _| ControlFlow::Continue(())).unwrap_err().kind(), ErrorKind::Io);
    assert!(kv.get(T, b"a").unwrap().is_some());
    put(&kv, "b", Durability::Synced).unwrap();
}

#[test]
fn what_was_not_read_since_it_was_written_is_cold() {
    let kv = MemoryKv::new();
    kv.forget_what_is_cached();
    ["a", "b", "c"].iter().for_each(|key| put(&kv, key, Durability::Buffered).unwrap());
    assert_eq!(kv.get_cached(T, b"a").unwrap(), Cached::Cold);
    kv.get(T, b"a").unwrap();
    assert_eq!(kv.get_cached(T, b"a").unwrap(), Cached::Known(Some(b"value".to_vec())));
    assert_eq!(scan_cached(&kv, ""), (1, Cached::Cold), "it goes as far as what was read");
    kv.scan(T, b"", b"c", &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(scan_cached(&kv, "c"), (2, Cached::Known(())));
    assert_eq!(scan_cached(&kv, ""), (3, Cached::Cold), "whether more follows was not read");
    put(&kv, "b", Durability::Buffered).unwrap();
    assert_eq!(scan_cached(&kv, "c"), (1, Cached::Cold));
    assert_eq!(kv.count_misses(), 4);
}

#[test]
fn a_store_beside_a_disk_has_its_power_and_its_faults() {
    let disk = Arc::new(SimDisk::new(1));
    let kv = MemoryKv::beside(disk.clone());
    put(&kv, "synced", Durability::Synced).unwrap();
    put(&kv, "buffered", Durability::Buffered).unwrap();
    assert_eq!(disk.count_mutations(), 2);
    disk.halt_after(0);
    put(&kv, "cut", Durability::Buffered).unwrap_err();
    kv.get(T, b"synced").unwrap_err();
    assert_eq!(kv.count_pending(), 2, "the one that was cut may be there");
    for (kept, there) in [(0, [true, false, false]), (1, [true, true, false]), (2, [true, true, true])] {
        let disk = Arc::new(disk.fork(2));
        let kv = kv.fork(disk.clone());
        disk.crash();
        kv.crash_keeping(kept);
        assert_eq!(["synced", "buffered", "cut"].map(|key| kv.get(T, key.as_bytes()).unwrap().is_some()), there);
    }
}

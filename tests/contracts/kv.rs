//! The contract of `KvStore`: RocksDB and memory.

use std::ops::ControlFlow;
use std::path::Path;

use mimeo::error::ErrorKind;
use mimeo::meta::{Batch, Durability, KvStore, MAX_KEY, MemoryKv, RocksKv, RocksOptions, Table, prefix_end};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const A: Table = "a";
const B: Table = "b";
const SCRATCH: Table = "scratch";

use Durability::{Buffered, Scratch, Synced};

type Row = (Vec<u8>, Vec<u8>);

fn open(path: &Path) -> mimeo::error::Result<RocksKv> {
    RocksKv::open(path, &[A, B, SCRATCH], RocksOptions { scratch: vec![SCRATCH], ..RocksOptions::default() })
}

fn batch(fill: impl FnOnce(&mut Batch)) -> Batch {
    let mut batch = Batch::new();
    fill(&mut batch);
    batch
}

fn put(store: &dyn KvStore, durability: Durability, table: Table, key: &[u8], value: &[u8]) {
    store.write(batch(|b| b.put(table, key, value)), durability).unwrap();
}

fn rows(store: &dyn KvStore, table: Table, from: &[u8], to: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    store.scan(table, from, to, &mut visit).unwrap();
    rows
}

fn keys(store: &dyn KvStore, table: Table) -> Vec<String> {
    rows(store, table, b"", b"").into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

fn contract<S: KvStore>(make: impl Fn() -> S) {
    batches_apply_in_order_and_per_table(&make());
    ranges_are_half_open(&make());
    keys_are_any_bytes(&make());
    a_scan_sees_one_state(&make());
    what_is_wrong_is_refused_whole(&make());
}

fn batches_apply_in_order_and_per_table(store: &dyn KvStore) {
    put(store, Synced, A, b"k", b"in a");
    put(store, Buffered, B, b"k", b"in b");
    put(store, Scratch, SCRATCH, b"k", b"scratch");
    assert_eq!(store.get(A, b"k").unwrap().unwrap(), b"in a");
    assert_eq!(store.get(SCRATCH, b"k").unwrap().unwrap(), b"scratch");
    let both = batch(|b| {
        b.put(A, "k", "first");
        b.put(A, "k", "second");
        b.put(A, "x", "");
        b.put(A, "y", "1");
        b.delete(A, "y");
        b.delete(A, "never there");
        b.delete(B, "k");
    });
    store.write(both, Buffered).unwrap();
    store.write(Batch::new(), Synced).unwrap();
    assert_eq!(rows(store, A, b"", b""), [(b"k".to_vec(), b"second".to_vec()), (b"x".to_vec(), Vec::new())]);
    assert_eq!(store.get(B, b"k").unwrap(), None);
}

fn ranges_are_half_open(store: &dyn KvStore) {
    let fill = || {
        for key in ["a", "b", "ba", "c", "d"] {
            put(store, Buffered, A, key.as_bytes(), b"");
        }
    };
    let scan = |from: &str, to: &str| {
        let rows = rows(store, A, from.as_bytes(), to.as_bytes()).into_iter();
        rows.map(|(key, _)| String::from_utf8(key).unwrap()).collect::<Vec<_>>().join(" ")
    };
    let after_delete = |from: &str, to: &str| {
        fill();
        store.write(batch(|b| b.delete_range(A, from, to)), Buffered).unwrap();
        scan("", "")
    };
    fill();
    assert_eq!(scan("b", "c"), "b ba");
    assert_eq!(scan("bb", ""), "c d");
    assert_eq!(scan("c", "b") + &scan("c", "c") + &scan("e", ""), "");
    let end = prefix_end(b"b");
    assert_eq!(scan("b", std::str::from_utf8(&end).unwrap()), "b ba");

    assert_eq!(after_delete("b", "c"), "a c d");
    assert_eq!(after_delete("ba", ""), "a b");
    assert_eq!(after_delete("c", "b"), "a b ba c d");
    assert_eq!(after_delete("c", "c"), "a b ba c d");
    assert_eq!(after_delete("", ""), "");
}

fn keys_are_any_bytes(store: &dyn KvStore) {
    let longest = vec![0xff; MAX_KEY];
    let sorted: [&[u8]; 6] = [b"", b"\0", b"\0\0", b"\x7f", b"\xff", &longest];
    for key in sorted.iter().rev() {
        put(store, Buffered, A, key, key);
    }
    let found: Vec<_> = rows(store, A, b"", b"").into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, sorted);
    assert_eq!(store.get(A, b"").unwrap().unwrap(), b"");
    store.write(batch(|b| b.delete_range(A, "\0", "")), Buffered).unwrap();
    assert_eq!(rows(store, A, b"", b"").len(), 1, "to the end means the longest key too");
}

fn a_scan_sees_one_state(store: &dyn KvStore) {
    for key in [b"a", b"b", b"c"] {
        put(store, Buffered, A, key, b"");
    }
    let mut seen = Vec::new();
    let mut visit = |key: &[u8], _: &[u8]| {
        seen.push(key.to_vec());
        store.write(batch(|b| b.delete(A, "b")), Buffered).unwrap();
        put(store, Buffered, A, b"bb", b"");
        if key == b"b" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.scan(A, b"", b"", &mut visit).unwrap();
    assert_eq!(seen, [b"a", b"b"]);
    assert_eq!(keys(store, A), ["a", "bb", "c"]);
}

fn what_is_wrong_is_refused_whole(store: &dyn KvStore) {
    put(store, Scratch, SCRATCH, b"k", b"");
    put(store, Buffered, A, b"k", b"");
    let long = vec![0; MAX_KEY + 1];
    let refusals = [
        (Buffered, batch(|b| b.put(SCRATCH, "x", "")), ErrorKind::Internal),
        (Scratch, batch(|b| b.put(A, "x", "")), ErrorKind::Internal),
        (Scratch, batch(|b| b.delete_range(A, "", "")), ErrorKind::Internal),
        (Buffered, batch(|b| b.put(A, long.clone(), "")), ErrorKind::Invalid),
        (Buffered, batch(|b| b.delete_range(A, "", long.clone())), ErrorKind::Invalid),
    ];
    for (durability, bad, kind) in refusals {
        let mut whole = batch(|b| b.put(if durability == Scratch { SCRATCH } else { A }, "y", ""));
        whole.ops.extend(bad.ops);
        assert_eq!(store.write(whole, durability).unwrap_err().kind(), kind);
    }
    assert_eq!((keys(store, A), keys(store, SCRATCH)), (vec!["k".to_owned()], vec!["k".to_owned()]));
    put(store, Synced, A, b"l", b"");
}

#[test]
fn rocks() {
    let dir = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    contract(|| {
        number.set(number.get() + 1);
        open(&dir.path().join(format!("store/{}", number.get()))).unwrap()
    });
}

#[test]
fn memory() {
    contract(MemoryKv::new);
}

/// A random batch over few keys, so that its changes meet.
fn random_batch(rng: &mut SmallRng) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..rng.random_range(0..6) {
        let table = if rng.random() { A } else { B };
        let mut key = || vec![rng.random_range(0..4_u8) * 80; rng.random_range(0..4)];
        let (key, other) = (key(), key());
        match rng.random_range(0..8) {
            0 => batch.delete_range(table, key, other),
            1 | 2 => batch.delete(table, key),
            _ => batch.put(table, key, other),
        }
    }
    batch
}

#[test]
fn rocks_and_memory_agree_on_anything() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let (mut rocks, memory) = (open(dir.path()).unwrap(), MemoryKv::new());
    for step in 0..2000 {
        let batch = random_batch(&mut rng);
        rocks.write(batch.clone(), Buffered).unwrap();
        memory.write(batch, Buffered).unwrap();
        if step % 500 == 499 {
            drop(rocks);
            rocks = open(dir.path()).unwrap();
        }
        for table in [A, B] {
            assert_eq!(rows(&rocks, table, b"", b""), rows(&memory, table, b"", b""), "step {step}");
        }
    }
}

#[test]
fn rocks_is_there_again_after_reopening_except_scratch() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let store = open(dir.path()).unwrap();
        assert_eq!(keys(&store, A).len(), round - 1);
        assert_eq!(keys(&store, SCRATCH), Vec::<String>::new());
        put(&store, Buffered, A, round.to_string().as_bytes(), b"");
        put(&store, Scratch, SCRATCH, round.to_string().as_bytes(), b"");
        assert_eq!(keys(&store, SCRATCH).len(), 1);
    }
}

#[test]
fn rocks_says_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let _held = open(dir.path()).unwrap();
    let error = open(dir.path()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("another mimeo daemon holds") && text.contains(dir.path().to_str().unwrap()), "{text}");
}

#[test]
fn rocks_refuses_tables_of_a_newer_version_and_creates_missing_ones() {
    let dir = tempfile::tempdir().unwrap();
    drop(RocksKv::open(dir.path(), &[A], RocksOptions::default()).unwrap());
    drop(RocksKv::open(dir.path(), &[A, B], RocksOptions::default()).unwrap());
    let error = RocksKv::open(dir.path(), &[A], RocksOptions::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("written by a newer version"), "{error}");
    open(dir.path()).unwrap();
}

#[test]
fn rocks_reports_damage_as_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    std::fs::write(dir.path().join("CURRENT"), "not a manifest").unwrap();
    assert_eq!(open(dir.path()).err().unwrap().kind(), ErrorKind::Corrupt);
}

#[test]
fn rocks_refuses_a_table_it_was_not_opened_with() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(store.get("other", b"").unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(store.write(batch(|b| b.put("other", "", "")), Synced).unwrap_err().kind(), ErrorKind::Internal);
    put(&store, Synced, A, b"still", b"writable");
}

#[test]
fn memory_keeps_what_was_synced_and_all_before_it() {
    let store = MemoryKv::new();
    put(&store, Buffered, A, b"1", b"");
    put(&store, Scratch, SCRATCH, b"1", b"");
    put(&store, Synced, B, b"2", b"");
    put(&store, Buffered, A, b"3", b"");
    put(&store, Buffered, A, b"4", b"");
    store.crash();
    assert_eq!((keys(&store, A), keys(&store, B)), (vec!["1".to_owned()], vec!["2".to_owned()]));
    assert_eq!(keys(&store, SCRATCH), Vec::<String>::new());

    put(&store, Buffered, A, b"3", b"");
    put(&store, Buffered, A, b"4", b"");
    store.crash_keeping(1);
    assert_eq!(keys(&store, A), ["1", "3"]);
    store.crash();
    assert_eq!(keys(&store, A), ["1", "3"], "what survived one crash survives the next");
    assert_eq!(store.count_writes(), 7);
}

#[test]
fn memory_fails_and_is_poisoned_like_rocks() {
    let store = MemoryKv::new();
    store.fail_writes_after(1);
    put(&store, Buffered, A, b"1", b"");
    let failing = || batch(|b| b.put(A, "2", ""));
    assert_eq!(store.write(failing(), Synced).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(store.write(failing(), Synced).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(keys(&store, A), ["1"], "reads go on");
    store.crash_keeping(2);
    assert_eq!(keys(&store, A), ["1", "2"], "the failed batch may have reached the disk");
    put(&store, Synced, A, b"3", b"");
}

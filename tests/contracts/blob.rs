//! The contract of `BlobStore`: files on a real and on a simulated disk, and memory.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use mimeo::chunk::blob::{BlobStore, LocalBlobs, MAX_NAME, MAX_RANGE, MemoryBlobs};
use mimeo::env::{Disk, Fault, RealDisk, SimDisk};
use mimeo::error::ErrorKind;

async fn contract(blobs: &dyn BlobStore) {
    a_blob_is_put_once_and_read_in_ranges(blobs).await;
    names_are_listed_by_prefix(blobs).await;
    a_deleted_name_is_free_again(blobs).await;
    bad_names_are_refused(blobs).await;
    one_of_many_puts_wins(blobs).await;
}

async fn a_blob_is_put_once_and_read_in_ranges(blobs: &dyn BlobStore) {
    blobs.put("p/q/1", Bytes::from_static(b"0123456789")).await.unwrap();
    assert_eq!(blobs.len("p/q/1").await.unwrap(), Some(10));
    assert_eq!(blobs.get_range("p/q/1", 3..7).await.unwrap(), "3456");
    assert_eq!(blobs.get_range("p/q/1", 0..10).await.unwrap(), "0123456789");
    assert!(blobs.get_range("p/q/1", 10..10).await.unwrap().is_empty());
    for beyond in [5..11, 11..11, Range { start: 5, end: 3 }, 0..u64::MAX] {
        assert_eq!(blobs.get_range("p/q/1", beyond).await.unwrap_err().kind(), ErrorKind::Invalid);
    }

    let again = blobs.put("p/q/1", Bytes::from_static(b"other")).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Exists);
    assert!(again.to_string().contains("p/q/1"));
    assert_eq!(blobs.get_range("p/q/1", 0..3).await.unwrap(), "012");

    blobs.put("empty", Bytes::new()).await.unwrap();
    assert_eq!(blobs.len("empty").await.unwrap(), Some(0));
    assert_eq!(blobs.get_range("unknown", 0..1).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(blobs.get_range("p/q", 0..1).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!((blobs.len("unknown").await.unwrap(), blobs.len("p").await.unwrap()), (None, None));
}

async fn names_are_listed_by_prefix(blobs: &dyn BlobStore) {
    for name in ["l/a/1", "l/a.b", "l/b/c/1", "l/ab"] {
        blobs.put(name, Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(blobs.list("l/").await.unwrap(), ["l/a.b", "l/a/1", "l/ab", "l/b/c/1"]);
    assert_eq!(blobs.list("l/a").await.unwrap(), ["l/a.b", "l/a/1", "l/ab"]);
    assert_eq!(blobs.list("l/b/c").await.unwrap(), ["l/b/c/1"]);
    assert_eq!(blobs.list("l/a/1").await.unwrap(), ["l/a/1"]);
    assert_eq!(blobs.list("l/x").await.unwrap(), Vec::<String>::new());
    assert_eq!(blobs.list("../").await.unwrap(), Vec::<String>::new());
    assert_eq!(blobs.list("").await.unwrap().len(), 6, "with the two of the test before");
}

async fn a_deleted_name_is_free_again(blobs: &dyn BlobStore) {
    blobs.put("d/1", Bytes::from_static(b"old")).await.unwrap();
    blobs.get_range("d/1", 0..3).await.unwrap();
    blobs.delete("d/1").await.unwrap();
    assert_eq!(blobs.len("d/1").await.unwrap(), None);
    assert_eq!(blobs.get_range("d/1", 0..3).await.unwrap_err().kind(), ErrorKind::NotFound);
    blobs.delete("d/1").await.unwrap();
    blobs.delete("never/was").await.unwrap();
    blobs.put("d/1", Bytes::from_static(b"newer")).await.unwrap();
    assert_eq!(blobs.get_range("d/1", 0..5).await.unwrap(), "newer");
}

async fn bad_names_are_refused(blobs: &dyn BlobStore) {
    let too_long = "a".repeat(MAX_NAME + 1);
    for name in ["", "/etc", "../x", "a/../b", "a//b", "A", "tmp/1", too_long.as_str()] {
        let bytes = Bytes::from_static(b"x");
        assert_eq!(blobs.put(name, bytes).await.unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        assert_eq!(blobs.get_range(name, 0..1).await.unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        assert_eq!(blobs.len(name).await.unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        assert_eq!(blobs.delete(name).await.unwrap_err().kind(), ErrorKind::Invalid, "{name}");
    }
}

async fn one_of_many_puts_wins(blobs: &dyn BlobStore) {
    let puts = (0..8_u8).map(|i| blobs.put("race", Bytes::from(vec![i; 1000])));
    let won: Vec<_> = join_all(puts).await.iter().map(Result::is_ok).collect();
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    let winner = won.iter().position(|won| *won).unwrap() as u8;
    assert_eq!(blobs.get_range("race", 0..1000).await.unwrap(), vec![winner; 1000]);
}

fn root() -> PathBuf {
    PathBuf::from("/data/blobs")
}

fn local(disk: &Arc<SimDisk>) -> LocalBlobs {
    LocalBlobs::open(disk.clone(), root()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn local_blobs_on_the_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let open = || LocalBlobs::open(Arc::new(RealDisk), dir.path().join("blobs")).unwrap();
    contract(&open()).await;
    std::fs::write(dir.path().join("blobs/tmp/7"), "left behind").unwrap();
    std::fs::create_dir(dir.path().join("blobs/lost+found")).unwrap();
    let again = open();
    assert_eq!(again.list("").await.unwrap().len(), 8, "all are there again, and nothing else");
    assert!(RealDisk.list(&dir.path().join("blobs/tmp")).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn local_blobs_on_the_simulated_disk() {
    contract(&local(&Arc::new(SimDisk::new(1)))).await;
}

#[tokio::test]
async fn memory_blobs() {
    contract(&MemoryBlobs::new()).await;
}

#[tokio::test]
async fn a_range_has_a_limit_that_is_checked_before_memory_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(Arc::new(RealDisk), dir.path().to_owned()).unwrap();
    // Nobody has this much memory; the file is one hole.
    std::fs::File::create(dir.path().join("huge")).unwrap().set_len(1 << 42).unwrap();
    assert_eq!(blobs.get_range("huge", 0..1 << 42).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(blobs.get_range("huge", 0..MAX_RANGE + 1).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(blobs.get_range("huge", 5..9).await.unwrap(), [0; 4].as_slice());
}

#[tokio::test]
async fn a_blob_that_became_shorter_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(Arc::new(RealDisk), dir.path().to_owned()).unwrap();
    blobs.put("cut", Bytes::from_static(b"0123456789")).await.unwrap();
    assert_eq!(blobs.len("cut").await.unwrap(), Some(10));
    std::fs::OpenOptions::new().write(true).open(dir.path().join("cut")).unwrap().set_len(4).unwrap();
    assert_eq!(blobs.get_range("cut", 0..10).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

const SEEDS: Range<u64> = 0..24;
const NAME: &str = "packs/3/4.pack";

fn content() -> Bytes {
    (0..5000_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>().into()
}

/// Number of mutating calls that opening and one put take.
async fn mutations_of_a_put() -> u64 {
    let disk = Arc::new(SimDisk::new(0));
    local(&disk).put(NAME, content()).await.unwrap();
    disk.count_mutations()
}

/// The blob is absent or complete; which of the two.
async fn is_whole(blobs: &LocalBlobs, context: &str) -> bool {
    let Some(len) = blobs.len(NAME).await.unwrap() else { return false };
    assert_eq!(len, content().len() as u64, "{context}");
    assert_eq!(blobs.get_range(NAME, 0..len).await.unwrap(), content(), "{context}");
    true
}

#[tokio::test]
async fn a_put_is_whole_or_absent_wherever_the_power_goes() {
    let mutations = mutations_of_a_put().await;
    assert!(mutations > 10, "{mutations}");
    let (mut absent, mut unanswered) = (0, 0);
    for (k, seed) in (0..=mutations).flat_map(|k| SEEDS.map(move |seed| (k, seed))) {
        let context = format!("halt after {k} of {mutations}, seed {seed}");
        let disk = Arc::new(SimDisk::new(seed));
        disk.halt_after(k);
        let answered = match LocalBlobs::open(disk.clone(), root()) {
            Ok(blobs) => blobs.put(NAME, content()).await.is_ok(),
            Err(_) => false,
        };
        assert_eq!(answered, k == mutations, "{context}");
        disk.crash();

        let blobs = local(&disk);
        let whole = is_whole(&blobs, &context).await;
        assert!(whole || !answered, "{context}: a put that was answered is lost");
        absent += u32::from(!whole);
        unanswered += u32::from(whole && !answered);
        assert!(disk.list(&root().join("tmp")).unwrap().is_empty(), "{context}");
        if !whole {
            blobs.put(NAME, content()).await.unwrap();
            assert!(is_whole(&blobs, &context).await);
        }
    }
    assert!(absent > 0 && unanswered > 0, "both outcomes of an unfinished put were seen");
}

#[tokio::test]
async fn a_put_that_fails_leaves_nothing_also_after_a_crash() {
    let mutations = mutations_of_a_put().await;
    let opening = {
        let disk = Arc::new(SimDisk::new(0));
        local(&disk);
        disk.count_mutations()
    };
    for (k, seed) in (0..mutations - opening).flat_map(|k| SEEDS.map(move |seed| (k, seed))) {
        let context = format!("failure after {k}, seed {seed}");
        let fault = if seed % 2 == 0 { Fault::Io } else { Fault::NoSpace };
        let disk = Arc::new(SimDisk::new(seed));
        let blobs = local(&disk);
        disk.fail_after(k, fault);
        let error = blobs.put(NAME, content()).await.unwrap_err();
        let kind = if fault == Fault::Io { ErrorKind::Io } else { ErrorKind::NoSpace };
        assert_eq!(error.kind(), kind, "{context}: {error}");
        assert!(!is_whole(&blobs, &context).await, "{context}");
        assert!(disk.list(&root().join("tmp")).unwrap().is_empty(), "{context}");
        if seed % 3 == 0 {
            blobs.put(NAME, content()).await.unwrap();
            assert!(is_whole(&blobs, &context).await, "{context}");
        } else {
            disk.crash();
            assert!(!is_whole(&local(&disk), &context).await, "{context}");
        }
    }
}

#[tokio::test]
async fn a_delete_that_was_answered_holds() {
    for seed in SEEDS {
        let disk = Arc::new(SimDisk::new(seed));
        let blobs = local(&disk);
        blobs.put(NAME, content()).await.unwrap();
        // The name goes, the sync of it fails; asked again, the answer is a promise.
        disk.fail_after(1, Fault::Io);
        blobs.delete(NAME).await.unwrap_err();
        blobs.delete(NAME).await.unwrap();
        disk.crash();
        assert_eq!(local(&disk).len(NAME).await.unwrap(), None, "seed {seed}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_a_put_and_gives_the_space_back() {
    let disk = Arc::new(SimDisk::new(1));
    let blobs = local(&disk);
    disk.set_capacity(6000);
    blobs.put("first", content()).await.unwrap();
    let error = blobs.put(NAME, content()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!(disk.space(Path::new("/")).unwrap().free, 1000);
    assert_eq!(blobs.get_range("first", 0..5000).await.unwrap(), content());
    blobs.delete("first").await.unwrap();
    blobs.put(NAME, content()).await.unwrap();
}

#[tokio::test]
async fn a_put_leaves_a_tenth_of_a_small_disk_free() {
    let disk = Arc::new(SimDisk::new(1));
    let blobs = local(&disk);
    disk.set_capacity(10_500);
    blobs.put("first", content()).await.unwrap();
    let error = blobs.put(NAME, content()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    let text = error.to_string();
    assert!(text.contains("5500 bytes are free") && text.contains("1050 are kept"), "{text}");
    assert!(text.contains("free space on that disk"), "names the remedy: {text}");
    assert_eq!(blobs.list("").await.unwrap(), ["first"], "nothing is left of it");
}

#[tokio::test]
async fn memory_blobs_fail_and_go_bad_when_told() {
    let blobs = MemoryBlobs::new();
    blobs.fail_puts_after(1);
    blobs.put("a", Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(blobs.put("b", Bytes::new()).await.unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(blobs.len("b").await.unwrap(), None);
    assert!(blobs.corrupt("a", 1) && !blobs.corrupt("a", 3) && !blobs.corrupt("b", 0));
    assert_eq!(blobs.get_range("a", 0..3).await.unwrap(), [b'a', b'b' ^ 0xff, b'c'].as_slice());
}

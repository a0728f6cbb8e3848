//! `mimeo fsck`: on a directory that nobody holds; exit code and document say whether it is in order.

use std::path::Path;

use mimeo::meta::{Batch, Durability, KvStore, RocksKv, RocksOptions};
use mimeo::overlay::OverlayStore;

use super::world::{Daemon, Done, World, mimeo};

fn fsck(data: &Path, more: &[&str]) -> Done {
    mimeo().arg("fsck").arg("--data").arg(data).args(more).output().unwrap().into()
}

/// Write rows into the index of private writes of a daemon that does not run.
fn put(data: &Path, table: &'static str, key: &[u8], row: &[u8]) {
    let index = RocksKv::open(data.join("overlays"), OverlayStore::TABLES, RocksOptions::default()).unwrap();
    let mut batch = Batch::new();
    batch.put(table, key, row);
    index.write(batch, Durability::Synced).unwrap();
}

#[test]
fn a_store_in_order_is_told_so() {
    let world = World::with_image();
    world.run(&["clone", "create", "base", "desk"]).ok();
    let World { dir, daemon } = world;
    let data = daemon.data.clone();
    fsck(&data, &[]).refused(1, &["is held by", &daemon.pid().to_string()]);
    daemon.kill();
    let document = fsck(&data, &["--json"]).json();
    assert_eq!((&document["clean"], &document["violations"]), (&true.into(), &serde_json::json!([])));
    assert_eq!(document["checked"]["versions"], 1);
    assert_eq!(document["checked"]["clones"], 1);
    assert_eq!(document["checked"]["chunks_read"], 0);
    let document = fsck(&data, &["--json", "--read-data"]).json();
    assert!(document["checked"]["chunks_read"].as_u64().unwrap() > 0, "{document}");
    let text = fsck(&data, &[]).ok();
    assert!(text.contains("versions:") && text.contains("1 with 0 snapshots"), "{text}");
    // Nothing was hurt.
    assert_eq!(Daemon::start(&data).stop(), 0);
    drop(dir);
}

#[test]
fn violations_are_listed_and_the_exit_code_says_so() {
    let World { dir: _dir, daemon } = World::with_image();
    let data = daemon.data.clone();
    assert_eq!(daemon.stop(), 0);
    put(&data, "heads", b"stray", b"row");
    let done = fsck(&data, &["--json"]);
    assert_eq!(done.code, 1, "{done:?}");
    let document: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(document["clean"], false);
    let violation = &document["violations"][0];
    assert_eq!(violation["kind"], "row");
    assert!(violation["object"].as_str().unwrap().contains("7374726179"), "{violation}");
    assert!(done.stderr.contains("1 violation found in"), "{done:?}");
    let done = fsck(&data, &[]);
    assert_eq!((done.code, done.stdout.lines().filter(|line| line.contains("does not decode")).count()), (1, 1));
}

/// What keeps the store from being opened is no reason not to look at it.
#[test]
fn a_store_that_does_not_open_is_looked_at_all_the_same() {
    let World { dir: _dir, daemon } = World::with_image();
    let data = daemon.data.clone();
    assert_eq!(daemon.stop(), 0);
    put(&data, "segments", b"stray", b"row");
    let done = fsck(&data, &["--json"]);
    assert_eq!(done.code, 1, "{done:?}");
    let document: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let kinds: Vec<_> = document["violations"].as_array().unwrap().iter().map(|v| v["kind"].clone()).collect();
    assert_eq!(kinds, ["row", "unopenable"]);
}

#[test]
fn a_directory_that_is_no_store_is_refused_and_none_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    fsck(&missing, &[]).refused(1, &["no mimeo data directory", "missing", "--data"]);
    assert!(!missing.exists());
}

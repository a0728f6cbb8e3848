//! Cases that were found, each by itself.

use std::fs;
use std::path::Path;

use crate::common::daemon::Daemon;
use crate::common::nfs3::{Call, Handle, Stable, status};
use crate::common::rpc::Connection;

/// A daemon with the clone `desk`, whose file `disk` is all 1, and that file.
fn desk(dir: &Path) -> (Daemon, Handle) {
    let source = dir.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("disk"), [1; 10_000]).unwrap();
    let daemon = Daemon::start(&dir.join("data"));
    daemon.must(&["image", "import", "base", source.to_str().unwrap()]);
    daemon.must(&["clone", "create", "base", "desk"]);
    let disk = disk_of(&daemon, "desk");
    (daemon, disk)
}

fn disk_of(daemon: &Daemon, clone: &str) -> Handle {
    let mut link = Connection::open(daemon.address).unwrap();
    let root = link.mount(&format!("/clones/{clone}")).unwrap();
    link.call(&Call::lookup(&root, b"disk")).unwrap().handle.unwrap()
}

fn write(daemon: &Daemon, disk: &Handle, stable: Stable, byte: u8) {
    let call = Call::write(disk, 5000, stable, &[byte; 100]);
    assert_eq!(Connection::open(daemon.address).unwrap().call(&call).unwrap().status, status::OK);
}

fn byte_of(daemon: &Daemon, disk: &Handle) -> u8 {
    let call = Call::read(disk, 5050, 1);
    Connection::open(daemon.address).unwrap().call(&call).unwrap().data[0]
}

/// No promise of the protocol; but a stop that loses what was in memory would make every upgrade one.
#[test]
fn an_orderly_stop_loses_no_unstable_write() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, disk) = desk(dir.path());
    write(&daemon, &disk, Stable::Unstable, 2);
    daemon.stop();
    daemon.start_again();
    assert_eq!(byte_of(&daemon, &disk), 2);
}

/// The positions that snapshots name must be known before the log is replayed.
#[test]
fn a_snapshot_keeps_its_bytes_over_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, disk) = desk(dir.path());
    write(&daemon, &disk, Stable::FileSync, 2);
    daemon.must(&["clone", "snapshot", "desk", "two"]);
    write(&daemon, &disk, Stable::FileSync, 3);
    daemon.kill();
    daemon.start_again();
    daemon.must(&["clone", "fork", "desk@two", "old"]);
    assert_eq!(byte_of(&daemon, &disk_of(&daemon, "old")), 2);
    assert_eq!(byte_of(&daemon, &disk), 3);
}

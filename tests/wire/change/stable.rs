//! What an answer promises: which wait for stable storage, and what a power cut leaves.

use mimeo::env::Fault;

use crate::client::{Body, Client, Header, NFS, NOENT, OK, Reply, SUCCESS, Xdr};
use crate::ops::{FILE_SYNC, Set, UNSTABLE, create_args, mode, status};
use crate::real::World;

const GETATTR: u32 = 1;
const SETATTR: u32 = 2;
const WRITE: u32 = 7;
const CREATE: u32 = 8;
const REMOVE: u32 = 12;
const COMMIT: u32 = 21;

fn send(client: &mut Client, procedure: u32, arguments: Xdr) -> u32 {
    client.send(&Header::new(NFS, 3, procedure), &arguments.0)
}

/// The next reply: its xid and status.
fn next(client: &mut Client) -> (u32, u32) {
    match client.reply() {
        (xid, Reply::Accepted(SUCCESS, body)) => (xid, Body(&body).u32()),
        other => panic!("{other:?}"),
    }
}

fn write_args(fh: &[u8], stable: u32) -> Xdr {
    Xdr::new().opaque(fh).u64(0).u32(5).u32(stable).opaque(b"bytes")
}

/// While the disk's syncs are held back, what may be lost is answered and what may not is not.
#[test]
fn only_unstable_writes_are_answered_before_they_are_on_stable_storage() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    client.write(&hello, 0, b"warm", FILE_SYNC).unwrap();
    client.create(&root, "warm", &mode(0)).unwrap();
    let waiting = [
        (WRITE, write_args(&hello, FILE_SYNC)),
        (WRITE, write_args(&hello, 1)),
        (COMMIT, Xdr::new().opaque(&hello).u64(0).u32(0)),
        (CREATE, create_args(&root, "new", &Set::default())),
        (REMOVE, Xdr::new().opaque(&root).opaque(b"warm")),
        (SETATTR, Xdr::new().opaque(&hello).u32(1).u32(0o600).u32(0).u32(0).u32(0).u32(0).u32(0).u32(0)),
    ];
    world.machine.gate.close();
    client.write(&hello, 0, b"dirty", UNSTABLE).unwrap();
    let mut sent: Vec<u32> =
        waiting.into_iter().map(|(procedure, arguments)| send(&mut client, procedure, arguments)).collect();
    let probe = send(&mut client, GETATTR, Xdr::new().opaque(&root));
    assert_eq!(next(&mut client), (probe, OK), "what was sent last is answered first");
    world.machine.gate.open();
    while !sent.is_empty() {
        let (xid, status) = next(&mut client);
        assert_eq!(status, OK);
        let at = sent.iter().position(|waiting| *waiting == xid).expect("answered once");
        sent.remove(at);
    }
}

#[test]
fn what_was_answered_is_there_after_a_power_cut() {
    let mut world = World::new();
    let (mut client, root) = world.desk();
    let dir = client.mkdir(&root, "dir", &mode(0o755)).unwrap().fh;
    let file = client.create(&dir, "file", &mode(0o640)).unwrap().fh;
    client.write(&file, 0, b"stable", FILE_SYNC).unwrap();
    client.rename((&root, "hello"), (&dir, "moved")).unwrap();
    client.link(&file, &root, "again").unwrap();
    client.remove(&root, "big").unwrap();
    client.rmdir(&root, "tmp").unwrap();
    client.setattr(&file, &mode(0o600), None).unwrap();
    client.write(&file, 6, b" and committed", UNSTABLE).unwrap();
    client.commit(&file).unwrap();
    let before = (client.names(&root), client.names(&dir), client.attr(&file), client.attr(&root));
    for _ in 0..2 {
        world.crash();
        let mut client = world.client();
        assert_eq!((client.names(&root), client.names(&dir), client.attr(&file), client.attr(&root)), before);
        assert_eq!(client.read_all(&file), b"stable and committed");
        assert_eq!(client.lookup(&root, "big").unwrap_err(), NOENT);
    }
}

#[test]
fn a_failed_sync_fails_the_call_and_every_change_after_it() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    client.write(&hello, 0, b"warm", FILE_SYNC).unwrap();
    client.write(&hello, 0, b"dirty", UNSTABLE).unwrap();
    world.machine.disk.fail_after(0, Fault::Io);
    let failed = client.commit(&hello).unwrap_err();
    assert_eq!(failed.wcc[0].after, None, "the failure comes without attributes");
    assert_ne!(status(client.write(&hello, 0, b"later", UNSTABLE)), OK);
    assert_ne!(status(client.create(&root, "new", &mode(0))), OK);
    assert_eq!(client.read_all(&hello), b"dirty, world\n", "reading goes on");
}

//! Many calls at once, calls that wait, and the way down.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::{self, Body, Client, Header, NFS, Reply, SUCCESS, framed};
use crate::tree::{BIG, HELLO, SLOW, Tree};
use crate::{Harness, on};

const GETATTR: u32 = 1;
const READ: u32 = 6;
/// `nfs::conn::MAX_IN_FLIGHT`
const MAX_IN_FLIGHT: usize = 128;

fn gated() -> Harness {
    let server = Harness::new();
    server.tree.gate().close();
    server
}

fn slow_read(xid: u32) -> Vec<u8> {
    framed(&Header::new(NFS, 3, READ).record(xid, &on(SLOW).u64(0).u32(100).0))
}

fn getattr(xid: u32) -> Vec<u8> {
    framed(&Header::new(NFS, 3, GETATTR).record(xid, &on(HELLO).0))
}

fn assert_ok((xid, reply): (u32, Reply)) -> u32 {
    match reply {
        Reply::Accepted(SUCCESS, body) => assert_eq!(Body(&body).u32(), client::OK, "xid {xid}"),
        other => panic!("xid {xid}: {other:?}"),
    }
    xid
}

fn assert_all_answered(client: &mut Client, mut expected: BTreeSet<u32>) {
    while !expected.is_empty() {
        let xid = assert_ok(client.reply());
        assert!(expected.remove(&xid), "{xid} was answered twice or never asked");
    }
}

#[test]
fn a_thousand_calls_in_a_row_are_all_answered() {
    for tree in [Tree::new(), Tree::cold()] {
        let server = Harness::start(tree, |_| {});
        let mut client = server.client();
        let mut writer = client.stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            for xid in 0..1000 {
                let read = Header::new(NFS, 3, READ).record(xid, &on(BIG).u64(u64::from(xid)).u32(10_000).0);
                let call = if xid % 3 == 0 { framed(&read) } else { getattr(xid) };
                writer.write_all(&call).unwrap();
            }
        });
        assert_all_answered(&mut client, (0..1000).collect());
        sender.join().unwrap();
    }
}

#[test]
fn calls_that_wait_are_bounded_and_all_answered() {
    let server = gated();
    let mut client = server.client();
    let calls: Vec<u8> = (0..1000).flat_map(slow_read).collect();
    client.send_bytes(&calls);
    server.tree.gate().wait_for(MAX_IN_FLIGHT);
    // Whatever else this server did with the connection, another one is served meanwhile.
    assert_eq!(server.client().status(GETATTR, on(HELLO)), client::OK);
    server.tree.gate().open();
    assert_all_answered(&mut client, (0..1000).collect());
    assert_eq!(server.tree.gate().peak(), MAX_IN_FLIGHT);
}

/// One slow call of each of many clients holds more than all may: the others wait, and are answered after.
#[test]
fn calls_that_wait_are_bounded_over_all_connections() {
    const ALL: usize = 4;
    let server = Harness::start(Tree::new(), |options| {
        options.workers = 1;
        // A READ of a few bytes with its pages and arguments.
        options.bounds.slow_bytes = ALL * 65 * 1024;
    });
    server.tree.gate().close();
    let mut clients: Vec<Client> = (0..10 * ALL).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send_bytes(&[slow_read(1), slow_read(2)].concat());
    }
    server.tree.gate().wait_for(ALL);
    for _ in 0..10 {
        assert_eq!(server.client().status(GETATTR, on(HELLO)), client::OK, "what need not wait does not");
    }
    server.tree.gate().open();
    for client in &mut clients {
        assert_all_answered(client, [1, 2].into());
    }
    assert_eq!(server.tree.gate().peak(), ALL);
}

/// A record of 1 MiB, of which the server is sent so much, and the rest.
fn large_write(sent: usize) -> (Vec<u8>, Vec<u8>) {
    let arguments = on(HELLO).u64(0).u32(1 << 20).u32(0).opaque(&vec![7; 1 << 20]);
    let mut begun = framed(&Header::new(NFS, 3, 7).record(1, &arguments.0));
    let rest = begun.split_off(sent);
    (begun, rest)
}

fn one_large_record_at_a_time() -> Harness {
    Harness::start(Tree::new(), |options| {
        options.workers = 1;
        options.bounds.input_bytes = 1;
    })
}

#[test]
fn large_records_are_bounded_over_all_connections() {
    let server = one_large_record_at_a_time();
    let (begun, rest) = large_write(100_000);
    let mut first = server.client();
    first.send_bytes(&begun);
    let mut bystander = server.client();
    for _ in 0..3 {
        // By then the only worker has read what came before.
        assert_eq!(bystander.status(GETATTR, on(HELLO)), client::OK);
    }
    let second_done = Arc::new(AtomicBool::new(false));
    let (mut second, done) = (server.client(), second_done.clone());
    let second = std::thread::spawn(move || {
        let (begun, rest) = large_write(100_000);
        second.send_bytes(&[begun, rest].concat());
        second.reply();
        done.store(true, Ordering::SeqCst);
    });
    for _ in 0..200 {
        assert_eq!(bystander.status(GETATTR, on(HELLO)), client::OK, "small ones are taken");
    }
    assert!(!second_done.load(Ordering::SeqCst), "it waits for the first");
    first.send_bytes(&rest);
    first.reply();
    second.join().unwrap();
}

#[test]
fn who_ends_within_a_large_record_leaves_room_for_the_next() {
    let server = one_large_record_at_a_time();
    for _ in 0..3 {
        server.client().send_bytes(&large_write(100_000).0);
    }
    let (begun, rest) = large_write(0);
    let mut client = server.client();
    client.send_bytes(&[begun, rest].concat());
    client.reply();
}

/// Byte by byte, none of them late: before all of it is there the time for it is over.
#[test]
fn a_record_must_come_in_a_bounded_time() {
    let server = Harness::start(Tree::new(), |options| options.bounds.record_time = Duration::from_millis(20));
    let mut client = server.client();
    let (_, record) = large_write(0);
    let cut_off = record.chunks(1).any(|byte| client.stream.write_all(byte).is_err());
    assert!(cut_off, "{} bytes were taken", record.len());
    assert_eq!(server.client().status(GETATTR, on(HELLO)), client::OK);
}

#[test]
fn one_address_does_not_get_all_connections() {
    let server = Harness::start(Tree::new(), |options| options.max_connections = 8);
    let mut many: Vec<Client> = (0..6).map(|_| server.client()).collect();
    for client in &mut many {
        assert_eq!(client.status(GETATTR, on(HELLO)), client::OK);
    }
    assert_eq!(server.client().receive(), None);
    let mut other = Client::connect_from(([127, 0, 0, 2], 0).into(), server.addr);
    assert_eq!(other.status(GETATTR, on(HELLO)), client::OK);
    drop(many);
    let served = (0..100_000).any(|_| {
        let mut client = server.client();
        client.stream.write_all(&getattr(9)).is_ok() && client.receive().is_some()
    });
    assert!(served, "the places of those that closed are free again");
}

#[test]
fn a_call_that_waits_does_not_hold_up_the_others() {
    let server = gated();
    let mut client = server.client();
    client.send_bytes(&slow_read(1));
    server.tree.gate().wait_for(1);
    client.send_bytes(&[getattr(2), getattr(3)].concat());
    assert_eq!([assert_ok(client.reply()), assert_ok(client.reply())], [2, 3]);
    server.tree.gate().open();
    assert_eq!(assert_ok(client.reply()), 1);
}

#[test]
fn a_client_that_closes_its_side_still_gets_its_answers() {
    let server = gated();
    let mut client = server.client();
    client.send_bytes(&[slow_read(1), getattr(2)].concat());
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(assert_ok(client.reply()), 2);
    server.tree.gate().open();
    assert_eq!(assert_ok(client.reply()), 1);
    assert_eq!(client.receive(), None);
}

#[test]
fn shutdown_answers_what_is_in_flight() {
    let mut server = gated();
    let mut client = server.client();
    client.send_bytes(&[slow_read(1), slow_read(2)].concat());
    server.tree.gate().wait_for(2);
    server.stop();
    server.tree.gate().open();
    assert_all_answered(&mut client, [1, 2].into());
    assert_eq!(client.receive(), None, "then the server closes");
    drop(client);
    server.ended().unwrap();
    assert!(std::net::TcpStream::connect(server.addr).is_err(), "nobody listens any more");
}

#[test]
fn shutdown_does_not_wait_for_ever() {
    let mut server = Harness::start(Tree::new(), |options| options.drain = Duration::from_millis(50));
    server.tree.gate().close();
    let mut client = server.client();
    client.send_bytes(&slow_read(1));
    server.tree.gate().wait_for(1);
    server.ended().unwrap();
    assert_eq!(client.receive(), None);
}

#[test]
fn one_connection_too_many_is_closed_at_once() {
    let server = Harness::start(Tree::new(), |options| options.max_connections = 2);
    let mut first = server.client();
    let mut second = server.client();
    for client in [&mut first, &mut second] {
        assert_eq!(client.status(GETATTR, on(HELLO)), client::OK);
    }
    assert_eq!(server.client().receive(), None);
    assert_eq!(first.status(GETATTR, on(HELLO)), client::OK);
    drop(first);
    // The seat is free as soon as the server has seen the end of the connection.
    let served = (0..100_000).any(|_| {
        let mut client = server.client();
        client.stream.write_all(&getattr(9)).is_ok() && client.receive().is_some()
    });
    assert!(served);
}

//! Calls that come twice: the duplicate request cache.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use mimeo::image::ExportOverrides;

use super::limits::set_policy;
use crate::client::{ACCES, Body, Client, EXIST, Header, NFS, NOENT, OK, Reply, SUCCESS, Xdr, framed};
use crate::ops::{create_args, mode, parse_made, place};
use crate::real::World;

const CREATE: u32 = 8;
const REMOVE: u32 = 12;
const RENAME: u32 = 14;
const LINK: u32 = 15;
const XID: u32 = 0x7ea5_0001;

fn send(client: &mut Client, xid: u32, procedure: u32, arguments: &Xdr) {
    let header = Header { credential: client.credential.clone(), ..Header::new(NFS, 3, procedure) };
    client.send_bytes(&framed(&header.record(xid, &arguments.0)));
}

fn receive(client: &mut Client) -> (u32, Vec<u8>) {
    match client.reply() {
        (xid, Reply::Accepted(SUCCESS, results)) => (xid, results),
        other => panic!("{other:?}"),
    }
}

/// Call with a transaction id of choice.
fn call(client: &mut Client, xid: u32, procedure: u32, arguments: &Xdr) -> Vec<u8> {
    send(client, xid, procedure, arguments);
    let (answered, results) = receive(client);
    assert_eq!(answered, xid);
    results
}

fn status_of(results: &[u8]) -> u32 {
    Body(results).u32()
}

/// Every procedure that must not run twice, in an order in which each succeeds once.
fn calls(client: &mut Client, root: &[u8]) -> Vec<(u32, Xdr)> {
    let hello = client.find(root, "hello");
    let attributes = Xdr::new().u32(0).u32(0).u32(0).u32(0).u32(0).u32(0).0;
    let now = client.attr(&hello).ctime;
    vec![
        (
            2,
            Xdr::new().opaque(&hello).u32(1).u32(0o600).u32(0).u32(0).u32(0).u32(0).u32(0).u32(1).u32(now.0).u32(now.1),
        ),
        (CREATE, create_args(root, "file", &mode(0o644))),
        (9, place(root, b"dir").raw(&attributes)),
        (10, place(root, b"symlink").raw(&attributes).opaque(b"to")),
        (11, place(root, b"fifo").u32(7).raw(&attributes)),
        (LINK, Xdr::new().opaque(&hello).raw(&place(root, b"linked").0)),
        (RENAME, place(root, b"file").raw(&place(root, b"moved").0)),
        (REMOVE, place(root, b"moved")),
        (13, place(root, b"dir")),
    ]
}

#[test]
fn every_procedure_that_must_not_run_twice_answers_the_same_again() {
    let world = World::new();
    let (mut client, root) = world.desk();
    for (n, (procedure, arguments)) in calls(&mut client, &root).into_iter().enumerate() {
        let xid = XID + n as u32;
        let first = call(&mut client, xid, procedure, &arguments);
        assert_eq!(status_of(&first), OK, "procedure {procedure}");
        let after = client.attr(&root);
        for _ in 0..2 {
            assert_eq!(call(&mut client, xid, procedure, &arguments), first, "procedure {procedure}");
        }
        assert_eq!(client.attr(&root), after, "procedure {procedure} ran once");
        let other = call(&mut client, xid + 1000, procedure, &arguments);
        assert_ne!(other, first, "another transaction of procedure {procedure} is another call");
    }
}

#[test]
fn a_failure_is_answered_again_too() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let arguments = place(&root, b"later");
    let first = call(&mut client, XID, REMOVE, &arguments);
    assert_eq!(status_of(&first), NOENT);
    client.create(&root, "later", &mode(0o644)).unwrap();
    assert_eq!(call(&mut client, XID, REMOVE, &arguments), first);
    assert!(client.lookup(&root, "later").is_ok());
}

#[test]
fn the_same_transaction_of_another_call_or_user_is_its_own() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let tmp = client.find(&root, "tmp");
    assert_eq!(status_of(&call(&mut client, XID, CREATE, &create_args(&tmp, "a", &mode(0o644)))), OK);
    assert_eq!(status_of(&call(&mut client, XID, CREATE, &create_args(&tmp, "b", &mode(0o644)))), OK, "another name");
    assert_eq!(status_of(&call(&mut client, XID, REMOVE, &place(&tmp, b"b"))), OK, "another procedure");
    client.credential = crate::client::auth_sys(1000, 100, &[]);
    assert_eq!(
        status_of(&call(&mut client, XID, CREATE, &create_args(&tmp, "a", &mode(0o644)))),
        EXIST,
        "another user"
    );
}

#[test]
fn from_another_connection_it_is_the_same_call_only_if_the_first_is_closed() {
    let world = World::new();
    let (mut first, root) = world.desk();
    let mut second = world.client();
    let arguments = create_args(&root, "new", &mode(0o644));
    let made = call(&mut first, XID, CREATE, &arguments);
    assert_eq!(status_of(&made), OK);
    assert_eq!(status_of(&call(&mut second, XID, CREATE, &arguments)), EXIST, "another client behind one address");
    assert_eq!(call(&mut first, XID, CREATE, &arguments), made);
    first.stream.shutdown(std::net::Shutdown::Both).unwrap();
    // The server sees the end of the first connection some time after the client does.
    let same = (0..100_000).any(|_| call(&mut world.client(), XID, CREATE, &arguments) == made);
    assert!(same);
}

/// The overlay is held back, so that the first call waits; the second waits for it.
#[test]
fn a_call_that_comes_again_while_the_first_runs_waits_for_it() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let top = world.clone_record("desk").view.top;
    let frozen = world.block_on(world.overlays().freeze(vec![top]));
    let arguments = create_args(&root, "new", &mode(0o644));
    for _ in 0..3 {
        send(&mut client, XID, CREATE, &arguments);
    }
    let probe = client.attr(&root);
    drop(frozen);
    let answers: Vec<_> = (0..3).map(|_| receive(&mut client)).collect();
    assert!(answers.iter().all(|(xid, results)| (*xid, results) == (XID, &answers[0].1)));
    let made = parse_made(&answers[0].1).unwrap();
    made.wcc.assert_changed(&probe);
}

/// The first connection is half closed, so its call goes on running. Its end has been seen when a call that
/// it had made in another clone, which is not held back, is known to others.
#[test]
fn who_asks_over_another_connection_while_the_first_runs_waits_for_it() {
    let world = World::new();
    world.clone_as("other");
    let (mut first, root) = world.desk();
    let other = first.mount("/clones/other").unwrap();
    let (done, arguments) = (create_args(&other, "new", &mode(0)), create_args(&root, "new", &mode(0o644)));
    let made = call(&mut first, XID, CREATE, &done);
    let top = world.clone_record("desk").view.top;
    let frozen = world.block_on(world.overlays().freeze(vec![top]));
    send(&mut first, XID, CREATE, &arguments);
    first.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut second = world.client();
    assert!((0..100_000).any(|_| call(&mut world.client(), XID, CREATE, &done) == made));
    send(&mut second, XID, CREATE, &arguments);
    let probe = second.send(&Header::new(NFS, 3, 0), &[]);
    assert_eq!(receive(&mut second).0, probe);
    drop(frozen);
    let answer = receive(&mut second);
    assert_eq!(status_of(&answer.1), OK);
    assert_eq!(receive(&mut first), answer);
}

/// The first connection ends while its call waits for the disk: the change is made, and who asks again
/// over another connection gets its answer.
#[test]
fn an_answer_outlives_the_connection_that_it_was_for() {
    let world = World::new();
    let (mut first, root) = world.desk();
    first.create(&root, "warm", &mode(0)).unwrap();
    let arguments = create_args(&root, "new", &mode(0o644));
    world.machine.gate.close();
    send(&mut first, XID, CREATE, &arguments);
    let (fh, _) = loop {
        if let Ok(found) = world.client().lookup(&root, "new") {
            break found;
        }
    };
    drop(first);
    let mut second = retry_until_known(&world, &arguments);
    world.machine.gate.open();
    let (xid, results) = receive(&mut second);
    assert_eq!((xid, parse_made(&results).unwrap().fh), (XID, fh));
}

/// A loopback address that nobody else uses, with any port: so that no other test gets a port of it
/// before it is bound again.
fn lone_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    SocketAddr::from(([127, 1, high, low], 0))
}

/// `nfs::conn::MAX_IN_FLIGHT`
const MAX_IN_FLIGHT: u32 = 128;

/// A connection on which the call is made, and so many others that the server reads no more: none can be
/// answered as long as the disk is held back.
fn make_busy(world: &World, client: &mut Client, root: &[u8], arguments: &Xdr) {
    send(client, XID, CREATE, arguments);
    for n in 1..MAX_IN_FLIGHT {
        send(client, XID + n, CREATE, &create_args(root, &format!("busy-{n}"), &mode(0)));
    }
    let last = format!("busy-{}", MAX_IN_FLIGHT - 1);
    let mut other = world.client();
    while other.lookup(root, &last).is_err() {}
    // More than it takes is on its way.
    send(client, XID + MAX_IN_FLIGHT, CREATE, &create_args(root, "never-read", &mode(0)));
}

/// The server cannot know yet that the first connection is dead. That another came from its port proves it.
#[test]
fn a_retry_from_the_same_port_is_known_while_the_old_connection_is_busy() {
    let world = World::new();
    let (mut other, root) = world.desk();
    other.create(&root, "warm", &mode(0)).unwrap();
    let arguments = create_args(&root, "new", &mode(0o644));
    world.machine.gate.close();
    let mut first = world.client_from(lone_address());
    make_busy(&world, &mut first, &root, &arguments);
    let port = first.abort();
    let mut second = world.client_from(port);
    send(&mut second, XID, CREATE, &arguments);
    let probe = second.send(&Header::new(NFS, 3, 0), &[]);
    assert_eq!(receive(&mut second).0, probe, "the call is not refused");
    world.machine.gate.open();
    let (xid, results) = receive(&mut second);
    assert_eq!((xid, parse_made(&results).unwrap().fh), (XID, other.find(&root, "new")));
}

/// The retry comes from another port, so the server has to see that nobody is left at the first one,
/// although it does not read what came before the end.
#[test]
fn the_end_of_a_busy_connection_is_seen() {
    let world = World::new();
    let (mut other, root) = world.desk();
    other.create(&root, "warm", &mode(0)).unwrap();
    let arguments = create_args(&root, "new", &mode(0o644));
    world.machine.gate.close();
    let mut first = world.client();
    make_busy(&world, &mut first, &root, &arguments);
    first.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut second = retry_until_known(&world, &arguments);
    world.machine.gate.open();
    let (xid, results) = receive(&mut second);
    assert_eq!((xid, parse_made(&results).unwrap().fh), (XID, other.find(&root, "new")));
}

/// A connection on which the call waits for its first answer.
fn retry_until_known(world: &World, arguments: &Xdr) -> Client {
    for _ in 0..100_000 {
        let mut client = world.client();
        send(&mut client, XID, CREATE, arguments);
        // Refused at once as long as the server holds the first connection for open.
        let probe = client.send(&Header::new(NFS, 3, 0), &[]);
        if receive(&mut client).0 == probe {
            return client;
        }
        assert_eq!(receive(&mut client).0, probe);
    }
    panic!("the first connection is held for open");
}

/// Both calls change something, so that both answers are in the log, under one digest.
#[test]
fn two_clients_behind_one_address_keep_their_answers_over_a_restart() {
    let mut world = World::new();
    let (_, root) = world.desk();
    let address = lone_address();
    let (mut first, mut second) = (world.client_from(address), world.client_from(address));
    let hello = first.find(&root, "hello");
    let touch = Xdr::new().opaque(&hello).u32(1).u32(0o600).u32(0).u32(0).u32(0).u32(0).u32(0).u32(0);
    let answers = [call(&mut first, XID, 2, &touch), call(&mut second, XID, 2, &touch)];
    assert!(answers[0] != answers[1] && answers.iter().all(|results| status_of(results) == OK));
    let ports = [first.abort(), second.abort()];
    world.crash();
    for (port, answer) in ports.into_iter().zip(&answers).rev() {
        assert_eq!(call(&mut world.client_from(port), XID, 2, &touch), *answer);
    }
}

#[test]
fn answers_of_an_earlier_start_are_not_for_ever() {
    let mut world = World::new();
    let (mut client, root) = world.desk();
    let arguments = create_args(&root, "new", &mode(0o644));
    let made = call(&mut client, XID, CREATE, &arguments);
    world.crash();
    let mut client = world.client();
    assert_eq!(call(&mut client, XID, CREATE, &arguments), made);
    world.machine.clock.advance(Duration::from_secs(20 * 60));
    assert_eq!(status_of(&call(&mut client, XID, CREATE, &arguments)), EXIST);
}

/// What an export tells only to whom it admits, it does not tell him again when it does not any more.
#[test]
fn an_answer_is_repeated_only_to_whom_the_exports_admit() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let calls = calls(&mut client, &root);
    let answers: Vec<_> =
        calls.iter().map(|(procedure, arguments)| call(&mut client, XID, *procedure, arguments)).collect();
    let elsewhere = ExportOverrides { allow: Some(vec!["10.0.0.0/8".parse().unwrap()]), ..Default::default() };
    set_policy(&world, elsewhere);
    for (procedure, arguments) in &calls {
        let refused = call(&mut client, XID, *procedure, arguments);
        let attributes = match *procedure {
            RENAME => 4,
            LINK => 3,
            _ => 2,
        };
        let bare = (0..attributes).fold(Xdr::new().u32(ACCES), |results, _| results.u32(0)).0;
        assert_eq!(refused, bare, "procedure {procedure}");
    }
    set_policy(&world, ExportOverrides::default());
    for ((procedure, arguments), answer) in calls.iter().zip(&answers) {
        assert_eq!(call(&mut client, XID, *procedure, arguments), *answer, "procedure {procedure}");
    }
}

/// Nothing is kept of who is not let in: he could push the answers of all others out.
#[test]
fn what_a_stranger_was_answered_is_not_kept() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let arguments = create_args(&root, "new", &mode(0o644));
    let elsewhere = ExportOverrides { allow: Some(vec!["10.0.0.0/8".parse().unwrap()]), ..Default::default() };
    set_policy(&world, elsewhere);
    assert_eq!(status_of(&call(&mut client, XID, CREATE, &arguments)), ACCES);
    set_policy(&world, ExportOverrides::default());
    assert_eq!(status_of(&call(&mut client, XID, CREATE, &arguments)), OK);
}

#[test]
fn after_a_power_cut_the_first_answer_comes_again() {
    let mut world = World::new();
    let (mut client, root) = world.desk();
    let calls = calls(&mut client, &root);
    let mut answers = Vec::new();
    for (n, (procedure, arguments)) in calls.iter().enumerate() {
        answers.push(call(&mut client, XID + n as u32, *procedure, arguments));
    }
    for _ in 0..2 {
        world.crash();
        let mut client = world.client();
        for (n, (procedure, arguments)) in calls.iter().enumerate() {
            let again = call(&mut client, XID + n as u32, *procedure, arguments);
            assert_eq!(again, answers[n], "procedure {procedure}");
        }
    }
}

/// What never reached the disk never happened: the call runs anew, and says so by its success.
#[test]
fn a_call_that_a_power_cut_undid_runs_again() {
    let mut world = World::new();
    let (mut client, root) = world.desk();
    client.create(&root, "warm", &mode(0)).unwrap();
    world.machine.gate.close();
    let arguments = create_args(&root, "new", &mode(0o644));
    send(&mut client, XID, CREATE, &arguments);
    while world.client().lookup(&root, "new").is_err() {}
    world.crash();
    let mut client = world.client();
    assert_eq!(client.lookup(&root, "new").unwrap_err(), NOENT);
    let made = parse_made(&call(&mut client, XID, CREATE, &arguments)).unwrap();
    assert_eq!(client.find(&root, "new"), made.fh);
}

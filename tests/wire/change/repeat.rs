//! Calls that come twice: the duplicate request cache.

use crate::client::{Body, Client, EXIST, Header, NFS, NOENT, OK, Reply, SUCCESS, Xdr, framed};
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
    let mut second = world.client();
    loop {
        send(&mut second, XID, CREATE, &arguments);
        // Refused at once as long as the server holds the first connection for open.
        let probe = second.send(&Header::new(NFS, 3, 0), &[]);
        if receive(&mut second).0 == probe {
            break;
        }
        assert_eq!(receive(&mut second).0, probe);
        second = world.client();
    }
    world.machine.gate.open();
    let (xid, results) = receive(&mut second);
    assert_eq!((xid, parse_made(&results).unwrap().fh), (XID, fh));
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

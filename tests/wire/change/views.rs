//! What clients hold across switches of a clone's view: handles go on meaning one line of content each,
//! and writes go to the view that their handle means.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::client::{Client, NOENT, OK, STALE, XDEV};
use crate::ops::{FILE_SYNC, UNSTABLE, mode, size, status};
use crate::real::{HELLO_TEXT, World, image, next_image};

const CHANGES: u32 = 0x04 | 0x08 | 0x10;

#[test]
fn a_handle_held_over_a_restore_stays_with_the_former_view() {
    let mut world = World::new();
    let (mut client, root) = world.desk();
    let (hello, _) = client.lookup(&root, "hello").unwrap();
    let (big, big_attr) = client.lookup(&root, "big").unwrap();
    client.write(&hello, 0, b"FIRST", FILE_SYNC).unwrap();
    world.snapshot("s");
    client.write(&hello, 0, b"LATER", FILE_SYNC).unwrap();
    let held = client.attr(&hello);
    let dir = client.attr(&root);
    world.restore("s");
    let (fresh, attr) = client.lookup(&root, "hello").unwrap();
    assert!(fresh != hello && attr.fileid != held.fileid, "another line of content");
    assert_eq!(client.read_all(&fresh), b"FIRST, world\n");
    assert_eq!(client.attr(&hello), held);
    assert_eq!(client.read_all(&hello), b"LATER, world\n");
    client.write(&hello, 0, b"PINNED", FILE_SYNC).unwrap();
    client.write(&fresh, 0, b"fresh", FILE_SYNC).unwrap();
    client.setattr(&hello, &mode(0o600), None).unwrap();
    client.commit(&hello).unwrap();
    world.crash();
    let mut client = world.client();
    assert_eq!(client.read_all(&hello), b"PINNED world\n");
    assert_eq!(client.read_all(&fresh), b"fresh, world\n");
    assert_eq!((client.attr(&hello).mode, client.attr(&fresh).mode), (0o600, 0o644));
    assert_eq!(client.lookup(&root, "big").unwrap(), (big, big_attr), "what nobody wrote is the same for clients");
    let now = client.attr(&root);
    assert_eq!((now.fileid, now.nlink), (dir.fileid, dir.nlink));
    assert!(now.ctime > dir.ctime, "clients look again");
}

#[test]
fn a_discard_leaves_private_files_to_those_who_hold_them() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    client.write(&hello, 0, b"HELLO", FILE_SYNC).unwrap();
    let mine = client.create(&root, "mine", &mode(0o644)).unwrap().fh;
    client.write(&mine, 0, b"mine", FILE_SYNC).unwrap();
    client.remove(&root, "big").unwrap();
    world.discard(1);
    assert_eq!(client.lookup(&root, "mine").unwrap_err(), NOENT);
    assert!(client.lookup(&root, "big").is_ok(), "its removal was discarded");
    let (fresh, _) = client.lookup(&root, "hello").unwrap();
    assert_ne!(fresh, hello);
    client.write(&mine, 4, b" still", FILE_SYNC).unwrap();
    client.write(&hello, 0, b"guest", FILE_SYNC).unwrap();
    assert_eq!(client.read_all(&mine), b"mine still");
    assert_eq!(client.read_all(&hello), b"guest, world\n");
    assert_eq!(client.read_all(&fresh), HELLO_TEXT, "the clean base stays clean");
    client.create(&root, "mine", &mode(0o644)).unwrap();
    let again = client.find(&root, "mine");
    assert!(again != mine && client.read_all(&again).is_empty());
}

#[test]
fn what_only_a_former_view_has_takes_no_names() {
    let world = World::new();
    world.publish(next_image);
    let (mut client, root) = world.desk();
    let (tmp, hello) = (client.find(&root, "tmp"), client.find(&root, "hello"));
    let mine = client.create(&tmp, "mine", &mode(0o666)).unwrap().fh;
    assert_eq!(client.access(&tmp) & CHANGES, CHANGES);
    world.discard(2);
    assert_eq!(client.lookup(&root, "tmp").unwrap_err(), NOENT);
    assert_eq!(client.names(&tmp), ["mine"], "it is listed as it was");
    assert_eq!(client.find(&tmp, "mine"), mine);
    assert_eq!(client.access(&tmp) & CHANGES, 0);
    assert_eq!(client.access(&mine) & CHANGES, 0x0c);
    assert_eq!(status(client.create(&tmp, "new", &mode(0o644))), STALE);
    assert_eq!(status(client.remove(&tmp, "mine")), STALE);
    assert_eq!(status(client.rename((&tmp, "mine"), (&root, "mine"))), STALE);
    assert_eq!(status(client.rename((&root, "big"), (&tmp, "big"))), STALE);
    assert_eq!(client.link(&mine, &root, "mine").unwrap_err().0, XDEV);
    assert_eq!(client.link(&hello, &root, "old").unwrap_err().0, XDEV);
    client.write(&mine, 0, b"data goes on", FILE_SYNC).unwrap();
    client.setattr(&tmp, &mode(0o700), None).unwrap();
    assert_eq!(client.attr(&tmp).mode, 0o700);
    assert_eq!(client.read_all(&hello), HELLO_TEXT);
    let fresh = client.find(&root, "hello");
    assert_eq!(client.read_all(&fresh), b"version two\n");
}

#[test]
fn handles_are_told_apart_over_many_switches() {
    let world = World::new();
    let (mut client, root) = world.desk();
    world.snapshot("empty");
    let mut held: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut fileids = Vec::new();
    for round in 0..40u8 {
        let (fh, attr) = client.lookup(&root, "hello").unwrap();
        assert!(held.iter().all(|(other, _)| *other != fh), "round {round}");
        fileids.push(attr.fileid);
        let text = vec![round; 20];
        client.write(&fh, 0, &text, UNSTABLE).unwrap();
        held.push((fh, text));
        let made = client.create(&root, &format!("new-{round}"), &mode(0o644)).unwrap();
        assert_eq!(client.lookup(&root, &format!("new-{round}")).unwrap(), (made.fh.clone(), made.attr));
        client.write(&made.fh, 0, &[round], UNSTABLE).unwrap();
        held.push((made.fh, vec![round]));
        let listed = client.list(&root);
        for (name, fileid, attr, fh) in listed {
            assert_eq!(client.lookup(&root, &name).unwrap(), (fh, attr.clone()), "{name}");
            assert_eq!(attr.fileid, fileid);
        }
        world.restore("empty");
    }
    fileids.sort_unstable();
    fileids.dedup();
    assert_eq!(fileids.len(), 40);
    for (fh, text) in &held {
        assert_eq!(client.read_all(fh), *text);
    }
}

#[test]
fn a_dropped_view_takes_its_handles_along() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    client.write(&hello, 0, b"HELLO", FILE_SYNC).unwrap();
    world.discard(1);
    let fresh = client.find(&root, "hello");
    world.block_on(world.fleet().drop_pins(mimeo::image::CloneTarget::All)).unwrap();
    assert_eq!(client.getattr(&hello).unwrap_err(), STALE);
    assert_eq!(status(client.write(&hello, 0, b"x", FILE_SYNC)), STALE);
    assert_eq!(client.read_all(&fresh), HELLO_TEXT);
}

/// A file that a switch did not touch is the same in both views, and so it is gone when it is removed in the
/// new one: what the former view still has is no longer what its handle means.
#[test]
fn what_is_removed_after_a_switch_is_gone_though_the_former_view_has_it() {
    let world = World::new();
    world.publish(image);
    let (mut client, root) = world.desk();
    let (hello, big, empty) =
        (client.find(&root, "hello"), client.find(&root, "big"), client.find(&root, "home/empty"));
    let home = client.find(&root, "home");
    world.discard(2);
    assert_eq!(client.find(&root, "hello"), hello);
    client.write(&hello, 0, b"later", FILE_SYNC).unwrap();
    client.remove(&root, "hello").unwrap();
    client.rename((&home, "inner"), (&root, "big")).unwrap();
    client.rmdir(&home, "empty").unwrap();
    for gone in [&hello, &big, &empty] {
        assert_eq!(client.getattr(gone).unwrap_err(), STALE);
        assert_eq!(status(client.setattr(gone, &mode(0o600), None)), STALE);
    }
    assert_eq!(client.read(&hello, 0, 10).unwrap_err(), STALE, "never the bytes from before");
}

#[test]
fn an_unwritten_clone_keeps_every_handle_over_a_repoint_and_back() {
    let world = World::new();
    world.publish(image);
    let (mut client, root) = world.desk();
    let before = client.list(&root);
    world.discard(2);
    world.discard(1);
    let handles = |lines: Vec<(String, u64, crate::client::Fattr, Vec<u8>)>| {
        lines.into_iter().map(|(name, fileid, _, fh)| (name, fileid, fh)).collect::<Vec<_>>()
    };
    assert_eq!(handles(client.list(&root)), handles(before));
}

/// A change that resolved in a view just before it was switched away is made in the new one: its answer
/// is true afterwards.
#[test]
fn a_change_that_a_switch_overtakes_is_made_in_the_new_view() {
    let world = World::new();
    let (mut client, root) = world.desk();
    world.snapshot("s");
    let big = client.find(&root, "big");
    client.create(&root, "warm", &mode(0o644)).unwrap();
    let overtaken = |call: fn(&mut Client, &[u8], &[u8])| {
        world.machine.trap.set();
        let (mut client, root, big) = (world.client(), root.clone(), big.clone());
        let call = std::thread::spawn(move || call(&mut client, &root, &big));
        world.machine.trap.wait();
        world.restore("s");
        world.machine.trap.release();
        call.join().unwrap();
    };
    overtaken(|client, root, _| {
        client.create(root, "new", &mode(0o644)).unwrap();
    });
    assert!(client.lookup(&root, "new").is_ok());
    overtaken(|client, root, _| {
        client.remove(root, "hello").unwrap();
    });
    assert_eq!(client.lookup(&root, "hello").unwrap_err(), NOENT);
    overtaken(|client, _, big| {
        client.write(big, 0, b"written", UNSTABLE).unwrap();
    });
    assert_eq!(client.read(&big, 0, 7).unwrap().0, b"written");
    assert_eq!(client.find(&root, "big"), big, "nobody had written to it before the switch");
}

/// Numbers are written through one handle as fast as it goes while the view is switched again and again.
/// All of them are in the line of content that the handle means, none anywhere else.
#[test]
fn writes_during_switches_stay_with_their_handle() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    client.write(&hello, 0, b"kept!", FILE_SYNC).unwrap();
    world.snapshot("s");
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let (mut client, fh) = (world.client(), hello.clone());
        let (stop, written) = (stop.clone(), written.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let number = written.load(Ordering::Relaxed) + 1;
                let stable = if number.is_multiple_of(3) { FILE_SYNC } else { UNSTABLE };
                client.write(&fh, 0, &number.to_be_bytes(), stable).unwrap();
                written.store(number, Ordering::Relaxed);
            }
        })
    };
    for round in 0..20 {
        let reached = written.load(Ordering::Relaxed) + 20;
        while written.load(Ordering::Relaxed) < reached && !writer.is_finished() {}
        if round % 2 == 0 {
            world.restore("s")
        } else {
            world.discard(1)
        }
        let expected: &[u8] = if round % 2 == 0 { b"kept!, world\n" } else { HELLO_TEXT };
        let fresh = client.find(&root, "hello");
        assert_eq!(client.read_all(&fresh), expected, "round {round}");
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let last = written.load(Ordering::Relaxed);
    assert_eq!(client.read(&hello, 0, 8).unwrap().0, last.to_be_bytes());
}

/// Names are made as fast as it goes while the view is switched: each answer is true of the view that
/// it was given in, and what was made before a restore is gone after it.
#[test]
fn names_made_during_switches_are_in_one_view_each() {
    let world = World::new();
    let (mut client, root) = world.desk();
    world.snapshot("s");
    let before = client.names(&root);
    let stop = Arc::new(AtomicBool::new(false));
    let maker = {
        let (mut client, root, stop) = (world.client(), root.clone(), stop.clone());
        std::thread::spawn(move || make_names(&mut client, &root, &stop))
    };
    for _ in 0..20 {
        world.restore("s");
    }
    stop.store(true, Ordering::Relaxed);
    let made = maker.join().unwrap();
    world.restore("s");
    assert_eq!(client.names(&root), before);
    for (name, fh) in made {
        assert_eq!(client.read_all(&fh), name.as_bytes());
    }
}

fn make_names(client: &mut Client, root: &[u8], stop: &AtomicBool) -> Vec<(String, Vec<u8>)> {
    let mut made = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("new-{}", made.len());
        let fh = client.create(root, &name, &mode(0o644)).unwrap().fh;
        let written = client.write(&fh, 0, name.as_bytes(), UNSTABLE);
        assert_eq!(written.map_or_else(|failed| failed.status, |_| OK), OK, "{name}");
        client.setattr(&fh, &size(name.len() as u64), None).unwrap();
        made.push((name, fh));
    }
    made
}

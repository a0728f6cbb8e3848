//! SETATTR. Who may set what is tested rule by rule beside the code; here are its sentences over the wire.

use crate::client::{ACCES, FBIG, INVAL, ISDIR, NOENT, NOT_SYNC, PERM, ROFS};
use crate::ops::{FILE_SYNC, Set, UNSTABLE, When, mode, size, status};
use crate::real::{BIG_LEN, GROUP, HELLO_TEXT, NOW, USER, World, big_bytes};

#[test]
fn attributes_are_set_and_ctime_grows_though_the_clock_stands_still() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (hello, mut before) = client.lookup(&root, "hello").unwrap();
    for bits in [0o600, 0o4755, 0o600, 0o644] {
        let wcc = client.setattr(&hello, &mode(bits), None).unwrap();
        wcc.assert_changed(&before);
        let now = client.attr(&hello);
        assert_eq!(wcc.after.as_ref(), Some(&now));
        assert_eq!((now.mode, now.mtime, now.size), (bits, before.mtime, before.size), "and nothing else");
        before = now;
    }
    let owner = Set { uid: Some(7), gid: Some(8), ..Set::default() };
    client.setattr(&hello, &owner, None).unwrap();
    let attr = client.attr(&hello);
    assert_eq!((attr.uid, attr.gid), (7, 8));
    assert_eq!(client.read_all(&hello), HELLO_TEXT);
}

#[test]
fn times_are_the_clients_or_the_servers() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (hello, before) = client.lookup(&root, "hello").unwrap();
    let given = Set { atime: When::To((5, 6)), mtime: When::To((7, 8)), ..Set::default() };
    client.setattr(&hello, &given, None).unwrap();
    let attr = client.attr(&hello);
    assert_eq!((attr.atime, attr.mtime, attr.ctime), ((5, 6), (7, 8), (NOW, 0)));
    client.setattr(&hello, &Set { atime: When::Now, ..Set::default() }, None).unwrap();
    let attr = client.attr(&hello);
    assert_eq!((attr.atime, attr.mtime), ((NOW, 0), (7, 8)));
    assert!(attr.ctime > (NOW, 0) && before.ctime < attr.ctime);
    let never = Set { atime: When::To((5, 1_000_000_000)), ..Set::default() };
    assert_eq!(status(client.setattr(&hello, &never, None)), INVAL);
}

#[test]
fn nothing_to_set_changes_nothing() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (hello, before) = client.lookup(&root, "hello").unwrap();
    client.setattr(&hello, &Set::default(), None).unwrap().assert_unchanged(&before);
    assert_eq!(client.attr(&hello), before);
    let (link, before) = client.lookup(&root, "link").unwrap();
    client.setattr(&link, &mode(0o600), None).unwrap().assert_unchanged(&before);
}

#[test]
fn a_guard_lets_only_the_ctime_through_that_it_names() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (hello, before) = client.lookup(&root, "hello").unwrap();
    let (secs, nanos) = before.ctime;
    for other in [(secs, nanos + 1), (secs + 1, nanos), (0, 0)] {
        let failed = client.setattr(&hello, &mode(0), Some(other)).unwrap_err();
        assert_eq!(failed.status, NOT_SYNC);
        failed.wcc[0].assert_unchanged(&before);
    }
    client.setattr(&hello, &mode(0o600), Some(before.ctime)).unwrap();
    assert_eq!(status(client.setattr(&hello, &mode(0), Some(before.ctime))), NOT_SYNC, "it has moved");
}

#[test]
fn files_are_cut_and_extended_with_zeros() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let big = client.find(&root, "big");
    let mut expected = big_bytes();
    for len in [BIG_LEN - 1, 200_001, 70_000, 250_000, 65_536, 3, 100_000, 0, 10] {
        let before = client.attr(&big);
        let wcc = client.setattr(&big, &size(len as u64), None).unwrap();
        wcc.assert_changed(&before);
        expected.resize(len, 0);
        let attr = client.attr(&big);
        assert_eq!((attr.size, attr.mtime), (len as u64, (NOW, 0)), "{len}");
        assert!(client.read_all(&big) == expected, "cut to {len}");
    }
    let before = client.attr(&big);
    client.setattr(&big, &size(10), None).unwrap();
    assert_eq!(client.attr(&big).mtime, before.mtime, "the same size is no change of data");
}

#[test]
fn a_size_is_for_files_and_has_a_bound() {
    let world = World::new();
    let (mut client, root) = world.desk();
    assert_eq!(status(client.setattr(&root, &size(0), None)), ISDIR);
    let pipe = client.find(&root, "pipe");
    assert_eq!(status(client.setattr(&pipe, &size(0), None)), INVAL);
    let hello = client.find(&root, "hello");
    client.setattr(&hello, &size(8 << 40), None).unwrap();
    let (tail, eof) = client.read(&hello, (8 << 40) - 5, 100).unwrap();
    assert_eq!((tail, eof), (vec![0; 5], true));
    let attr = client.attr(&hello);
    assert_eq!((attr.size, attr.used), (8 << 40, HELLO_TEXT.len() as u64), "the hole takes nothing");
    let failed = client.setattr(&hello, &size((8 << 40) + 1), None).unwrap_err();
    assert_eq!(failed.status, FBIG);
    failed.wcc[0].assert_unchanged(&attr);
}

#[test]
fn permissions_are_kept() {
    let world = World::new();
    let (mut root_client, root) = world.desk();
    let (hello, before) = root_client.lookup(&root, "hello").unwrap();
    let mut stranger = world.client_as(77, 77, &[]);
    for (set, why) in [
        (mode(0o777), PERM),
        (Set { uid: Some(77), ..Set::default() }, PERM),
        (Set { gid: Some(77), ..Set::default() }, PERM),
        (Set { mtime: When::To((1, 1)), ..Set::default() }, PERM),
        (Set { mtime: When::Now, ..Set::default() }, ACCES),
        (size(0), ACCES),
    ] {
        let failed = stranger.setattr(&hello, &set, None).unwrap_err();
        assert_eq!(failed.status, why, "{set:?}");
        failed.wcc[0].assert_unchanged(&before);
    }
    let locked = root_client.find(&root, "home/locked");
    let mut owner = world.client_as(USER, GROUP, &[]);
    owner.setattr(&locked, &size(3), None).unwrap();
    assert_eq!(owner.read_all(&locked), b"loc", "the owner may, whatever the mode says");
    let version = root_client.mount("/images/base@v1").unwrap();
    let fixed = root_client.find(&version, "hello");
    assert_eq!(status(root_client.setattr(&fixed, &mode(0), None)), ROFS);
}

#[test]
fn a_new_owner_and_a_strangers_write_take_privileges_away() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    client.setattr(&hello, &mode(0o6777), None).unwrap();
    client.write(&hello, 0, b"H", FILE_SYNC).unwrap();
    assert_eq!(client.attr(&hello).mode, 0o6777, "root keeps them");
    let mut stranger = world.client_as(77, 77, &[]);
    stranger.write(&hello, 0, b"h", FILE_SYNC).unwrap();
    assert_eq!(client.attr(&hello).mode, 0o777);
    client.setattr(&hello, &mode(0o6745), None).unwrap();
    client.setattr(&hello, &Set { gid: Some(8), ..Set::default() }, None).unwrap();
    assert_eq!(client.attr(&hello).mode, 0o2745, "SGID without g+x is no privilege");
}

/// More private data than one change erases: the calls are as any other to the client.
#[test]
fn a_file_with_much_private_data_is_cut_and_removed() {
    const EACH: u64 = 64 * 1024;
    let world = World::new();
    let (mut client, root) = world.desk();
    for name in ["cut", "removed"] {
        let file = client.create(&root, name, &mode(0o644)).unwrap().fh;
        for n in 0..5000 {
            client.write(&file, n * EACH, b"x", UNSTABLE).unwrap();
        }
    }
    let (cut, before) = client.lookup(&root, "cut").unwrap();
    let wcc = client.setattr(&cut, &size(EACH + 1), Some(before.ctime)).unwrap();
    assert_eq!(wcc.after.as_ref(), Some(&client.attr(&cut)));
    let whole = client.read_all(&cut);
    assert_eq!((whole.len() as u64, whole[0], whole[1], whole[EACH as usize]), (EACH + 1, b'x', 0, b'x'));
    assert!(client.attr(&cut).ctime > before.ctime);
    client.remove(&root, "removed").unwrap();
    assert_eq!(client.lookup(&root, "removed").unwrap_err(), NOENT);
    client.create(&root, "removed", &mode(0o644)).unwrap();
}

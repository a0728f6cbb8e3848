//! CREATE, MKDIR, SYMLINK, MKNOD.

use super::assert_dir_changed;
use crate::client::{ACCES, BADHANDLE, BADTYPE, EXIST, INVAL, NAMETOOLONG, NOTDIR, PERM, ROFS, STALE, Xdr, auth_sys};
use crate::ops::{Set, When, mode, size, status};
use crate::real::{GROUP, HELLO_TEXT, NOW, TEAM, USER, World};

const REG: u32 = 1;
const DIR: u32 = 2;
const BLK: u32 = 3;
const CHR: u32 = 4;
const LNK: u32 = 5;
const SOCK: u32 = 6;
const FIFO: u32 = 7;

#[test]
fn create_makes_an_empty_file_of_the_caller() {
    let world = World::new();
    let (mut root_client, root) = world.desk();
    let home = root_client.find(&root, "home");
    let mut client = world.client_as(USER, GROUP, &[]);
    let before = client.attr(&home);
    let made = client.create(&home, "new", &mode(0o640)).unwrap();
    assert_dir_changed(&mut client, &home, &before, &made.wcc);
    let attr = client.attr(&made.fh);
    assert_eq!(attr, made.attr, "the attributes that it told");
    assert_eq!((attr.kind, attr.mode, attr.uid, attr.gid, attr.nlink), (REG, 0o640, USER, GROUP, 1));
    assert_eq!((attr.size, attr.used), (0, 0));
    assert_eq!([attr.atime, attr.mtime, attr.ctime], [(NOW, 0); 3]);
    assert_eq!(client.lookup(&home, "new").unwrap(), (made.fh.clone(), attr));
    assert_eq!(client.names(&home), ["empty", "inner", "locked", "new"]);
    assert_eq!(client.read_all(&made.fh), b"");
    assert_eq!(client.attr(&home).nlink, before.nlink);
}

#[test]
fn new_attributes_are_taken_as_far_as_the_caller_may_choose() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let time = (1_234_567, 89);
    let all = Set {
        mode: Some(0o4751),
        uid: Some(7),
        gid: Some(8),
        size: Some(1000),
        atime: When::To(time),
        mtime: When::To(time),
    };
    let attr = client.create(&root, "roots", &all).unwrap().attr;
    assert_eq!((attr.mode, attr.uid, attr.gid, attr.size), (0o4751, 7, 8, 1000));
    assert_eq!([attr.atime, attr.mtime, attr.ctime], [time, time, (NOW, 0)]);
    let tmp = client.find(&root, "tmp");
    let mut user = world.client_as(USER, GROUP, &[]);
    let attr = user.create(&tmp, "users", &all).unwrap().attr;
    assert_eq!((attr.uid, attr.gid, attr.size), (USER, GROUP, 1000), "an owner of choice is ignored");
    let never = Set { mtime: When::To((0, 1_000_000_000)), ..Set::default() };
    assert_eq!(status(client.create(&root, "never", &never)), INVAL);
}

#[test]
fn a_taken_name_is_refused_or_taken_over_as_the_caller_says() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (hello, attr) = client.lookup(&root, "hello").unwrap();
    let before = client.attr(&root);
    let failed = client.create(&root, "hello", &mode(0o777)).unwrap_err();
    assert_eq!(failed.status, EXIST);
    failed.wcc[0].assert_unchanged(&before);
    let made = client.create_unchecked(&root, "hello", &mode(0o777)).unwrap();
    assert_eq!((made.fh, made.attr), (hello.clone(), attr.clone()), "only its size would be set");
    made.wcc.assert_unchanged(&before);
    let made = client.create_unchecked(&root, "hello", &size(5)).unwrap();
    assert_eq!((made.fh, made.attr.size, made.attr.mode), (hello.clone(), 5, attr.mode));
    made.wcc.assert_unchanged(&before);
    assert_eq!(client.read_all(&hello), &HELLO_TEXT[..5]);
    assert_eq!(status(client.create_unchecked(&root, "home", &Set::default())), EXIST, "a directory");
    let mut stranger = world.client_as(77, 77, &[]);
    assert_eq!(status(stranger.create_unchecked(&root, "hello", &size(0))), ACCES, "he may not write the file");
}

#[test]
fn an_exclusive_create_that_is_repeated_finds_its_file() {
    let mut world = World::new();
    let (mut client, root) = world.desk();
    let made = client.create_exclusive(&root, "mine", 0x1122_3344).unwrap();
    assert_eq!((made.attr.mode, made.attr.size), (0, 0));
    let dir = client.attr(&root);
    let again = client.create_exclusive(&root, "mine", 0x1122_3344).unwrap();
    assert_eq!(again.fh, made.fh);
    again.wcc.assert_unchanged(&dir);
    assert_eq!(status(client.create_exclusive(&root, "mine", 5)), EXIST);
    world.crash();
    let mut client = world.client();
    let again = client.create_exclusive(&root, "mine", 0x1122_3344).unwrap();
    assert_eq!(again.fh, made.fh, "the verifier is as durable as the file");
    client.setattr(&made.fh, &mode(0o600), None).unwrap();
    assert_eq!(status(client.create_exclusive(&root, "mine", 0x1122_3344)), EXIST, "its attributes are set");
    assert_eq!(status(client.create_exclusive(&root, "hello", 0)), EXIST, "no verifier of ours");
}

#[test]
fn mkdir_makes_an_empty_directory_that_counts_as_a_link_of_its_parent() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let before = client.attr(&root);
    let made = client.mkdir(&root, "sub", &mode(0o7750)).unwrap();
    assert_dir_changed(&mut client, &root, &before, &made.wcc);
    assert_eq!(client.attr(&root).nlink, before.nlink + 1);
    let attr = client.attr(&made.fh);
    assert_eq!(
        (attr.kind, attr.mode, attr.nlink, attr.size),
        (DIR, 0o1750, 2, 4096),
        "SUID and SGID are not its to ask"
    );
    assert_eq!(client.lookup(&made.fh, "..").unwrap().0, root);
    assert_eq!(client.names(&made.fh), [""; 0]);
    let inner = client.create(&made.fh, "file", &mode(0o600)).unwrap();
    assert_eq!(client.find(&root, "sub/file"), inner.fh);
    let failed = client.mkdir(&root, "sub", &mode(0o755)).unwrap_err();
    assert_eq!(failed.status, EXIST);
}

#[test]
fn an_sgid_directory_gives_its_group_and_to_directories_its_bit() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let shared = client.find(&root, "shared");
    let mut member = world.client_as(USER, GROUP, &[TEAM]);
    let file = member.create(&shared, "file", &mode(0o664)).unwrap().attr;
    assert_eq!((file.uid, file.gid, file.mode), (USER, TEAM, 0o664));
    let sub = member.mkdir(&shared, "sub", &mode(0o775)).unwrap();
    assert_eq!((sub.attr.gid, sub.attr.mode), (TEAM, 0o2775));
    assert_eq!(member.symlink(&shared, "link", b"x").unwrap().attr.gid, TEAM);
    let mine = member.create(&shared, "tool", &mode(0o2775)).unwrap().attr;
    assert_eq!(mine.mode, 0o2775, "a member may lend the group's rights");
    client.setattr(&shared, &mode(0o2777), None).unwrap();
    let mut stranger = world.client_as(77, 77, &[]);
    let theirs = stranger.create(&shared, "theirs", &mode(0o2775)).unwrap().attr;
    assert_eq!((theirs.gid, theirs.mode), (TEAM, 0o775), "a stranger may not");
}

#[test]
fn symlink_keeps_its_target() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let target = [b'x'; 4096];
    let before = client.attr(&root);
    let made = client.symlink(&root, "far", &target).unwrap();
    assert_dir_changed(&mut client, &root, &before, &made.wcc);
    assert_eq!((made.attr.kind, made.attr.mode, made.attr.size, made.attr.nlink), (LNK, 0o777, 4096, 1));
    assert_eq!(client.readlink(&made.fh), target);
    for target in [&b""[..], b"a\0b"] {
        assert_eq!(status(client.symlink(&root, "bad", target)), INVAL);
    }
    assert_eq!(status(client.symlink(&root, "far", b"x")), EXIST);
}

#[test]
fn mknod_makes_special_files_and_devices_for_root_alone() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let tmp = client.find(&root, "tmp");
    for (name, kind, numbers) in
        [("chr", CHR, Some((1, 3))), ("blk", BLK, Some((8, 1))), ("sock", SOCK, None), ("fifo", FIFO, None)]
    {
        let made = client.mknod(&tmp, name, kind, numbers).unwrap();
        let attr = client.attr(&made.fh);
        assert_eq!((attr.kind, attr.mode, attr.rdev), (kind, 0o640, numbers.unwrap_or_default()), "{name}");
    }
    let mut user = world.client_as(USER, GROUP, &[]);
    assert_eq!(user.mknod(&tmp, "mine", FIFO, None).unwrap().attr.uid, USER);
    assert_eq!(status(user.mknod(&tmp, "disk", BLK, Some((8, 0)))), PERM);
    for kind in [REG, DIR, LNK] {
        let arguments = Xdr::new().opaque(&tmp).opaque(b"odd").u32(kind);
        let results = client.nfs(11, arguments);
        assert_eq!(crate::client::Body(&results).u32(), BADTYPE, "kind {kind}");
    }
}

/// Each name with what CREATE and the like say about it, and what the procedures that take names away
/// say.
#[test]
fn names_that_are_none_are_refused() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let long = "n".repeat(256);
    let cases = [
        ("", INVAL, INVAL),
        (".", EXIST, INVAL),
        ("..", EXIST, INVAL),
        ("a/b", INVAL, INVAL),
        ("a\0b", INVAL, INVAL),
        (&long, NAMETOOLONG, NAMETOOLONG),
    ];
    let hello = client.find(&root, "hello");
    for (name, making, taking) in cases {
        assert_eq!(status(client.create(&root, name, &mode(0))), making, "create {name:?}");
        assert_eq!(status(client.create_unchecked(&root, name, &mode(0))), making, "create unchecked {name:?}");
        assert_eq!(status(client.mkdir(&root, name, &mode(0))), making, "mkdir {name:?}");
        assert_eq!(status(client.symlink(&root, name, b"x")), making, "symlink {name:?}");
        assert_eq!(status(client.mknod(&root, name, FIFO, None)), making, "mknod {name:?}");
        assert_eq!(client.link(&hello, &root, name).unwrap_err().0, making, "link {name:?}");
        assert_eq!(status(client.remove(&root, name)), taking, "remove {name:?}");
        assert_eq!(status(client.rmdir(&root, name)), taking, "rmdir {name:?}");
        assert_eq!(status(client.rename((&root, name), (&root, "x"))), taking, "rename from {name:?}");
        assert_eq!(status(client.rename((&root, "hello"), (&root, name))), taking, "rename to {name:?}");
    }
    let longest = "n".repeat(255);
    client.create(&root, &longest, &mode(0o644)).unwrap();
    assert!(client.names(&root).contains(&longest));
}

#[test]
fn making_takes_write_and_search_and_a_taken_name_is_told_first() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let home = client.find(&root, "home");
    let mut stranger = world.client_as(77, 77, &[]);
    let attr = client.attr(&home);
    let failed = stranger.create(&home, "new", &mode(0o644)).unwrap_err();
    assert_eq!(failed.status, ACCES);
    failed.wcc[0].assert_unchanged(&attr);
    assert_eq!(status(stranger.mkdir(&home, "new", &mode(0o755))), ACCES);
    assert_eq!(status(stranger.symlink(&home, "new", b"x")), ACCES);
    assert_eq!(status(stranger.mknod(&home, "new", FIFO, None)), ACCES);
    assert_eq!(status(stranger.mkdir(&home, "empty", &mode(0o755))), EXIST, "as mkdir -p needs it");
    for (bits, allowed) in [(0o733, true), (0o732, false), (0o731, false)] {
        client.setattr(&home, &mode(bits), None).unwrap();
        let outcome = stranger.create(&home, &format!("by-{bits:o}"), &mode(0o644));
        assert_eq!(outcome.is_ok(), allowed, "mode {bits:o}: {outcome:?}");
    }
}

#[test]
fn what_is_no_directory_or_gone_or_read_only_takes_no_names() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (hello, attr) = client.lookup(&root, "hello").unwrap();
    let failed = client.create(&hello, "new", &mode(0)).unwrap_err();
    assert_eq!(failed.status, NOTDIR);
    failed.wcc[0].assert_unchanged(&attr);
    let gone = client.mkdir(&root, "gone", &mode(0o755)).unwrap().fh;
    client.rmdir(&root, "gone").unwrap();
    assert_eq!(status(client.create(&gone, "new", &mode(0))), STALE);
    assert_eq!(status(client.create(b"forged", "new", &mode(0))), BADHANDLE);
    let version = client.mount("/images/base@v1").unwrap();
    let attr = client.attr(&version);
    let failed = client.mkdir(&version, "new", &mode(0)).unwrap_err();
    assert_eq!(failed.status, ROFS);
    failed.wcc[0].assert_unchanged(&attr);
}

#[test]
fn nothing_shows_in_other_clones_and_versions() {
    let world = World::new();
    let (mut client, root) = world.desk();
    world.clone_as("other");
    let other = client.mount("/clones/other").unwrap();
    let version = client.mount("/images/base@v1").unwrap();
    let before = (client.names(&other), client.names(&version));
    client.create(&root, "new", &mode(0o644)).unwrap();
    client.remove(&root, "hello").unwrap();
    assert_eq!((client.names(&other), client.names(&version)), before);
}

#[test]
fn a_thousand_names_are_listed_each_once() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let dir = client.mkdir(&root, "many", &mode(0o755)).unwrap().fh;
    let mut names: Vec<String> = (0..1000).map(|n| format!("file-{n}-{}", "x".repeat(n % 40))).collect();
    for name in &names {
        client.create(&dir, name, &mode(0o644)).unwrap();
    }
    names.sort();
    assert_eq!(client.names(&dir), names);
    for name in names.iter().step_by(2) {
        client.remove(&dir, name).unwrap();
    }
    let left: Vec<String> = names.iter().skip(1).step_by(2).cloned().collect();
    assert_eq!(client.names(&dir), left);
    for (name, fileid, attr, fh) in client.list(&dir) {
        assert_eq!(attr.fileid, fileid);
        assert_eq!(client.lookup(&dir, &name).unwrap(), (fh, attr));
    }
}

#[test]
fn a_squashed_root_is_nobody() {
    let world = World::new();
    world.edit_clone("desk", |clone| {
        let own = mimeo::image::ExportOverrides { squash: Some(mimeo::image::Squash::Root), ..Default::default() };
        clone.export = std::sync::Arc::new(own);
    });
    let (mut client, root) = world.desk();
    let tmp = client.find(&root, "tmp");
    let made = client.create(&tmp, "new", &mode(0o644)).unwrap().attr;
    assert_eq!((made.uid, made.gid), (65_534, 65_534));
    assert_eq!(status(client.create(&root, "new", &mode(0o644))), ACCES);
    client.credential = auth_sys(USER, GROUP, &[]);
    assert_eq!(client.create(&tmp, "mine", &mode(0o644)).unwrap().attr.uid, USER);
}

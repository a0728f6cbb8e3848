//! REMOVE and RMDIR.

use super::assert_dir_changed;
use crate::client::{ACCES, ISDIR, NOENT, NOTDIR, NOTEMPTY, PERM, STALE};
use crate::ops::{FILE_SYNC, mode, status};
use crate::real::{GROUP, HELLO_TEXT, USER, World};

#[test]
fn remove_takes_the_name_and_with_the_last_one_the_file() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    let before = client.attr(&root);
    let wcc = client.remove(&root, "hello").unwrap();
    assert_dir_changed(&mut client, &root, &before, &wcc);
    assert_eq!(client.lookup(&root, "hello").unwrap_err(), NOENT);
    assert!(!client.names(&root).contains(&"hello".to_owned()));
    assert_eq!(client.getattr(&hello).unwrap_err(), STALE);
    assert_eq!(client.read(&hello, 0, 1).unwrap_err(), STALE);
    assert_eq!(status(client.write(&hello, 0, b"x", FILE_SYNC)), STALE);
    let failed = client.remove(&root, "hello").unwrap_err();
    assert_eq!(failed.status, NOENT);
    let now = client.attr(&root);
    failed.wcc[0].assert_unchanged(&now);
    let fresh = client.create(&root, "hello", &mode(0o644)).unwrap();
    assert_ne!(fresh.fh, hello, "the same name, another file");
    assert_eq!(client.read_all(&fresh.fh), b"");
}

#[test]
fn a_file_with_another_name_lives_on() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    client.link(&hello, &root, "again").unwrap();
    let linked = client.attr(&hello);
    client.remove(&root, "hello").unwrap();
    let attr = client.attr(&hello);
    assert_eq!(attr.nlink, 1);
    assert!(attr.ctime > linked.ctime);
    assert_eq!(client.find(&root, "again"), hello);
    assert_eq!(client.read_all(&hello), HELLO_TEXT);
}

#[test]
fn removing_gives_private_bytes_back() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let top = world.clone_record("desk").view.top;
    let file = client.create(&root, "new", &mode(0o644)).unwrap().fh;
    client.write(&file, 0, &[1; 100_000], FILE_SYNC).unwrap();
    assert_eq!(world.overlays().counts(top).bytes, 100_000);
    client.remove(&root, "new").unwrap();
    assert_eq!(world.overlays().counts(top).bytes, 0);
}

#[test]
fn rmdir_takes_empty_directories_alone() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let home = client.find(&root, "home");
    let failed = client.rmdir(&root, "home").unwrap_err();
    assert_eq!(failed.status, NOTEMPTY);
    let attr = client.attr(&root);
    failed.wcc[0].assert_unchanged(&attr);
    assert_eq!(status(client.rmdir(&root, "hello")), NOTDIR);
    assert_eq!(status(client.remove(&root, "home")), ISDIR);
    assert_eq!(status(client.rmdir(&root, "nowhere")), NOENT);
    let before = client.attr(&home);
    let empty = client.find(&home, "empty");
    let wcc = client.rmdir(&home, "empty").unwrap();
    assert_dir_changed(&mut client, &home, &before, &wcc);
    assert_eq!(client.attr(&home).nlink, before.nlink - 1);
    assert_eq!(client.getattr(&empty).unwrap_err(), STALE);
    for name in ["inner", "locked"] {
        client.remove(&home, name).unwrap();
    }
    client.rmdir(&root, "home").unwrap();
    assert_eq!(client.getattr(&home).unwrap_err(), STALE);
}

#[test]
fn taking_names_away_needs_write_and_search() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let home = client.find(&root, "home");
    let mut stranger = world.client_as(77, 77, &[]);
    assert_eq!(status(stranger.remove(&home, "inner")), ACCES);
    assert_eq!(status(stranger.rmdir(&home, "empty")), ACCES);
    assert_eq!(status(stranger.remove(&home, "nothing")), ACCES, "before it is told what is there");
    let mut owner = world.client_as(USER, GROUP, &[]);
    owner.remove(&home, "locked").unwrap();
}

/// Who may remove what from a sticky directory: its owner, the file's, root.
#[test]
fn in_a_sticky_directory_names_are_their_owners() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let tmp = client.find(&root, "tmp");
    let mut owner = world.client_as(USER, GROUP, &[]);
    let mut stranger = world.client_as(77, 77, &[]);
    for name in ["a", "b"] {
        owner.create(&tmp, name, &mode(0o666)).unwrap();
    }
    owner.mkdir(&tmp, "dir", &mode(0o777)).unwrap();
    assert_eq!(status(stranger.remove(&tmp, "a")), PERM);
    assert_eq!(status(stranger.rmdir(&tmp, "dir")), PERM);
    assert_eq!(status(stranger.rename((&tmp, "a"), (&tmp, "c"))), PERM);
    stranger.create(&tmp, "theirs", &mode(0o666)).unwrap();
    assert_eq!(status(stranger.rename((&tmp, "theirs"), (&tmp, "a"))), PERM, "it would replace another's");
    owner.remove(&tmp, "a").unwrap();
    client.remove(&tmp, "b").unwrap();
    owner.rmdir(&tmp, "dir").unwrap();
}

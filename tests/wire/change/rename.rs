//! RENAME.

use super::assert_dir_changed;
use crate::client::{ACCES, INVAL, ISDIR, NOENT, NOTDIR, NOTEMPTY, OK, STALE, XDEV};
use crate::ops::{mode, status};
use crate::real::{GROUP, HELLO_TEXT, USER, World};

#[test]
fn a_name_moves_and_the_object_stays() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (hello, attr) = client.lookup(&root, "hello").unwrap();
    let home = client.find(&root, "home");
    let (before_root, before_home) = (client.attr(&root), client.attr(&home));
    let [from, to] = client.rename((&root, "hello"), (&home, "moved")).unwrap();
    assert_dir_changed(&mut client, &root, &before_root, &from);
    assert_dir_changed(&mut client, &home, &before_home, &to);
    assert_eq!(client.lookup(&root, "hello").unwrap_err(), NOENT);
    let (moved, now) = client.lookup(&home, "moved").unwrap();
    assert_eq!(moved, hello);
    assert!(now.ctime > attr.ctime && now.mtime == attr.mtime);
    assert_eq!(client.read_all(&moved), HELLO_TEXT);
    let before = client.attr(&home);
    let [from, to] = client.rename((&home, "moved"), (&home, "again")).unwrap();
    assert_eq!(from, to, "one directory");
    assert_dir_changed(&mut client, &home, &before, &to);
    assert_eq!(client.find(&home, "again"), hello);
}

#[test]
fn a_directory_takes_its_parent_link_along() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (home, shared) = (client.find(&root, "home"), client.find(&root, "shared"));
    let nlinks = |client: &mut crate::client::Client| [client.attr(&root).nlink, client.attr(&shared).nlink];
    let [of_root, of_shared] = nlinks(&mut client);
    client.rename((&root, "home"), (&shared, "home")).unwrap();
    assert_eq!(nlinks(&mut client), [of_root - 1, of_shared + 1]);
    assert_eq!(client.lookup(&home, "..").unwrap().0, shared);
    assert_eq!(client.find(&root, "shared/home/inner"), client.find(&home, "inner"));
    client.rename((&shared, "home"), (&shared, "house")).unwrap();
    assert_eq!(nlinks(&mut client), [of_root - 1, of_shared + 1]);
}

/// What is moved onto what, and what comes of it.
#[test]
fn replacing_follows_the_kinds() {
    let cases = [
        ("hello", "big", OK),
        ("hello", "link", OK),
        ("link", "hello", OK),
        ("hello", "home", ISDIR),
        ("home", "hello", NOTDIR),
        ("tmp", "home/empty", OK),
        ("tmp", "home", NOTEMPTY),
        ("hello", "hello", OK),
        ("home", "home", OK),
        ("nothing", "hello", NOENT),
        ("home", "home/empty/sub", INVAL),
        ("home", "home/sub", INVAL),
        ("home/empty", "home", NOTEMPTY),
    ];
    let world = World::new();
    for (n, (from, to, expected)) in cases.into_iter().enumerate() {
        let name = format!("clone-{n}");
        world.clone_as(&name);
        let mut client = world.client();
        let root = client.mount(&format!("/clones/{name}")).unwrap();
        let split = |path: &'static str| path.rsplit_once('/').unwrap_or((".", path));
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        let (from_dir, to_dir) = (client.find(&root, from_dir), client.find(&root, to_dir));
        let moved = client.lookup(&from_dir, from_name).ok();
        let replaced = client.lookup(&to_dir, to_name).ok();
        let dirs = [client.attr(&from_dir), client.attr(&to_dir)];
        match client.rename((&from_dir, from_name), (&to_dir, to_name)) {
            Ok(wcc) => {
                assert_eq!(expected, OK, "{from} to {to}");
                let (moved, _) = moved.unwrap();
                assert_eq!(client.find(&to_dir, to_name), moved);
                if from == to {
                    wcc[0].assert_unchanged(&dirs[0]);
                    wcc[1].assert_unchanged(&dirs[1]);
                } else {
                    assert_eq!(client.lookup(&from_dir, from_name).unwrap_err(), NOENT);
                    assert_eq!(replaced.map(|(fh, _)| client.getattr(&fh).unwrap_err()), Some(STALE));
                }
            }
            Err(failed) => {
                assert_eq!(failed.status, expected, "{from} to {to}");
                failed.wcc[0].assert_unchanged(&dirs[0]);
                failed.wcc[1].assert_unchanged(&dirs[1]);
                assert_eq!(client.lookup(&to_dir, to_name).ok(), replaced);
            }
        }
    }
}

#[test]
fn replacing_a_directory_leaves_the_link_counts_right() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let home = client.find(&root, "home");
    let before = [client.attr(&root).nlink, client.attr(&home).nlink];
    client.rename((&root, "tmp"), (&home, "empty")).unwrap();
    assert_eq!([client.attr(&root).nlink, client.attr(&home).nlink], [before[0] - 1, before[1]]);
}

#[test]
fn two_names_of_one_file_are_left_alone() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    client.link(&hello, &root, "again").unwrap();
    let before = client.attr(&root);
    let [from, to] = client.rename((&root, "hello"), (&root, "again")).unwrap();
    from.assert_unchanged(&before);
    to.assert_unchanged(&before);
    assert_eq!(client.attr(&hello).nlink, 2, "POSIX: nothing is done");
}

#[test]
fn replacing_one_of_two_names_keeps_the_file() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (hello, big) = (client.find(&root, "hello"), client.find(&root, "big"));
    client.link(&hello, &root, "again").unwrap();
    client.rename((&root, "big"), (&root, "hello")).unwrap();
    assert_eq!(client.find(&root, "hello"), big);
    assert_eq!(client.attr(&hello).nlink, 1);
    assert_eq!(client.find(&root, "again"), hello);
}

#[test]
fn permissions_of_both_directories_count_and_those_of_a_directory_that_moves() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (home, tmp) = (client.find(&root, "home"), client.find(&root, "tmp"));
    let mut owner = world.client_as(USER, GROUP, &[]);
    assert_eq!(status(owner.rename((&root, "hello"), (&home, "x"))), ACCES);
    assert_eq!(status(owner.rename((&home, "inner"), (&root, "x"))), ACCES);
    owner.rename((&home, "inner"), (&tmp, "x")).unwrap();
    let empty = owner.find(&home, "empty");
    client.setattr(&empty, &mode(0o555), None).unwrap();
    assert_eq!(status(owner.rename((&home, "empty"), (&tmp, "empty"))), ACCES, "its '..' would change");
    owner.rename((&home, "empty"), (&home, "stays")).unwrap();
}

#[test]
fn nothing_moves_between_exports_or_into_what_is_gone() {
    let world = World::new();
    let (mut client, root) = world.desk();
    world.clone_as("other");
    let other = client.mount("/clones/other").unwrap();
    assert_eq!(status(client.rename((&root, "hello"), (&other, "hello"))), XDEV);
    let gone = client.mkdir(&root, "gone", &mode(0o755)).unwrap().fh;
    client.rmdir(&root, "gone").unwrap();
    assert_eq!(status(client.rename((&root, "hello"), (&gone, "x"))), STALE);
    assert_eq!(status(client.rename((&gone, "x"), (&root, "x"))), STALE);
    let hello = client.find(&root, "hello");
    assert_eq!(status(client.rename((&root, "big"), (&hello, "x"))), NOTDIR);
}

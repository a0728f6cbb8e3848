//! LINK.

use super::assert_dir_changed;
use crate::client::{ACCES, EXIST, ISDIR, MLINK, NOTDIR, ROFS, STALE, XDEV};
use crate::ops::{FILE_SYNC, mode};
use crate::real::{POPULAR, World};

#[test]
fn a_file_has_two_names_and_is_one() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (hello, attr) = client.lookup(&root, "hello").unwrap();
    let home = client.find(&root, "home");
    let before = client.attr(&home);
    let (file, wcc) = client.link(&hello, &home, "again").unwrap();
    assert_dir_changed(&mut client, &home, &before, &wcc);
    assert_eq!(file, client.attr(&hello), "the attributes that it told");
    assert!(file.nlink == 2 && file.ctime > attr.ctime && file.mtime == attr.mtime);
    assert_eq!(client.find(&home, "again"), hello);
    client.write(&hello, 0, b"HELLO", FILE_SYNC).unwrap();
    let again = client.find(&home, "again");
    assert_eq!(client.read_all(&again), b"HELLO, world\n");
}

#[test]
fn links_and_special_files_have_names_too() {
    let world = World::new();
    let (mut client, root) = world.desk();
    for name in ["link", "pipe"] {
        let fh = client.find(&root, name);
        assert_eq!(client.link(&fh, &root, &format!("{name}-2")).unwrap().0.nlink, 2);
    }
}

#[test]
fn what_cannot_be_linked_is_told_with_both_attributes() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (hello, hello_attr) = client.lookup(&root, "hello").unwrap();
    let (home, home_attr) = client.lookup(&root, "home").unwrap();
    let root_attr = client.attr(&root);
    let (status, file, wcc) = *client.link(&home, &root, "x").unwrap_err();
    assert_eq!((status, file), (ISDIR, Some(home_attr)));
    wcc.assert_unchanged(&root_attr);
    let (status, file, wcc) = *client.link(&hello, &root, "big").unwrap_err();
    assert_eq!((status, file), (EXIST, Some(hello_attr)));
    wcc.assert_unchanged(&root_attr);
    assert_eq!(client.link(&hello, &hello, "x").unwrap_err().0, NOTDIR);
    let gone = client.create(&root, "gone", &mode(0o644)).unwrap().fh;
    client.remove(&root, "gone").unwrap();
    assert_eq!(client.link(&gone, &root, "x").unwrap_err().0, STALE);
    world.clone_as("other");
    let other = client.mount("/clones/other").unwrap();
    assert_eq!(client.link(&hello, &other, "x").unwrap_err().0, XDEV);
    let version = client.mount("/images/base@v1").unwrap();
    assert_eq!(client.link(&hello, &version, "x").unwrap_err().0, ROFS);
    let popular = client.find(&root, POPULAR);
    assert_eq!(client.link(&popular, &root, "x").unwrap_err().0, MLINK);
    let mut stranger = world.client_as(77, 77, &[]);
    assert_eq!(stranger.link(&hello, &root, "x").unwrap_err().0, ACCES);
}

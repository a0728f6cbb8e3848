//! Quotas, the disk's reserve, and each export's own policy.

use std::sync::Arc;
use std::time::Duration;

use mimeo::image::ExportOverrides;
use mimeo::vfs::MAX_DEPTH;

use crate::client::{ACCES, Body, Client, DQUOT, MOUNT, NAMETOOLONG, NOSPC, OK, ROFS, Xdr};
use crate::ops::{FILE_SYNC, mode, size, status};
use crate::real::World;

/// Total and free bytes, as FSSTAT tells them.
fn space(client: &mut Client, fh: &[u8]) -> (u64, u64) {
    let [total, free, _] = all_space(client, fh);
    (total, free)
}

/// Total and free bytes, and those that can be written.
fn all_space(client: &mut Client, fh: &[u8]) -> [u64; 3] {
    let results = client.nfs(18, Xdr::new().opaque(fh));
    let mut body = Body(&results);
    assert_eq!(body.u32(), OK);
    body.post_op();
    [body.u64(), body.u64(), body.u64()]
}

/// What a private object counts beside its data.
const OBJECT: u64 = 512;

#[test]
fn a_quota_bounds_private_bytes_and_is_what_fsstat_shows() {
    let world = World::new();
    // The root and a new file are private, and then 100,000 bytes.
    let quota = 100_000 + 2 * OBJECT;
    world.edit_clone("desk", move |clone| clone.quota = Some(quota));
    let (mut client, root) = world.desk();
    assert_eq!(space(&mut client, &root), (quota, quota));
    let file = client.create(&root, "new", &mode(0o644)).unwrap().fh;
    client.write(&file, 0, &[1; 60_000], FILE_SYNC).unwrap();
    assert_eq!(space(&mut client, &root), (quota, 40_000));
    let before = client.attr(&file);
    let failed = client.write(&file, 60_000, &[2; 40_001], FILE_SYNC).unwrap_err();
    assert_eq!(failed.status, DQUOT);
    failed.wcc[0].assert_unchanged(&before);
    client.write(&file, 0, &[3; 60_000], FILE_SYNC).unwrap();
    client.write(&file, 60_000, &[4; 40_000], FILE_SYNC).unwrap();
    assert_eq!(space(&mut client, &root), (quota, 0));
    client.write(&file, 50_000, &[5; 10_000], FILE_SYNC).unwrap();
    assert_eq!(status(client.write(&file, 100_000, b"x", FILE_SYNC)), DQUOT);
    client.setattr(&file, &size(1 << 30), None).unwrap();
    assert_eq!(status(client.create(&root, "more", &mode(0o644))), DQUOT);
    assert_eq!(status(client.symlink(&root, "shortcut", b"x")), DQUOT);
    client.remove(&root, "new").unwrap();
    assert_eq!(space(&mut client, &root), (quota, quota - OBJECT), "what is removed is free again");
    client.create(&root, "more", &mode(0o644)).unwrap();
}

/// Objects without data are bounded too, and so is what is written to a view that the clone left.
#[test]
fn a_quota_bounds_what_is_not_data_and_what_is_in_former_views() {
    let world = World::new();
    world.edit_clone("desk", |clone| clone.quota = Some(100 * OBJECT));
    let (mut client, root) = world.desk();
    let made = (0..200).take_while(|n| client.symlink(&root, &format!("link {n}"), &[b'x'; 4000]).is_ok()).count();
    assert_eq!(made, 99, "beside the root");
    client.remove(&root, "link 0").unwrap();
    let held = client.create(&root, "held", &mode(0o644)).unwrap().fh;
    world.discard(1);
    assert_eq!(space(&mut client, &root), (100 * OBJECT, 100 * OBJECT), "what was left is no more of the clone");
    assert_eq!(status(client.write(&held, 0, &[1; 60_000], FILE_SYNC)), DQUOT);
    client.write(&held, 0, &[1; 40_000], FILE_SYNC).unwrap();
    let hello = client.find(&root, "hello");
    assert_eq!(status(client.write(&hello, 0, &[1; 20_000], FILE_SYNC)), DQUOT);
}

#[test]
fn a_quota_below_what_is_there_lets_it_be_overwritten_and_removed() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let file = client.create(&root, "new", &mode(0o644)).unwrap().fh;
    client.write(&file, 0, &[1; 50_000], FILE_SYNC).unwrap();
    world.edit_clone("desk", |clone| clone.quota = Some(10_000));
    assert_eq!(space(&mut client, &root), (10_000, 0));
    client.write(&file, 0, &[2; 50_000], FILE_SYNC).unwrap();
    assert_eq!(status(client.write(&file, 50_000, b"x", FILE_SYNC)), DQUOT);
    client.remove(&root, "new").unwrap();
}

#[test]
fn the_reserve_of_the_disk_is_for_removing() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    client.write(&hello, 0, &[b'x'; 20_000], FILE_SYNC).unwrap();
    world.machine.disk.set_capacity(10_000);
    world.machine.clock.advance(Duration::from_secs(2));
    assert_eq!(status(client.write(&hello, 0, b"y", FILE_SYNC)), NOSPC);
    assert_eq!(status(client.create(&root, "new", &mode(0o644))), NOSPC);
    assert_eq!(status(client.mkdir(&root, "new", &mode(0o755))), NOSPC);
    assert_eq!(status(client.symlink(&root, "new", b"x")), NOSPC);
    assert_eq!(client.link(&hello, &root, "new").unwrap_err().0, NOSPC);
    assert_eq!(client.read_all(&hello), [b'x'; 20_000]);
    world.machine.disk.set_capacity(1 << 40);
    assert_eq!(status(client.write(&hello, 0, b"y", FILE_SYNC)), NOSPC, "the disk is asked once in a second");
    world.machine.clock.advance(Duration::from_secs(1));
    client.write(&hello, 0, b"y", FILE_SYNC).unwrap();
}

/// What `df` shows as available can be written: not the reserve, and no more than a quota leaves.
#[test]
fn fsstat_tells_the_reserve_as_free_but_not_as_available() {
    const RESERVE: u64 = 256 << 20;
    let world = World::new();
    let (mut client, root) = world.desk();
    world.machine.disk.set_capacity(1 << 40);
    let [total, free, available] = all_space(&mut client, &root);
    assert_eq!((total, free - available), (1 << 40, RESERVE));
    world.edit_clone("desk", |clone| clone.quota = Some(1 << 30));
    assert_eq!(all_space(&mut client, &root), [1 << 30; 3]);
    world.edit_clone("desk", |clone| clone.quota = Some(1 << 40));
    assert_eq!(all_space(&mut client, &root), [1 << 40, free, available]);
    world.machine.disk.set_capacity(1);
    world.machine.clock.advance(Duration::from_secs(1));
    assert_eq!(all_space(&mut client, &root)[2], 0, "a full disk, as it was seen lately");
}

/// Directories end at a depth that every image, and every walk over one, can take.
#[test]
fn directories_have_a_depth() {
    // Put together from pieces, as each directory is made in the time that its depth takes.
    const PIECE: usize = 64;
    let world = World::new();
    let (mut client, root) = world.desk();
    let spare = client.mkdir(&root, "spare", &mode(0o755)).unwrap().fh;
    let mut deepest = root.clone();
    for _ in 0..MAX_DEPTH / PIECE {
        let top = client.mkdir(&spare, "d", &mode(0o755)).unwrap().fh;
        let bottom = (1..PIECE).fold(top, |dir, _| client.mkdir(&dir, "d", &mode(0o755)).unwrap().fh);
        client.rename((&spare, "d"), (&deepest, "d")).unwrap();
        deepest = bottom;
    }
    assert_eq!(status(client.mkdir(&deepest, "d", &mode(0o755))), NAMETOOLONG);
    assert_eq!(status(client.rename((&root, "spare"), (&deepest, "d"))), NAMETOOLONG);
    client.create(&deepest, "file", &mode(0o644)).unwrap();
    client.rename((&root, "hello"), (&deepest, "hello")).unwrap();
    client.rename((&root, "d"), (&spare, "d")).unwrap();
    assert_eq!(status(client.rename((&root, "spare"), (&deepest, "d"))), NAMETOOLONG, "not an error of the store");
    client.rename((&spare, "d"), (&root, "d")).unwrap();
}

pub fn set_policy(world: &World, own: ExportOverrides) {
    world.edit_clone("desk", move |clone| clone.export = Arc::new(own.clone()));
}

#[test]
fn a_read_only_clone_refuses_changes_and_access_grants_none() {
    const CHANGES: u32 = 0x04 | 0x08 | 0x10;
    let world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    assert_eq!((client.access(&root) & CHANGES, client.access(&hello) & CHANGES), (CHANGES, 0x04 | 0x08));
    set_policy(&world, ExportOverrides { read_only: Some(true), ..ExportOverrides::default() });
    let attr = client.attr(&hello);
    let failed = client.write(&hello, 0, b"x", FILE_SYNC).unwrap_err();
    assert_eq!(failed.status, ROFS);
    failed.wcc[0].assert_unchanged(&attr);
    assert_eq!(status(client.remove(&root, "hello")), ROFS);
    assert_eq!((client.access(&root), client.access(&hello)), (0x03, 0x01));
    set_policy(&world, ExportOverrides::default());
    client.write(&hello, 0, b"x", FILE_SYNC).unwrap();
    let version = client.mount("/images/base@v1").unwrap();
    assert_eq!(client.access(&version), 0x03);
}

#[test]
fn access_follows_the_mode_bits() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (home, locked) = (client.find(&root, "home"), client.find(&root, "home/locked"));
    let mut owner = world.client_as(crate::real::USER, crate::real::GROUP, &[]);
    assert_eq!((owner.access(&home), owner.access(&locked)), (0x1f, 0x01));
    let mut stranger = world.client_as(77, 77, &[]);
    assert_eq!(stranger.access(&home), 0x03);
    client.setattr(&home, &mode(0o702), None).unwrap();
    assert_eq!(stranger.access(&home), 0, "w without x is of no use in a directory");
}

#[test]
fn a_clone_admits_its_own_networks_on_every_request() {
    let world = World::new();
    world.clone_as("other");
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    set_policy(&world, ExportOverrides { allow: Some(vec!["10.0.0.0/8".parse().unwrap()]), ..Default::default() });
    assert_eq!(client.getattr(&root).unwrap_err(), ACCES);
    assert_eq!(status(client.write(&hello, 0, b"x", FILE_SYNC)), ACCES);
    assert_eq!(client.mount("/clones/desk").unwrap_err(), ACCES);
    assert_eq!(exports(&mut client), ["/images/base@v1", "/clones/other"]);
    set_policy(&world, ExportOverrides { privileged_port: Some(true), ..ExportOverrides::default() });
    assert_eq!(client.mount("/clones/desk").unwrap_err(), ACCES, "from a port above 1023");
    set_policy(&world, ExportOverrides::default());
    assert_eq!(client.mount("/clones/desk").unwrap(), root);
    assert_eq!(exports(&mut client), ["/images/base@v1", "/clones/desk", "/clones/other"]);
}

/// The paths that EXPORT lists.
fn exports(client: &mut Client) -> Vec<String> {
    let results = client.run(MOUNT, 5, Xdr::new());
    let mut body = Body(&results);
    let mut paths = Vec::new();
    while body.bool() {
        paths.push(String::from_utf8(body.opaque().to_vec()).unwrap());
        while body.bool() {
            body.opaque();
        }
    }
    body.end();
    paths
}

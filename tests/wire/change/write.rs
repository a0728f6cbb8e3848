//! WRITE and COMMIT.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::client::{ACCES, Body, FBIG, INVAL, ISDIR, ROFS, Xdr};
use crate::ops::{DATA_SYNC, FILE_SYNC, UNSTABLE, mode, size, status};
use crate::real::{BIG_LEN, GROUP, HELLO_TEXT, HOLE, NOW, USER, World, big_bytes};

#[test]
fn what_is_written_is_read_and_the_rest_stays() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (hello, before) = client.lookup(&root, "hello").unwrap();
    let written = client.write(&hello, 7, b"WORLD", UNSTABLE).unwrap();
    written.wcc.assert_changed(&before);
    assert_eq!((written.count, written.committed), (5, UNSTABLE));
    assert_eq!(client.read_all(&hello), b"hello, WORLD\n");
    let attr = client.attr(&hello);
    assert_eq!(written.wcc.after, Some(attr.clone()));
    assert_eq!((attr.size, attr.mtime, attr.mode), (HELLO_TEXT.len() as u64, (NOW, 0), 0o644));
    assert_eq!(attr.atime, before.atime);
    client.write(&hello, 13, b"more", UNSTABLE).unwrap();
    assert_eq!(client.read_all(&hello), b"hello, WORLD\nmore");
}

#[test]
fn stable_writes_say_so_and_all_answers_have_one_verifier() {
    let mut world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    let verifier = client.write(&hello, 0, b"a", UNSTABLE).unwrap().verifier;
    for stable in [DATA_SYNC, FILE_SYNC] {
        let written = client.write(&hello, 0, b"b", stable).unwrap();
        assert_eq!((written.committed, written.verifier), (FILE_SYNC, verifier));
    }
    assert_eq!(client.commit(&hello).unwrap(), verifier);
    world.crash();
    assert_ne!(world.client().commit(&hello).unwrap(), verifier, "another start, another verifier");
}

#[test]
fn a_small_write_into_a_large_file_stores_itself_alone() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let big = client.find(&root, "big");
    client.write(&big, 100_000, &[7; 4096], FILE_SYNC).unwrap();
    assert_eq!(world.overlays().counts(world.clone_record("desk").view.top).bytes, 4096);
    let mut expected = big_bytes();
    expected[100_000..104_096].fill(7);
    assert!(client.read_all(&big) == expected);
    assert_eq!(client.attr(&big).used, (BIG_LEN - HOLE.len()) as u64 + 4096);
}

#[test]
fn holes_read_as_zeros_up_to_the_largest_file() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let file = client.create(&root, "sparse", &mode(0o644)).unwrap().fh;
    let far = (8 << 40) - 4;
    client.write(&file, far, b"tail", FILE_SYNC).unwrap();
    client.write(&file, 1 << 30, b"middle", FILE_SYNC).unwrap();
    let attr = client.attr(&file);
    assert_eq!((attr.size, attr.used), (8 << 40, 10));
    assert_eq!(client.read(&file, far - 2, 100).unwrap(), (b"\0\0tail".to_vec(), true));
    assert_eq!(client.read(&file, (1 << 30) - 1, 8).unwrap(), (b"\0middle\0".to_vec(), false));
    assert_eq!(client.read(&file, 5 << 40, 1 << 20).unwrap(), (vec![0; 1 << 20], false));
    let failed = client.write(&file, far, b"tails", FILE_SYNC).unwrap_err();
    assert_eq!(failed.status, FBIG);
    failed.wcc[0].assert_unchanged(&attr);
    assert_eq!(status(client.write(&file, u64::MAX, b"x", FILE_SYNC)), FBIG);
}

#[test]
fn the_count_must_be_the_length_and_more_than_a_mebibyte_is_cut() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    for count in [4, 6, u32::MAX] {
        let arguments = Xdr::new().opaque(&hello).u64(0).u32(count).u32(0).opaque(b"hello");
        let results = client.nfs(7, arguments);
        assert_eq!(Body(&results).u32(), INVAL, "{count} for 5 bytes");
    }
    let data: Vec<u8> = (0..(1 << 20) + 100).map(|n| (n % 249) as u8).collect();
    let written = client.write(&hello, 3, &data, FILE_SYNC).unwrap();
    assert_eq!(written.count, 1 << 20);
    assert_eq!(client.attr(&hello).size, 3 + (1 << 20));
    assert!(client.read(&hello, 3, 1 << 20).unwrap().0 == data[..1 << 20]);
}

#[test]
fn an_empty_write_changes_nothing() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let (hello, before) = client.lookup(&root, "hello").unwrap();
    let written = client.write(&hello, 1 << 30, b"", FILE_SYNC).unwrap();
    assert_eq!(written.count, 0);
    written.wcc.assert_unchanged(&before);
}

#[test]
fn only_files_are_written_and_only_by_who_may() {
    let world = World::new();
    let (mut client, root) = world.desk();
    assert_eq!(status(client.write(&root, 0, b"x", FILE_SYNC)), ISDIR);
    assert_eq!(status(client.commit(&root)), ISDIR);
    for name in ["link", "pipe"] {
        let other = client.find(&root, name);
        assert_eq!(status(client.write(&other, 0, b"x", FILE_SYNC)), INVAL, "{name}");
    }
    let locked = client.find(&root, "home/locked");
    let mut stranger = world.client_as(77, 77, &[]);
    let attr = client.attr(&locked);
    let failed = stranger.write(&locked, 0, b"x", FILE_SYNC).unwrap_err();
    assert_eq!(failed.status, ACCES);
    failed.wcc[0].assert_unchanged(&attr);
    stranger.commit(&locked).unwrap();
    let mut owner = world.client_as(USER, GROUP, &[]);
    owner.write(&locked, 0, b"L", FILE_SYNC).unwrap();
    owner.commit(&locked).unwrap();
    assert_eq!(client.read_all(&locked), b"Locked");
    let version = client.mount("/images/base@v1").unwrap();
    let fixed = client.find(&version, "hello");
    assert_eq!(status(client.write(&fixed, 0, b"x", FILE_SYNC)), ROFS);
    assert_eq!(status(client.commit(&fixed)), ROFS);
}

/// Random writes, cuts and reads over a file of the image and a new one, beside a plain vector; with
/// power cuts after a COMMIT in between.
#[test]
fn a_file_is_what_was_written_to_it() {
    let seed = std::env::var("MIMEO_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed}: MIMEO_SEED={seed} repeats it");
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut world = World::new();
    let (mut client, root) = world.desk();
    let new = client.create(&root, "new", &mode(0o644)).unwrap().fh;
    let mut files = [(client.find(&root, "big"), big_bytes()), (new, Vec::new())];
    for round in 0..300 {
        let (fh, expected) = &mut files[rng.random_range(0..2)];
        if rng.random_bool(0.1) {
            let len = rng.random_range(0..400_000);
            client.setattr(fh, &size(len as u64), None).unwrap();
            expected.resize(len, 0);
        } else {
            let (offset, len) = (rng.random_range(0..350_000), rng.random_range(1..70_000));
            let data: Vec<u8> =
                if rng.random_bool(0.2) { vec![0; len] } else { (0..len).map(|_| rng.random()).collect() };
            client.write(fh, offset as u64, &data, UNSTABLE).unwrap();
            expected.resize(expected.len().max(offset + len), 0);
            expected[offset..offset + len].copy_from_slice(&data);
        }
        if rng.random_bool(0.1) {
            assert!(client.read_all(fh) == *expected, "round {round}");
        }
        if round % 60 == 59 {
            for (fh, _) in &files {
                client.commit(fh).unwrap();
            }
            world.crash();
            client = world.client();
        }
    }
    for (fh, expected) in &files {
        assert!(client.read_all(fh) == *expected);
    }
}

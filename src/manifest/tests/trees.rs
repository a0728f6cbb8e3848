//! Trees against a BTreeMap: gets, scans, canonical bytes, sharing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use super::{Cold, dice, random_bytes, read, wait};
use crate::chunk::{ChunkSource, Fetch, MemoryChunks};
use crate::error::ErrorKind;
use crate::manifest::cursor::Seek;
use crate::manifest::shared::SharedInodes;
use crate::manifest::{Ino, Tree, TreeBuilder, TreeKind, TreeRoot};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const KINDS: [TreeKind; 5] =
    [TreeKind::Inodes, TreeKind::Entries, TreeKind::Links, TreeKind::Chunks, TreeKind::Extents];

fn build(chunks: &MemoryChunks, kind: TreeKind, model: &Model) -> TreeRoot {
    let mut builder = TreeBuilder::new(kind, chunks);
    for (key, value) in model {
        builder.push(key, value).unwrap();
    }
    builder.finish().unwrap().0
}

fn random_model(rng: &mut SmallRng, kind: TreeKind, entries: usize) -> Model {
    let longest = rng.random_range(1..200);
    let entry = |rng: &mut SmallRng| {
        let len = rng.random_range(0..longest);
        (random_bytes(rng, kind.key_len()), random_bytes(rng, len))
    };
    (0..entries).map(|_| entry(rng)).collect()
}

fn scan(source: &dyn ChunkSource, tree: &Tree, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let collect = |fetch: &mut crate::chunk::Fetch<'_>| {
        let mut found = Vec::new();
        tree.scan(fetch, from..=to, &mut |item| {
            found.push((item.key().to_vec(), item.value()?.to_vec()));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    };
    read(source, collect).unwrap()
}

fn walk(source: &dyn ChunkSource, tree: &Tree, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut visit = |item: crate::manifest::Item<'_>| {
        found.push((item.key().to_vec(), item.value()?.to_vec()));
        Ok(ControlFlow::Continue(()))
    };
    wait(tree.walk(source, from..=to, &mut visit)).unwrap();
    found
}

/// Walk with a cursor that lets go of its pages every few steps.
fn walk_parked(source: &dyn ChunkSource, tree: &Tree, from: &[u8], to: &[u8]) -> Vec<Vec<u8>> {
    let mut cursor = tree.cursor(from..=to, Seek::First).unwrap();
    let mut keys = Vec::new();
    while let Some(key) = read(source, |f| Ok(cursor.next(f)?.map(|item| item.key().to_vec()))).unwrap() {
        if keys.len() % 7 == 0 {
            cursor.park();
        }
        keys.push(key);
    }
    keys
}

#[test]
fn behaves_like_a_map() {
    let mut rng = dice();
    for kind in KINDS {
        for entries in [0, 1, 2, 50, 3000] {
            let chunks = MemoryChunks::new();
            let model = random_model(&mut rng, kind, entries);
            let root = build(&chunks, kind, &model);
            assert_eq!(root.entries, model.len() as u64);
            check_against_map(&mut rng, &Cold::new(chunks), &Tree::new(kind, root), kind, &model);
        }
    }
}

fn check_against_map(rng: &mut SmallRng, source: &Cold, tree: &Tree, kind: TreeKind, model: &Model) {
    for (key, value) in model.iter().take(200) {
        let found = read(source, |f| tree.get(f, key)).unwrap();
        assert_eq!(found.as_deref(), Some(&value[..]));
    }
    let mut keys: Vec<_> = (0..20).map(|_| random_bytes(rng, kind.key_len())).collect();
    keys.extend(model.keys().take(5).cloned());
    keys.extend([vec![0; kind.key_len()], vec![0xff; kind.key_len()]]);
    for pair in keys.windows(2) {
        let (from, to) = (pair[0].clone().min(pair[1].clone()), pair[0].clone().max(pair[1].clone()));
        assert_eq!(read(source, |f| tree.get(f, &from)).unwrap().as_deref(), model.get(&from).map(|v| &v[..]));
        let expected: Vec<_> = model.range(from.clone()..=to.clone()).map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(scan(source, tree, &from, &to), expected);
        assert_eq!(walk(source, tree, &from, &to), expected);
        assert!(walk_parked(source, tree, &from, &to).iter().eq(expected.iter().map(|(k, _)| k)));
        assert_eq!(floor(source, tree, &from), floor_of(model, &from), "{from:02x?}");
    }
}

fn floor(source: &Cold, tree: &Tree, from: &[u8]) -> Option<Vec<u8>> {
    let to = vec![0xff; from.len()];
    let mut cursor = tree.cursor(from..=&to, Seek::Floor).unwrap();
    read(source, |f| Ok(cursor.next(f)?.map(|item| item.key().to_vec()))).unwrap()
}

/// The last key not above `from`; where there is none, the first key.
fn floor_of(model: &Model, from: &[u8]) -> Option<Vec<u8>> {
    let below = model.range(..=from.to_vec()).next_back();
    below.or_else(|| model.iter().next()).map(|(k, _)| k.clone())
}

#[test]
fn history_leaves_no_trace() {
    let mut rng = dice();
    for kind in KINDS {
        let chunks = MemoryChunks::new();
        let model = random_model(&mut rng, kind, 2000);
        let root = build(&chunks, kind, &model);
        let ids = chunks.ids();
        let mut order: Vec<_> = model.iter().collect();
        order.shuffle(&mut rng);
        let mut other = random_model(&mut rng, kind, 300);
        let strangers: Vec<_> = other.keys().cloned().collect();
        other.extend(order.into_iter().map(|(k, v)| (k.clone(), v.clone())));
        build(&chunks, kind, &other);
        for key in strangers {
            other.remove(&key);
        }
        let again = MemoryChunks::new();
        assert_eq!(build(&again, kind, &other), root);
        assert_eq!(again.ids(), ids);
    }
}

/// One changed entry of 50,000 rewrites the pages above it and little else.
#[test]
fn a_change_rewrites_a_few_pages() {
    let mut rng = dice();
    for (kind, value_len) in
        [(TreeKind::Inodes, 170), (TreeKind::Entries, 24), (TreeKind::Chunks, 8), (TreeKind::Links, 0)]
    {
        let mut model: Model = (0..50_000u64).map(|i| (key_of(kind, i * 3), vec![1; value_len])).collect();
        let chunks = MemoryChunks::new();
        let root = build(&chunks, kind, &model);
        let mut pages: BTreeSet<_> = chunks.ids().into_iter().collect();
        assert!(root.height >= 1 && pages.len() > 50, "{kind:?}: {} pages", pages.len());
        for round in 0..30 {
            let key = key_of(kind, rng.random_range(0..50_000) * 3);
            match round % 3 {
                0 => drop(model.remove(&key)),
                1 => drop(model.insert(key_of(kind, rng.random_range(0..50_000) * 3 + 1), vec![2; value_len])),
                _ => drop(model.insert(key, vec![3; value_len + 1])),
            }
            build(&chunks, kind, &model);
            let now: BTreeSet<_> = chunks.ids().into_iter().collect();
            let fresh = now.difference(&pages).count();
            assert!(fresh <= 3 * (usize::from(root.height) + 1), "{kind:?} round {round}: {fresh} new pages");
            pages = now;
        }
    }
}

/// Spread keys for chunks, which are random in life; dense ones for all else.
fn key_of(kind: TreeKind, i: u64) -> Vec<u8> {
    let mut key = vec![0; kind.key_len()];
    let at = if kind == TreeKind::Chunks { 0 } else { key.len() - 8 };
    let word = if kind == TreeKind::Chunks { i.wrapping_mul(0x9e37_79b9_7f4a_7c15) } else { i };
    key[at..at + 8].copy_from_slice(&word.to_be_bytes());
    key
}

#[test]
fn pages_have_the_sizes_that_were_aimed_for() {
    for (kind, value_len, low, high) in
        [(TreeKind::Inodes, 170, 3000, 5500), (TreeKind::Entries, 24, 3000, 5500), (TreeKind::Chunks, 8, 800, 1400)]
    {
        let chunks = MemoryChunks::new();
        let model: Model = (0..50_000u64).map(|i| (key_of(kind, i), vec![1; value_len])).collect();
        build(&chunks, kind, &model);
        let (pages, bytes) = chunks.usage();
        let mean = bytes as usize / pages;
        assert!((low..high).contains(&mean), "{kind:?}: {mean} bytes");
    }
}

#[test]
fn a_scan_loads_the_leaves_of_its_range_together() {
    let chunks = MemoryChunks::new();
    let model: Model = (0..5000u64).map(|i| (key_of(TreeKind::Entries, i), vec![1; 24])).collect();
    let tree = Tree::new(TreeKind::Entries, build(&chunks, TreeKind::Entries, &model));
    let source = Cold::new(chunks);
    let mut rounds = 0;
    let (from, to) = (key_of(TreeKind::Entries, 0), key_of(TreeKind::Entries, 999));
    read(&source, |fetch| {
        rounds += 1;
        tree.scan(fetch, &from..=&to, &mut |_| Ok(ControlFlow::Continue(())))
    })
    .unwrap();
    let loads = source.loads();
    assert!(loads > 6 && loads < 30, "{loads} pages of a range of 50 KiB");
    assert!(rounds <= 5, "{rounds} rounds for {loads} pages");
}

#[test]
fn entries_out_of_order_are_a_bug() {
    let chunks = MemoryChunks::new();
    let mut builder = TreeBuilder::new(TreeKind::Inodes, &chunks);
    builder.push(&[2; 8], b"x").unwrap();
    for (key, value) in [(&[2u8; 8][..], &b"x"[..]), (&[1; 8], b"x"), (&[3; 7], b"x"), (&[3; 8], &[0; 9000])] {
        assert_eq!(builder.push(key, value).unwrap_err().kind(), ErrorKind::Internal);
    }
    assert_eq!(builder.finish().unwrap().0.entries, 1);
}

#[test]
fn the_longest_values_fit() {
    let chunks = MemoryChunks::new();
    let model: Model = (0..100u64).map(|i| (key_of(TreeKind::Inodes, i), vec![9; 8192])).collect();
    let root = build(&chunks, TreeKind::Inodes, &model);
    let tree = Tree::new(TreeKind::Inodes, root);
    assert_eq!(walk(&chunks, &tree, &[0; 8], &[0xff; 8]).len(), 100);
}

#[test]
fn shared_inodes_are_the_same_and_most_are_found() {
    let mut rng = dice();
    for entries in [5, 300, 20_000u64] {
        let chunks = MemoryChunks::new();
        let old: Model = (0..entries).map(|i| (key_of(TreeKind::Inodes, i), vec![1; 170])).collect();
        let mut new = old.clone();
        for _ in 0..10 {
            new.remove(&key_of(TreeKind::Inodes, rng.random_range(0..entries)));
            new.insert(key_of(TreeKind::Inodes, rng.random_range(0..entries * 2)), vec![2; 170]);
        }
        let trees = [&old, &new].map(|model| Tree::new(TreeKind::Inodes, build(&chunks, TreeKind::Inodes, model)));
        let source = Cold::new(chunks);
        let shared = wait(SharedInodes::of(&mut Fetch::new(&source), &trees[0], &trees[1])).unwrap();
        let found = (0..entries).filter(|i| shared.contains(Ino(*i)));
        assert!(found.clone().all(|i| old.get(&i.to_be_bytes()[..]) == new.get(&i.to_be_bytes()[..])));
        assert!(entries < 20_000 || found.count() > 18_000);
        let same = wait(SharedInodes::of(&mut Fetch::new(&source), &trees[0], &trees[0])).unwrap();
        assert!((0..entries).all(|i| same.contains(Ino(i))));
    }
}

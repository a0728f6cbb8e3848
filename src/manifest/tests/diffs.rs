//! Differences of two manifests against the difference of the two maps that they were made from.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rand::Rng;
use rand::rngs::SmallRng;

use super::sample::{Node, Sample};
use super::{Cold, dice, wait};
use crate::chunk::{ChunkSource, MemoryChunks};
use crate::manifest::ChangeKind::{Added, Modified, Removed};
use crate::manifest::*;

fn changes(source: &dyn ChunkSource, old: &ManifestId, new: &ManifestId) -> BTreeMap<String, ChangeKind> {
    let mut found = BTreeMap::new();
    wait(diff(source, old, new, &mut |change| {
        let path = String::from_utf8(change.path).unwrap();
        assert!(found.insert(path.clone(), change.kind).is_none(), "{path} twice");
        Ok(ControlFlow::Continue(()))
    }))
    .unwrap();
    found
}

fn seed(byte: u8) -> NameSeed {
    NameSeed([byte; 16])
}

/// The difference of two samples by their maps alone.
fn expected(old: &Sample, new: &Sample) -> BTreeMap<String, ChangeKind> {
    let resolve = |sample: &Sample, path: &str| -> Option<Node> {
        let node = sample.nodes.get(path)?;
        Some(node.link_to.as_ref().map_or(node, |target| &sample.nodes[target]).clone())
    };
    let mut found = BTreeMap::new();
    for path in old.nodes.keys().chain(new.nodes.keys()) {
        let kind = match (resolve(old, path), resolve(new, path)) {
            (Some(_), None) => Removed,
            (None, Some(_)) => Added,
            (Some(a), Some(b)) => {
                let file_type = a.kind != b.kind;
                let data = file_type || a.data != b.data;
                let attrs = (a.mode, a.mtime, &a.xattrs) != (b.mode, b.mtime, &b.xattrs);
                if !data && !attrs {
                    continue;
                }
                Modified { data, attrs, file_type }
            }
            (None, None) => continue,
        };
        found.insert(path.clone(), kind);
    }
    found
}

fn check(old: &Sample, new: &Sample) {
    let chunks = MemoryChunks::new();
    let (a, b) = (old.build(&chunks), new.build(&chunks));
    let source = Cold::new(chunks);
    assert_eq!(changes(&source, &a, &b), expected(old, new));
    assert_eq!(changes(&source, &b, &a), expected(new, old));
    assert!(changes(&source, &a, &a).is_empty());
}

fn base(seed: NameSeed) -> Sample {
    let mut sample = Sample::new(seed);
    for path in ["a", "a/b", "a/b/c", "z"] {
        sample.put(path, Node::dir());
    }
    for path in ["a/1", "a/b/2", "a/b/c/3", "z/4", "5"] {
        sample.put(path, Node::file(path.as_bytes()));
    }
    sample.put("z/link", Node::symlink("4"));
    sample.put("a/hard", Node::link_to("z/4"));
    sample
}

#[test]
fn each_sort_of_change() {
    let edits: [fn(&mut Sample); 9] = [
        |s| s.put("a/b/2", Node::file(b"other")),
        |s| s.put("a/b/c/3", Node::file(b"a/b/c/3").mode(0o600)),
        |s| s.remove("a/b"),
        |s| s.put("z/new", Node::file(&[1; 7000])),
        |s| s.put("z/link", Node::symlink("5")),
        |s| {
            s.remove("a/b");
            s.put("a/b", Node::file(b"was a directory"));
        },
        |s| {
            s.put("5", Node::dir());
            s.put("5/below", Node::file(b"x"));
        },
        |s| {
            s.remove("z/4");
            s.put("z/4", Node::file(b"changed at both names"));
        },
        |s| {
            s.put("", Node::dir().mode(0o700));
            s.put("a", Node { xattrs: vec![(b"user.x".to_vec(), vec![1; 900])], ..Node::dir() });
        },
    ];
    for edit in edits {
        for other_seed in [1, 2] {
            let (old, mut new) = (base(seed(1)), base(seed(other_seed)));
            edit(&mut new);
            check(&old, &new);
        }
    }
}

#[test]
fn numbers_and_own_times_are_no_difference() {
    let (old, mut new) = (base(seed(1)), base(seed(1)));
    new.ctime = 99;
    for ino in new.inos.values_mut().filter(|ino| **ino != Ino::ROOT) {
        ino.0 += 1000;
    }
    check(&old, &new);
    assert!(expected(&old, &new).is_empty());
}

fn random_edit(rng: &mut SmallRng, sample: &mut Sample) {
    let paths: Vec<_> = sample.nodes.keys().filter(|p| !p.is_empty()).cloned().collect();
    let path = paths[rng.random_range(0..paths.len())].clone();
    let is_dir = sample.nodes[&path].kind == FileKind::Directory;
    match rng.random_range(0..5) {
        0 if !path.starts_with("keep") => sample.remove(&path),
        1 if !is_dir => sample.put(&path, Node::file(&[rng.random(); 30])),
        2 => sample.nodes.get_mut(&path).unwrap().mode ^= 0o20,
        3 if is_dir => sample.put(&format!("{path}/{}", rng.random_range(0..50)), Node::file(b"new")),
        _ if is_dir => sample.put(&format!("{path}/d{}", rng.random_range(0..9)), Node::dir()),
        _ => {}
    }
}

#[test]
fn random_edits() {
    let mut rng = dice();
    for round in 0..60 {
        let mut old = Sample::new(seed(1));
        old.put("keep", Node::dir());
        (0..80).for_each(|_| random_edit(&mut rng, &mut old));
        let new_seed = seed(1 + (round % 2) as u8);
        let nodes = old.nodes.clone();
        let mut new = Sample { seed: new_seed, nodes, inos: old.inos.clone(), next_ino: old.next_ino, ctime: 5 };
        (0..rng.random_range(1..12)).for_each(|_| random_edit(&mut rng, &mut new));
        check(&old, &new);
    }
}

/// A change deep in a tree of 400 directories costs the pages on the way, not the tree.
#[test]
fn equal_subtrees_are_skipped() {
    let mut sample = Sample::new(seed(1));
    for dir in 0..400 {
        sample.put(&format!("d{dir}"), Node::dir());
        (0..20).for_each(|i| sample.put(&format!("d{dir}/{i}"), Node::file(format!("{dir}/{i}").as_bytes())));
    }
    let chunks = MemoryChunks::new();
    let old = sample.build(&chunks);
    let before = chunks.usage().0;
    sample.put("d77/5", Node::file(b"other"));
    let new = sample.build(&chunks);
    let fresh = chunks.usage().0 - before;
    assert!(fresh <= 16, "{fresh} new chunks");
    let source = Cold::new(chunks);
    let mut visited = Vec::new();
    wait(diff(&source, &old, &new, &mut |change| {
        visited.push((change.path, change.bytes_old, change.bytes_new));
        Ok(ControlFlow::Continue(()))
    }))
    .unwrap();
    assert_eq!(visited, [(b"d77/5".to_vec(), 4, 5)]);
}

#[test]
fn a_visitor_may_stop() {
    let (old, mut new) = (base(seed(1)), base(seed(1)));
    new.remove("a");
    let chunks = MemoryChunks::new();
    let (a, b) = (old.build(&chunks), new.build(&chunks));
    let mut visited = 0;
    wait(diff(&chunks, &a, &b, &mut |_| {
        visited += 1;
        Ok(if visited == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }))
    .unwrap();
    assert_eq!(visited, 2);
}

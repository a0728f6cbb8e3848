//! Manifests as their readers see them: attributes, names, listings, extents, links, paths.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use rand::Rng;

use super::sample::{Node, Sample};
use super::{Cold, dice, random_bytes, read, wait};
use crate::chunk::{ChunkSource, MemoryChunks};
use crate::error::ErrorKind;
use crate::manifest::*;

fn open(source: &dyn ChunkSource, id: &ManifestId) -> Manifest {
    read(source, |f| Manifest::open(f, id)).unwrap()
}

/// A tree with some of everything, its manifest, and a source that never caches.
fn sample() -> (Sample, Manifest, Cold) {
    let mut sample = Sample::new(NameSeed([7; 16]));
    sample.put("etc", Node::dir());
    sample.put("etc/passwd", Node::file(b"root:x:0:0").mode(0o644));
    sample.put("etc/alias", Node::link_to("etc/passwd"));
    sample.put("etc/empty", Node::file(b""));
    sample.put("etc/link", Node::symlink("passwd"));
    sample.put("etc/deep", Node::dir());
    sample.put("etc/deep/er", Node::dir());
    sample.put("etc/deep/er/file", Node::file(&[3; 250_500]));
    sample.put("fifo", Node { kind: FileKind::Fifo, ..Node::file(b"") });
    let long = Node { xattrs: vec![(b"user.long".to_vec(), vec![1; 2000])], ..Node::file(b"x") };
    sample.put("long-xattr", long);
    let short = Node { xattrs: vec![(b"user.short".to_vec(), vec![2; 20])], ..Node::file(b"y") };
    sample.put("short-xattr", short);
    let chunks = MemoryChunks::new();
    let id = sample.build(&chunks);
    let source = Cold::new(chunks);
    let manifest = open(&source, &id);
    (sample, manifest, source)
}

#[test]
fn attributes_names_and_links() {
    let (sample, manifest, source) = sample();
    let passwd = read(&source, |f| manifest.lookup(f, sample.ino("etc"), b"passwd")).unwrap().unwrap();
    assert_eq!((passwd.ino, passwd.kind), (sample.ino("etc/passwd"), FileKind::Regular));
    assert_eq!(
        read(&source, |f| manifest.entry_at(f, sample.ino("etc"), passwd.cookie)).unwrap(),
        Some(passwd.clone())
    );
    let inode = read(&source, |f| manifest.inode(f, passwd.ino)).unwrap().unwrap();
    assert_eq!((inode.mode, inode.size, inode.used, inode.nlink), (0o644, 10, 10, 2));
    assert_eq!(read(&source, |f| manifest.lookup(f, sample.ino("etc"), b"nothing")).unwrap(), None);
    assert_eq!(read(&source, |f| manifest.inode(f, Ino(999))).unwrap(), None);
    let link = read(&source, |f| manifest.inode(f, sample.ino("etc/link"))).unwrap().unwrap();
    assert_eq!(link.content, Content::Symlink(Bytes::from("passwd")));
    let links = read(&source, |f| manifest.links(f, passwd.ino)).unwrap();
    let alias = read(&source, |f| manifest.lookup(f, sample.ino("etc"), b"alias")).unwrap().unwrap();
    let dir = sample.ino("etc");
    assert_eq!(links.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([(dir, passwd.cookie), (dir, alias.cookie)]));
    assert!(read(&source, |f| manifest.links(f, sample.ino("fifo"))).unwrap().is_empty());
}

#[test]
fn every_object_knows_its_path() {
    let (sample, manifest, source) = sample();
    for path in sample.nodes.keys().filter(|path| !["etc/passwd"].contains(&path.as_str())) {
        let found = read(&source, |f| manifest.path_of(f, sample.ino(path))).unwrap();
        assert_eq!(found.as_deref(), Some(path.as_bytes()));
    }
    // Of several names the first in path order.
    let found = read(&source, |f| manifest.path_of(f, sample.ino("etc/passwd"))).unwrap();
    assert_eq!(found.as_deref(), Some(&b"etc/alias"[..]));
    assert_eq!(read(&source, |f| manifest.path_of(f, Ino(12345))).unwrap(), None);
}

#[test]
fn stats_and_walks_agree() {
    let (sample, manifest, source) = sample();
    let stats = *manifest.stats();
    assert_eq!((stats.inodes, stats.directories, stats.regular, stats.symlinks, stats.others), (11, 4, 5, 1, 1));
    assert_eq!((stats.bytes_logical, stats.bytes_used), (250_512, 250_512));
    let (mut inodes, mut chunks, mut raw, mut entries) = (0, 0, 0, 0);
    wait(manifest.for_each_inode(&source, &mut |_, _| {
        inodes += 1;
        Ok(ControlFlow::Continue(()))
    }))
    .unwrap();
    wait(manifest.for_each_chunk(&source, &mut |_, len, _| {
        (chunks, raw) = (chunks + 1, raw + u64::from(len));
        Ok(ControlFlow::Continue(()))
    }))
    .unwrap();
    wait(manifest.for_each_entry(&source, &mut |_, _| {
        entries += 1;
        Ok(ControlFlow::Continue(()))
    }))
    .unwrap();
    assert_eq!((inodes, chunks, raw), (stats.inodes, stats.chunks, stats.chunk_bytes_raw));
    assert_eq!(entries, sample.nodes.len() - 1);
}

#[test]
fn extended_attributes_short_and_long() {
    let (sample, manifest, source) = sample();
    for (path, name, len) in [("long-xattr", "user.long", 2000), ("short-xattr", "user.short", 20)] {
        let inode = read(&source, |f| manifest.inode(f, sample.ino(path))).unwrap().unwrap();
        let list = decode_xattrs(&read(&source, |f| manifest.xattrs(f, &inode)).unwrap()).unwrap();
        assert_eq!((list.len(), &list[0].0[..], list[0].1.len()), (1, name.as_bytes(), len));
    }
}

#[test]
fn extents_of_any_range() {
    let mut rng = dice();
    let mut data = random_bytes(&mut rng, 400_000);
    for hole in [5..9, 100..230, 399..400] {
        data[hole.start * 1000..hole.end * 1000].fill(0);
    }
    for size in [400_000, 3500, 1, 0] {
        let (chunks, mut sample) = (MemoryChunks::new(), Sample::new(NameSeed([1; 16])));
        sample.put("f", Node::file(&data[..size]));
        let id = sample.build(&chunks);
        let source = Cold::new(chunks);
        let manifest = open(&source, &id);
        let inode = read(&source, |f| manifest.inode(f, sample.ino("f"))).unwrap().unwrap();
        assert_eq!(matches!(inode.content, Content::Tree(_)), size == 400_000);
        let mut all = Vec::new();
        wait(manifest.for_each_extent(&source, &inode, &mut |extent| {
            all.push(extent);
            Ok(ControlFlow::Continue(()))
        }))
        .unwrap();
        assert_eq!(all.iter().map(|e| u64::from(e.len)).sum::<u64>(), inode.used);
        for _ in 0..200 {
            let start = rng.random_range(0..=size as u64 + 2000);
            let range = start..start + rng.random_range(0..60_000);
            let hits =
                |e: &&Extent| e.offset < range.end && range.start < e.offset + u64::from(e.len) && !range.is_empty();
            let expected: Vec<_> = all.iter().filter(hits).copied().collect();
            let found = read(&source, |f| manifest.extents(f, &inode.content, range.clone())).unwrap();
            assert_eq!(found.to_vec(), expected, "{range:?}");
        }
    }
}

#[test]
fn a_listing_continues_from_any_number() {
    let mut rng = dice();
    let (chunks, mut sample) = (MemoryChunks::new(), Sample::new(NameSeed([9; 16])));
    sample.put("d", Node::dir());
    sample.put("dd", Node::dir());
    for i in 0..700 {
        sample.put(&format!("d/{i}"), Node::file(b""));
        sample.put(&format!("dd/{i}"), Node::file(b""));
    }
    let id = sample.build(&chunks);
    let source = Cold::new(chunks);
    let manifest = open(&source, &id);
    let list = |after: u64, limit: usize| {
        read(&source, |f| {
            let mut found = Vec::new();
            manifest.list(f, sample.ino("d"), Cookie(after), &mut |entry| {
                found.push(entry);
                Ok(if found.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            Ok(found)
        })
        .unwrap()
    };
    let all = list(0, usize::MAX);
    let names: BTreeSet<_> = all.iter().map(|entry| entry.name.clone()).collect();
    assert_eq!((all.len(), names.len()), (700, 700));
    assert!(all.is_sorted_by_key(|entry| entry.cookie) && all[0].cookie >= FIRST_COOKIE);
    let mut paged = Vec::new();
    while let Some(last) =
        list(paged.last().map_or(0, |e: &Entry| e.cookie.0), rng.random_range(1..40)).into_iter().reduce(|a, b| {
            paged.push(a);
            b
        })
    {
        paged.push(last);
    }
    assert_eq!(paged, all);
    for _ in 0..100 {
        let after = rng.random::<u64>() >> rng.random_range(0..2);
        let expected: Vec<_> = all.iter().filter(|entry| entry.cookie.0 > after).cloned().collect();
        assert_eq!(list(after, usize::MAX), expected);
    }
    assert!(list(u64::MAX, usize::MAX).is_empty());
}

/// A hash of nothing but the length: names collide as no attacker could make them.
#[test]
fn names_with_one_hash_are_told_apart() {
    let weak = |name: &[u8]| Cookie::base(name.len() as u64);
    let chunks = MemoryChunks::new();
    let mut builder = ManifestBuilder::new(&chunks, NameSeed([0; 16]));
    let names: Vec<String> = (0..16).map(|i| format!("n{i:02}")).chain(["long-one".into()]).collect();
    for (i, name) in names.iter().enumerate() {
        let cookie = Cookie(weak(name.as_bytes()).0 + i as u64 % 16);
        let entry = Entry { name: name.clone().into(), cookie, ino: Ino(100 + i as u64), kind: FileKind::Fifo };
        builder.add_entry(Ino::ROOT, &entry).unwrap();
    }
    let id = builder.finish().unwrap().0;
    let manifest = open(&chunks, &id);
    let find = |name: &str| {
        read(&chunks, |f| manifest.lookup_at(f, Ino::ROOT, weak(name.as_bytes()), name.as_bytes())).unwrap()
    };
    for (i, name) in names.iter().enumerate() {
        assert_eq!(find(name).map(|entry| entry.ino), Some(Ino(100 + i as u64)));
    }
    assert_eq!(find("n16"), None);
    assert_eq!(find("other-name"), None);
}

#[test]
fn what_breaks_a_bound_is_not_stored() {
    let (sample, manifest, source) = sample();
    let good = read(&source, |f| manifest.inode(f, sample.ino("etc/passwd"))).unwrap().unwrap();
    let chunks = MemoryChunks::new();
    let bad = [
        Inode { mode: 0o10_0644, ..(*good).clone() },
        Inode { size: u64::MAX, ..(*good).clone() },
        Inode { rdev: (1, 2), ..(*good).clone() },
        Inode { kind: FileKind::Directory, ..(*good).clone() },
        Inode { kind: FileKind::Symlink, content: Content::Symlink(vec![b'x'; 4097].into()), ..(*good).clone() },
        Inode { xattrs: Xattrs::Inline(vec![0; 513].into()), ..(*good).clone() },
    ];
    for inode in bad {
        let mut builder = ManifestBuilder::new(&chunks, sample.seed);
        assert_eq!(builder.add_inode(Ino(1), &inode).unwrap_err().kind(), ErrorKind::Internal);
    }
    let mut content = ContentBuilder::new(&chunks);
    let extent = |offset, len| Extent { offset, len, chunk: crate::chunk::ChunkId([0; 32]) };
    content.push(extent(0, 10)).unwrap();
    for (offset, len) in [(9, 10), (20, 0), (20, 300_000), (u64::MAX, 1)] {
        assert!(content.push(extent(offset, len)).is_err());
    }
    assert!(content.finish(9).is_err());
}

#[test]
fn a_missing_or_foreign_header_is_corrupt() {
    let (_, _, source) = sample();
    for id in source.chunks.ids() {
        if let Err(error) = read(&source, |f| Manifest::open(f, &id)) {
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(&id.to_string()));
        }
    }
}

/// The longest inode that there can be fits into a page.
#[test]
fn the_longest_inode_is_stored() {
    let (chunks, mut sample) = (MemoryChunks::new(), Sample::new(NameSeed([1; 16])));
    let xattrs = vec![(b"a".to_vec(), vec![1; 506])];
    for i in 0..50 {
        sample.put(&format!("{i}"), Node { xattrs: xattrs.clone(), ..Node::symlink(&"t".repeat(4096)) });
    }
    let id = sample.build(&chunks);
    let manifest = open(&chunks, &id);
    let inode = read(&chunks, |f| manifest.inode(f, sample.ino("49"))).unwrap().unwrap();
    assert_eq!(inode.size, 4096);
}

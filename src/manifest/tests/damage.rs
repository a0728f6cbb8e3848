//! Pages that lie: an error or a wrong answer, never a panic, never without end.

use std::collections::HashMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use rand::Rng;

use super::sample::{Node, Sample};
use super::{dice, read, wait};
use crate::chunk::{ChunkId, ChunkSink, ChunkSource, MemoryChunks};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Ino, Manifest, ManifestId, NameSeed, Tree, TreeBuilder, TreeKind, diff};

/// Chunks that may be other than their name says, as a reader would see them without verification.
struct Lying(HashMap<ChunkId, Bytes>);

impl ChunkSource for Lying {
    fn cached(&self, id: &ChunkId) -> Option<Bytes> {
        self.0.get(id).cloned()
    }

    fn load(&self, id: ChunkId) -> BoxFuture<'static, Result<Bytes>> {
        async move { Err(Error::corrupt(format!("chunk {id} is missing"))) }.boxed()
    }
}

impl Lying {
    fn of(chunks: &MemoryChunks) -> Self {
        Self(chunks.ids().into_iter().map(|id| (id, wait(chunks.load(id)).unwrap())).collect())
    }
}

/// Everything that a reader can do with a manifest; only what it costs matters here.
fn use_all(source: &Lying, id: &ManifestId, other: &ManifestId) -> Result<()> {
    let manifest = read(source, |f| Manifest::open(f, id))?;
    let mut results = Vec::new();
    for ino in 0..40 {
        let inode = read(source, |f| manifest.inode(f, Ino(ino)));
        if let Ok(Some(inode)) = &inode {
            results.push(read(source, |f| manifest.extents(f, &inode.content, 0..u64::MAX)).map(drop));
            results.push(read(source, |f| manifest.xattrs(f, inode)).map(drop));
        }
        results.push(inode.map(drop));
        results.push(read(source, |f| manifest.path_of(f, Ino(ino))).map(drop));
        results.push(read(source, |f| manifest.links(f, Ino(ino))).map(drop));
    }
    results.push(read(source, |f| manifest.lookup(f, Ino::ROOT, b"etc")).map(drop));
    results.push(wait(manifest.for_each_inode(source, &mut |_, _| Ok(ControlFlow::Continue(())))));
    results.push(wait(manifest.for_each_entry(source, &mut |_, _| Ok(ControlFlow::Continue(())))));
    results.push(wait(manifest.for_each_chunk(source, &mut |_, _, _| Ok(ControlFlow::Continue(())))));
    results.push(wait(diff(source, id, other, &mut |_| Ok(ControlFlow::Continue(())))));
    results.into_iter().collect()
}

fn two_versions() -> (MemoryChunks, ManifestId, ManifestId) {
    let chunks = MemoryChunks::new();
    let mut sample = Sample::new(NameSeed([5; 16]));
    sample.put("etc", Node::dir());
    sample.put("etc/passwd", Node::file(b"root"));
    sample.put("etc/big", Node::file(&[1; 9000]));
    sample.put("link", Node::symlink("etc/passwd"));
    sample.put("hard", Node::link_to("etc/passwd"));
    let old = sample.build(&chunks);
    sample.put("etc/passwd", Node::file(b"toor"));
    let new = sample.build(&chunks);
    (chunks, old, new)
}

#[test]
fn every_flipped_byte_and_every_cut_is_survived() {
    let (chunks, old, new) = two_versions();
    let mut source = Lying::of(&chunks);
    use_all(&source, &old, &new).unwrap();
    let mut refused = 0;
    for id in chunks.ids() {
        let good = source.0[&id].clone();
        for at in (0..good.len()).take(700) {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << (at % 8);
            for damaged in [Bytes::from(bad), good.slice(..at)] {
                source.0.insert(id, damaged);
                refused += usize::from(use_all(&source, &old, &new).is_err());
            }
        }
        source.0.insert(id, good);
    }
    assert!(refused > 1000, "{refused} refusals: most damage to structure is seen");
}

#[test]
fn random_rubbish_is_survived() {
    let (chunks, old, new) = two_versions();
    let mut source = Lying::of(&chunks);
    let mut rng = dice();
    for id in chunks.ids() {
        let good = source.0[&id].clone();
        for _ in 0..100 {
            let mut bad = good.to_vec();
            for _ in 0..rng.random_range(1..8) {
                let at = rng.random_range(0..bad.len());
                bad[at] = rng.random();
            }
            source.0.insert(id, bad.into());
            let _ = use_all(&source, &old, &new);
        }
        source.0.insert(id, good);
    }
}

#[test]
fn damage_names_the_page() {
    let chunks = MemoryChunks::new();
    let mut builder = TreeBuilder::new(TreeKind::Inodes, &chunks);
    for i in 0..1000u64 {
        builder.push(&i.to_be_bytes(), &[0; 100]).unwrap();
    }
    let root = builder.finish().unwrap().0;
    let mut source = Lying::of(&chunks);
    source.0.insert(root.id, Bytes::from_static(b"MP\x01\x01\x01\x00\xff\xff"));
    let error = read(&source, |f| Tree::new(TreeKind::Inodes, root).get(f, &[0; 8])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&root.id.to_string()), "{error}");
}

/// A page that names itself as each of its children would take 2^56 steps to walk.
#[test]
fn a_tree_that_repeats_itself_ends() {
    let chunks = MemoryChunks::new();
    let mut leaf = TreeBuilder::new(TreeKind::Inodes, &chunks);
    leaf.push(&[1; 8], b"x").unwrap();
    let leaf = leaf.finish().unwrap().0;
    let mut id = leaf.id;
    for level in 1..=200u8 {
        let mut page = vec![b'M', b'P', 1, TreeKind::Inodes as u8, level, 0, 0, 2];
        page.extend_from_slice(&[1; 16]);
        page.extend_from_slice(&[0, 32, 0, 64]);
        page.extend_from_slice(id.as_bytes());
        page.extend_from_slice(id.as_bytes());
        id = chunks.put(&page).unwrap().id;
    }
    let tree = Tree::new(TreeKind::Inodes, crate::manifest::TreeRoot { id, height: 200, entries: 1 });
    let mut visit = |_: crate::manifest::Item<'_>| Ok(ControlFlow::Continue(()));
    let walk = tree.walk(&chunks, &[0; 8]..=&[0xff; 8], &mut visit);
    assert_eq!(wait(walk).unwrap_err().kind(), ErrorKind::Corrupt);
}

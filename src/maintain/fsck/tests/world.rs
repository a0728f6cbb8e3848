//! A store in memory and on a simulated disk, with an image, clones that are changed as the file service
//! changes them, and ways to damage it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::chunk::{ChunkSink, Fetch, MemoryChunks, Step};
use crate::env::{Env, ManualClock, SeededRng, SimDisk, Time};
use crate::image::{
    Catalog, Change, CloneRecord, CloneTarget, Fleet, Labels, MemoryCatalogLog, NewClones, NewFork, NewSnapshot,
    NewVersion, SnapshotTarget, VersionRef,
};
use crate::maintain::fsck::{self, Options, Report, ViewName};
use crate::manifest::{
    Content, ContentBuilder, Cookie, Entry, Extent, FileKind, Ino, Inode, Manifest, ManifestBuilder, ManifestId,
    NameSeed, test_inode,
};
use crate::meta::{Batch, Durability, KvStore, MemoryKv, Table};
use crate::overlay::log::{DeltaLog, LocalLog, LogOptions};
use crate::overlay::{Node, OverlayId, OverlayOptions, OverlayStore, Tree};

/// The image: `/a`, `/link`, `/h1` and `/dir/h2` (one object), `/dir/f`, `/dir/sub/`.
pub const A: Ino = Ino(10);
pub const DIR: Ino = Ino(20);
pub const F: Ino = Ino(21);
pub const SUB: Ino = Ino(22);
pub const H: Ino = Ino(30);
pub const LINK: Ino = Ino(40);
pub const F_LEN: u64 = 70_000;

const ROOT: Ino = Ino::ROOT;
const SEED: NameSeed = NameSeed([7; 16]);
const NOW: Time = Time::new(1000, 0);

/// Kinds of rows of private values.
pub const NODE: u8 = 1;
pub const NAME: u8 = 2;
pub const DATA: u8 = 3;

/// Where in the row of a bucket's newest version the parts of its first fragment lie: behind position,
/// presence and format.
pub const FRAGMENT: usize = 10;
pub const FRAGMENT_LEN: usize = 21;
pub const FRAGMENT_OFFSET: usize = FRAGMENT + 13;

pub struct World {
    disk: Arc<SimDisk>,
    pub env: Env,
    pub clock: Arc<ManualClock>,
    pub kv: Arc<MemoryKv>,
    pub chunks: Arc<MemoryChunks>,
    pub manifest: ManifestId,
    pub catalog: Arc<Catalog>,
    open: Option<(Arc<LocalLog>, Arc<OverlayStore>)>,
    next_ino: u64,
    pub segment_bytes: u32,
}

pub fn cookie(name: &str) -> Cookie {
    SEED.cookie_base(name.as_bytes())
}

struct Image<'a> {
    chunks: &'a MemoryChunks,
    inodes: Vec<(Ino, Inode)>,
    entries: Vec<(Ino, Entry)>,
    data: Vec<(crate::chunk::ChunkId, u32)>,
}

impl Image<'_> {
    fn add(&mut self, dir: Ino, name: &str, ino: Ino, inode: Inode) {
        let kind = inode.kind;
        if ino != ROOT {
            let entry = Entry { name: Bytes::from(name.to_owned()), cookie: cookie(name), ino, kind };
            self.entries.push((dir, entry));
        }
        if self.inodes.iter().all(|(other, _)| *other != ino) {
            self.inodes.push((ino, Inode { parent: dir, parent_cookie: cookie(name), ..inode }));
        }
    }

    fn dir(&mut self, dir: Ino, name: &str, ino: Ino, subdirs: u32) {
        let inode = Inode { nlink: 2 + subdirs, size: 4096, ..test_inode(FileKind::Directory, 0o755) };
        self.add(dir, name, ino, inode);
    }

    fn file(&mut self, dir: Ino, name: &str, ino: Ino, len: u64, nlink: u32) {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8 + 1).collect();
        let mut content = ContentBuilder::new(self.chunks);
        for (n, block) in bytes.chunks(4096).enumerate() {
            let chunk = self.chunks.put(block).unwrap().id;
            self.data.push((chunk, block.len() as u32));
            content.push(Extent { offset: n as u64 * 4096, len: block.len() as u32, chunk }).unwrap();
        }
        let content = content.finish(len).unwrap();
        let (used, content) = (content.used, content.content);
        self.add(dir, name, ino, Inode { size: len, used, content, nlink, ..test_inode(FileKind::Regular, 0o644) });
    }

    fn finish(mut self) -> ManifestId {
        let mut builder = ManifestBuilder::new(self.chunks, SEED);
        self.inodes.sort_by_key(|(ino, _)| *ino);
        self.entries.sort_by_key(|(dir, entry)| (*dir, entry.cookie));
        self.data.sort();
        self.data.dedup();
        self.inodes.iter().for_each(|(ino, inode)| builder.add_inode(*ino, inode).unwrap());
        self.entries.iter().for_each(|(dir, entry)| builder.add_entry(*dir, entry).unwrap());
        let mut links: Vec<_> = self.entries.iter().filter(|(_, entry)| entry.ino == H).collect();
        links.sort_by_key(|(dir, entry)| (*dir, entry.cookie));
        links.iter().for_each(|(dir, entry)| builder.add_link(H, *dir, entry.cookie).unwrap());
        self.data.iter().for_each(|(chunk, len)| builder.add_chunk(*chunk, *len, *len).unwrap());
        builder.finish().unwrap().0
    }
}

fn image(chunks: &MemoryChunks) -> ManifestId {
    let mut image = Image { chunks, inodes: Vec::new(), entries: Vec::new(), data: Vec::new() };
    image.dir(ROOT, "", ROOT, 1);
    image.inodes[0].1.parent_cookie = Cookie(0);
    image.file(ROOT, "a", A, 100, 1);
    image.dir(ROOT, "dir", DIR, 1);
    image.file(DIR, "f", F, F_LEN, 1);
    image.dir(DIR, "sub", SUB, 0);
    image.file(ROOT, "h1", H, 10, 2);
    image.file(DIR, "h2", H, 10, 2);
    let target = Bytes::from_static(b"dir/f");
    let content = Content::Symlink(target.clone());
    image.add(ROOT, "link", LINK, Inode { size: target.len() as u64, content, ..test_inode(FileKind::Symlink, 0o777) });
    image.finish()
}

impl World {
    /// Image `os` with one version, and a clone `desk` of it.
    pub async fn new() -> Self {
        let (disk, clock) = (Arc::new(SimDisk::new(1)), Arc::new(ManualClock::at_secs(1_800_000_000)));
        let env = Env { disk: disk.clone(), clock: clock.clone(), rng: Arc::new(SeededRng::new(1)) };
        let (kv, chunks) = (Arc::new(MemoryKv::new()), Arc::new(MemoryChunks::new()));
        let manifest = image(&chunks);
        let catalog = Catalog::open(Arc::new(MemoryCatalogLog::new()), env.clone()).await.unwrap();
        let image = catalog.create_or_get_image("os", Labels::new()).await.unwrap().id;
        let version = NewVersion {
            image,
            manifest,
            created: NOW,
            source: "/os".into(),
            author: "test".into(),
            labels: Labels::new(),
            consistency: "unknown".into(),
            inodes: 7,
            bytes_logical: F_LEN + 110,
            bytes_stored: 0,
            bytes_added: 0,
        };
        catalog.add_version(version).await.unwrap();
        let segment_bytes = LogOptions::default().segment_bytes;
        let mut world =
            Self { disk, env, clock, kv, chunks, manifest, catalog, open: None, next_ino: 1000, segment_bytes };
        world.new_clone("desk").await;
        world.start().await;
        world
    }

    pub async fn start(&mut self) {
        let epoch = OverlayStore::next_epoch(&*self.kv).unwrap();
        let options = LogOptions { segment_bytes: self.segment_bytes, ..LogOptions::default() };
        let log = LocalLog::open(self.env.clone(), PathBuf::from("/log"), epoch, options).unwrap();
        let (marks, options) = (self.catalog.state().marked_overlays(), OverlayOptions { cache_bytes: 1 << 20 });
        let kv = self.kv.clone();
        let store = OverlayStore::open(log.clone(), kv, self.chunks.clone(), epoch, marks, options).await.unwrap();
        self.open = Some((log, store));
    }

    /// Leave nothing to replay, and every segment sealed.
    pub async fn stop(&mut self) {
        let (log, store) = self.open.take().unwrap();
        store.flush(Durability::Synced).await.unwrap();
        log.close().unwrap();
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// Power cut: what was synced is in the log, what was not flushed is not in the index.
    pub async fn crash(&mut self) {
        drop(self.open.take());
        self.disk.crash();
        self.kv.crash();
        self.start().await;
    }

    /// Nothing can be written any more.
    pub fn fill_disk(&self) {
        self.disk.set_capacity(0);
    }

    pub fn empty_disk(&self) {
        self.disk.set_capacity(u64::MAX);
    }

    pub fn store(&self) -> &Arc<OverlayStore> {
        &self.open.as_ref().unwrap().1
    }

    pub fn fleet(&self) -> Fleet {
        Fleet::new(self.catalog.clone(), self.store().clone())
    }

    pub async fn new_clone(&self, name: &str) {
        let new = NewClones { version: VersionRef::newest("os"), names: vec![name.into()], labels: Labels::new() };
        self.catalog.create_clones(new).await.unwrap();
    }

    pub async fn snapshot(&self, clone: &str, name: &str) {
        let target = CloneTarget::Names(vec![clone.into()]);
        self.fleet().snapshot(NewSnapshot { target, name: name.into(), labels: Labels::new() }).await.unwrap();
    }

    /// Its positions do not linger.
    pub async fn remove_snapshot(&self, clone: &str, name: &str) {
        let (fleet, target) = (self.fleet(), SnapshotTarget::Names(vec![name.into()]));
        fleet.remove_snapshots(clone, target).await.unwrap();
        fleet.forget_marks(Duration::ZERO, Duration::ZERO).await;
    }

    pub async fn fork(&self, source: &str, name: &str) {
        let new = NewFork { source: source.parse().unwrap(), name: name.into(), labels: Labels::new() };
        self.fleet().fork(new).await.unwrap();
    }

    pub fn clone(&self, name: &str) -> Arc<CloneRecord> {
        self.catalog.state().find_clone(name).unwrap().clone()
    }

    pub fn top(&self, clone: &str) -> OverlayId {
        self.clone(clone).view.top
    }

    pub async fn edit_clone(&self, name: &str, edit: impl Fn(&mut CloneRecord) + Send + 'static) {
        let mut record = CloneRecord::clone(&self.clone(name));
        edit(&mut record);
        self.catalog.transact("edit", move |draft| draft.apply(Change::PutClone(record.clone()))).await.unwrap();
    }

    pub async fn check_with(&self, read_data: bool) -> Report {
        let options = Options { read_data };
        fsck::check(&self.catalog, self.store(), self.chunks.clone(), options).await.unwrap()
    }

    pub async fn check(&self) -> Report {
        self.check_with(false).await
    }

    pub async fn assert_clean(&self) -> Report {
        let report = self.check_with(true).await;
        assert!(report.is_clean(), "{:#?}", report.violations());
        report
    }

    // Changes.

    async fn run<T>(&self, mut step: impl FnMut(&OverlayStore, &mut Fetch<'_>, Manifest) -> Step<T>) -> T {
        let mut fetch = Fetch::new(&*self.chunks);
        let run = fetch.run(|fetch| {
            let manifest = Manifest::open(fetch, &self.manifest)?;
            step(self.store(), fetch, manifest)
        });
        run.await.unwrap()
    }

    /// Whatever a tree lets one do, also what no file service would.
    pub async fn change(&self, clone: &str, mut step: impl FnMut(&mut Tree<'_>, &mut Fetch<'_>) -> Step<()>) {
        let view = self.clone(clone).view.clone();
        self.run(|store, fetch, manifest| {
            let mut tree = Tree::open_for_change(store, fetch, manifest, &view.layers, view.top)?;
            step(&mut tree, fetch)?;
            tree.commit(None)?;
            Ok(())
        })
        .await;
    }

    /// Change the node of an object.
    pub async fn edit(&self, clone: &str, ino: Ino, edit: impl Fn(&mut Node)) {
        self.change(clone, |tree, fetch| edit_node(tree, fetch, ino, &edit)).await;
    }

    /// A new object in `dir`.
    pub async fn make(&mut self, clone: &str, dir: Ino, name: &str, kind: FileKind) -> Ino {
        self.next_ino += 1;
        let (ino, subdirs) = (Ino(self.next_ino), u32::from(kind == FileKind::Directory));
        self.change(clone, |tree, fetch| {
            tree.put(fetch, ino, Node::new(kind, dir, NOW))?;
            tree.add_entry(fetch, dir, name.as_bytes(), ino, kind)?;
            edit_node(tree, fetch, dir, |node| node.nlink += subdirs)
        })
        .await;
        ino
    }

    pub async fn write(&self, clone: &str, ino: Ino, offset: u64, data: &[u8]) {
        let data = Bytes::copy_from_slice(data);
        self.change(clone, |tree, fetch| {
            let mut node = tree.node(fetch, ino)?.unwrap();
            tree.write(fetch, ino, &mut node, offset, data.clone())?;
            tree.put(fetch, ino, node)
        })
        .await;
    }

    /// All bytes of a file.
    pub async fn read(&self, clone: &str, ino: Ino) -> Vec<u8> {
        let view = self.clone(clone).view.clone();
        let slices = self.run(|store, fetch, manifest| {
            let tree = Tree::open(store, fetch, manifest, &view.layers, view.top)?;
            let node = tree.node(fetch, ino)?.unwrap();
            tree.read(fetch, ino, &node, 0, node.size)
        });
        slices.await.concat()
    }

    pub async fn truncate(&self, clone: &str, ino: Ino, size: u64) {
        self.change(clone, |tree, fetch| {
            let mut node = tree.node(fetch, ino)?.unwrap();
            tree.truncate(fetch, ino, &mut node, size)?;
            tree.put(fetch, ino, node)
        })
        .await;
    }

    /// Take a name away, and the object with its last one.
    pub async fn remove(&self, clone: &str, dir: Ino, name: &str) {
        self.change(clone, |tree, fetch| {
            let entry = tree.lookup(fetch, dir, name.as_bytes())?.unwrap();
            tree.remove_entry(fetch, dir, &entry)?;
            let node = tree.node(fetch, entry.ino)?.unwrap();
            match node.nlink {
                2.. if !node.is_dir() => edit_node(tree, fetch, entry.ino, |node| node.nlink -= 1)?,
                _ => tree.remove(fetch, entry.ino, &node)?,
            }
            edit_node(tree, fetch, dir, |dir| dir.nlink -= u32::from(node.is_dir()))
        })
        .await;
    }

    pub async fn rename(&self, clone: &str, from: (Ino, &str), to: (Ino, &str)) {
        self.change(clone, |tree, fetch| {
            let entry = tree.lookup(fetch, from.0, from.1.as_bytes())?.unwrap();
            tree.remove_entry(fetch, from.0, &entry)?;
            tree.add_entry(fetch, to.0, to.1.as_bytes(), entry.ino, entry.kind)?;
            let subdirs = u32::from(entry.kind == FileKind::Directory);
            edit_node(tree, fetch, from.0, |dir| dir.nlink -= subdirs)?;
            edit_node(tree, fetch, to.0, |dir| dir.nlink += subdirs)?;
            edit_node(tree, fetch, entry.ino, |node| node.parent = to.0)
        })
        .await;
    }

    pub async fn link(&self, clone: &str, ino: Ino, dir: Ino, name: &str) {
        self.change(clone, |tree, fetch| {
            tree.add_entry(fetch, dir, name.as_bytes(), ino, FileKind::Regular)?;
            edit_node(tree, fetch, ino, |node| node.nlink += 1)?;
            edit_node(tree, fetch, dir, |_| {})
        })
        .await;
    }

    // Damage.

    pub fn count_rows(&self, table: Table) -> usize {
        let mut rows = 0;
        let mut count = |_: &[u8], _: &[u8]| {
            rows += 1;
            ControlFlow::Continue(())
        };
        self.kv.scan(table, &[], &[], &mut count).unwrap();
        rows
    }

    pub fn row(&self, table: Table, key: &[u8]) -> Vec<u8> {
        self.kv.get(table, key).unwrap().unwrap_or_else(|| panic!("no row {key:?} in {table}"))
    }

    pub fn put(&self, table: Table, key: &[u8], row: Vec<u8>) {
        let mut batch = Batch::new();
        batch.put(table, key, row);
        self.kv.write(batch, Durability::Synced).unwrap();
    }

    pub fn delete(&self, table: Table, key: &[u8]) {
        assert!(self.kv.get(table, key).unwrap().is_some(), "no row {key:?} in {table}");
        let mut batch = Batch::new();
        batch.delete(table, key);
        self.kv.write(batch, Durability::Synced).unwrap();
    }

    pub fn edit_row(&self, table: Table, key: &[u8], edit: impl FnOnce(&mut Vec<u8>)) {
        let mut row = self.row(table, key);
        edit(&mut row);
        self.put(table, key, row);
    }

    /// Stop, damage the tables, start, and check.
    pub async fn check_damaged(&mut self, damage: impl FnOnce(&Self)) -> Report {
        self.assert_clean().await;
        self.stop().await;
        damage(self);
        self.start().await;
        self.check().await
    }

    /// Flip the bits of a byte of segment `segment`.
    pub fn corrupt_segment(&self, segment: u32, offset: usize) {
        assert!(self.disk.corrupt(Path::new(&format!("/log/{segment:08x}.seg")), offset));
    }
}

fn edit_node(tree: &mut Tree<'_>, fetch: &mut Fetch<'_>, ino: Ino, edit: impl Fn(&mut Node)) -> Step<()> {
    let mut node = tree.node(fetch, ino)?.unwrap();
    edit(&mut node);
    tree.put(fetch, ino, node)
}

/// The key of a private value.
pub fn key(overlay: OverlayId, kind: u8, a: Ino, b: u64) -> Vec<u8> {
    [&overlay.0.to_be_bytes()[..], &[kind], &a.0.to_be_bytes(), &b.to_be_bytes()].concat()
}

/// The key of an older version of one.
pub fn version(key: &[u8], position: u64) -> Vec<u8> {
    [key, &(!position).to_be_bytes()].concat()
}

pub fn desk() -> ViewName {
    ViewName::Clone("desk".into())
}

pub fn snapshot(name: &str) -> ViewName {
    ViewName::Snapshot { clone: "desk".into(), name: name.into() }
}

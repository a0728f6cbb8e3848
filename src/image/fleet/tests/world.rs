//! A catalog and overlays in memory and on a simulated disk, with an image whose files hold one number
//! each.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::chunk::{ChunkSink, Fetch, MemoryChunks, Step};
use crate::env::{Env, ManualClock, SeededRng, SimDisk, Time};
use crate::error::Result;
use crate::image::log::MemoryCatalogLog;
use crate::image::record::{CloneRecord, VersionNumber, View};
use crate::image::{
    Catalog, CloneTarget, Fleet, Labels, NewClones, NewSnapshot, NewVersion, RepointDone, RepointPlan, SnapshotRecord,
    VersionRef, Writes,
};
use crate::manifest::{
    ContentBuilder, Entry, Extent, FileKind, Ino, Inode, Manifest, ManifestBuilder, ManifestId, NameSeed, test_inode,
};
use crate::meta::MemoryKv;
use crate::overlay::log::{LocalLog, LogOptions};
use crate::overlay::{OverlayOptions, OverlayStore, Tree};

pub const A: Ino = Ino(10);
pub const B: Ino = Ino(11);
pub(super) const SEED: NameSeed = NameSeed([7; 16]);
pub(super) const START: u64 = 1_800_000_000;

pub struct World {
    disk: Arc<SimDisk>,
    pub clock: Arc<ManualClock>,
    env: Env,
    kv: Arc<MemoryKv>,
    chunks: Arc<MemoryChunks>,
    pub log: MemoryCatalogLog,
    pub catalog: Arc<Catalog>,
    pub overlays: Arc<OverlayStore>,
    pub fleet: Arc<Fleet>,
}

/// The files `a` and `b`, which hold these numbers under their own inode numbers.
pub(super) fn manifest(chunks: &MemoryChunks, files: [(&str, Ino, u64); 2]) -> ManifestId {
    let mut builder = ManifestBuilder::new(chunks, SEED);
    let root = Inode { nlink: 2, size: 4096, ..test_inode(FileKind::Directory, 0o755) };
    builder.add_inode(Ino::ROOT, &root).unwrap();
    let mut entries = Vec::new();
    let mut stored = Vec::new();
    for (name, ino, number) in files {
        let chunk = chunks.put(&number.to_be_bytes()).unwrap().id;
        let mut content = ContentBuilder::new(chunks);
        content.push(Extent { offset: 0, len: 8, chunk }).unwrap();
        let content = content.finish(8).unwrap();
        let cookie = SEED.choose_cookie(name.as_bytes(), |_| false).unwrap();
        let (used, content) = (content.used, content.content);
        let file = test_inode(FileKind::Regular, 0o644);
        builder.add_inode(ino, &Inode { size: 8, used, content, parent_cookie: cookie, ..file }).unwrap();
        entries.push(Entry { name: Bytes::copy_from_slice(name.as_bytes()), cookie, ino, kind: FileKind::Regular });
        stored.push(chunk);
    }
    entries.sort_by_key(|entry| entry.cookie);
    entries.iter().for_each(|entry| builder.add_entry(Ino::ROOT, entry).unwrap());
    stored.sort();
    stored.into_iter().for_each(|chunk| builder.add_chunk(chunk, 8, 8).unwrap());
    builder.finish().unwrap().0
}

pub(super) async fn overlays(
    env: &Env,
    kv: &Arc<MemoryKv>,
    chunks: &Arc<MemoryChunks>,
    catalog: &Catalog,
) -> Arc<OverlayStore> {
    let epoch = OverlayStore::next_epoch(&**kv).unwrap();
    let log = LocalLog::open(env.clone(), PathBuf::from("/log"), epoch, LogOptions::default()).unwrap();
    let (marks, options) = (catalog.state().marked_overlays(), OverlayOptions { cache_bytes: 1 << 20 });
    OverlayStore::open(log, kv.clone(), chunks.clone(), epoch, marks, options).await.unwrap()
}

impl World {
    /// Image `os`: v1 has a = 1 and b = 2; v2 has the same a, and another b, which is 20.
    pub async fn new() -> Self {
        let (disk, clock) = (Arc::new(SimDisk::new(1)), Arc::new(ManualClock::at_secs(START)));
        let env = Env { disk: disk.clone(), clock: clock.clone(), rng: Arc::new(SeededRng::new(1)) };
        let (log, chunks, kv) = (MemoryCatalogLog::new(), Arc::new(MemoryChunks::new()), Arc::new(MemoryKv::new()));
        let catalog = Catalog::open(Arc::new(log.clone()), env.clone()).await.unwrap();
        let overlays = overlays(&env, &kv, &chunks, &catalog).await;
        let fleet = Arc::new(Fleet::new(catalog.clone(), overlays.clone()));
        let world = Self { disk, clock, env, kv, chunks, log, catalog, overlays, fleet };
        world.add_version("os", [("a", A, 1), ("b", B, 2)]).await;
        world.add_version("os", [("a", A, 1), ("b", Ino(12), 20)]).await;
        world
    }

    pub async fn add_version(&self, image: &str, files: [(&str, Ino, u64); 2]) -> VersionNumber {
        let image = self.catalog.create_or_get_image(image, Labels::new()).await.unwrap().id;
        let new = NewVersion {
            image,
            manifest: manifest(&self.chunks, files),
            created: Time::new(1, 0),
            source: "/src".into(),
            author: "me".into(),
            labels: Labels::new(),
            consistency: "unknown".into(),
            inodes: 3,
            bytes_logical: 16,
            bytes_stored: 0,
            bytes_added: 0,
        };
        self.catalog.add_version(new).await.unwrap().number
    }

    /// Power cut of everything, and the next start.
    pub async fn crash(&mut self) {
        self.disk.crash();
        self.kv.crash_keeping(1);
        self.catalog = Catalog::open(Arc::new(self.log.clone()), self.env.clone()).await.unwrap();
        self.overlays = overlays(&self.env, &self.kv, &self.chunks, &self.catalog).await;
        self.fleet = Arc::new(Fleet::new(self.catalog.clone(), self.overlays.clone()));
    }

    /// Clones of os@v1 with the label `pool=a`.
    pub async fn clones(&self, names: &[&str]) {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let labels = Labels::parse(["pool=a"]).unwrap();
        let new = NewClones { version: VersionRef::number("os", 1), names, labels };
        self.catalog.create_clones(new).await.unwrap();
    }

    pub fn get(&self, clone: &str) -> Arc<CloneRecord> {
        self.catalog.state().find_clone(clone).unwrap().clone()
    }

    async fn run<T>(
        &self,
        clone: &CloneRecord,
        version: VersionNumber,
        mut step: impl FnMut(&mut Fetch<'_>, Manifest) -> Step<T>,
    ) -> Result<T> {
        let manifest = self.catalog.state().version(clone.image, version).expect("it is read").manifest;
        Fetch::new(&*self.chunks)
            .run(|fetch| {
                let manifest = Manifest::open(fetch, &manifest)?;
                step(fetch, manifest)
            })
            .await
    }

    /// Write a number into a file of the clone's current view, as the front end does: again, if the
    /// view was switched before the lock was taken.
    pub async fn write(&self, clone: &str, ino: Ino, number: u64) {
        loop {
            let clone = self.get(clone);
            if self.write_in(&clone, &clone.view, ino, number).await {
                return;
            }
        }
    }

    /// `false`: the clone has no such view any more.
    pub async fn write_in(&self, clone: &CloneRecord, view: &View, ino: Ino, number: u64) -> bool {
        let data = Bytes::copy_from_slice(&number.to_be_bytes());
        let write = self.run(clone, view.version, |fetch, manifest| {
            let mut tree = Tree::open_for_change(&self.overlays, fetch, manifest, &view.layers, view.top)?;
            let now = self.catalog.state();
            let same = |now: &Arc<CloneRecord>| match clone.view.top == view.top {
                true => now.view.top == view.top,
                false => now.tops().any(|top| top == view.top),
            };
            if !now.clone_by_id(clone.id).is_some_and(same) {
                return Ok(None);
            }
            let mut node = tree.node(fetch, ino)?.expect("the file is in this view");
            tree.write(fetch, ino, &mut node, 0, data.clone())?;
            tree.put(fetch, ino, node)?;
            tree.commit(None)?;
            Ok(Some(()))
        });
        write.await.unwrap().is_some()
    }

    /// The number in a file of the clone's current view.
    pub async fn read(&self, clone: &str, ino: Ino) -> u64 {
        let clone = self.get(clone);
        self.read_in(&clone, &clone.view, ino).await
    }

    pub async fn read_in(&self, clone: &CloneRecord, view: &View, ino: Ino) -> u64 {
        let open = |fetch: &mut Fetch<'_>, manifest| {
            let tree = Tree::open(&self.overlays, fetch, manifest, &view.layers, view.top)?;
            number(&tree, fetch, ino)
        };
        self.run(clone, view.version, open).await.unwrap()
    }

    /// The number in a file of a snapshot.
    pub async fn read_at(&self, clone: &str, snapshot: &str, ino: Ino) -> u64 {
        let (clone, snapshot) = (self.get(clone), self.snapshot_of(clone, snapshot));
        let open = |fetch: &mut Fetch<'_>, manifest| {
            let tree = Tree::open_sealed(&self.overlays, manifest, &snapshot.layers)?;
            number(&tree, fetch, ino)
        };
        self.run(&clone, snapshot.version, open).await.unwrap()
    }

    pub fn snapshot_of(&self, clone: &str, snapshot: &str) -> Arc<SnapshotRecord> {
        let state = self.catalog.state();
        state.find_snapshot(state.find_clone(clone).unwrap(), snapshot).unwrap().clone()
    }

    pub async fn snapshot(&self, clone: &str, name: &str) -> Result<()> {
        let new = NewSnapshot { target: names(&[clone]), name: name.into(), labels: Labels::new() };
        self.fleet.snapshot(new).await.map(drop)
    }

    pub async fn repoint(&self, number: VersionNumber, target: CloneTarget, writes: Writes) -> Result<RepointDone> {
        self.fleet.repoint(to("os", number, target, writes)).await
    }
}

pub(super) fn number(tree: &Tree<'_>, fetch: &mut Fetch<'_>, ino: Ino) -> Step<u64> {
    let node = tree.node(fetch, ino)?.expect("the file is in this view");
    let bytes = tree.read(fetch, ino, &node, 0, 8)?.concat();
    Ok(u64::from_be_bytes(bytes.try_into().expect("eight bytes")))
}

pub fn names(names: &[&str]) -> CloneTarget {
    CloneTarget::Names(names.iter().map(|&name| name.to_owned()).collect())
}

pub fn select(selector: &str) -> CloneTarget {
    CloneTarget::Select(selector.parse().unwrap())
}

pub fn to(image: &str, number: VersionNumber, target: CloneTarget, writes: Writes) -> RepointPlan {
    RepointPlan::new(image, VersionRef::number(image, number), target).with(writes)
}

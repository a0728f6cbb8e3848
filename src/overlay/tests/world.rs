//! A store of overlays on a simulated disk, over one small manifest.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::model::{Change, Model, Seen};
use crate::chunk::{ChunkSink, Fetch, MemoryChunks, Step};
use crate::env::{Env, ManualClock, SeededRng, SimDisk, Time};
use crate::error::Result;
use crate::manifest::{
    ContentBuilder, Cookie, Entry, Extent, FileKind, Ino, Inode, Manifest, ManifestBuilder, ManifestId, NameSeed,
    test_inode,
};
use crate::meta::Durability;
use crate::meta::MemoryKv;
use crate::overlay::check::LayerNode;
use crate::overlay::log::{LocalLog, LogOptions, SegmentId};
use crate::overlay::{
    IdleCursor, Layer, Node, OverlayId, OverlayOptions, OverlayStore, Position, Receipt, SweepCursor, Tree,
};

/// The files of the image: name, number, length.
pub const FILES: [(&str, Ino, usize); 3] = [("a", Ino(10), 100), ("b", Ino(11), 70_000), ("c", Ino(12), 200_000)];
const SEED: NameSeed = NameSeed([7; 16]);
const NOW: Time = Time::new(1000, 0);
/// How long the log leaves a full disk alone.
const RETRY: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ViewId(pub usize);

#[derive(Clone)]
struct View {
    layers: Vec<Layer>,
    /// `None`: sealed.
    top: Option<OverlayId>,
}

pub struct World {
    pub disk: Arc<SimDisk>,
    pub kv: Arc<MemoryKv>,
    env: Env,
    log: LogOptions,
    chunks: Arc<MemoryChunks>,
    manifest: ManifestId,
    store: Option<Arc<OverlayStore>>,
    views: Vec<View>,
    next_id: AtomicU64,
}

fn image_content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 + 1).collect()
}

fn manifest(chunks: &MemoryChunks) -> ManifestId {
    let mut builder = ManifestBuilder::new(chunks, SEED);
    let mut root = test_inode(FileKind::Directory, 0o755);
    (root.nlink, root.size) = (2, 4096);
    builder.add_inode(Ino::ROOT, &root).unwrap();
    let mut entries = BTreeMap::new();
    let mut all_chunks = BTreeMap::new();
    for (name, ino, len) in FILES {
        let mut file = ContentBuilder::new(chunks);
        let bytes = image_content(len);
        for (n, block) in bytes.chunks(65_536).enumerate() {
            let stored = chunks.put(block).unwrap();
            all_chunks.insert(stored.id, block.len() as u32);
            file.push(Extent { offset: n as u64 * 65_536, len: block.len() as u32, chunk: stored.id }).unwrap();
        }
        let content = file.finish(len as u64).unwrap();
        let inode = Inode {
            size: len as u64,
            used: content.used,
            content: content.content,
            ..test_inode(FileKind::Regular, 0o644)
        };
        builder.add_inode(ino, &inode).unwrap();
        let cookie = SEED.choose_cookie(name.as_bytes(), |_| false).unwrap();
        entries.insert(cookie, Entry { name: Bytes::from(name), cookie, ino, kind: FileKind::Regular });
    }
    for entry in entries.values() {
        builder.add_entry(Ino::ROOT, entry).unwrap();
    }
    for (id, len) in all_chunks {
        builder.add_chunk(id, len, len).unwrap();
    }
    builder.finish().unwrap().0
}

/// A disk's world: its clock stands, its dice are those of `seed`.
fn env(disk: Arc<SimDisk>, seed: u64) -> Env {
    Env { disk, clock: Arc::new(ManualClock::at_secs(1000)), rng: Arc::new(SeededRng::new(seed)) }
}

impl World {
    pub async fn new(seed: u64) -> Self {
        Self::with_segments(seed, 1 << 20).await
    }

    /// With segments of the log of so many bytes.
    pub async fn with_segments(seed: u64, segment_bytes: u32) -> Self {
        let mut world = Self::closed(seed, LogOptions { segment_bytes, ..LogOptions::default() });
        world.open().await.unwrap();
        world
    }

    /// A world whose store is not open yet. Its index has the power and the faults of its disk.
    pub fn closed(seed: u64, log: LogOptions) -> Self {
        let disk = Arc::new(SimDisk::new(seed));
        let chunks = Arc::new(MemoryChunks::new());
        Self {
            manifest: manifest(&chunks),
            chunks,
            log,
            env: env(disk.clone(), seed),
            kv: Arc::new(MemoryKv::beside(disk.clone())),
            disk,
            store: None,
            views: Vec::new(),
            next_id: AtomicU64::new(100),
        }
    }

    /// The same moment once more, with other dice, for another end. Its store is not open.
    pub fn fork_world(&self, seed: u64) -> Self {
        let disk = Arc::new(self.disk.fork(seed));
        Self {
            env: env(disk.clone(), seed),
            log: self.log,
            kv: Arc::new(self.kv.fork(disk.clone())),
            disk,
            chunks: self.chunks.clone(),
            manifest: self.manifest,
            store: None,
            views: self.views.clone(),
            next_id: AtomicU64::new(self.next_id.load(Ordering::Relaxed)),
        }
    }

    pub async fn open(&mut self) -> Result<()> {
        let mut marks: HashMap<OverlayId, Vec<Position>> = HashMap::new();
        for layer in self.views.iter().flat_map(|view| &view.layers) {
            marks.entry(layer.overlay).or_default().push(layer.upto);
        }
        let epoch = OverlayStore::next_epoch(&*self.kv)?;
        let log = LocalLog::open_retrying(self.env.clone(), PathBuf::from("/log"), epoch, self.log, RETRY)?;
        let options = OverlayOptions { cache_bytes: 300_000 };
        let store = OverlayStore::open(log, self.kv.clone(), self.chunks.clone(), epoch, marks, options).await;
        self.store = Some(store?);
        Ok(())
    }

    pub fn store(&self) -> &Arc<OverlayStore> {
        self.try_store().unwrap()
    }

    /// The store, if it is open.
    pub fn try_store(&self) -> Option<&Arc<OverlayStore>> {
        self.store.as_ref()
    }

    /// Power cut; of the buffered batches of the index `kept` reached the disk.
    pub async fn restart(&mut self, kept: usize) {
        let store = self.store.take().unwrap();
        self.disk.crash();
        self.kv.crash_keeping(kept);
        drop(store);
        self.open().await.unwrap();
    }

    /// The index is brought up to the log, and that is closed.
    pub async fn close(&mut self) -> Result<()> {
        let Some(store) = self.store.take() else { return Ok(()) };
        store.flush(Durability::Synced).await?;
        store.log.close()
    }

    pub fn set_disk_bytes(&self, bytes: u64) {
        self.disk.set_capacity(bytes);
    }

    pub async fn sync(&self) {
        self.store().sync().await.unwrap();
    }

    pub async fn flush(&self) {
        self.store().flush(Durability::Buffered).await.unwrap();
    }

    fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub fn base_model(&self) -> Model {
        Model {
            names: FILES.iter().map(|(name, ino, _)| ((*name).to_owned(), *ino)).collect(),
            files: FILES.iter().map(|(_, ino, len)| (*ino, image_content(*len))).collect(),
        }
    }

    pub fn new_view(&mut self) -> ViewId {
        self.add(View { layers: Vec::new(), top: Some(OverlayId(self.new_id())) })
    }

    fn add(&mut self, view: View) -> ViewId {
        self.views.push(view);
        ViewId(self.views.len() - 1)
    }

    pub fn top(&self, view: ViewId) -> OverlayId {
        self.views[view.0].top.unwrap()
    }

    /// Every view that was not dropped.
    pub fn views(&self) -> Vec<ViewId> {
        let is_shown = |view: &View| view.top.is_some() || !view.layers.is_empty();
        self.views.iter().enumerate().filter(|(_, view)| is_shown(view)).map(|(at, _)| ViewId(at)).collect()
    }

    pub fn is_open(&self, view: ViewId) -> bool {
        self.views[view.0].top.is_some()
    }

    pub fn layers(&self, view: ViewId) -> usize {
        self.views[view.0].layers.len()
    }

    /// The layers of a view that was sealed.
    pub fn sealed(&self, view: ViewId) -> &[Layer] {
        &self.views[view.0].layers
    }

    /// Every object of which a layer of a sealed view says anything, asked for number by number.
    pub async fn private_objects(&self, view: ViewId) -> Vec<(Ino, Option<Node>)> {
        let mut private = Vec::new();
        for ino in (1..self.next_id.load(Ordering::Relaxed)).map(Ino) {
            let says = |layer: &Layer| {
                let said = self.store().layer_node(layer.overlay, layer.upto, ino).unwrap();
                said != LayerNode::Nothing
            };
            if !self.sealed(view).iter().any(says) {
                continue;
            }
            let node = self
                .run(|store, fetch, manifest| Tree::open_sealed(store, manifest, self.sealed(view))?.node(fetch, ino));
            private.push((ino, node.await.unwrap()));
        }
        private
    }

    pub async fn entry_at(&self, view: ViewId, dir: Ino, cookie: Cookie) -> Option<Entry> {
        let entry = self.run(|store, fetch, manifest| {
            Tree::open_sealed(store, manifest, self.sealed(view))?.entry_at(fetch, dir, cookie)
        });
        entry.await.unwrap()
    }

    pub async fn snapshot(&mut self, view: ViewId) -> ViewId {
        self.try_snapshot(view).await.unwrap()
    }

    pub async fn try_snapshot(&mut self, view: ViewId) -> Result<ViewId> {
        let View { mut layers, top } = self.views[view.0].clone();
        let top = top.unwrap();
        let frozen = self.store().freeze(vec![top]).await;
        self.store().sync().await?;
        if let Some(layer) = frozen.layer(top) {
            layers.push(layer);
            self.store().protect(top, layer.upto);
        }
        drop(frozen);
        Ok(self.add(View { layers, top: None }))
    }

    pub fn fork(&mut self, sealed: ViewId) -> ViewId {
        let layers = self.views[sealed.0].layers.clone();
        let top = Some(OverlayId(self.new_id()));
        self.add(View { layers, top })
    }

    async fn run<T>(&self, mut step: impl FnMut(&OverlayStore, &mut Fetch<'_>, Manifest) -> Step<T>) -> Result<T> {
        let mut fetch = Fetch::new(&*self.chunks);
        let run = fetch.run(|fetch| {
            let manifest = Manifest::open(fetch, &self.manifest)?;
            step(self.store(), fetch, manifest)
        });
        run.await
    }

    async fn change(&self, view: ViewId, change: Change) {
        self.try_change(view, &change, None).await.unwrap();
    }

    /// `number`: of the call, for its receipt.
    pub async fn try_change(&self, view: ViewId, change: &Change, number: Option<u64>) -> Result<()> {
        let view = &self.views[view.0];
        self.run(|store, fetch, manifest| {
            let mut tree = Tree::open_for_change(store, fetch, manifest, &view.layers, view.top.unwrap())?;
            apply(change, &mut tree, fetch)?;
            tree.commit(number.map(receipt))?;
            Ok(())
        })
        .await
    }

    /// Any change, as one record.
    async fn edit<T>(&self, view: ViewId, mut step: impl FnMut(&mut Tree<'_>, &mut Fetch<'_>) -> Step<T>) -> T {
        let view = &self.views[view.0];
        let edit = self.run(|store, fetch, manifest| {
            let mut tree = Tree::open_for_change(store, fetch, manifest, &view.layers, view.top.unwrap())?;
            let done = step(&mut tree, fetch)?;
            tree.commit(None)?;
            Ok(done)
        });
        edit.await.unwrap()
    }

    pub async fn write(&self, view: ViewId, ino: Ino, offset: u64, data: &[u8]) {
        self.change(view, Change::Write { ino, offset, data: Bytes::copy_from_slice(data) }).await;
    }

    /// One byte at each of these places.
    pub async fn dot(&self, view: ViewId, ino: Ino, places: &[u64]) {
        self.edit(view, |tree, fetch| {
            let mut node = tree.node(fetch, ino)?.unwrap();
            for place in places {
                tree.write(fetch, ino, &mut node, *place, Bytes::from_static(b"x"))?;
            }
            tree.put(fetch, ino, node)
        })
        .await;
    }

    /// In as many changes as it takes; answers how many.
    pub async fn truncate(&self, view: ViewId, ino: Ino, size: u64) -> usize {
        let mut changes = 1;
        let cut = |tree: &mut Tree<'_>, fetch: &mut Fetch<'_>| {
            let mut node = tree.node(fetch, ino)?.unwrap();
            let done = tree.truncate(fetch, ino, &mut node, size)?;
            tree.put(fetch, ino, node)?;
            Ok(done)
        };
        while !self.edit(view, cut).await {
            changes += 1;
        }
        changes
    }

    /// Some of the bytes of a file.
    pub async fn bytes_at(&self, view: ViewId, ino: Ino, at: u64, len: u64) -> Vec<u8> {
        let view = &self.views[view.0];
        self.run(|store, fetch, manifest| {
            let tree = match view.top {
                Some(top) => Tree::open(store, fetch, manifest, &view.layers, top)?,
                None => Tree::open_sealed(store, manifest, &view.layers)?,
            };
            let node = tree.node(fetch, ino)?.unwrap();
            Ok(tree.read(fetch, ino, &node, at, node.size.min(at + len))?.concat())
        })
        .await
        .unwrap()
    }

    /// The private bytes of the view's open overlay.
    pub fn bytes(&self, view: ViewId) -> u64 {
        self.store().counts(self.top(view)).bytes
    }

    /// Erase all that removed objects left; answers in how many steps.
    pub async fn sweep(&self) -> usize {
        let mut steps = 0;
        for id in self.store().unswept() {
            let mut cursor = Some(SweepCursor::default());
            while let Some(from) = cursor {
                cursor = self.store().sweep(id, from).await.unwrap();
                steps += 1;
            }
        }
        assert!(self.store().unswept().is_empty());
        steps
    }

    pub async fn create(&self, view: ViewId, name: &str) -> Ino {
        let ino = Ino(self.new_id());
        self.change(view, Change::Create { name: name.into(), ino }).await;
        ino
    }

    /// Make empty files, in one change.
    pub async fn create_all(&self, view: ViewId, names: &[String]) {
        let first = self.next_id.fetch_add(names.len() as u64, Ordering::Relaxed);
        self.edit(view, |tree, fetch| {
            for (ino, name) in (first..).map(Ino).zip(names) {
                tree.add_entry(fetch, Ino::ROOT, name.as_bytes(), ino, FileKind::Regular)?;
                tree.put(fetch, ino, Node::new(FileKind::Regular, Ino::ROOT, NOW))?;
            }
            touch_root(tree, fetch)
        })
        .await;
    }

    /// Remove files, in one change.
    pub async fn remove_all(&self, view: ViewId, names: &[String]) {
        self.edit(view, |tree, fetch| {
            for name in names {
                let entry = tree.lookup(fetch, Ino::ROOT, name.as_bytes())?.unwrap();
                let node = tree.node(fetch, entry.ino)?.unwrap();
                tree.remove_entry(fetch, Ino::ROOT, &entry)?;
                tree.remove(fetch, entry.ino, &node)?;
            }
            touch_root(tree, fetch)
        })
        .await;
    }

    pub async fn remove(&self, view: ViewId, name: &str) {
        self.change(view, Change::Remove { name: name.into() }).await;
    }

    pub async fn rename(&self, view: ViewId, from: &str, to: &str) {
        self.change(view, Change::Rename { from: from.into(), to: to.into() }).await;
    }

    /// The numbers of the calls from before this start whose answers are known, in order.
    pub fn receipts(&self) -> Vec<u64> {
        let number = |receipt: &Receipt| u64::from_be_bytes(receipt.answer.as_ref().try_into().unwrap());
        self.store().receipts().iter().map(number).collect()
    }

    /// Everything that a view shows, read back; names by listing and by lookup.
    pub async fn seen(&self, view: ViewId) -> Seen {
        self.try_seen(view).await.unwrap()
    }

    pub async fn try_seen(&self, view: ViewId) -> Result<Seen> {
        let view = &self.views[view.0];
        let files = self.run(|store, fetch, manifest| {
            let tree = match view.top {
                Some(top) => Tree::open(store, fetch, manifest, &view.layers, top)?,
                None => Tree::open_sealed(store, manifest, &view.layers)?,
            };
            let mut entries: Vec<Entry> = Vec::new();
            let mut whole = false;
            while !whole {
                let after = entries.last().map_or(Cookie(0), |entry| entry.cookie);
                whole = tree.list(fetch, Ino::ROOT, after, &mut |entry| -> Result<_> {
                    entries.push(entry);
                    Ok(ControlFlow::Continue(()))
                })?;
            }
            assert!(entries.is_sorted_by_key(|entry| entry.cookie));
            let mut files = BTreeMap::new();
            for entry in entries {
                assert_eq!(tree.lookup(fetch, Ino::ROOT, &entry.name)?.as_ref(), Some(&entry));
                let node = tree.node(fetch, entry.ino)?.expect("an entry's inode");
                let slices = tree.read(fetch, entry.ino, &node, 0, node.size)?;
                files.insert(String::from_utf8(entry.name.to_vec()).unwrap(), slices.concat());
            }
            Ok(files)
        });
        Ok(Seen { files: files.await? })
    }

    /// Drop all other views, and what only they showed.
    pub async fn keep_only(&mut self, kept: &[ViewId]) {
        self.try_keep_only(kept).await.unwrap();
    }

    pub async fn try_keep_only(&mut self, kept: &[ViewId]) -> Result<()> {
        for at in (0..self.views.len()).filter(|at| !kept.contains(&ViewId(*at))) {
            self.views[at] = View { layers: Vec::new(), top: None };
        }
        let mut marks: BTreeMap<OverlayId, Vec<Position>> = BTreeMap::new();
        for layer in self.views.iter().flat_map(|view| &view.layers) {
            marks.entry(layer.overlay).or_default().push(layer.upto);
        }
        let store = self.store();
        store.flush(Durability::Buffered).await?;
        let dead: Vec<_> = store.ids().into_iter().filter(|id| !self.is_named(*id)).collect();
        store.purge_overlays(&dead, |_| false).await?;
        let all: Vec<_> = store.all().iter().map(|overlay| overlay.id).collect();
        store.update_marks(|| all.iter().map(|id| (*id, marks.remove(id).unwrap_or_default())).collect()).await;
        for id in all {
            store.purge_history(id, &[]).await?;
        }
        Ok(())
    }

    pub async fn flatten(&mut self, view: ViewId) {
        self.try_flatten(view).await.unwrap();
    }

    pub async fn try_flatten(&mut self, view: ViewId) -> Result<()> {
        let (layers, into) = (self.views[view.0].layers.clone(), OverlayId(self.new_id()));
        let (layer, _held) = self.store().flatten(layers, into).await?;
        self.views[view.0].layers = vec![layer];
        Ok(())
    }

    /// All private data of the view's open overlay goes to the chunk store.
    pub async fn dedup(&self, view: ViewId) {
        self.try_dedup(view).await.unwrap();
    }

    pub async fn try_dedup(&self, view: ViewId) -> Result<()> {
        let (id, store) = (self.top(view), self.store());
        let before = store.position(id);
        let mut next = Some(IdleCursor::default());
        while let Some(from) = next {
            let (found, more) = store.idle_buckets(id, Position::MAX, from, 1 << 20).await?;
            for idle in found {
                let chunks: Vec<_> = idle.runs.iter().map(|(_, run)| self.chunks.put(run).unwrap().id).collect();
                assert!(store.adopt_chunks(id, &idle, &chunks).await?);
            }
            next = more;
        }
        assert_eq!(store.position(id), before, "nothing was written to it");
        Ok(())
    }

    pub async fn compact(&self) {
        self.try_compact().await.unwrap();
    }

    /// One pass over the sparse segments.
    pub async fn try_compact(&self) -> Result<()> {
        let positions = || self.store().ids().into_iter().map(|id| (id, self.store().position(id))).collect();
        let before: BTreeMap<OverlayId, Position> = positions();
        let mut pass = self.store().sparse_segments().await?;
        while !pass.is_empty() {
            self.store().compact(pass.pop()).await?;
        }
        self.store().compact(None).await?;
        assert_eq!(positions(), before, "nothing was written to any");
        Ok(())
    }

    /// Let the index believe that a segment has so many more live bytes.
    pub fn miscount(&mut self, segment: SegmentId, bytes: i64) {
        self.store().index.miscount(segment, bytes);
    }

    /// Nothing is left but the open segment, and what replay would begin in.
    pub async fn check_empty(&self) {
        let index = &self.store().index;
        assert!(index.overlays().unwrap().is_empty());
        assert_eq!(index.recount_live().unwrap().values().sum::<i64>(), 0);
        assert!(self.store().log.segments().len() <= 2, "{:?}", self.store().log.segments());
    }

    pub fn is_named(&self, id: OverlayId) -> bool {
        self.views.iter().any(|view| view.top == Some(id) || view.layers.iter().any(|layer| layer.overlay == id))
    }

    /// The counts that are kept are those that can be counted; of overlays that nobody names, some may
    /// have been purged before a crash.
    pub async fn check_counts(&self) {
        self.flush().await;
        let index = &self.store().index;
        for (id, row) in index.overlays().unwrap().into_iter().filter(|(id, _)| self.is_named(*id)) {
            assert_eq!(index.recount(id).unwrap(), row.counts, "overlay {id:?}");
        }
        assert_eq!(index.recount_live().unwrap(), index.live().into_iter().filter(|(_, bytes)| *bytes != 0).collect());
    }
}

fn receipt(number: u64) -> Receipt {
    let word = number.to_be_bytes();
    Receipt { key: [word, word].concat().try_into().unwrap(), answer: Bytes::copy_from_slice(&word) }
}

/// A change of one view, all of it in one record.
fn apply(change: &Change, tree: &mut Tree<'_>, fetch: &mut Fetch<'_>) -> Step<()> {
    match change {
        Change::Write { ino, offset, data } => {
            let mut node = tree.node(fetch, *ino)?.unwrap();
            tree.write(fetch, *ino, &mut node, *offset, data.clone())?;
            tree.put(fetch, *ino, node)
        }
        Change::Truncate { ino, size } => {
            let mut node = tree.node(fetch, *ino)?.unwrap();
            assert!(tree.truncate(fetch, *ino, &mut node, *size)?);
            tree.put(fetch, *ino, node)
        }
        Change::Create { name, ino } => {
            tree.add_entry(fetch, Ino::ROOT, name.as_bytes(), *ino, FileKind::Regular)?;
            tree.put(fetch, *ino, Node::new(FileKind::Regular, Ino::ROOT, NOW))?;
            touch_root(tree, fetch)
        }
        Change::Remove { name } => {
            let entry = tree.lookup(fetch, Ino::ROOT, name.as_bytes())?.unwrap();
            tree.remove_entry(fetch, Ino::ROOT, &entry)?;
            let node = tree.node(fetch, entry.ino)?.unwrap();
            tree.remove(fetch, entry.ino, &node)?;
            touch_root(tree, fetch)
        }
        Change::Rename { from, to } => {
            let entry = tree.lookup(fetch, Ino::ROOT, from.as_bytes())?.unwrap();
            tree.remove_entry(fetch, Ino::ROOT, &entry)?;
            tree.add_entry(fetch, Ino::ROOT, to.as_bytes(), entry.ino, entry.kind)?;
            touch_root(tree, fetch)
        }
    }
}

fn touch_root(tree: &mut Tree<'_>, fetch: &mut Fetch<'_>) -> Step<()> {
    let root = tree.node(fetch, Ino::ROOT)?.unwrap();
    tree.put(fetch, Ino::ROOT, root)
}

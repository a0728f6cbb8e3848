//! The front end over the real file service: a catalog, a chunk store's twin in memory, and overlays
//! over the delta log on a simulated disk, which can be held back, filled and cut off.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use mimeo::audit::{AuditLog, Bounds};
use mimeo::chunk::{ChunkId, ChunkSink, ChunkSource, MemoryChunks};
use mimeo::env::{Disk, DiskFile, Env, ManualClock, SeededRng, SimDisk, Space, Time};
use mimeo::error::Result;

use mimeo::image::{
    Catalog, CloneRecord, CloneTarget, Fleet, Labels, MemoryCatalogLog, NewClones, NewSnapshot, NewVersion,
    RepointPlan, VersionRef, Writes,
};
use mimeo::manifest::{
    Content, ContentBuilder, Entry, Extent, FIRST_COOKIE, FileKind, Ino, Inode, ManifestBuilder, ManifestId, NameSeed,
    Xattrs,
};
use mimeo::meta::MemoryKv;
use mimeo::nfs::{Server, ServerOptions};
use mimeo::overlay::log::{LocalLog, LogOptions};
use mimeo::overlay::{OverlayOptions, OverlayStore};
use mimeo::vfs::{Activity, ExportPolicy, ImageVfs, MAX_LINKS, Vfs};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::client::{Client, auth_sys};
use crate::ops::Fh;

/// A file that says to have as many names as a file can have.
pub const POPULAR: &str = "popular";
/// Owner of most things in the image.
pub const USER: u32 = 1000;
/// Its group.
pub const GROUP: u32 = 100;
/// Of the directory `shared`.
pub const TEAM: u32 = 500;
/// When everything in the image was changed last.
pub const BORN: u32 = 1_000_000;
/// What the clock says; it stands still.
pub const NOW: u32 = 2_000_000;

pub const HELLO_TEXT: &[u8] = b"hello, world\n";
pub const BIG_LEN: usize = 300_000;
/// A hole in the file `big`.
pub const HOLE: std::ops::Range<usize> = 65_536..131_072;

/// What the file `big` holds.
pub fn big_bytes() -> Vec<u8> {
    (0..BIG_LEN).map(|at| if HOLE.contains(&at) { 0 } else { (at % 251) as u8 + 1 }).collect()
}

/// What survives a restart.
pub struct Machine {
    pub disk: Arc<SimDisk>,
    pub gate: Arc<Gate>,
    pub trap: Arc<Trap>,
    pub clock: Arc<ManualClock>,
    kv: Arc<MemoryKv>,
    log: MemoryCatalogLog,
    chunks: Arc<MemoryChunks>,
}

/// A server in this process, over a store that may be restarted.
pub struct World {
    pub machine: Machine,
    pub policy: ExportPolicy,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    addr: SocketAddr,
    catalog: Arc<Catalog>,
    overlays: Arc<OverlayStore>,
    fleet: Fleet,
    activity: Arc<Activity>,
    stop: oneshot::Sender<()>,
}

/// What a machine opens at its start.
struct Opened {
    catalog: Arc<Catalog>,
    overlays: Arc<OverlayStore>,
    fleet: Fleet,
    activity: Arc<Activity>,
    server: Server<ImageVfs>,
}

impl World {
    /// With an image `base` and a clone `desk` of it.
    pub fn new() -> Self {
        let machine = Machine {
            disk: Arc::new(SimDisk::new(7)),
            gate: Arc::default(),
            trap: Arc::default(),
            clock: Arc::new(ManualClock::at_secs(NOW.into())),
            kv: Arc::new(MemoryKv::new()),
            log: MemoryCatalogLog::new(),
            chunks: Arc::default(),
        };
        let policy = ExportPolicy { privileged_port: false, ..ExportPolicy::default() };
        let mut world = Self { machine, policy, running: None };
        world.start();
        world.publish(image);
        world.clone_as("desk");
        world
    }

    fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let opened = runtime.block_on(self.machine.open(self.policy.clone()));
        let Opened { catalog, overlays, fleet, activity, server } = opened;
        let addr = server.local_addrs()[0];
        runtime.spawn(server.run(async { drop(stopped.await) }));
        self.running = Some(Running { runtime, addr, catalog, overlays, fleet, activity, stop });
    }

    /// Power cut, and the next start.
    pub fn crash(&mut self) {
        let Running { runtime, stop, catalog, overlays, fleet, .. } = self.running.take().unwrap();
        self.machine.disk.crash();
        self.machine.kv.crash();
        self.machine.gate.open();
        drop((stop, catalog, overlays, fleet));
        runtime.shutdown_background();
        self.start();
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub fn overlays(&self) -> &Arc<OverlayStore> {
        &self.running().overlays
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.running().catalog
    }

    pub fn fleet(&self) -> &Fleet {
        &self.running().fleet
    }

    /// Who uses which clone.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.running().activity
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.running().runtime.block_on(work)
    }

    /// A new version of the image `base`.
    pub fn publish(&self, make: fn(&MemoryChunks, NameSeed) -> ManifestId) {
        let chunks = self.machine.chunks.clone();
        let catalog = self.catalog().clone();
        self.block_on(async move {
            let image = catalog.create_or_get_image("base", Labels::default()).await.unwrap();
            let version = NewVersion {
                image: image.id,
                manifest: make(&chunks, NameSeed(image.name_seed)),
                created: Time::new(BORN.into(), 0),
                source: "test".into(),
                author: "test".into(),
                labels: Labels::default(),
                consistency: "unknown".into(),
                inodes: 10,
                bytes_logical: 0,
                bytes_stored: 0,
                bytes_added: 0,
            };
            catalog.add_version(version).await.unwrap();
        });
    }

    /// A new clone of the newest version.
    pub fn clone_as(&self, name: &str) {
        let new =
            NewClones { version: VersionRef::newest("base"), names: vec![name.into()], labels: Labels::default() };
        self.block_on(self.catalog().create_clones(new)).unwrap();
    }

    pub fn clone_record(&self, name: &str) -> Arc<CloneRecord> {
        self.catalog().state().clone_named(name).unwrap().clone()
    }

    /// Change a clone's record as an admin would.
    pub fn edit_clone(&self, name: &'static str, edit: impl Fn(&mut CloneRecord) + Send + 'static) {
        let edit = move |draft: &mut mimeo::image::Draft| {
            let mut clone = CloneRecord::clone(draft.find_clone(name)?);
            edit(&mut clone);
            draft.apply(mimeo::image::Change::PutClone(clone))
        };
        self.block_on(self.catalog().transact("edit", edit)).unwrap();
    }

    /// Take a snapshot of the clone `desk`.
    pub fn snapshot(&self, name: &str) {
        let target = CloneTarget::Names(vec!["desk".into()]);
        let new = NewSnapshot { target, name: name.into(), labels: Labels::default() };
        self.block_on(self.fleet().snapshot(new)).unwrap();
    }

    /// Let the clone `desk` show a snapshot of it again.
    pub fn restore(&self, snapshot: &str) {
        self.block_on(self.fleet().restore("desk", snapshot)).unwrap();
    }

    /// Let the clone `desk` show a version of its image, without its private writes.
    pub fn discard(&self, number: u32) {
        let plan =
            RepointPlan::new("base", VersionRef::number("base", number), CloneTarget::Names(vec!["desk".into()]))
                .with(Writes::Discard);
        self.block_on(self.fleet().repoint(plan)).unwrap();
    }

    /// A connection of root.
    pub fn client(&self) -> Client {
        Client::connect(self.running().addr)
    }

    /// A connection of root from a port of choice.
    pub fn client_from(&self, local: SocketAddr) -> Client {
        Client::connect_from(local, self.running().addr)
    }

    /// A connection of another user.
    pub fn client_as(&self, uid: u32, gid: u32, groups: &[u32]) -> Client {
        let mut client = self.client();
        client.credential = auth_sys(uid, gid, groups);
        client
    }

    /// The root of the clone `desk`, for root.
    pub fn desk(&self) -> (Client, Fh) {
        let mut client = self.client();
        let root = client.mount("/clones/desk").unwrap();
        (client, root)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.machine.gate.open();
        if let Some(running) = self.running.take() {
            running.runtime.shutdown_background();
        }
    }
}

impl Machine {
    async fn open(&self, policy: ExportPolicy) -> Opened {
        let disk = Arc::new(GateDisk { disk: self.disk.clone(), gate: self.gate.clone() });
        let env = Env { disk, clock: self.clock.clone(), rng: Arc::new(SeededRng::new(1)) };
        let catalog = Catalog::open(Arc::new(self.log.clone()), env.clone()).await.unwrap();
        let epoch = OverlayStore::next_epoch(&*self.kv).unwrap();
        let log = LocalLog::open(env.clone(), "/log".into(), epoch, LogOptions::default()).unwrap();
        let options = OverlayOptions { cache_bytes: 1 << 20 };
        let (kv, chunks) = (self.kv.clone(), self.chunks.clone());
        let marks = catalog.state().marked_overlays().into_iter().collect();
        let overlays = OverlayStore::open(log, kv, chunks.clone(), epoch, marks, options).await.unwrap();
        let data_dir = PathBuf::from("/log");
        let chunks = Arc::new(TrapChunks { chunks, trap: self.trap.clone() });
        let bounds = Bounds { file_bytes: 1 << 20, files: 2 };
        let audit = AuditLog::open(&env, "/audit".into(), bounds).unwrap();
        let fleet = Fleet::new(catalog.clone(), overlays.clone()).with_audit(audit);
        let vfs = ImageVfs::new(catalog.clone(), chunks, overlays.clone(), policy, env, data_dir);
        let vfs = vfs.activating(fleet.clone());
        let activity = vfs.activity().clone();
        let mut options = ServerOptions::new(vec![([127, 0, 0, 1], 0).into()]);
        options.workers = 2;
        let server = Server::bind(Arc::new(vfs), options).unwrap();
        Opened { catalog, overlays, fleet, activity, server }
    }
}

/// Holds syncs back.
#[derive(Default)]
pub struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub fn close(&self) {
        *self.closed.lock() = true;
    }

    pub fn open(&self) {
        *self.closed.lock() = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut closed = self.closed.lock();
        while *closed {
            self.changed.wait(&mut closed);
        }
    }
}

/// Holds one request of the file service up, at the first page that it looks for: it has its catalog
/// revision by then, and no lock.
#[derive(Default)]
pub struct Trap {
    state: Mutex<Trapped>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Trapped {
    #[default]
    Unset,
    Set,
    Caught,
}

impl Trap {
    pub fn set(&self) {
        *self.state.lock() = Trapped::Set;
    }

    /// Wait until a request is held up.
    pub fn wait(&self) {
        let mut state = self.state.lock();
        while *state != Trapped::Caught {
            self.changed.wait(&mut state);
        }
    }

    /// Let it go on.
    pub fn release(&self) {
        *self.state.lock() = Trapped::Unset;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        if *state != Trapped::Set {
            return;
        }
        *state = Trapped::Caught;
        self.changed.notify_all();
        while *state == Trapped::Caught {
            self.changed.wait(&mut state);
        }
    }
}

/// Chunks behind a trap.
struct TrapChunks {
    chunks: Arc<MemoryChunks>,
    trap: Arc<Trap>,
}

impl ChunkSource for TrapChunks {
    fn cached(&self, id: &ChunkId) -> Option<Bytes> {
        self.trap.pass();
        self.chunks.cached(id)
    }

    fn may_be_kept(&self) -> bool {
        false
    }

    fn load(&self, id: ChunkId) -> BoxFuture<'static, Result<Bytes>> {
        self.chunks.load(id)
    }
}

/// A disk whose syncs wait at a gate.
struct GateDisk {
    disk: Arc<SimDisk>,
    gate: Arc<Gate>,
}

struct GateFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl GateDisk {
    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(GateFile { file, gate: self.gate.clone() })
    }
}

impl Disk for GateDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.disk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.disk.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.disk.unlink(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
}

impl DiskFile for GateFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn append(&self, data: &[u8]) -> io::Result<()> {
        self.file.append(data)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync()
    }
}

/// An object of the image: where it is, what it is, whose it is, what it holds.
struct Item {
    ino: u64,
    dir: u64,
    name: &'static str,
    kind: FileKind,
    mode: u32,
    owner: (u32, u32),
    data: Vec<u8>,
}

fn item(ino: u64, dir: u64, name: &'static str, kind: FileKind, mode: u32, owner: (u32, u32)) -> Item {
    Item { ino, dir, name, kind, mode, owner, data: Vec::new() }
}

/// The items of version 1.
fn items() -> Vec<Item> {
    use FileKind::{Directory, Regular, Symlink};
    let user = (USER, GROUP);
    vec![
        item(1, 1, "", Directory, 0o755, (0, 0)),
        Item { data: HELLO_TEXT.to_vec(), ..item(10, 1, "hello", Regular, 0o644, user) },
        Item { data: big_bytes(), ..item(11, 1, "big", Regular, 0o644, user) },
        item(12, 1, "home", Directory, 0o755, user),
        Item { data: b"inside".to_vec(), ..item(13, 12, "inner", Regular, 0o600, user) },
        Item { data: b"hello".to_vec(), ..item(14, 1, "link", Symlink, 0o777, user) },
        item(15, 1, "tmp", Directory, 0o1777, (0, 0)),
        item(16, 1, "shared", Directory, 0o2775, (0, TEAM)),
        Item { data: b"locked".to_vec(), ..item(17, 12, "locked", Regular, 0o444, user) },
        item(18, 12, "empty", Directory, 0o755, user),
        item(19, 1, "pipe", FileKind::Fifo, 0o666, user),
        item(21, 1, POPULAR, Regular, 0o644, user),
    ]
}

/// Version 1: see [`items`].
pub fn image(chunks: &MemoryChunks, seed: NameSeed) -> ManifestId {
    manifest(chunks, seed, items())
}

/// Version 2: `hello` is another file of the same name, `home/empty` and `tmp` are gone.
pub fn next_image(chunks: &MemoryChunks, seed: NameSeed) -> ManifestId {
    let mut next = items();
    next.retain(|item| !["empty", "tmp"].contains(&item.name));
    for item in next.iter_mut().filter(|item| item.name == "hello") {
        (item.ino, item.data) = (20, b"version two\n".to_vec());
    }
    manifest(chunks, seed, next)
}

fn manifest(chunks: &MemoryChunks, seed: NameSeed, mut items: Vec<Item>) -> ManifestId {
    items.sort_by_key(|item| item.ino);
    let mut builder = ManifestBuilder::new(chunks, seed);
    let mut stored = BTreeMap::new();
    let mut entries = BTreeMap::new();
    for item in &items {
        let cookie = seed.choose_cookie(item.name.as_bytes(), |_| false).unwrap();
        let inode = inode(chunks, item, &items, &mut stored);
        builder.add_inode(Ino(item.ino), &Inode { parent_cookie: cookie, ..inode }).unwrap();
        if item.ino != 1 {
            let name = Bytes::from_static(item.name.as_bytes());
            entries.insert((item.dir, cookie), Entry { name, cookie, ino: Ino(item.ino), kind: item.kind });
        }
    }
    for ((dir, _), entry) in &entries {
        builder.add_entry(Ino(*dir), entry).unwrap();
    }
    for (id, len) in stored {
        builder.add_chunk(id, len, len).unwrap();
    }
    builder.finish().unwrap().0
}

fn inode(chunks: &MemoryChunks, item: &Item, all: &[Item], stored: &mut BTreeMap<ChunkId, u32>) -> Inode {
    let born = Time::new(BORN.into(), 5);
    let subdirectories = all.iter().filter(|other| other.dir == item.ino && other.ino != 1);
    let subdirectories = subdirectories.filter(|other| other.kind == FileKind::Directory).count() as u32;
    let mut content = ContentBuilder::new(chunks);
    let mut at = 0;
    for block in item.data.chunks(65_536) {
        if item.kind == FileKind::Regular && block.iter().any(|byte| *byte != 0) {
            let chunk = chunks.put(block).unwrap().id;
            stored.insert(chunk, block.len() as u32);
            content.push(Extent { offset: at, len: block.len() as u32, chunk }).unwrap();
        }
        at += block.len() as u64;
    }
    let content = content.finish(at).unwrap();
    Inode {
        kind: item.kind,
        mode: item.mode,
        uid: item.owner.0,
        gid: item.owner.1,
        nlink: match item.kind {
            FileKind::Directory => 2 + subdirectories,
            _ if item.name == POPULAR => MAX_LINKS,
            _ => 1,
        },
        rdev: (0, 0),
        size: if item.kind == FileKind::Directory { 4096 } else { at },
        used: content.used,
        atime: born,
        mtime: born,
        ctime: born,
        parent: Ino(item.dir),
        parent_cookie: FIRST_COOKIE,
        digest: [0; 32],
        disk_image: false,
        content: match item.kind {
            FileKind::Regular => content.content,
            FileKind::Symlink => Content::Symlink(item.data.clone().into()),
            _ => Content::None,
        },
        xattrs: Xattrs::None,
    }
}

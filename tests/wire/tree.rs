//! A small tree in memory behind the `Vfs` trait: what the wire tests serve.
//!
//! Nodes may be cold: their verbs stop until a chunk was loaded, as they do on the real store, and
//! a gate holds such loads back for as long as a test wants. One node has lost its chunk, and one
//! has a bug.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use mimeo::chunk::{ChunkId, ChunkSink, ChunkSource, Fetch, MemoryChunks};
use mimeo::env::{ManualClock, Time};
use mimeo::error::Result;
use mimeo::image::{ExportId, State};
use mimeo::vfs::{
    Activity, Attr, Caller, Changed, CreateHow, Durable, ExportLine, FileKind, FsStat, LinkTarget, ListEntry,
    ListWindow, Listing, Looked, NewAttr, NewObject, Object, Place, ReadData, ReceiptKey, Refusal, Refused, Request,
    Rights, Tap, Verb, Vfs,
};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

pub const KEY: (u8, [u8; 32]) = (5, [0x5a; 32]);
pub const EXPORT: u64 = 7;
pub const PATH: &[u8] = b"/clones/desk";

pub const ROOT: u64 = 1;
pub const HELLO: u64 = 2;
pub const BIG: u64 = 3;
pub const LINK: u64 = 4;
pub const MANY: u64 = 5;
pub const EMPTY: u64 = 6;
pub const SECRET: u64 = 7;
pub const SLOW: u64 = 8;
pub const LOST: u64 = 9;
pub const BUG: u64 = 10;
pub const NULL: u64 = 11;

pub const HELLO_TEXT: &[u8] = b"hello, world\n";
pub const BIG_LEN: usize = 3 * 1024 * 1024 + 5;
pub const MANY_FILES: u64 = 1000;
const SLICE: usize = 64 * 1024;

pub fn object(ino: u64) -> Object {
    Object { export: ExportId(EXPORT), ino, generation: 0 }
}

/// What byte `at` of the big file is.
pub fn big_byte(at: usize) -> u8 {
    (at % 251) as u8
}

struct Node {
    attr: Attr,
    parent: u64,
    entries: BTreeMap<Vec<u8>, u64>,
    data: Bytes,
    cold: Option<ChunkId>,
}

pub struct Tree {
    nodes: BTreeMap<u64, Node>,
    gate: Gate,
    activity: Arc<Activity>,
    tap: Arc<Tap>,
}

impl Tree {
    /// Only `SLOW` and `LOST` are cold.
    pub fn new() -> Self {
        let mut tree = Self {
            nodes: BTreeMap::new(),
            gate: Gate::new(),
            activity: Activity::new(Duration::ZERO),
            tap: Tap::new(Arc::new(ManualClock::at_secs(1))),
        };
        tree.add(ROOT, ROOT, b"", FileKind::Directory, 0o755, b"");
        tree.add(HELLO, ROOT, b"hello", FileKind::Regular, 0o644, HELLO_TEXT);
        let big: Vec<u8> = (0..BIG_LEN).map(big_byte).collect();
        tree.add(BIG, ROOT, b"big", FileKind::Regular, 0o600, &big);
        tree.add(LINK, ROOT, b"link", FileKind::Symlink, 0o777, b"hello");
        tree.add(MANY, ROOT, b"many", FileKind::Directory, 0o755, b"");
        for n in 0..MANY_FILES {
            let name = format!("file-{n:04}{}", "x".repeat(n as usize % 7));
            tree.add(1000 + n, MANY, name.as_bytes(), FileKind::Regular, 0o644, b"");
        }
        tree.add(EMPTY, ROOT, b"empty", FileKind::Directory, 0o755, b"");
        tree.add(SECRET, ROOT, b"secret", FileKind::Directory, 0o700, b"");
        tree.add(SLOW, ROOT, b"slow", FileKind::Regular, 0o644, &[b's'; 1000]);
        tree.add(LOST, ROOT, b"lost", FileKind::Regular, 0o644, b"");
        tree.add(BUG, ROOT, b"bug", FileKind::Regular, 0o644, b"");
        tree.add(NULL, ROOT, b"null", FileKind::Char, 0o666, b"");
        tree.add(12, ROOT, b"\xff\xfe", FileKind::Regular, 0o644, b"");
        tree.chill(SLOW);
        tree.chill(LOST);
        tree.gate.chunks.remove(&chunk_of(LOST));
        tree
    }

    /// Every verb on every node misses a chunk the first time.
    pub fn cold() -> Self {
        let mut tree = Self::new();
        let all: Vec<u64> = tree.nodes.keys().copied().filter(|ino| *ino != LOST).collect();
        all.into_iter().for_each(|ino| tree.chill(ino));
        tree
    }

    fn chill(&mut self, ino: u64) {
        self.gate.chunks.put(chunk_name(ino).as_bytes()).unwrap();
        self.nodes.get_mut(&ino).unwrap().cold = Some(chunk_of(ino));
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    fn add(&mut self, ino: u64, parent: u64, name: &[u8], kind: FileKind, mode: u32, data: &[u8]) {
        let attr = Attr {
            kind,
            mode,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            uid: 0,
            gid: 10,
            size: if kind == FileKind::Directory { 4096 } else { data.len() as u64 },
            used: data.len() as u64,
            rdev: if kind == FileKind::Char { (1, 3) } else { (0, 0) },
            fsid: EXPORT,
            fileid: ino,
            atime: Time::new(-5, 7),
            mtime: Time::new(1_700_000_000, 123),
            ctime: Time::new(1_700_000_001, ino as u32),
        };
        let data = Bytes::copy_from_slice(data);
        self.nodes.insert(ino, Node { attr, parent, entries: BTreeMap::new(), data, cold: None });
        if ino != ROOT {
            self.nodes.get_mut(&parent).unwrap().entries.insert(name.to_vec(), ino);
        }
    }

    /// The names in directory `ino`, in the order of their cookies.
    pub fn names(&self, ino: u64) -> Vec<Vec<u8>> {
        self.nodes[&ino].entries.keys().cloned().collect()
    }

    pub fn attr(&self, ino: u64) -> Attr {
        self.nodes[&ino].attr
    }

    /// The node of `object`, once its chunk is there.
    fn node(&self, rq: &mut Request<'_>, object: Object) -> Verb<&Node> {
        assert_ne!(object.ino, BUG, "the bug that one test wants");
        let known = object.export == ExportId(EXPORT) && object.generation == 0;
        match self.nodes.get(&object.ino).filter(|_| known) {
            Some(node) => {
                if let Some(chunk) = &node.cold {
                    rq.fetch().get(chunk)?;
                }
                Ok(Ok(node))
            }
            None => Ok(Err(Refused { why: Refusal::Stale, attr: None })),
        }
    }

    fn read_only(&self, rq: &mut Request<'_>, object: Object) -> Verb<Changed> {
        Ok(self.node(rq, object)?.and_then(|node| refuse(Refusal::ReadOnly, node)))
    }

    fn directory(&self, rq: &mut Request<'_>, object: Object) -> Verb<&Node> {
        let uid = rq.caller.uid;
        Ok(self.node(rq, object)?.and_then(|node| match node.attr.kind {
            FileKind::Directory if uid == 0 || node.attr.mode & 0o007 != 0 => Ok(node),
            FileKind::Directory => refuse(Refusal::Access, node),
            _ => refuse(Refusal::NotDirectory, node),
        }))
    }
}

fn refuse<T>(why: Refusal, node: &Node) -> std::result::Result<T, Refused> {
    Err(Refused { why, attr: Some(node.attr) })
}

fn chunk_name(ino: u64) -> String {
    format!("node {ino}")
}

fn chunk_of(ino: u64) -> ChunkId {
    ChunkId::of(chunk_name(ino).as_bytes())
}

impl Vfs for Tree {
    fn begin<'a>(&'a self, caller: &'a Caller) -> Request<'a> {
        Request::new(caller, Arc::new(State::default()), Fetch::new(&self.gate))
    }

    fn mount(&self, rq: &mut Request<'_>, path: &[u8]) -> Verb<Object> {
        match path {
            PATH => Ok(self.node(rq, object(ROOT))?.map(|_| object(ROOT))),
            b"/clones/forbidden" => Ok(Err(Refused { why: Refusal::Access, attr: None })),
            _ => Ok(Err(Refused { why: Refusal::NotFound, attr: None })),
        }
    }

    fn unmount(&self, _: &Request<'_>, _: &[u8]) {}

    fn exports(&self, _: &mut Request<'_>, limit: usize) -> Vec<ExportLine> {
        let networks = vec!["10.0.0.0/8".to_owned(), "127.0.0.1".to_owned()];
        let lines = [
            ExportLine { path: PATH.to_vec(), networks },
            ExportLine { path: b"/images/desk@v1".to_vec(), networks: Vec::new() },
        ];
        lines.into_iter().take(limit).collect()
    }

    fn getattr(&self, rq: &mut Request<'_>, object: Object) -> Verb<Attr> {
        Ok(self.node(rq, object)?.map(|node| node.attr))
    }

    fn lookup(&self, rq: &mut Request<'_>, dir: Object, name: &[u8]) -> Verb<Looked> {
        let dir_node = match self.directory(rq, dir)? {
            Ok(node) => node,
            Err(refused) => return Ok(Err(refused)),
        };
        let ino = match name {
            b"." => dir.ino,
            b".." => dir_node.parent,
            _ => match dir_node.entries.get(name) {
                Some(ino) => *ino,
                None => return Ok(refuse(Refusal::NotFound, dir_node)),
            },
        };
        Ok(Ok(Looked { object: object(ino), attr: self.attr(ino), dir_attr: dir_node.attr }))
    }

    fn access(&self, rq: &mut Request<'_>, object: Object, asked: Rights) -> Verb<(Attr, Rights)> {
        // Grants reading, and execute although it was not asked for: the front end must mask it.
        let granted = Rights { read: asked.read, lookup: asked.lookup, execute: true, ..Rights::default() };
        Ok(self.node(rq, object)?.map(|node| (node.attr, granted)))
    }

    fn readlink(&self, rq: &mut Request<'_>, object: Object) -> Verb<LinkTarget> {
        Ok(self.node(rq, object)?.and_then(|node| match node.attr.kind {
            FileKind::Symlink => Ok(LinkTarget { attr: node.attr, target: node.data.clone() }),
            _ => refuse(Refusal::Invalid, node),
        }))
    }

    fn read(&self, rq: &mut Request<'_>, object: Object, offset: u64, len: u32) -> Verb<ReadData> {
        Ok(self.node(rq, object)?.and_then(|node| match node.attr.kind {
            FileKind::Regular => Ok(slices(node, offset, len)),
            FileKind::Directory => refuse(Refusal::IsDirectory, node),
            _ => refuse(Refusal::Invalid, node),
        }))
    }

    fn list(&self, rq: &mut Request<'_>, dir: Object, window: ListWindow) -> Verb<Listing> {
        let node = match self.directory(rq, dir)? {
            Ok(node) => node,
            Err(refused) => return Ok(Err(refused)),
        };
        let mut left = window.budget;
        let mut entries = Vec::new();
        for (index, (name, ino)) in node.entries.iter().enumerate() {
            let cookie = index as u64 + 3;
            if cookie <= window.after {
                continue;
            }
            let cost = window.entry_cost + name.len().next_multiple_of(4) as u32;
            let Some(rest) = left.checked_sub(cost) else {
                return Ok(Ok(Listing { dir_attr: node.attr, entries, eof: false }));
            };
            left = rest;
            let full = window.with_attrs.then(|| (object(*ino), self.attr(*ino)));
            entries.push(ListEntry { name: Bytes::copy_from_slice(name), fileid: *ino, cookie, full });
        }
        Ok(Ok(Listing { dir_attr: node.attr, entries, eof: true }))
    }

    fn fsstat(&self, rq: &mut Request<'_>, object: Object) -> Verb<(Attr, FsStat)> {
        let stat = FsStat {
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
            available_bytes: 1 << 38,
            total_files: 1000,
            free_files: 900,
        };
        Ok(self.node(rq, object)?.map(|node| (node.attr, stat)))
    }

    fn setattr(&self, rq: &mut Request<'_>, object: Object, _: NewAttr, _: Option<Time>) -> Verb<Changed> {
        self.read_only(rq, object)
    }

    fn write(&self, rq: &mut Request<'_>, file: Object, _: u64, _: &[u8], _: bool) -> Verb<Changed> {
        self.read_only(rq, file)
    }

    fn commit(&self, rq: &mut Request<'_>, file: Object) -> Verb<Changed> {
        self.read_only(rq, file)
    }

    fn create(&self, rq: &mut Request<'_>, place: Place<'_>, _: CreateHow) -> Verb<Changed> {
        self.read_only(rq, place.dir)
    }

    fn make(&self, rq: &mut Request<'_>, place: Place<'_>, _: NewObject<'_>, _: NewAttr) -> Verb<Changed> {
        self.read_only(rq, place.dir)
    }

    fn remove(&self, rq: &mut Request<'_>, place: Place<'_>) -> Verb<Changed> {
        self.read_only(rq, place.dir)
    }

    fn rmdir(&self, rq: &mut Request<'_>, place: Place<'_>) -> Verb<Changed> {
        self.read_only(rq, place.dir)
    }

    fn rename(&self, rq: &mut Request<'_>, from: Place<'_>, _: Place<'_>) -> Verb<Changed> {
        self.read_only(rq, from.dir)
    }

    fn link(&self, rq: &mut Request<'_>, object: Object, to: Place<'_>) -> Verb<Changed> {
        match self.node(rq, object)? {
            Ok(_) => self.read_only(rq, to.dir),
            Err(refused) => Ok(Err(refused)),
        }
    }

    fn durable(&self, _: Durable) -> Option<BoxFuture<'static, Result<()>>> {
        None
    }

    fn write_verifier(&self) -> [u8; 8] {
        [0; 8]
    }

    fn tap(&self) -> &Arc<Tap> {
        &self.tap
    }

    fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    fn admits(&self, _: &Request<'_>, _: ExportId) -> bool {
        true
    }

    fn uptime(&self) -> Duration {
        Duration::ZERO
    }

    fn receipts(&self) -> Vec<(ReceiptKey, Bytes)> {
        Vec::new()
    }

    fn handle_keys(&self) -> Vec<(u8, [u8; 32])> {
        vec![(4, [0x44; 32]), KEY]
    }
}

/// The bytes asked for, cut as the chunks of a store would be.
fn slices(node: &Node, offset: u64, len: u32) -> ReadData {
    let start = offset.min(node.data.len() as u64) as usize;
    let end = (start + len as usize).min(node.data.len());
    let mut slices = smallvec::SmallVec::new();
    let mut at = start;
    while at < end {
        let next = ((at / SLICE + 1) * SLICE).min(end);
        slices.push(node.data.slice(at..next));
        at = next;
    }
    ReadData { attr: node.attr, slices, len: (end - start) as u32, eof: end == node.data.len() }
}

/// Chunks whose loads wait while the gate is closed.
pub struct Gate {
    chunks: Arc<MemoryChunks>,
    open: watch::Sender<bool>,
    loads: Arc<Loads>,
}

/// How many loads wait now, and how many did at most.
#[derive(Default)]
struct Loads {
    count: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Loads {
    fn begin(&self) {
        let mut count = self.count.lock();
        count.0 += 1;
        count.1 = count.1.max(count.0);
        self.changed.notify_all();
    }

    fn end(&self) {
        self.count.lock().0 -= 1;
    }
}

impl Gate {
    fn new() -> Self {
        Self { chunks: Arc::default(), open: watch::Sender::new(true), loads: Arc::default() }
    }

    pub fn close(&self) {
        self.open.send_replace(false);
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Wait until `many` loads wait.
    pub fn wait_for(&self, many: usize) {
        let mut count = self.loads.count.lock();
        while count.0 < many {
            let result = self.loads.changed.wait_for(&mut count, Duration::from_secs(60));
            assert!(!result.timed_out(), "{} loads instead of {many}", count.0);
        }
    }

    /// Most loads that waited at a time.
    pub fn peak(&self) -> usize {
        self.loads.count.lock().1
    }
}

impl ChunkSource for Gate {
    fn cached(&self, id: &ChunkId) -> Option<Bytes> {
        self.chunks.cached(id)
    }

    fn load(&self, id: ChunkId) -> BoxFuture<'static, Result<Bytes>> {
        let (chunks, loads, mut open) = (Arc::clone(&self.chunks), Arc::clone(&self.loads), self.open.subscribe());
        async move {
            loads.begin();
            // The sender lives as long as the tree that is served.
            open.wait_for(|open| *open).await.ok();
            loads.end();
            chunks.load(id).await
        }
        .boxed()
    }
}

//! Goal: bytes that a release has written stay readable, and the same input makes the same bytes.
//!
//! Method: a fixed manifest is built from literal records and compared, chunk by chunk, with the
//! frozen dump of `tests/fixtures/format-vN/`; then the dump alone is opened and read. N is the format
//! of the data directory: it grows with that of anything in it.

#[path = "formats/log.rs"]
mod log;
#[path = "formats/stores.rs"]
mod stores;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::FutureExt;
use mimeo::chunk::{ChunkId, ChunkSink, Fetch, MemoryChunks, Step};
use mimeo::daemon::FORMAT;
use mimeo::env::Time;
use mimeo::manifest::*;

const SEED: NameSeed = NameSeed(*b"format fixture 1");

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-v{FORMAT}/{name}"))
}

/// `name hex` lines: the manifest's id, then every chunk by its id.
fn dump(chunks: &MemoryChunks, id: &ManifestId) -> String {
    let mut out = format!("manifest {id}\n");
    for id in chunks.ids() {
        let bytes = read(chunks, |fetch| fetch.get(&id));
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let _ = writeln!(out, "{id} {hex}");
    }
    out
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn load(text: &str) -> (MemoryChunks, ManifestId) {
    let chunks = MemoryChunks::new();
    let (first, rest) = text.split_once('\n').unwrap();
    for (id, hex) in rest.lines().map(|line| line.split_once(' ').unwrap()) {
        assert_eq!(chunks.put(&unhex(hex)).unwrap().id.to_string(), id);
    }
    let id = unhex(first.strip_prefix("manifest ").unwrap());
    (chunks, ChunkId::from_slice(&id).unwrap())
}

fn read<T>(chunks: &MemoryChunks, step: impl FnMut(&mut Fetch<'_>) -> Step<T>) -> T {
    Fetch::new(chunks).run(step).now_or_never().unwrap().unwrap()
}

fn inode(kind: FileKind, content: Content, size: u64) -> Inode {
    Inode {
        kind,
        mode: 0o4751,
        uid: 1000,
        gid: 2000,
        nlink: 1,
        rdev: (0, 0),
        size,
        used: 0,
        atime: Time::new(-1, 999_999_999),
        mtime: Time::new(1_700_000_000, 5),
        ctime: Time::new(1_800_000_000, 6),
        parent: Ino::ROOT,
        parent_cookie: Cookie(0),
        digest: content_digest(size, &content),
        disk_image: false,
        content,
        xattrs: Xattrs::None,
    }
}

fn content(chunks: &MemoryChunks, extents: u64) -> (Content, u64) {
    let mut builder = ContentBuilder::new(chunks);
    for i in 0..extents {
        let chunk = ChunkId::of(&i.to_be_bytes());
        builder.push(Extent { offset: i * 200_000, len: 65_536, chunk }).unwrap();
    }
    let size = extents * 200_000;
    (builder.finish(size).unwrap().content, size)
}

/// One object of each sort.
fn objects(chunks: &MemoryChunks) -> BTreeMap<&'static str, Inode> {
    let (inline, inline_size) = content(chunks, 2);
    let (tree, tree_size) = content(chunks, 300);
    let short = [(b"user.short".to_vec(), b"value".to_vec())];
    let long = [(b"user.long".to_vec(), vec![7; 600])];
    let xattrs = |list: &[_]| Xattrs::store(list, chunks).unwrap().0;
    let none = |kind| inode(kind, Content::None, 0);
    BTreeMap::from([
        ("block", Inode { rdev: (8, 1), ..none(FileKind::Block) }),
        ("char", Inode { rdev: (1, 3), ..none(FileKind::Char) }),
        ("disk.qcow2", Inode { disk_image: true, ..inode(FileKind::Regular, tree, tree_size) }),
        ("fifo", Inode { xattrs: xattrs(&long), ..none(FileKind::Fifo) }),
        (
            "file",
            Inode { nlink: 2, used: 131_072, xattrs: xattrs(&short), ..inode(FileKind::Regular, inline, inline_size) },
        ),
        ("link", inode(FileKind::Symlink, Content::Symlink(Bytes::from_static(b"../file")), 7)),
        ("socket", none(FileKind::Socket)),
    ])
}

fn build() -> (MemoryChunks, ManifestId) {
    let chunks = MemoryChunks::new();
    let mut builder = ManifestBuilder::new(&chunks, SEED);
    let objects = objects(&chunks);
    let mut hasher = SubtreeHasher::new();
    objects.iter().for_each(|(name, inode)| hasher.child(name.as_bytes(), inode).unwrap());
    let root = Inode { digest: hasher.finish(), nlink: 2, ..inode(FileKind::Directory, Content::None, 4096) };
    builder.add_inode(Ino::ROOT, &root).unwrap();
    let mut entries = BTreeMap::new();
    for (ino, (name, inode)) in (0x1_0000_0001..).map(Ino).zip(&objects) {
        let cookie = SEED.cookie_base(name.as_bytes());
        builder.add_inode(ino, &Inode { parent_cookie: cookie, ..inode.clone() }).unwrap();
        entries.insert(cookie, Entry { name: Bytes::from_static(name.as_bytes()), cookie, ino, kind: inode.kind });
        if inode.nlink > 1 {
            builder.add_link(ino, Ino::ROOT, cookie).unwrap();
        }
    }
    entries.values().for_each(|entry| builder.add_entry(Ino::ROOT, entry).unwrap());
    for (word, stored) in [(1u8, 9), (5, 65_536), (200, 30_000)] {
        builder.add_chunk(ChunkId([word; 32]), 65_536, stored).unwrap();
    }
    let id = builder.finish().unwrap().0;
    (chunks, id)
}

#[test]
fn the_same_records_make_the_same_bytes() {
    let (chunks, id) = build();
    let made = dump(&chunks, &id);
    let frozen = std::fs::read_to_string(fixture("manifest.hex")).unwrap_or_default();
    if made != frozen {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("manifest.hex");
        std::fs::write(&path, made).unwrap();
        panic!("the manifest format changed without a new version; what is written now: {}", path.display());
    }
}

#[test]
fn frozen_manifests_are_read() {
    let text = std::fs::read_to_string(fixture("manifest.hex")).unwrap();
    let (chunks, id) = load(&text);
    let manifest = read(&chunks, |f| Manifest::open(f, &id));
    assert_eq!((manifest.stats().inodes, manifest.stats().others, manifest.stats().chunks), (8, 4, 3));
    for (name, expected) in objects(&MemoryChunks::new()) {
        let entry = read(&chunks, |f| manifest.lookup(f, Ino::ROOT, name.as_bytes())).unwrap();
        let found = read(&chunks, |f| manifest.inode(f, entry.ino)).unwrap();
        assert_eq!(*found, Inode { parent_cookie: entry.cookie, ..expected });
    }
    check_extents(&chunks, &manifest);
}

fn check_extents(chunks: &MemoryChunks, manifest: &Manifest) {
    let entry = read(chunks, |f| manifest.lookup(f, Ino::ROOT, b"disk.qcow2")).unwrap();
    let inode = read(chunks, |f| manifest.inode(f, entry.ino)).unwrap();
    let mut offsets = Vec::new();
    let mut visit = |extent: Extent| {
        offsets.push(extent.offset);
        Ok(ControlFlow::Continue(()))
    };
    manifest.for_each_extent(chunks, &inode, &mut visit).now_or_never().unwrap().unwrap();
    assert!(offsets.iter().copied().eq((0..300).map(|i| i * 200_000)));
}

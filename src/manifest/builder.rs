//! Building a manifest from sorted records.
//!
//! Four streams, each in ascending key order and otherwise independent of each other: inodes,
//! entries, links, chunks. The builder holds one unfinished page per level of each tree, so memory
//! does not grow with the tree. It checks the order and the bounds of each record, not that records
//! fit one another: that is the importer's business.

use super::codec::{chunk_value, encode_entry, encode_inode, entry_key, inode_key, link_key};
use super::grow::TreeBuilder;
use super::header::{Header, ManifestStats};
use super::page::TreeKind;
use super::{Cookie, Entry, FileKind, Ino, Inode, ManifestId, NameSeed};
use crate::chunk::{ChunkId, ChunkSink};
use crate::error::Result;

pub struct ManifestBuilder<'a> {
    sink: &'a dyn ChunkSink,
    seed: NameSeed,
    inodes: TreeBuilder<'a>,
    entries: TreeBuilder<'a>,
    links: TreeBuilder<'a>,
    chunks: TreeBuilder<'a>,
    stats: ManifestStats,
    value: Vec<u8>,
}

impl<'a> ManifestBuilder<'a> {
    /// `seed` is the image's: the cookies of all entries must come from it.
    pub fn new(sink: &'a dyn ChunkSink, seed: NameSeed) -> Self {
        let tree = |kind| TreeBuilder::new(kind, sink);
        Self {
            sink,
            seed,
            inodes: tree(TreeKind::Inodes),
            entries: tree(TreeKind::Entries),
            links: tree(TreeKind::Links),
            chunks: tree(TreeKind::Chunks),
            stats: ManifestStats::default(),
            value: Vec::new(),
        }
    }

    /// Add an object; ascending inode numbers.
    pub fn add_inode(&mut self, ino: Ino, inode: &Inode) -> Result<()> {
        self.value.clear();
        encode_inode(inode, &mut self.value)?;
        self.inodes.push(&inode_key(ino), &self.value)?;
        self.count(inode);
        Ok(())
    }

    fn count(&mut self, inode: &Inode) {
        let stats = &mut self.stats;
        stats.inodes += 1;
        match inode.kind {
            FileKind::Directory => stats.directories += 1,
            FileKind::Symlink => stats.symlinks += 1,
            FileKind::Regular => {
                stats.regular += 1;
                stats.bytes_logical = stats.bytes_logical.saturating_add(inode.size);
                stats.bytes_used = stats.bytes_used.saturating_add(inode.used);
            }
            _ => stats.others += 1,
        }
    }

    /// Add a name; ascending (directory, cookie).
    pub fn add_entry(&mut self, dir: Ino, entry: &Entry) -> Result<()> {
        self.value.clear();
        encode_entry(entry, &mut self.value)?;
        self.entries.push(&entry_key(dir, entry.cookie), &self.value)
    }

    /// Add one of the names of an object that has several; ascending (inode, directory, cookie).
    pub fn add_link(&mut self, ino: Ino, dir: Ino, cookie: Cookie) -> Result<()> {
        self.links.push(&link_key(ino, dir, cookie), &[])
    }

    /// Add a chunk that files (or large extended attributes) use; ascending ids, each once.
    pub fn add_chunk(&mut self, id: ChunkId, raw_len: u32, stored_len: u32) -> Result<()> {
        self.chunks.push(id.as_bytes(), &chunk_value(raw_len, stored_len))?;
        self.stats.chunks += 1;
        self.stats.chunk_bytes_raw += u64::from(raw_len);
        self.stats.chunk_bytes_stored += u64::from(stored_len);
        Ok(())
    }

    /// Write the last pages and the header.
    pub fn finish(self) -> Result<(ManifestId, ManifestStats)> {
        let mut stats = self.stats;
        let mut finish = |tree: TreeBuilder<'a>| {
            let (root, written) = tree.finish()?;
            stats.pages += written.pages;
            stats.page_bytes_stored += written.bytes_stored;
            Ok::<_, crate::error::Error>(root)
        };
        let inodes = finish(self.inodes)?;
        let entries = finish(self.entries)?;
        let links = finish(self.links)?;
        let chunks = finish(self.chunks)?;
        let header = Header { seed: self.seed, inodes, entries, links, chunks, stats };
        Ok((self.sink.put(&header.encode())?.id, stats))
    }
}

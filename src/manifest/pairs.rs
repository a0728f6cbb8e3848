//! The entries of two directories, matched by name: one directory of each manifest.
//!
//! With the same name seed both list in the same order, and one pass merges them: names that match
//! are in the same group of 16 cookies. With different seeds each name is looked up in the other
//! directory. Either way memory does not grow with the directories.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::cursor::Cursor;
use super::shared::SharedInodes;
use super::{Cookie, Entry, FileKind, Ino, Inode, Manifest, ManifestId};
use crate::chunk::{ChunkSource, Fetch};
use crate::error::{Error, Result};

/// The old and the new entry of one name; at least one is there.
pub(super) type Pair = [Option<Entry>; 2];

/// The two manifests and what was loaded of them for the current step.
pub(super) struct Sides<'a> {
    pub fetch: Fetch<'a>,
    pub manifests: [Manifest; 2],
    shared: SharedInodes,
}

impl<'a> Sides<'a> {
    pub async fn open(source: &'a dyn ChunkSource, ids: [&ManifestId; 2]) -> Result<Self> {
        let mut fetch = Fetch::new(source);
        let old = fetch.run(|f| Manifest::open(f, ids[0])).await?;
        let new = fetch.run(|f| Manifest::open(f, ids[1])).await?;
        let shared = SharedInodes::of(&mut fetch, old.inode_tree(), new.inode_tree()).await?;
        Ok(Self { fetch, manifests: [old, new], shared })
    }

    /// Whether both entries surely lead to the same record. The usual case, told without reading it.
    pub fn is_shared(&self, pair: &Pair) -> bool {
        let [Some(old), Some(new)] = pair else { return false };
        // Of a directory the record may be shared although its digest says nothing.
        old.ino == new.ino && old.kind != FileKind::Directory && self.shared.contains(old.ino)
    }

    pub fn same_seed(&self) -> bool {
        self.manifests[0].name_seed() == self.manifests[1].name_seed()
    }

    /// The inode behind an entry, on one side.
    pub async fn inode(&mut self, side: usize, ino: Ino) -> Result<Arc<Inode>> {
        let manifest = &self.manifests[side];
        let inode = self.fetch.run(|fetch| manifest.inode(fetch, ino)).await?;
        inode.ok_or_else(|| Error::corrupt(format!("inode {} of manifest {} is missing", ino.0, manifest.id())))
    }

    async fn lookup(&mut self, side: usize, dir: Ino, name: &[u8]) -> Result<Option<Entry>> {
        let manifest = &self.manifests[side];
        self.fetch.run(|fetch| manifest.lookup(fetch, dir, name)).await
    }

    async fn next(&mut self, side: usize, cursor: &mut Cursor) -> Result<Option<Entry>> {
        let manifest = &self.manifests[side];
        let mut step =
            |fetch: &mut Fetch<'_>| Ok(cursor.next(fetch)?.map(|item| manifest.entry_of(&item)).transpose()?);
        self.fetch.run(&mut step).await
    }
}

/// A position in two directories.
pub(super) struct Pairs {
    dirs: [Option<Ino>; 2],
    /// `None` where there is no directory, or where its end was reached.
    cursors: [Option<Cursor>; 2],
    /// The next entry of each side that the merge has not used.
    peeked: [Option<Entry>; 2],
    /// Matched, to be given next.
    ready: SmallVec<[Pair; 2]>,
}

impl Pairs {
    pub fn new(sides: &Sides<'_>, dirs: [Option<Ino>; 2]) -> Result<Self> {
        let cursor = |side: usize| dirs[side].map(|dir| sides.manifests[side].entries_cursor(dir)).transpose();
        Ok(Self { dirs, cursors: [cursor(0)?, cursor(1)?], peeked: [None, None], ready: SmallVec::new() })
    }

    pub async fn next(&mut self, sides: &mut Sides<'_>) -> Result<Option<Pair>> {
        if sides.same_seed() { self.next_merged(sides).await } else { self.next_looked_up(sides).await }
    }

    /// Let go of all pages until the next step.
    pub fn park(&mut self) {
        self.cursors.iter_mut().flatten().for_each(Cursor::park);
        let waiting = self.ready.iter_mut().flatten().chain(&mut self.peeked);
        for entry in waiting.flatten() {
            entry.name = Bytes::copy_from_slice(&entry.name);
        }
    }

    async fn next_merged(&mut self, sides: &mut Sides<'_>) -> Result<Option<Pair>> {
        if self.ready.is_empty() {
            let heads = [self.peek(sides, 0).await?, self.peek(sides, 1).await?];
            let Some(group) = heads.into_iter().flatten().min() else { return Ok(None) };
            let old = self.take_group(sides, 0, group).await?;
            let new = self.take_group(sides, 1, group).await?;
            self.ready = match_names(old, new);
        }
        Ok(self.ready.pop())
    }

    /// The group of the next entry of one side.
    async fn peek(&mut self, sides: &mut Sides<'_>, side: usize) -> Result<Option<Cookie>> {
        if self.peeked[side].is_none() {
            self.peeked[side] = self.advance(sides, side).await?;
        }
        Ok(self.peeked[side].as_ref().map(|entry| entry.cookie.group()))
    }

    async fn take_group(&mut self, sides: &mut Sides<'_>, side: usize, group: Cookie) -> Result<SmallVec<[Entry; 2]>> {
        let mut entries = SmallVec::new();
        while self.peek(sides, side).await? == Some(group) {
            entries.extend(self.peeked[side].take());
        }
        Ok(entries)
    }

    async fn advance(&mut self, sides: &mut Sides<'_>, side: usize) -> Result<Option<Entry>> {
        let Some(cursor) = &mut self.cursors[side] else { return Ok(None) };
        let entry = sides.next(side, cursor).await?;
        if entry.is_none() {
            self.cursors[side] = None;
        }
        Ok(entry)
    }

    /// First every old entry with its new one, then the new entries that have no old one.
    async fn next_looked_up(&mut self, sides: &mut Sides<'_>) -> Result<Option<Pair>> {
        if let Some(old) = self.advance(sides, 0).await? {
            let new = self.counterpart(sides, 1, &old).await?;
            return Ok(Some([Some(old), new]));
        }
        while let Some(new) = self.advance(sides, 1).await? {
            if self.counterpart(sides, 0, &new).await?.is_none() {
                return Ok(Some([None, Some(new)]));
            }
            sides.fetch.release();
        }
        Ok(None)
    }

    async fn counterpart(&self, sides: &mut Sides<'_>, side: usize, entry: &Entry) -> Result<Option<Entry>> {
        match self.dirs[side] {
            Some(dir) => sides.lookup(side, dir, &entry.name).await,
            None => Ok(None),
        }
    }
}

fn match_names(old: SmallVec<[Entry; 2]>, mut new: SmallVec<[Entry; 2]>) -> SmallVec<[Pair; 2]> {
    let mut pairs = SmallVec::new();
    for entry in old {
        let at = new.iter().position(|other| other.name == entry.name);
        pairs.push([Some(entry), at.map(|at| new.remove(at))]);
    }
    pairs.extend(new.into_iter().map(|entry| [None, Some(entry)]));
    pairs
}

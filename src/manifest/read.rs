//! Reading a manifest: attributes, names, listings, extents, paths.
//!
//! Opening parses the header page and nothing else, so it is done anew for each request. The reading
//! functions are steps of a [`Fetch`]: they answer from memory or stop where a page is missing. Those
//! that may visit a whole tree are `async` and take the source itself.
//!
//! Failure story: a record that does not decode is `Corrupt` and is named; the others stay readable.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::codec::{decode_chunk, decode_entry, decode_extent, decode_inode, entry_key, entry_name, inode_key};
use super::codec::{key_tail, link_key};
use super::cursor::{Cursor, Item, Seek};
use super::header::{Header, ManifestStats};
use super::page::TreeKind;
use super::tree::{Tree, TreeRoot};
use super::{Content, Cookie, Extent, FileKind, Ino, Inode, ManifestId, NameSeed, Xattrs};
use crate::chunk::{ChunkId, ChunkSource, Fetch, MemoKey, Step};
use crate::error::{Error, Result};

/// Deepest directory that a path is told of.
pub const MAX_DEPTH: usize = 4096;
/// Extents that one call of [`Manifest::extents`] collects; a READ needs a few dozen.
const MAX_EXTENTS: usize = 64 * 1024;

fn intersects(extent: &Extent, range: &Range<u64>) -> bool {
    extent.offset < range.end && extent.offset.saturating_add(u64::from(extent.len)) > range.start
}

/// Extents of a range: those of a usual READ without allocation.
pub type Extents = SmallVec<[Extent; 8]>;

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: Bytes,
    pub cookie: Cookie,
    pub ino: Ino,
    pub kind: FileKind,
}

/// What a name in a directory leads to, nothing included.
struct Looked {
    dir: Ino,
    name: Bytes,
    entry: Option<Entry>,
}

impl Looked {
    fn new(dir: Ino, name: &[u8], entry: Option<Entry>) -> Self {
        let name = Bytes::copy_from_slice(name);
        Self { dir, entry: entry.map(|entry| Entry { name: name.clone(), ..entry }), name }
    }

    fn is_of(&self, dir: Ino, name: &[u8]) -> bool {
        self.dir == dir && self.name == name
    }
}

/// Tells most names of most directories apart.
fn name_number(dir: Ino, name: &[u8]) -> u64 {
    name.chunks(8).fold(dir.0, |number, part| {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        (number ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    })
}

/// One immutable tree of files.
#[derive(Clone, Copy, Debug)]
pub struct Manifest {
    id: ManifestId,
    seed: NameSeed,
    inodes: Tree,
    entries: Tree,
    links: Tree,
    chunks: Tree,
    stats: ManifestStats,
}

impl Manifest {
    /// As [`open`](Self::open), for requests: whoever opened it last has read the header.
    pub fn shared(fetch: &mut Fetch<'_>, id: &ManifestId) -> Step<Arc<Self>> {
        let opened = fetch.decoded(MemoKey { of: *id, number: 0 }, |fetch| Self::open(fetch, id).map(Some))?;
        Ok(opened.ok_or_else(|| Error::internal("a manifest that is opened to nothing"))?)
    }

    /// Read the header page.
    pub fn open(fetch: &mut Fetch<'_>, id: &ManifestId) -> Step<Self> {
        let header = Header::decode(id, &fetch.get(id)?)?;
        Ok(Self {
            id: *id,
            seed: header.seed,
            inodes: Tree::new(TreeKind::Inodes, header.inodes),
            entries: Tree::new(TreeKind::Entries, header.entries),
            links: Tree::new(TreeKind::Links, header.links),
            chunks: Tree::new(TreeKind::Chunks, header.chunks),
            stats: header.stats,
        })
    }

    pub fn id(&self) -> &ManifestId {
        &self.id
    }

    pub fn stats(&self) -> &ManifestStats {
        &self.stats
    }

    pub fn name_seed(&self) -> &NameSeed {
        &self.seed
    }

    pub fn inode(&self, fetch: &mut Fetch<'_>, ino: Ino) -> Step<Option<Arc<Inode>>> {
        fetch.decoded(MemoKey { of: self.inodes.root().id, number: ino.0 }, |fetch| {
            let Some(value) = self.inodes.get(fetch, &inode_key(ino))? else { return Ok(None) };
            Ok(Some(decode_inode(&value).ok_or_else(|| self.bad_inode(ino))?.owned()))
        })
    }

    /// The entry `name` of directory `dir`.
    pub fn lookup(&self, fetch: &mut Fetch<'_>, dir: Ino, name: &[u8]) -> Step<Option<Entry>> {
        let find = |fetch: &mut Fetch<'_>| self.lookup_at(fetch, dir, self.seed.cookie_base(name), name);
        let key = MemoKey { of: self.entries.root().id, number: name_number(dir, name) };
        let looked = fetch.decoded(key, |fetch| Ok(Some(Looked::new(dir, name, find(fetch)?))))?;
        match looked {
            Some(looked) if looked.is_of(dir, name) => Ok(looked.entry.clone()),
            // Another name of the same number.
            _ => find(fetch),
        }
    }

    /// [`lookup`](Self::lookup) among the cookies that share the base `base`.
    pub(super) fn lookup_at(&self, fetch: &mut Fetch<'_>, dir: Ino, base: Cookie, name: &[u8]) -> Step<Option<Entry>> {
        let (from, to) = (entry_key(dir, base), entry_key(dir, base.last_tie()));
        let mut found = None;
        self.entries.scan(fetch, &from..=&to, &mut |item| {
            if entry_name(item.value()?) != name {
                return Ok(ControlFlow::Continue(()));
            }
            found = Some(self.entry_of(&item)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// The entry of `dir` with exactly this cookie.
    pub fn entry_at(&self, fetch: &mut Fetch<'_>, dir: Ino, cookie: Cookie) -> Step<Option<Entry>> {
        let Some(value) = self.entries.get(fetch, &entry_key(dir, cookie))? else { return Ok(None) };
        Ok(Some(decode_entry(cookie, &value).ok_or_else(|| self.bad_entry(dir, cookie))?))
    }

    /// Visit the entries of `dir` behind the cookie `after` in cookie order, until `visit` breaks.
    /// Begins anew when it is called again after a missing page.
    pub fn list(
        &self,
        fetch: &mut Fetch<'_>,
        dir: Ino,
        after: Cookie,
        visit: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
    ) -> Step<()> {
        let Some(first) = after.0.checked_add(1) else { return Ok(()) };
        let (from, to) = (entry_key(dir, Cookie(first)), entry_key(dir, Cookie(u64::MAX)));
        self.entries.scan(fetch, &from..=&to, &mut |item| visit(self.entry_of(&item)?))
    }

    /// The extents that intersect `range`, in order. For ranges of some MiB: `Internal` beyond 65,536
    /// extents.
    pub fn extents(&self, fetch: &mut Fetch<'_>, content: &Content, range: Range<u64>) -> Step<Extents> {
        let mut extents = Extents::new();
        match content {
            Content::Inline(inline) => extents.extend(inline.iter().filter(|e| intersects(e, &range)).copied()),
            Content::Tree(root) if !range.is_empty() => self.extents_of_tree(fetch, root, range, &mut extents)?,
            _ => {}
        }
        Ok(extents)
    }

    fn extents_of_tree(
        &self,
        fetch: &mut Fetch<'_>,
        root: &TreeRoot,
        range: Range<u64>,
        out: &mut Extents,
    ) -> Step<()> {
        let (from, to) = (range.start.to_be_bytes(), (range.end - 1).to_be_bytes());
        Tree::new(TreeKind::Extents, *root).scan_from(fetch, &from..=&to, Seek::Floor, &mut |item| {
            let extent = self.extent_of(&item)?;
            if out.len() == MAX_EXTENTS {
                return Err(Error::internal(format!("more than {MAX_EXTENTS} extents asked for at once")));
            }
            if intersects(&extent, &range) {
                out.push(extent);
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Visit all extents of a file in order.
    pub async fn for_each_extent(
        &self,
        source: &dyn ChunkSource,
        inode: &Inode,
        visit: &mut (dyn FnMut(Extent) -> Result<ControlFlow<()>> + Send),
    ) -> Result<()> {
        match &inode.content {
            Content::Inline(inline) => {
                for extent in inline {
                    if visit(*extent)?.is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Content::Tree(root) => {
                let tree = Tree::new(TreeKind::Extents, *root);
                tree.walk(source, &[0; 8]..=&[0xff; 8], &mut |item| visit(self.extent_of(&item)?)).await
            }
            _ => Ok(()),
        }
    }

    /// The names of a file that has several: (directory, cookie) of each, in order of inode numbers.
    /// Empty for all others: those have their parent link only.
    pub fn links(&self, fetch: &mut Fetch<'_>, ino: Ino) -> Step<Vec<(Ino, Cookie)>> {
        let from = link_key(ino, Ino(0), Cookie(0));
        let to = link_key(ino, Ino(u64::MAX), Cookie(u64::MAX));
        let mut links = Vec::new();
        self.links.scan(fetch, &from..=&to, &mut |item| {
            let [dir, cookie] = key_tail(item.key());
            links.push((Ino(dir), Cookie(cookie)));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(links)
    }

    /// The names of an object, whether it has one or several.
    pub fn names(&self, fetch: &mut Fetch<'_>, ino: Ino, inode: &Inode) -> Step<Vec<(Ino, Cookie)>> {
        let mut names = self.links(fetch, ino)?;
        if names.is_empty() {
            names.push((inode.parent, inode.parent_cookie));
        }
        Ok(names)
    }

    /// The first path of an object, from the root, without a leading slash; empty for the root
    /// itself, `None` for a number that is not in this tree.
    pub fn path_of(&self, fetch: &mut Fetch<'_>, ino: Ino) -> Step<Option<Vec<u8>>> {
        let mut names: Vec<Bytes> = Vec::new();
        let mut at = ino;
        loop {
            let Some(inode) = self.inode(fetch, at)? else {
                return if names.is_empty() { Ok(None) } else { Err(self.bad_inode(at).into()) };
            };
            if at == Ino::ROOT {
                names.reverse();
                return Ok(Some(names.join(&b'/')));
            }
            if names.len() == MAX_DEPTH {
                return Err(Error::corrupt(format!(
                    "inode {} is deeper than {MAX_DEPTH} in manifest {}",
                    ino.0, self.id
                ))
                .into());
            }
            let entry = self.entry_at(fetch, inode.parent, inode.parent_cookie)?;
            names.push(entry.ok_or_else(|| self.bad_entry(inode.parent, inode.parent_cookie))?.name);
            at = inode.parent;
        }
    }

    /// The encoded extended attributes of an inode ([`decode_xattrs`](super::decode_xattrs)).
    pub fn xattrs(&self, fetch: &mut Fetch<'_>, inode: &Inode) -> Step<Bytes> {
        match &inode.xattrs {
            Xattrs::None => Ok(Bytes::new()),
            Xattrs::Inline(bytes) => Ok(bytes.clone()),
            Xattrs::Chunk { id, .. } => fetch.get(id),
        }
    }

    /// Visit every object, in order of inode numbers.
    pub async fn for_each_inode(
        &self,
        source: &dyn ChunkSource,
        visit: &mut (dyn FnMut(Ino, Inode) -> Result<ControlFlow<()>> + Send),
    ) -> Result<()> {
        let mut each = |item: Item<'_>| {
            let [ino] = key_tail(item.key());
            let inode = decode_inode(&item.value_bytes()?).ok_or_else(|| self.bad_inode(Ino(ino)))?;
            visit(Ino(ino), inode)
        };
        self.inodes.walk(source, &[0; 8]..=&[0xff; 8], &mut each).await
    }

    /// Visit every entry of every directory, in order of (directory, cookie).
    pub async fn for_each_entry(
        &self,
        source: &dyn ChunkSource,
        visit: &mut (dyn FnMut(Ino, Entry) -> Result<ControlFlow<()>> + Send),
    ) -> Result<()> {
        let mut each = |item: Item<'_>| {
            let [dir, _] = key_tail(item.key());
            visit(Ino(dir), self.entry_of(&item)?)
        };
        self.entries.walk(source, &[0; 16]..=&[0xff; 16], &mut each).await
    }

    /// Visit every chunk of data: id, raw and stored length, in order of ids.
    pub async fn for_each_chunk(
        &self,
        source: &dyn ChunkSource,
        visit: &mut (dyn FnMut(ChunkId, u32, u32) -> Result<ControlFlow<()>> + Send),
    ) -> Result<()> {
        let mut each = |item: Item<'_>| {
            let id = ChunkId::from_slice(item.key());
            match id.zip(decode_chunk(item.value()?)) {
                Some((id, (raw, stored))) => visit(id, raw, stored),
                None => Err(self.bad_chunk()),
            }
        };
        self.chunks.walk(source, &[0; 32]..=&[0xff; 32], &mut each).await
    }

    pub(super) fn inode_tree(&self) -> &Tree {
        &self.inodes
    }

    pub(super) fn link_tree(&self) -> &Tree {
        &self.links
    }

    pub(super) fn chunk_tree(&self) -> &Tree {
        &self.chunks
    }

    /// A position before the first entry of `dir`.
    pub(super) fn entries_cursor(&self, dir: Ino) -> Result<Cursor> {
        let (from, to) = (entry_key(dir, Cookie(0)), entry_key(dir, Cookie(u64::MAX)));
        self.entries.cursor(&from..=&to, Seek::First)
    }

    pub(super) fn entry_of(&self, item: &Item<'_>) -> Result<Entry> {
        let [dir, cookie] = key_tail(item.key());
        decode_entry(Cookie(cookie), &item.value_bytes()?).ok_or_else(|| self.bad_entry(Ino(dir), Cookie(cookie)))
    }

    fn extent_of(&self, item: &Item<'_>) -> Result<Extent> {
        let [offset] = key_tail(item.key());
        let damaged = || Error::corrupt(format!("an extent at offset {offset} in manifest {} is damaged", self.id));
        decode_extent(offset, item.value()?).ok_or_else(damaged)
    }

    pub(super) fn bad_chunk(&self) -> Error {
        Error::corrupt(format!("a chunk record of manifest {} is damaged", self.id))
    }

    pub(super) fn bad_inode(&self, ino: Ino) -> Error {
        Error::corrupt(format!("inode {} of manifest {} is missing or damaged", ino.0, self.id))
    }

    fn bad_entry(&self, dir: Ino, cookie: Cookie) -> Error {
        Error::corrupt(format!(
            "entry {} of directory {} in manifest {} is missing or damaged",
            cookie.0, dir.0, self.id
        ))
    }
}

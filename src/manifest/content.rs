//! A file's content on its way into a manifest, and the digests that let a diff skip what is equal.
//!
//! A digest is BLAKE3 over a tag and canonical bytes. Content that was cut the same way has the same
//! digest if and only if it is the same; a directory's digest covers the names, kinds, attributes and
//! digests of its children, so equal digests mean equal subtrees. ctime, atime, inode numbers and
//! link counts are left out: they differ where nothing that a user sees does.

use smallvec::SmallVec;

use super::codec::{extent_key, extent_value, is_sound, put_content, put_rdev, put_time, put_xattrs, xattrs_tag};
use super::grow::{PagesWritten, TreeBuilder};
use super::page::TreeKind;
use super::{Content, Extent, INLINE_EXTENTS, Inode, MAX_FILE_SIZE};
use crate::chunk::ChunkSink;
use crate::error::{Error, Result};

const FILE_TAG: &[u8] = b"mimeo file 1\0";
const SYMLINK_TAG: &[u8] = b"mimeo symlink 1\0";
const DIRECTORY_TAG: &[u8] = b"mimeo directory 1\0";

/// What a finished [`ContentBuilder`] knows of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    pub content: Content,
    pub digest: [u8; 32],
    /// Bytes that are not holes.
    pub used: u64,
    /// Pages of its extent tree, if it has one.
    pub written: PagesWritten,
}

/// Collects the extents of one regular file.
pub struct ContentBuilder<'a> {
    sink: &'a dyn ChunkSink,
    inline: SmallVec<[Extent; INLINE_EXTENTS]>,
    /// From the first extent too many on.
    tree: Option<TreeBuilder<'a>>,
    end: u64,
    used: u64,
}

impl<'a> ContentBuilder<'a> {
    pub fn new(sink: &'a dyn ChunkSink) -> Self {
        Self { sink, inline: SmallVec::new(), tree: None, end: 0, used: 0 }
    }

    /// Append an extent. `Internal` if it begins before the end of the one before.
    pub fn push(&mut self, extent: Extent) -> Result<()> {
        if extent.offset < self.end || !is_sound(&extent) {
            return Err(Error::internal(format!("extent out of order or bounds: {extent:?} after {}", self.end)));
        }
        self.end = extent.offset + u64::from(extent.len);
        self.used += u64::from(extent.len);
        match &mut self.tree {
            Some(tree) => push_extent(tree, &extent),
            None if self.inline.len() < INLINE_EXTENTS => {
                self.inline.push(extent);
                Ok(())
            }
            None => self.spill(&extent),
        }
    }

    /// Move from the inode into a tree.
    fn spill(&mut self, extent: &Extent) -> Result<()> {
        let mut tree = TreeBuilder::new(TreeKind::Extents, self.sink);
        for inline in self.inline.drain(..) {
            push_extent(&mut tree, &inline)?;
        }
        push_extent(&mut tree, extent)?;
        self.tree = Some(tree);
        Ok(())
    }

    /// The content of a file of `size` bytes. `Internal` if extents reach beyond it.
    pub fn finish(self, size: u64) -> Result<FileContent> {
        if self.end > size || size > MAX_FILE_SIZE {
            return Err(Error::internal(format!("extents up to {} in a file of {size} bytes", self.end)));
        }
        let (content, written) = match self.tree {
            None => (Content::Inline(self.inline), PagesWritten::default()),
            Some(tree) => {
                let (root, written) = tree.finish()?;
                (Content::Tree(root), written)
            }
        };
        let digest = content_digest(size, &content);
        Ok(FileContent { content, digest, used: self.used, written })
    }
}

fn push_extent(tree: &mut TreeBuilder<'_>, extent: &Extent) -> Result<()> {
    tree.push(&extent_key(extent), &extent_value(extent))
}

/// Digest of a regular file or symbolic link of `size` bytes; zero for all else.
pub fn content_digest(size: u64, content: &Content) -> [u8; 32] {
    let (tag, kind) = match content {
        Content::None => return [0; 32],
        Content::Inline(_) => (FILE_TAG, 1),
        Content::Tree(_) => (FILE_TAG, 2),
        Content::Symlink(_) => (SYMLINK_TAG, 3),
    };
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(tag);
    bytes.extend_from_slice(&size.to_be_bytes());
    bytes.push(kind);
    put_content(content, &mut bytes);
    *blake3::hash(&bytes).as_bytes()
}

/// Digest of a directory's subtree: feed it the children in byte order of their names.
pub struct SubtreeHasher {
    hasher: blake3::Hasher,
    last: Vec<u8>,
    bytes: Vec<u8>,
}

impl SubtreeHasher {
    pub fn new() -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(DIRECTORY_TAG);
        Self { hasher, last: Vec::new(), bytes: Vec::new() }
    }

    /// Add a child. `Internal` if `name` is not above the one before.
    pub fn child(&mut self, name: &[u8], child: &Inode) -> Result<()> {
        if name <= &self.last[..] {
            return Err(Error::internal(format!(
                "child {:?} after {:?}",
                name.escape_ascii(),
                self.last.escape_ascii()
            )));
        }
        self.last.clear();
        self.last.extend_from_slice(name);
        self.bytes.clear();
        self.bytes.extend_from_slice(&(name.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(name);
        put_visible(child, &mut self.bytes);
        self.bytes.extend_from_slice(&child.digest);
        self.hasher.update(&self.bytes);
        Ok(())
    }

    pub fn finish(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

impl Default for SubtreeHasher {
    fn default() -> Self {
        Self::new()
    }
}

/// Kind and attributes that a user sees: what [`same_attrs`] compares.
fn put_visible(inode: &Inode, out: &mut Vec<u8>) {
    out.extend_from_slice(&[inode.kind.code(), u8::from(inode.disk_image), xattrs_tag(&inode.xattrs)]);
    for word in [inode.mode, inode.uid, inode.gid] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    put_rdev(inode.rdev, out);
    put_time(inode.mtime, out);
    put_xattrs(&inode.xattrs, out);
}

/// Whether two inodes show a user the same attributes.
pub fn same_attrs(a: &Inode, b: &Inode) -> bool {
    let key = |i: &Inode| (i.disk_image, i.mode, i.uid, i.gid, i.rdev, i.mtime);
    key(a) == key(b) && a.xattrs == b.xattrs
}

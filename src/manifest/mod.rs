//! The manifest: one immutable tree of files, as content-addressed pages in the chunk store.
//!
//! Owns the page format, the search trees made of pages, the inode and directory-entry codecs, the
//! builder, lookups, listings and the diff of two manifests. A manifest is named by the chunk id of
//! its header page, which names four search trees:
//!
//! | tree | key | value |
//! |---|---|---|
//! | inodes | inode number | attributes, parent link, content |
//! | entries | (directory inode, cookie) | name, inode number, kind |
//! | links | (inode, directory inode, cookie) | nothing; only for files with several links |
//! | chunks | chunk id | raw and stored length of every data chunk |
//!
//! A file of more than [`INLINE_EXTENTS`] extents has a tree of its own, keyed by offset; its root
//! is named in the inode. Pages are cut by content and hold no positions, only keys and chunk ids,
//! so versions share every page that did not change. Bytes: `docs/formats/manifest.md`.
//!
//! Failure story: a page that does not parse is `Corrupt`, with its id; it hurts what is under it.

mod builder;
mod codec;
mod content;
mod cursor;
mod cut;
mod diff;
mod grow;
mod header;
mod names;
mod page;
mod pairs;
mod read;
mod shared;
#[cfg(test)]
mod tests;
mod tree;
mod values;
mod verify;
mod xattrs;

pub use builder::ManifestBuilder;
pub use content::{ContentBuilder, FileContent, SubtreeHasher, content_digest, same_attrs};
pub use cursor::Item;
pub use diff::{Change, ChangeKind, diff};
pub use grow::{PagesWritten, TreeBuilder};
pub use header::ManifestStats;
pub use names::{Cookie, FIRST_COOKIE, MAX_TIES, NameSeed};
pub use page::{FORMAT_VERSION, TreeKind};
pub use read::{Entry, Extents, MAX_DEPTH, Manifest};
pub use tree::{Tree, TreeRoot, Visit};
pub use verify::NamedChunk;
pub use xattrs::{MAX_INLINE_XATTRS, Xattrs, decode_xattrs, encode_xattrs};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::chunk::ChunkId;
use crate::env::Time;

/// A manifest is named by the chunk id of its header page.
pub type ManifestId = ChunkId;

/// Extents up to this number are in the inode itself.
pub const INLINE_EXTENTS: usize = 4;
/// Longest name of a directory entry, in bytes.
pub const MAX_NAME: usize = 255;
/// Longest target of a symbolic link, in bytes.
pub const MAX_SYMLINK: usize = 4096;
/// All extended attributes of one inode, encoded, in bytes.
pub const MAX_XATTRS: usize = 64 * 1024;
/// Largest file: 8 EiB - 1, what a signed 64-bit offset reaches.
pub const MAX_FILE_SIZE: u64 = i64::MAX as u64;

/// An inode number: unique in the whole store, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory of every tree.
    pub const ROOT: Self = Self(1);
}

/// What kind of object an inode is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    Regular,
    Directory,
    Symlink,
    Block,
    Char,
    Fifo,
    Socket,
}

/// A run of file bytes that is one chunk. Bytes that no extent covers are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub len: u32,
    pub chunk: ChunkId,
}

/// What is behind an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Directories, devices, fifos, sockets.
    None,
    /// A regular file of few extents, ordered, not overlapping.
    Inline(SmallVec<[Extent; INLINE_EXTENTS]>),
    /// A regular file whose extents are in a tree keyed by offset.
    Tree(TreeRoot),
    /// The target of a symbolic link.
    Symlink(Bytes),
}

/// One object of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    pub kind: FileKind,
    /// Permission bits, suid, sgid and sticky: 12 bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// For a directory 2 + its subdirectories.
    pub nlink: u32,
    /// Major and minor number of a device.
    pub rdev: (u32, u32),
    /// Length in bytes; of a symlink its target's; of a directory 4096.
    pub size: u64,
    /// Bytes of the file that are not holes.
    pub used: u64,
    pub atime: Time,
    pub mtime: Time,
    /// Ours, never the source's: it moves if and only if anything else here did.
    pub ctime: Time,
    /// The directory that holds the first path to this object, in path order (the root's is itself).
    pub parent: Ino,
    /// The entry in `parent` (0 for the root).
    pub parent_cookie: Cookie,
    /// Of a regular file or symlink: digest of its content. Of a directory: digest of its subtree
    /// (names, kinds, attributes without ctime and atime, contents). Else zero.
    pub digest: [u8; 32],
    /// A virtual disk (raw, qcow2, vmdk): cut in fixed blocks, never merged block-wise.
    pub disk_image: bool,
    pub content: Content,
    pub xattrs: Xattrs,
}

/// An inode with nothing but a kind and a mode, for tests of what looks at those.
#[cfg(test)]
pub(crate) fn test_inode(kind: FileKind, mode: u32) -> Inode {
    Inode {
        kind,
        mode,
        uid: 0,
        gid: 0,
        nlink: 1,
        rdev: (0, 0),
        size: 0,
        used: 0,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
        parent: Ino::ROOT,
        parent_cookie: FIRST_COOKIE,
        digest: [0; 32],
        disk_image: false,
        content: Content::None,
        xattrs: Xattrs::None,
    }
}

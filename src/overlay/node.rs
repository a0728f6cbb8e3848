//! One object of a view, whether it comes from the image or from a private layer.

use bytes::Bytes;

use crate::env::Time;
use crate::manifest::{FileKind, Ino};

/// An object as a view shows it. Public fields may be changed; a changed node takes effect with
/// [`Tree::put`](super::Tree::put). Sizes change through `Tree::write` and `Tree::truncate` only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: FileKind,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: (u32, u32),
    pub size: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    /// The directory that holds it; kept exact for directories, for others where it was last linked.
    pub parent: Ino,
    /// Of the exclusive CREATE that made it, until its attributes are set (RFC 1813 3.3.8).
    pub verifier: Option<[u8; 8]>,
    /// Of a symbolic link.
    pub target: Bytes,
}

impl Node {
    /// A new object of no size, owned by nobody yet, with one link (a directory: two).
    pub fn new(kind: FileKind, parent: Ino, now: Time) -> Self {
        unimplemented!("{kind:?} {parent:?} {now:?}")
    }

    /// Bytes that it takes, as `fattr3.used`.
    pub fn used(&self) -> u64 {
        unimplemented!()
    }
}

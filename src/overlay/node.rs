//! One object of a view, whether it comes from the image or from a private layer.
//!
//! Owns [`Node`] and the bytes under which a layer keeps it. A private node says everything about its
//! object except the data, names and extended attributes; those of its data that its layer does not
//! have come from below, up to [`below`](Node::below): from lower layers and the image, or, where another
//! version replaced the image under it, from the version that it keeps as its base.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::env::Time;
use crate::error::{Error, Result};
use crate::manifest::{Content, FileKind, Ino, Inode, ManifestId};

/// Size that directories serve.
const DIRECTORY_SIZE: u64 = 4096;
/// The version of the encoding.
const FORMAT: u8 = 2;

/// Where a node was found: layers count from the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Layer(usize),
    Image,
    /// Made in this change.
    New,
}

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
    pub(super) level: Level,
    /// What lies in the layers below shows through the holes of its own data up to this offset.
    pub(super) below: u64,
    /// Bytes of that which are not holes, about.
    pub(super) below_used: u64,
    /// Bytes that the data of its own layer covers, exactly.
    pub(super) own: u64,
    /// The version that lies under its layers, if that is not the one that the view shows.
    pub base: Option<ManifestId>,
    /// Where the image has its data, if the node is the image's.
    pub(super) image: Option<Arc<Inode>>,
}

impl Node {
    /// A new object of no size, owned by nobody yet, with one link (a directory: two).
    pub fn new(kind: FileKind, parent: Ino, now: Time) -> Self {
        let directory = kind == FileKind::Directory;
        Self {
            kind,
            mode: 0,
            nlink: if directory { 2 } else { 1 },
            uid: 0,
            gid: 0,
            rdev: (0, 0),
            size: if directory { DIRECTORY_SIZE } else { 0 },
            atime: now,
            mtime: now,
            ctime: now,
            parent,
            verifier: None,
            target: Bytes::new(),
            level: Level::New,
            below: 0,
            below_used: 0,
            own: 0,
            base: None,
            image: None,
        }
    }

    /// Bytes that it takes, as `fattr3.used`.
    pub fn used(&self) -> u64 {
        self.below_used.min(self.below).saturating_add(self.own)
    }

    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Whether a private layer has it; else the image does.
    pub fn is_private(&self) -> bool {
        self.level != Level::Image
    }

    /// Whether any of its data is private, or was cut off.
    pub fn has_private_data(&self, image: Option<&Inode>) -> bool {
        self.is_private()
            && (self.own > 0 || image.is_none_or(|image| self.below < image.size || self.size != image.size))
    }

    pub(super) fn of_image(inode: impl Into<Arc<Inode>>) -> Self {
        let inode = inode.into();
        let target = match &inode.content {
            Content::Symlink(target) => target.clone(),
            _ => Bytes::new(),
        };
        Self {
            kind: inode.kind,
            mode: inode.mode,
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev,
            size: inode.size,
            atime: inode.atime,
            mtime: inode.mtime,
            ctime: inode.ctime,
            parent: inode.parent,
            verifier: None,
            target,
            level: Level::Image,
            below: inode.size,
            below_used: inode.used,
            own: 0,
            base: None,
            image: Some(inode),
        }
    }

    /// As the top layer is to keep it: what another layer has lies below it from now on.
    pub(super) fn raise(&mut self) {
        if !matches!(self.level, Level::New | Level::Layer(0)) {
            (self.below, self.below_used, self.own) = (self.size, self.used(), 0);
            self.level = Level::Layer(0);
            self.image = None;
        }
    }
}

/// What a layer says of an object. Decoded and taken apart at once, never kept: a box would cost more.
#[allow(clippy::large_enum_variant, reason = "short-lived, on the stack")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeState {
    Present(Node),
    /// The view has it no more, although a lower layer or the image does: its line of content ended here.
    Removed,
    /// The view does not have it, although a lower layer does: older views may.
    Absent,
}

/// [`NodeState`] as it is kept: one version byte, then postcard.
#[derive(Serialize, Deserialize)]
enum Stored {
    Removed,
    Present(Present),
    Absent,
}

#[derive(Serialize, Deserialize)]
struct Present {
    kind: FileKind,
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    rdev: (u32, u32),
    size: u64,
    times: [Time; 3],
    parent: Ino,
    verifier: Option<[u8; 8]>,
    target: Vec<u8>,
    below: u64,
    below_used: u64,
    own: u64,
    pub base: Option<ManifestId>,
}

impl NodeState {
    /// The object, if it is there.
    pub fn present(self) -> Option<Node> {
        if let Self::Present(node) = self { Some(node) } else { None }
    }

    pub fn encode(&self) -> Result<Bytes> {
        let stored = match self {
            Self::Removed => Stored::Removed,
            Self::Absent => Stored::Absent,
            Self::Present(node) => Stored::Present(Present::of(node)),
        };
        let bytes = postcard::to_extend(&stored, vec![FORMAT]);
        bytes.map(Bytes::from).map_err(|e| Error::internal("a private node cannot be encoded").because(e))
    }

    /// `None` for bytes that are no node.
    pub fn decode(bytes: &[u8], level: Level) -> Option<Self> {
        let (&FORMAT, body) = bytes.split_first()? else { return None };
        match postcard::take_from_bytes(body) {
            Ok((Stored::Removed, [])) => Some(Self::Removed),
            Ok((Stored::Absent, [])) => Some(Self::Absent),
            Ok((Stored::Present(present), [])) => Some(Self::Present(present.into_node(level))),
            _ => None,
        }
    }
}

impl Present {
    fn of(node: &Node) -> Self {
        Self {
            kind: node.kind,
            mode: node.mode,
            nlink: node.nlink,
            uid: node.uid,
            gid: node.gid,
            rdev: node.rdev,
            size: node.size,
            times: [node.atime, node.mtime, node.ctime],
            parent: node.parent,
            verifier: node.verifier,
            target: node.target.to_vec(),
            below: node.below,
            below_used: node.below_used,
            own: node.own,
            base: node.base,
        }
    }

    fn into_node(self, level: Level) -> Node {
        let [atime, mtime, ctime] = self.times;
        Node {
            kind: self.kind,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size: self.size,
            atime,
            mtime,
            ctime,
            parent: self.parent,
            verifier: self.verifier,
            target: self.target.into(),
            level,
            below: self.below,
            below_used: self.below_used,
            own: self.own,
            base: self.base,
            image: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::ChunkId;

    #[test]
    fn a_node_survives_its_bytes_and_garbage_is_none() {
        let mut node = Node::new(FileKind::Symlink, Ino(5), Time::new(1, 2));
        (node.target, node.verifier, node.own) = (Bytes::from_static(b"to"), Some([3; 8]), 17);
        node.level = Level::Layer(0);
        node.base = Some(ChunkId::of(b"v1"));
        for state in [NodeState::Present(node), NodeState::Removed, NodeState::Absent] {
            let bytes = state.encode().unwrap();
            assert_eq!(NodeState::decode(&bytes, Level::Layer(0)), Some(state));
            assert_eq!(NodeState::decode(&bytes[..bytes.len() - 1], Level::Layer(0)), None);
        }
        assert_eq!(NodeState::decode(&[1, 0], Level::Image), None);
    }

    #[test]
    fn what_is_raised_keeps_its_data_below() {
        let mut node = Node::new(FileKind::Regular, Ino::ROOT, Time::default());
        (node.level, node.size, node.below, node.below_used, node.own) = (Level::Layer(2), 100, 40, 30, 50);
        node.raise();
        assert_eq!((node.below, node.below_used, node.own, node.used()), (100, 80, 0, 80));
        let once = node.clone();
        node.raise();
        assert_eq!(node, once);
    }
}

//! What can be wrong with a store: each with the object that it is about, what is wrong, and what a
//! person can do.

mod text;

use std::sync::Arc;

use crate::chunk::ChunkId;
use crate::error::Error;
use crate::manifest::{Cookie, FileKind, Ino};
use crate::meta::Table;
use crate::overlay::check::About;
use crate::overlay::log::SegmentId;
use crate::overlay::{Counts, OverlayId, Position};

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The stores cannot be opened, or cannot be brought up to their log.
    Unopenable { what: String },
    /// A row of the index of private writes does not decode.
    Row { table: Table, key: Vec<u8> },
    /// The index of one overlay.
    Overlay { overlay: OverlayId, flaw: OverlayFlaw },
    /// A segment of the log.
    Segment { segment: SegmentId, flaw: SegmentFlaw },
    /// A chunk that private data or an image refer to cannot be read, or is too short.
    Chunk { chunk: ChunkId, of: String, what: String },
    /// What a clone, a pin or a snapshot shows.
    View { view: ViewName, flaw: ViewFlaw },
    /// A version of an image, printed as `IMAGE@vN`.
    Version { version: String, what: String },
}

/// What is wrong with the index of one overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverlayFlaw {
    /// It has values, but no row of its own.
    Unknown,
    /// A value is of a position that the overlay never had.
    Position {
        about: About,
        position: Position,
        last: Position,
    },
    /// An older version is not older than the newest one; `None`: there is no newest one.
    Order {
        about: About,
        position: Position,
        newest: Option<Position>,
    },
    Counts {
        kept: Counts,
        counted: Counts,
    },
}

/// What is wrong with what one layer says, whatever lies below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerFlaw {
    /// The bytes that a file's data in it cover, as its node says and as they are.
    Own {
        ino: Ino,
        kept: u64,
        counted: i64,
    },
    /// Data of what is no regular file in it.
    StrayData {
        ino: Ino,
    },
    /// A name in what it has no node of, so that the name is not shown.
    StrayName {
        dir: Ino,
        cookie: Cookie,
    },
    /// Data beyond the end of the file.
    BeyondEnd {
        ino: Ino,
        size: u64,
    },
    Size {
        ino: Ino,
        size: u64,
    },
    /// A target that is not as long as the link, or of what is no symbolic link.
    Target {
        ino: Ino,
    },
    /// More would show through from below than the file is long.
    Below {
        ino: Ino,
        below: u64,
    },
}

/// What is wrong with one segment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentFlaw {
    /// Referred to, but not within the segment, or the segment is gone.
    Outside { offset: u32, len: u32, of: Owner },
    /// Two pieces of one bucket overlap.
    Overlap { offset: u32, len: u32, of: Owner },
    /// Bytes that something refers to.
    Live { kept: i64, counted: i64 },
    /// A piece does not fit its CRCs, or the disk does not give it.
    Unreadable { offset: u32, of: Owner, what: String },
}

/// The file that private data belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub overlay: OverlayId,
    pub ino: Ino,
}

/// Something that shows a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewName {
    Clone(Arc<str>),
    /// The former view `view` of a clone.
    Pin {
        clone: Arc<str>,
        view: u64,
    },
    Snapshot {
        clone: Arc<str>,
        name: Arc<str>,
    },
}

/// What is wrong with what a view shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewFlaw {
    TooManyLayers {
        layers: usize,
    },
    /// A sealed layer ends behind what its overlay has.
    LayerAhead {
        overlay: OverlayId,
        upto: Position,
        last: Position,
    },
    /// A sealed layer that is all of its overlay says that it holds something else.
    LayerCounts {
        overlay: OverlayId,
        named: Counts,
        kept: Counts,
    },
    /// A part of it cannot be read.
    Unreadable {
        what: String,
    },
    Layer {
        overlay: OverlayId,
        flaw: LayerFlaw,
    },
    Name {
        dir: Ino,
        name: Vec<u8>,
        flaw: NameFlaw,
    },
    /// There are names in it, but it is no directory.
    NoDirectory {
        dir: Ino,
    },
    /// It is named (in `dir`, as far as is known), but not there.
    NoObject {
        ino: Ino,
        dir: Option<Ino>,
    },
    Node {
        ino: Ino,
        flaw: NodeFlaw,
    },
}

/// What is wrong with one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFlaw {
    Malformed,
    /// Its place in the directory is not that of its hash: nobody finds it.
    Misplaced,
    /// Another entry of the directory has it too.
    Twice,
    /// Its entry says something else than the object.
    Kind {
        entry: FileKind,
        object: FileKind,
    },
}

/// What is wrong with one object of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeFlaw {
    /// Its link count, and what can be counted.
    Links {
        kept: u32,
        counted: i64,
    },
    Nameless,
    /// A directory with so many names.
    Names(i64),
    /// A directory's link to its parent.
    Parent {
        kept: Ino,
        named_in: Ino,
    },
    /// A directory from which nothing leads up to the root.
    Unreachable,
    /// A directory that was removed, with names in it.
    NotEmpty,
    /// Inode numbers are never used again, so what it is cannot change.
    Kind {
        was: FileKind,
        is: FileKind,
    },
}

impl Violation {
    pub fn unopenable(error: &Error) -> Self {
        Self::Unopenable { what: super::what(error) }
    }

    /// What kind of violation it is: a word that stays the same from release to release.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unopenable { .. } => "unopenable",
            Self::Row { .. } => "row",
            Self::Overlay { flaw, .. } => flaw.kind(),
            Self::Segment { flaw, .. } => flaw.kind(),
            Self::Chunk { .. } => "chunk",
            Self::View { flaw, .. } => flaw.kind(),
            Self::Version { .. } => "version",
        }
    }
}

impl OverlayFlaw {
    fn kind(&self) -> &'static str {
        match self {
            Self::Unknown => "overlay_unknown",
            Self::Position { .. } => "position",
            Self::Order { .. } => "order",
            Self::Counts { .. } => "counts",
        }
    }
}

impl LayerFlaw {
    fn kind(self) -> &'static str {
        match self {
            Self::Own { .. } => "own_bytes",
            Self::StrayData { .. } => "stray_data",
            Self::StrayName { .. } => "stray_name",
            Self::BeyondEnd { .. } => "beyond_end",
            Self::Size { .. } => "size",
            Self::Target { .. } => "target",
            Self::Below { .. } => "below",
        }
    }
}

impl SegmentFlaw {
    fn kind(&self) -> &'static str {
        match self {
            Self::Outside { .. } => "outside_segment",
            Self::Overlap { .. } => "overlap",
            Self::Live { .. } => "live_bytes",
            Self::Unreadable { .. } => "data_unreadable",
        }
    }
}

impl ViewFlaw {
    fn kind(&self) -> &'static str {
        match self {
            Self::TooManyLayers { .. } => "too_many_layers",
            Self::LayerAhead { .. } => "layer_ahead",
            Self::LayerCounts { .. } => "layer_counts",
            Self::Unreadable { .. } => "view_unreadable",
            Self::Layer { flaw, .. } => flaw.kind(),
            Self::Name { flaw, .. } => flaw.kind(),
            Self::NoDirectory { .. } => "no_directory",
            Self::NoObject { .. } => "no_object",
            Self::Node { flaw, .. } => flaw.kind(),
        }
    }
}

impl NameFlaw {
    fn kind(self) -> &'static str {
        match self {
            Self::Malformed => "name_malformed",
            Self::Misplaced => "name_misplaced",
            Self::Twice => "name_twice",
            Self::Kind { .. } => "name_kind",
        }
    }
}

impl NodeFlaw {
    fn kind(self) -> &'static str {
        match self {
            Self::Links { .. } => "links",
            Self::Nameless => "nameless",
            Self::Names(_) => "directory_names",
            Self::Parent { .. } => "parent",
            Self::Unreachable => "unreachable",
            Self::NotEmpty => "not_empty",
            Self::Kind { .. } => "kind",
        }
    }
}

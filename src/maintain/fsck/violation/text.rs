//! Violations in words.

use std::fmt;

use super::{LayerFlaw, NameFlaw, NodeFlaw, OverlayFlaw, Owner, SegmentFlaw, ViewFlaw, ViewName, Violation};
use crate::manifest::FileKind;
use crate::overlay::Counts;
use crate::overlay::check::About;

const FROM_BACKUP: &str = "restore the data directory from a backup";

impl Violation {
    /// The object that it is about.
    pub fn object(&self) -> String {
        match self {
            Self::Unopenable { .. } => "the store".into(),
            Self::Row { table, key } => {
                let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("row {digits} of table {table:?} of the index of private writes")
            }
            Self::Overlay { overlay, .. } => format!("overlay {}", overlay.0),
            Self::Segment { segment, .. } => format!("log segment {segment}"),
            Self::Chunk { chunk, of, .. } => format!("chunk {chunk} of {of}"),
            Self::View { view, .. } => view.to_string(),
            Self::Version { version, .. } => format!("version {version}"),
        }
    }

    /// What is wrong with it.
    pub fn what(&self) -> String {
        match self {
            Self::Unopenable { what } | Self::Chunk { what, .. } | Self::Version { what, .. } => what.clone(),
            Self::Row { .. } => "it does not decode".into(),
            Self::Overlay { flaw, .. } => flaw.to_string(),
            Self::Segment { flaw, .. } => flaw.to_string(),
            Self::View { flaw, .. } => flaw.to_string(),
        }
    }

    /// What a person can do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Overlay { flaw: OverlayFlaw::Counts { .. }, .. } => {
                "no data are affected, but quotas and figures of who shows it are off; a fork of it has the same".into()
            }
            Self::Segment { flaw: SegmentFlaw::Live { kept, counted }, .. } if kept > counted => {
                "no data are affected, but the segment may stay longer than it is needed".into()
            }
            Self::Segment { flaw: SegmentFlaw::Unreadable { .. } | SegmentFlaw::Outside { .. }, .. } => {
                format!("{FROM_BACKUP}, or replace the file in the clones that show it")
            }
            Self::Unopenable { .. } | Self::Row { .. } | Self::Overlay { .. } | Self::Segment { .. } => {
                FROM_BACKUP.into()
            }
            Self::Chunk { .. } | Self::Version { .. } => {
                "import the image again from its source, or restore the packs from a backup".into()
            }
            Self::View { view, .. } => view.remedy(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.object(), self.what(), self.remedy())
    }
}

impl fmt::Display for ViewName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clone(name) => write!(f, "clone {name:?}"),
            Self::Pin { clone, view } => write!(f, "pinned view {view} of clone {clone:?}"),
            Self::Snapshot { clone, name } => write!(f, "snapshot \"{clone}@{name}\""),
        }
    }
}

impl ViewName {
    fn remedy(&self) -> String {
        match self {
            Self::Clone(name) => {
                format!(
                    "restore it from a good snapshot (mimeo clone restore {name} SNAPSHOT), or discard its writes (mimeo repoint IMAGE --to VERSION --clone {name} --writes discard)"
                )
            }
            Self::Pin { clone, .. } => format!("drop it: mimeo pins --drop --clone {clone}"),
            Self::Snapshot { clone, name } => format!("remove it: mimeo clone rm-snapshot {clone} {name}"),
        }
    }
}

impl fmt::Display for OverlayFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(f, "it has private values, but no row of its own"),
            Self::Position { about, position, last } => {
                write!(f, "{} is of position {position}, the overlay's last one is {last}", Words(*about))
            }
            Self::Order { about, position, newest: Some(newest) } => {
                write!(f, "an older version of {} is of position {position}, the newest of {newest}", Words(*about))
            }
            Self::Order { about, position, newest: None } => {
                write!(f, "{} has an older version, of position {position}, but no newest one", Words(*about))
            }
            Self::Counts { kept, counted } => {
                write!(f, "it says that it holds {}, but holds {}", Held(kept), Held(counted))
            }
        }
    }
}

impl fmt::Display for LayerFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { ino, kept, counted } => {
                write!(f, "inode {} says that its data cover {kept} bytes, but they cover {counted}", ino.0)
            }
            Self::StrayData { ino } => write!(f, "there are data of inode {}, but no file of that number", ino.0),
            Self::StrayName { dir, cookie } => {
                write!(f, "directory {} has a name with cookie {}, but is not there itself", dir.0, cookie.0)
            }
            Self::BeyondEnd { ino, size } => write!(f, "inode {} has data beyond its end at {size} bytes", ino.0),
            Self::Size { ino, size } => write!(f, "inode {} has a size of {size} bytes", ino.0),
            Self::Target { ino } => write!(f, "inode {} has a link target that does not fit what it is", ino.0),
            Self::Below { ino, below } => {
                write!(f, "inode {} shows {below} bytes of what lies below, more than it is long", ino.0)
            }
        }
    }
}

impl fmt::Display for SegmentFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { offset, len, of } => {
                write!(f, "{of} has {len} bytes at byte {offset}, which the segment does not have")
            }
            Self::Overlap { offset, len, of } => {
                write!(f, "{of} has {len} bytes at byte {offset}, which overlap other data of the same file")
            }
            Self::Live { kept, counted } => write!(f, "it says that {kept} bytes of it are in use, {counted} are"),
            Self::Unreadable { offset, of, what } => write!(f, "data of {of} at byte {offset} cannot be read: {what}"),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {} in overlay {}", self.ino.0, self.overlay.0)
    }
}

impl fmt::Display for ViewFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyLayers { layers } => write!(f, "it has {layers} sealed layers"),
            Self::LayerAhead { overlay, upto, last } => {
                write!(f, "it shows overlay {} up to position {upto}, but that has only {last}", overlay.0)
            }
            Self::LayerCounts { overlay, named, kept } => {
                write!(f, "it counts {} for overlay {}, which says {}", Held(named), overlay.0, Held(kept))
            }
            Self::Unreadable { what } => write!(f, "a part of it cannot be read: {what}"),
            Self::Layer { overlay, flaw } => write!(f, "in its overlay {} {flaw}", overlay.0),
            Self::Name { dir, name, flaw } => {
                write!(f, "the name \"{}\" in directory {} {flaw}", name.escape_ascii(), dir.0)
            }
            Self::NoDirectory { dir } => write!(f, "there are names in inode {}, which is no directory", dir.0),
            Self::NoObject { ino, dir: Some(dir) } => {
                write!(f, "a name in directory {} leads to inode {}, which is not there", dir.0, ino.0)
            }
            Self::NoObject { ino, dir: None } => write!(f, "a name leads to inode {}, which is not there", ino.0),
            Self::Node { ino, flaw } => write!(f, "inode {} {flaw}", ino.0),
        }
    }
}

impl fmt::Display for NameFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => write!(f, "is none that a file can have"),
            Self::Misplaced => write!(f, "is not where it is looked for"),
            Self::Twice => write!(f, "is there twice"),
            Self::Kind { entry, object } => {
                write!(f, "is said to be of a {}, but leads to a {}", word(*entry), word(*object))
            }
        }
    }
}

impl fmt::Display for NodeFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Links { kept, counted } => write!(f, "has a link count of {kept} instead of {counted}"),
            Self::Nameless => write!(f, "has no name"),
            Self::Names(names) => write!(f, "is a directory with {names} names"),
            Self::Parent { kept, named_in } => {
                write!(f, "takes directory {} for its parent, but is in directory {}", kept.0, named_in.0)
            }
            Self::Unreachable => write!(f, "is a directory that cannot be reached from the root"),
            Self::NotEmpty => write!(f, "is a directory that was removed with names in it"),
            Self::Kind { was, is } => write!(f, "was a {}, and is a {}", word(*was), word(*is)),
        }
    }
}

/// What a value is about, in words.
struct Words(About);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            About::Node(ino) => write!(f, "inode {}", ino.0),
            About::Name(dir, cookie) => write!(f, "the name with cookie {} in directory {}", cookie.0, dir.0),
            About::Data(ino, bucket) => write!(f, "bucket {bucket} of inode {}", ino.0),
            About::Orphan(ino) => write!(f, "what is left of inode {}", ino.0),
        }
    }
}

struct Held<'a>(&'a Counts);

impl fmt::Display for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes and {} inodes", self.0.bytes, self.0.inodes)
    }
}

fn word(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symbolic link",
        FileKind::Block => "block device",
        FileKind::Char => "character device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
    }
}

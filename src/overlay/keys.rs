//! Keys of the index: what one private value is about.
//!
//! In memory a [`Key`]; in the tables `heads` (newest versions) and `history` (older ones that a sealed
//! layer still shows) big-endian bytes, so that one object's or one directory's values lie together:
//! overlay (8), kind (1), a (8), b (8), and in `history` the complement of the position (8), newest first.

use super::{OverlayId, Position};
use crate::manifest::{Cookie, Ino};
use crate::meta::Table;

/// Newest version of every value.
pub const HEADS: Table = "heads";
/// Older versions.
pub const HISTORY: Table = "history";
/// One row for each overlay that was ever written: position and counts.
pub const OVERLAYS: Table = "overlays";
/// Live bytes of each segment.
pub const SEGMENTS: Table = "segments";
/// Answers of calls that must not run twice.
pub const RECEIPTS: Table = "receipts";
/// Single rows: where replay begins, the number of the last start.
pub const STATE: Table = "state";

pub const TABLES: &[Table] = &[HEADS, HISTORY, OVERLAYS, SEGMENTS, RECEIPTS, STATE];

/// Length of a key in `heads`.
const HEAD: usize = 25;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// a: inode number.
    Node = 1,
    /// a: directory, b: cookie.
    Entry = 2,
    /// a: inode number, b: number of the bucket.
    Bucket = 3,
    /// a: inode number of an object that is gone, and some of whose buckets are not yet. Views
    /// never ask for it.
    Orphan = 4,
}

/// What a value is about, within one overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    pub a: u64,
    pub b: u64,
}

impl Key {
    pub const fn node(ino: Ino) -> Self {
        Self { kind: Kind::Node, a: ino.0, b: 0 }
    }

    pub const fn entry(dir: Ino, cookie: Cookie) -> Self {
        Self { kind: Kind::Entry, a: dir.0, b: cookie.0 }
    }

    pub const fn bucket(ino: Ino, bucket: u64) -> Self {
        Self { kind: Kind::Bucket, a: ino.0, b: bucket }
    }

    pub const fn orphan(ino: Ino) -> Self {
        Self { kind: Kind::Orphan, a: ino.0, b: 0 }
    }

    /// After every bucket.
    pub const fn bucket_end() -> Self {
        Self { kind: Kind::Bucket, a: u64::MAX, b: u64::MAX }
    }

    /// The next key of its kind.
    pub fn next(&self) -> Option<Self> {
        match self.b.checked_add(1) {
            Some(b) => Some(Self { b, ..*self }),
            None => self.a.checked_add(1).map(|a| Self { a, b: 0, ..*self }),
        }
    }

    /// Its key in `heads`.
    pub fn head(&self, overlay: OverlayId) -> [u8; HEAD] {
        let mut key = [0; HEAD];
        key[..8].copy_from_slice(&overlay.0.to_be_bytes());
        key[8] = self.kind as u8;
        key[9..17].copy_from_slice(&self.a.to_be_bytes());
        key[17..].copy_from_slice(&self.b.to_be_bytes());
        key
    }

    /// The key of its version `position` in `history`.
    pub fn version(&self, overlay: OverlayId, position: Position) -> [u8; HEAD + 8] {
        let mut key = [0; HEAD + 8];
        key[..HEAD].copy_from_slice(&self.head(overlay));
        key[HEAD..].copy_from_slice(&(!position).to_be_bytes());
        key
    }

    /// From a key of `heads`, or the head part of one of `history`.
    pub fn parse(key: &[u8]) -> Option<(OverlayId, Self)> {
        let word = |at: usize| key.get(at..at + 8)?.first_chunk().map(|word| u64::from_be_bytes(*word));
        let kind = match *key.get(8)? {
            1 => Kind::Node,
            2 => Kind::Entry,
            3 => Kind::Bucket,
            4 => Kind::Orphan,
            _ => return None,
        };
        Some((OverlayId(word(0)?), Self { kind, a: word(9)?, b: word(17)? }))
    }

    /// The position in a key of `history`.
    pub fn parse_version(key: &[u8]) -> Option<(OverlayId, Self, Position)> {
        let (overlay, parsed) = Self::parse(key)?;
        let position = key.get(HEAD..)?.first_chunk().map(|word| !u64::from_be_bytes(*word))?;
        Some((overlay, parsed, position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_overlay_kind_object_and_newest_version_first() {
        let (o, key) = (OverlayId(7), Key::entry(Ino(2), Cookie(9)));
        assert_eq!(Key::parse(&key.head(o)), Some((o, key)));
        assert_eq!(Key::parse_version(&key.version(o, 5)), Some((o, key, 5)));
        assert!(key.version(o, 6) < key.version(o, 5));
        assert!(key.version(o, 0).as_slice() < Key::entry(Ino(2), Cookie(10)).version(o, u64::MAX).as_slice());
        assert!(Key::node(Ino(u64::MAX)).head(o) < Key::entry(Ino(0), Cookie(0)).head(o));
        assert_eq!(Key::parse(&[0; 24]), None);
    }
}

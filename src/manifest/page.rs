//! Pages: sorted keys and their values in one chunk, searched in place.
//!
//! Owns the byte layout of a page (`docs/formats/manifest.md`), writing one and reading one. A page
//! is parsed without allocation: the header and the sizes of the tables are checked once, each value
//! range when it is used.
//!
//! Failure story: a page whose bytes contradict themselves is `Corrupt`, with its id. Keys that are
//! out of order make lookups miss; they never make a search leave the page.

use std::ops::Range;

use bytes::Bytes;

use crate::chunk::ChunkId;
use crate::error::{Error, Result};

/// Version of every byte layout in this module: pages, header, keys and values.
pub const FORMAT_VERSION: u8 = 1;

const MAGIC: [u8; 2] = *b"MP";
/// Magic, version, kind, level, a zero byte, count.
const HEAD: usize = 8;
/// Size of one entry of the table of value ends.
const END: usize = 2;
/// Largest page. The table of value ends has 16 bits per entry.
pub(super) const MAX_PAGE: usize = 64 * 1024;
/// Largest value: an inode with the longest symbolic link and inline attributes fits.
pub(super) const MAX_VALUE: usize = 8 * 1024;
/// Longest key.
pub(super) const MAX_KEY: usize = 32;

/// What a tree holds; it fixes the length of its keys. The discriminant is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TreeKind {
    Inodes = 1,
    Entries = 2,
    Links = 3,
    Chunks = 4,
    Extents = 5,
}

impl TreeKind {
    /// Bytes of every key of such a tree.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Inodes | Self::Extents => 8,
            Self::Entries => 16,
            Self::Links => 24,
            Self::Chunks => 32,
        }
    }

    /// Refuse a key of the wrong length: a bug of the caller.
    pub(super) fn check_key(self, key: &[u8]) -> Result<()> {
        if key.len() == self.key_len() {
            return Ok(());
        }
        Err(Error::internal(format!("a key of {} bytes for a tree of {self:?}", key.len())))
    }
}

/// A page, read in place.
#[derive(Clone, Debug)]
pub(super) struct Page {
    id: ChunkId,
    bytes: Bytes,
    key_len: usize,
    count: usize,
    /// Where the values begin.
    values: usize,
}

impl Page {
    /// The page in `bytes`, if it is one of such a tree and level.
    pub fn parse(id: ChunkId, bytes: Bytes, kind: TreeKind, level: u8) -> Result<Self> {
        let expected = [MAGIC[0], MAGIC[1], FORMAT_VERSION, kind as u8, level, 0];
        let Some((&head, _)) = bytes.split_first_chunk::<HEAD>() else {
            return Err(damaged(&id, "is too short"));
        };
        if head[..6] != expected {
            return Err(wrong_head(&id, &head, kind, level));
        }
        let count = usize::from(u16::from_be_bytes([head[6], head[7]]));
        let key_len = kind.key_len();
        let values = HEAD + count * (key_len + END);
        let page = Self { id, bytes, key_len, count, values };
        page.check_sizes(level)?;
        Ok(page)
    }

    fn check_sizes(&self, level: u8) -> Result<()> {
        if self.bytes.len() < self.values || self.bytes.len() > MAX_PAGE {
            return Err(self.damaged("has a length that does not fit its count"));
        }
        if self.count == 0 && level > 0 {
            return Err(self.damaged("has no children"));
        }
        let end = if self.count == 0 { 0 } else { self.end(self.count - 1) };
        if self.values + end == self.bytes.len() {
            Ok(())
        } else {
            Err(self.damaged("has bytes that belong to no entry"))
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Key number `index`, which must be below `count`.
    pub fn key(&self, index: usize) -> &[u8] {
        &self.bytes[HEAD + index * self.key_len..][..self.key_len]
    }

    /// Value number `index`, as a slice of the page.
    pub fn value(&self, index: usize) -> Result<Bytes> {
        Ok(self.bytes.slice(self.value_range(index)?))
    }

    pub fn value_slice(&self, index: usize) -> Result<&[u8]> {
        Ok(&self.bytes[self.value_range(index)?])
    }

    fn value_range(&self, index: usize) -> Result<Range<usize>> {
        let start = if index == 0 { 0 } else { self.end(index - 1) };
        let end = self.end(index);
        if start > end || self.values + end > self.bytes.len() {
            return Err(self.damaged("has a value outside of it"));
        }
        Ok(self.values + start..self.values + end)
    }

    fn end(&self, index: usize) -> usize {
        let at = HEAD + self.count * self.key_len + index * END;
        usize::from(u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    /// The child page number `index` of an inner page.
    pub fn child(&self, index: usize) -> Result<ChunkId> {
        ChunkId::from_slice(self.value_slice(index)?)
            .ok_or_else(|| self.damaged("names a child by something else than a chunk id"))
    }

    /// The number of keys below `key`.
    pub fn below(&self, key: &[u8]) -> usize {
        self.rank(key, false)
    }

    /// The number of the last key that is not above `key`; 0 if all are.
    pub fn floor(&self, key: &[u8]) -> usize {
        self.rank(key, true).saturating_sub(1)
    }

    /// Whether the page reaches beyond `key`.
    pub fn is_beyond(&self, key: &[u8]) -> bool {
        self.count > 0 && self.key(self.count - 1) > key
    }

    /// The value of exactly this key.
    pub fn find(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let index = self.below(key);
        if index < self.count && self.key(index) == key { self.value(index).map(Some) } else { Ok(None) }
    }

    /// The number of keys below `key`, or not above it. One search per key length, so that a
    /// comparison is a few machine words.
    fn rank(&self, key: &[u8], or_equal: bool) -> usize {
        let keys = &self.bytes[HEAD..HEAD + self.count * self.key_len];
        match self.key_len {
            8 => partition(keys, key, or_equal, |k: &[u8; 8]| u64::from_be_bytes(*k)),
            16 => partition(keys, key, or_equal, |k: &[u8; 16]| u128::from_be_bytes(*k)),
            24 => partition(keys, key, or_equal, |k: &[u8; 24]| *k),
            _ => partition(keys, key, or_equal, |k: &[u8; 32]| *k),
        }
    }

    pub fn damaged(&self, how: &str) -> Error {
        damaged(&self.id, how)
    }
}

fn partition<const K: usize, T: Ord>(keys: &[u8], key: &[u8], or_equal: bool, word: impl Fn(&[u8; K]) -> T) -> usize {
    let key = word(key.try_into().expect("the tree checked the length of the key"));
    let (keys, _) = keys.as_chunks::<K>();
    if or_equal { keys.partition_point(|k| word(k) <= key) } else { keys.partition_point(|k| word(k) < key) }
}

fn damaged(id: &ChunkId, how: &str) -> Error {
    Error::corrupt(format!("manifest page {id} {how}"))
        .remedy("run `mimeo scrub`; import the version again if it stays damaged")
}

fn wrong_head(id: &ChunkId, head: &[u8; HEAD], kind: TreeKind, level: u8) -> Error {
    if head[..2] == MAGIC && head[2] > FORMAT_VERSION {
        let what =
            format!("manifest page {id} has format version {}; this mimeo knows up to {FORMAT_VERSION}", head[2]);
        return Error::invalid(what).remedy("use a newer mimeo");
    }
    damaged(id, &format!("is no page of a tree of {kind:?} at level {level}"))
}

/// A page in the making.
pub(super) struct PageWriter {
    kind: TreeKind,
    level: u8,
    count: usize,
    keys: Vec<u8>,
    ends: Vec<u8>,
    values: Vec<u8>,
}

impl PageWriter {
    pub fn new(kind: TreeKind, level: u8) -> Self {
        Self { kind, level, count: 0, keys: Vec::new(), ends: Vec::new(), values: Vec::new() }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the page as it stands.
    pub fn len(&self) -> usize {
        HEAD + self.keys.len() + self.ends.len() + self.values.len()
    }

    /// Bytes that an entry adds to a page.
    pub fn cost(key: &[u8], value: &[u8]) -> usize {
        key.len() + END + value.len()
    }

    /// Append an entry. The caller keeps the page within `MAX_PAGE`.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.keys.extend_from_slice(key);
        self.values.extend_from_slice(value);
        let end = u16::try_from(self.values.len()).expect("a page is cut before it reaches 64 KiB");
        self.ends.extend_from_slice(&end.to_be_bytes());
        self.count += 1;
    }

    pub fn first_key(&self) -> &[u8] {
        &self.keys[..self.kind.key_len().min(self.keys.len())]
    }

    /// The bytes of the page; the writer is empty afterwards.
    pub fn take(&mut self) -> Vec<u8> {
        let count = u16::try_from(self.count).expect("an entry takes more than one byte of 64 KiB");
        let mut page = Vec::with_capacity(self.len());
        page.extend_from_slice(&[MAGIC[0], MAGIC[1], FORMAT_VERSION, self.kind as u8, self.level, 0]);
        page.extend_from_slice(&count.to_be_bytes());
        page.append(&mut self.keys);
        page.append(&mut self.ends);
        page.append(&mut self.values);
        self.count = 0;
        page
    }
}

//! Packs: write-once blobs of framed chunks.
//!
//! Owns the bytes of a pack (`docs/formats/packs.md`): a header, frames, a table of the frames and a
//! trailer. All integers are big-endian. Invariants: a pack is built in memory and stored whole, so
//! it is there completely or not at all; its name (epoch and number) is used once in the life of the
//! store; its table alone can rebuild the index; frames fill it without gaps.
//!
//! Failure story: every length is checked against the blob's real length before memory is taken for
//! it. A pack whose table does not agree with its digest, or with itself, is `Corrupt` by name; the
//! chunks in it may still be read one by one, each verified against its own name.

mod payload;
mod read;

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;

pub use payload::{Encoding, decode, encode};
pub use read::{check_frames, read_table};

use super::{ChunkId, MAX_CHUNK};

/// First bytes of a pack.
pub const MAGIC: [u8; 8] = *b"mimeoPAK";
/// Last bytes of a pack.
pub const END_MAGIC: [u8; 8] = *b"mimeoEND";
/// Version of the format. A reader refuses any other.
pub const VERSION: u16 = 1;
/// Bytes of the header: magic 8, version 2, flags 2 (zero), number 4, epoch 8.
pub const HEADER_LEN: usize = 24;
/// Bytes in front of each payload: id 32, stored length 4, raw length 4, encoding 1.
pub const FRAME_HEADER_LEN: usize = 41;
/// Bytes of a row of the table: id 32, then a [`Span`].
pub const ROW_LEN: usize = 32 + Span::LEN;
/// Bytes of the trailer: raw bytes 8, stored bytes 8, chunks 4, digest 32, magic 8.
pub const TRAILER_LEN: usize = 60;
/// Chunks in a pack; bounds the table.
pub const MAX_FRAMES: usize = 32 * 1024;
/// Bytes of a pack. One ranged read can return it whole.
pub const MAX_PACK: usize = 64 * 1024 * 1024;
/// Smallest pack size that one chunk of any size fits in.
pub const MIN_PACK: usize = HEADER_LEN + FRAME_HEADER_LEN + MAX_CHUNK + ROW_LEN + TRAILER_LEN;

/// All packs are blobs under this prefix.
pub const PREFIX: &str = "packs/";

/// The identity of a pack: the epoch of the process that wrote it, and its number in that epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId {
    pub epoch: u64,
    pub seq: u32,
}

impl PackId {
    pub const LEN: usize = 12;

    /// The blob's name.
    pub fn name(self) -> String {
        self.to_string()
    }

    /// The pack that a blob's name stands for, `None` for any other blob.
    pub fn parse(name: &str) -> Option<Self> {
        let (epoch, seq) = name.strip_prefix(PREFIX)?.strip_suffix(".pack")?.split_once('-')?;
        let id = Self { epoch: u64::from_str_radix(epoch, 16).ok()?, seq: u32::from_str_radix(seq, 16).ok()? };
        (id.name() == name).then_some(id)
    }

    /// Sorts as the pack does.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..].copy_from_slice(&self.seq.to_be_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let (epoch, seq) = (bytes.first_chunk().expect("8 of 12"), bytes.last_chunk().expect("4 of 12"));
        Self { epoch: u64::from_be_bytes(*epoch), seq: u32::from_be_bytes(*seq) }
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:016x}-{:08x}.pack", self.epoch, self.seq)
    }
}

/// Where a chunk is in its pack, and how it is stored there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Of the frame, in bytes from the start of the pack.
    pub offset: u32,
    /// Bytes of the payload.
    pub stored_len: u32,
    /// Bytes of the chunk.
    pub raw_len: u32,
    pub encoding: Encoding,
}

impl Span {
    pub const LEN: usize = 13;

    /// Where the payload begins and ends in the pack.
    pub fn payload(&self) -> std::ops::Range<u64> {
        let start = u64::from(self.offset) + FRAME_HEADER_LEN as u64;
        start..start + u64::from(self.stored_len)
    }

    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.offset.to_be_bytes());
        bytes[4..].copy_from_slice(&self.encode_lengths());
        bytes
    }

    /// `None` if the lengths or the encoding cannot be.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let field = |at: usize| bytes[at..].first_chunk().map(|field| u32::from_be_bytes(*field));
        let span = Self {
            offset: field(0)?,
            stored_len: field(4)?,
            raw_len: field(8)?,
            encoding: Encoding::from_byte(bytes[12])?,
        };
        span.is_sane().then_some(span)
    }

    /// The part of it that is also in front of the payload.
    fn encode_lengths(&self) -> [u8; Self::LEN - 4] {
        let mut bytes = [0; Self::LEN - 4];
        bytes[..4].copy_from_slice(&self.stored_len.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.raw_len.to_be_bytes());
        bytes[8] = self.encoding as u8;
        bytes
    }

    fn is_sane(&self) -> bool {
        let lengths = match self.encoding {
            Encoding::Raw => self.stored_len == self.raw_len,
            Encoding::Zstd => self.stored_len < self.raw_len,
        };
        let bounded = (1..=MAX_CHUNK as u32).contains(&self.raw_len) && self.stored_len > 0;
        lengths && bounded && self.offset as usize >= HEADER_LEN && self.payload().end <= MAX_PACK as u64
    }
}

/// A chunk in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub id: ChunkId,
    pub span: Span,
}

/// A chunk in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub pack: PackId,
    pub span: Span,
}

impl Location {
    pub const LEN: usize = PackId::LEN + Span::LEN;

    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..PackId::LEN].copy_from_slice(&self.pack.encode());
        bytes[PackId::LEN..].copy_from_slice(&self.span.encode());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (pack, rest) = bytes.split_first_chunk()?;
        Some(Self { pack: PackId::decode(pack), span: Span::decode(rest.try_into().ok()?)? })
    }
}

/// What a pack holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub chunks: u32,
    /// Bytes of the chunks.
    pub raw_bytes: u64,
    /// Bytes of their payloads, without frames, table and trailer.
    pub stored_bytes: u64,
}

impl Totals {
    fn add(&mut self, span: &Span) {
        self.chunks += 1;
        self.raw_bytes += u64::from(span.raw_len);
        self.stored_bytes += u64::from(span.stored_len);
    }
}

/// A pack under construction.
pub struct PackBuilder {
    id: PackId,
    limit: usize,
    bytes: Vec<u8>,
    frames: Vec<Frame>,
    by_id: HashMap<ChunkId, usize>,
    totals: Totals,
}

/// A pack that is complete, to be stored as a blob.
pub struct SealedPack {
    pub id: PackId,
    pub totals: Totals,
    pub bytes: Bytes,
}

impl PackBuilder {
    /// A pack that grows to at most `limit` bytes ([`MIN_PACK`]..=[`MAX_PACK`]).
    pub fn new(id: PackId, limit: usize) -> Self {
        let limit = limit.clamp(MIN_PACK, MAX_PACK);
        // Untouched pages of a large reservation cost nothing; growing by doubling would copy.
        let mut bytes = Vec::with_capacity(limit);
        bytes.extend_from_slice(&header(id));
        Self { id, limit, bytes, frames: Vec::new(), by_id: HashMap::new(), totals: Totals::default() }
    }

    pub fn id(&self) -> PackId {
        self.id
    }

    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    pub fn find(&self, id: &ChunkId) -> Option<Span> {
        self.by_id.get(id).map(|at| self.frames[*at].span)
    }

    /// Whether a payload of this length still fits, table and trailer included.
    pub fn has_room(&self, stored_len: usize) -> bool {
        let tail = (self.frames.len() + 1) * ROW_LEN + TRAILER_LEN;
        self.frames.len() < MAX_FRAMES && self.bytes.len() + FRAME_HEADER_LEN + stored_len + tail <= self.limit
    }

    /// Append a chunk. The caller has seen that it [has room](Self::has_room) and is not here yet.
    pub fn push(&mut self, id: ChunkId, raw_len: usize, payload: &[u8], encoding: Encoding) {
        debug_assert!(self.has_room(payload.len()) && self.find(&id).is_none());
        // All below MAX_PACK, which fits in 32 bits.
        let offset = self.bytes.len() as u32;
        let span = Span { offset, stored_len: payload.len() as u32, raw_len: raw_len as u32, encoding };
        self.bytes.extend_from_slice(id.as_bytes());
        self.bytes.extend_from_slice(&span.encode_lengths());
        self.bytes.extend_from_slice(payload);
        self.by_id.insert(id, self.frames.len());
        self.frames.push(Frame { id, span });
        self.totals.add(&span);
    }

    /// Append table and trailer.
    pub fn seal(mut self) -> SealedPack {
        let table_at = self.bytes.len();
        for frame in &self.frames {
            self.bytes.extend_from_slice(frame.id.as_bytes());
            self.bytes.extend_from_slice(&frame.span.encode());
        }
        self.bytes.extend_from_slice(&self.totals.raw_bytes.to_be_bytes());
        self.bytes.extend_from_slice(&self.totals.stored_bytes.to_be_bytes());
        self.bytes.extend_from_slice(&self.totals.chunks.to_be_bytes());
        let digest = table_digest(&header(self.id), &self.bytes[table_at..]);
        self.bytes.extend_from_slice(digest.as_bytes());
        self.bytes.extend_from_slice(&END_MAGIC);
        SealedPack { id: self.id, totals: self.totals, bytes: self.bytes.into() }
    }
}

fn header(id: PackId) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_be_bytes());
    bytes[12..16].copy_from_slice(&id.seq.to_be_bytes());
    bytes[16..].copy_from_slice(&id.epoch.to_be_bytes());
    bytes
}

/// Over the header, the table, and the trailer up to the digest.
fn table_digest(header: &[u8], table_and_totals: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(header).update(table_and_totals).finalize()
}

#[cfg(test)]
mod tests;

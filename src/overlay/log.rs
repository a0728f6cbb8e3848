//! The delta log: one shared log of segments for the private writes of all clones.
//!
//! Owns the [`DeltaLog`] trait and [`LocalLog`], its backend on a disk. A record is an opaque body and
//! pieces of file data; the log knows nothing of overlays. Appending is memory work; one thread writes
//! and syncs for everybody (group commit). Bytes: `docs/formats/log.md`; promises: `docs/durability.md`.
//!
//! Invariants: a record's place is fixed when it is appended and never moves. [`DeltaLog::durable`]
//! never runs ahead of the disk. What `replay` shows is on stable storage and in the order of the
//! appends, without gaps. A segment is complete, sealed and synced before the next one is created.
//!
//! Failure story: a full disk stalls the log: nothing is lost, appends are refused, syncs wait. Any
//! other failed write and every failed sync poisons it until the next start: what a failed sync left
//! on the disk is unknown. The next start drops a torn end and keeps everything that was synced; if
//! synced bytes are damaged, it refuses to go on and names the place.

mod buffer;
mod format;
mod local;
mod segments;
mod shared;
mod walk;
mod writer;

pub use local::LocalLog;

use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use smallvec::SmallVec;

use crate::error::Result;

/// Largest body of a record, in bytes.
pub const MAX_BODY: usize = 4 * 1024 * 1024;
/// Largest piece of data, in bytes.
pub const MAX_PIECE: usize = 64 * 1024;
/// Most pieces of one record. A write of 1 MiB, cut at multiples of 64 KiB, makes 17.
pub const MAX_PIECES: usize = 64;

/// A segment. They count from 1 over the store's whole life; what was once durable is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A place in the log, totally ordered: the segment in the upper 32 bits, the byte offset in it in the
/// lower. That of a record is its end. The default lies before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    pub const fn new(segment: SegmentId, offset: u32) -> Self {
        Self((segment.0 as u64) << 32 | offset as u64)
    }

    pub const fn segment(self) -> SegmentId {
        SegmentId((self.0 >> 32) as u32)
    }

    pub const fn offset(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.segment(), self.offset())
    }
}

/// What is appended: replayed whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// At most [`MAX_BODY`] bytes, opaque to the log.
    pub body: Vec<u8>,
    /// At most [`MAX_PIECES`], of 1 to [`MAX_PIECE`] bytes each.
    pub data: SmallVec<[Bytes; 2]>,
}

/// Where a record went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    pub lsn: Lsn,
    pub segment: SegmentId,
    /// Offset in the segment of the first byte of each piece.
    pub pieces: SmallVec<[u32; 2]>,
}

/// One record found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub lsn: Lsn,
    pub segment: SegmentId,
    pub body: Bytes,
    /// Offset in the segment of the first byte of each piece, and its length.
    pub pieces: SmallVec<[(u32, u32); 2]>,
}

/// Called for each record in turn; an error ends the replay.
pub type Visit<'a> = &'a mut dyn FnMut(Replayed) -> Result<()>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes of a segment: what does not fit goes to the next.
    pub segment_bytes: u32,
    /// Appended bytes that wait to be written, above which there is no [`DeltaLog::room`].
    pub buffer_bytes: usize,
    /// Appended bytes that are written although nobody waits for a sync.
    pub write_after: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, buffer_bytes: 64 << 20, write_after: 1 << 20 }
    }
}

/// Whether the log takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Good,
    /// It waits for space and goes on by itself. Names the object and the cause.
    Full(String),
    /// It takes nothing more until the next start. Names the object and the cause.
    Poisoned(String),
}

/// A log of private writes. One contract suite (`tests/contracts/log.rs`) for all of them.
pub trait DeltaLog: Send + Sync + 'static {
    /// Append in memory. Cheap, may be called under locks: no I/O, no waiting, and no bound on what
    /// waits to be written: ask for [`room`](Self::room) before. `ReadOnly` when poisoned, `NoSpace`
    /// while the disk is full, `Unavailable` when closed. Places that never became durable are given
    /// again after the next start: keep none on the disk before it is.
    fn append(&self, record: Record) -> Result<Appended>;

    /// The end of what was appended.
    fn end(&self) -> Lsn;

    /// The end of what is on stable storage.
    fn durable(&self) -> Lsn;

    /// Resolves when everything up to `upto` is on stable storage; `Err` when that will never be known.
    /// All who wait while one sync runs share the next one. While the disk is full it waits. The wish
    /// counts from the call, not from the first poll.
    fn sync(&self, upto: Lsn) -> BoxFuture<'static, Result<()>>;

    /// `None` if an append would be taken now or refused at once; else resolves when that is so again.
    fn room(&self) -> Option<BoxFuture<'static, ()>>;

    /// Read the piece that was placed at `offset` and verify it. From memory while it is not written
    /// yet. `Corrupt` names segment and offset. The segment may be removed while the future runs.
    fn read(&self, segment: SegmentId, offset: u32, len: u32) -> BoxFuture<'static, Result<Bytes>>;

    /// Visit all records with an [`Lsn`] beyond `from`, in order. Blocks. After the opening, before the
    /// first append. `Corrupt` if the segment in which `from` lies is not there, or not so long.
    fn replay(&self, from: Lsn, visit: Visit<'_>) -> Result<()>;

    /// Visit the records of one sealed segment, in order. Blocks.
    fn replay_segment(&self, id: SegmentId, visit: Visit<'_>) -> Result<()>;

    /// The sealed segments and the open one, in order, with their bytes on disk.
    fn segments(&self) -> Vec<(SegmentId, u64)>;

    /// Forget a sealed segment and give its space back. The caller knows that nothing refers to it;
    /// reads that have begun end well. Blocks.
    fn remove(&self, id: SegmentId) -> Result<()>;

    /// Write and sync everything, seal, and stop. Blocks. `Err` if something was not synced.
    fn close(&self) -> Result<()>;

    fn health(&self) -> Health;
}

#[cfg(test)]
mod tests;

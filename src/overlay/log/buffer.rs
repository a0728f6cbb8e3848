//! What was appended and is not written yet, and where the next record goes.
//!
//! Owns the places of records. A record joins the open group, or opens one behind a header's worth of
//! reserved space; the writer closes the open group when it takes the buffer. Invariants: groups
//! follow one another without gaps, each in one segment, and each segment keeps room for its seal. A
//! group stays here, readable, until it is written.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{self, GROUP_HEADER, SEGMENT_HEADER};
use super::{Appended, Lsn, Record, SegmentId};
use crate::error::{Error, Result};

/// A group takes no further record once it has so many bytes, so that a replay reads it into memory.
const FULL_GROUP: u32 = 8 * 1024 * 1024;

/// Records that are written, and replayed, together.
pub struct Group {
    pub segment: SegmentId,
    /// Where in the segment the group begins.
    pub start: u32,
    /// And where it ends.
    pub end: u32,
    records: Vec<Placed>,
}

struct Placed {
    start: u32,
    record: Record,
}

impl Group {
    fn new(segment: SegmentId, start: u32) -> Self {
        Self { segment, start, end: start + GROUP_HEADER, records: Vec::new() }
    }

    pub fn records(&self) -> impl ExactSizeIterator<Item = &Record> {
        self.records.iter().map(|placed| &placed.record)
    }

    pub fn bytes(&self) -> u64 {
        u64::from(self.end - self.start)
    }

    /// The piece that was placed at `offset`.
    fn piece(&self, offset: u32) -> Option<&Bytes> {
        let behind = self.records.partition_point(|placed| placed.start <= offset);
        let placed = &self.records[behind.checked_sub(1)?];
        let mut pieces = format::piece_offsets(placed.start, &placed.record).zip(&placed.record.data);
        pieces.find(|(at, _)| *at == offset).map(|(_, piece)| piece)
    }
}

/// The end of the log in memory.
pub struct Buffer {
    segment_bytes: u32,
    segment: SegmentId,
    /// The end of what was placed in `segment`.
    offset: u32,
    open: Option<Group>,
    /// Oldest first; those that the writer took are still here.
    closed: VecDeque<Arc<Group>>,
    /// Bytes of all groups since the opening.
    appended: u64,
    written: u64,
}

impl Buffer {
    /// An empty buffer in front of the new segment `segment`.
    pub fn new(segment: SegmentId, segment_bytes: u32) -> Self {
        let (open, closed) = (None, VecDeque::new());
        Self { segment_bytes, segment, offset: SEGMENT_HEADER, open, closed, appended: 0, written: 0 }
    }

    pub fn end(&self) -> Lsn {
        Lsn::new(self.segment, self.offset)
    }

    /// Bytes that were appended since the opening.
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// Bytes that were written since the opening.
    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn unwritten(&self) -> u64 {
        self.appended - self.written
    }

    pub fn append(&mut self, record: Record) -> Result<Appended> {
        let len = format::record_len(&record)?;
        self.make_room(len)?;
        let group = self.open.get_or_insert_with(|| Group::new(self.segment, self.offset));
        let start = group.end;
        let pieces = format::piece_offsets(start, &record).collect();
        group.records.push(Placed { start, record });
        group.end = start + len;
        self.appended += u64::from(group.end - self.offset);
        self.offset = group.end;
        Ok(Appended { lsn: self.end(), segment: self.segment, pieces })
    }

    /// See to it that a record of `len` bytes fits the open group, or a new one in the open segment.
    fn make_room(&mut self, len: u32) -> Result<()> {
        if self.open.as_ref().is_some_and(|group| group.end - group.start >= FULL_GROUP) {
            self.close_group();
        }
        let header = if self.open.is_some() { 0 } else { GROUP_HEADER };
        if self.fits(self.offset, header, len) {
            return Ok(());
        }
        if !self.fits(SEGMENT_HEADER, GROUP_HEADER, len) {
            let segment = self.segment_bytes;
            return Err(Error::internal(format!(
                "log: a record of {len} bytes does not fit a segment of {segment} bytes"
            )));
        }
        self.close_group();
        let next = self.segment.0.checked_add(1).ok_or_else(|| Error::internal("log: no segment number is left"))?;
        (self.segment, self.offset) = (SegmentId(next), SEGMENT_HEADER);
        Ok(())
    }

    /// Whether a group header and a record fit behind `offset`, and a seal behind them.
    fn fits(&self, offset: u32, header: u32, len: u32) -> bool {
        let end = u64::from(offset) + u64::from(header) + u64::from(len) + u64::from(GROUP_HEADER);
        end <= u64::from(self.segment_bytes)
    }

    fn close_group(&mut self) {
        self.closed.extend(self.open.take().map(Arc::new));
    }

    /// Everything that is not written, for the one writer, who writes it before it takes again.
    pub fn take(&mut self) -> Vec<Arc<Group>> {
        self.close_group();
        self.closed.iter().cloned().collect()
    }

    /// The oldest `groups` of those taken are on the disk.
    pub fn forget(&mut self, groups: usize) {
        self.written += self.closed.drain(..groups).map(|group| group.bytes()).sum::<u64>();
    }

    /// The piece at `offset`, if it is not written yet.
    pub fn piece(&self, segment: SegmentId, offset: u32) -> Option<Bytes> {
        let behind = self.closed.partition_point(|group| (group.segment, group.start) <= (segment, offset));
        let closed = behind.checked_sub(1).map(|at| &*self.closed[at]);
        let candidates = closed.into_iter().chain(&self.open).filter(|group| group.segment == segment);
        candidates.filter_map(|group| group.piece(offset)).next().cloned()
    }
}

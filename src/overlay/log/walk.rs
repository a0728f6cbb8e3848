//! Reading segments from the front, group by group, and telling damage from a torn end.
//!
//! A segment that has a successor was sealed and synced: it must be good up to its seal, with which it
//! ends. The last one ends where its groups stop being good: what follows was never synced. Unless a
//! later group says that the bad place was durable when that group was written: then synced bytes are
//! damaged. The salt in each group keeps a client from writing such a witness.
//!
//! Failure story: damage is `Corrupt` and names segment, offset and the remedy. A read that fails is
//! an `Io` error, never a torn end.

use std::io;

use bytes::Bytes;

use super::format::{self, Flaw, GROUP_HEADER, GroupHeader, NEWER, SEGMENT_HEADER, SegmentHeader, group_mark};
use super::{Lsn, SegmentId, Visit};
use crate::env::DiskFile;
use crate::error::{Error, Result};

/// Bytes that the search for a witness reads at once.
const SEARCH: usize = 1024 * 1024;

/// Damage, and what a person can do about it.
pub fn damaged(id: SegmentId, offset: impl std::fmt::Display, flaw: Flaw) -> Error {
    Error::corrupt(format!("log segment {id}, byte {offset}: {flaw}"))
        .remedy("restore the store from a backup, or see with 'mimeo fsck' what is lost")
}

/// A disk that fails on a segment.
pub fn segment_io(id: SegmentId, error: io::Error) -> Error {
    Error::io(format!("log segment {id}"), error)
}

/// How a segment's header reads.
pub enum Head {
    Good(SegmentHeader),
    /// The creation was cut off: nothing can be behind it.
    Torn,
    Bad(Flaw),
}

/// Read the header of what should be segment `id`.
pub fn read_head(id: SegmentId, file: &dyn DiskFile) -> Result<Head> {
    let len = file.len().map_err(|e| segment_io(id, e))?;
    if len < u64::from(SEGMENT_HEADER) {
        return Ok(Head::Torn);
    }
    let mut bytes = [0; SEGMENT_HEADER as usize];
    file.read_at(&mut bytes, 0).map_err(|e| segment_io(id, e))?;
    Ok(match SegmentHeader::decode(&bytes) {
        Ok(header) if header.id == id => Head::Good(header),
        Ok(_) => Head::Bad("the header is that of another segment"),
        Err(flaw) if len == u64::from(SEGMENT_HEADER) && flaw != NEWER => Head::Torn,
        Err(flaw) => Head::Bad(flaw),
    })
}

/// What comes next in a segment.
pub enum Step {
    Group(GroupHeader, Bytes),
    Seal,
    /// The end of the file.
    End,
    Flaw(Flaw),
}

/// A walk over the groups of a segment.
pub struct Walk<'a> {
    file: &'a dyn DiskFile,
    pub segment: SegmentHeader,
    /// Where the walk is: the end of the good groups so far.
    pub at: u32,
    /// The length of the file.
    len: u32,
}

impl<'a> Walk<'a> {
    pub fn begin(id: SegmentId, file: &'a dyn DiskFile) -> Result<Self> {
        let segment = match read_head(id, file)? {
            Head::Good(header) => header,
            Head::Torn => return Err(damaged(id, 0, "the header is cut off")),
            Head::Bad(flaw) => return Err(damaged(id, 0, flaw)),
        };
        let len = file.len().map_err(|e| segment_io(id, e))?;
        let len = len.try_into().map_err(|_| damaged(id, len, "longer than a segment can be"))?;
        Ok(Self { file, segment, at: SEGMENT_HEADER, len })
    }

    /// The next group, not verified beyond its header.
    pub fn step(&mut self) -> Result<Step> {
        if self.at == self.len {
            return Ok(Step::End);
        }
        let header = match self.header_at(self.at)? {
            Ok(header) => header,
            Err(flaw) => return Ok(Step::Flaw(flaw)),
        };
        let end = match self.at.checked_add(header.len) {
            Some(end) if end <= self.len => end,
            _ => return Ok(Step::Flaw("a group beyond the end of the segment")),
        };
        if header.is_seal() {
            let last = end == self.len;
            return Ok(if last { Step::Seal } else { Step::Flaw("something follows the seal") });
        }
        let bytes = self.read(self.at, header.len as usize)?.into();
        self.at = end;
        Ok(Step::Group(header, bytes))
    }

    fn header_at(&self, start: u32) -> Result<Result<GroupHeader, Flaw>> {
        if self.len - start < GROUP_HEADER {
            return Ok(Err("the header of a group is cut off"));
        }
        let bytes = self.read(start, GROUP_HEADER as usize)?;
        let bytes = bytes.first_chunk().ok_or_else(|| self.damaged("a short read"))?;
        Ok(GroupHeader::decode(bytes, &self.segment, start))
    }

    fn read(&self, at: u32, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_at(&mut bytes, at.into()).map_err(|e| segment_io(self.segment.id, e))?;
        Ok(bytes)
    }

    /// Damage where the walk is.
    pub fn damaged(&self, flaw: Flaw) -> Error {
        damaged(self.segment.id, self.at, flaw)
    }

    /// Whether a later group tells that the place where the walk is was durable.
    fn was_durable(&self) -> Result<bool> {
        let bad = Lsn::new(self.segment.id, self.at);
        let mark = group_mark(self.segment.salt);
        let mut at = self.at;
        while self.len - at >= GROUP_HEADER {
            let window = self.read(at, SEARCH.min((self.len - at) as usize))?;
            for found in find_all(&window, &mark) {
                // Within the window, which is within the segment.
                let header = self.header_at(at + found as u32)?;
                if header.is_ok_and(|header| header.durable_upto > bad) {
                    return Ok(true);
                }
            }
            // A mark may lie across the end of the window.
            at += (window.len() - (mark.len() - 1)) as u32;
        }
        Ok(false)
    }
}

fn find_all(bytes: &[u8], mark: &[u8; 12]) -> impl Iterator<Item = usize> {
    bytes.windows(mark.len()).enumerate().filter(move |(_, window)| window == mark).map(|(at, _)| at)
}

/// Find where the good groups of the last segment end; whatever follows is torn. Reads all of it. A
/// seal here proves nothing: that it was synced shows only in a later segment.
pub fn find_tail(mut walk: Walk<'_>) -> Result<u32> {
    loop {
        let start = walk.at;
        let flaw = match walk.step()? {
            Step::Group(header, bytes) => match format::decode_group(walk.segment.id, &header, &bytes) {
                Ok(_) => continue,
                Err(flaw) => flaw,
            },
            Step::End | Step::Seal => return Ok(start),
            Step::Flaw(flaw) => flaw,
        };
        walk.at = start;
        return if walk.was_durable()? { Err(walk.damaged(flaw)) } else { Ok(start) };
    }
}

/// Visit the records of a segment that have an [`Lsn`] beyond `from`. All of it is verified, up to
/// the seal, or up to `end` where a tail was found.
pub fn visit_records(mut walk: Walk<'_>, end: Option<u32>, from: Lsn, visit: Visit<'_>) -> Result<()> {
    while end != Some(walk.at) {
        let start = walk.at;
        let flaw = match walk.step()? {
            Step::Seal => return Ok(()),
            Step::Group(header, bytes) => match format::decode_group(walk.segment.id, &header, &bytes) {
                Ok(records) => {
                    records.into_iter().filter(|record| record.lsn > from).try_for_each(&mut *visit)?;
                    continue;
                }
                Err(flaw) => flaw,
            },
            Step::End => "the segment ends without a seal",
            Step::Flaw(flaw) => flaw,
        };
        walk.at = start;
        return Err(walk.damaged(flaw));
    }
    Ok(())
}

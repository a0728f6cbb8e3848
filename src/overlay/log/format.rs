//! The bytes of a segment: its header, groups, and the records in them (`docs/formats/log.md`).
//!
//! Everything here is pure. All integers are big-endian. Invariants: a record's length follows from
//! its parts, so its place is known before it is encoded; each byte of a group is under exactly one
//! CRC-32: the header's own, the records', or a piece's, one per block of 4 KiB. A group without
//! records is the seal.
//!
//! Failure story: decoding trusts no length; what is wrong is told in a few words, and the caller
//! knows the segment and the offset, and whether it is damage or a torn end.

use std::io::IoSlice;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Lsn, MAX_BODY, MAX_PIECE, MAX_PIECES, Record, Replayed, SegmentId};
use crate::error::{Error, Result};

const SEGMENT_MAGIC: [u8; 8] = *b"mimeoSEG";
const GROUP_MAGIC: [u8; 4] = *b"mGRP";
const VERSION: u16 = 1;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER: u32 = 36;
/// Bytes of a group's header.
pub const GROUP_HEADER: u32 = 48;
/// Bytes of a record before the lengths of its pieces: body length 4, number of pieces 2.
const RECORD_HEADER: usize = 6;
/// Payload bytes under one CRC.
const BLOCK: usize = 4096;
/// Bytes of a CRC.
const CRC: usize = 4;

/// What is wrong with some bytes.
pub type Flaw = &'static str;

/// A segment that a later program wrote.
pub const NEWER: Flaw = "its format is newer than this program";

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub id: SegmentId,
    pub epoch: u64,
    /// Random, and repeated in every group: no bytes that a client writes pass for a group.
    pub salt: u64,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER as usize] {
        let mut bytes = [0; SEGMENT_HEADER as usize];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.id.0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_be_bytes());
        seal_header(&mut bytes);
        bytes
    }

    pub fn decode(bytes: &[u8; SEGMENT_HEADER as usize]) -> Result<Self, Flaw> {
        if bytes[..8] != SEGMENT_MAGIC {
            return Err("it does not begin as a segment does");
        }
        check_header(bytes)?;
        if bytes[8..12] != [0, VERSION as u8, 0, 0] {
            return Err(NEWER);
        }
        Ok(Self { id: SegmentId(u32_at(bytes, 12)), epoch: u64_at(bytes, 16), salt: u64_at(bytes, 24) })
    }
}

/// The head of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    pub salt: u64,
    pub epoch: u64,
    /// Everything up to there was durable when the group was written.
    pub durable_upto: Lsn,
    /// Where in the segment the group begins.
    pub start: u32,
    /// Bytes of the group, this header included.
    pub len: u32,
    /// Records; none in the seal.
    pub count: u32,
    /// Of all bytes behind this header but the payloads.
    pub records_crc: u32,
}

impl GroupHeader {
    pub fn seal(segment: &SegmentHeader, durable_upto: Lsn, start: u32) -> Self {
        let SegmentHeader { epoch, salt, .. } = *segment;
        Self { salt, epoch, durable_upto, start, len: GROUP_HEADER, count: 0, records_crc: 0 }
    }

    pub fn encode(&self) -> [u8; GROUP_HEADER as usize] {
        let mut bytes = [0; GROUP_HEADER as usize];
        bytes[..4].copy_from_slice(&GROUP_MAGIC);
        bytes[4..12].copy_from_slice(&self.salt.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[20..28].copy_from_slice(&self.durable_upto.0.to_be_bytes());
        bytes[28..32].copy_from_slice(&self.start.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.len.to_be_bytes());
        bytes[36..40].copy_from_slice(&self.count.to_be_bytes());
        bytes[40..44].copy_from_slice(&self.records_crc.to_be_bytes());
        seal_header(&mut bytes);
        bytes
    }

    /// The header of a group that begins at offset `start` of `segment`.
    pub fn decode(bytes: &[u8; GROUP_HEADER as usize], segment: &SegmentHeader, start: u32) -> Result<Self, Flaw> {
        if bytes[..4] != GROUP_MAGIC {
            return Err("no group begins here");
        }
        check_header(bytes)?;
        let header = Self {
            salt: u64_at(bytes, 4),
            epoch: u64_at(bytes, 12),
            durable_upto: Lsn(u64_at(bytes, 20)),
            start: u32_at(bytes, 28),
            len: u32_at(bytes, 32),
            count: u32_at(bytes, 36),
            records_crc: u32_at(bytes, 40),
        };
        if (header.salt, header.epoch, header.start) != (segment.salt, segment.epoch, start) {
            return Err("the group here belongs elsewhere");
        }
        if header.len < GROUP_HEADER || header.is_seal() != (header.len == GROUP_HEADER) {
            return Err("a group of an impossible length");
        }
        Ok(header)
    }

    pub fn is_seal(&self) -> bool {
        self.count == 0
    }
}

/// First bytes of every group of a segment.
pub fn group_mark(salt: u64) -> [u8; 12] {
    let mut mark = [0; 12];
    mark[..4].copy_from_slice(&GROUP_MAGIC);
    mark[4..].copy_from_slice(&salt.to_be_bytes());
    mark
}

/// Fill in the CRC that ends a header.
fn seal_header(bytes: &mut [u8]) {
    let at = bytes.len() - CRC;
    let crc = crc32fast::hash(&bytes[..at]);
    bytes[at..].copy_from_slice(&crc.to_be_bytes());
}

fn check_header(bytes: &[u8]) -> Result<(), Flaw> {
    let at = bytes.len() - CRC;
    if crc32fast::hash(&bytes[..at]) == u32_at(bytes, at) { Ok(()) } else { Err("a header does not fit its CRC") }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |field| u32::from_be_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |field| u64::from_be_bytes(*field))
}

/// Bytes of the CRCs in front of a payload of `len` bytes.
pub fn crc_bytes(len: usize) -> usize {
    len.div_ceil(BLOCK) * CRC
}

/// Bytes that a record takes; `Internal` if it breaks a bound.
pub fn record_len(record: &Record) -> Result<u32> {
    let body = record.body.len();
    let bounded = record.data.iter().all(|piece| (1..=MAX_PIECE).contains(&piece.len()));
    if body > MAX_BODY || record.data.len() > MAX_PIECES || !bounded {
        let lens: Vec<usize> = record.data.iter().map(Bytes::len).collect();
        return Err(Error::internal(format!("log: a record of {body} bytes and pieces of {lens:?} is out of bounds")));
    }
    let payloads: usize = record.data.iter().map(|piece| crc_bytes(piece.len()) + piece.len()).sum();
    // At most 4 MiB and 64 times 64 KiB and a little.
    Ok((before_payloads(record) + payloads) as u32)
}

fn before_payloads(record: &Record) -> usize {
    RECORD_HEADER + 4 * record.data.len() + record.body.len()
}

/// Where the payloads of a record lie that begins at `start`.
pub fn piece_offsets(start: u32, record: &Record) -> impl Iterator<Item = u32> {
    let mut at = start as usize + before_payloads(record);
    record.data.iter().map(move |piece| {
        let offset = at + crc_bytes(piece.len());
        at = offset + piece.len();
        // The record fits its segment, whose length has 32 bits.
        offset as u32
    })
}

/// Groups as they go to the disk, payloads by reference.
#[derive(Default)]
pub struct Encoded {
    /// All bytes but the payloads.
    meta: Vec<u8>,
    /// Each payload, and how much of `meta` goes before it.
    payloads: Vec<(usize, Bytes)>,
    len: u64,
}

impl Encoded {
    /// Bytes as they are.
    pub fn plain(bytes: &[u8]) -> Self {
        Self { meta: bytes.to_vec(), payloads: Vec::new(), len: bytes.len() as u64 }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Append a group of `records` that begins at offset `start` of `segment`.
    pub fn push_group<'a>(
        &mut self,
        segment: &SegmentHeader,
        start: u32,
        durable_upto: Lsn,
        records: impl ExactSizeIterator<Item = &'a Record>,
    ) {
        let (head_at, before, count) = (self.meta.len(), self.payloads.len(), records.len() as u32);
        self.meta.extend_from_slice(&[0; GROUP_HEADER as usize]);
        records.for_each(|record| self.push_record(record));
        let records_at = head_at + GROUP_HEADER as usize;
        let payloads: usize = self.payloads[before..].iter().map(|(_, payload)| payload.len()).sum();
        let len = self.meta.len() - head_at + payloads;
        let SegmentHeader { salt, epoch, .. } = *segment;
        let records_crc = crc32fast::hash(&self.meta[records_at..]);
        // A group lies in one segment, whose length has 32 bits.
        let head = GroupHeader { salt, epoch, durable_upto, start, len: len as u32, count, records_crc };
        self.meta[head_at..records_at].copy_from_slice(&head.encode());
        self.len += len as u64;
    }

    fn push_record(&mut self, record: &Record) {
        // Bounded by MAX_BODY, MAX_PIECES and MAX_PIECE.
        self.meta.extend_from_slice(&(record.body.len() as u32).to_be_bytes());
        self.meta.extend_from_slice(&(record.data.len() as u16).to_be_bytes());
        for piece in &record.data {
            self.meta.extend_from_slice(&(piece.len() as u32).to_be_bytes());
        }
        self.meta.extend_from_slice(&record.body);
        for piece in &record.data {
            piece.chunks(BLOCK).for_each(|block| self.meta.extend_from_slice(&crc32fast::hash(block).to_be_bytes()));
            self.payloads.push((self.meta.len(), piece.clone()));
        }
    }

    /// The bytes without the first `skip`.
    pub fn slices(&self, mut skip: u64) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(2 * self.payloads.len() + 1);
        let mut push = |part| {
            let part = behind(part, &mut skip);
            if !part.is_empty() {
                slices.push(IoSlice::new(part));
            }
        };
        let mut at = 0;
        for (cut, payload) in &self.payloads {
            push(&self.meta[at..*cut]);
            push(payload);
            at = *cut;
        }
        push(&self.meta[at..]);
        slices
    }
}

/// `part` without its first `skip` bytes, which are taken off `skip`.
fn behind<'a>(part: &'a [u8], skip: &mut u64) -> &'a [u8] {
    let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(part.len());
    *skip -= skipped as u64;
    &part[skipped..]
}

/// Verify a payload that follows its CRCs, and cut it off.
pub fn check_piece(mut bytes: Bytes, len: usize) -> Result<Bytes, Flaw> {
    if bytes.len() != crc_bytes(len) + len {
        return Err("a piece of another length");
    }
    let payload = bytes.split_off(crc_bytes(len));
    blocks_fit(&bytes, &payload).then_some(payload).ok_or("data does not fit its CRC")
}

fn blocks_fit(crcs: &[u8], payload: &[u8]) -> bool {
    let hashes = payload.chunks(BLOCK).map(|block| crc32fast::hash(block).to_be_bytes());
    crcs.chunks(CRC).eq(hashes)
}

/// The records of a whole group, all of them verified.
pub fn decode_group(segment: SegmentId, header: &GroupHeader, bytes: &Bytes) -> Result<Vec<Replayed>, Flaw> {
    let mut group =
        Decoder { segment, start: header.start, bytes, at: GROUP_HEADER as usize, crc: crc32fast::Hasher::new() };
    let mut records = Vec::new();
    while group.at < bytes.len() {
        records.push(group.record()?);
    }
    if group.crc.finalize() != header.records_crc {
        return Err("records do not fit their CRC");
    }
    // Below the length of a segment, so it fits.
    if records.len() as u32 == header.count { Ok(records) } else { Err("another number of records") }
}

struct Decoder<'a> {
    segment: SegmentId,
    /// Of the group in its segment.
    start: u32,
    bytes: &'a Bytes,
    at: usize,
    /// Over all that was taken but the payloads.
    crc: crc32fast::Hasher,
}

impl Decoder<'_> {
    fn record(&mut self) -> Result<Replayed, Flaw> {
        let body_len = self.number::<4>()? as usize;
        let count = self.number::<2>()? as usize;
        if body_len > MAX_BODY || count > MAX_PIECES {
            return Err("a record out of bounds");
        }
        let mut lens: SmallVec<[u32; 2]> = SmallVec::new();
        for _ in 0..count {
            lens.push(self.number::<4>()?);
        }
        let body = self.meta(body_len)?;
        let pieces = lens.into_iter().map(|len| self.piece(len)).collect::<Result<_, Flaw>>()?;
        Ok(Replayed { lsn: Lsn::new(self.segment, self.offset()), segment: self.segment, body, pieces })
    }

    fn piece(&mut self, len: u32) -> Result<(u32, u32), Flaw> {
        let bytes = len as usize;
        if !(1..=MAX_PIECE).contains(&bytes) {
            return Err("a piece out of bounds");
        }
        let crcs = self.meta(crc_bytes(bytes))?;
        let offset = self.offset();
        let payload = self.take(bytes)?;
        blocks_fit(&crcs, &payload).then_some((offset, len)).ok_or("data does not fit its CRC")
    }

    /// A number of `N` bytes, at most 4.
    fn number<const N: usize>(&mut self) -> Result<u32, Flaw> {
        Ok(self.meta(N)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn meta(&mut self, len: usize) -> Result<Bytes, Flaw> {
        let taken = self.take(len)?;
        self.crc.update(&taken);
        Ok(taken)
    }

    fn take(&mut self, len: usize) -> Result<Bytes, Flaw> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("a record beyond the end of its group")?;
        let taken = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(taken)
    }

    /// Where in the segment the decoder is.
    fn offset(&self) -> u32 {
        // The group ends within 32 bits, as the reader of its bytes has checked.
        self.start + self.at as u32
    }
}

//! Record marking (RFC 5531 section 11): the calls in a byte stream.
//!
//! Owns a connection's input buffer. A record that came in one fragment is handed out in place; only
//! one that was cut into several is put together elsewhere.
//!
//! Invariants: no record is longer than [`MAX_RECORD`] and none has more than [`MAX_FRAGMENTS`]
//! fragments; a header alone takes no memory: room for all of a record is made when [`MAX_ROOM`] bytes of
//! it have come, until then at most as much as has come.
//!
//! Failure story: a header that breaks a bound ends the connection, because nothing after it can be
//! trusted to be a header.

use std::fmt;

use bytes::{Buf, BytesMut};

/// Longest record, in bytes: a WRITE of 1 MiB and everything around it.
pub const MAX_RECORD: usize = 1024 * 1024 + 64 * 1024;
/// Most fragments that one record may be cut into, empty ones included.
pub const MAX_FRAGMENTS: usize = 1024;

/// Room for the first read of a connection that was idle, in bytes.
const MIN_ROOM: usize = 4 * 1024;
/// Most room for one read where no record asks for more, in bytes.
const MAX_ROOM: usize = 64 * 1024;
/// The record mark: 31 bits of length below the "last fragment" bit.
const MARK: usize = 4;
const LAST: u32 = 1 << 31;

/// A record mark that breaks a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecord {
    /// The record would have at least so many bytes.
    TooLong(usize),
    TooManyFragments,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(len) => write!(f, "a record of {len} bytes, more than {MAX_RECORD}"),
            Self::TooManyFragments => write!(f, "a record of more than {MAX_FRAGMENTS} fragments"),
        }
    }
}

/// Cuts a byte stream into records.
#[derive(Debug)]
pub struct RecordBuffer {
    received: BytesMut,
    /// Bytes at the front of `received` that belong to the record handed out last.
    taken: usize,
    /// Earlier fragments of the record in progress.
    parts: Vec<u8>,
    fragments: usize,
    /// The record handed out last is the one in `parts`.
    parts_taken: bool,
    /// Room was made since the last release. (`received` does not know what lies before its start.)
    allocated: bool,
    /// Room that the next read gets: grows while reads fill it.
    appetite: usize,
    /// Bytes of records that were handed out since they were asked for.
    consumed: usize,
}

impl RecordBuffer {
    pub fn new() -> Self {
        Self {
            received: BytesMut::new(),
            taken: 0,
            parts: Vec::new(),
            fragments: 0,
            parts_taken: false,
            allocated: false,
            appetite: MIN_ROOM,
            consumed: 0,
        }
    }

    /// The next complete record, if there is one. It is consumed by the next call.
    pub fn next_record(&mut self) -> Result<Option<&[u8]>, BadRecord> {
        self.consume();
        while let Some((len, last)) = self.mark()? {
            if self.received.len() < MARK + len {
                break;
            }
            self.consumed += MARK + len;
            if last && self.parts.is_empty() {
                self.taken = MARK + len;
                self.fragments = 0;
                return Ok(Some(&self.received[MARK..MARK + len]));
            }
            self.keep_fragment(len);
            if last {
                self.parts_taken = true;
                return Ok(Some(&self.parts));
            }
        }
        Ok(None)
    }

    /// Bytes of records that were handed out, marks included, since this was last asked.
    pub fn take_consumed(&mut self) -> usize {
        std::mem::take(&mut self.consumed)
    }

    /// Drop the record that was handed out.
    fn consume(&mut self) {
        self.received.advance(std::mem::take(&mut self.taken));
        if std::mem::take(&mut self.parts_taken) {
            self.parts = Vec::new();
            self.fragments = 0;
        }
    }

    /// Length of the fragment at the front and whether it is the last of its record.
    fn mark(&self) -> Result<Option<(usize, bool)>, BadRecord> {
        let Some(mark) = self.received.first_chunk::<MARK>() else { return Ok(None) };
        let mark = u32::from_be_bytes(*mark);
        let len = (mark & !LAST) as usize;
        if self.parts.len() + len > MAX_RECORD {
            return Err(BadRecord::TooLong(self.parts.len() + len));
        }
        if self.fragments >= MAX_FRAGMENTS {
            return Err(BadRecord::TooManyFragments);
        }
        Ok(Some((len, mark & LAST != 0)))
    }

    fn keep_fragment(&mut self, len: usize) {
        self.parts.extend_from_slice(&self.received[MARK..MARK + len]);
        self.received.advance(MARK + len);
        self.fragments += 1;
    }

    /// Where the next bytes of the stream go. Call [`next_record`](Self::next_record) until it has no more first.
    pub fn room(&mut self) -> &mut BytesMut {
        self.consume();
        let missing = match self.mark() {
            Ok(Some((len, _))) => (MARK + len).saturating_sub(self.received.len()),
            _ => 0,
        };
        // At most as much as was received already, until the sender has shown that it means it; from then
        // on all at once, as each growth copies what is there.
        let received = self.received.len();
        let most = if received >= MAX_ROOM { MARK + MAX_RECORD } else { received.max(self.appetite) };
        self.allocated = true;
        self.received.reserve(missing.max(self.appetite).min(most));
        &mut self.received
    }

    /// Bytes arrived in the room.
    pub fn filled(&mut self) {
        if self.received.len() == self.received.capacity() {
            self.appetite = (self.appetite * 2).min(MAX_ROOM);
        }
    }

    /// Whether a record has begun and is not complete.
    pub fn in_progress(&self) -> bool {
        self.received.len() > self.taken || (!self.parts.is_empty() && !self.parts_taken)
    }

    /// Whether so much of a record has come that room for all of it is made next.
    pub fn is_large(&self) -> bool {
        !self.parts_taken && self.parts.len() + self.received.len() - self.taken >= MAX_ROOM
    }

    /// Whether memory is held that [`release`](Self::release) would give back.
    pub fn holds_memory(&self) -> bool {
        self.allocated && !self.in_progress()
    }

    /// Give the memory back, if no record is in progress.
    pub fn release(&mut self) {
        if !self.in_progress() {
            *self = Self::new();
        }
    }
}

impl Default for RecordBuffer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(data: &[u8], last: bool) -> Vec<u8> {
        let mark = data.len() as u32 | if last { LAST } else { 0 };
        [&mark.to_be_bytes()[..], data].concat()
    }

    fn feed(buffer: &mut RecordBuffer, bytes: &[u8]) -> Result<Vec<Vec<u8>>, BadRecord> {
        buffer.room().extend_from_slice(bytes);
        buffer.filled();
        let mut records = Vec::new();
        while let Some(record) = buffer.next_record()? {
            records.push(record.to_vec());
        }
        Ok(records)
    }

    #[test]
    fn records_are_found_however_the_stream_is_cut() {
        let stream =
            [fragment(b"one", true), fragment(b"t", false), fragment(b"", false), fragment(b"wo", true)].concat();
        for step in 1..=stream.len() {
            let mut buffer = RecordBuffer::new();
            let mut records = Vec::new();
            for piece in stream.chunks(step) {
                records.extend(feed(&mut buffer, piece).unwrap());
            }
            assert_eq!(records, [b"one", b"two"], "in pieces of {step}");
            assert!(!buffer.in_progress());
        }
    }

    #[test]
    fn a_long_record_is_refused_by_its_mark() {
        let mark = (MAX_RECORD as u32 + 1) | LAST;
        let refused = feed(&mut RecordBuffer::new(), &mark.to_be_bytes());
        assert_eq!(refused, Err(BadRecord::TooLong(MAX_RECORD + 1)));
    }

    #[test]
    fn fragments_add_up_to_the_same_bound() {
        let mut buffer = RecordBuffer::new();
        feed(&mut buffer, &fragment(&vec![0; MAX_RECORD], false)).unwrap();
        let refused = feed(&mut buffer, &fragment(b"x", true));
        assert_eq!(refused, Err(BadRecord::TooLong(MAX_RECORD + 1)));
    }

    #[test]
    fn empty_fragments_come_to_an_end() {
        let mut buffer = RecordBuffer::new();
        let refused = feed(&mut buffer, &fragment(b"", false).repeat(MAX_FRAGMENTS + 1));
        assert_eq!(refused, Err(BadRecord::TooManyFragments));
    }

    #[test]
    fn a_mark_alone_takes_no_memory() {
        let mut buffer = RecordBuffer::new();
        let mark = MAX_RECORD as u32 | LAST;
        assert_eq!(feed(&mut buffer, &mark.to_be_bytes()), Ok(vec![]));
        assert!(buffer.room().capacity() <= 2 * MAX_ROOM);
    }

    #[test]
    fn a_record_that_is_coming_gets_all_its_room_at_once() {
        let mut buffer = RecordBuffer::new();
        let record = fragment(&vec![1; MAX_RECORD], true);
        assert_eq!(feed(&mut buffer, &record[..MAX_ROOM - 1]), Ok(vec![]));
        assert!(!buffer.is_large());
        assert_eq!(feed(&mut buffer, &record[MAX_ROOM - 1..MAX_ROOM]), Ok(vec![]));
        assert!(buffer.is_large());
        assert!(buffer.room().capacity() >= record.len());
    }

    #[test]
    fn an_idle_buffer_gives_its_memory_back() {
        let mut buffer = RecordBuffer::new();
        let records = feed(&mut buffer, &fragment(&vec![1; MAX_RECORD], true)).unwrap();
        assert_eq!(records[0].len(), MAX_RECORD);
        assert!(buffer.holds_memory());
        buffer.release();
        assert!(!buffer.holds_memory());
        assert_eq!(buffer.received.capacity(), 0);
    }

    #[test]
    fn a_record_is_large_in_small_fragments_too() {
        let mut buffer = RecordBuffer::new();
        let piece = fragment(&[1; 1024], false);
        for _ in 0..MAX_ROOM / 1024 {
            assert!(!buffer.is_large());
            assert_eq!(feed(&mut buffer, &piece), Ok(vec![]));
        }
        assert!(buffer.is_large());
        assert_eq!(feed(&mut buffer, &fragment(b"", true)).unwrap()[0].len(), MAX_ROOM);
        assert!(!buffer.is_large());
    }
}

//! Replies on their way out: everything that one read brought in leaves in one vectored write.
//!
//! Owns a connection's output queue: one growing buffer of headers and small results, and the
//! payloads of READs as the slices of cached chunks that they are, each with its place in that
//! buffer. Payloads are never copied.
//!
//! Invariant: between `begin` and `finish` exactly one reply is open; what a reply wrote before it
//! was rolled back leaves no trace.
//!
//! Failure story: a client that takes nothing for [`WRITE_STALL`] loses its connection, so that it
//! cannot hold memory for ever.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::net::TcpStream;

use super::xdr::Encode;

/// Queued bytes above which the queue is written before more is added.
pub const FULL: usize = 4 * 1024 * 1024;
/// Longest that a write may make no progress.
pub const WRITE_STALL: Duration = Duration::from_secs(60);

/// Most slices in one vectored write: the kernel takes no more (IOV_MAX).
const MAX_SLICES: usize = 1024;
const LAST_FRAGMENT: u32 = 1 << 31;

/// A queue of encoded replies.
#[derive(Debug, Default)]
pub struct Replies {
    head: Vec<u8>,
    /// Payload slices, ordered by their place in `head`.
    payloads: Vec<(usize, Bytes)>,
    payload_bytes: usize,
}

/// Where an open reply began.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    head: usize,
    payloads: usize,
    payload_bytes: usize,
}

impl Replies {
    /// Open a reply. Leaves room for the record mark.
    pub fn begin(&mut self) -> Mark {
        let mark = Mark { head: self.head.len(), payloads: self.payloads.len(), payload_bytes: self.payload_bytes };
        self.head.put_u32(0);
        mark
    }

    /// Close the reply: it is one record of one fragment.
    pub fn finish(&mut self, mark: Mark) {
        let len = self.head.len() - mark.head - 4 + (self.payload_bytes - mark.payload_bytes);
        let len = u32::try_from(len).expect("replies are bounded far below 2 GiB");
        self.head[mark.head..mark.head + 4].copy_from_slice(&(LAST_FRAGMENT | len).to_be_bytes());
    }

    /// Forget the reply.
    pub fn cancel(&mut self, mark: Mark) {
        self.head.truncate(mark.head);
        self.payloads.truncate(mark.payloads);
        self.payload_bytes = mark.payload_bytes;
    }

    /// Take the reply that began at `mark`, which is closed and the last, out of the queue.
    pub fn take(&mut self, mark: Mark) -> Self {
        let payloads = self.payloads.split_off(mark.payloads);
        let payload_bytes = self.payload_bytes - mark.payload_bytes;
        self.payload_bytes = mark.payload_bytes;
        let payloads = payloads.into_iter().map(|(at, bytes)| (at - mark.head, bytes)).collect();
        Self { head: self.head.split_off(mark.head), payloads, payload_bytes }
    }

    /// Bytes that are queued.
    pub fn len(&self) -> usize {
        self.head.len() + self.payload_bytes
    }

    /// Where results are encoded.
    pub fn head(&mut self) -> &mut Vec<u8> {
        &mut self.head
    }

    /// Append bytes without copying them.
    pub fn payload(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.payload_bytes += bytes.len();
            self.payloads.push((self.head.len(), bytes));
        }
    }

    /// Append replies that were assembled elsewhere.
    pub fn append(&mut self, other: Self) {
        let base = self.head.len();
        self.head.extend_from_slice(&other.head);
        self.payloads.extend(other.payloads.into_iter().map(|(at, bytes)| (base + at, bytes)));
        self.payload_bytes += other.payload_bytes;
    }

    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.len() >= FULL || 2 * self.payloads.len() + 1 >= MAX_SLICES
    }

    pub fn holds_memory(&self) -> bool {
        self.head.capacity() + self.payloads.capacity() > 0
    }

    /// Give the memory back, if nothing is queued.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Everything queued, in order.
    fn slices(&self) -> SmallVec<[IoSlice<'_>; 64]> {
        let mut slices = SmallVec::new();
        let mut from = 0;
        for (at, bytes) in &self.payloads {
            if *at > from {
                slices.push(IoSlice::new(&self.head[from..*at]));
                from = *at;
            }
            slices.push(IoSlice::new(bytes));
        }
        if from < self.head.len() {
            slices.push(IoSlice::new(&self.head[from..]));
        }
        slices
    }

    /// Write everything and empty the queue.
    pub async fn write_to(&mut self, stream: &TcpStream) -> io::Result<()> {
        let mut slices = self.slices();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match stream.try_write_vectored(&rest[..rest.len().min(MAX_SLICES)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => writable(stream).await?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        drop(slices);
        self.clear();
        Ok(())
    }

    /// Empty the queue and keep its memory.
    fn clear(&mut self) {
        self.head.clear();
        self.payloads.clear();
        self.payload_bytes = 0;
    }
}

async fn writable(stream: &TcpStream) -> io::Result<()> {
    match tokio::time::timeout(WRITE_STALL, stream.writable()).await {
        Ok(ready) => ready,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(replies: &Replies) -> Vec<u8> {
        replies.slices().iter().flat_map(|slice| slice.to_vec()).collect()
    }

    fn reply(replies: &mut Replies, head: &[u8], payload: &'static [u8], tail: &[u8]) {
        let mark = replies.begin();
        replies.head().extend_from_slice(head);
        replies.payload(Bytes::from_static(payload));
        replies.head().extend_from_slice(tail);
        replies.finish(mark);
    }

    #[test]
    fn replies_leave_in_order_with_their_payloads_in_place() {
        let mut replies = Replies::default();
        reply(&mut replies, b"head", b"payload", b"\0");
        let mut other = Replies::default();
        reply(&mut other, b"", b"more", b"");
        replies.append(other);
        assert_eq!(bytes(&replies), b"\x80\0\0\x0cheadpayload\0\x80\0\0\x04more");
    }

    #[test]
    fn a_cancelled_reply_leaves_no_trace() {
        let mut replies = Replies::default();
        reply(&mut replies, b"first", b"1", b"");
        let before = bytes(&replies);
        let mark = replies.begin();
        replies.head().extend_from_slice(b"second");
        replies.payload(Bytes::from_static(b"2"));
        replies.cancel(mark);
        assert_eq!(bytes(&replies), before);
    }

    #[test]
    fn a_reply_that_is_taken_out_is_whole_and_leaves_no_trace() {
        let mut replies = Replies::default();
        reply(&mut replies, b"first", b"1", b"");
        let before = bytes(&replies);
        let mark = replies.begin();
        replies.head().extend_from_slice(b"head");
        replies.payload(Bytes::from_static(b"payload"));
        replies.head().extend_from_slice(b"\0");
        replies.finish(mark);
        assert_eq!(bytes(&replies.take(mark)), b"\x80\0\0\x0cheadpayload\0");
        assert_eq!((bytes(&replies), replies.len()), (before, 10));
    }

    #[test]
    fn a_queue_is_full_by_bytes_or_by_slices() {
        let mut replies = Replies::default();
        replies.payload(Bytes::from(vec![0; FULL]));
        assert!(replies.is_full());
        let mut replies = Replies::default();
        for _ in 0..MAX_SLICES / 2 {
            assert!(!replies.is_full());
            reply(&mut replies, b"h", b"p", b"");
        }
        assert!(replies.is_full());
    }
}

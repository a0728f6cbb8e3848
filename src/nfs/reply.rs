//! Replies on their way out: everything that one read brought in leaves together.
//!
//! Owns a connection's output queue: one growing buffer of headers and small results, and the
//! payloads of READs as the slices of cached chunks that they are, each with its place in that
//! buffer. They leave in one vectored write; only the long slices of chunks that lie in a file in memory
//! are sent from there, so that not even the kernel copies them.
//!
//! Invariant: between `begin` and `finish` exactly one reply is open; what a reply wrote before it
//! was rolled back leaves no trace.
//!
//! Failure story: a client that takes nothing for [`WRITE_STALL`] loses its connection, so that it
//! cannot hold memory for ever.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::sendfile;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use smallvec::SmallVec;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::xdr::Encode;
use crate::env::MemoryFile;

/// Queued bytes above which the queue is written before more is added.
pub const FULL: usize = 512 * 1024;
/// Longest that a write may make no progress.
pub const WRITE_STALL: Duration = Duration::from_secs(60);

/// Slices from this length on are sent from the file in memory: below, a call more costs more than copying.
const MIN_SENT: usize = 16 * 1024;
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

    /// Everything queued, in order. `memory` is where long payloads may lie.
    fn runs(&self, memory: Option<&MemoryFile>) -> SmallVec<[Run<'_>; 1]> {
        let mut runs = SmallVec::new();
        let mut run = Run::default();
        let mut from = 0;
        for (at, bytes) in &self.payloads {
            run.copy(&self.head[from..*at]);
            from = *at;
            match memory.filter(|_| bytes.len() >= MIN_SENT).and_then(|memory| memory.offset_of(bytes)) {
                None => run.copy(bytes),
                Some(offset) => {
                    run.sent = Some((offset, bytes.len()));
                    runs.push(std::mem::take(&mut run));
                }
            }
        }
        run.copy(&self.head[from..]);
        if !run.copied.is_empty() {
            runs.push(run);
        }
        runs
    }

    /// Write everything and empty the queue.
    pub async fn write_to(&mut self, stream: &TcpStream, memory: Option<&MemoryFile>) -> io::Result<()> {
        let mut runs = self.runs(memory);
        for run in &mut runs {
            write_copied(stream, &mut run.copied, run.sent.is_some()).await?;
            if let (Some(memory), Some((offset, len))) = (memory, run.sent) {
                write_sent(stream, memory, offset, len).await?;
            }
        }
        drop(runs);
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

/// Bytes that are copied into the socket, and after them some that are sent from the file in memory.
#[derive(Default)]
struct Run<'a> {
    copied: SmallVec<[IoSlice<'a>; 64]>,
    /// Offset in the file, and length.
    sent: Option<(u64, usize)>,
}

impl<'a> Run<'a> {
    fn copy(&mut self, bytes: &'a [u8]) {
        if !bytes.is_empty() {
            self.copied.push(IoSlice::new(bytes));
        }
    }
}

/// `more`: what follows at once belongs to the same reply.
async fn write_copied(stream: &TcpStream, slices: &mut [IoSlice<'_>], more: bool) -> io::Result<()> {
    let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
    let mut rest = slices;
    while !rest.is_empty() {
        let some = &rest[..rest.len().min(MAX_SLICES)];
        let written = write(stream, || Ok(sendmsg(stream, some, &mut SendAncillaryBuffer::default(), flags)?)).await?;
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}

async fn write_sent(stream: &TcpStream, memory: &MemoryFile, mut offset: u64, mut len: usize) -> io::Result<()> {
    while len > 0 {
        len -= write(stream, || Ok(sendfile(stream, memory, Some(&mut offset), len)?)).await?;
    }
    Ok(())
}

/// One call that writes, as soon as the socket takes anything.
async fn write(stream: &TcpStream, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match stream.try_io(Interest::WRITABLE, &mut call) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => writable(stream).await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            written => return written,
        }
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
        replies.runs(None).iter().flat_map(|run| &run.copied).flat_map(|slice| slice.to_vec()).collect()
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

    #[tokio::test]
    async fn what_lies_in_memory_leaves_as_what_is_copied_does() {
        let memory = MemoryFile::new(8, 1 << 20).unwrap();
        let noise = |seed: usize, len: usize| (0..len).map(|at| (at * seed / 7 + seed) as u8).collect::<Vec<_>>();
        let placed = memory.place(&noise(3, 1 << 20)).unwrap();
        let payloads = [
            placed.slice(5..200_007),
            placed.slice(..100),
            Bytes::from(noise(5, 70_000)),
            placed.slice(1000..1000 + MIN_SENT),
            placed.clone(),
        ];
        let mut replies = Replies::default();
        for payload in &payloads {
            let mark = replies.begin();
            replies.head().extend_from_slice(b"head");
            replies.payload(payload.clone());
            replies.head().extend_from_slice(b"pad");
            replies.finish(mark);
        }
        let sent = replies.runs(Some(&memory)).iter().filter(|run| run.sent.is_some()).count();
        assert_eq!(sent, 3, "long slices of the file only");
        let expected = bytes(&replies);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (ours, mut theirs) = (ours.unwrap(), theirs.unwrap().0);
        let mut received = Vec::new();
        let write = async move {
            replies.write_to(&ours, Some(&memory)).await.unwrap();
            assert!(replies.is_empty());
        };
        let (_, read) = tokio::join!(write, tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut received));
        read.unwrap();
        assert!(received == expected);
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

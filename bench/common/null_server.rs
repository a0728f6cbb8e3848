//! The null server: the least that a server can do and still answer NFS. The roof that ours is
//! measured against.
//!
//! It finds the procedure and the count of each call, answers from templates and one static payload,
//! and sends all that one read brought in with one vectored write. It knows no files, looks at no
//! handle and checks nobody. Its threads are like ours: one single-threaded runtime per core.
//!
//! It runs as a process of its own, which is this executable again with `--null-server`: it prints
//! its port on standard output and lives until its standard input ends.

use std::io::{self, BufRead, BufReader, IoSlice, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Stdio};

use anyhow::{Context, Result};
use bytes::{Buf, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::process;
use super::wire::{self, LAST_FRAGMENT, READ_HEADER, put_opaque, put_u32, u32_at};

/// The flag that makes a bench's executable a null server.
pub const FLAG: &str = "--null-server";

/// Largest READ that is answered.
const MAX_PAYLOAD: usize = 1024 * 1024;
/// Longest call that is understood.
const MAX_CALL: usize = 64 * 1024;
/// As long as our server's handles, so that the calls are alike.
const HANDLE: [u8; 48] = [0x6e; 48];

static PAYLOAD: [u8; MAX_PAYLOAD] = [0xa5; MAX_PAYLOAD];

/// A null server that was started by this process and ends with it.
pub struct NullServer {
    child: Child,
    pub address: SocketAddr,
}

impl NullServer {
    /// Start one on `cores` (a `taskset` list), or anywhere.
    pub fn start(cores: Option<&str>) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut child = process::command_on(cores, program.to_str().context("the bench's path is not UTF-8")?)
            .arg(FLAG)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the null server")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
        let port: u16 = line.trim().parse().context("the null server told no port")?;
        Ok(Self { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends by itself now; nothing is lost if it cannot be waited for.
        let _ = self.child.wait();
    }
}

/// The null server's process: serve until standard input ends.
pub fn run() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?.port());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let queues: Vec<_> = (0..workers).map(|_| spawn_worker()).collect();
    std::thread::spawn(move || accept(&listener, &queues));
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Connections go to the workers by turns: the same number to each.
fn accept(listener: &TcpListener, queues: &[mpsc::UnboundedSender<std::net::TcpStream>]) {
    for queue in queues.iter().cycle() {
        let Ok((stream, _)) = listener.accept() else { return };
        if queue.send(stream).is_err() {
            return;
        }
    }
}

fn spawn_worker() -> mpsc::UnboundedSender<std::net::TcpStream> {
    let (queue, mut arrivals) = mpsc::unbounded_channel::<std::net::TcpStream>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime needs no more than epoll");
        runtime.block_on(async {
            while let Some(stream) = arrivals.recv().await {
                // A connection that fails is gone; the load generator notices.
                tokio::spawn(async move { serve(stream).await.unwrap_or_default() });
            }
        });
    });
    queue
}

async fn serve(stream: std::net::TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let mut stream = TcpStream::from_std(stream)?;
    let templates = Templates::new();
    let mut received = BytesMut::with_capacity(MAX_CALL);
    let mut replies = Replies::default();
    while stream.read_buf(&mut received).await? > 0 {
        while let Some(len) = next_record(&received)? {
            templates.answer(&received[4..4 + len], &mut replies).ok_or(io::ErrorKind::InvalidData)?;
            received.advance(4 + len);
        }
        replies.send(&mut stream).await?;
        received.reserve(MAX_CALL);
    }
    Ok(())
}

/// Length of the record at the front, if it is complete.
fn next_record(received: &[u8]) -> io::Result<Option<usize>> {
    let Some(mark) = u32_at(received, 0) else { return Ok(None) };
    let len = (mark & !LAST_FRAGMENT) as usize;
    if mark & LAST_FRAGMENT == 0 || len > MAX_CALL {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((received.len() >= 4 + len).then_some(len))
}

/// Replies that leave together: headers in one buffer, payloads out of the static one.
#[derive(Default)]
struct Replies {
    headers: Vec<u8>,
    /// Where the headers are interrupted by a payload, and how long that is.
    payloads: Vec<(usize, usize)>,
}

impl Replies {
    async fn send(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let mut slices: SmallVec<[IoSlice<'_>; 64]> = SmallVec::new();
        let mut at = 0;
        for (upto, len) in &self.payloads {
            slices.push(IoSlice::new(&self.headers[at..*upto]));
            slices.push(IoSlice::new(&PAYLOAD[..*len]));
            at = *upto;
        }
        if at < self.headers.len() {
            slices.push(IoSlice::new(&self.headers[at..]));
        }
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let sent = stream.write_vectored(rest).await?;
            IoSlice::advance_slices(&mut rest, sent);
        }
        drop(slices);
        self.headers.clear();
        self.payloads.clear();
        Ok(())
    }
}

/// Complete replies of all procedures; only the transaction id (and what depends on a READ's count)
/// is missing.
struct Templates {
    null: Vec<u8>,
    getattr: Vec<u8>,
    lookup: Vec<u8>,
    access: Vec<u8>,
    read: Vec<u8>,
    fsstat: Vec<u8>,
    mnt: Vec<u8>,
    unavailable: Vec<u8>,
}

impl Templates {
    fn new() -> Self {
        const SUCCESS: u32 = 0;
        const PROC_UNAVAIL: u32 = 3;
        Self {
            null: template(SUCCESS, |_| ()),
            getattr: template(SUCCESS, |out| {
                put_u32(out, 0);
                put_attributes(out);
            }),
            lookup: template(SUCCESS, |out| {
                put_u32(out, 0);
                put_opaque(out, &HANDLE);
                put_post_op(out);
                put_post_op(out);
            }),
            access: template(SUCCESS, |out| {
                put_u32(out, 0);
                put_post_op(out);
                put_u32(out, 0x3f);
            }),
            read: template(SUCCESS, |out| {
                put_u32(out, 0);
                put_post_op(out);
                out.resize(READ_HEADER, 0);
            }),
            fsstat: template(SUCCESS, |out| {
                put_u32(out, 0);
                put_post_op(out);
                out.resize(out.len() + 6 * 8 + 4, 0);
            }),
            mnt: template(SUCCESS, |out| {
                put_u32(out, 0);
                put_opaque(out, &HANDLE);
                put_u32(out, 1);
                put_u32(out, 1);
            }),
            unavailable: template(PROC_UNAVAIL, |_| ()),
        }
    }

    /// Queue the answer to `record`; `None` if it is no call.
    fn answer(&self, record: &[u8], replies: &mut Replies) -> Option<()> {
        let xid = record.first_chunk::<4>()?;
        let program = u32_at(record, 12)?;
        let reply = match (program, u32_at(record, 20)?) {
            (wire::NFS, wire::READ) => return self.answer_read(xid, record, replies),
            (wire::NFS, wire::GETATTR) => &self.getattr,
            (wire::NFS, wire::LOOKUP) => &self.lookup,
            (wire::NFS, wire::ACCESS) => &self.access,
            (wire::NFS, wire::FSSTAT) => &self.fsstat,
            (wire::MOUNT, wire::MNT) => &self.mnt,
            (_, wire::NULL) => &self.null,
            _ => &self.unavailable,
        };
        replies.push(xid, reply);
        Some(())
    }

    fn answer_read(&self, xid: &[u8; 4], record: &[u8], replies: &mut Replies) -> Option<()> {
        let arguments = after_opaque(record, after_opaque(record, 28)? + 4)?;
        let count = u32_at(record, after_opaque(record, arguments)? + 8)?.min(MAX_PAYLOAD as u32);
        let header = replies.push(xid, &self.read);
        let padded = count.next_multiple_of(4);
        let mark = (READ_HEADER as u32 - 4 + padded) | LAST_FRAGMENT;
        header[..4].copy_from_slice(&mark.to_be_bytes());
        header[READ_HEADER - 12..READ_HEADER - 8].copy_from_slice(&count.to_be_bytes());
        header[READ_HEADER - 4..].copy_from_slice(&count.to_be_bytes());
        replies.payloads.push((replies.headers.len(), padded as usize));
        Some(())
    }
}

impl Replies {
    /// Copy a template, with its transaction id.
    fn push(&mut self, xid: &[u8; 4], template: &[u8]) -> &mut [u8] {
        let at = self.headers.len();
        self.headers.extend_from_slice(template);
        let header = &mut self.headers[at..];
        header[wire::XID_AT..wire::XID_AT + 4].copy_from_slice(xid);
        header
    }
}

/// A reply in a record of its own.
fn template(accept_status: u32, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    const REPLY: u32 = 1;
    let mut out = vec![0; 8];
    // Accepted; the verifier is AUTH_NONE, of no length.
    for word in [REPLY, 0, 0, 0, accept_status] {
        put_u32(&mut out, word);
    }
    body(&mut out);
    let mark = (out.len() - 4) as u32 | LAST_FRAGMENT;
    out[..4].copy_from_slice(&mark.to_be_bytes());
    out
}

fn put_post_op(out: &mut Vec<u8>) {
    put_u32(out, 1);
    put_attributes(out);
}

/// A regular file of mode 0644 with one link; everything else is 0.
fn put_attributes(out: &mut Vec<u8>) {
    let at = out.len();
    for word in [1, 0o644, 1] {
        put_u32(out, word);
    }
    out.resize(at + wire::FATTR, 0);
}

/// Where the opaque whose length is at `at` ends.
fn after_opaque(record: &[u8], at: usize) -> Option<usize> {
    let len = u32_at(record, at)? as usize;
    Some(at + 4 + len.next_multiple_of(4))
}

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
/// Longest call that is understood: a WRITE of 1 MiB and what is around it.
const MAX_CALL: usize = 1024 * 1024 + 4096;
/// Room for what one read brings in.
const ROOM: usize = 64 * 1024;
/// As long as our server's handles, so that the calls are alike.
const HANDLE: [u8; 48] = [0x6e; 48];
/// All that a listing has: a disk image, for who looks for files to read.
pub const DISK_NAME: &str = "disk0.img";
/// The length of every file.
pub const DISK_BYTES: u64 = 1 << 30;

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
    let mut received = BytesMut::with_capacity(ROOM);
    let mut replies = Replies::default();
    while stream.read_buf(&mut received).await? > 0 {
        while let Some(len) = next_record(&received)? {
            templates.answer(&received[4..4 + len], &mut replies).ok_or(io::ErrorKind::InvalidData)?;
            received.advance(4 + len);
        }
        replies.send(&mut stream).await?;
        received.reserve(ROOM);
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

/// Complete replies of all procedures; only the transaction id (and what depends on the count of a READ or a WRITE)
/// is missing.
struct Templates {
    /// By procedure; those that are missing are refused.
    nfs: Vec<Option<Vec<u8>>>,
    null: Vec<u8>,
    mnt: Vec<u8>,
    unavailable: Vec<u8>,
}

/// Procedures of NFS.
const PROCEDURES: u32 = 22;
const SUCCESS: u32 = 0;
const PROC_UNAVAIL: u32 = 3;

impl Templates {
    fn new() -> Self {
        let null = template(SUCCESS, |_| ());
        let mnt = template(SUCCESS, |out| {
            put_u32(out, 0);
            put_opaque(out, &HANDLE);
            put_u32(out, 1);
            put_u32(out, 1);
        });
        Self {
            nfs: (0..PROCEDURES).map(nfs_template).collect(),
            null,
            mnt,
            unavailable: template(PROC_UNAVAIL, |_| ()),
        }
    }

    /// Queue the answer to `record`; `None` if it is no call.
    fn answer(&self, record: &[u8], replies: &mut Replies) -> Option<()> {
        let xid = record.first_chunk::<4>()?;
        let (program, procedure) = (u32_at(record, 12)?, u32_at(record, 20)?);
        let known = if program == wire::NFS { self.nfs.get(procedure as usize) } else { None };
        let reply = match (known, procedure) {
            (Some(Some(template)), wire::READ) => return answer_read(xid, record, template, replies),
            (Some(Some(template)), wire::WRITE) => return answer_write(xid, record, template, replies),
            (Some(Some(template)), _) => template,
            (_, wire::MNT) if program == wire::MOUNT => &self.mnt,
            (_, wire::NULL) => &self.null,
            _ => &self.unavailable,
        };
        replies.push(xid, reply);
        Some(())
    }
}

/// The results of a procedure that went well.
fn nfs_template(procedure: u32) -> Option<Vec<u8>> {
    let put: fn(&mut Vec<u8>) = match procedure {
        wire::GETATTR => put_attributes,
        wire::SETATTR | wire::REMOVE | wire::RMDIR => put_wcc,
        wire::LOOKUP => put_found,
        wire::ACCESS => |out| {
            put_post_op(out);
            put_u32(out, 0x3f);
        },
        wire::READLINK => |out| {
            put_post_op(out);
            put_opaque(out, b"link");
        },
        wire::READ => |out| {
            put_post_op(out);
            out.resize(READ_HEADER, 0);
        },
        // The count, FILE_SYNC, the verifier.
        wire::WRITE => |out| {
            put_wcc(out);
            out.resize(out.len() + 4, 0);
            put_u32(out, 2);
            out.resize(out.len() + 8, 0);
        },
        wire::CREATE..=wire::MKNOD => put_made,
        wire::RENAME => |out| {
            put_wcc(out);
            put_wcc(out);
        },
        wire::LINK => |out| {
            put_post_op(out);
            put_wcc(out);
        },
        wire::READDIR => |out| put_listing(out, false),
        wire::READDIRPLUS => |out| put_listing(out, true),
        wire::FSSTAT => |out| put_figures(out, 6 * 8 + 4),
        wire::FSINFO => |out| put_figures(out, 7 * 4 + 8 + 8 + 4),
        wire::PATHCONF => |out| put_figures(out, 6 * 4),
        wire::COMMIT => |out| {
            put_wcc(out);
            out.resize(out.len() + 8, 0);
        },
        _ => return None,
    };
    Some(template(SUCCESS, |out| {
        put_u32(out, 0);
        put(out);
    }))
}

/// The count of a READ or a WRITE, which is behind a handle and an offset.
fn count_of(record: &[u8]) -> Option<u32> {
    let arguments = after_opaque(record, after_opaque(record, 28)? + 4)?;
    u32_at(record, after_opaque(record, arguments)? + 8)
}

fn answer_read(xid: &[u8; 4], record: &[u8], template: &[u8], replies: &mut Replies) -> Option<()> {
    let count = count_of(record)?.min(MAX_PAYLOAD as u32);
    let header = replies.push(xid, template);
    let padded = count.next_multiple_of(4);
    let mark = (READ_HEADER as u32 - 4 + padded) | LAST_FRAGMENT;
    header[..4].copy_from_slice(&mark.to_be_bytes());
    header[READ_HEADER - 12..READ_HEADER - 8].copy_from_slice(&count.to_be_bytes());
    header[READ_HEADER - 4..].copy_from_slice(&count.to_be_bytes());
    replies.payloads.push((replies.headers.len(), padded as usize));
    Some(())
}

fn answer_write(xid: &[u8; 4], record: &[u8], template: &[u8], replies: &mut Replies) -> Option<()> {
    const FROM_END: usize = 4 + 4 + 8;
    let count = count_of(record)?;
    let reply = replies.push(xid, template);
    let at = reply.len() - FROM_END;
    reply[at..at + 4].copy_from_slice(&count.to_be_bytes());
    Some(())
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

/// A regular file of mode 0644 with one link and the length of a disk; everything else is 0.
fn put_attributes(out: &mut Vec<u8>) {
    let end = out.len() + wire::FATTR;
    for word in [1, 0o644, 1, 0, 0] {
        put_u32(out, word);
    }
    out.extend_from_slice(&DISK_BYTES.to_be_bytes());
    out.resize(end, 0);
}

/// Nothing from before, attributes from after.
fn put_wcc(out: &mut Vec<u8>) {
    put_u32(out, 0);
    put_post_op(out);
}

fn put_found(out: &mut Vec<u8>) {
    put_opaque(out, &HANDLE);
    put_post_op(out);
    put_post_op(out);
}

fn put_made(out: &mut Vec<u8>) {
    put_u32(out, 1);
    put_opaque(out, &HANDLE);
    put_post_op(out);
    put_wcc(out);
}

/// One entry, and the end.
fn put_listing(out: &mut Vec<u8>, plus: bool) {
    put_post_op(out);
    out.resize(out.len() + 8, 0);
    put_u32(out, 1);
    out.extend_from_slice(&1u64.to_be_bytes());
    put_opaque(out, DISK_NAME.as_bytes());
    out.extend_from_slice(&3u64.to_be_bytes());
    if plus {
        put_post_op(out);
        put_u32(out, 1);
        put_opaque(out, &HANDLE);
    }
    put_u32(out, 0);
    put_u32(out, 1);
}

/// Attributes, and so many bytes of zeros.
fn put_figures(out: &mut Vec<u8>, len: usize) {
    put_post_op(out);
    out.resize(out.len() + len, 0);
}

/// Where the opaque whose length is at `at` ends.
fn after_opaque(record: &[u8], at: usize) -> Option<usize> {
    let len = u32_at(record, at)? as usize;
    Some(at + 4 + len.next_multiple_of(4))
}

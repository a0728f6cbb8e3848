//! NFSv3 and MOUNT calls built by hand, and a small blocking client (RFC 5531, RFC 1813).
//!
//! The benches speak the protocol with code of their own, so that a mistake of the server's codec is
//! not repeated in what measures it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream as TokioStream;

pub const NFS: u32 = 100_003;
pub const MOUNT: u32 = 100_005;
pub const VERSION: u32 = 3;

pub const NULL: u32 = 0;
pub const GETATTR: u32 = 1;
pub const SETATTR: u32 = 2;
pub const LOOKUP: u32 = 3;
pub const ACCESS: u32 = 4;
pub const READLINK: u32 = 5;
pub const READ: u32 = 6;
pub const WRITE: u32 = 7;
pub const CREATE: u32 = 8;
pub const MKNOD: u32 = 11;
pub const REMOVE: u32 = 12;
pub const RMDIR: u32 = 13;
pub const RENAME: u32 = 14;
pub const LINK: u32 = 15;
pub const READDIR: u32 = 16;
pub const READDIRPLUS: u32 = 17;
pub const FSSTAT: u32 = 18;
pub const FSINFO: u32 = 19;
pub const PATHCONF: u32 = 20;
pub const COMMIT: u32 = 21;
pub const MNT: u32 = 1;

/// The mark of a record in one fragment: its length below this bit.
pub const LAST_FRAGMENT: u32 = 1 << 31;
/// Where the transaction id is in a record, its mark counted.
pub const XID_AT: usize = 4;
/// Record mark and header of an accepted reply with an empty verifier.
pub const REPLY_HEADER: usize = 28;
/// Encoded `fattr3`.
pub const FATTR: usize = 84;
/// From the record's start to a READ's payload, attributes counted.
pub const READ_HEADER: usize = REPLY_HEADER + 4 + 4 + FATTR + 4 + 4 + 4;

/// No reply is longer: 1 MiB of payload and what is around it.
const MAX_REPLY: usize = 1024 * 1024 + 4096;
/// Calls of one batch that are under way at once.
const WINDOW: usize = 64;
/// A server that says nothing for so long is taken for hung.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub fn put_opaque(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len() as u32);
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The big-endian number at `at`, if there is one.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*field))
}

/// A record with a call of (program, procedure), as root by AUTH_SYS, the way a Linux client does it.
/// The transaction id is 0.
pub fn call(program: u32, procedure: u32, arguments: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    const CALL: u32 = 0;
    const RPC_VERSION: u32 = 2;
    const AUTH_SYS: u32 = 1;
    const AUTH_NONE: u32 = 0;
    let mut out = vec![0; 8];
    for word in [CALL, RPC_VERSION, program, VERSION, procedure, AUTH_SYS] {
        put_u32(&mut out, word);
    }
    let mut credential = Vec::new();
    put_u32(&mut credential, 0);
    put_opaque(&mut credential, b"bench");
    for word in [0, 0, 1, 0] {
        put_u32(&mut credential, word);
    }
    put_opaque(&mut out, &credential);
    put_u32(&mut out, AUTH_NONE);
    put_u32(&mut out, 0);
    arguments(&mut out);
    let mark = (out.len() - 4) as u32 | LAST_FRAGMENT;
    out[..4].copy_from_slice(&mark.to_be_bytes());
    out
}

pub fn getattr(handle: &[u8]) -> Vec<u8> {
    call(NFS, GETATTR, |out| put_opaque(out, handle))
}

pub fn fsstat(handle: &[u8]) -> Vec<u8> {
    call(NFS, FSSTAT, |out| put_opaque(out, handle))
}

/// Asks for every right there is.
pub fn access(handle: &[u8]) -> Vec<u8> {
    call(NFS, ACCESS, |out| {
        put_opaque(out, handle);
        put_u32(out, 0x3f);
    })
}

pub fn lookup(dir: &[u8], name: &str) -> Vec<u8> {
    call(NFS, LOOKUP, |out| {
        put_opaque(out, dir);
        put_opaque(out, name.as_bytes());
    })
}

pub fn read(handle: &[u8], offset: u64, count: u32) -> Vec<u8> {
    call(NFS, READ, |out| {
        put_opaque(out, handle);
        out.extend_from_slice(&offset.to_be_bytes());
        put_u32(out, count);
    })
}

/// `stable_how`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stable {
    Unstable = 0,
    FileSync = 2,
}

pub fn write(handle: &[u8], offset: u64, stable: Stable, data: &[u8]) -> Vec<u8> {
    call(NFS, WRITE, |out| {
        put_opaque(out, handle);
        out.extend_from_slice(&offset.to_be_bytes());
        put_u32(out, data.len() as u32);
        put_u32(out, stable as u32);
        put_opaque(out, data);
    })
}

/// Where a WRITE of `len` bytes, a multiple of 4, has its data and its offset in its record.
pub fn write_places(record: &[u8], len: usize) -> (usize, usize) {
    let data = record.len() - len;
    (data, data - 4 - 4 - 4 - 8)
}

/// Of the whole file.
pub fn commit(handle: &[u8]) -> Vec<u8> {
    call(NFS, COMMIT, |out| {
        put_opaque(out, handle);
        out.extend_from_slice(&[0; 12]);
    })
}

/// GUARDED, with mode 644.
pub fn create(dir: &[u8], name: &str) -> Vec<u8> {
    const GUARDED: u32 = 1;
    call(NFS, CREATE, |out| {
        put_opaque(out, dir);
        put_opaque(out, name.as_bytes());
        for word in [GUARDED, 1, 0o644, 0, 0, 0, 0, 0] {
            put_u32(out, word);
        }
    })
}

pub fn remove(dir: &[u8], name: &str) -> Vec<u8> {
    call(NFS, REMOVE, |out| {
        put_opaque(out, dir);
        put_opaque(out, name.as_bytes());
    })
}

/// One connection, used by one caller.
pub struct Client {
    stream: TcpStream,
    next_xid: u32,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, next_xid: 1 })
    }

    /// What comes after the status, from each call's successful reply, in the order of the calls.
    pub fn call_all(&mut self, calls: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let mut replies = Vec::with_capacity(calls.len());
        for window in calls.chunks(WINDOW) {
            self.call_window(window, &mut replies)?;
        }
        Ok(replies)
    }

    fn call_window(&mut self, calls: &[Vec<u8>], replies: &mut Vec<Vec<u8>>) -> Result<()> {
        let first = self.next_xid;
        let mut stream = calls.concat();
        let mut at = 0;
        for call in calls {
            stream[at + XID_AT..at + XID_AT + 4].copy_from_slice(&self.next_xid.to_be_bytes());
            at += call.len();
            self.next_xid += 1;
        }
        self.stream.write_all(&stream)?;
        let mut found = HashMap::new();
        while found.len() < calls.len() {
            let (xid, body) = self.receive()?;
            found.insert(xid, body);
        }
        for xid in first..self.next_xid {
            replies.push(found.remove(&xid).with_context(|| format!("no reply to call {xid}"))?);
        }
        Ok(())
    }

    /// Send a call under an id of its own, without waiting.
    pub fn send(&mut self, record: &mut [u8]) -> Result<()> {
        record[XID_AT..XID_AT + 4].copy_from_slice(&self.next_xid.to_be_bytes());
        self.next_xid = self.next_xid.wrapping_add(1);
        Ok(self.stream.write_all(record)?)
    }

    /// The next reply, of a call that succeeded: its id, and what comes after the status.
    pub fn receive(&mut self) -> Result<(u32, Vec<u8>)> {
        let mut mark = [0; 4];
        self.stream.read_exact(&mut mark)?;
        let len = reply_len(mark)?;
        let mut record = vec![0; len];
        self.stream.read_exact(&mut record)?;
        succeeded(record)
    }

    /// Whether the server answers at all.
    pub fn null(&mut self) -> Result<()> {
        let mut record = call(NFS, NULL, |_| ());
        record[XID_AT..XID_AT + 4].copy_from_slice(&self.next_xid.to_be_bytes());
        self.next_xid += 1;
        self.stream.write_all(&record)?;
        let mut reply = [0; REPLY_HEADER];
        Ok(self.stream.read_exact(&mut reply)?)
    }

    /// The root handles of exports.
    pub fn mount_all(&mut self, paths: &[String]) -> Result<Vec<Vec<u8>>> {
        let mount = |path: &String| call(MOUNT, MNT, |out| put_opaque(out, path.as_bytes()));
        let replies = self.call_all(paths.iter().map(mount).collect())?;
        replies.iter().map(|body| first_opaque(body)).collect()
    }

    /// The handles of (directory, name) pairs.
    pub fn lookup_all<'a>(&mut self, names: impl Iterator<Item = (&'a [u8], &'a str)>) -> Result<Vec<Vec<u8>>> {
        let replies = self.call_all(names.map(|(dir, name)| lookup(dir, name)).collect())?;
        replies.iter().map(|body| first_opaque(body)).collect()
    }

    /// The whole file, `count` bytes at a time.
    pub fn read_file(&mut self, handle: &[u8], size: u64, count: u32) -> Result<Vec<u8>> {
        let calls = (0..size).step_by(count as usize).map(|offset| read(handle, offset, count)).collect();
        let mut content = Vec::with_capacity(size as usize);
        for body in self.call_all(calls)? {
            content.extend_from_slice(&read_payload(&body)?);
        }
        Ok(content)
    }
}

/// One connection among many on a thread, one call at a time.
pub struct AsyncClient {
    stream: BufReader<TokioStream>,
    next_xid: u32,
}

impl AsyncClient {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TokioStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), next_xid: 1 })
    }

    /// What comes after the status of the reply, if the call succeeded.
    pub async fn call(&mut self, record: Vec<u8>) -> Result<Vec<u8>> {
        tokio::time::timeout(PATIENCE, self.exchange(record)).await.context("the server does not answer")?
    }

    async fn exchange(&mut self, mut record: Vec<u8>) -> Result<Vec<u8>> {
        record[XID_AT..XID_AT + 4].copy_from_slice(&self.next_xid.to_be_bytes());
        self.stream.get_mut().write_all(&record).await?;
        let mut mark = [0; 4];
        self.stream.read_exact(&mut mark).await?;
        let mut reply = vec![0; reply_len(mark)?];
        self.stream.read_exact(&mut reply).await?;
        let (xid, body) = succeeded(reply)?;
        ensure!(xid == self.next_xid, "a reply to call {xid} instead of {}", self.next_xid);
        self.next_xid = self.next_xid.wrapping_add(1);
        Ok(body)
    }
}

/// How long a reply with this mark is.
fn reply_len(mark: [u8; 4]) -> Result<usize> {
    let mark = u32::from_be_bytes(mark);
    let len = (mark & !LAST_FRAGMENT) as usize;
    ensure!(mark & LAST_FRAGMENT != 0 && len <= MAX_REPLY, "a reply with the record mark {mark:#x}");
    Ok(len)
}

/// The transaction id of a reply, and what comes after its status, which must be that of success.
fn succeeded(mut reply: Vec<u8>) -> Result<(u32, Vec<u8>)> {
    let word = |i: usize| u32_at(&reply, i * 4).context("a reply without an end");
    ensure!(word(1)? == 1 && word(2)? == 0 && word(4)? == 0 && word(5)? == 0, "a call was not accepted");
    let xid = word(0)?;
    match word(6)? {
        0 => Ok((xid, reply.split_off(28))),
        status => bail!("a call failed with status {status}"),
    }
}

/// The bytes that a READ brought, of what comes after its status.
pub fn read_payload(body: &[u8]) -> Result<Vec<u8>> {
    let attributes = if u32_at(body, 0) == Some(1) { FATTR } else { 0 };
    first_opaque(body.get(4 + attributes + 8..).context("a reply that is cut short")?)
}

/// The variable-length opaque at the start of `body`.
pub fn first_opaque(body: &[u8]) -> Result<Vec<u8>> {
    let len = u32_at(body, 0).context("a reply without an end")? as usize;
    Ok(body.get(4..4 + len).context("a reply that is cut short")?.to_vec())
}

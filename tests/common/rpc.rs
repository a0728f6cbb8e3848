//! A connection whose failures are values: a killed daemon is what these tests are about.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::nfs3::{Answer, Call, Handle};
use super::xdr::{Body, Header, MOUNT, NFS, Reply, SUCCESS, Xdr, auth_sys, framed, parse};

/// Longest reply: 1 MiB of data, and what is around it.
const MAX_REPLY: usize = (1 << 20) + 4096;
/// A server that says nothing for so long is taken for hung.
const PATIENCE: Duration = Duration::from_secs(60);
const MNT: u32 = 1;

/// One for all connections of a process: an id that comes again is a call that comes again.
static NEXT_XID: AtomicU32 = AtomicU32::new(1);

/// An id that no call of this process had.
pub fn fresh_xid() -> u32 {
    NEXT_XID.fetch_add(1, Ordering::Relaxed)
}

pub struct Connection {
    stream: TcpStream,
    credential: Vec<u8>,
}

impl Connection {
    /// As root; a daemon that does not listen is an error.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, credential: auth_sys(0, 0, &[]) })
    }

    /// From now on calls are those of this user.
    pub fn act_as(&mut self, uid: u32, gid: u32) {
        self.credential = auth_sys(uid, gid, &[]);
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Send an NFS call under `xid` without waiting.
    pub fn send(&mut self, xid: u32, call: &Call) -> io::Result<()> {
        self.send_to(NFS, xid, call)
    }

    fn send_to(&mut self, program: u32, xid: u32, call: &Call) -> io::Result<()> {
        let header = Header { credential: self.credential.clone(), ..Header::new(program, 3, call.procedure) };
        self.stream.write_all(&framed(&header.record(xid, &call.arguments)))
    }

    /// The next reply: its transaction id and its results.
    pub fn receive(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let mut mark = [0; 4];
        self.stream.read_exact(&mut mark).map_err(not_hung)?;
        let mark = u32::from_be_bytes(mark);
        let len = (mark & !(1 << 31)) as usize;
        assert!(mark & (1 << 31) != 0 && len <= MAX_REPLY, "a reply with the record mark {mark:#x}");
        let mut record = vec![0; len];
        self.stream.read_exact(&mut record).map_err(not_hung)?;
        match parse(&record) {
            (xid, Reply::Accepted(SUCCESS, results)) => Ok((xid, results)),
            (xid, other) => panic!("call {xid} was not run: {other:?}"),
        }
    }

    /// One call under `xid`: its results as they came.
    pub fn call_as(&mut self, xid: u32, call: &Call) -> io::Result<Vec<u8>> {
        self.send(xid, call)?;
        self.result_of(xid)
    }

    fn result_of(&mut self, xid: u32) -> io::Result<Vec<u8>> {
        let (replied, results) = self.receive()?;
        assert_eq!(replied, xid, "the only call under way");
        Ok(results)
    }

    pub fn call(&mut self, call: &Call) -> io::Result<Answer> {
        let results = self.call_as(fresh_xid(), call)?;
        Ok(Answer::parse(call.procedure, &results))
    }

    /// The root handle of an export.
    pub fn mount(&mut self, export: &str) -> io::Result<Handle> {
        let (xid, call) = (fresh_xid(), Call { procedure: MNT, arguments: Xdr::new().opaque(export.as_bytes()).0 });
        self.send_to(MOUNT, xid, &call)?;
        let results = self.result_of(xid)?;
        let mut body = Body(&results);
        assert_eq!(body.u32(), 0, "MNT {export}");
        Ok(body.opaque().to_vec())
    }
}

/// A time-out is no crash of the server.
fn not_hung(error: io::Error) -> io::Error {
    assert!(
        !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        "no reply within {PATIENCE:?}"
    );
    error
}

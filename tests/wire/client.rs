//! A blocking NFSv3 client that builds every call by hand. It shares no code with the server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

pub const NFS: u32 = 100_003;
pub const MOUNT: u32 = 100_005;
pub const PORTMAP: u32 = 100_000;

/// `accept_stat`
pub const SUCCESS: u32 = 0;
pub const PROG_UNAVAIL: u32 = 1;
pub const PROG_MISMATCH: u32 = 2;
pub const PROC_UNAVAIL: u32 = 3;
pub const GARBAGE_ARGS: u32 = 4;
pub const SYSTEM_ERR: u32 = 5;

/// `nfsstat3`
pub const OK: u32 = 0;
pub const PERM: u32 = 1;
pub const NOENT: u32 = 2;
pub const IO: u32 = 5;
pub const ACCES: u32 = 13;
pub const EXIST: u32 = 17;
pub const XDEV: u32 = 18;
pub const NOTDIR: u32 = 20;
pub const ISDIR: u32 = 21;
pub const INVAL: u32 = 22;
pub const FBIG: u32 = 27;
pub const NOSPC: u32 = 28;
pub const ROFS: u32 = 30;
pub const MLINK: u32 = 31;
pub const NAMETOOLONG: u32 = 63;
pub const NOTEMPTY: u32 = 66;
pub const DQUOT: u32 = 69;
pub const STALE: u32 = 70;
pub const BADHANDLE: u32 = 10001;
pub const NOT_SYNC: u32 = 10002;
pub const TOOSMALL: u32 = 10005;
pub const BADTYPE: u32 = 10007;

/// Bytes being encoded.
#[derive(Clone, Default)]
pub struct Xdr(pub Vec<u8>);

impl Xdr {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn opaque(mut self, data: &[u8]) -> Self {
        self = self.u32(data.len() as u32);
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub fn raw(mut self, data: &[u8]) -> Self {
        self.0.extend(data);
        self
    }
}

/// Bytes being decoded; running out of them fails the test.
#[derive(Clone, Copy)]
pub struct Body<'a>(pub &'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        head
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    pub fn bool(&mut self) -> bool {
        match self.u32() {
            0 => false,
            1 => true,
            other => panic!("{other} is no boolean"),
        }
    }

    pub fn opaque(&mut self) -> &'a [u8] {
        let len = self.u32() as usize;
        let data = self.take(len);
        self.take(len.next_multiple_of(4) - len);
        data
    }

    pub fn attr(&mut self) -> Fattr {
        let mut words = || self.u32();
        let (kind, mode, nlink, uid, gid) = (words(), words(), words(), words(), words());
        let (size, used) = (self.u64(), self.u64());
        let rdev = (self.u32(), self.u32());
        let (fsid, fileid) = (self.u64(), self.u64());
        let [atime, mtime, ctime] = [(); 3].map(|()| (self.u32(), self.u32()));
        Fattr { kind, mode, nlink, uid, gid, size, used, rdev, fsid, fileid, atime, mtime, ctime }
    }

    pub fn post_op(&mut self) -> Option<Fattr> {
        self.bool().then(|| self.attr())
    }

    /// `wcc_data`: whether before and after are there and equal.
    pub fn unchanged(&mut self) -> Option<Fattr> {
        let before = self.bool().then(|| (self.u64(), (self.u32(), self.u32()), (self.u32(), self.u32())));
        let after = self.post_op();
        assert_eq!(before, after.as_ref().map(|attr| (attr.size, attr.mtime, attr.ctime)));
        after
    }

    pub fn end(self) {
        assert!(self.0.is_empty(), "{} bytes too many", self.0.len());
    }
}

/// `fattr3`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fattr {
    pub kind: u32,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub used: u64,
    pub rdev: (u32, u32),
    pub fsid: u64,
    pub fileid: u64,
    pub atime: (u32, u32),
    pub mtime: (u32, u32),
    pub ctime: (u32, u32),
}

/// A call's identity and credentials.
#[derive(Clone)]
pub struct Header {
    pub rpc_version: u32,
    pub program: u32,
    pub version: u32,
    pub procedure: u32,
    pub flavour: u32,
    pub credential: Vec<u8>,
}

impl Header {
    pub fn new(program: u32, version: u32, procedure: u32) -> Self {
        Self { rpc_version: 2, program, version, procedure, flavour: 1, credential: auth_sys(0, 0, &[]) }
    }

    pub fn record(&self, xid: u32, arguments: &[u8]) -> Vec<u8> {
        let header = Xdr::new().u32(xid).u32(0).u32(self.rpc_version);
        let header = header.u32(self.program).u32(self.version).u32(self.procedure);
        header.u32(self.flavour).opaque(&self.credential).u32(0).u32(0).raw(arguments).0
    }
}

pub fn auth_sys(uid: u32, gid: u32, groups: &[u32]) -> Vec<u8> {
    let body = Xdr::new().u32(0x1234).opaque(b"desk-0007").u32(uid).u32(gid).u32(groups.len() as u32);
    groups.iter().fold(body, |body, group| body.u32(*group)).0
}

/// A record in one fragment.
pub fn framed(record: &[u8]) -> Vec<u8> {
    fragment(record, true)
}

pub fn fragment(data: &[u8], last: bool) -> Vec<u8> {
    let mark = data.len() as u32 | if last { 1 << 31 } else { 0 };
    Xdr::new().u32(mark).raw(data).0
}

/// A reply message.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// `accept_stat` and what follows it.
    Accepted(u32, Vec<u8>),
    /// `reject_stat` and the words that follow it.
    Denied(u32, Vec<u32>),
}

pub fn parse(record: &[u8]) -> (u32, Reply) {
    let mut body = Body(record);
    let xid = body.u32();
    assert_eq!(body.u32(), 1, "a reply");
    let reply = if body.u32() == 0 {
        assert_eq!((body.u32(), body.u32()), (0, 0), "an empty verifier");
        Reply::Accepted(body.u32(), body.0.to_vec())
    } else {
        let stat = body.u32();
        Reply::Denied(stat, body.0.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect())
    };
    (xid, reply)
}

pub struct Client {
    pub stream: TcpStream,
    next_xid: u32,
    pub credential: Vec<u8>,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        Self::of(TcpStream::connect(addr).unwrap())
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream, next_xid: 1, credential: auth_sys(0, 0, &[]) }
    }

    /// Connect from a port of choice.
    pub fn connect_from(local: SocketAddr, addr: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&local.into()).unwrap();
        socket.connect(&addr.into()).unwrap();
        Self::of(socket.into())
    }

    /// Where it connected from, after an end that only the kernels know of: nothing is said any more.
    pub fn abort(self) -> SocketAddr {
        let local = self.stream.local_addr().unwrap();
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
        local
    }

    pub fn xid(&mut self) -> u32 {
        self.next_xid += 1;
        self.next_xid
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Send a call; its xid.
    pub fn send(&mut self, header: &Header, arguments: &[u8]) -> u32 {
        let xid = self.xid();
        self.send_bytes(&framed(&header.record(xid, arguments)));
        xid
    }

    /// The next record, or nothing if the server closed.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let mut mark = [0; 4];
        match self.stream.read_exact(&mut mark) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("no reply"),
            Err(_) => return None,
        }
        let mark = u32::from_be_bytes(mark);
        assert_ne!(mark & (1 << 31), 0, "replies come in one fragment");
        let mut record = vec![0; (mark & !(1 << 31)) as usize];
        self.stream.read_exact(&mut record).unwrap();
        Some(record)
    }

    pub fn reply(&mut self) -> (u32, Reply) {
        parse(&self.receive().expect("the server closed"))
    }

    pub fn call(&mut self, header: &Header, arguments: &[u8]) -> Reply {
        let sent = self.send(header, arguments);
        let (xid, reply) = self.reply();
        assert_eq!(xid, sent);
        reply
    }

    /// Call a procedure that must be run; its result.
    pub fn run(&mut self, program: u32, procedure: u32, arguments: Xdr) -> Vec<u8> {
        let version = if program == PORTMAP { 2 } else { 3 };
        let header = Header { credential: self.credential.clone(), ..Header::new(program, version, procedure) };
        match self.call(&header, &arguments.0) {
            Reply::Accepted(SUCCESS, body) => body,
            other => panic!("program {program} procedure {procedure}: {other:?}"),
        }
    }

    pub fn nfs(&mut self, procedure: u32, arguments: Xdr) -> Vec<u8> {
        self.run(NFS, procedure, arguments)
    }

    /// The first word of a procedure's result.
    pub fn status(&mut self, procedure: u32, arguments: Xdr) -> u32 {
        Body(&self.nfs(procedure, arguments)).u32()
    }
}

//! NFSv3's procedures as data (RFC 1813 section 3.3): a call is bytes that can be sent twice, an answer
//! one record whatever the procedure was.

use super::xdr::{Body, Fattr, Xdr};

pub type Handle = Vec<u8>;
/// Seconds and nanoseconds.
pub type Time = (u32, u32);

pub const GETATTR: u32 = 1;
pub const SETATTR: u32 = 2;
pub const LOOKUP: u32 = 3;
pub const ACCESS: u32 = 4;
pub const READLINK: u32 = 5;
pub const READ: u32 = 6;
pub const WRITE: u32 = 7;
pub const CREATE: u32 = 8;
pub const MKDIR: u32 = 9;
pub const SYMLINK: u32 = 10;
pub const MKNOD: u32 = 11;
pub const REMOVE: u32 = 12;
pub const RMDIR: u32 = 13;
pub const RENAME: u32 = 14;
pub const LINK: u32 = 15;
pub const READDIRPLUS: u32 = 17;
pub const COMMIT: u32 = 21;

/// `nfsstat3`
pub mod status {
    pub const OK: u32 = 0;
    pub const PERM: u32 = 1;
    pub const NOENT: u32 = 2;
    pub const ACCES: u32 = 13;
    pub const EXIST: u32 = 17;
    pub const NOTDIR: u32 = 20;
    pub const ISDIR: u32 = 21;
    pub const INVAL: u32 = 22;
    pub const FBIG: u32 = 27;
    pub const NAMETOOLONG: u32 = 63;
    pub const NOTEMPTY: u32 = 66;
    pub const STALE: u32 = 70;
    pub const NOT_SYNC: u32 = 10002;
    pub const BADTYPE: u32 = 10007;
}

/// `ftype3`
pub mod kind {
    pub const REG: u32 = 1;
    pub const DIR: u32 = 2;
    pub const BLK: u32 = 3;
    pub const CHR: u32 = 4;
    pub const LNK: u32 = 5;
    pub const SOCK: u32 = 6;
    pub const FIFO: u32 = 7;
}

/// `stable_how`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stable {
    Unstable = 0,
    DataSync = 1,
    FileSync = 2,
}

/// A call of the NFS program, ready to be sent, and sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub procedure: u32,
    pub arguments: Vec<u8>,
}

/// What a time is set to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetTime {
    #[default]
    Keep,
    Server,
    To(Time),
}

/// `sattr3`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sattr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: SetTime,
    pub mtime: SetTime,
}

/// `createhow3`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    Unchecked(Sattr),
    Guarded(Sattr),
    Exclusive([u8; 8]),
}

fn on(handle: &[u8]) -> Xdr {
    Xdr::new().opaque(handle)
}

fn entry(dir: &[u8], name: &[u8]) -> Xdr {
    on(dir).opaque(name)
}

fn optional(xdr: Xdr, value: Option<u32>) -> Xdr {
    match value {
        Some(value) => xdr.u32(1).u32(value),
        None => xdr.u32(0),
    }
}

fn set_time(xdr: Xdr, time: SetTime) -> Xdr {
    match time {
        SetTime::Keep => xdr.u32(0),
        SetTime::Server => xdr.u32(1),
        SetTime::To((seconds, nanos)) => xdr.u32(2).u32(seconds).u32(nanos),
    }
}

fn sattr(xdr: Xdr, attributes: &Sattr) -> Xdr {
    let xdr = [attributes.mode, attributes.uid, attributes.gid].into_iter().fold(xdr, optional);
    let xdr = match attributes.size {
        Some(size) => xdr.u32(1).u64(size),
        None => xdr.u32(0),
    };
    set_time(set_time(xdr, attributes.atime), attributes.mtime)
}

impl Call {
    fn new(procedure: u32, arguments: Xdr) -> Self {
        Self { procedure, arguments: arguments.0 }
    }

    pub fn getattr(handle: &[u8]) -> Self {
        Self::new(GETATTR, on(handle))
    }

    /// With `guard`, only if the object has this ctime.
    pub fn setattr(handle: &[u8], attributes: &Sattr, guard: Option<Time>) -> Self {
        let xdr = sattr(on(handle), attributes);
        Self::new(
            SETATTR,
            match guard {
                Some((seconds, nanos)) => xdr.u32(1).u32(seconds).u32(nanos),
                None => xdr.u32(0),
            },
        )
    }

    pub fn lookup(dir: &[u8], name: &[u8]) -> Self {
        Self::new(LOOKUP, entry(dir, name))
    }

    pub fn readlink(handle: &[u8]) -> Self {
        Self::new(READLINK, on(handle))
    }

    pub fn read(handle: &[u8], offset: u64, count: u32) -> Self {
        Self::new(READ, on(handle).u64(offset).u32(count))
    }

    pub fn write(handle: &[u8], offset: u64, stable: Stable, data: &[u8]) -> Self {
        Self::new(WRITE, on(handle).u64(offset).u32(data.len() as u32).u32(stable as u32).opaque(data))
    }

    pub fn create(dir: &[u8], name: &[u8], how: &How) -> Self {
        let xdr = entry(dir, name);
        Self::new(
            CREATE,
            match how {
                How::Unchecked(attributes) => sattr(xdr.u32(0), attributes),
                How::Guarded(attributes) => sattr(xdr.u32(1), attributes),
                How::Exclusive(verifier) => xdr.u32(2).raw(verifier),
            },
        )
    }

    pub fn mkdir(dir: &[u8], name: &[u8], attributes: &Sattr) -> Self {
        Self::new(MKDIR, sattr(entry(dir, name), attributes))
    }

    pub fn symlink(dir: &[u8], name: &[u8], attributes: &Sattr, target: &[u8]) -> Self {
        Self::new(SYMLINK, sattr(entry(dir, name), attributes).opaque(target))
    }

    /// A FIFO or a socket; with numbers, a device.
    pub fn mknod(dir: &[u8], name: &[u8], kind: u32, attributes: &Sattr, device: Option<(u32, u32)>) -> Self {
        let made = sattr(entry(dir, name).u32(kind), attributes);
        Self::new(MKNOD, device.into_iter().fold(made, |made, (major, minor)| made.u32(major).u32(minor)))
    }

    pub fn remove(dir: &[u8], name: &[u8]) -> Self {
        Self::new(REMOVE, entry(dir, name))
    }

    pub fn rmdir(dir: &[u8], name: &[u8]) -> Self {
        Self::new(RMDIR, entry(dir, name))
    }

    pub fn rename(from: (&[u8], &[u8]), to: (&[u8], &[u8])) -> Self {
        Self::new(RENAME, entry(from.0, from.1).opaque(to.0).opaque(to.1))
    }

    pub fn link(handle: &[u8], dir: &[u8], name: &[u8]) -> Self {
        Self::new(LINK, on(handle).opaque(dir).opaque(name))
    }

    pub fn readdirplus(dir: &[u8], cookie: u64, max_count: u32) -> Self {
        Self::new(READDIRPLUS, on(dir).u64(cookie).u64(0).u32(max_count).u32(max_count))
    }

    /// Of the whole file.
    pub fn commit(handle: &[u8]) -> Self {
        Self::new(COMMIT, on(handle).u64(0).u32(0))
    }

    /// Whether running it twice differs from running it once (what a duplicate request cache is for).
    pub fn must_not_run_twice(&self) -> bool {
        matches!(self.procedure, SETATTR | CREATE..=LINK)
    }
}

/// `wcc_attr`: an object just before the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    pub size: u64,
    pub mtime: Time,
    pub ctime: Time,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wcc {
    pub before: Option<Before>,
    pub after: Option<Fattr>,
}

impl Wcc {
    /// Whether the operation changed the object, as far as is told.
    pub fn is_changed(&self) -> bool {
        self.before.as_ref().zip(self.after.as_ref()).is_some_and(|(before, after)| before.ctime != after.ctime)
    }

    fn parse(body: &mut Body<'_>) -> Self {
        let before = body.bool().then(|| Before {
            size: body.u64(),
            mtime: (body.u32(), body.u32()),
            ctime: (body.u32(), body.u32()),
        });
        Self { before, after: body.post_op() }
    }
}

/// An entry of READDIRPLUS.
#[derive(Clone, Debug)]
pub struct Listed {
    pub fileid: u64,
    pub name: Vec<u8>,
    pub cookie: u64,
    pub attr: Option<Fattr>,
    pub handle: Option<Handle>,
}

/// What any procedure answered; what it does not answer is empty.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u32,
    /// Of the object that the call was for, or that it made.
    pub attr: Option<Fattr>,
    pub handle: Option<Handle>,
    /// Of the object (SETATTR, WRITE, COMMIT), of its directory, or of both directories of a RENAME.
    pub wcc: Vec<Wcc>,
    /// Of READ and READLINK.
    pub data: Vec<u8>,
    /// End of file, or of the directory.
    pub eof: bool,
    pub listed: Vec<Listed>,
    /// Bytes that WRITE took, and how: `stable_how`.
    pub written: (u32, u32),
    pub verifier: Option<[u8; 8]>,
}

impl Answer {
    pub fn parse(procedure: u32, results: &[u8]) -> Self {
        let mut body = Body(results);
        let mut answer = Self { status: body.u32(), ..Self::default() };
        let ok = answer.status == status::OK;
        match procedure {
            GETATTR if ok => answer.attr = Some(body.attr()),
            GETATTR => {}
            SETATTR | REMOVE | RMDIR => answer.wcc.push(Wcc::parse(&mut body)),
            LOOKUP => answer.looked_up(&mut body),
            READLINK | READ => answer.read(&mut body, procedure),
            WRITE | COMMIT => answer.wrote(&mut body, procedure),
            CREATE | MKDIR | SYMLINK | MKNOD => answer.made(&mut body),
            RENAME => answer.wcc = vec![Wcc::parse(&mut body), Wcc::parse(&mut body)],
            LINK => {
                answer.attr = body.post_op();
                answer.wcc.push(Wcc::parse(&mut body));
            }
            READDIRPLUS => answer.list(&mut body),
            other => panic!("procedure {other} is not known here"),
        }
        body.end();
        answer
    }

    fn looked_up(&mut self, body: &mut Body<'_>) {
        if self.status == status::OK {
            self.handle = Some(body.opaque().to_vec());
            self.attr = body.post_op();
        }
        self.wcc.push(Wcc { before: None, after: body.post_op() });
    }

    fn read(&mut self, body: &mut Body<'_>, procedure: u32) {
        self.attr = body.post_op();
        if self.status != status::OK {
            return;
        }
        let count = (procedure == READ).then(|| {
            let count = body.u32() as usize;
            self.eof = body.bool();
            count
        });
        self.data = body.opaque().to_vec();
        assert_eq!(count.unwrap_or(self.data.len()), self.data.len(), "READ's count is its data's");
    }

    fn wrote(&mut self, body: &mut Body<'_>, procedure: u32) {
        self.wcc.push(Wcc::parse(body));
        if self.status == status::OK {
            if procedure == WRITE {
                self.written = (body.u32(), body.u32());
            }
            self.verifier = Some([body.u32().to_be_bytes(), body.u32().to_be_bytes()].concat().try_into().expect("8"));
        }
    }

    fn made(&mut self, body: &mut Body<'_>) {
        if self.status == status::OK {
            self.handle = body.bool().then(|| body.opaque().to_vec());
            self.attr = body.post_op();
        }
        self.wcc.push(Wcc::parse(body));
    }

    fn list(&mut self, body: &mut Body<'_>) {
        self.wcc.push(Wcc { before: None, after: body.post_op() });
        if self.status != status::OK {
            return;
        }
        body.u64();
        while body.bool() {
            let (fileid, name, cookie) = (body.u64(), body.opaque().to_vec(), body.u64());
            let attr = body.post_op();
            let handle = body.bool().then(|| body.opaque().to_vec());
            self.listed.push(Listed { fileid, name, cookie, attr, handle });
        }
        self.eof = body.bool();
    }
}

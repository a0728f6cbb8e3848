//! What goes in and out of the verbs.

use std::net::SocketAddr;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::env::Time;
use crate::image::ExportId;
use crate::manifest::FileKind;
use crate::overlay::log::Lsn;

/// Secondary groups of an AUTH_SYS credential (RFC 5531 appendix A).
pub const MAX_GROUPS: usize = 16;
/// Largest READ answered, in bytes.
pub const MAX_READ: u32 = 1024 * 1024;
/// Largest WRITE taken, in bytes.
pub const MAX_WRITE: u32 = 1024 * 1024;
/// Where files end at the latest, in bytes: 8 TiB. An image may hold longer ones; they do not grow.
pub const MAX_FILE_BYTES: u64 = 8 << 40;
/// Directories on the way from the root to an object at most, where names are made; as imports take them.
/// A directory that is moved may have more below it, and still every image can hold it.
pub const MAX_DEPTH: usize = 2048;
/// Names that a file can have.
pub const MAX_LINKS: u32 = 65_000;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    pub peer: SocketAddr,
    /// He did not say who he is: whatever `uid` and `gid` are, each export has its own user for him.
    pub anonymous: bool,
    pub uid: u32,
    pub gid: u32,
    pub groups: SmallVec<[u32; MAX_GROUPS]>,
}

/// What a file handle means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    pub export: ExportId,
    pub ino: u64,
    /// 0, or the view in which the object's private line of content began.
    pub generation: u64,
}

/// A name in a directory, taken or not.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub dir: Object,
    pub name: &'a [u8],
}

/// Attributes as they are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    pub kind: FileKind,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub used: u64,
    pub rdev: (u32, u32),
    pub fsid: u64,
    pub fileid: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
}

/// Why a verb was refused. `nfs::status` maps each to one nfsstat3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Perm,
    NotFound,
    Io,
    Access,
    Exists,
    /// The two objects are in different exports, or one is not in the current view.
    CrossDevice,
    NotDirectory,
    IsDirectory,
    Invalid,
    FileTooBig,
    NoSpace,
    ReadOnly,
    TooManyLinks,
    NameTooLong,
    NotEmpty,
    /// The clone has no more private bytes to spend.
    Quota,
    Stale,
    /// The ctime is not what the guard of a SETATTR says.
    NotSync,
    TooSmall,
    NotSupported,
    /// Objects of this type cannot be made.
    BadType,
    /// Try again later.
    Later,
    Internal,
}

/// A refused verb, with the attributes of the object that was asked where they are known: of a verb
/// on a name, those of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub why: Refusal,
    pub attr: Option<Attr>,
}

impl From<Refusal> for Refused {
    fn from(why: Refusal) -> Self {
        Self { why, attr: None }
    }
}

#[derive(Clone, Debug)]
pub struct Looked {
    pub object: Object,
    pub attr: Attr,
    pub dir_attr: Attr,
}

/// A READ's answer: the payload as slices of cached chunks, private data, and static zeros.
#[derive(Clone, Debug)]
pub struct ReadData {
    pub attr: Attr,
    pub slices: SmallVec<[Bytes; 4]>,
    pub len: u32,
    pub eof: bool,
}

#[derive(Clone, Debug)]
pub struct LinkTarget {
    pub attr: Attr,
    pub target: Bytes,
}

/// One entry of a listing. `attr` and `object` only in a listing with attributes.
#[derive(Clone, Debug)]
pub struct ListEntry {
    pub name: Bytes,
    pub fileid: u64,
    pub cookie: u64,
    pub full: Option<(Object, Attr)>,
}

#[derive(Clone, Debug)]
pub struct Listing {
    pub dir_attr: Attr,
    pub entries: Vec<ListEntry>,
    pub eof: bool,
}

/// How much of a directory is wanted.
#[derive(Clone, Copy, Debug)]
pub struct ListWindow {
    /// Continue after this cookie; 0 starts, any number is valid.
    pub after: u64,
    /// Called sizes, not counts: the listing stops before the entry whose cost would exceed it.
    pub budget: u32,
    /// What one entry costs without its name.
    pub entry_cost: u32,
    /// Fill `ListEntry::full`.
    pub with_attrs: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct FsStat {
    pub total_bytes: u64,
    pub free_bytes: u64,
    /// What of `free_bytes` may be written: not the reserve.
    pub available_bytes: u64,
    pub total_files: u64,
    pub free_files: u64,
}

/// The rights asked for and granted by ACCESS, without the wire's bit values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    pub read: bool,
    pub lookup: bool,
    pub modify: bool,
    pub extend: bool,
    pub delete: bool,
    pub execute: bool,
}

/// One line of the export list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportLine {
    pub path: Vec<u8>,
    pub networks: Vec<String>,
}

/// What a time is set to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetTime {
    #[default]
    Keep,
    /// The server's clock.
    Now,
    To(Time),
}

/// Attributes to be set; what is `None` stays, or is what new objects have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: SetTime,
    pub mtime: SetTime,
}

/// What CREATE does about a name that is taken.
#[derive(Clone, Copy, Debug)]
pub enum CreateHow {
    /// Take the file that is there; only its size is set.
    Unchecked(NewAttr),
    /// Refuse.
    Guarded(NewAttr),
    /// Take the file that a call with this verifier made.
    Exclusive([u8; 8]),
}

/// An object to be made that is no regular file.
#[derive(Clone, Copy, Debug)]
pub enum NewObject<'a> {
    Directory,
    Symlink(&'a [u8]),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
}

/// What tells a client whether somebody else changed an object (RFC 1813 section 2.6, `wcc_attr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    pub size: u64,
    pub mtime: Time,
    pub ctime: Time,
}

impl Attr {
    pub fn before(&self) -> Before {
        Before { size: self.size, mtime: self.mtime, ctime: self.ctime }
    }
}

/// An object before and after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wcc {
    pub before: Before,
    pub after: Attr,
}

impl Wcc {
    /// Of an object that did not change.
    pub fn unchanged(attr: Attr) -> Self {
        Self { before: attr.before(), after: attr }
    }
}

/// A place in the log of private writes: [`Vfs::durable`](super::Vfs::durable) says when everything up
/// to it is on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable(pub(super) Lsn);

/// What a changing verb did.
#[derive(Clone, Copy, Debug)]
pub struct Changed {
    /// What was made, found or linked, with its attributes now.
    pub object: Option<(Object, Attr)>,
    /// SETATTR, WRITE and COMMIT: of the object. All others: of the directory whose entries changed;
    /// of a RENAME, of the one that it took the name from.
    pub wcc: Wcc,
    /// Of the directory that a RENAME put the name into.
    pub to: Option<Wcc>,
    /// The answer may be sent when this is on stable storage; `None`: at once.
    pub durable: Option<Durable>,
}

/// Names a call that must not run twice.
pub type ReceiptKey = [u8; 16];

/// Makes the receipt of a call: what a front end answers, so that it can be in the same log record as
/// the change itself and be found there after a crash.
pub struct ReceiptMaker {
    pub key: ReceiptKey,
    /// The encoded answer; short, since it stays in memory.
    pub encode: Box<dyn Fn(&Changed) -> Bytes + Send>,
}

//! The file service, without a protocol: POSIX verbs on objects of exports.
//!
//! Owns the [`Vfs`] trait that the NFS front end calls, the resolution of an object in a clone's
//! current view or its pins, served attributes, permission and export checks. No RPC type comes in,
//! no RocksDB type goes out.
//!
//! Verbs are restartable: each runs on one catalog revision (pinned in the [`Request`]) and either
//! answers from memory at once or stops with [`Stop::Missing`]; then `Request::fetch().fill()` loads
//! what it wants and the verb is called again. So a cached request costs no task and no wait.

mod access;
mod policy;
mod resolve;
mod serve;

pub use policy::{ExportPolicy, Squash};
pub use serve::ImageVfs;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::chunk::Fetch;
pub use crate::chunk::{Step, Stop};
use crate::env::Time;
pub use crate::image::ExportId;
use crate::image::State;
pub use crate::manifest::FileKind;

/// Secondary groups of an AUTH_SYS credential (RFC 5531 appendix A).
pub const MAX_GROUPS: usize = 16;
/// Largest READ answered, in bytes.
pub const MAX_READ: u32 = 1024 * 1024;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    pub peer: SocketAddr,
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

/// One request: the catalog revision that it runs on and the chunks that it loaded.
pub struct Request<'a> {
    pub caller: &'a Caller,
    state: Arc<State>,
    fetch: Fetch<'a>,
}

impl<'a> Request<'a> {
    pub fn new(caller: &'a Caller, state: Arc<State>, fetch: Fetch<'a>) -> Self {
        Self { caller, state, fetch }
    }

    pub fn fetch(&mut self) -> &mut Fetch<'a> {
        &mut self.fetch
    }

    pub fn state(&self) -> &Arc<State> {
        &self.state
    }
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
    NotDirectory,
    IsDirectory,
    Invalid,
    NoSpace,
    ReadOnly,
    NameTooLong,
    Stale,
    TooSmall,
    NotSupported,
    /// Try again later.
    Later,
    Internal,
}

/// A refused verb, with the attributes of the object that was asked where they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub why: Refusal,
    pub attr: Option<Attr>,
}

/// The outcome of a verb: stopped (call again), refused, or answered.
pub type Verb<T> = Step<Result<T, Refused>>;

#[derive(Clone, Debug)]
pub struct Looked {
    pub object: Object,
    pub attr: Attr,
    pub dir_attr: Attr,
}

/// A READ's answer: the payload as slices of cached chunks (and of a static run of zeros).
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

/// The file service that a front end serves.
pub trait Vfs: Send + Sync + 'static {
    /// Pin the newest catalog revision for one request.
    fn begin<'a>(&'a self, caller: &'a Caller) -> Request<'a>;

    /// The root of the export at `path` (`/clones/NAME`, `/images/NAME@vN`), for a caller that its
    /// policy admits.
    fn mount(&self, rq: &mut Request<'_>, path: &[u8]) -> Verb<Object>;
    /// Exports, at most `limit`.
    fn exports(&self, rq: &mut Request<'_>, limit: usize) -> Vec<ExportLine>;

    fn getattr(&self, rq: &mut Request<'_>, object: Object) -> Verb<Attr>;
    fn lookup(&self, rq: &mut Request<'_>, dir: Object, name: &[u8]) -> Verb<Looked>;
    fn access(&self, rq: &mut Request<'_>, object: Object, asked: Rights) -> Verb<(Attr, Rights)>;
    fn readlink(&self, rq: &mut Request<'_>, object: Object) -> Verb<LinkTarget>;
    /// At most `min(len, MAX_READ)` bytes from `offset`.
    fn read(&self, rq: &mut Request<'_>, object: Object, offset: u64, len: u32) -> Verb<ReadData>;
    fn list(&self, rq: &mut Request<'_>, dir: Object, window: ListWindow) -> Verb<Listing>;
    fn fsstat(&self, rq: &mut Request<'_>, object: Object) -> Verb<(Attr, FsStat)>;
    /// Whether `object` may be changed by this caller at all: refuses with `ReadOnly`, `Stale`, ... and
    /// the object's attributes. Every modifying procedure asks this first.
    fn check_writable(&self, rq: &mut Request<'_>, object: Object) -> Verb<Attr>;

    /// Keys of handle MACs, (key id, key), newest last.
    fn handle_keys(&self) -> Vec<(u8, [u8; 32])>;
}

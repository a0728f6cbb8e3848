//! The file service, without a protocol: POSIX verbs on objects of exports.
//!
//! | file | owns |
//! |---|---|
//! | `types` | what goes in and out of the verbs |
//! | `serve` | the service itself: exports, and the verbs by name |
//! | `resolve` | from an object to its node: views, pins, generations, fileids |
//! | `read`, `change/` | the verbs that read; those that change something |
//! | `mount` | MNT and UMNT |
//! | `activation` | the switch that a MNT sets off |
//! | `activity` | who uses which clone |
//! | `tap`, `recorder` | what recordings take; a trace made of it |
//! | `access`, `policy` | permission bits; who may use an export, and as whom |
//! | `inodes`, `quota`, `reserve` | numbers for new objects; what a clone may hold; what must stay free on the disk |
//!
//! Verbs are restartable: each answers from memory at once or stops with [`Stop::Missing`]; then
//! `Request::fetch().fill()` loads what it wants and the verb is called again. So a cached request
//! costs no task and no wait. A verb that reads runs on the catalog revision that its request began
//! with; one that changes something takes the newest at each run, and checks under the lock of the
//! overlay that it writes to that no view switch came in between.
//!
//! Failure story: a change is one record in the log or it did not happen; what was answered as stable
//! is on stable storage. Nothing is undone, because nothing takes effect before its commit.

mod access;
mod activation;
mod activity;
mod change;
mod inodes;
mod mount;
mod policy;
mod quota;
mod read;
mod recorder;
mod reserve;
mod resolve;
mod serve;
mod tap;
mod types;

pub use activity::{AWAY, Activity, Footprint, QUIET, Seen, host_of};
pub use policy::{ExportPolicy, Squash};
pub use recorder::Recorder;
pub use serve::ImageVfs;
pub use tap::{Listener, RecordedOp, Recording, Tap};
pub use types::{
    Attr, Before, Caller, Changed, CreateHow, Durable, ExportLine, FsStat, LinkTarget, ListEntry, ListWindow, Listing,
    Looked, MAX_DEPTH, MAX_FILE_BYTES, MAX_GROUPS, MAX_LINKS, MAX_READ, MAX_WRITE, NewAttr, NewObject, Object, Place,
    ReadData, ReceiptKey, ReceiptMaker, Refusal, Refused, Rights, SetTime, Wcc,
};

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::chunk::Fetch;
pub use crate::chunk::{Step, Stop};
pub use crate::env::{MemoryFile, Time};
use crate::error::Error;
pub use crate::image::ExportId;
use crate::image::State;
pub use crate::manifest::FileKind;

/// One request: the catalog revision that it runs on and the chunks that it loaded.
pub struct Request<'a> {
    pub caller: &'a Caller,
    /// Of the connection that it came on, if its uses are noted.
    footprint: Option<&'a Footprint>,
    state: Arc<State>,
    fetch: Fetch<'a>,
    receipt: Option<ReceiptMaker>,
    /// A switch that waited for this MNT has been tried.
    activated: bool,
}

impl<'a> Request<'a> {
    pub fn new(caller: &'a Caller, state: Arc<State>, fetch: Fetch<'a>) -> Self {
        Self { caller, footprint: None, state, fetch, receipt: None, activated: false }
    }

    /// Note what it uses as done by this connection.
    #[must_use]
    pub fn on(self, footprint: &'a Footprint) -> Self {
        Self { footprint: Some(footprint), ..self }
    }

    pub fn fetch(&mut self) -> &mut Fetch<'a> {
        &mut self.fetch
    }

    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Keep the answer of the change that follows in the record of the change.
    pub fn keep_receipt(&mut self, receipt: ReceiptMaker) {
        self.receipt = Some(receipt);
    }
}

/// The outcome of a verb: stopped (call again), refused, or answered.
pub type Verb<T> = Step<Result<T, Refused>>;

/// The file service that a front end serves.
pub trait Vfs: Send + Sync + 'static {
    /// Pin the newest catalog revision for one request.
    fn begin<'a>(&'a self, caller: &'a Caller) -> Request<'a>;

    /// The root of the export at `path` (`/clones/NAME`, `/images/NAME@vN`), for a caller that its
    /// policy admits.
    /// A switch that waits for this, if nobody uses the clone, is made before it is answered.
    fn mount(&self, rq: &mut Request<'_>, path: &[u8]) -> Verb<Object>;
    /// The caller does not use the export at `path` any more, as he says.
    fn unmount(&self, rq: &Request<'_>, path: &[u8]);
    /// Exports that admit the caller, at most `limit`.
    fn exports(&self, rq: &mut Request<'_>, limit: usize) -> Vec<ExportLine>;

    fn getattr(&self, rq: &mut Request<'_>, object: Object) -> Verb<Attr>;
    fn lookup(&self, rq: &mut Request<'_>, dir: Object, name: &[u8]) -> Verb<Looked>;
    fn access(&self, rq: &mut Request<'_>, object: Object, asked: Rights) -> Verb<(Attr, Rights)>;
    fn readlink(&self, rq: &mut Request<'_>, object: Object) -> Verb<LinkTarget>;
    /// At most `min(len, MAX_READ)` bytes from `offset`.
    fn read(&self, rq: &mut Request<'_>, object: Object, offset: u64, len: u32) -> Verb<ReadData>;
    fn list(&self, rq: &mut Request<'_>, dir: Object, window: ListWindow) -> Verb<Listing>;
    fn fsstat(&self, rq: &mut Request<'_>, object: Object) -> Verb<(Attr, FsStat)>;

    /// Set attributes, if the object's ctime is still `guard`.
    fn setattr(&self, rq: &mut Request<'_>, object: Object, new: NewAttr, guard: Option<Time>) -> Verb<Changed>;
    /// Put `data` at `offset`; with `stable`, its answer waits for stable storage.
    fn write(&self, rq: &mut Request<'_>, file: Object, offset: u64, data: &[u8], stable: bool) -> Verb<Changed>;
    /// Everything written to `file` so far; the answer waits for stable storage.
    fn commit(&self, rq: &mut Request<'_>, file: Object) -> Verb<Changed>;
    /// A regular file.
    fn create(&self, rq: &mut Request<'_>, place: Place<'_>, how: CreateHow) -> Verb<Changed>;
    /// Any other object.
    fn make(&self, rq: &mut Request<'_>, place: Place<'_>, what: NewObject<'_>, new: NewAttr) -> Verb<Changed>;
    /// Take away the name of anything but a directory.
    fn remove(&self, rq: &mut Request<'_>, place: Place<'_>) -> Verb<Changed>;
    fn rmdir(&self, rq: &mut Request<'_>, place: Place<'_>) -> Verb<Changed>;
    fn rename(&self, rq: &mut Request<'_>, from: Place<'_>, to: Place<'_>) -> Verb<Changed>;
    /// Give `object`, which is no directory, another name.
    fn link(&self, rq: &mut Request<'_>, object: Object, to: Place<'_>) -> Verb<Changed>;

    /// Ends when everything up to `upto` is on stable storage; `None` if it is. `Err` if that will never
    /// be known.
    fn durable(&self, upto: Durable) -> Option<BoxFuture<'static, Result<(), Error>>>;
    /// What WRITE and COMMIT answer as write verifier; changes with every start.
    fn write_verifier(&self) -> [u8; 8];
    /// Who uses what.
    fn activity(&self) -> &Arc<Activity>;
    /// Where recordings take what clients ask.
    fn tap(&self) -> &Arc<Tap>;
    /// Whether the export's policy lets the caller in; of one that is not there, the default's.
    fn admits(&self, rq: &Request<'_>, export: ExportId) -> bool;
    /// The file in memory in which some slices of READs lie: from there they may be sent without being copied.
    fn memory(&self) -> Option<Arc<MemoryFile>> {
        None
    }
    /// Time since some fixed start; never steps back.
    fn uptime(&self) -> Duration;
    /// The newest receipts from before this start, oldest first.
    fn receipts(&self) -> Vec<(ReceiptKey, Bytes)>;

    /// Keys of handle MACs, (key id, key), newest last.
    fn handle_keys(&self) -> Vec<(u8, [u8; 32])>;
}

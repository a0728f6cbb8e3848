//! From a record to its reply.
//!
//! Owns what all procedures share: finding the program and procedure, running a verb of the file
//! service on the object of a handle, and turning whatever stops a call into the right answer.
//!
//! A call is run by [`answer`] as plain code that either finishes or stops because chunks are
//! missing. [`finish_slow`] then runs it again, from its first byte, each time more chunks are there.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::args;
use super::handle::{BadHandle, HandleKeys};
use super::log::Thinned;
use super::mount::{self, MountTable};
use super::portmap;
use super::proc3;
use super::reply::Replies;
use super::rpc::{self, Call, Reject};
use super::status::{self, Failure};
use super::xdr::Garbage;
use crate::error::Error;
use crate::vfs::{MAX_READ, Object, Refusal, Refused, Request, Stop, Verb, Vfs};

/// Bytes of directory and inode pages that a slow request may hold, about.
const PAGES: usize = 64 * 1024;
/// Rounds of loading after which a request is given up: far more than the deepest tree needs.
const MAX_ROUNDS: u32 = 4096;

static FAILED: Thinned = Thinned::new();

/// What all connections share.
pub struct Core<V> {
    pub vfs: Arc<V>,
    pub handles: HandleKeys,
    pub mounts: MountTable,
}

impl<V: Vfs> Core<V> {
    pub fn new(vfs: Arc<V>) -> Self {
        let handles = HandleKeys::new(vfs.handle_keys());
        Self { vfs, handles, mounts: MountTable::default() }
    }
}

/// Where a call came in.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub peer: SocketAddr,
    /// Our port of the connection.
    pub port: u16,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its reply is queued.
    Answered,
    /// It has to wait for chunks.
    Slow,
    /// It is no call: the connection is of no more use.
    NotCall,
}

/// Why a procedure stopped before it had an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Chunks are missing: load them and run it again.
    Missing,
    Rejected(Reject),
}

impl From<Reject> for Halt {
    fn from(why: Reject) -> Self {
        Self::Rejected(why)
    }
}

impl From<Garbage> for Halt {
    fn from(garbage: Garbage) -> Self {
        Self::Rejected(garbage.into())
    }
}

/// The outcome of asking the file service: halted, failed, or answered.
pub type Answer<T> = Result<Result<T, Failure>, Halt>;

/// One run of a procedure.
pub struct Context<'a, 'r, V> {
    pub core: &'a Core<V>,
    pub origin: &'a Origin,
    request: &'a mut Request<'r>,
    /// Chunks could not be loaded: every verb is refused with this.
    broken: Option<Refusal>,
}

impl<'r, V: Vfs> Context<'_, 'r, V> {
    /// Run a verb.
    pub fn ask<T>(&mut self, verb: impl FnOnce(&V, &mut Request<'r>) -> Verb<T>) -> Result<Result<T, Refused>, Halt> {
        if let Some(why) = self.broken {
            return Ok(Err(Refused { why, attr: None }));
        }
        match verb(&self.core.vfs, self.request) {
            Ok(answer) => Ok(answer),
            Err(Stop::Missing) => Err(Halt::Missing),
            Err(Stop::Failed(error)) => Ok(Err(Refused { why: told(&error), attr: None })),
        }
    }

    /// Run a verb on the object of `handle`.
    pub fn on<T>(&mut self, handle: &[u8], verb: impl FnOnce(&V, &mut Request<'r>, Object) -> Verb<T>) -> Answer<T> {
        match self.core.handles.decode(handle) {
            Ok(object) => Ok(self.ask(|vfs, request| verb(vfs, request, object))?.map_err(Failure::from)),
            Err(BadHandle) => Ok(Err(BadHandle.into())),
        }
    }

    /// The request itself, for what is no verb.
    pub fn request(&mut self) -> (&V, &mut Request<'r>) {
        (&self.core.vfs, self.request)
    }
}

/// Log an error of the layers below; what the client is told instead.
fn told(error: &Error) -> Refusal {
    if let Some(count) = FAILED.count() {
        tracing::error!(%error, count, "a request failed");
    }
    status::refusal(error)
}

/// Run the call in `record` once and queue its reply, unless it has to wait.
pub fn answer<V: Vfs>(core: &Core<V>, origin: &Origin, record: &[u8], out: &mut Replies) -> Outcome {
    let call = match decode(record, out) {
        Ok(call) => call,
        Err(outcome) => return outcome,
    };
    let caller = call.caller(origin.peer);
    let mut request = core.vfs.begin(&caller);
    match attempt(core, origin, &call, &mut request, None, out) {
        Ok(()) => Outcome::Answered,
        Err(Missing) => Outcome::Slow,
    }
}

/// Run the call in `record` until it is answered, loading what it misses.
pub async fn finish_slow<V: Vfs>(core: &Core<V>, origin: &Origin, record: &[u8]) -> Replies {
    let mut out = Replies::default();
    let Ok(call) = decode(record, &mut out) else { return out };
    let caller = call.caller(origin.peer);
    let mut request = core.vfs.begin(&caller);
    let mut broken = None;
    let mut rounds = 0;
    while attempt(core, origin, &call, &mut request, broken, &mut out) == Err(Missing) {
        rounds += 1;
        let loaded = request.fetch().fill().await;
        broken = match loaded {
            Ok(()) if rounds < MAX_ROUNDS => None,
            Ok(()) => Some(told(&Error::internal("a request that never has all its chunks"))),
            Err(error) => Some(told(&error)),
        };
    }
    out
}

/// Bytes that the slow run of `record` may hold, about: its own and the chunks that it loads.
pub fn weight(record: &[u8]) -> usize {
    let read = rpc::begin(record).ok().and_then(|(xid, rest)| Call::decode(xid, rest).ok()).and_then(read_count);
    record.len() + PAGES + read.unwrap_or(0) as usize
}

fn read_count(call: Call<'_>) -> Option<u32> {
    if (call.program, call.procedure) != (proc3::PROGRAM, proc3::READ) {
        return None;
    }
    call.arguments::<args::Range>().ok().map(|range| range.count.min(MAX_READ))
}

/// The call in `record`; one that is rejected by its header is answered here.
fn decode<'a>(record: &'a [u8], out: &mut Replies) -> Result<Call<'a>, Outcome> {
    let (xid, rest) = rpc::begin(record).map_err(|_| Outcome::NotCall)?;
    Call::decode(xid, rest).map_err(|why| {
        reject(xid, why, out);
        Outcome::Answered
    })
}

fn reject(xid: u32, why: Reject, out: &mut Replies) {
    let mark = out.begin();
    rpc::put_reject(out.head(), xid, why);
    out.finish(mark);
}

/// Chunks are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Missing;

/// Run `call` once. Queues its reply or nothing.
fn attempt<V: Vfs>(
    core: &Core<V>,
    origin: &Origin,
    call: &Call<'_>,
    request: &mut Request<'_>,
    broken: Option<Refusal>,
    out: &mut Replies,
) -> Result<(), Missing> {
    let mark = out.begin();
    rpc::put_success(out.head(), call.xid);
    let mut cx = Context { core, origin, request, broken };
    // A bug in one procedure must cost one request, not the mount that shares its connection.
    let ran = catch_unwind(AssertUnwindSafe(|| run(&mut cx, call, out)));
    let halt = match ran.unwrap_or_else(|_| panicked(call)) {
        Ok(()) => {
            out.finish(mark);
            return Ok(());
        }
        Err(halt) => halt,
    };
    out.cancel(mark);
    match halt {
        Halt::Missing => Err(Missing),
        Halt::Rejected(why) => {
            reject(call.xid, why, out);
            Ok(())
        }
    }
}

fn panicked(call: &Call<'_>) -> Result<(), Halt> {
    let (program, procedure) = (call.program, call.procedure);
    tracing::error!(program, procedure, "a procedure panicked: this is a bug, please report it");
    Err(Reject::SystemError.into())
}

/// Run the procedure that `call` names; its results go to `out`.
fn run<V: Vfs>(cx: &mut Context<'_, '_, V>, call: &Call<'_>, out: &mut Replies) -> Result<(), Halt> {
    match (call.program, call.version) {
        (proc3::PROGRAM, proc3::VERSION) => proc3::run(cx, call, out),
        (mount::PROGRAM, mount::VERSION) => mount::run(cx, call, out),
        (portmap::PROGRAM, portmap::VERSION) => portmap::run(cx, call, out),
        (proc3::PROGRAM | mount::PROGRAM, _) => Err(Reject::ProgramMismatch(3, 3).into()),
        (portmap::PROGRAM, _) => Err(Reject::ProgramMismatch(portmap::VERSION, portmap::VERSION).into()),
        _ => Err(Reject::ProgramUnavailable.into()),
    }
}

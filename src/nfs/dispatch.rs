//! From a record to its reply.
//!
//! Owns what all procedures share: finding the program and procedure, running a verb of the file
//! service on the object of a handle, and turning whatever stops a call into the right answer.
//!
//! A call is run by [`answer`] as plain code that either finishes or stops because chunks are
//! missing. [`finish_slow`] then runs it again, from its first byte, each time more chunks are there.
//! A call that must not run twice needs a [`Claim`] for all of its runs, which ends with its answer.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::args;
use super::budget::{Budget, Charge};
use super::drc::{Answer, CallId, Claim, Drc, Turn};
use super::handle::{BadHandle, HandleKeys};
use super::log::Thinned;
use super::mount::{self, MountTable};
use super::portmap;
use super::proc3;
use super::reply::{Mark, Replies};
use super::rpc::{self, Call, Reject};
use super::server::Bounds;
use super::status::{self, Failure};
use super::tap::{Noted, Watched};
use super::xdr::Garbage;
use crate::error::Error;
use crate::vfs::{
    Changed, Durable, Footprint, MAX_READ, MemoryFile, Object, ReceiptKey, ReceiptMaker, Refusal, Refused, Request,
    Stop, Verb, Vfs,
};

/// Bytes of directory and inode pages that a slow request may hold, about.
const PAGES: usize = 64 * 1024;
/// Rounds of loading after which a request is given up: far more than the deepest tree needs.
const MAX_ROUNDS: u32 = 4096;
/// Results of a change, in bytes: those of CREATE, which are the longest.
const RESULTS: usize = 272;

static FAILED: Thinned = Thinned::new();

/// What all connections share.
pub struct Core<V> {
    pub vfs: Arc<V>,
    pub handles: Arc<HandleKeys>,
    pub mounts: MountTable,
    pub drc: Arc<Drc>,
    /// Where payloads of READs may lie.
    pub memory: Option<Arc<MemoryFile>>,
    /// Records that are coming in and are large.
    pub input: Arc<Budget>,
    /// Slow requests.
    pub slow: Arc<Budget>,
    /// Longest time in which a record must have come.
    pub record_time: Duration,
}

impl<V: Vfs> Core<V> {
    pub fn new(vfs: Arc<V>, bounds: &Bounds) -> Self {
        let handles = Arc::new(HandleKeys::new(vfs.handle_keys()));
        let drc = Drc::new(vfs.receipts(), vfs.uptime());
        Self {
            memory: vfs.memory(),
            vfs,
            handles,
            mounts: MountTable::default(),
            drc,
            input: Budget::new(bounds.input_bytes),
            slow: Budget::new(bounds.slow_bytes),
            record_time: bounds.record_time,
        }
    }
}

/// Where a call came in.
#[derive(Clone)]
pub struct Origin {
    pub peer: SocketAddr,
    /// Our port of the connection.
    pub port: u16,
    /// What the connection has used.
    pub footprint: Arc<Footprint>,
}

/// What became of a record.
pub enum Outcome {
    /// Its reply is queued.
    Answered,
    /// It has to wait, for chunks or for others, with the right to run if it must not run twice.
    Slow(Option<Claim>),
    /// Its reply has to wait.
    Held(Held),
    /// It is no call: the connection is of no more use.
    NotCall,
}

/// A reply that may leave when what it tells is on stable storage.
pub struct Held {
    replies: Replies,
    durable: BoxFuture<'static, Result<(), Error>>,
    noted: Option<Noted>,
    xid: u32,
    procedure: u32,
}

impl Held {
    /// Bytes that it holds, about.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.replies.len()
    }

    /// Wait; if it will never be known, that is the answer instead.
    pub async fn finish(self) -> Replies {
        let Err(error) = self.durable.await else {
            self.noted.into_iter().for_each(Noted::leaves);
            return self.replies;
        };
        let mut out = Replies::default();
        let mark = out.begin();
        rpc::put_success(out.head(), self.xid);
        proc3::put_bare_failure(&mut out, self.procedure, status::nfs(told(&error)));
        out.finish(mark);
        out
    }
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
pub type Answered<T> = Result<Result<T, Failure>, Halt>;

/// Appends the results of a change.
pub type PutChanged = fn(&Changed, &HandleKeys, &mut Vec<u8>);

/// One run of a procedure.
pub struct Context<'a, 'r, V> {
    pub core: &'a Core<V>,
    pub origin: &'a Origin,
    request: &'a mut Request<'r>,
    /// Chunks could not be loaded: every verb is refused with this.
    broken: Option<Refusal>,
    /// Of a call that must not run twice.
    key: Option<ReceiptKey>,
    /// What the reply has to wait for.
    durable: Option<Durable>,
}

impl<'r, V: Vfs> Context<'_, 'r, V> {
    /// Run a verb.
    pub fn ask<T>(&mut self, verb: impl FnOnce(&V, &mut Request<'r>) -> Verb<T>) -> Result<Result<T, Refused>, Halt> {
        if let Some(why) = self.broken {
            return Ok(Err(why.into()));
        }
        match verb(&self.core.vfs, self.request) {
            Ok(answer) => Ok(answer),
            Err(Stop::Missing) => Err(Halt::Missing),
            Err(Stop::Failed(error)) => Ok(Err(told(&error).into())),
        }
    }

    /// Run a verb on the object of `handle`.
    pub fn on<T>(&mut self, handle: &[u8], verb: impl FnOnce(&V, &mut Request<'r>, Object) -> Verb<T>) -> Answered<T> {
        match self.core.handles.decode(handle) {
            Ok(object) => Ok(self.ask(|vfs, request| verb(vfs, request, object))?.map_err(Failure::from)),
            Err(BadHandle) => Ok(Err(BadHandle.into())),
        }
    }

    /// Run a changing verb `on` what its handles mean. If its call must not run twice, its results, as
    /// `put` encodes them, are kept with the change.
    pub fn change<T>(
        &mut self,
        on: Result<T, Failure>,
        put: PutChanged,
        verb: impl FnOnce(&V, &mut Request<'r>, T) -> Verb<Changed>,
    ) -> Answered<Changed> {
        let on = match on {
            Ok(on) => on,
            Err(failure) => return Ok(Err(failure)),
        };
        if let Some(key) = self.key {
            let handles = Arc::clone(&self.core.handles);
            let encode = move |changed: &Changed| {
                let mut results = Vec::with_capacity(RESULTS);
                put(changed, &handles, &mut results);
                results.into()
            };
            self.request.keep_receipt(ReceiptMaker { key, encode: Box::new(encode) });
        }
        let answer = self.ask(|vfs, request| verb(vfs, request, on))?.map_err(Failure::from);
        if let Ok(changed) = &answer {
            self.durable = changed.durable;
        }
        Ok(answer)
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
    let claim = match turn(core, origin, &call) {
        None => None,
        Some(Turn::First(claim)) => Some(claim),
        Some(Turn::Wait(_)) => return Outcome::Slow(None),
        Some(Turn::Again(answer)) => return repeat(core, origin, &call, answer, out),
    };
    let watched = Watched::begin(core, &call);
    let caller = call.caller(origin.peer);
    let mut request = core.vfs.begin(&caller).on(&origin.footprint);
    match attempt(core, origin, &call, claim.as_ref(), &mut request, None, out) {
        Ok(done) => settle(core, &call, watched, claim, done, out),
        Err(Missing) => Outcome::Slow(claim),
    }
}

/// Run the call in `record` until it is answered, loading what it misses.
pub async fn finish_slow<V: Vfs>(core: &Core<V>, origin: &Origin, record: &[u8], claim: Option<Claim>) -> Replies {
    let mut out = Replies::default();
    let Ok(call) = decode(record, &mut out) else { return out };
    let outcome = match claim {
        Some(claim) => run_slow(core, origin, &call, Some(claim), &mut out).await,
        None => match wait_for_turn(core, origin, &call).await {
            Ok(claim) => run_slow(core, origin, &call, claim, &mut out).await,
            Err(answer) => repeat(core, origin, &call, answer, &mut out),
        },
    };
    match outcome {
        Outcome::Held(held) => held.finish().await,
        _ => out,
    }
}

async fn run_slow<V: Vfs>(
    core: &Core<V>,
    origin: &Origin,
    call: &Call<'_>,
    claim: Option<Claim>,
    out: &mut Replies,
) -> Outcome {
    let watched = Watched::begin(core, call);
    // Only now: a call that waits for another to end must not keep the other from its room.
    let _charge = Charge::in_turn(&core.slow, call_weight(call)).await;
    let caller = call.caller(origin.peer);
    let mut request = core.vfs.begin(&caller).on(&origin.footprint);
    let mut broken = None;
    let mut rounds = 0;
    loop {
        if let Ok(done) = attempt(core, origin, call, claim.as_ref(), &mut request, broken, out) {
            return settle(core, call, watched, claim, done, out);
        }
        rounds += 1;
        let loaded = request.fetch().fill().await;
        broken = match loaded {
            Ok(()) if rounds < MAX_ROUNDS => None,
            Ok(()) => Some(told(&Error::internal("a request that never has all its chunks"))),
            Err(error) => Some(told(&error)),
        };
    }
}

/// What is to be done about a call that must not run twice.
fn turn<V: Vfs>(core: &Core<V>, origin: &Origin, call: &Call<'_>) -> Option<Turn> {
    CallId::of(origin.peer, call).map(|id| core.drc.turn(&id, core.vfs.uptime()))
}

/// The right to run the call, where one is needed; or the answer that it had meanwhile.
async fn wait_for_turn<V: Vfs>(core: &Core<V>, origin: &Origin, call: &Call<'_>) -> Result<Option<Claim>, Answer> {
    loop {
        match turn(core, origin, call) {
            None => return Ok(None),
            Some(Turn::First(claim)) => return Ok(Some(claim)),
            Some(Turn::Again(answer)) => return Err(answer),
            // It ends by being closed.
            Some(Turn::Wait(mut running)) => drop(running.changed().await),
        }
    }
}

/// Queue the answer that the call had before, if its exports still admit the caller.
fn repeat<V: Vfs>(core: &Core<V>, origin: &Origin, call: &Call<'_>, answer: Answer, out: &mut Replies) -> Outcome {
    let mark = out.begin();
    rpc::put_success(out.head(), call.xid);
    if is_admitted(core, origin, call) {
        out.head().extend_from_slice(&answer.results);
    } else {
        proc3::put_bare_failure(out, call.procedure, status::nfs(Refusal::Access));
    }
    out.finish(mark);
    hold(core, call, mark, (answer.durable, None), out)
}

/// Whether the exports of all handles of a call that must not run twice admit its caller.
fn is_admitted<V: Vfs>(core: &Core<V>, origin: &Origin, call: &Call<'_>) -> bool {
    let caller = call.caller(origin.peer);
    let request = core.vfs.begin(&caller);
    // What is no handle of ours is of no export: the answer says so.
    let admits = |handle| core.handles.decode(handle).map_or(true, |object| core.vfs.admits(&request, object.export));
    proc3::handles(call).is_ok_and(|handles| handles.into_iter().all(admits))
}

/// A reply is queued. See that its call is not run again, and that it does not leave too early.
fn settle<V: Vfs>(
    core: &Core<V>,
    call: &Call<'_>,
    watched: Option<Watched>,
    claim: Option<Claim>,
    done: Done,
    out: &mut Replies,
) -> Outcome {
    let Done::Run { mark, results, durable } = done else { return Outcome::Answered };
    let noted = watched.and_then(|watched| watched.answered(&core.handles, call, &out.head()[results..]));
    if let Some(claim) = claim {
        let results = &out.head()[results..];
        if proc3::is_final(results) {
            claim.answer(Answer { results: Bytes::copy_from_slice(results), durable }, core.vfs.uptime());
        }
    }
    hold(core, call, mark, (durable, noted), out)
}

/// Take the last reply of the queue out if it has to wait.
fn hold<V: Vfs>(
    core: &Core<V>,
    call: &Call<'_>,
    mark: Mark,
    (durable, noted): (Option<Durable>, Option<Noted>),
    out: &mut Replies,
) -> Outcome {
    let Some(durable) = durable.and_then(|upto| core.vfs.durable(upto)) else {
        noted.into_iter().for_each(Noted::leaves);
        return Outcome::Answered;
    };
    Outcome::Held(Held { replies: out.take(mark), durable, noted, xid: call.xid, procedure: call.procedure })
}

/// Bytes that the slow run of `record` may hold, about: its own and the chunks that it loads.
pub fn weight(record: &[u8]) -> usize {
    let call = rpc::begin(record).ok().and_then(|(xid, rest)| Call::decode(xid, rest).ok());
    call.map_or(record.len(), |call| call_weight(&call))
}

fn call_weight(call: &Call<'_>) -> usize {
    call.arguments.len() + PAGES + read_count(call).unwrap_or(0) as usize
}

fn read_count(call: &Call<'_>) -> Option<u32> {
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

/// A reply is queued.
enum Done {
    /// The procedure ran: where its reply begins and where its results do, and what it waits for.
    Run {
        mark: Mark,
        results: usize,
        durable: Option<Durable>,
    },
    Rejected,
}

/// Run `call` once. Queues its reply or nothing.
fn attempt<V: Vfs>(
    core: &Core<V>,
    origin: &Origin,
    call: &Call<'_>,
    claim: Option<&Claim>,
    request: &mut Request<'_>,
    broken: Option<Refusal>,
    out: &mut Replies,
) -> Result<Done, Missing> {
    let mark = out.begin();
    rpc::put_success(out.head(), call.xid);
    let results = out.head().len();
    let mut cx = Context { core, origin, request, broken, key: claim.map(Claim::key), durable: None };
    // A bug in one procedure must cost one request, not the mount that shares its connection.
    let ran = catch_unwind(AssertUnwindSafe(|| run(&mut cx, call, out)));
    let halt = match ran.unwrap_or_else(|_| panicked(call)) {
        Ok(()) => {
            out.finish(mark);
            return Ok(Done::Run { mark, results, durable: cx.durable });
        }
        Err(halt) => halt,
    };
    out.cancel(mark);
    match halt {
        Halt::Missing => Err(Missing),
        Halt::Rejected(why) => {
            reject(call.xid, why, out);
            Ok(Done::Rejected)
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

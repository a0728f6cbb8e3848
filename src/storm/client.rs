//! One client: it mounts its export and goes through its plans.
//!
//! One task, one connection, no lock but the one of its meters. Calls go out as the schedule says, at most so
//! many at once as the settings allow, and answers come in any order.
//!
//! Failure story: a lost connection is made again and what was under way is sent again under the same
//! transaction ids; so is a call that is not answered in time. A client that gets no further ends and is counted,
//! the others go on. What is answered JUKEBOX is asked again after a
//! pause.

mod attach;
mod learn;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use self::learn::Known;
use super::Storm;
use super::connection::{Connection, garbage};
use super::ledger::Ledger;
use super::measure::{Boot, CallTimes, Tally};
use super::plan::{Plan, Step, taken};
use super::schedule::{Due, Pace, Schedule};
use super::wire::{self, Fill, Head, Reply, status};
use crate::trace::{Call, NameVerb, NodeId, Verb};

/// Why a client ended before its plan.
#[derive(Debug)]
pub struct Gone {
    kind: String,
    example: String,
}

/// A call that was sent and not answered.
#[derive(Debug)]
struct UnderWay {
    what: What,
    /// First, and last.
    first_sent: Instant,
    sent: Instant,
    times_sent: u32,
    /// Whether a READ's bytes can be known: nothing was written there meanwhile.
    knowable: bool,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Step(Due),
    /// A LOOKUP that no plan has.
    Find(NodeId),
}

pub struct Client<'a> {
    storm: &'a Storm,
    number: u32,
    export: String,
    /// When it should have started: its time 0.
    start: Instant,
    schedule: Schedule,
    under_way: BTreeMap<u32, UnderWay>,
    next_xid: u32,
    /// Steps that wait for a handle that is being looked up.
    parked: Vec<Due>,
    finding: HashSet<NodeId>,
    /// Objects that were looked up and not found.
    lost: HashSet<NodeId>,
    known: Known,
}

/// Be client `number`, from `start` on.
pub async fn run(storm: Arc<Storm>, number: u32, start: Instant) {
    let stop = storm.stop_at.unwrap_or(start);
    sleep_until(start.min(stop)).await;
    if stop < start {
        return;
    }
    let Some(plan) = storm.workload.plan(number, 0) else { return };
    let mut client = Client::new(&storm, number, start, plan);
    if let Err(gone) = client.live().await {
        let mut tally = storm.meters.of(number).lock();
        tally.counts.failed += 1;
        tally.error(&gone.kind, || format!("client {number}: {}", gone.example));
    }
}

impl<'a> Client<'a> {
    fn new(storm: &'a Storm, number: u32, start: Instant, plan: Arc<Plan>) -> Self {
        let ledger = Ledger::new(storm.settings.seed, number);
        Self {
            storm,
            number,
            export: storm.settings.export_of(number),
            start,
            schedule: Schedule::new(plan, storm.settings.tempo, Duration::ZERO),
            under_way: BTreeMap::new(),
            // Not the same for all: a server may have one cache of replies for the whole address.
            next_xid: storm.first_xid.wrapping_add(number.wrapping_mul(0x9e37_79b9)),
            parked: Vec::new(),
            finding: HashSet::new(),
            lost: HashSet::new(),
            known: Known::new(ledger),
        }
    }

    fn tally<T>(&self, report: impl FnOnce(&mut Tally) -> T) -> T {
        report(&mut self.storm.meters.of(self.number).lock())
    }

    /// The client's own time.
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether the storm's time is up.
    fn is_over(&self) -> bool {
        self.storm.stop_at.is_some_and(|stop| Instant::now() >= stop)
    }

    fn xid(&mut self) -> u32 {
        self.next_xid = self.next_xid.wrapping_add(1);
        self.next_xid
    }

    async fn live(&mut self) -> Result<(), Gone> {
        let mut connection = self.attach().await?;
        let mut base = Duration::ZERO;
        for round in 1.. {
            self.follow(&mut connection).await?;
            let behind = base + self.schedule.span();
            if !self.schedule.is_done() {
                self.count_unsent(round, behind);
                return Ok(());
            }
            let Some(plan) = self.storm.workload.plan(self.number, round) else { break };
            base = match self.storm.settings.tempo.pace {
                Pace::Closed => self.now(),
                Pace::Open => behind,
            };
            self.schedule = Schedule::new(plan, self.storm.settings.tempo, base);
        }
        let boot = Boot { at: self.storm.started.elapsed(), took: self.now() };
        self.tally(|tally| tally.boots.push(boot));
        Ok(())
    }

    /// What should have gone out until the end and did not, in this plan and those that should have followed.
    fn count_unsent(&self, mut round: u32, mut base: Duration) {
        let now = self.now();
        let mut unsent = self.schedule.late(now) + self.parked.len();
        while self.storm.settings.tempo.pace == Pace::Open && base < now {
            let Some(plan) = self.storm.workload.plan(self.number, round) else { break };
            let schedule = Schedule::new(plan, self.storm.settings.tempo, base);
            unsent += schedule.late(now);
            base += schedule.span().max(Duration::from_nanos(1));
            round += 1;
        }
        self.tally(|tally| tally.counts.not_sent += unsent as u64);
    }

    /// Go through the plan.
    async fn follow(&mut self, connection: &mut Connection) -> Result<(), Gone> {
        loop {
            let over = self.is_over();
            if !over {
                self.send_due(connection);
            }
            if self.under_way.is_empty() && (over || self.schedule.is_done()) {
                return Ok(());
            }
            let came = tokio::select! {
                came = connection.progress() => came,
                () = sleep_until(self.wake(over)) => Ok(()),
            };
            match came.and_then(|()| self.take_replies(connection)) {
                Ok(()) if self.has_waited_too_long() => *connection = self.again("no answer in time").await?,
                Ok(()) => {}
                Err(error) => *connection = self.again(&error.to_string()).await?,
            }
        }
    }

    /// When there is something to do although nothing came.
    fn wake(&self, over: bool) -> Instant {
        let timeout = self.under_way.values().map(|call| call.sent + self.storm.settings.timeout).min();
        let due = (!over && self.has_room()).then(|| self.schedule.next_at()).flatten().map(|at| self.start + at);
        let stop = self.storm.stop_at.filter(|_| !over);
        let far = Instant::now() + self.storm.settings.timeout;
        [timeout, due, stop].into_iter().flatten().min().unwrap_or(far)
    }

    fn has_room(&self) -> bool {
        self.under_way.len() < self.storm.settings.window
    }

    fn has_waited_too_long(&self) -> bool {
        let timeout = self.storm.settings.timeout;
        self.under_way.values().any(|call| call.sent.elapsed() >= timeout)
    }

    /// Send what is due, as far as there is room.
    fn send_due(&mut self, connection: &mut Connection) {
        while self.has_room() {
            let Some(due) = self.schedule.take(self.now()) else { break };
            let plan = self.schedule.plan().clone();
            let step = plan.step(due.step);
            match taken(&step.call).into_iter().find(|object| !self.known.handles.contains_key(object)) {
                None => self.send_step(connection, step, due),
                Some(object) => self.find(connection, &plan, object, due),
            }
        }
    }

    fn send_step(&mut self, connection: &mut Connection, step: &Step, due: Due) {
        let mut knowable = true;
        if let Some((file, range)) = touched(&step.call) {
            let writes = matches!(step.call, Call::Object { verb: Verb::Write { .. }, .. });
            knowable = !self.meets(file, &range, writes);
        }
        if let Some(file) = replaced(&step.call) {
            self.known.ledger.forget(file);
        }
        self.send(connection, What::Step(due), knowable);
    }

    /// Whether a call under way writes what this one reads; if this one `writes`, the READs under way that it
    /// meets cannot be known.
    fn meets(&mut self, file: NodeId, range: &Range<u64>, writes: bool) -> bool {
        let plan = self.schedule.plan();
        let mut meets = false;
        for call in self.under_way.values_mut() {
            let What::Step(due) = call.what else { continue };
            let other = &plan.step(due.step).call;
            let Some((other_file, other_range)) = touched(other) else { continue };
            if other_file != file || other_range.end <= range.start || range.end <= other_range.start {
                continue;
            }
            meets |= matches!(other, Call::Object { verb: Verb::Write { .. }, .. });
            call.knowable &= !writes;
        }
        meets
    }

    /// Look up the first object on the way to `object` whose handle is not known.
    fn find(&mut self, connection: &mut Connection, plan: &Plan, object: NodeId, due: Due) {
        let mut at = object;
        while let Some(parent) = plan.objects().node(at).parent {
            if self.lost.contains(&at) {
                break;
            }
            if self.known.handles.contains_key(&parent) {
                self.parked.push(due);
                if self.finding.insert(at) {
                    self.tally(|tally| tally.counts.lookups_added += 1);
                    self.send(connection, What::Find(at), true);
                }
                return;
            }
            at = parent;
        }
        self.tally(|tally| tally.error("no handle", || format!("{}: no handle", self.about(plan.step(due.step)))));
        self.schedule.finish(due.step, self.now());
    }

    fn send(&mut self, connection: &mut Connection, what: What, knowable: bool) {
        let xid = self.xid();
        self.put(connection.output(), xid, what);
        let now = Instant::now();
        self.under_way.insert(xid, UnderWay { what, first_sent: now, sent: now, times_sent: 1, knowable });
    }

    fn put(&self, to: &mut Vec<u8>, xid: u32, what: What) {
        let plan = self.schedule.plan();
        match what {
            What::Step(due) => {
                let Step { call, caller, .. } = plan.step(due.step);
                let head = Head { xid, program: wire::NFS, procedure: wire::procedure(call), caller: *caller };
                wire::put_call(to, head, |to| wire::put_arguments(to, call, &self.known));
            }
            What::Find(object) => {
                let node = plan.objects().node(object);
                let dir = node.parent.map_or(&[][..], |parent| self.known.handle(parent));
                let caller = self.storm.settings.caller;
                let head = Head { xid, program: wire::NFS, procedure: wire::LOOKUP, caller };
                wire::put_call(to, head, |to| wire::put_lookup(to, dir, &node.name));
            }
        }
    }

    fn take_replies(&mut self, connection: &mut Connection) -> io::Result<()> {
        while let Some(record) = connection.next_record()? {
            let reply = wire::reply(record).map_err(|_| garbage("a reply"))?;
            // One that is not known was answered before, on the connection that was lost.
            let Some(call) = self.under_way.remove(&reply.xid) else { continue };
            let xid = reply.xid;
            let taken = match call.what {
                What::Step(due) => self.answered(&call, due, reply),
                What::Find(object) => self.found(&call, object, reply),
            };
            if taken.is_err() {
                // It goes out again on the next connection.
                self.under_way.insert(xid, call);
                return taken;
            }
        }
        Ok(())
    }

    fn found(&mut self, call: &UnderWay, object: NodeId, reply: Reply<'_>) -> io::Result<()> {
        let answer = reply.results.ok().map(|results| wire::answer(wire::LOOKUP, results)).transpose();
        let answer = answer.map_err(|_| garbage("an answer to LOOKUP"))?;
        self.finding.remove(&object);
        match answer.and_then(|answer| answer.handle) {
            Some(handle) => drop(self.known.handles.insert(object, handle.into())),
            None => drop(self.lost.insert(object)),
        }
        let took = call.first_sent.elapsed();
        let times = CallTimes { procedure: wire::LOOKUP, latency: took, service: took, failed: false };
        self.tally(|tally| tally.call(&times));
        let now = self.now();
        for due in std::mem::take(&mut self.parked) {
            self.schedule.put_back(due, now);
        }
        Ok(())
    }

    fn answered(&mut self, call: &UnderWay, due: Due, reply: Reply<'_>) -> io::Result<()> {
        let plan = self.schedule.plan().clone();
        let step = plan.step(due.step);
        let procedure = wire::procedure(&step.call);
        let now = self.now();
        let refused = match reply.results {
            Err(why) => Some(why.name().to_owned()),
            Ok(results) => {
                let answer = wire::answer(procedure, results).map_err(|_| garbage("an answer"))?;
                if answer.status == status::JUKEBOX && step.status != status::JUKEBOX {
                    self.tally(|tally| tally.counts.jukebox += 1);
                    self.schedule.put_back(due, now + self.storm.settings.jukebox_pause);
                    return Ok(());
                }
                self.learn(call, step, &answer);
                unlike(step, answer.status)
            }
        };
        let times = CallTimes {
            procedure,
            latency: now.saturating_sub(due.intended),
            service: call.first_sent.elapsed(),
            failed: refused.is_some(),
        };
        self.tally(|tally| {
            tally.call(&times);
            if let Some(why) = refused {
                let kind = format!("{} {why}", step.call.procedure());
                tally.error(&kind, || format!("{}: {why}", self.about(step)));
            }
        });
        self.schedule.finish(due.step, now);
        Ok(())
    }

    /// A step, for a message.
    fn about(&self, step: &Step) -> String {
        let name = match &step.call {
            Call::Name { dir, name, .. } => format!("{}/{}", self.path(*dir), String::from_utf8_lossy(name)),
            call => taken(call).first().map_or_else(String::new, |object| self.path(*object)),
        };
        format!("{} {}{name}", step.call.procedure(), self.export)
    }

    /// With a leading slash; empty for the root.
    fn path(&self, object: NodeId) -> String {
        match self.schedule.plan().objects().path(object) {
            Some(path) if path.is_empty() => String::new(),
            Some(path) => format!("/{}", String::from_utf8_lossy(&path)),
            None => "/?".to_owned(),
        }
    }
}

/// What is wrong with a status, if it is not the one that was recorded.
fn unlike(step: &Step, status: u32) -> Option<String> {
    match (status, step.status) {
        (now, recorded) if now == recorded => None,
        (now, status::OK) => Some(wire::status_name(now)),
        (now, recorded) => Some(format!("{}, recorded {}", wire::status_name(now), wire::status_name(recorded))),
    }
}

/// The bytes that a READ or WRITE is about.
fn touched(call: &Call) -> Option<(NodeId, Range<u64>)> {
    match *call {
        Call::Object { object, verb: Verb::Read { offset, len, .. } | Verb::Write { offset, len, .. } } => {
            Some((object, offset..offset.saturating_add(u64::from(len))))
        }
        _ => None,
    }
}

/// The file whose content a call replaces or cuts.
fn replaced(call: &Call) -> Option<NodeId> {
    match call {
        Call::Object { object, verb: Verb::SetAttr(new) } => new.size.map(|_| *object),
        Call::Name { object, verb: NameVerb::Create(_), .. } => *object,
        _ => None,
    }
}

//! Runs operations over the wire and in the tree, and compares what is answered with what must be.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use super::caller::Caller;
use super::op::Op;
use super::states::{Seq, Window};
use super::tree::{Identity, ObjectId, Tree};
use crate::common::nfs3::{Answer, CREATE, Call, Handle, Stable, Wcc, status};
use crate::common::rpc::{Connection, fresh_xid};
use crate::common::xdr::Fattr;

/// Operations that a failure's message shows.
const TRACE: usize = 40;

/// An operation that was sent and not answered.
struct InFlight {
    xid: u32,
    by: Caller,
    op: Op,
    call: Call,
}

/// One caller: a connection, and what it was answered.
pub struct Driver {
    pub link: Connection,
    pub who: String,
    seq: Seq,
    /// The newest operation that is on stable storage with all before it.
    stable: Seq,
    /// The verifier of the last UNSTABLE WRITE or COMMIT: the server's instance.
    instance: Option<[u8; 8]>,
    /// That of the instance before.
    before_crash: Option<[u8; 8]>,
    in_flight: Option<InFlight>,
    /// The last call that must not run twice, whose it was, and its first answer.
    last_once: Option<(u32, Caller, Call, Vec<u8>)>,
    /// How changes of the user ended, by status.
    of_user: BTreeMap<u32, u64>,
    trace: VecDeque<String>,
    next_object: ObjectId,
}

impl Driver {
    /// `who` stands in messages; new objects are numbered from `first_object`.
    pub fn connect(address: SocketAddr, who: String, first_object: ObjectId) -> io::Result<Self> {
        Ok(Self {
            link: Connection::open(address)?,
            who,
            seq: 0,
            stable: 0,
            instance: None,
            before_crash: None,
            in_flight: None,
            last_once: None,
            of_user: BTreeMap::new(),
            trace: VecDeque::new(),
            next_object: first_object,
        })
    }

    pub fn note(&mut self, what: impl Into<String>) {
        self.trace.push_back(format!("{:6} {}", self.seq, what.into()));
        if self.trace.len() > TRACE {
            self.trace.pop_front();
        }
    }

    /// Fail, with what led to it.
    #[track_caller]
    pub fn fail(&self, why: impl AsRef<str>) -> ! {
        let trace: Vec<&str> = self.trace.iter().map(String::as_str).collect();
        panic!("{}: {}\nafter:\n{}", self.who, why.as_ref(), trace.join("\n"));
    }

    #[track_caller]
    pub fn check(&self, what: impl FnOnce() -> String, result: Result<(), String>) {
        if let Err(why) = result {
            self.fail(format!("{}: {why}", what()));
        }
    }

    /// A number for a new object.
    pub fn fresh_object(&mut self) -> ObjectId {
        self.next_object += 1;
        self.next_object
    }

    /// Run `op` as root. `Err`: the server is gone, and the operation in flight.
    pub fn step(&mut self, tree: &mut Tree, op: Op) -> io::Result<Answer> {
        self.step_as(Caller::ROOT, tree, op)
    }

    /// Run `op`, and look at what it was about.
    pub fn step_as(&mut self, by: Caller, tree: &mut Tree, op: Op) -> io::Result<Answer> {
        let objects = wcc_objects(tree, &op);
        let answer = self.run(by, tree, &op, None)?;
        let named = named_objects(tree, &op);
        for id in objects.into_iter().chain(subject(&op)).chain(named) {
            if tree.objects.contains_key(&id) {
                self.observe(tree, id, None)?;
            }
        }
        Ok(answer)
    }

    /// As [`step`](Self::step), where the answer may also be `or`; then nothing was done.
    pub fn step_or(&mut self, tree: &mut Tree, op: Op, or: Option<u32>) -> io::Result<Answer> {
        self.run(Caller::ROOT, tree, &op, or)
    }

    /// Send a call as `by`.
    fn call_by(&mut self, by: Caller, xid: u32, call: &Call) -> io::Result<Vec<u8>> {
        self.link.act_as(by.uid, by.gid);
        let results = self.link.call_as(xid, call);
        self.link.act_as(Caller::ROOT.uid, Caller::ROOT.gid);
        results
    }

    fn run(&mut self, by: Caller, tree: &mut Tree, op: &Op, or: Option<u32>) -> io::Result<Answer> {
        self.seq += 1;
        self.note(format!("{}{op:?}", if by.is_root() { "" } else { "user: " }));
        let (xid, call) = (fresh_xid(), op.call(tree));
        self.in_flight = Some(InFlight { xid, by, op: op.clone(), call: call.clone() });
        let results = self.call_by(by, xid, &call)?;
        self.in_flight = None;
        let answer = Answer::parse(call.procedure, &results);
        if or == Some(answer.status) {
            return Ok(answer);
        }
        if !by.is_root() && call.must_not_run_twice() {
            *self.of_user.entry(answer.status).or_default() += 1;
        }
        if call.must_not_run_twice() {
            self.last_once = Some((xid, by, call, results));
        }
        self.settle(tree, by, op, &answer, None);
        if answer.status == status::OK && self.made_stable(op, &answer) {
            let may_do_nothing = matches!(op, Op::Commit { .. } | Op::Setattr { .. } | Op::Rename { .. });
            let nothing = may_do_nothing && !answer.wcc.iter().any(Wcc::is_changed);
            self.stable = if nothing { self.stable.max(tree.since()) } else { self.seq };
            tree.settle(self.stable);
        }
        Ok(answer)
    }

    /// The user was let and was refused, each at least so often.
    pub fn check_user(&self, least: u64) {
        let often = |status: u32| self.of_user.get(&status).copied().unwrap_or(0) >= least;
        let all = [status::OK, status::ACCES, status::PERM].into_iter().all(often);
        assert!(all, "{}: the user's changes ended so (status, times): {:?}", self.who, self.of_user);
    }

    /// Everything up to here is on stable storage.
    pub fn stable(&mut self, tree: &mut Tree) {
        self.stable = self.seq;
        tree.settle(self.stable);
    }

    /// Whether the answer promises stable storage: then all before it is there too, as there is one log; or, where
    /// nothing is changed, as by a COMMIT, all before the newest change of that tree.
    fn made_stable(&self, op: &Op, answer: &Answer) -> bool {
        match op {
            Op::Write { .. } => answer.written.1 != Stable::Unstable as u32,
            Op::Getattr { .. } | Op::Lookup { .. } | Op::Readlink { .. } | Op::Read { .. } => false,
            _ => true,
        }
    }

    /// Compare the answer with what the tree says, and bring the tree up to it. After a crash an object may
    /// be in any of its states, and that narrows `window` down.
    fn settle(&mut self, tree: &mut Tree, by: Caller, op: &Op, answer: &Answer, window: Option<&mut Window>) {
        let verdict = op.verdict(tree, by);
        if !verdict.contains(&answer.status) {
            self.fail(format!("status {}, must be one of {verdict:?}", answer.status));
        }
        self.check_before(tree, op, answer);
        let wcc_of = wcc_objects(tree, op);
        if answer.status == status::OK {
            self.check_written(op, answer);
            self.check_data(tree, op, answer);
            self.apply(tree, by, op, answer, window);
        }
        for (id, wcc) in wcc_of.into_iter().zip(&answer.wcc) {
            if let Some(after) = &wcc.after {
                let seen = tree.observe(id, after, None);
                self.check(|| format!("attributes after, of {}", tree.path(id)), seen);
            }
        }
    }

    fn apply(&mut self, tree: &mut Tree, by: Caller, op: &Op, answer: &Answer, window: Option<&mut Window>) {
        let new = self.fresh_object();
        let object = tree.apply(op, by, answer, self.seq, new);
        if let (Some(id), Some(handle)) = (object, &answer.handle) {
            self.learn(tree, id, handle.clone(), answer.attr.as_ref());
        }
        let object = object.or_else(|| subject(op));
        if let (Some(id), Some(attr)) = (object, &answer.attr) {
            let seen = tree.observe(id, attr, window);
            self.check(|| format!("attributes of {}", tree.path(id)), seen);
        }
    }

    /// The attributes from before an operation are those that were seen last.
    fn check_before(&self, tree: &Tree, op: &Op, answer: &Answer) {
        for (id, wcc) in wcc_objects(tree, op).into_iter().zip(&answer.wcc) {
            if let Some(before) = &wcc.before {
                self.check(|| format!("attributes before, of {}", tree.path(id)), tree.observe_before(id, before));
            }
        }
    }

    fn check_written(&mut self, op: &Op, answer: &Answer) {
        if let Op::Write { data, stable, .. } = op {
            let (count, how) = answer.written;
            if count as usize != data.len || how < *stable as u32 {
                self.fail(format!("WRITE took {count} bytes, stable {how}"));
            }
        }
        if let Some(verifier) = answer.verifier {
            if self.instance.is_some_and(|known| known != verifier) {
                self.fail("the write verifier changed without a restart");
            }
            if self.before_crash == Some(verifier) {
                self.fail("the write verifier is that from before the restart");
            }
            self.instance = Some(verifier);
        }
    }

    fn check_data(&self, tree: &Tree, op: &Op, answer: &Answer) {
        match op {
            Op::Read { id, offset, count } => {
                let end = tree.attr(*id).size.min(offset + u64::from(*count)).max(*offset);
                let want = tree.content(*id).read(*offset, (end - offset) as usize);
                let eof = offset + answer.data.len() as u64 >= tree.attr(*id).size;
                let short = !answer.data.is_empty() && !eof;
                if answer.eof != eof || !want.starts_with(&answer.data) || (answer.data.len() < want.len() && !short) {
                    self.fail(format!("READ of {}: {}", tree.path(*id), difference(&want, &answer.data)));
                }
            }
            Op::Readlink { id } => match &tree.object(*id).kind {
                super::Kind::Link(target) if *target == answer.data => {}
                other => self.fail(format!("READLINK: {:?} of {other:?}", answer.data)),
            },
            _ => {}
        }
    }

    /// Remember how the server names an object; without attributes, ask for the fileid.
    pub fn learn(&mut self, tree: &mut Tree, id: ObjectId, handle: Handle, attr: Option<&Fattr>) {
        let fileid = match attr {
            Some(attr) => attr.fileid,
            None => match self.link.call(&Call::getattr(&handle)) {
                Ok(Answer { attr: Some(attr), .. }) => attr.fileid,
                other => self.fail(format!("GETATTR of a handle just given: {other:?}")),
            },
        };
        let named = tree.name(id, Identity { handle, fileid });
        self.check(|| format!("name of {}", tree.path(id)), named);
    }

    /// The last call that must not run twice is sent once more: it gets its first answer, bit for bit. A
    /// CREATE of what was there, which changed nothing, may run again after a crash: it means the same file.
    pub fn repeat_last(&mut self) -> io::Result<()> {
        let Some((xid, by, call, first)) = self.last_once.clone() else { return Ok(()) };
        let again = self.call_by(by, xid, &call)?;
        let same_file = || {
            let file = |results: &[u8]| Answer::parse(call.procedure, results).handle;
            call.procedure == CREATE && file(&again).is_some_and(|handle| file(&first) == Some(handle))
        };
        if again != first && !(self.before_crash.is_some() && same_file()) {
            self.fail(format!("procedure {} sent again: {again:?}, first {first:?}", call.procedure));
        }
        Ok(())
    }

    /// The server was killed and is there again; when it can have been, as far as is known.
    pub fn reconnect(&mut self, address: SocketAddr) -> io::Result<Window> {
        self.note("crash");
        self.link = Connection::open(address)?;
        self.before_crash = self.instance.take().or(self.before_crash);
        Ok(Window::since(self.stable))
    }

    /// The server stopped in order and is there again: nothing was lost.
    pub fn reconnect_after_stop(&mut self, address: SocketAddr) -> io::Result<()> {
        self.reconnect(address)?;
        self.stable = self.seq;
        Ok(())
    }

    /// As [`reconnect`](Self::reconnect), where all is about one tree: send again what was not answered, and
    /// find everything as a crash may have left it.
    pub fn recover(&mut self, tree: &mut Tree, address: SocketAddr) -> io::Result<()> {
        let mut window = self.reconnect(address)?;
        match self.in_flight.take() {
            Some(open) if open.op.may_run_twice() => {
                // It may have been done, in whole or in part; then it is done again.
                if open.op.verdict(tree, open.by) == [status::OK] {
                    tree.apply(&open.op, open.by, &Answer::default(), self.seq, 0);
                }
                self.compare_after(tree, &mut window)?;
                self.stable(tree);
                return self.run_again(tree, open);
            }
            Some(open) => self.send_again(tree, open, &mut window)?,
            None => self.repeat_last()?,
        }
        self.compare_after(tree, &mut window)?;
        self.stable(tree);
        Ok(())
    }

    /// What must not run twice gets its first answer, or is run now.
    fn send_again(&mut self, tree: &mut Tree, open: InFlight, window: &mut Window) -> io::Result<()> {
        self.note(format!("again: {:?}", open.op));
        let results = self.call_by(open.by, open.xid, &open.call)?;
        let answer = Answer::parse(open.call.procedure, &results);
        self.settle(tree, open.by, &open.op, &answer, Some(window));
        Ok(())
    }

    /// What may run twice: the answer may be the first one, whose attributes are from before the crash.
    fn run_again(&mut self, tree: &mut Tree, open: InFlight) -> io::Result<()> {
        self.seq += 1;
        self.note(format!("once more: {:?}", open.op));
        let results = self.call_by(open.by, open.xid, &open.call)?;
        let answer = Answer::parse(open.call.procedure, &results);
        let verdict = open.op.verdict(tree, open.by);
        if !verdict.contains(&answer.status) {
            self.fail(format!("once more: status {}, must be one of {verdict:?}", answer.status));
        }
        if answer.status == status::OK {
            tree.apply(&open.op, open.by, &answer, self.seq, 0);
            tree.recall(&open.op);
            if self.made_stable(&open.op, &answer) {
                self.stable(tree);
            }
        }
        Ok(())
    }

    /// After a crash everything was looked at: nothing is uncertain any more.
    pub fn all_certain(&mut self) {
        self.stable = self.seq;
    }

    /// Everything that uncertain trees show was synced, by an operation on views.
    pub fn synced(&mut self, tree: &mut Tree) {
        if !tree.is_certain() {
            self.stable(tree);
        }
    }
}

/// What an answer's attributes without a handle are of.
fn subject(op: &Op) -> Option<ObjectId> {
    match op {
        Op::Getattr { id } | Op::Readlink { id } | Op::Read { id, .. } | Op::Link { id, .. } => Some(*id),
        _ => None,
    }
}

/// What is there now under the names of an operation.
fn named_objects(tree: &Tree, op: &Op) -> Vec<ObjectId> {
    let named = match op {
        Op::Create { dir, name, .. }
        | Op::Mkdir { dir, name, .. }
        | Op::Symlink { dir, name, .. }
        | Op::Mknod { dir, name, .. }
        | Op::Link { dir, name, .. }
        | Op::Lookup { dir, name }
        | Op::Remove { dir, name }
        | Op::Rmdir { dir, name }
        | Op::Rename { to: (dir, name), .. } => tree.lookup(*dir, &name.0),
        _ => None,
    };
    named.into_iter().collect()
}

/// What the `wcc_data` of an answer are of.
fn wcc_objects(tree: &Tree, op: &Op) -> Vec<ObjectId> {
    let ids = match op {
        Op::Setattr { id, .. } | Op::Write { id, .. } | Op::Commit { id } => vec![*id],
        Op::Lookup { dir, .. }
        | Op::Create { dir, .. }
        | Op::Mkdir { dir, .. }
        | Op::Symlink { dir, .. }
        | Op::Mknod { dir, .. }
        | Op::Remove { dir, .. }
        | Op::Rmdir { dir, .. }
        | Op::Link { dir, .. } => vec![*dir],
        Op::Rename { from, to } => vec![from.0, to.0],
        Op::Getattr { .. } | Op::Readlink { .. } | Op::Read { .. } => Vec::new(),
    };
    ids.into_iter().filter(|id| tree.objects.contains_key(id)).collect()
}

/// The first place where two runs of bytes differ.
pub fn difference(want: &[u8], got: &[u8]) -> String {
    let at = want.iter().zip(got).position(|(a, b)| a != b).unwrap_or(want.len().min(got.len()));
    let near = |bytes: &[u8]| format!("{:02x?}", &bytes[at..(at + 8).min(bytes.len())]);
    format!("at byte {at} of {}: {} instead of {}", want.len(), near(got), near(want))
}

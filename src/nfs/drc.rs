//! The duplicate request cache: a call that must not run twice gets its first answer again.
//!
//! Owns the answers of the procedures that change names and attributes (SETATTR, CREATE, MKDIR, SYMLINK,
//! MKNOD, REMOVE, RMDIR, RENAME, LINK), found by a digest of client address, transaction id, user,
//! procedure and arguments, and the set of open connections. A call that comes again while the first
//! still runs waits for it. A call from another connection is a repetition only if the first connection
//! is closed, or belongs to an earlier start: clients send again over a new connection when they lost
//! the old one, and two clients behind one address may choose the same transaction id.
//!
//! Invariants: done answers take at most [`MAX_BYTES`], least recently used dropped first; running ones
//! are bounded by what connections may have in flight. An answer is here before it is sent, and if it
//! did change something it is in the log with the change, so that it is here again after a crash.
//!
//! Failure story: a call that ends without an answer (its connection broke before it did anything, or
//! it is to be tried again later) leaves no trace, and whoever waits for it runs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::proc3;
use super::rpc::{Call, Credential, NOBODY};
use crate::vfs::{Durable, ReceiptKey};

/// Memory of done answers, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// What an answer takes beyond its bytes, about.
const ENTRY: usize = 256;

/// A connection of this start; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

/// What a call was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Encoded, without the reply's header.
    pub results: Bytes,
    /// It may be sent when this is on stable storage.
    pub durable: Option<Durable>,
}

/// What is to be done about a call.
pub enum Turn {
    /// Run it: it is the first of its kind.
    First(Claim),
    /// Ask again when this changes or closes: the first still runs.
    Wait(watch::Receiver<()>),
    /// It was answered.
    Again(Answer),
}

/// What identifies a call that must not run twice; `None` for one that may.
pub fn key(client: IpAddr, call: &Call<'_>) -> Option<ReceiptKey> {
    if (call.program, call.version) != (proc3::PROGRAM, proc3::VERSION) || !proc3::runs_once(call.procedure) {
        return None;
    }
    let client = match client.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let user = match call.credential {
        Credential::None => NOBODY,
        Credential::Sys { uid, .. } => uid,
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&client);
    for word in [call.xid, user, call.procedure] {
        hasher.update(&word.to_be_bytes());
    }
    hasher.update(call.arguments);
    Some(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// The key of a call whose own key belongs to another open connection.
fn key_on(key: ReceiptKey, connection: ConnectionId) -> ReceiptKey {
    let mut own = key;
    own.iter_mut().zip(connection.0.to_be_bytes()).for_each(|(byte, id)| *byte ^= id);
    own
}

pub struct Drc(Mutex<State>);

#[derive(Default)]
struct State {
    calls: HashMap<ReceiptKey, Entry>,
    /// The done ones, least recently used first.
    by_use: BTreeMap<u64, ReceiptKey>,
    next_use: u64,
    /// What the done ones take.
    bytes: usize,
    open: HashSet<ConnectionId>,
    next_connection: u64,
}

struct Entry {
    /// `None`: of an earlier start.
    connection: Option<ConnectionId>,
    phase: Phase,
}

enum Phase {
    /// Dropped when it is done; there is one as soon as somebody waits.
    Running(Option<watch::Sender<()>>),
    Done {
        answer: Answer,
        used: u64,
    },
}

impl Drc {
    /// With the answers of earlier starts, oldest first.
    pub fn new(receipts: Vec<(ReceiptKey, Bytes)>) -> Arc<Self> {
        let mut state = State::default();
        for (key, results) in receipts {
            state.put_done(key, None, Answer { results, durable: None });
        }
        Arc::new(Self(Mutex::new(state)))
    }

    /// A connection was opened.
    pub fn connect(self: &Arc<Self>) -> Presence {
        let mut state = self.0.lock();
        let id = ConnectionId(state.next_connection);
        state.next_connection += 1;
        state.open.insert(id);
        Presence { drc: Arc::clone(self), id }
    }

    /// What is to be done about the call `key`, which came over `connection`.
    pub fn turn(self: &Arc<Self>, key: ReceiptKey, connection: ConnectionId) -> Turn {
        let mut state = self.0.lock();
        let key = state.key_for(key, connection);
        let State { calls, next_use, by_use, .. } = &mut *state;
        match calls.get_mut(&key).map(|entry| &mut entry.phase) {
            Some(Phase::Done { answer, used }) => {
                by_use.remove(used);
                *used = *next_use;
                by_use.insert(*next_use, key);
                *next_use += 1;
                Turn::Again(answer.clone())
            }
            Some(Phase::Running(done)) => Turn::Wait(done.get_or_insert_with(|| watch::Sender::new(())).subscribe()),
            None => {
                calls.insert(key, Entry { connection: Some(connection), phase: Phase::Running(None) });
                Turn::First(Claim { drc: Arc::clone(self), key, connection, done: false })
            }
        }
    }
}

impl State {
    /// The key under which a call of this connection is found, or is put if it is new.
    fn key_for(&self, key: ReceiptKey, connection: ConnectionId) -> ReceiptKey {
        let Some(first) = self.calls.get(&key).and_then(|entry| entry.connection) else { return key };
        let own = key_on(key, connection);
        let is_others = first != connection && (self.open.contains(&first) || self.calls.contains_key(&own));
        if is_others { own } else { key }
    }

    fn put_done(&mut self, key: ReceiptKey, connection: Option<ConnectionId>, answer: Answer) {
        self.bytes += answer.results.len() + ENTRY;
        let used = self.next_use;
        self.next_use += 1;
        self.by_use.insert(used, key);
        let former = self.calls.insert(key, Entry { connection, phase: Phase::Done { answer, used } });
        self.forget_done(former);
        while self.bytes > MAX_BYTES
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            let oldest = self.calls.remove(&oldest);
            self.forget_done(oldest);
        }
    }

    /// An entry is not in the map any more.
    fn forget_done(&mut self, entry: Option<Entry>) {
        if let Some(Entry { phase: Phase::Done { answer, used }, .. }) = entry {
            self.by_use.remove(&used);
            self.bytes -= answer.results.len() + ENTRY;
        }
    }
}

/// The right to run a call. Dropped without an answer, the next who asks gets it.
pub struct Claim {
    drc: Arc<Drc>,
    key: ReceiptKey,
    connection: ConnectionId,
    done: bool,
}

impl Claim {
    pub fn key(&self) -> ReceiptKey {
        self.key
    }

    /// This is the call's answer from now on.
    pub fn answer(mut self, answer: Answer) {
        self.done = true;
        self.drc.0.lock().put_done(self.key, Some(self.connection), answer);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.done {
            self.drc.0.lock().calls.remove(&self.key);
        }
    }
}

/// An open connection; closed when dropped.
pub struct Presence {
    drc: Arc<Drc>,
    id: ConnectionId,
}

impl Presence {
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The client has closed its end: what it sends again comes over another connection.
    pub fn close(&self) {
        self.drc.0.lock().open.remove(&self.id);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ReceiptKey = [7; 16];

    fn done(results: &'static [u8]) -> Answer {
        Answer { results: Bytes::from_static(results), durable: None }
    }

    fn first(turn: Turn) -> Claim {
        match turn {
            Turn::First(claim) => claim,
            Turn::Wait(_) => panic!("it is said to run"),
            Turn::Again(answer) => panic!("it is said to be done: {answer:?}"),
        }
    }

    fn again(turn: Turn) -> Bytes {
        match turn {
            Turn::Again(answer) => answer.results,
            Turn::First(_) => panic!("it is not known"),
            Turn::Wait(_) => panic!("it is said to run"),
        }
    }

    #[test]
    fn a_repeated_call_gets_the_first_answer() {
        let drc = Drc::new(Vec::new());
        let here = drc.connect();
        first(drc.turn(KEY, here.id())).answer(done(b"first"));
        for _ in 0..3 {
            assert_eq!(again(drc.turn(KEY, here.id())), b"first"[..]);
        }
        first(drc.turn([8; 16], here.id()));
    }

    #[test]
    fn another_connection_gets_it_only_when_the_first_is_closed() {
        let drc = Drc::new(Vec::new());
        let (here, there) = (drc.connect(), drc.connect());
        first(drc.turn(KEY, here.id())).answer(done(b"here"));
        first(drc.turn(KEY, there.id())).answer(done(b"there"));
        assert_eq!(again(drc.turn(KEY, here.id())), b"here"[..]);
        assert_eq!(again(drc.turn(KEY, there.id())), b"there"[..]);
        drop(here);
        assert_eq!(again(drc.turn(KEY, there.id())), b"there"[..], "its own answer all the same");
        assert_eq!(again(drc.turn(KEY, drc.connect().id())), b"here"[..]);
    }

    #[test]
    fn a_connection_is_closed_when_its_client_has_closed_it() {
        let drc = Drc::new(Vec::new());
        let (here, there) = (drc.connect(), drc.connect());
        first(drc.turn(KEY, here.id())).answer(done(b"here"));
        here.close();
        assert_eq!(again(drc.turn(KEY, there.id())), b"here"[..]);
    }

    #[test]
    fn answers_of_an_earlier_start_match_any_connection() {
        let drc = Drc::new(vec![(KEY, Bytes::from_static(b"before"))]);
        assert_eq!(again(drc.turn(KEY, drc.connect().id())), b"before"[..]);
    }

    #[tokio::test]
    async fn who_comes_while_the_first_runs_waits_for_it() {
        let drc = Drc::new(Vec::new());
        let here = drc.connect();
        let claim = first(drc.turn(KEY, here.id()));
        let Turn::Wait(mut running) = drc.turn(KEY, here.id()) else { panic!("it runs") };
        claim.answer(done(b"first"));
        assert!(running.changed().await.is_err());
        assert_eq!(again(drc.turn(KEY, here.id())), b"first"[..]);
    }

    #[tokio::test]
    async fn a_call_that_ends_without_an_answer_leaves_its_turn_to_the_next() {
        let drc = Drc::new(Vec::new());
        let here = drc.connect();
        let claim = first(drc.turn(KEY, here.id()));
        let Turn::Wait(mut running) = drc.turn(KEY, here.id()) else { panic!("it runs") };
        drop(claim);
        assert!(running.changed().await.is_err());
        first(drc.turn(KEY, here.id()));
    }

    #[test]
    fn memory_is_bounded_and_the_least_recently_used_goes_first() {
        let drc = Drc::new(Vec::new());
        let here = drc.connect();
        let key = |n: u32| {
            let mut key = [0; 16];
            key[12..].copy_from_slice(&n.to_be_bytes());
            key
        };
        let answer = Bytes::from(vec![0; 1024 - ENTRY]);
        let many = (MAX_BYTES / 1024) as u32;
        for n in 0..many {
            first(drc.turn(key(n), here.id())).answer(Answer { results: answer.clone(), durable: None });
        }
        again(drc.turn(key(0), here.id()));
        first(drc.turn(key(many), here.id())).answer(done(b""));
        again(drc.turn(key(0), here.id()));
        again(drc.turn(key(2), here.id()));
        first(drc.turn(key(1), here.id()));
        assert!(drc.0.lock().bytes <= MAX_BYTES);
    }
}

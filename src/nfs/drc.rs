//! The duplicate request cache: a call that must not run twice gets its first answer again.
//!
//! Owns the answers of the procedures that change names and attributes (SETATTR, CREATE, MKDIR, SYMLINK,
//! MKNOD, REMOVE, RMDIR, RENAME, LINK), found by a digest of client address, transaction id, user,
//! procedure and arguments, and by the client's port; and the set of peers that are connected. A call that
//! comes again while the first still runs waits for it. Linux clients send again from the port that they
//! had. From another port it is a repetition only if nobody is connected from the first one: other clients
//! take a new port when they lost the old connection, and two clients behind one address, which may choose
//! the same transaction id, have a port each.
//!
//! Invariants: done answers take at most [`MAX_BYTES`] and are kept for [`MAX_AGE`], those of earlier starts
//! from the start on; the oldest go first. Running ones are bounded by what connections may have in flight.
//! An answer is here before it is sent, and if it did change something it is in the log with the change, so
//! that it is here again after a crash.
//!
//! Failure story: a call that ends without an answer (its connection broke before it did anything, or
//! it is to be tried again later) leaves no trace, and whoever waits for it runs.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::proc3;
use super::rpc::{Call, Credential};
use crate::vfs::{Durable, ReceiptKey};

/// Memory of done answers, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// What an answer takes beyond its bytes, about.
const ENTRY: usize = 256;
/// How long an answer is kept: clients that found the server away try again after minutes at the latest.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// Bytes of a key that are the digest; the others are the client's port.
const DIGEST: usize = size_of::<ReceiptKey>() - size_of::<u16>();

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

/// A call that must not run twice, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct CallId {
    client: IpAddr,
    key: ReceiptKey,
}

impl CallId {
    /// `None` for a call that may run twice.
    pub fn of(peer: SocketAddr, call: &Call<'_>) -> Option<Self> {
        if (call.program, call.version) != (proc3::PROGRAM, proc3::VERSION) || !proc3::runs_once(call.procedure) {
            return None;
        }
        let client = peer.ip().to_canonical();
        let address = match client {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let (flavour, user) = match call.credential {
            Credential::None => (0, 0),
            Credential::Sys { uid, .. } => (1, uid),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&address);
        for word in [call.xid, flavour, user, call.procedure] {
            hasher.update(&word.to_be_bytes());
        }
        hasher.update(call.arguments);
        let digest = hasher.finalize();
        Some(Self::new(client, *digest.as_bytes().first_chunk().expect("a hash has 32 bytes"), peer.port()))
    }

    fn new(client: IpAddr, digest: [u8; DIGEST], port: u16) -> Self {
        let mut key = [0; size_of::<ReceiptKey>()];
        key[..DIGEST].copy_from_slice(&digest);
        key[DIGEST..].copy_from_slice(&port.to_be_bytes());
        Self { client, key }
    }

    /// The same call from any port.
    fn on_any_port(&self) -> std::ops::RangeInclusive<ReceiptKey> {
        let (mut first, mut last) = (self.key, self.key);
        first[DIGEST..].fill(0);
        last[DIGEST..].fill(u8::MAX);
        first..=last
    }

    /// The peer whose call of the same digest `key` is.
    fn peer(&self, key: &ReceiptKey) -> SocketAddr {
        let port = key.last_chunk().expect("a key ends with a port");
        SocketAddr::new(self.client, u16::from_be_bytes(*port))
    }
}

pub struct Drc(Mutex<State>);

#[derive(Default)]
struct State {
    /// Ordered, so that one call from several ports is found together.
    calls: BTreeMap<ReceiptKey, Phase>,
    /// The done ones, oldest first.
    by_age: BTreeMap<u64, ReceiptKey>,
    next: u64,
    /// What the done ones take.
    bytes: usize,
    /// How many connections each peer has: more than one while an old one is not seen to be dead.
    connected: HashMap<SocketAddr, usize>,
}

enum Phase {
    /// Dropped when it is done; there is one as soon as somebody waits.
    Running(Option<watch::Sender<()>>),
    Done {
        answer: Answer,
        number: u64,
        /// When it was given, by the clock's uptime.
        given: Duration,
    },
}

impl Drc {
    /// With the answers of earlier starts, oldest first.
    pub fn new(receipts: Vec<(ReceiptKey, Bytes)>, now: Duration) -> Arc<Self> {
        let mut state = State::default();
        for (key, results) in receipts {
            state.put_done(key, Answer { results, durable: None }, now);
        }
        Arc::new(Self(Mutex::new(state)))
    }

    /// A connection was opened.
    pub fn connect(self: &Arc<Self>, peer: SocketAddr) -> Presence {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        *self.0.lock().connected.entry(peer).or_default() += 1;
        Presence { drc: Arc::clone(self), peer: Some(peer) }
    }

    /// What is to be done about a call.
    pub fn turn(self: &Arc<Self>, call: &CallId, now: Duration) -> Turn {
        let mut state = self.0.lock();
        state.drop_old(now);
        let found = state.find(call).and_then(|key| state.calls.get_mut(&key));
        match found {
            Some(Phase::Done { answer, .. }) => Turn::Again(answer.clone()),
            Some(Phase::Running(done)) => Turn::Wait(done.get_or_insert_with(|| watch::Sender::new(())).subscribe()),
            None => {
                state.calls.insert(call.key, Phase::Running(None));
                Turn::First(Claim { drc: Arc::clone(self), key: call.key, done: false })
            }
        }
    }
}

impl State {
    /// The same call: its peer's own, or that of one who is not connected any more.
    fn find(&self, call: &CallId) -> Option<ReceiptKey> {
        if self.calls.contains_key(&call.key) {
            return Some(call.key);
        }
        let mut others = self.calls.range(call.on_any_port()).map(|(key, _)| *key);
        others.find(|key| !self.connected.contains_key(&call.peer(key)))
    }

    fn put_done(&mut self, key: ReceiptKey, answer: Answer, now: Duration) {
        self.bytes += answer.results.len() + ENTRY;
        let number = self.next;
        self.next += 1;
        self.by_age.insert(number, key);
        let former = self.calls.insert(key, Phase::Done { answer, number, given: now });
        self.forget_done(former);
        while self.bytes > MAX_BYTES && self.drop_oldest() {}
    }

    fn drop_old(&mut self, now: Duration) {
        let is_old = |state: &Self| match state.by_age.first_key_value().and_then(|(_, key)| state.calls.get(key)) {
            Some(Phase::Done { given, .. }) => now.saturating_sub(*given) > MAX_AGE,
            _ => false,
        };
        while is_old(self) {
            self.drop_oldest();
        }
    }

    /// Drop the oldest done answer; whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let Some((_, key)) = self.by_age.pop_first() else { return false };
        let oldest = self.calls.remove(&key);
        self.forget_done(oldest);
        true
    }

    /// An entry is not in the map any more.
    fn forget_done(&mut self, phase: Option<Phase>) {
        if let Some(Phase::Done { answer, number, .. }) = phase {
            self.by_age.remove(&number);
            self.bytes -= answer.results.len() + ENTRY;
        }
    }
}

/// The right to run a call. Dropped without an answer, the next who asks gets it.
pub struct Claim {
    drc: Arc<Drc>,
    key: ReceiptKey,
    done: bool,
}

impl Claim {
    pub fn key(&self) -> ReceiptKey {
        self.key
    }

    /// This is the call's answer from now on.
    pub fn answer(mut self, answer: Answer, now: Duration) {
        self.done = true;
        self.drc.0.lock().put_done(self.key, answer, now);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.done {
            self.drc.0.lock().calls.remove(&self.key);
        }
    }
}

/// An open connection of a peer; closed when dropped.
pub struct Presence {
    drc: Arc<Drc>,
    /// `None`: closed.
    peer: Option<SocketAddr>,
}

impl Presence {
    /// The client has closed its end: what it sends again comes over another connection.
    pub fn close(&mut self) {
        let Some(peer) = self.peer.take() else { return };
        let mut state = self.drc.0.lock();
        if let Some(count) = state.connected.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                state.connected.remove(&peer);
            }
        }
    }

    pub fn is_closed(&self) -> bool {
        self.peer.is_none()
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

    const START: Duration = Duration::ZERO;

    fn peer(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    /// The call, as it comes from a port.
    fn call(port: u16) -> CallId {
        CallId::new(peer(port).ip(), [7; DIGEST], port)
    }

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
        let drc = Drc::new(Vec::new(), START);
        let _here = drc.connect(peer(1));
        first(drc.turn(&call(1), START)).answer(done(b"first"), START);
        for _ in 0..3 {
            assert_eq!(again(drc.turn(&call(1), START)), b"first"[..]);
        }
        first(drc.turn(&CallId::new(peer(1).ip(), [8; DIGEST], 1), START));
    }

    #[test]
    fn another_port_gets_it_only_when_nobody_is_connected_from_the_first() {
        let drc = Drc::new(Vec::new(), START);
        let (here, _there) = (drc.connect(peer(1)), drc.connect(peer(2)));
        first(drc.turn(&call(1), START)).answer(done(b"here"), START);
        first(drc.turn(&call(2), START)).answer(done(b"there"), START);
        assert_eq!(again(drc.turn(&call(1), START)), b"here"[..]);
        assert_eq!(again(drc.turn(&call(2), START)), b"there"[..]);
        drop(here);
        assert_eq!(again(drc.turn(&call(2), START)), b"there"[..], "its own answer all the same");
        assert_eq!(again(drc.turn(&call(3), START)), b"here"[..]);
    }

    /// The server may hold the old connection of a port for open long after its client has another one.
    #[test]
    fn the_same_port_gets_it_whatever_became_of_the_first_connection() {
        let drc = Drc::new(Vec::new(), START);
        let old = drc.connect(peer(1));
        first(drc.turn(&call(1), START)).answer(done(b"first"), START);
        let _new = drc.connect(peer(1));
        assert_eq!(again(drc.turn(&call(1), START)), b"first"[..]);
        drop(old);
        first(drc.turn(&call(2), START));
    }

    #[test]
    fn a_mapped_address_is_the_address() {
        let drc = Drc::new(Vec::new(), START);
        let _here = drc.connect("[::ffff:10.0.0.1]:1".parse().unwrap());
        first(drc.turn(&call(1), START)).answer(done(b"here"), START);
        first(drc.turn(&call(2), START));
    }

    #[test]
    fn a_connection_is_closed_when_its_client_has_closed_it() {
        let drc = Drc::new(Vec::new(), START);
        let (mut here, _there) = (drc.connect(peer(1)), drc.connect(peer(2)));
        first(drc.turn(&call(1), START)).answer(done(b"here"), START);
        here.close();
        assert_eq!(again(drc.turn(&call(2), START)), b"here"[..]);
    }

    #[test]
    fn after_a_restart_each_port_gets_its_own_answer_and_others_that_of_who_is_gone() {
        let receipt = |port, results: &'static [u8]| (call(port).key, Bytes::from_static(results));
        let drc = Drc::new(vec![receipt(1, b"here"), receipt(2, b"there")], START);
        let _there = drc.connect(peer(2));
        assert_eq!(again(drc.turn(&call(2), START)), b"there"[..]);
        assert_eq!(again(drc.turn(&call(3), START)), b"here"[..]);
        let _here = drc.connect(peer(1));
        first(drc.turn(&call(3), START));
        assert_eq!(again(drc.turn(&call(1), START)), b"here"[..]);
    }

    #[test]
    fn answers_are_dropped_when_they_are_old() {
        let drc = Drc::new(vec![(call(1).key, Bytes::from_static(b"before"))], START);
        let later = Duration::from_secs(60);
        let other = CallId::new(peer(1).ip(), [8; DIGEST], 1);
        first(drc.turn(&other, later)).answer(done(b"later"), later);
        assert_eq!(again(drc.turn(&call(1), MAX_AGE)), b"before"[..]);
        first(drc.turn(&call(1), MAX_AGE + later));
        assert_eq!(again(drc.turn(&other, MAX_AGE + later)), b"later"[..]);
        first(drc.turn(&other, MAX_AGE + 2 * later));
        assert_eq!(drc.0.lock().bytes, 0);
    }

    #[tokio::test]
    async fn who_comes_while_the_first_runs_waits_for_it() {
        let drc = Drc::new(Vec::new(), START);
        let claim = first(drc.turn(&call(1), START));
        for port in [1, 2] {
            assert!(matches!(drc.turn(&call(port), START), Turn::Wait(_)), "port {port}");
        }
        let Turn::Wait(mut running) = drc.turn(&call(1), START) else { panic!("it runs") };
        claim.answer(done(b"first"), START);
        assert!(running.changed().await.is_err());
        assert_eq!(again(drc.turn(&call(1), START)), b"first"[..]);
    }

    #[tokio::test]
    async fn a_call_that_ends_without_an_answer_leaves_its_turn_to_the_next() {
        let drc = Drc::new(Vec::new(), START);
        let claim = first(drc.turn(&call(1), START));
        let Turn::Wait(mut running) = drc.turn(&call(1), START) else { panic!("it runs") };
        drop(claim);
        assert!(running.changed().await.is_err());
        first(drc.turn(&call(1), START));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let drc = Drc::new(Vec::new(), START);
        let id = |n: u32| {
            let mut digest = [0; DIGEST];
            digest[..4].copy_from_slice(&n.to_be_bytes());
            CallId::new(peer(1).ip(), digest, 1)
        };
        let answer = Answer { results: vec![0; 1024 - ENTRY].into(), durable: None };
        let many = (MAX_BYTES / 1024) as u32;
        for n in 0..many {
            first(drc.turn(&id(n), START)).answer(answer.clone(), START);
        }
        first(drc.turn(&id(many), START)).answer(done(b""), START);
        again(drc.turn(&id(1), START));
        first(drc.turn(&id(0), START));
        assert!(drc.0.lock().bytes <= MAX_BYTES);
    }
}

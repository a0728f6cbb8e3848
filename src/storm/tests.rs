//! Order, pace and omission: plans and schedules by themselves, then a client against a server of a few lines.

use std::sync::Arc;
use std::time::Duration;

use super::plan::{Objects, Plan, StepId};
use super::schedule::{Due, Pace, Schedule, Tempo};
use crate::trace::{Call, Name, NameVerb, Node, NodeId, Op, Verb};

const DIR: NodeId = NodeId(1);
const FILE: NodeId = NodeId(2);
/// Its place was not found when it was recorded.
const STRAY: NodeId = NodeId(3);

fn name(text: &str) -> Name {
    text.as_bytes().into()
}

fn objects() -> Arc<Objects> {
    let node = |parent, text: &str| Node { parent, name: name(text) };
    let nodes = vec![node(None, ""), node(Some(NodeId::ROOT), "etc"), node(Some(DIR), "hosts"), node(None, "")];
    Arc::new(Objects::new(nodes))
}

fn op(at_millis: u64, took_millis: u64, call: Call) -> Op {
    Op { at_micros: at_millis * 1000, took_micros: took_millis * 1000, uid: 0, gid: 0, status: 0, call }
}

fn look_up(dir: NodeId, text: &str, object: NodeId) -> Call {
    Call::Name { dir, name: name(text), verb: NameVerb::Lookup, object: Some(object) }
}

fn read(object: NodeId, offset: u64) -> Call {
    Call::Object { object, verb: Verb::Read { offset, len: 4096, got: 4096 } }
}

fn plan(ops: &[Op]) -> Arc<Plan> {
    Arc::new(Plan::of_ops(objects(), ops, ops[0].at_micros))
}

/// Two lookups one after the other; two reads at once; one more when the client had thought 30 ms.
fn boot() -> Arc<Plan> {
    plan(&[
        op(100, 10, look_up(NodeId::ROOT, "etc", DIR)),
        op(110, 10, look_up(DIR, "hosts", FILE)),
        op(120, 20, read(FILE, 0)),
        op(121, 5, read(FILE, 4096)),
        op(170, 10, read(FILE, 8192)),
    ])
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn tempo(pace: Pace) -> Tempo {
    Tempo { pace, speed: 1.0 }
}

/// Run a schedule against a server that answers after `took`: when each step was due and went out, in order.
fn run(mut schedule: Schedule, took: impl Fn(Duration) -> Duration) -> Vec<(usize, Due)> {
    let mut sent = Vec::new();
    let mut under_way: Vec<(Duration, StepId)> = Vec::new();
    let mut now = Duration::ZERO;
    while !schedule.is_done() {
        while let Some(due) = schedule.take(now) {
            sent.push((due.step.index(), due));
            under_way.push((now + took(now), due.step));
        }
        under_way.sort_unstable();
        let answer = under_way.first().map(|(at, _)| *at);
        now = answer.into_iter().chain(schedule.next_at()).min().expect("something is to come");
        if answer == Some(now) {
            schedule.finish(under_way.remove(0).1, now);
        }
    }
    sent
}

#[test]
fn a_closed_loop_keeps_order_and_think_times_on_a_faster_server() {
    let sent = run(Schedule::new(boot(), tempo(Pace::Closed), Duration::ZERO), |_| ms(1));
    let at: Vec<_> = sent.iter().map(|(step, due)| (*step, due.at)).collect();
    // Both reads follow the second lookup, the other 1 ms of thought later; the last follows the slower of them
    // after the 30 ms that the client thought when it was recorded.
    assert_eq!(at, [(0, ms(0)), (1, ms(1)), (2, ms(2)), (3, ms(3)), (4, ms(33))]);
    assert!(sent.iter().all(|(_, due)| due.intended == due.at));
}

#[test]
fn a_closed_loop_waits_for_a_slower_server() {
    let sent = run(Schedule::new(boot(), tempo(Pace::Closed), Duration::ZERO), |_| ms(100));
    let at: Vec<_> = sent.iter().map(|(step, due)| (*step, due.at)).collect();
    assert_eq!(at, [(0, ms(0)), (1, ms(100)), (2, ms(200)), (3, ms(201)), (4, ms(330))]);
}

#[test]
fn an_open_loop_counts_from_the_intended_start() {
    let sent = run(Schedule::new(boot(), tempo(Pace::Open), Duration::ZERO), |_| ms(100));
    let times: Vec<_> = sent.iter().map(|(step, due)| (*step, due.intended, due.at)).collect();
    // Handles cannot be had before their answers; the time until then is latency, not silence.
    assert_eq!(
        times,
        [(0, ms(0), ms(0)), (1, ms(10), ms(100)), (2, ms(20), ms(200)), (3, ms(21), ms(200)), (4, ms(70), ms(200))]
    );
}

/// Ten reads, one each 10 ms; the server stalls for 80 ms once. A closed loop sees one slow call, an open loop
/// all that should have been asked meanwhile.
#[test]
fn a_stall_is_not_omitted() {
    let ops: Vec<Op> = (0..10).map(|i| op(i * 10, 1, read(NodeId::ROOT, i * 4096))).collect();
    let stall = |now: Duration| if now < ms(80) { ms(80) - now } else { ms(1) };
    let slow = |pace| {
        let sent = run(Schedule::new(plan(&ops), tempo(pace), Duration::ZERO), stall);
        let latency = |due: &Due| due.at.max(due.intended) + stall(due.at) - due.intended;
        sent.iter().filter(|(_, due)| latency(due) > ms(15)).count()
    };
    assert_eq!((slow(Pace::Closed), slow(Pace::Open)), (1, 7));
}

#[test]
fn speed_scales_times_and_max_has_none() {
    let last = |speed| {
        let tempo = Tempo { pace: Pace::Closed, speed };
        run(Schedule::new(boot(), tempo, Duration::ZERO), |_| Duration::ZERO)[4].1.at
    };
    assert_eq!((last(1.0), last(10.0), last(f64::INFINITY)), (ms(30), ms(3), ms(0)));
}

#[test]
fn what_is_late_at_the_end_is_counted() {
    let mut schedule = Schedule::new(boot(), tempo(Pace::Open), Duration::ZERO);
    schedule.take(ms(0)).unwrap();
    assert_eq!((schedule.late(ms(5)), schedule.late(ms(21)), schedule.late(ms(500))), (0, 3, 4));
    let mut schedule = Schedule::new(boot(), tempo(Pace::Closed), Duration::ZERO);
    assert_eq!(schedule.late(ms(500)), 1, "who waits for an answer is not late in a closed loop");
    let due = schedule.take(ms(7)).unwrap();
    schedule.put_back(due, ms(900));
    assert_eq!(schedule.take(ms(500)), None);
    assert_eq!(schedule.take(ms(900)).unwrap().intended, due.intended, "its latency goes on");
}

#[test]
fn what_cannot_be_done_again_is_left_out() {
    let mount = op(0, 1, Call::Mount);
    let stray = op(10, 1, read(STRAY, 0));
    let known = op(20, 1, read(FILE, 0));
    let plan = plan(&[mount, stray, known]);
    assert_eq!((plan.len(), plan.left_out), (1, 1), "the mount is each client's own");
    assert_eq!(plan.step(StepId::from_index(0)).needs(Pace::Closed), 0, "what it would have waited for is gone");
    let found = op(5, 1, look_up(NodeId::ROOT, "x", STRAY));
    assert_eq!(self::plan(&[found, op(10, 1, read(STRAY, 0))]).left_out, 0, "an answer gives its handle");
}

mod against_a_server {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::nfs::xdr::{Decoder, Encode};
    use crate::storm::wire::{MOUNT, READ, status};
    use crate::storm::{Caller, Load, Outcome, Ramp, Settings, Target, Workload, run};

    thread_local! {
        /// Of all calls that this test's server saw.
        static XIDS: std::cell::RefCell<Vec<u32>> = const { std::cell::RefCell::new(Vec::new()) };
    }

    /// What a call of this server is answered with.
    type Answer = fn(program: u32, procedure: u32, nth: u32) -> What;

    enum What {
        Results(Vec<u8>),
        Hang,
        Close,
    }

    fn words(words: &[u32]) -> What {
        let mut bytes = Vec::new();
        words.iter().for_each(|word| bytes.put_u32(*word));
        What::Results(bytes)
    }

    /// A handle that is good for everything, and no attributes.
    const HANDLE: [u32; 2] = [4, 0x0102_0304];

    fn good(program: u32, procedure: u32) -> What {
        match (program, procedure) {
            (MOUNT, _) => words(&[0, HANDLE[0], HANDLE[1], 0]),
            (_, 3) => words(&[0, HANDLE[0], HANDLE[1], 0, 0]),
            (_, READ) => words(&[0, 0, 4, 1, 4, 0xdead_beef]),
            _ => words(&[0; 8]),
        }
    }

    /// One task for each connection; `nth` counts the calls of all of them.
    async fn serve(answer: Answer) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, answer, calls.clone()));
            }
        });
        address
    }

    async fn connection(mut stream: TcpStream, answer: Answer, calls: Arc<std::sync::atomic::AtomicU32>) {
        let mut mark = [0; 4];
        while stream.read_exact(&mut mark).await.is_ok() {
            let mut record = vec![0; (u32::from_be_bytes(mark) & 0x7fff_ffff) as usize];
            stream.read_exact(&mut record).await.unwrap();
            let mut call = Decoder::new(&record);
            let head: Vec<u32> = (0..6).map(|_| call.u32().unwrap()).collect();
            let nth = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            XIDS.with_borrow_mut(|xids| xids.push(head[0]));
            let results = match answer(head[3], head[5], nth) {
                What::Results(results) => results,
                What::Hang => continue,
                What::Close => return,
            };
            let mut reply = Vec::new();
            [0, head[0], 1, 0, 0, 0, 0].iter().for_each(|word| reply.put_u32(*word));
            reply.extend_from_slice(&results);
            let len = reply.len() as u32 - 4;
            reply[..4].copy_from_slice(&(len | 1 << 31).to_be_bytes());
            stream.write_all(&reply).await.unwrap();
        }
    }

    async fn storm(answer: Answer, timeout: Duration) -> Outcome {
        let address = serve(answer).await;
        let settings = Settings {
            exports: "/x".parse().unwrap(),
            clients: 1,
            first: 0,
            ramp: Ramp::All,
            tempo: tempo(Pace::Closed),
            duration: None,
            timeout,
            jukebox_pause: ms(50),
            window: 4,
            caller: Caller::default(),
            seed: 1,
        };
        let target = Target { nfs: address, mount: address };
        let workload = Workload::new(Load::Replay(boot()), None);
        run(settings, target, workload, std::future::pending(), |_| {}).await.unwrap()
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_client_boots() {
        let Outcome { tally, .. } = storm(|program, procedure, _| good(program, procedure), PATIENCE).await;
        assert_eq!((tally.boots.len(), tally.counts.failed, tally.counts.bytes_read), (1, 0, 12));
        assert!(tally.errors.is_empty(), "{:?}", tally.errors);
        assert_eq!(tally.all().latency.len(), 6, "MNT, two lookups, three reads");
    }

    /// Its calls must not be taken for those of the storm before, which a server may remember: it would answer them
    /// without doing them.
    #[tokio::test]
    async fn a_storm_that_is_repeated_has_other_transaction_ids() {
        let answer: Answer = |program, procedure, _| good(program, procedure);
        storm(answer, PATIENCE).await;
        let first = XIDS.take();
        storm(answer, PATIENCE).await;
        assert!(!first.is_empty() && first.iter().all(|xid| !XIDS.with_borrow(|xids| xids.contains(xid))));
    }

    /// The connection is lost under the second lookup: it is sent again, nothing is mounted again.
    #[tokio::test]
    async fn a_lost_connection_is_made_again() {
        let answer: Answer = |program, procedure, nth| if nth == 2 { What::Close } else { good(program, procedure) };
        let Outcome { tally, .. } = storm(answer, PATIENCE).await;
        let counts = tally.counts;
        assert_eq!((tally.boots.len(), counts.mounted, counts.reconnects, counts.retransmissions), (1, 1, 1, 1));
    }

    /// An answer never comes: its call is sent again on another connection, and its latency is that of the first.
    #[tokio::test]
    async fn a_call_without_an_answer_is_sent_again() {
        let answer: Answer = |program, procedure, nth| if nth == 2 { What::Hang } else { good(program, procedure) };
        let patience = ms(200);
        let Outcome { tally, .. } = storm(answer, patience).await;
        assert_eq!((tally.boots.len(), tally.counts.retransmissions), (1, 1));
        let lookups = tally.series[3].as_ref().expect("lookups were made");
        assert!(lookups.latency.max() >= 199_000, "{} us", lookups.latency.max());
    }

    #[tokio::test]
    async fn a_client_of_a_silent_server_gives_up() {
        let answer: Answer =
            |program, procedure, _| if program == MOUNT { good(program, procedure) } else { What::Hang };
        let Outcome { tally, .. } = storm(answer, ms(20)).await;
        assert_eq!((tally.boots.len(), tally.counts.failed), (0, 1));
        assert_eq!(tally.errors.keys().collect::<Vec<_>>(), ["no answer"]);
    }

    /// What cannot be decoded ends the connection, and in the end the client; nobody waits for ever.
    #[tokio::test]
    async fn garbage_ends_a_client() {
        let answer: Answer = |program, procedure, _| match program {
            MOUNT => good(program, procedure),
            _ => words(&[0, u32::MAX, 1]),
        };
        let Outcome { tally, .. } = storm(answer, PATIENCE).await;
        assert_eq!((tally.boots.len(), tally.counts.failed), (0, 1));
    }

    #[tokio::test]
    async fn errors_are_told_by_kind_and_the_boot_goes_on() {
        let answer: Answer = |program, procedure, _| match procedure {
            READ => words(&[5, 0]),
            _ => good(program, procedure),
        };
        let Outcome { tally, .. } = storm(answer, PATIENCE).await;
        assert_eq!((tally.errors.len(), tally.boots.len()), (1, 1));
        let reads = &tally.errors["READ NFS3ERR_IO"];
        assert_eq!((reads.times, &*reads.example), (3, "READ /x/etc/hosts: NFS3ERR_IO"));
    }

    /// JUKEBOX is no error: the call is made again, and its latency is all of it.
    #[tokio::test]
    async fn jukebox_is_tried_again() {
        let answer: Answer = |program, procedure, nth| match (procedure, nth) {
            (READ, 3) => words(&[status::JUKEBOX, 0]),
            _ => good(program, procedure),
        };
        let Outcome { tally, .. } = storm(answer, PATIENCE).await;
        assert_eq!((tally.boots.len(), tally.counts.jukebox, tally.errors.len()), (1, 1, 0));
        let reads = tally.series[READ as usize].as_ref().expect("reads were made");
        assert!(reads.latency.max() >= 49_000, "{} us", reads.latency.max());
    }

    #[tokio::test]
    async fn a_mount_that_is_refused_ends_the_client() {
        let Outcome { tally, .. } = storm(|_, _, _| words(&[13]), PATIENCE).await;
        assert_eq!(tally.counts.failed, 1);
        assert_eq!(tally.errors.keys().collect::<Vec<_>>(), ["MNT MNT3ERR_ACCES"]);
    }
}

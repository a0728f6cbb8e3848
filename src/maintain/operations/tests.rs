//! Goal: operations get from wave to wave when they should, halt when they must, and go on after a restart
//! exactly where they were. Method: a fleet in memory, a clock that stands still, and a world outside that
//! answers from a script; pauses move the clock.

mod gates;

use std::collections::{HashMap, VecDeque};

use futures_util::FutureExt;
use parking_lot::Mutex;

use super::*;
use crate::chunk::{ChunkId, MemoryChunks};
use crate::env::{Env, ManualClock, SeededRng, SimDisk};
use crate::error::Error;
use crate::image::{
    Catalog, CloneTarget, Fate, Labels, MemoryCatalogLog, NewClones, NewOperation, NewVersion, OnFailure, RepointPlan,
    Rollout, VersionRef,
};
use crate::meta::MemoryKv;
use crate::overlay::log::{LocalLog, LogOptions};
use crate::overlay::{OverlayOptions, OverlayStore};

const START: u64 = 1_800_000_000;
/// Nothing here takes long; what takes longer is stuck.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Answer {
    Passed,
    Not(&'static str),
    Never,
}

/// A clone, and the number of its view.
type View = (ExportId, u64);

/// The world outside.
struct Script {
    clock: Arc<ManualClock>,
    /// Those that are left; then every gate is passed.
    answers: Mutex<VecDeque<Answer>>,
    /// The gate, its wave, and how many seconds after the start it was asked.
    asked: Mutex<Vec<(String, usize, u64)>>,
    /// The views whose readers count each time, and from how many seconds after the start on.
    readers: Mutex<Vec<(Vec<View>, u64)>>,
    /// Rollbacks fail.
    no_way_back: bool,
    rolled_back: Mutex<Vec<OperationId>>,
}

impl Outside for Script {
    fn ask<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<(), String>> {
        assert_eq!(question.version, "os@v2");
        let secs = self.clock.uptime().as_secs().saturating_sub(START);
        self.readers.lock().push((question.views.to_vec(), question.since.as_secs().saturating_sub(START)));
        self.asked.lock().push((question.gate.to_string(), question.wave, secs));
        match self.answers.lock().pop_front().unwrap_or(Answer::Passed) {
            Answer::Passed => std::future::ready(Ok(())).boxed(),
            Answer::Not(why) => std::future::ready(Err(why.to_owned())).boxed(),
            Answer::Never => std::future::pending().boxed(),
        }
    }

    fn pause(&self, time: Duration) -> BoxFuture<'_, ()> {
        self.clock.advance(time);
        tokio::task::yield_now().boxed()
    }

    fn roll_back<'a>(&'a self, fleet: &'a Fleet, operation: OperationId) -> BoxFuture<'a, Result<()>> {
        self.rolled_back.lock().push(operation);
        if self.no_way_back {
            return std::future::ready(Err(Error::internal("no way back"))).boxed();
        }
        fleet.rollback(operation, usize::MAX).map(|done| done.map(drop)).boxed()
    }
}

struct World {
    log: MemoryCatalogLog,
    clock: Arc<ManualClock>,
    script: Arc<Script>,
    fleet: Arc<Fleet>,
    stop: watch::Sender<bool>,
    runner: Option<JoinHandle<()>>,
}

async fn open(log: &MemoryCatalogLog, clock: &Arc<ManualClock>) -> Arc<Fleet> {
    let env = Env { disk: Arc::new(SimDisk::new(1)), clock: clock.clone(), rng: Arc::new(SeededRng::new(1)) };
    let catalog = Catalog::open(Arc::new(log.clone()), env.clone()).await.unwrap();
    let (kv, chunks) = (Arc::new(MemoryKv::new()), Arc::new(MemoryChunks::new()));
    let log = LocalLog::open(env, "/log".into(), 1, LogOptions::default()).unwrap();
    let options = OverlayOptions { cache_bytes: 0 };
    let overlays = OverlayStore::open(log, kv, chunks, 1, HashMap::new(), options).await.unwrap();
    Arc::new(Fleet::new(catalog, overlays))
}

impl World {
    /// Image `os` with two versions, and six clones `c0` to `c5` of the first. Nobody runs operations yet.
    async fn new(answers: &[Answer]) -> Self {
        let (log, clock) = (MemoryCatalogLog::new(), Arc::new(ManualClock::at_secs(START)));
        let fleet = open(&log, &clock).await;
        let image = fleet.catalog().create_or_get_image("os", Labels::new()).await.unwrap().id;
        for number in [1, 2] {
            let new = NewVersion {
                image,
                manifest: ChunkId([number; 32]),
                created: Time::new(1, 0),
                source: "/os".into(),
                author: "test".into(),
                labels: Labels::new(),
                consistency: "unknown".into(),
                inodes: 1,
                bytes_logical: 0,
                bytes_stored: 0,
                bytes_added: 0,
            };
            fleet.catalog().add_version(new).await.unwrap();
        }
        let names = (0..6).map(|n| format!("c{n}")).collect();
        let clones = NewClones { version: VersionRef::number("os", 1), names, labels: Labels::new() };
        fleet.catalog().create_clones(clones).await.unwrap();
        let script = Script {
            clock: clock.clone(),
            answers: Mutex::new(answers.iter().copied().collect()),
            asked: Mutex::default(),
            readers: Mutex::default(),
            no_way_back: false,
            rolled_back: Mutex::default(),
        };
        Self { log, clock, script: Arc::new(script), fleet, stop: watch::Sender::new(false), runner: None }
    }

    fn runner(&self) -> Runner {
        Runner { fleet: self.fleet.clone(), clock: self.clock.clone(), outside: self.script.clone() }
    }

    fn run(&mut self) {
        let (outside, stopped) = (self.script.clone(), self.stop.subscribe());
        self.runner = Some(spawn(self.fleet.clone(), self.clock.clone(), outside, stopped));
    }

    /// The daemon dies, and starts again.
    async fn crash(&mut self) {
        self.runner.take().expect("it runs").abort();
        self.start_again().await;
    }

    async fn start_again(&mut self) {
        self.fleet = open(&self.log, &self.clock).await;
        self.run();
    }

    async fn start(&self, rollout: Rollout, waves: &[&str], at: Option<Time>) -> OperationId {
        let repoint = RepointPlan::new("os", VersionRef::number("os", 2), CloneTarget::All);
        let waves = waves.iter().map(|spec| spec.parse().unwrap()).collect();
        self.fleet.start(NewOperation { repoint, waves, rollout, at }).await.unwrap().id
    }

    fn operation(&self, id: OperationId) -> Arc<OperationRecord> {
        self.fleet.catalog().state().operation(id).unwrap().clone()
    }

    async fn until(&self, id: OperationId, wanted: impl Fn(&OperationRecord) -> bool) -> Arc<OperationRecord> {
        let mut revisions = self.fleet.catalog().revisions();
        let seen = async {
            loop {
                let operation = self.operation(id);
                if wanted(&operation) {
                    return operation;
                }
                revisions.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, seen).await.unwrap_or_else(|_| panic!("stuck: {:?}", self.operation(id)))
    }

    /// Until it stands still.
    async fn still(&self, id: OperationId) -> Arc<OperationRecord> {
        self.until(id, |operation| !goes_on(operation)).await
    }

    /// Until so many questions were asked.
    async fn until_asked(&self, questions: usize) {
        let asked = async {
            while self.script.asked.lock().len() < questions {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, asked).await.unwrap();
    }

    /// How often each clone was switched.
    fn switches(&self) -> Vec<u64> {
        self.fleet.catalog().state().clones().map(|clone| clone.view.number - 1).collect()
    }

    fn asked(&self) -> Vec<(String, usize, u64)> {
        self.script.asked.lock().clone()
    }
}

fn gated() -> Rollout {
    Rollout { gates: vec!["ready".parse().unwrap()], gate_timeout_secs: 60, ..Rollout::default() }
}

fn why(operation: &OperationRecord) -> String {
    match &operation.state {
        OperationState::Halted { why } => why.to_string(),
        state => panic!("it is not halted: {state:?}"),
    }
}

#[tokio::test]
async fn an_operation_goes_through_all_its_waves_and_gates() {
    let mut world = World::new(&[Answer::Not("no"), Answer::Not("no")]).await;
    world.run();
    let id = world.start(gated(), &["1", "50%"], None).await;
    let operation = world.still(id).await;
    assert_eq!((&operation.state, operation.count(&[Fate::Switched])), (&OperationState::Done, 6));
    assert_eq!(world.switches(), [1; 6]);
    let asked = [(0, 0), (0, 5), (0, 10), (1, 10), (2, 10)].map(|(wave, secs)| ("ready".to_owned(), wave, secs));
    assert_eq!(world.asked(), asked);
}

#[tokio::test]
async fn a_gate_that_is_not_passed_in_time_halts() {
    let mut world = World::new(&[Answer::Not("two of them are sick"); 100]).await;
    world.run();
    let id = world.start(Rollout { soak_secs: 100, ..gated() }, &["2"], None).await;
    let operation = world.still(id).await;
    let why = why(&operation);
    assert!(["wave 1", "gate ready", "60 s", "two of them are sick"].iter().all(|word| why.contains(word)), "{why}");
    assert_eq!((operation.next, world.switches()), (Next::Gate(0), vec![1, 1, 0, 0, 0, 0]));
    let asked = world.asked();
    assert_eq!((asked.len(), asked[0].2, asked[11].2), (12, 100, 155), "after the soak, every 5 s");
    world.script.answers.lock().clear();
    world.fleet.resume(id).await.unwrap();
    assert_eq!(world.still(id).await.state, OperationState::Done);
    assert_eq!(world.switches(), [1; 6]);
}

#[tokio::test]
async fn every_gate_must_be_passed_and_those_that_were_are_not_asked_again() {
    let mut world = World::new(&[Answer::Passed, Answer::Not("no"), Answer::Passed]).await;
    world.run();
    let gates = ["first", "second"].map(|gate| gate.parse().unwrap()).to_vec();
    let id = world.start(Rollout { gates, ..gated() }, &[], None).await;
    assert_eq!(world.still(id).await.state, OperationState::Done);
    let asked: Vec<_> = world.asked().into_iter().map(|(gate, _, secs)| (gate, secs)).collect();
    assert_eq!(asked, [("first".to_owned(), 0), ("second".to_owned(), 0), ("second".to_owned(), 5)]);
}

#[tokio::test]
async fn a_wave_that_fails_halts_with_its_reason() {
    let mut world = World::new(&[Answer::Never]).await;
    world.run();
    let id = world.start(gated(), &["2"], None).await;
    world.until_asked(1).await;
    world.fleet.catalog().remove_version("os@v1".parse().unwrap()).await.unwrap();
    world.fleet.pause(id).await.unwrap();
    world.fleet.catalog().remove_version("os@v2".parse().unwrap()).await.unwrap();
    world.fleet.resume(id).await.unwrap();
    let why = why(&*world.still(id).await);
    assert!(why.contains("wave 2") && why.contains("os@v2"), "{why}");
    assert_eq!(world.switches(), [1, 1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_failure_is_rolled_back_if_that_was_chosen() {
    for no_way_back in [false, true] {
        let mut world = World::new(&[Answer::Not("no"); 100]).await;
        Arc::get_mut(&mut world.script).expect("nobody else has it").no_way_back = no_way_back;
        world.run();
        let id = world.start(Rollout { on_failure: OnFailure::Rollback, ..gated() }, &["2"], None).await;
        let operation = world.still(id).await;
        assert_eq!(*world.script.rolled_back.lock(), [id], "once");
        match no_way_back {
            true => assert!(why(&operation).contains("no way back") && why(&operation).contains("gate ready")),
            false => assert!(matches!(operation.state, OperationState::RolledBack { .. }), "{:?}", operation.state),
        }
    }
}

#[tokio::test]
async fn pause_and_abort_reach_an_operation_that_waits() {
    let mut world = World::new(&[Answer::Never, Answer::Never, Answer::Never]).await;
    world.run();
    let id = world.start(gated(), &["2"], None).await;
    world.until_asked(1).await;
    world.fleet.pause(id).await.unwrap();
    world.fleet.catalog().create_or_get_image("other", Labels::new()).await.unwrap();
    assert_eq!(world.operation(id).state, OperationState::Paused);
    world.fleet.resume(id).await.unwrap();
    world.until_asked(2).await;
    world.fleet.catalog().create_or_get_image("another", Labels::new()).await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(world.asked().len(), 2, "what others change disturbs no gate");
    world.fleet.abort(id).await.unwrap();
    assert_eq!(world.still(id).await.state, OperationState::Aborted);
    assert_eq!(world.switches(), [1, 1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_scheduled_operation_begins_at_its_time_also_after_a_restart() {
    let mut world = World::new(&[]).await;
    let at = Time::new(START as i64 + 3600, 0);
    let id = world.start(gated(), &["2"], Some(at)).await;
    world.fleet = open(&world.log, &world.clock).await;
    assert_eq!(world.operation(id).next, Next::Start);
    world.run();
    let operation = world.still(id).await;
    assert_eq!(operation.state, OperationState::Done);
    assert!(operation.outcomes[0].at >= at, "{:?}", operation.outcomes[0].at);
    assert_eq!(world.asked()[0].2, 3600);
}

#[tokio::test]
async fn a_soak_goes_on_where_it_was_after_a_restart() {
    let mut world = World::new(&[]).await;
    let id = world.start(Rollout { soak_secs: 1000, ..gated() }, &["100%"], None).await;
    world.fleet.switch_wave(id, 0).await.unwrap();
    world.clock.advance(Duration::from_secs(700));
    world.clock.restart();
    world.start_again().await;
    world.until_asked(1).await;
    assert_eq!(world.clock.uptime(), Duration::from_secs(300));
}

#[tokio::test]
async fn a_soak_is_measured_by_uptime() {
    for (step, restarted, asked) in [(-5000, false, 1000), (5000, false, 1000), (-5000, true, 1000), (5000, true, 0)] {
        let mut world = World::new(&[]).await;
        let id = world.start(Rollout { soak_secs: 1000, ..gated() }, &["2"], None).await;
        world.fleet.switch_wave(id, 0).await.unwrap();
        if restarted {
            world.clock.step_wall(step);
            world.run();
        } else {
            let runner = world.runner();
            let operation = world.operation(id);
            let mut pass = Box::pin(runner.pass(&operation, 0));
            assert!(futures_util::poll!(pass.as_mut()).is_pending());
            world.clock.step_wall(step);
            pass.await.unwrap();
        }
        world.until_asked(1).await;
        assert_eq!(world.asked()[0].2, asked, "{step} s, restarted: {restarted}");
    }
}

/// Also after a pause, which lets the soak begin anew.
#[tokio::test]
async fn readers_count_from_the_switch_of_the_wave_and_only_of_its_clones_that_show_the_version() {
    let mut world = World::new(&[Answer::Never, Answer::Passed]).await;
    let id = world.start(gated(), &["3"], None).await;
    world.fleet.remove_clones(CloneTarget::Names(vec!["c1".into()])).await.unwrap();
    world.clock.advance(Duration::from_secs(10));
    world.run();
    world.until_asked(1).await;
    world.fleet.pause(id).await.unwrap();
    world.clock.advance(Duration::from_secs(100));
    world.fleet.resume(id).await.unwrap();
    world.still(id).await;
    let readers = world.script.readers.lock().clone();
    let state = world.fleet.catalog().state();
    let of = |names: &[&str]| names.iter().map(|name| (state.clone_named(name).unwrap().id, 2)).collect::<Vec<_>>();
    let (first, last) = (of(&["c0", "c2"]), of(&["c3", "c4", "c5"]));
    assert_eq!(readers, [(first.clone(), 10), (first, 10), (last, 110)]);
}

#[tokio::test]
async fn a_wave_that_cannot_be_tried_just_now_is_no_failure() {
    let mut world = World::new(&[]).await;
    let disk = Arc::new(SimDisk::new(1));
    let env = Env { disk: disk.clone(), clock: world.clock.clone(), rng: Arc::new(SeededRng::new(1)) };
    let bounds = crate::audit::Bounds { file_bytes: 1 << 20, files: 2 };
    let audit = crate::audit::AuditLog::open(&env, "/audit".into(), bounds).unwrap();
    world.fleet = Arc::new(Fleet::clone(&world.fleet).with_audit(audit.clone()));
    let id = world.start(gated(), &["2"], None).await;
    disk.set_capacity(0);
    let refused = world.runner().take_step(&world.operation(id)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoSpace);
    assert_eq!((world.operation(id).next, world.switches()), (Next::Wave(0), vec![0; 6]));
    disk.set_capacity(u64::MAX);
    world.run();
    assert_eq!(world.still(id).await.state, OperationState::Done);
    // Its outcome is noted after the wave is seen to be done.
    let noted = async {
        loop {
            let entries = audit.entries(crate::audit::Filter::default()).await.unwrap();
            if entries.iter().all(|entry| entry.outcome == "done") {
                return entries;
            }
        }
    };
    let entries = tokio::time::timeout(LIMIT, noted).await.unwrap();
    let told: Vec<_> = entries.iter().map(|entry| (entry.request["wave"].clone(), entry.before.clone())).collect();
    let before = |clones| json!({ "showing": { "os@v1": clones } });
    assert_eq!(told, [(json!(1), before(2)), (json!(2), before(4))]);
    assert_eq!(entries[1].after, json!({ "showing": { "os@v2": 4 } }));
}

/// The daemon dies after each of the operation's commits, and the next one goes on.
#[tokio::test]
async fn an_operation_goes_on_exactly_where_it_was_after_each_commit() {
    let mut world = World::new(&[Answer::Not("no")]).await;
    let at = Time::new(START as i64 + 60, 0);
    let id = world.start(gated(), &["1", "1", "2"], Some(at)).await;
    let mut seen = vec![Next::Start];
    while goes_on(&world.operation(id)) {
        let before = world.log.count_commits();
        world.runner().take_step(&world.operation(id)).await.unwrap();
        assert_eq!(world.log.count_commits() - before, 1);
        world.fleet = open(&world.log, &world.clock).await;
        let now = world.operation(id);
        seen.push(now.next);
        let switched: usize = now.plan.waves[..now.outcomes.len()].iter().map(Vec::len).sum();
        assert_eq!(world.switches(), [vec![1; switched], vec![0; 6 - switched]].concat(), "{:?}", now.next);
    }
    let waves = (0..4).flat_map(|wave| [Next::Wave(wave), Next::Gate(wave)]);
    let steps: Vec<_> = [Next::Start].into_iter().chain(waves).chain([Next::Nothing]).collect();
    assert_eq!((seen, world.operation(id).count(&[Fate::Switched])), (steps, 6));
    let asked: Vec<_> = world.asked().into_iter().map(|(_, wave, _)| wave).collect();
    assert_eq!(asked, [0, 0, 1, 2, 3]);
}

/// Wherever its tasks are when it dies.
#[tokio::test]
async fn no_clone_is_switched_twice_when_the_daemon_dies_again_and_again() {
    let mut world = World::new(&[]).await;
    let id = world.start(gated(), &["1", "1", "2"], None).await;
    world.run();
    while goes_on(&world.operation(id)) {
        let was = world.operation(id);
        world.until(id, |now| (&now.state, now.next) != (&was.state, was.next)).await;
        world.crash().await;
    }
    let operation = world.operation(id);
    assert_eq!((&operation.state, operation.count(&[Fate::Switched])), (&OperationState::Done, 6));
    assert_eq!(world.switches(), [1; 6]);
    let mut waves: Vec<_> = world.asked().into_iter().map(|(_, wave, _)| wave).collect();
    waves.dedup();
    assert_eq!(waves, [0, 1, 2, 3], "each gate was passed, in order");
}

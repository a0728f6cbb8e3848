//! Goal: pins end when nobody can need them, and never earlier. Method: a store in memory, a clock that
//! stands still; what clients do is as the test says.

use parking_lot::Mutex;

use super::*;
use crate::audit::{AuditLog, Bounds, Filter};
use crate::image::{CloneTarget, RepointPlan, VersionRef, Writes};
use crate::maintain::fsck::tests::world::{A, World};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const LIMITS: Limits = Limits { idle: DAY, unmounted: HOUR };

/// What is known of clients, as a test says it.
#[derive(Default)]
struct Told {
    complete_since: Mutex<Duration>,
    resolved: Mutex<HashMap<u64, Duration>>,
    /// `None`: somebody is still there.
    left: Mutex<HashMap<u64, Option<Duration>>>,
}

impl ViewUses for Told {
    fn complete_since(&self) -> Duration {
        *self.complete_since.lock()
    }

    fn last_resolved(&self, _: ExportId, view: u64) -> Option<Duration> {
        self.resolved.lock().get(&view).copied()
    }

    fn left_since(&self, _: ExportId, view: u64) -> Option<Duration> {
        self.left.lock().get(&view).copied().flatten()
    }

    fn clients(&self, _: ExportId, _: u64, limit: usize) -> Vec<std::net::IpAddr> {
        (1..=6).map(|n| [10, 0, 0, n].into()).take(limit).collect()
    }

    fn keep_only(&self, _: &dyn Fn(ExportId, Option<u64>) -> bool) {}
}

struct Scene {
    world: World,
    told: Arc<Told>,
    pins: Pins,
    fleet: Arc<Fleet>,
}

impl Scene {
    /// A clone of which the pins hold private writes, as many as are asked for; seen just now.
    async fn new(private: usize) -> Self {
        let world = World::new().await;
        let fleet = Arc::new(world.fleet());
        let told = Arc::new(Told { complete_since: Mutex::new(world.env.clock.uptime()), ..Told::default() });
        let pins = Pins::new(fleet.clone(), told.clone(), world.env.clone(), LIMITS);
        let mut scene = Self { world, told, pins, fleet };
        for n in 0..private {
            scene.world.write("desk", A, 0, format!("{n}").as_bytes()).await;
            scene.switch(1).await;
        }
        scene.step().await;
        scene
    }

    fn now(&self) -> Duration {
        self.world.env.clock.uptime()
    }

    /// Show a version, without private writes.
    async fn switch(&self, number: u32) {
        let target = CloneTarget::Names(vec!["desk".into()]);
        let plan = RepointPlan::new("os", VersionRef::number("os", number), target).with(Writes::Discard);
        self.fleet.repoint(plan).await.unwrap();
    }

    async fn step(&mut self) {
        while self.pins.step().await.unwrap().more {}
    }

    async fn after(&mut self, time: Duration) -> Vec<u64> {
        self.world.clock.advance(time);
        self.step().await;
        self.views()
    }

    fn views(&self) -> Vec<u64> {
        self.world.clone("desk").pins.iter().map(|pin| pin.view.number).collect()
    }

    fn tell_left(&self, view: u64, at: Option<Duration>) {
        self.told.left.lock().insert(view, at);
    }
}

#[tokio::test]
async fn a_pin_ends_when_nothing_was_resolved_in_it_for_long() {
    let mut scene = Scene::new(1).await;
    assert_eq!(scene.after(DAY - Duration::from_secs(61)).await, [1]);
    scene.told.resolved.lock().insert(1, scene.now());
    assert_eq!(scene.after(DAY / 2).await, [1]);
    assert_eq!(scene.after(DAY / 2 - Duration::from_secs(61)).await, [1]);
    assert_eq!(scene.after(Duration::from_secs(61)).await, [0; 0]);
    scene.world.assert_clean().await;
}

#[tokio::test]
async fn a_start_and_a_gap_in_what_is_known_begin_the_time_anew() {
    let mut scene = Scene::new(1).await;
    assert_eq!(scene.after(DAY / 2).await, [1]);
    *scene.told.complete_since.lock() = scene.now();
    assert_eq!(scene.after(DAY - Duration::from_secs(1)).await, [1], "something may have been missed");
    // Another start: the same pin, seen for the first time.
    scene.pins = Pins::new(scene.fleet.clone(), scene.told.clone(), scene.world.env.clone(), LIMITS);
    assert_eq!(scene.after(Duration::from_secs(61)).await, [1]);
    assert_eq!(scene.after(DAY - Duration::from_secs(1)).await, [1]);
    assert_eq!(scene.after(Duration::from_secs(61)).await, [0; 0]);
}

#[tokio::test]
async fn a_pin_ends_an_hour_after_all_its_clients_have_left() {
    let mut scene = Scene::new(1).await;
    Arc::get_mut(&mut scene.pins.rule).unwrap().first_id = 0;
    assert_eq!(scene.after(2 * HOUR).await, [1], "nobody has left");
    scene.tell_left(1, Some(scene.now()));
    assert_eq!(scene.after(HOUR - Duration::from_secs(1)).await, [1]);
    scene.tell_left(1, None);
    assert_eq!(scene.after(HOUR).await, [1], "somebody came back");
    scene.tell_left(1, Some(scene.now() - 2 * HOUR));
    assert_eq!(scene.after(Duration::from_secs(61)).await, [0; 0]);
}

#[tokio::test]
async fn clients_of_before_the_start_are_waited_for() {
    let mut scene = Scene::new(1).await;
    scene.tell_left(1, Some(scene.now()));
    scene.told.resolved.lock().insert(1, scene.now() + 10 * DAY);
    assert_eq!(scene.after(DAY - Duration::from_secs(61)).await, [1], "there may be others, from before");
    assert_eq!(scene.after(Duration::from_secs(61)).await, [0; 0], "they would have come by now");
    let mut scene = Scene::new(1).await;
    Arc::get_mut(&mut scene.pins.rule).unwrap().first_id = 0;
    *scene.told.complete_since.lock() = scene.now() + Duration::from_secs(1);
    scene.tell_left(1, Some(scene.now()));
    assert_eq!(scene.after(2 * HOUR).await, [1], "something was missed since the start");
}

#[tokio::test]
async fn a_pin_with_private_writes_waits_for_the_older_ones() {
    let mut scene = Scene::new(3).await;
    scene.told.resolved.lock().insert(2, scene.now() + HOUR);
    assert_eq!(scene.after(DAY).await, [3, 2], "the oldest goes by itself, the newest is held back");
    scene.world.clock.advance(Duration::from_secs(60));
    scene.pins.look();
    assert_eq!(scene.pins.todo, [], "what is held back is not asked for in vain");
    assert_eq!(scene.after(HOUR + Duration::from_secs(1)).await, [0; 0]);
    scene.world.assert_clean().await;
}

#[tokio::test]
async fn what_ended_is_in_the_audit_log_and_stays_if_that_cannot_be_written() {
    let mut scene = Scene::new(1).await;
    let bounds = Bounds { file_bytes: 1 << 20, files: 2 };
    let audit = AuditLog::open(&scene.world.env, "/audit".into(), bounds).unwrap();
    scene.pins.fleet = Arc::new(scene.world.fleet().with_audit(audit.clone()));
    scene.world.fill_disk();
    scene.world.clock.advance(DAY);
    assert!(scene.pins.step().await.is_err());
    assert_eq!(scene.views(), [1]);
    scene.world.empty_disk();
    assert_eq!(scene.after(Duration::from_secs(60)).await, [0; 0]);
    let entries = audit.entries(Filter::default()).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].who.as_str(), entries[0].action.as_str()), ("mimeo", "expire pins"));
    let clients = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "..."];
    let pin = json!({ "clone": "desk", "view": 1, "version": "os@v1", "clients": clients });
    assert_eq!(entries[0].request, json!({ "pins": [pin] }));
    assert_eq!(entries[0].after, json!({ "count": 1 }));
}

/// Something was resolved in it between the look and the commit.
#[tokio::test]
async fn a_pin_that_is_used_again_before_it_ends_stays() {
    let mut scene = Scene::new(1).await;
    scene.world.clock.advance(DAY);
    scene.pins.look();
    assert_eq!(scene.pins.todo.len(), 1);
    scene.told.resolved.lock().insert(1, scene.now());
    assert_eq!(scene.after(Duration::ZERO).await, [1]);
    assert_eq!(scene.after(DAY - Duration::from_secs(1)).await, [1]);
    assert_eq!(scene.after(Duration::from_secs(61)).await, [0; 0]);
}

#[tokio::test]
async fn each_of_many_pins_is_in_the_audit_log() {
    let mut scene = Scene::new(20).await;
    let audit = AuditLog::open(&scene.world.env, "/audit".into(), Bounds { file_bytes: 1 << 20, files: 2 }).unwrap();
    scene.pins.fleet = Arc::new(scene.world.fleet().with_audit(audit.clone()));
    assert_eq!(scene.after(DAY).await, [0; 0]);
    let entries = audit.entries(Filter::default()).await.unwrap();
    let pins = entries.iter().flat_map(|entry| entry.request["pins"].as_array().unwrap());
    let mut views: Vec<_> = pins.map(|pin| pin["view"].as_u64().unwrap()).collect();
    views.sort_unstable();
    assert_eq!(views, (1..=20).collect::<Vec<_>>());
}

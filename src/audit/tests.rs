use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::env::{Fault, ManualClock, SeededRng, SimDisk, Time};

const BOUNDS: Bounds = Bounds { file_bytes: 4096, files: 3 };
const START: u64 = 1_784_600_000;

struct World {
    disk: Arc<SimDisk>,
    clock: Arc<ManualClock>,
    log: Arc<AuditLog>,
}

impl World {
    fn new() -> Self {
        let (disk, clock) = (Arc::new(SimDisk::new(3)), Arc::new(ManualClock::at_secs(START)));
        let log = Self::open(&disk, &clock);
        Self { disk, clock, log }
    }

    fn open(disk: &Arc<SimDisk>, clock: &Arc<ManualClock>) -> Arc<AuditLog> {
        let env = Env { disk: disk.clone(), clock: clock.clone(), rng: Arc::new(SeededRng::new(1)) };
        AuditLog::open(&env, PathBuf::from("/audit"), BOUNDS).unwrap()
    }

    fn restart(&mut self) {
        self.clock.advance(std::time::Duration::from_secs(1));
        self.log = Self::open(&self.disk, &self.clock);
    }

    /// A change of which all is noted.
    async fn change(&self, what: &str) -> Result<()> {
        let asked = self.log.ask(deed(what)).await?;
        asked.done(Outcome::done(json!({ "now": what })).by(Some("op-7"))).await
    }

    async fn entries(&self, filter: Filter) -> Vec<Entry> {
        self.log.entries(filter).await.unwrap()
    }

    async fn actions(&self) -> Vec<String> {
        self.entries(Filter::default()).await.into_iter().map(|entry| entry.action).collect()
    }
}

fn deed(what: &str) -> Deed {
    let actor = Actor { who: "uid 0".into(), pid: Some(77), from: "unix:/admin.sock".into() };
    Deed { actor, action: what.into(), request: json!({ "to": "v2" }), before: json!({ "version": 1 }) }
}

#[tokio::test]
async fn a_change_is_one_entry_with_who_what_before_and_after() {
    let world = World::new();
    world.change("repoint").await.unwrap();
    let asked = world.log.ask(Deed { actor: Actor::mimeo("idle"), ..deed("expire") }).await.unwrap();
    asked.done(Outcome::failed("a conflict")).await.unwrap();
    let _broken_off = world.log.ask(deed("drop")).await.unwrap();
    let entries = world.entries(Filter::default()).await;
    let expected = Entry {
        time: "2026-07-21T02:13:20.000Z".into(),
        who: "uid 0".into(),
        pid: Some(77),
        from: "unix:/admin.sock".into(),
        action: "repoint".into(),
        request: json!({ "to": "v2" }),
        before: json!({ "version": 1 }),
        outcome: "done".into(),
        error: None,
        operation: Some("op-7".into()),
        after: json!({ "now": "repoint" }),
    };
    assert_eq!(entries[0], expected);
    assert_eq!((entries[1].who.as_str(), entries[1].from.as_str()), ("mimeo", "idle"));
    assert_eq!((entries[1].outcome.as_str(), entries[1].error.as_deref()), ("failed", Some("a conflict")));
    assert_eq!((entries[2].outcome.as_str(), &entries[2].after), ("unknown", &Value::Null));
}

#[tokio::test]
async fn what_was_answered_survives_a_power_cut() {
    for seed in 0..20 {
        let mut world = World { disk: Arc::new(SimDisk::new(seed)), ..World::new() };
        world.log = World::open(&world.disk, &world.clock);
        world.change("first").await.unwrap();
        let _lost = world.log.ask(deed("second")).await.unwrap();
        world.disk.crash();
        world.restart();
        world.change("third").await.unwrap();
        let actions = world.actions().await;
        assert!(actions == ["first", "third"] || actions == ["first", "second", "third"], "seed {seed}: {actions:?}");
    }
}

#[tokio::test]
async fn files_follow_each_other_and_the_oldest_go() {
    let mut world = World::new();
    for n in 0..100 {
        world.change(&format!("change {n}")).await.unwrap();
        if n % 30 == 0 {
            world.restart();
        }
    }
    let names = world.disk.list(Path::new("/audit")).unwrap();
    assert_eq!(names.len(), BOUNDS.files);
    for name in &names {
        let bytes = world.disk.open(&Path::new("/audit").join(name)).unwrap().len().unwrap();
        assert!(bytes <= BOUNDS.file_bytes, "{name} has {bytes} bytes");
    }
    let actions = world.actions().await;
    assert!(actions.len() > 10 && actions.len() < 100, "{}", actions.len());
    let expected: Vec<_> = (100 - actions.len()..100).map(|n| format!("change {n}")).collect();
    assert_eq!(actions, expected);
}

#[tokio::test]
async fn entries_are_chosen_by_time_and_number() {
    let world = World::new();
    for n in 0..10 {
        world.clock.set_secs(START + n);
        world.change(&format!("{n}")).await.unwrap();
    }
    let some = |filter| async {
        let entries = world.entries(filter).await;
        assert!(entries.iter().all(|entry| entry.outcome == "done"));
        entries.into_iter().map(|entry| entry.action).collect::<Vec<_>>().concat()
    };
    let since = Some(Time::new(i64::try_from(START).unwrap() + 6, 0));
    assert_eq!(some(Filter { since, tail: None }).await, "6789");
    assert_eq!(some(Filter { since, tail: Some(2) }).await, "89");
    assert_eq!(some(Filter { since: None, tail: Some(3) }).await, "789");
    assert_eq!(some(Filter { since: None, tail: Some(0) }).await, "");
}

/// Whatever fails, a change that was not noted is refused, the next one works, and what was noted stays.
#[tokio::test]
async fn a_failure_refuses_the_change_and_the_next_one_is_noted() {
    for fault in [Fault::Io, Fault::NoSpace] {
        for at in 0..3 {
            let world = World::new();
            world.change("before").await.unwrap();
            world.disk.fail_after(at, fault);
            let refused = world.change("refused").await.unwrap_err();
            let kind = if fault == Fault::NoSpace { ErrorKind::NoSpace } else { ErrorKind::Unavailable };
            assert!(refused.kind() == kind && refused.remedy_text().is_some(), "{fault:?} at {at}: {refused}");
            world.change("after").await.unwrap();
            let actions = world.actions().await;
            assert_eq!((actions.first().unwrap().as_str(), actions.last().unwrap().as_str()), ("before", "after"));
            assert!(world.disk.list(Path::new("/audit")).unwrap().len() <= 2, "{fault:?} at {at}");
        }
    }
}

#[tokio::test]
async fn a_full_disk_costs_no_old_lines() {
    let world = World::new();
    world.change("before").await.unwrap();
    world.disk.set_capacity(0);
    for _ in 0..20 {
        world.log.ask(deed("refused")).await.map(drop).unwrap_err();
    }
    world.disk.set_capacity(u64::MAX);
    world.change("after").await.unwrap();
    assert_eq!(world.actions().await, ["before", "after"]);
}

/// Callers at the same time share syncs, and each is answered when its own lines are durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_at_one_time_are_all_noted() {
    let world = Arc::new(World::new());
    let change = |n: usize| {
        let world = world.clone();
        tokio::spawn(async move { world.change(&format!("{n:02}")).await.unwrap() })
    };
    for task in (0..24).map(change).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    world.disk.crash_keeping(|_| 0);
    let log = World::open(&world.disk, &world.clock);
    let mut actions: Vec<_> = log.entries(Filter::default()).await.unwrap();
    actions.sort_by(|a, b| a.action.cmp(&b.action));
    let tail: Vec<_> = actions.iter().map(|entry| (entry.action.as_str(), entry.outcome.as_str())).collect();
    assert!(tail.len() >= 10 && tail.iter().all(|(_, outcome)| *outcome == "done"), "{tail:?}");
}

#[test]
fn values_are_cut() {
    let names: Vec<_> = (0..100).map(|n| format!("desk-{n}")).collect();
    let short = summary(&json!({ "names": names, "select": null, "edits": [], "text": "x".repeat(4096) }));
    assert_eq!(short["names"].as_array().unwrap().len(), 17);
    assert_eq!(short["names"][16], "... 84 more");
    assert_eq!(short["text"], format!("{}... (4096 bytes)", "x".repeat(1024)), "the command of a gate, say");
    let gates = summary(&json!({ "gates": vec!["y".repeat(4096); 8], "to": "os@v2" }));
    assert_eq!(gates["gates"][7], format!("{}... (4096 bytes)", "y".repeat(256)), "so that all fits");
    assert_eq!(gates["to"], "os@v2");
    assert_eq!(short.as_object().unwrap().len(), 2, "what says nothing is left out");
    let fields: serde_json::Map<_, _> = (0..15).map(|n| (format!("{n}"), json!(vec!["y".repeat(250); 16]))).collect();
    let long = summary(&Value::Object(fields));
    assert!(long["bytes_left_out"].as_u64().unwrap() > 4096);
    let deep = (0..100).fold(json!(1), |value, _| json!([value]));
    assert!(summary(&deep).to_string().len() < 40);
}

#[test]
fn the_longest_line_fits() {
    let long = "\u{1}".repeat(5000);
    let wide = json!(vec![long.clone(); 3]);
    let actor = Actor { who: "uid 4294967295".into(), pid: Some(u32::MAX), from: long.clone() };
    let deed = Deed { actor, action: long.clone(), request: wide.clone(), before: wide.clone() };
    let asked = Line::asked(u64::MAX, Time::default(), &deed).to_text();
    let outcome = Outcome { error: Some(long.clone()), operation: Some(long), after: wide };
    let done = Line::done(u64::MAX, Time::default(), &outcome).to_text();
    assert!(asked.len() < MAX_LINE && done.len() < MAX_LINE, "{} {}", asked.len(), done.len());
}

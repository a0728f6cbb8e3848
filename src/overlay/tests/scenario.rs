//! One fixed history of a store: everything that writes to the log or to the index, in tiny segments.
//!
//! [`Plan`] is the history with what each view shows after each change of it, computed once. [`Play`] runs it on
//! a world, whose disk may fail meanwhile, and knows what must be left of it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::model::{Change, Model, Seen};
use super::scans;
use super::world::{ViewId, World};
use crate::error::{ErrorKind, Result};
use crate::manifest::Ino;
use crate::meta::Durability;
use crate::overlay::log::LogOptions;

/// A segment holds a few records; nothing is written before somebody waits, so that every run makes the
/// same calls.
pub const LOG: LogOptions = LogOptions { segment_bytes: 40 << 10, buffer_bytes: 64 << 20, write_after: 1 << 20 };

const ONE: ViewId = ViewId(0);
const TWO: ViewId = ViewId(1);
/// Made by the script, in this order.
const SNAPSHOT: ViewId = ViewId(2);
const FORK: ViewId = ViewId(3);
const SNAPSHOT_OF_FORK: ViewId = ViewId(4);

const A: Ino = Ino(10);
const B: Ino = Ino(11);
const C: Ino = Ino(12);
const NEW: Ino = Ino(5000);
const FORKED: Ino = Ino(5001);
/// What recovery is tried with.
const AFTER: Ino = Ino(5002);

#[derive(Clone, Debug)]
pub enum Step {
    Change(ViewId, Change),
    Sync,
    Flush(Durability),
    Snapshot(ViewId),
    Fork(ViewId),
    Compact,
    Flatten(ViewId),
    Dedup(ViewId),
    /// All other views are dropped, and what only they showed is purged.
    Keep(Vec<ViewId>),
    Close,
}

impl Step {
    /// Whether all changes before it are on stable storage when it is done.
    fn syncs(&self) -> bool {
        !matches!(self, Self::Change(..) | Self::Fork(_) | Self::Dedup(_))
    }
}

/// Bytes that tell from which write they are.
fn write(view: ViewId, ino: Ino, offset: u64, len: usize) -> Step {
    let seed = (offset as usize + len) * 31 + ino.0 as usize + view.0 * 7;
    let data: Bytes = (0..len).map(|at| (seed + at * 13 + at / 256) as u8 | 1).collect();
    Step::Change(view, Change::Write { ino, offset, data })
}

fn create(view: ViewId, name: &str, ino: Ino) -> Step {
    Step::Change(view, Change::Create { name: name.into(), ino })
}

fn truncate(view: ViewId, ino: Ino, size: u64) -> Step {
    Step::Change(view, Change::Truncate { ino, size })
}

fn remove(view: ViewId, name: &str) -> Step {
    Step::Change(view, Change::Remove { name: name.into() })
}

fn rename(view: ViewId, from: &str, to: &str) -> Step {
    Step::Change(view, Change::Rename { from: from.into(), to: to.into() })
}

fn script() -> Vec<Step> {
    let buffered = Step::Flush(Durability::Buffered);
    let synced = Step::Flush(Durability::Synced);
    let begin = [
        write(ONE, A, 0, 50),
        write(TWO, C, 4096, 4096),
        create(ONE, "new", NEW),
        write(ONE, NEW, 0, 20_000),
        Step::Sync,
        write(TWO, B, 10, 9000),
        buffered.clone(),
        // Over the border of two buckets.
        write(ONE, C, 60_000, 12_000),
        rename(ONE, "new", "moved"),
        remove(TWO, "a"),
        truncate(ONE, C, 130_000),
    ];
    let marked = [
        Step::Snapshot(ONE),
        // Over what the snapshot shows: older versions are kept.
        write(ONE, NEW, 100, 300),
        write(ONE, C, 61_000, 8192),
        remove(ONE, "b"),
        truncate(TWO, B, 5000),
        synced,
        write(ONE, C, 62_000, 4096),
        truncate(ONE, NEW, 10),
        Step::Fork(SNAPSHOT),
        write(FORK, NEW, 10_000, 6000),
        create(FORK, "forked", FORKED),
        Step::Snapshot(FORK),
        write(FORK, B, 65_000, 3000),
        truncate(FORK, C, 1000),
    ];
    let segments = (0..4).flat_map(|n| [write(TWO, C, n * 20_000, 16_000), Step::Sync]);
    let clean = [
        write(TWO, C, 0, 36_000),
        write(TWO, C, 40_000, 36_000),
        Step::Compact,
        write(ONE, C, 0, 30_000),
        Step::Compact,
        Step::Dedup(TWO),
        buffered.clone(),
        Step::Flatten(SNAPSHOT_OF_FORK),
        write(FORK, FORKED, 3, 5000),
        Step::Keep(vec![ONE, TWO, SNAPSHOT_OF_FORK]),
        Step::Compact,
        Step::Dedup(ONE),
        write(TWO, C, 100_000, 4096),
        Step::Compact,
        Step::Compact,
        write(ONE, A, 20, 70),
        buffered,
        write(TWO, B, 0, 7),
        write(ONE, NEW, 5, 1),
        Step::Close,
    ];
    begin.into_iter().chain(marked).chain(segments).chain(clean).collect()
}

type Digest = blake3::Hash;

fn digest(seen: &Seen) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in &seen.files {
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
    hasher.finalize()
}

/// The script, and what must be seen.
pub struct Plan {
    steps: Vec<Step>,
    /// After so many changes: what each view shows, one that is made later what it begins with.
    states: Vec<BTreeMap<ViewId, Digest>>,
}

impl Plan {
    pub async fn new() -> Self {
        let base = World::closed(0, LOG).base_model();
        let (mut models, steps) = (vec![base.clone(), base], script());
        let show = |models: &[Model]| {
            models.iter().enumerate().map(|(at, model)| (ViewId(at), digest(&model.seen()))).collect()
        };
        let mut states: Vec<BTreeMap<ViewId, Digest>> = vec![show(&models)];
        for step in &steps {
            match step {
                Step::Change(view, change) => {
                    models[view.0].apply(change);
                    states.push(show(&models));
                }
                Step::Snapshot(of) | Step::Fork(of) => {
                    let model = models[of.0].clone();
                    let seen = digest(&model.seen());
                    // What it begins with, whatever a crash takes back of others.
                    for state in &mut states {
                        state.insert(ViewId(models.len()), seen);
                    }
                    models.push(model);
                }
                _ => {}
            }
        }
        Self { steps, states }
    }

    /// Something that a run in which nothing fails counts.
    pub async fn count(&self, what: impl Fn(&World) -> u64) -> u64 {
        let mut play = Play::new(self, 1);
        play.run().await.unwrap();
        what(&play.world)
    }
}

/// The script on a world, as far as it came.
pub struct Play<'a> {
    plan: &'a Plan,
    pub world: World,
    next: usize,
    /// Changes that were taken.
    done: usize,
    /// Of these, changes that were said to be on stable storage.
    acknowledged: usize,
}

impl<'a> Play<'a> {
    pub fn new(plan: &'a Plan, seed: u64) -> Self {
        let mut world = World::closed(seed, LOG);
        assert_eq!([world.new_view(), world.new_view()], [ONE, TWO]);
        Self { plan, world, next: 0, done: 0, acknowledged: 0 }
    }

    /// Open the store and run the script up to its end or the first failure.
    pub async fn run(&mut self) -> Result<()> {
        self.world.open().await?;
        self.go_on().await
    }

    pub fn has_begun(&self) -> bool {
        self.next > 0
    }

    /// From where it stopped.
    pub async fn go_on(&mut self) -> Result<()> {
        while let Some(step) = self.plan.steps.get(self.next) {
            perform(&mut self.world, step, self.done as u64 + 1).await?;
            self.next += 1;
            self.done += usize::from(matches!(step, Step::Change(..)));
            if step.syncs() {
                self.acknowledged = self.done;
            }
        }
        Ok(())
    }

    /// All that was taken is said to be on stable storage.
    pub async fn sync(&mut self) -> Result<()> {
        self.world.store().sync().await?;
        self.acknowledged = self.done;
        Ok(())
    }

    /// What is seen while nothing is lost: everything that was taken.
    pub async fn check_now(&self, what: &str) {
        let seen = digests(&self.world).await;
        assert!(self.shows(self.done, &seen), "{what}: not what was taken before");
    }

    fn shows(&self, changes: usize, seen: &BTreeMap<ViewId, Digest>) -> bool {
        seen.iter().all(|(view, digest)| self.plan.states[changes].get(view) == Some(digest))
    }

    /// After a start of `world`, a copy of ours that something happened to: what was acknowledged is there,
    /// what is there was written, in the order of the log, with the answers; the index is in order; and writing goes on.
    pub async fn check_recovery(&self, mut world: World, what: &str) {
        if let Err(error) = world.open().await {
            panic!("{what}: it does not open: {error}");
        }
        let seen = digests(&world).await;
        // The answer of a change is in its record, so there are as many.
        let (left, receipts) = (world.receipts().len(), world.receipts());
        assert!((1..=left as u64).eq(receipts.iter().copied()), "{what}: answers of calls {receipts:?}");
        let is_possible = (self.acknowledged..=self.done).contains(&left);
        assert!(is_possible && self.shows(left, &seen), "{what}: {left} answers, {}", self.differences(&seen));
        assert_eq!(scans::violations(&world).await, Vec::<String>::new(), "{what}");
        self.write_on(&mut world, what).await;
    }

    async fn write_on(&self, world: &mut World, what: &str) {
        let mut want = BTreeMap::new();
        for view in world.views() {
            let mut seen = world.seen(view).await;
            if world.is_open(view) {
                for change in [
                    Change::Create { name: "after".into(), ino: AFTER },
                    Change::Write { ino: AFTER, offset: 1, data: Bytes::from_static(b"after") },
                ] {
                    let done = world.try_change(view, &change, None).await;
                    assert!(done.is_ok(), "{what}: writing does not go on: {}", done.unwrap_err());
                }
                seen.files.insert("after".into(), b"\0after".to_vec());
            }
            want.insert(view, seen);
        }
        world.sync().await;
        world.restart(usize::MAX).await;
        for (view, want) in want {
            assert_eq!(world.seen(view).await, want, "{what}: {view:?} after one more power cut");
        }
        assert_eq!(scans::violations(world).await, Vec::<String>::new(), "{what}: after one more power cut");
    }

    /// For a message: which numbers of changes each view by itself may stand for.
    fn differences(&self, seen: &BTreeMap<ViewId, Digest>) -> String {
        let (least, most) = (self.acknowledged, self.done);
        let fits = |view: &ViewId, digest: &Digest| -> Vec<usize> {
            let states = self.plan.states.iter().enumerate();
            states.filter(|(_, state)| state.get(view) == Some(digest)).map(|(changes, _)| changes).collect()
        };
        let found: Vec<_> = seen.iter().map(|(view, digest)| (view.0, fits(view, digest))).collect();
        format!("seen after {found:?} changes (by view), must be one of {least}..={most}; next {:?}", self.step())
    }

    /// The step that is under way.
    pub fn step(&self) -> Option<&Step> {
        self.plan.steps.get(self.next)
    }
}

async fn digests(world: &World) -> BTreeMap<ViewId, Digest> {
    let mut digests = BTreeMap::new();
    for view in world.views() {
        digests.insert(view, digest(&world.seen(view).await));
    }
    digests
}

/// `number`: of the next change.
async fn perform(world: &mut World, step: &Step, number: u64) -> Result<()> {
    match step {
        Step::Change(view, change) => change_when_there_is_room(world, *view, change, number).await,
        Step::Sync => world.store().sync().await,
        Step::Flush(durability) => world.store().flush(*durability).await,
        Step::Snapshot(view) => world.try_snapshot(*view).await.map(drop),
        Step::Fork(view) => {
            world.fork(*view);
            Ok(())
        }
        Step::Compact => world.try_compact().await,
        Step::Flatten(view) => world.try_flatten(*view).await,
        Step::Dedup(view) => world.try_dedup(*view).await,
        Step::Keep(views) => world.try_keep_only(views).await,
        Step::Close => world.close().await,
    }
}

/// As a client does that is told that the disk is full.
async fn change_when_there_is_room(world: &World, view: ViewId, change: &Change, number: u64) -> Result<()> {
    loop {
        match world.try_change(view, change, Some(number)).await {
            Err(error) if error.kind() == ErrorKind::NoSpace => tokio::task::yield_now().await,
            done => return done,
        }
    }
}

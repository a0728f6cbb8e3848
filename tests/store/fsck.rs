//! Goal: whatever the file service and the operations on clones do, `fsck` finds the store in order.
//! Method: random verbs on several clones, with snapshots, forks, restores, repoints, removals,
//! flattening and compaction between them, and a check of everything now and then, over restarts.

use std::fs;

use mimeo::error::{Error, ErrorKind};
use mimeo::image::{
    CloneTarget, Fate, Labels, NewFork, NewSnapshot, OnConflict, PinnedViews, RepointPlan, SnapshotTarget,
    SwitchPolicy, VersionRef, Writes,
};
use mimeo::maintain::fsck::Checked;
use mimeo::vfs::{
    Attr, CreateHow, FileKind, ListEntry, ListWindow, NewAttr, NewObject, Object, Place, Refusal, Refused, Vfs,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::world::{World, noise, write};

const CLONES: [&str; 3] = ["a", "b", "c"];
const STEPS: usize = 1500;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_stays_in_order() {
    let seed = std::env::var("MIMEO_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}: MIMEO_SEED={seed} repeats it");
    let mut run =
        Run { world: two_versions().await, rng: SmallRng::seed_from_u64(seed), held: Vec::new(), made: 0, kept: 0 };
    run.assert_clean(0).await;
    for step in 1..=STEPS {
        match run.rng.random_range(0..100) {
            0..88 => run.change().await,
            _ => run.operate().await,
        }
        if step % 100 == 0 {
            run.assert_clean(step).await;
        }
        if step % 500 == 250 {
            run = Run { world: run.world.restart().await, ..run };
            run.assert_clean(step).await;
        }
    }
    println!("{} times private writes went along", run.kept);
}

/// Image `os`, of which v1 and v2 differ in a few files, and the clones, on v1.
async fn two_versions() -> World {
    let world = World::new().await;
    let source = world.source("src");
    write(&source, "etc/hosts", b"127.0.0.1");
    write(&source, "etc/deep/er/file", noise(1, 100_000));
    write(&source, "disk.img", noise(2, 700_000));
    fs::hard_link(source.join("etc/hosts"), source.join("hosts")).unwrap();
    std::os::unix::fs::symlink("etc/hosts", source.join("link")).unwrap();
    world.import("os", &source).await.unwrap();
    for clone in CLONES {
        world.clone_of("os", clone).await;
    }
    fs::remove_file(source.join("hosts")).unwrap();
    write(&source, "etc/deep/er/file", noise(3, 50_000));
    write(&source, "etc/new/file", b"new");
    world.import("os", &source).await.unwrap();
    world
}

struct Run {
    world: World,
    rng: SmallRng,
    /// Handles, also into former views.
    held: Vec<Object>,
    /// Names that were thought of.
    made: u32,
    /// Clones whose private writes went along to another version.
    kept: usize,
}

/// What a verb did, unless the object was gone or the name not free, or the like.
fn settled<T>(outcome: Result<T, Refused>) -> Option<T> {
    match outcome {
        Ok(done) => Some(done),
        Err(refused) if refused.why == Refusal::Later => panic!("{refused:?}"),
        Err(_) => None,
    }
}

/// Nothing but a conflict may keep clones from being switched.
fn refused_or_done<T>(outcome: Result<T, Error>) {
    if let Err(error) = outcome {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
}

impl Run {
    async fn assert_clean(&self, step: usize) {
        let report = self.world.fsck().await;
        assert!(report.is_clean(), "after {step} steps: {:#?}", report.violations());
        println!("after {step} steps: {:?}", report.checked);
        let Checked { versions, objects, names, pieces_read, .. } = report.checked;
        assert_eq!(versions, 2);
        assert!(step < STEPS || objects.min(names).min(pieces_read) > 50, "there was something to check");
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.rng.random_range(0..from.len())])
    }

    fn name(&mut self) -> String {
        self.made += 1;
        format!("n{}", self.rng.random_range(0..30))
    }

    fn new_name(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}{}", self.made)
    }

    /// The names of all clones.
    fn clones(&self) -> Vec<String> {
        self.world.catalog.state().clones().map(|clone| clone.name.to_string()).collect()
    }

    fn clone(&mut self) -> String {
        let clones = self.clones();
        self.pick(&clones).unwrap().clone()
    }

    async fn entries(&self, dir: Object) -> Vec<ListEntry> {
        let window = ListWindow { after: 0, budget: u32::MAX, entry_cost: 24, with_attrs: true };
        let listing = self.world.run(|vfs, rq| vfs.list(rq, dir, window)).await;
        let entries = settled(listing).map_or_else(Vec::new, |listing| listing.entries);
        entries.into_iter().filter(|entry| !entry.name.starts_with(b".")).collect()
    }

    /// A directory of a clone, some steps below its root.
    async fn dir(&mut self, clone: &str) -> Object {
        let mut at = self.world.root(&format!("/clones/{clone}")).await;
        while self.rng.random_bool(0.6) {
            let below = self.entries(at).await.into_iter().filter_map(|entry| entry.full);
            let dirs: Vec<_> = below.filter(|(_, attr)| attr.kind == FileKind::Directory).collect();
            match self.pick(&dirs) {
                Some((dir, _)) => at = *dir,
                None => break,
            }
        }
        at
    }

    /// Something in a directory.
    async fn entry(&mut self, dir: Object) -> Option<(Vec<u8>, Object, Attr)> {
        let entries = self.entries(dir).await;
        let entry = self.pick(&entries)?;
        entry.full.map(|(object, attr)| (entry.name.to_vec(), object, attr))
    }

    /// One random change of one random clone.
    async fn change(&mut self) {
        let clone = self.clone();
        let dir = self.dir(&clone).await;
        match self.rng.random_range(0..100) {
            0..30 => self.make(dir).await,
            30..65 => self.write(dir).await,
            65..72 => self.set(dir).await,
            72..84 => self.remove(dir).await,
            84..94 => self.rename(&clone, dir).await,
            _ => self.link(&clone, dir).await,
        }
    }

    async fn make(&mut self, dir: Object) {
        let (name, kind) = (self.name(), self.rng.random_range(0..10));
        let place = Place { dir, name: name.as_bytes() };
        let new = NewAttr { mode: Some(0o755), ..NewAttr::default() };
        let made = match kind {
            0..4 => {
                let size = (kind == 0).then_some(70_000);
                let how = CreateHow::Unchecked(NewAttr { size, ..new });
                self.world.run(|vfs, rq| vfs.create(rq, place, how)).await
            }
            4..8 => self.world.run(|vfs, rq| vfs.make(rq, place, NewObject::Directory, new)).await,
            8 => self.world.run(|vfs, rq| vfs.make(rq, place, NewObject::Symlink(b"some/where"), new)).await,
            _ => self.world.run(|vfs, rq| vfs.make(rq, place, NewObject::Fifo, new)).await,
        };
        let object = settled(made).and_then(|made| made.object);
        self.held.extend(object.map(|(object, _)| object));
    }

    /// Write to a file in `dir`, or to one whose handle was taken long ago.
    async fn write(&mut self, dir: Object) {
        let file = match self.rng.random_bool(0.3) {
            true => self.pick(&self.held.clone()).copied(),
            false => self.entry(dir).await.map(|(_, object, _)| object),
        };
        let Some(file) = file else { return };
        let (offset, len) = (self.rng.random_range(0..300_000u64), self.rng.random_range(1..150_000));
        let zeros = self.rng.random_bool(0.1);
        let data = if zeros { vec![0; len] } else { noise(self.rng.random(), len) };
        settled(self.world.run(|vfs, rq| vfs.write(rq, file, offset, &data, false)).await);
        self.held.push(file);
    }

    async fn set(&mut self, dir: Object) {
        let Some((_, object, attr)) = self.entry(dir).await else { return };
        let size = (attr.kind == FileKind::Regular).then(|| self.rng.random_range(0..400_000));
        let new = NewAttr { size, mode: Some(0o700), ..NewAttr::default() };
        settled(self.world.run(|vfs, rq| vfs.setattr(rq, object, new, None)).await);
    }

    async fn remove(&mut self, dir: Object) {
        let Some((name, _, attr)) = self.entry(dir).await else { return };
        let place = Place { dir, name: &name };
        settled(match attr.kind {
            FileKind::Directory => self.world.run(|vfs, rq| vfs.rmdir(rq, place)).await,
            _ => self.world.run(|vfs, rq| vfs.remove(rq, place)).await,
        });
    }

    async fn rename(&mut self, clone: &str, dir: Object) {
        let Some((name, ..)) = self.entry(dir).await else { return };
        let (to_dir, to_name) = (self.dir(clone).await, self.name());
        let (from, to) = (Place { dir, name: &name }, Place { dir: to_dir, name: to_name.as_bytes() });
        settled(self.world.run(|vfs, rq| vfs.rename(rq, from, to)).await);
    }

    async fn link(&mut self, clone: &str, dir: Object) {
        let Some((_, object, _)) = self.entry(dir).await else { return };
        let (to_dir, to_name) = (self.dir(clone).await, self.name());
        let to = Place { dir: to_dir, name: to_name.as_bytes() };
        settled(self.world.run(|vfs, rq| vfs.link(rq, object, to)).await);
    }

    /// Switch clones to another version, or undo such a switch. Some are refused, for good reasons.
    async fn repoint(&mut self, target: CloneTarget) {
        if self.rng.random_range(0..4) == 0 {
            let operations: Vec<_> = self.world.catalog.state().operations().map(|operation| operation.id).collect();
            if let Some(operation) = self.pick(&operations) {
                refused_or_done(self.world.fleet.rollback(*operation, 0).await);
            }
            return;
        }
        let paths = ["etc/deep".to_owned(), self.name()];
        let writes = [Writes::Keep, Writes::Keep, Writes::Discard, Writes::parse("preserve", &paths).unwrap()];
        let conflicts = [OnConflict::Stop, OnConflict::CloneWins, OnConflict::ImageWins];
        let (writes, conflict) = (self.pick(&writes).cloned(), self.pick(&conflicts).copied());
        let to = VersionRef::number("os", self.rng.random_range(1..=2));
        let plan = RepointPlan::new("os", to, target).with(SwitchPolicy { writes, conflict, activation: None });
        refused_or_done(
            self.world.fleet.repoint(plan).await.map(|done| self.kept += done.outcome.count(&[Fate::Kept])),
        );
    }

    /// One operation on clones as such. Some are refused, for good reasons.
    async fn operate(&mut self) {
        let clone = self.clone();
        let one = || CloneTarget::Names(vec![clone.clone()]);
        let record = self.world.catalog.state().find_clone(&clone).unwrap().clone();
        let snapshots: Vec<String> =
            self.world.catalog.state().snapshots_of(record.id).map(|snapshot| snapshot.name.to_string()).collect();
        let snapshot = self.pick(&snapshots).cloned();
        let fleet = &self.world.fleet;
        match (self.rng.random_range(0..100), snapshot) {
            (0..25, _) | (25..60, None) => {
                let name = self.new_name("s");
                let new = NewSnapshot { target: one(), name, labels: Labels::new() };
                self.world.fleet.snapshot(new).await.unwrap();
            }
            (25..35, Some(snapshot)) => drop(fleet.restore(&clone, &snapshot).await),
            (35..50, Some(snapshot)) => {
                fleet.remove_snapshots(&clone, SnapshotTarget::Names(vec![snapshot])).await.unwrap();
            }
            (50..56, Some(snapshot)) => self.fork(&format!("{clone}@{snapshot}")).await,
            (56..60, _) => self.fork(&clone).await,
            (60..76, _) => self.repoint(one()).await,
            (76..79, _) => drop(fleet.drop_pins(one()).await.unwrap()),
            (79..84, _) => {
                let pins: Vec<_> = record.pins.iter().map(|pin| pin.view.number).collect();
                let some = pins.into_iter().filter(|_| self.rng.random()).collect();
                fleet
                    .expire_pins(PinnedViews::from([(record.id, some)]), std::sync::Arc::new(|_, _| true))
                    .await
                    .unwrap();
            }
            (84..90, _) if self.clones().len() > CLONES.len() => drop(fleet.remove_clones(one()).await.unwrap()),
            (84..94, _) => drop(fleet.flatten(&record).await.unwrap()),
            _ => {
                let (roots, overlays) = (self.world.catalog.state().overlay_roots(), self.world.overlays());
                overlays.purge_overlays(&overlays.ids(), |id| roots.contains_key(&id)).await.unwrap();
                for id in overlays.ids() {
                    overlays.purge_history(id, &[]).await.unwrap();
                }
                let sparse = overlays.sparse_segments().await.unwrap();
                overlays.compact(sparse.last().copied()).await.unwrap();
            }
        }
    }

    async fn fork(&mut self, source: &str) {
        let name = self.new_name("f");
        // Refused beyond a depth, and beyond a number of layers.
        drop(self.world.fleet.fork(NewFork { source: source.parse().unwrap(), name, labels: Labels::new() }).await);
    }
}

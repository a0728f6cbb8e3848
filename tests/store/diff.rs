//! Goal: the difference of a clone and its version is what differs, path by path. Method: random changes,
//! over several layers; the clone is promoted, and its version compared with the new one, which knows
//! nothing of layers. Then single cases, and what a comparison leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mimeo::image::import::Progress;
use mimeo::image::promote::{PromoteRequest, run_promote};
use mimeo::image::{CloneTarget, Labels, NewSnapshot, OnConflict, RepointPlan, SwitchPolicy, VersionRef, Writes};
use mimeo::manifest::{self, Change, ChangeKind, FileKind};
use mimeo::overlay::diff::Difference;
use mimeo::vfs::{CreateHow, NewAttr, NewObject, Object, Place, Vfs};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::world::{World, chmod, noise, write};

/// Changes between two comparisons, and comparisons of one clone.
const STEPS: usize = 40;
const ROUNDS: usize = 6;

/// Paths with what is said of them: a letter, what changed, lengths.
type Told = BTreeSet<(String, ChangeWords, u64, u64)>;
type ChangeWords = (char, bool, bool, bool);

fn words(kind: ChangeKind) -> ChangeWords {
    match kind {
        ChangeKind::Added => ('A', false, false, false),
        ChangeKind::Removed => ('D', false, false, false),
        ChangeKind::Modified { data, attrs, file_type } => ('M', data, attrs, file_type),
    }
}

fn line(change: &Change) -> (String, ChangeWords, u64, u64) {
    let path = String::from_utf8(change.path.clone()).unwrap();
    (path, words(change.kind), change.bytes_old, change.bytes_new)
}

/// What differs, and how many bytes are private.
async fn diff(world: &World, source: &str) -> (Vec<Difference>, u64) {
    let look = world.fleet.look(&source.parse().unwrap()).await.unwrap();
    let private = look.private().await.unwrap();
    let chunks = world.chunks.clone();
    let compare = move || {
        let mut found = Vec::new();
        let mut visit = |difference| {
            found.push(difference);
            Ok(ControlFlow::Continue(()))
        };
        let bytes_private = look.diff(&*chunks, &private, &mut visit).unwrap();
        (found, bytes_private)
    };
    tokio::task::spawn_blocking(compare).await.unwrap()
}

async fn told(world: &World, source: &str) -> Told {
    let found = diff(world, source).await.0;
    let told: Told = found.iter().map(|difference| line(&difference.change)).collect();
    assert_eq!(told.len(), found.len(), "something is told twice");
    told
}

/// The same of the version that the clone becomes.
async fn promoted(world: &World, clone: &str) -> Told {
    let number = world.catalog.state().clone_named(clone).unwrap().view.version;
    let request = PromoteRequest {
        source: clone.parse().unwrap(),
        image: "img".into(),
        labels: Labels::default(),
        author: "test".into(),
    };
    let done = run_promote(&world.import_context(), &world.fleet, request, Arc::new(Progress::default())).await;
    let first = world.catalog.state().find_version(&VersionRef::number("img", number)).unwrap().manifest;
    let mut told = Told::new();
    let mut visit = |change: Change| {
        told.insert(line(&change));
        Ok(ControlFlow::Continue(()))
    };
    manifest::diff(&*world.chunks, &first, &done.unwrap().version.manifest, &mut visit).await.unwrap();
    told
}

/// Without what is below a path that came or went: that is told only where it changed. A directory in
/// another's place is told as both.
fn comparable(told: &Told, clone: &Told) -> Told {
    let came_or_went =
        |path: &str| clone.iter().any(|(at, (letter, .., file_type), ..)| at == path && (*letter != 'M' || *file_type));
    let both =
        |path: &str| ['A', 'D'].iter().all(|c| clone.iter().any(|(at, (letter, ..), ..)| at == path && letter == c));
    let is_below = |path: &str| path.match_indices('/').any(|(at, _)| came_or_went(&path[..at]));
    told.iter().filter(|(path, ..)| !is_below(path) && !both(path)).cloned().collect()
}

fn assert_same(clone: &Told, version: &Told, what: &str) {
    let (one, other) = (comparable(clone, clone), comparable(version, clone));
    let alone = |of: &Told, and: &Told| of.difference(and).cloned().collect::<Vec<_>>();
    assert!(
        one == other,
        "{what}: the clone alone {:?}, the version alone {:?}",
        alone(&one, &other),
        alone(&other, &one)
    );
}

async fn image(world: &World) -> Object {
    let source = world.source("src");
    for dir in ["one", "one/deep", "two", "three/er"] {
        (0..6).for_each(|n| write(&source, &format!("{dir}/f{n}"), noise(n, 3000 * n as usize)));
    }
    fs::hard_link(source.join("one/f1"), source.join("two/twin")).unwrap();
    fs::hard_link(source.join("one/f1"), source.join("three/triplet")).unwrap();
    symlink("one/f1", source.join("two/link")).unwrap();
    world.import("img", &source).await.unwrap();
    world.clone_of("img", "desk").await
}

/// A clone whose tree is changed at random.
struct Changes<'a> {
    world: &'a World,
    root: Object,
    rng: SmallRng,
    moves_directories: bool,
}

impl Changes<'_> {
    /// Every path but the root.
    async fn tree(&self) -> BTreeMap<String, (Object, FileKind)> {
        let (mut seen, mut left) = (BTreeMap::new(), vec![(String::new(), self.root)]);
        while let Some((path, dir)) = left.pop() {
            for name in self.world.names(dir).await {
                let name = String::from_utf8(name).unwrap();
                let object = self.world.find(dir, &name).await.unwrap();
                let kind = self.world.attr(object).await.unwrap().kind;
                let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                if kind == FileKind::Directory {
                    left.push((path.clone(), object));
                }
                seen.insert(path, (object, kind));
            }
        }
        seen
    }

    async fn step(&mut self) {
        let tree = self.tree().await;
        let all: Vec<_> = tree.iter().map(|(path, (object, kind))| (path.clone(), *object, *kind)).collect();
        let of = |kind| all.iter().filter(|(_, _, is)| *is == kind).cloned().collect::<Vec<_>>();
        let (files, mut dirs) = (of(FileKind::Regular), of(FileKind::Directory));
        dirs.push((String::new(), self.root, FileKind::Directory));
        let (_, dir, _) = dirs.choose(&mut self.rng).unwrap().clone();
        let name = format!("{}{}", ["f", "n", "twin"].choose(&mut self.rng).unwrap(), self.rng.random_range(0..6));
        let to = Place { dir, name: name.as_bytes() };
        let (path, object, kind) = all.choose(&mut self.rng).unwrap().clone();
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", &path));
        let parent = self.world.find(self.root, parent).await.unwrap();
        let from = Place { dir: parent, name: last.as_bytes() };
        let file = files.choose(&mut self.rng).map(|(_, file, _)| *file);
        let world = self.world;
        let outcome = match self.rng.random_range(0..100) {
            0..20 => {
                let Some(file) = file else { return };
                let (at, byte) = (self.rng.random_range(0..20_000), self.rng.random_range(1..255u8));
                let data = vec![byte; self.rng.random_range(1..5000)];
                world.run(|vfs, rq| vfs.write(rq, file, at, &data, false)).await.map(drop)
            }
            20..30 => {
                let Some(file) = file else { return };
                let new = NewAttr { size: Some(self.rng.random_range(0..12_000)), ..NewAttr::default() };
                world.run(|vfs, rq| vfs.setattr(rq, file, new, None)).await.map(drop)
            }
            30..38 => {
                let new = NewAttr { mode: Some(self.rng.random_range(0..0o777)), ..NewAttr::default() };
                world.run(|vfs, rq| vfs.setattr(rq, object, new, None)).await.map(drop)
            }
            38..50 => {
                let how = CreateHow::Guarded(NewAttr { mode: Some(0o640), ..NewAttr::default() });
                world.run(|vfs, rq| vfs.create(rq, to, how)).await.map(drop)
            }
            50..56 => world.run(|vfs, rq| vfs.make(rq, to, NewObject::Directory, NewAttr::default())).await.map(drop),
            56..60 => {
                let link = NewObject::Symlink(b"somewhere");
                world.run(|vfs, rq| vfs.make(rq, to, link, NewAttr::default())).await.map(drop)
            }
            60..72 => world.run(|vfs, rq| vfs.remove(rq, from)).await.map(drop),
            72..78 => world.run(|vfs, rq| vfs.rmdir(rq, from)).await.map(drop),
            78..84 => world.run(|vfs, rq| vfs.link(rq, object, to)).await.map(drop),
            _ if kind == FileKind::Directory && !self.moves_directories => Ok(()),
            _ => world.run(|vfs, rq| vfs.rename(rq, from, to)).await.map(drop),
        };
        // What is refused changes nothing.
        outcome.ok();
    }
}

fn seed() -> u64 {
    let seed = std::env::var("MIMEO_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}: MIMEO_SEED={seed} repeats it");
    seed
}

fn snapshot(name: &str) -> NewSnapshot {
    let target = CloneTarget::Names(vec!["desk".into()]);
    NewSnapshot { target, name: name.into(), labels: Labels::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_differs_from_its_version_as_the_version_that_it_becomes() {
    let seed = seed();
    for moves_directories in [false, true] {
        let world = World::new().await;
        let root = image(&world).await;
        assert_eq!(told(&world, "desk").await, Told::new());
        let mut changes = Changes { world: &world, root, rng: SmallRng::seed_from_u64(seed), moves_directories };
        for round in 0..ROUNDS {
            for _ in 0..STEPS {
                changes.step().await;
            }
            let (clone, version) = (told(&world, "desk").await, promoted(&world, "desk").await);
            assert_same(&clone, &version, &format!("round {round}"));
            assert!(!comparable(&clone, &clone).is_empty());
            // One layer more.
            let name = format!("s{round}");
            world.fleet.snapshot(snapshot(&name)).await.unwrap();
            assert_eq!(told(&world, &format!("desk@{name}")).await, clone);
            world.fleet.restore("desk", &name).await.unwrap();
            assert_eq!(told(&world, "desk").await, clone);
        }
    }
}

/// Change some of the source, at random.
fn change_source(source: &Path, rng: &mut SmallRng) {
    for dir in ["one", "one/deep", "two", "three/er"] {
        for n in 0..6 {
            let path = format!("{dir}/f{n}");
            match rng.random_range(0..8) {
                0..2 => write(source, &path, noise(rng.random(), rng.random_range(1..20_000))),
                2 => drop(fs::remove_file(source.join(&path))),
                3 => write(source, &format!("{dir}/n{n}"), noise(rng.random(), 12)),
                4 if source.join(&path).exists() => chmod(source, &path, 0o600),
                _ => {}
            }
        }
    }
}

/// Private writes that went along to another version are compared with that one.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_over_a_switch_differs_from_the_new_version() {
    let seed = seed();
    for (conflict, salt) in [(OnConflict::CloneWins, 1), (OnConflict::ImageWins, 2)] {
        let world = World::new().await;
        let root = image(&world).await;
        let rng = SmallRng::seed_from_u64(seed ^ salt);
        let mut changes = Changes { world: &world, root, rng, moves_directories: false };
        for round in 0..ROUNDS / 2 {
            for _ in 0..STEPS / 2 {
                changes.step().await;
            }
            let source = world.source("src");
            change_source(&source, &mut changes.rng);
            let to = world.import("img", &source).await.unwrap().version.number;
            let plan = RepointPlan::new("img", VersionRef::number("img", to), CloneTarget::All);
            let policy = SwitchPolicy { writes: Some(Writes::Keep), conflict: Some(conflict), ..plan.policy };
            world.fleet.repoint(RepointPlan { policy, ..plan }).await.unwrap();
            assert_eq!(world.catalog.state().clone_named("desk").unwrap().view.version, to);
            let (clone, version) = (told(&world, "desk").await, promoted(&world, "desk").await);
            assert_same(&clone, &version, &format!("{conflict:?}, round {round}"));
        }
    }
}

async fn rename(world: &World, root: Object, from: &str, to: &str) {
    let split = |path: &'static str| path.rsplit_once('/').unwrap_or(("", path));
    let (from, to) = (split(from.to_owned().leak()), split(to.to_owned().leak()));
    let (dir, to_dir) = (world.find(root, from.0).await.unwrap(), world.find(root, to.0).await.unwrap());
    let (from, to) = (Place { dir, name: from.1.as_bytes() }, Place { dir: to_dir, name: to.1.as_bytes() });
    world.run(|vfs, rq| vfs.rename(rq, from, to)).await.unwrap();
}

async fn put(world: &World, root: Object, path: &str, data: &[u8]) {
    let file = world.find(root, path).await.unwrap();
    world.run(|vfs, rq| vfs.write(rq, file, 10, data, false)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_directory_is_one_line_and_what_changed_in_it_is_at_its_new_place() {
    let world = World::new().await;
    let root = image(&world).await;
    rename(&world, root, "one", "three/moved").await;
    put(&world, root, "three/moved/deep/f2", &[7; 100]).await;
    rename(&world, root, "three/moved/f3", "three/moved/deep/new").await;
    put(&world, root, "two/twin", &[7; 50]).await;
    let (found, bytes_private) = diff(&world, "desk").await;
    assert_eq!(bytes_private, 150);
    let lines: BTreeMap<String, (char, u64, u64, u64)> = found
        .iter()
        .map(|difference| {
            let (path, (letter, ..), old, new) = line(&difference.change);
            (path, (letter, old, new, difference.bytes_private))
        })
        .filter(|(path, (letter, ..))| *letter != 'M' || path.contains(['f', 't']))
        .collect();
    let expected = [
        ("one", ('D', 0, 0, 0)),
        ("three/moved", ('A', 0, 0, 0)),
        ("three/moved/deep/f2", ('M', 6000, 6000, 100)),
        ("three/moved/deep/new", ('A', 0, 9000, 0)),
        ("three/moved/f3", ('D', 9000, 0, 0)),
        // One file with three names.
        ("three/moved/f1", ('M', 3000, 3000, 50)),
        ("three/triplet", ('M', 3000, 3000, 50)),
        ("two/twin", ('M', 3000, 3000, 50)),
    ];
    let mut expected: BTreeMap<_, _> = expected.iter().map(|(path, line)| ((*path).to_owned(), *line)).collect();
    // Directories with other names in them have another mtime.
    for dir in ["three", "two", "three/moved", "three/moved/deep"] {
        expected.extend(lines.get(dir).filter(|(letter, ..)| *letter == 'M').map(|line| (dir.to_owned(), *line)));
    }
    assert_eq!(lines, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_and_grown_again_has_other_data() {
    let world = World::new().await;
    let root = image(&world).await;
    let file = world.find(root, "one/f5").await.unwrap();
    for size in [100, 15_000] {
        let new = NewAttr { size: Some(size), ..NewAttr::default() };
        world.run(|vfs, rq| vfs.setattr(rq, file, new, None)).await.unwrap();
    }
    let expected = ("one/f5".to_owned(), ('M', true, true, false), 15_000, 15_000);
    assert_eq!(told(&world, "desk").await, Told::from([expected]));
}

/// What is looked at stays as it is, whatever is done to the clone; afterwards nothing is left of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_outlives_its_clone_and_leaves_nothing() {
    const GRACE: Duration = Duration::from_secs(10);
    let world = World::new().await;
    let root = image(&world).await;
    put(&world, root, "one/f2", b"first").await;
    let revision = world.catalog.state().rev();
    let look = world.fleet.look(&"desk".parse().unwrap()).await.unwrap();
    assert_eq!(world.catalog.state().rev(), revision, "the catalog knows nothing of it");
    put(&world, root, "one/f2", b"second").await;
    put(&world, root, "one/f3", b"second").await;
    world.fleet.remove_clones(CloneTarget::Names(vec!["desk".into()])).await.unwrap();
    let ids = world.overlays().ids();
    assert_eq!(ids.len(), 1);
    for now in [0, 100] {
        world.fleet.forget_marks(Duration::from_secs(now), GRACE).await;
        world.overlays().purge_history(ids[0], &[]).await.unwrap();
        world.overlays().purge_overlays(&ids, |_| false).await.unwrap();
    }
    let private = look.private().await.unwrap();
    let chunks = world.chunks.clone();
    let compare = move || {
        let mut paths = Vec::new();
        let mut visit = |difference: Difference| {
            paths.push(String::from_utf8(difference.change.path).unwrap());
            Ok(ControlFlow::Continue(()))
        };
        assert_eq!(look.diff(&*chunks, &private, &mut visit).unwrap(), 5);
        paths
    };
    assert_eq!(tokio::task::spawn_blocking(compare).await.unwrap(), ["one/f2"]);
    world.overlays().purge_overlays(&ids, |_| false).await.unwrap();
    assert_eq!(world.overlays().ids(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_what_is_not_there_is_refused() {
    let world = World::new().await;
    image(&world).await;
    for name in ["nobody", "desk@never"] {
        assert!(world.fleet.look(&name.parse().unwrap()).await.is_err(), "{name}");
    }
}

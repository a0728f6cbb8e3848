//! A real daemon and the fleet in memory, side by side.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use crate::common::daemon::Daemon;
use crate::common::nfs3::{Call, Sattr, Stable, status};
use crate::fleet::{CloneModel, Leads, View};
use crate::golden::{self, Press, ROOT};
use crate::reference::{Caller, Data, Driver, Guard, Mix, ObjectId, Op, Tree, random_op};
use crate::switches::Past;

pub const IMAGE: &str = "base";
const VERSIONS: usize = 4;
/// Numbers of objects that clients make begin here.
const MADE: ObjectId = 1_000_000;

pub struct World {
    pub daemon: Daemon,
    pub driver: Driver,
    pub rng: SmallRng,
    /// In the order of their numbers.
    pub versions: Vec<Tree>,
    pub clones: BTreeMap<String, CloneModel>,
    pub names: u32,
    /// Repoints and rollbacks that were made.
    pub past: Vec<Past>,
    /// What repoints did to clones, and how often.
    pub fates: BTreeMap<&'static str, u32>,
    _dir: TempDir,
}

impl World {
    /// A daemon with an image of some versions, and no clone.
    pub fn new(seed: u64) -> Self {
        println!("MIMEO_SEED={seed}");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let daemon = Daemon::start(&dir.path().join("data"));
        let driver = Driver::connect(daemon.address, format!("MIMEO_SEED={seed}"), MADE).expect("it serves");
        let rng = SmallRng::seed_from_u64(seed);
        let mut world = Self {
            daemon,
            driver,
            rng,
            versions: Vec::new(),
            clones: BTreeMap::new(),
            names: 0,
            past: Vec::new(),
            fates: BTreeMap::new(),
            _dir: dir,
        };
        let mut press = Press::new(ROOT);
        for number in 1..=VERSIONS {
            let tree = match world.versions.last() {
                Some(last) => press.next(last, &mut world.rng),
                None => press.first(&mut world.rng),
            };
            let source = world._dir.path().join(format!("v{number}"));
            golden::write(&tree, &source);
            world.daemon.must(&["image", "import", IMAGE, source.to_str().expect("UTF-8")]);
            world.add_version(tree);
        }
        world
    }

    /// The next version is served as `tree`; its times are learnt.
    fn add_version(&mut self, mut tree: Tree) {
        let number = self.versions.len() + 1;
        self.mount(&format!("/images/{IMAGE}@v{number}"), &mut tree);
        self.driver.note(format!("compare version {number}"));
        self.driver.compare(&mut tree).expect("it serves");
        self.versions.push(View::of_version(&tree, number).tree);
    }

    /// The first version of `image` is served as `tree`.
    pub fn compare_version(&mut self, image: &str, tree: Tree) {
        let mut tree = View::of_version(&tree, 1).tree;
        self.mount(&format!("/images/{image}@v1"), &mut tree);
        self.driver.note(format!("compare {image}"));
        self.driver.compare(&mut tree).expect("it serves");
    }

    fn mount(&mut self, export: &str, tree: &mut Tree) {
        let root = self.driver.link.mount(export).expect("it serves");
        self.driver.learn(tree, ROOT, root, None);
    }

    pub fn some_clone(&mut self) -> String {
        self.clones.keys().choose(&mut self.rng).expect("there are clones").clone()
    }

    pub fn fresh_name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("{what}-{}", self.names)
    }

    /// Put a clone that was made into the model, and look at all of it.
    pub fn adopt(&mut self, name: &str, mut clone: CloneModel) {
        self.mount(&format!("/clones/{name}"), &mut clone.view.tree);
        self.clones.insert(name.to_owned(), clone);
        self.compare(name);
    }

    pub fn compare(&mut self, name: &str) {
        self.driver.note(format!("compare {name}"));
        let clone = self.clones.get_mut(name).expect("in the model");
        self.driver.compare(&mut clone.view.tree).expect("it serves");
    }

    pub fn compare_all(&mut self) {
        for name in self.clones.keys().cloned().collect::<Vec<_>>() {
            self.compare(&name);
        }
        self.compare_catalog();
    }

    /// A snapshot is what it was: look at it through a fork.
    pub fn compare_snapshot(&mut self, name: &str, snapshot: &str) {
        let fork = self.fresh_name("look");
        self.driver.note(format!("look at {name}@{snapshot} as {fork}"));
        self.daemon.must(&["clone", "fork", &format!("{name}@{snapshot}"), &fork]);
        let clone = &self.clones[name];
        let model = CloneModel::new(clone.snapshots[snapshot].clone(), clone.depth + 1);
        self.adopt(&fork, model);
        self.daemon.must(&["clone", "rm", &fork]);
        self.clones.remove(&fork);
    }

    /// What the command line says of all clones.
    fn compare_catalog(&self) {
        let listed = self.daemon.json(&["clone", "ls"]);
        let listed = listed["clones"].as_array().expect("a list");
        let names: Vec<&str> = listed.iter().map(|clone| clone["name"].as_str().expect("a name")).collect();
        assert_eq!(names, self.clones.keys().collect::<Vec<_>>(), "{}", self.driver.who);
        for (info, clone) in listed.iter().zip(self.clones.values()) {
            let version = |number: usize| format!("{IMAGE}@v{number}");
            let label = info["labels"]["group"].as_str().map(str::to_owned);
            let said = (info["version"].as_str(), info["snapshots"].as_u64(), info["lagging"].as_str(), label);
            let shown = version(clone.view.version);
            let lagging = clone.lagging.as_ref().map(|(number, _)| version(*number));
            let want = (Some(&*shown), Some(clone.snapshots.len() as u64), lagging.as_deref(), clone.label.clone());
            assert_eq!(said, want, "{}: {info}", self.driver.who);
            let bytes = info["bytes_private"].as_u64().expect("a number");
            let inodes = info["inodes_private"].as_u64().expect("a number");
            let clean = (bytes, inodes) == (0, 0);
            assert!(clean || clone.view.is_private(), "{}: nothing was written: {info}", self.driver.who);
            let touched = clone.view.tree.objects.values().filter(|object| object.attr.now().touched).count() as u64;
            assert!(inodes >= touched, "{}: {touched} objects were touched: {info}", self.driver.who);
        }
    }

    /// Some operations on one clone, then compare it.
    pub fn run(&mut self, name: &str, count: u64, mix: Mix) {
        self.driver.note(format!("{count} operations on {name}"));
        for _ in 0..count {
            let clone = self.clones.get_mut(name).expect("in the model");
            if !clone.held.is_empty() && self.rng.random_ratio(1, 8) {
                self.use_held(name);
                continue;
            }
            let op = random_op(&clone.view.tree, mix, &mut self.rng);
            let by = if self.rng.random_ratio(1, 3) { Caller::USER } else { Caller::ROOT };
            self.driver.step_as(by, &mut clone.view.tree, op).expect("it serves");
        }
        self.compare(name);
    }

    /// Use a handle from before a switch.
    fn use_held(&mut self, name: &str) {
        let clone = self.clones.get_mut(name).expect("in the model");
        let held = clone.held.iter().choose(&mut self.rng).expect("not empty").clone();
        let leads = clone.resolve(&held);
        let into_pin = matches!(leads, Leads::Pin(..));
        let (tree, or) = match leads {
            Leads::Current => (&mut clone.view.tree, None),
            Leads::Pin(pin, may_be_gone) => (&mut clone.pins[pin].tree, may_be_gone.then_some(status::STALE)),
            Leads::Nowhere => {
                self.driver.note(format!("GETATTR of the handle that {} had", held.id));
                let answer = self.driver.link.call(&Call::getattr(&held.handle)).expect("it serves");
                if answer.status != status::STALE {
                    self.driver.fail(format!("a handle of what is gone: {answer:?}"));
                }
                return;
            }
        };
        self.driver.note("by a handle from before a switch:");
        let op = held_op(tree, held.id, &mut self.rng);
        clone.pins_written |= into_pin;
        self.driver.step_or(tree, op, or).expect("it serves");
    }

    /// Remember some handles of files, as clients do that hold them open.
    pub fn hold_some(&mut self, name: &str) {
        let clone = self.clones.get_mut(name).expect("in the model");
        let tree = &clone.view.tree;
        let files = tree.objects.keys().copied().filter(|id| tree.is_file(*id));
        for id in files.choose_multiple(&mut self.rng, 4) {
            clone.hold(id);
        }
    }

    /// SIGKILL, and everything is as a crash may leave it.
    pub fn crash(&mut self) {
        self.driver.note("SIGKILL");
        self.daemon.kill();
        self.daemon.fsck();
        self.daemon.start_again();
        let mut window = self.driver.reconnect(self.daemon.address).expect("it serves");
        for clone in self.clones.values_mut() {
            let lossy = !clone.view.tree.is_certain();
            self.driver.compare_after(&mut clone.view.tree, &mut window).expect("it serves");
            if lossy {
                // Whether any write is left is not known where it may have been the only one.
                clone.view.tree.changed = clone.view.layers == 0 && !clone.view.tree.touched().is_empty();
            }
        }
        self.driver.all_certain();
        self.compare_catalog();
    }

    /// SIGTERM; nothing is lost.
    pub fn restart(&mut self) {
        self.driver.note("SIGTERM");
        self.daemon.stop();
        self.daemon.fsck();
        self.daemon.start_again();
        self.driver.reconnect_after_stop(self.daemon.address).expect("it serves");
        for clone in self.clones.values_mut() {
            clone.view.tree.settle_now();
        }
        self.compare_all();
    }
}

/// What one does with an open file. Of stable writes only: what a crash left of others could be looked up in
/// no directory.
fn held_op(tree: &Tree, id: ObjectId, rng: &mut SmallRng) -> Op {
    let size = tree.attr(id).size;
    match rng.random_range(0..5) {
        0 => Op::Getattr { id },
        1 | 2 => {
            let data = Data { seed: rng.random(), len: rng.random_range(1..20_000) };
            Op::Write { id, offset: rng.random_range(0..=size.min(1 << 20)), data, stable: Stable::FileSync }
        }
        3 => {
            let set = Sattr { size: Some(rng.random_range(0..=size)), ..Sattr::default() };
            Op::Setattr { id, set, guard: Guard::None }
        }
        _ => Op::Read { id, offset: rng.random_range(0..=size), count: 100_000 },
    }
}

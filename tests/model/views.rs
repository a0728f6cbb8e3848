//! What administrators do: random commands, and what they do to the model.

use std::collections::BTreeSet;

use rand::Rng;
use rand::seq::IteratorRandom;

use crate::fleet::{CloneModel, View};
use crate::world::{IMAGE, World};

/// Where the model stops to make more, far from every limit of the product but the last two.
const MOST_CLONES: usize = 7;
const MOST_SNAPSHOTS: usize = 6;
const MOST_PINS: usize = 5;
const MOST_LAYERS: usize = 6;
const MOST_DEPTH: usize = 6;
const MOST_TURNS: usize = 28;

impl World {
    /// One random command.
    pub fn command(&mut self) {
        if self.clones.len() < 2 {
            return self.create();
        }
        match self.rng.random_range(0..100) {
            0..8 => self.create(),
            8..28 => self.snapshot(),
            28..42 => self.restore(),
            42..54 => self.fork(),
            54..74 => self.repoint(),
            74..80 => self.roll_back(),
            80..85 => self.remove(),
            85..91 => self.remove_snapshot(),
            91..94 => self.label(),
            94..97 => self.promote(),
            _ => self.drop_pins(),
        }
    }

    pub fn create(&mut self) {
        if self.clones.len() >= MOST_CLONES {
            return self.remove();
        }
        let (name, version) = (self.fresh_name("desk"), self.some_version());
        self.driver.note(format!("create {name} of version {version}"));
        self.daemon.must(&["clone", "create", &format!("{IMAGE}@v{version}"), &name]);
        let view = View::of_version(&self.versions[version - 1], version);
        self.adopt(&name, CloneModel::new(view, 0));
    }

    pub fn some_version(&mut self) -> usize {
        self.rng.random_range(1..=self.versions.len())
    }

    fn remove(&mut self) {
        let name = self.some_clone();
        self.driver.note(format!("rm {name}"));
        self.daemon.must(&["clone", "rm", &name]);
        self.clones.remove(&name);
    }

    pub fn snapshot(&mut self) {
        let (name, snapshot) = (self.some_clone(), self.fresh_name("snap"));
        if self.clones[&name].snapshots.len() >= MOST_SNAPSHOTS {
            return self.remove_snapshot();
        }
        self.driver.note(format!("snapshot {name}@{snapshot}"));
        self.daemon.must(&["clone", "snapshot", &name, &snapshot]);
        self.keep(&name, &snapshot);
    }

    /// The clone as it is now is kept as a snapshot.
    pub fn keep(&mut self, name: &str, snapshot: &str) {
        let clone = self.clones.get_mut(name).expect("in the model");
        self.driver.synced(&mut clone.view.tree);
        clone.snapshots.insert(snapshot.to_owned(), clone.view.sealed());
    }

    /// A clone with a snapshot, and that.
    fn some_snapshot(&mut self) -> Option<(String, String)> {
        let all = self.clones.iter().flat_map(|(name, clone)| clone.snapshots.keys().map(move |s| (name, s)));
        all.choose(&mut self.rng).map(|(name, snapshot)| (name.clone(), snapshot.clone()))
    }

    pub fn remove_snapshot(&mut self) {
        let Some((name, snapshot)) = self.some_snapshot() else { return };
        self.driver.note(format!("rm-snapshot {name}@{snapshot}"));
        self.daemon.must(&["clone", "rm-snapshot", &name, &snapshot]);
        self.clones.get_mut(&name).expect("in the model").snapshots.remove(&snapshot);
    }

    pub fn look_at_a_snapshot(&mut self) {
        if let Some((name, snapshot)) = self.some_snapshot() {
            self.compare_snapshot(&name, &snapshot);
        }
    }

    fn restore(&mut self) {
        let Some((name, snapshot)) = self.some_snapshot() else { return self.snapshot() };
        if !self.may_switch(&name) {
            return;
        }
        self.hold_some(&name);
        self.driver.note(format!("restore {name} {snapshot}"));
        let done = self.daemon.json(&["clone", "restore", &name, &snapshot]);
        self.keep(&name, done["before"].as_str().expect("a snapshot's name"));
        let clone = self.clones.get_mut(&name).expect("in the model");
        let view = clone.snapshots[&snapshot].clone();
        if done["view"] == clone.number {
            assert!(!clone.view.tree.changed, "{}: only what is shown already is not switched to", self.driver.who);
        } else {
            clone.switch(view, &BTreeSet::new());
        }
        self.compare(&name);
    }

    /// Whether the model has room for one more view of this clone.
    pub fn may_switch(&mut self, name: &str) -> bool {
        let clone = &self.clones[name];
        if clone.pins.len() >= MOST_PINS {
            self.drop_pins_of(name);
        }
        self.clones[name].turns < MOST_TURNS
    }

    fn fork(&mut self) {
        if self.clones.len() >= MOST_CLONES {
            return self.remove();
        }
        let source = match self.some_snapshot() {
            Some((name, snapshot)) if self.rng.random() => (name, Some(snapshot)),
            _ => (self.some_clone(), None),
        };
        let clone = &self.clones[&source.0];
        if clone.depth >= MOST_DEPTH || clone.view.layers >= MOST_LAYERS {
            return;
        }
        let fork = self.fresh_name("fork");
        let text = match &source.1 {
            Some(snapshot) => format!("{}@{snapshot}", source.0),
            None => source.0.clone(),
        };
        self.driver.note(format!("fork {text} {fork}"));
        self.daemon.must(&["clone", "fork", &text, &fork]);
        let clone = self.clones.get_mut(&source.0).expect("in the model");
        let view = match &source.1 {
            Some(snapshot) => clone.snapshots[snapshot].clone(),
            None => {
                self.driver.synced(&mut clone.view.tree);
                clone.view.sealed()
            }
        };
        let depth = clone.depth + 1;
        self.adopt(&fork, CloneModel::new(view, depth));
    }

    /// A version is made of what a clone or a snapshot shows; it, and a clone of it, show the same.
    pub fn promote(&mut self) {
        let (source, view) = match self.some_snapshot() {
            Some((name, snapshot)) if self.rng.random() => {
                (format!("{name}@{snapshot}"), self.clones[&name].snapshots[&snapshot].clone())
            }
            _ => {
                let name = self.some_clone();
                let clone = self.clones.get_mut(&name).expect("in the model");
                self.driver.synced(&mut clone.view.tree);
                (name.clone(), clone.view.sealed())
            }
        };
        let (image, copy) = (self.fresh_name("promoted"), self.fresh_name("copy"));
        self.driver.note(format!("promote {source} {image}, create {copy}"));
        self.daemon.must(&["clone", "promote", &source, &image]);
        let view = view.promoted();
        self.compare_version(&image, view.tree.clone());
        self.daemon.must(&["clone", "create", &image, &copy]);
        self.adopt(&copy, CloneModel::new(View::of_version(&view.tree, 1), 0));
        self.daemon.must(&["clone", "rm", &copy]);
        self.clones.remove(&copy);
    }

    fn label(&mut self) {
        let name = self.some_clone();
        let group = self.rng.random_range(0..3).to_string();
        self.driver.note(format!("label {name} group={group}"));
        self.daemon.must(&["clone", "label", &name, &format!("group={group}")]);
        self.clones.get_mut(&name).expect("in the model").label = Some(group);
    }

    fn drop_pins(&mut self) {
        let name = self.some_clone();
        self.drop_pins_of(&name);
    }

    fn drop_pins_of(&mut self, name: &str) {
        self.driver.note(format!("pins --drop --clone {name}"));
        self.daemon.must(&["pins", "--drop", "--clone", name]);
        self.clones.get_mut(name).expect("in the model").drop_pins();
    }
}

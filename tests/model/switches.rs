//! Repoints of one clone or several, with each policy for private writes, and rollbacks.

use std::collections::BTreeSet;

use rand::Rng;
use rand::seq::{IndexedRandom, IteratorRandom};
use serde_json::Value;

use crate::fates::{Fate, OnConflict, Writes};
use crate::fleet::View;
use crate::reference::ObjectId;
use crate::winners::Winner;
use crate::world::{IMAGE, World};

/// An operation that was made.
pub struct Past {
    id: String,
    switched: Vec<Switched>,
    rolled_back: bool,
}

/// A clone that it switched.
struct Switched {
    name: String,
    /// The number of the view that it shows since.
    number: u64,
    before: View,
    /// Its version is all that it showed, and the operation knows that.
    is_plain: bool,
}

impl World {
    /// Switch one clone or several to a version, all or none.
    pub fn repoint(&mut self) {
        let count = [1, 1, 2, 3][self.rng.random_range(0..4)];
        let chosen: Vec<String> = self.clones.keys().cloned().choose_multiple(&mut self.rng, count);
        if !chosen.iter().all(|name| self.may_switch(name)) {
            return;
        }
        chosen.iter().for_each(|name| self.hold_some(name));
        let (version, writes) = (self.some_version(), self.some_writes(&chosen[0]));
        let on_conflict = self.some_winner(&writes);
        let may_fail = if self.rng.random_ratio(1, 4) { 1 } else { 0 };
        let (to, failures) = (format!("{IMAGE}@v{version}"), may_fail.to_string());
        let mut command = vec!["repoint", IMAGE, "--to", &to, "--max-failures", &failures];
        command.extend(writes.arguments());
        if let Some(winner) = on_conflict {
            command.extend(["--conflict", winner.argument()]);
        }
        command.push("--clone");
        command.extend(chosen.iter().map(String::as_str));
        self.driver.note(command.join(" "));
        for name in &chosen {
            let conflicts = self.sides(name, version).conflicts();
            self.driver.note(format!("{name} of v{}, both changed {conflicts:?}", self.clones[name].view.version));
        }
        let fates: Vec<Fate> = chosen.iter().map(|name| self.fate(name, version, &writes, on_conflict)).collect();
        let failed = fates.iter().filter(|fate| matches!(fate, Fate::Conflicts(_))).count();
        if failed > may_fail {
            *self.fates.entry("refused").or_default() += 1;
            self.must_refuse(&command, &chosen, &fates);
        } else {
            chosen.iter().zip(&fates).for_each(|(name, fate)| self.count(name, version, fate));
            let done = self.repoint_as_predicted(&command, &fates);
            self.repointed(&chosen, version, fates, &done);
        }
        chosen.iter().for_each(|name| self.compare(name));
    }

    fn count(&mut self, name: &str, version: usize, fate: &Fate) {
        *self.fates.entry(fate.word()).or_default() += 1;
        if matches!(fate, Fate::Kept(_)) && !self.sides(name, version).conflicts().is_empty() {
            *self.fates.entry("kept in conflicts").or_default() += 1;
        }
    }

    fn some_writes(&mut self, name: &str) -> Writes {
        match self.rng.random_range(0..10) {
            0 => Writes::Stay,
            1 | 2 => Writes::Discard,
            3..6 => {
                let paths = self.some_paths(name);
                if paths.is_empty() { Writes::Keep } else { Writes::Preserve(paths) }
            }
            _ => Writes::Keep,
        }
    }

    fn some_winner(&mut self, writes: &Writes) -> OnConflict {
        match (writes, self.rng.random_range(0..4)) {
            (Writes::Keep | Writes::Preserve(_), 0) => Some(Winner::Clone),
            (Writes::Keep | Writes::Preserve(_), 1) => Some(Winner::Image),
            _ => None,
        }
    }

    /// Paths of a clone, or of its version.
    fn some_paths(&mut self, name: &str) -> Vec<String> {
        let view = &self.clones[name].view;
        let trees = [&view.tree, &self.versions[view.version - 1]];
        let paths = trees.into_iter().flat_map(|tree| tree.objects.keys().map(|id| tree.path(*id)));
        let plain =
            |path: &String| path.len() > 1 && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-".contains(&b));
        let count = self.rng.random_range(1..=3);
        let chosen: Vec<String> = paths.filter(plain).choose_multiple(&mut self.rng, count);
        chosen.iter().map(|path| path.trim_start_matches('/').to_owned()).collect()
    }

    fn must_refuse(&mut self, command: &[&str], chosen: &[String], fates: &[Fate]) {
        let why: Vec<String> =
            chosen.iter().zip(fates).map(|(name, fate)| format!("{name}: {}", fate.text())).collect();
        match self.daemon.run(command) {
            Ok(said) => self.driver.fail(format!("{why:?}, and it was done: {said}")),
            Err(said) => {
                let blamed =
                    |(name, fate): (&String, &Fate)| matches!(fate, Fate::Conflicts(_)) && said.contains(name.as_str());
                if !chosen.iter().zip(fates).any(blamed) {
                    self.driver.fail(format!("a refusal that does not say why, {why:?}: {said}"));
                }
            }
        }
    }

    /// The dry run says what is then done, and that is what the model says.
    fn repoint_as_predicted(&mut self, command: &[&str], fates: &[Fate]) -> Value {
        let predicted = self.daemon.json(&[command, &["--dry-run"]].concat());
        if !predicted["refused"].is_null() {
            let texts: Vec<String> = fates.iter().map(Fate::text).collect();
            self.driver.fail(format!("{texts:?}, and it is refused: {predicted}"));
        }
        let done = self.daemon.json(command);
        if done["moved"].as_array().is_none_or(|moved| !moved.is_empty()) {
            self.driver.fail(format!("nothing was written since the dry run, and some are said to have moved: {done}"));
        }
        let count = |is: &dyn Fn(&Fate) -> bool| fates.iter().filter(|fate| is(fate)).count();
        let want = [
            ("kept", count(&|fate| matches!(fate, Fate::Kept(_)))),
            ("preserved", count(&|fate| matches!(fate, Fate::Preserved(..)))),
            ("discarded", count(&|fate| matches!(fate, Fate::Discarded(_)))),
            ("unchanged", count(&|fate| matches!(fate, Fate::Unchanged))),
            ("lagging", count(&|fate| matches!(fate, Fate::Stays | Fate::Conflicts(_)))),
        ];
        for (what, want) in want {
            if predicted[what] != want || done[what] != want {
                let texts: Vec<String> = fates.iter().map(Fate::text).collect();
                self.driver.fail(format!("{texts:?}: {what} {want} expected; predicted {predicted}; done {done}"));
            }
        }
        done
    }

    fn repointed(&mut self, chosen: &[String], version: usize, fates: Vec<Fate>, done: &Value) {
        let id = done["operation"].as_str().expect("an operation").to_owned();
        let mut past = Past { id: id.clone(), switched: Vec::new(), rolled_back: false };
        for (name, fate) in chosen.iter().zip(fates) {
            let (view, along, is_plain) = match fate {
                Fate::Unchanged => {
                    self.clones.get_mut(name).expect("in the model").lagging = None;
                    continue;
                }
                Fate::Stays | Fate::Conflicts(_) => {
                    self.clones.get_mut(name).expect("in the model").lagging = Some((version, id.clone()));
                    continue;
                }
                Fate::Switched(view) => (view, BTreeSet::new(), true),
                Fate::Discarded(view) => (view, BTreeSet::new(), false),
                Fate::Preserved(view, along) => (view, along, false),
                Fate::Kept(view) => (view, self.clones[name].view.tree.objects.keys().copied().collect(), false),
            };
            let switched = self.switch(name, view, &along, is_plain, done["snapshot"].as_str());
            self.clones.get_mut(name).expect("in the model").lagging = None;
            past.switched.push(switched);
        }
        self.past.push(past);
    }

    fn switch(
        &mut self,
        name: &str,
        view: View,
        along: &BTreeSet<ObjectId>,
        is_plain: bool,
        snapshot: Option<&str>,
    ) -> Switched {
        if self.clones[name].view.is_private() {
            self.keep(name, snapshot.expect("a snapshot of the private writes from before"));
        }
        let clone = self.clones.get_mut(name).expect("in the model");
        let before = clone.view.sealed();
        clone.switch(view, along);
        Switched { name: name.to_owned(), number: clone.number, before, is_plain }
    }

    /// Undo an operation of before, if nothing else was switched since; the newest ones most of all.
    pub fn roll_back(&mut self) {
        let recent = self.past.len().saturating_sub(4);
        let Some(at) = (recent..self.past.len()).collect::<Vec<_>>().choose(&mut self.rng).copied() else { return };
        let names: Vec<String> = self.past[at].switched.iter().map(|switched| switched.name.clone()).collect();
        let names: Vec<String> = names.into_iter().filter(|name| self.clones.contains_key(name)).collect();
        if !names.iter().all(|name| self.may_switch(name)) {
            return;
        }
        names.iter().for_each(|name| self.hold_some(name));
        let id = self.past[at].id.clone();
        self.driver.note(format!("rollback {id}"));
        let views: Option<Vec<View>> = self.past[at].switched.iter().filter_map(|s| self.view_before(&id, s)).collect();
        match views.filter(|_| !self.past[at].rolled_back) {
            Some(views) => self.rolled_back(at, &id, &names, views),
            None => {
                if let Ok(said) = self.daemon.run(&["rollback", &id]) {
                    self.driver.fail(format!("{id} cannot be undone, and it was done: {said}"));
                }
            }
        }
        names.iter().for_each(|name| self.compare(name));
    }

    /// What a clone showed, if anybody still knows; `None` if the clone is gone.
    fn view_before(&self, id: &str, switched: &Switched) -> Option<Option<View>> {
        let clone = self.clones.get(&switched.name)?;
        if clone.number != switched.number {
            return Some(None);
        }
        if let Some(kept) = clone.snapshots.get(&format!("before-{id}")) {
            return Some(Some(kept.clone()));
        }
        Some((!clone.pins.is_empty() || switched.is_plain).then(|| switched.before.clone()))
    }

    fn rolled_back(&mut self, at: usize, id: &str, names: &[String], views: Vec<View>) {
        let done = self.daemon.json(&["rollback", id]);
        *self.fates.entry("rolled back").or_default() += names.len() as u32;
        assert_eq!(done["clones"], names.len(), "{}: {done}", self.driver.who);
        let mut past = Past {
            id: done["operation"].as_str().expect("an operation").to_owned(),
            switched: Vec::new(),
            rolled_back: false,
        };
        for (name, view) in names.iter().zip(views) {
            past.switched.push(self.switch(name, view, &BTreeSet::new(), false, done["snapshot"].as_str()));
        }
        for clone in self.clones.values_mut() {
            clone.lagging.take_if(|(_, by)| by == id);
        }
        self.past[at].rolled_back = true;
        self.past.push(past);
    }
}

//! The fleet in memory: versions, clones with their views and pins, snapshots; and what operations on
//! views do to them.
//!
//! What is decided here is who keeps its name: which objects of a new view have the handle and the fileid
//! that they had before (docs/semantics.md, "Identity").

use std::collections::{BTreeMap, BTreeSet};

use crate::common::nfs3::Handle;
use crate::reference::{Identity, Instant, Object, ObjectId, Tree};
use crate::three_way::same_data;

/// A tree as a clone shows it, as a pin keeps it or as a snapshot holds it.
#[derive(Clone)]
pub struct View {
    pub tree: Tree,
    /// Counts from 1.
    pub version: usize,
    /// Sealed layers below the one that takes the writes.
    pub layers: usize,
}

impl View {
    pub fn of_version(tree: &Tree, version: usize) -> Self {
        Self { tree: fresh(tree), version, layers: 0 }
    }

    /// Whether it has private writes.
    pub fn is_private(&self) -> bool {
        self.layers > 0 || self.tree.changed
    }

    /// `tree` over a version, with `layers` below the one that takes the writes.
    pub fn over_version(tree: &Tree, version: usize, layers: usize) -> Self {
        Self { tree: fresh(tree), version, layers }
    }

    /// As it is now, for a snapshot, a fork or a restore.
    pub fn sealed(&self) -> Self {
        let mut tree = fresh(&self.tree);
        tree.settle_now();
        Self { tree, version: self.version, layers: self.layers + usize::from(self.tree.changed) }
    }

    /// As the first version of an image: the ctime is the store's own, and of then.
    pub fn promoted(mut self) -> Self {
        for object in self.tree.objects.values_mut() {
            object.attr.each(|attr| attr.ctime = attr.ctime.same_or_later());
        }
        self
    }
}

/// A tree that nobody has looked at yet.
fn fresh(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    tree.seen.clear();
    tree.renewed.clear();
    tree.former.clear();
    tree.ended.clear();
    tree.changed = false;
    let dirs: Vec<ObjectId> = tree.objects.keys().copied().filter(|id| tree.is_dir(*id)).collect();
    for dir in dirs {
        // A directory shows the time of the switch if that is later than its own.
        tree.object_mut(dir).attr.each(|attr| attr.ctime = attr.ctime.same_or_later());
    }
    tree
}

/// What a client holds: the object, and the handle as it was given.
#[derive(Clone)]
pub struct Held {
    pub id: ObjectId,
    pub handle: Handle,
}

pub struct CloneModel {
    pub view: View,
    /// Counts the views, from 1.
    pub number: u64,
    /// Newest first.
    pub pins: Vec<View>,
    pub snapshots: BTreeMap<String, View>,
    pub label: Option<String>,
    /// Behind which version, and by which operation.
    pub lagging: Option<(usize, String)>,
    pub depth: usize,
    /// Switches with private state on either side; there is a limit to them.
    pub turns: usize,
    pub held: Vec<Held>,
    /// Some pin was written since the last switch.
    pub pins_written: bool,
    /// Under which name each object was served last.
    latest: BTreeMap<ObjectId, Identity>,
    /// What each name meant last; `None`: it was removed.
    lines: BTreeMap<ObjectId, BTreeMap<Identity, Option<Object>>>,
    ever_touched: BTreeSet<ObjectId>,
}

/// Where a held handle leads.
pub enum Leads {
    Current,
    /// The pin, and whether it can have gone because another view has the same content.
    Pin(usize, bool),
    Nowhere,
}

impl CloneModel {
    pub fn new(view: View, depth: usize) -> Self {
        Self {
            view,
            number: 1,
            pins: Vec::new(),
            snapshots: BTreeMap::new(),
            label: None,
            lagging: None,
            depth,
            turns: 0,
            held: Vec::new(),
            pins_written: false,
            latest: BTreeMap::new(),
            lines: BTreeMap::new(),
            ever_touched: BTreeSet::new(),
        }
    }

    /// The view switch: `view` is shown from now on, and the former one is a pin. Of what the clone has
    /// changed, `along` goes along.
    pub fn switch(&mut self, mut view: View, along: &BTreeSet<ObjectId>) {
        self.number += 1;
        self.lagging.take_if(|(version, _)| *version == view.version);
        let former = &self.view.tree;
        self.latest.extend(former.seen.clone());
        let mut touched = former.touched();
        touched.extend(view.tree.touched());
        self.turns += usize::from(!touched.is_empty());
        self.ever_touched.extend(&touched);
        for pin in &self.pins {
            self.ever_touched.extend(pin.tree.touched());
        }
        self.remember_lines();
        self.name_objects(&mut view.tree, along);
        self.pins_written = false;
        self.pins.insert(0, std::mem::replace(&mut self.view, view));
    }

    /// What was written into pins is no content that a later view may have under the same handle.
    pub fn drop_pins(&mut self) {
        self.remember_lines();
        for pin in std::mem::take(&mut self.pins) {
            self.ever_touched.extend(pin.tree.touched());
        }
    }

    /// What each name means now; in the newest view that has it.
    fn remember_lines(&mut self) {
        for view in self.pins.iter().rev().chain([&self.view]) {
            for (id, identity) in &view.tree.seen {
                let object = view.tree.objects.get(id).cloned();
                self.lines.entry(*id).or_default().insert(identity.clone(), object);
            }
            for (identity, id) in &view.tree.ended {
                self.lines.entry(*id).or_default().insert(identity.clone(), None);
            }
        }
    }

    /// Who keeps its handle: directories; what was never touched; what goes along. For anything else a name
    /// that it had is right if it meant the same bytes.
    fn name_objects(&self, tree: &mut Tree, along: &BTreeSet<ObjectId>) {
        for id in tree.objects.keys().copied().collect::<Vec<_>>() {
            let is_dir = tree.is_dir(id);
            if is_dir {
                self.pass_switch_time(tree, id);
            }
            let goes_along = along.contains(&id);
            let was_changed = || self.view.tree.objects.get(&id).is_some_and(|object| object.attr.now().touched);
            let keeps = goes_along && (was_changed() || !self.pins_written);
            if is_dir || !self.ever_touched.contains(&id) || keeps {
                if let Some(identity) = self.latest.get(&id) {
                    tree.seen.insert(id, identity.clone());
                }
                continue;
            }
            if goes_along {
                // It may have been written in a pin, and then gets another name; both are right.
                continue;
            }
            let object = tree.object(id);
            let means_another = |line: &Option<Object>| !line.as_ref().is_some_and(|line| same_data(line, object));
            let lines = self.lines.get(&id).into_iter().flatten();
            let others = lines.filter(|(_, line)| means_another(line)).map(|(identity, _)| identity.clone()).collect();
            tree.former.insert(id, others);
            tree.renewed.insert(id);
        }
    }

    /// Clients drop names because the ctime is another.
    fn pass_switch_time(&self, tree: &mut Tree, dir: ObjectId) {
        let Some(before) = self.view.tree.objects.get(&dir).map(|object| object.attr.now().ctime) else { return };
        if let Instant::Is(_) | Instant::After(_) = before {
            tree.object_mut(dir).attr.each(|attr| attr.ctime = before.later());
        }
    }

    pub fn hold(&mut self, id: ObjectId) {
        if let Some(identity) = self.view.tree.seen.get(&id) {
            self.held.push(Held { id, handle: identity.handle.clone() });
        }
    }

    /// In the current view if the object is there under this handle, else in the newest pin where it is,
    /// unless it was removed in a newer view.
    pub fn resolve(&self, held: &Held) -> Leads {
        let mut may_have_ended = false;
        for (at, view) in std::iter::once(&self.view).chain(&self.pins).enumerate() {
            let tree = &view.tree;
            let name = tree.seen.get(&held.id).filter(|_| tree.objects.contains_key(&held.id));
            if name.is_some_and(|name| name.handle == held.handle) {
                let Some(pin) = at.checked_sub(1) else { return Leads::Current };
                return Leads::Pin(pin, may_have_ended || !tree.changed);
            }
            if tree.has_ended(&held.handle) {
                return Leads::Nowhere;
            }
            // It was removed under a name that nobody had looked at.
            may_have_ended |= tree.gone.contains(&held.id);
        }
        Leads::Nowhere
    }
}

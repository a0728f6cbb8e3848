//! Private changes over another version: what docs/semantics.md says of `--writes keep` and `preserve`.
//!
//! Names are compared by the directory that they are in, wherever that was moved to. What only the clone
//! changed stays as the clone has it, what only the image changed comes as the image has it, attributes
//! one by one. What both changed is a conflict; where a side is to win, `winners` says what then is.

use std::collections::{BTreeMap, BTreeSet};

use crate::reference::content::Content;
use crate::reference::states::States;
use crate::reference::{Attr, Kind, Object, ObjectId, Tree};
use crate::winners::{Decisions, Winner};

/// The version before, the clone, the version to come.
pub struct ThreeWay<'a> {
    /// The number of the version before.
    pub version: usize,
    pub base: &'a Tree,
    pub mine: &'a Tree,
    pub theirs: &'a Tree,
}

pub type Name = (ObjectId, Vec<u8>);

/// What both sides changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Conflict {
    /// What it leads to.
    Name(Name),
    /// Mode or owner.
    Rights(ObjectId),
    /// The clone changed what is no directory, and the version to come has something else, or nothing.
    Lost(ObjectId),
    /// The clone changed the rights of a directory that the version to come does not have.
    LostFolder(ObjectId),
    /// The clone removed it, the image changed it.
    Removed(ObjectId),
    /// The clone renamed a directory that the version to come does not have: what lay in it is gone.
    MovedFolder(ObjectId),
    /// The clone has it, and the version to come has it again, at another place.
    Elsewhere(ObjectId),
    /// The clone changed it, and each side took some of its names, or of those of a directory above it.
    Nameless(ObjectId),
    /// Of the two places of a directory only one is preserved.
    Torn,
}

impl Conflict {
    /// No side can win.
    pub fn is_undecidable(&self) -> bool {
        matches!(self, Self::MovedFolder(_) | Self::Elsewhere(_) | Self::Nameless(_) | Self::Torn)
    }
}

pub fn lookup(tree: &Tree, (dir, name): &Name) -> Option<ObjectId> {
    if tree.objects.contains_key(dir) { tree.lookup(*dir, name) } else { None }
}

/// All names of a tree.
pub fn names_of(tree: &Tree) -> impl Iterator<Item = (Name, ObjectId)> {
    let of_dir = |dir: ObjectId| {
        let entries = tree.entries(dir).into_iter().flatten();
        entries.map(move |(name, id)| ((dir, name.clone()), *id))
    };
    tree.objects.keys().flat_map(move |dir| of_dir(*dir))
}

fn shows(tree: &Tree, id: ObjectId) -> bool {
    tree.objects.contains_key(&id)
}

pub fn is_dir(tree: &Tree, id: ObjectId) -> bool {
    tree.objects.contains_key(&id) && tree.is_dir(id)
}

fn rights(attr: &Attr) -> (u32, u32, u32) {
    (attr.mode, attr.uid, attr.gid)
}

/// Whether two objects show the same bytes.
pub fn same_data(a: &Object, b: &Object) -> bool {
    let same_bytes = |a: &Content, b: &Content| {
        let same = |(at, len): &(u64, u64)| a.read(*at, *len as usize) == b.read(*at, *len as usize);
        a.runs().iter().chain(&b.runs()).all(same)
    };
    match (&a.kind, &b.kind) {
        (Kind::File(x), Kind::File(y)) => a.attr.now().size == b.attr.now().size && same_bytes(x, y),
        (Kind::Link(x), Kind::Link(y)) => x == y,
        (Kind::Device(kind, x), Kind::Device(other, y)) => (kind, x) == (other, y),
        _ => a.kind.ftype() == b.kind.ftype(),
    }
}

impl ThreeWay<'_> {
    /// Every name that any side has.
    pub fn names(&self) -> BTreeSet<Name> {
        [self.base, self.mine, self.theirs].into_iter().flat_map(names_of).map(|(name, _)| name).collect()
    }

    /// What both sides changed.
    pub fn conflicts(&self) -> BTreeSet<Conflict> {
        let names = self.names().into_iter().filter(|name| self.name_clashes(name)).map(Conflict::Name);
        let objects = self.mine.touched().into_iter().filter_map(|id| self.object_conflict(id));
        names.chain(objects).collect()
    }

    fn name_clashes(&self, name: &Name) -> bool {
        let (base, mine, theirs) = (lookup(self.base, name), lookup(self.mine, name), lookup(self.theirs, name));
        if mine == base || mine == theirs || self.is_hidden(name) {
            return false;
        }
        if self.is_homeless(name.0) { mine.is_some() } else { theirs != base }
    }

    fn object_conflict(&self, id: ObjectId) -> Option<Conflict> {
        let [base, mine, theirs] = [self.base, self.mine, self.theirs].map(|tree| tree.objects.get(&id));
        match (base, mine, theirs) {
            (Some(base), Some(mine), Some(theirs)) => {
                self.attributes_clash(base.attr.now(), mine, theirs.attr.now()).then_some(Conflict::Rights(id))
            }
            (Some(base), Some(mine), None) => self.loss(id, base, mine),
            (Some(base), None, Some(theirs)) => self.removal_hides(id, base, theirs).then_some(Conflict::Removed(id)),
            (None, Some(_), Some(_)) => {
                let elsewhere = |(name, to): (Name, ObjectId)| to == id && lookup(self.mine, &name) != Some(id);
                names_of(self.theirs).any(elsewhere).then_some(Conflict::Elsewhere(id))
            }
            _ => None,
        }
    }

    fn attributes_clash(&self, base: &Attr, mine: &Object, theirs: &Attr) -> bool {
        let mine = mine.attr.now();
        let three =
            [(base.mode, mine.mode, theirs.mode), (base.uid, mine.uid, theirs.uid), (base.gid, mine.gid, theirs.gid)];
        three.into_iter().any(|(base, mine, theirs)| mine != base && theirs != base && mine != theirs)
    }

    /// The names that the image gave an object, and the clone left it.
    fn names_kept(&self, id: ObjectId) -> (usize, usize) {
        let given: Vec<Name> = names_of(self.base).filter(|(_, to)| *to == id).map(|(name, _)| name).collect();
        (given.len(), given.iter().filter(|name| lookup(self.mine, name) == Some(id)).count())
    }

    /// The version to come does not have an object that the clone changed. The names in a directory are
    /// looked at by themselves.
    fn loss(&self, id: ObjectId, base: &Object, mine: &Object) -> Option<Conflict> {
        let (given, kept) = self.names_kept(id);
        let (was, is) = (base.attr.now(), mine.attr.now());
        let renamed = given != kept || base.nlink != mine.nlink;
        let has_rights = rights(was) != rights(is);
        match mine.kind {
            Kind::Dir { .. } if given != kept => Some(Conflict::MovedFolder(id)),
            Kind::Dir { .. } => has_rights.then_some(Conflict::LostFolder(id)),
            _ => {
                (renamed || has_rights || was.mtime != is.mtime || !same_data(base, mine)).then_some(Conflict::Lost(id))
            }
        }
    }

    /// The clone removed an object, to which the version to come did something, or into which it put something.
    fn removal_hides(&self, id: ObjectId, base: &Object, theirs: &Object) -> bool {
        // A name that the clone changed, too, is a conflict by itself.
        let is_new = |(name, to)| lookup(self.base, &name) != Some(to) && self.merged_name(&name) == Some(to);
        let named = names_of(self.theirs).filter(|(_, to)| *to == id).any(is_new);
        let filled = names_of(self.theirs).filter(|((dir, _), _)| *dir == id).any(is_new);
        rights(base.attr.now()) != rights(theirs.attr.now()) || named || filled
    }

    /// Where a name leads that only one side changed.
    pub fn merged_name(&self, name: &Name) -> Option<ObjectId> {
        let (base, mine) = (lookup(self.base, name), lookup(self.mine, name));
        if mine == base || self.is_hidden(name) { lookup(self.theirs, name) } else { mine }
    }

    /// What the clone would lose in `merged`.
    pub fn nameless(&self, merged: &Tree) -> Option<Conflict> {
        let is_lost = |id: &ObjectId| {
            let [Some(base), Some(mine), Some(_)] =
                [self.base, self.mine, self.theirs].map(|tree| tree.objects.get(id))
            else {
                return false;
            };
            is_dir(self.mine, *id) || !same_data(base, mine) || base.attr.now().mtime != mine.attr.now().mtime
        };
        let nameless = self.mine.objects.keys().copied().filter(|id| !shows(merged, *id));
        nameless.filter(is_lost).map(Conflict::Nameless).next()
    }

    /// What the clone shows afterwards. No conflict must be undecidable.
    pub fn merged(&self, winner: Winner) -> Tree {
        let touched = self.mine.touched();
        let mut merged = self.theirs.clone();
        merged.objects.clear();
        merged.gone = touched.clone();
        let decisions = Decisions::new(self, winner);
        let names = self.names().into_iter().chain(decisions.names.keys().cloned()).collect();
        let object = |id: ObjectId| match (self.mine.objects.get(&id), self.theirs.objects.get(&id)) {
            (Some(mine), theirs) if touched.contains(&id) => {
                self.merged_object(mine, self.base.objects.get(&id), theirs, winner)
            }
            (Some(mine), None) => private(mine),
            (None, Some(theirs)) if touched.contains(&id) => private(theirs),
            (_, Some(theirs)) => theirs.clone(),
            (None, None) => panic!("{id} is named, and no side has it"),
        };
        grow(&mut merged, &names, |name| decisions.lead(name), object);
        // What has lost its place to the clone's is removed; of what lies in it only what the clone had.
        let lost = names_of(self.theirs).filter(|(name, id)| {
            lookup(&merged, name) != Some(*id) && (shows(&merged, name.0) || shows(self.mine, *id))
        });
        let lost: Vec<ObjectId> = lost.map(|(_, id)| id).collect();
        merged.gone.extend(lost);
        merged.gone.retain(|id| !merged.objects.contains_key(id));
        merged
    }

    /// A name in a directory that the clone's view hides, and that nobody removed there.
    pub fn is_hidden(&self, name: &Name) -> bool {
        let known = |id: ObjectId| self.mine.objects.contains_key(&id) || self.mine.gone.contains(&id);
        !shows(self.mine, name.0) && lookup(self.base, name).is_some_and(|id| !known(id))
    }

    fn merged_object(&self, mine: &Object, base: Option<&Object>, theirs: Option<&Object>, winner: Winner) -> Object {
        let (Some(base), Some(theirs)) = (base, theirs) else { return mine.clone() };
        let (base, theirs, own) = (base.attr.now(), theirs.attr.now(), mine.attr.now());
        let mut attr = own.clone();
        let merge = |base: u32, own: u32, theirs: u32| {
            let is_theirs = own == base || (theirs != base && winner == Winner::Image);
            if is_theirs { theirs } else { own }
        };
        attr.mode = merge(base.mode, own.mode, theirs.mode);
        attr.uid = merge(base.uid, own.uid, theirs.uid);
        attr.gid = merge(base.gid, own.gid, theirs.gid);
        attr.mtime = if own.mtime == base.mtime { theirs.mtime } else { own.mtime };
        if rights(&attr) != rights(own) || attr.mtime != own.mtime {
            attr.ctime = own.ctime.later();
        }
        Object { attr: States::new(attr), ..mine.clone() }
    }

    /// The name of a directory, which is one.
    pub fn name_of_dir(&self, tree: &Tree, dir: ObjectId) -> Name {
        let parent = tree.parent(dir);
        let entries = tree.entries(parent).expect("a directory");
        (parent, entries.iter().find(|(_, id)| **id == dir).expect("a name in its parent").0.clone())
    }

    /// The path of a name.
    pub fn components(&self, tree: &Tree, (dir, name): &Name) -> Vec<Vec<u8>> {
        let mut above = match *dir == tree.root {
            true => Vec::new(),
            false => self.components(tree, &self.name_of_dir(tree, *dir)),
        };
        above.push(name.clone());
        above
    }
}

/// As one side has it, and the clone keeps it.
fn private(object: &Object) -> Object {
    let mut object = object.clone();
    object.attr.each(|attr| (attr.touched, attr.ctime) = (true, attr.ctime.same_or_later()));
    object
}

/// Fill `tree` from its root on: what its names lead to, and the links that then are.
pub fn grow(
    tree: &mut Tree,
    names: &BTreeSet<Name>,
    lead: impl Fn(&Name) -> Option<ObjectId>,
    object: impl Fn(ObjectId) -> Object,
) {
    let mut links: BTreeMap<ObjectId, u32> = BTreeMap::new();
    let mut dirs = vec![(tree.root, tree.root)];
    while let Some((dir, parent)) = dirs.pop() {
        let of_dir = names.range((dir, Vec::new())..(dir + 1, Vec::new()));
        let entries: BTreeMap<_, _> = of_dir.filter_map(|name| Some((name.1.clone(), lead(name)?))).collect();
        let mut subdirs = 0;
        for id in entries.values() {
            let inner = object(*id);
            if matches!(inner.kind, Kind::Dir { .. }) {
                subdirs += 1;
                dirs.push((*id, dir));
            } else {
                *links.entry(*id).or_default() += 1;
                tree.objects.insert(*id, inner);
            }
        }
        let kind = Kind::Dir { entries, parent };
        tree.objects.insert(dir, Object { kind, ..object(dir) });
        links.insert(dir, 2 + subdirs);
    }
    for (id, nlink) in links {
        let object = tree.object_mut(id);
        if std::mem::replace(&mut object.nlink, nlink) != nlink {
            object.attr.each(|attr| (attr.touched, attr.ctime) = (true, attr.ctime.later()));
        }
    }
}

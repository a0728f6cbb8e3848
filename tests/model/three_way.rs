//! Private changes over another version, by path: what docs/semantics.md says of `--writes keep` and
//! `preserve` where a conflict stops.
//!
//! Names are compared by the directory that they are in, wherever that was moved to. What only the clone
//! changed stays as the clone has it, what only the image changed comes as the image has it, attributes
//! one by one.

use std::collections::{BTreeMap, BTreeSet};

use crate::reference::content::Content;
use crate::reference::states::States;
use crate::reference::{Attr, Kind, Object, ObjectId, Tree};

/// The version before, the clone, the version to come.
pub struct ThreeWay<'a> {
    pub base: &'a Tree,
    pub mine: &'a Tree,
    pub theirs: &'a Tree,
}

type Name = (ObjectId, Vec<u8>);

/// What is preserved of a clone.
pub struct Choice {
    names: BTreeSet<Name>,
    pub objects: BTreeSet<ObjectId>,
}

fn lookup(tree: &Tree, (dir, name): &Name) -> Option<ObjectId> {
    if tree.objects.contains_key(dir) { tree.lookup(*dir, name) } else { None }
}

/// All names of a tree.
fn names_of(tree: &Tree) -> impl Iterator<Item = (Name, ObjectId)> {
    let of_dir = |dir: ObjectId| {
        let entries = tree.entries(dir).into_iter().flatten();
        entries.map(move |(name, id)| ((dir, name.clone()), *id))
    };
    tree.objects.keys().flat_map(move |dir| of_dir(*dir))
}

fn is_dir(tree: &Tree, id: ObjectId) -> bool {
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
    fn names(&self) -> BTreeSet<Name> {
        [self.base, self.mine, self.theirs].into_iter().flat_map(names_of).map(|(name, _)| name).collect()
    }

    /// What both sides changed: why nothing can be switched.
    pub fn conflicts(&self) -> BTreeSet<String> {
        let names = self.names().into_iter().filter_map(|name| self.name_conflict(&name));
        let objects = self.mine.touched().into_iter().filter_map(|id| self.object_conflict(id));
        names.chain(objects).collect()
    }

    fn name_conflict(&self, name: &Name) -> Option<String> {
        let (base, mine, theirs) = (lookup(self.base, name), lookup(self.mine, name), lookup(self.theirs, name));
        if mine == base || mine == theirs {
            return None;
        }
        let folder_gone = is_dir(self.base, name.0) && !is_dir(self.theirs, name.0);
        let clash = if folder_gone { mine.is_some() } else { theirs != base };
        clash.then(|| format!("name {} in {}", name.1.escape_ascii(), name.0))
    }

    fn object_conflict(&self, id: ObjectId) -> Option<String> {
        let [base, mine, theirs] = [self.base, self.mine, self.theirs].map(|tree| tree.objects.get(&id));
        let clash = match (base?, mine, theirs) {
            (base, Some(mine), Some(theirs)) => self.attributes_clash(base.attr.now(), mine, theirs.attr.now()),
            (base, Some(mine), None) => self.change_is_lost(id, base, mine),
            (base, None, Some(theirs)) => self.removal_hides(id, base, theirs),
            (_, None, None) => false,
        };
        clash.then(|| format!("object {id}"))
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
    fn change_is_lost(&self, id: ObjectId, base: &Object, mine: &Object) -> bool {
        let (given, kept) = self.names_kept(id);
        let (was, is) = (base.attr.now(), mine.attr.now());
        let changed = given != kept || rights(was) != rights(is);
        match mine.kind {
            Kind::Dir { .. } => changed,
            _ => changed || base.nlink != mine.nlink || was.mtime != is.mtime || !same_data(base, mine),
        }
    }

    /// The clone removed an object, to which the version to come did something, or into which it put something.
    fn removal_hides(&self, id: ObjectId, base: &Object, theirs: &Object) -> bool {
        let is_new = |(name, to): (Name, ObjectId)| lookup(self.base, &name) != Some(to);
        let named = names_of(self.theirs).filter(|(_, to)| *to == id).any(is_new);
        let filled = names_of(self.theirs).filter(|((dir, _), _)| *dir == id).any(is_new);
        rights(base.attr.now()) != rights(theirs.attr.now()) || named || filled
    }

    /// What the clone shows afterwards. There must be no conflicts.
    pub fn merged(&self) -> Tree {
        let touched = self.mine.touched();
        let mut merged = self.theirs.clone();
        merged.objects.clear();
        merged.gone = touched.clone();
        let name = |name: &Name| {
            let (base, mine) = (lookup(self.base, name), lookup(self.mine, name));
            if mine == base { lookup(self.theirs, name) } else { mine }
        };
        let object = |id: ObjectId| match (self.mine.objects.get(&id), self.theirs.objects.get(&id)) {
            (Some(mine), theirs) if touched.contains(&id) => self.merged_object(id, mine, theirs),
            (_, Some(theirs)) => theirs.clone(),
            (mine, None) => panic!("{id} is named, and only the clone has it, unchanged: {mine:?}"),
        };
        grow(&mut merged, &self.names(), name, object);
        merged.gone.retain(|id| !merged.objects.contains_key(id));
        merged
    }

    fn merged_object(&self, id: ObjectId, mine: &Object, theirs: Option<&Object>) -> Object {
        let (Some(base), Some(theirs)) = (self.base.objects.get(&id), theirs) else { return mine.clone() };
        let (base, theirs, own) = (base.attr.now(), theirs.attr.now(), mine.attr.now());
        let mut attr = own.clone();
        let merge = |base: u32, own: u32, theirs: u32| if own == base { theirs } else { own };
        attr.mode = merge(base.mode, own.mode, theirs.mode);
        attr.uid = merge(base.uid, own.uid, theirs.uid);
        attr.gid = merge(base.gid, own.gid, theirs.gid);
        attr.mtime = if own.mtime == base.mtime { theirs.mtime } else { own.mtime };
        if rights(&attr) != rights(own) || attr.mtime != own.mtime {
            attr.ctime = own.ctime.later();
        }
        Object { attr: States::new(attr), ..mine.clone() }
    }

    /// What of the clone lies at or below `paths`; `None` if a directory would be in two places. Of the three
    /// sides the last one does not matter.
    pub fn choose(&self, paths: &[String]) -> Option<Choice> {
        let mut choice = Choice { names: BTreeSet::new(), objects: BTreeSet::new() };
        for name in self.names().into_iter().filter(|name| self.is_covered(name, paths)) {
            if lookup(self.mine, &name) != lookup(self.base, &name) {
                self.choose_name(&mut choice, name);
            } else if let Some(id) = lookup(self.mine, &name).filter(|id| self.mine.attr(*id).touched) {
                choice.objects.insert(id);
            }
        }
        let dirs: BTreeSet<ObjectId> = choice.names.iter().map(|(dir, _)| *dir).collect();
        dirs.into_iter().for_each(|dir| self.choose_above(&mut choice, dir));
        (!self.is_torn(&choice)).then_some(choice)
    }

    fn is_covered(&self, name: &Name, paths: &[String]) -> bool {
        let path = self.path(name);
        let covers = |folder: &String| {
            path.strip_prefix(folder.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        paths.iter().any(covers)
    }

    /// As the clone has it; what it removed, as the version before has it.
    fn path(&self, (dir, name): &Name) -> Vec<u8> {
        if *dir == self.mine.root {
            return name.clone();
        }
        let tree = [self.mine, self.base].into_iter().find(|tree| is_dir(tree, *dir)).unwrap_or(self.theirs);
        let parent = tree.parent(*dir);
        let entries = tree.entries(parent).expect("a directory");
        let above = entries.iter().find(|(_, id)| *id == dir).expect("a name in its parent").0;
        [&self.path(&(parent, above.clone()))[..], &name[..]].join(&b'/')
    }

    fn choose_name(&self, choice: &mut Choice, name: Name) {
        choice.objects.extend(lookup(self.mine, &name));
        choice.objects.extend(lookup(self.base, &name));
        choice.names.insert(name);
    }

    /// A directory in which something is preserved is where the clone has it.
    fn choose_above(&self, choice: &mut Choice, dir: ObjectId) {
        if dir == self.mine.root || !is_dir(self.mine, dir) {
            return;
        }
        let parent = self.mine.parent(dir);
        let entries = self.mine.entries(parent).expect("a directory");
        let name = (parent, entries.iter().find(|(_, id)| **id == dir).expect("a name in its parent").0.clone());
        if lookup(self.base, &name) != Some(dir) {
            self.choose_name(choice, name);
            self.choose_above(choice, parent);
        }
    }

    fn is_torn(&self, choice: &Choice) -> bool {
        let places = |id: ObjectId| {
            let gained = choice.names.iter().filter(|name| lookup(self.mine, name) == Some(id)).count();
            let lost = choice.names.iter().filter(|name| lookup(self.base, name) == Some(id)).count();
            usize::from(self.base.objects.contains_key(&id)) + gained - lost
        };
        let dirs = choice.objects.iter().filter(|id| is_dir(self.mine, **id) || is_dir(self.base, **id));
        dirs.copied().any(|id| places(id) > 1)
    }

    /// The version before, with the part of the clone's changes that was chosen.
    pub fn part(&self, choice: &Choice) -> Tree {
        let mut part = self.base.clone();
        part.objects.clear();
        let name = |name: &Name| lookup(if choice.names.contains(name) { self.mine } else { self.base }, name);
        let object = |id: ObjectId| {
            let chosen = self.mine.objects.get(&id).filter(|_| choice.objects.contains(&id));
            chosen.or_else(|| self.base.objects.get(&id)).expect("it has a name").clone()
        };
        grow(&mut part, &self.names(), name, object);
        let gone = |id: &ObjectId| !part.objects.contains_key(id) && self.base.objects.contains_key(id);
        part.gone = choice.objects.iter().copied().filter(gone).collect();
        part
    }
}

/// Fill `tree` from its root on: what its names lead to, and the links that then are.
fn grow(
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
            object.attr.each(|attr| attr.ctime = attr.ctime.later());
        }
    }
}

//! What becomes of what both sides changed, where a side is to win: what docs/semantics.md says of
//! `clone-wins` and `image-wins`.
//!
//! A name leads where one side has it, and whatever follows from that follows for all: a directory in which
//! something is has a place itself, an object that is there again is there under each of its names.

use std::collections::{BTreeMap, BTreeSet};

use crate::reference::ObjectId;
use crate::three_way::{Conflict, Name, ThreeWay, is_dir, lookup, names_of};

/// Longest name, in bytes.
const NAME_MAX: usize = 255;

/// Whose change stays where both changed the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Winner {
    Clone,
    Image,
}

/// Where names lead for which the two sides by themselves do not say it.
pub struct Decisions<'a> {
    sides: &'a ThreeWay<'a>,
    pub names: BTreeMap<Name, Option<ObjectId>>,
    /// What the clone removed, and the image has its way with.
    back: BTreeSet<ObjectId>,
    /// Directories that the image removed, and the clone has its way with.
    stay: BTreeSet<ObjectId>,
    /// Names that the image has, and what the clone had there.
    saved: Vec<(Name, ObjectId)>,
}

impl<'a> Decisions<'a> {
    pub fn new(sides: &'a ThreeWay<'a>, winner: Winner) -> Self {
        let mut decisions =
            Self { sides, names: BTreeMap::new(), back: BTreeSet::new(), stay: BTreeSet::new(), saved: Vec::new() };
        for conflict in sides.conflicts() {
            match winner {
                Winner::Clone => decisions.for_the_clone(conflict),
                Winner::Image => decisions.for_the_image(conflict),
            }
        }
        decisions.bring_back();
        for (name, id) in std::mem::take(&mut decisions.saved) {
            decisions.save_beside(&name, id);
        }
        decisions.keep_places(winner);
        decisions
    }

    /// Where a name leads.
    pub fn lead(&self, name: &Name) -> Option<ObjectId> {
        self.names.get(name).copied().unwrap_or_else(|| self.sides.merged_name(name))
    }

    fn for_the_clone(&mut self, conflict: Conflict) {
        let sides = self.sides;
        match conflict {
            Conflict::Name(name) => {
                let mine = lookup(sides.mine, &name);
                self.names.insert(name, mine);
            }
            Conflict::Lost(id) => {
                let left = sides.names_left(id).into_iter().map(|name| (name, Some(id)));
                self.names.extend(left);
            }
            Conflict::LostFolder(id) => {
                self.stay.insert(id);
            }
            Conflict::Removed(id) => {
                // What led to something else is the image's to change.
                let is_new = |name: &Name| lookup(sides.base, name).is_none() || is_dir(sides.theirs, id);
                let named = sides.names_of_theirs(id).filter(|name| self.lead(name) == Some(id) && is_new(name));
                let named: Vec<Name> = named.collect();
                self.names.extend(named.into_iter().map(|name| (name, None)));
            }
            // Attributes are merged with the objects; the others are nobody's to decide.
            _ => {}
        }
    }

    fn for_the_image(&mut self, conflict: Conflict) {
        let sides = self.sides;
        match conflict {
            Conflict::Name(name) => match lookup(sides.mine, &name) {
                // The directory goes along as it is, under another name.
                Some(mine) if sides.is_homeless(name.0) => {
                    self.names.insert(name, Some(mine));
                }
                mine => {
                    self.names.insert(name.clone(), lookup(sides.theirs, &name));
                    self.saved.extend(mine.map(|mine| (name, mine)));
                }
            },
            // Names that the clone gave it are its own.
            Conflict::Lost(id) if sides.has_own_name(id) => {}
            Conflict::Lost(id) => match sides.names_left(id).into_iter().next() {
                Some(name) if sides.is_homeless(name.0) => {
                    self.names.insert(name, Some(id));
                }
                first => self.saved.extend(first.map(|name| (name, id))),
            },
            Conflict::Removed(id) => {
                self.back.insert(id);
            }
            _ => {}
        }
    }

    /// What is there again is so under all the names that the image gives it, in directories that are there
    /// again, too; what the clone had in the place is saved.
    fn bring_back(&mut self) {
        let sides = self.sides;
        let mut done = BTreeSet::new();
        loop {
            let decided = self.names.iter().filter(|(_, to)| to.is_some()).map(|(name, _)| name.0);
            self.back.extend(decided.filter(|dir| sides.is_removed(*dir)));
            let Some(id) = self.back.difference(&done).next().copied() else { return };
            done.insert(id);
            for name in sides.names_of_theirs(id) {
                if self.lead(&name) != Some(id) {
                    self.saved.extend(lookup(sides.mine, &name).map(|mine| (name.clone(), mine)));
                }
                self.names.insert(name, Some(id));
            }
        }
    }

    /// A directory in which something is stays, whatever the image did to it.
    fn keep_places(&mut self, winner: Winner) {
        let sides = self.sides;
        let mut done = BTreeSet::new();
        loop {
            let filled = names_of(sides.mine).map(|(name, _)| name).filter(|name| sides.is_homeless(name.0));
            let filled: Vec<ObjectId> = filled.filter(|name| self.lead(name).is_some()).map(|name| name.0).collect();
            self.stay.extend(filled);
            let Some(dir) = self.stay.difference(&done).next().copied() else { return };
            done.insert(dir);
            let place = sides.name_of_dir(sides.mine, dir);
            if winner == Winner::Image && !sides.is_homeless(place.0) {
                self.save_beside(&place, dir);
            } else {
                self.names.insert(place, Some(dir));
            }
        }
    }

    /// `NAME.clone-vN`, after the version that it came from; the next free one of these.
    fn save_beside(&mut self, (dir, name): &Name, id: ObjectId) {
        let sides = self.sides;
        let tail = |n: u32| match n {
            1 => format!(".clone-v{}", sides.version),
            n => format!(".clone-v{}.{n}", sides.version),
        };
        let beside = |n| {
            let tail = tail(n);
            (*dir, [&name[..name.len().min(NAME_MAX - tail.len())], tail.as_bytes()].concat())
        };
        let taken = |name: &Name| {
            [lookup(sides.mine, name), lookup(sides.theirs, name), self.lead(name)].iter().any(Option::is_some)
        };
        let free = (1..).map(beside).find(|name| !taken(name)).expect("there is no end of numbers");
        self.names.insert(free, Some(id));
    }
}

impl ThreeWay<'_> {
    /// A directory of the version before that is not in the one to come.
    pub fn is_homeless(&self, dir: ObjectId) -> bool {
        is_dir(self.base, dir) && !is_dir(self.theirs, dir)
    }

    /// A directory of both versions that the clone removed.
    fn is_removed(&self, dir: ObjectId) -> bool {
        is_dir(self.theirs, dir) && is_dir(self.base, dir) && !is_dir(self.mine, dir)
    }

    fn names_of_theirs(&self, id: ObjectId) -> impl Iterator<Item = Name> {
        names_of(self.theirs).filter(move |(_, to)| *to == id).map(|(name, _)| name)
    }

    /// The names that the image gave an object and the clone left it; the path that sorts first is first.
    fn names_left(&self, id: ObjectId) -> Vec<Name> {
        let given = names_of(self.base).filter(|(name, to)| *to == id && lookup(self.mine, name) == Some(id));
        let mut left: Vec<Name> = given.map(|(name, _)| name).collect();
        left.sort_by_cached_key(|name| self.components(self.base, name));
        left
    }

    fn has_own_name(&self, id: ObjectId) -> bool {
        names_of(self.mine).any(|(name, to)| to == id && lookup(self.base, &name) != Some(id))
    }
}

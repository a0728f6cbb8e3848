//! What a repoint is to make of a clone.

use std::collections::BTreeSet;

use crate::fleet::View;
use crate::reference::{ObjectId, Tree};
use crate::three_way::{Conflict, Name, ThreeWay, lookup, names_of};
use crate::winners::Winner;
use crate::world::World;

/// With more layers the product makes one of them before it adds some.
const FLATTEN_ABOVE: usize = 4;

/// What becomes of the private writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writes {
    Keep,
    Discard,
    Preserve(Vec<String>),
    Stay,
}

/// What becomes of what both sides changed; `None`: nothing is switched.
pub type OnConflict = Option<Winner>;

/// What a repoint does to a clone.
pub enum Fate {
    Unchanged,
    Switched(View),
    Discarded(View),
    Kept(View),
    Preserved(View, BTreeSet<ObjectId>),
    Stays,
    Conflicts(Conflict),
    /// Nothing at all is switched.
    Refused,
    /// Known to be wrong: it is not done.
    Open,
}

impl Writes {
    pub fn arguments(&self) -> Vec<&str> {
        match self {
            // The default.
            Self::Keep => Vec::new(),
            Self::Discard => vec!["--writes", "discard"],
            Self::Stay => vec!["--writes", "stay"],
            Self::Preserve(paths) => {
                ["--writes", "preserve", "--path"].into_iter().chain(paths.iter().map(String::as_str)).collect()
            }
        }
    }
}

impl World {
    /// A clone between the version that it shows and another one.
    pub fn sides(&self, name: &str, version: usize) -> ThreeWay<'_> {
        let view = &self.clones[name].view;
        let [base, theirs] = [view.version, version].map(|number| &self.versions[number - 1]);
        ThreeWay { version: view.version, base, mine: &view.tree, theirs }
    }

    /// What is to become of a clone.
    pub fn fate(&self, name: &str, version: usize, writes: &Writes, on_conflict: OnConflict) -> Fate {
        let view = &self.clones[name].view;
        let sides = self.sides(name, version);
        let fresh = || View::of_version(sides.theirs, version);
        match writes {
            Writes::Discard if view.is_private() => Fate::Discarded(fresh()),
            Writes::Preserve(paths) if view.is_private() => sides.preserved(paths, version, on_conflict),
            _ if view.version == version => Fate::Unchanged,
            _ if !view.is_private() => Fate::Switched(fresh()),
            Writes::Stay => Fate::Stays,
            _ if sides.is_open(on_conflict) => Fate::Open,
            _ => match sides.switched(on_conflict) {
                Ok(tree) => Fate::Kept(View::over_version(&tree, version, view.layers.min(FLATTEN_ABOVE) + 2)),
                Err(first) => Fate::Conflicts(first),
            },
        }
    }

    /// Not mended yet: a file of which the image has one more name in a directory that nobody sees counts that.
    pub fn is_open(&self, fate: &Fate) -> bool {
        let (Fate::Kept(view) | Fate::Preserved(view, _)) = fate else { return matches!(fate, Fate::Open) };
        let (theirs, shown) = (&self.versions[view.version - 1], &view.tree.objects);
        names_of(theirs)
            .any(|((dir, _), id)| !shown.contains_key(&dir) && shown.contains_key(&id) && !theirs.is_dir(id))
    }
}

impl ThreeWay<'_> {
    /// Only what lies below the paths goes along.
    fn preserved(&self, paths: &[String], version: usize, on_conflict: OnConflict) -> Fate {
        let Some(choice) = self.choose(paths) else { return Fate::Refused };
        let part = self.part(&choice);
        let sides = ThreeWay { mine: &part, ..*self };
        if sides.is_open(on_conflict) || sides.comes_back(on_conflict) || self.leaves_a_link(&part) {
            return Fate::Open;
        }
        let along = choice.objects.into_iter().filter(|id| part.objects.contains_key(id)).collect();
        match sides.switched(on_conflict) {
            Ok(tree) => Fate::Preserved(View::over_version(&tree, version, 2), along),
            Err(first) => Fate::Conflicts(first),
        }
    }

    /// Not mended yet: a file that the clone did not touch, and to which the image gave a name where the clone
    /// changed some, gets a row; what the image replaced by something that comes back is taken for the clone's.
    fn is_open(&self, on_conflict: OnConflict) -> bool {
        let touched = |id: ObjectId| self.mine.objects.get(&id).is_none_or(|object| object.attr.now().touched);
        let gets_a_row = |(name, id): &(Name, ObjectId)| {
            lookup(self.base, name) != Some(*id)
                && lookup(self.mine, name) != Some(*id)
                && self.base.objects.contains_key(id)
                && touched(name.0)
                && !touched(*id)
        };
        let replaces = |(name, id): (Name, ObjectId)| {
            let base = lookup(self.base, &name);
            base.is_some_and(|base| base != id) && lookup(self.mine, &name) == base && self.mine.gone.contains(&id)
        };
        names_of(self.theirs).any(|named| gets_a_row(&named))
            || (on_conflict == Some(Winner::Image) && names_of(self.theirs).any(replaces))
    }

    /// Not mended yet: it has the name again that it had before it was removed.
    fn comes_back(&self, on_conflict: OnConflict) -> bool {
        let removed = |conflict: &Conflict| matches!(conflict, Conflict::Removed(_));
        on_conflict == Some(Winner::Image) && self.conflicts().iter().any(removed)
    }

    /// Not mended yet: a file that counts a name in a folder of which only the way out is preserved.
    fn leaves_a_link(&self, part: &Tree) -> bool {
        let is_moved = |dir| self.mine.objects.contains_key(&dir) && !part.objects.contains_key(&dir);
        names_of(self.base).any(|((dir, _), id)| is_moved(dir) && part.objects.contains_key(&id))
    }

    /// What the clone shows afterwards, or why it cannot.
    fn switched(&self, on_conflict: OnConflict) -> Result<Tree, Conflict> {
        let stops = |conflict: &Conflict| on_conflict.is_none() || conflict.is_undecidable();
        match self.conflicts().into_iter().find(stops) {
            Some(conflict) => Err(conflict),
            // Without conflicts no side has to win.
            None => Ok(self.merged(on_conflict.unwrap_or(Winner::Clone))),
        }
    }
}

impl Winner {
    pub fn argument(self) -> &'static str {
        match self {
            Self::Clone => "clone-wins",
            Self::Image => "image-wins",
        }
    }
}

impl Fate {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Switched(_) => "switched",
            Self::Discarded(_) => "discarded",
            Self::Kept(_) => "kept",
            Self::Preserved(..) => "preserved",
            Self::Stays => "stays",
            Self::Conflicts(_) => "conflicts",
            Self::Refused => "a directory in two places",
            Self::Open => "open",
        }
    }

    pub fn text(&self) -> String {
        match self {
            Self::Conflicts(first) => format!("conflicts, {first:?}"),
            other => other.word().into(),
        }
    }
}

//! What a repoint is to make of a clone.

use std::collections::BTreeSet;

use crate::fleet::View;
use crate::reference::{ObjectId, Tree};
use crate::three_way::{Conflict, ThreeWay};
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
            _ => match sides.switched(on_conflict) {
                Ok(tree) => Fate::Kept(View::over_version(&tree, version, view.layers.min(FLATTEN_ABOVE) + 2)),
                Err(first) => Fate::Conflicts(first),
            },
        }
    }
}

impl ThreeWay<'_> {
    /// Only what lies below the paths goes along.
    fn preserved(&self, paths: &[String], version: usize, on_conflict: OnConflict) -> Fate {
        let Some(choice) = self.choose(paths) else { return Fate::Conflicts(Conflict::Torn) };
        let part = self.part(&choice);
        let sides = ThreeWay { mine: &part, ..*self };
        let along = choice
            .objects
            .into_iter()
            .filter(|id| part.objects.contains_key(id) && self.mine.objects.contains_key(id))
            .collect();
        match sides.switched(on_conflict) {
            Ok(tree) => Fate::Preserved(View::over_version(&tree, version, 2), along),
            Err(first) => Fate::Conflicts(first),
        }
    }

    /// What the clone shows afterwards, or why it cannot.
    fn switched(&self, on_conflict: OnConflict) -> Result<Tree, Conflict> {
        let stops = |conflict: &Conflict| on_conflict.is_none() || conflict.is_undecidable();
        match self.conflicts().into_iter().find(stops) {
            Some(conflict) => Err(conflict),
            // Without conflicts no side has to win.
            None => {
                let merged = self.merged(on_conflict.unwrap_or(Winner::Clone));
                self.nameless(&merged).map_or(Ok(merged), Err)
            }
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
        }
    }

    pub fn text(&self) -> String {
        match self {
            Self::Conflicts(first) => format!("conflicts, {first:?}"),
            other => other.word().into(),
        }
    }
}

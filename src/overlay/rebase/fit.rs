//! The decisions, and the rows that make them so.
//!
//! Names and objects are decided first; then the link counts follow from the names. Where the view,
//! laid over the version to come, does not show what was decided, a row says it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::sight::Sight;
use super::survey::{Facts, Gains, Name, Object, Survey, check_rows};
use super::{Conflict, Did, FITS, MAX_TOLD, RETURNED, Rebase, Winner};
use crate::error::Result;
use crate::manifest::{Cookie, Entry, FileKind, Ino, Inode};
use crate::overlay::keys::Key;
use crate::overlay::node::NodeState;
use crate::overlay::tree::entry::EntryState;
use crate::overlay::{Counts, Layer, Node, OverlayId, OverlayStore, Position};

/// What has to be said so that the private layers fit another version.
#[derive(Debug, Default)]
pub struct Fit {
    /// The first of them, sorted by path; they are decided if a side was to win.
    pub conflicts: Vec<Conflict>,
    pub conflicts_total: u64,
    /// Some that no side can win.
    pub undecidable: u64,
    /// Some object has its base data from the version before, whatever version the view shows.
    pub keeps_from: bool,
    /// The same of the version to come.
    pub keeps_to: bool,
    names: BTreeMap<(Ino, Cookie), Option<Entry>>,
    objects: BTreeMap<Ino, Option<Node>>,
    /// Those of the objects that come back.
    returned: BTreeSet<Ino>,
}

impl Fit {
    pub(super) fn new(store: &OverlayStore, survey: &Survey, winner: Option<&Winner>) -> Result<Self> {
        let sight = Sight::new(store, &survey.rebase)?;
        let mut fitter = Fitter {
            sight,
            winner,
            names: BTreeMap::new(),
            objects: BTreeMap::new(),
            said: BTreeSet::new(),
            returned: BTreeSet::new(),
            removed_dirs: BTreeSet::new(),
            fit: Self::default(),
        };
        for (at, name) in &survey.names {
            fitter.name(*at, name)?;
        }
        for ino in &survey.objects {
            let object = fitter.sight.object(*ino)?;
            fitter.object(*ino, object)?;
        }
        fitter.finish(&survey.rebase)
    }

    /// Nothing has to be said.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.objects.is_empty()
    }

    /// The layer that says it, as the overlay `into`.
    pub fn layer(&self, into: OverlayId) -> Layer {
        let upto = if self.returned.is_empty() { FITS } else { RETURNED };
        Layer { overlay: into, upto, counts: Counts { bytes: 0, inodes: self.objects.len() as u64 } }
    }

    /// With the position of each.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Key, Result<Bytes>, Position)> {
        let name = |((dir, cookie), entry): (&(Ino, Cookie), &Option<Entry>)| {
            let state = match entry {
                Some(entry) => EntryState::Present { name: entry.name.to_vec(), ino: entry.ino, kind: entry.kind },
                None => EntryState::Removed,
            };
            (Key::entry(*dir, *cookie), state.encode(), FITS)
        };
        let object = move |(ino, node): (&Ino, &Option<Node>)| {
            let state = node.clone().map_or(NodeState::Absent, NodeState::Present);
            let position = if self.returned.contains(ino) { RETURNED } else { FITS };
            (Key::node(*ino), state.encode(), position)
        };
        self.names.iter().map(name).chain(self.objects.iter().map(object))
    }
}

/// What both sides changed.
pub(super) struct Told {
    pub what: What,
    pub disk_image: bool,
    /// No side can win.
    pub undecidable: bool,
}

pub(super) enum What {
    Name(Ino, Bytes),
    Object(Ino),
}

impl Told {
    pub fn name(dir: Ino, name: &Bytes) -> Self {
        Self { what: What::Name(dir, name.clone()), disk_image: false, undecidable: false }
    }

    pub fn object(ino: Ino) -> Self {
        Self { what: What::Object(ino), disk_image: false, undecidable: false }
    }
}

/// Makes the decisions.
pub(super) struct Fitter<'a> {
    pub sight: Sight<'a>,
    pub winner: Option<&'a Winner>,
    /// What names are to be.
    pub names: BTreeMap<(Ino, Cookie), Option<Entry>>,
    /// What objects are to be, link counts aside; `None`: not there.
    pub objects: BTreeMap<Ino, Option<Node>>,
    /// Objects that get a row in any case.
    pub said: BTreeSet<Ino>,
    /// Objects that come back as the version to come has them.
    pub returned: BTreeSet<Ino>,
    /// Directories of both versions that the view removed, or hides.
    pub removed_dirs: BTreeSet<Ino>,
    pub fit: Fit,
}

impl Fitter<'_> {
    fn name(&mut self, at: (Ino, Cookie), name: &Name) -> Result<()> {
        let Name { base, mine, theirs } = name;
        if mine == base {
            // The row says what was there before; what is there now shows.
            self.decide_name(at, theirs.clone());
        } else if theirs == mine {
            self.decide_name(at, mine.clone());
        } else if theirs == base {
            self.homeless(at, name)?;
        } else if mine.is_none() && self.sight.is_homeless(at.0)? {
            self.decide_name(at, None);
        } else {
            self.both_named(at, name)?;
        }
        Ok(())
    }

    fn object(&mut self, ino: Ino, object: Object) -> Result<()> {
        match object {
            Object { base: Some(base), mine: Some(mine), theirs: Some(theirs) } => {
                self.merge_attributes(ino, Facts::of_image(&base), mine, Facts::of_image(&theirs))
            }
            Object { base: Some(base), mine: Some(mine), theirs: None } if mine.is_dir() => {
                self.gone_dir(ino, &base, mine)
            }
            Object { base: Some(base), mine: Some(mine), theirs: None } => self.gone_file(ino, &base, mine),
            Object { base: Some(base), mine: None, theirs: Some(theirs) } => self.removed(ino, &base, &theirs),
            // The view says that it is not there, and so it was in the version before.
            Object { base: None, mine: None, theirs: Some(theirs) } => {
                self.give_back(ino, &theirs);
                Ok(())
            }
            Object { base: None, mine: Some(mine), theirs: Some(theirs) } => self.met_again(ino, mine, &theirs),
            _ => Ok(()),
        }
    }

    /// An object that both versions have with the same data, under other attributes.
    fn merge_attributes(&mut self, ino: Ino, base: Facts, mut mine: Node, theirs: Facts) -> Result<()> {
        let own = Facts::of_node(&mine);
        let mut clash = false;
        let clone_wins = !matches!(self.winner, Some(Winner::Image { .. }));
        let mut merged = |base: u32, own: u32, theirs: u32| match (own == base, theirs == base || theirs == own) {
            (true, _) => theirs,
            (false, true) => own,
            (false, false) => {
                clash = true;
                if clone_wins { own } else { theirs }
            }
        };
        mine.mode = merged(base.mode, own.mode, theirs.mode);
        mine.uid = merged(base.uid, own.uid, theirs.uid);
        mine.gid = merged(base.gid, own.gid, theirs.gid);
        if own.rdev == base.rdev {
            mine.rdev = theirs.rdev;
        }
        if own.mtime == base.mtime {
            mine.mtime = theirs.mtime;
        }
        if clash {
            self.tell(Told::object(ino), Did::Attributes, Did::Attributes)?;
        }
        self.objects.insert(ino, Some(mine));
        Ok(())
    }

    pub fn decide_name(&mut self, at: (Ino, Cookie), entry: Option<Entry>) {
        self.names.insert(at, entry);
    }

    /// Something that both sides changed. Only the first are told, and so only their paths are looked for.
    pub fn tell(&mut self, told: Told, clone: Did, image: Did) -> Result<()> {
        self.fit.conflicts_total += 1;
        self.fit.undecidable += u64::from(told.undecidable);
        if self.fit.conflicts.len() < MAX_TOLD {
            let path = match told.what {
                What::Name(dir, name) => self.sight.path(dir, &name)?,
                What::Object(ino) => self.sight.path_of(ino)?,
            };
            let Told { disk_image, undecidable, .. } = told;
            self.fit.conflicts.push(Conflict { path, clone, image, disk_image, undecidable });
        }
        Ok(())
    }

    fn finish(mut self, rebase: &Rebase) -> Result<Fit> {
        self.fit.conflicts.sort_unstable();
        if self.fit.undecidable > 0 || (self.fit.conflicts_total > 0 && self.winner.is_none()) {
            return Ok(self.fit);
        }
        self.give_back_named()?;
        self.leave_out_hidden()?;
        let gains = self.gains()?;
        let mut dirs = std::mem::take(&mut self.said);
        for (at, entry) in std::mem::take(&mut self.names) {
            let name = self.sight.name(at.0, at.1)?;
            let private = self.sight.is_private(&Key::entry(at.0, at.1))?;
            if entry != if private { name.mine } else { name.theirs } {
                // A directory is asked for names only in layers that have it.
                dirs.insert(at.0);
                self.fit.names.insert(at, entry);
            }
        }
        let counted: BTreeSet<Ino> =
            gains.changed().chain(self.objects.keys().copied()).chain(dirs.iter().copied()).collect();
        for ino in counted {
            self.settle(ino, &gains, dirs.contains(&ino))?;
        }
        if self.fit.undecidable > 0 {
            (self.fit.names, self.fit.objects) = Default::default();
            self.fit.conflicts.sort_unstable();
            return Ok(self.fit);
        }
        let objects = &self.fit.objects;
        self.returned.retain(|ino| objects.get(ino).is_some_and(Option::is_some));
        self.fit.returned = std::mem::take(&mut self.returned);
        let base_of = |node: &Option<Node>| node.as_ref().and_then(|node| node.base);
        self.fit.keeps_from = self.fit.objects.values().any(|node| base_of(node) == Some(rebase.from));
        self.fit.keeps_to = self.fit.objects.values().any(|node| base_of(node) == Some(rebase.to));
        check_rows(self.fit.names.len() + self.fit.objects.len())?;
        Ok(self.fit)
    }

    /// What the decided names give to objects, beyond what the sides by themselves do.
    pub fn gains(&mut self) -> Result<Gains> {
        let mut gains = Gains::default();
        for (at, entry) in &self.names {
            let name = self.sight.name(at.0, at.1)?;
            for (side, by) in [(entry, 1), (&name.theirs, -1), (&name.mine, -1), (&name.base, 1)] {
                gains.add(at.0, side.as_ref(), by);
            }
        }
        Ok(gains)
    }

    /// What a name of the version to come leads to is there, also if the view removed it under other names.
    fn give_back_named(&mut self) -> Result<()> {
        let named: BTreeSet<Ino> = self.names.values().flatten().map(|entry| entry.ino).collect();
        for ino in named {
            let there = match self.objects.get(&ino) {
                Some(decided) => decided.is_some(),
                None => self.sight.node(ino)?.is_some(),
            };
            let to = self.sight.to;
            if !there && let Some(theirs) = self.sight.inode(to, ino)? {
                // One that the view never knew is there by itself.
                let private = self.sight.is_private(&Key::node(ino))?;
                if private || self.objects.contains_key(&ino) {
                    self.give_back(ino, &theirs);
                }
            }
        }
        Ok(())
    }

    /// An object has no name any more, because each side took some of them: no side can win if that loses
    /// what the view has.
    fn tell_lost(&mut self, ino: Ino, base: Option<&Inode>, mine: Option<&Node>) -> Result<()> {
        let (Some(base), Some(mine)) = (base, mine) else { return Ok(()) };
        if mine.is_dir() || self.has_own_content(ino, base, mine)? {
            let told = Told { disk_image: base.disk_image, undecidable: true, ..Told::object(ino) };
            self.tell(told, Did::Changed, Did::Renamed)?;
        }
        Ok(())
    }

    /// Whether the view changed the data of an object of the version before.
    pub fn has_own_content(&mut self, ino: Ino, base: &Inode, mine: &Node) -> Result<bool> {
        let written = mine.has_private_data(Some(base)) || self.sight.has_data(ino, base)?;
        Ok(written || Facts::of_node(mine).mtime != base.mtime)
    }

    /// Give an object its link count, and a row if it is not shown as it is to be.
    fn settle(&mut self, ino: Ino, gains: &Gains, has_names: bool) -> Result<()> {
        let Object { base, mine, theirs } = self.sight.object(ino)?;
        let private = self.sight.is_private(&Key::node(ino))?;
        let of_image = theirs.clone().map(Node::of_image);
        let shown = if private { mine.clone() } else { of_image.clone() };
        let decided = match self.objects.remove(&ino) {
            Some(decided) => decided,
            // Nothing was to be decided: it is as it shows, or as the side has it that names it.
            None => shown.clone().or_else(|| mine.clone()).or(of_image),
        };
        let links = |kind: FileKind, nlink: Option<u32>| match (kind, nlink) {
            (_, Some(nlink)) => i64::from(nlink),
            (FileKind::Directory, None) => 2,
            (_, None) => 0,
        };
        let named = gains.names_of_dir(ino, [base.is_some(), mine.is_some(), theirs.is_some()]);
        let was_there = decided.is_some();
        let settled = decided.and_then(|mut node| {
            let of = |nlink| links(node.kind, nlink);
            let dir = node.is_dir();
            let gained = if dir { gains.subdirs_of(ino) } else { gains.of(ino) };
            let (was, is) = (base.as_ref().map(|b| b.nlink), theirs.as_ref().map(|t| t.nlink));
            let nlink = of(mine.as_ref().map(|m| m.nlink)) + of(is) - of(was) + gained;
            node.nlink = u32::try_from(nlink).unwrap_or(0);
            let there = if dir { named > 0 } else { node.nlink > 0 };
            there.then_some(node)
        });
        if was_there && settled.is_none() {
            self.tell_lost(ino, base.as_deref(), mine.as_ref())?;
        }
        if named > 1 && settled.as_ref().is_some_and(Node::is_dir) {
            // It cannot be in two places.
            self.tell(Told { undecidable: true, ..Told::object(ino) }, Did::Renamed, Did::Renamed)?;
        }
        let same = match (&settled, &shown) {
            (Some(a), Some(b)) => Facts::of_node(a) == Facts::of_node(b) && (a.base, a.parent) == (b.base, b.parent),
            (None, None) => true,
            _ => false,
        };
        if same && !has_names {
            return Ok(());
        }
        let row = settled.map(|mut node| {
            // Clients tell by the ctime that something changed.
            if shown.as_ref().is_none_or(|shown| Facts::of_node(shown) != Facts::of_node(&node)) {
                node.ctime = theirs.map_or(node.ctime, |theirs| node.ctime.max(theirs.ctime)).next();
            }
            node.raise();
            node
        });
        self.fit.objects.insert(ino, row);
        Ok(())
    }
}

//! The look at each private key, and what of it needs a decision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Rebase;
use super::sight::{Sight, all_of};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Cookie, Entry, FileKind, Ino, Inode, Manifest};
use crate::overlay::keys::{Key, Kind};
use crate::overlay::{Layer, Node, OverlayStore};

/// Most names and objects of one clone that may need a decision.
const MAX_ROWS: usize = 1 << 20;

/// What a look at the private changes of a view found.
#[derive(Clone, Debug)]
pub struct Survey {
    pub(super) rebase: Rebase,
    /// Names of which the image's side is not as it was.
    pub(super) names: BTreeMap<(Ino, Cookie), Name>,
    /// Objects of which that is so.
    pub(super) objects: BTreeSet<Ino>,
}

/// One name on three sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub base: Option<Entry>,
    pub mine: Option<Entry>,
    pub theirs: Option<Entry>,
}

/// One object on three sides.
pub struct Object {
    pub base: Option<Arc<Inode>>,
    pub mine: Option<Node>,
    pub theirs: Option<Arc<Inode>>,
}

impl Survey {
    pub(super) fn new(store: &OverlayStore, rebase: Rebase) -> Result<Self> {
        let empty = Self { rebase, names: BTreeMap::new(), objects: BTreeSet::new() };
        empty.look(store, &mut |_| 0)
    }

    /// The layers that it saw.
    pub fn layers(&self) -> &[Layer] {
        &self.rebase.layers
    }

    /// Look again at what was changed since: `layers` begin as those that were looked at, except that the
    /// last one goes further, or there is one more.
    pub(super) fn again(&self, store: &OverlayStore, layers: &[Layer]) -> Result<Self> {
        let former = self.layers();
        if former.len() > layers.len() {
            return Err(Error::internal("a view has fewer layers than were looked at"));
        }
        let known = |layer: &Layer| former.iter().find(|was| was.overlay == layer.overlay).map_or(0, |was| was.upto);
        let rebase = Rebase { layers: layers.to_vec(), ..self.rebase.clone() };
        Self { rebase, ..self.clone() }.look(store, &mut |layer| known(layer))
    }

    fn look(mut self, store: &OverlayStore, known: &mut dyn FnMut(&Layer) -> u64) -> Result<Self> {
        let rebase = self.rebase.clone();
        let mut sight = Sight::new(store, &rebase)?;
        for layer in &rebase.layers {
            let after = known(layer);
            if after >= layer.upto {
                continue;
            }
            sight.each_key(layer, all_of(Kind::Entry), after, &mut |sight, key| self.name(sight, key))?;
            sight.each_key(layer, all_of(Kind::Node), after, &mut |sight, key| self.object(sight, Ino(key.a)))?;
        }
        Ok(self)
    }

    fn name(&mut self, sight: &mut Sight<'_>, key: Key) -> Result<()> {
        let (dir, cookie) = (Ino(key.a), Cookie(key.b));
        let name = sight.name(dir, cookie)?;
        let added = name.mine.is_some() && name.mine != name.base;
        if let Some(theirs) = name.theirs.as_ref().filter(|theirs| name.mine.as_ref() != Some(theirs)) {
            // Whether an object that the view removed shows depends on this name.
            if sight.inode(sight.from, theirs.ino)?.is_some() && sight.node(theirs.ino)?.is_none() {
                self.object(sight, theirs.ino)?;
            }
        }
        let trivial = name.theirs == name.base && !(added && sight.is_homeless(dir)?);
        if trivial {
            self.names.remove(&(dir, cookie));
        } else {
            self.names.insert((dir, cookie), name);
        }
        self.check_len()
    }

    fn object(&mut self, sight: &mut Sight<'_>, ino: Ino) -> Result<()> {
        let (base, theirs) = (sight.inode(sight.from, ino)?, sight.inode(sight.to, ino)?);
        let trivial = match (&base, &theirs) {
            (None, None) => true,
            (Some(base), Some(theirs)) => {
                Facts::of_image(base) == Facts::of_image(theirs) && !sight.shows_through(ino, theirs)?
            }
            _ => false,
        };
        if trivial {
            self.objects.remove(&ino);
        } else {
            self.objects.insert(ino);
        }
        self.check_len()
    }

    fn check_len(&self) -> Result<()> {
        check_rows(self.names.len() + self.objects.len())
    }
}

impl Sight<'_> {
    pub fn name(&mut self, dir: Ino, cookie: Cookie) -> Result<Name> {
        let (from, to) = (self.from, self.to);
        Ok(Name {
            base: self.entry(from, dir, cookie)?,
            mine: self.shown(dir, cookie)?,
            theirs: self.entry(to, dir, cookie)?,
        })
    }

    pub fn object(&mut self, ino: Ino) -> Result<Object> {
        Ok(Object { base: self.inode(self.from, ino)?, mine: self.node(ino)?, theirs: self.inode(self.to, ino)? })
    }

    /// Whether something of an object that the view removed may show in the version to come: something in it,
    /// or a name of its own.
    pub fn shows_through(&mut self, ino: Ino, theirs: &Inode) -> Result<bool> {
        if self.node(ino)?.is_some() {
            return Ok(false);
        }
        // What lies deep in a directory may have names elsewhere.
        Ok(theirs.kind == FileKind::Directory || !self.names_left(ino, theirs)?.is_empty())
    }

    /// The names that the layers leave an object of the version to come.
    pub fn names_left(&mut self, ino: Ino, theirs: &Inode) -> Result<Vec<(Ino, Cookie)>> {
        let to = self.to;
        let mut left = Vec::new();
        for (dir, cookie) in self.names(to, ino, theirs)? {
            let Name { base, mine, .. } = self.name(dir, cookie)?;
            let shown = self.ask_over(to, &mut |tree, fetch| tree.entry_at(fetch, dir, cookie))?;
            // A row that says what was there before leaves the name to the image.
            if mine == base || shown.is_some_and(|entry| entry.ino == ino) {
                left.push((dir, cookie));
            }
        }
        Ok(left)
    }

    /// Whether a directory of the image is not in the version to come.
    pub fn is_homeless(&mut self, dir: Ino) -> Result<bool> {
        Ok(self.inode(self.to, dir)?.is_none() && self.inode(self.from, dir)?.is_some())
    }

    /// The names that the layers leave in a directory of a version.
    pub fn entries_over(&mut self, manifest: Manifest, dir: Ino) -> Result<Vec<Entry>> {
        self.ask_over(manifest, &mut |tree, fetch| tree.entries(fetch, dir))
    }

    /// The names that the layers leave in a directory of the version to come, and that are new there.
    pub fn left_in(&mut self, dir: Ino) -> Result<Vec<Entry>> {
        let (from, to, mut left) = (self.from, self.to, Vec::new());
        for entry in self.entries_over(to, dir)? {
            if self.entry(from, dir, entry.cookie)?.as_ref() != Some(&entry) {
                left.push(entry);
            }
        }
        Ok(left)
    }
}

/// Refuse more names and objects of one clone than are held in memory.
pub fn check_rows(rows: usize) -> Result<()> {
    if rows <= MAX_ROWS {
        return Ok(());
    }
    let what = format!("more than {MAX_ROWS} names and objects that both sides changed, or that are preserved");
    Err(Error::new(ErrorKind::Conflict, what).remedy("discard the private writes, or let the clone stay"))
}

/// How many names objects gain or lose, and how many subdirectories directories do.
#[derive(Default)]
pub struct Gains {
    names: BTreeMap<Ino, i64>,
    subdirs: BTreeMap<Ino, i64>,
}

impl Gains {
    /// An entry of `dir` is there `by` times more.
    pub fn add(&mut self, dir: Ino, entry: Option<&Entry>, by: i64) {
        let Some(entry) = entry else { return };
        *self.names.entry(entry.ino).or_default() += by;
        if entry.kind == FileKind::Directory {
            *self.subdirs.entry(dir).or_default() += by;
        }
    }

    pub fn of(&self, ino: Ino) -> i64 {
        self.names.get(&ino).copied().unwrap_or(0)
    }

    /// How many names a directory has then that is there in the version before, the view, the version to come.
    pub fn names_of_dir(&self, dir: Ino, [base, mine, theirs]: [bool; 3]) -> i64 {
        match dir {
            Ino::ROOT => 1,
            _ => i64::from(mine) + i64::from(theirs) - i64::from(base) + self.of(dir),
        }
    }

    pub fn subdirs_of(&self, dir: Ino) -> i64 {
        self.subdirs.get(&dir).copied().unwrap_or(0)
    }

    /// The objects of which either is not as it was.
    pub fn changed(&self) -> impl Iterator<Item = Ino> {
        self.names.iter().chain(&self.subdirs).filter(|(_, by)| **by != 0).map(|(ino, _)| *ino)
    }
}

/// What of an object may be changed on both sides at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub kind: FileKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: (u32, u32),
    pub nlink: u32,
    pub mtime: crate::env::Time,
}

impl Facts {
    pub fn of_image(inode: &Inode) -> Self {
        let &Inode { kind, mode, uid, gid, rdev, nlink, mtime, .. } = inode;
        Self { kind, mode, uid, gid, rdev, nlink, mtime }
    }

    pub fn of_node(node: &Node) -> Self {
        let &Node { kind, mode, uid, gid, rdev, nlink, mtime, .. } = node;
        Self { kind, mode, uid, gid, rdev, nlink, mtime }
    }

    /// Mode and owner.
    pub fn rights(&self) -> (u32, u32, u32, (u32, u32)) {
        (self.mode, self.uid, self.gid, self.rdev)
    }
}

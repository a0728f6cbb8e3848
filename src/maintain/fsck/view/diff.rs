//! What a view has that its base has not, and whether that fits together.
//!
//! The base is good: in it every object has as many names as its link count says, every directory one
//! and two links and one for each subdirectory. So what is right here follows from what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::super::{NameFlaw, NodeFlaw, ViewFlaw, damage};
use super::Shape;
use crate::error::Result;
use crate::manifest::{Cookie, Entry, FileKind, Ino, MAX_DEPTH, MAX_NAME, MAX_TIES};
use crate::overlay::Node;
use crate::overlay::check::About;

/// Names and subdirectories that something gained, or lost.
#[derive(Clone, Copy, Default)]
struct Gain {
    names: i64,
    subdirs: i64,
}

pub struct Diff<'a> {
    base: Shape<'a>,
    here: Shape<'a>,
    /// What has no name may be there: clients may have it open.
    pinned: bool,
    names: BTreeSet<(Ino, Cookie)>,
    /// Every object that may have changed.
    gains: BTreeMap<Ino, Gain>,
    /// A directory in which an object has a name that changed.
    homes: BTreeMap<Ino, Ino>,
    /// Directories that have names which changed.
    filled: BTreeSet<Ino>,
    /// Directories that can be reached from the root.
    reached: BTreeSet<Ino>,
    flaws: Vec<ViewFlaw>,
}

impl<'a> Diff<'a> {
    pub fn new(base: Shape<'a>, here: Shape<'a>, pinned: bool) -> Self {
        Self {
            base,
            here,
            pinned,
            names: BTreeSet::new(),
            gains: BTreeMap::new(),
            homes: BTreeMap::new(),
            filled: BTreeSet::new(),
            reached: BTreeSet::from([Ino::ROOT]),
            flaws: Vec::new(),
        }
    }

    /// A private value of the view that its base does not have.
    pub fn add(&mut self, about: About) {
        match about {
            About::Node(ino) => drop(self.gains.entry(ino).or_default()),
            About::Name(dir, cookie) => drop(self.names.insert((dir, cookie))),
            About::Data(..) | About::Orphan(_) => {}
        }
    }

    /// Judge everything that was added. If a name cannot be read, objects are not judged: nobody knows
    /// which of them has a name less.
    pub fn run(mut self) -> Result<Vec<ViewFlaw>> {
        for (dir, cookie) in std::mem::take(&mut self.names) {
            let outcome = self.name(dir, cookie);
            self.unless_damaged(outcome)?;
        }
        if self.flaws.iter().any(|flaw| matches!(flaw, ViewFlaw::Unreadable { .. })) {
            return Ok(self.flaws);
        }
        for (ino, gain) in std::mem::take(&mut self.gains) {
            let outcome = self.object(ino, gain);
            self.unless_damaged(outcome)?;
        }
        Ok(self.flaws)
    }

    fn unless_damaged(&mut self, outcome: Result<()>) -> Result<()> {
        if let Err(error) = outcome {
            self.flaws.push(ViewFlaw::Unreadable { what: damage(error)? });
        }
        Ok(())
    }

    fn name(&mut self, dir: Ino, cookie: Cookie) -> Result<()> {
        let (was, is) = (self.base.entry(dir, cookie)?, self.here.entry(dir, cookie)?);
        self.gains.entry(dir).or_default();
        for (entry, by) in was.iter().map(|was| (was, -1)).chain(is.iter().map(|is| (is, 1))) {
            self.gains.entry(entry.ino).or_default().names += by;
            if entry.kind == FileKind::Directory {
                self.gains.entry(dir).or_default().subdirs += by;
            }
        }
        let Some(entry) = is else { return Ok(()) };
        self.homes.insert(entry.ino, dir);
        self.filled.insert(dir);
        if let Some(flaw) = self.name_flaw(dir, &entry)? {
            self.flaws.push(ViewFlaw::Name { dir, name: entry.name.to_vec(), flaw });
        }
        Ok(())
    }

    fn name_flaw(&self, dir: Ino, entry: &Entry) -> Result<Option<NameFlaw>> {
        let Entry { name, cookie, ino, kind } = entry;
        if !is_name(name) {
            return Ok(Some(NameFlaw::Malformed));
        }
        let base = self.here.manifest.name_seed().cookie_base(name);
        if !(base.0..base.0 + MAX_TIES).contains(&cookie.0) {
            return Ok(Some(NameFlaw::Misplaced));
        }
        if self.is_twice(dir, entry)? {
            return Ok(Some(NameFlaw::Twice));
        }
        let object = self.here.node(*ino)?.map_or(*kind, |node| node.kind);
        Ok((object != *kind).then_some(NameFlaw::Kind { entry: *kind, object }))
    }

    /// Whether the directory has the name of `entry` elsewhere too: among what changed, where looking it
    /// up finds but one of the two, or among what did not.
    fn is_twice(&self, dir: Ino, entry: &Entry) -> Result<bool> {
        if self.here.lookup(dir, &entry.name)?.is_none_or(|found| found.cookie != entry.cookie) {
            return Ok(true);
        }
        match self.base.lookup(dir, &entry.name)?.filter(|former| former.cookie != entry.cookie) {
            Some(former) => Ok(self.here.entry(dir, former.cookie)?.is_some_and(|still| still.name == entry.name)),
            None => Ok(false),
        }
    }

    fn object(&mut self, ino: Ino, gain: Gain) -> Result<()> {
        let (was, is) = (self.base.node(ino)?, self.here.node(ino)?);
        let names = gain.names + was.as_ref().map_or(0, |was| names_of(ino, was));
        if self.filled.contains(&ino) && !is.as_ref().is_some_and(Node::is_dir) {
            self.flaws.push(ViewFlaw::NoDirectory { dir: ino });
        }
        let Some(is) = is else { return self.gone(ino, was.as_ref(), names) };
        if let Some(was) = was.as_ref().filter(|was| was.kind != is.kind) {
            self.tell(ino, NodeFlaw::Kind { was: was.kind, is: is.kind });
        }
        match is.kind {
            FileKind::Directory => self.directory(ino, was.as_ref(), &is, names, gain.subdirs),
            _ => {
                self.links(ino, &is, names);
                Ok(())
            }
        }
    }

    /// Judge an object that is not there.
    fn gone(&mut self, ino: Ino, was: Option<&Node>, names: i64) -> Result<()> {
        if names != 0 {
            let dir = self.homes.get(&ino).copied().or(was.map(|was| was.parent));
            self.flaws.push(ViewFlaw::NoObject { ino, dir });
        } else if was.is_some_and(Node::is_dir)
            && !self.filled.contains(&ino)
            && self.here.is_removed(ino)?
            && !self.is_empty(ino)?
        {
            self.tell(ino, NodeFlaw::NotEmpty);
        }
        Ok(())
    }

    fn is_empty(&self, dir: Ino) -> Result<bool> {
        self.here.read(|tree, fetch| {
            let mut empty = true;
            tree.list(fetch, dir, Cookie(0), &mut |_| {
                empty = false;
                Ok(ControlFlow::Break(()))
            })?;
            Ok(empty)
        })
    }

    fn links(&mut self, ino: Ino, node: &Node, names: i64) {
        if names == 0 {
            if !self.pinned {
                self.tell(ino, NodeFlaw::Nameless);
            }
        } else if i64::from(node.nlink) != names {
            self.tell(ino, NodeFlaw::Links { kept: node.nlink, counted: names });
        }
    }

    fn directory(&mut self, ino: Ino, was: Option<&Node>, is: &Node, names: i64, subdirs: i64) -> Result<()> {
        let counted = was.map_or(2, |was| i64::from(was.nlink)) + subdirs;
        if i64::from(is.nlink) != counted {
            self.tell(ino, NodeFlaw::Links { kept: is.nlink, counted });
        }
        if ino == Ino::ROOT {
            if names != 0 {
                self.tell(ino, NodeFlaw::Names(names));
            }
            return Ok(());
        }
        match names {
            0 if self.pinned => {}
            0 => self.tell(ino, NodeFlaw::Nameless),
            1 => self.place(ino, was, is)?,
            _ => self.tell(ino, NodeFlaw::Names(names)),
        }
        Ok(())
    }

    /// Judge the place in the tree of a directory that has one name.
    fn place(&mut self, ino: Ino, was: Option<&Node>, is: &Node) -> Result<()> {
        let home = self.homes.get(&ino).copied().or(was.map(|was| was.parent));
        if let Some(named_in) = home.filter(|home| *home != is.parent) {
            self.tell(ino, NodeFlaw::Parent { kept: is.parent, named_in });
        } else if self.homes.contains_key(&ino) && !self.reaches_root(ino)? {
            self.tell(ino, NodeFlaw::Unreachable);
        }
        Ok(())
    }

    fn reaches_root(&mut self, dir: Ino) -> Result<bool> {
        let (mut way, mut at) = (Vec::new(), dir);
        while !self.reached.contains(&at) {
            let node = self.here.node(at)?.filter(|_| way.len() < MAX_DEPTH);
            let Some(node) = node else { return Ok(false) };
            way.push(at);
            at = node.parent;
        }
        self.reached.extend(way);
        Ok(true)
    }

    fn tell(&mut self, ino: Ino, flaw: NodeFlaw) {
        self.flaws.push(ViewFlaw::Node { ino, flaw });
    }
}

/// The names that a node of a good tree has.
fn names_of(ino: Ino, node: &Node) -> i64 {
    match node.kind {
        FileKind::Directory => i64::from(ino != Ino::ROOT),
        _ => i64::from(node.nlink),
    }
}

fn is_name(name: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
}

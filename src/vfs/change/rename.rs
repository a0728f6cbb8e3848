//! RENAME: one object gets another name, and whatever had that name goes.
//!
//! All of it is one change: at no moment does the object have no name, or both.

use super::super::resolve::{Ended, Found, Run};
use super::super::{Changed, Object, Place, Refusal, Wcc, access};
use super::remove::{Doomed, check_own_name};
use crate::env::Time;
use crate::manifest::Ino;
use crate::overlay::Tree;

/// The directories of a rename, in one tree.
struct Dirs<'s> {
    from: Found<'s>,
    /// `None` if it is the same.
    to: Option<Found<'s>>,
}

impl<'s> Dirs<'s> {
    fn to(&self) -> &Found<'s> {
        self.to.as_ref().unwrap_or(&self.from)
    }

    fn to_mut(&mut self) -> &mut Found<'s> {
        self.to.as_mut().unwrap_or(&mut self.from)
    }
}

impl<'s> Run<'s, '_> {
    pub fn rename(&mut self, from: Place<'_>, to: Place<'_>) -> Ended<Changed> {
        let (mut tree, dirs) = self.open_dirs(from.dir, to.dir)?;
        check_own_name(&dirs.from, from.name)?;
        check_own_name(dirs.to(), to.name)?;
        let moved = self.doomed(&tree, &dirs.from, from.name)?.ok_or_else(|| dirs.from.refuse(Refusal::NotFound))?;
        let replaced = self.doomed(&tree, dirs.to(), to.name)?;
        if replaced.as_ref().is_some_and(|replaced| replaced.object.ino == moved.object.ino) {
            let changed =
                Changed { object: None, wcc: dirs.from.unchanged(), to: Some(dirs.to().unchanged()), durable: None };
            return Ok(self.nothing_to_do(tree, &dirs.from, changed));
        }
        self.check_move(&tree, &dirs, &moved.object)?;
        if let Some(replaced) = &replaced {
            self.check_replace(&tree, &dirs, &moved.object, &replaced.object)?;
        }
        let (wcc, to) = self.do_rename(&mut tree, dirs, moved, replaced, to.name)?;
        self.take_effect(tree, Changed { object: None, wcc, to: Some(to), durable: None })
    }

    /// Open both directories, for a caller who may change the names in them.
    fn open_dirs(&mut self, from: Object, to: Object) -> Ended<(Tree<'s>, Dirs<'s>)> {
        let (tree, from_dir) = self.open_dir(from)?;
        self.check_names(&from_dir)?;
        if from == to {
            return Ok((tree, Dirs { from: from_dir, to: None }));
        }
        if from.export != to.export {
            drop(tree);
            self.find(to)?;
            return Err(from_dir.refuse(Refusal::CrossDevice));
        }
        let here = self.find_here(&tree, from_dir.scope, Ino(to.ino))?;
        let to_dir = here.filter(|dir| dir.object() == to).ok_or(Refusal::Stale)?;
        self.check_search(&to_dir)?;
        self.check_names(&to_dir)?;
        Ok((tree, Dirs { from: from_dir, to: Some(to_dir) }))
    }

    /// Whether the object may leave its directory for the other.
    fn check_move(&mut self, tree: &Tree<'s>, dirs: &Dirs<'s>, moved: &Found<'s>) -> Ended<()> {
        self.check_sticky(&dirs.from, moved)?;
        let Some(to) = dirs.to.as_ref().filter(|_| moved.is_dir()) else { return Ok(()) };
        if self.way_up(tree, to)?.contains(&moved.ino) {
            return Err(dirs.from.refuse(Refusal::Invalid));
        }
        // Its ".." changes, which is an entry of its own.
        let may_write = access::may_write(&self.identity(&moved.scope), &moved.attr());
        if may_write { Ok(()) } else { Err(dirs.from.refuse(Refusal::Access)) }
    }

    /// Whether the object may take the place of the other.
    fn check_replace(
        &mut self,
        tree: &Tree<'s>,
        dirs: &Dirs<'s>,
        moved: &Found<'s>,
        replaced: &Found<'s>,
    ) -> Ended<()> {
        let to = dirs.to();
        self.check_sticky(to, replaced)?;
        match (moved.is_dir(), replaced.is_dir()) {
            (true, false) => Err(to.refuse(Refusal::NotDirectory)),
            (false, true) => Err(to.refuse(Refusal::IsDirectory)),
            (true, true) if !self.is_empty(tree, replaced)? => Err(to.refuse(Refusal::NotEmpty)),
            _ => Ok(()),
        }
    }

    /// Make the rename in the tree; both directories before and after.
    fn do_rename(
        &mut self,
        tree: &mut Tree<'s>,
        mut dirs: Dirs<'s>,
        moved: Doomed<'s>,
        replaced: Option<Doomed<'s>>,
        name: &[u8],
    ) -> Ended<(Wcc, Wcc)> {
        let now = self.vfs.now();
        if let Some(replaced) = replaced {
            self.replace(tree, dirs.to_mut(), replaced, now)?;
        }
        let Doomed { entry, object: mut moved } = moved;
        let (from_ino, to_ino) = (dirs.from.ino, dirs.to().ino);
        tree.remove_entry(self.fetch, from_ino, &entry)?;
        tree.add_entry(self.fetch, to_ino, name, moved.ino, moved.node.kind)?;
        if moved.is_dir() {
            dirs.from.node.nlink = dirs.from.node.nlink.saturating_sub(1);
            dirs.to_mut().node.nlink += 1;
        }
        moved.node.parent = to_ino;
        moved.touch(now);
        self.put(tree, &moved)?;
        let from = self.put_dir(tree, &mut dirs.from, now)?;
        match &mut dirs.to {
            Some(to) => Ok((from, self.put_dir(tree, to, now)?)),
            None => Ok((from, from)),
        }
    }

    /// What had the new name goes.
    fn replace(&mut self, tree: &mut Tree<'s>, dir: &mut Found<'s>, replaced: Doomed<'s>, now: Time) -> Ended<()> {
        tree.remove_entry(self.fetch, dir.ino, &replaced.entry)?;
        if !replaced.object.is_dir() {
            return self.drop_name(tree, replaced.object, now);
        }
        dir.node.nlink = dir.node.nlink.saturating_sub(1);
        Ok(tree.remove(self.fetch, replaced.object.ino, &replaced.object.node)?)
    }
}

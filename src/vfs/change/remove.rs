//! REMOVE and RMDIR: names go.
//!
//! When the last name of an object goes, so does the object, and its handles are dead: clients keep a
//! name for what they hold open (RFC 1813 section 4.5 calls it the ".nfs" file).

use std::ops::ControlFlow;

use super::super::read::check_name;
use super::super::resolve::{Ended, Found, Run};
use super::super::{Changed, Place, Refusal, access};
use crate::manifest::{Cookie, Entry};
use crate::overlay::Tree;

/// A name that is to go, with what it names.
pub(super) struct Doomed<'s> {
    pub entry: Entry,
    pub object: Found<'s>,
}

impl<'s> Run<'s, '_> {
    pub fn remove(&mut self, place: Place<'_>) -> Ended<Changed> {
        let (mut tree, mut dir, doomed) = self.find_doomed(place)?;
        if doomed.object.is_dir() {
            return Err(dir.refuse(Refusal::IsDirectory));
        }
        let now = self.vfs.now();
        tree.remove_entry(self.fetch, dir.ino, &doomed.entry)?;
        self.drop_name(&mut tree, doomed.object, now)?;
        let wcc = self.put_dir(&mut tree, &mut dir, now)?;
        self.take_effect(tree, Changed { object: None, wcc, to: None, durable: None })
    }

    pub fn rmdir(&mut self, place: Place<'_>) -> Ended<Changed> {
        let (mut tree, mut dir, doomed) = self.find_doomed(place)?;
        if !doomed.object.is_dir() {
            return Err(dir.refuse(Refusal::NotDirectory));
        }
        if !self.is_empty(&tree, &doomed.object)? {
            return Err(dir.refuse(Refusal::NotEmpty));
        }
        let now = self.vfs.now();
        tree.remove_entry(self.fetch, dir.ino, &doomed.entry)?;
        tree.remove(self.fetch, doomed.object.ino, &doomed.object.node)?;
        dir.node.nlink = dir.node.nlink.saturating_sub(1);
        let wcc = self.put_dir(&mut tree, &mut dir, now)?;
        self.take_effect(tree, Changed { object: None, wcc, to: None, durable: None })
    }

    /// Find a name that the caller may take away.
    fn find_doomed(&mut self, place: Place<'_>) -> Ended<(Tree<'s>, Found<'s>, Doomed<'s>)> {
        let (tree, dir) = self.open_dir(place.dir)?;
        self.check_names(&dir)?;
        check_own_name(&dir, place.name)?;
        let doomed = self.doomed(&tree, &dir, place.name)?.ok_or_else(|| dir.refuse(Refusal::NotFound))?;
        self.check_sticky(&dir, &doomed.object)?;
        Ok((tree, dir, doomed))
    }

    /// The entry `name` of `dir` and its object, if there is one.
    pub(super) fn doomed(&mut self, tree: &Tree<'s>, dir: &Found<'s>, name: &[u8]) -> Ended<Option<Doomed<'s>>> {
        let Some(entry) = tree.lookup(self.fetch, dir.ino, name)? else { return Ok(None) };
        let object = self.named(tree, dir.scope, entry.ino)?;
        Ok(Some(Doomed { entry, object }))
    }

    pub(super) fn check_sticky(&self, dir: &Found<'s>, object: &Found<'s>) -> Ended<()> {
        let who = self.identity(&dir.scope);
        access::check_sticky(&who, &dir.attr(), &object.attr()).map_err(|why| dir.refuse(why))
    }

    pub(super) fn is_empty(&mut self, tree: &Tree<'s>, dir: &Found<'s>) -> Ended<bool> {
        let mut empty = true;
        tree.list(self.fetch, dir.ino, Cookie(0), &mut |_| {
            empty = false;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(empty)
    }
}

/// Refuse what is no name that can be taken away from `dir`.
pub(super) fn check_own_name(dir: &Found<'_>, name: &[u8]) -> Ended<()> {
    match name {
        b"." | b".." => Err(dir.refuse(Refusal::Invalid)),
        _ => check_name(name).map_err(|why| dir.refuse(why)),
    }
}

//! What all verbs that change something share.
//!
//! A change runs on the newest revision, under the lock of the overlay that takes it, and takes effect
//! at its commit or not at all. If the view that it resolved in was switched away before it had the
//! lock, it is run again: so a write never lands in a view that its handle does not mean, and a name
//! never in one that is gone. Names are made and removed in current views only; the data and the
//! attributes of an object that only a pin has change there.

mod attr;
mod make;
mod remove;
mod rename;
mod write;

use super::resolve::{End, Ended, Found, Run, settle};
use super::{Changed, Durable, ImageVfs, MAX_DEPTH, Object, Refusal, Refused, Request, Verb, Wcc, access};
use crate::env::Time;
use crate::manifest::Ino;
use crate::overlay::{Receipt, Tree};

/// Runs of one call that view switches may undo; far more than a clone is ever switched while a call
/// takes its turn.
const MAX_RUNS: u32 = 16;

impl ImageVfs {
    /// Run a change on the newest revision, again if a view switch came in between.
    pub(super) fn change(
        &self,
        rq: &mut Request<'_>,
        verb: impl Fn(&mut Run<'_, '_>) -> Ended<Changed>,
    ) -> Verb<Changed> {
        self.reserve().refresh()?;
        for _ in 0..MAX_RUNS {
            rq.state = self.newest();
            match verb(&mut self.run(rq)) {
                Err(End::Moved) => {}
                ended => return settle(ended),
            }
        }
        Ok(Err(Refused::from(Refusal::Later)))
    }
}

impl Found<'_> {
    /// Something about the object changed at `now`. Its ctime grows whatever the clock does.
    pub(super) fn touch(&mut self, now: Time) {
        self.node.ctime = now.max(self.attr().ctime.next());
    }

    /// Its data or its entries changed at `now`.
    pub(super) fn touch_content(&mut self, now: Time) {
        self.touch(now);
        self.node.mtime = now;
    }

    /// As it is, before and after.
    pub(super) fn unchanged(&self) -> Wcc {
        Wcc::unchanged(self.attr())
    }
}

impl<'s> Run<'s, '_> {
    /// Open a directory whose entries are to change.
    fn open_dir(&mut self, dir: Object) -> Ended<(Tree<'s>, Found<'s>)> {
        let (tree, dir) = self.find_to_change(dir)?;
        self.check_search(&dir)?;
        if dir.scope.is_current() { Ok((tree, dir)) } else { Err(Refusal::Stale.into()) }
    }

    /// Refuse a caller who may not change the names in `dir`.
    fn check_names(&self, dir: &Found<'s>) -> Ended<()> {
        let may = access::may_change_names(&self.identity(&dir.scope), &dir.attr());
        if may { Ok(()) } else { Err(dir.refuse(Refusal::Access)) }
    }

    /// The directories from `dir` up to the root, both included, if a directory may be put into `dir`: it
    /// would not be too deep then.
    fn way_up(&mut self, tree: &Tree<'s>, dir: &Found<'s>) -> Ended<Vec<Ino>> {
        let mut way = vec![dir.ino];
        let mut parent = dir.node.parent;
        while way.last() != Some(&Ino::ROOT) {
            if way.len() == MAX_DEPTH {
                return Err(dir.refuse(Refusal::NameTooLong));
            }
            way.push(parent);
            parent = self.named(tree, dir.scope, parent)?.node.parent;
        }
        Ok(way)
    }

    /// Refuse to add something while the disk has no more than its reserve.
    fn check_space(&self, found: &Found<'s>) -> Ended<()> {
        if self.vfs.reserve().is_touched() { Err(found.refuse(Refusal::NoSpace)) } else { Ok(()) }
    }

    /// Put the node of an object that is there.
    fn put(&mut self, tree: &mut Tree<'s>, found: &Found<'s>) -> Ended<()> {
        Ok(tree.put(self.fetch, found.ino, found.node.clone())?)
    }

    /// Put the node of a directory whose entries changed at `now`.
    fn put_dir(&mut self, tree: &mut Tree<'s>, dir: &mut Found<'s>, now: Time) -> Ended<Wcc> {
        let before = dir.attr().before();
        dir.touch_content(now);
        self.put(tree, dir)?;
        Ok(Wcc { before, after: dir.attr() })
    }

    /// One name less for an object that is no directory; without any it is gone.
    fn drop_name(&mut self, tree: &mut Tree<'s>, mut found: Found<'s>, now: Time) -> Ended<()> {
        if found.node.nlink <= 1 {
            return Ok(tree.remove(self.fetch, found.ino, &found.node)?);
        }
        found.node.nlink -= 1;
        found.touch(now);
        self.put(tree, &found)
    }

    /// Make everything done to the tree take effect, with the receipt of the call if one is kept.
    fn take_effect(&mut self, tree: Tree<'s>, mut changed: Changed) -> Ended<Changed> {
        let receipt = self.receipt.map(|maker| Receipt { key: maker.key, answer: (maker.encode)(&changed) });
        changed.durable = Some(Durable(tree.commit(receipt)?));
        Ok(changed)
    }

    /// The answer of a change that had nothing to do. What it saw may be another's change that is not
    /// on stable storage yet, and must be before this is answered.
    fn nothing_to_do(&self, tree: Tree<'s>, found: &Found<'s>, changed: Changed) -> Changed {
        drop(tree);
        let top = found.scope.shown.map(|(_, view)| view.top);
        Changed { durable: top.and_then(|top| self.vfs.overlays().last_change(top)).map(Durable), ..changed }
    }
}

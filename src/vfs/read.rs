//! The verbs that read.

use std::ops::ControlFlow;

use super::activity::Use;
use super::quota::Allowance;
use super::resolve::{Ended, Found, Run};
use super::{
    Attr, FileKind, FsStat, LinkTarget, ListEntry, ListWindow, Listing, Looked, MAX_READ, Object, ReadData, Refusal,
    Rights, access,
};
use crate::chunk::{Step, Stop};
use crate::error::Error;
use crate::manifest::{Cookie, Entry, Ino, MAX_NAME};
use crate::overlay::Tree;

/// Entries that one listing returns at most, whatever the client's buffer.
const MAX_LIST_ENTRIES: usize = 8192;
/// Inode numbers are 64 bits, so none are ever short; clients want a number all the same.
const MAX_FILES: u64 = 1 << 40;

/// Whether this can be the name of an entry, `.` and `..` apart.
pub(super) fn check_name(name: &[u8]) -> Result<(), Refusal> {
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(Refusal::Invalid);
    }
    if name.len() > MAX_NAME { Err(Refusal::NameTooLong) } else { Ok(()) }
}

impl<'s> Run<'s, '_> {
    pub fn getattr(&mut self, object: Object) -> Ended<Attr> {
        Ok(self.find(object)?.1.attr())
    }

    pub fn lookup(&mut self, dir: Object, name: &[u8]) -> Ended<Looked> {
        let (tree, dir) = self.find(dir)?;
        self.check_search(&dir)?;
        let dir_attr = dir.attr();
        let (ino, kind) = match name {
            b"." => return Ok(Looked { object: dir.object(), attr: dir_attr, dir_attr }),
            b".." => (dir.node.parent, FileKind::Directory),
            _ => {
                check_name(name).map_err(|why| dir.refuse(why))?;
                let entry = tree.lookup(self.fetch, dir.ino, name)?.ok_or_else(|| dir.refuse(Refusal::NotFound))?;
                (entry.ino, entry.kind)
            }
        };
        let child = self.child(tree, &dir, ino, kind)?;
        Ok(Looked { object: child.object(), attr: child.attr(), dir_attr })
    }

    /// Refuse what is no directory in which the caller may look up names.
    pub fn check_search(&self, dir: &Found<'s>) -> Ended<()> {
        if !dir.is_dir() {
            return Err(dir.refuse(Refusal::NotDirectory));
        }
        let may_search = access::may_search(&self.identity(&dir.scope), &dir.attr());
        if may_search { Ok(()) } else { Err(dir.refuse(Refusal::Access)) }
    }

    /// The object that an entry of `dir` names. If only a pin has the directory, the object may be in a
    /// newer view all the same, and is then served as there, as by its handle.
    fn child(&mut self, tree: Tree<'s>, dir: &Found<'s>, ino: Ino, kind: FileKind) -> Ended<Found<'s>> {
        if dir.scope.is_current() {
            return self.named(&tree, dir.scope, ino);
        }
        let generation = self.generation(&dir.scope, ino, kind)?;
        drop(tree);
        Ok(self.find(Object { export: dir.scope.export, ino: ino.0, generation })?.1)
    }

    pub fn access(&mut self, object: Object, asked: Rights) -> Ended<(Attr, Rights)> {
        let (_, found) = self.find(object)?;
        let attr = found.attr();
        let has = access::rights(&self.identity(&found.scope), &attr);
        // The entries of a directory that only a pin has do not change any more.
        let writable = !found.scope.rules.read_only && (found.scope.is_current() || !found.is_dir());
        let granted = Rights {
            read: asked.read && has.read,
            lookup: asked.lookup && has.lookup,
            modify: asked.modify && has.modify && writable,
            extend: asked.extend && has.extend && writable,
            delete: asked.delete && has.delete && writable,
            execute: asked.execute && has.execute,
        };
        Ok((attr, granted))
    }

    pub fn readlink(&mut self, object: Object) -> Ended<LinkTarget> {
        let (_, found) = self.find(object)?;
        match found.node.kind {
            FileKind::Symlink => Ok(LinkTarget { attr: found.attr(), target: found.node.target }),
            _ => Err(found.refuse(Refusal::Invalid)),
        }
    }

    pub fn read(&mut self, object: Object, offset: u64, len: u32) -> Ended<ReadData> {
        let (tree, found) = self.find(object)?;
        check_regular(&found)?;
        let attr = found.attr();
        if !access::may_read_data(&self.identity(&found.scope), &attr) {
            return Err(found.refuse(Refusal::Access));
        }
        let start = offset.min(attr.size);
        let end = start.saturating_add(u64::from(len.min(MAX_READ))).min(attr.size);
        let slices = tree.read(self.fetch, found.ino, &found.node, start, end)?;
        if let Some((_, view)) = found.scope.shown {
            self.note(&found.scope, Use::Read(view.number));
        }
        let len = u32::try_from(end - start).map_err(|_| Error::internal("a READ beyond its bound"))?;
        Ok(ReadData { attr, slices, len, eof: end == attr.size })
    }

    pub fn list(&mut self, object: Object, window: ListWindow) -> Ended<Listing> {
        let (tree, dir) = self.find(object)?;
        if !dir.is_dir() {
            return Err(dir.refuse(Refusal::NotDirectory));
        }
        let dir_attr = dir.attr();
        if !access::may_list(&self.identity(&dir.scope), &dir_attr) {
            return Err(dir.refuse(Refusal::Access));
        }
        let (entries, eof) = self.collect(&tree, dir.ino, &window)?;
        let entries = match (window.with_attrs, dir.scope.is_current()) {
            (false, _) => self.plain_entries(&dir, entries)?,
            (true, true) => full_entries(entries, |entry| self.named(&tree, dir.scope, entry.ino))?,
            (true, false) => {
                let objects = self.plain_objects(&dir, &entries)?;
                drop(tree);
                let mut objects = objects.into_iter();
                full_entries(entries, |_| Ok(self.find(objects.next().expect("one per entry"))?.1))?
            }
        };
        Ok(Listing { dir_attr, entries, eof })
    }

    /// The entries that fit the window, and whether the directory ends with them.
    fn collect(&mut self, tree: &Tree<'s>, dir: Ino, window: &ListWindow) -> Step<(Vec<Entry>, bool)> {
        let mut entries = Vec::new();
        let mut left = u64::from(window.budget);
        let mut eof = true;
        let whole = tree.list(self.fetch, dir, Cookie(window.after), &mut |entry| {
            let cost = u64::from(window.entry_cost) + (entry.name.len() as u64).next_multiple_of(4);
            if cost > left || entries.len() == MAX_LIST_ENTRIES {
                eof = false;
                return Ok(ControlFlow::Break(()));
            }
            left -= cost;
            entries.push(entry);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((entries, eof && whole))
    }

    /// What the entries of `dir` name, in the view where the directory was found.
    fn plain_objects(&mut self, dir: &Found<'s>, entries: &[Entry]) -> Step<Vec<Object>> {
        let export = dir.scope.export;
        let object = |entry: &Entry| {
            let generation = self.generation(&dir.scope, entry.ino, entry.kind)?;
            Ok(Object { export, ino: entry.ino.0, generation })
        };
        entries.iter().map(object).collect()
    }

    fn plain_entries(&mut self, dir: &Found<'s>, entries: Vec<Entry>) -> Step<Vec<ListEntry>> {
        let line = |entry: Entry| {
            let generation = self.generation(&dir.scope, entry.ino, entry.kind)?;
            let fileid = super::resolve::fileid(entry.ino, generation);
            Ok(ListEntry { name: entry.name, fileid, cookie: entry.cookie.0, full: None })
        };
        entries.into_iter().map(line).collect()
    }

    pub fn fsstat(&mut self, object: Object) -> Ended<(Attr, FsStat)> {
        let (tree, found) = self.find(object)?;
        let held = tree.counts();
        let allowance = self.allowance(&found.scope, &tree);
        let used = tree.manifest().stats().inodes.saturating_add(held.inodes).min(MAX_FILES);
        drop(tree);
        let space = self.vfs.reserve().space()?;
        let left = allowance.as_ref().map_or(u64::MAX, Allowance::left);
        let stat = FsStat {
            total_bytes: allowance.map_or(space.total, |allowance| allowance.quota),
            free_bytes: space.free.min(left),
            available_bytes: space.free.saturating_sub(space.reserve()).min(left),
            total_files: MAX_FILES,
            free_files: MAX_FILES - used,
        };
        Ok((found.attr(), stat))
    }
}

/// Refuse what has no data.
pub(super) fn check_regular(found: &Found<'_>) -> Ended<()> {
    match found.node.kind {
        FileKind::Regular => Ok(()),
        FileKind::Directory => Err(found.refuse(Refusal::IsDirectory)),
        _ => Err(found.refuse(Refusal::Invalid)),
    }
}

/// Entries with attributes. Notes every missing page before it stops, so that they load together.
fn full_entries<'s>(entries: Vec<Entry>, mut find: impl FnMut(&Entry) -> Ended<Found<'s>>) -> Ended<Vec<ListEntry>> {
    let mut full = Vec::with_capacity(entries.len());
    let mut missing = false;
    for entry in entries {
        match find(&entry) {
            Ok(found) => full.push(ListEntry {
                name: entry.name,
                fileid: found.attr().fileid,
                cookie: entry.cookie.0,
                full: Some((found.object(), found.attr())),
            }),
            Err(super::resolve::End::Stopped(Stop::Missing)) => missing = true,
            Err(failed) => return Err(failed),
        }
    }
    if missing { Err(Stop::Missing.into()) } else { Ok(full) }
}

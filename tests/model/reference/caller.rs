//! Who calls, and what he may do: the permission bits of POSIX, as knfsd judges them on a local filesystem.
//!
//! Data is read and written for the owner whatever the mode says, and READ is let through for whoever may
//! execute (RFC 1813 section 4.4).

use super::op::{Name, Op};
use super::tree::{Attr, ObjectId, Tree};
use crate::common::nfs3::status::{ACCES, PERM};
use crate::common::nfs3::{How, Sattr, SetTime};

const READ: u32 = 4;
const WRITE: u32 = 2;
const EXEC: u32 = 1;
const SUID: u32 = 0o4000;
pub const SGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const GROUP_EXEC: u32 = 0o010;

/// A user with one group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
}

impl Caller {
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
    pub const USER: Self = Self { uid: 1000, gid: 1000 };

    pub fn is_root(self) -> bool {
        self.uid == 0
    }

    pub fn is_in(self, group: u32) -> bool {
        self.gid == group
    }

    fn owns(self, attr: &Attr) -> bool {
        self.is_root() || self.uid == attr.uid
    }

    /// All of `bits`, of the one class that he falls into.
    fn has(self, attr: &Attr, bits: u32) -> bool {
        let shift = match attr {
            _ if self.is_root() => return true,
            attr if attr.uid == self.uid => 6,
            attr if self.is_in(attr.gid) => 3,
            _ => 0,
        };
        attr.mode >> shift & bits == bits
    }

    fn may_write_data(self, attr: &Attr) -> bool {
        self.owns(attr) || self.has(attr, WRITE)
    }

    fn may_read_data(self, attr: &Attr) -> bool {
        self.owns(attr) || self.has(attr, READ) || self.has(attr, EXEC)
    }

    /// What speaks against `op`: any of it may be what the answer names.
    pub fn refusals(self, op: &Op, tree: &Tree) -> Vec<u32> {
        let unless = |may: bool, status: u32| if may { Vec::new() } else { vec![status] };
        match op {
            _ if self.is_root() => Vec::new(),
            // COMMIT changes nothing: what it is about was let through when it was written.
            Op::Getattr { .. } | Op::Readlink { .. } | Op::Commit { .. } => Vec::new(),
            Op::Lookup { dir, .. } => unless(self.has(tree.attr(*dir), EXEC), ACCES),
            Op::Read { id, .. } => unless(self.may_read_data(tree.attr(*id)), ACCES),
            Op::Write { id, .. } => unless(self.may_write_data(tree.attr(*id)), ACCES),
            Op::Setattr { id, set, .. } => self.against_setting(tree.attr(*id), set),
            Op::Create { dir, name, how } => self.against_create(tree, *dir, name, how),
            Op::Mkdir { dir, .. } | Op::Symlink { dir, .. } | Op::Link { dir, .. } => self.against_names(tree, *dir),
            Op::Mknod { dir, device, .. } => [self.against_names(tree, *dir), unless(device.is_none(), PERM)].concat(),
            Op::Remove { dir, name } | Op::Rmdir { dir, name } => {
                [self.against_names(tree, *dir), self.against_removal(tree, *dir, name)].concat()
            }
            Op::Rename { from, to } => self.against_rename(tree, from, to),
        }
    }

    /// Names of a directory are changed by who may write and search it.
    fn against_names(self, tree: &Tree, dir: ObjectId) -> Vec<u32> {
        if self.has(tree.attr(dir), WRITE | EXEC) { Vec::new() } else { vec![ACCES] }
    }

    /// From a sticky directory names are taken by the owner of either.
    fn against_removal(self, tree: &Tree, dir: ObjectId, name: &Name) -> Vec<u32> {
        let above = tree.attr(dir);
        match tree.lookup(dir, &name.0) {
            Some(id) if above.mode & STICKY != 0 && !self.owns(above) && !self.owns(tree.attr(id)) => vec![PERM],
            _ => Vec::new(),
        }
    }

    fn against_create(self, tree: &Tree, dir: ObjectId, name: &Name, how: &How) -> Vec<u32> {
        match tree.lookup(dir, &name.0) {
            None => self.against_names(tree, dir),
            Some(_) if !self.has(tree.attr(dir), EXEC) => vec![ACCES],
            Some(id) => match how {
                How::Unchecked(Sattr { size: Some(_), .. }) if !self.may_write_data(tree.attr(id)) => vec![ACCES],
                _ => Vec::new(),
            },
        }
    }

    fn against_rename(self, tree: &Tree, from: &(ObjectId, Name), to: &(ObjectId, Name)) -> Vec<u32> {
        let mut against = [self.against_names(tree, from.0), self.against_names(tree, to.0)].concat();
        let (source, target) = (tree.lookup(from.0, &from.1.0), tree.lookup(to.0, &to.1.0));
        let Some(id) = source.filter(|_| source != target) else { return against };
        against.extend(self.against_removal(tree, from.0, &from.1));
        against.extend(self.against_removal(tree, to.0, &to.1));
        // Its ".." changes, which is an entry of its own.
        if tree.is_dir(id) && from.0 != to.0 && !self.has(tree.attr(id), WRITE) {
            against.push(ACCES);
        }
        against
    }

    fn against_setting(self, old: &Attr, set: &Sattr) -> Vec<u32> {
        let mut against = Vec::new();
        let owner = self.owns(old);
        let times = [set.atime, set.mtime];
        let chosen = times.iter().any(|time| matches!(time, SetTime::To(_)));
        let other_user = set.uid.is_some_and(|uid| !owner || uid != old.uid);
        let other_group = set.gid.is_some_and(|gid| !owner || gid != old.gid && !self.is_in(gid));
        if !owner && (set.mode.is_some() || chosen) || other_user || other_group {
            against.push(PERM);
        }
        let written = set.size.is_some() && !self.may_write_data(old);
        let touched = times.contains(&SetTime::Server) && !owner && !self.has(old, WRITE);
        if written || touched {
            against.push(ACCES);
        }
        against
    }

    /// The mode of a file whose data he changed.
    pub fn mode_after_write(self, mode: u32) -> u32 {
        if self.is_root() { mode } else { without_privileges(mode) }
    }

    /// The mode that he gives to something of group `gid`.
    pub fn mode_given(self, mode: u32, gid: u32) -> u32 {
        if self.is_root() || self.is_in(gid) { mode } else { mode & !SGID }
    }

    /// The same of something new: without execution by the group SGID lends no rights.
    pub fn mode_of_new(self, mode: u32, gid: u32) -> u32 {
        if mode & GROUP_EXEC == 0 { mode } else { self.mode_given(mode, gid) }
    }
}

/// A mode that lends nobody its owner's rights.
pub fn without_privileges(mode: u32) -> u32 {
    let mode = mode & !SUID;
    if mode & GROUP_EXEC == 0 { mode } else { mode & !SGID }
}

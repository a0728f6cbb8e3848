//! SETATTR: who may set what, and what else moves with it.
//!
//! As knfsd on a local filesystem: mode and times are the owner's, the user is root's, the group is
//! the owner's among his own groups, the size is for who may write. A new owner, or a write by
//! somebody without privileges, takes SUID and SGID away.

use super::super::policy::Identity;
use super::super::resolve::{Ended, Found, Run};
use super::super::{Attr, Changed, FileKind, MAX_FILE_BYTES, NewAttr, Object, Refusal, SetTime, Wcc, access};
use crate::env::Time;
use crate::overlay::Tree;

const NANOS: u32 = 1_000_000_000;

impl<'s> Run<'s, '_> {
    pub fn setattr(&mut self, object: Object, new: &NewAttr, guard: Option<Time>) -> Ended<Changed> {
        let (mut tree, mut found) = self.find_to_change(object)?;
        let before = found.attr();
        if guard.is_some_and(|ctime| ctime != before.ctime) {
            return Err(found.refuse(Refusal::NotSync));
        }
        if !self.set(&mut tree, &mut found, new)? {
            let changed = Changed { object: None, wcc: found.unchanged(), to: None, durable: None };
            return Ok(self.nothing_to_do(tree, &found, changed));
        }
        let wcc = Wcc { before: before.before(), after: found.attr() };
        self.take_effect(tree, Changed { object: None, wcc, to: None, durable: None })
    }

    /// Set attributes of an object that is there; whether there was anything to set.
    pub(super) fn set(&mut self, tree: &mut Tree<'s>, found: &mut Found<'s>, new: &NewAttr) -> Ended<bool> {
        let old = found.attr();
        let new = admitted(&self.identity(&found.scope), &old, new).map_err(|why| found.refuse(why))?;
        if new == NewAttr::default() {
            return Ok(false);
        }
        let now = self.vfs.now();
        if let Some(size) = new.size.filter(|size| *size != old.size) {
            if !tree.truncate(self.fetch, found.ino, &mut found.node, size)? {
                return self.again_from_here(tree, found);
            }
            found.node.mtime = now;
        }
        let node = &mut found.node;
        node.mode = new.mode.unwrap_or(node.mode);
        node.uid = new.uid.unwrap_or(node.uid);
        node.gid = new.gid.unwrap_or(node.gid);
        node.atime = new.atime.at(now).unwrap_or(node.atime);
        node.mtime = new.mtime.at(now).unwrap_or(node.mtime);
        node.verifier = None;
        found.touch(now);
        self.put(tree, found)?;
        Ok(true)
    }
}

impl<'s> Run<'s, '_> {
    /// A file is too large to be cut at once, and is shorter by a part now; the verb runs again for the
    /// rest. Others get their turn in between.
    fn again_from_here(&mut self, tree: &mut Tree<'s>, found: &Found<'s>) -> Ended<bool> {
        self.put(tree, found)?;
        tree.commit_part(None)?;
        Err(self.fetch.wait_for(std::future::ready(Ok(()))).into())
    }
}

impl SetTime {
    /// The time that it means at `now`; none if it stays.
    pub(super) fn at(self, now: Time) -> Option<Time> {
        match self {
            Self::Keep => None,
            Self::Now => Some(now),
            Self::To(time) => Some(time),
        }
    }

    fn is_given(self) -> bool {
        matches!(self, Self::To(_))
    }
}

/// What of `new` takes effect on an object with the attributes `old`, if this caller may set it.
fn admitted(who: &Identity<'_>, old: &Attr, new: &NewAttr) -> Result<NewAttr, Refusal> {
    let mut new = *new;
    if let Some(size) = new.size {
        check_size(who, old, size)?;
    }
    check_times(who, old, &new)?;
    let owner_given = new.uid.is_some() || new.gid.is_some();
    check_owner(who, old, &new)?;
    // Links have no mode of their own.
    new.mode = new.mode.filter(|_| old.kind != FileKind::Symlink);
    if let Some(mode) = &mut new.mode {
        if !access::owns(who, old) {
            return Err(Refusal::Perm);
        }
        *mode &= 0o7777;
        if !who.is_root() && !who.in_group(new.gid.unwrap_or(old.gid)) {
            *mode &= !access::SGID;
        }
    }
    let written = new.size.is_some() && !who.is_root();
    if old.kind != FileKind::Directory && (owner_given || written) {
        let mode = new.mode.unwrap_or(old.mode);
        let harmless = access::without_privileges(mode);
        new.mode = if harmless == mode { new.mode } else { Some(harmless) };
    }
    Ok(new)
}

fn check_size(who: &Identity<'_>, old: &Attr, size: u64) -> Result<(), Refusal> {
    match old.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Err(Refusal::IsDirectory),
        _ => return Err(Refusal::Invalid),
    }
    if !access::may_write_data(who, old) {
        return Err(Refusal::Access);
    }
    if size > MAX_FILE_BYTES && size > old.size { Err(Refusal::FileTooBig) } else { Ok(()) }
}

/// Times of the caller's choice are for the owner; the server's clock is for who may write, too.
fn check_times(who: &Identity<'_>, old: &Attr, new: &NewAttr) -> Result<(), Refusal> {
    check_time(new.atime)?;
    check_time(new.mtime)?;
    if access::owns(who, old) {
        return Ok(());
    }
    let times = [new.atime, new.mtime];
    if times.into_iter().any(SetTime::is_given) {
        return Err(Refusal::Perm);
    }
    if times.contains(&SetTime::Now) && !access::may_write(who, old) { Err(Refusal::Access) } else { Ok(()) }
}

/// Refuse what is no time.
pub(super) fn check_time(time: SetTime) -> Result<(), Refusal> {
    match time {
        SetTime::To(time) if time.nanos >= NANOS => Err(Refusal::Invalid),
        _ => Ok(()),
    }
}

fn check_owner(who: &Identity<'_>, old: &Attr, new: &NewAttr) -> Result<(), Refusal> {
    if who.is_root() {
        return Ok(());
    }
    let owner = who.uid == old.uid;
    let uid_stays = new.uid.is_none_or(|uid| owner && uid == old.uid);
    let gid_his = new.gid.is_none_or(|gid| owner && (gid == old.gid || who.in_group(gid)));
    if uid_stays && gid_his { Ok(()) } else { Err(Refusal::Perm) }
}

#[cfg(test)]
mod tests {
    //! The table of permissions, rule by rule, on a file of user 10 and group 20.
    use super::*;

    fn who(uid: u32, groups: &[u32]) -> Identity<'_> {
        Identity { uid, gid: 99, groups, group_zero: 0 }
    }

    fn file(mode: u32) -> Attr {
        access::attr(FileKind::Regular, mode, 10, 20)
    }

    fn set(uid: u32, groups: &[u32], old: &Attr, new: NewAttr) -> Result<NewAttr, Refusal> {
        admitted(&who(uid, groups), old, &new)
    }

    const NOTHING: NewAttr =
        NewAttr { mode: None, uid: None, gid: None, size: None, atime: SetTime::Keep, mtime: SetTime::Keep };

    #[test]
    fn mode_is_for_the_owner_and_root() {
        let new = NewAttr { mode: Some(0o600), ..NOTHING };
        for (uid, outcome) in [(10, Ok(new)), (0, Ok(new)), (11, Err(Refusal::Perm))] {
            assert_eq!(set(uid, &[20], &file(0o666), new), outcome, "uid {uid}");
        }
    }

    #[test]
    fn sgid_is_for_members_of_the_group() {
        let new = NewAttr { mode: Some(0o2755), ..NOTHING };
        assert_eq!(set(10, &[], &file(0o644), new).unwrap().mode, Some(0o755));
        assert_eq!(set(10, &[20], &file(0o644), new).unwrap().mode, Some(0o2755));
        assert_eq!(set(0, &[], &file(0o644), new).unwrap().mode, Some(0o2755));
        let moved = NewAttr { gid: Some(30), ..new };
        assert_eq!(set(10, &[30], &file(0o644), moved).unwrap().mode, Some(0o755), "a new group takes it away");
    }

    #[test]
    fn the_user_is_set_by_root_alone() {
        let to = |uid| NewAttr { uid: Some(uid), ..NOTHING };
        assert_eq!(set(10, &[], &file(0o644), to(11)), Err(Refusal::Perm));
        assert_eq!(set(10, &[], &file(0o644), to(10)), Ok(to(10)));
        assert_eq!(set(11, &[], &file(0o644), to(10)), Err(Refusal::Perm));
        assert_eq!(set(0, &[], &file(0o644), to(11)), Ok(to(11)));
    }

    #[test]
    fn the_group_is_set_by_the_owner_among_his_own() {
        let to = |gid| NewAttr { gid: Some(gid), ..NOTHING };
        assert_eq!(set(10, &[30], &file(0o644), to(30)), Ok(to(30)));
        assert_eq!(set(10, &[30], &file(0o644), to(99)), Ok(to(99)), "his primary group");
        assert_eq!(set(10, &[30], &file(0o644), to(20)), Ok(to(20)), "the one that it has");
        assert_eq!(set(10, &[30], &file(0o644), to(31)), Err(Refusal::Perm));
        assert_eq!(set(11, &[30], &file(0o644), to(30)), Err(Refusal::Perm));
    }

    #[test]
    fn a_new_owner_gets_no_privileges_with_the_file() {
        let to_user = NewAttr { uid: Some(11), ..NOTHING };
        assert_eq!(set(0, &[], &file(0o6755), to_user).unwrap().mode, Some(0o755));
        assert_eq!(set(0, &[], &file(0o2745), to_user).unwrap().mode, None, "SGID without g+x means locking");
        let with_mode = NewAttr { mode: Some(0o4711), ..to_user };
        assert_eq!(set(0, &[], &file(0o644), with_mode).unwrap().mode, Some(0o711));
        let dir = access::attr(FileKind::Directory, 0o2775, 10, 20);
        assert_eq!(set(0, &[], &dir, to_user).unwrap().mode, None, "of a directory it means inheritance");
    }

    #[test]
    fn size_is_for_who_may_write_and_for_files() {
        let to = |size| NewAttr { size: Some(size), ..NOTHING };
        assert_eq!(set(10, &[], &file(0o444), to(5)), Ok(to(5)), "the owner, whatever the mode says");
        assert_eq!(set(11, &[], &file(0o446), to(5)), Ok(to(5)));
        assert_eq!(set(11, &[], &file(0o464), to(5)), Err(Refusal::Access));
        assert_eq!(set(11, &[20], &file(0o4772), to(5)).unwrap().mode, Some(0o772), "a write takes SUID away");
        assert_eq!(set(0, &[], &file(0o4772), to(5)).unwrap().mode, None, "not root's");
        assert_eq!(set(0, &[], &file(0o644), to(MAX_FILE_BYTES)), Ok(to(MAX_FILE_BYTES)));
        assert_eq!(set(0, &[], &file(0o644), to(MAX_FILE_BYTES + 1)), Err(Refusal::FileTooBig));
        for (kind, why) in [(FileKind::Directory, Refusal::IsDirectory), (FileKind::Fifo, Refusal::Invalid)] {
            assert_eq!(set(0, &[], &access::attr(kind, 0o777, 0, 0), to(0)), Err(why));
        }
    }

    #[test]
    fn times_are_for_the_owner_and_the_clock_for_who_may_write() {
        let given = NewAttr { mtime: SetTime::To(Time::new(5, 6)), ..NOTHING };
        let clock = NewAttr { atime: SetTime::Now, mtime: SetTime::Now, ..NOTHING };
        assert_eq!(set(10, &[], &file(0), given), Ok(given));
        assert_eq!(set(10, &[], &file(0), clock), Ok(clock));
        assert_eq!(set(11, &[], &file(0o666), given), Err(Refusal::Perm));
        assert_eq!(set(11, &[], &file(0o666), clock), Ok(clock));
        assert_eq!(set(11, &[], &file(0o664), clock), Err(Refusal::Access));
        let never = NewAttr { atime: SetTime::To(Time::new(0, NANOS)), ..NOTHING };
        assert_eq!(set(0, &[], &file(0), never), Err(Refusal::Invalid));
    }

    #[test]
    fn links_keep_their_mode() {
        let link = access::attr(FileKind::Symlink, 0o777, 10, 20);
        let new = NewAttr { mode: Some(0o600), ..NOTHING };
        assert_eq!(set(10, &[], &link, new), Ok(NOTHING));
    }
}

//! Permission bits against an identity.
//!
//! As knfsd does it on a local filesystem: ACCESS answers strictly by the mode bits, but data is read
//! and written for the owner whatever the mode says, and READ is let through for whoever may execute
//! (RFC 1813 section 4.4: clients check at open and go on using the file).

use super::policy::Identity;
use super::{Attr, FileKind, Refusal, Rights};

const READ: u32 = 4;
const WRITE: u32 = 2;
const EXEC: u32 = 1;

pub const SUID: u32 = 0o4000;
pub const SGID: u32 = 0o2000;
pub const STICKY: u32 = 0o1000;
/// Execution by the group: what makes the SGID bit of a file a privilege.
pub const GROUP_EXEC: u32 = 0o010;

/// The rwx bits of the class (owner, group, others) that the identity falls into.
fn class_bits(who: &Identity<'_>, attr: &Attr) -> u32 {
    let shift = if who.uid == attr.uid {
        6
    } else if who.in_group(attr.gid) {
        3
    } else {
        0
    };
    (attr.mode >> shift) & 7
}

pub fn owns(who: &Identity<'_>, attr: &Attr) -> bool {
    who.is_root() || who.uid == attr.uid
}

/// Whether READ of a file's data is let through.
pub fn may_read_data(who: &Identity<'_>, attr: &Attr) -> bool {
    owns(who, attr) || class_bits(who, attr) & (READ | EXEC) != 0
}

/// Whether WRITE of a file's data, and setting its size, is let through.
pub fn may_write_data(who: &Identity<'_>, attr: &Attr) -> bool {
    owns(who, attr) || may_write(who, attr)
}

/// Whether the mode lets him write, owner or not.
pub fn may_write(who: &Identity<'_>, attr: &Attr) -> bool {
    who.is_root() || class_bits(who, attr) & WRITE != 0
}

/// Whether a directory may be listed.
pub fn may_list(who: &Identity<'_>, dir: &Attr) -> bool {
    who.is_root() || class_bits(who, dir) & READ != 0
}

/// Whether names in a directory may be looked up.
pub fn may_search(who: &Identity<'_>, dir: &Attr) -> bool {
    who.is_root() || class_bits(who, dir) & EXEC != 0
}

/// Whether names may be added to a directory and taken away.
pub fn may_change_names(who: &Identity<'_>, dir: &Attr) -> bool {
    who.is_root() || class_bits(who, dir) & (WRITE | EXEC) == WRITE | EXEC
}

/// Whether this object's name may be taken away from a directory whose names may be changed: in a
/// sticky one only by the owner of either.
pub fn check_sticky(who: &Identity<'_>, dir: &Attr, object: &Attr) -> Result<(), Refusal> {
    if dir.mode & STICKY == 0 || owns(who, dir) || owns(who, object) { Ok(()) } else { Err(Refusal::Perm) }
}

/// A file's mode after somebody without privileges changed its data, or anybody its owner: no longer
/// one that lends its owner's rights.
pub fn without_privileges(mode: u32) -> u32 {
    let mode = mode & !SUID;
    if mode & GROUP_EXEC == 0 { mode } else { mode & !SGID }
}

/// The answer to ACCESS (RFC 1813 section 3.3.4), before the export's read-only rule.
pub fn rights(who: &Identity<'_>, attr: &Attr) -> Rights {
    let bits = if who.is_root() { root_bits(attr) } else { class_bits(who, attr) };
    let (read, write, exec) = (bits & READ != 0, bits & WRITE != 0, bits & EXEC != 0);
    if attr.kind == FileKind::Directory {
        let change = write && exec;
        Rights { read, lookup: exec, modify: change, extend: change, delete: change, execute: false }
    } else {
        Rights { read, lookup: false, modify: write, extend: write, delete: false, execute: exec }
    }
}

/// Root may do everything, but execute a file only if somebody may.
fn root_bits(attr: &Attr) -> u32 {
    let nobody_executes = attr.kind != FileKind::Directory && attr.mode & 0o111 == 0;
    if nobody_executes { READ | WRITE } else { READ | WRITE | EXEC }
}

/// An object with nothing but a kind, a mode and an owner.
#[cfg(test)]
pub(super) fn attr(kind: FileKind, mode: u32, uid: u32, gid: u32) -> Attr {
    let never = crate::env::Time::default();
    Attr {
        kind,
        mode,
        nlink: 1,
        uid,
        gid,
        size: 0,
        used: 0,
        rdev: (0, 0),
        fsid: 1,
        fileid: 2,
        atime: never,
        mtime: never,
        ctime: never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(uid: u32, groups: &[u32]) -> Identity<'_> {
        Identity { uid, gid: 99, groups, group_zero: 0 }
    }

    fn file(mode: u32) -> Attr {
        attr(FileKind::Regular, mode, 10, 20)
    }

    fn dir(mode: u32) -> Attr {
        attr(FileKind::Directory, mode, 10, 20)
    }

    #[test]
    fn classes_are_exclusive_owner_first() {
        let file = file(0o047);
        assert!(!rights(&who(10, &[20]), &file).read, "the owner class says no, the group is not asked");
        assert!(rights(&who(11, &[20]), &file).read);
        assert!(!rights(&who(11, &[20]), &file).modify);
        assert!(rights(&who(11, &[]), &file).modify);
    }

    #[test]
    fn owner_and_executor_may_read_data_though_access_says_no() {
        let file = file(0o001);
        assert!(may_read_data(&who(10, &[]), &file));
        assert!(!rights(&who(10, &[]), &file).read);
        assert!(may_read_data(&who(12, &[]), &file), "x implies READ");
        assert!(!may_read_data(&who(12, &[20]), &file));
    }

    #[test]
    fn the_owner_may_write_data_though_access_says_no() {
        let file = file(0o402);
        assert!(may_write_data(&who(10, &[]), &file));
        assert!(!rights(&who(10, &[]), &file).modify);
        assert!(!may_write_data(&who(11, &[20]), &file));
        assert!(may_write_data(&who(11, &[]), &file));
    }

    #[test]
    fn root_executes_only_what_somebody_may() {
        let zero = who(0, &[]);
        assert!(!rights(&zero, &file(0o600)).execute);
        assert!(rights(&zero, &file(0o100)).execute);
        assert!(rights(&zero, &dir(0)).lookup);
    }

    #[test]
    fn names_are_changed_by_who_may_write_and_search() {
        for (mode, allowed) in [(0o300, true), (0o200, false), (0o100, false), (0o077, false)] {
            assert_eq!(may_change_names(&who(10, &[]), &dir(mode)), allowed, "{mode:o}");
            assert_eq!(rights(&who(10, &[]), &dir(mode)).delete, allowed, "{mode:o}");
        }
    }

    #[test]
    fn in_a_sticky_directory_names_go_by_the_owner_of_either() {
        let victim = attr(FileKind::Regular, 0o666, 30, 30);
        for (uid, allowed) in [(10, true), (30, true), (0, true), (11, false)] {
            assert_eq!(check_sticky(&who(uid, &[]), &dir(0o1777), &victim).is_ok(), allowed, "uid {uid}");
            assert!(check_sticky(&who(uid, &[]), &dir(0o777), &victim).is_ok(), "not sticky");
        }
    }

    #[test]
    fn sgid_without_group_execution_is_no_privilege() {
        assert_eq!(without_privileges(0o6755), 0o755);
        assert_eq!(without_privileges(0o6745), 0o2745);
    }
}

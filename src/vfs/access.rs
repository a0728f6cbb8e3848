//! Permission bits against an identity.
//!
//! As knfsd does it: ACCESS answers strictly by the mode bits, but READ is let through for the owner
//! whatever the mode says, and for whoever may execute (RFC 1813 section 4.4: clients check at open
//! and go on using the file).

use super::policy::Identity;
use super::{FileKind, Rights};
use crate::manifest::Inode;

const READ: u32 = 4;
const WRITE: u32 = 2;
const EXEC: u32 = 1;

/// The rwx bits of the class (owner, group, others) that the identity falls into.
fn class_bits(who: &Identity<'_>, inode: &Inode) -> u32 {
    let shift = if who.uid == inode.uid {
        6
    } else if who.in_group(inode.gid) {
        3
    } else {
        0
    };
    (inode.mode >> shift) & 7
}

/// Whether READ of a file's data is let through.
pub fn may_read_data(who: &Identity<'_>, inode: &Inode) -> bool {
    who.is_root() || who.uid == inode.uid || class_bits(who, inode) & (READ | EXEC) != 0
}

/// Whether a directory may be listed.
pub fn may_list(who: &Identity<'_>, dir: &Inode) -> bool {
    who.is_root() || class_bits(who, dir) & READ != 0
}

/// Whether names in a directory may be looked up.
pub fn may_search(who: &Identity<'_>, dir: &Inode) -> bool {
    who.is_root() || class_bits(who, dir) & EXEC != 0
}

/// The answer to ACCESS (RFC 1813 section 3.3.4), before the export's read-only rule.
pub fn rights(who: &Identity<'_>, inode: &Inode) -> Rights {
    let bits = if who.is_root() { root_bits(inode) } else { class_bits(who, inode) };
    let (read, write, exec) = (bits & READ != 0, bits & WRITE != 0, bits & EXEC != 0);
    if inode.kind == FileKind::Directory {
        Rights { read, lookup: exec, modify: write, extend: write, delete: write && exec, execute: false }
    } else {
        Rights { read, lookup: false, modify: write, extend: write, delete: false, execute: exec }
    }
}

/// Root may do everything, but execute a file only if somebody may.
fn root_bits(inode: &Inode) -> u32 {
    let nobody_executes = inode.kind != FileKind::Directory && inode.mode & 0o111 == 0;
    if nobody_executes { READ | WRITE } else { READ | WRITE | EXEC }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::test_inode;

    fn who(uid: u32, groups: &[u32]) -> Identity<'_> {
        Identity { uid, gid: 99, groups }
    }

    #[test]
    fn classes_are_exclusive_owner_first() {
        let mut file = test_inode(FileKind::Regular, 0o047);
        (file.uid, file.gid) = (10, 20);
        assert!(!rights(&who(10, &[20]), &file).read, "the owner class says no, the group is not asked");
        assert!(rights(&who(11, &[20]), &file).read);
        assert!(!rights(&who(11, &[20]), &file).modify);
        assert!(rights(&who(11, &[]), &file).modify);
    }

    #[test]
    fn owner_and_executor_may_read_data_though_access_says_no() {
        let mut file = test_inode(FileKind::Regular, 0o001);
        (file.uid, file.gid) = (10, 20);
        assert!(may_read_data(&who(10, &[]), &file));
        assert!(!rights(&who(10, &[]), &file).read);
        assert!(may_read_data(&who(12, &[]), &file), "x implies READ");
        assert!(!may_read_data(&who(12, &[20]), &file));
    }

    #[test]
    fn root_executes_only_what_somebody_may() {
        let zero = Identity { uid: 0, gid: 0, groups: &[] };
        assert!(!rights(&zero, &test_inode(FileKind::Regular, 0o600)).execute);
        assert!(rights(&zero, &test_inode(FileKind::Regular, 0o100)).execute);
        assert!(rights(&zero, &test_inode(FileKind::Directory, 0)).lookup);
    }
}

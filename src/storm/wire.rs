//! NFSv3, MOUNT and GETPORT as a client speaks them (RFC 1813, RFC 5531, RFC 1833).
//!
//! Calls are appended to a buffer as whole records; replies are read in place. What this end does not
//! need of a reply (attributes, weak cache consistency data) is stepped over, within bounds.

mod call;
mod reply;
#[cfg(test)]
mod tests;

pub use self::call::{Fill, Head, ListPosition, put_arguments, put_call, put_get_port, put_lookup, put_mount};
pub use self::reply::{Answer, Attr, DIRECTORY, Entry, REGULAR, Reply, answer, mounted, port, reply};
use crate::trace::Call;

pub const NFS: u32 = 100_003;
pub const MOUNT: u32 = 100_005;
pub const PORTMAP: u32 = 100_000;
/// Version of NFS and MOUNT.
pub const VERSION: u32 = 3;

/// `nfsstat3`: what this end has to know by value.
pub mod status {
    pub const OK: u32 = 0;
    pub const JUKEBOX: u32 = 10_008;
}

/// A status by its name in RFC 1813.
pub fn status_name(status: u32) -> String {
    let name = match status {
        status::OK => "NFS3_OK",
        1 => "NFS3ERR_PERM",
        2 => "NFS3ERR_NOENT",
        5 => "NFS3ERR_IO",
        6 => "NFS3ERR_NXIO",
        13 => "NFS3ERR_ACCES",
        17 => "NFS3ERR_EXIST",
        18 => "NFS3ERR_XDEV",
        19 => "NFS3ERR_NODEV",
        20 => "NFS3ERR_NOTDIR",
        21 => "NFS3ERR_ISDIR",
        22 => "NFS3ERR_INVAL",
        27 => "NFS3ERR_FBIG",
        28 => "NFS3ERR_NOSPC",
        30 => "NFS3ERR_ROFS",
        31 => "NFS3ERR_MLINK",
        63 => "NFS3ERR_NAMETOOLONG",
        66 => "NFS3ERR_NOTEMPTY",
        69 => "NFS3ERR_DQUOT",
        70 => "NFS3ERR_STALE",
        71 => "NFS3ERR_REMOTE",
        10_001 => "NFS3ERR_BADHANDLE",
        10_002 => "NFS3ERR_NOT_SYNC",
        10_003 => "NFS3ERR_BAD_COOKIE",
        10_004 => "NFS3ERR_NOTSUPP",
        10_005 => "NFS3ERR_TOOSMALL",
        10_006 => "NFS3ERR_SERVERFAULT",
        10_007 => "NFS3ERR_BADTYPE",
        status::JUKEBOX => "NFS3ERR_JUKEBOX",
        other => return format!("status {other}"),
    };
    name.to_owned()
}

/// A file handle of the server.
pub type Handle = Box<[u8]>;

/// Procedures by number, named as RFC 1813 does; behind NFS's own MOUNT's MNT, which is measured like them.
pub const PROCEDURES: [&str; 23] = [
    "NULL",
    "GETATTR",
    "SETATTR",
    "LOOKUP",
    "ACCESS",
    "READLINK",
    "READ",
    "WRITE",
    "CREATE",
    "MKDIR",
    "SYMLINK",
    "MKNOD",
    "REMOVE",
    "RMDIR",
    "RENAME",
    "LINK",
    "READDIR",
    "READDIRPLUS",
    "FSSTAT",
    "FSINFO",
    "PATHCONF",
    "COMMIT",
    "MNT",
];

const GETATTR: u32 = 1;
pub const LOOKUP: u32 = 3;
pub const READ: u32 = 6;
pub const WRITE: u32 = 7;
const CREATE: u32 = 8;
const MKNOD: u32 = 11;
const READDIR: u32 = 16;
pub const READDIRPLUS: u32 = 17;
const COMMIT: u32 = 21;

/// Where MNT is among [`PROCEDURES`].
pub const MOUNTING: u32 = 22;

/// The place of a call's procedure in [`PROCEDURES`].
pub fn procedure(call: &Call) -> u32 {
    let number = PROCEDURES.iter().position(|name| *name == call.procedure()).unwrap_or(0);
    u32::try_from(number).expect("23 procedures")
}

/// As whom a call is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
}

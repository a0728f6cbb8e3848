//! What a refusal is called on the wire.
//!
//! Owns the only mapping from the file service's refusals to `nfsstat3` (RFC 1813 2.6) and to
//! `mountstat3` (RFC 1813 5.1.5), and from errors of the layers below to refusals.

use nfsserve::nfs::nfsstat3;

use super::handle::BadHandle;
use crate::error::{Error, ErrorKind};
use crate::vfs::{Attr, Refusal, Refused};

/// Why a procedure failed, with the attributes that its reply carries.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    pub status: nfsstat3,
    pub attr: Option<Attr>,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self { status: nfs(refused.why), attr: refused.attr }
    }
}

impl From<BadHandle> for Failure {
    fn from(_: BadHandle) -> Self {
        Self { status: nfsstat3::NFS3ERR_BADHANDLE, attr: None }
    }
}

pub fn nfs(why: Refusal) -> nfsstat3 {
    match why {
        Refusal::Perm => nfsstat3::NFS3ERR_PERM,
        Refusal::NotFound => nfsstat3::NFS3ERR_NOENT,
        Refusal::Io => nfsstat3::NFS3ERR_IO,
        Refusal::Access => nfsstat3::NFS3ERR_ACCES,
        Refusal::Exists => nfsstat3::NFS3ERR_EXIST,
        Refusal::CrossDevice => nfsstat3::NFS3ERR_XDEV,
        Refusal::NotDirectory => nfsstat3::NFS3ERR_NOTDIR,
        Refusal::IsDirectory => nfsstat3::NFS3ERR_ISDIR,
        Refusal::Invalid => nfsstat3::NFS3ERR_INVAL,
        Refusal::FileTooBig => nfsstat3::NFS3ERR_FBIG,
        Refusal::NoSpace => nfsstat3::NFS3ERR_NOSPC,
        Refusal::ReadOnly => nfsstat3::NFS3ERR_ROFS,
        Refusal::TooManyLinks => nfsstat3::NFS3ERR_MLINK,
        Refusal::NameTooLong => nfsstat3::NFS3ERR_NAMETOOLONG,
        Refusal::NotEmpty => nfsstat3::NFS3ERR_NOTEMPTY,
        Refusal::Quota => nfsstat3::NFS3ERR_DQUOT,
        Refusal::Stale => nfsstat3::NFS3ERR_STALE,
        Refusal::NotSync => nfsstat3::NFS3ERR_NOT_SYNC,
        Refusal::TooSmall => nfsstat3::NFS3ERR_TOOSMALL,
        Refusal::NotSupported => nfsstat3::NFS3ERR_NOTSUPP,
        Refusal::BadType => nfsstat3::NFS3ERR_BADTYPE,
        Refusal::Later => nfsstat3::NFS3ERR_JUKEBOX,
        Refusal::Internal => nfsstat3::NFS3ERR_SERVERFAULT,
    }
}

/// MOUNT has fewer words: what it cannot say is a fault of the server.
pub fn mount(why: Refusal) -> u32 {
    match why {
        Refusal::Perm => 1,
        Refusal::NotFound | Refusal::Stale => 2,
        Refusal::Io => 5,
        Refusal::Access => 13,
        Refusal::NotDirectory => 20,
        Refusal::Invalid => 22,
        Refusal::NameTooLong => 63,
        Refusal::NotSupported => 10004,
        _ => 10006,
    }
}

/// What a client is told about an error of the layers below.
pub fn refusal(error: &Error) -> Refusal {
    match error.kind() {
        ErrorKind::ReadOnly => Refusal::ReadOnly,
        ErrorKind::NoSpace => Refusal::NoSpace,
        ErrorKind::Stale => Refusal::Stale,
        ErrorKind::Unavailable | ErrorKind::Conflict => Refusal::Later,
        ErrorKind::Corrupt | ErrorKind::Io | ErrorKind::NotFound => Refusal::Io,
        ErrorKind::Exists | ErrorKind::Invalid | ErrorKind::Internal => Refusal::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_bytes_are_an_io_error_and_never_a_missing_file() {
        for kind in [ErrorKind::Corrupt, ErrorKind::Io, ErrorKind::NotFound] {
            assert_eq!(refusal(&Error::new(kind, "chunk")), Refusal::Io);
        }
        assert_eq!(refusal(&Error::new(ErrorKind::Unavailable, "store")), Refusal::Later);
    }
}

//! The 22 procedures of NFSv3 (RFC 1813 section 3.3), by family.
//!
//! Each is one function: arguments in, verbs of the file service asked, results appended. A failed
//! one answers its status and the attributes that its result carries on failure.

mod attr;
mod change;
mod dir;
mod info;
mod io;
mod names;
mod write;

use nfsserve::nfs::nfsstat3;
use smallvec::{SmallVec, smallvec};

use super::args::{self, Handle};
use super::dispatch::{Context, Halt};
use super::encode::EncodeReply;
use super::reply::Replies;
use super::rpc::{Call, Reject};
use super::status::Failure;
use super::xdr::{Decode, Decoder, Encode, Garbage};
use crate::vfs::Vfs;

pub const PROGRAM: u32 = 100_003;
pub const VERSION: u32 = 3;
pub const READ: u32 = 6;
pub const SETATTR: u32 = 2;
pub const CREATE: u32 = 8;
pub const MKDIR: u32 = 9;
pub const SYMLINK: u32 = 10;
pub const MKNOD: u32 = 11;
pub const REMOVE: u32 = 12;
pub const RMDIR: u32 = 13;
pub const RENAME: u32 = 14;
pub const LINK: u32 = 15;

/// Whether a second run of the same call might answer otherwise, or undo what came between.
pub fn runs_once(procedure: u32) -> bool {
    matches!(procedure, SETATTR | CREATE | MKDIR | SYMLINK | MKNOD | REMOVE | RMDIR | RENAME | LINK)
}

/// The handles of a call that must not run twice.
pub fn handles<'a>(call: &Call<'a>) -> Result<SmallVec<[Handle<'a>; 2]>, Garbage> {
    Ok(match call.procedure {
        RENAME => call.arguments::<args::Rename<'_>>().map(|args| smallvec![args.from.dir, args.to.dir])?,
        LINK => call.arguments::<args::Link<'_>>().map(|args| smallvec![args.file, args.place.dir])?,
        // All others begin with their only one.
        _ => smallvec![args::Object::decode(&mut Decoder::new(call.arguments))?.handle],
    })
}

/// Whether these results answer their call for good: not if it is to be tried again, nor if its caller was
/// not let in, as others' answers must not be given up for those of strangers.
pub fn is_final(results: &[u8]) -> bool {
    let passing = [nfsstat3::NFS3ERR_JUKEBOX, nfsstat3::NFS3ERR_ACCES, nfsstat3::NFS3ERR_BADHANDLE];
    !passing.into_iter().any(|status| results.starts_with(&(status as u32).to_be_bytes()))
}

/// The failure of a procedure that changes something, without attributes.
pub fn put_bare_failure(out: &mut Replies, procedure: u32, status: nfsstat3) {
    let attributes = match procedure {
        RENAME => 4,
        LINK => 3,
        _ => 2,
    };
    out.head().put_status(status);
    (0..attributes).for_each(|_| out.head().put_bool(false));
}

/// What a procedure answers: its results are in the reply, or it halted.
type Done = Result<(), Halt>;

pub fn run<V: Vfs>(cx: &mut Context<'_, '_, V>, call: &Call<'_>, out: &mut Replies) -> Done {
    match call.procedure {
        0 => Ok(call.arguments::<()>()?),
        1 => attr::getattr(cx, call.arguments()?, out),
        SETATTR => write::setattr(cx, call.arguments()?, out),
        3 => dir::lookup(cx, call.arguments()?, out),
        4 => attr::access(cx, call.arguments()?, out),
        5 => io::readlink(cx, call.arguments()?, out),
        READ => io::read(cx, call.arguments()?, out),
        7 => write::write(cx, call.arguments()?, out),
        CREATE => names::create(cx, call.arguments()?, out),
        MKDIR => names::mkdir(cx, call.arguments()?, out),
        SYMLINK => names::symlink(cx, call.arguments()?, out),
        MKNOD => names::mknod(cx, call.arguments()?, out),
        REMOVE => names::remove(cx, call.arguments()?, out),
        RMDIR => names::rmdir(cx, call.arguments()?, out),
        RENAME => names::rename(cx, call.arguments()?, out),
        LINK => names::link(cx, call.arguments()?, out),
        16 => dir::readdir(cx, call.arguments()?, out),
        17 => dir::readdirplus(cx, call.arguments()?, out),
        18 => info::fsstat(cx, call.arguments()?, out),
        19 => info::fsinfo(cx, call.arguments()?, out),
        20 => info::pathconf(cx, call.arguments()?, out),
        21 => write::commit(cx, call.arguments()?, out),
        _ => Err(Reject::ProcedureUnavailable.into()),
    }
}

/// The result of a failed procedure that carries `post_op_attr`.
fn put_failure(out: &mut Replies, failure: &Failure) {
    out.head().put_status(failure.status);
    out.head().put_post_op(failure.attr.as_ref());
}

fn put_ok(out: &mut Replies) {
    out.head().put_status(nfsstat3::NFS3_OK);
}

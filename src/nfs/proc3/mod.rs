//! The 22 procedures of NFSv3 (RFC 1813 section 3.3), by family.
//!
//! Each is one function: arguments in, verbs of the file service asked, results appended. A failed
//! one answers its status and the attributes that its result carries on failure.

mod attr;
mod dir;
mod info;
mod io;
mod modify;

use nfsserve::nfs::nfsstat3;

use super::dispatch::{Context, Halt};
use super::encode::EncodeReply;
use super::reply::Replies;
use super::rpc::{Call, Reject};
use super::status::Failure;
use crate::vfs::Vfs;

pub const PROGRAM: u32 = 100_003;
pub const VERSION: u32 = 3;
/// Procedure number of READ.
pub const READ: u32 = 6;

/// What a procedure answers: its results are in the reply, or it halted.
type Done = Result<(), Halt>;

pub fn run<V: Vfs>(cx: &mut Context<'_, '_, V>, call: &Call<'_>, out: &mut Replies) -> Done {
    match call.procedure {
        0 => Ok(call.arguments::<()>()?),
        1 => attr::getattr(cx, call.arguments()?, out),
        2 => modify::setattr(cx, call.arguments()?, out),
        3 => dir::lookup(cx, call.arguments()?, out),
        4 => attr::access(cx, call.arguments()?, out),
        5 => io::readlink(cx, call.arguments()?, out),
        READ => io::read(cx, call.arguments()?, out),
        7 => modify::write(cx, call.arguments()?, out),
        8 => modify::create(cx, call.arguments()?, out),
        9 => modify::mkdir(cx, call.arguments()?, out),
        10 => modify::symlink(cx, call.arguments()?, out),
        11 => modify::mknod(cx, call.arguments()?, out),
        12 | 13 => modify::remove(cx, call.arguments()?, out),
        14 => modify::rename(cx, call.arguments()?, out),
        15 => modify::link(cx, call.arguments()?, out),
        16 => dir::readdir(cx, call.arguments()?, out),
        17 => dir::readdirplus(cx, call.arguments()?, out),
        18 => info::fsstat(cx, call.arguments()?, out),
        19 => info::fsinfo(cx, call.arguments()?, out),
        20 => info::pathconf(cx, call.arguments()?, out),
        21 => modify::commit(cx, call.arguments()?, out),
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

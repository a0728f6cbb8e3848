//! The procedures that change something.
//!
//! Each decodes its arguments in full, asks whether the object may be changed at all, and answers in
//! the shape of its own failure: status and `wcc_data`. What may be changed is not changed yet, it is
//! NOTSUPP; nothing that is served today gets so far.

use nfsserve::nfs::nfsstat3;

use super::super::args::{self, Handle};
use super::super::dispatch::{Context, Halt};
use super::super::encode::EncodeReply;
use super::super::reply::Replies;
use super::super::status::Failure;
use super::Done;
use crate::vfs::Vfs;

/// SETATTR (3.3.2).
pub fn setattr<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::SetAttr<'_>, out: &mut Replies) -> Done {
    refuse(cx, args.object, out)
}

/// WRITE (3.3.7).
pub fn write<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Write<'_>, out: &mut Replies) -> Done {
    refuse(cx, args.file, out)
}

/// CREATE (3.3.8).
pub fn create<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Create<'_>, out: &mut Replies) -> Done {
    refuse(cx, args.place.dir, out)
}

/// MKDIR (3.3.9).
pub fn mkdir<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::MkDir<'_>, out: &mut Replies) -> Done {
    refuse(cx, args.place.dir, out)
}

/// SYMLINK (3.3.10).
pub fn symlink<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::SymLink<'_>, out: &mut Replies) -> Done {
    refuse(cx, args.place.dir, out)
}

/// MKNOD (3.3.11).
pub fn mknod<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::MkNod<'_>, out: &mut Replies) -> Done {
    refuse(cx, args.place.dir, out)
}

/// REMOVE and RMDIR (3.3.12, 3.3.13).
pub fn remove<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::DirOp<'_>, out: &mut Replies) -> Done {
    refuse(cx, args.dir, out)
}

/// COMMIT (3.3.21). Nothing can be dirty where nothing can be written.
pub fn commit<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Range<'_>, out: &mut Replies) -> Done {
    refuse(cx, args.file, out)
}

/// RENAME (3.3.14): `wcc_data` of both directories.
pub fn rename<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Rename<'_>, out: &mut Replies) -> Done {
    let from = refusal(cx, args.from.dir)?;
    let to = refusal(cx, args.to.dir)?;
    // A side without attributes is one whose handle is of no use: say that first.
    let first = if from.attr.is_some() && to.attr.is_none() { &to } else { &from };
    out.head().put_status(first.status);
    out.head().put_unchanged(from.attr.as_ref());
    out.head().put_unchanged(to.attr.as_ref());
    Ok(())
}

/// LINK (3.3.15): attributes of the file and `wcc_data` of the directory.
pub fn link<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Link<'_>, out: &mut Replies) -> Done {
    let file = cx.on(args.file, |vfs, request, file| vfs.getattr(request, file))?;
    let dir = refusal(cx, args.place.dir)?;
    let (status, file) = match file {
        Ok(attr) => (dir.status, Some(attr)),
        Err(failure) => (failure.status, failure.attr),
    };
    out.head().put_status(status);
    out.head().put_post_op(file.as_ref());
    out.head().put_unchanged(dir.attr.as_ref());
    Ok(())
}

/// The failure of a procedure on one object.
fn refuse<V: Vfs>(cx: &mut Context<'_, '_, V>, handle: Handle<'_>, out: &mut Replies) -> Done {
    let failure = refusal(cx, handle)?;
    out.head().put_status(failure.status);
    out.head().put_unchanged(failure.attr.as_ref());
    Ok(())
}

/// Why the object of `handle` is not changed.
fn refusal<V: Vfs>(cx: &mut Context<'_, '_, V>, handle: Handle<'_>) -> Result<Failure, Halt> {
    let writable = cx.on(handle, |vfs, request, object| vfs.check_writable(request, object))?;
    Ok(match writable {
        Ok(attr) => Failure { status: nfsstat3::NFS3ERR_NOTSUPP, attr: Some(attr) },
        Err(failure) => failure,
    })
}

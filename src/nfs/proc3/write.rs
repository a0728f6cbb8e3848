//! SETATTR, WRITE, COMMIT.

use nfsserve::nfs::nfsstat3;

use super::super::args::{self, Stable};
use super::super::dispatch::Context;
use super::super::reply::Replies;
use super::super::xdr::Encode;
use super::Done;
use super::change::{change, new_attr, put_failure, put_wcc, time};
use crate::vfs::{MAX_WRITE, Request, Vfs};

/// SETATTR (3.3.2).
pub fn setattr<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::SetAttr<'_>, out: &mut Replies) -> Done {
    let (new, guard) = (new_attr(&args.new), args.guard.map(time));
    let object = cx.object(args.object);
    change(cx, object, put_wcc, out, |vfs, request, object| vfs.setattr(request, object, new, guard))?;
    Ok(())
}

/// WRITE (3.3.7). More than [`MAX_WRITE`] bytes are not taken, and the count says so.
pub fn write<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Write<'_>, out: &mut Replies) -> Done {
    if args.count as usize != args.data.len() {
        let failure = cx.fail(args.file, nfsstat3::NFS3ERR_INVAL)?;
        put_failure(out, &failure);
        return Ok(());
    }
    let count = args.count.min(MAX_WRITE);
    let (data, stable) = (&args.data[..count as usize], args.stable != Stable::Unstable);
    let file = cx.object(args.file);
    let write = |vfs: &V, request: &mut Request<'_>, file| vfs.write(request, file, args.offset, data, stable);
    if change(cx, file, put_wcc, out, write)? {
        out.head().put_u32(count);
        out.head().put_u32(if stable { Stable::FileSync } else { Stable::Unstable } as u32);
        put_verifier(cx, out);
    }
    Ok(())
}

/// COMMIT (3.3.21). The range makes no difference: what was written before is all in one log.
pub fn commit<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Range<'_>, out: &mut Replies) -> Done {
    let file = cx.object(args.file);
    if change(cx, file, put_wcc, out, |vfs, request, file| vfs.commit(request, file))? {
        put_verifier(cx, out);
    }
    Ok(())
}

fn put_verifier<V: Vfs>(cx: &Context<'_, '_, V>, out: &mut Replies) {
    out.head().extend_from_slice(&cx.core.vfs.write_verifier());
}

//! FSSTAT, FSINFO, PATHCONF: what the filesystem is and what it can do.

use nfsserve::nfs::{FSF_CANSETTIME, FSF_HOMOGENEOUS, FSF_LINK, FSF_SYMLINK, fsinfo3, nfstime3, post_op_attr};

use super::super::args;
use super::super::dispatch::Context;
use super::super::encode::{EncodeReply, fattr};
use super::super::reply::Replies;
use super::super::xdr::Encode;
use super::{Done, put_failure, put_ok};
use crate::vfs::{Attr, MAX_FILE_BYTES, MAX_LINKS, MAX_READ, MAX_WRITE, Vfs};

/// Transfers are best a multiple of this, in bytes.
const BLOCK: u32 = 4096;
/// Preferred size of a READDIR, in bytes.
const LISTING: u32 = 64 * 1024;
/// Longest name, in bytes.
pub const MAX_NAME: u32 = 255;

/// FSSTAT (3.3.18).
pub fn fsstat<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Object<'_>, out: &mut Replies) -> Done {
    match cx.on(args.handle, |vfs, request, object| vfs.fsstat(request, object))? {
        Ok((attr, stat)) => {
            put_ok(out);
            let head = out.head();
            head.put_post_op(Some(&attr));
            head.put_u64(stat.total_bytes);
            head.put_u64(stat.free_bytes);
            head.put_u64(stat.available_bytes);
            head.put_u64(stat.total_files);
            head.put_u64(stat.free_files);
            head.put_u64(stat.free_files);
            // invarsec: the figures may change at any time.
            head.put_u32(0);
        }
        Err(failure) => put_failure(out, &failure),
    }
    Ok(())
}

/// FSINFO (3.3.19).
pub fn fsinfo<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Object<'_>, out: &mut Replies) -> Done {
    match cx.on(args.handle, |vfs, request, object| vfs.getattr(request, object))? {
        Ok(attr) => {
            put_ok(out);
            out.head().put(&limits(&attr));
        }
        Err(failure) => put_failure(out, &failure),
    }
    Ok(())
}

fn limits(attr: &Attr) -> fsinfo3 {
    fsinfo3 {
        obj_attributes: post_op_attr::attributes(fattr(attr)),
        rtmax: MAX_READ,
        rtpref: MAX_READ,
        rtmult: BLOCK,
        wtmax: MAX_WRITE,
        wtpref: MAX_WRITE,
        wtmult: BLOCK,
        dtpref: LISTING,
        maxfilesize: MAX_FILE_BYTES,
        time_delta: nfstime3 { seconds: 0, nseconds: 1 },
        properties: FSF_LINK | FSF_SYMLINK | FSF_HOMOGENEOUS | FSF_CANSETTIME,
    }
}

/// PATHCONF (3.3.20).
pub fn pathconf<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Object<'_>, out: &mut Replies) -> Done {
    match cx.on(args.handle, |vfs, request, object| vfs.getattr(request, object))? {
        Ok(attr) => {
            put_ok(out);
            let head = out.head();
            head.put_post_op(Some(&attr));
            head.put_u32(MAX_LINKS);
            head.put_u32(MAX_NAME);
            let (no_trunc, chown_restricted, case_insensitive, case_preserving) = (true, true, false, true);
            for property in [no_trunc, chown_restricted, case_insensitive, case_preserving] {
                head.put_bool(property);
            }
        }
        Err(failure) => put_failure(out, &failure),
    }
    Ok(())
}

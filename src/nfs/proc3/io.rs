//! READ and READLINK.

use super::super::args;
use super::super::dispatch::Context;
use super::super::encode::EncodeReply;
use super::super::reply::Replies;
use super::super::xdr::Encode;
use super::{Done, put_failure, put_ok};
use crate::vfs::{MAX_READ, Vfs};

/// READ (3.3.6). The payload is queued as the slices of cached chunks that it is.
pub fn read<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Range<'_>, out: &mut Replies) -> Done {
    let count = args.count.min(MAX_READ);
    match cx.on(args.file, |vfs, request, file| vfs.read(request, file, args.offset, count))? {
        Ok(data) => {
            put_ok(out);
            let head = out.head();
            head.put_post_op(Some(&data.attr));
            head.put_u32(data.len);
            head.put_bool(data.eof);
            head.put_u32(data.len);
            debug_assert_eq!(data.slices.iter().map(|slice| slice.len()).sum::<usize>(), data.len as usize);
            data.slices.into_iter().for_each(|slice| out.payload(slice));
            out.head().put_padding(data.len as usize);
        }
        Err(failure) => put_failure(out, &failure),
    }
    Ok(())
}

/// READLINK (3.3.5).
pub fn readlink<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Object<'_>, out: &mut Replies) -> Done {
    match cx.on(args.handle, |vfs, request, object| vfs.readlink(request, object))? {
        Ok(link) => {
            put_ok(out);
            out.head().put_post_op(Some(&link.attr));
            out.head().put_opaque(&link.target);
        }
        Err(failure) => put_failure(out, &failure),
    }
    Ok(())
}

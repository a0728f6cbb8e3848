//! GETATTR and ACCESS.

use super::super::args;
use super::super::dispatch::Context;
use super::super::encode::EncodeReply;
use super::super::reply::Replies;
use super::super::xdr::Encode;
use super::{Done, put_failure, put_ok};
use crate::vfs::{Rights, Vfs};

const ACCESS3_READ: u32 = 0x01;
const ACCESS3_LOOKUP: u32 = 0x02;
const ACCESS3_MODIFY: u32 = 0x04;
const ACCESS3_EXTEND: u32 = 0x08;
const ACCESS3_DELETE: u32 = 0x10;
const ACCESS3_EXECUTE: u32 = 0x20;

/// GETATTR (3.3.1). The only procedure whose failure carries no attributes.
pub fn getattr<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Object<'_>, out: &mut Replies) -> Done {
    match cx.on(args.handle, |vfs, request, object| vfs.getattr(request, object))? {
        Ok(attr) => {
            put_ok(out);
            out.head().put_attr(&attr);
        }
        Err(failure) => out.head().put_status(failure.status),
    }
    Ok(())
}

/// ACCESS (3.3.4).
pub fn access<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Access<'_>, out: &mut Replies) -> Done {
    let asked = rights(args.rights);
    match cx.on(args.object, |vfs, request, object| vfs.access(request, object, asked))? {
        Ok((attr, granted)) => {
            put_ok(out);
            out.head().put_post_op(Some(&attr));
            out.head().put_u32(bits(granted) & args.rights);
        }
        Err(failure) => put_failure(out, &failure),
    }
    Ok(())
}

fn rights(bits: u32) -> Rights {
    let has = |bit| bits & bit != 0;
    Rights {
        read: has(ACCESS3_READ),
        lookup: has(ACCESS3_LOOKUP),
        modify: has(ACCESS3_MODIFY),
        extend: has(ACCESS3_EXTEND),
        delete: has(ACCESS3_DELETE),
        execute: has(ACCESS3_EXECUTE),
    }
}

fn bits(rights: Rights) -> u32 {
    let bit = |granted, bit| if granted { bit } else { 0 };
    bit(rights.read, ACCESS3_READ)
        | bit(rights.lookup, ACCESS3_LOOKUP)
        | bit(rights.modify, ACCESS3_MODIFY)
        | bit(rights.extend, ACCESS3_EXTEND)
        | bit(rights.delete, ACCESS3_DELETE)
        | bit(rights.execute, ACCESS3_EXECUTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_right_has_its_bit() {
        for set in 0..0x40 {
            assert_eq!(bits(rights(set)), set);
        }
    }
}

//! The port mapper's program (RFC 1833 section 3, version 2) on our own port: a client that asks it
//! where NFS and MOUNT are is sent back here.

use super::dispatch::{Context, Halt};
use super::reply::Replies;
use super::rpc::{Call, Reject};
use super::xdr::{Decode, Decoder, Encode, Garbage};
use super::{mount, proc3};
use crate::vfs::Vfs;

pub const PROGRAM: u32 = 100_000;
pub const VERSION: u32 = 2;

const NULL: u32 = 0;
const GETPORT: u32 = 3;
const TCP: u32 = 6;

/// `mapping`; the port of a question says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    program: u32,
    version: u32,
    protocol: u32,
}

impl Decode<'_> for Mapping {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, Garbage> {
        let mapping = Self { program: from.u32()?, version: from.u32()?, protocol: from.u32()? };
        from.u32()?;
        Ok(mapping)
    }
}

pub fn run<V: Vfs>(cx: &Context<'_, '_, V>, call: &Call<'_>, out: &mut Replies) -> Result<(), Halt> {
    match call.procedure {
        NULL => call.arguments::<()>()?,
        GETPORT => {
            let asked = call.arguments::<Mapping>()?;
            out.head().put_u32(if is_ours(asked) { u32::from(cx.origin.port) } else { 0 });
        }
        _ => return Err(Reject::ProcedureUnavailable.into()),
    }
    Ok(())
}

fn is_ours(asked: Mapping) -> bool {
    let programs = [(proc3::PROGRAM, proc3::VERSION), (mount::PROGRAM, mount::VERSION), (PROGRAM, VERSION)];
    asked.protocol == TCP && programs.contains(&(asked.program, asked.version))
}

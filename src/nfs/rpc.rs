//! ONC RPC (RFC 5531): the call header, credentials, and the reply header.
//!
//! Owns the shape of calls and replies around a procedure's arguments and results. AUTH_NONE and
//! AUTH_SYS are taken; every other flavour is refused as too weak, which makes clients fail at once
//! instead of trying again.
//!
//! Failure story: what is no call at all ([`NotCall`]) ends the connection, since it has no
//! transaction to answer; everything else that is wrong with a call is answered as a [`Reject`].

use std::net::SocketAddr;

use smallvec::SmallVec;

use super::xdr::{Decode, Decoder, Encode, Garbage};
use crate::vfs::{Caller, MAX_GROUPS};

pub const RPC_VERSION: u32 = 2;
/// Longest body of a credential or verifier, in bytes (RFC 5531 section 8.2).
const MAX_AUTH: usize = 400;
/// Longest machine name in an AUTH_SYS credential, in bytes (RFC 5531 appendix A).
const MAX_MACHINE_NAME: usize = 255;

pub const AUTH_NONE: u32 = 0;
pub const AUTH_SYS: u32 = 1;
/// User and group of a caller without credentials, until an export has its own for him.
pub const NOBODY: u32 = 65534;

const CALL: u32 = 0;
const REPLY: u32 = 1;
const MSG_ACCEPTED: u32 = 0;
const MSG_DENIED: u32 = 1;

/// A decoded call: header and undecoded arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub xid: u32,
    pub program: u32,
    pub version: u32,
    pub procedure: u32,
    pub credential: Credential<'a>,
    pub arguments: &'a [u8],
}

/// Who a call says it comes from.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    None,
    /// `groups` are big-endian words, at most [`MAX_GROUPS`].
    Sys {
        uid: u32,
        gid: u32,
        groups: &'a [u8],
    },
}

/// The record is no call: there is nothing to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotCall;

/// Why a call did not reach its procedure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Not version 2 of RPC.
    RpcMismatch,
    Auth(AuthStat),
    ProgramUnavailable,
    /// The versions that there are: lowest and highest.
    ProgramMismatch(u32, u32),
    ProcedureUnavailable,
    GarbageArguments,
    /// A bug of ours.
    SystemError,
}

/// Why a call's credential was refused (RFC 5531 section 9, `auth_stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AuthStat {
    BadCredential = 1,
    BadVerifier = 3,
    TooWeak = 5,
}

impl From<Garbage> for Reject {
    fn from(_: Garbage) -> Self {
        Self::GarbageArguments
    }
}

/// The transaction id of a call; the rest of the record follows it in the decoder.
pub fn begin(record: &[u8]) -> Result<(u32, Decoder<'_>), NotCall> {
    let mut from = Decoder::new(record);
    match (from.u32(), from.u32()) {
        (Ok(xid), Ok(CALL)) => Ok((xid, from)),
        _ => Err(NotCall),
    }
}

impl<'a> Call<'a> {
    /// What follows the message type.
    pub fn decode(xid: u32, mut from: Decoder<'a>) -> Result<Self, Reject> {
        if from.u32()? != RPC_VERSION {
            return Err(Reject::RpcMismatch);
        }
        let (program, version, procedure) = (from.u32()?, from.u32()?, from.u32()?);
        let credential = credential(&mut from)?;
        verifier(&mut from)?;
        Ok(Self { xid, program, version, procedure, credential, arguments: from.rest() })
    }

    pub fn caller(&self, peer: SocketAddr) -> Caller {
        match self.credential {
            Credential::None => Caller { peer, anonymous: true, uid: NOBODY, gid: NOBODY, groups: SmallVec::new() },
            Credential::Sys { uid, gid, groups } => {
                let (words, _) = groups.as_chunks::<4>();
                let groups = words.iter().map(|word| u32::from_be_bytes(*word)).collect();
                Caller { peer, anonymous: false, uid, gid, groups }
            }
        }
    }

    /// Decode the arguments of a procedure, all of them.
    pub fn arguments<T: Decode<'a>>(&self) -> Result<T, Garbage> {
        T::decode_all(self.arguments)
    }
}

fn credential<'a>(from: &mut Decoder<'a>) -> Result<Credential<'a>, Reject> {
    let flavour = from.u32()?;
    let body = auth_body(from, AuthStat::BadCredential)?;
    match flavour {
        AUTH_NONE => Ok(Credential::None),
        AUTH_SYS => auth_sys(body).map_err(|Garbage| Reject::Auth(AuthStat::BadCredential)),
        _ => Err(Reject::Auth(AuthStat::TooWeak)),
    }
}

fn verifier(from: &mut Decoder<'_>) -> Result<(), Reject> {
    from.u32()?;
    auth_body(from, AuthStat::BadVerifier).map(|_| ())
}

/// A body that is longer than it may be is the credential's fault; one that the record does not hold
/// is the call's.
fn auth_body<'a>(from: &mut Decoder<'a>, fault: AuthStat) -> Result<&'a [u8], Reject> {
    let len = from.clone().u32()?;
    if len as usize > MAX_AUTH {
        return Err(Reject::Auth(fault));
    }
    Ok(from.opaque(MAX_AUTH)?)
}

/// The body of an AUTH_SYS credential: stamp, machine name, uid, gid, groups.
fn auth_sys(body: &[u8]) -> Result<Credential<'_>, Garbage> {
    let mut from = Decoder::new(body);
    from.u32()?;
    from.opaque(MAX_MACHINE_NAME)?;
    let (uid, gid, count) = (from.u32()?, from.u32()?, from.u32()? as usize);
    let groups = from.rest();
    if count > MAX_GROUPS || groups.len() != 4 * count {
        return Err(Garbage);
    }
    Ok(Credential::Sys { uid, gid, groups })
}

/// The header of a reply whose results follow.
pub fn put_success(out: &mut Vec<u8>, xid: u32) {
    put_accepted(out, xid, 0);
}

/// A whole reply that tells why the call was not run.
pub fn put_reject(out: &mut Vec<u8>, xid: u32, why: Reject) {
    match why {
        Reject::RpcMismatch => {
            put_denied(out, xid, 0);
            out.put_u32(RPC_VERSION);
            out.put_u32(RPC_VERSION);
        }
        Reject::Auth(stat) => {
            put_denied(out, xid, 1);
            out.put_u32(stat as u32);
        }
        Reject::ProgramUnavailable => put_accepted(out, xid, 1),
        Reject::ProgramMismatch(low, high) => {
            put_accepted(out, xid, 2);
            out.put_u32(low);
            out.put_u32(high);
        }
        Reject::ProcedureUnavailable => put_accepted(out, xid, 3),
        Reject::GarbageArguments => put_accepted(out, xid, 4),
        Reject::SystemError => put_accepted(out, xid, 5),
    }
}

/// `accept_stat` behind an empty AUTH_NONE verifier.
fn put_accepted(out: &mut Vec<u8>, xid: u32, stat: u32) {
    let words = [xid, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, stat];
    out.extend_from_slice(words.map(u32::to_be_bytes).as_flattened());
}

fn put_denied(out: &mut Vec<u8>, xid: u32, stat: u32) {
    for word in [xid, REPLY, MSG_DENIED, stat] {
        out.put_u32(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(flavour: u32, body: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        for word in [9, CALL, RPC_VERSION, 100_003, 3, 1, flavour] {
            record.put_u32(word);
        }
        record.put_opaque(body);
        record.put_u32(AUTH_NONE);
        record.put_opaque(b"");
        record
    }

    fn sys(name: usize, groups: u32) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_u32(0);
        body.put_opaque(&vec![b'm'; name]);
        for word in [1000, 100, groups].into_iter().chain(0..groups) {
            body.put_u32(word);
        }
        body
    }

    fn decode(record: &[u8]) -> Result<Call<'_>, Reject> {
        let (xid, rest) = begin(record).unwrap();
        Call::decode(xid, rest)
    }

    const BAD: Reject = Reject::Auth(AuthStat::BadCredential);

    #[test]
    fn auth_sys_names_the_caller() {
        let record = call(AUTH_SYS, &sys(8, 16));
        let caller = decode(&record).unwrap().caller(([127, 0, 0, 1], 700).into());
        assert_eq!((caller.uid, caller.gid), (1000, 100));
        assert_eq!(caller.groups.to_vec(), (0..16).collect::<Vec<u32>>());
    }

    #[test]
    fn without_credentials_the_caller_is_nobody() {
        let record = call(AUTH_NONE, b"");
        let caller = decode(&record).unwrap().caller(([127, 0, 0, 1], 700).into());
        assert_eq!((caller.uid, caller.gid, caller.groups.len()), (NOBODY, NOBODY, 0));
    }

    #[test]
    fn credentials_beyond_their_bounds_are_refused() {
        assert_eq!(decode(&call(AUTH_SYS, &sys(8, 17))).unwrap_err(), BAD);
        assert_eq!(decode(&call(AUTH_SYS, &sys(256, 0))).unwrap_err(), BAD);
        assert_eq!(decode(&call(AUTH_SYS, &[0; 401])).unwrap_err(), BAD);
        let trailing = [sys(8, 2), vec![0; 4]].concat();
        assert_eq!(decode(&call(AUTH_SYS, &trailing)).unwrap_err(), BAD);
        assert_eq!(decode(&call(6, b"gss")).unwrap_err(), Reject::Auth(AuthStat::TooWeak));
    }

    #[test]
    fn a_header_cut_short_is_garbage_or_no_call() {
        let record = call(AUTH_SYS, &sys(8, 3));
        for cut in 0..record.len() {
            match begin(&record[..cut]) {
                Err(NotCall) => assert!(cut < 8),
                Ok((xid, rest)) => assert_eq!(Call::decode(xid, rest).unwrap_err(), Reject::GarbageArguments),
            }
        }
    }
}

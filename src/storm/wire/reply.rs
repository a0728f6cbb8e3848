//! Replies, read in place: what a client needs of them; the rest is stepped over, within bounds.

use super::{COMMIT, CREATE, GETATTR, Handle, LOOKUP, ListPosition, MKNOD, READ, READDIR, READDIRPLUS, WRITE, status};
use crate::nfs::xdr::{Decoder, Garbage};

/// Longest file handle, in bytes.
const MAX_HANDLE: usize = 64;
/// Longest name in a listing, in bytes.
const MAX_NAME: usize = 4096;
/// Most data in one READ, in bytes; as much as a record holds.
const MAX_DATA: usize = 1 << 20;

/// What came back for a call.
#[derive(Debug)]
pub struct Reply<'a> {
    pub xid: u32,
    /// The results; else why the call was not run.
    pub results: Result<Decoder<'a>, NotRun>,
}

/// RPC's own refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRun {
    /// `MSG_DENIED`
    Denied,
    /// `accept_stat`
    Accepted(u32),
}

impl NotRun {
    pub fn name(self) -> &'static str {
        match self {
            Self::Denied => "RPC MSG_DENIED",
            Self::Accepted(1) => "RPC PROG_UNAVAIL",
            Self::Accepted(2) => "RPC PROG_MISMATCH",
            Self::Accepted(3) => "RPC PROC_UNAVAIL",
            Self::Accepted(4) => "RPC GARBAGE_ARGS",
            Self::Accepted(_) => "RPC SYSTEM_ERR",
        }
    }
}

/// Longest verifier of a reply, in bytes (RFC 5531 section 8.2).
const MAX_VERIFIER: usize = 400;

pub fn reply(record: &[u8]) -> Result<Reply<'_>, Garbage> {
    let mut from = Decoder::new(record);
    let xid = from.u32()?;
    if from.u32()? != 1 {
        return Err(Garbage);
    }
    if from.u32()? != 0 {
        return Ok(Reply { xid, results: Err(NotRun::Denied) });
    }
    from.u32()?;
    from.opaque(MAX_VERIFIER)?;
    Ok(match from.u32()? {
        0 => Reply { xid, results: Ok(from) },
        why => Reply { xid, results: Err(NotRun::Accepted(why)) },
    })
}

/// The port that a port mapper named; 0 if it knows none.
pub fn port(mut results: Decoder<'_>) -> Result<u16, Garbage> {
    u16::try_from(results.u32()?).map_err(|_| Garbage)
}

/// The root handle, or `mountstat3`.
pub fn mounted(mut results: Decoder<'_>) -> Result<Result<Handle, u32>, Garbage> {
    match results.u32()? {
        0 => Ok(Ok(results.opaque(MAX_HANDLE)?.into())),
        why => Ok(Err(why)),
    }
}

/// What an answer says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// `ftype3`
    pub kind: u32,
    pub size: u64,
}

pub const REGULAR: u32 = 1;
pub const DIRECTORY: u32 = 2;

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub name: &'a [u8],
    pub attr: Option<Attr>,
    pub handle: Option<&'a [u8]>,
}

/// What any procedure answered; what it does not answer is empty.
#[derive(Debug, Default)]
pub struct Answer<'a> {
    pub status: u32,
    /// Of the object that was found or made, or that the call was for.
    pub attr: Option<Attr>,
    pub handle: Option<&'a [u8]>,
    /// READ's.
    pub data: &'a [u8],
    /// End of file, or of the directory.
    pub eof: bool,
    /// Bytes that WRITE took.
    pub written: u32,
    /// WRITE's and COMMIT's.
    pub verifier: Option<[u8; 8]>,
    pub entries: Vec<Entry<'a>>,
    /// Behind the last entry.
    pub position: ListPosition,
}

/// What `procedure` answered.
pub fn answer(procedure: u32, mut from: Decoder<'_>) -> Result<Answer<'_>, Garbage> {
    let mut answer = Answer { status: from.u32()?, ..Answer::default() };
    if answer.status != status::OK {
        return Ok(answer);
    }
    match procedure {
        LOOKUP => {
            answer.handle = Some(from.opaque(MAX_HANDLE)?);
            answer.attr = post_op(&mut from)?;
        }
        READ => read(&mut answer, &mut from)?,
        WRITE => wrote(&mut answer, &mut from)?,
        CREATE..=MKNOD => {
            answer.handle = from.bool()?.then(|| from.opaque(MAX_HANDLE)).transpose()?;
            answer.attr = post_op(&mut from)?;
        }
        READDIR | READDIRPLUS => listed(&mut answer, procedure == READDIRPLUS, &mut from)?,
        GETATTR => answer.attr = Some(attr(&mut from)?),
        COMMIT => {
            wcc(&mut from)?;
            answer.verifier = Some(from.fixed()?);
        }
        _ => {}
    }
    Ok(answer)
}

fn read<'a>(answer: &mut Answer<'a>, from: &mut Decoder<'a>) -> Result<(), Garbage> {
    answer.attr = post_op(from)?;
    let count = from.u32()?;
    answer.eof = from.bool()?;
    answer.data = from.opaque(MAX_DATA)?;
    if answer.data.len() == count as usize { Ok(()) } else { Err(Garbage) }
}

fn wrote(answer: &mut Answer<'_>, from: &mut Decoder<'_>) -> Result<(), Garbage> {
    wcc(from)?;
    answer.written = from.u32()?;
    from.u32()?;
    answer.verifier = Some(from.fixed()?);
    Ok(())
}

fn listed<'a>(answer: &mut Answer<'a>, plus: bool, from: &mut Decoder<'a>) -> Result<(), Garbage> {
    post_op(from)?;
    answer.position.verifier = from.u64()?;
    // Bounded by the record: each entry takes bytes of it.
    while from.bool()? {
        from.u64()?;
        let name = from.opaque(MAX_NAME)?;
        answer.position.cookie = from.u64()?;
        let mut entry = Entry { name, attr: None, handle: None };
        if plus {
            entry.attr = post_op(from)?;
            entry.handle = from.bool()?.then(|| from.opaque(MAX_HANDLE)).transpose()?;
        }
        answer.entries.push(entry);
    }
    answer.eof = from.bool()?;
    Ok(())
}

/// `fattr3`
fn attr(from: &mut Decoder<'_>) -> Result<Attr, Garbage> {
    let kind = from.u32()?;
    from.fixed::<16>()?;
    let size = from.u64()?;
    from.fixed::<56>()?;
    Ok(Attr { kind, size })
}

fn post_op(from: &mut Decoder<'_>) -> Result<Option<Attr>, Garbage> {
    from.bool()?.then(|| attr(from)).transpose()
}

fn wcc(from: &mut Decoder<'_>) -> Result<(), Garbage> {
    if from.bool()? {
        from.fixed::<24>()?;
    }
    post_op(from).map(|_| ())
}

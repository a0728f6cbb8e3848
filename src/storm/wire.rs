//! NFSv3, MOUNT and GETPORT as a client speaks them (RFC 1813, RFC 5531, RFC 1833).
//!
//! Calls are appended to a buffer as whole records; replies are read in place. What this end does not
//! need of a reply (attributes, weak cache consistency data) is stepped over, within bounds.

use crate::nfs::xdr::{Decoder, Encode, Garbage};
use crate::trace::{Call, Creation, NameVerb, NewAttrs, NodeId, SetTime, Special, Stable, Verb};

pub const NFS: u32 = 100_003;
pub const MOUNT: u32 = 100_005;
pub const PORTMAP: u32 = 100_000;
/// Version of NFS and MOUNT.
pub const VERSION: u32 = 3;
const PORTMAP_VERSION: u32 = 2;
const TCP: u32 = 6;

const MNT: u32 = 1;
const GETPORT: u32 = 3;

/// Longest file handle, in bytes.
const MAX_HANDLE: usize = 64;
/// Longest name in a listing, in bytes.
const MAX_NAME: usize = 4096;
/// Most data in one READ, in bytes; as much as a record holds.
pub const MAX_DATA: u32 = 1 << 20;

const LAST_FRAGMENT: u32 = 1 << 31;
const AUTH_SYS: u32 = 1;

/// `nfsstat3`: what this end has to know by value.
pub mod status {
    pub const OK: u32 = 0;
    pub const JUKEBOX: u32 = 10_008;
}

/// A status by its name in RFC 1813.
pub fn status_name(status: u32) -> String {
    let name = match status {
        status::OK => "NFS3_OK",
        1 => "NFS3ERR_PERM",
        2 => "NFS3ERR_NOENT",
        5 => "NFS3ERR_IO",
        6 => "NFS3ERR_NXIO",
        13 => "NFS3ERR_ACCES",
        17 => "NFS3ERR_EXIST",
        18 => "NFS3ERR_XDEV",
        19 => "NFS3ERR_NODEV",
        20 => "NFS3ERR_NOTDIR",
        21 => "NFS3ERR_ISDIR",
        22 => "NFS3ERR_INVAL",
        27 => "NFS3ERR_FBIG",
        28 => "NFS3ERR_NOSPC",
        30 => "NFS3ERR_ROFS",
        31 => "NFS3ERR_MLINK",
        63 => "NFS3ERR_NAMETOOLONG",
        66 => "NFS3ERR_NOTEMPTY",
        69 => "NFS3ERR_DQUOT",
        70 => "NFS3ERR_STALE",
        71 => "NFS3ERR_REMOTE",
        10_001 => "NFS3ERR_BADHANDLE",
        10_002 => "NFS3ERR_NOT_SYNC",
        10_003 => "NFS3ERR_BAD_COOKIE",
        10_004 => "NFS3ERR_NOTSUPP",
        10_005 => "NFS3ERR_TOOSMALL",
        10_006 => "NFS3ERR_SERVERFAULT",
        10_007 => "NFS3ERR_BADTYPE",
        status::JUKEBOX => "NFS3ERR_JUKEBOX",
        other => return format!("status {other}"),
    };
    name.to_owned()
}

/// A file handle of the server.
pub type Handle = Box<[u8]>;

/// Procedures by number, named as RFC 1813 does; behind NFS's own MOUNT's MNT, which is measured like them.
pub const PROCEDURES: [&str; 23] = [
    "NULL",
    "GETATTR",
    "SETATTR",
    "LOOKUP",
    "ACCESS",
    "READLINK",
    "READ",
    "WRITE",
    "CREATE",
    "MKDIR",
    "SYMLINK",
    "MKNOD",
    "REMOVE",
    "RMDIR",
    "RENAME",
    "LINK",
    "READDIR",
    "READDIRPLUS",
    "FSSTAT",
    "FSINFO",
    "PATHCONF",
    "COMMIT",
    "MNT",
];

pub const LOOKUP: u32 = 3;
pub const READ: u32 = 6;
pub const WRITE: u32 = 7;
const CREATE: u32 = 8;
const MKNOD: u32 = 11;
const READDIR: u32 = 16;
pub const READDIRPLUS: u32 = 17;

/// Where MNT is among [`PROCEDURES`].
pub const MOUNTING: u32 = 22;

/// The place of a call's procedure in [`PROCEDURES`].
pub fn procedure(call: &Call) -> u32 {
    let number = PROCEDURES.iter().position(|name| *name == call.procedure()).unwrap_or(0);
    u32::try_from(number).expect("23 procedures")
}

/// As whom a call is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
}

/// A call's own part of its record.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub xid: u32,
    pub program: u32,
    pub procedure: u32,
    pub caller: Caller,
}

/// Append a whole record: mark, RPC header, what `arguments` appends.
pub fn put_call(to: &mut Vec<u8>, head: Head, arguments: impl FnOnce(&mut Vec<u8>)) {
    let start = to.len();
    let version = if head.program == PORTMAP { PORTMAP_VERSION } else { VERSION };
    for word in [0, head.xid, 0, 2, head.program, version, head.procedure] {
        to.put_u32(word);
    }
    // AUTH_SYS: stamp, machine name, uid, gid, no more groups.
    for word in [AUTH_SYS, 20, 0, 0, head.caller.uid, head.caller.gid, 0] {
        to.put_u32(word);
    }
    // The verifier: AUTH_NONE, empty.
    to.put_u64(0);
    arguments(to);
    let len = u32::try_from(to.len() - start - 4).expect("a call is bounded far below 2 GiB");
    to[start..start + 4].copy_from_slice(&(len | LAST_FRAGMENT).to_be_bytes());
}

pub fn put_mount(to: &mut Vec<u8>, xid: u32, caller: Caller, export: &str) {
    put_call(to, Head { xid, program: MOUNT, procedure: MNT, caller }, |to| to.put_opaque(export.as_bytes()));
}

/// Ask a port mapper for the TCP port of a program.
pub fn put_get_port(to: &mut Vec<u8>, xid: u32, program: u32) {
    let head = Head { xid, program: PORTMAP, procedure: GETPORT, caller: Caller::default() };
    put_call(to, head, |to| [program, VERSION, TCP, 0].into_iter().for_each(|word| to.put_u32(word)));
}

/// Where a listing goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListPosition {
    pub cookie: u64,
    pub verifier: u64,
}

/// What a client puts into a call that no plan has.
pub trait Fill {
    fn handle(&self, object: NodeId) -> &[u8];
    /// Where a listing of `dir` goes on.
    fn position(&self, dir: NodeId) -> ListPosition;
    /// The data of a WRITE.
    fn data(&self, file: NodeId, offset: u64, to: &mut [u8]);
}

/// Append the arguments of `call`.
pub fn put_arguments(to: &mut Vec<u8>, call: &Call, fill: &impl Fill) {
    match call {
        Call::Mount => {}
        Call::Object { object, verb } => {
            to.put_opaque(fill.handle(*object));
            put_verb(to, *object, verb, fill);
        }
        Call::Name { dir, name, verb, .. } => {
            put_lookup(to, fill.handle(*dir), name);
            put_name_verb(to, verb);
        }
        Call::Rename { from_dir, from, to_dir, to: new } => {
            put_lookup(to, fill.handle(*from_dir), from);
            put_lookup(to, fill.handle(*to_dir), new);
        }
        Call::Link { object, dir, name } => {
            to.put_opaque(fill.handle(*object));
            put_lookup(to, fill.handle(*dir), name);
        }
    }
}

/// `diropargs3`: all that LOOKUP takes.
pub fn put_lookup(to: &mut Vec<u8>, dir: &[u8], name: &[u8]) {
    to.put_opaque(dir);
    to.put_opaque(name);
}

fn put_verb(to: &mut Vec<u8>, object: NodeId, verb: &Verb, fill: &impl Fill) {
    match *verb {
        Verb::GetAttr | Verb::ReadLink | Verb::FsStat | Verb::FsInfo | Verb::PathConf => {}
        Verb::SetAttr(ref new) => {
            put_new_attrs(to, new);
            to.put_bool(false);
        }
        Verb::Access(rights) => to.put_u32(rights),
        Verb::Read { offset, len, .. } | Verb::Commit { offset, len } => {
            to.put_u64(offset);
            to.put_u32(len);
        }
        Verb::Write { offset, len, stable } => {
            to.put_u64(offset);
            to.put_u32(len);
            to.put_u32(stable as u32);
            to.put_u32(len);
            let start = to.len();
            to.resize(start + len as usize, 0);
            fill.data(object, offset, &mut to[start..]);
            to.put_padding(len as usize);
        }
        Verb::List { plus, max_bytes, from_start } => {
            let position = if from_start { ListPosition::default() } else { fill.position(object) };
            to.put_u64(position.cookie);
            to.put_u64(position.verifier);
            to.put_u32(max_bytes);
            if plus {
                to.put_u32(max_bytes);
            }
        }
    }
}

fn put_name_verb(to: &mut Vec<u8>, verb: &NameVerb) {
    match verb {
        NameVerb::Lookup | NameVerb::Remove | NameVerb::RemoveDir => {}
        NameVerb::Create(Creation::Exclusive(verifier)) => {
            to.put_u32(2);
            to.extend_from_slice(verifier);
        }
        NameVerb::Create(Creation::Unchecked(new)) => {
            to.put_u32(0);
            put_new_attrs(to, new);
        }
        NameVerb::Create(Creation::Guarded(new)) => {
            to.put_u32(1);
            put_new_attrs(to, new);
        }
        NameVerb::MakeDir(new) => put_new_attrs(to, new),
        NameVerb::SymLink { new, target } => {
            put_new_attrs(to, new);
            to.put_opaque(target);
        }
        NameVerb::MakeNode { new, what } => put_node(to, new, *what),
    }
}

fn put_node(to: &mut Vec<u8>, new: &NewAttrs, what: Special) {
    let (kind, is_device) = match what {
        Special::Block => (3, true),
        Special::Char => (4, true),
        Special::Socket => (6, false),
        Special::Fifo => (7, false),
        Special::Other => (1, false),
    };
    to.put_u32(kind);
    if what == Special::Other {
        return;
    }
    put_new_attrs(to, new);
    if is_device {
        to.put_u64(0);
    }
}

fn put_new_attrs(to: &mut Vec<u8>, new: &NewAttrs) {
    for value in [new.mode, new.uid, new.gid] {
        to.put_bool(value.is_some());
        value.into_iter().for_each(|value| to.put_u32(value));
    }
    to.put_bool(new.size.is_some());
    new.size.into_iter().for_each(|size| to.put_u64(size));
    for time in [new.atime, new.mtime] {
        // The client's own times are not in a trace; the server's are as good.
        to.put_u32(u32::from(time != SetTime::Keep));
    }
}

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
        1 => answer.attr = Some(attr(&mut from)?),
        21 => {
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
    answer.data = from.opaque(MAX_DATA as usize)?;
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

/// `stable_how` by its number.
const _: () = assert!(Stable::Unstable as u32 == 0 && Stable::DataSync as u32 == 1 && Stable::FileSync as u32 == 2);

#[cfg(test)]
mod tests {
    use rand::RngCore;

    use super::*;
    use crate::storm::dice;

    fn results(words: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        words.iter().for_each(|word| bytes.put_u32(*word));
        bytes
    }

    #[test]
    fn a_call_is_one_record() {
        let mut bytes = b"before".to_vec();
        put_mount(&mut bytes, 7, Caller { uid: 1, gid: 2 }, "/a");
        let record = &bytes[6..];
        let mark = u32::from_be_bytes(*record.first_chunk().unwrap());
        assert_eq!(mark, LAST_FRAGMENT | (record.len() as u32 - 4));
        let mut from = Decoder::new(&record[4..]);
        let head: Vec<u32> = (0..15).map(|_| from.u32().unwrap()).collect();
        assert_eq!(head, [7, 0, 2, MOUNT, 3, 1, AUTH_SYS, 20, 0, 0, 1, 2, 0, 0, 0]);
        assert_eq!((from.opaque(64), from.finish()), (Ok(&b"/a"[..]), Ok(())));
    }

    #[test]
    fn procedures_have_the_numbers_of_the_protocol() {
        let of = |name: &str| PROCEDURES.iter().position(|known| *known == name).map(|n| n as u32);
        assert_eq!([of("LOOKUP"), of("READ"), of("WRITE")], [LOOKUP, READ, WRITE].map(Some));
        assert_eq!([of("MKNOD"), of("READDIRPLUS"), of("COMMIT"), of("MNT")], [11, 17, 21, MOUNTING].map(Some));
    }

    #[test]
    fn counts_and_handles_that_lie_are_garbage() {
        assert!(answer(READ, Decoder::new(&results(&[0, 0, 8, 1, 4, 0]))).is_err(), "8 bytes, of which 4 are there");
        assert!(answer(LOOKUP, Decoder::new(&results(&[0, 68]))).is_err(), "a handle of 68 bytes");
        let listing = [&results(&[0, 0, 0, 0, 1, 0, 9, 1])[..], b"a\0\0\0", &results(&[0, 5, 0, 1])].concat();
        let listed = answer(READDIR, Decoder::new(&listing)).unwrap();
        assert_eq!((listed.entries.len(), listed.position.cookie, listed.eof), (1, 5, true));
    }

    /// Whatever a server sends: it is decoded or refused, and never taken for more than it is.
    #[test]
    fn any_bytes_are_bounded() {
        let mut dice = dice::of(11, 0);
        for _ in 0..20_000 {
            let mut bytes = vec![0; (dice.next_u32() % 200) as usize];
            dice.fill_bytes(&mut bytes);
            // Small words, so that it gets further than the first.
            for word in bytes.chunks_exact_mut(4) {
                word[..3].fill(0);
                word[3] %= 6;
            }
            let _ = reply(&bytes);
            let _ = mounted(Decoder::new(&bytes));
            for procedure in 0..22 {
                let entries = answer(procedure, Decoder::new(&bytes)).map_or(0, |answer| answer.entries.len());
                assert!(entries * 20 <= bytes.len(), "{entries} entries in {bytes:?}, seed 11");
            }
        }
    }
}

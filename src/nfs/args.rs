//! The arguments of the 22 procedures of NFSv3 (RFC 1813 section 3.3), borrowed from the record.
//!
//! Owns their decoding and its bounds: a handle is at most 64 bytes, a name at most [`MAX_STRING`]
//! (so that one of 256 can still be told NAMETOOLONG), a WRITE's data what the record holds. A
//! discriminant that the protocol does not have is garbage.

use nfsserve::nfs::{nfstime3, sattr3, set_atime, set_gid3, set_mode3, set_mtime, set_size3, set_uid3, specdata3};

use super::handle::NFS3_FHSIZE;
use super::record::MAX_RECORD;
use super::xdr::{Decode, Decoder, Garbage};

/// Longest name, path or link target that is decoded at all, in bytes.
pub const MAX_STRING: usize = 4096;

/// `nfs_fh3`, not yet verified.
pub type Handle<'a> = &'a [u8];

fn handle<'a>(from: &mut Decoder<'a>) -> Result<Handle<'a>, Garbage> {
    from.opaque(NFS3_FHSIZE)
}

/// GETATTR, READLINK, FSSTAT, FSINFO, PATHCONF: a handle and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    pub handle: Handle<'a>,
}

impl<'a> Decode<'a> for Object<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        Ok(Self { handle: handle(from)? })
    }
}

/// `diropargs3`: LOOKUP, REMOVE, RMDIR, and part of many others.
#[derive(Clone, Copy, Debug)]
pub struct DirOp<'a> {
    pub dir: Handle<'a>,
    pub name: &'a [u8],
}

impl<'a> Decode<'a> for DirOp<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        Ok(Self { dir: handle(from)?, name: from.opaque(MAX_STRING)? })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    pub object: Handle<'a>,
    pub rights: u32,
}

impl<'a> Decode<'a> for Access<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        Ok(Self { object: handle(from)?, rights: from.u32()? })
    }
}

/// READ and COMMIT.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    pub file: Handle<'a>,
    pub offset: u64,
    pub count: u32,
}

impl<'a> Decode<'a> for Range<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        Ok(Self { file: handle(from)?, offset: from.u64()?, count: from.u32()? })
    }
}

/// `stable_how`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stable {
    Unstable,
    DataSync,
    FileSync,
}

#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    pub file: Handle<'a>,
    pub offset: u64,
    pub count: u32,
    pub stable: Stable,
    pub data: &'a [u8],
}

impl<'a> Decode<'a> for Write<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        let (file, offset, count) = (handle(from)?, from.u64()?, from.u32()?);
        let stable = match from.u32()? {
            0 => Stable::Unstable,
            1 => Stable::DataSync,
            2 => Stable::FileSync,
            _ => return Err(Garbage),
        };
        Ok(Self { file, offset, count, stable, data: from.opaque(MAX_RECORD)? })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct SetAttr<'a> {
    pub object: Handle<'a>,
    pub new: sattr3,
    /// `sattrguard3`: the ctime that the object must have.
    pub guard: Option<nfstime3>,
}

impl<'a> Decode<'a> for SetAttr<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        let (object, new) = (handle(from)?, attributes(from)?);
        let guard = if from.bool()? { Some(time(from)?) } else { None };
        Ok(Self { object, new, guard })
    }
}

/// `createhow3`
#[derive(Clone, Copy, Debug)]
pub enum How {
    Unchecked(sattr3),
    Guarded(sattr3),
    Exclusive([u8; 8]),
}

#[derive(Clone, Copy, Debug)]
pub struct Create<'a> {
    pub place: DirOp<'a>,
    pub how: How,
}

impl<'a> Decode<'a> for Create<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        let place = DirOp::decode(from)?;
        let how = match from.u32()? {
            0 => How::Unchecked(attributes(from)?),
            1 => How::Guarded(attributes(from)?),
            2 => How::Exclusive(from.fixed()?),
            _ => return Err(Garbage),
        };
        Ok(Self { place, how })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct MkDir<'a> {
    pub place: DirOp<'a>,
    pub new: sattr3,
}

impl<'a> Decode<'a> for MkDir<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        Ok(Self { place: DirOp::decode(from)?, new: attributes(from)? })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct SymLink<'a> {
    pub place: DirOp<'a>,
    pub new: sattr3,
    pub target: &'a [u8],
}

impl<'a> Decode<'a> for SymLink<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        Ok(Self { place: DirOp::decode(from)?, new: attributes(from)?, target: from.opaque(MAX_STRING)? })
    }
}

/// `mknoddata3`. Kinds that MKNOD does not make carry nothing.
#[derive(Clone, Copy, Debug)]
pub enum Node {
    Char(sattr3, specdata3),
    Block(sattr3, specdata3),
    Socket(sattr3),
    Fifo(sattr3),
    Other,
}

#[derive(Clone, Copy, Debug)]
pub struct MkNod<'a> {
    pub place: DirOp<'a>,
    pub what: Node,
}

impl<'a> Decode<'a> for MkNod<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        let place = DirOp::decode(from)?;
        let what = match from.u32()? {
            1 | 2 | 5 => Node::Other,
            3 => Node::Block(attributes(from)?, device(from)?),
            4 => Node::Char(attributes(from)?, device(from)?),
            6 => Node::Socket(attributes(from)?),
            7 => Node::Fifo(attributes(from)?),
            _ => return Err(Garbage),
        };
        Ok(Self { place, what })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Rename<'a> {
    pub from: DirOp<'a>,
    pub to: DirOp<'a>,
}

impl<'a> Decode<'a> for Rename<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        Ok(Self { from: DirOp::decode(from)?, to: DirOp::decode(from)? })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    pub file: Handle<'a>,
    pub place: DirOp<'a>,
}

impl<'a> Decode<'a> for Link<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        Ok(Self { file: handle(from)?, place: DirOp::decode(from)? })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct ReadDir<'a> {
    pub dir: Handle<'a>,
    pub cookie: u64,
    /// Bound of the whole result, in bytes.
    pub count: u32,
}

impl<'a> Decode<'a> for ReadDir<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        let (dir, cookie) = cookie(from)?;
        Ok(Self { dir, cookie, count: from.u32()? })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct ReadDirPlus<'a> {
    pub dir: Handle<'a>,
    pub cookie: u64,
    /// Bound of fileids, names and cookies, in bytes.
    pub dircount: u32,
    /// Bound of the whole result, in bytes.
    pub maxcount: u32,
}

impl<'a> Decode<'a> for ReadDirPlus<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        let (dir, cookie) = cookie(from)?;
        Ok(Self { dir, cookie, dircount: from.u32()?, maxcount: from.u32()? })
    }
}

/// Where a listing continues. Cookies are valid for ever, so the verifier says nothing.
fn cookie<'a>(from: &mut Decoder<'a>) -> Result<(Handle<'a>, u64), Garbage> {
    let (dir, cookie) = (handle(from)?, from.u64()?);
    from.fixed::<8>()?;
    Ok((dir, cookie))
}

fn attributes(from: &mut Decoder<'_>) -> Result<sattr3, Garbage> {
    Ok(sattr3 {
        mode: if from.bool()? { set_mode3::mode(from.u32()?) } else { set_mode3::Void },
        uid: if from.bool()? { set_uid3::uid(from.u32()?) } else { set_uid3::Void },
        gid: if from.bool()? { set_gid3::gid(from.u32()?) } else { set_gid3::Void },
        size: if from.bool()? { set_size3::size(from.u64()?) } else { set_size3::Void },
        atime: match from.u32()? {
            0 => set_atime::DONT_CHANGE,
            1 => set_atime::SET_TO_SERVER_TIME,
            2 => set_atime::SET_TO_CLIENT_TIME(time(from)?),
            _ => return Err(Garbage),
        },
        mtime: match from.u32()? {
            0 => set_mtime::DONT_CHANGE,
            1 => set_mtime::SET_TO_SERVER_TIME,
            2 => set_mtime::SET_TO_CLIENT_TIME(time(from)?),
            _ => return Err(Garbage),
        },
    })
}

fn time(from: &mut Decoder<'_>) -> Result<nfstime3, Garbage> {
    Ok(nfstime3 { seconds: from.u32()?, nseconds: from.u32()? })
}

fn device(from: &mut Decoder<'_>) -> Result<specdata3, Garbage> {
    Ok(specdata3 { specdata1: from.u32()?, specdata2: from.u32()? })
}

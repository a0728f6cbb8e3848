//! The canonical bytes of inodes, directory entries, chunks and extents (`docs/formats/manifest.md`).
//!
//! All numbers are big-endian, so that keys sort as they count. Each thing has one encoding only:
//! decoding refuses whatever encoding would not have written, bytes left over included. Decoding
//! answers `None` for such bytes; the caller knows which object it was and says so.

use bytes::Bytes;
use smallvec::SmallVec;

use super::tree::TreeRoot;
use super::{Content, Cookie, Entry, Extent, FileKind, INLINE_EXTENTS, Ino, Inode, MAX_FILE_SIZE, MAX_INLINE_XATTRS};
use super::{MAX_NAME, MAX_SYMLINK, MAX_XATTRS, Xattrs};
use crate::chunk::{ChunkId, MAX_CHUNK};
use crate::env::Time;
use crate::error::{Error, Result};

const NO_CONTENT: u8 = 0;
const INLINE: u8 = 1;
const TREE: u8 = 2;
const SYMLINK: u8 = 3;

const NO_XATTRS: u8 = 0;
const INLINE_XATTRS: u8 = 1;
const CHUNK_XATTRS: u8 = 2;

const DISK_IMAGE: u8 = 1;
const MODE_BITS: u32 = 0o7777;
const NANOS: u32 = 1_000_000_000;

/// Bytes of an encoded tree root.
pub(super) const ROOT_LEN: usize = 32 + 1 + 8;

impl FileKind {
    /// The number that stands for it on disk.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::Symlink => 3,
            Self::Block => 4,
            Self::Char => 5,
            Self::Fifo => 6,
            Self::Socket => 7,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Regular,
            2 => Self::Directory,
            3 => Self::Symlink,
            4 => Self::Block,
            5 => Self::Char,
            6 => Self::Fifo,
            7 => Self::Socket,
            _ => return None,
        })
    }

    const fn is_device(self) -> bool {
        matches!(self, Self::Block | Self::Char)
    }
}

pub(super) fn inode_key(ino: Ino) -> [u8; 8] {
    ino.0.to_be_bytes()
}

pub(super) fn entry_key(dir: Ino, cookie: Cookie) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&dir.0.to_be_bytes());
    key[8..].copy_from_slice(&cookie.0.to_be_bytes());
    key
}

pub(super) fn link_key(ino: Ino, dir: Ino, cookie: Cookie) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&ino.0.to_be_bytes());
    key[8..].copy_from_slice(&entry_key(dir, cookie));
    key
}

/// The second half of an entry's or a link's key.
pub(super) fn key_tail<const N: usize>(key: &[u8]) -> [u64; N] {
    let words = key.as_chunks::<8>().0;
    std::array::from_fn(|i| u64::from_be_bytes(words[words.len() - N + i]))
}

/// Append the encoding of `inode`; `Internal` if it breaks a bound or contradicts itself.
pub(super) fn encode_inode(inode: &Inode, out: &mut Vec<u8>) -> Result<()> {
    check_inode(inode).map_err(|why| Error::internal(format!("inode cannot be stored: {why}: {inode:?}")))?;
    let (content, xattrs) = (content_tag(&inode.content), xattrs_tag(&inode.xattrs));
    out.extend_from_slice(&[inode.kind.code(), u8::from(inode.disk_image) * DISK_IMAGE, content, xattrs]);
    for word in [inode.mode, inode.uid, inode.gid, inode.nlink] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for word in [inode.size, inode.used] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for time in [inode.atime, inode.mtime, inode.ctime] {
        put_time(time, out);
    }
    for word in [inode.parent.0, inode.parent_cookie.0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&inode.digest);
    if inode.kind.is_device() {
        put_rdev(inode.rdev, out);
    }
    put_content(&inode.content, out);
    put_xattrs(&inode.xattrs, out);
    Ok(())
}

fn check_inode(inode: &Inode) -> Result<(), &'static str> {
    let fits = match &inode.content {
        Content::None => !matches!(inode.kind, FileKind::Regular | FileKind::Symlink),
        Content::Inline(extents) => inode.kind == FileKind::Regular && extents.len() <= INLINE_EXTENTS,
        Content::Tree(_) => inode.kind == FileKind::Regular,
        Content::Symlink(target) => inode.kind == FileKind::Symlink && (1..=MAX_SYMLINK).contains(&target.len()),
    };
    let xattrs_fit = match &inode.xattrs {
        Xattrs::None => true,
        Xattrs::Inline(bytes) => (1..=MAX_INLINE_XATTRS).contains(&bytes.len()),
        Xattrs::Chunk { len, .. } => (MAX_INLINE_XATTRS + 1..=MAX_XATTRS).contains(&(*len as usize)),
    };
    let times = [inode.atime, inode.mtime, inode.ctime];
    let rules = [
        (fits, "content does not fit the kind"),
        (xattrs_fit, "extended attributes of a wrong size"),
        (inode.mode & !MODE_BITS == 0, "mode has other than permission bits"),
        (inode.size <= MAX_FILE_SIZE, "size beyond the largest file"),
        (inode.kind.is_device() || inode.rdev == (0, 0), "device number of something else than a device"),
        (times.iter().all(|t| t.nanos < NANOS), "a second or more of nanoseconds"),
    ];
    rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(*why))
}

pub(super) fn put_time(time: Time, out: &mut Vec<u8>) {
    out.extend_from_slice(&time.secs.to_be_bytes());
    out.extend_from_slice(&time.nanos.to_be_bytes());
}

pub(super) fn put_rdev(rdev: (u32, u32), out: &mut Vec<u8>) {
    out.extend_from_slice(&rdev.0.to_be_bytes());
    out.extend_from_slice(&rdev.1.to_be_bytes());
}

const fn content_tag(content: &Content) -> u8 {
    match content {
        Content::None => NO_CONTENT,
        Content::Inline(_) => INLINE,
        Content::Tree(_) => TREE,
        Content::Symlink(_) => SYMLINK,
    }
}

pub(super) fn put_content(content: &Content, out: &mut Vec<u8>) {
    match content {
        Content::None => {}
        Content::Inline(extents) => {
            out.push(extents.len() as u8);
            for extent in extents {
                out.extend_from_slice(&extent_key(extent));
                out.extend_from_slice(&extent_value(extent));
            }
        }
        Content::Tree(root) => put_root(root, out),
        Content::Symlink(target) => {
            out.extend_from_slice(&(target.len() as u16).to_be_bytes());
            out.extend_from_slice(target);
        }
    }
}

pub(super) const fn xattrs_tag(xattrs: &Xattrs) -> u8 {
    match xattrs {
        Xattrs::None => NO_XATTRS,
        Xattrs::Inline(_) => INLINE_XATTRS,
        Xattrs::Chunk { .. } => CHUNK_XATTRS,
    }
}

pub(super) fn put_xattrs(xattrs: &Xattrs, out: &mut Vec<u8>) {
    match xattrs {
        Xattrs::None => {}
        Xattrs::Inline(bytes) => {
            out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            out.extend_from_slice(bytes);
        }
        Xattrs::Chunk { id, len } => {
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
}

pub(super) fn put_root(root: &TreeRoot, out: &mut Vec<u8>) {
    out.extend_from_slice(root.id.as_bytes());
    out.push(root.height);
    out.extend_from_slice(&root.entries.to_be_bytes());
}

pub(super) fn extent_key(extent: &Extent) -> [u8; 8] {
    extent.offset.to_be_bytes()
}

pub(super) fn extent_value(extent: &Extent) -> [u8; 36] {
    let mut value = [0; 36];
    value[..4].copy_from_slice(&extent.len.to_be_bytes());
    value[4..].copy_from_slice(extent.chunk.as_bytes());
    value
}

pub(super) fn chunk_value(raw_len: u32, stored_len: u32) -> [u8; 8] {
    let mut value = [0; 8];
    value[..4].copy_from_slice(&raw_len.to_be_bytes());
    value[4..].copy_from_slice(&stored_len.to_be_bytes());
    value
}

/// Append the encoding of an entry's value (its cookie is in the key).
pub(super) fn encode_entry(entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    if entry.name.is_empty() || entry.name.len() > MAX_NAME || entry.cookie < super::FIRST_COOKIE {
        return Err(Error::internal(format!("entry cannot be stored: {entry:?}")));
    }
    out.extend_from_slice(&entry.ino.0.to_be_bytes());
    out.push(entry.kind.code());
    out.extend_from_slice(&entry.name);
    Ok(())
}

pub(super) fn decode_entry(cookie: Cookie, value: &Bytes) -> Option<Entry> {
    let mut r = Reader::new(value);
    let (ino, kind) = (Ino(r.u64()?), FileKind::from_code(r.u8()?)?);
    let name = r.bytes(r.left())?;
    (1..=MAX_NAME).contains(&name.len()).then_some(Entry { name, cookie, ino, kind })
}

/// The name in an entry's value, in place.
pub(super) fn entry_name(value: &[u8]) -> &[u8] {
    value.get(9..).unwrap_or_default()
}

pub(super) fn decode_inode(value: &Bytes) -> Option<Inode> {
    let mut r = Reader::new(value);
    let kind = FileKind::from_code(r.u8()?)?;
    let flags = r.u8()?;
    let (content_tag, xattrs_tag) = (r.u8()?, r.u8()?);
    let inode = Inode {
        kind,
        disk_image: flags & DISK_IMAGE != 0,
        mode: r.u32()?,
        uid: r.u32()?,
        gid: r.u32()?,
        nlink: r.u32()?,
        size: r.u64()?,
        used: r.u64()?,
        atime: r.time()?,
        mtime: r.time()?,
        ctime: r.time()?,
        parent: Ino(r.u64()?),
        parent_cookie: Cookie(r.u64()?),
        digest: r.take()?,
        rdev: if kind.is_device() { (r.u32()?, r.u32()?) } else { (0, 0) },
        content: r.content(content_tag)?,
        xattrs: r.xattrs(xattrs_tag)?,
    };
    (flags & !DISK_IMAGE == 0 && r.left() == 0 && check_inode(&inode).is_ok()).then_some(inode)
}

pub(super) fn decode_extent(offset: u64, value: &[u8]) -> Option<Extent> {
    let (len, chunk) = value.split_first_chunk::<4>()?;
    let extent = Extent { offset, len: u32::from_be_bytes(*len), chunk: ChunkId::from_slice(chunk)? };
    is_sound(&extent).then_some(extent)
}

pub(super) fn is_sound(extent: &Extent) -> bool {
    (1..=MAX_CHUNK).contains(&(extent.len as usize)) && extent.offset <= MAX_FILE_SIZE - u64::from(extent.len)
}

/// Raw and stored length.
pub(super) fn decode_chunk(value: &[u8]) -> Option<(u32, u32)> {
    let (raw, stored) = value.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*raw), u32::from_be_bytes(stored.try_into().ok()?)))
}

/// Reads fields one after another; `None` where the bytes end.
pub(super) struct Reader<'a> {
    whole: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(whole: &'a Bytes) -> Self {
        Self { whole, rest: whole }
    }

    pub fn left(&self) -> usize {
        self.rest.len()
    }

    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*field)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// The next `len` bytes, sharing the page's memory.
    pub fn bytes(&mut self, len: usize) -> Option<Bytes> {
        let (field, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(self.whole.slice_ref(field))
    }

    fn time(&mut self) -> Option<Time> {
        let secs = self.take().map(i64::from_be_bytes)?;
        Some(Time::new(secs, self.u32()?))
    }

    pub fn root(&mut self) -> Option<TreeRoot> {
        Some(TreeRoot { id: ChunkId(self.take()?), height: self.u8()?, entries: self.u64()? })
    }

    fn content(&mut self, tag: u8) -> Option<Content> {
        Some(match tag {
            NO_CONTENT => Content::None,
            INLINE => Content::Inline(self.extents()?),
            TREE => Content::Tree(self.root()?),
            SYMLINK => {
                let len = usize::from(self.u16()?);
                Content::Symlink(self.bytes(len)?)
            }
            _ => return None,
        })
    }

    fn extents(&mut self) -> Option<SmallVec<[Extent; INLINE_EXTENTS]>> {
        let count = usize::from(self.u8()?);
        let mut extents = SmallVec::new();
        for _ in 0..count.min(INLINE_EXTENTS + 1) {
            let offset = self.u64()?;
            extents.push(decode_extent(offset, &self.take::<36>()?)?);
        }
        Some(extents)
    }

    fn xattrs(&mut self, tag: u8) -> Option<Xattrs> {
        Some(match tag {
            NO_XATTRS => Xattrs::None,
            INLINE_XATTRS => {
                let len = usize::from(self.u16()?);
                Xattrs::Inline(self.bytes(len)?)
            }
            CHUNK_XATTRS => Xattrs::Chunk { id: ChunkId(self.take()?), len: self.u32()? },
            _ => return None,
        })
    }
}

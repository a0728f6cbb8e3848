//! What an import notes down between its two phases, in the session's sorted scratch space.
//!
//! | key | value | why it is sorted |
//! |---|---|---|
//! | `N` node | [`Node`] | path order |
//! | `G` device, source inode, node | nothing | the members of a hard-link set, in path order |
//! | `C` node | encoded inode with nothing but a file's data | |
//! | `E` node, section | extents of one section | file order |
//! | `K` chunk id | raw and stored length | the manifest's chunk tree |
//! | `A` device, source inode | inode number given to a hard-link set | |
//! | `T` inode number | nothing | base numbers of hard-link sets that are taken |
//! | `I` inode number | encoded inode | the manifest's inode tree |
//! | `D` directory, cookie | encoded entry | the manifest's entry tree |
//! | `L` inode, directory, cookie | nothing | the manifest's link tree |
//!
//! Numbers are big-endian. The space goes with the session, so nothing here is a format.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::chunk::{ChunkId, Session};
use crate::env::Time;
use crate::error::{Error, Result};
use crate::manifest::{Cookie, Extent, FileContent, FileKind, Ino, Inode, Xattrs};
use crate::meta::prefix_end;

/// Position of an object in path order; the root is 0.
pub type NodeNo = u64;

/// Attributes taken from the source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stat {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: (u32, u32),
    pub size: u64,
    pub atime: Time,
    pub mtime: Time,
}

/// One name in the source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// The directory it is in; the root's is itself.
    pub parent: NodeNo,
    pub name: Vec<u8>,
    pub kind: FileKind,
    pub stat: Stat,
    pub target: Vec<u8>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// (device, inode) in the source of an object with several names.
    pub link_set: Option<(u64, u64)>,
}

/// A key: its kind, then numbers.
pub fn key(kind: u8, numbers: &[u64]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 8 * numbers.len());
    key.push(kind);
    numbers.iter().for_each(|n| key.extend_from_slice(&n.to_be_bytes()));
    key
}

/// Number `index` of a key made by [`key`].
pub fn number(key: &[u8], index: usize) -> Result<u64> {
    let at = 1 + 8 * index;
    let bytes = key.get(at..at + 8).and_then(|b| b.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| Error::internal("a short key in an import's scratch space"))
}

pub fn put<T: Serialize>(session: &Session, key: &[u8], value: &T) -> Result<()> {
    let bytes =
        postcard::to_stdvec(value).map_err(|e| Error::internal("an import's note does not encode").because(e))?;
    session.scratch_put(key, &bytes)
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| Error::internal("an import's note does not decode").because(e))
}

pub fn get<T: DeserializeOwned>(session: &Session, key: &[u8]) -> Result<Option<T>> {
    session.scratch_get(key)?.map(|bytes| decode(&bytes)).transpose()
}

/// Visit all notes under `prefix`, in key order.
pub fn each(session: &Session, prefix: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    let mut outcome = Ok(());
    session.scratch_scan(prefix, &prefix_end(prefix), &mut |key, value| {
        outcome = visit(key, value);
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    outcome
}

/// Note a chunk for the manifest's chunk tree.
pub fn put_chunk(session: &Session, id: &ChunkId, raw_len: u32, stored_len: u32) -> Result<()> {
    let mut key = Vec::with_capacity(33);
    key.push(b'K');
    key.extend_from_slice(id.as_bytes());
    put(session, &key, &(raw_len, stored_len))
}

/// The notes of [`put_chunk`], in order of ids.
pub fn each_chunk(session: &Session, mut visit: impl FnMut(ChunkId, u32, u32) -> Result<()>) -> Result<()> {
    each(session, b"K", |key, value| {
        let id = ChunkId::from_slice(&key[1..])
            .ok_or_else(|| Error::internal("a short chunk id in an import's scratch space"))?;
        let (raw_len, stored_len) = decode(value)?;
        visit(id, raw_len, stored_len)
    })
}

/// Note the extents of one section of a file.
pub fn put_extents(session: &Session, node: NodeNo, section: u64, extents: &[Extent]) -> Result<()> {
    let notes: Vec<_> = extents.iter().map(|e| (e.offset, e.len, e.chunk)).collect();
    put(session, &key(b'E', &[node, section]), &notes)
}

/// The notes of [`put_extents`], in file order.
pub fn each_extent(session: &Session, node: NodeNo, mut visit: impl FnMut(Extent) -> Result<()>) -> Result<()> {
    each(session, &key(b'E', &[node]), |_, value| {
        let extents: Vec<(u64, u32, ChunkId)> = decode(value)?;
        extents.into_iter().try_for_each(|(offset, len, chunk)| visit(Extent { offset, len, chunk }))
    })
}

/// Note what reading a regular file gave, as an inode that has no attributes yet.
pub fn put_content(session: &Session, node: NodeNo, size: u64, disk_image: bool, read: FileContent) -> Result<()> {
    let bare = Inode {
        kind: FileKind::Regular,
        mode: 0,
        uid: 0,
        gid: 0,
        nlink: 1,
        rdev: (0, 0),
        size,
        used: read.used,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
        parent: Ino::ROOT,
        parent_cookie: Cookie(0),
        digest: read.digest,
        disk_image,
        content: read.content,
        xattrs: Xattrs::None,
    };
    session.scratch_put(&key(b'C', &[node]), &bare.encode()?)
}

/// The note of [`put_content`].
pub fn content(session: &Session, node: NodeNo) -> Result<Inode> {
    let bytes = session
        .scratch_get(&key(b'C', &[node]))?
        .ok_or_else(|| Error::internal("a file's content is missing in an import"))?;
    Inode::decode(&bytes.into())
}

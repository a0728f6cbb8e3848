//! Reading all of a manifest, to see that it can be read.
//!
//! One page per level of a tree is held at a time, however large the manifest is.

use std::ops::ControlFlow;

use super::codec::{decode_chunk, decode_inode, key_tail};
use super::cursor::Seek;
use super::{Content, Ino, Inode, Manifest};
use crate::chunk::{ChunkId, ChunkSource, Fetch};
use crate::error::{Error, Result};

/// A chunk of data that a manifest names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedChunk {
    pub id: ChunkId,
    pub raw_len: u32,
}

impl Manifest {
    /// Read and decode every page; `tell` gets what cannot be read: at most one error for each tree, the
    /// extents of a large file being a tree too.
    pub async fn read_pages(&self, source: &dyn ChunkSource, tell: &mut (dyn FnMut(Error) + Send)) {
        let entries = self.for_each_entry(source, &mut |_, _| Ok(ControlFlow::Continue(()))).await;
        let links = self.link_tree().walk(source, &[0; 24]..=&[0xff; 24], &mut |_| Ok(ControlFlow::Continue(()))).await;
        let chunks = self.for_each_chunk(source, &mut |_, _, _| Ok(ControlFlow::Continue(()))).await;
        let inodes = self.read_inodes(source, tell).await;
        [entries, links, chunks, inodes].into_iter().filter_map(Result::err).for_each(tell);
    }

    /// Read every inode, and all extents.
    async fn read_inodes(&self, source: &dyn ChunkSource, tell: &mut (dyn FnMut(Error) + Send)) -> Result<()> {
        let mut fetch = Fetch::new(source);
        let mut cursor = self.inode_tree().cursor(&[0; 8]..=&[0xff; 8], Seek::First)?;
        loop {
            fetch.release();
            let next = fetch.run(|fetch| {
                let Some(item) = cursor.next(fetch)? else { return Ok(None) };
                let [ino] = key_tail(item.key());
                Ok(Some((Ino(ino), decode_inode(&item.value_bytes()?))))
            });
            let Some((ino, inode)) = next.await? else { return Ok(()) };
            let read = match inode {
                Some(inode) => self.read_extents(source, &inode).await,
                None => Err(self.bad_inode(ino)),
            };
            if let Err(error) = read {
                tell(error);
            }
        }
    }

    async fn read_extents(&self, source: &dyn ChunkSource, inode: &Inode) -> Result<()> {
        match inode.content {
            Content::Tree(_) => self.for_each_extent(source, inode, &mut |_| Ok(ControlFlow::Continue(()))).await,
            _ => Ok(()),
        }
    }

    /// The first `most` chunks of data behind `after`, in order of their ids.
    pub async fn chunks_after(
        &self,
        source: &dyn ChunkSource,
        after: Option<ChunkId>,
        most: usize,
    ) -> Result<Vec<NamedChunk>> {
        let from = after.map_or([0; 32], |after| *after.as_bytes());
        let mut chunks = Vec::new();
        let mut each = |item: super::Item<'_>| {
            let id = ChunkId::from_slice(item.key());
            let (id, (raw_len, _)) = id.zip(decode_chunk(item.value()?)).ok_or_else(|| self.bad_chunk())?;
            if Some(id) != after {
                chunks.push(NamedChunk { id, raw_len });
            }
            Ok(if chunks.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        };
        self.chunk_tree().walk(source, &from..=&[0xff; 32], &mut each).await?;
        Ok(chunks)
    }
}

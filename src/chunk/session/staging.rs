//! Where a session notes the chunks of its full packs until it commits: on disk, so that a huge
//! import needs no memory per chunk; without a log, because a restart takes them back anyway.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::chunk::ChunkId;
use crate::chunk::pack::{Frame, Location, PackId};
use crate::chunk::store::index::{BATCH_ROWS, Index, STAGING};
use crate::error::{Error, Result};
use crate::meta::{Batch, Durability, prefix_end};

/// One session's rows of the staging table.
pub struct Staging {
    index: Arc<Index>,
    session: [u8; 16],
}

impl Staging {
    pub fn new(index: Arc<Index>, session: [u8; 16]) -> Self {
        Self { index, session }
    }

    /// Note the chunks of a pack.
    pub fn stage(&self, pack: PackId, frames: &[Frame]) -> Result<()> {
        frames.chunks(BATCH_ROWS).try_for_each(|some| {
            let mut batch = Batch::new();
            for frame in some {
                batch.put(STAGING, self.key(&frame.id), Location { pack, span: frame.span }.encode());
            }
            self.index.kv().write(batch, Durability::Scratch)
        })
    }

    /// The stored length of a chunk that was noted.
    pub fn find(&self, id: &ChunkId) -> Result<Option<u32>> {
        let Some(value) = self.index.kv().get(STAGING, &self.key(id))? else {
            return Ok(None);
        };
        Location::decode(&value).ok_or_else(|| damaged(id)).map(|location| Some(location.span.stored_len))
    }

    /// Make everything that was noted findable.
    pub fn publish(&self) -> Result<()> {
        let mut from = self.session.to_vec();
        loop {
            let rows = self.rows(&from)?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            from = self.key(last);
            from.push(0);
            self.index.add(rows)?;
        }
    }

    /// The next rows, as many as go into one batch.
    fn rows(&self, from: &[u8]) -> Result<Vec<(ChunkId, Location)>> {
        let mut rows = Vec::new();
        let mut bad = Ok(());
        self.index.kv().scan(STAGING, from, &prefix_end(&self.session), &mut |key, value| {
            let id = ChunkId::from_slice(&key[self.session.len()..]);
            match id.zip(Location::decode(value)) {
                Some(row) => rows.push(row),
                None => bad = Err(damaged(&id.unwrap_or(ChunkId([0; 32])))),
            }
            if bad.is_err() || rows.len() == BATCH_ROWS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        bad.map(|()| rows)
    }

    /// Forget everything.
    pub fn clear(&self) -> Result<()> {
        let mut batch = Batch::new();
        batch.delete_range(STAGING, self.session, prefix_end(&self.session));
        self.index.kv().write(batch, Durability::Scratch)
    }

    fn key(&self, id: &ChunkId) -> Vec<u8> {
        [&self.session[..], id.as_bytes()].concat()
    }
}

fn damaged(id: &ChunkId) -> Error {
    Error::corrupt(format!("the staging entry of chunk {id} is damaged")).remedy("import again")
}

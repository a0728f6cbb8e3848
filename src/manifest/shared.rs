//! Which inode numbers two manifests surely have in common.
//!
//! Compares the leaves of two trees of inodes by their chunk ids, without loading them. An inode in a
//! leaf that both trees have is the same record on both sides: a diff need not read it.

use std::cmp::Ordering;

use super::cursor::{Cursor, Seek};
use super::tree::Tree;
use super::{Ino, codec::key_tail};
use crate::chunk::{ChunkId, Fetch};
use crate::error::{Error, Result};

/// The inode numbers at which shared and other leaves take turns, ascending; the first begins
/// leaves that are not shared.
pub(super) struct SharedInodes {
    edges: Vec<u64>,
}

impl SharedInodes {
    /// Whether an inode that is in the old tree is in the new one, as the same record.
    pub fn contains(&self, ino: Ino) -> bool {
        self.edges.partition_point(|edge| *edge <= ino.0).is_multiple_of(2)
    }

    /// Compare two trees of inodes. Reads the pages above the leaves.
    pub async fn of(fetch: &mut Fetch<'_>, old: &Tree, new: &Tree) -> Result<Self> {
        let mut edges = Edges { at: Vec::new(), last_shared: true };
        let (mut old, mut new) = (Leaves::new(old)?, Leaves::new(new)?);
        let (mut a, mut b) = (old.next(fetch).await?, new.next(fetch).await?);
        while let Some((key, id)) = a {
            let order = b.map_or(Ordering::Less, |(other, _)| key.cmp(&other));
            if order != Ordering::Greater {
                edges.push(key, b == Some((key, id)));
                a = old.next(fetch).await?;
            }
            if order != Ordering::Less {
                b = new.next(fetch).await?;
            }
        }
        Ok(Self { edges: edges.at })
    }
}

struct Edges {
    at: Vec<u64>,
    last_shared: bool,
}

impl Edges {
    fn push(&mut self, first: u64, shared: bool) {
        if shared != self.last_shared {
            self.at.push(first);
            self.last_shared = shared;
        }
    }
}

/// The leaves of a tree of inodes: first key and chunk id.
enum Leaves {
    One(Option<ChunkId>),
    Many(Box<Cursor>),
}

impl Leaves {
    fn new(tree: &Tree) -> Result<Self> {
        if tree.root().height == 0 {
            return Ok(Self::One(Some(tree.root().id)));
        }
        let cursor = tree.cursor(&[0; 8]..=&[0xff; 8], Seek::First)?;
        Ok(Self::Many(Box::new(cursor.over_leaves())))
    }

    async fn next(&mut self, fetch: &mut Fetch<'_>) -> Result<Option<(u64, ChunkId)>> {
        let cursor = match self {
            Self::One(id) => return Ok(id.take().map(|id| (0, id))),
            Self::Many(cursor) => cursor,
        };
        fetch.release();
        let step = |fetch: &mut Fetch<'_>| {
            let Some(item) = cursor.next(fetch)? else { return Ok(None) };
            let [key] = key_tail(item.key());
            let id = ChunkId::from_slice(item.value()?);
            Ok(Some((key, id.ok_or_else(|| Error::corrupt("a page names a child by something else than a chunk id"))?)))
        };
        fetch.run(step).await
    }
}

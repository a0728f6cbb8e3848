//! Search trees made of pages.
//!
//! Owns reading: point lookups, ordered scans and walks. A tree is named by its [`TreeRoot`]: the id
//! of the root page and its level. Each step down goes one level lower, and a cursor demands that
//! leaves ascend, so that even pages that lie cannot make a reader run for ever.
//!
//! Failure story: a page that is not what the tree says is `Corrupt`, with its id.

use std::ops::{ControlFlow, RangeInclusive};

use bytes::Bytes;

use super::cursor::{Cursor, Item, Seek};
use super::page::{Page, TreeKind};
use crate::chunk::{ChunkId, ChunkSource, Fetch, Step, Stop};
use crate::error::Result;

/// Names a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeRoot {
    /// The root page.
    pub id: ChunkId,
    /// Level of the root page; a tree of one leaf has 0.
    pub height: u8,
    /// Entries in the whole tree.
    pub entries: u64,
}

/// What a scan does with an entry.
pub type Visit<'a> = dyn FnMut(Item<'_>) -> Result<ControlFlow<()>> + Send + 'a;

/// A tree to read.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    kind: TreeKind,
    root: TreeRoot,
}

impl Tree {
    pub const fn new(kind: TreeKind, root: TreeRoot) -> Self {
        Self { kind, root }
    }

    pub const fn root(&self) -> &TreeRoot {
        &self.root
    }

    /// The value of `key`, as a slice of its page.
    pub fn get(&self, fetch: &mut Fetch<'_>, key: &[u8]) -> Step<Option<Bytes>> {
        self.kind.check_key(key)?;
        Ok(self.leaf(fetch, key)?.find(key)?)
    }

    /// The leaf that has `key`, if any leaf has it.
    fn leaf(&self, fetch: &mut Fetch<'_>, key: &[u8]) -> Step<Page> {
        let mut id = self.root.id;
        for level in (1..=self.root.height).rev() {
            let page = load(fetch, id, self.kind, level)?;
            id = page.child(page.floor(key))?;
        }
        load(fetch, id, self.kind, 0)
    }

    /// Visit the entries in `range` in key order until `visit` breaks. Stops with `Missing` where a
    /// page must be loaded, after noting its next siblings in the range too; called again it begins
    /// anew, so `visit` must not have effects that last.
    pub fn scan(
        &self,
        fetch: &mut Fetch<'_>,
        range: RangeInclusive<&[u8]>,
        visit: &mut dyn FnMut(Item<'_>) -> Result<ControlFlow<()>>,
    ) -> Step<()> {
        self.scan_from(fetch, range, Seek::First, visit)
    }

    pub(super) fn scan_from(
        &self,
        fetch: &mut Fetch<'_>,
        range: RangeInclusive<&[u8]>,
        seek: Seek,
        visit: &mut dyn FnMut(Item<'_>) -> Result<ControlFlow<()>>,
    ) -> Step<()> {
        self.kind.check_key(range.start())?;
        self.kind.check_key(range.end())?;
        // Most ranges that are read end in the leaf where they begin: no cursor is needed for them.
        if let Ok(leaf) = self.leaf(fetch, range.start())
            && leaf.is_beyond(range.end())
        {
            return Ok(scan_leaf(&leaf, range, seek, visit)?);
        }
        let mut cursor = self.cursor(range, seek)?;
        while let Some(item) = cursor.next(fetch)? {
            if visit(item)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Visit the entries in `range` in key order, each once, until `visit` breaks. For long walks:
    /// holds one page per level, however long the range.
    pub async fn walk(
        &self,
        source: &dyn ChunkSource,
        range: RangeInclusive<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let mut fetch = Fetch::new(source);
        let mut cursor = self.cursor(range, Seek::First)?;
        loop {
            match cursor.next(&mut fetch) {
                Ok(Some(item)) if visit(item)?.is_continue() => {}
                Ok(_) => return Ok(()),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Missing) => {
                    // The cursor holds its own path: what was loaded for earlier steps may go.
                    fetch.release();
                    fetch.fill().await?;
                }
            }
        }
    }

    pub(super) fn cursor(&self, range: RangeInclusive<&[u8]>, seek: Seek) -> Result<Cursor> {
        self.kind.check_key(range.start())?;
        self.kind.check_key(range.end())?;
        Ok(Cursor::new(self.kind, &self.root, range, seek))
    }
}

fn scan_leaf(
    leaf: &Page,
    range: RangeInclusive<&[u8]>,
    seek: Seek,
    visit: &mut dyn FnMut(Item<'_>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let items = (seek.first_in(leaf, range.start())..leaf.count()).map(|index| Item::new(leaf, index));
    for item in items.take_while(|item| item.key() <= *range.end()) {
        if visit(item)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// The page `id`, which the tree says is of such a kind and level.
pub(super) fn load(fetch: &mut Fetch<'_>, id: ChunkId, kind: TreeKind, level: u8) -> Step<Page> {
    let bytes = fetch.page(&id)?;
    Ok(Page::parse(id, bytes, kind, level)?)
}

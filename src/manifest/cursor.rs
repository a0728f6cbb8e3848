//! A position in a tree that moves forward.
//!
//! A cursor holds the pages on the way from the root to its leaf. A step either moves it or, where a
//! page is not in memory, leaves it as it was: the step is simply taken again when the page was
//! loaded, and nothing is visited twice.

use std::ops::RangeInclusive;

use bytes::Bytes;
use smallvec::SmallVec;

use super::page::{MAX_KEY, Page, TreeKind};
use super::tree::{TreeRoot, load};
use crate::chunk::{ChunkId, Fetch, Step, Stop};
use crate::error::Result;

/// Sibling leaves that are asked for along with a missing one.
const READ_AHEAD: usize = 16;

type Key = SmallVec<[u8; MAX_KEY]>;

/// Where a cursor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seek {
    /// At the first key of the range.
    First,
    /// At the last key that is not above the start of the range, if there is one before it.
    Floor,
}

impl Seek {
    /// The number of the entry to begin with, in the leaf that is found by `from`.
    pub fn first_in(self, leaf: &Page, from: &[u8]) -> usize {
        match self {
            Self::First => leaf.below(from),
            Self::Floor => leaf.floor(from),
        }
    }
}

/// One entry, in place.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    page: &'a Page,
    index: usize,
}

impl<'a> Item<'a> {
    pub(super) fn new(page: &'a Page, index: usize) -> Self {
        Self { page, index }
    }

    pub fn key(&self) -> &'a [u8] {
        self.page.key(self.index)
    }

    pub fn value(&self) -> Result<&'a [u8]> {
        self.page.value_slice(self.index)
    }

    /// The value as a slice that shares the page's memory.
    pub fn value_bytes(&self) -> Result<Bytes> {
        self.page.value(self.index)
    }
}

pub(super) struct Cursor {
    kind: TreeKind,
    root: ChunkId,
    height: u8,
    /// The level whose entries are given: 0, or 1 to see the leaves without loading them.
    bottom: u8,
    seek: Seek,
    /// Still on the way down to the first leaf.
    seeking: bool,
    /// Key to begin with; moves along when the cursor is parked.
    from: Key,
    to: Key,
    /// The page to go down to, below the last of `path`.
    next: Option<ChunkId>,
    /// Pages from the root down, each with the number of its current entry.
    path: SmallVec<[(Page, usize); 4]>,
    /// Last key of the leaf before.
    passed: Option<Key>,
}

impl Cursor {
    pub fn new(kind: TreeKind, root: &TreeRoot, range: RangeInclusive<&[u8]>, seek: Seek) -> Self {
        Self {
            kind,
            root: root.id,
            height: root.height,
            bottom: 0,
            seek,
            seeking: true,
            from: Key::from_slice(range.start()),
            to: Key::from_slice(range.end()),
            next: Some(root.id),
            path: SmallVec::new(),
            passed: None,
        }
    }

    /// Over the leaves instead of their entries: first key and chunk id of each. The tree must have
    /// more than one leaf.
    pub fn over_leaves(mut self) -> Self {
        self.bottom = 1;
        self
    }

    /// The next entry of the range.
    pub fn next(&mut self, fetch: &mut Fetch<'_>) -> Step<Option<Item<'_>>> {
        if !self.advance(fetch)? {
            return Ok(None);
        }
        let Some((page, index)) = self.path.last_mut() else { return Ok(None) };
        let index = std::mem::replace(index, *index + 1);
        Ok(Some(Item::new(page, index)))
    }

    /// Let go of all pages. The next step finds its way again, behind the entries already given.
    pub fn park(&mut self) {
        if self.path.len() != usize::from(self.height - self.bottom) + 1 {
            return; // still on the way down: nothing is held that a new descent would not need
        }
        let Some((leaf, index)) = self.path.last() else { return };
        if *index > 0 {
            self.from = Key::from_slice(leaf.key(*index - 1));
            if !increment(&mut self.from) {
                self.to.fill(0); // behind the greatest key there is nothing
            }
            self.seek = Seek::First;
        }
        self.path.clear();
        self.next = Some(self.root);
        self.seeking = true;
        self.passed = None;
    }

    /// Bring the cursor to an entry within the range; false at its end.
    fn advance(&mut self, fetch: &mut Fetch<'_>) -> Step<bool> {
        loop {
            if let Some(id) = self.next {
                self.descend(fetch, id)?;
                continue;
            }
            let Some((page, index)) = self.path.last() else { return Ok(false) };
            if *index < page.count() {
                return Ok(page.key(*index) <= &self.to[..]);
            }
            self.leave()?;
        }
    }

    /// Go down one level, to the page `id`.
    fn descend(&mut self, fetch: &mut Fetch<'_>, id: ChunkId) -> Step<()> {
        let level = self.height - self.path.len() as u8;
        let page = match load(fetch, id, self.kind, level) {
            Err(Stop::Missing) => return Err(self.miss(fetch, level)),
            other => other?,
        };
        self.check_order(&page, level)?;
        let index = self.first_index(&page, level);
        self.next = if level > self.bottom { Some(page.child(index)?) } else { None };
        self.seeking &= level > self.bottom;
        self.path.push((page, index));
        Ok(())
    }

    fn first_index(&self, page: &Page, level: u8) -> usize {
        match self.seeking {
            false => 0,
            true if level == self.bottom => self.seek.first_in(page, &self.from),
            true => page.floor(&self.from),
        }
    }

    /// A child must begin with the key that its parent gives it, and leaves must ascend: then a walk
    /// ends, whatever the pages say.
    fn check_order(&self, page: &Page, level: u8) -> Result<()> {
        let Some((parent, index)) = self.path.last() else { return Ok(()) };
        if page.count() == 0 || page.key(0) != parent.key(*index) {
            return Err(page.damaged("does not begin where its parent says"));
        }
        if level == self.bottom && self.passed.as_ref().is_some_and(|passed| page.key(0) <= &passed[..]) {
            return Err(page.damaged("is out of order"));
        }
        Ok(())
    }

    /// Leave an exhausted page for the next child of the nearest parent that has one.
    fn leave(&mut self) -> Result<()> {
        let Some((page, _)) = self.path.pop() else { return Ok(()) };
        if self.path.len() == usize::from(self.height - self.bottom) && page.count() > 0 {
            self.passed = Some(Key::from_slice(page.key(page.count() - 1)));
        }
        let Some((parent, index)) = self.path.last_mut() else { return Ok(()) };
        *index += 1;
        if *index < parent.count() && parent.key(*index) <= &self.to[..] {
            self.next = Some(parent.child(*index)?);
        } else {
            *index = parent.count();
        }
        Ok(())
    }

    /// Along with a missing leaf ask for its next siblings in the range, so that a listing loads
    /// them together.
    fn miss(&self, fetch: &mut Fetch<'_>, level: u8) -> Stop {
        if level == 0
            && let Some((parent, index)) = self.path.last()
        {
            let end = parent.count().min(index + READ_AHEAD);
            for sibling in *index + 1..end {
                if parent.key(sibling) > &self.to[..] {
                    break;
                }
                match parent.child(sibling) {
                    Ok(id) => drop(fetch.get(&id)),
                    Err(error) => return Stop::Failed(error),
                }
            }
        }
        Stop::Missing
    }
}

/// The next key in order; false if this is the greatest.
fn increment(key: &mut [u8]) -> bool {
    for byte in key.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return true;
        }
    }
    false
}

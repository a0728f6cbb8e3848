//! Building a tree from sorted entries, in one pass.
//!
//! Holds one unfinished page per level. A finished page goes to the sink, and its first key and id
//! to the level above. What comes out depends on the entries alone (`cut.rs`).

use super::cut::Cutting;
use super::page::{MAX_VALUE, PageWriter, TreeKind};
use super::tree::TreeRoot;
use crate::chunk::{ChunkId, ChunkSink};
use crate::error::{Error, Result};

/// Builds a tree: feed it in ascending key order.
pub struct TreeBuilder<'a> {
    kind: TreeKind,
    sink: &'a dyn ChunkSink,
    levels: Vec<Level>,
    last_key: Vec<u8>,
    entries: u64,
    written: PagesWritten,
}

/// Pages that a builder has handed to its sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagesWritten {
    pub pages: u64,
    /// Bytes that they take in packs, without frames.
    pub bytes_stored: u64,
}

struct Level {
    writer: PageWriter,
    /// Pages of this level that are finished, and the last of them.
    finished: u64,
    last: Option<ChunkId>,
}

impl<'a> TreeBuilder<'a> {
    pub fn new(kind: TreeKind, sink: &'a dyn ChunkSink) -> Self {
        let levels = vec![Level::new(kind, 0)];
        Self { kind, sink, levels, last_key: Vec::new(), entries: 0, written: PagesWritten::default() }
    }

    /// Append an entry. `Internal` if `key` is not above the key before, or has the wrong length, or
    /// if the value is longer than 8 KiB.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.kind.check_key(key)?;
        if self.entries > 0 && key <= &self.last_key[..] {
            return Err(Error::internal(format!(
                "tree of {:?}: key {key:02x?} after {:02x?}",
                self.kind, self.last_key
            )));
        }
        if value.len() > MAX_VALUE {
            return Err(Error::internal(format!("tree of {:?}: a value of {} bytes", self.kind, value.len())));
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.entries += 1;
        self.push_at(0, key, value)
    }

    /// Pages written so far.
    pub fn written(&self) -> PagesWritten {
        self.written
    }

    /// Write what is unfinished. A tree without entries is one empty leaf.
    pub fn finish(mut self) -> Result<(TreeRoot, PagesWritten)> {
        for height in 0.. {
            if self.levels[height].is_unfinished() {
                self.flush(height)?;
            }
            if let (1, Some(id)) = (self.levels[height].finished, self.levels[height].last) {
                let root = TreeRoot { id, height: height as u8, entries: self.entries };
                return Ok((root, self.written));
            }
        }
        unreachable!("each level has fewer pages than the one below")
    }

    fn push_at(&mut self, height: usize, key: &[u8], value: &[u8]) -> Result<()> {
        if self.levels.len() == height {
            self.levels.push(Level::new(self.kind, height as u8));
        }
        let cutting = Cutting::of(self.kind, height as u8);
        let cost = PageWriter::cost(key, value);
        if self.levels[height].writer.len() + cost > cutting.max {
            self.flush(height)?;
        }
        let writer = &mut self.levels[height].writer;
        writer.push(key, value);
        if cutting.ends_after(writer.len(), height as u8, key, cost) {
            self.flush(height)?;
        }
        Ok(())
    }

    /// Finish the page of a level and name it to the level above.
    fn flush(&mut self, height: usize) -> Result<()> {
        let level = &mut self.levels[height];
        let first_key = level.writer.first_key().to_vec();
        let stored = self.sink.put(&level.writer.take())?;
        level.finished += 1;
        level.last = Some(stored.id);
        self.written.pages += 1;
        self.written.bytes_stored += u64::from(stored.stored_len);
        if first_key.is_empty() {
            return Ok(()); // the one leaf of an empty tree
        }
        self.push_at(height + 1, &first_key, stored.id.as_bytes())
    }
}

impl Level {
    fn new(kind: TreeKind, height: u8) -> Self {
        Self { writer: PageWriter::new(kind, height), finished: 0, last: None }
    }

    fn is_unfinished(&self) -> bool {
        self.writer.count() > 0 || self.finished == 0
    }
}

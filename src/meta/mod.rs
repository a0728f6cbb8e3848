//! Ordered keys and values: what the chunk index and the catalog stand on.
//!
//! Owns the [`KvStore`] trait, its RocksDB backend and its in-memory twin. RocksDB types never leave
//! this module. A batch is all or nothing; it is durable when `write` returned with
//! [`Durability::Synced`]. Later batches are never durable without earlier ones.
//!
//! Failure story: a failed sync poisons the store. From then on `write` refuses with
//! `ErrorKind::ReadOnly` and says why; reads go on.

mod memory;
mod rocks;

pub use memory::MemoryKv;
pub use rocks::{RocksKv, RocksOptions};

use std::ops::ControlFlow;

use crate::error::{Error, Result};

/// Longest key, in bytes.
pub const MAX_KEY: usize = 4096;

/// A table is a key space of its own (a RocksDB column family).
pub type Table = &'static str;

/// When a batch must be on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before `write` returns.
    Synced,
    /// With the next synced batch, or lost in a crash.
    Buffered,
    /// Not even logged: gone after a crash. For scratch tables only.
    Scratch,
}

/// One change in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put {
        table: Table,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        table: Table,
        key: Vec<u8>,
    },
    /// Delete all keys `from <= key < to` (`to` empty: to the end of the table).
    DeleteRange {
        table: Table,
        from: Vec<u8>,
        to: Vec<u8>,
    },
}

impl Op {
    pub fn table(&self) -> Table {
        match self {
            Self::Put { table, .. } | Self::Delete { table, .. } | Self::DeleteRange { table, .. } => table,
        }
    }

    fn longest_key(&self) -> usize {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key.len(),
            Self::DeleteRange { from, to, .. } => from.len().max(to.len()),
        }
    }
}

/// Changes that become visible together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub ops: Vec<Op>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.ops.push(Op::Put { table, key: key.into(), value: value.into() });
    }

    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.ops.push(Op::Delete { table, key: key.into() });
    }

    pub fn delete_range(&mut self, table: Table, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) {
        self.ops.push(Op::DeleteRange { table, from: from.into(), to: to.into() });
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// `Invalid` if a key is longer than [`MAX_KEY`].
    fn check_keys(&self) -> Result<()> {
        match self.ops.iter().find(|op| op.longest_key() > MAX_KEY) {
            None => Ok(()),
            Some(op) => {
                let (table, len) = (op.table(), op.longest_key());
                Err(Error::invalid(format!("a key of {len} bytes for table {table:?}: the limit is {MAX_KEY}")))
            }
        }
    }
}

/// Sees the keys and values of a scan until it breaks.
pub type Visit<'a> = &'a mut (dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a);

/// What a store knows without reading the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached<T> {
    Known(T),
    /// The disk has to be read for it.
    Cold,
}

/// An ordered key-value store with atomic batches. All calls block, except those that say `cached`.
pub trait KvStore: Send + Sync + 'static {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;
    fn write(&self, batch: Batch, durability: Durability) -> Result<()>;
    /// Visit `from <= key < to` (`to` empty: to the end of the table) in key order, on one state of
    /// the store, until `visit` breaks.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()>;

    /// [`get`](Self::get), if that takes no reading of the disk.
    fn get_cached(&self, table: Table, key: &[u8]) -> Result<Cached<Option<Vec<u8>>>> {
        self.get(table, key).map(Cached::Known)
    }

    /// [`scan`](Self::scan), as far as that takes no reading of the disk. `Cold`: more might follow
    /// what was visited.
    fn scan_cached(&self, table: Table, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<Cached<()>> {
        self.scan(table, from, to, visit).map(Cached::Known)
    }
}

/// The smallest key greater than every key that starts with `prefix`; empty if there is none.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end
}

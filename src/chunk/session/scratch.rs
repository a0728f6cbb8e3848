//! A session's private, sorted space on disk. An import uses it to sort what does not fit in memory.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::chunk::store::index::{Index, SCRATCH};
use crate::error::Result;
use crate::meta::{Batch, Durability, prefix_end};

/// Bytes of rows that are held back to be written in one batch.
const MAX_BUFFER: usize = 1 << 20;

/// One session's rows of the scratch table, and those on their way to it.
pub struct Scratch {
    index: Arc<Index>,
    session: [u8; 16],
    buffer: Mutex<Buffer>,
}

#[derive(Default)]
struct Buffer {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
}

impl Scratch {
    pub fn new(index: Arc<Index>, session: [u8; 16]) -> Self {
        Self { index, session, buffer: Mutex::default() }
    }

    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut buffer = self.buffer.lock();
        buffer.bytes += key.len() + value.len();
        buffer.rows.insert(key.to_vec(), value.to_vec());
        if buffer.bytes >= MAX_BUFFER { self.flush(&mut buffer) } else { Ok(()) }
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(value) = self.buffer.lock().rows.get(key) {
            return Ok(Some(value.clone()));
        }
        self.index.kv().get(SCRATCH, &self.key(key))
    }

    pub fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<()> {
        self.flush(&mut self.buffer.lock())?;
        let end = if to.is_empty() { prefix_end(&self.session) } else { self.key(to) };
        let prefix = self.session.len();
        self.index.kv().scan(SCRATCH, &self.key(from), &end, &mut |key, value| visit(&key[prefix..], value))
    }

    /// Under the lock, so that a reader finds a row either here or in the table.
    fn flush(&self, buffer: &mut Buffer) -> Result<()> {
        let mut batch = Batch::new();
        for (key, value) in std::mem::take(&mut buffer.rows) {
            batch.put(SCRATCH, self.key(&key), value);
        }
        buffer.bytes = 0;
        if batch.is_empty() { Ok(()) } else { self.index.kv().write(batch, Durability::Scratch) }
    }

    /// Forget everything.
    pub fn clear(&self) -> Result<()> {
        *self.buffer.lock() = Buffer::default();
        let mut batch = Batch::new();
        batch.delete_range(SCRATCH, self.session, prefix_end(&self.session));
        self.index.kv().write(batch, Durability::Scratch)
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.session[..], key].concat()
    }
}

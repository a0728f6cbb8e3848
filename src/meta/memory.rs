//! Keys and values in memory: the twin of the RocksDB backend.
//!
//! Models what a crash leaves: [`MemoryKv::crash`] keeps everything up to the last synced batch,
//! drops buffered batches behind it, and empties scratch tables. A failed write poisons the store as
//! it does in RocksDB, and its batch may or may not be there after the crash; what is certain until
//! then is that nobody read it.
//!
//! Tables need not be declared. A table is a scratch table if the first write to it is `Scratch`; the
//! two kinds never mix.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use imbl::OrdMap;
use parking_lot::Mutex;

use super::{Batch, Durability, KvStore, Op, Table, Visit};
use crate::error::{Error, ErrorKind, Result};

type Rows = OrdMap<Bytes, Bytes>;
type Tables = BTreeMap<Table, Rows>;

/// An in-memory [`KvStore`] that can crash and fail.
#[derive(Default)]
pub struct MemoryKv {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Tables,
    durable: Tables,
    /// Logged batches behind the last synced one, and at the end the one that failed, if any.
    pending: Vec<Batch>,
    /// Which tables are scratch tables; those not named were not written yet.
    scratch: BTreeMap<Table, bool>,
    writes: u64,
    /// Writes that still succeed.
    fail_after: Option<u64>,
    poisoned: bool,
}

impl MemoryKv {
    pub fn new() -> Self {
        Self::default()
    }

    /// Power cut and restart: what was not synced is gone, and so are faults and poison.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// [`crash`](Self::crash), but the first `batches` of the buffered (or failed) ones had reached
    /// the disk.
    pub fn crash_keeping(&self, batches: usize) {
        let mut state = self.state.lock();
        let pending = std::mem::take(&mut state.pending);
        for batch in pending.into_iter().take(batches) {
            apply(&mut state.durable, batch);
        }
        state.live = state.durable.clone();
        state.fail_after = None;
        state.poisoned = false;
    }

    /// The next `n` writes succeed; the one after them fails with `Io` and poisons the store.
    pub fn fail_writes_after(&self, n: u64) {
        self.state.lock().fail_after = Some(n);
    }

    /// Writes that succeeded so far.
    pub fn count_writes(&self) -> u64 {
        self.state.lock().writes
    }
}

impl State {
    /// Refuse what RocksDB would refuse.
    fn admit(&mut self, batch: &Batch, durability: Durability) -> Result<()> {
        if self.poisoned {
            return Err(Error::new(ErrorKind::ReadOnly, "the in-memory store refuses writes after a failed one"));
        }
        batch.check_keys()?;
        let scratch = durability == Durability::Scratch;
        for op in &batch.ops {
            if *self.scratch.entry(op.table()).or_insert(scratch) != scratch {
                let table = op.table();
                return Err(Error::internal(format!("table {table:?} is written both as scratch and as logged")));
            }
        }
        Ok(())
    }

    /// Whether the next write is the one that fails.
    fn fault_is_due(&mut self) -> bool {
        match &mut self.fail_after {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn without_scratch(&self) -> Tables {
        let kept = self.live.iter().filter(|(table, _)| self.scratch.get(*table) != Some(&true));
        kept.map(|(table, rows)| (*table, rows.clone())).collect()
    }

    fn write(&mut self, batch: Batch, durability: Durability) -> Result<()> {
        self.admit(&batch, durability)?;
        if self.fault_is_due() {
            self.poisoned = true;
            if durability != Durability::Scratch {
                self.pending.push(batch);
            }
            return Err(Error::new(ErrorKind::Io, "write to the in-memory store failed as told"));
        }
        self.writes += 1;
        if durability == Durability::Buffered {
            self.pending.push(batch.clone());
        }
        apply(&mut self.live, batch);
        if durability == Durability::Synced {
            self.durable = self.without_scratch();
            self.pending.clear();
        }
        Ok(())
    }
}

fn apply(tables: &mut Tables, batch: Batch) {
    for op in batch.ops {
        let rows = tables.entry(op.table()).or_default();
        match op {
            Op::Put { key, value, .. } => {
                rows.insert(key.into(), value.into());
            }
            Op::Delete { key, .. } => {
                rows.remove(key.as_slice());
            }
            Op::DeleteRange { from, to, .. } => remove_range(rows, &from, &to),
        }
    }
}

fn remove_range(rows: &mut Rows, from: &[u8], to: &[u8]) {
    let doomed: Vec<Bytes> = between(rows, from, to).map(|(key, _)| key.clone()).collect();
    for key in doomed {
        rows.remove(&key);
    }
}

/// The rows `from <= key < to`; `to` empty means to the end.
fn between<'a>(rows: &'a Rows, from: &'a [u8], to: &'a [u8]) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> {
    rows.range::<_, [u8]>((Bound::Included(from), Bound::Unbounded))
        .take_while(move |(key, _)| to.is_empty() || key.as_ref() < to)
}

impl KvStore for MemoryKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let state = self.state.lock();
        Ok(state.live.get(table).and_then(|rows| rows.get(key)).map(|value| value.to_vec()))
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<()> {
        self.state.lock().write(batch, durability)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        // A persistent map: this copy is the state that is scanned, and `visit` may use the store.
        let rows = self.state.lock().live.get(table).cloned().unwrap_or_default();
        for (key, value) in between(&rows, from, to) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

//! Keys and values in memory: the twin of the RocksDB backend.
//!
//! Models what a crash leaves: [`MemoryKv::crash`] keeps everything up to the last synced batch,
//! drops buffered batches behind it, and empties scratch tables. A failed write poisons the store as
//! it does in RocksDB, and its batch may or may not be there after the crash; what is certain until
//! then is that nobody read it.
//!
//! [`MemoryKv::beside`] shares the power and the faults of a simulated disk: each write is one more call
//! that changes that disk. [`MemoryKv::forget_what_is_cached`] makes it answer as RocksDB does whose cache
//! is too small.
//!
//! Tables need not be declared. A table is a scratch table if the first write to it is `Scratch`; the
//! two kinds never mix.

use std::collections::{BTreeMap, HashSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use parking_lot::Mutex;

use super::{Batch, Cached, Durability, KvStore, Op, Table, Visit};
use crate::env::SimDisk;
use crate::error::{Error, ErrorKind, Result};

type Rows = OrdMap<Bytes, Bytes>;
type Tables = BTreeMap<Table, Rows>;
/// What a cache holds: keys that were read, and `None` for the end of a table.
type Warm = HashSet<(Table, Option<Bytes>)>;

/// An in-memory [`KvStore`] that can crash and fail.
#[derive(Default)]
pub struct MemoryKv {
    state: Mutex<State>,
    disk: Option<Arc<SimDisk>>,
}

#[derive(Clone, Default)]
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
    reads: u64,
    /// Reads that still succeed before one fails.
    fail_read_after: Option<u64>,
    /// What is cached; `None`: everything.
    warm: Option<Warm>,
    misses: u64,
}

impl MemoryKv {
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that has the power and the faults of `disk`.
    pub fn beside(disk: Arc<SimDisk>) -> Self {
        Self { disk: Some(disk), ..Self::default() }
    }

    /// A copy of the store as it is, beside the copy of its disk.
    pub fn fork(&self, disk: Arc<SimDisk>) -> Self {
        Self { state: Mutex::new(self.state.lock().clone()), disk: Some(disk) }
    }

    /// From now on nothing is cached but what was read since it was written last.
    pub fn forget_what_is_cached(&self) {
        self.state.lock().warm = Some(Warm::new());
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
        (state.fail_after, state.fail_read_after) = (None, None);
        state.poisoned = false;
        if let Some(warm) = &mut state.warm {
            warm.clear();
        }
    }

    /// The next `n` writes succeed; the one after them fails with `Io` and poisons the store.
    pub fn fail_writes_after(&self, n: u64) {
        self.state.lock().fail_after = Some(n);
    }

    /// The next `n` reads succeed; the one after them fails with `Io`, and only that one.
    pub fn fail_read_after(&self, n: u64) {
        self.state.lock().fail_read_after = Some(n);
    }

    /// Writes that succeeded so far.
    pub fn count_writes(&self) -> u64 {
        self.state.lock().writes
    }

    /// Reads that succeeded so far.
    pub fn count_reads(&self) -> u64 {
        self.state.lock().reads
    }

    /// Reads that were answered with [`Cached::Cold`].
    pub fn count_misses(&self) -> u64 {
        self.state.lock().misses
    }

    /// Batches that a crash may take, the one that failed among them.
    pub fn count_pending(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// Whether a write has failed since the start.
    pub fn is_poisoned(&self) -> bool {
        self.state.lock().poisoned
    }

    /// The store for one write.
    fn for_write(&self) -> (parking_lot::MutexGuard<'_, State>, bool) {
        let mut state = self.state.lock();
        let refused = !state.poisoned && self.disk.as_ref().is_some_and(|disk| disk.strike().is_err());
        let fails = state.fault_is_due() || refused;
        (state, fails)
    }

    /// The store for one read.
    fn for_read(&self) -> Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        if self.disk.as_ref().is_some_and(|disk| disk.alive().is_err()) || state.read_fault_is_due() {
            return Err(Error::new(ErrorKind::Io, "read of the in-memory store failed as told"));
        }
        state.reads += 1;
        Ok(state)
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

    /// Whether this read is the one that fails.
    fn read_fault_is_due(&mut self) -> bool {
        match &mut self.fail_read_after {
            Some(0) => self.fail_read_after.take().is_some(),
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// A key was read, or (`None`) the end of a table.
    fn is_read(&mut self, table: Table, key: Option<&[u8]>) {
        if let Some(warm) = &mut self.warm {
            warm.insert((table, key.map(Bytes::copy_from_slice)));
        }
    }

    fn is_cached(&mut self, table: Table, key: Option<&[u8]>) -> bool {
        let cached = self.warm.as_ref().is_none_or(|warm| warm.contains(&(table, key.map(Bytes::copy_from_slice))));
        self.misses += u64::from(!cached);
        cached
    }

    /// What is written comes to other places, which nobody has read.
    fn forget(&mut self, batch: &Batch) {
        let Some(warm) = &mut self.warm else { return };
        for op in &batch.ops {
            match op {
                Op::Put { table, key, .. } | Op::Delete { table, key } => {
                    warm.remove(&(*table, Some(Bytes::copy_from_slice(key))));
                }
                Op::DeleteRange { table, .. } => warm.retain(|(of, _)| of != table),
            }
        }
    }

    fn without_scratch(&self) -> Tables {
        let kept = self.live.iter().filter(|(table, _)| self.scratch.get(*table) != Some(&true));
        kept.map(|(table, rows)| (*table, rows.clone())).collect()
    }

    fn write(&mut self, batch: Batch, durability: Durability, fails: bool) -> Result<()> {
        self.admit(&batch, durability)?;
        if fails {
            self.poisoned = true;
            if durability != Durability::Scratch {
                self.pending.push(batch);
            }
            return Err(Error::new(ErrorKind::Io, "write to the in-memory store failed as told"));
        }
        self.writes += 1;
        self.forget(&batch);
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
        let mut state = self.for_read()?;
        state.is_read(table, Some(key));
        Ok(state.live.get(table).and_then(|rows| rows.get(key)).map(|value| value.to_vec()))
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<()> {
        let (mut state, fails) = self.for_write();
        state.write(batch, durability, fails)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        // A persistent map: this copy is the state that is scanned, and `visit` may use the store.
        let rows = self.for_read()?.live.get(table).cloned().unwrap_or_default();
        for (key, value) in between(&rows, from, to) {
            self.state.lock().is_read(table, Some(key));
            if visit(key, value).is_break() {
                return Ok(());
            }
        }
        self.state.lock().is_read(table, behind(&rows, to));
        Ok(())
    }

    fn get_cached(&self, table: Table, key: &[u8]) -> Result<Cached<Option<Vec<u8>>>> {
        if self.state.lock().is_cached(table, Some(key)) {
            return self.get(table, key).map(Cached::Known);
        }
        Ok(Cached::Cold)
    }

    fn scan_cached(&self, table: Table, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<Cached<()>> {
        let rows = self.for_read()?.live.get(table).cloned().unwrap_or_default();
        for (key, value) in between(&rows, from, to) {
            if !self.state.lock().is_cached(table, Some(key)) {
                return Ok(Cached::Cold);
            }
            if let ControlFlow::Break(()) = visit(key, value) {
                return Ok(Cached::Known(()));
            }
        }
        let ends = self.state.lock().is_cached(table, behind(&rows, to));
        Ok(if ends { Cached::Known(()) } else { Cached::Cold })
    }
}

/// The first key behind a range: to see that the range ends, that has to be read too.
fn behind<'a>(rows: &'a Rows, to: &'a [u8]) -> Option<&'a [u8]> {
    if to.is_empty() {
        return None;
    }
    between(rows, to, &[]).next().map(|(key, _)| key.as_ref())
}

#[cfg(test)]
mod tests;

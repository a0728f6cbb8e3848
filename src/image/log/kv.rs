//! The catalog's log over a key-value store: what a single node uses.
//!
//! A commit is one synced put of one key of the `log` table. The tables `records` and `meta` hold a
//! checkpoint: all records as of one revision, brought up to date now and then ([`CatalogLog::save`])
//! in one batch that also drops the log up to there. The batch need not be synced: the store keeps
//! the order of its batches, so after a crash either the batch is there or the log still is.
//! Bytes: `docs/formats/catalog.md`.
//!
//! Locks: `saving` before `writer` before `tail`; `tail` is held for moments only.
//!
//! Failure story: a failed put leaves the head where it is. The key may turn up after a crash, as one
//! more change set that was never answered; a later commit at the same revision overwrites it.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Backlog, CatalogLog, MAX_CHANGE_SET, Outcome, Rev, Watch, WatchError};
use crate::error::{Error, Result};
use crate::image::change::{Change, ChangeSet};
use crate::image::codec::{decode, encode};
use crate::image::record::ExportId;
use crate::image::state::State;
use crate::meta::{Batch, Durability, KvStore, Table};

const LOG: Table = "log";
const RECORDS: Table = "records";
const META: Table = "meta";

/// The tables that the store under a [`KvCatalogLog`] must have.
pub const CATALOG_TABLES: [Table; 3] = [LOG, RECORDS, META];

/// The key of [`Applied`] in `meta`.
const APPLIED: &[u8] = b"applied";

/// What the records are as of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Applied {
    rev: Rev,
    next_id: u64,
}

/// A [`CatalogLog`] over a [`KvStore`].
pub struct KvCatalogLog {
    inner: Arc<Inner>,
}

struct Inner {
    kv: Arc<dyn KvStore>,
    /// Held while the checkpoint moves or is read.
    saving: Mutex<()>,
    /// Held while the head moves.
    writer: Mutex<()>,
    tail: Mutex<Tail>,
    head: watch::Sender<Rev>,
}

/// The checkpoint as it is stored, and the size of each change set behind it.
struct Tail {
    saved: State,
    sizes: VecDeque<u64>,
}

impl Tail {
    fn head(&self) -> Rev {
        Rev(self.saved.rev().0 + self.sizes.len() as u64)
    }
}

impl KvCatalogLog {
    /// Read the checkpoint and find the head of the log. Blocks; an empty store is an empty catalog.
    pub fn open(kv: Arc<dyn KvStore>) -> Result<Self> {
        let saved = read_checkpoint(&*kv)?;
        let mut sizes = VecDeque::new();
        scan_log(&*kv, saved.rev(), |_, value| {
            sizes.push_back(value.len() as u64);
            Ok(())
        })?;
        let tail = Tail { saved, sizes };
        let head = watch::Sender::new(tail.head());
        let (saving, writer, tail) = (Mutex::default(), Mutex::default(), Mutex::new(tail));
        Ok(Self { inner: Arc::new(Inner { kv, saving, writer, tail, head }) })
    }
}

impl CatalogLog for KvCatalogLog {
    fn commit(&self, base: Rev, changes: Arc<ChangeSet>) -> BoxFuture<'_, Result<Outcome>> {
        let inner = self.inner.clone();
        Box::pin(blocking(move || inner.append(base, &changes)))
    }

    fn checkpoint(&self) -> BoxFuture<'_, Result<State>> {
        let inner = self.inner.clone();
        Box::pin(blocking(move || inner.replay()))
    }

    fn watch(&self, from: Rev) -> Watch {
        let cursor = Cursor { inner: Arc::downgrade(&self.inner), head: self.inner.head.subscribe(), at: from };
        futures_util::stream::unfold(Some(cursor), |cursor| async { cursor?.next().await }).boxed()
    }

    fn save(&self, state: Arc<State>) -> BoxFuture<'_, Result<()>> {
        let inner = self.inner.clone();
        Box::pin(blocking(move || inner.save(&state)))
    }

    fn backlog(&self) -> Backlog {
        let tail = self.inner.tail.lock();
        Backlog { sets: tail.sizes.len(), bytes: tail.sizes.iter().sum() }
    }
}

impl Inner {
    fn append(&self, base: Rev, changes: &ChangeSet) -> Result<Outcome> {
        let _writer = self.writer.lock();
        let head = self.tail.lock().head();
        if base != head {
            return Ok(Outcome::Refused(head));
        }
        let rev = head.next();
        let value = encode("change set", changes)?;
        if value.len() > MAX_CHANGE_SET {
            let what = format!("change set of {} bytes, more than {MAX_CHANGE_SET}", value.len());
            return Err(Error::invalid(what).remedy("change fewer objects at once"));
        }
        let size = value.len() as u64;
        let mut batch = Batch::new();
        batch.put(LOG, log_key(rev), value);
        self.kv.write(batch, Durability::Synced)?;
        self.tail.lock().sizes.push_back(size);
        self.head.send_replace(rev);
        Ok(Outcome::Done(rev))
    }

    /// The checkpoint with the log behind it applied.
    fn replay(&self) -> Result<State> {
        let _saving = self.saving.lock();
        let (mut state, head) = {
            let tail = self.tail.lock();
            (tail.saved.clone(), tail.head())
        };
        scan_log(&*self.kv, state.rev(), |rev, value| {
            // Behind the head there may be a set whose put failed: it was never answered.
            if rev > head {
                return Ok(());
            }
            let set: ChangeSet = decode(SetName(rev), value)?;
            state.apply_set(rev, &set).map_err(|e| damaged_log(rev, e))
        })?;
        Ok(state)
    }

    fn save(&self, state: &State) -> Result<()> {
        let _saving = self.saving.lock();
        let (saved, head) = {
            let tail = self.tail.lock();
            (tail.saved.clone(), tail.head())
        };
        if state.rev() <= saved.rev() {
            return Ok(());
        }
        if state.rev() > head {
            return Err(Error::internal(format!("catalog checkpoint {} is ahead of the log", state.rev().0)));
        }
        let touched = self.clones_touched(saved.rev(), state.rev())?;
        self.kv.write(checkpoint_batch(&saved, state, touched)?, Durability::Buffered)?;
        let mut tail = self.tail.lock();
        for _ in saved.rev().0..state.rev().0 {
            tail.sizes.pop_front();
        }
        tail.saved = state.clone();
        Ok(())
    }

    /// The clones whose records the change sets `from < rev <= to` touch.
    fn clones_touched(&self, from: Rev, to: Rev) -> Result<BTreeSet<ExportId>> {
        let mut touched = BTreeSet::new();
        scan_log(&*self.kv, from, |rev, value| {
            if rev <= to {
                let set: ChangeSet = decode(SetName(rev), value)?;
                touched.extend(set.changes.iter().flat_map(Change::clones));
            }
            Ok(())
        })?;
        Ok(touched)
    }

    fn set(&self, rev: Rev) -> Result<Option<Arc<ChangeSet>>> {
        let value = self.kv.get(LOG, &log_key(rev))?;
        value.map(|v| decode(SetName(rev), &v).map(Arc::new)).transpose()
    }
}

/// A watch: where it is, and the head that it follows.
struct Cursor {
    inner: Weak<Inner>,
    head: watch::Receiver<Rev>,
    at: Rev,
}

type Item = Result<(Rev, Arc<ChangeSet>), WatchError>;

impl Cursor {
    async fn next(mut self) -> Option<(Item, Option<Self>)> {
        self.head.wait_for(|head| *head > self.at).await.ok()?;
        let (inner, rev) = (self.inner.upgrade()?, self.at.next());
        Some(match blocking(move || inner.set(rev)).await {
            Ok(Some(set)) => (Ok((rev, set)), Some(Self { at: rev, ..self })),
            Ok(None) => (Err(WatchError::Compacted), None),
            Err(e) => (Err(WatchError::Failed(e)), None),
        })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|e| Err(Error::internal("the catalog log's worker ended").because(e)))
}

fn log_key(rev: Rev) -> [u8; 8] {
    rev.0.to_be_bytes()
}

/// Visit the change sets after `from`, which must follow each other without gaps.
fn scan_log(kv: &dyn KvStore, from: Rev, mut visit: impl FnMut(Rev, &[u8]) -> Result<()>) -> Result<()> {
    let mut expected = from.next();
    scan(kv, LOG, &log_key(expected), |key, value| {
        if key != log_key(expected) {
            return Err(Error::corrupt(format!("catalog log: change set {} is missing", expected.0))
                .remedy("restore the data directory from a backup"));
        }
        visit(expected, value)?;
        expected = expected.next();
        Ok(())
    })
}

/// Scan a table from `from` to its end, until `visit` fails.
fn scan(kv: &dyn KvStore, table: Table, from: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    let mut outcome = Ok(());
    kv.scan(table, from, &[], &mut |key, value| {
        outcome = visit(key, value);
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    outcome
}

fn damaged_log(rev: Rev, cause: Error) -> Error {
    Error::corrupt(format!("{} cannot be applied", SetName(rev))).because(cause)
}

/// First byte of a record's key. In this order each record finds what it refers to.
mod kind {
    pub const STORE: u8 = 1;
    pub const IMAGE: u8 = 2;
    pub const VERSION: u8 = 3;
    pub const CLONE: u8 = 4;
    pub const SNAPSHOT: u8 = 5;
    pub const OPERATION: u8 = 6;
}

fn key1(kind: u8, id: u64) -> Vec<u8> {
    [&[kind][..], &id.to_be_bytes()].concat()
}

fn key2(kind: u8, id: u64, number: u32) -> Vec<u8> {
    [&[kind][..], &id.to_be_bytes(), &number.to_be_bytes()].concat()
}

fn snapshot_key(clone: ExportId, name: &str) -> Vec<u8> {
    [&[kind::SNAPSHOT][..], &clone.0.to_be_bytes(), name.as_bytes()].concat()
}

fn read_checkpoint(kv: &dyn KvStore) -> Result<State> {
    let Some(applied) = kv.get(META, APPLIED)? else { return Ok(State::default()) };
    let Applied { rev, next_id } = decode("catalog checkpoint", &applied)?;
    let mut state = State::default();
    scan(kv, RECORDS, &[], |key, value| {
        let change = read_record(key, value)?;
        state.apply(&change).map_err(|e| Error::corrupt(format!("{} does not fit", RecordName(key))).because(e))
    })?;
    Ok(state.restored(rev, next_id))
}

fn read_record(key: &[u8], value: &[u8]) -> Result<Change> {
    fn of<T: DeserializeOwned>(key: &[u8], value: &[u8], change: fn(T) -> Change) -> Result<Change> {
        decode(RecordName(key), value).map(change)
    }
    match key.first() {
        Some(&kind::STORE) => of(key, value, Change::PutStore),
        Some(&kind::IMAGE) => of(key, value, Change::PutImage),
        Some(&kind::VERSION) => of(key, value, Change::PutVersion),
        Some(&kind::CLONE) => of(key, value, Change::PutClone),
        Some(&kind::SNAPSHOT) => of(key, value, Change::PutSnapshot),
        Some(&kind::OPERATION) => of(key, value, Change::PutOperation),
        _ => Err(Error::corrupt(format!("{} is of no known kind", RecordName(key)))),
    }
}

/// Names a record in errors, by its key.
struct RecordName<'a>(&'a [u8]);

impl fmt::Display for RecordName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("catalog record ")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Names a change set in errors.
struct SetName(Rev);

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "catalog change set {}", self.0.0)
    }
}

/// From the checkpoint `saved` to `state`: the records that differ, and the log up to there gone.
fn checkpoint_batch(saved: &State, state: &State, touched: BTreeSet<ExportId>) -> Result<Batch> {
    let difference = state.since(saved);
    let mut batch = Batch::new();
    if let Some(store) = difference.store {
        put_record(&mut batch, vec![kind::STORE], Some(store))?;
    }
    for (id, image) in difference.images {
        put_record(&mut batch, key1(kind::IMAGE, id.0), image)?;
    }
    for ((image, number), version) in difference.versions {
        put_record(&mut batch, key2(kind::VERSION, image.0, number), version)?;
    }
    for id in touched {
        put_record(&mut batch, key1(kind::CLONE, id.0), state.clone_by_id(id).map(|clone| &**clone))?;
    }
    for ((clone, name), snapshot) in difference.snapshots {
        put_record(&mut batch, snapshot_key(clone, &name), snapshot)?;
    }
    for (id, operation) in difference.operations {
        put_record(&mut batch, key1(kind::OPERATION, id.0), operation)?;
    }
    let applied = Applied { rev: state.rev(), next_id: state.next_id() };
    batch.put(META, APPLIED, encode("catalog checkpoint", &applied)?);
    batch.delete_range(LOG, log_key(Rev(0)), log_key(state.rev().next()));
    Ok(batch)
}

fn put_record<T: Serialize>(batch: &mut Batch, key: Vec<u8>, record: Option<&T>) -> Result<()> {
    match record {
        Some(record) => {
            let value = encode(RecordName(&key), record)?;
            batch.put(RECORDS, key, value);
        }
        None => batch.delete(RECORDS, key),
    }
    Ok(())
}

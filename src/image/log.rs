//! The catalog's log: change sets in one order, each computed from the revision before it.
//!
//! Owns the [`CatalogLog`] trait, its single-node backend over a key-value store and its in-memory
//! twin. A commit is a compare-and-set: the change set is appended whole as the next revision, or
//! refused because somebody was first. An outcome may be unknown; then the caller offers the same set
//! at the same revision again, and the compare-and-set tells whether the first one landed.
//!
//! Invariants: revisions have no gaps; what was answered `Done` is durable; a checkpoint holds every
//! change set that was answered before it was asked for.
//!
//! Failure story: an error means that the log cannot take changes now; the set may still turn up
//! after a restart, never before a later commit at the same revision.

mod kv;
mod memory;

pub use kv::{CATALOG_TABLES, KvCatalogLog};
pub use memory::{Fault, MemoryCatalogLog};

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::change::ChangeSet;
use super::state::State;
use crate::error::{Error, Result};

/// Largest change set, encoded, in bytes.
pub const MAX_CHANGE_SET: usize = 64 * 1024 * 1024;

/// A revision of the catalog: how many change sets led to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rev(pub u64);

impl Rev {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What became of a change set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable, as this revision.
    Done(Rev),
    /// It is not in the log: somebody was first, and this is the newest revision.
    Refused(Rev),
    /// It may be in the log or may yet get there.
    Unknown,
}

/// Change sets since the last checkpoint that was saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub sets: usize,
    pub bytes: u64,
}

/// Why a watch ended.
#[derive(Debug)]
pub enum WatchError {
    /// The change sets that come next are no longer kept: start again from a checkpoint.
    Compacted,
    Failed(Error),
}

/// Change sets in the order of their revisions, without gaps.
pub type Watch = BoxStream<'static, Result<(Rev, Arc<ChangeSet>), WatchError>>;

/// A log of change sets. One contract suite (`tests/contracts/catalog.rs`) for all of them.
pub trait CatalogLog: Send + Sync + 'static {
    /// Append `changes`, which were computed from the state at `base`. Durable when `Done`.
    fn commit(&self, base: Rev, changes: Arc<ChangeSet>) -> BoxFuture<'_, Result<Outcome>>;

    /// The state to open from; its [`State::rev`] is the newest revision.
    fn checkpoint(&self) -> BoxFuture<'_, Result<State>>;

    /// The change sets after `from`, as they come. Ends after an error, or when the log is dropped.
    fn watch(&self, from: Rev) -> Watch;

    /// Keep `state` as the checkpoint from which later openings replay, and forget the change sets
    /// that led to it.
    fn save(&self, state: Arc<State>) -> BoxFuture<'_, Result<()>>;

    /// What an opening would have to replay now.
    fn backlog(&self) -> Backlog;
}

//! The catalog's log in memory: the twin for tests, with faults on demand.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Backlog, CatalogLog, Outcome, Rev, Watch, WatchError};
use crate::error::{Error, ErrorKind, Result};
use crate::image::change::ChangeSet;
use crate::image::state::State;

/// What happens to a later commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refused, although nobody was first.
    Refuse,
    /// An error; not in the log.
    Fail,
    /// An error; it is in the log all the same, as the next opening finds.
    FailLanded,
    /// Outcome unknown; not in the log.
    UnknownLost,
    /// Outcome unknown; it is in the log.
    UnknownDone,
}

/// An in-memory [`CatalogLog`]. Clones share one log, as front ends do.
#[derive(Clone)]
pub struct MemoryCatalogLog {
    inner: Arc<Inner>,
}

struct Inner {
    log: Mutex<Log>,
    head: watch::Sender<Rev>,
}

#[derive(Default)]
struct Log {
    saved: State,
    /// Those after `saved`.
    sets: VecDeque<Arc<ChangeSet>>,
    faults: VecDeque<Fault>,
    commits: u64,
}

impl Log {
    fn head(&self) -> Rev {
        Rev(self.saved.rev().0 + self.sets.len() as u64)
    }

    fn set(&self, rev: Rev) -> Option<Arc<ChangeSet>> {
        let behind = rev.0.checked_sub(self.saved.rev().next().0)?;
        self.sets.get(usize::try_from(behind).ok()?).cloned()
    }

    fn save(&mut self, state: &State) {
        let covered = state.rev().0.saturating_sub(self.saved.rev().0);
        if covered > 0 {
            self.sets.drain(..usize::try_from(covered).unwrap_or(usize::MAX).min(self.sets.len()));
            self.saved = state.clone();
        }
    }

    fn append(&mut self, changes: Arc<ChangeSet>) -> Rev {
        self.sets.push_back(changes);
        self.head()
    }

    fn commit(&mut self, base: Rev, changes: Arc<ChangeSet>) -> Result<Outcome> {
        self.commits += 1;
        let head = self.head();
        let fault = self.faults.pop_front();
        match fault {
            Some(Fault::Refuse) => return Ok(Outcome::Refused(head)),
            Some(Fault::Fail) => return Err(failed()),
            Some(Fault::FailLanded) => {
                self.append(changes);
                return Err(failed());
            }
            Some(Fault::UnknownLost) => return Ok(Outcome::Unknown),
            Some(Fault::UnknownDone) | None => {}
        }
        if base != head {
            return Ok(Outcome::Refused(head));
        }
        let rev = self.append(changes);
        Ok(if fault.is_none() { Outcome::Done(rev) } else { Outcome::Unknown })
    }
}

fn failed() -> Error {
    Error::new(ErrorKind::Io, "the in-memory catalog log fails as told")
}

impl MemoryCatalogLog {
    pub fn new() -> Self {
        Self { inner: Arc::new(Inner { log: Mutex::default(), head: watch::Sender::new(Rev::default()) }) }
    }

    /// A copy of the log as it is now: a backup, or the log as another process finds it.
    pub fn copy(&self) -> Self {
        let log = self.inner.log.lock();
        let copy = Log { saved: log.saved.clone(), sets: log.sets.clone(), ..Log::default() };
        Self { inner: Arc::new(Inner { head: watch::Sender::new(copy.head()), log: Mutex::new(copy) }) }
    }

    /// What happens to the next commits, one fault each.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.inner.log.lock().faults.extend(faults);
    }

    /// Commits that were tried, whatever became of them.
    pub fn count_commits(&self) -> u64 {
        self.inner.log.lock().commits
    }
}

impl Default for MemoryCatalogLog {
    fn default() -> Self {
        Self::new()
    }
}

impl CatalogLog for MemoryCatalogLog {
    fn commit(&self, base: Rev, changes: Arc<ChangeSet>) -> BoxFuture<'_, Result<Outcome>> {
        let mut log = self.inner.log.lock();
        let outcome = log.commit(base, changes);
        self.inner.head.send_replace(log.head());
        Box::pin(ready(outcome))
    }

    fn checkpoint(&self) -> BoxFuture<'_, Result<State>> {
        let log = self.inner.log.lock();
        let mut state = log.saved.clone();
        let replayed = log.sets.iter().try_for_each(|set| state.apply_set(state.rev().next(), set));
        Box::pin(ready(replayed.map(|()| state)))
    }

    fn watch(&self, from: Rev) -> Watch {
        let cursor = Cursor { inner: Arc::downgrade(&self.inner), head: self.inner.head.subscribe(), at: from };
        futures_util::stream::unfold(Some(cursor), |cursor| async { cursor?.next().await }).boxed()
    }

    fn save(&self, state: Arc<State>) -> BoxFuture<'_, Result<()>> {
        let mut log = self.inner.log.lock();
        let saved = if state.rev() > log.head() {
            Err(Error::internal(format!("catalog checkpoint {} is ahead of the log", state.rev().0)))
        } else {
            log.save(&state);
            Ok(())
        };
        Box::pin(ready(saved))
    }

    fn backlog(&self) -> Backlog {
        Backlog { sets: self.inner.log.lock().sets.len(), bytes: 0 }
    }
}

struct Cursor {
    inner: Weak<Inner>,
    head: watch::Receiver<Rev>,
    at: Rev,
}

type Item = Result<(Rev, Arc<ChangeSet>), WatchError>;

impl Cursor {
    async fn next(mut self) -> Option<(Item, Option<Self>)> {
        self.head.wait_for(|head| *head > self.at).await.ok()?;
        let rev = self.at.next();
        let found = self.inner.upgrade()?.log.lock().set(rev);
        Some(match found {
            Some(set) => (Ok((rev, set)), Some(Self { at: rev, ..self })),
            None => (Err(WatchError::Compacted), None),
        })
    }
}

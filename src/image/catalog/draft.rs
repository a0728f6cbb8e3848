//! A state in the making, and the changes that made it.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::env::{Clock, Time};
use crate::error::{Error, ErrorKind, Result};
use crate::image::change::Change;
use crate::image::state::State;

/// Identifiers that the committer takes from the store's sequence at once. Those that a stop leaves
/// unused are lost; there are 2^20 for each millisecond.
const GRANT: u64 = 1 << 16;

/// What a transaction works on: it reads like a [`State`] and collects changes.
pub struct Draft {
    state: State,
    changes: Vec<Change>,
    ids: Range<u64>,
    clock: Arc<dyn Clock>,
}

impl Deref for Draft {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl Draft {
    /// On `state`; `ids` are granted and unused.
    pub(super) fn new(state: State, ids: Range<u64>, clock: Arc<dyn Clock>) -> Self {
        Self { state, changes: Vec::new(), ids, clock }
    }

    /// Make one change. After an error the transaction must fail.
    pub fn apply(&mut self, change: Change) -> Result<()> {
        self.state.apply(&change)?;
        self.changes.push(change);
        Ok(())
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// An identifier that was never handed out and never will be again.
    pub fn new_id(&mut self) -> Result<u64> {
        if self.ids.is_empty() {
            self.ids = self.grant(GRANT)?;
        }
        self.ids.next().ok_or_else(|| Error::internal("an empty grant of identifiers"))
    }

    /// The first of `count` consecutive identifiers of that kind.
    pub fn new_ids(&mut self, count: u64) -> Result<u64> {
        if self.ids.end - self.ids.start < count {
            self.ids = self.grant(count.max(GRANT))?;
        }
        let first = self.ids.start;
        self.ids.start += count;
        Ok(first)
    }

    /// A new range of the store's sequence. It starts where the clock says, so that after a restore
    /// from an older backup nothing is handed out that was handed out since.
    pub(super) fn grant(&mut self, count: u64) -> Result<Range<u64>> {
        let clock = self.now().millis().min(u64::MAX >> 20) << 20;
        let start = self.state.next_id().max(clock);
        let next = start.checked_add(count).ok_or_else(exhausted)?;
        self.apply(Change::GrantIds { next })?;
        Ok(start..next)
    }

    /// An empty draft on top of this one.
    pub(super) fn branch(&self) -> Self {
        Self::new(self.state.clone(), self.ids.clone(), self.clock.clone())
    }

    /// Take over a branch.
    pub(super) fn merge(&mut self, mut branch: Self) {
        self.changes.append(&mut branch.changes);
        (self.state, self.ids) = (branch.state, branch.ids);
    }

    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The state, its changes, and the identifiers that are left.
    pub(super) fn into_parts(self) -> (State, Vec<Change>, Range<u64>) {
        (self.state, self.changes, self.ids)
    }
}

fn exhausted() -> Error {
    Error::new(ErrorKind::NoSpace, "the store has no identifiers left").remedy("check the machine's clock")
}

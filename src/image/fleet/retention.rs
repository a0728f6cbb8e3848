//! How long operations that have ended are kept, and what they need for a rollback.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::Fleet;
use super::operations::still_staged;
use crate::env::Time;
use crate::error::Result;
use crate::image::catalog::Draft;
use crate::image::change::Change;
use crate::image::operation::OperationRecord;
use crate::image::record::{OperationId, SnapshotRecord};
use crate::image::state::State;

/// Operations that have ended, whatever their age.
pub const MAX_ENDED: usize = 4096;
/// Clones that all of them name together: some 64 MiB of memory.
pub const MAX_ENDED_CLONES: usize = 8 << 20;

/// Automatic snapshots that one step removes.
const MAX_SNAPSHOTS: usize = 4096;

/// What is kept of operations that have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many, the newest.
    pub operations: usize,
    /// For so long.
    pub age: Duration,
    /// Each for so long at least, because it may be rolled back; only [`MAX_ENDED`] and
    /// [`MAX_ENDED_CLONES`] end that earlier.
    pub window: Duration,
}

impl Fleet {
    /// Forget what is not kept; answers how many there were.
    pub async fn forget_operations(&self, keep: Retention) -> Result<usize> {
        let catalog = self.catalog();
        if forgettable(&catalog.state(), keep, catalog.now()).is_empty() {
            return Ok(0);
        }
        let forget = move |draft: &mut Draft| {
            let forgotten = forgettable(draft, keep, draft.now());
            forgotten.iter().try_for_each(|id| draft.apply(Change::RemoveOperation(*id)))?;
            Ok(forgotten.len())
        };
        catalog.transact("forget operations", forget).await
    }
}

impl Fleet {
    /// Automatic snapshots that are older than `window` and not of an operation that goes on, at most
    /// [`MAX_SNAPSHOTS`].
    pub fn outdated_snapshots(&self, window: Duration) -> Vec<Arc<SnapshotRecord>> {
        let catalog = self.catalog();
        outdated(&catalog.state(), window, catalog.now())
    }

    /// Remove these automatic snapshots, as far as they are outdated still; answers how many.
    pub async fn forget_snapshots(&self, snapshots: &[Arc<SnapshotRecord>], window: Duration) -> Result<usize> {
        let meant: HashSet<_> = snapshots.iter().map(|snapshot| snapshot.id).collect();
        let catalog = self.catalog();
        let forget = move |draft: &mut Draft| {
            let mut outdated = outdated(draft, window, draft.now());
            outdated.retain(|snapshot| meant.contains(&snapshot.id));
            for snapshot in &outdated {
                draft.apply(Change::RemoveSnapshot { clone: snapshot.clone, name: snapshot.name.clone() })?;
            }
            Ok(outdated)
        };
        let forgotten = catalog.transact("forget automatic snapshots", forget).await?;
        self.release(forgotten.iter().flat_map(|snapshot| &snapshot.layers));
        Ok(forgotten.len())
    }
}

fn outdated(state: &State, window: Duration, now: Time) -> Vec<Arc<SnapshotRecord>> {
    let over = |snapshot: &SnapshotRecord| {
        let operation = snapshot.operation.and_then(|id| state.operation(id));
        // An operation that ended late may be rolled back for as long as any other.
        let since = operation.map_or(snapshot.created, |operation| operation.last_step().max(snapshot.created));
        operation.is_none_or(|operation| operation.ended()) && is_older(since, window, now)
    };
    // What somebody gave a label is his.
    let automatic = state.snapshots().filter(|snapshot| snapshot.auto() && snapshot.labels.is_empty());
    automatic.filter(|snapshot| over(snapshot)).take(MAX_SNAPSHOTS).cloned().collect()
}

fn forgettable(state: &State, keep: Retention, now: Time) -> Vec<OperationId> {
    let ended = state.operations().rev().filter(|operation| operation.ended());
    let (mut newer, mut clones) = (0, 0);
    let mut goes = |operation: &OperationRecord| {
        let full = newer >= MAX_ENDED || clones + operation.count_clones() > MAX_ENDED_CLONES;
        let surplus = newer >= keep.operations || is_older(operation.last_step(), keep.age, now);
        let settled = is_older(operation.last_step(), keep.window, now) && still_staged(state, operation).is_empty();
        let goes = full || (surplus && settled);
        if !goes {
            newer += 1;
            clones += operation.count_clones();
        }
        goes
    };
    ended.filter(|operation| goes(operation)).map(|operation| operation.id).collect()
}

fn is_older(time: Time, age: Duration, now: Time) -> bool {
    let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
    time.secs.saturating_add(age) <= now.secs
}

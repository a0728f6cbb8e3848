//! What dry runs saw of clones, so that the run tells which of them moved since.
//!
//! Owns the newest dry runs, in memory: what each was about, and of each of its clones the view and how far that was
//! written. The next run of the same repoint is measured against its dry run, an operation wave by wave.
//!
//! Failure story: what is forgotten (at a restart, or for newer ones) is not told. Nothing else depends on it: each
//! switch looks at its clones by itself.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use super::operations::Part;
use super::{Instant, RepointPlan};
use crate::image::record::{ExportId, OperationId};
use crate::image::state::State;
use crate::overlay::Position;

/// Dry runs that are remembered.
const MAX_DRY_RUNS: usize = 64;
/// Clones of all of them: some 50 MiB.
const MAX_CLONES: usize = 1 << 20;

#[derive(Default)]
pub(super) struct DryRuns(Mutex<VecDeque<DryRun>>);

struct DryRun {
    plan: RepointPlan,
    /// Begun since, in waves.
    operation: Option<OperationId>,
    /// The number of each clone's view, and the position of its newest change.
    seen: HashMap<ExportId, (u64, Position)>,
}

impl DryRuns {
    /// A dry run of `plan` saw the clones at this instant.
    pub fn remember(&self, plan: &RepointPlan, instant: &Instant) {
        let mut runs = self.0.lock();
        runs.retain(|run| !run.is_of(plan));
        runs.push_back(DryRun { plan: plan.clone(), operation: None, seen: seen(instant).collect() });
        while runs.len() > MAX_DRY_RUNS || runs.iter().map(|run| run.seen.len()).sum::<usize>() > MAX_CLONES {
            runs.pop_front();
        }
    }

    /// An operation begins in this state that was predicted as a repoint by `plan`.
    pub fn begun(&self, plan: &RepointPlan, operation: OperationId, state: &State) {
        // One that was begun in a change set that came to nothing is to be begun still.
        let open = |run: &DryRun| run.plan == *plan && run.operation.is_none_or(|id| state.operation(id).is_none());
        if let Some(run) = self.0.lock().iter_mut().find(|run| open(run)) {
            run.operation = Some(operation);
        }
    }

    /// What a dry run of `plan` predicted has been done.
    pub fn done(&self, plan: &RepointPlan) {
        self.0.lock().retain(|run| !run.is_of(plan));
    }

    /// The clones that are not as the dry run saw them, or that it did not see.
    pub fn moved(&self, plan: &RepointPlan, part: &Part, instant: &Instant) -> Vec<ExportId> {
        let runs = self.0.lock();
        let run = runs.iter().find(|run| match part {
            Part::Whole { .. } => run.is_of(plan),
            Part::Wave { operation, .. } => run.operation == Some(*operation),
            Part::Staged { .. } => false,
        });
        let Some(run) = run else { return Vec::new() };
        seen(instant).filter(|(id, now)| run.seen.get(id) != Some(now)).map(|(id, _)| id).collect()
    }
}

impl DryRun {
    fn is_of(&self, plan: &RepointPlan) -> bool {
        self.operation.is_none() && self.plan == *plan
    }
}

fn seen(instant: &Instant) -> impl Iterator<Item = (ExportId, (u64, Position))> {
    instant.clones.iter().map(|clone| {
        let written = instant.sealed.layer(clone.view.top).map_or(0, |layer| layer.upto);
        (clone.id, (clone.view.number, written))
    })
}

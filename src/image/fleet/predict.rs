//! Predictions: what a repoint or an operation would do now.
//!
//! Owns no rule of its own: clones are looked at as a switch looks at them, at one instant, and then the very code of
//! each step runs on a draft that nothing comes of. So what is predicted is what is done, if nothing is written
//! until then and every gate is passed.
//!
//! Failure story: what would be refused at once is refused here with the same error. A wave that would fail is no
//! error: the operation that is predicted halts, or rolls back.

use std::sync::Arc;

use super::keep::{Kept, Purpose, ReadInstant};
use super::operations::{NewOperation, Part, advance, begun, failed, start, wave_failure, wave_plan};
use super::repoint::{Ready, RepointDone, RepointOutcome, RepointPlan, outcome, run};
use super::{Fleet, Freeze, Instant};
use crate::error::{Error, Result};
use crate::image::catalog::Draft;
use crate::image::operation::{Next, OperationRecord, OperationState};
use crate::image::record::{CloneRecord, OperationId, VersionRecord};
use crate::image::state::State;

/// What a repoint would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    pub outcome: RepointOutcome,
    /// Why nothing would be switched at all.
    pub refused: Option<String>,
}

/// What an operation would come to.
pub struct OperationPrediction {
    /// As it would be when it ends, halts or begins to roll back.
    pub operation: Arc<OperationRecord>,
    /// What the catalog would say then.
    pub state: State,
    /// What would become of each clone by itself, also in the waves that would not come.
    pub outcome: RepointOutcome,
}

impl Fleet {
    /// What a repoint would do now.
    pub async fn predict(&self, plan: &RepointPlan) -> Result<Prediction> {
        let part = Part::Whole { who: self.who.clone() };
        let foreseen = Foreseen::now(self, plan, &part).await?;
        let clones = &foreseen.instant.clones;
        let rehearsal = self.catalog.rehearse(&foreseen.state, |draft| foreseen.switch(draft, plan, &part, clones));
        Ok(Prediction { outcome: foreseen.outcome(plan)?, refused: rehearsal.err().map(|error| error.to_string()) })
    }

    /// What an operation that begins now would come to.
    pub async fn predict_operation(&self, new: &NewOperation) -> Result<OperationPrediction> {
        new.rollout.check()?;
        let begin = |draft: &mut Draft| start(draft, new, &self.who);
        // Before anything is looked at.
        self.catalog.rehearse(&self.catalog.state(), begin)?;
        let foreseen = Foreseen::now(self, &new.repoint, &Part::Whole { who: self.who.clone() }).await?;
        let (mut operation, mut state) = self.catalog.rehearse(&foreseen.state, begin)?;
        while operation.state == OperationState::Active {
            state = self.next_step(&foreseen, &state, &operation)?;
            operation = state.find_operation(operation.id)?.clone();
        }
        Ok(OperationPrediction { operation, state, outcome: foreseen.outcome(&new.repoint)? })
    }

    /// The catalog after the next step of an operation, of which every gate is passed.
    fn next_step(&self, foreseen: &Foreseen, state: &State, operation: &OperationRecord) -> Result<State> {
        let (id, next) = (operation.id, operation.next);
        let step = |to: &dyn Fn(&OperationRecord) -> (OperationState, Next)| {
            self.catalog.rehearse(state, |draft| advance(draft, id, next, to)).map(|((), state)| state)
        };
        match next {
            Next::Start => step(&|_| begun()),
            Next::Gate(wave) => step(&|operation| operation.behind_gate(wave)),
            Next::Wave(wave) => match self.catalog.rehearse(state, |draft| foreseen.switch_wave(draft, id, wave)) {
                Ok((_, state)) => Ok(state),
                Err(error) => step(&|operation| failed(operation, next, &wave_failure(wave, &error))),
            },
            Next::Nothing => Err(Error::internal(format!("operation {id} goes on, and nothing comes next"))),
        }
    }
}

/// Clones at one instant, with all that a switch would look at.
struct Foreseen {
    state: Arc<State>,
    version: Arc<VersionRecord>,
    instant: Arc<Instant>,
    kept: Kept,
    /// What was looked at stays readable until the prediction is made.
    _read: ReadInstant,
}

impl Foreseen {
    async fn now(fleet: &Fleet, plan: &RepointPlan, part: &Part) -> Result<Self> {
        let Ready { state, clones, version, keep, mut kept, .. } =
            Ready::make(fleet, plan, part, Purpose::Predict).await?;
        let (frozen, instant) = fleet.hold_still(Freeze::ViewsAndPins, clones).await?;
        let instant = Arc::new(instant);
        let read = ReadInstant::new(fleet, instant.clone());
        drop(frozen);
        kept.look(fleet, &state, &version, &keep, &instant, Purpose::Predict).await?;
        // What was written meanwhile is in the prediction.
        kept.moved.clear();
        fleet.dry_runs.remember(plan, &instant);
        Ok(Self { state, version, instant, kept, _read: read })
    }

    fn outcome(&self, plan: &RepointPlan) -> Result<RepointOutcome> {
        let Instant { clones, sealed } = &*self.instant;
        outcome(&self.state, plan, &self.version, clones, sealed, &self.kept)
    }

    fn switch(
        &self,
        draft: &mut Draft,
        plan: &RepointPlan,
        part: &Part,
        clones: &[Arc<CloneRecord>],
    ) -> Result<RepointDone> {
        run(draft, plan, part, clones, &self.instant.sealed, &self.kept)
    }

    fn switch_wave(&self, draft: &mut Draft, operation: OperationId, wave: usize) -> Result<RepointDone> {
        let (plan, part) = (wave_plan(draft, operation)?, Part::Wave { operation, wave });
        let clones = part.choose(draft, &plan)?;
        self.switch(draft, &plan, &part, &clones)
    }
}

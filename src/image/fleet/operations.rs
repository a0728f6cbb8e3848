//! Operations: begun, gone on with wave by wave, paused, aborted.
//!
//! Owns every step that an operation takes in the catalog. Each is one change set, made only if the
//! operation still is where the caller thinks it is; so it does not matter who takes it, nor how often it is
//! tried. A wave's switch carries its outcome with it ([`Step`]); so does a repoint without waves, which
//! makes its whole record in the change set that switches.
//!
//! Failure story: a step that fails has changed nothing; who took it tells the operation so
//! ([`Fleet::fail`]), and that is a step too.

use std::collections::HashMap;
use std::sync::Arc;

use super::repoint::choose;
use super::{CloneOutcome, Fleet, RepointOutcome, RepointPlan};
use crate::env::Time;
use crate::error::{Error, ErrorKind, Result};
use crate::image::catalog::Draft;
use crate::image::change::Change;
use crate::image::clones::CloneTarget;
use crate::image::names::VersionRef;
use crate::image::operation::{
    Advance, Fate, MAX_UNFINISHED, MAX_WHYS, Next, OnFailure, OperationKind, OperationPlan, OperationRecord,
    OperationState, Rollout, Settled, WaveOutcome, WaveSpec, shortened, split,
};
use crate::image::policy::{Activation, SwitchPolicy};
use crate::image::readers::Quiet;
use crate::image::record::{CloneRecord, ExportId, ImageId, OperationId, Staged, VersionNumber, VersionRecord};
use crate::image::state::State;

/// A repoint in waves, or one that begins later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOperation {
    pub repoint: RepointPlan,
    /// What they leave is the last wave.
    pub waves: Vec<WaveSpec>,
    pub rollout: Rollout,
    /// `None`: at once.
    pub at: Option<Time>,
}

/// Which part of an operation a switch is.
#[derive(Clone)]
pub(super) enum Part {
    /// All of one that is made with it, on behalf of `who`.
    Whole { who: Arc<str> },
    /// What one has staged, for some of its clones; where it is asked whether they are quiet, those that are used
    /// or conflict are left out.
    Staged { by: OperationId, quiet: Option<Arc<dyn Quiet>> },
    /// One wave of one that is there.
    Wave { operation: OperationId, wave: usize },
}

impl Fleet {
    /// Make an operation; its clones are those that are there now. Whoever runs operations goes on with it.
    pub async fn start(&self, new: NewOperation) -> Result<Arc<OperationRecord>> {
        new.rollout.check()?;
        let who = self.who.clone();
        let dry_runs = self.dry_runs.clone();
        let start = move |draft: &mut Draft| {
            let operation = start(draft, &new, &who)?;
            // Before anybody can go on with it.
            dry_runs.begun(&new.repoint, operation.id, draft);
            Ok(operation)
        };
        self.catalog.transact("start an operation", start).await
    }

    /// The time of a scheduled operation has come.
    pub async fn begin(&self, id: OperationId) -> Result<()> {
        self.step("begin an operation", id, Next::Start, |_| begun()).await
    }

    /// Switch a wave: its clones, those excepted that may stay because of conflicts, or none.
    pub async fn switch_wave(&self, id: OperationId, wave: usize) -> Result<()> {
        if self.skip_wave(id, wave).await? {
            return Ok(());
        }
        let plan = wave_plan(&self.catalog.state(), id)?;
        self.repoint_part(plan, Part::Wave { operation: id, wave }).await.map(drop)
    }

    /// A wave of which no clone is left to be switched is done, whatever has become of its version. `false`:
    /// there are some.
    async fn skip_wave(&self, id: OperationId, wave: usize) -> Result<bool> {
        let left = move |state: &State| Ok(!clones_of_wave(state, at(state, id, Next::Wave(wave))?, wave).is_empty());
        if left(&self.catalog.state())? {
            return Ok(false);
        }
        let skip = move |draft: &mut Draft| match left(draft)? {
            true => Ok(false),
            false => record_wave(draft, id, wave, &[]).map(|()| true),
        };
        self.catalog.transact("skip a wave", skip).await
    }

    /// The gates behind a wave are passed.
    pub async fn pass_gate(&self, id: OperationId, wave: usize) -> Result<()> {
        let pass = move |operation: &OperationRecord| operation.behind_gate(wave);
        self.step("pass a gate", id, Next::Gate(wave), pass).await
    }

    /// What came next, when the operation was as `tried`, has failed: it halts, or is to be rolled back. Not if
    /// somebody moved it since, and be it that he paused it and let it go on: that may be what failed.
    pub async fn fail(&self, tried: &OperationRecord, why: &str) -> Result<()> {
        let (id, next, since, why) = (tried.id, tried.next, tried.since, why.to_owned());
        let fail = move |draft: &mut Draft| match at(draft, id, next)?.since == since {
            true => advance(draft, id, next, |operation| failed(operation, next, &why)),
            false => Err(has_moved(id)),
        };
        self.catalog.transact("halt an operation", fail).await
    }

    /// The rollback of a failed operation has failed too.
    pub async fn fail_rollback(&self, id: OperationId, why: &str) -> Result<()> {
        let why = shortened(why);
        let fail = move |operation: &OperationRecord| match operation.state {
            OperationState::RollingBack { .. } => Ok(Some(OperationState::Halted { why: why.clone() })),
            _ => Ok(None),
        };
        self.set_state("halt an operation", id, fail).await.map(drop)
    }

    /// Let an operation stand still before its next step.
    pub async fn pause(&self, id: OperationId) -> Result<Arc<OperationRecord>> {
        let pause = |operation: &OperationRecord| match operation.state {
            OperationState::Active => Ok(Some(OperationState::Paused)),
            OperationState::Paused => Ok(None),
            _ => Err(cannot(operation, "be paused")),
        };
        self.set_state("pause an operation", id, pause).await
    }

    /// Go on with one that is paused or halted; what failed is tried again.
    pub async fn resume(&self, id: OperationId) -> Result<Arc<OperationRecord>> {
        let resume = |operation: &OperationRecord| match operation.state {
            OperationState::Paused | OperationState::Halted { .. } => Ok(Some(OperationState::Active)),
            OperationState::Active => Ok(None),
            _ => Err(cannot(operation, "go on")),
        };
        self.set_state("resume an operation", id, resume).await
    }

    /// End an operation: what is switched stays, what is staged is withdrawn, no wave comes any more.
    pub async fn abort(&self, id: OperationId) -> Result<Arc<OperationRecord>> {
        self.catalog.transact("abort an operation", move |draft| abort(draft, id)).await
    }

    /// From where it is thought to be to what `to` says.
    async fn step(
        &self,
        label: &'static str,
        id: OperationId,
        next: Next,
        to: impl Fn(&OperationRecord) -> (OperationState, Next) + Send + 'static,
    ) -> Result<()> {
        self.catalog.transact(label, move |draft| advance(draft, id, next, &to)).await
    }

    async fn set_state(
        &self,
        label: &'static str,
        id: OperationId,
        to: impl Fn(&OperationRecord) -> Result<Option<OperationState>> + Send + 'static,
    ) -> Result<Arc<OperationRecord>> {
        self.catalog
            .transact(label, move |draft| {
                let operation = draft.find_operation(id)?.clone();
                if let Some(state) = to(&operation)? {
                    let (at, next) = (draft.now(), operation.next);
                    draft.apply(Change::Advance(Advance { operation: id, at, state, next, outcome: None }))?;
                }
                draft.find_operation(id).cloned()
            })
            .await
    }
}

/// One step of the operation, if it runs and this comes next.
pub(super) fn advance(
    draft: &mut Draft,
    id: OperationId,
    next: Next,
    to: impl Fn(&OperationRecord) -> (OperationState, Next),
) -> Result<()> {
    let (state, next) = to(at(draft, id, next)?);
    draft.apply(Change::Advance(Advance { operation: id, at: draft.now(), state, next, outcome: None }))
}

/// What comes when its time has come.
pub(super) fn begun() -> (OperationState, Next) {
    (OperationState::Active, Next::Wave(0))
}

/// What comes when `next` has failed.
pub(super) fn failed(operation: &OperationRecord, next: Next, why: &str) -> (OperationState, Next) {
    let why = shortened(why);
    match operation.plan.rollout.on_failure {
        OnFailure::Rollback if operation.finished().next().is_some() => (OperationState::RollingBack { why }, next),
        _ => (OperationState::Halted { why }, next),
    }
}

/// Why an operation fails of which this wave cannot be switched.
pub fn wave_failure(wave: usize, error: &Error) -> String {
    format!("wave {}: {error}", wave + 1)
}

/// The operation, if it runs and this comes next.
fn at(state: &State, id: OperationId, next: Next) -> Result<&Arc<OperationRecord>> {
    let operation = state.find_operation(id)?;
    if operation.state == OperationState::Active && operation.next == next {
        return Ok(operation);
    }
    Err(has_moved(id))
}

fn has_moved(id: OperationId) -> Error {
    Error::new(ErrorKind::Conflict, format!("operation {id} was paused, ended or moved on meanwhile"))
        .remedy(format!("see `mimeo ops show {id}`"))
}

fn cannot(operation: &OperationRecord, what: &str) -> Error {
    let (id, why) = (operation.id, if operation.ended() { "it has ended" } else { "it stands still or rolls back" });
    Error::new(ErrorKind::Conflict, format!("operation {id} cannot {what}: {why}"))
        .remedy(format!("see `mimeo ops show {id}`"))
}

/// Make the record of an operation, and stage its clones if it begins later.
pub(super) fn start(draft: &mut Draft, new: &NewOperation, who: &Arc<str>) -> Result<Arc<OperationRecord>> {
    let clones = choose(draft, &new.repoint)?;
    check_unplanned(draft, &clones, None)?;
    check_unfinished(draft)?;
    let version = draft.find_version(&new.repoint.to)?.clone();
    let (id, created) = (OperationId(draft.new_id()?), draft.now());
    let plan = OperationPlan {
        policy: new.repoint.policy.clone(),
        max_failures: new.repoint.max_failures,
        at: new.at,
        rollout: new.rollout.clone(),
        waves: split(&clones, &new.waves)?,
    };
    let next = if plan.at.is_some() { Next::Start } else { Next::Wave(0) };
    if plan.at.is_some() {
        let clones = plan.waves.concat();
        stage(draft, clones, Some(staged(id, &version, &plan.policy, created, plan.at)))?;
    }
    draft.apply(Change::PutOperation(OperationRecord {
        id,
        kind: OperationKind::Repoint,
        image: version.image,
        version: Some(version.number),
        who: who.clone(),
        created,
        plan: Arc::new(plan),
        state: OperationState::Active,
        next,
        since: created,
        outcomes: Vec::new(),
        gone: Vec::new(),
        settled: None,
        early: Vec::new(),
    }))?;
    draft.find_operation(id).cloned()
}

fn abort(draft: &mut Draft, id: OperationId) -> Result<Arc<OperationRecord>> {
    let operation = draft.find_operation(id)?.clone();
    let staged = still_staged(draft, &operation);
    let undoing = matches!(operation.state, OperationState::RollingBack { .. });
    if undoing || operation.ended() && staged.is_empty() {
        return Err(cannot(&operation, "be aborted"));
    }
    stage(draft, staged, None)?;
    if !matches!(operation.state, OperationState::RolledBack { .. }) {
        let (at, state) = (draft.now(), OperationState::Aborted);
        draft.apply(Change::Advance(Advance { operation: id, at, state, next: Next::Nothing, outcome: None }))?;
    }
    draft.find_operation(id).cloned()
}

/// Refuse clones that an operation other than `own` has in a wave still to come.
pub(super) fn check_unplanned(state: &State, clones: &[Arc<CloneRecord>], own: Option<OperationId>) -> Result<()> {
    let by_other = |clone| state.planned(clone).filter(|by| own != Some(*by));
    let planned = clones.iter().find_map(|clone| by_other(clone.id).map(|operation| (clone, operation)));
    let Some((clone, id)) = planned else { return Ok(()) };
    let what = format!("clone {:?} is in a wave still to come of operation {id}", clone.name);
    Err(Error::new(ErrorKind::Conflict, what)
        .remedy(format!("wait for it (mimeo ops show {id}), end it (mimeo ops abort {id}), or choose other clones")))
}

fn check_unfinished(state: &State) -> Result<()> {
    if state.operations().filter(|operation| !operation.ended()).count() < MAX_UNFINISHED {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, format!("there are {MAX_UNFINISHED} operations that have not ended"))
        .remedy("wait for some, or abort those that are halted: see `mimeo ops`"))
}

/// The clones that wait for a switch by this operation.
pub(super) fn still_staged(state: &State, operation: &OperationRecord) -> Vec<ExportId> {
    let ours = |id: &ExportId| state.clone_by_id(*id).is_some_and(|clone| is_staged_by(clone, operation.id));
    operation.plan.waves.iter().flatten().copied().filter(ours).collect()
}

fn is_staged_by(clone: &CloneRecord, operation: OperationId) -> bool {
    clone.staged.as_ref().is_some_and(|staged| staged.operation == operation)
}

/// When it is made, there is nothing more to decide but what the clone and its image say.
fn staged(
    operation: OperationId,
    version: &VersionRecord,
    policy: &SwitchPolicy,
    since: Time,
    at: Option<Time>,
) -> Arc<Staged> {
    let activation = if at.is_some() { policy.activation } else { Some(Activation::Live) };
    let policy = SwitchPolicy { activation, ..policy.clone() };
    Arc::new(Staged { version: version.number, policy, operation, since, at })
}

fn stage(draft: &mut Draft, clones: Vec<ExportId>, staged: Option<Arc<Staged>>) -> Result<()> {
    if clones.is_empty() { Ok(()) } else { draft.apply(Change::Stage { clones, staged }) }
}

/// The clones of a wave to come that are there and were not early.
fn clones_of_wave(state: &State, operation: &OperationRecord, wave: usize) -> Vec<Arc<CloneRecord>> {
    let clones = operation.plan.waves.get(wave).into_iter().flatten();
    let clones = clones.filter(|id| operation.settled_early(**id).is_none());
    clones.filter_map(|id| state.clone_by_id(*id).cloned()).collect()
}

/// What a wave does, with the failures that are left to it.
pub(super) fn wave_plan(state: &State, id: OperationId) -> Result<RepointPlan> {
    let operation = state.find_operation(id)?;
    let gone = || Error::not_found(format!("the image of operation {id} was removed"));
    let (image, number) = (state.image(operation.image).ok_or_else(gone)?.name.to_string(), operation.version);
    let number = number.ok_or_else(|| Error::internal(format!("operation {id} has no version to switch to")))?;
    let (to, policy) = (VersionRef::number(image.clone(), number), operation.plan.policy.clone());
    let max_failures = operation.plan.max_failures.saturating_sub(operation.count(&[Fate::Conflicts]));
    Ok(RepointPlan { max_failures, ..RepointPlan::new(&image, to, CloneTarget::All).with(policy) })
}

impl Part {
    fn stager(&self) -> Option<OperationId> {
        match self {
            Self::Staged { by, .. } => Some(*by),
            Self::Whole { .. } | Self::Wave { .. } => None,
        }
    }

    /// Whether somebody uses the clone who must not.
    pub fn is_used(&self, clone: ExportId) -> bool {
        matches!(self, Self::Staged { quiet: Some(quiet), .. } if !quiet.is_quiet(clone))
    }

    /// Whether what cannot be switched stays, and the others are switched.
    pub fn leaves_out(&self) -> bool {
        matches!(self, Self::Staged { quiet: Some(_), .. })
    }

    /// The clones that are meant.
    pub fn choose(&self, state: &State, plan: &RepointPlan) -> Result<Vec<Arc<CloneRecord>>> {
        match self {
            Self::Whole { .. } | Self::Staged { .. } => {
                let clones = choose(state, plan)?;
                check_unplanned(state, &clones, self.stager())?;
                Ok(clones)
            }
            Self::Wave { operation, wave } => {
                let operation = at(state, *operation, Next::Wave(*wave))?;
                Ok(clones_of_wave(state, operation, *wave))
            }
        }
    }
}

/// A switch in the making, as a step of its operation.
pub(super) struct Step<'a> {
    pub operation: OperationId,
    part: &'a Part,
}

impl<'a> Step<'a> {
    pub fn begin(draft: &mut Draft, part: &'a Part, clones: &[Arc<CloneRecord>]) -> Result<Self> {
        let operation = match part {
            Part::Whole { .. } => {
                check_unplanned(draft, clones, None)?;
                OperationId(draft.new_id()?)
            }
            Part::Staged { by, .. } => {
                check_unplanned(draft, clones, Some(*by))?;
                *by
            }
            Part::Wave { operation, wave } => at(draft, *operation, Next::Wave(*wave))?.id,
        };
        Ok(Self { operation, part })
    }

    /// Stage what waits, and record what became of the clones, in the change set of the switch.
    pub fn finish(self, draft: &mut Draft, plan: &RepointPlan, outcome: &RepointOutcome) -> Result<()> {
        let with = |wanted: fn(Fate) -> bool| {
            let clones = outcome.clones.iter().filter(move |clone| wanted(clone.fate));
            clones.map(|clone| clone.id).collect::<Vec<_>>()
        };
        let mark = staged(self.operation, &outcome.version, &plan.policy, draft.now(), None);
        stage(draft, with(|fate| fate == Fate::Staged), Some(mark))?;
        let mut settled = with(|fate| fate != Fate::Staged);
        // Whatever waited for them, by whichever operation: this one is the later word.
        settled.retain(|id| draft.clone_by_id(*id).is_some_and(|clone| clone.staged.is_some()));
        stage(draft, settled, None)?;
        match self.part {
            Part::Staged { .. } => self.settle(draft, outcome),
            Part::Whole { who } => self.record_whole(draft, who, plan, outcome),
            Part::Wave { operation, wave } => record_wave(draft, *operation, *wave, &outcome.clones),
        }
    }

    /// What became of the clones belongs to the operation that staged them, if there is still a record of it.
    fn settle(&self, draft: &mut Draft, outcome: &RepointOutcome) -> Result<()> {
        let settled = |clone: &CloneOutcome| Settled { id: clone.id, fate: clone.fate, from: clone.from };
        let mut clones: Vec<_> = outcome.clones.iter().map(settled).collect();
        clones.sort_unstable_by_key(|settled| settled.id);
        let (operation, nothing) = (self.operation, clones.is_empty() || draft.operation(self.operation).is_none());
        let at = draft.now();
        if nothing { Ok(()) } else { draft.apply(Change::Settle { operation, at, clones }) }
    }

    fn record_whole(
        &self,
        draft: &mut Draft,
        who: &Arc<str>,
        plan: &RepointPlan,
        outcome: &RepointOutcome,
    ) -> Result<()> {
        let wave: Vec<_> = outcome.clones.iter().map(|clone| clone.id).collect();
        let done = wave_outcome(draft.now(), &wave, &outcome.clones);
        let (policy, max_failures) = (plan.policy.clone(), plan.max_failures);
        let whole = Whole {
            kind: OperationKind::Repoint,
            image: outcome.version.image,
            version: Some(outcome.version.number),
            who: who.clone(),
            plan: OperationPlan { policy, max_failures, waves: vec![wave], ..OperationPlan::default() },
        };
        whole.record(draft, self.operation, done)
    }
}

/// An operation of one wave, which is recorded with the switch that does all of it.
pub(super) struct Whole {
    pub kind: OperationKind,
    pub image: ImageId,
    pub version: Option<VersionNumber>,
    pub who: Arc<str>,
    pub plan: OperationPlan,
}

impl Whole {
    pub fn record(self, draft: &mut Draft, id: OperationId, done: WaveOutcome) -> Result<()> {
        let Self { kind, image, version, who, plan } = self;
        draft.apply(Change::PutOperation(OperationRecord {
            id,
            kind,
            image,
            version,
            who,
            created: done.at,
            plan: Arc::new(plan),
            state: OperationState::Done,
            next: Next::Nothing,
            since: done.at,
            outcomes: vec![done],
            gone: Vec::new(),
            settled: None,
            early: Vec::new(),
        }))
    }
}

fn record_wave(draft: &mut Draft, operation: OperationId, wave: usize, done: &[CloneOutcome]) -> Result<()> {
    let record = draft.find_operation(operation)?.clone();
    let (at, (state, next)) = (draft.now(), record.behind_wave(wave));
    let clones = record.plan.waves.get(wave).map_or(&[][..], Vec::as_slice);
    let mut outcome = wave_outcome(at, clones, done);
    outcome.settle_early(clones, &record);
    let outcome = Some(outcome);
    draft.apply(Change::Advance(Advance { operation, at, state, next, outcome }))
}

/// What is told of a clone in [`WaveOutcome::whys`] that was switched.
const MOVED: &str = "it was written or switched after it was looked at first, and planned again";

/// What became of the clones of a wave, and what is to be told of some: why they stay, or that they were planned again.
fn wave_outcome(at: Time, wave: &[ExportId], done: &[CloneOutcome]) -> WaveOutcome {
    let clones: HashMap<_, _> = done.iter().map(|clone| (clone.id, clone)).collect();
    let (stay, rest): (Vec<_>, Vec<_>) = done.iter().partition(|clone| clone.fate == Fate::Conflicts);
    let stay = stay.into_iter().map(|clone| (clone.id, shortened(&clone.first_conflict().unwrap_or_default())));
    let moved = rest.into_iter().filter(|clone| clone.moved).map(|clone| (clone.id, MOVED.into()));
    WaveOutcome {
        at,
        fates: wave.iter().map(|id| clones.get(id).map_or(Fate::Gone, |clone| clone.fate)).collect(),
        from: wave.iter().map(|id| clones.get(id).map_or(0, |clone| clone.from)).collect(),
        whys: stay.chain(moved).take(MAX_WHYS).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::policy::OnConflict;

    fn clone(n: u64, fate: Fate, moved: bool) -> CloneOutcome {
        CloneOutcome {
            id: ExportId(n),
            name: "desk".into(),
            from: 1,
            fate,
            conflicts: Vec::new(),
            conflicts_total: 0,
            conflict: OnConflict::Stop,
            why: (fate == Fate::Conflicts).then(|| "both changed it".into()),
            moved,
        }
    }

    #[test]
    fn clones_that_were_planned_again_are_told_in_their_wave() {
        let done = [clone(1, Fate::Kept, true), clone(2, Fate::Kept, false), clone(3, Fate::Conflicts, true)];
        let outcome = wave_outcome(Time::new(1, 0), &[1, 2, 3].map(ExportId), &done);
        let told = |n| outcome.why(ExportId(n)).map(|why| &**why);
        assert_eq!((told(1), told(2), told(3)), (Some(MOVED), None, Some("both changed it")));
        let many: Vec<_> = (0..=MAX_WHYS as u64).map(|n| clone(n, Fate::Kept, true)).collect();
        assert_eq!(wave_outcome(Time::new(1, 0), &[], &many).whys.len(), MAX_WHYS);
    }
}

//! Operations as documents, and documents as what operations are made of.

use std::collections::HashMap;

use crate::admin::types::{OperationClone, OperationInfo, OutcomeCounts, RolloutWords, WaveInfo};
use crate::admin::views::{image_of, rfc3339, switch_words, version_name};
use crate::error::{Error, Result};
use crate::image::{
    CloneRecord, ExportId, Fate, Next, OnFailure, OperationKind, OperationRecord, OperationState, Rollout, State,
    VersionNumber, WaveOutcome,
};

/// What is not given is as in [`Rollout::default`].
pub(super) fn rollout(words: &RolloutWords) -> Result<Rollout> {
    let usual = Rollout::default();
    Ok(Rollout {
        gates: words.gates.iter().map(|gate| gate.parse()).collect::<Result<_>>()?,
        gate_timeout_secs: words.gate_timeout_secs.unwrap_or(usual.gate_timeout_secs),
        gate_interval_secs: words.gate_interval_secs.unwrap_or(usual.gate_interval_secs),
        soak_secs: words.soak_secs.unwrap_or(usual.soak_secs),
        on_failure: words.on_failure.as_deref().map_or(Ok(usual.on_failure), on_failure)?,
    })
}

fn on_failure(word: &str) -> Result<OnFailure> {
    match word {
        "halt" => Ok(OnFailure::Halt),
        "rollback" => Ok(OnFailure::Rollback),
        _ => Err(Error::invalid(format!("on failure {word:?}")).remedy("one of halt, rollback")),
    }
}

fn rollout_words(rollout: &Rollout) -> RolloutWords {
    let on_failure = match rollout.on_failure {
        OnFailure::Halt => "halt",
        OnFailure::Rollback => "rollback",
    };
    RolloutWords {
        gates: rollout.gates.iter().map(ToString::to_string).collect(),
        gate_timeout_secs: Some(rollout.gate_timeout_secs),
        gate_interval_secs: Some(rollout.gate_interval_secs),
        soak_secs: Some(rollout.soak_secs),
        on_failure: Some(on_failure.into()),
    }
}

pub(super) fn operation_info(state: &State, operation: &OperationRecord) -> OperationInfo {
    let image = image_of(state, operation.image);
    let (kind, rollback_of) = match operation.kind {
        OperationKind::Repoint => ("repoint", None),
        OperationKind::Restore => ("restore", None),
        OperationKind::Rollback { of } => ("rollback", Some(of)),
    };
    let rolled_back_by = match &operation.state {
        OperationState::RolledBack { by, .. } => Some(by.to_string()),
        _ => None,
    };
    let waves = operation.plan.waves.iter().enumerate();
    OperationInfo {
        operation: operation.id.to_string(),
        kind: kind.into(),
        version: operation.version.map(|number| version_name(&image, number)),
        image,
        state: state_word(operation).into(),
        why: operation.why().map(ToString::to_string),
        wave: wave_number(operation),
        clones: operation.count_clones() as u64,
        outcome: counts(operation.finished().map(|(_, fate)| fate)),
        waves: waves.map(|(at, clones)| wave_info(at, clones, operation.outcomes.get(at))).collect(),
        who: operation.who.to_string(),
        created: rfc3339(operation.created),
        since: rfc3339(operation.since),
        at: operation.plan.at.map(rfc3339),
        rolled_back_by,
        rollback_of: rollback_of.map(|of| of.to_string()),
        max_failures: operation.plan.max_failures as u64,
        rollout: rollout_words(&operation.plan.rollout),
        switch: switch_words(&operation.plan.policy),
    }
}

/// One that is not there: it has no number, and its waves no time.
pub(super) fn predicted_info(state: &State, operation: &OperationRecord) -> OperationInfo {
    let info = operation_info(state, operation);
    let waves = info.waves.into_iter().map(|wave| WaveInfo { switched_at: None, ..wave }).collect();
    OperationInfo { operation: String::new(), waves, ..info }
}

fn state_word(operation: &OperationRecord) -> &'static str {
    match (&operation.state, operation.next) {
        (OperationState::Active, Next::Start) => "scheduled",
        (OperationState::Active, Next::Gate(_)) => "waiting",
        (OperationState::Active, _) => "running",
        (OperationState::Paused, _) => "paused",
        (OperationState::Halted { .. }, _) => "halted",
        (OperationState::RollingBack { .. }, _) => "rolling-back",
        (OperationState::RolledBack { .. }, _) => "rolled-back",
        (OperationState::Done, _) => "done",
        (OperationState::Aborted, _) => "aborted",
    }
}

/// From 1; none where nothing is to come.
fn wave_number(operation: &OperationRecord) -> Option<u64> {
    match operation.next {
        Next::Start => Some(1),
        Next::Wave(wave) | Next::Gate(wave) => Some(wave as u64 + 1),
        Next::Nothing => None,
    }
}

fn wave_info(at: usize, clones: &[ExportId], done: Option<&WaveOutcome>) -> WaveInfo {
    WaveInfo {
        wave: at as u64 + 1,
        clones: clones.len() as u64,
        switched_at: done.map(|done| rfc3339(done.at)),
        outcome: counts(done.iter().flat_map(|done| done.fates.iter().copied())),
    }
}

fn counts(fates: impl Iterator<Item = Fate>) -> OutcomeCounts {
    let mut counts = OutcomeCounts::default();
    for fate in fates {
        counts.switched += u64::from(fate.switches());
        match fate {
            Fate::Switched | Fate::Restored | Fate::RestoredClean => {}
            Fate::Kept => counts.kept += 1,
            Fate::Preserved => counts.preserved += 1,
            Fate::Discarded => counts.discarded += 1,
            Fate::Staged => counts.staged += 1,
            Fate::Unchanged => counts.unchanged += 1,
            Fate::Stays => counts.lagging += 1,
            Fate::Conflicts => counts.failed += 1,
            Fate::Gone => counts.gone += 1,
        }
    }
    counts
}

/// What the clones of an operation are to show: all the same, or each what it showed before.
pub(super) struct Targets(Option<VersionNumber>, HashMap<ExportId, VersionNumber>);

impl Targets {
    pub fn of(state: &State, operation: &OperationRecord) -> Self {
        let undone = match operation.kind {
            OperationKind::Rollback { of } => state.operation(of),
            OperationKind::Repoint | OperationKind::Restore => None,
        };
        let before = undone.into_iter().flat_map(|undone| undone.outcomes_of_clones());
        Self(operation.version, before.map(|(id, _, from)| (id, from)).collect())
    }

    fn get(&self, id: ExportId) -> Option<VersionNumber> {
        self.0.or_else(|| self.1.get(&id).copied())
    }
}

/// The clone number `at` of wave `wave`.
pub(super) fn operation_clone(
    (state, image, operation): (&State, &str, &OperationRecord),
    targets: &Targets,
    (wave, at): (usize, usize),
    id: ExportId,
) -> OperationClone {
    let clone = state.clone_by_id(id);
    let outcome = operation.outcomes.get(wave);
    let name = clone.map(|clone| &clone.name).or_else(|| operation.gone_name(id));
    let early = || operation.settled_early(id).map(|early| early.fate);
    let word = match outcome.and_then(|outcome| outcome.fates.get(at).copied()).or_else(early) {
        Some(fate) => fate_word(operation, fate, clone.map(|clone| &**clone)),
        None if clone.is_none() => "gone",
        None => "waiting",
    };
    OperationClone {
        // Its name went with its record, after its wave.
        name: name.map_or_else(|| format!("removed-{}", id.0), ToString::to_string),
        wave: wave as u64 + 1,
        state: word.into(),
        version: clone.map(|clone| version_name(image, clone.view.version)),
        target: targets.get(id).map(|number| version_name(image, number)),
        lagging_since: clone.and_then(|clone| clone.lagging).map(|lagging| rfc3339(lagging.since)),
        why: outcome.filter(|_| TOLD.contains(&word)).and_then(|outcome| outcome.why(id)).map(ToString::to_string),
    }
}

const FAILED: &str = "failed";
const SWITCHED: &str = "switched";
const DISCARDED: &str = "discarded";
const KEPT: &str = "kept";
const PRESERVED: &str = "preserved";
/// Of clones in these states there may be something to be told.
const TOLD: [&str; 5] = [FAILED, SWITCHED, KEPT, PRESERVED, DISCARDED];

/// A clone that was staged is judged by what it is now.
fn fate_word(operation: &OperationRecord, fate: Fate, clone: Option<&CloneRecord>) -> &'static str {
    let staged = |clone: &CloneRecord| clone.staged.as_ref().is_some_and(|staged| staged.operation == operation.id);
    match (fate, clone) {
        (Fate::Switched, _) => SWITCHED,
        (Fate::Kept, _) => KEPT,
        (Fate::Preserved, _) => PRESERVED,
        (Fate::Discarded, _) => DISCARDED,
        (Fate::Restored | Fate::RestoredClean, _) => "restored",
        (Fate::Unchanged, _) => "unchanged",
        (Fate::Stays, _) => "lagging",
        (Fate::Conflicts, _) => FAILED,
        (Fate::Gone, _) | (Fate::Staged, None) => "gone",
        (Fate::Staged, Some(clone)) if staged(clone) => "staged",
        (Fate::Staged, Some(clone)) if Some(clone.view.version) == operation.version => SWITCHED,
        (Fate::Staged, Some(_)) => "withdrawn",
    }
}

//! Operations: switches of many clones as objects that are seen, halted, and gone on with.
//!
//! Owns the record: what was ordered, which never changes, and how far it got. The clones of each wave
//! are fixed when it is made. What comes next is data ([`Next`]), so whoever goes on after a crash needs
//! no memory of his own: the switch of a wave and the note that it is done are one change set.
//!
//! Invariants: a clone is in one wave of a record; a wave has an outcome exactly when it is done; a
//! clone is in a wave still to come of one operation at most.
//!
//! Failure story: none of its own; `fleet` makes the changes, `maintain` decides when.

mod gate;
mod waves;

pub use gate::{Gate, MAX_GATE_TEXT};
pub(super) use waves::split;
pub use waves::{MAX_WAVES, WaveSpec};

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::policy::SwitchPolicy;
use super::record::{ExportId, ImageId, OperationId, VersionNumber};
use crate::env::Time;
use crate::error::{Error, Result};

/// Operations that have not ended, at a time.
pub const MAX_UNFINISHED: usize = 64;
/// Gates of one operation.
pub const MAX_GATES: usize = 8;
/// Longest that a gate may be tried or a wave may soak, in seconds: thirty days.
pub const MAX_WAIT_SECS: u64 = 30 * 24 * 3600;
/// Longest pause between two tries of a gate, in seconds.
pub const MAX_INTERVAL_SECS: u64 = 3600;
/// Longest reason that a record keeps, in bytes.
pub const MAX_WHY: usize = 1024;
/// Reasons of single clones that the outcome of a wave keeps.
pub const MAX_WHYS: usize = 1000;

/// What was ordered, and how far it got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRecord {
    pub id: OperationId,
    pub kind: OperationKind,
    pub image: ImageId,
    /// What its clones show afterwards; `None` where that is not one version.
    pub version: Option<VersionNumber>,
    /// On whose behalf, in the admin API's words.
    pub who: Arc<str>,
    pub created: Time,
    pub plan: Arc<OperationPlan>,
    pub state: OperationState,
    pub next: Next,
    /// When `state` or `next` last changed.
    pub since: Time,
    /// When a switch that waited for a clone was last made, apart from the waves.
    pub settled: Option<Time>,
    /// Of the first waves.
    pub outcomes: Vec<WaveOutcome>,
    /// Clones that were removed before their wave came, by id.
    pub gone: Vec<GoneClone>,
    /// Clones that were switched before their wave came, because somebody activated them; by id.
    pub early: Vec<Settled>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationKind {
    Repoint,
    Restore,
    Rollback { of: OperationId },
}

/// What an operation is to do. Never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationPlan {
    /// What it decides for all its clones.
    pub policy: SwitchPolicy,
    /// Clones of all waves that may stay because of conflicts; one more halts the operation.
    pub max_failures: usize,
    /// Not before this.
    pub at: Option<Time>,
    pub rollout: Rollout,
    pub waves: Vec<Vec<ExportId>>,
}

/// How an operation gets from wave to wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// All must be passed after each wave, the last included.
    pub gates: Vec<Gate>,
    /// How long they are tried.
    pub gate_timeout_secs: u64,
    /// Between two tries.
    pub gate_interval_secs: u64,
    /// How long a wave is left alone before its gates are tried.
    pub soak_secs: u64,
    pub on_failure: OnFailure,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            gates: Vec::new(),
            gate_timeout_secs: 300,
            gate_interval_secs: 5,
            soak_secs: 0,
            on_failure: OnFailure::Halt,
        }
    }
}

impl Rollout {
    /// Refuse what nobody can mean.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String, remedy: String| Err(Error::invalid(what).remedy(remedy));
        if self.gates.len() > MAX_GATES {
            return refuse(format!("{} gates", self.gates.len()), format!("give at most {MAX_GATES}"));
        }
        if !(1..=MAX_WAIT_SECS).contains(&self.gate_timeout_secs) || self.soak_secs > MAX_WAIT_SECS {
            let what = format!("a gate's timeout of {} s, a soak of {} s", self.gate_timeout_secs, self.soak_secs);
            return refuse(what, format!("a timeout is 1 s at least, and both are {MAX_WAIT_SECS} s at most"));
        }
        if !(1..=MAX_INTERVAL_SECS).contains(&self.gate_interval_secs) {
            let what = format!("a gate's interval of {} s", self.gate_interval_secs);
            return refuse(what, format!("choose between 1 and {MAX_INTERVAL_SECS} s"));
        }
        Ok(())
    }

    /// Whether anything happens between two waves.
    fn pauses(&self) -> bool {
        self.soak_secs > 0 || !self.gates.is_empty()
    }
}

/// What becomes of an operation of which a wave or a gate fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// It stands still where it is.
    #[default]
    Halt,
    /// The waves that are done are rolled back.
    Rollback,
}

/// Whether an operation goes on by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationState {
    Active,
    /// Somebody said so.
    Paused,
    /// A wave or a gate failed.
    Halted {
        why: Arc<str>,
    },
    /// A wave or a gate failed, and what was done is being undone.
    RollingBack {
        why: Arc<str>,
    },
    RolledBack {
        by: OperationId,
        /// What had failed, if that was the reason.
        why: Option<Arc<str>>,
    },
    Done,
    Aborted,
}

/// What an operation does next, if nobody stops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Next {
    /// Begin, when its time has come.
    Start,
    /// Switch this wave; waves count from 0.
    Wave(usize),
    /// Let this wave soak, and pass the gates behind it.
    Gate(usize),
    Nothing,
}

/// What became of a wave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaveOutcome {
    pub at: Time,
    /// One for each clone of the wave, in its order.
    pub fates: Vec<Fate>,
    /// The version that each of them showed before; 0 for one that is gone.
    pub from: Vec<VersionNumber>,
    /// Why clones stay, and that others were written meanwhile and planned again: the first [`MAX_WHYS`].
    pub whys: Vec<(ExportId, Arc<str>)>,
}

/// What a switch does with one clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fate {
    /// It shows the version already.
    Unchanged,
    /// It has no private writes.
    Switched,
    Kept,
    Discarded,
    Preserved,
    /// It stays because of its private writes, as it was told.
    Stays,
    /// It stays because of a conflict.
    Conflicts,
    /// It waits for its next mount.
    Staged,
    /// It was removed before.
    Gone,
    /// It shows again what it showed once.
    Restored,
    /// The same, and it had no private writes.
    RestoredClean,
}

impl Fate {
    /// It shows something else afterwards.
    pub fn switches(self) -> bool {
        use Fate::{Discarded, Kept, Preserved, Restored, RestoredClean, Switched};
        matches!(self, Switched | Kept | Discarded | Preserved | Restored | RestoredClean)
    }

    /// Its version was all that it showed before.
    pub(super) fn was_clean(self) -> bool {
        matches!(self, Self::Switched | Self::RestoredClean)
    }
}

/// A clone that was removed before its wave came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneClone {
    pub id: ExportId,
    pub name: Arc<str>,
}

/// What became of a clone, apart from its wave: the switch that waited for it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    pub id: ExportId,
    pub fate: Fate,
    /// The version that it showed before.
    pub from: VersionNumber,
}

/// A step of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advance {
    pub operation: OperationId,
    pub at: Time,
    pub state: OperationState,
    pub next: Next,
    /// Of the wave that this step finished.
    pub outcome: Option<WaveOutcome>,
}

impl OperationRecord {
    /// When it last did anything.
    pub fn last_step(&self) -> Time {
        self.settled.map_or(self.since, |settled| settled.max(self.since))
    }

    /// Nothing will happen any more, whatever anybody says.
    pub fn ended(&self) -> bool {
        use OperationState::{Aborted, Done, RolledBack};
        matches!(self.state, Done | Aborted | RolledBack { .. })
    }

    /// The first wave that is still to come; their number if none is.
    pub(super) fn first_to_come(&self) -> usize {
        match self.next {
            _ if self.ended() => self.plan.waves.len(),
            Next::Start => 0,
            Next::Wave(wave) => wave,
            Next::Gate(wave) => wave + 1,
            Next::Nothing => self.plan.waves.len(),
        }
    }

    /// What failed last, if it was not tried again since.
    pub fn why(&self) -> Option<&Arc<str>> {
        use OperationState::{Halted, RolledBack, RollingBack};
        match &self.state {
            Halted { why } | RollingBack { why } => Some(why),
            RolledBack { why, .. } => why.as_ref(),
            _ => None,
        }
    }

    /// The clones of all waves.
    pub fn count_clones(&self) -> usize {
        self.plan.waves.iter().map(Vec::len).sum()
    }

    /// Clones that are done, by what became of them.
    pub fn count(&self, fates: &[Fate]) -> usize {
        self.finished().filter(|(_, fate)| fates.contains(fate)).count()
    }

    /// The clones of the waves that are done, and those that were early, with what became of them.
    pub fn finished(&self) -> impl Iterator<Item = (ExportId, Fate)> {
        self.outcomes_of_clones().map(|(id, fate, _)| (id, fate))
    }

    /// The same, with the version that each showed before.
    pub fn outcomes_of_clones(&self) -> impl Iterator<Item = (ExportId, Fate, VersionNumber)> {
        let waves = self.plan.waves.iter().zip(&self.outcomes);
        let done = waves.flat_map(|(wave, outcome)| {
            let fates = outcome.fates.iter().copied().zip(outcome.from.iter().copied());
            wave.iter().copied().zip(fates).map(|(id, (fate, from))| (id, fate, from))
        });
        done.chain(self.early.iter().map(|early| (early.id, early.fate, early.from)))
    }

    /// What comes when a wave is done.
    pub(super) fn behind_wave(&self, wave: usize) -> (OperationState, Next) {
        if self.plan.rollout.pauses() { (OperationState::Active, Next::Gate(wave)) } else { self.behind_gate(wave) }
    }

    /// What comes when the gates behind a wave are passed.
    pub(super) fn behind_gate(&self, wave: usize) -> (OperationState, Next) {
        match wave + 1 {
            next if next < self.plan.waves.len() => (OperationState::Active, Next::Wave(next)),
            _ => (OperationState::Done, Next::Nothing),
        }
    }

    pub(super) fn note_gone(&mut self, clone: GoneClone) {
        let at = self.gone.partition_point(|gone| gone.id < clone.id);
        self.gone.insert(at, clone);
    }

    /// The name of a clone that was removed before its wave came.
    pub fn gone_name(&self, id: ExportId) -> Option<&Arc<str>> {
        self.gone.binary_search_by_key(&id, |gone| gone.id).ok().map(|at| &self.gone[at].name)
    }

    /// The clone was switched before its wave came.
    pub fn settled_early(&self, id: ExportId) -> Option<&Settled> {
        self.early.binary_search_by_key(&id, |settled| settled.id).ok().map(|at| &self.early[at])
    }

    /// The switches that waited for these clones, by id, were made: their waves' outcomes say so, or will.
    pub(super) fn settle(&mut self, settled: &[Settled], at: Time) {
        self.settled = self.settled.max(Some(at));
        let find = |id| settled.binary_search_by_key(&id, |settled| settled.id).ok().map(|at| settled[at]);
        for (wave, clones) in self.plan.waves.iter().enumerate() {
            let found = clones.iter().enumerate().filter_map(|(at, id)| find(*id).map(|settled| (at, settled)));
            match self.outcomes.get_mut(wave) {
                Some(outcome) => found.for_each(|(at, settled)| outcome.settle(at, settled)),
                None => self.early.extend(found.map(|(_, settled)| settled)),
            }
        }
        self.early.sort_unstable_by_key(|settled| settled.id);
    }

    /// What its own step changes it to.
    pub(super) fn advance(&mut self, advance: &Advance) {
        self.state = advance.state.clone();
        self.next = advance.next;
        self.since = advance.at;
        let Some(outcome) = &advance.outcome else { return };
        let settled: HashSet<_> = self.plan.waves.get(self.outcomes.len()).into_iter().flatten().collect();
        self.early.retain(|early| !settled.contains(&early.id));
        self.outcomes.push(outcome.clone());
    }
}

impl WaveOutcome {
    /// What was settled before it came, of its `clones`.
    pub(super) fn settle_early(&mut self, clones: &[ExportId], operation: &OperationRecord) {
        for (at, id) in clones.iter().enumerate() {
            if let Some(settled) = operation.settled_early(*id) {
                self.settle(at, *settled);
            }
        }
    }

    fn settle(&mut self, at: usize, settled: Settled) {
        if let (Some(fate), Some(from)) = (self.fates.get_mut(at), self.from.get_mut(at)) {
            (*fate, *from) = (settled.fate, settled.from);
        }
    }

    /// Why a clone of it stays, or else what is to be told of it.
    pub fn why(&self, clone: ExportId) -> Option<&Arc<str>> {
        self.whys.iter().find(|(id, _)| *id == clone).map(|(_, why)| why)
    }
}

/// As much of `why` as a record keeps.
pub(super) fn shortened(why: &str) -> Arc<str> {
    let end = (0..=why.len().min(MAX_WHY)).rfind(|at| why.is_char_boundary(*at));
    why[..end.unwrap_or(0)].into()
}

#[cfg(test)]
pub(super) mod tests {
    pub(in crate::image) use super::waves::tests::clones;

    use super::*;

    #[test]
    fn what_is_kept_of_a_reason_is_whole_characters() {
        assert_eq!(&*shortened("why"), "why");
        let long = format!("x{}", "\u{e9}".repeat(MAX_WHY));
        assert_eq!(shortened(&long).len(), MAX_WHY - 1);
        assert!(long.starts_with(&*shortened(&long)));
    }

    #[test]
    fn waits_have_bounds() {
        let check = |rollout: Rollout| rollout.check().is_ok();
        let usual = Rollout::default;
        assert!(check(usual()));
        assert!(!check(Rollout { gate_timeout_secs: 0, ..usual() }));
        assert!(!check(Rollout { gate_timeout_secs: MAX_WAIT_SECS + 1, ..usual() }));
        assert!(!check(Rollout { soak_secs: MAX_WAIT_SECS + 1, ..usual() }));
        assert!(!check(Rollout { gate_interval_secs: 0, ..usual() }));
        assert!(!check(Rollout { gate_interval_secs: MAX_INTERVAL_SECS + 1, ..usual() }));
        assert!(!check(Rollout { gates: vec![Gate::Clients(1); MAX_GATES + 1], ..usual() }));
    }
}

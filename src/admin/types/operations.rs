//! Documents of operations.

use serde::{Deserialize, Serialize};

use super::{Findings, RepointBody, SwitchWords};

/// A repoint in waves, or one that begins later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationBody {
    #[serde(flatten)]
    pub repoint: RepointBody,
    /// `N` clones, up to `N%` of all, a selector, or `clones:NAME,NAME`; what they leave is the last wave.
    #[serde(default)]
    pub waves: Vec<String>,
    #[serde(flatten)]
    pub rollout: RolloutWords,
    /// RFC 3339, or `+2h` from now; else at once.
    #[serde(default)]
    pub at: Option<String>,
}

/// How an operation gets from wave to wave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutWords {
    /// A command, an `http://` URL, or `clients:N`.
    #[serde(default)]
    pub gates: Vec<String>,
    pub gate_timeout_secs: Option<u64>,
    pub gate_interval_secs: Option<u64>,
    pub soak_secs: Option<u64>,
    /// `halt` or `rollback`.
    pub on_failure: Option<String>,
}

/// One operation, in `ops` and `ops show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationInfo {
    /// Left out where it is only predicted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// `repoint`, `restore` or `rollback`.
    pub kind: String,
    pub image: String,
    /// What its clones are to show, if that is one version.
    pub version: Option<String>,
    /// `scheduled`, `running`, `waiting` (at a gate), `paused`, `halted`, `rolling-back`, `rolled-back`, `done` or
    /// `aborted`.
    pub state: String,
    /// What failed, where it is halted or rolled back because of that.
    pub why: Option<String>,
    /// The wave that comes next, is under way, or waits at its gate; counts from 1.
    pub wave: Option<u64>,
    /// Clones of all waves.
    pub clones: u64,
    #[serde(flatten)]
    pub outcome: OutcomeCounts,
    pub waves: Vec<WaveInfo>,
    pub who: String,
    pub created: String,
    /// When it last got on or stood still.
    pub since: String,
    /// When it is to begin.
    pub at: Option<String>,
    pub rolled_back_by: Option<String>,
    /// What a rollback undid.
    pub rollback_of: Option<String>,
    /// Clones that may stay because of conflicts.
    pub max_failures: u64,
    pub rollout: RolloutWords,
    /// What it says about how clones are switched.
    pub switch: SwitchWords,
}

/// Clones of finished waves, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCounts {
    /// They show something else now; of these, by what became of private writes:
    pub switched: u64,
    pub kept: u64,
    pub preserved: u64,
    pub discarded: u64,
    /// They wait for their next mount.
    pub staged: u64,
    /// They showed the version already.
    pub unchanged: u64,
    /// They stayed because of their private writes, as they were meant to.
    pub lagging: u64,
    /// They stayed because of conflicts.
    pub failed: u64,
    /// They had been removed.
    pub gone: u64,
}

/// What a rollback is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackBody {
    /// Clones that may stay as they are, because something else switched them since.
    #[serde(default)]
    pub max_failures: usize,
}

/// What a rollback did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackInfo {
    pub operation: String,
    pub rollback_of: String,
    /// Clones that show again what they showed before.
    pub clones: u64,
    /// The snapshot of what those with private writes showed until now.
    pub snapshot: String,
    /// Clones that stay as they are.
    pub left: Vec<LeftClone>,
}

/// A clone that a rollback left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftClone {
    pub name: String,
    pub why: String,
}

/// One wave of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaveInfo {
    /// Counts from 1.
    pub wave: u64,
    pub clones: u64,
    /// When it was switched; else it is still to come, or never came.
    pub switched_at: Option<String>,
    #[serde(flatten)]
    pub outcome: OutcomeCounts,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationList {
    /// Newest first.
    pub operations: Vec<OperationInfo>,
}

/// One clone of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationClone {
    pub name: String,
    /// Counts from 1.
    pub wave: u64,
    /// `waiting`; `switched`, and with private writes `kept`, `preserved` or `discarded`; `restored`, `staged`, `withdrawn`,
    /// `unchanged`, `lagging`, `failed` or `gone`.
    pub state: String,
    /// What it shows now; nothing if it was removed.
    pub version: Option<String>,
    /// What it is to show, or what a rollback was to bring back, as long as what it undid is known.
    pub target: Option<String>,
    pub lagging_since: Option<String>,
    /// Why it failed, or that it was written while its switch was made ready or moved since the dry run.
    pub why: Option<String>,
}

/// The clones of an operation, wave by wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationClones {
    pub clone_states: Vec<OperationClone>,
}

/// What an operation would come to, if nothing is written until it begins and every gate is passed. Its `state` is
/// `done`, `halted` or `rolling-back`, its `wave` the one that would fail, and its clones are as they would be then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationForecast {
    pub dry_run: bool,
    #[serde(flatten)]
    pub operation: OperationInfo,
    #[serde(flatten)]
    pub findings: Findings,
    #[serde(flatten)]
    pub clones: OperationClones,
}

/// What `ops show --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationDetail {
    #[serde(flatten)]
    pub operation: OperationInfo,
    #[serde(flatten)]
    pub clones: OperationClones,
}

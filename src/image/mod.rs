//! Images, versions, clones: the domain.
//!
//! Owns the catalog (all records in memory as one persistent map behind an atomic pointer, and the
//! log of change sets that makes it durable), the view switch, identifiers handed out in ranges,
//! names, labels and selectors, and the import that turns a folder into a version.
//!
//! Invariants: a change set is applied whole or not at all, and is durable before it is visible;
//! identifiers are never reused, also not after a restore from backup; nothing else is kept in
//! memory per clone than its record.
//!
//! Failure story: if the log cannot be written, the catalog refuses changes and says why; readers
//! go on with the last state.

mod catalog;
mod change;
mod clones;
mod codec;
mod fleet;
mod images;
pub mod import;
mod labels;
mod log;
mod names;
mod operation;
mod path_words;
mod policy;
pub mod promote;
mod readers;
mod record;
mod share;
mod state;
mod switch;

pub use catalog::{Catalog, Draft, IdRange, MAX_ID_RANGE};
pub use change::{Change, ChangeSet};
pub use clones::{CloneTarget, MAX_NETWORKS, NewClones, PolicyEdits};
pub use fleet::{
    Activated, CloneOutcome, DEFAULT_FORK_DEPTH, EndedPin, FLATTEN_ABOVE, Fleet, Look, NewFork, NewOperation,
    NewSnapshot, OperationPrediction, PinnedViews, Prediction, RepointDone, RepointOutcome, RepointPlan, RestoreDone,
    Retention, RollbackDone, SnapshotTarget, TakenSnapshot, wave_failure,
};
pub use images::{MAX_ORIGIN, MAX_TAGS, NewVersion};
pub use labels::{LabelEdits, Labels, MAX_LABELS, Selector};
pub use log::{
    Backlog, CATALOG_TABLES, CatalogLog, Fault, KvCatalogLog, MAX_CHANGE_SET, MemoryCatalogLog, Outcome, Rev, Watch,
    WatchError,
};
pub use names::{
    CloneNames, CloneRef, ImageRef, MAX_CLONES_PER_CALL, MAX_OBJECT_NAME, VersionRef, WhichVersion, check_name,
    check_snapshot_name, check_tag,
};
pub use operation::{
    Advance, Fate, Gate, GoneClone, MAX_GATE_TEXT, MAX_GATES, MAX_UNFINISHED, MAX_WAVES, Next, OnFailure,
    OperationKind, OperationPlan, OperationRecord, OperationState, Rollout, Settled, WaveOutcome, WaveSpec,
};
pub use path_words::{path_bytes, path_words};
pub use policy::{
    Activation, MAX_PRESERVED, MAX_PRESERVED_PATH, OnConflict, Preserved, SwitchEdits, SwitchPolicy, Writes,
};
pub use readers::{IsDue, Quiet, Readers, ViewUses};
pub use record::{
    CloneRecord, ExportId, ExportOverrides, ImageId, ImageRecord, Lagging, MAX_LAYERS, MAX_TURNS, OperationId, Pin,
    SnapshotId, SnapshotRecord, Span, Squash, Staged, StoreRecord, Turn, VersionNumber, VersionRecord, View,
};
pub use share::Percent;
pub use state::{Export, FIRST_ID, OverlayRoot, State};
pub use switch::{Content, Fitting, Sealed, Shown, ViewSwitch};

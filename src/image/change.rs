//! Change sets: the only way in which the catalog changes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Labels;
use super::operation::{Advance, OperationRecord, Settled};
use super::policy::SwitchPolicy;
use super::record::{
    CloneRecord, ExportId, ExportOverrides, ImageId, ImageRecord, Lagging, OperationId, SnapshotRecord, Staged,
    StoreRecord, VersionNumber, VersionRecord,
};
use super::switch::{Sealed, ViewSwitch};
use crate::env::Time;
use crate::overlay::Layer;

/// One change. Applying it is a pure function of the state before and the change itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    PutStore(StoreRecord),
    /// Create or replace.
    PutImage(ImageRecord),
    /// Gone with all its tags. Its versions must have been removed before.
    RemoveImage(ImageId),
    /// Create or replace. The image's next version gets a higher number.
    PutVersion(VersionRecord),
    /// Removed by name, with the tags that named it. The record goes when no view, pin or snapshot of
    /// a clone reads it any more.
    RemoveVersion {
        image: ImageId,
        number: VersionNumber,
    },
    /// Create or replace.
    PutClone(CloneRecord),
    /// With its snapshots.
    RemoveClone(ExportId),
    LabelClones {
        clones: Vec<ExportId>,
        labels: Arc<Labels>,
    },
    /// The view switch: all of its clones show another version or other layers from now on; the
    /// former view of each becomes a pin. A clone that shows the same already stays as it is. One key
    /// in the log, however many clones.
    Switch(ViewSwitch),
    /// The former views of these clones end. `sealed`: what their tops held then.
    DropPins {
        clones: Vec<ExportId>,
        sealed: Sealed,
    },
    /// Identifiers below `next` are handed out. It only grows.
    GrantIds {
        next: u64,
    },
    /// Create or replace.
    PutSnapshot(SnapshotRecord),
    RemoveSnapshot {
        clone: ExportId,
        name: Arc<str>,
    },
    /// What the exports of these clones have of their own, and how much they may hold.
    SetPolicy {
        clones: Vec<ExportId>,
        export: Arc<ExportOverrides>,
        quota: Option<u64>,
    },
    /// A repoint meant these clones to show another version, and left them; `None`: it is settled.
    SetLagging {
        clones: Vec<ExportId>,
        lagging: Option<Lagging>,
    },
    /// How these clones are switched.
    SetSwitchPolicy {
        clones: Vec<ExportId>,
        policy: Arc<SwitchPolicy>,
    },
    /// A switch waits for each of these clones; `None`: it is withdrawn.
    Stage {
        clones: Vec<ExportId>,
        staged: Option<Arc<Staged>>,
    },
    /// The sealed layers of a clone's view are this one from now on, which shows the same.
    Flatten {
        clone: ExportId,
        layer: Layer,
    },
    /// Create or replace.
    PutOperation(OperationRecord),
    /// A step of an operation: small, whatever its plan holds.
    Advance(Advance),
    RemoveOperation(OperationId),
    /// Of each of these clones the former views with these numbers end. `sealed`: what the tops of all its
    /// former views held then.
    DropViews {
        clones: Vec<ExportId>,
        views: Vec<Vec<u64>>,
        sealed: Sealed,
    },
    /// The switches that an operation had staged for these clones were made. By clone.
    Settle {
        operation: OperationId,
        at: Time,
        clones: Vec<Settled>,
    },
}

impl Change {
    /// The clones whose records this change makes, changes or removes.
    pub(super) fn clones(&self) -> &[ExportId] {
        match self {
            Self::PutClone(clone) => std::slice::from_ref(&clone.id),
            Self::RemoveClone(id) | Self::Flatten { clone: id, .. } => std::slice::from_ref(id),
            Self::Switch(switch) => &switch.clones,
            Self::LabelClones { clones, .. }
            | Self::DropPins { clones, .. }
            | Self::DropViews { clones, .. }
            | Self::SetPolicy { clones, .. }
            | Self::SetSwitchPolicy { clones, .. }
            | Self::Stage { clones, .. }
            | Self::SetLagging { clones, .. } => clones,
            Self::PutStore(_)
            | Self::PutImage(_)
            | Self::RemoveImage(_)
            | Self::PutVersion(_)
            | Self::RemoveVersion { .. }
            | Self::GrantIds { .. }
            | Self::PutSnapshot(_)
            | Self::PutOperation(_)
            | Self::Advance(_)
            | Self::RemoveOperation(_)
            | Self::Settle { .. }
            | Self::RemoveSnapshot { .. } => &[],
        }
    }
}

/// Changes that become durable and visible together, under one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeSet {
    pub changes: Vec<Change>,
}

//! Change sets: the only way in which the catalog changes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Labels;
use super::record::{
    CloneRecord, ExportId, ImageId, ImageRecord, OperationId, StoreRecord, VersionNumber, VersionRecord,
};
use crate::env::Time;

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
    /// Removed by name, with the tags that named it. The record goes when no view and no pin of a
    /// clone reads it any more.
    RemoveVersion {
        image: ImageId,
        number: VersionNumber,
    },
    /// Create or replace.
    PutClone(CloneRecord),
    RemoveClone(ExportId),
    LabelClones {
        clones: Vec<ExportId>,
        labels: Arc<Labels>,
    },
    /// The view switch: all of `clones` show version `number` (no private layers) from now on; the
    /// former view of each becomes a pin. A clone that shows it already stays as it is. One key in
    /// the log, however many clones.
    Switch {
        clones: Vec<ExportId>,
        number: VersionNumber,
        at: Time,
        operation: OperationId,
        /// The new views' overlays: this one for the first clone, the next for the second, ...
        first_overlay: u64,
    },
    DropPins {
        clones: Vec<ExportId>,
    },
    /// Identifiers below `next` are handed out. It only grows.
    GrantIds {
        next: u64,
    },
}

impl Change {
    /// The clones whose records this change makes, changes or removes.
    pub(super) fn clones(&self) -> &[ExportId] {
        match self {
            Self::PutClone(clone) => std::slice::from_ref(&clone.id),
            Self::RemoveClone(id) => std::slice::from_ref(id),
            Self::LabelClones { clones, .. } | Self::Switch { clones, .. } | Self::DropPins { clones } => clones,
            Self::PutStore(_)
            | Self::PutImage(_)
            | Self::RemoveImage(_)
            | Self::PutVersion(_)
            | Self::RemoveVersion { .. }
            | Self::GrantIds { .. } => &[],
        }
    }
}

/// Changes that become durable and visible together, under one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeSet {
    pub changes: Vec<Change>,
}

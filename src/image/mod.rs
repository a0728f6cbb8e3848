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
pub mod import;
mod labels;
mod log;
mod names;
mod record;
mod repoint;
mod state;

pub use catalog::{Catalog, IdRange};
pub use change::{Change, ChangeSet};
pub use labels::{Labels, Selector};
pub use log::{CatalogLog, KvCatalogLog, MemoryCatalogLog, Outcome, Rev};
pub use names::{CloneNames, ImageRef, VersionRef, check_name};
pub use record::{
    CloneRecord, ExportId, ImageId, ImageRecord, Layer, OperationId, Pin, StoreRecord, VersionNumber, VersionRecord, View,
};
pub use repoint::{RepointPlan, RepointTarget};
pub use state::{Export, State};

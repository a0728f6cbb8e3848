//! Private writes: what a clone has changed, over the version that it shows.
//!
//! Owns the delta log (`log`), the index over it, the private nodes, names and extents of every
//! overlay, and the [`Tree`] that merges a stack of overlays over a manifest. A view is a version, a
//! few sealed layers (an overlay up to a position) and one open overlay on top that takes its writes.
//!
//! Every change of a view is one record in the log: it takes the next position of its overlay, and
//! covers data, names and attributes alike. What is visible is in memory or in the index; what is in
//! the index is durable in the log; what was acknowledged as stable is durable in the log.
//!
//! Failure story: a log that cannot sync refuses every further change (`docs/durability.md`); a crash
//! loses what was never synced, and the index is brought up to the log at the next start.

pub mod changes;
pub mod check;
pub mod diff;
pub mod log;
pub mod paths;

mod blocks;
mod bucket;
mod index;
mod keys;
mod memtable;
mod node;
pub mod rebase;
mod record;
mod state;
mod store;
mod touched;
mod tree;

pub use node::Node;
pub use record::Receipt;
pub use store::{Compacted, Frozen, Held, IdleBucket, IdleCursor, OverlayOptions, OverlayStore, Purged, SweepCursor};
pub use tree::{Origin, Slices, Tree};

use serde::{Deserialize, Serialize};

/// Names one overlay; from the store's identifiers, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OverlayId(pub u64);

/// The order of changes within one overlay; 0 before the first.
pub type Position = u64;

/// What a private object counts in a quota beside its data, in bytes.
const OBJECT_CHARGE: u64 = 512;

/// What an overlay holds, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Bytes of file data in its extents.
    pub bytes: u64,
    /// Objects with private state: changed, new or removed.
    pub inodes: u64,
}

impl Counts {
    /// What a quota counts of it, in bytes: data, and for each object what its row and its names take about.
    pub const fn charge(&self) -> u64 {
        self.bytes.saturating_add(self.inodes.saturating_mul(OBJECT_CHARGE))
    }
}

/// A sealed layer of a view: an overlay as it was at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub overlay: OverlayId,
    pub upto: Position,
    /// What it held at that position.
    pub counts: Counts,
}

#[cfg(test)]
mod tests;

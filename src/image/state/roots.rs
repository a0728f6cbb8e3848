//! What the catalog needs of the overlays: which take writes, and which of their positions sealed
//! layers name.
//!
//! Owns the count of names for each position, kept by every change that adds or removes a name, so
//! that the marks of one overlay are found without a look at anything else. Which overlays are open
//! tops is not counted: it is asked for all of them at once, rarely.

use std::collections::{BTreeMap, HashMap};

use super::{Exported, State};
use crate::overlay::{Layer, OverlayId, Position};

/// An overlay that some view, pin, snapshot or turn names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverlayRoot {
    /// It is the top of a view or of a pin, and takes writes.
    pub open: bool,
    /// The positions that sealed layers name, ascending.
    pub marks: Vec<Position>,
}

impl State {
    /// The positions of an overlay that sealed layers name, ascending.
    pub fn marks(&self, overlay: OverlayId) -> Vec<Position> {
        let all = (overlay, Position::MIN)..=(overlay, Position::MAX);
        self.marks.range(all).map(|((_, mark), _)| *mark).collect()
    }

    /// How often sealed layers name positions of an overlay.
    pub fn names(&self, overlay: OverlayId) -> u64 {
        let all = (overlay, Position::MIN)..=(overlay, Position::MAX);
        self.marks.range(all).map(|(_, names)| *names).sum()
    }

    /// Whether some sealed layer names this position.
    pub fn is_marked(&self, layer: &Layer) -> bool {
        self.marks.contains_key(&(layer.overlay, layer.upto))
    }

    /// All overlays that have marks, with these: what the overlays are opened with.
    pub fn marked_overlays(&self) -> HashMap<OverlayId, Vec<Position>> {
        let mut marked: HashMap<_, Vec<_>> = HashMap::new();
        for (overlay, mark) in self.marks.keys() {
            marked.entry(*overlay).or_default().push(*mark);
        }
        marked
    }

    /// All overlays that anything names. What is not among them may go.
    pub fn overlay_roots(&self) -> BTreeMap<OverlayId, OverlayRoot> {
        let root = |(overlay, marks)| (overlay, OverlayRoot { open: false, marks });
        let mut roots: BTreeMap<_, _> = self.marked_overlays().into_iter().map(root).collect();
        for exported in self.exports.values() {
            if let Exported::Clone(clone) = exported {
                clone.tops().for_each(|top| roots.entry(top).or_default().open = true);
            }
        }
        roots
    }
}

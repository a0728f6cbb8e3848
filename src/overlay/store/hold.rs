//! Sealed layers that somebody reads for a while, whether anything names them or not.
//!
//! A hold is in memory only: nothing of it is left after a restart. It must begin while the catalog
//! names the layers; when it ends, who took it tells the fleet, which lets go of what has no name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::OverlayStore;
use crate::overlay::{Layer, OverlayId, Position};

/// How often each position is held.
#[derive(Default)]
pub(super) struct Holds(BTreeMap<(OverlayId, Position), usize>);

impl Holds {
    pub(super) fn positions(&self, overlay: OverlayId) -> impl Iterator<Item = Position> {
        self.0.range((overlay, 0)..=(overlay, Position::MAX)).map(|((_, position), _)| *position)
    }
}

/// Layers that stay readable as long as this lives.
pub struct Held {
    store: Arc<OverlayStore>,
    positions: Vec<(OverlayId, Position)>,
}

impl OverlayStore {
    pub(super) fn held_positions(&self, id: OverlayId) -> Vec<Position> {
        self.holds.lock().positions(id).collect()
    }

    pub(super) fn is_held(&self, id: OverlayId) -> bool {
        self.holds.lock().positions(id).next().is_some()
    }

    /// Keep what `layers` show.
    pub fn hold(self: &Arc<Self>, layers: &[Layer]) -> Held {
        let positions: Vec<_> = layers.iter().map(|layer| (layer.overlay, layer.upto)).collect();
        let mut holds = self.holds.lock();
        for position in &positions {
            *holds.0.entry(*position).or_default() += 1;
        }
        drop(holds);
        Held { store: self.clone(), positions }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut holds = self.store.holds.lock();
        for position in &self.positions {
            match holds.0.get_mut(position) {
                Some(times) if *times > 1 => *times -= 1,
                _ => drop(holds.0.remove(position)),
            }
        }
    }
}

//! Holding changes back while a switch or a snapshot names a position.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::OverlayStore;
use crate::overlay::{Layer, OverlayId};

/// Overlays that take no changes as long as this lives.
pub struct Frozen {
    store: Arc<OverlayStore>,
    ids: Vec<OverlayId>,
    layers: HashMap<OverlayId, Layer>,
    _turn: OwnedMutexGuard<()>,
}

impl OverlayStore {
    /// Hold back all changes to these overlays until the answer is dropped. One freeze at a time; reading
    /// goes on.
    pub async fn freeze(self: &Arc<Self>, ids: Vec<OverlayId>) -> Frozen {
        let turn = self.switching.clone().lock_owned().await;
        let mut layers = HashMap::new();
        for id in &ids {
            let mut shard = self.shard(*id).write();
            let Some(overlay) = shard.overlays.get(id) else {
                shard.frozen.insert(*id);
                continue;
            };
            let overlay = overlay.clone();
            drop(shard);
            let mut state = overlay.lock();
            state.frozen = true;
            if state.position > 0 {
                layers.insert(*id, Layer { overlay: *id, upto: state.position, counts: state.counts });
            }
        }
        Frozen { store: self.clone(), ids, layers, _turn: turn }
    }
}

impl Frozen {
    /// The overlay as it is now; `None` if it was never written.
    pub fn layer(&self, id: OverlayId) -> Option<Layer> {
        self.layers.get(&id).copied()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for id in &self.ids {
            let mut shard = self.store.shard(*id).write();
            shard.frozen.remove(id);
            let overlay = shard.overlays.get(id).cloned();
            drop(shard);
            if let Some(overlay) = overlay {
                overlay.lock().frozen = false;
            }
        }
        self.store.thawed.send_modify(|thaws| *thaws += 1);
    }
}

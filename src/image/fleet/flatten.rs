//! Flattening: the sealed layers of a clone become one, so that what it reads costs no more with every
//! restore and fork. Neither its view nor anybody's bytes change.

use std::sync::Arc;

use super::Fleet;
use crate::error::Result;
use crate::image::change::Change;
use crate::image::record::CloneRecord;
use crate::overlay::OverlayId;

/// Sealed layers above which a clone is flattened.
pub const FLATTEN_ABOVE: usize = 4;

impl Fleet {
    /// The clones that have too many sealed layers.
    pub fn deep_clones(&self) -> Vec<Arc<CloneRecord>> {
        let state = self.catalog.state();
        state.clones().filter(|clone| clone.view.layers.len() > FLATTEN_ABOVE).cloned().collect()
    }

    /// Flatten a clone's sealed layers. `false` if it was switched meanwhile.
    pub async fn flatten(&self, clone: &CloneRecord) -> Result<bool> {
        let mut ids = self.catalog.id_range(1).await?;
        let Some(into) = ids.next().map(OverlayId) else { return Ok(false) };
        let (id, layers) = (clone.id, clone.view.layers.clone());
        let (layer, held) = self.overlays.flatten(layers.clone(), into).await?;
        let expected = layers.clone();
        let replaced = self.catalog.transact("flatten a clone", move |draft| {
            let same = draft.clone_by_id(id).is_some_and(|clone| clone.view.layers == expected);
            if same {
                draft.apply(Change::Flatten { clone: id, layer })?;
            }
            Ok(same)
        });
        let replaced = match replaced.await {
            Ok(replaced) => replaced,
            Err(error) => {
                // The change may turn up in the log at the next start.
                std::mem::forget(held);
                return Err(error);
            }
        };
        self.release(layers.iter());
        Ok(replaced)
    }
}

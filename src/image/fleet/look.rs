//! A look at what a clone or a snapshot shows: read at leisure while the clone goes on.
//!
//! Costs the clone's writers what a snapshot costs them, and nothing is noted in the catalog. The layers
//! are held in memory until the look is over, whatever is switched or removed meanwhile.

use std::sync::Arc;

use super::{Fleet, Freeze};
use crate::chunk::ChunkSource;
use crate::error::{Error, Result};
use crate::image::catalog::Draft;
use crate::image::names::CloneRef;
use crate::image::record::{CloneRecord, VersionRecord};
use crate::image::state::State;
use crate::image::switch::Sealed;
use crate::overlay::changes::Private;
use crate::overlay::diff;
use crate::overlay::paths::SealedView;
use crate::overlay::{Held, Layer};

/// What a clone or a snapshot showed at one instant. To be dropped when it was read.
pub struct Look {
    fleet: Fleet,
    version: Arc<VersionRecord>,
    /// Bottom first.
    layers: Vec<Layer>,
    held: Option<Held>,
}

impl Fleet {
    /// Look at a clone as it is now, or at a snapshot.
    pub async fn look(&self, source: &CloneRef) -> Result<Look> {
        let (wanted, freeze) = (source.clone.clone(), Freeze::of(source));
        let choose = move |state: &State| Ok(vec![state.find_clone(&wanted)?.clone()]);
        let (fleet, source) = (self.clone(), source.clone());
        let look = move |draft: &mut Draft, clones: &[Arc<CloneRecord>], sealed: &Sealed| {
            let clone = clones.first().ok_or_else(|| Error::internal("a look at no clone"))?;
            let content = match &source.snapshot {
                Some(name) => draft.find_snapshot(clone, name)?.content(),
                None => sealed.content(&clone.view),
            };
            let version = draft.version(clone.image, content.version).cloned();
            let version = version.ok_or_else(|| Error::internal(format!("clone {:?} shows no version", clone.name)))?;
            // Before anything that it names can lose its name.
            let held = Some(fleet.overlays.hold(&content.layers));
            Ok(Look { fleet: fleet.clone(), version, layers: content.layers, held })
        };
        self.at_one_instant("look at a clone", freeze, choose, look).await
    }
}

impl Look {
    /// What is private of it.
    pub async fn private(&self) -> Result<Private> {
        self.fleet.overlays.private(&self.layers).await
    }

    /// Visit every path at which it differs from its version; `private` is what is private of it. Answers
    /// how many bytes of its files are. Blocks.
    pub fn diff(&self, chunks: &dyn ChunkSource, private: &Private, visit: diff::Visit<'_>) -> Result<u64> {
        let view = SealedView {
            overlays: &self.fleet.overlays,
            chunks,
            manifest: self.version.manifest,
            layers: &self.layers,
        };
        diff::compare(view, private, visit)
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        drop(self.held.take());
        self.fleet.release(self.layers.iter());
    }
}

//! The last step: one change set that names the version, and the image if it is new.

use std::sync::Arc;

use super::{Base, identity_base};
use crate::error::{Error, ErrorKind, Result};
use crate::image::images::{image_or_new, place_version};
use crate::image::{Catalog, Draft, Labels, NewVersion, State, VersionRecord};
use crate::manifest::{ManifestId, ManifestStats};

/// A version that is stored but not yet published.
pub(in crate::image) struct VersionDraft {
    pub image: String,
    pub source: String,
    pub author: String,
    pub labels: Labels,
    pub consistency: String,
    pub base: Arc<Base>,
    pub manifest: ManifestId,
    pub stats: ManifestStats,
    pub bytes_added: u64,
}

pub(in crate::image) async fn publish(catalog: &Arc<Catalog>, draft: VersionDraft) -> Result<Arc<VersionRecord>> {
    catalog.transact("import", move |state| apply(&draft, state)).await
}

/// Make the version visible in `state`.
pub(in crate::image) fn apply(draft: &VersionDraft, state: &mut Draft) -> Result<Arc<VersionRecord>> {
    let stats = &draft.stats;
    check_base(state, &draft.image, &draft.base)?;
    let image = image_or_new(state, &draft.image, &Labels::default(), draft.base.seed.0)?;
    let new = NewVersion {
        image: image.id,
        manifest: draft.manifest,
        created: draft.base.now,
        source: draft.source.clone(),
        author: draft.author.clone(),
        labels: draft.labels.clone(),
        consistency: draft.consistency.clone(),
        inodes: stats.inodes,
        bytes_logical: stats.bytes_logical,
        bytes_stored: stats.chunk_bytes_stored + stats.page_bytes_stored,
        bytes_added: draft.bytes_added,
    };
    place_version(state, &new)
}

/// Whether the image still is what the new version was based on.
pub(in crate::image) fn check_base(state: &State, name: &str, base: &Base) -> Result<()> {
    let image = state.image_named(name);
    let newest = image.and_then(|image| identity_base(state, image.id)).map(|version| version.export);
    let seed = image.map_or(base.seed.0, |image| image.name_seed);
    let same = !base.newest || newest == base.version.as_ref().map(|version| version.export);
    if same && seed == base.seed.0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, format!("the versions of image {name} changed while one was made"))
        .remedy("make it again: files keep their identity from the version before"))
}

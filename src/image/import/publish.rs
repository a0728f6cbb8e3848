//! The last step: one change set that names the version, and the image if it is new.

use std::sync::Arc;

use super::{Base, ImportRequest, identity_base};
use crate::error::{Error, ErrorKind, Result};
use crate::image::images::{image_or_new, place_version};
use crate::image::{Catalog, Draft, Labels, NewVersion, State, VersionRecord};
use crate::manifest::{ManifestId, ManifestStats};

/// A version that is stored but not yet published.
pub(super) struct VersionDraft {
    pub request: ImportRequest,
    pub base: Arc<Base>,
    pub manifest: ManifestId,
    pub stats: ManifestStats,
    pub bytes_added: u64,
}

pub(super) async fn publish(catalog: &Arc<Catalog>, draft: VersionDraft) -> Result<Arc<VersionRecord>> {
    catalog.transact("import", move |state| apply(&draft, state)).await
}

fn apply(draft: &VersionDraft, state: &mut Draft) -> Result<Arc<VersionRecord>> {
    let (request, stats) = (&draft.request, &draft.stats);
    check_base(state, &request.image, &draft.base)?;
    let image = image_or_new(state, &request.image, &Labels::default(), draft.base.seed.0)?;
    let new = NewVersion {
        image: image.id,
        manifest: draft.manifest,
        created: draft.base.now,
        source: request.source.display().to_string(),
        author: request.author.clone(),
        labels: request.labels.clone(),
        consistency: request.consistency.clone(),
        inodes: stats.inodes,
        bytes_logical: stats.bytes_logical,
        bytes_stored: stats.chunk_bytes_stored + stats.page_bytes_stored,
        bytes_added: draft.bytes_added,
    };
    place_version(state, &new)
}

/// Whether the image still is what the import was based on.
pub(super) fn check_base(state: &State, name: &str, base: &Base) -> Result<()> {
    let image = state.image_named(name);
    let newest = image.and_then(|image| identity_base(state, image.id)).map(|version| version.export);
    let seed = image.map_or(base.seed.0, |image| image.name_seed);
    if newest == base.version.as_ref().map(|version| version.export) && seed == base.seed.0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, format!("the versions of image {name} changed while it was imported"))
        .remedy("import again: files keep their identity from the newest version"))
}

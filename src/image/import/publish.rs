//! The last step: one change set that names the version, and the image if it is new.

use std::sync::Arc;

use super::{Base, ImportRequest, identity_base};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Catalog, Change, Draft, ExportId, ImageId, ImageRecord, Labels, State, VersionRecord};
use crate::manifest::{ManifestId, ManifestStats};

/// A version that is stored but not yet published.
pub(super) struct VersionDraft {
    pub request: ImportRequest,
    pub base: Arc<Base>,
    pub manifest: ManifestId,
    pub stats: ManifestStats,
    pub bytes_added: u64,
}

pub(super) async fn publish(catalog: &Arc<Catalog>, draft: VersionDraft) -> Result<VersionRecord> {
    catalog.transact("import", move |state| apply(&draft, state)).await
}

fn apply(draft: &VersionDraft, state: &mut Draft) -> Result<VersionRecord> {
    let name = &draft.request.image;
    let mut image = match state.image_named(name) {
        Some(image) => ImageRecord::clone(image),
        None => new_image(draft, ImageId(state.new_id()?)),
    };
    check_base(state, name, &draft.base)?;
    let version = new_version(draft, &image, ExportId(state.new_id()?));
    image.next_version += 1;
    state.apply(Change::PutImage(image))?;
    state.apply(Change::PutVersion(version.clone()))?;
    Ok(version)
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

fn new_image(draft: &VersionDraft, id: ImageId) -> ImageRecord {
    ImageRecord {
        id,
        name: draft.request.image.as_str().into(),
        created: draft.base.now,
        labels: Labels::default(),
        tags: std::collections::BTreeMap::new(),
        next_version: 1,
        name_seed: draft.base.seed.0,
    }
}

fn new_version(draft: &VersionDraft, image: &ImageRecord, export: ExportId) -> VersionRecord {
    VersionRecord {
        export,
        image: image.id,
        number: image.next_version,
        manifest: draft.manifest,
        created: draft.base.now,
        source: draft.request.source.display().to_string(),
        author: draft.request.author.clone(),
        labels: draft.request.labels.clone(),
        consistency: draft.request.consistency.clone(),
        inodes: draft.stats.inodes,
        bytes_logical: draft.stats.bytes_logical,
        bytes_stored: draft.stats.chunk_bytes_stored + draft.stats.page_bytes_stored,
        bytes_added: draft.bytes_added,
        removed: false,
    }
}

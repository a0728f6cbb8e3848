//! What one does with images, versions and tags.
//!
//! Nothing blocks the removal of a version: while views read it, its record stays, but no name leads
//! to it. An image goes only when it has no clones.

use std::sync::Arc;

use super::catalog::{Catalog, Draft};
use super::change::Change;
use super::labels::{LabelEdits, Labels, Selector};
use super::names::{ImageRef, VersionRef, check_name, check_tag};
use super::policy::{SwitchEdits, SwitchPolicy};
use super::record::{ExportId, ImageId, ImageRecord, VersionRecord};
use super::state::State;
use crate::env::Time;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::ManifestId;

/// Longest source or author of a version, in bytes.
pub const MAX_ORIGIN: usize = 4096;
/// Tags of one image.
pub const MAX_TAGS: usize = 256;

/// A version to be: all of a [`VersionRecord`] but its number and its export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVersion {
    pub image: ImageId,
    pub manifest: ManifestId,
    /// Moved to just after the newest version's, if it is not later.
    pub created: Time,
    pub source: String,
    pub author: String,
    pub labels: Labels,
    /// `application`, `crash` or `unknown`.
    pub consistency: String,
    pub inodes: u64,
    pub bytes_logical: u64,
    pub bytes_stored: u64,
    pub bytes_added: u64,
}

impl Catalog {
    /// The image `name`; made with `labels` if there is none.
    pub async fn create_or_get_image(&self, name: &str, labels: Labels) -> Result<Arc<ImageRecord>> {
        check_name("image", name)?;
        let (name, name_seed) = (name.to_owned(), self.random());
        self.transact("create image", move |draft| image_or_new(draft, &name, &labels, name_seed)).await
    }

    /// Give a finished import its number and make it visible.
    pub async fn add_version(&self, new: NewVersion) -> Result<Arc<VersionRecord>> {
        self.transact("add version", move |draft| place_version(draft, &new)).await
    }

    /// Change labels, take tags away, and set how its clones are switched, all or nothing.
    pub async fn set_image(
        &self,
        name: &str,
        edits: LabelEdits,
        untag: Vec<String>,
        switch: SwitchEdits,
    ) -> Result<Arc<ImageRecord>> {
        self.edit_image("set image", name, move |_, image| {
            image.labels = edits.apply(&image.labels)?;
            image.policy = switch.apply(&image.policy);
            untag.iter().try_for_each(|tag| remove_tag(image, tag))
        })
        .await
    }

    /// Change the labels of a version.
    pub async fn label_version(&self, version: VersionRef, edits: LabelEdits) -> Result<Arc<VersionRecord>> {
        self.transact("label version", move |draft| {
            let former = draft.find_version(&version)?;
            let labels = edits.apply(&former.labels)?;
            let labelled = VersionRecord { labels, ..VersionRecord::clone(former) };
            let key = (labelled.image, labelled.number);
            draft.apply(Change::PutVersion(labelled))?;
            draft.version(key.0, key.1).cloned().ok_or_else(|| Error::internal("the labelled version is not there"))
        })
        .await
    }

    /// Make `tag` mean `version`, whatever it meant before.
    pub async fn tag(&self, version: VersionRef, tag: &str) -> Result<Arc<ImageRecord>> {
        check_tag(tag)?;
        let tag = tag.to_owned();
        let image = version.image.clone();
        self.edit_image("tag version", &image, move |state, image| {
            let number = state.find_version(&version)?.number;
            if image.tags.len() >= MAX_TAGS && !image.tags.contains_key(&tag) {
                return Err(Error::invalid(format!("image {:?} has {MAX_TAGS} tags", image.name))
                    .remedy("move one of its tags instead"));
            }
            image.tags.insert(tag.clone(), number);
            Ok(())
        })
        .await
    }

    /// Remove an image with all its versions; refused while it has clones.
    pub async fn remove_image(&self, name: &str) -> Result<Arc<ImageRecord>> {
        let name = name.to_owned();
        self.transact("remove image", move |draft| remove_image(draft, &name)).await
    }

    /// Remove a version and its tags by name. Clones that show it or pin it go on reading it.
    pub async fn remove_version(&self, version: VersionRef) -> Result<Arc<VersionRecord>> {
        self.transact("remove version", move |draft| remove_version(draft, &version)).await
    }

    /// Remove images and versions, all of these or none; answers what they were called.
    pub async fn remove_images(&self, which: Vec<ImageRef>) -> Result<Vec<String>> {
        self.transact("remove images", move |draft| which.iter().map(|image| remove(draft, image)).collect()).await
    }

    /// Remove every image whose labels match, or none; answers what they were called.
    pub async fn remove_selected_images(&self, selector: Selector) -> Result<Vec<String>> {
        self.transact("remove images", move |draft| {
            let selected: Vec<_> = draft.images().filter(|image| selector.matches(&image.labels)).cloned().collect();
            selected.iter().map(|image| remove(draft, &ImageRef::Image(image.name.to_string()))).collect()
        })
        .await
    }

    async fn edit_image(
        &self,
        label: &'static str,
        name: &str,
        mut edit: impl FnMut(&State, &mut ImageRecord) -> Result<()> + Send + 'static,
    ) -> Result<Arc<ImageRecord>> {
        let name = name.to_owned();
        self.transact(label, move |draft| {
            let mut image = ImageRecord::clone(draft.find_image(&name)?);
            edit(draft, &mut image)?;
            let id = image.id;
            draft.apply(Change::PutImage(image))?;
            image_by_id(draft, id).cloned()
        })
        .await
    }
}

fn remove(draft: &mut Draft, which: &ImageRef) -> Result<String> {
    match which {
        ImageRef::Image(image) => drop(remove_image(draft, image)?),
        ImageRef::Version(version) => drop(remove_version(draft, version)?),
    }
    Ok(which.to_string())
}

fn remove_image(draft: &mut Draft, name: &str) -> Result<Arc<ImageRecord>> {
    let image = draft.find_image(name)?.clone();
    let clones = draft.clones_of(image.id).count();
    if clones > 0 {
        return Err(Error::new(ErrorKind::Conflict, format!("image {name:?} has {clones} clones"))
            .remedy(format!("remove the clones first, or remove a version: {name}@vN")));
    }
    let numbers: Vec<_> = draft.versions_of(image.id).map(|version| version.number).collect();
    for number in numbers {
        draft.apply(Change::RemoveVersion { image: image.id, number })?;
    }
    draft.apply(Change::RemoveImage(image.id))?;
    Ok(image)
}

fn remove_version(draft: &mut Draft, version: &VersionRef) -> Result<Arc<VersionRecord>> {
    let version = draft.find_version(version)?.clone();
    draft.apply(Change::RemoveVersion { image: version.image, number: version.number })?;
    Ok(version)
}

fn image_by_id(draft: &Draft, id: ImageId) -> Result<&Arc<ImageRecord>> {
    draft.image(id).ok_or_else(|| Error::not_found(format!("image {} was removed meanwhile", id.0)))
}

fn check_origin(what: &str, text: &str) -> Result<()> {
    if text.len() > MAX_ORIGIN {
        return Err(Error::invalid(format!("{what} of a version is longer than {MAX_ORIGIN} bytes")));
    }
    Ok(())
}

fn remove_tag(image: &mut ImageRecord, tag: &str) -> Result<()> {
    match image.tags.remove(tag) {
        Some(_) => Ok(()),
        None => Err(Error::not_found(format!("image {:?} has no tag {tag:?}", image.name))),
    }
}

/// The image `name`; made if there is none.
pub(super) fn image_or_new(
    draft: &mut Draft,
    name: &str,
    labels: &Labels,
    name_seed: [u8; 16],
) -> Result<Arc<ImageRecord>> {
    if let Some(image) = draft.image_named(name) {
        return Ok(image.clone());
    }
    let id = ImageId(draft.new_id()?);
    let image = ImageRecord {
        id,
        name: name.into(),
        created: draft.now(),
        labels: labels.clone(),
        tags: Default::default(),
        next_version: 1,
        name_seed,
        policy: SwitchPolicy::default(),
    };
    draft.apply(Change::PutImage(image))?;
    image_by_id(draft, id).cloned()
}

/// Make `new` the next version of its image, later than the one before.
pub(super) fn place_version(draft: &mut Draft, new: &NewVersion) -> Result<Arc<VersionRecord>> {
    check_origin("source", &new.source)?;
    check_origin("author", &new.author)?;
    let image = image_by_id(draft, new.image)?.clone();
    let former = draft.versions_of(image.id).next_back().map(|version| version.created);
    let version = VersionRecord {
        export: ExportId(draft.new_id()?),
        image: image.id,
        number: image.next_version,
        manifest: new.manifest,
        created: former.map_or(new.created, |former| new.created.max(former.next())),
        source: new.source.clone(),
        author: new.author.clone(),
        labels: new.labels.clone(),
        consistency: new.consistency.clone(),
        inodes: new.inodes,
        bytes_logical: new.bytes_logical,
        bytes_stored: new.bytes_stored,
        bytes_added: new.bytes_added,
        removed: false,
    };
    draft.apply(Change::PutVersion(version))?;
    let added = draft.version(image.id, image.next_version).cloned();
    added.ok_or_else(|| Error::internal("the added version is not there"))
}

//! Catalog records as documents.

use std::collections::HashMap;

use super::types::{CloneInfo, ImageInfo, LabelMap, PolicyInfo, SnapshotInfo, StagedInfo, SwitchWords, VersionInfo};
use crate::env::Time;
use crate::error::{Error, Result};
use crate::image::{
    CloneRecord, ExportOverrides, Fleet, ImageId, ImageRecord, Labels, SnapshotRecord, Squash, Staged, State,
    SwitchEdits, SwitchPolicy, VersionNumber, VersionRecord, Writes,
};

/// RFC 3339 in UTC, to the millisecond.
pub(super) fn rfc3339(time: Time) -> String {
    time.rfc3339()
}

pub(super) fn label_map(labels: &Labels) -> LabelMap {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// How many clones show each version.
pub(super) struct ClonesPerVersion(HashMap<(ImageId, VersionNumber), u64>);

impl ClonesPerVersion {
    pub fn count(state: &State) -> Self {
        Self::of(state.clones().map(|clone| &**clone))
    }

    pub fn count_image(state: &State, image: ImageId) -> Self {
        Self::of(state.clones_of(image).map(|clone| &**clone))
    }

    fn of<'a>(clones: impl Iterator<Item = &'a CloneRecord>) -> Self {
        let mut counts = HashMap::new();
        for clone in clones {
            *counts.entry((clone.image, clone.view.version)).or_default() += 1;
        }
        Self(counts)
    }

    fn get(&self, version: &VersionRecord) -> u64 {
        self.0.get(&(version.image, version.number)).copied().unwrap_or(0)
    }
}

pub(super) fn image_info(state: &State, image: &ImageRecord, clones: &ClonesPerVersion) -> ImageInfo {
    let info = |version: &VersionRecord| {
        let name = version_name(&image.name, version.number);
        VersionInfo { tags: tags_of(image, version.number), clones: clones.get(version), ..version_info(name, version) }
    };
    let versions: Vec<_> = state.versions_of(image.id).map(|version| info(version)).collect();
    ImageInfo {
        name: image.name.to_string(),
        created: rfc3339(image.created),
        labels: label_map(&image.labels),
        tags: image.tags.iter().map(|(tag, number)| (tag.clone(), version_name(&image.name, *number))).collect(),
        version: state.newest_version(image.id).map(|version| version_name(&image.name, version.number)),
        clones: versions.iter().map(|version| version.clones).sum(),
        switch: switch_words(&image.policy),
        versions,
    }
}

fn tags_of(image: &ImageRecord, number: VersionNumber) -> Vec<String> {
    image.tags.iter().filter(|(_, n)| **n == number).map(|(tag, _)| tag.clone()).collect()
}

/// `NAME@vN`.
pub(super) fn version_name(image: &str, number: VersionNumber) -> String {
    format!("{image}@v{number}")
}

/// What a version says of itself: no tags, no clones.
pub(super) fn version_info(name: String, version: &VersionRecord) -> VersionInfo {
    VersionInfo {
        export: format!("/images/{name}"),
        version: name,
        created: rfc3339(version.created),
        source: version.source.clone(),
        author: version.author.clone(),
        consistency: version.consistency.clone(),
        labels: label_map(&version.labels),
        tags: Vec::new(),
        manifest: version.manifest.to_string(),
        clones: 0,
        inodes: version.inodes,
        bytes_logical: version.bytes_logical,
        bytes_stored: version.bytes_stored,
        bytes_added: version.bytes_added,
        removed: version.removed,
    }
}

/// The image's name, or its number if the catalog lost it, which its invariants forbid.
pub(super) fn image_of(state: &State, id: ImageId) -> String {
    state.image(id).map_or_else(|| id.0.to_string(), |image| image.name.to_string())
}

/// `NAME@vN` of a version that a clone shows or showed.
pub(super) fn version_of(state: &State, clone: &CloneRecord, number: VersionNumber) -> String {
    version_name(&image_of(state, clone.image), number)
}

pub(super) fn clone_info(fleet: &Fleet, state: &State, clone: &CloneRecord) -> CloneInfo {
    let image = image_of(state, clone.image);
    let private = fleet.counts(&clone.view);
    CloneInfo {
        name: clone.name.to_string(),
        version: version_name(&image, clone.view.version),
        lagging: clone.lagging.map(|lagging| version_name(&image, lagging.version)),
        lagging_since: clone.lagging.map(|lagging| rfc3339(lagging.since)),
        staged: clone.staged.as_ref().map(|staged| staged_info(&image, staged)),
        blocked_by: Vec::new(),
        image,
        view: clone.view.number,
        labels: label_map(&clone.labels),
        created: rfc3339(clone.created),
        switched: rfc3339(clone.switched),
        export: format!("/clones/{}", clone.name),
        pins: clone.pins.len() as u64,
        snapshots: state.snapshots_of(clone.id).count() as u64,
        bytes_private: private.bytes,
        inodes_private: private.inodes,
        bytes_quota: clone.quota,
        layers: clone.view.layers.len() as u64,
        depth: clone.depth.into(),
        policy: policy_info(&clone.export),
        switch: switch_words(&clone.policy),
    }
}

fn staged_info(image: &str, staged: &Staged) -> StagedInfo {
    StagedInfo {
        version: version_name(image, staged.version),
        operation: staged.operation.to_string(),
        since: rfc3339(staged.since),
        at: staged.at.map(rfc3339),
    }
}

/// How clones are switched, in words.
pub(super) fn switch_words(policy: &SwitchPolicy) -> SwitchWords {
    let paths = match &policy.writes {
        Some(Writes::Preserve(preserved)) => preserved.paths().to_vec(),
        _ => Vec::new(),
    };
    SwitchWords {
        writes: policy.writes.as_ref().map(ToString::to_string),
        paths,
        conflict: policy.conflict.map(|conflict| conflict.to_string()),
        activate: policy.activation.map(|activation| activation.to_string()),
    }
}

/// How clones are switched, from words.
pub(super) fn switch_policy(words: &SwitchWords) -> Result<SwitchPolicy> {
    Ok(switch_edits(words)?.apply(&SwitchPolicy::default()))
}

/// Changes to that: the word `default` takes a choice back.
pub(super) fn switch_edits(words: &SwitchWords) -> Result<SwitchEdits> {
    let SwitchWords { writes, paths, conflict, activate } = words;
    if writes.as_deref().is_none_or(|word| word == DEFAULT) && !paths.is_empty() {
        return Err(Error::invalid("paths without --writes preserve").remedy("add --writes preserve"));
    }
    Ok(SwitchEdits {
        writes: choice(writes, |word| Writes::parse(word, paths))?,
        conflict: choice(conflict, str::parse)?,
        activation: choice(activate, str::parse)?,
    })
}

/// What takes a choice back.
const DEFAULT: &str = "default";

fn choice<T>(word: &Option<String>, parse: impl Fn(&str) -> Result<T>) -> Result<Option<Option<T>>> {
    let chosen = |word: &str| if word == DEFAULT { Ok(None) } else { parse(word).map(Some) };
    word.as_deref().map(chosen).transpose()
}

fn policy_info(export: &ExportOverrides) -> PolicyInfo {
    let squash = |squash| match squash {
        Squash::None => "none".to_owned(),
        Squash::Root => "root".to_owned(),
        Squash::All => "all".to_owned(),
    };
    PolicyInfo {
        allow: export.allow.as_ref().map(|nets| nets.iter().map(ToString::to_string).collect()),
        read_only: export.read_only,
        squash: export.squash.map(squash),
        privileged_port: export.privileged_port,
    }
}

pub(super) fn snapshot_info(state: &State, clone: &CloneRecord, snapshot: &SnapshotRecord) -> SnapshotInfo {
    let private = snapshot.counts();
    SnapshotInfo {
        name: snapshot.name.to_string(),
        clone: clone.name.to_string(),
        version: version_of(state, clone, snapshot.version),
        created: rfc3339(snapshot.created),
        labels: label_map(&snapshot.labels),
        bytes_private: private.bytes,
        inodes_private: private.inodes,
        layers: snapshot.layers.len() as u64,
        auto: snapshot.auto(),
        operation: snapshot.operation.map(|operation| operation.to_string()),
    }
}

//! The catalog in memory: all records at one revision, as persistent maps.
//!
//! Owns the lookups that everybody else makes. A [`State`] is a value: cloning it is O(1), and who
//! holds one sees one revision for as long as he likes. It changes only through [`State::apply`]
//! (`state/apply.rs`), a pure function of the state before and the change.
//!
//! Invariants: names are unique per kind, those of snapshots per clone; every view, pin and snapshot
//! names a version that is there; the record of a removed version is there exactly as long as one of
//! them reads it, and cannot be found by name or export.
//!
//! Derived, not stored: the maps by name, the clones of each image, the readers of each version, the
//! marks of each overlay, the clones that operations are still to switch, and the tables of what many
//! clones share.

mod apply;
mod operations;
mod roots;
#[cfg(test)]
mod tests;

pub use roots::OverlayRoot;

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::shared_ptr::DefaultSharedPtr;
use imbl::{GenericHashMap, OrdMap, OrdSet};

use super::Labels;
use super::labels::Selector;
use super::log::Rev;
use super::names::{VersionRef, WhichVersion};
use super::operation::OperationRecord;
use super::policy::SwitchPolicy;
use super::record::{
    CloneRecord, ExportId, ExportOverrides, ImageId, ImageRecord, OperationId, SnapshotRecord, StoreRecord,
    VersionNumber, VersionRecord,
};
use crate::error::{Error, Result};
use crate::overlay::{OverlayId, Position};

/// Identifiers below this are constants, such as the root's inode number.
pub const FIRST_ID: u64 = 1024;

type VersionKey = (ImageId, VersionNumber);
/// By clone, so that the snapshots of one are beside each other and cost the others nothing.
type SnapshotKey = (ExportId, Arc<str>);

/// What an export shows.
#[derive(Clone, Copy, Debug)]
pub enum Export<'a> {
    Clone(&'a Arc<CloneRecord>),
    Version(&'a Arc<VersionRecord>),
}

/// As [`Export`], held by the map.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exported {
    Clone(Arc<CloneRecord>),
    Version(Arc<VersionRecord>),
}

/// A persistent hash map: three steps for 100,000 exports, where a tree takes five times as long.
type Exports = GenericHashMap<ExportId, Exported, BuildHasherDefault<IdHasher>, DefaultSharedPtr>;

/// Spreads an identifier's bits by one multiplication. Identifiers are ours, nobody can choose them
/// to collide.
#[derive(Clone, Copy, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// All records at one revision.
#[derive(Clone)]
pub struct State {
    rev: Rev,
    next_id: u64,
    store: Option<Arc<StoreRecord>>,
    images: OrdMap<ImageId, Arc<ImageRecord>>,
    images_by_name: OrdMap<Arc<str>, ImageId>,
    /// Removed ones too, while they are read.
    versions: OrdMap<VersionKey, Arc<VersionRecord>>,
    /// Clones, and the versions that were not removed: the one probe of the read path.
    exports: Exports,
    clones_by_name: OrdMap<Arc<str>, ExportId>,
    clones_by_image: OrdSet<(ImageId, ExportId)>,
    snapshots: OrdMap<SnapshotKey, Arc<SnapshotRecord>>,
    operations: OrdMap<OperationId, Arc<OperationRecord>>,
    /// The clones in waves still to come.
    planned: OrdMap<ExportId, OperationId>,
    /// How many views, pins and snapshots read a version; no entry for none.
    readers: OrdMap<VersionKey, u64>,
    /// How often sealed layers name a position of an overlay; no entry for never.
    marks: OrdMap<(OverlayId, Position), u64>,
    /// One `Arc` per distinct label set of clones, as far as they fit.
    label_sets: OrdSet<Arc<Labels>>,
    /// The same for export policies.
    policies: OrdSet<Arc<ExportOverrides>>,
    /// And of how clones are switched.
    switch_policies: OrdSet<Arc<SwitchPolicy>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            rev: Rev::default(),
            next_id: FIRST_ID,
            store: None,
            images: OrdMap::new(),
            images_by_name: OrdMap::new(),
            versions: OrdMap::new(),
            exports: Exports::default(),
            clones_by_name: OrdMap::new(),
            clones_by_image: OrdSet::new(),
            snapshots: OrdMap::new(),
            operations: OrdMap::new(),
            planned: OrdMap::new(),
            readers: OrdMap::new(),
            marks: OrdMap::new(),
            label_sets: OrdSet::new(),
            policies: OrdSet::new(),
            switch_policies: OrdSet::new(),
        }
    }
}

/// Equal if the records are; the revision counts, the way to it does not.
impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        (self.rev, self.next_id, &self.store) == (other.rev, other.next_id, &other.store)
            && self.images == other.images
            && self.versions == other.versions
            && self.exports == other.exports
            && self.snapshots == other.snapshots
            && self.operations == other.operations
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("rev", &self.rev)
            .field("images", &self.images.len())
            .field("versions", &self.versions.len())
            .field("clones", &self.clone_count())
            .finish_non_exhaustive()
    }
}

impl State {
    pub fn rev(&self) -> Rev {
        self.rev
    }

    /// The lowest identifier that was never handed out.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// `None` only in a catalog that was never opened.
    pub fn store(&self) -> Option<&Arc<StoreRecord>> {
        self.store.as_ref()
    }

    /// What the export shows; `None` if it is gone: a dead handle. The read path's lookup.
    pub fn export(&self, id: ExportId) -> Option<Export<'_>> {
        self.exports.get(&id).map(|exported| match exported {
            Exported::Clone(clone) => Export::Clone(clone),
            Exported::Version(version) => Export::Version(version),
        })
    }

    pub fn clone_by_id(&self, id: ExportId) -> Option<&Arc<CloneRecord>> {
        match self.exports.get(&id) {
            Some(Exported::Clone(clone)) => Some(clone),
            _ => None,
        }
    }

    pub fn clone_named(&self, name: &str) -> Option<&Arc<CloneRecord>> {
        self.clones_by_name.get(name).and_then(|id| self.clone_by_id(*id))
    }

    /// As [`clone_named`](Self::clone_named), with an error that names it.
    pub fn find_clone(&self, name: &str) -> Result<&Arc<CloneRecord>> {
        self.clone_named(name)
            .ok_or_else(|| Error::not_found(format!("clone {name:?} does not exist")).remedy("see `mimeo clone ls`"))
    }

    /// Sorted by name.
    pub fn clones(&self) -> impl Iterator<Item = &Arc<CloneRecord>> {
        self.clones_by_name.values().filter_map(|id| self.clone_by_id(*id))
    }

    pub fn clone_count(&self) -> usize {
        self.clones_by_name.len()
    }

    /// In the order of their making.
    pub fn clones_of(&self, image: ImageId) -> impl Iterator<Item = &Arc<CloneRecord>> {
        let all = (image, ExportId(0))..=(image, ExportId(u64::MAX));
        self.clones_by_image.range(all).filter_map(|(_, id)| self.clone_by_id(*id))
    }

    /// The clones that match, sorted by name.
    pub fn select<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = &'a Arc<CloneRecord>> {
        self.clones().filter(|clone| selector.matches(&clone.labels))
    }

    pub fn image(&self, id: ImageId) -> Option<&Arc<ImageRecord>> {
        self.images.get(&id)
    }

    pub fn image_named(&self, name: &str) -> Option<&Arc<ImageRecord>> {
        self.images_by_name.get(name).and_then(|id| self.image(*id))
    }

    /// As [`image_named`](Self::image_named), with an error that names it.
    pub fn find_image(&self, name: &str) -> Result<&Arc<ImageRecord>> {
        self.image_named(name)
            .ok_or_else(|| Error::not_found(format!("image {name:?} does not exist")).remedy("see `mimeo image ls`"))
    }

    /// Sorted by name.
    pub fn images(&self) -> impl Iterator<Item = &Arc<ImageRecord>> {
        self.images_by_name.values().filter_map(|id| self.image(*id))
    }

    /// A version by number; removed ones too, while they are read.
    pub fn version(&self, image: ImageId, number: VersionNumber) -> Option<&Arc<VersionRecord>> {
        self.versions.get(&(image, number))
    }

    /// The versions of an image in ascending order; removed ones too, while they are read.
    pub fn versions_of(&self, image: ImageId) -> impl DoubleEndedIterator<Item = &Arc<VersionRecord>> {
        self.versions.range((image, 0)..=(image, VersionNumber::MAX)).map(|(_, version)| version)
    }

    /// All versions of all images; removed ones too, while they are read.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<VersionRecord>> {
        self.versions.values()
    }

    /// The highest version that was not removed.
    pub fn newest_version(&self, image: ImageId) -> Option<&Arc<VersionRecord>> {
        self.versions_of(image).rev().find(|version| !version.removed)
    }

    /// A version by name. A removed one is not found.
    pub fn find_version(&self, wanted: &VersionRef) -> Result<&Arc<VersionRecord>> {
        let image = self.find_image(&wanted.image)?;
        let found = match &wanted.version {
            WhichVersion::Newest => self.newest_version(image.id),
            WhichVersion::Number(number) => self.version(image.id, *number),
            WhichVersion::Tag(tag) => image.tags.get(tag).and_then(|number| self.version(image.id, *number)),
        };
        found.filter(|version| !version.removed).ok_or_else(|| version_not_found(wanted))
    }

    /// The snapshots of a clone, sorted by name.
    pub fn snapshots_of(&self, clone: ExportId) -> impl Iterator<Item = &Arc<SnapshotRecord>> {
        // The shortest name sorts first, and no snapshot has it.
        let (from, to) = ((clone, Arc::from("")), (ExportId(clone.0.saturating_add(1)), Arc::from("")));
        self.snapshots.range(from..to).map(|(_, snapshot)| snapshot)
    }

    /// The snapshots of all clones.
    pub fn snapshots(&self) -> impl Iterator<Item = &Arc<SnapshotRecord>> {
        self.snapshots.values()
    }

    pub fn snapshot_count(&self) -> usize {
        self.snapshots.len()
    }

    pub fn snapshot(&self, clone: ExportId, name: Arc<str>) -> Option<&Arc<SnapshotRecord>> {
        self.snapshots.get(&(clone, name))
    }

    /// A snapshot by name, with an error that names it.
    pub fn find_snapshot(&self, clone: &CloneRecord, name: &str) -> Result<&Arc<SnapshotRecord>> {
        self.snapshot(clone.id, name.into()).ok_or_else(|| {
            Error::not_found(format!("clone {:?} has no snapshot {name:?}", clone.name))
                .remedy(format!("see `mimeo clone snapshots {}`", clone.name))
        })
    }

    /// How many views, pins and snapshots of clones read a version.
    pub fn readers(&self, image: ImageId, number: VersionNumber) -> u64 {
        self.readers.get(&(image, number)).copied().unwrap_or(0)
    }
}

fn version_not_found(wanted: &VersionRef) -> Error {
    let image = &wanted.image;
    match wanted.version {
        WhichVersion::Newest => Error::not_found(format!("image {image:?} has no version"))
            .remedy(format!("import one: mimeo image import {image} SOURCE")),
        _ => Error::not_found(format!("version {wanted} does not exist"))
            .remedy(format!("see `mimeo image show {image}`")),
    }
}

/// The images, versions, snapshots and operations that differ between two states: `None` for those that are gone.
#[derive(Debug, Default)]
pub(super) struct Difference<'a> {
    pub store: Option<&'a StoreRecord>,
    pub images: Vec<(ImageId, Option<&'a ImageRecord>)>,
    pub versions: Vec<(VersionKey, Option<&'a VersionRecord>)>,
    pub snapshots: Vec<(SnapshotKey, Option<&'a SnapshotRecord>)>,
    pub operations: Vec<(OperationId, Option<&'a OperationRecord>)>,
}

impl State {
    /// From `former` to this state. Visits only what the two do not share. Clones are not compared:
    /// changes name them.
    pub(super) fn since<'a>(&'a self, former: &'a Self) -> Difference<'a> {
        Difference {
            store: self.store.as_deref().filter(|_| self.store != former.store),
            images: changed(&former.images, &self.images),
            versions: changed(&former.versions, &self.versions),
            snapshots: changed(&former.snapshots, &self.snapshots),
            operations: changed(&former.operations, &self.operations),
        }
    }

    /// This state, whose records were applied one by one, as of a revision.
    #[must_use]
    pub(super) fn restored(self, rev: Rev, next_id: u64) -> Self {
        Self { rev, next_id, ..self }
    }
}

/// The values now of every key where the two maps differ.
fn changed<'a, K: Clone + Ord, V: PartialEq>(
    former: &OrdMap<K, Arc<V>>,
    now: &'a OrdMap<K, Arc<V>>,
) -> Vec<(K, Option<&'a V>)> {
    let item = |item: DiffItem<'_, 'a, K, Arc<V>>| match item {
        DiffItem::Add(key, new) | DiffItem::Update { new: (key, new), .. } => (key.clone(), Some(&**new)),
        DiffItem::Remove(key, _) => (key.clone(), None),
    };
    former.diff(now).map(item).collect()
}

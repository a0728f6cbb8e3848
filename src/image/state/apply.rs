//! How changes change the state.
//!
//! Whoever makes a change checks first whether it makes sense; what cannot be applied here was
//! either never checked (a bug) or read from a damaged log. So all errors are `Internal`, name the
//! change, and leave a state that must be thrown away.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdSet;

use super::{Exported, State, VersionKey};
use crate::error::{Error, Result};
use crate::image::Labels;
use crate::image::change::{Change, ChangeSet};
use crate::image::log::Rev;
use crate::image::policy::SwitchPolicy;
use crate::image::record::{
    CloneRecord, ExportId, ExportOverrides, ImageId, ImageRecord, SnapshotRecord, VersionNumber, VersionRecord,
};
use crate::image::switch::ViewSwitch;
use crate::overlay::{Layer, OverlayId, Position};

/// Distinct label sets, and policies, that are shared between clones. Beyond it the table starts
/// anew: memory is lost, nothing else.
const MAX_SHARED: usize = 1024;

impl State {
    /// Apply one change. After an error the state is half changed and of no use.
    pub fn apply(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::PutStore(store) => self.store = Some(Arc::new(store.clone())),
            Change::PutImage(image) => self.put_image(image)?,
            Change::RemoveImage(id) => self.remove_image(*id)?,
            Change::PutVersion(version) => self.put_version(version)?,
            Change::RemoveVersion { image, number } => self.remove_version((*image, *number))?,
            Change::PutClone(clone) => self.put_clone(clone)?,
            Change::RemoveClone(id) => self.remove_clone(*id)?,
            Change::LabelClones { clones, labels } => self.label_clones(clones, labels)?,
            Change::Switch(switch) => self.switch(switch)?,
            Change::DropPins { clones, sealed } => {
                self.edit_clones(clones, |clone| clone.drop_pins(sealed, |_| true))?
            }
            Change::GrantIds { next } => self.grant_ids(*next)?,
            Change::PutSnapshot(snapshot) => self.put_snapshot(snapshot)?,
            Change::RemoveSnapshot { clone, name } => self.remove_snapshot(*clone, name)?,
            Change::SetPolicy { clones, export, quota } => self.set_policy(clones, export, *quota)?,
            Change::SetLagging { clones, lagging } => self.edit_clones(clones, |clone| {
                clone.lagging = *lagging;
                true
            })?,
            Change::SetSwitchPolicy { clones, policy } => self.set_switch_policy(clones, policy)?,
            Change::Stage { clones, staged } => self.edit_clones(clones, |clone| {
                clone.staged.clone_from(staged);
                true
            })?,
            Change::Flatten { clone, layer } => self.edit_clones(&[*clone], |clone| {
                clone.view.layers = vec![*layer];
                true
            })?,
            Change::PutOperation(operation) => self.put_operation(operation)?,
            Change::Advance(advance) => self.advance(advance)?,
            Change::RemoveOperation(id) => self.remove_operation(*id)?,
            Change::Settle { operation, at, clones } => self.settle(*operation, *at, clones)?,
            Change::DropViews { clones, views, sealed } => {
                let mut views = views.iter();
                self.edit_clones(clones, |clone| {
                    // What a damaged change does not name stays.
                    let ended = views.next().map_or(&[][..], Vec::as_slice);
                    clone.drop_pins(sealed, |view| ended.contains(&view))
                })?
            }
        }
        Ok(())
    }

    /// Apply a whole change set, which leads to revision `rev`.
    pub(in crate::image) fn apply_set(&mut self, rev: Rev, set: &ChangeSet) -> Result<()> {
        if rev != self.rev.next() {
            return Err(impossible(format!("change set {} after {}", rev.0, self.rev.0)));
        }
        set.changes.iter().try_for_each(|change| self.apply(change))?;
        self.rev = rev;
        Ok(())
    }

    /// This state, now known as revision `rev`: its changes have become durable.
    #[must_use]
    pub(in crate::image) fn at(mut self, rev: Rev) -> Self {
        self.rev = rev;
        self
    }

    fn grant_ids(&mut self, next: u64) -> Result<()> {
        if next <= self.next_id {
            return Err(impossible(format!("identifiers up to {next} are handed out already")));
        }
        self.next_id = next;
        Ok(())
    }

    fn put_image(&mut self, image: &ImageRecord) -> Result<()> {
        if self.images_by_name.get(&image.name).is_some_and(|id| *id != image.id) {
            return Err(impossible(format!("image name {:?} is taken", image.name)));
        }
        if let Some(former) = self.images.insert(image.id, Arc::new(image.clone())) {
            self.images_by_name.remove(&former.name);
        }
        self.images_by_name.insert(image.name.clone(), image.id);
        Ok(())
    }

    fn remove_image(&mut self, id: ImageId) -> Result<()> {
        if self.versions_of(id).next().is_some() || self.clones_of(id).next().is_some() {
            return Err(impossible(format!("image {} is in use", id.0)));
        }
        let image = self.images.remove(&id).ok_or_else(|| no_image(id))?;
        self.images_by_name.remove(&image.name);
        Ok(())
    }

    fn put_version(&mut self, version: &VersionRecord) -> Result<()> {
        let key = (version.image, version.number);
        let image = Arc::make_mut(self.images.get_mut(&version.image).ok_or_else(|| no_image(version.image))?);
        image.next_version = image.next_version.max(version.number.saturating_add(1));
        let version = Arc::new(version.clone());
        let former = self.versions.insert(key, version.clone());
        if former.is_some_and(|former| former.export != version.export) {
            return Err(impossible(format!("export of {} changes", name_of(key))));
        }
        if version.removed {
            return Ok(());
        }
        match self.exports.insert(version.export, Exported::Version(version.clone())) {
            None => Ok(()),
            Some(Exported::Version(former)) if (former.image, former.number) == key => Ok(()),
            Some(_) => Err(export_taken(version.export)),
        }
    }

    fn remove_version(&mut self, key: VersionKey) -> Result<()> {
        let version = self.versions.get_mut(&key).ok_or_else(|| no_version(key))?;
        let version = Arc::make_mut(version);
        version.removed = true;
        self.exports.remove(&version.export);
        let image = self.images.get_mut(&key.0).ok_or_else(|| no_image(key.0))?;
        Arc::make_mut(image).tags.retain(|_, number| *number != key.1);
        self.forget_unread(key);
        Ok(())
    }

    /// Drop the record of a version that is removed and not read.
    fn forget_unread(&mut self, key: VersionKey) {
        let removed = self.versions.get(&key).is_some_and(|version| version.removed);
        if removed && !self.readers.contains_key(&key) {
            self.versions.remove(&key);
        }
    }

    fn put_clone(&mut self, clone: &CloneRecord) -> Result<()> {
        if !self.images.contains_key(&clone.image) {
            return Err(no_image(clone.image));
        }
        if self.clones_by_name.get(&clone.name).is_some_and(|id| *id != clone.id) {
            return Err(impossible(format!("clone name {:?} is taken", clone.name)));
        }
        let mut uses = Uses::default();
        uses.add(clone);
        let mut clone = clone.clone();
        clone.labels = share(&mut self.label_sets, &clone.labels);
        clone.export = share(&mut self.policies, &clone.export);
        clone.policy = share(&mut self.switch_policies, &clone.policy);
        let (id, image, name) = (clone.id, clone.image, clone.name.clone());
        match self.exports.insert(id, Exported::Clone(Arc::new(clone))) {
            None => {}
            Some(Exported::Clone(former)) => {
                self.forget_names(&former);
                uses.subtract(&former);
            }
            Some(Exported::Version(_)) => return Err(export_taken(id)),
        }
        self.clones_by_name.insert(name, id);
        self.clones_by_image.insert((image, id));
        self.count(uses)
    }

    fn remove_clone(&mut self, id: ExportId) -> Result<()> {
        let clone = self.clone_by_id(id).ok_or_else(|| no_clone(id))?.clone();
        let snapshots: Vec<_> = self.snapshots_of(id).cloned().collect();
        let mut uses = Uses::default();
        for snapshot in snapshots {
            self.snapshots.remove(&(id, snapshot.name.clone()));
            uses.snapshot(&clone, &snapshot, -1);
        }
        self.exports.remove(&id);
        self.forget_names(&clone);
        self.note_gone(&clone);
        uses.subtract(&clone);
        self.count(uses)
    }

    fn put_snapshot(&mut self, snapshot: &SnapshotRecord) -> Result<()> {
        let clone = self.clone_by_id(snapshot.clone).ok_or_else(|| no_clone(snapshot.clone))?.clone();
        let mut uses = Uses::default();
        uses.snapshot(&clone, snapshot, 1);
        let mut snapshot = snapshot.clone();
        snapshot.labels = share(&mut self.label_sets, &snapshot.labels);
        let key = (clone.id, snapshot.name.clone());
        if let Some(former) = self.snapshots.insert(key, Arc::new(snapshot)) {
            uses.snapshot(&clone, &former, -1);
        }
        self.count(uses)
    }

    fn remove_snapshot(&mut self, id: ExportId, name: &Arc<str>) -> Result<()> {
        let clone = self.clone_by_id(id).ok_or_else(|| no_clone(id))?.clone();
        let snapshot = self.snapshots.remove(&(id, name.clone()));
        let snapshot = snapshot.ok_or_else(|| impossible(format!("clone {} has no snapshot {name:?}", id.0)))?;
        let mut uses = Uses::default();
        uses.snapshot(&clone, &snapshot, -1);
        self.count(uses)
    }

    fn switch(&mut self, switch: &ViewSwitch) -> Result<()> {
        let mut tops = (switch.first_overlay..).map(OverlayId);
        let mut top = || tops.next().unwrap_or(OverlayId(switch.first_overlay));
        let mut at = 0..;
        self.edit_clones(&switch.clones, |clone| clone.switch(switch, at.next().unwrap_or(0), top()))
    }

    /// Take a clone that is no longer in `exports` out of the maps by name and image.
    fn forget_names(&mut self, clone: &CloneRecord) {
        self.clones_by_name.remove(&clone.name);
        self.clones_by_image.remove(&(clone.image, clone.id));
    }

    fn label_clones(&mut self, clones: &[ExportId], labels: &Arc<Labels>) -> Result<()> {
        let labels = share(&mut self.label_sets, labels);
        self.edit_clones(clones, |clone| {
            clone.labels = labels.clone();
            true
        })
    }

    fn set_policy(&mut self, clones: &[ExportId], export: &Arc<ExportOverrides>, quota: Option<u64>) -> Result<()> {
        let export = share(&mut self.policies, export);
        self.edit_clones(clones, |clone| {
            (clone.export, clone.quota) = (export.clone(), quota);
            true
        })
    }

    fn set_switch_policy(&mut self, clones: &[ExportId], policy: &Arc<SwitchPolicy>) -> Result<()> {
        let policy = share(&mut self.switch_policies, policy);
        self.edit_clones(clones, |clone| {
            clone.policy = policy.clone();
            true
        })
    }

    /// Change the records of clones; `edit` says whether it did anything. Their names, images and ids
    /// stay.
    fn edit_clones(&mut self, ids: &[ExportId], mut edit: impl FnMut(&mut CloneRecord) -> bool) -> Result<()> {
        let mut uses = Uses::default();
        for id in ids {
            let Some(Exported::Clone(held)) = self.exports.get_mut(id) else { return Err(no_clone(*id)) };
            let mut clone = CloneRecord::clone(held);
            if edit(&mut clone) {
                uses.add(&clone);
                uses.subtract(held);
                *held = Arc::new(clone);
            }
        }
        self.count(uses)
    }

    /// Bring the readers of versions and the marks of overlays up to date, after all records are.
    fn count(&mut self, uses: Uses) -> Result<()> {
        for (key, change) in uses.versions.into_iter().filter(|(_, change)| *change != 0) {
            if !self.versions.contains_key(&key) {
                return Err(no_version(key));
            }
            match self.readers(key.0, key.1).checked_add_signed(change) {
                Some(0) => {
                    self.readers.remove(&key);
                    self.forget_unread(key);
                }
                Some(readers) => drop(self.readers.insert(key, readers)),
                None => return Err(impossible(format!("fewer than no readers of {}", name_of(key)))),
            }
        }
        for (mark, change) in uses.marks.into_iter().filter(|(_, change)| *change != 0) {
            match self.marks.get(&mark).copied().unwrap_or(0).checked_add_signed(change) {
                Some(0) => drop(self.marks.remove(&mark)),
                Some(names) => drop(self.marks.insert(mark, names)),
                None => return Err(impossible(format!("fewer than no names of a position of overlay {}", mark.0.0))),
            }
        }
        Ok(())
    }
}

/// The one `Arc` for this value.
fn share<T: Ord>(table: &mut OrdSet<Arc<T>>, value: &Arc<T>) -> Arc<T> {
    if let Some(known) = table.get(value) {
        return known.clone();
    }
    if table.len() >= MAX_SHARED {
        table.clear();
    }
    table.insert(value.clone());
    value.clone()
}

/// By how much the readers of versions and the names of overlays' positions change. Few, however many
/// clones: a set of clones reads few versions, and most have no private writes.
#[derive(Default)]
struct Uses {
    versions: BTreeMap<VersionKey, i64>,
    marks: BTreeMap<(OverlayId, Position), i64>,
}

impl Uses {
    fn add(&mut self, clone: &CloneRecord) {
        self.clone(clone, 1);
    }

    fn subtract(&mut self, clone: &CloneRecord) {
        self.clone(clone, -1);
    }

    fn clone(&mut self, clone: &CloneRecord, by: i64) {
        clone.versions_read().for_each(|number| self.version((clone.image, number), by));
        clone.layers_named().for_each(|layer| self.layer(layer, by));
    }

    fn snapshot(&mut self, clone: &CloneRecord, snapshot: &SnapshotRecord, by: i64) {
        snapshot.versions_read().for_each(|number| self.version((clone.image, number), by));
        snapshot.layers.iter().for_each(|layer| self.layer(layer, by));
    }

    fn version(&mut self, key: VersionKey, by: i64) {
        *self.versions.entry(key).or_insert(0) += by;
    }

    fn layer(&mut self, layer: &Layer, by: i64) {
        *self.marks.entry((layer.overlay, layer.upto)).or_insert(0) += by;
    }
}

pub(super) fn impossible(what: String) -> Error {
    Error::internal(format!("impossible change of the catalog: {what}"))
}

fn no_image(id: ImageId) -> Error {
    impossible(format!("no image {}", id.0))
}

fn no_clone(id: ExportId) -> Error {
    impossible(format!("no clone {}", id.0))
}

fn no_version(key: VersionKey) -> Error {
    impossible(format!("no {}", name_of(key)))
}

fn export_taken(id: ExportId) -> Error {
    impossible(format!("export {} is taken", id.0))
}

fn name_of((image, number): (ImageId, VersionNumber)) -> String {
    format!("version v{number} of image {}", image.0)
}

//! What one does with clones, other than switching them (`repoint.rs`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::catalog::{Catalog, Draft};
use super::change::Change;
use super::labels::{LabelEdits, Labels};
use super::names::{VersionRef, check_count, check_name};
use super::record::{CloneRecord, ExportId, VersionRecord, View};
use crate::error::{Error, Result};
use crate::overlay::OverlayId;

/// Clones to be: all of them or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewClones {
    pub version: VersionRef,
    /// At most [`MAX_CLONES_PER_CALL`](super::names::MAX_CLONES_PER_CALL).
    pub names: Vec<String>,
    pub labels: Labels,
}

impl Catalog {
    /// Create clones of one version, in the order of their names given. O(1) each, whatever the
    /// version holds.
    pub async fn create_clones(&self, new: NewClones) -> Result<Vec<Arc<CloneRecord>>> {
        check_new_names(&new.names)?;
        let names: Vec<Arc<str>> = new.names.iter().map(|name| name.as_str().into()).collect();
        let labels = Arc::new(new.labels);
        self.transact("create clones", move |draft| {
            let version = draft.find_version(&new.version)?.clone();
            names.iter().map(|name| create_clone(draft, &version, name, &labels)).collect()
        })
        .await
    }

    /// Remove clones, all or none; answers what they were. Handles into them are dead from then on.
    pub async fn remove_clones(&self, names: Vec<String>) -> Result<Vec<Arc<CloneRecord>>> {
        self.transact("remove clones", move |draft| {
            let clones = clones_named(draft, &names)?;
            for clone in &clones {
                draft.apply(Change::RemoveClone(clone.id))?;
            }
            Ok(clones)
        })
        .await
    }

    /// Set and remove labels, on all of these clones or none.
    pub async fn label_clones(&self, names: Vec<String>, edits: LabelEdits) -> Result<Vec<Arc<CloneRecord>>> {
        self.transact("label clones", move |draft| {
            let clones = clones_named(draft, &names)?;
            let mut by_labels: BTreeMap<Labels, Vec<ExportId>> = BTreeMap::new();
            for clone in &clones {
                by_labels.entry(edits.apply(&clone.labels)?).or_default().push(clone.id);
            }
            for (labels, clones) in by_labels {
                draft.apply(Change::LabelClones { clones, labels: Arc::new(labels) })?;
            }
            clones_named(draft, &names)
        })
        .await
    }
}

fn create_clone(
    draft: &mut Draft,
    version: &VersionRecord,
    name: &Arc<str>,
    labels: &Arc<Labels>,
) -> Result<Arc<CloneRecord>> {
    if draft.clone_named(name).is_some() {
        return Err(Error::exists(format!("clone {name:?} exists already")).remedy("choose another name"));
    }
    let (id, now) = (ExportId(draft.new_id()?), draft.now());
    draft.apply(Change::PutClone(CloneRecord {
        id,
        name: name.clone(),
        image: version.image,
        created: now,
        labels: labels.clone(),
        view: View::of(1, version.number, OverlayId(id.0)),
        pins: Vec::new(),
        switched: now,
        turns: Vec::new(),
        export: Arc::default(),
        quota: None,
        lagging: None,
    }))?;
    draft.clone_by_id(id).cloned().ok_or_else(|| Error::internal(format!("clone {name:?} is not there")))
}

fn check_new_names(names: &[String]) -> Result<()> {
    check_count(names.len())?;
    let mut seen = HashSet::with_capacity(names.len());
    for name in names {
        check_name("clone", name)?;
        if !seen.insert(name) {
            return Err(Error::invalid(format!("clone {name:?} is named twice")).remedy("name each clone once"));
        }
    }
    Ok(())
}

/// The clones of these names, each once, in the order given; the first unknown one is an error.
pub(super) fn clones_named(draft: &Draft, names: &[String]) -> Result<Vec<Arc<CloneRecord>>> {
    if names.is_empty() {
        return Err(Error::invalid("no clone is named").remedy("name at least one clone"));
    }
    let mut seen = HashSet::with_capacity(names.len());
    let distinct = names.iter().filter(|name| seen.insert(name.as_str()));
    distinct.map(|name| draft.find_clone(name).cloned()).collect()
}

//! Repoint: one transaction that switches the views of a set of clones to another version.
//!
//! Whatever the number of clones, it is one change and one key in the log, durable before it is
//! answered and visible at one instant. Rollback is a repoint to the former version.

use std::sync::Arc;

use super::catalog::{Catalog, Draft};
use super::change::Change;
use super::clones::clones_named;
use super::labels::Selector;
use super::names::VersionRef;
use super::record::{CloneRecord, ImageRecord, OperationId, VersionRecord};
use crate::env::Time;
use crate::error::{Error, Result};

/// Which clones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepointTarget {
    All,
    Select(Selector),
    Names(Vec<String>),
}

/// A repoint to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepointPlan {
    /// Whose clones. `All` and `Select` mean clones of this image only.
    pub image: String,
    /// A version of that image.
    pub to: VersionRef,
    pub target: RepointTarget,
}

/// What a repoint did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepointDone {
    pub operation: OperationId,
    /// Clones that show another version now.
    pub switched: usize,
    /// Clones that showed it already.
    pub unchanged: usize,
    pub version: Arc<VersionRecord>,
    pub at: Time,
}

impl Catalog {
    /// Switch clones to a version, all or none.
    pub async fn repoint(&self, plan: RepointPlan) -> Result<RepointDone> {
        self.transact("repoint", move |draft| run(draft, &plan)).await
    }

    /// Drop the pins of clones; answers how many there were. Handles into the former views that the
    /// clone no longer shows are dead from then on. `All` and `Select` take clones of every image.
    pub async fn drop_pins(&self, target: RepointTarget) -> Result<usize> {
        self.transact("drop pins", move |draft| {
            let clones = match &target {
                RepointTarget::All => draft.clones().cloned().collect(),
                RepointTarget::Select(selector) => draft.select(selector).cloned().collect(),
                RepointTarget::Names(names) => clones_named(draft, names)?,
            };
            let pinned: Vec<_> = clones.iter().filter(|clone| !clone.pins.is_empty()).collect();
            if !pinned.is_empty() {
                draft.apply(Change::DropPins { clones: pinned.iter().map(|clone| clone.id).collect() })?;
            }
            Ok(pinned.iter().map(|clone| clone.pins.len()).sum())
        })
        .await
    }
}

fn run(draft: &mut Draft, plan: &RepointPlan) -> Result<RepointDone> {
    let image = draft.find_image(&plan.image)?.clone();
    if plan.to.image != plan.image {
        return Err(Error::invalid(format!("{} is not a version of image {:?}", plan.to, plan.image))
            .remedy("clones can be repointed only to versions of their own image"));
    }
    let version = draft.find_version(&plan.to)?.clone();
    let chosen = choose(draft, &image, &plan.target)?;
    let clones: Vec<_> = chosen
        .iter()
        .filter(|clone| clone.view.version != version.number || !clone.view.layers.is_empty())
        .map(|clone| clone.id)
        .collect();
    let (operation, at) = (OperationId(draft.new_id()?), draft.now());
    let (switched, unchanged) = (clones.len(), chosen.len() - clones.len());
    if switched > 0 {
        let first_overlay = draft.new_ids(switched as u64)?;
        draft.apply(Change::Switch { clones, number: version.number, at, operation, first_overlay })?;
    }
    Ok(RepointDone { operation, switched, unchanged, version, at })
}

/// The clones of `image` that are meant; none is an error.
fn choose(draft: &Draft, image: &ImageRecord, target: &RepointTarget) -> Result<Vec<Arc<CloneRecord>>> {
    let of_image = || draft.clones_of(image.id);
    let chosen: Vec<_> = match target {
        RepointTarget::All => of_image().cloned().collect(),
        RepointTarget::Select(selector) => of_image().filter(|c| selector.matches(&c.labels)).cloned().collect(),
        RepointTarget::Names(names) => clones_named(draft, names)?,
    };
    if let Some(foreign) = chosen.iter().find(|clone| clone.image != image.id) {
        return Err(Error::invalid(format!("clone {:?} is not a clone of image {:?}", foreign.name, image.name))
            .remedy("name clones of one image only"));
    }
    if chosen.is_empty() {
        let which = match target {
            RepointTarget::Select(selector) => format!(" that matches {:?}", selector.to_string()),
            _ => String::new(),
        };
        return Err(
            Error::not_found(format!("image {:?} has no clone{which}", image.name)).remedy("see `mimeo clone ls`")
        );
    }
    Ok(chosen)
}

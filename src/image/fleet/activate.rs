//! Activation: the switch that waits for a clone is made.
//!
//! It is the repoint that was staged, with the policy that came with it, live. Clones that one operation
//! staged are switched together, all or none; a clone whose switch was withdrawn or made by somebody else in
//! the meantime is left as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::operations::{Part, check_unplanned};
use super::{Fleet, RepointDone, RepointPlan};
use crate::error::{Error, Result};
use crate::image::change::Change;
use crate::image::clones::CloneTarget;
use crate::image::names::VersionRef;
use crate::image::policy::{Activation, SwitchPolicy};
use crate::image::readers::Quiet;
use crate::image::record::{CloneRecord, ExportId, OperationId, Staged};
use crate::image::state::State;

/// Clones that one operation had staged, and what became of their switch.
#[derive(Debug)]
pub struct Activated {
    /// The operation that staged it.
    pub staged_by: OperationId,
    /// As they were before.
    pub clones: Vec<Arc<CloneRecord>>,
    pub outcome: Result<RepointDone>,
}

impl Fleet {
    /// Make the switches that wait for these clones now, whatever they wait for. Each that is named must have
    /// one, of those that are selected at least one.
    pub async fn activate(&self, target: CloneTarget) -> Result<Vec<Activated>> {
        let clones = {
            let state = self.catalog.state();
            let mut clones = target.named_or_selected(&state)?;
            if matches!(target, CloneTarget::Select(_)) && clones.iter().any(|clone| clone.staged.is_some()) {
                clones.retain(|clone| clone.staged.is_some());
            }
            staged(&clones)?
        };
        let mut done = Vec::new();
        for clones in clones.into_values() {
            done.push(self.activate_staged(clones, None).await?);
        }
        Ok(done)
    }

    /// Make the switch that waits for this clone's mount; `None` if there is none. Nobody may use the clone:
    /// that is asked in the commit itself, while it stands still.
    pub async fn activate_mounted(&self, clone: ExportId, quiet: Arc<dyn Quiet>) -> Result<Option<Activated>> {
        let clone = self.catalog.state().clone_by_id(clone).filter(|clone| clone.waits_for_mount()).cloned();
        match clone {
            Some(clone) => Ok(Some(self.activate_staged(vec![clone], Some(quiet)).await?)),
            None => Ok(None),
        }
    }

    /// Withdraw the switches that wait for these clones; answers which had one.
    pub async fn unstage(&self, target: CloneTarget) -> Result<Vec<Arc<CloneRecord>>> {
        self.catalog
            .transact("withdraw staged switches", move |draft| {
                let mut clones = target.named_or_selected(draft)?;
                clones.retain(|clone| clone.staged.is_some());
                // A scheduled operation would switch them all the same.
                check_unplanned(draft, &clones, None)?;
                if !clones.is_empty() {
                    let ids = clones.iter().map(|clone| clone.id).collect();
                    draft.apply(Change::Stage { clones: ids, staged: None })?;
                }
                Ok(clones)
            })
            .await
    }

    /// Make the switch that waits for all of these clones, staged by one operation.
    pub(super) async fn activate_staged(
        &self,
        clones: Vec<Arc<CloneRecord>>,
        quiet: Option<Arc<dyn Quiet>>,
    ) -> Result<Activated> {
        let first = clones.first().ok_or_else(|| Error::internal("an activation of no clone"))?;
        let staged = first.staged.clone().ok_or_else(|| not_staged(first))?;
        let plan = plan(&self.catalog.state(), &clones, &staged)?;
        let outcome = self.repoint_part(plan, Part::Staged { by: staged.operation, quiet }).await;
        Ok(Activated { staged_by: staged.operation, clones, outcome })
    }
}

impl CloneRecord {
    /// Whether a switch waits for the clone to be mounted.
    pub fn waits_for_mount(&self) -> bool {
        self.staged.as_ref().is_some_and(|staged| staged.at.is_none())
    }
}

/// Clones by the operation that staged them; one that is not staged is an error.
fn staged(clones: &[Arc<CloneRecord>]) -> Result<BTreeMap<OperationId, Vec<Arc<CloneRecord>>>> {
    let mut by_operation: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for clone in clones {
        let staged = clone.staged.as_ref().ok_or_else(|| not_staged(clone))?;
        by_operation.entry(staged.operation).or_default().push(clone.clone());
    }
    Ok(by_operation)
}

fn plan(state: &State, clones: &[Arc<CloneRecord>], staged: &Staged) -> Result<RepointPlan> {
    let image = clones.first().and_then(|clone| state.image(clone.image));
    let image = image.ok_or_else(|| Error::internal("staged clones without an image"))?.name.to_string();
    let target = CloneTarget::Names(clones.iter().map(|clone| clone.name.to_string()).collect());
    let policy = SwitchPolicy { activation: Some(Activation::Live), ..staged.policy.clone() };
    let plan = RepointPlan::new(&image, VersionRef::number(&image, staged.version), target).with(policy);
    Ok(RepointPlan { staged_by: Some(staged.operation), ..plan })
}

fn not_staged(clone: &CloneRecord) -> Error {
    Error::not_found(format!("no switch waits for clone {:?}", clone.name))
        .remedy("stage one: mimeo repoint IMAGE --to IMAGE@vN --activate on-mount")
}

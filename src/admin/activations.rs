//! Switches that wait for their clones: made at once, or withdrawn.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Context;
use super::reply::{Answer, Body, error_info};
use super::selection::target;
use super::types::{ActivatedInfo, ActivationList, Remove, Removed};
use super::views::version_of;
use crate::image::{Activated, CloneRecord, State as Records};

pub(super) async fn activate(State(cx): State<Arc<Context>>, Body(body): Body<Remove>) -> Answer<ActivationList> {
    let activated = cx.fleet.activate(target(body.names, body.select)?).await?;
    let state = cx.catalog.state();
    let infos: Vec<_> = activated.iter().flat_map(|activated| infos(&state, activated)).collect();
    // If some were switched, the answer says which.
    if infos.iter().all(|info| info.operation.is_none())
        && let Some(error) = activated.into_iter().find_map(|activated| activated.outcome.err())
    {
        return Err(error.into());
    }
    Ok(Json(ActivationList { clones: infos }))
}

fn infos(state: &Records, activated: &Activated) -> Vec<ActivatedInfo> {
    let (operation, error) = match &activated.outcome {
        Ok(done) => (Some(done.operation.to_string()), None),
        Err(error) => (None, Some(error_info(error).error)),
    };
    let info = |clone: &Arc<CloneRecord>| {
        let now = state.clone_by_id(clone.id).unwrap_or(clone);
        ActivatedInfo {
            name: clone.name.to_string(),
            version: version_of(state, now, now.view.version),
            view: now.view.number,
            staged: now.staged.is_some(),
            staged_by: activated.staged_by.to_string(),
            operation: operation.clone(),
            error: error.clone(),
        }
    };
    activated.clones.iter().map(info).collect()
}

pub(super) async fn withdraw(State(cx): State<Arc<Context>>, Body(body): Body<Remove>) -> Answer<Removed> {
    let clones = cx.fleet.unstage(target(body.names, body.select)?).await?;
    tracing::info!("withdrew the staged switches of {} clones", clones.len());
    Ok(Json(Removed { names: clones.iter().map(|clone| clone.name.to_string()).collect() }))
}

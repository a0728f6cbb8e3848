//! The view switch.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Context;
use super::clones::target;
use super::reply::{Answer, Body};
use super::types::{RepointBody, RepointInfo};
use super::views::{switch_policy, version_name};
use crate::image::RepointPlan;

pub(super) async fn repoint(State(cx): State<Arc<Context>>, Body(body): Body<RepointBody>) -> Answer<RepointInfo> {
    let policy = switch_policy(&body.policy)?;
    let target = target(body.clones, body.select)?;
    let plan = RepointPlan { to: body.to.parse()?, target, policy, image: body.image };
    let image = plan.image.clone();
    let done = cx.fleet.repoint(plan).await?;
    let version = version_name(&image, done.version.number);
    tracing::info!("{}: {} clones of {image} show {version}", done.operation, done.switched);
    Ok(Json(RepointInfo {
        operation: done.operation.to_string(),
        image,
        version,
        clones: done.switched as u64,
        discarded: done.discarded as u64,
        snapshot: (done.discarded > 0).then(|| done.operation.snapshot_name()),
        lagging: done.lagging as u64,
        unchanged: done.unchanged as u64,
    }))
}

//! The view switch, and the former views that it leaves.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, Query, State};

use super::reply::{Answer, Body};
use super::selection::{Selection, target};
use super::types::{DropPinsBody, PinList, PinsDropped, RepointBody, RepointInfo};
use super::views::{pin_infos, switch_policy, version_name};
use super::{Context, Peer};
use crate::error::Result;
use crate::image::RepointPlan;

pub(super) async fn repoint(
    State(cx): State<Arc<Context>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(body): Body<RepointBody>,
) -> Answer<RepointInfo> {
    let plan = plan(body)?;
    let image = plan.image.clone();
    let done = cx.fleet.on_behalf_of(&peer.who()).repoint(plan).await?;
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
        staged: done.staged as u64,
    }))
}

pub(super) fn plan(body: RepointBody) -> Result<RepointPlan> {
    let (policy, target) = (switch_policy(&body.policy)?, target(body.clones, body.select)?);
    Ok(RepointPlan { to: body.to.parse()?, target, policy, image: body.image })
}

pub(super) async fn pins(State(cx): State<Arc<Context>>, Query(selection): Query<Selection>) -> Answer<PinList> {
    let state = cx.catalog.state();
    let selector = selection.selector()?;
    let clones = state.select(&selector);
    Ok(Json(PinList { pins: clones.flat_map(|clone| pin_infos(&cx.fleet, &state, clone)).collect() }))
}

pub(super) async fn drop_pins(State(cx): State<Arc<Context>>, Body(body): Body<DropPinsBody>) -> Answer<PinsDropped> {
    let pins = cx.fleet.drop_pins(target(body.clones, body.select)?).await?;
    tracing::info!("dropped {pins} pins");
    Ok(Json(PinsDropped { pins: pins as u64 }))
}

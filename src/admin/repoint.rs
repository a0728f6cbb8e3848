//! The view switch, and the former views that it leaves.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};

use super::Context;
use super::clones::Selection;
use super::reply::{Answer, Body};
use super::types::{DropPinsBody, PinList, PinsDropped, RepointBody, RepointInfo};
use super::views::{pin_infos, version_name};
use crate::error::{Error, Result};
use crate::image::{RepointPlan, RepointTarget};

pub(super) async fn repoint(State(cx): State<Arc<Context>>, Body(body): Body<RepointBody>) -> Answer<RepointInfo> {
    let plan = RepointPlan { to: body.to.parse()?, target: target(body.select, body.clones)?, image: body.image };
    let image = plan.image.clone();
    let done = cx.catalog.repoint(plan).await?;
    let version = version_name(&image, done.version.number);
    tracing::info!("{}: {} clones of {image} show {version}", done.operation, done.switched);
    Ok(Json(RepointInfo {
        operation: done.operation.to_string(),
        image,
        version,
        clones: done.switched as u64,
        unchanged: done.unchanged as u64,
    }))
}

/// The named clones, the selected ones, or all.
fn target(select: Option<String>, clones: Vec<String>) -> Result<RepointTarget> {
    match (select, clones.is_empty()) {
        (None, true) => Ok(RepointTarget::All),
        (None, false) => Ok(RepointTarget::Names(clones)),
        (Some(selector), true) => Ok(RepointTarget::Select(selector.parse()?)),
        (Some(_), false) => Err(Error::invalid("both a selector and names").remedy("give one of them")),
    }
}

pub(super) async fn pins(State(cx): State<Arc<Context>>, Query(selection): Query<Selection>) -> Answer<PinList> {
    let state = cx.catalog.state();
    let clones = selection.clones(&state)?;
    Ok(Json(PinList { pins: clones.iter().flat_map(|clone| pin_infos(&state, clone)).collect() }))
}

pub(super) async fn drop_pins(State(cx): State<Arc<Context>>, Body(body): Body<DropPinsBody>) -> Answer<PinsDropped> {
    let pins = cx.catalog.drop_pins(target(body.select, body.clones)?).await?;
    tracing::info!("dropped {pins} pins");
    Ok(Json(PinsDropped { pins: pins as u64 }))
}

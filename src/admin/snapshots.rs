//! Snapshots, and what is made of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, Path, Query, State};

use super::reply::{Answer, Body};
use super::selection::{Selection, target};
use super::types::{
    CloneInfo, ForkBody, LabelSnapshot, Remove, Removed, RestoreBody, RestoreInfo, SnapshotInfo, SnapshotList,
    TakeSnapshots,
};
use super::views::{clone_info, snapshot_info, version_of};
use super::{Context, Peer};
use crate::error::Error;
use crate::image::{LabelEdits, Labels, NewFork, NewSnapshot, SnapshotTarget};

pub(super) async fn take(State(cx): State<Arc<Context>>, Body(body): Body<TakeSnapshots>) -> Answer<SnapshotList> {
    let target = target(body.names, body.select)?;
    let new = NewSnapshot { target, name: body.snapshot, labels: Labels::parse(&body.labels)? };
    let taken = cx.fleet.snapshot(new).await?;
    tracing::info!("took snapshots of {} clones", taken.len());
    let state = cx.catalog.state();
    let info = taken.iter().map(|taken| snapshot_info(&state, &taken.clone, &taken.snapshot));
    Ok(Json(SnapshotList { snapshots: info.collect() }))
}

pub(super) async fn list(
    State(cx): State<Arc<Context>>,
    Path(clone): Path<String>,
    Query(selection): Query<Selection>,
) -> Answer<SnapshotList> {
    let selector = selection.selector()?;
    let state = cx.catalog.state();
    let clone = state.find_clone(&clone)?;
    let snapshots = SnapshotTarget::Select(selector).choose(&state, clone)?;
    let info = snapshots.iter().map(|snapshot| snapshot_info(&state, clone, snapshot));
    Ok(Json(SnapshotList { snapshots: info.collect() }))
}

pub(super) async fn remove(
    State(cx): State<Arc<Context>>,
    Path(clone): Path<String>,
    Body(body): Body<Remove>,
) -> Answer<Removed> {
    let target = match (body.select, body.names.is_empty()) {
        (None, false) => SnapshotTarget::Names(body.names),
        (Some(selector), true) => SnapshotTarget::Select(selector.parse()?),
        _ => return Err(Error::invalid("snapshots to remove").remedy("give names, or a selector").into()),
    };
    let removed = cx.fleet.remove_snapshots(&clone, target).await?;
    tracing::info!("removed {} snapshots of clone {clone}", removed.len());
    Ok(Json(Removed { names: removed.iter().map(|snapshot| snapshot.name.to_string()).collect() }))
}

pub(super) async fn label(
    State(cx): State<Arc<Context>>,
    Path((clone, snapshot)): Path<(String, String)>,
    Body(body): Body<LabelSnapshot>,
) -> Answer<SnapshotInfo> {
    let labelled = cx.fleet.label_snapshot(&clone, &snapshot, LabelEdits::parse(&body.edits)?).await?;
    Ok(Json(snapshot_info(&cx.catalog.state(), &labelled.clone, &labelled.snapshot)))
}

pub(super) async fn restore(
    State(cx): State<Arc<Context>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(clone): Path<String>,
    Body(body): Body<RestoreBody>,
) -> Answer<RestoreInfo> {
    let done = cx.fleet.on_behalf_of(&peer.who()).restore(&clone, &body.snapshot).await?;
    tracing::info!("{}: clone {clone} shows its snapshot {}", done.operation, body.snapshot);
    Ok(Json(RestoreInfo {
        operation: done.operation.to_string(),
        name: clone,
        snapshot: body.snapshot,
        version: version_of(&cx.catalog.state(), &done.clone, done.clone.view.version),
        view: done.clone.view.number,
        before: done.before.name.to_string(),
    }))
}

pub(super) async fn fork(State(cx): State<Arc<Context>>, Body(body): Body<ForkBody>) -> Answer<CloneInfo> {
    let new = NewFork { source: body.source.parse()?, name: body.name, labels: Labels::parse(&body.labels)? };
    let clone = cx.fleet.fork(new).await?;
    tracing::info!("clone {} is a fork of {}", clone.name, body.source);
    Ok(Json(clone_info(&cx.fleet, &cx.catalog.state(), &clone)))
}

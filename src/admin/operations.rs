//! Operations: begun, listed, followed, paused, aborted.

mod time;
mod words;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{ConnectInfo, Path, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::watch;

use self::words::{Targets, operation_clone, operation_info, predicted_info, rollout};
use super::reply::{Answer, Body, Refused, line, lines, list as streamed};
use super::types::{
    LeftClone, OperationBody, OperationClones, OperationForecast, OperationInfo, RollbackBody, RollbackInfo,
};
use super::views::image_of;
use super::{Context, Peer, repoint};
use crate::error::{Error, Result};
use crate::image::{
    ExportId, Gate, NewOperation, OperationId, OperationPrediction, OperationRecord, OperationState, Rev, WaveSpec,
};

pub(super) async fn start(
    State(cx): State<Arc<Context>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(body): Body<OperationBody>,
) -> Result<Response, Refused> {
    let dry_run = body.repoint.dry_run;
    let waves = body.waves.iter().map(|spec| spec.parse()).collect::<Result<Vec<WaveSpec>>>()?;
    let at = body.at.map(|at| time::parse(&at, cx.env.clock.now())).transpose()?;
    let new = NewOperation { repoint: repoint::plan(body.repoint)?, waves, rollout: rollout(&body.rollout)?, at };
    check_gates(&new, peer)?;
    let fleet = cx.fleet.on_behalf_of(&peer.who());
    if dry_run {
        return Ok(Json(forecast(&cx, &fleet.predict_operation(&new).await?).await?).into_response());
    }
    let operation = fleet.start(new).await?;
    tracing::info!("{}: {} clones in {} waves", operation.id, operation.count_clones(), operation.plan.waves.len());
    Ok(shown(&cx, &operation)?.into_response())
}

async fn forecast(cx: &Context, prediction: &OperationPrediction) -> Result<OperationForecast> {
    let OperationPrediction { operation, state, outcome } = prediction;
    let switched = operation.finished().filter(|(_, fate)| fate.switches()).map(|(id, _)| id);
    let findings = repoint::predicted(cx, outcome, switched.collect()).await?;
    let image = image_of(state, operation.image);
    let targets = Targets::of(state, operation);
    let clone = |(at, id)| operation_clone((state, &image, operation), &targets, at, id);
    let clones = numbered(operation).into_iter().map(clone);
    let clones = OperationClones { clone_states: clones.collect() };
    Ok(OperationForecast { dry_run: true, operation: predicted_info(state, operation), findings, clones })
}

/// A command runs as the daemon does: nobody may say it who is not that user, or root.
fn check_gates(new: &NewOperation, peer: Peer) -> Result<()> {
    let command = new.rollout.gates.iter().any(|gate| matches!(gate, Gate::Command(_)));
    if !command || peer.is_trusted() {
        return Ok(());
    }
    let what = format!("{} may not set a command as a gate, which would run as the daemon's user", peer.who());
    Err(Error::invalid(what).remedy("use an http:// URL or clients:N, or ask root"))
}

/// An `OperationList`, made while it is sent.
pub(super) async fn list(State(cx): State<Arc<Context>>) -> Response {
    let state = cx.catalog.state();
    let operations = state.operations().rev().cloned().collect();
    streamed("operations", operations, move |operation: &Arc<OperationRecord>| operation_info(&state, operation))
}

pub(super) async fn show(State(cx): State<Arc<Context>>, Path(id): Path<String>) -> Answer<OperationInfo> {
    let operation = find(&cx, &id)?;
    shown(&cx, &operation)
}

/// An `OperationClones`, made while it is sent.
pub(super) async fn clones(State(cx): State<Arc<Context>>, Path(id): Path<String>) -> Result<Response, Refused> {
    let (state, operation) = (cx.catalog.state(), find(&cx, &id)?);
    let (image, targets) = (image_of(&state, operation.image), Targets::of(&state, &operation));
    Ok(streamed("clone_states", numbered(&operation), move |(at, id)| {
        operation_clone((&state, &image, &operation), &targets, *at, *id)
    }))
}

/// The clones of an operation, each with its wave and its number in it.
fn numbered(operation: &OperationRecord) -> Vec<((usize, usize), ExportId)> {
    let waves = operation.plan.waves.iter().enumerate();
    waves.flat_map(|(wave, clones)| clones.iter().enumerate().map(move |(at, id)| ((wave, at), *id))).collect()
}

pub(super) async fn pause(State(cx): State<Arc<Context>>, Path(id): Path<String>) -> Answer<OperationInfo> {
    let paused = cx.fleet.pause(id.parse()?).await?;
    shown(&cx, &paused)
}

pub(super) async fn resume(State(cx): State<Arc<Context>>, Path(id): Path<String>) -> Answer<OperationInfo> {
    let resumed = cx.fleet.resume(id.parse()?).await?;
    shown(&cx, &resumed)
}

pub(super) async fn abort(State(cx): State<Arc<Context>>, Path(id): Path<String>) -> Answer<OperationInfo> {
    let aborted = cx.fleet.abort(id.parse()?).await?;
    tracing::info!("{id}: aborted");
    shown(&cx, &aborted)
}

fn shown(cx: &Context, operation: &OperationRecord) -> Answer<OperationInfo> {
    Ok(Json(operation_info(&cx.catalog.state(), operation)))
}

fn find(cx: &Context, id: &str) -> Result<Arc<OperationRecord>> {
    cx.catalog.state().find_operation(id.parse()?).cloned()
}

pub(super) async fn roll_back(
    State(cx): State<Arc<Context>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
    Body(body): Body<RollbackBody>,
) -> Answer<RollbackInfo> {
    let done = cx.fleet.on_behalf_of(&peer.who()).rollback(id.parse()?, body.max_failures).await?;
    tracing::info!("{}: {} clones are as they were before {id}", done.operation, done.restored.len());
    let left = done.left.into_iter().map(|(name, why)| LeftClone { name: name.to_string(), why });
    Ok(Json(RollbackInfo {
        operation: done.operation.to_string(),
        rollback_of: done.of.to_string(),
        clones: done.restored.len() as u64,
        snapshot: done.operation.snapshot_name(),
        left: left.collect(),
    }))
}

/// An `OperationInfo` a line, one for each step from now on; the last one when it neither goes on nor is
/// paused.
pub(super) async fn follow(State(cx): State<Arc<Context>>, Path(id): Path<String>) -> Result<Response, Refused> {
    let id = find(&cx, &id)?.id;
    let (revisions, stop) = (cx.catalog.revisions(), cx.stop.clone());
    let follower = Follower { cx, id, revisions, stop, told: None, ended: false };
    let steps = stream::unfold(follower, |mut follower| async {
        Some((Ok::<Bytes, Infallible>(follower.next().await?), follower))
    });
    Ok(lines(HttpBody::from_stream(steps)))
}

struct Follower {
    cx: Arc<Context>,
    id: OperationId,
    revisions: watch::Receiver<Rev>,
    stop: watch::Receiver<bool>,
    told: Option<Arc<OperationRecord>>,
    ended: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            self.revisions.mark_unchanged();
            let state = self.cx.catalog.state();
            let operation = state.operation(self.id)?.clone();
            if self.told.as_ref() != Some(&operation) {
                self.ended = !lasts(&operation);
                let text = line(&operation_info(&state, &operation));
                self.told = Some(operation);
                return Some(text.into());
            }
            drop(state);
            tokio::select! {
                _ = self.stop.wait_for(|stop| *stop) => return None,
                changed = self.revisions.changed() => changed.ok()?,
            }
        }
    }
}

fn lasts(operation: &OperationRecord) -> bool {
    use OperationState::{Active, Paused, RollingBack};
    matches!(operation.state, Active | Paused | RollingBack { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{CloneTarget, RepointPlan, Rollout, VersionRef};

    fn ask(gates: &[&str], uid: Option<u32>) -> Result<()> {
        let repoint = RepointPlan::new("os", VersionRef::number("os", 1), CloneTarget::All);
        let rollout = Rollout { gates: gates.iter().map(|gate| gate.parse().unwrap()).collect(), ..Rollout::default() };
        check_gates(&NewOperation { repoint, waves: Vec::new(), rollout, at: None }, Peer { uid, pid: None })
    }

    #[test]
    fn commands_are_for_root_and_the_daemons_own_user() {
        let own = rustix::process::geteuid().as_raw();
        for trusted in [0, own] {
            ask(&["true", "clients:1"], Some(trusted)).unwrap();
        }
        for other in [Some(own + 1), Some(u32::MAX), None] {
            ask(&["http://localhost/", "clients:1"], other).unwrap();
            let refused = ask(&["clients:1", "true"], other).unwrap_err();
            assert!(refused.what().contains("command"), "{refused}");
        }
    }
}

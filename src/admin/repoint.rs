//! The view switch.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::{Extension, Json};

use super::audit::{Ticket, Versions};
use super::diff::escaped;
use super::reply::{Answer, Body};
use super::selection::target;
use super::types::{ConflictInfo, Findings, RepointBody, RepointInfo, StuckInfo};
use super::views::{switch_policy, version_name};
use super::{Context, Peer};
use crate::error::Result;
use crate::image::{
    CloneOutcome, ExportId, Fate, OnConflict, Percent, Prediction, RepointOutcome, RepointPlan, VersionNumber,
};
use crate::manifest::{self, ChangeKind};
use crate::overlay::rebase::Conflict;

/// Conflicts of all clones that one answer tells by path.
const MAX_CONFLICTS: usize = 10_000;

pub(super) async fn repoint(
    State(cx): State<Arc<Context>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Extension(ticket): Extension<Ticket>,
    Body(body): Body<RepointBody>,
) -> Answer<RepointInfo> {
    let dry_run = body.dry_run;
    let plan = plan(body)?;
    if dry_run {
        return predict(&cx, &plan).await;
    }
    let image = plan.image.clone();
    let done = cx.fleet.on_behalf_of(&peer.who()).repoint(plan).await?;
    ticket.show(shown(&done.outcome));
    let info = repoint_info(&image, &done.outcome);
    tracing::info!("{}: {} clones of {image} show {}", done.operation, info.clones, info.version);
    let private = done.outcome.count(&[Fate::Kept, Fate::Preserved, Fate::Discarded]) > 0;
    Ok(Json(RepointInfo {
        operation: Some(done.operation.to_string()),
        snapshot: private.then(|| done.operation.snapshot_name()),
        ..info
    }))
}

/// Which versions the clones show after it.
fn shown(outcome: &RepointOutcome) -> Versions {
    let mut versions = Versions::new();
    for clone in &outcome.clones {
        let number = if clone.fate.switches() { outcome.version.number } else { clone.from };
        *versions.entry((outcome.version.image, number)).or_default() += 1;
    }
    versions
}

pub(super) fn plan(body: RepointBody) -> Result<RepointPlan> {
    let target = target(body.clones, body.select)?;
    let plan = RepointPlan::new(&body.image, body.to.parse()?, target).with(switch_policy(&body.policy)?);
    let percent = body.percent.map(Percent::new).transpose()?;
    Ok(RepointPlan { percent, max_failures: body.max_failures, ..plan })
}

async fn predict(cx: &Context, plan: &RepointPlan) -> Answer<RepointInfo> {
    let Prediction { outcome, refused } = cx.fleet.predict(plan).await?;
    let info = repoint_info(&plan.image, &outcome);
    let switched = outcome.clones.iter().filter(|clone| clone.fate.switches());
    let findings = predicted(cx, &outcome, switched.map(|clone| clone.id).collect()).await?;
    Ok(Json(RepointInfo { dry_run: true, refused, findings, ..info }))
}

/// What is found, and what it would cost that these clones are switched.
pub(super) async fn predicted(cx: &Context, outcome: &RepointOutcome, switched: HashSet<ExportId>) -> Result<Findings> {
    let (pins, bytes) = (switched.len() as u64, refetched(cx, outcome, &switched).await?);
    Ok(Findings { pins: Some(pins), bytes_refetched: Some(bytes), ..findings(outcome) })
}

/// Bytes of the files that the clones' new version changed, over all clones that are switched.
async fn refetched(cx: &Context, outcome: &RepointOutcome, clones: &HashSet<ExportId>) -> Result<u64> {
    let mut switched: BTreeMap<VersionNumber, u64> = BTreeMap::new();
    for clone in outcome.clones.iter().filter(|clone| clones.contains(&clone.id)) {
        *switched.entry(clone.from).or_default() += 1;
    }
    let (state, to) = (cx.catalog.state(), &outcome.version);
    let mut bytes = 0u64;
    for (from, clones) in switched {
        let Some(from) = state.version(to.image, from) else { continue };
        let mut changed = 0u64;
        manifest::diff(&*cx.chunks, &from.manifest, &to.manifest, &mut |change| {
            if matches!(change.kind, ChangeKind::Modified { data: true, .. }) {
                changed = changed.saturating_add(change.bytes_new);
            }
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        bytes = bytes.saturating_add(changed.saturating_mul(clones));
    }
    Ok(bytes)
}

fn repoint_info(image: &str, outcome: &RepointOutcome) -> RepointInfo {
    let count = |fates: &[Fate]| outcome.count(fates) as u64;
    RepointInfo {
        image: image.to_owned(),
        version: version_name(image, outcome.version.number),
        clones: outcome.switched() as u64,
        kept: count(&[Fate::Kept]),
        preserved: count(&[Fate::Preserved]),
        discarded: count(&[Fate::Discarded]),
        lagging: count(&[Fate::Stays, Fate::Conflicts]),
        unchanged: count(&[Fate::Unchanged]),
        staged: count(&[Fate::Staged]),
        moved: outcome.clones.iter().filter(|clone| clone.moved).map(|clone| clone.name.to_string()).collect(),
        findings: findings(outcome),
        ..RepointInfo::default()
    }
}

fn findings(outcome: &RepointOutcome) -> Findings {
    let conflicts = |clone: &CloneOutcome| {
        let (name, ended) = (clone.name.to_string(), ended(clone));
        let info = move |conflict: &Conflict| ConflictInfo {
            name: name.clone(),
            path: escaped(&conflict.path),
            clone: conflict.clone.to_string(),
            image: conflict.image.to_string(),
            disk_image: conflict.disk_image,
            outcome: if conflict.undecidable { "undecidable".into() } else { ended.to_owned() },
        };
        clone.conflicts.iter().map(info).collect::<Vec<_>>()
    };
    Findings {
        conflicts: outcome.clones.iter().flat_map(conflicts).take(MAX_CONFLICTS).collect(),
        stuck: outcome.clones.iter().filter_map(stuck).take(MAX_CONFLICTS).collect(),
        conflicts_total: outcome.clones.iter().map(|clone| clone.conflicts_total).sum(),
        ..Findings::default()
    }
}

fn stuck(clone: &CloneOutcome) -> Option<StuckInfo> {
    let why = clone.why.as_ref()?.to_string();
    Some(StuckInfo { name: clone.name.to_string(), why })
}

/// How the conflicts of a clone ended.
fn ended(clone: &CloneOutcome) -> &'static str {
    match (clone.fate, clone.conflict) {
        (Fate::Conflicts, _) | (_, OnConflict::Stop) => "stopped",
        (_, OnConflict::CloneWins) => "clone-wins",
        (_, OnConflict::ImageWins) => "image-wins",
    }
}

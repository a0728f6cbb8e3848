//! Clones.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use ipnet::IpNet;

use super::Context;
use super::reply::{Answer, Body, Refused, list as streamed};
use super::selection::{Selection, target};
use super::types::{CloneInfo, CloneList, ClonesCreated, CreateClones, LabelClones, Remove, Removed, SetClones};
use super::views::{clone_info, switch_edits, version_name};
use crate::error::{Error, Result};
use crate::image::{CloneNames, CloneRecord, LabelEdits, Labels, NewClones, PolicyEdits, Squash};

use crate::vfs::{AWAY, QUIET, Seen};

/// Clients that are named as being in the way of a switch.
const MAX_BLOCKERS: usize = 16;

/// A `CloneList`.
pub(super) async fn list(
    State(cx): State<Arc<Context>>,
    Query(selection): Query<Selection>,
) -> Result<Response, Refused> {
    let (state, selector) = (cx.catalog.state(), selection.selector()?);
    let (fleet, clones) = (cx.fleet.clone(), state.select(&selector).cloned().collect());
    Ok(streamed("clones", clones, move |clone: &Arc<CloneRecord>| clone_info(&fleet, &state, clone)))
}

pub(super) async fn show(State(cx): State<Arc<Context>>, Path(name): Path<String>) -> Answer<CloneInfo> {
    let state = cx.catalog.state();
    let clone = state.find_clone(&name)?;
    Ok(Json(CloneInfo { blocked_by: blockers(&cx, clone), ..clone_info(&cx.fleet, &state, clone) }))
}

/// What keeps the next mount of a clone from setting off the switch that waits for it.
fn blockers(cx: &Context, clone: &CloneRecord) -> Vec<String> {
    let now = cx.env.clock.uptime();
    if !clone.waits_for_mount() {
        return Vec::new();
    }
    let lately = |seen: &Seen, limit: Duration| seen.last.is_some_and(|last| now.saturating_sub(last) <= limit);
    let blocker = |seen: &Seen| {
        let client = seen.client;
        match seen.connected {
            true => format!("{client} is connected"),
            false if lately(seen, QUIET) => format!("{client} used it less than {} s ago", QUIET.as_secs() + 1),
            false => format!(
                "{client} used it in the last {} min and has not unmounted it: only a mount of its own would do",
                AWAY.as_secs() / 60
            ),
        }
    };
    let unknown = format!("who used it in the last {} s is not known", QUIET.as_secs());
    let unknown = Some(unknown).filter(|_| !cx.activity.knows_users(now));
    unknown.into_iter().chain(cx.activity.users(clone.id, now, MAX_BLOCKERS).iter().map(blocker)).collect()
}

pub(super) async fn create(State(cx): State<Arc<Context>>, Body(body): Body<CreateClones>) -> Answer<ClonesCreated> {
    let names = names_wanted(&body)?;
    let new = NewClones { version: body.image.parse()?, names, labels: Labels::parse(&body.labels)? };
    let image = new.version.image.clone();
    let made = cx.catalog.create_clones(new).await?;
    let number = made.first().map_or(0, |clone| clone.view.version);
    Ok(Json(ClonesCreated {
        version: version_name(&image, number),
        image,
        clones: made.len() as u64,
        names: made.iter().map(|clone| clone.name.to_string()).collect(),
    }))
}

fn names_wanted(body: &CreateClones) -> Result<Vec<String>> {
    match (&body.pattern, body.count) {
        (None, None) => Ok(body.names.clone()),
        (Some(pattern), Some(count)) if body.names.is_empty() => {
            Ok(CloneNames::parse(pattern, count)?.iter().collect())
        }
        _ => Err(Error::invalid("names of clones").remedy("give names, or a pattern and a count")),
    }
}

pub(super) async fn remove(State(cx): State<Arc<Context>>, Body(body): Body<Remove>) -> Answer<Removed> {
    let removed = cx.fleet.remove_clones(target(body.names, body.select)?).await?;
    tracing::info!("removed {} clones", removed.len());
    Ok(Json(Removed { names: removed.iter().map(|clone| clone.name.to_string()).collect() }))
}

pub(super) async fn label(State(cx): State<Arc<Context>>, Body(body): Body<LabelClones>) -> Answer<CloneList> {
    let edits = LabelEdits::parse(&body.edits)?;
    let labelled = cx.catalog.label_clones(target(body.names, body.select)?, edits).await?;
    Ok(Json(listed(&cx, &labelled)))
}

/// Export policy, quota, and how they are switched.
pub(super) async fn set(State(cx): State<Arc<Context>>, Body(body): Body<SetClones>) -> Answer<CloneList> {
    let edits = policy_edits(&body)?;
    let set = cx.catalog.set_clones(target(body.names, body.select)?, edits).await?;
    Ok(Json(listed(&cx, &set)))
}

fn listed(cx: &Context, clones: &[Arc<CloneRecord>]) -> CloneList {
    let state = cx.catalog.state();
    CloneList { clones: clones.iter().map(|clone| clone_info(&cx.fleet, &state, clone)).collect() }
}

fn policy_edits(body: &SetClones) -> Result<PolicyEdits> {
    let quota = match (body.bytes_quota, body.no_quota) {
        (Some(_), true) => return Err(Error::invalid("both a quota and none").remedy("give one of them")),
        (None, true) => Some(None),
        (bytes, false) => bytes.map(Some),
    };
    let allow = body.allow.as_ref().map(|nets| nets.iter().map(|net| network(net)).collect());
    Ok(PolicyEdits {
        default: body.default,
        allow: allow.transpose()?,
        read_only: body.read_only,
        squash: body.squash.as_deref().map(squash).transpose()?,
        privileged_port: body.privileged_port,
        quota,
        switch: switch_edits(&body.switch)?,
    })
}

/// A network, or an address that stands for itself.
fn network(text: &str) -> Result<IpNet> {
    let alone = |_| text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(alone).map_err(|_| {
        Error::invalid(format!("network {text:?}")).remedy("write ADDRESS/PREFIX, such as 10.1.0.0/16, or an address")
    })
}

fn squash(text: &str) -> Result<Squash> {
    match text {
        "none" => Ok(Squash::None),
        "root" => Ok(Squash::Root),
        "all" => Ok(Squash::All),
        _ => Err(Error::invalid(format!("squash {text:?}")).remedy("one of none, root, all")),
    }
}

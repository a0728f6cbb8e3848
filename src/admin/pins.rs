//! The former views of clones that stay readable.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{ConnectInfo, Query, State};

use super::audit::actor;
use super::reply::{Answer, Body};
use super::selection::{Selection, target};
use super::types::{DropPinsBody, PinInfo, PinList, PinsDropped};
use super::views::{rfc3339, version_of};
use super::{Context, Peer};
use crate::env::Time;
use crate::error::{Error, Result};
use crate::image::{self, CloneRecord, EndedPin, Pin, ViewUses};
use crate::maintain::note_ended;

/// Clients that are told for one pin.
const MAX_CLIENTS: usize = 16;

pub(super) async fn list(State(cx): State<Arc<Context>>, Query(selection): Query<Selection>) -> Answer<PinList> {
    let state = cx.catalog.state();
    let selector = selection.selector()?;
    let pins = state.select(&selector).flat_map(|clone| clone.pins.iter().map(|pin| info(&cx, &state, clone, pin)));
    Ok(Json(PinList { pins: pins.collect() }))
}

fn info(cx: &Context, state: &image::State, clone: &CloneRecord, pin: &Pin) -> PinInfo {
    let view = pin.view.number;
    let holders = cx.activity.holders(clone.id, view, MAX_CLIENTS);
    // Nothing is known of what was before the start.
    let resolved = cx.activity.last_resolved(clone.id, view).map(|at| wall(cx, at));
    let removed = state.version(clone.image, pin.view.version).is_some_and(|version| version.removed);
    PinInfo {
        name: clone.name.to_string(),
        version: version_of(state, clone, pin.view.version),
        version_removed: removed,
        view,
        clients: holders.iter().map(|seen| seen.client.to_string()).collect(),
        since: rfc3339(pin.since),
        idle_since: rfc3339(resolved.unwrap_or(pin.since)),
        operation: pin.operation.to_string(),
        bytes_private: cx.fleet.counts(&pin.view).bytes,
        bytes_held: cx.fleet.bytes_held(state, clone, pin),
    }
}

/// What the wall's clock showed at a moment of uptime, if it was not set since.
fn wall(cx: &Context, at: Duration) -> Time {
    let (now, ago) = (cx.env.clock.now(), cx.env.clock.uptime().saturating_sub(at));
    Time { secs: now.secs - i64::try_from(ago.as_secs()).unwrap_or(0), ..now }
}

pub(super) async fn drop_pins(
    State(cx): State<Arc<Context>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(body): Body<DropPinsBody>,
) -> Answer<PinsDropped> {
    let state = cx.catalog.state();
    let dropped = match body.view {
        None => cx.fleet.drop_pins(target(body.clones, body.select)?).await?,
        Some(view) => vec![cx.fleet.drop_pin(only(&body)?, view).await?],
    };
    tracing::info!("dropped {} pins", dropped.len());
    note_ended(cx.fleet.audit(), &actor(&cx, peer), "pins dropped", &state, &*cx.activity, &dropped).await?;
    let name = |EndedPin { clone, pin }: &EndedPin| format!("{} view {}", clone.name, pin.view.number);
    Ok(Json(PinsDropped { pins: dropped.len() as u64, names: dropped.iter().map(name).collect() }))
}

/// The one clone of which a view is meant.
fn only(body: &DropPinsBody) -> Result<&str> {
    match (body.clones.as_slice(), &body.select) {
        ([clone], None) => Ok(clone),
        _ => Err(Error::invalid("a view of which clone?").remedy("name one: mimeo pins --drop --clone NAME --view N")),
    }
}

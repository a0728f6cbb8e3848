//! The recording of a clone: an answer of lines, from the first call to the end that was asked for.
//!
//! Failure story: a client that goes away ends the recording; so does the daemon's stop, with a last line.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use tokio::sync::watch;

use super::Context;
use super::fed::{Feed, Gone};
use super::import;
use super::reply::{Answer, Refused, error_info};
use super::types::TraceLine;
use crate::error::Result;
use crate::trace::Item;
use crate::vfs::{RecordedOp, Recorder};

/// Longest recording that ends by itself, in seconds: a year.
const MAX_SECS: u64 = 366 * 24 * 3600;

#[derive(Deserialize)]
pub(super) struct How {
    /// `None`: until the caller goes away.
    secs: Option<u64>,
    #[serde(default)]
    client: String,
}

pub(super) async fn record(
    State(cx): State<Arc<Context>>,
    Path(name): Path<String>,
    Query(how): Query<How>,
) -> Result<Response, Refused> {
    let now = cx.env.clock.now();
    let recorder = Recorder::begin(&cx.tap, &cx.catalog, cx.chunks.clone(), &name, how.client, now)?;
    tracing::info!("recording what clients do with clone {name}");
    let (feed, answer) = Feed::answer();
    let limit = Duration::from_secs(how.secs.unwrap_or(MAX_SECS).min(MAX_SECS));
    tokio::spawn(run(recorder, feed, limit, cx.stop.clone()));
    Ok(answer)
}

/// Let a recording end with what has come so far; its answer tells the rest.
pub(super) async fn end(State(cx): State<Arc<Context>>, Path(name): Path<String>) -> Answer<()> {
    cx.tap.end(cx.catalog.state().find_clone(&name)?.id)?;
    Ok(Json(()))
}

/// Send what is recorded until it ends. An error is [`Gone`]: nobody is left to be told.
async fn run(mut recorder: Recorder, feed: Feed, limit: Duration, mut stop: watch::Receiver<bool>) -> Result<(), Gone> {
    feed.send(&[TraceLine::Header(recorder.header().clone())]).await?;
    let over = tokio::time::sleep(limit);
    tokio::pin!(over);
    let recording = recorder.recording();
    let (mut ops, mut stopped) = (Vec::new(), false);
    loop {
        tokio::select! {
            () = recorder.next(&mut ops) => {
                if ops.is_empty() {
                    return feed.send(&[TraceLine::Done { lost: recorder.lost() }]).await;
                }
                match items(&mut recorder, &mut ops).await {
                    Ok(items) => feed.send(&items).await?,
                    Err(error) => return feed.send(&[TraceLine::Error(error_info(&error))]).await,
                }
            }
            () = feed.gone() => return Err(Gone),
            () = &mut over, if !stopped => stopped = true,
            () = recording.over(), if !stopped => stopped = true,
            () = import::stopped(&mut stop), if !stopped => stopped = true,
        }
        if stopped {
            recorder.stop();
        }
    }
}

async fn items(recorder: &mut Recorder, ops: &mut Vec<RecordedOp>) -> Result<Vec<TraceLine>> {
    let mut items: Vec<Item> = Vec::new();
    for op in ops.drain(..) {
        recorder.items(op, &mut items).await?;
    }
    Ok(items.into_iter().map(TraceLine::Item).collect())
}

//! Bringing a version into the cache: an answer of lines with the progress, then the outcome.
//!
//! Failure story: a client that goes away cancels it; what is in memory by then stays there.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::response::Response;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::Context;
use super::audit::Ticket;
use super::diff::escaped;
use super::fed::{Feed, Gone};
use super::import;
use super::reply::{Body, Refused, error_info};
use super::types::{WarmBody, WarmFile, WarmInfo, WarmLine};
use super::views::version_name;
use crate::audit::{Asked, Outcome};
use crate::error::{Error, Result};
use crate::image::VersionRef;
use crate::maintain::warm::{Progress, Wanted, Warmed, warm as warm_up};
use crate::manifest::ManifestId;

/// Time between two lines of progress.
const TICK: Duration = Duration::from_millis(200);

/// What is to be warmed.
struct Work {
    name: String,
    manifest: ManifestId,
    wanted: Option<Vec<Wanted>>,
    asked: Option<Asked>,
}

pub(super) async fn warm(
    State(cx): State<Arc<Context>>,
    Extension(ticket): Extension<Ticket>,
    Body(body): Body<WarmBody>,
) -> Result<Response, Refused> {
    let work = {
        let state = cx.catalog.state();
        let version = state.find_version(&body.version.parse::<VersionRef>()?)?;
        let image = state.image(version.image).ok_or_else(|| Error::internal("a version without an image"))?;
        let name = version_name(&image.name, version.number);
        let wanted = body.files.map(|files| files.into_iter().map(wanted).collect());
        Work { name, manifest: version.manifest, wanted, asked: ticket.take() }
    };
    let (feed, answer) = Feed::answer();
    tokio::spawn(run(cx, work, feed));
    Ok(answer)
}

fn wanted(file: WarmFile) -> Wanted {
    Wanted { path: file.path, ranges: ranges(file.ranges) }
}

pub(super) fn ranges(told: Vec<(u64, u64)>) -> Vec<Range<u64>> {
    told.into_iter().map(|(start, end)| start..end).collect()
}

async fn run(cx: Arc<Context>, work: Work, feed: Feed) {
    let Work { name, manifest, wanted, asked } = work;
    let from = cx.env.clock.uptime();
    let progress = Progress::default();
    let outcome = tokio::select! {
        outcome = warm_up(&cx.chunks, &manifest, wanted, &progress) => outcome,
        Gone = tell(&cx, &feed, &progress) => Err(Error::invalid(format!("warming {name} was broken off"))),
    };
    let outcome = outcome.map(|warmed| {
        let millis = cx.env.clock.uptime().saturating_sub(from).as_millis();
        info(name, &warmed, u64::try_from(millis).unwrap_or(u64::MAX))
    });
    let noted = match asked {
        Some(asked) => asked.done(deed(&outcome)).await,
        None => Ok(()),
    };
    let last = match noted.and(outcome) {
        Ok(info) => WarmLine::Done(info),
        Err(error) => WarmLine::Error(error_info(&error)),
    };
    // Whoever went away does not want the last line either.
    let _ = feed.send(&[last]).await;
}

fn deed(outcome: &Result<WarmInfo>) -> Outcome {
    match outcome {
        Ok(info) => Outcome::done(json!({ "version": info.version, "bytes_loaded": info.bytes_loaded })),
        Err(error) => Outcome::failed(error),
    }
}

/// Tell the progress until the client is gone, or the daemon stops.
async fn tell(cx: &Context, feed: &Feed, progress: &Progress) -> Gone {
    let (mut tick, mut stop) = (interval(TICK), cx.stop.clone());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = feed.gone() => return Gone,
            () = import::stopped(&mut stop) => return Gone,
            _ = tick.tick() => {}
        }
        let read = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
        let (bytes_wanted, bytes_done) = (read(&progress.bytes_wanted), read(&progress.bytes_done));
        if let Err(gone) = feed.send(&[WarmLine::Progress { bytes_wanted, bytes_done }]).await {
            return gone;
        }
    }
}

fn info(version: String, warmed: &Warmed, millis: u64) -> WarmInfo {
    WarmInfo {
        version,
        objects: warmed.objects,
        objects_missing: warmed.objects_missing,
        missing: warmed.missing.iter().map(|path| escaped(path)).collect(),
        chunks: warmed.chunks,
        bytes: warmed.bytes,
        chunks_loaded: warmed.chunks_loaded,
        bytes_loaded: warmed.bytes_loaded,
        bytes_left_out: warmed.bytes_left_out,
        bytes_cached: warmed.bytes_cached,
        millis,
    }
}

//! Import and promotion, which make versions: an answer of lines that ends when the version is there.
//!
//! A progress line every [`TICK`], then one line with what was made or why not. Failure story: if
//! the client goes away, the answer is dropped, and with it [`Running`], which cancels the import; so
//! does the daemon's stop. Either way the import leaves nothing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{ConnectInfo, Extension, Path, State};
use axum::response::Response;
use futures_util::stream;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::audit::Ticket;
use super::reply::{Body, Refused, error_info, line, lines};
use super::types::{ImportBody, ImportInfo, ImportLine, ImportProgress, PromoteBody, WarmFile};
use super::warm::ranges;
use super::{Context, Peer, views};
use crate::audit::{Asked, Outcome};
use crate::error::{Error, Result};
use crate::image::import::{ImportContext, ImportDone, ImportRequest, Part, Progress, run_import};
use crate::image::promote::{PromoteRequest, run_promote};
use crate::image::{Labels, check_name};

/// Time between two lines of progress.
const TICK: Duration = Duration::from_millis(200);
const CONSISTENCIES: [&str; 3] = ["application", "crash", "unknown"];

pub(super) async fn import(
    State(cx): State<Arc<Context>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Extension(ticket): Extension<Ticket>,
    Path(image): Path<String>,
    Body(body): Body<ImportBody>,
) -> Result<Response, Refused> {
    let request = checked(image, body, peer)?;
    tracing::info!("importing {} as image {}", request.source.display(), request.image);
    let image = request.image.clone();
    let run = |context, progress| async move { run_import(&context, request, progress).await };
    Ok(Running::start(&cx, image, ticket, run).answer())
}

/// A version from what a clone shows.
pub(super) async fn promote(
    State(cx): State<Arc<Context>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Extension(ticket): Extension<Ticket>,
    Body(body): Body<PromoteBody>,
) -> Result<Response, Refused> {
    check_name("image", &body.image)?;
    let (source, labels) = (body.source.parse()?, Labels::parse(&body.labels)?);
    tracing::info!("promoting {source} to image {}", body.image);
    let request = PromoteRequest { source, image: body.image.clone(), labels, author: author(peer) };
    let fleet = cx.fleet.clone();
    let run = |context, progress| async move { run_promote(&context, &fleet, request, progress).await };
    Ok(Running::start(&cx, body.image, ticket, run).answer())
}

fn author(peer: Peer) -> String {
    peer.uid.map_or("unknown".to_owned(), |uid| format!("uid {uid}"))
}

/// What can be refused before anything is read.
fn checked(image: String, body: ImportBody, peer: Peer) -> Result<ImportRequest> {
    check_name("image", &image)?;
    let source = PathBuf::from(&body.source);
    if !source.is_absolute() {
        return Err(Error::invalid(format!("source {:?} is not an absolute path", body.source))
            .remedy("name a folder on the daemon's machine from / on"));
    }
    if !CONSISTENCIES.contains(&body.consistency.as_str()) {
        return Err(
            Error::invalid(format!("consistency {:?}", body.consistency)).remedy("one of application, crash, unknown")
        );
    }
    let labels = Labels::parse(&body.labels)?;
    let part = |file: WarmFile| Part { path: file.path, ranges: ranges(file.ranges) };
    let layout = body.layout.into_iter().map(part).collect();
    Ok(ImportRequest { image, source, labels, author: author(peer), consistency: body.consistency, layout })
}

/// An import under way. Dropping it cancels.
struct Running {
    cx: Arc<Context>,
    progress: Arc<Progress>,
    task: JoinHandle<Result<ImportDone>>,
    tick: Interval,
    stop: watch::Receiver<bool>,
    started: Duration,
    stopping: bool,
}

impl Running {
    /// Run `work` for the next version of `image`.
    fn start<F: Future<Output = Result<ImportDone>> + Send + 'static>(
        cx: &Arc<Context>,
        image: String,
        ticket: Ticket,
        work: impl FnOnce(ImportContext, Arc<Progress>) -> F,
    ) -> Self {
        let progress = Arc::new(Progress::default());
        let work = work(import_context(cx), progress.clone());
        tokio::spawn(cancel_at_stop(cx.stop.clone(), Arc::downgrade(&progress)));
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            cx: cx.clone(),
            task: tokio::spawn(count(cx.clone(), image, ticket.take(), work)),
            progress,
            tick,
            stop: cx.stop.clone(),
            started: cx.env.clock.uptime(),
            stopping: false,
        }
    }

    fn answer(self) -> Response {
        lines(HttpBody::from_stream(stream::unfold(Some(self), next_line)))
    }

    fn progress_line(&self) -> ImportLine {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ImportLine::Progress(ImportProgress {
            phase: self.progress.phase().into(),
            inodes_found: read(&self.progress.inodes_found),
            inodes_done: read(&self.progress.inodes_done),
            bytes_found: read(&self.progress.bytes_found),
            bytes_done: read(&self.progress.bytes_done),
        })
    }

    fn last_line(&self, outcome: Result<ImportDone>) -> ImportLine {
        match outcome {
            Ok(done) => ImportLine::Done(Box::new(self.info(done))),
            Err(error) => ImportLine::Error(error_info(&error)),
        }
    }

    fn info(&self, done: ImportDone) -> ImportInfo {
        let name = views::version_name(&done.image, done.version.number);
        tracing::info!("made {name}");
        let millis = self.cx.env.clock.uptime().saturating_sub(self.started).as_millis();
        ImportInfo {
            name: done.image,
            version: views::version_info(name, &done.version),
            inodes_kept: done.kept,
            mounts_skipped: done.mounts_skipped,
            millis: u64::try_from(millis).unwrap_or(u64::MAX),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.progress.cancel();
    }
}

fn import_context(cx: &Context) -> ImportContext {
    ImportContext {
        running: cx.running_imports.clone(),
        catalog: cx.catalog.clone(),
        chunks: cx.chunks.clone(),
        env: cx.env.clone(),
        threads: cx.import_threads,
    }
}

async fn count(
    cx: Arc<Context>,
    image: String,
    asked: Option<Asked>,
    work: impl Future<Output = Result<ImportDone>>,
) -> Result<ImportDone> {
    let outcome = work.await;
    // Here, since nobody may be left to read the last line.
    if let Err(error) = &outcome {
        tracing::warn!("no new version of image {image}: {error}");
    }
    cx.imports.count(outcome.is_ok());
    if let Some(asked) = asked {
        asked.done(noted(&outcome)).await?;
    }
    outcome
}

fn noted(outcome: &Result<ImportDone>) -> Outcome {
    match outcome {
        Ok(done) => Outcome::done(json!({
            "version": views::version_name(&done.image, done.version.number),
            "inodes": done.version.inodes,
            "bytes_added": done.version.bytes_added,
        })),
        Err(error) => Outcome::failed(error),
    }
}

type Line = Result<Bytes, std::convert::Infallible>;

async fn next_line(running: Option<Running>) -> Option<(Line, Option<Running>)> {
    let mut running = running?;
    loop {
        tokio::select! {
            outcome = &mut running.task => {
                let outcome = outcome.unwrap_or_else(|e| Err(Error::internal("the import died").because(e)));
                let last = running.last_line(outcome);
                return Some((Ok(line(&last).into()), None));
            }
            () = stopped(&mut running.stop), if !running.stopping => {
                running.stopping = true;
                running.progress.cancel();
            }
            _ = running.tick.tick() => {
                let progress = line(&running.progress_line());
                return Some((Ok(progress.into()), Some(running)));
            }
        }
    }
}

/// Cancel an import when the daemon stops, also if its client has ceased to read.
async fn cancel_at_stop(mut stop: watch::Receiver<bool>, progress: Weak<Progress>) {
    stopped(&mut stop).await;
    if let Some(progress) = progress.upgrade() {
        progress.cancel();
    }
}

pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender nobody is left to want the import: stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

//! The committer: one task that turns waiting closures into one change set after the other.
//!
//! A round: run all closures that wait, one after another, each on a branch of the draft; offer the
//! changes of those that succeeded to the log; publish; answer. While the log syncs, the next
//! closures gather.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::{Draft, MAX_WAITING};
use crate::env::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::image::change::ChangeSet;
use crate::image::log::{Backlog, CatalogLog, Outcome, Rev, WatchError};
use crate::image::state::State;

/// Beyond this many changes no further closure joins a change set.
const MAX_GROUP_CHANGES: usize = 100_000;
/// How often closures run again because somebody was first.
const MAX_RERUNS: usize = 32;
/// How often a change set of unknown outcome is offered again.
const MAX_OFFERS: usize = 8;
/// A checkpoint is saved when the log behind the last one exceeds this.
const MAX_BACKLOG: Backlog = Backlog { sets: 4096, bytes: 16 * 1024 * 1024 };

/// What the catalog sends to its committer.
pub(super) enum Message {
    Job(Box<dyn Job>),
    Close(oneshot::Sender<Result<()>>),
}

/// A transaction, without the type of its result.
pub(super) trait Job: Send {
    /// Run on `draft`; `false` if it failed and the draft must be dropped.
    fn run(&mut self, draft: &mut Draft) -> bool;
    /// Answer the caller, with the error if the changes of its group were not committed.
    fn answer(self: Box<Self>, failed: Option<&Arc<Error>>);
}

/// A closure, its last result, and who waits for it.
pub(super) struct Transaction<T, F> {
    label: &'static str,
    work: F,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T: Send + 'static, F: FnMut(&mut Draft) -> Result<T> + Send + 'static> Transaction<T, F> {
    pub(super) fn job(label: &'static str, work: F) -> (Box<dyn Job>, oneshot::Receiver<Result<T>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { label, work, result: None, reply }), answer)
    }
}

impl<T: Send, F: FnMut(&mut Draft) -> Result<T> + Send> Job for Transaction<T, F> {
    fn run(&mut self, draft: &mut Draft) -> bool {
        let work = AssertUnwindSafe(|| (self.work)(draft));
        // One closure's bug must not end the committer; its draft is dropped.
        let result = catch_unwind(work).unwrap_or_else(|_| Err(Error::internal(format!("{}: panicked", self.label))));
        self.result.insert(result).is_ok()
    }

    fn answer(self: Box<Self>, failed: Option<&Arc<Error>>) {
        let result = match (failed, self.result) {
            (Some(error), _) => Err(not_committed(self.label, error)),
            (None, Some(result)) => result,
            (None, None) => Err(Error::internal(format!("{}: never ran", self.label))),
        };
        // A caller who went away does not want to know.
        let _ = self.reply.send(result);
    }
}

/// One error for several callers.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SharedError(Arc<Error>);

fn not_committed(label: &str, cause: &Arc<Error>) -> Error {
    Error::new(cause.kind(), format!("{label}: not committed")).because(SharedError(cause.clone()))
}

/// What became of an offered change set that did not fail.
enum Landing {
    /// It is durable, as this revision.
    Done(Rev),
    /// It is durable, and already published from the log.
    Seen,
    /// Others were first; their changes are published.
    Overtaken,
}

pub(super) struct Committer {
    log: Arc<dyn CatalogLog>,
    published: Arc<ArcSwap<State>>,
    revisions: watch::Sender<Rev>,
    clock: Arc<dyn Clock>,
    /// Granted durably and unused.
    ids: Range<u64>,
    waiting: VecDeque<Box<dyn Job>>,
    /// The state before the last round. Freeing what a large switch replaced takes milliseconds: kept
    /// past the answers, to be dropped on the worker thread of the next round.
    former: Option<Arc<State>>,
    saving: Option<JoinHandle<()>>,
}

impl Committer {
    /// Tells `revisions` of each state that it publishes.
    pub(super) fn new(
        log: Arc<dyn CatalogLog>,
        published: Arc<ArcSwap<State>>,
        revisions: watch::Sender<Rev>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { log, published, revisions, clock, ids: 0..0, waiting: VecDeque::new(), former: None, saving: None }
    }

    fn publish(&self, state: State) {
        let rev = state.rev();
        self.published.store(Arc::new(state));
        self.revisions.send_replace(rev);
    }

    /// Until the catalog is closed or dropped.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut closers = Vec::new();
        while let Some(message) = queue.recv().await {
            self.sort(message, &mut closers);
            while self.waiting.len() < MAX_WAITING
                && let Ok(message) = queue.try_recv()
            {
                self.sort(message, &mut closers);
            }
            if !closers.is_empty() {
                queue.close();
            }
            while !self.waiting.is_empty() {
                self.round().await;
            }
        }
        if !closers.is_empty() {
            self.finish(closers).await;
        }
    }

    fn sort(&mut self, message: Message, closers: &mut Vec<oneshot::Sender<Result<()>>>) {
        match message {
            Message::Job(job) => self.waiting.push_back(job),
            Message::Close(reply) => closers.push(reply),
        }
    }

    /// Save a last checkpoint, let go of the log, and tell those who closed.
    async fn finish(self, closers: Vec<oneshot::Sender<Result<()>>>) {
        let Self { log, published, saving, .. } = self;
        if let Some(saving) = saving {
            // Has told of its own failure.
            let _ = saving.await;
        }
        let saved = log.save(published.load_full()).await.map_err(Arc::new);
        drop(log);
        for reply in closers {
            let _ = reply.send(saved.clone().map_err(|e| not_committed("save a catalog checkpoint", &e)));
        }
    }

    /// Bring one group of closures from waiting to answered.
    async fn round(&mut self) {
        let mut jobs = Vec::new();
        let outcome = self.commit_group(&mut jobs).await.map_err(Arc::new);
        if outcome.is_err() {
            // The changes may yet turn up, and with them the identifiers in them.
            self.ids = 0..0;
        }
        for job in jobs {
            job.answer(outcome.as_ref().err());
        }
        self.save_if_due();
    }

    async fn commit_group(&mut self, jobs: &mut Vec<Box<dyn Job>>) -> Result<()> {
        for _ in 0..MAX_RERUNS {
            let base = self.published.load_full();
            let former = self.former.replace(base.clone());
            let (state, changes, ids) = self.run_group(&base, former, jobs).await?.into_parts();
            if changes.is_empty() {
                // What was handed out is gone, also if nothing came of it.
                self.ids = ids;
                return Ok(());
            }
            match self.offer(base.rev(), Arc::new(ChangeSet { changes })).await? {
                Landing::Done(rev) => self.publish(state.at(rev)),
                Landing::Seen => {}
                Landing::Overtaken => {
                    self.ids = 0..0;
                    continue;
                }
            }
            self.ids = ids;
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, "somebody else changed the catalog every time").remedy("try again"))
    }

    /// Run `jobs` (again), and as many of the waiting ones as the change set takes. On a thread of its
    /// own, because a closure may create a hundred thousand clones.
    async fn run_group(
        &mut self,
        base: &Arc<State>,
        former: Option<Arc<State>>,
        jobs: &mut Vec<Box<dyn Job>>,
    ) -> Result<Draft> {
        let mut draft = Draft::new(State::clone(base), self.ids.clone(), self.clock.clone());
        let (mut group, mut waiting) = (std::mem::take(jobs), std::mem::take(&mut self.waiting));
        let ran = tokio::task::spawn_blocking(move || {
            drop(former);
            group.iter_mut().for_each(|job| attempt(&mut draft, job.as_mut()));
            while draft.changes().len() < MAX_GROUP_CHANGES
                && let Some(mut job) = waiting.pop_front()
            {
                attempt(&mut draft, job.as_mut());
                group.push(job);
            }
            (draft, group, waiting)
        });
        let (draft, group, waiting) =
            ran.await.map_err(|e| Error::internal("the catalog's worker ended").because(e))?;
        (*jobs, self.waiting) = (group, waiting);
        Ok(draft)
    }

    async fn offer(&mut self, base: Rev, set: Arc<ChangeSet>) -> Result<Landing> {
        let mut unknown = None;
        for _ in 0..MAX_OFFERS {
            match self.log.commit(base, set.clone()).await? {
                Outcome::Done(rev) => return Ok(Landing::Done(rev)),
                Outcome::Refused(head) => return self.catch_up(head, unknown).await,
                // The same again: if the first one landed, this one is refused and finds it.
                Outcome::Unknown => unknown = Some(&set),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the catalog's log does not say whether it took the change")
            .remedy("look whether the change is there before you repeat it"))
    }

    /// Publish what others (or our own offer of unknown outcome) brought to the log up to `head`.
    async fn catch_up(&mut self, head: Rev, unknown: Option<&Arc<ChangeSet>>) -> Result<Landing> {
        let base = self.published.load_full();
        let (mut state, mut landing) = (State::clone(&base), Landing::Overtaken);
        let mut watch = self.log.watch(base.rev());
        while state.rev() < head {
            match watch.next().await {
                Some(Ok((rev, set))) => {
                    if rev == base.rev().next() && unknown.is_some_and(|ours| *ours == set) {
                        landing = Landing::Seen;
                    }
                    state.apply_set(rev, &set)?;
                }
                Some(Err(WatchError::Compacted)) if unknown.is_none() => state = self.log.checkpoint().await?,
                Some(Err(WatchError::Failed(error))) => return Err(error),
                Some(Err(WatchError::Compacted)) | None => {
                    return Err(Error::new(ErrorKind::Unavailable, "the catalog's log went on without us")
                        .remedy("look whether the change is there before you repeat it"));
                }
            }
        }
        self.publish(state);
        Ok(landing)
    }

    /// Save a checkpoint beside the commits that go on, if none is being saved.
    fn save_if_due(&mut self) {
        let backlog = self.log.backlog();
        let due = backlog.sets > MAX_BACKLOG.sets || backlog.bytes > MAX_BACKLOG.bytes;
        if !due || self.saving.as_ref().is_some_and(|saving| !saving.is_finished()) {
            return;
        }
        let (log, state) = (self.log.clone(), self.published.load_full());
        self.saving = Some(tokio::spawn(async move {
            if let Err(error) = log.save(state).await {
                tracing::warn!(%error, "the catalog's checkpoint was not saved; the log keeps growing");
            }
        }));
    }
}

/// Run one closure; of one that fails nothing is left.
fn attempt(draft: &mut Draft, job: &mut dyn Job) {
    let mut branch = draft.branch();
    if job.run(&mut branch) {
        draft.merge(branch);
    }
}

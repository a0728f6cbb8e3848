//! Operations that are under way: one task for each, from wave to wave.
//!
//! Owns when things happen: when a scheduled operation begins, how long a wave soaks, how often its gates
//! are tried. What happens is the fleet's; every step is a change set that checks where the operation is, so
//! a task that is ended anywhere, with the process or without, leaves nothing by half, and the next one
//! goes on from what the catalog says.
//!
//! Invariants: at most [`MAX_UNFINISHED`](crate::image::MAX_UNFINISHED) tasks, one an operation; a task
//! waits for nothing without seeing that its operation was paused or aborted.
//!
//! Failure story: a wave or gate that fails halts its operation, which says why. If not even that can be
//! written down, or a wave cannot be tried at all just now, it is tried again. Waits are measured by uptime;
//! after a restart the wall clock tells how much of a soak is over. The timeout of a gate begins anew, because
//! the gate was not tried meanwhile.

mod command;
mod http;
mod outside;
mod prune;
#[cfg(test)]
mod tests;

pub use outside::Machine;
pub(super) use prune::Prune;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{Id, JoinHandle, JoinSet};

use crate::audit::{Actor, Deed, Outcome};
use crate::env::{Clock, Time};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ExportId, Fleet, Gate, Next, OperationId, OperationRecord, OperationState, State, wave_failure};

/// Pause after a step that could not even fail.
const RETRY: Duration = Duration::from_secs(10);
/// Longest sleep before the wall clock is looked at again, which may step.
const NAP: Duration = Duration::from_secs(30);

/// A gate, and what it is about.
pub struct Question<'a> {
    pub gate: &'a Gate,
    pub operation: OperationId,
    /// Counts from 0.
    pub wave: usize,
    /// `IMAGE@vN`.
    pub version: &'a str,
    /// The wave's clones that show the version, each with the number of its view.
    pub views: &'a [(ExportId, u64)],
    /// Uptime at which the wave was switched, since which readers count.
    pub since: Duration,
    /// How long the answer may take.
    pub limit: Duration,
}

/// What operations need of the world outside.
pub trait Outside: Send + Sync + 'static {
    /// Ask once; the error says why the gate is not passed.
    fn ask<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<(), String>>;
    fn pause(&self, time: Duration) -> BoxFuture<'_, ()>;
    /// Undo what an operation did.
    fn roll_back<'a>(&'a self, fleet: &'a Fleet, operation: OperationId) -> BoxFuture<'a, Result<()>>;
}

/// Run all operations of a fleet until `stop` changes; what is under way is then left where it is.
pub fn spawn(
    fleet: Arc<Fleet>,
    clock: Arc<dyn Clock>,
    outside: Arc<dyn Outside>,
    stop: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(Runner { fleet, clock, outside }.run(stop))
}

#[derive(Clone)]
struct Runner {
    fleet: Arc<Fleet>,
    clock: Arc<dyn Clock>,
    outside: Arc<dyn Outside>,
}

impl Runner {
    async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut revisions = self.fleet.catalog().revisions();
        let (mut tasks, mut running) = (JoinSet::new(), HashMap::<Id, OperationId>::new());
        loop {
            revisions.mark_unchanged();
            for id in self.to_run(&self.fleet.catalog().state(), &running) {
                let runner = self.clone();
                let task = tasks.spawn(async move { runner.go_on(id).await });
                running.insert(task.id(), id);
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                changed = revisions.changed() => if changed.is_err() { break },
                Some(ended) = tasks.join_next_with_id() => {
                    let task = ended.as_ref().map_or_else(|e| e.id(), |(id, ())| *id);
                    let Some(id) = running.remove(&task) else { continue };
                    if ended.is_err() {
                        tracing::error!("the task of operation {id} died; it is tried again");
                        let runner = self.clone();
                        let task = tasks.spawn(async move {
                            runner.outside.pause(RETRY).await;
                            runner.go_on(id).await;
                        });
                        running.insert(task.id(), id);
                    }
                }
            }
        }
        tasks.shutdown().await;
    }

    /// Operations that go on by themselves and have no task.
    fn to_run(&self, state: &State, running: &HashMap<Id, OperationId>) -> Vec<OperationId> {
        let has_task = |id: &OperationId| running.values().any(|running| running == id);
        let going = state.operations().filter(|operation| goes_on(operation)).map(|operation| operation.id);
        going.filter(|id| !has_task(id)).collect()
    }

    /// From step to step, until the operation stands still.
    async fn go_on(&self, id: OperationId) {
        loop {
            let Some(operation) = self.fleet.catalog().state().operation(id).cloned() else { return };
            if !goes_on(&operation) {
                tracing::info!("{id}: {:?}", operation.state);
                return;
            }
            let taken = tokio::select! {
                () = self.moved(&operation) => continue,
                taken = self.take_step(&operation) => taken,
            };
            match taken {
                // Somebody moved it meanwhile: see where it is.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => {
                    tracing::warn!(%error, "operation {id} cannot go on; it is tried again");
                    self.outside.pause(RETRY).await;
                }
                Ok(()) => {}
            }
        }
    }

    /// Until the operation is no longer where it was, or gone; for ever if nothing changes any more.
    async fn moved(&self, was: &OperationRecord) {
        let mut revisions = self.fleet.catalog().revisions();
        let same =
            |state: &State| state.operation(was.id).is_some_and(|now| (&now.state, now.next) == (&was.state, was.next));
        while same(&self.fleet.catalog().load()) {
            if revisions.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn take_step(&self, operation: &OperationRecord) -> Result<()> {
        let id = operation.id;
        if let OperationState::RollingBack { why } = &operation.state {
            let (fleet, outside) = (self.fleet.clone(), self.outside.clone());
            let roll_back = async move { outside.roll_back(&fleet, id).await };
            return match self
                .audited((id, operation.plan.waves.concat()), "roll back", json!({ "why": why }), roll_back)
                .await?
            {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
                Err(error) => self.fleet.fail_rollback(id, &format!("{why}; the rollback failed: {error}")).await,
            };
        }
        let next = operation.next;
        match next {
            Next::Start => {
                self.wait_until(operation.plan.at.unwrap_or_default()).await;
                self.fleet.begin(id).await
            }
            Next::Wave(wave) => {
                let fleet = self.fleet.clone();
                let clones = operation.plan.waves.get(wave).cloned().unwrap_or_default();
                let version = version_name(&self.fleet.catalog().state(), operation);
                let request = json!({ "wave": wave + 1, "clones": clones.len(), "version": version });
                let switch = async move { fleet.switch_wave(id, wave).await };
                match self.audited((id, clones), "switch a wave", request, switch).await? {
                    // Nothing failed but the time: the whole is tried again.
                    Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
                    Err(error) => self.fleet.fail(operation, &wave_failure(wave, &error)).await,
                    Ok(()) => Ok(()),
                }
            }
            Next::Gate(wave) => match self.pass(operation, wave).await {
                Ok(()) => self.fleet.pass_gate(id, wave).await,
                Err(why) => self.fleet.fail(operation, &format!("after wave {}: {why}", wave + 1)).await,
            },
            Next::Nothing => Ok(()),
        }
    }

    /// Do what changes these clones, and note it in the audit log; `Err` if that cannot be. It goes to its end there
    /// although the operation is seen to have moved before: it is this that moves it.
    async fn audited(
        &self,
        (id, clones): (OperationId, Vec<ExportId>),
        action: &str,
        request: Value,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Result<Result<()>> {
        let (fleet, actor) = (self.fleet.clone(), Actor::mimeo(id.to_string()));
        let deed = Deed { actor, action: action.into(), request, before: showing(&fleet, &clones) };
        let noted = tokio::spawn(async move {
            let asked = fleet.audit().ask(deed).await?;
            let done = work.await;
            let outcome = done.as_ref().map_or_else(Outcome::failed, |()| Outcome::done(showing(&fleet, &clones)));
            asked.done(outcome.by(Some(id))).await?;
            Ok(done)
        });
        noted.await.unwrap_or_else(|e| Ok(Err(Error::internal(format!("{action} of operation {id} died")).because(e))))
    }

    /// By uptime.
    async fn sleep_until(&self, then: Duration) {
        loop {
            match then.saturating_sub(self.clock.uptime()) {
                Duration::ZERO => return,
                left => self.outside.pause(left).await,
            }
        }
    }

    /// By the wall clock, which may step.
    async fn wait_until(&self, time: Time) {
        loop {
            match until(self.clock.now(), time) {
                Duration::ZERO => return,
                left => self.outside.pause(left.min(NAP)).await,
            }
        }
    }

    /// Let a wave soak, then try its gates until all were passed or the time is over.
    async fn pass(&self, operation: &OperationRecord, wave: usize) -> Result<(), String> {
        let rollout = &operation.plan.rollout;
        let since = self.uptime_at(operation.outcomes.get(wave).map_or(operation.since, |outcome| outcome.at));
        let soaked = until(operation.since, self.clock.now());
        let left = Duration::from_secs(rollout.soak_secs).saturating_sub(soaked);
        self.sleep_until(self.clock.uptime() + left).await;
        let deadline = self.clock.uptime() + Duration::from_secs(rollout.gate_timeout_secs);
        let version = version_name(&self.fleet.catalog().state(), operation);
        for gate in &rollout.gates {
            loop {
                let views = views(&self.fleet.catalog().state(), operation, wave);
                let limit = deadline.saturating_sub(self.clock.uptime());
                let (id, version, views) = (operation.id, version.as_str(), views.as_slice());
                let question = Question { gate, operation: id, wave, version, views, since, limit };
                let Err(why) = self.outside.ask(question).await else { break };
                let pause = Duration::from_secs(rollout.gate_interval_secs);
                if self.clock.uptime() + pause >= deadline {
                    return Err(format!("gate {gate} was not passed in {} s: {why}", rollout.gate_timeout_secs));
                }
                self.outside.pause(pause).await;
            }
        }
        Ok(())
    }

    /// The uptime at which the wall clock showed `time`; it was not before this start, nor is it to come. Asked
    /// as soon as an operation's step begins, so that a wall clock that steps later changes nothing.
    fn uptime_at(&self, time: Time) -> Duration {
        self.clock.uptime().saturating_sub(until(time, self.clock.now()))
    }
}

/// The clones of a wave that show its version now, with their views.
fn views(state: &State, operation: &OperationRecord, wave: usize) -> Vec<(ExportId, u64)> {
    let clones = operation.plan.waves.get(wave).into_iter().flatten().filter_map(|id| state.clone_by_id(*id));
    let shown = clones.filter(|clone| Some(clone.view.version) == operation.version);
    shown.map(|clone| (clone.id, clone.view.number)).collect()
}

/// How many of these clones show which version.
fn showing(fleet: &Fleet, clones: &[ExportId]) -> Value {
    let state = fleet.catalog().state();
    let mut versions = BTreeMap::<_, usize>::new();
    for clone in clones.iter().filter_map(|id| state.clone_by_id(*id)) {
        *versions.entry((clone.image, clone.view.version)).or_default() += 1;
    }
    let name =
        |(image, number)| state.image(image).map_or_else(String::new, |image| format!("{}@v{number}", image.name));
    json!({ "showing": versions.into_iter().map(|(version, clones)| (name(version), clones)).collect::<BTreeMap<_, _>>() })
}

fn goes_on(operation: &OperationRecord) -> bool {
    matches!(operation.state, OperationState::Active | OperationState::RollingBack { .. })
}

/// From `now` to `then`; zero if that is over.
fn until(now: Time, then: Time) -> Duration {
    let nanos = |time: Time| i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    let left = u64::try_from((nanos(then) - nanos(now)).max(0)).unwrap_or(u64::MAX);
    Duration::from_nanos(left)
}

fn version_name(state: &State, operation: &OperationRecord) -> String {
    let image = state.image(operation.image).map_or("", |image| &image.name);
    operation.version.map_or_else(|| image.to_owned(), |number| format!("{image}@v{number}"))
}

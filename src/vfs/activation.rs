//! The switch that waits for a mount.
//!
//! Owns when a MNT makes it: if nobody uses the clone. That means no request with a handle of it in the last
//! 90 seconds ([`QUIET`](super::QUIET)), no open connection that has used one, and no other address that used
//! one in the last hour ([`AWAY`](super::AWAY)) and has not unmounted it. The MNT is answered when the switch is
//! committed, so who mounts sees the new view from its first request on. Else the switch goes on waiting, and
//! the MNT is answered at once.
//!
//! Invariants: whether nobody uses the clone is asked before anything is made ready, and again in the commit; a
//! clone has one activation at a time, and every MNT that comes meanwhile waits for it; one that failed is not
//! tried again for [`RETRY_AFTER`], unless something else waits by then.
//!
//! Failure story: a switch that fails leaves the clone staged and is told in the log and the audit log; the
//! MNT is answered, in the old view. One that takes longer than a MNT may is not broken off: that MNT fails,
//! so that nobody begins to work in a view that is about to go, and the client's next one finds the new view.
//! Nobody is switched in the first 90 seconds after a start: who used what before it is not known.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::timeout;

use super::activity::Activity;
use crate::audit::{Actor, Deed, Outcome};
use crate::env::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{CloneRecord, ExportId, Fleet, OperationId, Quiet};

/// How long a MNT waits for a switch: clients give it up after a minute.
const MOUNT_WAIT: Duration = Duration::from_secs(20);
/// After so long a switch that failed is tried again by a MNT.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// Clones of which a failure is remembered.
const MAX_FAILED: usize = 4096;

/// The activations under way, and those that failed.
pub struct Activations {
    fleet: Fleet,
    activity: Arc<Activity>,
    clock: Arc<dyn Clock>,
    clones: Mutex<HashMap<ExportId, Last>>,
}

/// The last activation of a clone.
enum Last {
    Running(Shared<BoxFuture<'static, ()>>),
    Failed { staged_by: OperationId, at: Duration },
}

/// Whether a clone is quiet for a mount by `client`.
struct Mounting {
    client: IpAddr,
    activity: Arc<Activity>,
    clock: Arc<dyn Clock>,
}

impl Quiet for Mounting {
    fn is_quiet(&self, clone: ExportId) -> bool {
        self.activity.is_quiet(clone, self.client, self.clock.uptime())
    }
}

impl Activations {
    pub fn new(fleet: Fleet, activity: Arc<Activity>, clock: Arc<dyn Clock>) -> Self {
        Self { fleet, activity, clock, clones: Mutex::default() }
    }

    /// What a MNT of this clone has to wait for; `None`: it is answered at once.
    pub fn at_mount(
        self: &Arc<Self>,
        clone: &Arc<CloneRecord>,
        client: IpAddr,
    ) -> Option<impl Future<Output = Result<()>> + Send + 'static> {
        let staged_by = clone.staged.as_ref().filter(|_| clone.waits_for_mount())?.operation;
        let (activity, clock) = (self.activity.clone(), self.clock.clone());
        let quiet = Mounting { client, activity, clock };
        let mut clones = self.clones.lock();
        let running = match clones.get(&clone.id) {
            Some(Last::Running(running)) => running.clone(),
            last => {
                if last.is_some_and(|last| last.forbids(staged_by, self.clock.uptime())) || !quiet.is_quiet(clone.id) {
                    return None;
                }
                // It goes on if the MNT is given up; its end waits for this lock.
                let activation = self.clone().activate(clone.clone(), Arc::new(quiet));
                let running = self.fleet.runtime().spawn(activation).map(drop).boxed().shared();
                clones.insert(clone.id, Last::Running(running.clone()));
                running
            }
        };
        Some(in_time(running, client))
    }

    async fn activate(self: Arc<Self>, clone: Arc<CloneRecord>, quiet: Arc<Mounting>) {
        let (name, client) = (&clone.name, quiet.client);
        let done = audited(&self.fleet, &clone, quiet.clone()).await;
        match &done {
            Ok(Some(operation)) => tracing::info!("{operation}: clone {name} was switched at its mount by {client}"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the switch of clone {name} at its mount by {client} was not made"),
        }
        let mut clones = self.clones.lock();
        clones.remove(&clone.id);
        let failed = clone.staged.as_ref().filter(|_| done.is_err());
        if let Some(staged) = failed {
            if clones.len() >= MAX_FAILED {
                clones.retain(|_, last| matches!(last, Last::Running(_)));
            }
            clones.insert(clone.id, Last::Failed { staged_by: staged.operation, at: self.clock.uptime() });
        }
    }
}

impl Last {
    /// Whether this operation's switch is not tried at `now`.
    fn forbids(&self, operation: OperationId, now: Duration) -> bool {
        match self {
            Self::Running(_) => false,
            Self::Failed { staged_by, at } => *staged_by == operation && now < *at + RETRY_AFTER,
        }
    }
}

/// `Err` only if it takes too long; it goes on then.
async fn in_time(running: Shared<BoxFuture<'static, ()>>, client: IpAddr) -> Result<()> {
    let too_long = |_| {
        let what = format!("the switch that a mount by {client} waits for takes longer than {MOUNT_WAIT:?}");
        Error::new(ErrorKind::Unavailable, what).remedy("mount again")
    };
    timeout(MOUNT_WAIT, running).await.map_err(too_long)
}

/// The operation that switched the clone; `None` if somebody else has switched it, or withdrew the switch.
async fn audited(fleet: &Fleet, clone: &CloneRecord, quiet: Arc<Mounting>) -> Result<Option<OperationId>> {
    let asked = fleet.audit().ask(deed(clone, quiet.client)).await?;
    let activated = fleet.activate_mounted(clone.id, quiet).await;
    let done = activated.and_then(|activated| activated.map(|activated| activated.outcome).transpose());
    let outcome = match &done {
        Ok(Some(done)) => {
            Outcome::done(json!({ "version": done.outcome.version.number, "clones": done.outcome.switched() }))
        }
        Ok(None) => Outcome::failed("no switch waits any more"),
        Err(error) => Outcome::failed(error),
    };
    let operation = done.as_ref().ok().and_then(|done| done.as_ref().map(|done| done.operation));
    asked.done(outcome.by(operation)).await?;
    done.map(|_| operation)
}

fn deed(clone: &CloneRecord, client: IpAddr) -> Deed {
    let staged_by = clone.staged.as_ref().map(|staged| staged.operation.to_string());
    Deed {
        actor: Actor::mimeo(format!("mount by {client}")),
        action: "activate".into(),
        request: json!({ "clone": &*clone.name, "staged_by": staged_by }),
        before: json!({ "version": clone.view.version, "view": clone.view.number }),
    }
}

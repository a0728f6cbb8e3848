//! MNT and UMNT: which export a path names, and the switch that waits for a mount.
//!
//! A switch that is staged for the next mount is made by a MNT if nobody uses the clone: no request with a
//! handle of it in the last 90 seconds, and no open connection that has used one. The MNT is answered when
//! the switch is committed, so who mounts sees the new view from its first request on. Else the switch goes
//! on waiting, and the MNT is answered at once.
//!
//! Failure story: a switch that fails leaves the clone staged and is told in the log and the audit log; the
//! MNT is answered, in the old view. One that takes longer than a MNT may is not broken off: that MNT fails,
//! so that nobody begins to work in a view that is about to go, and the client's next one finds the new view.
//! Nobody is switched in the first 90 seconds after a start: who used what before it is not known.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::{ImageVfs, Object, Refusal, Request, Verb, Vfs};
use crate::audit::{Actor, Deed, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{CloneRecord, ExportId, Fleet, OperationId, State, VersionRef};
use crate::manifest::Ino;

/// How long a MNT waits for a switch: clients give it up after a minute.
const MOUNT_WAIT: Duration = Duration::from_secs(20);

impl ImageVfs {
    pub(super) fn mount_export(&self, rq: &mut Request<'_>, path: &[u8]) -> Verb<Object> {
        rq.state = self.newest();
        let export = match export_of(rq.state(), path) {
            Ok(export) => export,
            // Who may not mount anything is not told what there is.
            Err(_) if !self.policy().rules().admits(rq.caller) => return Ok(Err(Refusal::Access.into())),
            Err(why) => return Ok(Err(why.into())),
        };
        let root = Object { export, ino: Ino::ROOT.0, generation: 0 };
        // It is no use of the clone yet.
        let footprint = rq.footprint.take();
        let admitted = self.getattr(rq, root);
        rq.footprint = footprint;
        if let Err(refused) = admitted? {
            return Ok(Err(refused));
        }
        if let Some(clone) = rq.state().clone_by_id(export).cloned() {
            let (client, now) = (rq.caller.peer.ip(), self.uptime());
            if clone.waits_for_mount() && !rq.activated && self.activity().is_quiet(export, now) {
                rq.activated = true;
                if let Some(fleet) = self.fleet().cloned() {
                    return Err(rq.fetch().wait_for(activate_in_time(fleet, clone, client)));
                }
            }
            self.activity().mounted(export, client, clone.view.number, now);
        }
        Ok(Ok(root))
    }

    pub(super) fn unmount_export(&self, rq: &Request<'_>, path: &[u8]) {
        let state = self.newest();
        let Ok(export) = export_of(&state, path) else { return };
        if let Some(clone) = state.clone_by_id(export)
            && self.rules(&state, export).admits(rq.caller)
        {
            self.activity().unmounted(export, rq.caller.peer.ip(), clone.view.number, self.uptime());
        }
    }
}

/// The export that a MOUNT path names, and whether it exists.
fn export_of(state: &State, path: &[u8]) -> Result<ExportId, Refusal> {
    let path = std::str::from_utf8(path).map_err(|_| Refusal::NotFound)?.trim_end_matches('/');
    if let Some(name) = path.strip_prefix("/clones/") {
        return state.clone_named(name).map(|clone| clone.id).ok_or(Refusal::NotFound);
    }
    let name = path.strip_prefix("/images/").ok_or(Refusal::NotFound)?;
    let version: VersionRef = name.parse().map_err(|_| Refusal::NotFound)?;
    state.find_version(&version).map(|version| version.export).map_err(|_| Refusal::NotFound)
}

/// Make the switch that waits for this mount. `Err` only if it takes too long; it goes on then.
async fn activate_in_time(fleet: Fleet, clone: Arc<CloneRecord>, client: IpAddr) -> Result<()> {
    let runtime = fleet.runtime().clone();
    let activation = runtime.spawn(activate(fleet, clone, client));
    match timeout(MOUNT_WAIT, activation).await {
        Ok(ended) => ended.map_err(|e| Error::internal("an activation died").because(e)),
        Err(_) => {
            let what = format!("the switch that a mount by {client} set off takes longer than {MOUNT_WAIT:?}");
            Err(Error::new(ErrorKind::Unavailable, what).remedy("mount again"))
        }
    }
}

async fn activate(fleet: Fleet, clone: Arc<CloneRecord>, client: IpAddr) {
    let name = &clone.name;
    match audited(&fleet, &clone, client).await {
        Ok(Some(operation)) => tracing::info!("{operation}: clone {name} was switched at its mount by {client}"),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "the switch of clone {name} at its mount by {client} was not made"),
    }
}

/// The operation that switched the clone; `None` if somebody else has switched it, or withdrew the switch.
async fn audited(fleet: &Fleet, clone: &CloneRecord, client: IpAddr) -> Result<Option<OperationId>> {
    let asked = fleet.audit().ask(deed(clone, client)).await?;
    let activated = fleet.activate_mounted(clone.id).await;
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

//! Forgetting operations that ended long ago, and the snapshots that they took.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use serde_json::{Value, json};

use crate::audit::{Actor, Deed, Outcome};
use crate::env::{Env, Time};
use crate::error::Result;
use crate::image::{Fleet, Retention, SnapshotRecord};
use crate::maintain::worker::{Step, Worker};

/// By how much the wall clock may be set forward while the daemon runs, in seconds.
const MAX_STEP_SECS: i64 = 3600;

/// Snapshots that one entry of the audit log tells.
const MAX_TOLD: usize = 16;
/// Uptime after which the wall clock is believed.
const SETTLING: Duration = Duration::from_secs(3600);

pub struct Prune {
    fleet: Arc<Fleet>,
    env: Env,
    keep: Retention,
    /// By both clocks.
    begun: (Time, Duration),
}

impl Prune {
    pub fn new(fleet: Arc<Fleet>, env: Env, keep: Retention) -> Self {
        let begun = (env.clock.now(), env.clock.uptime());
        Self { fleet, env, keep, begun }
    }

    /// Whether the wall clock went on about as time did, since it had the time to be set after a start: else
    /// nothing is judged by its age.
    fn is_steady(&mut self) -> bool {
        if self.env.clock.uptime() < SETTLING {
            self.begun = (self.env.clock.now(), self.env.clock.uptime());
            return false;
        }
        let (wall, uptime) = self.begun;
        let passed = (self.env.clock.uptime() - uptime).as_secs();
        let shown = self.env.clock.now().secs.saturating_sub(wall.secs);
        shown <= i64::try_from(passed).unwrap_or(i64::MAX).saturating_add(MAX_STEP_SECS)
    }
}

impl Prune {
    /// Remove outdated snapshots, all told in the audit log; answers how many.
    async fn forget_snapshots(&self) -> Result<usize> {
        let outdated = self.fleet.outdated_snapshots(self.keep.window);
        if outdated.is_empty() {
            return Ok(0);
        }
        let mut asked = Vec::new();
        for few in outdated.chunks(MAX_TOLD) {
            let (actor, action) = (Actor::mimeo("retention"), "remove snapshots".to_owned());
            let request = json!({ "snapshots": self.names(few) });
            asked.push(self.fleet.audit().ask(Deed { actor, action, request, before: Value::Null }).await?);
        }
        let forgotten = self.fleet.forget_snapshots(&outdated, self.keep.window).await;
        // Together, so that they share syncs.
        let outcome = || forgotten.as_ref().map_or_else(Outcome::failed, |_| Outcome::done(Value::Null));
        try_join_all(asked.into_iter().map(|asked| asked.done(outcome()))).await?;
        forgotten
    }

    fn names(&self, snapshots: &[Arc<SnapshotRecord>]) -> Vec<String> {
        let state = self.fleet.catalog().state();
        let clone = |id| state.clone_by_id(id).map_or_else(String::new, |clone| clone.name.to_string());
        snapshots.iter().map(|snapshot| format!("{}@{}", clone(snapshot.clone), snapshot.name)).collect()
    }
}

impl Worker for Prune {
    fn name(&self) -> &'static str {
        "prune operations"
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        async move {
            if !self.is_steady() {
                return Ok(Step::IDLE);
            }
            self.fleet.forget_operations(self.keep).await?;
            let more = self.forget_snapshots().await? > 0;
            Ok(Step { more, ..Step::IDLE })
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{AuditLog, Bounds, Filter};
    use crate::image::{CloneTarget, RepointPlan, VersionRef, Writes};
    use crate::maintain::fsck::tests::world::{A, World};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[tokio::test]
    async fn snapshots_whose_time_is_over_are_told_in_the_audit_log_and_removed() {
        let world = World::new().await;
        let audit = AuditLog::open(&world.env, "/audit".into(), Bounds { file_bytes: 1 << 20, files: 2 }).unwrap();
        let fleet = Arc::new(world.fleet().with_audit(audit.clone()));
        world.write("desk", A, 0, b"private").await;
        let desk = CloneTarget::Names(vec!["desk".into()]);
        let plan = RepointPlan::new("os", VersionRef::number("os", 1), desk).with(Writes::Discard);
        let operation = fleet.repoint(plan).await.unwrap().operation;
        let mut prune =
            Prune::new(fleet.clone(), world.env.clone(), Retention { operations: 9, age: DAY, window: DAY });
        let left = || fleet.catalog().state().snapshot_count();
        prune.step().await.unwrap();
        assert_eq!((left(), audit.entries(Filter::default()).await.unwrap().len()), (1, 0));
        world.clock.advance(DAY);
        world.fill_disk();
        assert!(prune.step().await.is_err());
        assert_eq!(left(), 1, "what cannot be noted is not done");
        world.empty_disk();
        prune.step().await.unwrap();
        assert_eq!(left(), 0);
        let entry = audit.entries(Filter::default()).await.unwrap().pop().unwrap();
        assert_eq!((entry.from.as_str(), entry.outcome.as_str()), ("retention", "done"));
        assert_eq!(entry.request, json!({ "snapshots": [format!("desk@{}", operation.snapshot_name())] }));
    }
}

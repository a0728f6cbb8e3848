//! Whatever needs both the catalog and the overlays: switches, snapshots, forks, removals.
//!
//! Owns the way to an instant. A change that names what overlays hold goes like this: choose the
//! clones; freeze their overlays; sync the log, if any was written; commit one change set, unless a
//! chosen clone was switched meanwhile (then all of it again); tell the overlays which positions must
//! stay; thaw. Who waited with a write finds the new view and writes there. What was begun goes to its
//! end, also if the caller goes away: a change that waits in the log must not find its clones thawed.
//!
//! Invariant: what a sealed layer names is on stable storage before the catalog names it, and is
//! protected in the overlays before anything is written over it.
//!
//! Failure story: before the commit nothing has changed but a few marks too many; a crash after it
//! finds all marks in the catalog at the next start.

mod activate;
mod dry_runs;
mod flatten;
mod fork;
mod gather;
mod keep;
mod look;
mod marks;
mod operations;
mod pins;
mod predict;
mod repoint;
mod retention;
mod rollback;
mod snapshots;
#[cfg(test)]
mod tests;

pub use activate::Activated;
pub use flatten::FLATTEN_ABOVE;
pub use fork::{DEFAULT_FORK_DEPTH, NewFork};
pub use look::Look;
pub use operations::{NewOperation, wave_failure};
pub use pins::{EndedPin, PinnedViews};
pub use predict::{OperationPrediction, Prediction};
pub use repoint::{CloneOutcome, RepointDone, RepointOutcome, RepointPlan};
pub use retention::Retention;
pub use rollback::RollbackDone;
pub use snapshots::{NewSnapshot, RestoreDone, SnapshotTarget, TakenSnapshot};

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use self::dry_runs::DryRuns;
use self::gather::Mounts;
use self::marks::Lingering;

use super::catalog::{Catalog, Draft};
use super::change::Change;
use super::clones::CloneTarget;
use super::names::CloneRef;
use super::record::{CloneRecord, View};
use super::state::State;
use super::switch::{Sealed, check_layers};
use crate::audit::AuditLog;
use crate::error::{Error, ErrorKind, Result};
use crate::overlay::{Counts, Frozen, OverlayId, OverlayStore};

/// How often clones may be switched by others while a change is made ready.
const MAX_PLANS: usize = 16;

/// All clones of a store, with what they hold. Copies are the same fleet.
#[derive(Clone)]
pub struct Fleet {
    catalog: Arc<Catalog>,
    overlays: Arc<OverlayStore>,
    lingering: Arc<Mutex<Lingering>>,
    mounts: Arc<Mounts>,
    dry_runs: Arc<DryRuns>,
    max_fork_depth: u32,
    /// On whose behalf operations are made.
    who: Arc<str>,
    audit: Arc<AuditLog>,
}

/// Which overlays of the chosen clones stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freeze {
    Nothing,
    /// Those that take the writes of the current views.
    Views,
    /// Those of the former views too.
    ViewsAndPins,
}

impl Freeze {
    /// What has to stand still to read a clone as it is now; nothing for a snapshot.
    fn of(source: &CloneRef) -> Self {
        if source.snapshot.is_some() { Self::Nothing } else { Self::Views }
    }
}

/// Clones, and what their overlays hold, at one instant.
struct Instant {
    clones: Vec<Arc<CloneRecord>>,
    sealed: Sealed,
}

impl Instant {
    /// The clones as they are in the draft; `None` if one was switched or removed since.
    fn clones(&self, draft: &Draft) -> Option<Vec<Arc<CloneRecord>>> {
        let now = |planned: &Arc<CloneRecord>| {
            draft.clone_by_id(planned.id).filter(|clone| clone.view.number == planned.view.number).cloned()
        };
        self.clones.iter().map(now).collect()
    }
}

impl Fleet {
    /// The clones in `catalog` and their overlays, which were opened with the marks of its state.
    pub fn new(catalog: Arc<Catalog>, overlays: Arc<OverlayStore>) -> Self {
        let (max_fork_depth, who) = (DEFAULT_FORK_DEPTH, "mimeo".into());
        Self {
            catalog,
            overlays,
            lingering: Arc::default(),
            mounts: Arc::default(),
            dry_runs: Arc::default(),
            max_fork_depth,
            who,
            audit: AuditLog::none(),
        }
    }

    /// Let forks of forks be at most this deep.
    #[must_use]
    pub fn with_fork_depth(self, max_fork_depth: u32) -> Self {
        Self { max_fork_depth, ..self }
    }

    /// The same fleet; operations that are made through it say that `who` made them.
    #[must_use]
    pub fn on_behalf_of(&self, who: &str) -> Self {
        Self { who: who.into(), ..self.clone() }
    }

    /// Tell this log what is done of mimeo's own accord.
    #[must_use]
    pub fn with_audit(self, audit: Arc<AuditLog>) -> Self {
        Self { audit, ..self }
    }

    pub fn audit(&self) -> &Arc<AuditLog> {
        &self.audit
    }

    pub(super) fn overlays(&self) -> &Arc<OverlayStore> {
        &self.overlays
    }

    /// Where what must go to its end runs.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        self.overlays.runtime()
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// What a view holds in private, over all its layers.
    pub fn counts(&self, view: &View) -> Counts {
        let (sealed, open) = (view.sealed_counts(), self.overlays.counts(view.top));
        Counts { bytes: sealed.bytes + open.bytes, inodes: sealed.inodes + open.inodes }
    }

    /// Whether a view holds private writes now.
    fn is_private(&self, view: &View) -> bool {
        !view.layers.is_empty() || self.overlays.is_written(view.top)
    }

    /// Remove clones with their snapshots, all or none; answers what they were. Handles into them are
    /// dead from then on. Forks of them live on.
    pub async fn remove_clones(&self, target: CloneTarget) -> Result<Vec<Arc<CloneRecord>>> {
        let removed = self.catalog.transact("remove clones", move |draft| {
            let clones = target.named_or_selected(draft)?;
            let mut layers = Vec::new();
            for clone in &clones {
                layers.extend(clone.layers_named().copied());
                layers.extend(draft.snapshots_of(clone.id).flat_map(|snapshot| snapshot.layers.iter().copied()));
                draft.apply(Change::RemoveClone(clone.id))?;
            }
            Ok((clones, layers))
        });
        let (clones, layers) = removed.await?;
        self.release(layers.iter());
        Ok(clones)
    }

    /// Run `work` on clones while the overlays stand still, and commit what it changes. `choose` runs
    /// again, and then `work`, if a chosen clone was switched meanwhile.
    async fn at_one_instant<T, W>(
        &self,
        label: &'static str,
        freeze: Freeze,
        choose: impl Fn(&State) -> Result<Vec<Arc<CloneRecord>>> + Send + Sync + 'static,
        work: W,
    ) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(&mut Draft, &[Arc<CloneRecord>], &Sealed) -> Result<T> + Clone + Send + Sync + 'static,
    {
        let work = move |draft: &mut Draft, clones: &[_], sealed: &_| work(draft, clones, sealed).map(Some);
        self.until_at_one_instant(label, freeze, choose, work).await
    }

    /// The same for work that says by `None` that others have to be chosen by now.
    async fn until_at_one_instant<T, W>(
        &self,
        label: &'static str,
        freeze: Freeze,
        choose: impl Fn(&State) -> Result<Vec<Arc<CloneRecord>>> + Send + Sync + 'static,
        work: W,
    ) -> Result<T>
    where
        T: Send + 'static,
        W: Fn(&mut Draft, &[Arc<CloneRecord>], &Sealed) -> Result<Option<T>> + Clone + Send + Sync + 'static,
    {
        let choose = Arc::new(choose);
        let attempt = move |fleet: Self| {
            let (choose, work) = (choose.clone(), work.clone());
            let work = move |draft: &mut Draft, clones: &[_], sealed: &_, (): &()| work(draft, clones, sealed);
            async move {
                let clones = choose(&fleet.catalog.state())?;
                fleet.attempt(label, freeze, clones, |_| ready(Ok(())), work).await
            }
        };
        self.going_on(label, attempt).await
    }

    /// Attempt something until no clone was switched by others meanwhile. It goes on to its end, also if the
    /// caller goes away.
    async fn going_on<T, F>(
        &self,
        label: &'static str,
        attempt: impl Fn(Self) -> F + Send + Sync + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<Option<T>>> + Send,
    {
        let fleet = self.clone();
        // Not where it is called: a runtime that ends with its connections would break it off.
        let attempts = self.overlays.runtime().spawn(async move {
            for _ in 0..MAX_PLANS {
                if let Some(done) = attempt(fleet.clone()).await? {
                    return Ok(done);
                }
            }
            Err(Error::new(ErrorKind::Unavailable, format!("{label}: the clones were switched by others every time"))
                .remedy("try again"))
        });
        attempts.await.map_err(|e| Error::internal(format!("{label}: broken off")).because(e))?
    }

    /// One attempt: hold the overlays, make `ready`, and commit the `work`. `None` if a clone was switched
    /// since it was chosen, or the work says that it is planned for something that has changed.
    async fn attempt<T, R, F, W>(
        &self,
        label: &'static str,
        freeze: Freeze,
        clones: Vec<Arc<CloneRecord>>,
        ready: impl FnOnce(Arc<Instant>) -> F,
        work: W,
    ) -> Result<Option<T>>
    where
        T: Send + 'static,
        R: Send + Sync + 'static,
        F: Future<Output = Result<R>>,
        W: Fn(&mut Draft, &[Arc<CloneRecord>], &Sealed, &R) -> Result<Option<T>> + Send + 'static,
    {
        let (frozen, instant) = self.hold_still(freeze, clones).await?;
        let instant = Arc::new(instant);
        let ready = match ready(instant.clone()).await {
            Ok(ready) => Arc::new(ready),
            Err(error) => {
                drop(frozen);
                self.release_instant(&instant);
                return Err(error);
            }
        };
        let offered = Arc::new(AtomicBool::new(false));
        let (planned, prepared, offers) = (instant.clone(), ready.clone(), offered.clone());
        let outcome = self.catalog.transact(label, move |draft| {
            let clones = planned.clones(draft);
            let done = clones.map_or(Ok(None), |clones| work(draft, &clones, &planned.sealed, &prepared));
            offers.store(done.is_ok(), Ordering::Relaxed);
            done
        });
        let outcome = outcome.await;
        drop(frozen);
        if outcome.is_err() && offered.load(Ordering::Relaxed) {
            // It was offered to the log and failed there, where it may yet turn up.
            self.keep_until_restart(instant.sealed.layers());
            // So may what it made: whatever is held of it stays held.
            std::mem::forget(ready.clone());
        }
        self.release_instant(&instant);
        outcome
    }

    /// Hold the overlays of clones, and see that what they hold is on stable storage and stays readable.
    async fn hold_still(&self, freeze: Freeze, clones: Vec<Arc<CloneRecord>>) -> Result<(Frozen, Instant)> {
        let tops = tops(&clones, freeze);
        let frozen = self.overlays.freeze(tops.clone()).await;
        let sealed = Sealed::from_layers(tops.into_iter().filter_map(|top| frozen.layer(top)));
        if !sealed.layers().is_empty() {
            self.overlays.sync().await?;
        }
        for layer in sealed.layers() {
            self.overlays.protect(layer.overlay, layer.upto);
        }
        Ok((frozen, Instant { clones, sealed }))
    }

    /// What an instant named may have lost its last name.
    fn release_instant(&self, instant: &Instant) {
        let former = instant.clones.iter().flat_map(|clone| clone.layers_named());
        self.release(former.chain(instant.sealed.layers()));
    }
}

fn tops(clones: &[Arc<CloneRecord>], freeze: Freeze) -> Vec<OverlayId> {
    match freeze {
        Freeze::Nothing => Vec::new(),
        Freeze::Views => clones.iter().map(|clone| clone.view.top).collect(),
        Freeze::ViewsAndPins => clones.iter().flat_map(|clone| clone.tops()).collect(),
    }
}

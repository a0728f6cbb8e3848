//! Snapshots: taken of running clones, restored in place, removed in any order.
//!
//! A snapshot names the version and the sealed layers that a clone shows at one instant, and nothing
//! else changes: the clone goes on writing to the same overlay, which keeps what the snapshot reads.
//! So any number of them costs a clone's reads and writes nothing, and removing one takes its names
//! away and touches no other.

use std::sync::Arc;

use super::operations::Whole;
use super::repoint::switch;
use super::{Fleet, Freeze};
use crate::error::{Error, Result};
use crate::image::catalog::Draft;
use crate::image::change::Change;
use crate::image::clones::CloneTarget;
use crate::image::labels::{LabelEdits, Labels, Selector};
use crate::image::names::{CloneRef, check_snapshot_name};
use crate::image::operation::{Fate, OperationKind, OperationPlan, WaveOutcome};
use crate::image::record::{CloneRecord, OperationId, SnapshotId, SnapshotRecord};
use crate::image::state::State;
use crate::image::switch::{Content, Sealed, Shown};

/// Snapshots to be: one of each clone, all at the same instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSnapshot {
    pub target: CloneTarget,
    pub name: String,
    pub labels: Labels,
}

/// A snapshot and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenSnapshot {
    pub clone: Arc<CloneRecord>,
    pub snapshot: Arc<SnapshotRecord>,
}

/// Which snapshots of a clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotTarget {
    Names(Vec<String>),
    Select(Selector),
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreDone {
    pub operation: OperationId,
    /// As it is now.
    pub clone: Arc<CloneRecord>,
    /// What it showed before.
    pub before: Arc<SnapshotRecord>,
}

impl Fleet {
    /// Take a snapshot of each of the clones, all or none.
    pub async fn snapshot(&self, new: NewSnapshot) -> Result<Vec<TakenSnapshot>> {
        check_snapshot_name(&new.name)?;
        let (name, labels): (Arc<str>, _) = (new.name.into(), Arc::new(new.labels));
        let choose = move |state: &State| new.target.named_or_selected(state);
        let take = move |draft: &mut Draft, clones: &[Arc<CloneRecord>], sealed: &Sealed| {
            let take = |clone: &Arc<CloneRecord>| {
                let snapshot = put_snapshot(draft, clone, &name, &labels, sealed, None)?;
                Ok(TakenSnapshot { clone: clone.clone(), snapshot })
            };
            clones.iter().map(take).collect()
        };
        self.at_one_instant("take snapshots", Freeze::Views, choose, take).await
    }

    /// Let a clone show what it showed when the snapshot was taken. What it shows now is kept in a
    /// snapshot and, for handles into it, as a pin.
    pub async fn restore(&self, clone: &str, snapshot: &str) -> Result<RestoreDone> {
        let (clone, snapshot) = (clone.to_owned(), snapshot.to_owned());
        let choose = move |state: &State| Ok(vec![state.find_clone(&clone)?.clone()]);
        let who = self.who.clone();
        let run = move |draft: &mut Draft, clones: &[Arc<CloneRecord>], sealed: &Sealed| {
            let clone = clones.first().ok_or_else(|| Error::internal("a restore of no clone"))?;
            restore(draft, clone, &snapshot, sealed, &who)
        };
        self.at_one_instant("restore a snapshot", Freeze::ViewsAndPins, choose, run).await
    }

    /// Keep what a clone or a snapshot of it shows in an automatic snapshot, for an operation that reads
    /// it for a while and then removes it.
    pub(in crate::image) async fn hold(&self, source: &CloneRef) -> Result<TakenSnapshot> {
        let source = source.clone();
        let (wanted, freeze) = (source.clone(), Freeze::of(&source));
        let choose = move |state: &State| Ok(vec![state.find_clone(&wanted.clone)?.clone()]);
        let hold = move |draft: &mut Draft, clones: &[Arc<CloneRecord>], sealed: &Sealed| {
            let clone = clones.first().ok_or_else(|| Error::internal("a hold on no clone"))?;
            let operation = OperationId(draft.new_id()?);
            let Some(of) = &source.snapshot else {
                let snapshot = snapshot_before(draft, operation, &[clone], sealed)?.pop();
                let snapshot = snapshot.ok_or_else(|| Error::internal("the snapshot of a hold is not there"))?;
                return Ok(TakenSnapshot { clone: clone.clone(), snapshot });
            };
            let same = SnapshotRecord::clone(draft.find_snapshot(clone, of)?);
            let (id, name): (_, Arc<str>) = (SnapshotId(draft.new_id()?), operation.snapshot_name().into());
            let (created, labels) = (draft.now(), Arc::default());
            let copy = SnapshotRecord { id, name, created, labels, operation: Some(operation), ..same };
            draft.apply(Change::PutSnapshot(copy.clone()))?;
            Ok(TakenSnapshot { clone: clone.clone(), snapshot: Arc::new(copy) })
        };
        self.at_one_instant("hold a clone", freeze, choose, hold).await
    }

    /// Remove snapshots of a clone, all or none; answers what they were.
    pub async fn remove_snapshots(&self, clone: &str, target: SnapshotTarget) -> Result<Vec<Arc<SnapshotRecord>>> {
        let clone = clone.to_owned();
        let removed = self.catalog.transact("remove snapshots", move |draft| {
            let snapshots = target.choose(draft, draft.find_clone(&clone)?)?;
            for snapshot in &snapshots {
                draft.apply(Change::RemoveSnapshot { clone: snapshot.clone, name: snapshot.name.clone() })?;
            }
            Ok(snapshots)
        });
        let snapshots = removed.await?;
        self.release(snapshots.iter().flat_map(|snapshot| &snapshot.layers));
        Ok(snapshots)
    }

    /// Set and remove labels of a snapshot.
    pub async fn label_snapshot(&self, clone: &str, snapshot: &str, edits: LabelEdits) -> Result<TakenSnapshot> {
        let (clone, snapshot) = (clone.to_owned(), snapshot.to_owned());
        let label = move |draft: &mut Draft| {
            let clone = draft.find_clone(&clone)?.clone();
            let former = draft.find_snapshot(&clone, &snapshot)?;
            let labels = Arc::new(edits.apply(&former.labels)?);
            let labelled = SnapshotRecord { labels, ..SnapshotRecord::clone(former) };
            draft.apply(Change::PutSnapshot(labelled))?;
            Ok(TakenSnapshot { snapshot: draft.find_snapshot(&clone, &snapshot)?.clone(), clone })
        };
        self.catalog.transact("label a snapshot", label).await
    }
}

impl SnapshotTarget {
    /// The snapshots of `clone` that are meant, each once.
    pub fn choose(&self, state: &State, clone: &CloneRecord) -> Result<Vec<Arc<SnapshotRecord>>> {
        match self {
            Self::Select(selector) => {
                let all = state.snapshots_of(clone.id);
                Ok(all.filter(|snapshot| selector.matches(&snapshot.labels)).cloned().collect())
            }
            Self::Names(names) => {
                let distinct: std::collections::BTreeSet<_> = names.iter().collect();
                distinct.into_iter().map(|name| state.find_snapshot(clone, name).cloned()).collect()
            }
        }
    }
}

/// Keep what clones show in snapshots named after the operation that is about to change it.
pub(super) fn snapshot_before(
    draft: &mut Draft,
    operation: OperationId,
    clones: &[&Arc<CloneRecord>],
    sealed: &Sealed,
) -> Result<Vec<Arc<SnapshotRecord>>> {
    let (name, labels): (Arc<str>, _) = (operation.snapshot_name().into(), Arc::default());
    clones.iter().map(|clone| put_snapshot(draft, clone, &name, &labels, sealed, Some(operation))).collect()
}

fn put_snapshot(
    draft: &mut Draft,
    clone: &CloneRecord,
    name: &Arc<str>,
    labels: &Arc<Labels>,
    sealed: &Sealed,
    operation: Option<OperationId>,
) -> Result<Arc<SnapshotRecord>> {
    if draft.snapshot(clone.id, name.clone()).is_some() {
        return Err(Error::exists(format!("clone {:?} has a snapshot {name:?} already", clone.name))
            .remedy(format!("choose another name, or remove it: mimeo clone rm-snapshot {} {name}", clone.name)));
    }
    let Content { version, layers, bases } = sealed.content(&clone.view);
    let snapshot = SnapshotRecord {
        id: SnapshotId(draft.new_id()?),
        clone: clone.id,
        name: name.clone(),
        created: draft.now(),
        labels: labels.clone(),
        version,
        layers,
        bases,
        operation,
    };
    draft.apply(Change::PutSnapshot(snapshot))?;
    let taken = draft.snapshot(clone.id, name.clone()).cloned();
    taken.ok_or_else(|| Error::internal(format!("snapshot {name:?} is not there")))
}

fn restore(
    draft: &mut Draft,
    clone: &Arc<CloneRecord>,
    snapshot: &str,
    sealed: &Sealed,
    who: &Arc<str>,
) -> Result<RestoreDone> {
    let snapshot = draft.find_snapshot(clone, snapshot)?.clone();
    let operation = OperationId(draft.new_id()?);
    let mut before = snapshot_before(draft, operation, &[clone], sealed)?;
    switch(draft, &[clone], Shown::Same(snapshot.content()), operation, sealed)?;
    if let Some(staged) = clone.staged.clone().filter(|_| draft.planned(clone.id).is_some()) {
        // Its wave comes all the same.
        draft.apply(Change::Stage { clones: vec![clone.id], staged: Some(staged) })?;
    }
    let before = before.pop().ok_or_else(|| Error::internal("the snapshot before a restore is not there"))?;
    let whole = Whole {
        kind: OperationKind::Restore,
        image: clone.image,
        version: Some(snapshot.version),
        who: who.clone(),
        plan: OperationPlan { waves: vec![vec![clone.id]], ..OperationPlan::default() },
    };
    let (at, fates, from) = (draft.now(), vec![Fate::Restored], vec![clone.view.version]);
    whole.record(draft, operation, WaveOutcome { at, fates, from, whys: Vec::new() })?;
    Ok(RestoreDone { operation, clone: draft.find_clone(&clone.name)?.clone(), before })
}

//! Rollback: every clone that an operation switched shows again what it showed before, private writes
//! included, in one transaction.
//!
//! What a clone with private writes showed is in the snapshot that the operation took; of all others the
//! version is enough. What they show now is kept the same way, so that a rollback is an operation that
//! can be rolled back itself. A clone that something else has switched since is not the operation's any
//! more: it refuses the whole, or is left as it is, as the caller says.

use std::collections::HashMap;
use std::sync::Arc;

use super::operations::{Whole, still_staged};
use super::repoint::{listed, switch};
use super::snapshots::snapshot_before;
use super::{Fleet, Freeze};
use crate::error::{Error, ErrorKind, Result};
use crate::image::catalog::Draft;
use crate::image::change::Change;
use crate::image::operation::{
    Advance, Fate, MAX_WHYS, Next, OperationKind, OperationPlan, OperationRecord, OperationState, WaveOutcome,
    shortened,
};
use crate::image::record::{CloneRecord, ExportId, OperationId, VersionNumber};
use crate::image::state::State;
use crate::image::switch::{Content, Sealed, Shown, ViewSwitch};

/// What a rollback did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackDone {
    pub operation: OperationId,
    pub of: OperationId,
    /// As they are now.
    pub restored: Vec<Arc<CloneRecord>>,
    /// Clones that stay as they are, and why.
    pub left: Vec<(Arc<str>, String)>,
}

impl Fleet {
    /// Undo what an operation did to its clones; at most `max_left` may stay as they are.
    pub async fn rollback(&self, of: OperationId, max_left: usize) -> Result<RollbackDone> {
        let choose = move |state: &State| switched_by(state, of);
        let who = self.who.clone();
        let run = move |draft: &mut Draft, clones: &[Arc<CloneRecord>], sealed: &Sealed| {
            // While this one waited, some may have been activated.
            let ids = |clones: &[Arc<CloneRecord>]| clones.iter().map(|clone| clone.id).collect::<Vec<_>>();
            if ids(&switched_by(draft, of)?) != ids(clones) {
                return Ok(None);
            }
            let operation = draft.find_operation(of)?.clone();
            roll_back(draft, &operation, &who, clones, sealed, max_left).map(Some)
        };
        self.until_at_one_instant("roll back", Freeze::ViewsAndPins, choose, run).await
    }
}

/// The clones of an operation that can be undone, as far as it has switched them.
fn switched_by(state: &State, of: OperationId) -> Result<Vec<Arc<CloneRecord>>> {
    let operation = state.find_operation(of)?;
    check(operation)?;
    let ours = |(id, fate, _): (ExportId, Fate, VersionNumber)| {
        let clone = state.clone_by_id(id)?;
        let switched = fate.switches() || clone.view.operation == Some(of);
        switched.then(|| clone.clone())
    };
    Ok(operation.outcomes_of_clones().filter_map(ours).collect())
}

/// Refuse what still goes on, or has been undone.
fn check(operation: &OperationRecord) -> Result<()> {
    let id = operation.id;
    let (what, remedy) = match &operation.state {
        OperationState::Active => ("goes on".to_owned(), format!("pause it first: mimeo ops pause {id}")),
        OperationState::RolledBack { by, .. } => {
            (format!("was rolled back by {by}"), format!("to undo that, roll {by} back: mimeo rollback {by}"))
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Conflict, format!("operation {id} {what}")).remedy(remedy))
}

fn roll_back(
    draft: &mut Draft,
    of: &OperationRecord,
    who: &Arc<str>,
    clones: &[Arc<CloneRecord>],
    sealed: &Sealed,
    max_left: usize,
) -> Result<RollbackDone> {
    let known: HashMap<_, _> = of.outcomes_of_clones().map(|(id, fate, from)| (id, (fate, from))).collect();
    let (mut back, mut contents, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for clone in clones {
        let content = before(draft, of.id, clone, known.get(&clone.id).copied());
        match content.and_then(|content| with_room(clone, content, sealed)) {
            Ok(content) => {
                back.push(clone);
                contents.push(content);
            }
            Err(why) => left.push((clone, why)),
        }
    }
    if left.len() > max_left {
        return Err(cannot(of.id, &left));
    }
    let operation = OperationId(draft.new_id()?);
    let private: Vec<_> = back.iter().copied().filter(|clone| sealed.is_private(&clone.view)).collect();
    snapshot_before(draft, operation, &private, sealed)?;
    switch(draft, &back, Shown::Each(contents), operation, sealed)?;
    withdraw(draft, of)?;
    let restored = |clone: &Arc<CloneRecord>| match sealed.is_private(&clone.view) {
        true => Fate::Restored,
        false => Fate::RestoredClean,
    };
    let back = back.into_iter().map(|clone| (clone, restored(clone)));
    let fates: Vec<_> = back.chain(left.iter().map(|(clone, _)| (*clone, Fate::Conflicts))).collect();
    record(draft, operation, of, who, &fates, &left)?;
    let back = fates.iter().filter(|(_, fate)| fate.switches());
    let restored = back.filter_map(|(clone, _)| draft.clone_by_id(clone.id).cloned()).collect();
    let left = left.into_iter().map(|(clone, why)| (clone.name.clone(), why)).collect();
    Ok(RollbackDone { operation, of: of.id, restored, left })
}

/// What a clone showed before the operation, or why nobody can tell.
fn before(
    state: &State,
    of: OperationId,
    clone: &CloneRecord,
    known: Option<(Fate, VersionNumber)>,
) -> Result<Content, String> {
    if clone.view.operation != Some(of) {
        let by = clone.view.operation.map_or("something else".into(), |by| by.to_string());
        return Err(format!("{by} has switched it since"));
    }
    if let Some(other) = state.planned(clone.id) {
        return Err(format!("it is in a wave still to come of {other}"));
    }
    if let Some(snapshot) = state.snapshot(clone.id, of.snapshot_name().into()) {
        return Ok(snapshot.content());
    }
    // Its snapshot was removed, or it had no private writes: the pin knows.
    if let Some(pin) = clone.pins.iter().find(|pin| pin.operation == of) {
        let mut layers = pin.view.layers.clone();
        layers.extend(pin.sealed);
        return Ok(Content { version: pin.view.version, layers, bases: pin.view.bases.clone() });
    }
    match known.filter(|(fate, _)| fate.was_clean()) {
        Some((_, from)) if state.version(clone.image, from).is_some() => Ok(Content::of_version(from)),
        Some((_, from)) => Err(format!("v{from}, which it showed, was removed")),
        None => Err(format!("its snapshot {} was removed", of.snapshot_name())),
    }
}

fn with_room(clone: &Arc<CloneRecord>, content: Content, sealed: &Sealed) -> Result<Content, String> {
    if clone.is_nearly_full() {
        let switch = ViewSwitch::of_one(clone, Shown::Each(vec![content.clone()]), sealed);
        clone.check_switch(&switch, 0).map_err(|error| error.to_string())?;
    }
    Ok(content)
}

fn cannot(of: OperationId, left: &[(&Arc<CloneRecord>, String)]) -> Error {
    let names = listed(left, |(clone, why)| format!("{:?} ({why})", clone.name));
    Error::new(
        ErrorKind::Conflict,
        format!("nothing was rolled back: not all of operation {of} can be undone: {names}"),
    )
    .remedy("roll back what came later first, or leave these clones as they are: --max-failures N")
}

/// What the operation has staged does not happen any more, and nobody lags behind it.
fn withdraw(draft: &mut Draft, of: &OperationRecord) -> Result<()> {
    let clones = still_staged(draft, of);
    if !clones.is_empty() {
        draft.apply(Change::Stage { clones, staged: None })?;
    }
    let lags = |id: &ExportId| draft.clone_by_id(*id).and_then(|c| c.lagging).is_some_and(|l| l.operation == of.id);
    let clones: Vec<_> = of.plan.waves.iter().flatten().copied().filter(lags).collect();
    if clones.is_empty() { Ok(()) } else { draft.apply(Change::SetLagging { clones, lagging: None }) }
}

fn record(
    draft: &mut Draft,
    operation: OperationId,
    of: &OperationRecord,
    who: &Arc<str>,
    fates: &[(&Arc<CloneRecord>, Fate)],
    left: &[(&Arc<CloneRecord>, String)],
) -> Result<()> {
    let done = WaveOutcome {
        at: draft.now(),
        fates: fates.iter().map(|(_, fate)| *fate).collect(),
        from: fates.iter().map(|(clone, _)| clone.view.version).collect(),
        whys: left.iter().take(MAX_WHYS).map(|(clone, why)| (clone.id, shortened(why))).collect(),
    };
    let whole = Whole {
        kind: OperationKind::Rollback { of: of.id },
        image: of.image,
        version: None,
        who: who.clone(),
        plan: OperationPlan {
            waves: vec![fates.iter().map(|(clone, _)| clone.id).collect()],
            ..OperationPlan::default()
        },
    };
    whole.record(draft, operation, done)?;
    draft.apply(Change::Advance(Advance {
        operation: of.id,
        at: draft.now(),
        state: OperationState::RolledBack { by: operation, why: of.why().cloned() },
        next: Next::Nothing,
        outcome: None,
    }))
}

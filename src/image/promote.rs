//! Promote: what a clone or a snapshot shows becomes a version of an image.
//!
//! Owns the order of the steps; the walk of the view is in `promote/walk.rs`, all else is what an
//! import does (`import`): the staged nodes, the rules of identity, the manifest, one change set that
//! publishes. The base of identity is the version under the clone, if the image is the clone's own;
//! for another image nothing is kept.
//!
//! Invariants: all or nothing; the version is what the clone showed at one instant, held by an
//! automatic snapshot while it is read, which goes with the change set that publishes. Data that is the
//! image's is not read again.
//!
//! Failure story: as an import's; a crash leaves the automatic snapshot, for the admin to remove.

mod walk;

use std::sync::Arc;

use super::import::publish::{self, VersionDraft};
use super::import::{Base, Built, ImportContext, ImportDone, Progress, finish};
use super::{Change, CloneRef, Draft, Fleet, Labels, SnapshotTarget, TakenSnapshot, VersionRecord, check_name};
use crate::chunk::Session;
use crate::error::{Error, ErrorKind, Result};

/// What is to be promoted.
#[derive(Clone, Debug)]
pub struct PromoteRequest {
    pub source: CloneRef,
    /// Made if there is none of that name.
    pub image: String,
    pub labels: Labels,
    pub author: String,
}

/// Make what `request.source` shows now the next version of `request.image`.
pub async fn run_promote(
    context: &ImportContext,
    fleet: &Fleet,
    request: PromoteRequest,
    progress: Arc<Progress>,
) -> Result<ImportDone> {
    check_name("image", &request.image)?;
    let _turn = context.running.enter(&request.image)?;
    let held = fleet.hold(&request.source).await?;
    let outcome = promote(context, fleet, request, &held, progress).await;
    match &outcome {
        // The hold went with the change set.
        Ok(_) => fleet.release(held.snapshot.layers.iter()),
        Err(_) => let_go(fleet, &held).await,
    }
    outcome
}

async fn let_go(fleet: &Fleet, held: &TakenSnapshot) {
    let TakenSnapshot { clone, snapshot } = held;
    let name = SnapshotTarget::Names(vec![snapshot.name.to_string()]);
    match fleet.remove_snapshots(&clone.name, name).await {
        // The clone was removed, and its snapshots with it.
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(%error, "snapshot {} of clone {} stays, and may be removed", snapshot.name, clone.name);
        }
        _ => {}
    }
}

async fn promote(
    context: &ImportContext,
    fleet: &Fleet,
    request: PromoteRequest,
    held: &TakenSnapshot,
    progress: Arc<Progress>,
) -> Result<ImportDone> {
    let state = context.catalog.state();
    let shown = state.version(held.clone.image, held.snapshot.version);
    let shown = shown.ok_or_else(|| Error::internal("a snapshot without a version"))?.clone();
    let own = state.image_named(&request.image).is_some_and(|image| image.id == held.clone.image);
    let base = Arc::new(Base::new(context, &state, &request.image, own.then(|| shown.clone()), false));
    let session = context.chunks.begin()?;
    let work = {
        let (context, base, progress) = (context.clone(), base.clone(), progress.clone());
        let (overlays, layers) = (fleet.overlays().clone(), held.snapshot.layers.clone());
        move || {
            let view =
                walk::View { chunks: &context.chunks, overlays: &overlays, manifest: shown.manifest, layers: &layers };
            build(&context, &view, &base, session, &progress)
        }
    };
    let built = tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("the promotion's thread failed").because(e))??;
    progress.check()?;
    progress.enter(2);
    let bytes_added = built.session.commit().await?.bytes_stored;
    let draft = VersionDraft {
        image: request.image.clone(),
        source: format!("clone {}", request.source),
        author: request.author,
        labels: request.labels,
        consistency: "crash".into(),
        base,
        manifest: built.manifest,
        stats: built.stats,
        bytes_added,
    };
    let held = held.clone();
    let version = context.catalog.transact("promote", move |state| publish(state, &draft, &held)).await?;
    Ok(ImportDone { image: request.image, version, stats: built.stats, kept: built.kept, mounts_skipped: 0 })
}

/// Both phases, on a thread that may block.
fn build(
    context: &ImportContext,
    view: &walk::View<'_>,
    base: &Base,
    session: Session,
    progress: &Progress,
) -> Result<Built> {
    let nodes = walk::Walk::new(view, &session, progress).run()?;
    progress.enter(1);
    let finished = finish::finish(context, base, &session, nodes, progress)?;
    Ok(Built { session, manifest: finished.manifest, stats: finished.stats, kept: finished.kept, mounts_skipped: 0 })
}

/// The version, if what it was read from was held to the end; and the hold goes.
fn publish(state: &mut Draft, draft: &VersionDraft, held: &TakenSnapshot) -> Result<Arc<VersionRecord>> {
    let TakenSnapshot { clone, snapshot } = held;
    if state.snapshot(clone.id, snapshot.name.clone()).is_none_or(|now| now.id != snapshot.id) {
        return Err(Error::new(ErrorKind::Conflict, format!("clone {:?} went while it was promoted", clone.name))
            .remedy("remove neither the clone nor its automatic snapshots meanwhile"));
    }
    let version = publish::apply(draft, state)?;
    state.apply(Change::RemoveSnapshot { clone: clone.id, name: snapshot.name.clone() })?;
    Ok(version)
}

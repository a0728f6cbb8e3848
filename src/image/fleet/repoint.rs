//! Repoint: one transaction that switches the views of a set of clones to another version.
//!
//! Whatever the number of clones, it is one change and one key in the log, durable before it is
//! answered and visible at one instant. What clones with private writes showed before is in snapshots
//! named after the operation, for a rollback.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;

use super::keep::{Kept, Purpose, ToKeep, some_at_once};
use super::operations::{Part, Step};
use super::snapshots::snapshot_before;
use super::{FLATTEN_ABOVE, Fleet, Freeze, Instant};
use crate::env::Time;
use crate::error::{Error, ErrorKind, Result};
use crate::image::catalog::Draft;
use crate::image::change::Change;
use crate::image::clones::CloneTarget;
use crate::image::names::VersionRef;
use crate::image::operation::Fate;
use crate::image::policy::{Activation, OnConflict, SwitchPolicy, Writes};
use crate::image::record::{CloneRecord, ExportId, Lagging, OperationId, VersionNumber, VersionRecord};
use crate::image::share::Percent;
use crate::image::state::State;
use crate::image::switch::{Content, Sealed, Shown, ViewSwitch};
use crate::overlay::rebase::Conflict;

/// Clones that a refusal names.
const MAX_NAMED: usize = 5;

/// A repoint to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepointPlan {
    /// Whose clones. `All` and `Select` mean clones of this image only.
    pub image: String,
    /// A version of that image.
    pub to: VersionRef,
    pub target: CloneTarget,
    /// Only this share of them.
    pub percent: Option<Percent>,
    /// What it decides for all its clones.
    pub policy: SwitchPolicy,
    /// Clones that may stay because of conflicts, marked as lagging. If there are more, nothing is switched.
    pub max_failures: usize,
    /// Only clones for which the switch that this operation staged still waits.
    pub staged_by: Option<OperationId>,
}

impl RepointPlan {
    /// With nothing decided for all clones; one conflict and nothing is switched.
    pub fn new(image: &str, to: VersionRef, target: CloneTarget) -> Self {
        let (policy, image) = (SwitchPolicy::default(), image.to_owned());
        Self { image, to, target, percent: None, policy, max_failures: 0, staged_by: None }
    }

    fn means(&self, clone: &CloneRecord) -> bool {
        let by = || clone.staged.as_ref().map(|staged| staged.operation);
        self.staged_by.is_none() || self.staged_by == by()
    }

    #[must_use]
    pub fn with(self, policy: impl Into<SwitchPolicy>) -> Self {
        Self { policy: policy.into(), ..self }
    }
}

/// One clone of a repoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneOutcome {
    pub id: ExportId,
    pub name: Arc<str>,
    /// What it showed before.
    pub from: VersionNumber,
    pub fate: Fate,
    /// What both sides changed, also where a side won. The first by path.
    pub conflicts: Vec<Conflict>,
    pub conflicts_total: u64,
    pub conflict: OnConflict,
    /// Why its private writes cannot go along, whoever wins.
    pub why: Option<Arc<str>>,
    /// It was written while the repoint was made ready, or moved since its dry run, and planned again.
    pub moved: bool,
}

impl CloneOutcome {
    /// Why it stays: what stands against it, or the first conflict, and how many there are.
    pub fn first_conflict(&self) -> Option<String> {
        if let Some(why) = &self.why {
            return Some(why.to_string());
        }
        let Conflict { path, clone, image, .. } = self.conflicts.first()?;
        let more = match self.conflicts_total {
            0 | 1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        Some(format!("/{}: {clone} in the clone, {image} in the image{more}", path.escape_ascii()))
    }
}

/// What a repoint does, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepointOutcome {
    pub version: Arc<VersionRecord>,
    pub clones: Vec<CloneOutcome>,
}

impl RepointOutcome {
    pub fn count(&self, fates: &[Fate]) -> usize {
        self.clones.iter().filter(|clone| fates.contains(&clone.fate)).count()
    }

    /// Clones that show something else afterwards.
    pub fn switched(&self) -> usize {
        self.clones.iter().filter(|clone| clone.fate.switches()).count()
    }

    /// The clones that stay because of conflicts, taken out.
    fn take_conflicts(&mut self) -> HashMap<ExportId, CloneOutcome> {
        let conflict = self.clones.extract_if(.., |clone| clone.fate == Fate::Conflicts);
        conflict.map(|clone| (clone.id, clone)).collect()
    }

    /// Refuse what the plan says must not happen.
    fn check(&self, plan: &RepointPlan) -> Result<()> {
        let refused: Vec<_> = self.clones.iter().filter(|clone| clone.fate == Fate::Conflicts).collect();
        if refused.len() <= plan.max_failures { Ok(()) } else { Err(conflicts(&refused)) }
    }
}

/// What a repoint did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepointDone {
    pub operation: OperationId,
    pub at: Time,
    pub outcome: RepointOutcome,
    /// Clones whose switch goes on waiting.
    pub(super) left: Vec<LeftOut>,
}

/// A clone that was to be switched at its mount, and was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LeftOut {
    Used(ExportId),
    Conflicts(CloneOutcome),
}

impl LeftOut {
    pub fn id(&self) -> ExportId {
        match self {
            Self::Used(id) => *id,
            Self::Conflicts(clone) => clone.id,
        }
    }

    /// Why the clone of this name was left out.
    pub fn error(&self, name: &str) -> Error {
        let Self::Conflicts(clone) = self else {
            let what = format!("clone {name:?} is used: its switch goes on waiting");
            return Error::new(ErrorKind::Conflict, what).remedy(format!(
                "see who uses it: mimeo clone show {name}; or switch it all the same: mimeo clone activate {name}"
            ));
        };
        conflicts(&[clone])
    }
}

impl Fleet {
    /// Switch clones to a version, all or none.
    pub async fn repoint(&self, plan: RepointPlan) -> Result<RepointDone> {
        let done = self.repoint_part(plan.clone(), Part::Whole { who: self.who.clone() }).await?;
        self.dry_runs.done(&plan);
        Ok(done)
    }

    /// Switch the clones of a part of an operation, and record it there.
    pub(super) async fn repoint_part(&self, plan: RepointPlan, part: Part) -> Result<RepointDone> {
        let plan = Arc::new(plan);
        let attempt = move |fleet: Self| {
            let (plan, part) = (plan.clone(), part.clone());
            async move {
                let Ready { state, clones, version, policies, keep, mut kept } =
                    Ready::make(&fleet, &plan, &part, Purpose::Switch).await?;
                let planned = version.clone();
                let (looker, planned_for, part_of) = (fleet.clone(), plan.clone(), part.clone());
                let look = |instant: Arc<Instant>| {
                    let (fleet, plan, part) = (looker, planned_for, part_of);
                    async move {
                        kept.look(&fleet, &state, &version, &keep, &instant, Purpose::Switch).await?;
                        kept.moved.extend(fleet.dry_runs.moved(&plan, &part, &instant));
                        Ok(kept)
                    }
                };
                let run = move |draft: &mut Draft, clones: &[_], sealed: &_, kept: &_| match is_as_planned(
                    draft, &plan, &planned, clones, &policies,
                ) {
                    true => run(draft, &plan, &part, clones, sealed, kept).map(Some),
                    false => Ok(None),
                };
                fleet.attempt("repoint", Freeze::ViewsAndPins, clones, look, run).await
            }
        };
        self.going_on("repoint", attempt).await
    }
}

/// A repoint of which everything is ready that takes long.
pub(super) struct Ready {
    pub state: Arc<State>,
    pub clones: Vec<Arc<CloneRecord>>,
    pub version: Arc<VersionRecord>,
    /// What counts for each of the clones.
    policies: Vec<SwitchPolicy>,
    pub keep: Vec<ToKeep>,
    pub kept: Kept,
}

impl Ready {
    pub async fn make(fleet: &Fleet, plan: &RepointPlan, part: &Part, purpose: Purpose) -> Result<Self> {
        // For a prediction too: it would be of other layers.
        let chosen = part.choose(&fleet.catalog.state(), plan)?;
        let deep = chosen.into_iter().filter(|clone| clone.view.layers.len() > FLATTEN_ABOVE);
        let flatten = deep.map(|clone| async move { fleet.flatten(&clone).await }.boxed());
        some_at_once(flatten.collect()).await.into_iter().try_for_each(|flat| flat.map(drop))?;
        let state = fleet.catalog.state();
        let clones = part.choose(&state, plan)?;
        let version = state.find_version(&plan.to)?.clone();
        let policies: Vec<_> = clones.iter().map(|clone| policy_of(&state, plan, clone)).collect();
        let keep = |(clone, policy): (&Arc<CloneRecord>, &SwitchPolicy)| {
            let preserve = match policy.writes() {
                _ if policy.activation() != Activation::Live => return None,
                Writes::Preserve(paths) => Some(paths),
                Writes::Keep if clone.view.version != version.number => None,
                Writes::Keep | Writes::Discard | Writes::Stay => return None,
            };
            Some(ToKeep { clone: clone.clone(), conflict: policy.conflict(), preserve })
        };
        let keep: Vec<_> = clones.iter().zip(&policies).filter_map(keep).collect();
        let kept = Kept::rounds(fleet, &state, &version, &keep, purpose).await?;
        Ok(Self { state, clones, version, policies, keep, kept })
    }
}

/// Whether the version and the policies that everything was made ready for are still meant.
fn is_as_planned(
    state: &State,
    plan: &RepointPlan,
    version: &VersionRecord,
    clones: &[Arc<CloneRecord>],
    policies: &[SwitchPolicy],
) -> bool {
    let same_version = state.find_version(&plan.to).is_ok_and(|now| now.number == version.number);
    same_version && clones.iter().zip(policies).all(|(clone, policy)| policy_of(state, plan, clone) == *policy)
}

/// What counts for a clone: what the plan says, else the clone, else its image.
fn policy_of(state: &State, plan: &RepointPlan, clone: &CloneRecord) -> SwitchPolicy {
    let of_clone = plan.policy.or(&clone.policy);
    state.image(clone.image).map_or(of_clone.clone(), |image| of_clone.or(&image.policy))
}

/// Whether private writes go, also where the version is shown already.
fn drops(writes: &Writes) -> bool {
    matches!(writes, Writes::Discard | Writes::Preserve(_))
}

/// Whether a clone of which this counts is switched only when it is mounted.
fn waits(policy: &SwitchPolicy, nothing_to_do: bool) -> bool {
    policy.activation() == Activation::OnMount && !nothing_to_do
}

/// The clones that are meant; none is an error.
pub(super) fn choose(state: &State, plan: &RepointPlan) -> Result<Vec<Arc<CloneRecord>>> {
    let image = state.find_image(&plan.image)?;
    if plan.to.image != plan.image {
        return Err(Error::invalid(format!("{} is not a version of image {:?}", plan.to, plan.image))
            .remedy("clones can be repointed only to versions of their own image"));
    }
    state.find_version(&plan.to)?;
    let of_image = || state.clones_of(image.id);
    let mut chosen: Vec<_> = match &plan.target {
        CloneTarget::All => of_image().cloned().collect(),
        CloneTarget::Select(selector) => of_image().filter(|c| selector.matches(&c.labels)).cloned().collect(),
        CloneTarget::Names(_) => plan.target.choose(state)?,
    };
    if let Some(foreign) = chosen.iter().find(|clone| clone.image != image.id) {
        return Err(Error::invalid(format!("clone {:?} is not a clone of image {:?}", foreign.name, image.name))
            .remedy("name clones of one image only"));
    }
    if chosen.is_empty() {
        let which = match &plan.target {
            CloneTarget::Select(selector) => format!(" that matches {:?}", selector.to_string()),
            _ => String::new(),
        };
        return Err(
            Error::not_found(format!("image {:?} has no clone{which}", image.name)).remedy("see `mimeo clone ls`")
        );
    }
    if let Some(percent) = plan.percent {
        chosen = percent.of(chosen);
    }
    chosen.retain(|clone| plan.means(clone));
    Ok(chosen)
}

/// What becomes of each clone.
pub(super) fn outcome(
    state: &State,
    plan: &RepointPlan,
    version: &Arc<VersionRecord>,
    clones: &[Arc<CloneRecord>],
    sealed: &Sealed,
    kept: &Kept,
) -> Result<RepointOutcome> {
    let one = |clone: &Arc<CloneRecord>| {
        let policy = policy_of(state, plan, clone);
        let private = sealed.is_private(&clone.view);
        let known = kept.get(clone.id).filter(|_| private);
        let why = kept.refused(clone.id).filter(|_| private);
        let stops = why.is_some() || known.is_some_and(|known| known.stops(policy.conflict()));
        let shown = clone.view.version == version.number;
        let fate = match (private, policy.writes()) {
            (_, ref writes) if waits(&policy, shown && !(private && drops(writes))) => Fate::Staged,
            (true, Writes::Discard) => Fate::Discarded,
            (true, Writes::Preserve(_)) if !stops => Fate::Preserved,
            (true, Writes::Preserve(_)) if why.is_some() => Fate::Conflicts,
            (_, _) if shown => Fate::Unchanged,
            (false, _) => Fate::Switched,
            (true, Writes::Stay) => Fate::Stays,
            (true, _) if stops => Fate::Conflicts,
            (true, _) => Fate::Kept,
        };
        if matches!(fate, Fate::Kept | Fate::Preserved) && known.is_none() {
            return Err(Error::internal(format!("clone {:?} was not looked at", clone.name)));
        }
        let full = no_room(clone, fate, version.number, sealed, kept);
        let (fate, why) = if full.is_some() { (Fate::Conflicts, full.as_ref()) } else { (fate, why) };
        let conflicts = known.map_or((Vec::new(), 0), |known| (known.fit.conflicts.clone(), known.fit.conflicts_total));
        Ok(CloneOutcome {
            id: clone.id,
            name: clone.name.clone(),
            from: clone.view.version,
            fate,
            conflicts: conflicts.0,
            conflicts_total: conflicts.1,
            conflict: policy.conflict(),
            why: why.filter(|_| fate == Fate::Conflicts).cloned(),
            moved: kept.moved.contains(&clone.id),
        })
    };
    Ok(RepointOutcome { version: version.clone(), clones: clones.iter().map(one).collect::<Result<_>>()? })
}

/// Why a clone has no room for what is to become of it.
fn no_room(
    clone: &Arc<CloneRecord>,
    fate: Fate,
    version: VersionNumber,
    sealed: &Sealed,
    kept: &Kept,
) -> Option<Arc<str>> {
    if !clone.is_nearly_full() {
        return None;
    }
    let shown = match fate {
        Fate::Switched | Fate::Discarded => Shown::Same(Content::of_version(version)),
        Fate::Kept => Shown::Kept { version, fitted: kept.fittings(std::iter::once(clone)) },
        Fate::Preserved => Shown::Preserved(kept.get(clone.id)?.preserved(clone).into_iter().collect()),
        _ => return None,
    };
    clone.check_switch(&ViewSwitch::of_one(clone, shown, sealed), 0).err().map(|error| error.to_string().into())
}

/// The first of a list of clones, and how many more there are.
pub(super) fn listed<T>(clones: &[T], told: impl Fn(&T) -> String) -> String {
    let names: Vec<_> = clones.iter().take(MAX_NAMED).map(told).collect();
    match clones.len().saturating_sub(MAX_NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} clones more", names.join(", ")),
    }
}

fn conflicts(clones: &[&CloneOutcome]) -> Error {
    let told = |clone: &&CloneOutcome| match clone.first_conflict() {
        Some(first) => format!("{:?} ({first})", clone.name),
        None => format!("{:?}", clone.name),
    };
    let names = listed(clones, told);
    let what = format!("nothing was switched: private writes conflict in {names}");
    Error::new(ErrorKind::Conflict, what).remedy(
        "see them all with --dry-run; let a side win (--conflict clone-wins or image-wins), discard the writes after an \
         automatic snapshot (--writes discard), or leave these clones as they are (--writes stay)",
    )
}

/// Switch the clones of a part of an operation.
pub(super) fn run(
    draft: &mut Draft,
    plan: &RepointPlan,
    part: &Part,
    clones: &[Arc<CloneRecord>],
    sealed: &Sealed,
    kept: &Kept,
) -> Result<RepointDone> {
    let version = draft.find_version(&plan.to)?.clone();
    let mut clones: Vec<_> = clones.iter().filter(|clone| plan.means(clone)).cloned().collect();
    let mut left: Vec<_> =
        clones.extract_if(.., |clone| part.is_used(clone.id)).map(|clone| LeftOut::Used(clone.id)).collect();
    let mut outcome = outcome(draft, plan, &version, &clones, sealed, kept)?;
    if part.leaves_out() {
        let conflict = outcome.take_conflicts();
        clones.retain(|clone| !conflict.contains_key(&clone.id));
        left.extend(conflict.into_values().map(LeftOut::Conflicts));
    }
    outcome.check(plan)?;
    let step = Step::begin(draft, part, &clones)?;
    let (operation, at) = (step.operation, draft.now());
    let with = |fates: &[Fate]| -> Vec<&Arc<CloneRecord>> {
        let meant = outcome.clones.iter().zip(&clones).filter(|(clone, _)| fates.contains(&clone.fate));
        meant.map(|(_, clone)| clone).collect()
    };
    snapshot_before(draft, operation, &with(&[Fate::Kept, Fate::Discarded, Fate::Preserved]), sealed)?;
    let same = Shown::Same(Content::of_version(version.number));
    switch(draft, &with(&[Fate::Switched, Fate::Discarded]), same, operation, sealed)?;
    let keeping = with(&[Fate::Kept]);
    let fitted = kept.fittings(keeping.iter().copied());
    switch(draft, &keeping, Shown::Kept { version: version.number, fitted }, operation, sealed)?;
    let preserving = with(&[Fate::Preserved]);
    let content = |clone: &&Arc<CloneRecord>| kept.get(clone.id).and_then(|known| known.preserved(clone));
    let contents: Option<Vec<_>> = preserving.iter().map(content).collect();
    let contents = contents.ok_or_else(|| Error::internal("nothing was preserved of a clone"))?;
    switch(draft, &preserving, Shown::Preserved(contents), operation, sealed)?;
    let settled = [Fate::Unchanged, Fate::Switched, Fate::Kept, Fate::Discarded, Fate::Preserved];
    let settled = with(&settled).into_iter().filter(|clone| clone.lagging.is_some());
    set_lagging(draft, settled.map(|clone| clone.id).collect(), None)?;
    let lagging = Lagging { version: version.number, since: at, operation };
    let staying = with(&[Fate::Stays, Fate::Conflicts]);
    set_lagging(draft, staying.iter().map(|clone| clone.id).collect(), Some(lagging))?;
    step.finish(draft, plan, &outcome)?;
    Ok(RepointDone { operation, at, outcome, left })
}

/// Switch clones, if there are any.
pub(super) fn switch(
    draft: &mut Draft,
    clones: &[&Arc<CloneRecord>],
    shown: Shown,
    operation: OperationId,
    sealed: &Sealed,
) -> Result<()> {
    if clones.is_empty() {
        return Ok(());
    }
    let switch = ViewSwitch {
        clones: clones.iter().map(|clone| clone.id).collect(),
        shown,
        at: draft.now(),
        operation,
        first_overlay: draft.new_ids(clones.len() as u64)?,
        sealed: sealed.of(clones),
    };
    clones.iter().enumerate().try_for_each(|(at, clone)| clone.check_switch(&switch, at))?;
    draft.apply(Change::Switch(switch))
}

fn set_lagging(draft: &mut Draft, clones: Vec<ExportId>, lagging: Option<Lagging>) -> Result<()> {
    if clones.is_empty() { Ok(()) } else { draft.apply(Change::SetLagging { clones, lagging }) }
}

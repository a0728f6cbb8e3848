//! Repoint: one transaction that switches the views of a set of clones to another version.
//!
//! Whatever the number of clones, it is one change and one key in the log, durable before it is
//! answered and visible at one instant. Rollback is a repoint to the former version; private writes
//! that were discarded are in the snapshot that the discard took, for a restore.

use std::sync::Arc;

use super::snapshots::snapshot_before;
use super::{Fleet, Freeze};
use crate::env::Time;
use crate::error::{Error, ErrorKind, Result};
use crate::image::catalog::Draft;
use crate::image::change::Change;
use crate::image::clones::CloneTarget;
use crate::image::names::VersionRef;
use crate::image::policy::{SwitchPolicy, Writes};
use crate::image::record::{CloneRecord, ExportId, Lagging, OperationId, VersionRecord};
use crate::image::state::State;
use crate::image::switch::{Content, Sealed, Shown, ViewSwitch};

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
    /// What it decides for all its clones.
    pub policy: SwitchPolicy,
}

/// What a repoint did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepointDone {
    pub operation: OperationId,
    /// Clones that show something else now.
    pub switched: usize,
    /// Of these, those whose private writes were discarded; each has a snapshot of before.
    pub discarded: usize,
    /// Clones that stayed because of their private writes.
    pub lagging: usize,
    /// Clones that showed it already.
    pub unchanged: usize,
    pub version: Arc<VersionRecord>,
    pub at: Time,
}

impl Fleet {
    /// Switch clones to a version, all or none.
    pub async fn repoint(&self, plan: RepointPlan) -> Result<RepointDone> {
        self.repoint_those(plan, |_| true).await
    }

    /// The same with those only that are still `meant` when it takes effect.
    pub(super) async fn repoint_those(
        &self,
        plan: RepointPlan,
        meant: impl Fn(&CloneRecord) -> bool + Copy + Send + Sync + 'static,
    ) -> Result<RepointDone> {
        let plan = Arc::new(plan);
        let planned = plan.clone();
        let choose = move |state: &State| Ok(only(choose(state, &planned)?, meant));
        let run = move |draft: &mut Draft, clones: &[Arc<CloneRecord>], sealed: &_| {
            run(draft, &plan, &only(clones.to_vec(), meant), sealed)
        };
        self.at_one_instant("repoint", Freeze::ViewsAndPins, choose, run).await
    }
}

fn only(clones: Vec<Arc<CloneRecord>>, meant: impl Fn(&CloneRecord) -> bool) -> Vec<Arc<CloneRecord>> {
    clones.into_iter().filter(|clone| meant(clone)).collect()
}

/// The clones that are meant; none is an error.
fn choose(state: &State, plan: &RepointPlan) -> Result<Vec<Arc<CloneRecord>>> {
    let image = state.find_image(&plan.image)?;
    if plan.to.image != plan.image {
        return Err(Error::invalid(format!("{} is not a version of image {:?}", plan.to, plan.image))
            .remedy("clones can be repointed only to versions of their own image"));
    }
    state.find_version(&plan.to)?;
    let of_image = || state.clones_of(image.id);
    let chosen: Vec<_> = match &plan.target {
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
    Ok(chosen)
}

/// The chosen clones, by what is done with them.
#[derive(Default)]
struct Sorted<'a> {
    switched: Vec<&'a Arc<CloneRecord>>,
    /// Of those that are switched.
    discarded: Vec<&'a Arc<CloneRecord>>,
    staying: Vec<&'a Arc<CloneRecord>>,
    unchanged: Vec<&'a Arc<CloneRecord>>,
}

impl<'a> Sorted<'a> {
    fn new(clones: &'a [Arc<CloneRecord>], version: &VersionRecord, writes: &Writes, sealed: &Sealed) -> Result<Self> {
        let (mut sorted, mut refused) = (Self::default(), Vec::new());
        for clone in clones {
            let shown = clone.view.version == version.number;
            match (sealed.is_private(&clone.view), writes) {
                (true, Writes::Discard) => {
                    sorted.switched.push(clone);
                    sorted.discarded.push(clone);
                }
                (_, _) if shown => sorted.unchanged.push(clone),
                (false, _) => sorted.switched.push(clone),
                (true, Writes::Stay) => sorted.staying.push(clone),
                (true, Writes::Keep | Writes::Preserve(_)) => refused.push(clone),
            }
        }
        if refused.is_empty() { Ok(sorted) } else { Err(have_writes(&refused)) }
    }
}

fn have_writes(clones: &[&Arc<CloneRecord>]) -> Error {
    let names: Vec<_> = clones.iter().take(MAX_NAMED).map(|clone| format!("{:?}", clone.name)).collect();
    let more = match clones.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = format!("nothing was switched: there are private writes in {}{more}", names.join(", "));
    Error::new(ErrorKind::Conflict, what).remedy(
        "discard them after an automatic snapshot (--writes discard), or leave these clones as they are (--writes stay)",
    )
}

fn run(draft: &mut Draft, plan: &RepointPlan, clones: &[Arc<CloneRecord>], sealed: &Sealed) -> Result<RepointDone> {
    let version = draft.find_version(&plan.to)?.clone();
    let sorted = Sorted::new(clones, &version, &plan.policy.writes(), sealed)?;
    let (operation, at) = (OperationId(draft.new_id()?), draft.now());
    if !sorted.switched.is_empty() {
        let switch = ViewSwitch {
            clones: sorted.switched.iter().map(|clone| clone.id).collect(),
            shown: Shown::Same(Content::of_version(version.number)),
            at,
            operation,
            first_overlay: draft.new_ids(sorted.switched.len() as u64)?,
            sealed: sealed.clone(),
        };
        sorted.switched.iter().enumerate().try_for_each(|(at, clone)| clone.check_switch(&switch, at))?;
        snapshot_before(draft, operation, &sorted.discarded, sealed)?;
        draft.apply(Change::Switch(switch))?;
    }
    let settled = sorted.switched.iter().chain(&sorted.unchanged).filter(|clone| clone.lagging.is_some());
    set_lagging(draft, settled.map(|clone| clone.id).collect(), None)?;
    let lagging = Lagging { version: version.number, since: at, operation };
    set_lagging(draft, sorted.staying.iter().map(|clone| clone.id).collect(), Some(lagging))?;
    Ok(RepointDone {
        operation,
        switched: sorted.switched.len(),
        discarded: sorted.discarded.len(),
        lagging: sorted.staying.len(),
        unchanged: sorted.unchanged.len(),
        version,
        at,
    })
}

fn set_lagging(draft: &mut Draft, clones: Vec<ExportId>, lagging: Option<Lagging>) -> Result<()> {
    if clones.is_empty() { Ok(()) } else { draft.apply(Change::SetLagging { clones, lagging }) }
}

//! What one does with clones that needs no look at what they hold.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::catalog::{Catalog, Draft};
use super::change::Change;
use super::labels::{LabelEdits, Labels, Selector};
use super::names::{VersionRef, check_count, check_name};
use super::policy::{SwitchEdits, SwitchPolicy};
use super::record::{CloneRecord, ExportId, ExportOverrides, Squash, VersionRecord, View};
use super::state::State;
use crate::error::{Error, Result};
use crate::overlay::OverlayId;

/// Networks that one clone may name.
pub const MAX_NETWORKS: usize = 64;

/// Clones to be: all of them or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewClones {
    pub version: VersionRef,
    /// At most [`MAX_CLONES_PER_CALL`](super::names::MAX_CLONES_PER_CALL).
    pub names: Vec<String>,
    pub labels: Labels,
}

/// Which clones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloneTarget {
    All,
    Select(Selector),
    Names(Vec<String>),
}

impl CloneTarget {
    /// The clones that are meant: of `Names` each once, in the order given, the first unknown one is
    /// an error; else those that match, sorted by name, which may be none.
    pub fn choose(&self, state: &State) -> Result<Vec<Arc<CloneRecord>>> {
        match self {
            Self::All => Ok(state.clones().cloned().collect()),
            Self::Select(selector) => Ok(state.select(selector).cloned().collect()),
            Self::Names(names) => clones_named(state, names),
        }
    }

    /// The same for what must not be done to all clones by an oversight, nor to none.
    pub(super) fn named_or_selected(&self, state: &State) -> Result<Vec<Arc<CloneRecord>>> {
        if *self == Self::All {
            return Err(no_clone_named());
        }
        let chosen = self.choose(state)?;
        match self {
            Self::Select(selector) if chosen.is_empty() => {
                Err(Error::not_found(format!("no clone matches {:?}", selector.to_string()))
                    .remedy("see `mimeo clone ls`"))
            }
            _ => Ok(chosen),
        }
    }
}

fn clones_named(state: &State, names: &[String]) -> Result<Vec<Arc<CloneRecord>>> {
    if names.is_empty() {
        return Err(no_clone_named());
    }
    let mut seen = HashSet::with_capacity(names.len());
    let distinct = names.iter().filter(|name| seen.insert(name.as_str()));
    distinct.map(|name| state.find_clone(name).cloned()).collect()
}

fn no_clone_named() -> Error {
    Error::invalid("no clone is named").remedy("name at least one clone, or select clones by label")
}

/// Changes to what clones have of their own, for their exports and for switches; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyEdits {
    /// First of all, back to what the configuration says. The quota stays.
    pub default: bool,
    pub allow: Option<Vec<IpNet>>,
    pub read_only: Option<bool>,
    pub squash: Option<Squash>,
    pub privileged_port: Option<bool>,
    /// `Some(None)`: no quota.
    pub quota: Option<Option<u64>>,
    /// How they are switched.
    pub switch: SwitchEdits,
}

impl PolicyEdits {
    fn check(&self) -> Result<()> {
        let networks = self.allow.as_deref().unwrap_or_default();
        if networks.len() > MAX_NETWORKS {
            return Err(Error::invalid(format!("{} networks for one clone", networks.len()))
                .remedy(format!("name at most {MAX_NETWORKS}")));
        }
        match networks.iter().find(|net| net.trunc() != **net) {
            Some(net) => Err(Error::invalid(format!("{net} is an address with a network's prefix length"))
                .remedy(format!("write {} for the network or {} for the one machine", net.trunc(), net.addr()))),
            None => Ok(()),
        }
    }

    fn apply(&self, clone: &CloneRecord) -> Edited {
        let former = if self.default { ExportOverrides::default() } else { ExportOverrides::clone(&clone.export) };
        let export = ExportOverrides {
            allow: self.allow.clone().or(former.allow),
            read_only: self.read_only.or(former.read_only),
            squash: self.squash.or(former.squash),
            privileged_port: self.privileged_port.or(former.privileged_port),
            ..former
        };
        Edited { export, quota: self.quota.unwrap_or(clone.quota), switch: self.switch.apply(&clone.policy) }
    }
}

/// What clones have after [`PolicyEdits`].
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Edited {
    export: ExportOverrides,
    quota: Option<u64>,
    switch: SwitchPolicy,
}

impl Edited {
    /// No more than `edits` were meant to change.
    fn changes(self, edits: &PolicyEdits, clones: Vec<ExportId>) -> Vec<Change> {
        let (export, quota, policy) = (Arc::new(self.export), self.quota, Arc::new(self.switch));
        let switch = edits.switch != SwitchEdits::default();
        let others = *edits != PolicyEdits { switch: edits.switch.clone(), ..PolicyEdits::default() };
        let exported = others.then(|| Change::SetPolicy { clones: clones.clone(), export, quota });
        exported.into_iter().chain(switch.then_some(Change::SetSwitchPolicy { clones, policy })).collect()
    }
}

impl Catalog {
    /// Create clones of one version, in the order of their names given. O(1) each, whatever the
    /// version holds.
    pub async fn create_clones(&self, new: NewClones) -> Result<Vec<Arc<CloneRecord>>> {
        check_new_names(&new.names)?;
        let names: Vec<Arc<str>> = new.names.iter().map(|name| name.as_str().into()).collect();
        let labels = Arc::new(new.labels);
        self.transact("create clones", move |draft| {
            let version = draft.find_version(&new.version)?.clone();
            names.iter().map(|name| create_clone(draft, &version, name, &labels)).collect()
        })
        .await
    }

    /// Set and remove labels, on all of these clones or none.
    pub async fn label_clones(&self, target: CloneTarget, edits: LabelEdits) -> Result<Vec<Arc<CloneRecord>>> {
        let changes = |clones, labels| vec![Change::LabelClones { clones, labels: Arc::new(labels) }];
        self.edit_clones("label clones", target, move |clone| edits.apply(&clone.labels), changes).await
    }

    /// Change export policy, quota, and how they are switched, of all of these clones or none.
    pub async fn set_clones(&self, target: CloneTarget, edits: PolicyEdits) -> Result<Vec<Arc<CloneRecord>>> {
        edits.check()?;
        let meant = edits.clone();
        let changes = move |clones, edited: Edited| edited.changes(&meant, clones);
        self.edit_clones("set clones", target, move |clone| Ok(edits.apply(clone)), changes).await
    }

    /// Compute something new for each clone, and make the changes once for all that get the same.
    async fn edit_clones<V: Ord>(
        &self,
        label: &'static str,
        target: CloneTarget,
        edit: impl Fn(&CloneRecord) -> Result<V> + Send + 'static,
        changes: impl Fn(Vec<ExportId>, V) -> Vec<Change> + Send + 'static,
    ) -> Result<Vec<Arc<CloneRecord>>> {
        self.transact(label, move |draft| {
            let clones = target.named_or_selected(draft)?;
            let mut by_value: BTreeMap<V, Vec<ExportId>> = BTreeMap::new();
            for clone in &clones {
                by_value.entry(edit(clone)?).or_default().push(clone.id);
            }
            for (value, clones) in by_value {
                changes(clones, value).into_iter().try_for_each(|change| draft.apply(change))?;
            }
            Ok(clones.iter().filter_map(|clone| draft.clone_by_id(clone.id).cloned()).collect())
        })
        .await
    }
}

fn create_clone(
    draft: &mut Draft,
    version: &VersionRecord,
    name: &Arc<str>,
    labels: &Arc<Labels>,
) -> Result<Arc<CloneRecord>> {
    check_free(draft, name)?;
    let (id, now) = (ExportId(draft.new_id()?), draft.now());
    draft.apply(Change::PutClone(CloneRecord {
        id,
        name: name.clone(),
        image: version.image,
        created: now,
        labels: labels.clone(),
        view: View::of(1, version.number, OverlayId(id.0)),
        pins: Vec::new(),
        switched: now,
        turns: Vec::new(),
        loose: Vec::new(),
        export: Arc::default(),
        quota: None,
        policy: Arc::default(),
        lagging: None,
        staged: None,
        depth: 0,
    }))?;
    draft.clone_by_id(id).cloned().ok_or_else(|| Error::internal(format!("clone {name:?} is not there")))
}

/// Refuse a name that a clone has.
pub(super) fn check_free(state: &State, name: &str) -> Result<()> {
    if state.clone_named(name).is_some() {
        return Err(Error::exists(format!("clone {name:?} exists already")).remedy("choose another name"));
    }
    Ok(())
}

fn check_new_names(names: &[String]) -> Result<()> {
    check_count(names.len())?;
    let mut seen = HashSet::with_capacity(names.len());
    for name in names {
        check_name("clone", name)?;
        if !seen.insert(name) {
            return Err(Error::invalid(format!("clone {name:?} is named twice")).remedy("name each clone once"));
        }
    }
    Ok(())
}

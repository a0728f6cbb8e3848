//! Forks: a clone of a clone, as it is now or as a snapshot of it is.
//!
//! O(1), whatever the clone holds: the fork stands on the same sealed layers and has a top of its
//! own. It is an export of its own, with handles of its own, and depends on no clone and no snapshot.

use std::sync::Arc;

use super::{Fleet, Freeze, check_layers};
use crate::error::{Error, ErrorKind, Result};
use crate::image::catalog::Draft;
use crate::image::change::Change;
use crate::image::clones::check_free;
use crate::image::labels::Labels;
use crate::image::names::{CloneRef, check_name};
use crate::image::record::{CloneRecord, ExportId, View};
use crate::image::state::State;
use crate::image::switch::Sealed;
use crate::overlay::OverlayId;

/// Forks of forks of forks ... that are made if nothing else is configured.
pub const DEFAULT_FORK_DEPTH: u32 = 8;

/// A fork to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFork {
    pub source: CloneRef,
    pub name: String,
    pub labels: Labels,
}

impl Fleet {
    /// Make a clone that shows what another clone, or a snapshot of it, shows at this instant. It gets
    /// the source's export policy and quota, and labels of its own.
    pub async fn fork(&self, new: NewFork) -> Result<Arc<CloneRecord>> {
        check_name("clone", &new.name)?;
        let (new, max_depth) = (Arc::new(new), self.max_fork_depth);
        let planned = new.clone();
        let freeze = Freeze::of(&new.source);
        let choose = move |state: &State| Ok(vec![state.find_clone(&planned.source.clone)?.clone()]);
        let run = move |draft: &mut Draft, clones: &[Arc<CloneRecord>], sealed: &Sealed| {
            let source = clones.first().ok_or_else(|| Error::internal("a fork of no clone"))?;
            check_depth(source, max_depth)?;
            fork(draft, source, &new, sealed)
        };
        self.at_one_instant("fork a clone", freeze, choose, run).await
    }
}

fn check_depth(source: &CloneRecord, max_depth: u32) -> Result<()> {
    if source.depth < max_depth {
        return Ok(());
    }
    let what = format!("clone {:?} is a fork {} deep; clones.max_fork_depth is {max_depth}", source.name, source.depth);
    Err(Error::new(ErrorKind::Conflict, what)
        .remedy("promote it to a version (mimeo clone promote) and clone that, or raise the limit"))
}

fn fork(draft: &mut Draft, source: &CloneRecord, new: &NewFork, sealed: &Sealed) -> Result<Arc<CloneRecord>> {
    check_free(draft, &new.name)?;
    let content = match &new.source.snapshot {
        Some(name) => draft.find_snapshot(source, name)?.content(),
        None => sealed.content(&source.view),
    };
    check_layers(&format!("a fork of {}", new.source), &content.layers)?;
    let (id, now) = (ExportId(draft.new_id()?), draft.now());
    draft.apply(Change::PutClone(CloneRecord {
        id,
        name: new.name.as_str().into(),
        image: source.image,
        created: now,
        labels: Arc::new(new.labels.clone()),
        view: View::showing(1, content, OverlayId(id.0)),
        pins: Vec::new(),
        switched: now,
        turns: Vec::new(),
        loose: Vec::new(),
        export: source.export.clone(),
        quota: source.quota,
        policy: source.policy.clone(),
        lagging: None,
        staged: None,
        depth: source.depth + 1,
    }))?;
    draft.find_clone(&new.name).cloned()
}

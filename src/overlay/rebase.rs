//! Another version under the private layers of a view.
//!
//! Layers are merged over a manifest by inode number and cookie, and what a version did not touch keeps
//! both over imports. So the layers of a view are right over another version as they are, except where the
//! image changed the same; and a rebase is no copy, but a look at each private name and object: what it
//! was in the version before (base), what it is in the view, what it is in the version to come.
//!
//! | file | owns |
//! |---|---|
//! | `sight` | reading the three sides, and paths |
//! | `survey` | the look at each private key: what of it needs a decision |
//! | `fit` | the decisions, and the rows that make them so |
//! | `preserve` | the part of a view that lies below some paths, as a layer of its own |
//! | `resolve` | decisions on conflicts, where a side is to win |
//!
//! The cost grows with the private changes, never with the tree. A survey is made while the view is
//! written, and brought up to date by looking again at what was written since. What does not fit as it
//! is gets a row in one more layer on top ([`OverlayStore::fit`]).
//!
//! Invariants: no file ever mixes data of two versions (an object whose base is not the view's version
//! says so: [`Node::base`](super::Node)); no object changes its content, so every handle goes on; link
//! counts are exact. Only the index is written, and nothing that a view shows already.

mod fit;
mod preserve;
mod resolve;
mod sight;
mod survey;

pub use fit::Fit;
pub(super) use preserve::Choice;
pub use survey::Survey;

use std::fmt;
use std::sync::Arc;
use std::thread::available_parallelism;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::index::Copy;
use super::state::Overlay;
use super::touched::Touched;
use super::{Held, Layer, OverlayId, OverlayStore, Position};
use crate::error::{Error, Result};
use crate::manifest::ManifestId;
use crate::meta::Durability;
use crate::overlay::index::OverlayRow;

/// The position of what makes other layers fit, and begins nothing.
pub const FITS: Position = 1;
/// The position of objects that come back as the version to come has them: new lines of content.
pub const RETURNED: Position = 2;
/// Rows of one batch.
const BATCH: usize = 1000;
/// Most looks between two changes of thread: one takes less than the change.
const LOOKS_OF_A_TASK: usize = 64;
/// Conflicts of one clone that are told by path; all are counted.
pub const MAX_TOLD: usize = 1000;

/// Sealed layers, and the versions under them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebase {
    pub from: ManifestId,
    pub to: ManifestId,
    /// Bottom first.
    pub layers: Vec<Layer>,
}

/// Whose change stays where both changed the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Winner {
    Clone,
    /// What the clone has is saved beside it, under its name and this suffix.
    Image {
        suffix: String,
    },
}

/// What one side did to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Did {
    Added,
    Changed,
    /// Mode or owner.
    Attributes,
    Removed,
    Renamed,
}

/// A path that both sides changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// From the root, without a leading slash, as the clone has it.
    pub path: Vec<u8>,
    pub clone: Did,
    pub image: Did,
    /// A virtual disk.
    pub disk_image: bool,
    /// No side can win: somebody has to decide in the clone.
    pub undecidable: bool,
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Attributes => "attributes",
            Self::Removed => "removed",
            Self::Renamed => "renamed",
        })
    }
}

impl OverlayStore {
    /// See that what is sealed is in the index, at its positions: looks at layers see only what is there.
    pub async fn index_sealed(self: &Arc<Self>) -> Result<()> {
        self.flush(Durability::Buffered).await
    }

    /// Look at all that the layers of each change. They must be sealed, and in the index: what they show must stay.
    pub async fn survey(self: &Arc<Self>, rebases: Vec<Rebase>) -> Result<Vec<Result<Survey>>> {
        self.on_each("looking at private changes", rebases, Survey::new).await
    }

    /// Bring surveys up to layers that were written since.
    pub async fn survey_again(
        self: &Arc<Self>,
        surveys: Vec<(Arc<Survey>, Vec<Layer>)>,
    ) -> Result<Vec<Result<Survey>>> {
        let again = |store: &Self, (survey, layers): (Arc<Survey>, Vec<_>)| survey.again(store, &layers);
        self.on_each("looking at private changes again", surveys, again).await
    }

    /// Make the fresh overlay `into` hold what of the layers lies at or below `paths`, and nothing else: over
    /// the version before it shows that, with the clone's changes there. To be named before the second
    /// answer goes.
    pub async fn preserve(
        self: &Arc<Self>,
        rebase: Rebase,
        paths: Vec<Vec<u8>>,
        into: OverlayId,
    ) -> Result<(Layer, Held)> {
        let layers = rebase.layers.clone();
        let choice = self.blocking("choosing what is preserved", move |store| preserve::choose(store, &rebase, &paths));
        self.flatten_choice(layers, Some(choice.await?), into).await
    }

    /// Decide what the surveys found.
    pub async fn decide(self: &Arc<Self>, surveys: Vec<(Arc<Survey>, Option<Winner>)>) -> Result<Vec<Result<Fit>>> {
        let fit = |store: &Self, (survey, winner): (Arc<Survey>, Option<_>)| Fit::new(store, &survey, winner.as_ref());
        self.on_each("fitting private changes", surveys, fit).await
    }

    /// Write what fits need into fresh overlays. On stable storage when it returns; to be named before the
    /// second answer goes.
    pub async fn fit(self: &Arc<Self>, fits: Vec<(Arc<Fit>, OverlayId)>) -> Result<(Vec<Layer>, Held)> {
        let layer = |(fit, into): &(Arc<Fit>, OverlayId)| fit.layer(*into);
        let held = self.hold(&fits.iter().map(layer).collect::<Vec<_>>());
        let layers = self.blocking("writing private changes that fit", move |store| {
            let layers = fits.iter().map(|(fit, into)| store.write_fit(fit, *into)).collect::<Result<Vec<_>>>()?;
            store.index.sync()?;
            Ok(layers)
        });
        Ok((layers.await?, held))
    }

    fn write_fit(&self, fit: &Fit, into: OverlayId) -> Result<Layer> {
        let layer = fit.layer(into);
        let row = OverlayRow { position: layer.upto, counts: layer.counts };
        self.insert(Overlay::new(into, row, vec![layer.upto], Touched::Unread));
        let mut copy = Copy::new(&self.index, into, layer.upto, BATCH);
        copy.begin()?;
        for (key, value, position) in fit.rows() {
            copy.put_at(key, value?, position)?;
        }
        copy.finish(layer.counts, Durability::Buffered)?;
        Ok(layer)
    }

    /// Run `work`, which blocks, for each item, on all cores; the answers in the order of the items.
    async fn on_each<I: Send + 'static, T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        items: Vec<I>,
        work: fn(&Self, I) -> Result<T>,
    ) -> Result<Vec<Result<T>>> {
        let cores = available_parallelism().map_or(1, usize::from);
        let (size, mut items) = (items.len().div_ceil(cores).clamp(1, LOOKS_OF_A_TASK), items.into_iter());
        let batches = std::iter::from_fn(|| {
            let batch: Vec<_> = items.by_ref().take(size).collect();
            (!batch.is_empty()).then_some(batch)
        });
        let run = |batch: Vec<I>| {
            self.blocking(what, move |store| Ok(batch.into_iter().map(|item| work(store, item)).collect::<Vec<_>>()))
        };
        let answers: Vec<_> = stream::iter(batches.map(run)).buffered(cores).try_collect().await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Run `work`, which blocks, on the store.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(|e| Error::internal(what).because(e))?
    }
}

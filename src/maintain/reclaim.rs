//! Reclaiming: overlays and versions of private values that nothing shows any more.
//!
//! Owns the grace: a request runs on the catalog revision that it began with, so what has just lost its
//! last name may still be read. Only what was without a name for the whole grace goes. That holds for
//! each overlay and for each position that sealed layers have named, by itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::worker::{Step, Worker};
use crate::env::Env;
use crate::error::Result;
use crate::image::{Catalog, OverlayRoot};
use crate::overlay::{OverlayId, OverlayStore, Position};

pub struct Reclaim {
    catalog: Arc<Catalog>,
    overlays: Arc<OverlayStore>,
    env: Env,
    grace: Duration,
    /// Since when an overlay has no name.
    unnamed: HashMap<OverlayId, Duration>,
    histories: HashMap<OverlayId, History>,
}

type Roots = BTreeMap<OverlayId, OverlayRoot>;

/// What is known of the older versions in one overlay.
#[derive(Default)]
struct History {
    marks: Vec<Position>,
    /// Marks that it lost, and when, oldest first.
    lost: Vec<(Position, Duration)>,
    /// Since when there may be versions that nothing shows; `None` if there are none.
    unclean: Option<Duration>,
}

impl Reclaim {
    pub fn new(catalog: Arc<Catalog>, overlays: Arc<OverlayStore>, env: Env, grace: Duration) -> Self {
        Self { catalog, overlays, env, grace, unnamed: HashMap::new(), histories: HashMap::new() }
    }

    async fn round(&mut self) -> Result<Step> {
        let now = self.env.clock.uptime();
        // The overlays first: one that is made later is not judged by an earlier catalog.
        let ids = self.overlays.ids();
        let roots = self.catalog.state().overlay_roots();
        let dead = self.dead(now, &ids, &roots);
        self.purge(&dead).await?;
        self.clean_histories(now, roots).await?;
        Ok(Step::IDLE)
    }

    /// Those of the overlays `ids` that have had no name for the whole grace.
    fn dead(&mut self, now: Duration, ids: &[OverlayId], roots: &Roots) -> Vec<OverlayId> {
        self.unnamed.retain(|id, _| !roots.contains_key(id));
        let unnamed = ids.iter().copied().filter(|id| !roots.contains_key(id));
        unnamed.filter(|id| now - *self.unnamed.entry(*id).or_insert(now) >= self.grace).collect()
    }

    async fn purge(&mut self, dead: &[OverlayId]) -> Result<()> {
        // Of the newest catalog; collected again only if there is a newer one.
        let mut newest = self.catalog.state();
        let mut roots = newest.overlay_roots();
        let is_named = |id| {
            let state = self.catalog.state();
            if !Arc::ptr_eq(&state, &newest) {
                (roots, newest) = (state.overlay_roots(), state);
            }
            roots.contains_key(&id)
        };
        let purged = self.overlays.purge_overlays(dead, is_named).await?;
        if purged.overlays > 0 {
            tracing::debug!(overlays = purged.overlays, values = purged.values, "private layers reclaimed");
        }
        for id in dead {
            self.unnamed.remove(id);
        }
        Ok(())
    }

    /// Clean the histories of the overlays that lost a mark a grace ago.
    async fn clean_histories(&mut self, now: Duration, named: Roots) -> Result<()> {
        self.histories.retain(|id, _| named.contains_key(id));
        for (id, root) in named {
            // What was lost before this start, nobody told.
            let first = || History { marks: root.marks.clone(), lost: Vec::new(), unclean: Some(now) };
            let history = self.histories.entry(id).or_insert_with(first);
            history.turn(now, root.marks);
            if history.unclean.is_some_and(|since| now - since >= self.grace) {
                let kept = history.kept(now, self.grace);
                self.overlays.purge_history(id, &kept.iter().map(|(mark, _)| *mark).collect::<Vec<_>>()).await?;
                (history.unclean, history.lost) = (kept.first().map(|(_, at)| *at), kept);
            }
        }
        Ok(())
    }
}

impl History {
    /// It has `marks` now.
    fn turn(&mut self, now: Duration, marks: Vec<Position>) {
        let lost = self.marks.iter().filter(|mark| marks.binary_search(mark).is_err());
        self.lost.extend(lost.map(|mark| (*mark, now)));
        if !self.lost.is_empty() {
            self.unclean.get_or_insert(now);
        }
        self.marks = marks;
    }

    /// The marks that it lost within the grace.
    fn kept(&self, now: Duration, grace: Duration) -> Vec<(Position, Duration)> {
        self.lost.iter().copied().filter(|(_, at)| now - *at < grace).collect()
    }
}

impl Worker for Reclaim {
    fn name(&self) -> &'static str {
        "reclaim"
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        self.round().boxed()
    }
}

#[cfg(test)]
mod tests;

//! Reclaiming: overlays and versions of private values that nothing shows any more.
//!
//! Owns the grace: a request runs on the catalog revision that it began with, so what has just lost its
//! last name may still be read. Only what was without a name for the whole grace goes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::worker::{Step, Worker};
use crate::env::Env;
use crate::error::Result;
use crate::image::Catalog;
use crate::overlay::{OverlayId, OverlayStore, Position};

pub struct Reclaim {
    catalog: Arc<Catalog>,
    overlays: Arc<OverlayStore>,
    env: Env,
    grace: Duration,
    /// Since when an overlay has no name.
    unnamed: HashMap<OverlayId, Duration>,
    /// The marks that an overlay had, and since when; and whether its history was cleaned since.
    marks: HashMap<OverlayId, Marked>,
}

struct Marked {
    marks: Vec<Position>,
    since: Duration,
    clean: bool,
}

impl Reclaim {
    pub fn new(catalog: Arc<Catalog>, overlays: Arc<OverlayStore>, env: Env, grace: Duration) -> Self {
        Self { catalog, overlays, env, grace, unnamed: HashMap::new(), marks: HashMap::new() }
    }

    async fn round(&mut self) -> Result<Step> {
        let now = self.env.clock.uptime();
        // The overlays first: one that is made later is not judged by an earlier catalog.
        let ids = self.overlays.ids();
        let roots = self.catalog.state().overlay_roots();
        self.unnamed.retain(|id, _| !roots.contains_key(id));
        let unnamed = ids.iter().filter(|id| !roots.contains_key(id));
        let over = unnamed.filter(|id| now - *self.unnamed.entry(**id).or_insert(now) >= self.grace);
        let dead: HashSet<OverlayId> = over.copied().collect();
        if !dead.is_empty() {
            let kept = ids.iter().copied().filter(|id| !dead.contains(id)).collect();
            let purged = self.overlays.purge_overlays(&kept).await?;
            tracing::debug!(overlays = purged.overlays, values = purged.values, "private layers reclaimed");
            self.unnamed.retain(|id, _| !dead.contains(id));
        }
        let named = roots.into_iter().map(|(id, root)| (id, root.marks)).collect();
        self.clean_history(now, named).await?;
        Ok(Step::IDLE)
    }

    /// Clean the history of those overlays that lost a mark a grace ago.
    async fn clean_history(&mut self, now: Duration, named: HashMap<OverlayId, Vec<Position>>) -> Result<()> {
        self.marks.retain(|id, _| named.contains_key(id));
        for (id, marks) in named {
            let known =
                self.marks.entry(id).or_insert_with(|| Marked { marks: marks.clone(), since: now, clean: false });
            if known.marks != marks {
                let lost = known.marks.iter().any(|mark| marks.binary_search(mark).is_err());
                *known = Marked { marks, since: now, clean: known.clean && !lost };
            }
            if !known.clean && now - known.since >= self.grace {
                self.overlays.purge_history(id).await?;
                known.clean = true;
            }
        }
        Ok(())
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

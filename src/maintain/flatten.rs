//! Flattening of clones with many sealed layers, one at a time.
//!
//! Failure story: a clone whose layers cannot be flattened is left alone for a while, or until it has
//! others, so that the rest get their turn.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::worker::{Step, Worker};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::image::{CloneRecord, ExportId, Fleet};
use crate::overlay::Layer;

/// How long a clone that could not be flattened is left alone.
const RETRY: Duration = Duration::from_secs(600);

pub struct Flatten {
    fleet: Arc<Fleet>,
    env: Env,
    /// Layers that could not be flattened, and when that was tried.
    failed: HashMap<ExportId, (Vec<Layer>, Duration)>,
}

impl Flatten {
    pub fn new(fleet: Arc<Fleet>, env: Env) -> Self {
        Self { fleet, env, failed: HashMap::new() }
    }

    async fn clone(&mut self) -> Result<Step> {
        let now = self.env.clock.uptime();
        self.failed.retain(|_, (_, at)| now - *at < RETRY);
        let deep = self.fleet.deep_clones();
        let mut deep = deep.iter().filter(|clone| !self.has_failed(clone));
        let Some(clone) = deep.next() else { return Ok(Step::IDLE) };
        let more = deep.next().is_some();
        if let Err(error) = self.fleet.flatten(clone).await {
            self.failed.insert(clone.id, (clone.view.layers.clone(), now));
            let what = format!("the layers of clone {:?} cannot be flattened", clone.name);
            return Err(Error::new(error.kind(), what).because(error));
        }
        Ok(Step { bytes: 0, more })
    }

    fn has_failed(&self, clone: &CloneRecord) -> bool {
        self.failed.get(&clone.id).is_some_and(|(layers, _)| *layers == clone.view.layers)
    }
}

impl Worker for Flatten {
    fn name(&self) -> &'static str {
        "flatten"
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        self.clone().boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintain::fsck::tests::world::{A, NODE, World, key};
    use crate::meta::Durability;

    /// Give a clone one sealed layer more.
    async fn deepen(world: &World, clone: &str, name: &str) {
        world.write(clone, A, 0, name.as_bytes()).await;
        world.snapshot(clone, name).await;
        world.fleet().restore(clone, name).await.unwrap();
    }

    #[tokio::test]
    async fn a_clone_that_cannot_be_flattened_hinders_no_other() {
        let world = World::new().await;
        world.new_clone("other").await;
        for n in 0..5 {
            deepen(&world, "desk", &format!("s{n}")).await;
            deepen(&world, "other", &format!("s{n}")).await;
        }
        world.store().flush(Durability::Buffered).await.unwrap();
        let fleet = Arc::new(world.fleet());
        let deep = fleet.deep_clones();
        assert_eq!(deep.len(), 2);
        let node = key(deep[0].view.layers[4].overlay, NODE, A, 0);
        let good = world.row("heads", &node);
        world.edit_row("heads", &node, |row| row.truncate(12));

        let mut flatten = Flatten::new(fleet.clone(), world.env.clone());
        let told = flatten.step().await.unwrap_err();
        assert!(told.what().contains(&format!("{:?}", deep[0].name)), "{told}");
        assert_eq!(flatten.step().await.unwrap(), Step::IDLE);
        let left: Vec<_> = fleet.deep_clones().iter().map(|clone| clone.id).collect();
        assert_eq!(left, [deep[0].id], "the other one is flat");
        assert_eq!(flatten.step().await.unwrap(), Step::IDLE, "left alone");

        world.put("heads", &node, good);
        world.clock.advance(RETRY);
        assert_eq!(flatten.step().await.unwrap(), Step::IDLE);
        assert!(fleet.deep_clones().is_empty());
    }
}

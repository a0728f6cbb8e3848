//! Compaction of the delta log, one segment at a time.
//!
//! Owns the pass: the segments that are sparse when it begins, each of which is tried once; and when
//! another is worth it. So what a pass writes, and what it cannot empty, keeps no other work from its turn,
//! and is not moved again and again.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::worker::{Step, Worker};
use crate::error::Result;
use crate::overlay::OverlayStore;
use crate::overlay::log::SegmentId;

/// Dead bytes beyond what the last pass left, from which on another begins. Small pieces stay sparse
/// however often they are moved.
const WORTH: u64 = 16 << 20;

pub struct Compact {
    overlays: Arc<OverlayStore>,
    /// What is to come in this pass, the next one last.
    pass: Vec<SegmentId>,
    /// Dead bytes that the last pass left; `None` before the first.
    left: Option<u64>,
    worth: u64,
}

impl Compact {
    pub fn new(overlays: Arc<OverlayStore>) -> Self {
        Self { overlays, pass: Vec::new(), left: None, worth: WORTH }
    }

    async fn segment(&mut self) -> Result<Step> {
        if self.pass.is_empty() && self.left.is_none_or(|left| self.overlays.dead_bytes() >= left + self.worth) {
            self.pass = self.overlays.sparse_segments().await?;
        }
        let victim = self.pass.pop();
        let done = self.overlays.compact(victim).await?;
        if self.pass.is_empty() {
            let dead = self.overlays.dead_bytes();
            // Between two passes it can only get less: what grows is for the next.
            self.left = Some(self.left.filter(|left| victim.is_none() && *left < dead).unwrap_or(dead));
        }
        Ok(Step { bytes: done.bytes_moved, more: !self.pass.is_empty() || done.segments_removed > 0 })
    }
}

impl Worker for Compact {
    fn name(&self) -> &'static str {
        "compact"
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        self.segment().boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintain::fsck::tests::world::{F, World};
    use crate::meta::Durability;

    const SEGMENT: u32 = 16 << 10;

    /// Steps until there is nothing more to do at once; answers the bytes that were moved.
    async fn turn(compact: &mut Compact) -> u64 {
        let mut moved = 0;
        for _ in 0..1000 {
            let step = compact.step().await.unwrap();
            moved += step.bytes;
            if !step.more {
                return moved;
            }
        }
        panic!("a turn without an end");
    }

    /// Pieces so small that a segment full of them is sparse.
    #[tokio::test]
    async fn a_turn_ends_and_small_pieces_are_moved_once() {
        let mut world = World::new().await;
        world.segment_bytes = SEGMENT;
        world.restart().await;
        for n in 0..600 {
            world.write("desk", F, n * 65_536, b"small").await;
        }
        let mut compact = Compact { worth: 2 * u64::from(SEGMENT), ..Compact::new(world.store().clone()) };
        assert!(turn(&mut compact).await > 0);
        assert_eq!(turn(&mut compact).await, 0, "nothing died since");
        let bytes = |world: &World| world.store().segments().values().sum::<u64>();
        let before = bytes(&world);
        for n in 0..599 {
            world.write("desk", F, n * 65_536, &[0; 5]).await;
        }
        world.store().flush(Durability::Buffered).await.unwrap();
        assert_eq!(turn(&mut compact).await, 5, "what is left of the first pass's");
        assert!(bytes(&world) < before, "{} of {before} bytes", bytes(&world));
        world.assert_clean().await;
    }
}

//! Idle private data goes into the chunk store, where equal data of other clones is kept once.
//!
//! Owns what idle means: a bucket is idle if it was last written before the position that its overlay
//! had one idle time ago. So a machine that writes all day has its quiet files deduplicated all the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::worker::{Step, Worker};
use crate::chunk::{ChunkId, ChunkSink, ChunkStore};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::overlay::{IdleBucket, IdleCursor, OverlayId, OverlayStore, Position};

/// Data of one step, in bytes.
const STEP_BYTES: usize = 4 << 20;

pub struct Dedup {
    overlays: Arc<OverlayStore>,
    chunks: Arc<ChunkStore>,
    env: Env,
    idle: Duration,
    /// A position of each overlay and when it had it, an idle time ago or less.
    seen: HashMap<OverlayId, Seen>,
    /// Where the pass over idle data is.
    pass: Vec<Part>,
}

struct Seen {
    position: Position,
    at: Duration,
    /// Up to here everything was looked at.
    done: Position,
}

/// What is left of one overlay in this pass.
struct Part {
    overlay: OverlayId,
    upto: Position,
    from: IdleCursor,
}

impl Dedup {
    pub fn new(overlays: Arc<OverlayStore>, chunks: Arc<ChunkStore>, env: Env, idle: Duration) -> Self {
        Self { overlays, chunks, env, idle, seen: HashMap::new(), pass: Vec::new() }
    }

    /// Find the overlays with data that became idle since the last pass.
    fn begin_pass(&mut self) {
        let now = self.env.clock.uptime();
        let ids = self.overlays.ids();
        for id in ids {
            let position = self.overlays.position(id);
            let seen = self.seen.entry(id).or_insert(Seen { position, at: now, done: 0 });
            if now - seen.at < self.idle {
                continue;
            }
            if seen.position > seen.done {
                self.pass.push(Part { overlay: id, upto: seen.position, from: IdleCursor::default() });
                seen.done = seen.position;
            }
            (seen.position, seen.at) = (position, now);
        }
        let (overlays, seen) = (&self.overlays, &mut self.seen);
        seen.retain(|id, _| overlays.position(*id) > 0);
    }

    async fn some(&mut self) -> Result<Step> {
        if self.pass.is_empty() {
            self.begin_pass();
        }
        let Some(part) = self.pass.pop() else { return Ok(Step::IDLE) };
        let (found, next) = self.overlays.idle_buckets(part.overlay, part.upto, part.from, STEP_BYTES).await?;
        let bytes = found.iter().flat_map(|idle| &idle.runs).map(|(_, run)| run.len() as u64).sum();
        self.store(part.overlay, found).await?;
        if let Some(from) = next {
            self.pass.push(Part { from, ..part });
        }
        Ok(Step { bytes, more: !self.pass.is_empty() })
    }

    /// Put the runs into the chunk store, then let the buckets refer to them.
    async fn store(&self, overlay: OverlayId, found: Vec<IdleBucket>) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        let session = self.chunks.begin()?;
        let put = tokio::task::spawn_blocking(move || {
            let ids = |idle: &IdleBucket| {
                idle.runs
                    .iter()
                    .map(|(_, run)| session.put(run).map(|stored| stored.id))
                    .collect::<Result<Vec<ChunkId>>>()
            };
            let ids = found.iter().map(ids).collect::<Result<Vec<_>>>()?;
            Ok::<_, Error>((session, found, ids))
        });
        let (session, found, ids) = put.await.map_err(|e| Error::internal("storing idle data").because(e))??;
        session.commit().await?;
        for (idle, ids) in found.iter().zip(ids) {
            self.overlays.adopt_chunks(overlay, idle, &ids).await?;
        }
        Ok(())
    }
}

impl Worker for Dedup {
    fn name(&self) -> &'static str {
        "dedup"
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        self.some().boxed()
    }
}

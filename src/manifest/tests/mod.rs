//! Tests of the manifest against simple models, on chunks in memory.

mod damage;
mod diffs;
mod files;
mod sample;
mod trees;

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::chunk::{ChunkId, ChunkSource, Fetch, MemoryChunks, Step};
use crate::error::Result;

/// Chunks that are never cached: each step has to load what it needs.
struct Cold {
    chunks: MemoryChunks,
    loads: AtomicUsize,
}

impl Cold {
    fn new(chunks: MemoryChunks) -> Self {
        Self { chunks, loads: AtomicUsize::new(0) }
    }

    fn loads(&self) -> usize {
        self.loads.swap(0, Ordering::Relaxed)
    }
}

impl ChunkSource for Cold {
    fn cached(&self, _: &ChunkId) -> Option<Bytes> {
        None
    }

    fn load(&self, id: ChunkId) -> BoxFuture<'static, Result<Bytes>> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        self.chunks.load(id)
    }
}

/// Chunks in memory never make a future wait.
fn wait<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("chunks in memory are there at once")
}

/// Run a step of a fetch of its own until it has all its chunks.
fn read<T>(source: &dyn ChunkSource, step: impl FnMut(&mut Fetch<'_>) -> Step<T>) -> Result<T> {
    wait(Fetch::new(source).run(step))
}

/// Repeatable dice; the seed is printed with a failing test. `MIMEO_SEED` gives another.
fn dice() -> SmallRng {
    let seed = std::env::var("MIMEO_SEED").map_or(20_261_122, |s| s.parse().unwrap());
    println!("MIMEO_SEED={seed}");
    SmallRng::seed_from_u64(seed)
}

fn random_bytes(rng: &mut SmallRng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.random()).collect()
}

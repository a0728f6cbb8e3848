//! Idle private data on its way into the chunk store, where equal data of other clones is.
//!
//! Owns finding it and letting buckets refer to chunks instead of the log. Who calls stores the chunks in
//! between, and sets the pace.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::OverlayStore;
use crate::chunk::{ChunkId, Fetch};
use crate::error::{Error, Result};
use crate::overlay::bucket::{Bucket, Fragment, Source};
use crate::overlay::keys::{Key, Kind};
use crate::overlay::{OverlayId, Position};

/// Shortest run that becomes a chunk, in bytes.
const MIN_RUN: usize = 4096;
/// Buckets that one call looks at.
const LOOK: usize = 512;

/// A bucket that was not written for a while.
#[derive(Clone, Debug)]
pub struct IdleBucket {
    key: Key,
    position: Position,
    bucket: Bucket,
    /// Runs of its data that lie in the log: offset in the bucket, bytes.
    pub runs: SmallVec<[(u32, Bytes); 1]>,
}

/// Where a look for idle data goes on.
#[derive(Clone, Copy, Debug)]
pub struct IdleCursor(Key);

impl Default for IdleCursor {
    fn default() -> Self {
        Self(Key { kind: Kind::Bucket, a: 0, b: 0 })
    }
}

impl OverlayStore {
    /// Buckets of `id` that were last written at or before `upto`, about `budget` bytes of them, and where
    /// to go on if there are more.
    pub async fn idle_buckets(
        &self,
        id: OverlayId,
        upto: Position,
        from: IdleCursor,
        budget: usize,
    ) -> Result<(Vec<IdleBucket>, Option<IdleCursor>)> {
        let keys = self.exclusively(move |index| index.keys(id, from.0, Key::bucket_end(), LOOK)).await?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for key in &keys {
            if bytes >= budget {
                return Ok((found, Some(IdleCursor(*key))));
            }
            if let Some(idle) = self.idle_bucket(id, *key, upto).await? {
                bytes += idle.runs.iter().map(|(_, run)| run.len()).sum::<usize>();
                found.push(idle);
            }
        }
        let next = if keys.len() == LOOK { keys.last().and_then(Key::next).map(IdleCursor) } else { None };
        Ok((found, next))
    }

    async fn idle_bucket(&self, id: OverlayId, key: Key, upto: Position) -> Result<Option<IdleBucket>> {
        let Some(overlay) = self.find(id) else { return Ok(None) };
        let mut fetch = Fetch::new(&*self.chunks);
        fetch
            .run(|fetch| {
                let state = self.lock(fetch, &overlay)?;
                let version = state.get(&self.index, fetch, &key, Position::MAX)?;
                drop(state);
                let Some(version) = version.filter(|version| version.position <= upto) else { return Ok(None) };
                let Some(bucket) = version.value.as_deref().and_then(Bucket::decode) else { return Ok(None) };
                let mut runs = SmallVec::new();
                for run in log_runs(&bucket) {
                    let mut bytes = BytesMut::new();
                    for fragment in run {
                        let Source::Log { segment, offset, len } = fragment.source else { continue };
                        let piece = self.block(fetch, segment, offset, len)?;
                        bytes
                            .extend_from_slice(&piece[fragment.skip as usize..(fragment.skip + fragment.len) as usize]);
                    }
                    if bytes.len() >= MIN_RUN {
                        runs.push((run[0].start, bytes.freeze()));
                    }
                }
                Ok((!runs.is_empty()).then_some(IdleBucket { key, position: version.position, bucket, runs }))
            })
            .await
    }

    /// Let a bucket refer to these chunks, one for each of its runs. They must be durable. Nothing happens
    /// if it was written meanwhile.
    pub async fn adopt_chunks(self: &Arc<Self>, id: OverlayId, idle: &IdleBucket, chunks: &[ChunkId]) -> Result<bool> {
        if chunks.len() != idle.runs.len() {
            return Err(Error::internal("one chunk for each run"));
        }
        let mut bucket = idle.bucket.clone();
        for ((start, run), chunk) in idle.runs.iter().zip(chunks) {
            bucket.write(Fragment { start: *start, len: run.len() as u32, skip: 0, source: Source::Chunk(*chunk) });
        }
        let mut fetch = Fetch::new(&*self.chunks);
        fetch
            .run(|fetch| {
                let state = self.lock_for_change(fetch, id)?;
                let version = state.get(&self.index, fetch, &idle.key, Position::MAX)?;
                let Some(version) = version.filter(|version| version.position == idle.position) else {
                    return Ok(false);
                };
                self.relocate(state, idle.key, Some(bucket.encode()), SmallVec::new(), &version)?;
                Ok(true)
            })
            .await
    }
}

/// The runs of adjacent fragments that lie in the log.
fn log_runs(bucket: &Bucket) -> impl Iterator<Item = &[Fragment]> {
    let in_log = |fragment: &Fragment| matches!(fragment.source, Source::Log { .. });
    let adjacent = move |a: &Fragment, b: &Fragment| in_log(a) && in_log(b) && a.end() == b.start;
    bucket.fragments.chunk_by(adjacent).filter(move |run| in_log(&run[0]))
}

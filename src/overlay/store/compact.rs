//! Compaction: segments that hold little that is still referred to are emptied and removed.
//!
//! What the newest values of a segment refer to is written again, as a change like any other; what only
//! older versions refer to is written again and their rows are replaced. A segment goes when no row
//! refers to it, the log's replay begins behind it, and both are on stable storage.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::OverlayStore;
use crate::chunk::{Fetch, Step};
use crate::error::{Error, Result};
use crate::meta::Durability;
use crate::overlay::bucket::{Bucket, Source};
use crate::overlay::keys::{Key, Kind};
use crate::overlay::log::{MAX_PIECES, Record, SegmentId};
use crate::overlay::memtable::Version;
use crate::overlay::record::ChangeRecord;
use crate::overlay::{Counts, OverlayId, Position};

/// Live bytes of a segment, in hundredths of its length, below which it is emptied.
const SPARSE: u64 = 50;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    pub segments_emptied: u64,
    pub segments_removed: u64,
    pub bytes_moved: u64,
}

impl OverlayStore {
    /// Empty at most one sparse segment, and remove those that nothing refers to.
    pub async fn compact(self: &Arc<Self>) -> Result<Compacted> {
        self.flush(Durability::Synced).await?;
        let mut done = Compacted::default();
        if let Some(victim) = self.sparsest() {
            done.bytes_moved = self.empty(victim).await?;
            done.segments_emptied = 1;
            self.flush(Durability::Synced).await?;
        }
        done.segments_removed = self.remove_empty().await?;
        Ok(done)
    }

    /// The segment of which the smallest part is live, if that is small enough.
    fn sparsest(&self) -> Option<SegmentId> {
        let (live, segments) = (self.index.live(), self.log.segments());
        let (_, sealed) = segments.split_last()?;
        let part = |(id, len): &(SegmentId, u64)| {
            let live = live.get(id).copied().unwrap_or(0).max(0).unsigned_abs();
            (live > 0).then_some((live * 100 / (*len).max(1), *id))
        };
        sealed.iter().filter_map(part).min().filter(|(part, _)| *part < SPARSE).map(|(_, id)| id)
    }

    /// Remove the sealed segments that no row refers to and that no replay needs. The index must have been
    /// made durable.
    async fn remove_empty(&self) -> Result<u64> {
        // No flush meanwhile: what it writes refers to nothing that no row refers to now, but the rows
        // must be read together with the place where replay begins.
        let _turn = self.flushing.lock().await;
        let (live, from) = (self.index.live(), self.index.replay_from()?);
        let segments = self.log.segments();
        let empty = segments.iter().map(|(id, _)| *id).filter(|id| {
            *id < from.segment() && live.get(id).is_none_or(|bytes| *bytes == 0) && Some(*id) != last(&segments)
        });
        let mut removed = 0;
        for id in empty.collect::<Vec<_>>() {
            let (log, index) = (self.log.clone(), self.index.clone());
            let gone = tokio::task::spawn_blocking(move || {
                log.remove(id)?;
                index.forget_segment(id)
            });
            gone.await.map_err(|e| Error::internal("removing a segment").because(e))??;
            removed += 1;
        }
        Ok(removed)
    }

    /// Write everything anew that `victim` holds and something refers to. Answers how many bytes.
    async fn empty(self: &Arc<Self>, victim: SegmentId) -> Result<u64> {
        let mut moved = 0;
        let buckets = self.buckets_in(victim).await?;
        for (overlay, key) in &buckets {
            moved += self.move_head(*overlay, *key, victim).await?;
        }
        // Versions that were replaced just now, and those that were replaced long ago.
        self.flush(Durability::Buffered).await?;
        for (overlay, key) in &buckets {
            moved += self.move_history(*overlay, *key, victim).await?;
        }
        Ok(moved)
    }

    /// The buckets that records of the segment wrote.
    async fn buckets_in(&self, segment: SegmentId) -> Result<BTreeSet<(OverlayId, Key)>> {
        let log = self.log.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut buckets = BTreeSet::new();
            log.replay_segment(segment, &mut |replayed| {
                let record = ChangeRecord::decode(&replayed.body)
                    .ok_or_else(|| Error::corrupt(format!("a record of segment {} is damaged", segment.0)))?;
                let keys = record.values.iter().map(|(key, _)| *key).filter(|key| key.kind == Kind::Bucket);
                buckets.extend(keys.map(|key| (record.overlay, key)));
                Ok(())
            })?;
            Ok(buckets)
        });
        read.await.map_err(|e| Error::internal("reading a segment").because(e))?
    }

    async fn move_head(&self, id: OverlayId, key: Key, victim: SegmentId) -> Result<u64> {
        if self.find(id).is_none() {
            return Ok(0);
        }
        let mut fetch = Fetch::new(&*self.chunks);
        fetch
            .run(|fetch| {
                let state = self.lock_for_change(fetch, id)?;
                let Some(version) = state.get(&self.index, fetch, &key, Position::MAX)? else { return Ok(0) };
                let Some((bucket, data, moved)) = self.rewritten(fetch, &version, victim)? else { return Ok(0) };
                self.relocate(state, key, Some(bucket.encode()), data, &version)?;
                Ok(moved)
            })
            .await
    }

    /// Older versions of `key`: their data goes into a record that changes nothing, then their rows
    /// change.
    async fn move_history(&self, id: OverlayId, key: Key, victim: SegmentId) -> Result<u64> {
        let mut total = 0;
        let versions = self.exclusively(move |index| index.versions(id, &key)).await?;
        for version in versions {
            let mut fetch = Fetch::new(&*self.chunks);
            let Some((mut bucket, data, moved)) = fetch.run(|fetch| self.rewritten(fetch, &version, victim)).await?
            else {
                continue;
            };
            let counts = Counts::default();
            let body =
                ChangeRecord { overlay: id, position: 0, moved: true, counts, values: Vec::new(), receipt: None }
                    .encode()?;
            let appended = self.log.append(Record { body, data })?;
            self.log.sync(appended.lsn).await?;
            let place = |index: u32| appended.pieces.get(index as usize).copied();
            bucket.resolve(appended.segment, place).ok_or_else(|| Error::internal("a piece was not appended"))?;
            let replaced = Version { value: Some(bucket.encode()), ..version.clone() };
            self.exclusively(move |index| index.replace_version(id, &key, &version, &replaced)).await?;
            total += moved;
        }
        Ok(total)
    }

    /// The bucket with what `victim` holds of it as new pieces; `None` if it refers to nothing there.
    #[allow(clippy::type_complexity, reason = "the parts of one answer, used twice, close by")]
    fn rewritten(
        &self,
        fetch: &mut Fetch<'_>,
        version: &Version,
        victim: SegmentId,
    ) -> Step<Option<(Bucket, SmallVec<[Bytes; 2]>, u64)>> {
        let Some(mut bucket) = version.value.as_deref().and_then(Bucket::decode) else { return Ok(None) };
        let (mut data, mut moved) = (SmallVec::new(), 0);
        for fragment in &mut bucket.fragments {
            let Source::Log { segment, offset, len } = fragment.source else { continue };
            if segment != victim || data.len() == MAX_PIECES {
                continue;
            }
            let piece = self.block(fetch, segment, offset, len)?;
            let (from, len) = (fragment.skip as usize, fragment.len);
            data.push(piece.slice(from..from + len as usize));
            fragment.skip = 0;
            fragment.source = Source::Own { index: data.len() as u32 - 1, len };
            moved += u64::from(len);
        }
        Ok((!data.is_empty()).then_some((bucket, data, moved)))
    }
}

fn last(segments: &[(SegmentId, u64)]) -> Option<SegmentId> {
    segments.last().map(|(id, _)| *id)
}

//! Compaction: segments that hold little that is still referred to are emptied and removed.
//!
//! What the newest values refer to is written again, and they refer to that. What older ones refer to is
//! written again too, and then other rows take the place of theirs. Most of
//! what refers to a segment is told by its own records; rows that were copied by a flattening are found
//! by a walk over the index. A segment goes when no row refers to it and the log's replay begins
//! behind it, and both are on stable storage.
//!
//! Failure story: a segment that cannot be emptied stays, is told, and hinders no other.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::OverlayStore;
use crate::chunk::{Fetch, Step};
use crate::error::{Error, Result};
use crate::meta::Durability;
use crate::overlay::bucket::{Bucket, Source};
use crate::overlay::index::{Buckets, Index, RowCursor};
use crate::overlay::keys::{Key, Kind};
use crate::overlay::log::{MAX_PIECES, Record, SegmentId};
use crate::overlay::memtable::Version;
use crate::overlay::record::ChangeRecord;
use crate::overlay::{Counts, OverlayId, Position};

/// Live bytes of a segment, in hundredths of its length, below which it is emptied.
const SPARSE: u64 = 50;
/// Rows that are looked at together.
const LOOK: usize = 4096;
/// Segments that are removed together.
const REMOVALS: usize = 16;
/// Buckets of which all versions are moved together.
const BUCKETS: usize = 64;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    pub segments_removed: u64,
    pub bytes_moved: u64,
}

impl OverlayStore {
    /// The segments that are worth emptying, the best last.
    pub async fn sparse_segments(self: &Arc<Self>) -> Result<Vec<SegmentId>> {
        self.flush(Durability::Buffered).await?;
        let (live, segments) = (self.index.live(), self.log.segments());
        let Some((_, sealed)) = segments.split_last() else { return Ok(Vec::new()) };
        let part = |(id, len): &(SegmentId, u64)| {
            let live = live.get(id).copied().unwrap_or(0).max(0).unsigned_abs();
            (live > 0).then_some((live * 100 / (*len).max(1), *id))
        };
        let mut sparse: Vec<_> = sealed.iter().filter_map(part).filter(|(part, _)| *part < SPARSE).collect();
        sparse.sort_unstable_by(|a, b| b.cmp(a));
        Ok(sparse.into_iter().map(|(_, id)| id).collect())
    }

    /// Remove segments that nothing refers to, then empty segment `victim`: it goes with the next call, when
    /// whoever found a place in it has read it.
    pub async fn compact(self: &Arc<Self>, victim: Option<SegmentId>) -> Result<Compacted> {
        // Also if nothing changed: it moves the place where replay begins.
        self.flush(Durability::Synced).await?;
        let segments_removed = self.remove_empty().await?;
        let mut bytes_moved = 0;
        if let Some(victim) = victim.filter(|victim| self.is_live(*victim)) {
            bytes_moved = self.empty(victim).await?;
            self.flush(Durability::Buffered).await?;
            if self.is_live(victim) {
                tracing::warn!(segment = %victim, "a segment of the log is not empty after compaction; another is tried");
            }
        }
        Ok(Compacted { segments_removed, bytes_moved })
    }

    /// Bytes of the sealed segments that no row refers to.
    pub fn dead_bytes(&self) -> u64 {
        let (live, segments) = (self.index.live(), self.log.segments());
        let live = |id| live.get(&id).map_or(0, |bytes| bytes.max(&0).unsigned_abs());
        let sealed = segments.split_last().map_or(&[][..], |(_, sealed)| sealed);
        sealed.iter().map(|(id, len)| len.saturating_sub(live(*id))).sum()
    }

    /// Whether rows refer to it.
    fn is_live(&self, segment: SegmentId) -> bool {
        self.index.live().get(&segment).is_some_and(|bytes| *bytes > 0)
    }

    /// Remove some of the sealed segments that no row refers to and that no replay needs.
    pub(in crate::overlay) async fn remove_empty(&self) -> Result<u64> {
        // No flush meanwhile: what it writes refers to nothing that no row refers to now, but the rows
        // must be read together with the place where replay begins.
        let _turn = self.flushing.lock().await;
        // After a power cut both must be as they are read here, or what they need would be gone.
        let from = self.on_index(|index| index.sync()).await?;
        let (live, segments) = (self.index.live(), self.log.segments());
        let empty = segments.iter().map(|(id, _)| *id).filter(|id| {
            *id < from.segment() && live.get(id).is_none_or(|bytes| *bytes == 0) && Some(*id) != last(&segments)
        });
        let mut removed = 0;
        for id in empty.take(REMOVALS) {
            let log = self.log.clone();
            let gone = self.on_index(move |index| {
                log.remove(id)?;
                index.forget_segment(id)
            });
            gone.await?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Write everything anew that `victim` holds and something refers to. Answers how many bytes.
    async fn empty(self: &Arc<Self>, victim: SegmentId) -> Result<u64> {
        let written = self.buckets_in(victim).await?;
        let mut moved = self.move_buckets(&written, victim).await?;
        let mut next = Some(RowCursor::default());
        while let Some(from) = next.take().filter(|_| self.is_live(victim)) {
            let (found, more) = self.exclusively(move |index| index.referring(victim, &from, LOOK)).await?;
            moved += self.move_buckets(&found, victim).await?;
            next = more;
        }
        Ok(moved)
    }

    /// The buckets that records of the segment wrote.
    async fn buckets_in(&self, segment: SegmentId) -> Result<Buckets> {
        let log = self.log.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut buckets = Buckets::new();
            log.replay_segment(segment, &mut |replayed| {
                let record = ChangeRecord::decode(&replayed.body)
                    .ok_or_else(|| Error::corrupt(format!("a record of segment {segment} is damaged")))?;
                let keys = record.values.iter().map(|(key, _)| *key).filter(|key| key.kind == Kind::Bucket);
                buckets.extend(keys.map(|key| (record.overlay, key)));
                Ok(())
            })?;
            Ok(buckets)
        });
        read.await.map_err(|e| Error::internal("reading a segment").because(e))?
    }

    /// Write anew what all versions of these buckets refer to in `victim`.
    async fn move_buckets(self: &Arc<Self>, buckets: &Buckets, victim: SegmentId) -> Result<u64> {
        let mut moved = 0;
        for (overlay, key) in buckets {
            while let more @ 1.. = self.move_head(*overlay, *key, victim).await? {
                moved += more;
            }
        }
        if !buckets.is_empty() {
            // What is read from the index now is what was moved.
            self.flush(Durability::Buffered).await?;
        }
        for some in buckets.iter().copied().collect::<Vec<_>>().chunks(BUCKETS) {
            while let more @ 1.. = self.move_rows(some, victim).await? {
                moved += more;
            }
        }
        Ok(moved)
    }

    /// The newest version of `key`.
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

    /// The versions of `buckets` in the index: their data goes into records that change nothing, then
    /// other rows take their place.
    async fn move_rows(&self, buckets: &[(OverlayId, Key)], victim: SegmentId) -> Result<u64> {
        let (mut total, mut replaced) = (0, Vec::new());
        for (id, key) in buckets.iter().copied() {
            for version in self.exclusively(move |index| index.versions(id, &key)).await? {
                let mut fetch = Fetch::new(&*self.chunks);
                let rewritten = fetch.run(|fetch| self.rewritten(fetch, &version, victim)).await?;
                let Some((bucket, data, moved)) = rewritten else { continue };
                let value = Some(self.append_moved(id, key, bucket, data).await?);
                replaced.push((id, key, Version { value, ..version.clone() }, version));
                total += moved;
            }
        }
        if !replaced.is_empty() {
            self.sync().await?;
            let replace = move |index: &Index| {
                replaced.iter().try_for_each(|(id, key, new, old)| index.replace_version(*id, key, old, new))
            };
            self.exclusively(replace).await?;
        }
        Ok(total)
    }

    /// Append the data of a bucket; answers the value that refers to it.
    async fn append_moved(
        &self,
        overlay: OverlayId,
        key: Key,
        mut bucket: Bucket,
        data: SmallVec<[Bytes; 2]>,
    ) -> Result<Bytes> {
        while let Some(room) = self.log.room() {
            room.await;
        }
        // Names the bucket, so that it is found when this segment is emptied in its turn.
        let values = vec![(key, None)];
        let counts = Counts::default();
        let body = ChangeRecord { overlay, position: 0, moved: true, counts, values, receipt: None }.encode()?;
        let appended = self.log.append(Record { body, data })?;
        let place = |index: u32| appended.pieces.get(index as usize).copied();
        bucket.resolve(appended.segment, place).ok_or_else(|| Error::internal("a piece was not appended"))?;
        Ok(bucket.encode())
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

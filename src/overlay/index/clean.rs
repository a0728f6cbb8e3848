//! Deleting rows: of overlays that nobody names, of versions that nobody shows.

use std::ops::ControlFlow;

use super::{Delta, Index, damaged};
use crate::error::Result;
use crate::meta::{Batch, Durability, prefix_end};
use crate::overlay::keys::{HEADS, HISTORY, Key, OVERLAYS, SEGMENTS};
use crate::overlay::log::SegmentId;
use crate::overlay::{OverlayId, Position};

impl Index {
    /// Delete up to `most` values of an overlay; answers how many there were. Blocks.
    pub fn purge_overlay(&self, overlay: OverlayId, most: usize) -> Result<u64> {
        let from = overlay.0.to_be_bytes();
        let (mut batch, mut delta, mut bad) = (Batch::new(), Delta::default(), None);
        for (table, skip) in [(HISTORY, 0), (HEADS, 8)] {
            self.kv.scan(table, &from, &prefix_end(&from), &mut |key, row| {
                if batch.ops.len() == most {
                    return ControlFlow::Break(());
                }
                bad = bad.take().or(delta.take_row(key, row.get(skip..).unwrap_or_default()).err());
                batch.delete(table, key);
                ControlFlow::Continue(())
            })?;
        }
        let deleted = batch.ops.len() as u64;
        match bad {
            Some(bad) => Err(bad),
            None if deleted == 0 => Ok(0),
            None => self.write(batch, &delta).map(|()| deleted),
        }
    }

    /// Delete the row of an overlay that has no values any more. Blocks.
    pub fn forget_overlay(&self, overlay: OverlayId) -> Result<()> {
        let mut batch = Batch::new();
        batch.delete(OVERLAYS, overlay.0.to_be_bytes());
        self.kv.write(batch, Durability::Buffered)
    }

    /// Delete the row of a segment that nothing refers to. Blocks.
    pub fn forget_segment(&self, segment: SegmentId) -> Result<()> {
        self.live.lock().remove(&segment);
        let mut batch = Batch::new();
        batch.delete(SEGMENTS, segment.0.to_be_bytes());
        self.kv.write(batch, Durability::Buffered)
    }

    /// Of the rows of `history` of an overlay from `from` on (empty: all), at most `most`, delete those
    /// that none of `marks` shows. Answers how many, and where to go on. Blocks.
    pub fn purge_history(
        &self,
        overlay: OverlayId,
        marks: &[Position],
        from: &[u8],
        most: usize,
    ) -> Result<(u64, Option<Vec<u8>>)> {
        let prefix = overlay.0.to_be_bytes();
        let from = if from.is_empty() { &prefix[..] } else { from };
        let mut rows = Vec::new();
        let mut next = None;
        self.kv.scan(HISTORY, from, &prefix_end(&prefix), &mut |key, row| {
            if rows.len() == most {
                next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            rows.push((key.to_vec(), row.to_vec()));
            ControlFlow::Continue(())
        })?;
        let (mut batch, mut delta, mut newer) = (Batch::new(), Delta::default(), None);
        for (row_key, row) in &rows {
            let parsed = Key::parse_version(row_key).ok_or_else(|| damaged("an older private value"))?;
            let (_, key, position) = parsed;
            // Newest first: the life of a version ends where the one before it in this order begins.
            let end = match newer {
                Some((same, end)) if same == key => end,
                _ => self.successor(overlay, &key, position)?,
            };
            newer = Some((key, position));
            let first = marks.partition_point(|mark| *mark < position);
            if marks.get(first).is_none_or(|mark| *mark >= end) {
                delta.take_row(row_key, row)?;
                batch.delete(HISTORY, row_key.as_slice());
            }
        }
        let deleted = batch.ops.len() as u64;
        if deleted > 0 {
            self.write(batch, &delta)?;
        }
        Ok((deleted, next))
    }

    /// The position at which the version of `key` that was written at `position` was replaced.
    fn successor(&self, overlay: OverlayId, key: &Key, position: Position) -> Result<Position> {
        let (from, to) = (key.version(overlay, Position::MAX), key.version(overlay, position));
        let mut end = None;
        self.kv.scan(HISTORY, &from, &to, &mut |key, _| {
            end = Key::parse_version(key).map(|(_, _, position)| position);
            ControlFlow::Continue(())
        })?;
        let head = || Ok(self.head(overlay, key)?.map_or(Position::MAX, |head| head.position));
        end.map_or_else(head, Ok)
    }
}

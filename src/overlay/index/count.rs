//! Counting anew what is kept as counts.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{Delta, Index, damaged, decode_head, take_value};
use crate::error::Result;
use crate::meta::prefix_end;
use crate::overlay::bucket::Bucket;
use crate::overlay::keys::{HEADS, HISTORY, Key, Kind};
use crate::overlay::log::SegmentId;
use crate::overlay::memtable::Version;
use crate::overlay::{Counts, OverlayId};

impl Index {
    /// What the overlay holds, counted anew. Blocks.
    pub fn recount(&self, overlay: OverlayId) -> Result<Counts> {
        let from = overlay.0.to_be_bytes();
        let (mut counts, mut bad) = (Counts::default(), None);
        self.kv.scan(HEADS, &from, &prefix_end(&from), &mut |key, row| {
            match (Key::parse(key), decode_head(row)) {
                (Some((_, key)), Ok(Version { value: Some(value), .. })) => match key.kind {
                    Kind::Node => counts.inodes += 1,
                    Kind::Bucket => match Bucket::decode(&value) {
                        Some(bucket) => counts.bytes += bucket.stored(),
                        None => bad = Some(damaged("a bucket")),
                    },
                    Kind::Entry | Kind::Orphan => {}
                },
                (Some(_), Ok(_)) => {}
                _ => bad = Some(damaged("a private value")),
            }
            ControlFlow::Continue(())
        })?;
        bad.map_or(Ok(counts), Err)
    }

    /// Count bytes that no value refers to.
    #[cfg(test)]
    pub fn miscount(&self, segment: SegmentId, bytes: i64) {
        *self.live.lock().entry(segment).or_insert(0) += bytes;
    }

    /// Bytes that values in the tables refer to, by segment, counted anew. Blocks.
    pub fn recount_live(&self) -> Result<BTreeMap<SegmentId, i64>> {
        let (mut delta, mut bad) = (Delta::default(), None);
        for (table, skip) in [(HEADS, 8), (HISTORY, 0)] {
            self.kv.scan(table, &[], &[], &mut |key, row| {
                let added = match (Key::parse(key), row.get(skip..).and_then(take_value)) {
                    (Some((_, key)), Some(value)) => delta.add(&key, &value, 1),
                    _ => Err(damaged("a private value")),
                };
                bad = bad.take().or(added.err());
                ControlFlow::Continue(())
            })?;
        }
        bad.map_or(Ok(delta.0), Err)
    }
}

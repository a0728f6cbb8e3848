//! Rows of data that is moved within the log: which refer to a segment, and putting others in their place
//! that show the same.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::{Delta, Index, damaged, decode_head, decode_version, encode_head, encode_value, take_value};
use crate::error::Result;
use crate::meta::{Batch, Table, prefix_end};
use crate::overlay::OverlayId;
use crate::overlay::bucket::{Bucket, Source};
use crate::overlay::keys::{HEADS, HISTORY, Key, Kind};
use crate::overlay::log::SegmentId;
use crate::overlay::memtable::Version;

/// Buckets of files, in whichever overlays.
pub type Buckets = BTreeSet<(OverlayId, Key)>;

/// Where a walk over all values goes on. The default is its begin.
#[derive(Clone, Debug)]
pub struct RowCursor {
    table: Table,
    from: Vec<u8>,
}

impl Default for RowCursor {
    fn default() -> Self {
        Self { table: HEADS, from: Vec::new() }
    }
}

impl Index {
    /// Of `most` rows, the buckets that refer to `segment`; and where to go on, if there are more. Blocks.
    pub fn referring(
        &self,
        segment: SegmentId,
        cursor: &RowCursor,
        most: usize,
    ) -> Result<(Buckets, Option<RowCursor>)> {
        let RowCursor { table, from } = cursor;
        let skip = if *table == HEADS { 8 } else { 0 };
        let (mut found, mut looked, mut next, mut bad) = (Buckets::new(), 0, None, None);
        self.kv.scan(table, from, &[], &mut |key, row| {
            if looked == most {
                next = Some(RowCursor { table, from: key.to_vec() });
                return ControlFlow::Break(());
            }
            looked += 1;
            match refers(segment, key, row.get(skip..).unwrap_or_default()) {
                Ok(bucket) => found.extend(bucket),
                Err(damage) => bad = Some(damage),
            }
            ControlFlow::Continue(())
        })?;
        let history = || (*table == HEADS).then(|| RowCursor { table: HISTORY, from: Vec::new() });
        bad.map_or(Ok((found, next.or_else(history))), Err)
    }

    /// All versions of `key`. Blocks.
    pub fn versions(&self, overlay: OverlayId, key: &Key) -> Result<Vec<Version>> {
        let from = key.head(overlay);
        let mut versions: Vec<_> = self.head(overlay, key)?.into_iter().map(Ok).collect();
        self.kv.scan(HISTORY, &from, &prefix_end(&from), &mut |key, row| {
            versions.push(decode_version(key, row));
            ControlFlow::Continue(())
        })?;
        versions.into_iter().collect()
    }

    /// Put `new` in the place of a version that shows the same, if that is still there. Blocks.
    pub fn replace_version(&self, overlay: OverlayId, key: &Key, old: &Version, new: &Version) -> Result<()> {
        let (mut batch, mut delta) = (Batch::new(), Delta::default());
        let (head, older) = (key.head(overlay), key.version(overlay, old.position));
        if self.kv.get(HEADS, &head)?.is_some_and(|row| decode_head(&row).ok().as_ref() == Some(old)) {
            batch.put(HEADS, head, encode_head(new));
        } else if self.kv.get(HISTORY, &older)?.is_some_and(|row| take_value(&row).as_ref() == Some(&old.value)) {
            batch.put(HISTORY, older, encode_value(&new.value));
        } else {
            return Ok(());
        }
        delta.add(key, &old.value, -1)?;
        delta.add(key, &new.value, 1)?;
        self.write(batch, &delta)
    }
}

/// The bucket of a row (without its position, if it is one of `heads`), if it refers to `segment`.
fn refers(segment: SegmentId, key: &[u8], row: &[u8]) -> Result<Option<(OverlayId, Key)>> {
    let (overlay, key) = Key::parse(key).ok_or_else(|| damaged("a private value"))?;
    let value = take_value(row).ok_or_else(|| damaged("a private value"))?;
    let (Kind::Bucket, Some(bytes)) = (key.kind, value) else { return Ok(None) };
    let bucket = Bucket::decode(&bytes).ok_or_else(|| damaged("a bucket"))?;
    let there = |source: Source| matches!(source, Source::Log { segment: at, .. } if at == segment);
    Ok(bucket.fragments.iter().any(|fragment| there(fragment.source)).then_some((overlay, key)))
}

//! The index over the log: the newest value of every private key, and the older ones that sealed
//! layers show, in ordered tables.
//!
//! Owns the tables and what is written to them. Only what is durable in the log comes in, one overlay
//! in one batch with the position that it leads to; batches are buffered and reach the disk in order,
//! so that after a crash the tables are the state of some earlier moment, and say which one.
//!
//! Reading asks the store's memory first; what would take reading the disk is fetched on a thread that
//! may block, and the caller tries again.

mod clean;
mod copy;
mod count;
mod moved;

pub use copy::Copy;
pub use moved::{Buckets, RowCursor};

use std::collections::{BTreeMap, HashMap};
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::bucket::{Bucket, Source};
use super::keys::{HEADS, HISTORY, Key, Kind, OVERLAYS, RECEIPTS, SEGMENTS, STATE};
use super::log::{Lsn, SegmentId};
use super::memtable::{Memtable, Version};
use super::record::{Receipt, Value};
use super::{Counts, OverlayId, Position};
use crate::chunk::{Fetch, Step};
use crate::error::{Error, Result};
use crate::meta::{Batch, Cached, Durability, KvStore, prefix_end};

/// Rows that one look into a range brings in.
pub const PAGE: usize = 512;
/// Receipts that are kept; older ones are dropped.
const MAX_RECEIPTS: usize = 32 * 1024;

pub const REPLAY: &[u8] = b"replay";
pub const EPOCH: &[u8] = b"epoch";

/// The row of one overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverlayRow {
    pub position: Position,
    pub counts: Counts,
}

/// The index of a store.
pub struct Index {
    kv: Arc<dyn KvStore>,
    /// Bytes that values in the tables refer to, by segment. Those that a value in memory alone refers
    /// to are in segments that replay still needs.
    live: Mutex<BTreeMap<SegmentId, i64>>,
}

/// What one flush of one overlay writes.
pub struct Flush<'a> {
    pub overlay: OverlayId,
    pub row: OverlayRow,
    pub table: &'a Memtable,
    /// Whether any sealed layer names the overlay: else nothing that was erased leaves a mark.
    pub sealed: bool,
}

impl Index {
    pub fn open(kv: Arc<dyn KvStore>) -> Result<Self> {
        let mut live = BTreeMap::new();
        let mut bad = None;
        kv.scan(SEGMENTS, &[], &[], &mut |key, value| {
            match (key.try_into().map(u32::from_be_bytes), value.try_into().map(i64::from_be_bytes)) {
                (Ok(segment), Ok(bytes)) => drop(live.insert(SegmentId(segment), bytes)),
                _ => bad = Some(damaged("a segment's row")),
            }
            ControlFlow::Continue(())
        })?;
        bad.map_or(Ok(Self { kv, live: Mutex::new(live) }), Err)
    }

    /// The tables.
    pub fn kv(&self) -> &dyn KvStore {
        &*self.kv
    }

    /// The number of this start: greater than that of every start before. Durable when it returns.
    pub fn next_epoch(kv: &dyn KvStore) -> Result<u64> {
        let epoch = number(kv, EPOCH)?.unwrap_or(0) + 1;
        let mut batch = Batch::new();
        batch.put(STATE, EPOCH, epoch.to_be_bytes());
        kv.write(batch, Durability::Synced)?;
        Ok(epoch)
    }

    /// Everything in the log up to here is in the tables.
    pub fn replay_from(&self) -> Result<Lsn> {
        Ok(Lsn(number(&*self.kv, REPLAY)?.unwrap_or(0)))
    }

    /// Every overlay that was ever written.
    pub fn overlays(&self) -> Result<HashMap<OverlayId, OverlayRow>> {
        let mut rows = HashMap::new();
        let mut bad = None;
        self.kv.scan(OVERLAYS, &[], &[], &mut |key, value| {
            match (key.try_into().map(u64::from_be_bytes), OverlayRow::decode(value)) {
                (Ok(id), Some(row)) => drop(rows.insert(OverlayId(id), row)),
                _ => bad = Some(damaged("an overlay's row")),
            }
            ControlFlow::Continue(())
        })?;
        bad.map_or(Ok(rows), Err)
    }

    /// The newest receipts, oldest first.
    pub fn receipts(&self) -> Result<Vec<Receipt>> {
        let mut receipts = Vec::new();
        self.kv.scan(RECEIPTS, &[], &[], &mut |_, value| {
            if let Some((key, answer)) = value.split_first_chunk() {
                receipts.push(Receipt { key: *key, answer: Bytes::copy_from_slice(answer) });
            }
            ControlFlow::Continue(())
        })?;
        Ok(receipts)
    }

    /// The newest version of `key` in the tables that is not after `upto`.
    pub fn get(&self, fetch: &mut Fetch<'_>, overlay: OverlayId, key: &Key, upto: Position) -> Step<Option<Version>> {
        let at = key.head(overlay);
        let head = match self.kv.get_cached(HEADS, &at)? {
            Cached::Known(head) => head.map(|row| decode_head(&row)).transpose()?,
            Cached::Cold => return Err(self.warm(fetch, move |kv| kv.get(HEADS, &at).map(drop))),
        };
        match head {
            Some(version) if version.position <= upto => Ok(Some(version)),
            _ if upto == Position::MAX => Ok(None),
            _ => self.get_older(fetch, overlay, key, upto),
        }
    }

    fn get_older(&self, fetch: &mut Fetch<'_>, overlay: OverlayId, key: &Key, upto: Position) -> Step<Option<Version>> {
        let (from, to) = (key.version(overlay, upto), prefix_end(&key.head(overlay)));
        let mut found = None;
        let mut first = |key: &[u8], value: &[u8]| {
            found = Some(decode_version(key, value));
            ControlFlow::Break(())
        };
        match self.kv.scan_cached(HISTORY, &from, &to, &mut first)? {
            Cached::Cold if found.is_none() => {
                Err(self.warm(fetch, move |kv| kv.scan(HISTORY, &from, &to, &mut |_, _| ControlFlow::Break(()))))
            }
            _ => Ok(found.transpose()?),
        }
    }

    /// The newest versions of the keys of `range`, in order, at most [`PAGE`] of them; with `true` if
    /// there may be more.
    pub fn page(
        &self,
        fetch: &mut Fetch<'_>,
        overlay: OverlayId,
        range: &RangeInclusive<Key>,
    ) -> Step<(Vec<(Key, Version)>, bool)> {
        let (from, mut to) = (range.start().head(overlay).to_vec(), range.end().head(overlay).to_vec());
        to.push(0);
        let mut rows = Vec::new();
        let mut bad = None;
        let mut row = |key: &[u8], value: &[u8]| {
            match (Key::parse(key), decode_head(value)) {
                (Some((_, key)), Ok(version)) => rows.push((key, version)),
                _ => bad = Some(damaged("a private value")),
            }
            if rows.len() < PAGE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let scanned = self.kv.scan_cached(HEADS, &from, &to, &mut row)?;
        if let Some(bad) = bad {
            return Err(bad.into());
        }
        if scanned == Cached::Cold {
            let mut left = PAGE;
            return Err(self.warm(fetch, move |kv| {
                kv.scan(HEADS, &from, &to, &mut |_, _| {
                    left -= 1;
                    if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })
            }));
        }
        let more = rows.len() == PAGE;
        Ok((rows, more))
    }

    /// Read what a call needs on a thread that may block, so that it is in memory when it runs again.
    fn warm(
        &self,
        fetch: &mut Fetch<'_>,
        read: impl FnOnce(&dyn KvStore) -> Result<()> + Send + 'static,
    ) -> crate::chunk::Stop {
        let kv = self.kv.clone();
        fetch.wait_for(async move {
            let read = tokio::task::spawn_blocking(move || read(&*kv)).await;
            read.map_err(|e| Error::internal("reading the index").because(e))?
        })
    }

    /// The keys of an overlay from `from` to `to`, at most `most`. Blocks.
    pub fn keys(&self, overlay: OverlayId, from: Key, to: Key, most: usize) -> Result<Vec<Key>> {
        let mut end = to.head(overlay).to_vec();
        end.push(0);
        let mut keys = Vec::new();
        self.kv.scan(HEADS, &from.head(overlay), &end, &mut |key, _| {
            if keys.len() == most {
                return ControlFlow::Break(());
            }
            keys.extend(Key::parse(key).map(|(_, key)| key));
            ControlFlow::Continue(())
        })?;
        Ok(keys)
    }

    /// The same keys with their newest versions. Blocks.
    pub fn heads(&self, overlay: OverlayId, from: Key, to: Key, most: usize) -> Result<Vec<(Key, Version)>> {
        let mut end = to.head(overlay).to_vec();
        end.push(0);
        let (mut heads, mut bad) = (Vec::new(), None);
        self.kv.scan(HEADS, &from.head(overlay), &end, &mut |key, row| {
            match (Key::parse(key), decode_head(row)) {
                (Some((_, key)), Ok(version)) => heads.push((key, version)),
                _ => bad = Some(damaged("a private value")),
            }
            if bad.is_none() && heads.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        bad.map_or(Ok(heads), Err)
    }

    /// [`get`](Self::get) for a thread that may block.
    pub fn at(&self, overlay: OverlayId, key: &Key, upto: Position) -> Result<Option<Version>> {
        if let Some(head) = self.head(overlay, key)?.filter(|head| head.position <= upto) {
            return Ok(Some(head));
        }
        let (from, to) = (key.version(overlay, upto), prefix_end(&key.head(overlay)));
        let mut found = None;
        self.kv.scan(HISTORY, &from, &to, &mut |key, row| {
            found = Some(decode_version(key, row));
            ControlFlow::Break(())
        })?;
        found.transpose()
    }

    /// [`get`](Self::get) of the newest version for a thread that may block.
    pub fn head(&self, overlay: OverlayId, key: &Key) -> Result<Option<Version>> {
        self.kv.get(HEADS, &key.head(overlay))?.map(|row| decode_head(&row)).transpose()
    }

    /// The inode numbers of which the overlay has private state; `None` if there are more than `most`.
    pub fn inodes(&self, overlay: OverlayId, most: usize) -> Result<Option<Vec<u64>>> {
        let first = Key { kind: Kind::Node, a: 0, b: 0 };
        let from = first.head(overlay);
        let mut inodes = Vec::new();
        let mut many = false;
        self.kv.scan(HEADS, &from, &prefix_end(&from[..9]), &mut |key, _| {
            inodes.extend(Key::parse(key).map(|(_, key)| key.a));
            many = inodes.len() > most;
            if many { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok((!many).then_some(inodes))
    }

    /// Whether older versions of anything in the overlay are kept. Blocks.
    pub fn has_history(&self, overlay: OverlayId) -> Result<bool> {
        let from = overlay.0.to_be_bytes();
        let mut found = false;
        self.kv.scan(HISTORY, &from, &prefix_end(&from), &mut |_, _| {
            found = true;
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Write what one overlay changed. Blocks. After a crash all of it is there or nothing.
    pub fn flush(&self, flush: &Flush<'_>) -> Result<()> {
        let Flush { overlay, row, table, sealed } = flush;
        let mut batch = Batch::new();
        let mut delta = Delta::default();
        for ((key, position), value) in &table.history {
            batch.put(HISTORY, key.version(*overlay, position.0), encode_value(value));
            delta.add(key, value, 1)?;
        }
        for (key, version) in &table.heads {
            let former = if key.kind == Kind::Bucket { self.head(*overlay, key)? } else { None };
            if let Some(former) = former {
                delta.add(key, &former.value, -1)?;
            }
            delta.add(key, &version.value, 1)?;
            if version.value.is_none() && !sealed {
                batch.delete(HEADS, key.head(*overlay));
            } else {
                batch.put(HEADS, key.head(*overlay), encode_head(version));
            }
        }
        batch.put(OVERLAYS, overlay.0.to_be_bytes(), row.encode());
        self.write(batch, &delta)
    }

    /// Write a batch together with the live bytes that it changes.
    fn write(&self, batch: Batch, delta: &Delta) -> Result<()> {
        self.write_as(batch, delta, Durability::Buffered)
    }

    fn write_as(&self, mut batch: Batch, delta: &Delta, durability: Durability) -> Result<()> {
        let mut live = self.live.lock();
        for (segment, change) in &delta.0 {
            let bytes = live.entry(*segment).or_insert(0);
            *bytes += change;
            batch.put(SEGMENTS, segment.0.to_be_bytes(), bytes.to_be_bytes());
        }
        self.kv.write(batch, durability)
    }

    /// Note that replay need not go back beyond `from`, and add receipts.
    pub fn checkpoint(&self, from: Lsn, receipts: &[(Lsn, Receipt)], durability: Durability) -> Result<()> {
        let mut batch = Batch::new();
        for (lsn, receipt) in receipts {
            batch.put(RECEIPTS, lsn.0.to_be_bytes(), [&receipt.key[..], &receipt.answer].concat());
        }
        batch.put(STATE, REPLAY, from.0.to_be_bytes());
        self.kv.write(batch, durability)
    }

    /// Bring everything that was written to stable storage; answers where a replay would begin.
    pub fn sync(&self) -> Result<Lsn> {
        let from = self.replay_from()?;
        self.checkpoint(from, &[], Durability::Synced)?;
        Ok(from)
    }

    /// Drop all receipts but the newest.
    pub fn trim_receipts(&self) -> Result<()> {
        let mut keys = Vec::new();
        self.kv.scan(RECEIPTS, &[], &[], &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        let Some(first_kept) = keys.len().checked_sub(MAX_RECEIPTS) else { return Ok(()) };
        let mut batch = Batch::new();
        batch.delete_range(RECEIPTS, Vec::new(), keys.swap_remove(first_kept));
        self.kv.write(batch, Durability::Buffered)
    }

    /// Bytes that values in the tables refer to, by segment.
    pub fn live(&self) -> BTreeMap<SegmentId, i64> {
        self.live.lock().clone()
    }
}

/// By how much the live bytes of segments change.
#[derive(Default)]
struct Delta(BTreeMap<SegmentId, i64>);

impl Delta {
    /// A row (without its position, if it is one of `heads`) goes.
    fn take_row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match (Key::parse(key), take_value(value)) {
            (Some((_, key)), Some(value)) => self.add(&key, &value, -1),
            _ => Err(damaged("a private value")),
        }
    }

    fn add(&mut self, key: &Key, value: &Value, sign: i64) -> Result<()> {
        let (Kind::Bucket, Some(bytes)) = (key.kind, value) else { return Ok(()) };
        let bucket = Bucket::decode(bytes).ok_or_else(|| damaged("a bucket"))?;
        for fragment in &bucket.fragments {
            if let Source::Log { segment, .. } = fragment.source {
                *self.0.entry(segment).or_insert(0) += sign * i64::from(fragment.len);
            }
        }
        Ok(())
    }
}

impl OverlayRow {
    fn encode(&self) -> Vec<u8> {
        [self.position, self.counts.bytes, self.counts.inodes].map(u64::to_be_bytes).concat()
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let &[position, bytes, inodes] = words else { return None };
        let [position, bytes, inodes] = [position, bytes, inodes].map(u64::from_be_bytes);
        Some(Self { position, counts: Counts { bytes, inodes } })
    }
}

fn number(kv: &dyn KvStore, key: &[u8]) -> Result<Option<u64>> {
    let Some(row) = kv.get(STATE, key)? else { return Ok(None) };
    let word = row.as_slice().try_into().map_err(|_| damaged("a row of the index's state"))?;
    Ok(Some(u64::from_be_bytes(word)))
}

fn damaged(what: &str) -> Error {
    Error::corrupt(format!("{what} in the index of private writes is damaged")).remedy("run `mimeo fsck`")
}

/// Position (8), then the value.
fn encode_head(version: &Version) -> Vec<u8> {
    let mut row = version.position.to_be_bytes().to_vec();
    put_value(&mut row, &version.value);
    row
}

fn encode_value(value: &Value) -> Vec<u8> {
    let mut row = Vec::new();
    put_value(&mut row, value);
    row
}

/// 0 where the layer says nothing any more; else 1 and the bytes.
fn put_value(row: &mut Vec<u8>, value: &Value) {
    row.push(u8::from(value.is_some()));
    row.extend_from_slice(value.as_deref().unwrap_or_default());
}

fn take_value(row: &[u8]) -> Option<Value> {
    match row.split_first()? {
        (0, []) => Some(None),
        (1, bytes) => Some(Some(Bytes::copy_from_slice(bytes))),
        _ => None,
    }
}

pub fn decode_head(row: &[u8]) -> Result<Version> {
    let decoded = row.split_first_chunk().and_then(|(position, rest)| {
        Some(Version { position: u64::from_be_bytes(*position), value: take_value(rest)? })
    });
    decoded.ok_or_else(|| damaged("a private value"))
}

pub fn decode_version(key: &[u8], row: &[u8]) -> Result<Version> {
    let position = Key::parse_version(key).map(|(_, _, position)| position);
    let version = position.and_then(|position| Some(Version { position, value: take_value(row)? }));
    version.ok_or_else(|| damaged("an older private value"))
}

//! The chunk index: which pack has a chunk, which packs there are, which chunks are bad.
//!
//! Owns the tables below, all in one key-value store (`docs/formats/packs.md`). Invariants: a row of
//! `chunks` points into a pack that has a row in `packs`; a row of `quarantine` belongs to the very
//! location that `chunks` names; `chunks` and `quarantine` are read and changed together under one
//! lock, so that a repair and a reader that finds damage cannot undo each other.
//!
//! Failure story: rows that do not parse are `Corrupt` by chunk or pack. Rows of `chunks` are written
//! without a sync; the synced batch that marks their packs as indexed makes them durable, and until
//! then a restart writes them again from the packs.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::chunk::ChunkId;
use crate::chunk::pack::{Frame, Location, PackId, Totals};
use crate::env::Time;
use crate::error::{Error, Result};
use crate::meta::{Batch, Durability, KvStore, Table};

/// Chunk id -> location.
pub const CHUNKS: Table = "chunks";
/// Pack -> record.
pub const PACKS: Table = "packs";
/// Chunk id -> location, time, reason.
pub const QUARANTINE: Table = "quarantine";
/// Single values of the store: the epoch.
pub const STORE: Table = "chunk-store";
/// Session, chunk id -> location: chunks that are not committed. Empty after a start.
pub const STAGING: Table = "staging";
/// Session, its own key -> value: what an import sorts. Empty after a start.
pub const SCRATCH: Table = "scratch";

const EPOCH_KEY: &[u8] = b"epoch";
const RECORD_VERSION: u8 = 1;
/// Longest reason kept with a bad chunk, in bytes.
const MAX_REASON: usize = 200;
/// Rows written in one batch.
pub const BATCH_ROWS: usize = 4096;

/// The tables, by what may be done with them.
pub struct Index {
    kv: Arc<dyn KvStore>,
    /// Held over reading and writing `chunks` and `quarantine` together.
    changes: Mutex<()>,
    /// False only if `quarantine` is certainly empty. Saves every import its look-ups there.
    may_have_bad: AtomicBool,
    /// Packs that are recorded and not there. Their chunks are as good as quarantined, so that an
    /// import stores them anew.
    missing: OnceLock<BTreeSet<PackId>>,
}

/// What the index knows of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Absent,
    Good(Location),
    Bad(Quarantined),
}

/// A chunk whose stored bytes were not what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    pub location: Location,
    pub since: Time,
    pub reason: String,
}

/// How far a pack's commit has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PackState {
    /// Committed; its chunks may not all be in the index yet.
    Sealed = 1,
    /// Committed, and all its chunks can be found.
    Indexed = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackRecord {
    pub state: PackState,
    pub totals: Totals,
}

impl Index {
    pub fn new(kv: Arc<dyn KvStore>) -> Result<Self> {
        let mut any = false;
        kv.scan(QUARANTINE, &[], &[], &mut |_, _| {
            any = true;
            ControlFlow::Break(())
        })?;
        Ok(Self { kv, changes: Mutex::new(()), may_have_bad: AtomicBool::new(any), missing: OnceLock::new() })
    }

    pub fn kv(&self) -> &dyn KvStore {
        self.kv.as_ref()
    }

    /// The epoch of the last start, `None` if the store never started.
    pub fn epoch(&self) -> Result<Option<u64>> {
        let Some(value) = self.kv.get(STORE, EPOCH_KEY)? else {
            return Ok(None);
        };
        let bytes = value.try_into().map_err(|_| Error::corrupt("the epoch in the chunk index is damaged"))?;
        Ok(Some(u64::from_be_bytes(bytes)))
    }

    /// Make `epoch` the current one, durably.
    pub fn set_epoch(&self, epoch: u64) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(STORE, EPOCH_KEY, epoch.to_be_bytes());
        self.kv.write(batch, Durability::Synced)
    }

    pub fn find(&self, id: &ChunkId) -> Result<Found> {
        if let Some(bad) = self.quarantined(id)? {
            return Ok(Found::Bad(bad));
        }
        Ok(match self.location(id)? {
            None => Found::Absent,
            Some(location) if self.is_missing(location.pack) => {
                Found::Bad(Quarantined { location, since: Time::default(), reason: "its pack is missing".into() })
            }
            Some(location) => Found::Good(location),
        })
    }

    /// Tell, once, which recorded packs are not there.
    pub fn set_missing(&self, packs: BTreeSet<PackId>) {
        if !packs.is_empty() {
            self.missing.get_or_init(|| packs);
        }
    }

    fn is_missing(&self, pack: PackId) -> bool {
        self.missing.get().is_some_and(|missing| missing.contains(&pack))
    }

    /// Where the chunk is, good or bad.
    pub fn location(&self, id: &ChunkId) -> Result<Option<Location>> {
        let Some(value) = self.kv.get(CHUNKS, id.as_bytes())? else {
            return Ok(None);
        };
        let damaged = || Error::corrupt(format!("the index entry of chunk {id} is damaged"));
        Location::decode(&value).ok_or_else(damaged).map(Some)
    }

    fn quarantined(&self, id: &ChunkId) -> Result<Option<Quarantined>> {
        if !self.may_have_bad.load(Ordering::Acquire) {
            return Ok(None);
        }
        let Some(value) = self.kv.get(QUARANTINE, id.as_bytes())? else {
            return Ok(None);
        };
        let damaged = || Error::corrupt(format!("the quarantine record of chunk {id} is damaged"));
        decode_quarantine(&value).ok_or_else(damaged).map(Some)
    }

    /// Never serve the chunk from this location again. No effect if it has been repaired meanwhile.
    pub fn quarantine(&self, id: &ChunkId, bad: &Quarantined) -> Result<()> {
        let _changes = self.changes.lock();
        if self.location(id)? != Some(bad.location) {
            return Ok(());
        }
        self.may_have_bad.store(true, Ordering::Release);
        let mut batch = Batch::new();
        batch.put(QUARANTINE, *id.as_bytes(), encode_quarantine(bad));
        // If a crash takes it, the next reader finds the damage again.
        self.kv.write(batch, Durability::Buffered)
    }

    /// Visit the bad chunks until `visit` breaks.
    pub fn quarantine_list(&self, visit: &mut dyn FnMut(ChunkId, Quarantined) -> ControlFlow<()>) -> Result<()> {
        self.kv.scan(QUARANTINE, &[], &[], &mut |key, value| match (ChunkId::from_slice(key), decode_quarantine(value))
        {
            (Some(id), Some(bad)) => visit(id, bad),
            _ => ControlFlow::Continue(()),
        })
    }

    /// Make chunks findable that are not, or not well. Durable with the next synced batch.
    pub fn add(&self, pack_frames: impl IntoIterator<Item = (ChunkId, Location)>) -> Result<()> {
        let _changes = self.changes.lock();
        let mut batch = Batch::new();
        for (id, location) in pack_frames {
            match self.find(&id)? {
                Found::Good(_) => continue,
                Found::Bad(bad) if bad.location == location => continue,
                Found::Bad(_) => batch.delete(QUARANTINE, *id.as_bytes()),
                Found::Absent => {}
            }
            batch.put(CHUNKS, *id.as_bytes(), location.encode());
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.kv.write(batch, Durability::Buffered)
    }

    /// [`add`](Self::add) all chunks of a pack, in batches.
    pub fn add_pack(&self, pack: PackId, frames: &[Frame]) -> Result<()> {
        frames
            .chunks(BATCH_ROWS)
            .try_for_each(|some| self.add(some.iter().map(|frame| (frame.id, Location { pack, span: frame.span }))))
    }

    /// Record the packs in one synced batch.
    pub fn record_packs(&self, packs: &[(PackId, Totals)], state: PackState) -> Result<()> {
        let mut batch = Batch::new();
        for (pack, totals) in packs {
            batch.put(PACKS, pack.encode(), PackRecord { state, totals: *totals }.encode());
        }
        self.kv.write(batch, Durability::Synced)
    }

    /// Visit all packs in order.
    pub fn packs(&self, visit: &mut dyn FnMut(PackId, PackRecord)) -> Result<()> {
        let mut damaged = None;
        self.kv.scan(PACKS, &[], &[], &mut |key, value| {
            let pack = key.try_into().ok().map(PackId::decode);
            match pack.zip(PackRecord::decode(value)) {
                Some((pack, record)) => {
                    visit(pack, record);
                    ControlFlow::Continue(())
                }
                None => {
                    damaged = Some(pack.map_or_else(|| "of unknown name".to_owned(), PackId::name));
                    ControlFlow::Break(())
                }
            }
        })?;
        damaged.map_or(Ok(()), |pack| Err(Error::corrupt(format!("the index record of pack {pack} is damaged"))))
    }

    /// Empty the tables of sessions that are gone.
    pub fn clear_scratch(&self) -> Result<()> {
        let mut batch = Batch::new();
        // Keys begin with an epoch, which never gets near the end of its range.
        batch.delete_range(STAGING, Vec::new(), [0xff; 8]);
        batch.delete_range(SCRATCH, Vec::new(), [0xff; 8]);
        self.kv.write(batch, Durability::Scratch)
    }
}

impl PackRecord {
    const LEN: usize = 22;

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend_from_slice(&[RECORD_VERSION, self.state as u8]);
        bytes.extend_from_slice(&self.totals.chunks.to_be_bytes());
        bytes.extend_from_slice(&self.totals.raw_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.totals.stored_bytes.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let state = match (bytes[0], bytes[1]) {
            (RECORD_VERSION, 1) => PackState::Sealed,
            (RECORD_VERSION, 2) => PackState::Indexed,
            _ => return None,
        };
        let long = |at: usize| bytes[at..].first_chunk().map(|field| u64::from_be_bytes(*field));
        let chunks = u32::from_be_bytes(*bytes[2..].first_chunk()?);
        Some(Self { state, totals: Totals { chunks, raw_bytes: long(6)?, stored_bytes: long(14)? } })
    }
}

fn encode_quarantine(bad: &Quarantined) -> Vec<u8> {
    let mut bytes = vec![RECORD_VERSION];
    bytes.extend_from_slice(&bad.location.encode());
    bytes.extend_from_slice(&bad.since.secs.to_be_bytes());
    bytes.extend_from_slice(&bad.since.nanos.to_be_bytes());
    bytes.extend_from_slice(&bad.reason.as_bytes()[..bad.reason.len().min(MAX_REASON)]);
    bytes
}

fn decode_quarantine(bytes: &[u8]) -> Option<Quarantined> {
    let (version, rest) = bytes.split_first()?;
    let (location, rest) = rest.split_first_chunk::<{ Location::LEN }>()?;
    let (secs, rest) = rest.split_first_chunk()?;
    let (nanos, reason) = rest.split_first_chunk()?;
    let known = *version == RECORD_VERSION && reason.len() <= MAX_REASON;
    known.then_some(Quarantined {
        location: Location::decode(location)?,
        since: Time::new(i64::from_be_bytes(*secs), u32::from_be_bytes(*nanos)),
        reason: String::from_utf8_lossy(reason).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::pack::{Encoding, Span};
    use crate::meta::MemoryKv;

    fn location(seq: u32) -> Location {
        let span = Span { offset: 24, stored_len: 10, raw_len: 20, encoding: Encoding::Zstd };
        Location { pack: PackId { epoch: 7, seq }, span }
    }

    fn bad(seq: u32) -> Quarantined {
        Quarantined { location: location(seq), since: Time::new(-1, 5), reason: "x".repeat(300) }
    }

    #[test]
    fn records_round_trip_and_refuse_damage() {
        let record =
            PackRecord { state: PackState::Sealed, totals: Totals { chunks: 1, raw_bytes: u64::MAX, stored_bytes: 3 } };
        assert_eq!(PackRecord::decode(&record.encode()), Some(record));
        assert_eq!(PackRecord::decode(&record.encode()[1..]), None);
        let decoded = decode_quarantine(&encode_quarantine(&bad(1))).unwrap();
        assert_eq!((decoded.location, decoded.since, decoded.reason.len()), (location(1), Time::new(-1, 5), 200));
        assert_eq!(decode_quarantine(&encode_quarantine(&bad(1))[..30]), None);
    }

    #[test]
    fn a_repair_replaces_the_bad_location_only() {
        let index = Index::new(Arc::new(MemoryKv::new())).unwrap();
        let id = ChunkId([1; 32]);
        index.add([(id, location(1))]).unwrap();
        index.add([(id, location(2))]).unwrap();
        assert_eq!(index.find(&id).unwrap(), Found::Good(location(1)));
        index.quarantine(&id, &bad(2)).unwrap();
        assert_eq!(index.find(&id).unwrap(), Found::Good(location(1)), "damage elsewhere is not its damage");
        index.quarantine(&id, &bad(1)).unwrap();
        assert!(matches!(index.find(&id).unwrap(), Found::Bad(_)));
        index.add([(id, location(1))]).unwrap();
        assert!(matches!(index.find(&id).unwrap(), Found::Bad(_)), "the same bytes repair nothing");
        index.add([(id, location(3))]).unwrap();
        assert_eq!(index.find(&id).unwrap(), Found::Good(location(3)));
    }

    #[test]
    fn damaged_rows_name_their_object() {
        let kv = Arc::new(MemoryKv::new());
        let index = Index::new(kv.clone()).unwrap();
        let mut batch = Batch::new();
        batch.put(CHUNKS, [2; 32], [0; 25]);
        batch.put(PACKS, PackId { epoch: 1, seq: 2 }.encode(), [9; 22]);
        kv.write(batch, Durability::Synced).unwrap();
        assert!(index.find(&ChunkId([2; 32])).unwrap_err().what().contains("0202"));
        assert!(index.packs(&mut |_, _| ()).unwrap_err().what().contains("packs/0000000000000001-00000002"));
    }
}

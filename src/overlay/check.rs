//! What a check of the store has to see of the overlays beyond what a view shows: the rows of the index
//! as they are, and what one layer says by itself.
//!
//! Owns the reading, not the judgement (`maintain::fsck`). It reads the tables, not memory:
//! [`OverlayStore::flush`] goes before, and nobody writes meanwhile. All of it blocks.
//!
//! Failure story: a row that does not decode is told as such and hides no other row; who asks for
//! exactly that value gets `Corrupt`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use smallvec::SmallVec;

use super::bucket::{BUCKET, Bucket, Fragment, Source};
use super::index::{EPOCH, OverlayRow, REPLAY, decode_head, decode_version};
use super::keys::{HEADS, HISTORY, Key, Kind, OVERLAYS, RECEIPTS, SEGMENTS, STATE};
use super::log::SegmentId;
use super::memtable::Version;
use super::node::{Level, NodeState};
use super::record::Receipt;
use super::tree::entry::EntryState;
use super::{Counts, Layer, Node, OverlayId, OverlayStore, Position};
use crate::chunk::ChunkId;
use crate::error::{Error, Result};
use crate::manifest::{Cookie, Ino};
use crate::meta::{KvStore, Table, prefix_end};

/// Bytes of the key of a receipt's row in front of its answer.
const RECEIPT_KEY: usize = 16;
/// Keys that are looked at together.
const KEYS: usize = 512;

/// What a private value is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    Node(Ino),
    /// A name of a directory.
    Name(Ino, Cookie),
    /// One bucket of the data of a file.
    Data(Ino, u64),
    /// That an object is gone, but not all of its data and names.
    Orphan(Ino),
}

impl From<Key> for About {
    fn from(key: Key) -> Self {
        match key.kind {
            Kind::Node => Self::Node(Ino(key.a)),
            Kind::Entry => Self::Name(Ino(key.a), Cookie(key.b)),
            Kind::Bucket => Self::Data(Ino(key.a), key.b),
            Kind::Orphan => Self::Orphan(Ino(key.a)),
        }
    }
}

/// A row of the index.
#[derive(Debug)]
pub enum Row<'a> {
    /// It is not what its table holds.
    Undecodable {
        table: Table,
        key: &'a [u8],
    },
    /// Position and counts of an overlay, as they are kept.
    Overlay(Layer),
    Value(Value),
}

/// A private value that decodes.
#[derive(Debug)]
pub struct Value {
    pub overlay: OverlayId,
    pub about: About,
    pub position: Position,
    pub age: Age,
    /// It says something; else the layer says nothing any more.
    pub is_some: bool,
    /// Where its data are: each place once.
    pub stored: SmallVec<[Stored; 2]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    Newest,
    /// An older version, and the position of the newest one, if there is one.
    Older(Option<Position>),
}

/// A place that private data refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stored {
    /// A piece in the log.
    Piece { segment: SegmentId, offset: u32, len: u32 },
    /// A chunk, used up to byte `end`.
    Chunk { id: ChunkId, end: u32 },
}

/// What one layer says of an object.
#[allow(clippy::large_enum_variant, reason = "short-lived, on the stack")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerNode {
    Nothing,
    Removed,
    Present {
        node: Node,
        /// Bytes that the layer's data cover, as the node says.
        own: u64,
        /// Up to where the layers below show through.
        below: u64,
    },
}

/// Visit every row of the index, overlays first. Works on tables that no store opens on.
pub fn scan(kv: &dyn KvStore, visit: &mut dyn FnMut(Row<'_>)) -> Result<()> {
    scan_table(kv, OVERLAYS, visit, &mut |key, row| {
        let (id, row) = (word(key)?, OverlayRow::decode(row)?);
        Some(Some(Row::Overlay(Layer { overlay: OverlayId(id), upto: row.position, counts: row.counts })))
    })?;
    scan_table(kv, HEADS, visit, &mut |key, row| newest(key, row).map(Some))?;
    let mut head = Head { kv, of: None, position: None, failed: None };
    scan_table(kv, HISTORY, visit, &mut |key, row| older(key, row, &mut head).map(Some))?;
    if let Some(failed) = head.failed {
        return Err(failed);
    }
    for (table, is_good) in
        [(SEGMENTS, is_segment as fn(&[u8], &[u8]) -> bool), (RECEIPTS, is_receipt), (STATE, is_state)]
    {
        scan_table(kv, table, visit, &mut |key, row| is_good(key, row).then_some(None))?;
    }
    Ok(())
}

/// Makes something of a row; `None` if it is damaged, `Some(None)` if it is nothing to show.
type DecodeRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Option<Option<Row<'static>>>;

/// Visit what `decode` makes of the rows of a table.
fn scan_table(kv: &dyn KvStore, table: Table, visit: &mut dyn FnMut(Row<'_>), decode: DecodeRow<'_>) -> Result<()> {
    kv.scan(table, &[], &[], &mut |key, row| {
        match decode(key, row) {
            Some(Some(row)) => visit(row),
            Some(None) => {}
            None => visit(Row::Undecodable { table, key }),
        }
        ControlFlow::Continue(())
    })
}

fn word(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

fn is_segment(key: &[u8], row: &[u8]) -> bool {
    key.len() == 4 && row.len() == 8
}

fn is_receipt(key: &[u8], row: &[u8]) -> bool {
    key.len() == 8 && (RECEIPT_KEY..=RECEIPT_KEY + Receipt::MAX_ANSWER).contains(&row.len())
}

fn is_state(key: &[u8], row: &[u8]) -> bool {
    [REPLAY, EPOCH].contains(&key) && row.len() == 8
}

fn newest(key: &[u8], row: &[u8]) -> Option<Row<'static>> {
    let (overlay, parsed) = Key::parse(key).filter(|(overlay, parsed)| parsed.head(*overlay) == key)?;
    value(overlay, parsed, &decode_head(row).ok()?, Age::Newest)
}

fn older(key: &[u8], row: &[u8], head: &mut Head<'_>) -> Option<Row<'static>> {
    let parsed = Key::parse_version(key);
    let (overlay, parsed, _) = parsed.filter(|(overlay, parsed, at)| parsed.version(*overlay, *at) == key)?;
    let version = decode_version(key, row).ok()?;
    value(overlay, parsed, &version, Age::Older(head.position(overlay, &parsed)))
}

/// The newest version of the key whose older ones are visited.
struct Head<'a> {
    kv: &'a dyn KvStore,
    of: Option<(OverlayId, Key)>,
    position: Option<Position>,
    failed: Option<Error>,
}

impl Head<'_> {
    fn position(&mut self, overlay: OverlayId, key: &Key) -> Option<Position> {
        if self.of != Some((overlay, *key)) {
            self.of = Some((overlay, *key));
            self.position = match self.kv.get(HEADS, &key.head(overlay)) {
                // One that does not decode was told already; whatever it says, it is newer.
                Ok(row) => row.map(|row| decode_head(&row).map_or(Position::MAX, |version| version.position)),
                Err(failed) => {
                    self.failed = Some(failed);
                    None
                }
            };
        }
        self.position
    }
}

/// A row, if the value is one of its kind.
fn value(overlay: OverlayId, key: Key, version: &Version, age: Age) -> Option<Row<'static>> {
    let mut stored = SmallVec::new();
    if let Some(bytes) = &version.value {
        match key.kind {
            Kind::Node => drop(NodeState::decode(bytes, Level::Layer(0))?),
            Kind::Entry => drop(EntryState::of(Ino(key.a), &key, version).ok()?),
            Kind::Bucket => stored = places(&Bucket::decode(bytes)?.fragments)?,
            Kind::Orphan => bytes.is_empty().then_some(())?,
        }
    }
    let Version { position, value } = version;
    let about = About::from(key);
    Some(Row::Value(Value { overlay, about, position: *position, age, is_some: value.is_some(), stored }))
}

/// Where the data of fragments are, sorted; `None` if one was never told where the log put it.
fn places(fragments: &[Fragment]) -> Option<SmallVec<[Stored; 2]>> {
    let mut places = SmallVec::new();
    for fragment in fragments {
        match fragment.source {
            Source::Own { .. } => return None,
            Source::Log { segment, offset, len } => places.push(Stored::Piece { segment, offset, len }),
            Source::Chunk(id) => places.push(Stored::Chunk { id, end: fragment.skip.checked_add(fragment.len)? }),
            Source::Zero => {}
        }
    }
    places.sort_unstable();
    places.dedup();
    Some(places)
}

impl OverlayStore {
    /// [`scan`] of this store's index.
    pub fn scan_rows(&self, visit: &mut dyn FnMut(Row<'_>)) -> Result<()> {
        scan(self.index.kv(), visit)
    }

    /// What an overlay holds, counted anew.
    pub fn recount(&self, id: OverlayId) -> Result<Counts> {
        self.index.recount(id)
    }

    /// Live bytes of each segment that has any, as they are kept.
    pub fn live_bytes(&self) -> BTreeMap<SegmentId, i64> {
        self.index.live().into_iter().filter(|(_, bytes)| *bytes != 0).collect()
    }

    /// The same, counted anew.
    pub fn recount_live(&self) -> Result<BTreeMap<SegmentId, i64>> {
        self.index.recount_live()
    }

    /// The segments of the log, and their bytes.
    pub fn segments(&self) -> BTreeMap<SegmentId, u64> {
        self.log.segments().into_iter().collect()
    }

    /// Read a piece of the log and verify it.
    pub fn read_piece(&self, segment: SegmentId, offset: u32, len: u32) -> BoxFuture<'static, Result<Bytes>> {
        self.log.read(segment, offset, len)
    }

    /// Everything that the overlay ever changed and keeps, in the order of the changes.
    pub fn changes(&self, id: OverlayId) -> Result<Vec<(Position, About)>> {
        let from = id.0.to_be_bytes();
        let mut changes = Vec::new();
        self.index.kv().scan(HEADS, &from, &prefix_end(&from), &mut |key, row| {
            let version = Key::parse(key).zip(decode_head(row).ok());
            changes.extend(version.map(|((_, key), version)| (version.position, About::from(key))));
            ControlFlow::Continue(())
        })?;
        self.index.kv().scan(HISTORY, &from, &prefix_end(&from), &mut |key, _| {
            changes.extend(Key::parse_version(key).map(|(_, key, position)| (position, About::from(key))));
            ControlFlow::Continue(())
        })?;
        changes.sort_unstable();
        Ok(changes)
    }

    /// What the overlay by itself says of an object as of `upto`.
    pub fn layer_node(&self, id: OverlayId, upto: Position, ino: Ino) -> Result<LayerNode> {
        let Some(bytes) = self.value_at(id, upto, &Key::node(ino))? else { return Ok(LayerNode::Nothing) };
        match NodeState::decode(&bytes, Level::Layer(0)) {
            Some(NodeState::Removed | NodeState::Absent) => Ok(LayerNode::Removed),
            Some(NodeState::Present(node)) => Ok(LayerNode::Present { own: node.own, below: node.below, node }),
            None => Err(Error::corrupt(format!("the private state of inode {} is damaged", ino.0))),
        }
    }

    /// Whether the overlay by itself says anything of a name as of `upto`.
    pub fn layer_has_name(&self, id: OverlayId, upto: Position, dir: Ino, cookie: Cookie) -> Result<bool> {
        Ok(self.value_at(id, upto, &Key::entry(dir, cookie))?.is_some())
    }

    /// Whether data of an object that is gone may be left in the overlay as of `upto`.
    pub fn layer_has_orphan(&self, id: OverlayId, upto: Position, ino: Ino) -> Result<bool> {
        Ok(self.value_at(id, upto, &Key::orphan(ino))?.is_some())
    }

    /// How many bytes of a file the overlay's bucket `number` covers as of `upto`.
    pub fn layer_data(&self, id: OverlayId, upto: Position, ino: Ino, number: u64) -> Result<u64> {
        Ok(self.bucket_at(id, upto, ino, number)?.covered())
    }

    /// Whether the overlay has data of a file, as of `upto`, at or beyond byte `size`.
    pub fn layer_has_data_beyond(&self, id: OverlayId, upto: Position, ino: Ino, size: u64) -> Result<bool> {
        let mut from = Some(Key::bucket(ino, size / BUCKET));
        while let Some(first) = from {
            let keys = self.index.keys(id, first, Key::bucket(ino, u64::MAX), KEYS)?;
            for number in keys.iter().map(|key| key.b) {
                let end = self.bucket_at(id, upto, ino, number)?.fragments.last().map(Fragment::end);
                if end.is_some_and(|end| number.saturating_mul(BUCKET).saturating_add(end.into()) > size) {
                    return Ok(true);
                }
            }
            from = keys.get(KEYS - 1).and_then(Key::next).filter(|next| next.a == ino.0);
        }
        Ok(false)
    }

    fn bucket_at(&self, id: OverlayId, upto: Position, ino: Ino, number: u64) -> Result<Bucket> {
        let Some(bytes) = self.value_at(id, upto, &Key::bucket(ino, number))? else { return Ok(Bucket::default()) };
        let damaged = || Error::corrupt(format!("bucket {number} of inode {} is damaged", ino.0));
        Bucket::decode(&bytes).ok_or_else(damaged)
    }

    fn value_at(&self, id: OverlayId, upto: Position, key: &Key) -> Result<Option<Bytes>> {
        if upto == 0 {
            return Ok(None);
        }
        Ok(self.index.at(id, key, upto)?.and_then(|version| version.value))
    }
}

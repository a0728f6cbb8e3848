//! Filling a fresh overlay from others.

use super::{Delta, Index, OverlayRow, encode_head};
use crate::error::Result;
use crate::meta::{Batch, Durability};
use crate::overlay::keys::{HEADS, Key, OVERLAYS};
use crate::overlay::memtable::Version;
use crate::overlay::{Counts, OverlayId, Position};

/// Writes the values of one overlay, a batch at a time. Blocks.
pub struct Copy<'a> {
    index: &'a Index,
    into: OverlayId,
    position: Position,
    most: usize,
    batch: Batch,
    delta: Delta,
}

impl<'a> Copy<'a> {
    /// Values get `position`; a batch has `most` rows.
    pub fn new(index: &'a Index, into: OverlayId, position: Position, most: usize) -> Self {
        Self { index, into, position, most, batch: Batch::new(), delta: Delta::default() }
    }

    /// The overlay can be found from now on.
    pub fn begin(&mut self) -> Result<()> {
        self.put_row(Counts::default());
        self.write(Durability::Buffered)
    }

    /// As written at a position up to the last one.
    pub fn put_at(&mut self, key: Key, value: bytes::Bytes, position: Position) -> Result<()> {
        let version = Version { position, value: Some(value) };
        self.delta.add(&key, &version.value, 1)?;
        self.batch.put(HEADS, key.head(self.into), encode_head(&version));
        if self.batch.ops.len() < self.most { Ok(()) } else { self.write(Durability::Buffered) }
    }

    pub fn finish(&mut self, counts: Counts, durability: Durability) -> Result<()> {
        self.put_row(counts);
        self.write(durability)
    }

    fn put_row(&mut self, counts: Counts) {
        let row = OverlayRow { position: self.position, counts };
        self.batch.put(OVERLAYS, self.into.0.to_be_bytes(), row.encode());
    }

    fn write(&mut self, durability: Durability) -> Result<()> {
        let (batch, delta) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.delta));
        self.index.write_as(batch, &delta, durability)
    }
}

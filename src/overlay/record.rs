//! What one record of the log says: the changes that one call made to one overlay.
//!
//! Owns the body of a record (`docs/formats/overlay.md`). Bodies are physical: they carry the values
//! that the index is to hold, so that replay needs nothing but the log and the index.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::keys::{Key, Kind};
use super::log::{MAX_BODY, SegmentId};
use super::{Counts, OverlayId, Position};
use crate::error::{Error, Result};

/// The version of the encoding.
const FORMAT: u8 = 1;

/// A private value: bytes, or `None` where the layer has nothing to say any more.
pub type Value = Option<Bytes>;

/// The answer to a call that must not run twice, kept in the same log record as what the call did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Digest of client, transaction id, procedure and arguments.
    pub key: [u8; 16],
    /// The front end's encoded results; at most [`MAX_ANSWER`](Self::MAX_ANSWER) bytes.
    pub answer: Bytes,
}

impl Receipt {
    pub const MAX_ANSWER: usize = 1024;
}

/// The changes of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRecord {
    pub overlay: OverlayId,
    /// The position that they make; of values that were moved, the one that they have.
    pub position: Position,
    /// The values say what they said before, by other places in the log or by chunks: nothing has changed
    /// for anybody who reads.
    pub moved: bool,
    /// What the overlay holds after them.
    pub counts: Counts,
    pub values: Vec<(Key, Value)>,
    pub receipt: Option<Receipt>,
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    overlay: OverlayId,
    position: Position,
    moved: bool,
    counts: Counts,
    #[serde(borrow)]
    values: Vec<(u8, u64, u64, Option<&'a [u8]>)>,
    #[serde(borrow)]
    receipt: Option<([u8; 16], &'a [u8])>,
}

impl ChangeRecord {
    /// One version byte, then postcard.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let values = self.values.iter().map(|(key, value)| (key.kind as u8, key.a, key.b, value.as_deref()));
        let stored = Stored {
            overlay: self.overlay,
            position: self.position,
            moved: self.moved,
            counts: self.counts,
            values: values.collect(),
            receipt: self.receipt.as_ref().map(|receipt| (receipt.key, &*receipt.answer)),
        };
        let body = postcard::to_extend(&stored, vec![FORMAT])
            .map_err(|e| Error::internal("a change of an overlay cannot be encoded").because(e))?;
        if body.len() > MAX_BODY {
            return Err(Error::internal(format!("one change of overlay {} has {} bytes", self.overlay.0, body.len())));
        }
        Ok(body)
    }

    /// `None` for bytes that are no body. Values are copied: slices would keep the group of the log that
    /// the body was read with, data and all.
    pub fn decode(body: &Bytes) -> Option<Self> {
        let (&FORMAT, rest) = body.split_first()? else { return None };
        let Ok((stored, [])) = postcard::take_from_bytes::<Stored<'_>>(rest) else { return None };
        let value = |(kind, a, b, value): &(u8, u64, u64, Option<&[u8]>)| {
            let kind = [Kind::Node, Kind::Entry, Kind::Bucket, Kind::Orphan]
                .into_iter()
                .find(|known| *known as u8 == *kind)?;
            Some((Key { kind, a: *a, b: *b }, value.map(Bytes::copy_from_slice)))
        };
        Some(Self {
            overlay: stored.overlay,
            position: stored.position,
            moved: stored.moved,
            counts: stored.counts,
            values: stored.values.iter().map(value).collect::<Option<_>>()?,
            receipt: stored.receipt.map(|(key, answer)| Receipt { key, answer: Bytes::copy_from_slice(answer) }),
        })
    }

    /// With the pieces of data where the log put them. `None` if a bucket does not fit its record.
    pub fn resolve(&mut self, segment: SegmentId, piece: impl Fn(u32) -> Option<u32>) -> Option<()> {
        for (key, value) in &mut self.values {
            if key.kind == Kind::Bucket
                && let Some(bytes) = value
            {
                let mut bucket = Bucket::decode(bytes)?;
                bucket.resolve(segment, &piece)?;
                *bytes = bucket.encode();
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Cookie, Ino};

    #[test]
    fn a_record_survives_its_bytes() {
        let record = ChangeRecord {
            overlay: OverlayId(9),
            position: 4,
            moved: true,
            counts: Counts { bytes: 5, inodes: 6 },
            values: vec![
                (Key::node(Ino(1)), Some(Bytes::from_static(b"n"))),
                (Key::entry(Ino(1), Cookie(3)), None),
                (Key::bucket(Ino(1), 7), Some(Bucket::default().encode())),
            ],
            receipt: Some(Receipt { key: [1; 16], answer: Bytes::from_static(b"answer") }),
        };
        let body = Bytes::from(record.encode().unwrap());
        let decoded = ChangeRecord::decode(&body);
        assert_eq!(decoded, Some(record));
        assert!(body.is_unique(), "what was decoded keeps the whole body");
        for cut in 0..body.len() {
            assert_eq!(ChangeRecord::decode(&body.slice(..cut)), None, "cut at {cut}");
        }
    }
}

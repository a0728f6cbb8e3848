//! All overlays of a store.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::log::Lsn;
use super::{Counts, Layer, OverlayId, Position};
use crate::chunk::{Fetch, Step};
use crate::error::Result;
use crate::manifest::Ino;

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

pub struct OverlayStore {}

impl OverlayStore {
    /// Everything appended so far is on stable storage. `Err` if that will never be known.
    pub fn sync(&self) -> BoxFuture<'static, Result<()>> {
        unimplemented!()
    }

    /// A future that ends when the record that ends at `lsn` is on stable storage; `None` if it is.
    pub fn durable(&self, lsn: Lsn) -> Option<BoxFuture<'static, Result<()>>> {
        unimplemented!("{lsn:?}")
    }

    /// The newest change of this overlay, for COMMIT; `None` if all of it is on stable storage.
    pub fn last_change(&self, id: OverlayId) -> Option<Lsn> {
        unimplemented!("{id:?}")
    }

    /// Hold back all changes to these overlays until the answer is dropped. One freeze at a time.
    pub async fn freeze(self: &Arc<Self>, ids: Vec<OverlayId>) -> Frozen {
        unimplemented!("{ids:?}")
    }

    /// What an overlay holds now; nothing if it was never written. From memory.
    pub fn counts(&self, id: OverlayId) -> Counts {
        unimplemented!("{id:?}")
    }

    /// Replace the positions of `id` that must stay readable although it is written further.
    pub fn set_marks(&self, id: OverlayId, marks: Vec<Position>) {
        unimplemented!("{id:?} {marks:?}")
    }

    /// Add one such position: before the freeze that names it ends.
    pub fn protect(&self, id: OverlayId, mark: Position) {
        unimplemented!("{id:?} {mark:?}")
    }

    /// Whether the layer has private state of this object (changed, new or removed).
    pub fn touched(&self, fetch: &mut Fetch<'_>, layer: &Layer, ino: Ino) -> Step<bool> {
        unimplemented!("{layer:?} {ino:?} {}", fetch.is_empty())
    }

    /// Changes with every start: what WRITE and COMMIT answer as write verifier (RFC 1813 3.3.7).
    pub fn write_verifier(&self) -> [u8; 8] {
        unimplemented!()
    }

    /// The newest receipts, oldest first, from before this start.
    pub fn receipts(&self) -> Vec<Receipt> {
        unimplemented!()
    }
}

/// Overlays that take no changes as long as this lives.
pub struct Frozen {}

impl Frozen {
    /// The overlay as it is now; `None` if it was never written.
    pub fn layer(&self, id: OverlayId) -> Option<Layer> {
        unimplemented!("{id:?}")
    }
}

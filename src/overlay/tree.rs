//! A view as one tree: private layers over a manifest.

use std::ops::ControlFlow;

use bytes::Bytes;
use smallvec::SmallVec;

use super::log::Lsn;
use super::{Counts, Layer, Node, OverlayId, OverlayStore, Receipt};
use crate::chunk::{Fetch, Step};
use crate::error::Result;
use crate::manifest::{Cookie, Entry, FileKind, Ino, Manifest};

/// File bytes without copying: slices of cached chunks and of private data.
pub type Slices = SmallVec<[Bytes; 4]>;

/// A view, for one run of one verb. Holds the lock of its open overlay, if that has any state: never
/// keep it over an await.
pub struct Tree<'a> {
    manifest: Manifest,
    _store: std::marker::PhantomData<&'a ()>,
}

impl<'a> Tree<'a> {
    /// A version as it was imported.
    pub fn of_version(manifest: Manifest) -> Self {
        Self { manifest, _store: std::marker::PhantomData }
    }

    /// For reading: `layers` bottom first, `top` above them.
    pub fn open(
        store: &'a OverlayStore,
        fetch: &mut Fetch<'_>,
        manifest: Manifest,
        layers: &'a [Layer],
        top: OverlayId,
    ) -> Step<Self> {
        unimplemented!("{} {layers:?} {top:?} {}", store.receipts().len(), fetch.is_empty())
    }

    /// For changing; stops (to be called again) while the overlay is frozen or the log has no room.
    pub fn open_for_change(
        store: &'a OverlayStore,
        fetch: &mut Fetch<'_>,
        manifest: Manifest,
        layers: &'a [Layer],
        top: OverlayId,
    ) -> Step<Self> {
        Self::open(store, fetch, manifest, layers, top)
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The object, `None` if this view has none of that number.
    pub fn node(&self, fetch: &mut Fetch<'_>, ino: Ino) -> Step<Option<Node>> {
        unimplemented!("{ino:?} {}", fetch.is_empty())
    }

    pub fn lookup(&self, fetch: &mut Fetch<'_>, dir: Ino, name: &[u8]) -> Step<Option<Entry>> {
        unimplemented!("{dir:?} {name:?} {}", fetch.is_empty())
    }

    /// Visit the entries of `dir` behind the cookie `after` in cookie order, until `visit` breaks.
    pub fn list(
        &self,
        fetch: &mut Fetch<'_>,
        dir: Ino,
        after: Cookie,
        visit: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
    ) -> Step<()> {
        unimplemented!("{dir:?} {after:?} {} {:?}", fetch.is_empty(), visit as *mut _)
    }

    /// The bytes `start..end` of a regular file; `end` must not be beyond its size.
    pub fn read(&self, fetch: &mut Fetch<'_>, ino: Ino, node: &Node, start: u64, end: u64) -> Step<Slices> {
        unimplemented!("{ino:?} {node:?} {start} {end} {}", fetch.is_empty())
    }

    /// The node takes effect at the commit; for new objects too.
    pub fn put(&mut self, fetch: &mut Fetch<'_>, ino: Ino, node: Node) -> Step<()> {
        unimplemented!("{ino:?} {node:?} {}", fetch.is_empty())
    }

    /// The object is gone: its last name was removed.
    pub fn remove(&mut self, fetch: &mut Fetch<'_>, ino: Ino) -> Step<()> {
        unimplemented!("{ino:?} {}", fetch.is_empty())
    }

    /// Give `dir` a name that it does not have.
    pub fn add_entry(&mut self, fetch: &mut Fetch<'_>, dir: Ino, name: &[u8], ino: Ino, kind: FileKind) -> Step<()> {
        unimplemented!("{dir:?} {name:?} {ino:?} {kind:?} {}", fetch.is_empty())
    }

    /// Take an entry, as looked up, out of `dir`.
    pub fn remove_entry(&mut self, fetch: &mut Fetch<'_>, dir: Ino, entry: &Entry) -> Step<()> {
        unimplemented!("{dir:?} {entry:?} {}", fetch.is_empty())
    }

    /// Put `data` at `offset` and let `node` grow to hold it. The caller puts the node.
    pub fn write(&mut self, fetch: &mut Fetch<'_>, ino: Ino, node: &mut Node, offset: u64, data: Bytes) -> Step<()> {
        unimplemented!("{ino:?} {node:?} {offset} {data:?} {}", fetch.is_empty())
    }

    /// Cut or extend the file to `size`; what it gains reads as zeros. The caller puts the node.
    pub fn truncate(&mut self, fetch: &mut Fetch<'_>, ino: Ino, node: &mut Node, size: u64) -> Step<()> {
        unimplemented!("{ino:?} {node:?} {size} {}", fetch.is_empty())
    }

    /// What the whole view holds in private, all layers, with the changes made so far.
    pub fn counts(&self) -> Counts {
        unimplemented!()
    }

    /// Make all changes visible and append them to the log, as one record. They are on stable storage
    /// when [`OverlayStore::durable`] says so.
    pub fn commit(self, receipt: Option<Receipt>) -> Result<Lsn> {
        unimplemented!("{receipt:?}")
    }
}

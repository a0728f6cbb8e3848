//! A view as one tree: private layers over a manifest.
//!
//! Owns the merge. Of several layers the uppermost that says anything of a key decides; where none does,
//! the manifest does. Inode numbers are never reused, so that what a layer says of a directory's names
//! or a file's bytes always means the same directory or file.
//!
//! A [`Tree`] lives for one run of one verb. It holds the lock of its open overlay: what a verb sees is
//! of one moment, and what it changes is there at once or not at all. `tree/data.rs` reads bytes,
//! `tree/change.rs` changes.

mod change;
mod data;
pub(super) mod entry;

#[cfg(test)]
pub use change::MAX_ERASED;
pub use data::Origin;

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use self::change::Staged;
use self::entry::EntryState;
use super::keys::Key;
use super::memtable::Version;
use super::node::{Level, NodeState};
use super::state::{Guard, Overlay};
use super::{Counts, Layer, Node, OverlayId, OverlayStore, Position};
use crate::chunk::{Fetch, Step};
use crate::error::{Error, Result};
use crate::manifest::{Cookie, Entry, Ino, MAX_TIES, Manifest, ManifestId};

/// Pages of names that are gone which one run walks through.
const MAX_PAGES: usize = 32;

/// File bytes without copying: slices of cached chunks and of private data.
pub type Slices = SmallVec<[Bytes; 4]>;

/// A view, for one run of one verb. Holds the lock of its open overlay, if that has any state: never
/// keep it over an await.
pub struct Tree<'a> {
    manifest: Arc<Manifest>,
    store: Option<&'a OverlayStore>,
    /// The open overlay, unless it was never written.
    top: Option<Guard>,
    /// The sealed layers that have anything, uppermost first.
    lower: SmallVec<[(Arc<Overlay>, Position); 2]>,
    lower_counts: Counts,
    staged: Staged,
}

impl<'a> Tree<'a> {
    /// A version as it was imported.
    pub fn of_version(manifest: impl Into<Arc<Manifest>>) -> Self {
        Self {
            manifest: manifest.into(),
            store: None,
            top: None,
            lower: SmallVec::new(),
            lower_counts: Counts::default(),
            staged: Staged::default(),
        }
    }

    /// For reading: `layers` bottom first, `top` above them.
    pub fn open(
        store: &'a OverlayStore,
        fetch: &mut Fetch<'_>,
        manifest: impl Into<Arc<Manifest>>,
        layers: &[Layer],
        top: OverlayId,
    ) -> Step<Self> {
        let top = store.find(top).map(|overlay| store.lock(fetch, &overlay)).transpose()?;
        Ok(Self { store: Some(store), top, ..Self::of_version(manifest) }.over(store, layers)?)
    }

    /// The layers alone, as a snapshot shows them.
    pub fn open_sealed(store: &'a OverlayStore, manifest: impl Into<Arc<Manifest>>, layers: &[Layer]) -> Result<Self> {
        Self { store: Some(store), ..Self::of_version(manifest) }.over(store, layers)
    }

    /// For changing; stops (to be called again) while the overlay is frozen or the log has no room.
    pub fn open_for_change(
        store: &'a OverlayStore,
        fetch: &mut Fetch<'_>,
        manifest: impl Into<Arc<Manifest>>,
        layers: &[Layer],
        top: OverlayId,
    ) -> Step<Self> {
        let top = Some(store.lock_for_change(fetch, top)?);
        Ok(Self { store: Some(store), top, ..Self::of_version(manifest) }.over(store, layers)?)
    }

    fn over(mut self, store: &OverlayStore, layers: &[Layer]) -> Result<Self> {
        for layer in layers.iter().rev() {
            self.lower_counts.bytes += layer.counts.bytes;
            self.lower_counts.inodes += layer.counts.inodes;
            match store.find(layer.overlay) {
                Some(overlay) => self.lower.push((overlay, layer.upto)),
                None if layer.upto == 0 => {}
                // Without it, what lies below would show, as if nothing had been written.
                None => return Err(missing(layer)),
            }
        }
        Ok(self)
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Layers that may have anything, the open one included.
    fn depth(&self) -> usize {
        1 + self.lower.len()
    }

    fn store(&self) -> Result<&'a OverlayStore> {
        self.store.ok_or_else(|| Error::internal("a version has no private layers"))
    }

    /// What layer `level` (0 is the open one) says of `key`, which is about `ino`.
    fn version(&self, fetch: &mut Fetch<'_>, level: usize, ino: Ino, key: &Key) -> Step<Option<Version>> {
        let Some(below) = level.checked_sub(1) else { return self.own(fetch, ino, key) };
        let (overlay, upto) = &self.lower[below];
        let store = self.store()?;
        let state = store.lock(fetch, overlay)?;
        if state.may_have(ino) { state.get(&store.index, fetch, key, *upto) } else { Ok(None) }
    }

    /// What the open overlay says, changes made in this run included.
    fn own(&self, fetch: &mut Fetch<'_>, ino: Ino, key: &Key) -> Step<Option<Version>> {
        if let Some(version) = self.staged.get(key) {
            return Ok(Some(version));
        }
        self.own_committed(fetch, ino, key)
    }

    fn own_committed(&self, fetch: &mut Fetch<'_>, ino: Ino, key: &Key) -> Step<Option<Version>> {
        match &self.top {
            Some(state) if state.may_have(ino) => state.get(&self.store()?.index, fetch, key, Position::MAX),
            _ => Ok(None),
        }
    }

    /// What layer `level` says of the keys of `range`, which are about `ino`, and up to which key that is
    /// all (`None`: to the end).
    fn page(
        &self,
        fetch: &mut Fetch<'_>,
        level: usize,
        ino: Ino,
        range: &RangeInclusive<Key>,
    ) -> Step<(BTreeMap<Key, Version>, Option<Key>)> {
        let page = match level.checked_sub(1) {
            None => match &self.top {
                Some(state) if state.may_have(ino) => state.page(&self.store()?.index, fetch, range, Position::MAX)?,
                _ => (BTreeMap::new(), None),
            },
            Some(below) => {
                let (overlay, upto) = &self.lower[below];
                let store = self.store()?;
                let state = store.lock(fetch, overlay)?;
                match state.may_have(ino) {
                    true => state.page(&store.index, fetch, range, *upto)?,
                    false => (BTreeMap::new(), None),
                }
            }
        };
        let (mut rows, end) = page;
        if level == 0 {
            let covered = *range.start()..=end.unwrap_or(*range.end());
            rows.extend(self.staged.range(covered));
        }
        Ok((rows, end))
    }

    /// The object, `None` if this view has none of that number.
    pub fn node(&self, fetch: &mut Fetch<'_>, ino: Ino) -> Step<Option<Node>> {
        self.node_below(fetch, 0, ino)
    }

    /// Whether the object is not in this view because it was removed in it.
    pub fn is_removed(&self, fetch: &mut Fetch<'_>, ino: Ino) -> Step<bool> {
        Ok(matches!(self.state_below(fetch, 0, ino)?, Some(NodeState::Removed)))
    }

    /// Whether the object was removed since the view is there.
    pub fn is_removed_here(&self, fetch: &mut Fetch<'_>, ino: Ino) -> Step<bool> {
        let version = self.own(fetch, ino, &Key::node(ino))?;
        let state = version.and_then(|version| NodeState::decode(version.value.as_ref()?, Level::Layer(0)));
        Ok(matches!(state, Some(NodeState::Removed)))
    }

    /// The object as layer `level` and those below it show it.
    fn node_below(&self, fetch: &mut Fetch<'_>, level: usize, ino: Ino) -> Step<Option<Node>> {
        match self.state_below(fetch, level, ino)? {
            Some(state) => Ok(state.present()),
            None => Ok(self.manifest.inode(fetch, ino)?.map(Node::of_image)),
        }
    }

    /// What lies under layer `level` of an object whose base may be another version than the view's.
    fn base_below(
        &self,
        fetch: &mut Fetch<'_>,
        level: usize,
        ino: Ino,
        base: Option<ManifestId>,
    ) -> Step<Option<Node>> {
        let Some(id) = base else { return self.node_below(fetch, level + 1, ino) };
        match self.state_below(fetch, level + 1, ino)?.and_then(NodeState::present) {
            Some(node) => Ok(Some(Node { base, ..node })),
            // Where a lower layer says that it is gone, it came back as the base has it.
            None => Ok(Manifest::open(fetch, &id)?.inode(fetch, ino)?.map(Node::of_image)),
        }
    }

    /// What the uppermost of the layers from `level` down that says anything of the object says.
    fn state_below(&self, fetch: &mut Fetch<'_>, level: usize, ino: Ino) -> Step<Option<NodeState>> {
        for level in level..self.depth() {
            let Some(Version { value: Some(bytes), .. }) = self.version(fetch, level, ino, &Key::node(ino))? else {
                continue;
            };
            let state = NodeState::decode(&bytes, Level::Layer(level));
            let damaged = || Error::corrupt(format!("the private state of inode {} is damaged", ino.0));
            return Ok(Some(state.ok_or_else(damaged)?));
        }
        Ok(None)
    }

    /// Whether any layer may have names of this directory.
    fn may_have_entries(&self, fetch: &mut Fetch<'_>, dir: Ino) -> Step<bool> {
        if self.staged.has(dir) || self.top.as_ref().is_some_and(|state| state.may_have(dir)) {
            return Ok(true);
        }
        for (overlay, _) in &self.lower {
            if self.store()?.lock(fetch, overlay)?.may_have(dir) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub fn lookup(&self, fetch: &mut Fetch<'_>, dir: Ino, name: &[u8]) -> Step<Option<Entry>> {
        if !self.may_have_entries(fetch, dir)? {
            return self.manifest.lookup(fetch, dir, name);
        }
        let private = self.group(fetch, dir, self.manifest.name_seed().cookie_base(name))?;
        let named = private.iter().find_map(|(cookie, state)| state.entry(*cookie).filter(|entry| entry.name == name));
        if named.is_some() {
            return Ok(named);
        }
        let base = self.manifest.lookup(fetch, dir, name)?;
        Ok(base.filter(|entry| !private.iter().any(|(cookie, _)| *cookie == entry.cookie)))
    }

    /// What the layers say of the cookies that share the base `base`.
    fn group(&self, fetch: &mut Fetch<'_>, dir: Ino, base: Cookie) -> Step<SmallVec<[(Cookie, EntryState); 2]>> {
        let last = Cookie(base.0 + (MAX_TIES - 1));
        let range = Key::entry(dir, base)..=Key::entry(dir, last);
        let mut group: SmallVec<[(Cookie, EntryState); 2]> = SmallVec::new();
        for level in 0..self.depth() {
            for (key, version) in self.page(fetch, level, dir, &range)?.0 {
                if let Some(state) = EntryState::of(dir, &key, &version)?
                    && !group.iter().any(|(cookie, _)| cookie.0 == key.b)
                {
                    group.push((Cookie(key.b), state));
                }
            }
        }
        Ok(group)
    }

    /// Visit the entries of `dir` behind the cookie `after` in cookie order, until `visit` breaks. `false`
    /// if it ended before that and before the directory did, in the midst of many names that are gone:
    /// to be called again behind the last entry.
    pub fn list(
        &self,
        fetch: &mut Fetch<'_>,
        dir: Ino,
        after: Cookie,
        visit: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
    ) -> Step<bool> {
        if !self.may_have_entries(fetch, dir)? {
            return self.manifest.list(fetch, dir, after, visit).map(|()| true);
        }
        let begun = after;
        let walk = if fetch.has_walk() { Some(self.walk_of(fetch, dir, begun)?) } else { None };
        let mut after = walk.and_then(|walk| fetch.walked(&walk)).map_or(begun, Cookie);
        // Pages without any name that is there, and whether there was a name before them.
        let (mut gone, mut visited) = (0, false);
        loop {
            gone += 1;
            let mut visit = |entry| {
                (gone, visited) = (0, true);
                visit(entry)
            };
            let Some(end) = self.list_page(fetch, dir, after, &mut visit)? else { return Ok(true) };
            after = end;
            // A run that found nothing yet goes on from here the next time.
            if !visited {
                let walk = self.walk_of(fetch, dir, begun)?;
                fetch.note_walk(walk, after.0);
            }
            // Others get their turn.
            if gone == MAX_PAGES {
                return if visited { Ok(false) } else { Err(fetch.wait_for(std::future::ready(Ok(())))) };
            }
        }
    }

    /// All entries of a directory, in cookie order; for whoever reads it whole.
    pub fn entries(&self, fetch: &mut Fetch<'_>, dir: Ino) -> Step<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let after = entries.last().map_or(Cookie(0), |entry| entry.cookie);
            let whole = self.list(fetch, dir, after, &mut |entry| {
                entries.push(entry);
                Ok(ControlFlow::Continue(()))
            })?;
            if whole {
                return Ok(entries);
            }
        }
    }

    /// Names a walk through `dir` that began at `from`. Whatever could add a name to what was walked
    /// already makes it another walk.
    fn walk_of(&self, fetch: &mut Fetch<'_>, dir: Ino, from: Cookie) -> Step<[u8; 32]> {
        let top = self.top.as_ref().map_or(0, |state| state.id.0);
        let changed = self.own(fetch, dir, &Key::node(dir))?.map_or(0, |version| version.position);
        let lower = self.lower.iter().flat_map(|(overlay, upto)| [overlay.id.0, *upto]);
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.manifest.id().as_bytes());
        for word in [dir.0, from.0, top, changed].into_iter().chain(lower) {
            hasher.update(&word.to_be_bytes());
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// One page of a listing; where the next one begins, if there is more.
    fn list_page(
        &self,
        fetch: &mut Fetch<'_>,
        dir: Ino,
        after: Cookie,
        visit: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
    ) -> Step<Option<Cookie>> {
        let Some(first) = after.0.checked_add(1) else { return Ok(None) };
        let (private, end) = self.private_entries(fetch, dir, Cookie(first))?;
        let mut private = private.into_iter().peekable();
        let mut broke = false;
        self.manifest.list(fetch, dir, after, &mut |entry| {
            if end.is_some_and(|end| entry.cookie > end) {
                return Ok(ControlFlow::Break(()));
            }
            while let Some((cookie, state)) = private.next_if(|(cookie, _)| *cookie < entry.cookie) {
                if show(visit, cookie, &state)?.is_break() {
                    broke = true;
                    return Ok(ControlFlow::Break(()));
                }
            }
            let flow = match private.next_if(|(cookie, _)| *cookie == entry.cookie) {
                Some((cookie, state)) => show(visit, cookie, &state)?,
                None => visit(entry)?,
            };
            broke = flow.is_break();
            Ok(flow)
        })?;
        for (cookie, state) in private {
            if broke || show(visit, cookie, &state)?.is_break() {
                return Ok(None);
            }
        }
        Ok(if broke { None } else { end })
    }

    /// What the layers say of the names of `dir` from cookie `first` on, and up to which cookie that is
    /// all.
    fn private_entries(
        &self,
        fetch: &mut Fetch<'_>,
        dir: Ino,
        first: Cookie,
    ) -> Step<(BTreeMap<Cookie, EntryState>, Option<Cookie>)> {
        let range = Key::entry(dir, first)..=Key::entry(dir, Cookie(u64::MAX));
        let mut merged = BTreeMap::new();
        let mut end: Option<Cookie> = None;
        for level in (0..self.depth()).rev() {
            let (rows, complete) = self.page(fetch, level, dir, &range)?;
            for (key, version) in rows {
                if let Some(state) = EntryState::of(dir, &key, &version)? {
                    merged.insert(Cookie(key.b), state);
                }
            }
            if let Some(complete) = complete {
                end = Some(end.map_or(Cookie(complete.b), |end| end.min(Cookie(complete.b))));
            }
        }
        if let Some(end) = end {
            merged.retain(|cookie, _| *cookie <= end);
        }
        Ok((merged, end))
    }

    /// What the whole view holds in private, all layers, with the changes made so far.
    pub fn counts(&self) -> Counts {
        let own = self.staged.counts(self.top.as_ref().map(|state| state.counts).unwrap_or_default());
        Counts { bytes: self.lower_counts.bytes + own.bytes, inodes: self.lower_counts.inodes + own.inodes }
    }
}

fn show(
    visit: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
    cookie: Cookie,
    state: &EntryState,
) -> Result<ControlFlow<()>> {
    state.entry(cookie).map_or(Ok(ControlFlow::Continue(())), visit)
}

fn missing(layer: &Layer) -> Error {
    Error::corrupt(format!("overlay {} is named and not there", layer.overlay.0)).remedy("run `mimeo fsck`")
}

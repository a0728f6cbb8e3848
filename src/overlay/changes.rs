//! What sealed layers say together: every object and every name of which a view has private state.
//!
//! Owns the merge of the keys of several layers, uppermost first, in the order of the keys. It costs
//! what the layers hold and no more, whatever tree lies below them; memory is one page of rows for each
//! layer. It reads the index alone, where everything sealed is once [`OverlayStore::private`] answers:
//! no lock of an overlay is taken, and who writes meanwhile waits for nothing.
//!
//! What is told is what the layers say, not whether that differs from what lies below them.
//!
//! Failure story: a value that does not decode is `Corrupt` and ends the walk. The positions must be
//! named by the catalog as long as it lasts, else what they show may be gone.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::index::Index;
use super::keys::{Key, Kind};
use super::memtable::Version;
use super::node::{Level, NodeState};
use super::tree::entry::EntryState;
use super::{Layer, Node, OverlayStore};
use crate::error::{Error, Result};
use crate::manifest::{Cookie, Entry, Ino};
use crate::meta::Durability;

/// Rows of a layer that are held at once.
const PAGE: usize = 256;

/// The private state of sealed layers. Walks through it block. Copies are the same state.
#[derive(Clone)]
pub struct Private {
    index: Arc<Index>,
    /// Uppermost first.
    layers: SmallVec<[Layer; 8]>,
}

/// An object of which a layer has private state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateObject {
    pub ino: Ino,
    /// As the uppermost layer that knows it has it; `None` if it is not there by that.
    pub node: Option<Node>,
    /// Bytes of its data that the layers cover, each layer counted for itself, at most its size.
    pub bytes_private: u64,
    /// Up to which offset the image's data may show through.
    pub shows_image_upto: u64,
}

/// A name of which a layer has private state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateName {
    pub dir: Ino,
    pub cookie: Cookie,
    /// As the uppermost layer that knows it has it; `None` if that took it away.
    pub entry: Option<Entry>,
}

impl OverlayStore {
    /// The private state of `layers`, bottom first and sealed.
    pub async fn private(self: &Arc<Self>, layers: &[Layer]) -> Result<Private> {
        if !layers.is_empty() {
            self.flush(Durability::Buffered).await?;
        }
        Ok(self.private_in_index(layers))
    }

    /// The same of layers that are in the index at their positions, as a flush leaves them.
    pub(super) fn private_in_index(&self, layers: &[Layer]) -> Private {
        // As a tree has them: without those that were never written.
        let written = layers.iter().rev().filter(|layer| self.find(layer.overlay).is_some()).copied();
        Private { index: self.index.clone(), layers: written.collect() }
    }
}

impl Private {
    /// Every object, by inode number.
    pub fn objects(&self) -> impl Iterator<Item = Result<PrivateObject>> + use<> {
        self.walk(Key::node(Ino(0)), Key::node(Ino(u64::MAX))).map(|row| object(&row?))
    }

    /// One object; `None` if no layer says anything of it.
    pub fn object(&self, ino: Ino) -> Result<Option<PrivateObject>> {
        self.walk(Key::node(ino), Key::node(ino)).next().map(|row| object(&row?)).transpose()
    }

    /// Every name, by directory and cookie.
    pub fn names(&self) -> impl Iterator<Item = Result<PrivateName>> + use<> {
        self.names_within(Ino(0), Ino(u64::MAX))
    }

    /// The names of one directory, by cookie.
    pub fn names_of(&self, dir: Ino) -> impl Iterator<Item = Result<PrivateName>> + use<> {
        self.names_within(dir, dir)
    }

    fn names_within(&self, first: Ino, last: Ino) -> impl Iterator<Item = Result<PrivateName>> + use<> {
        self.walk(Key::entry(first, Cookie(0)), Key::entry(last, Cookie(u64::MAX))).map(|row| name(&row?))
    }

    fn walk(&self, from: Key, to: Key) -> Merge {
        let layers = self.layers.iter().map(|layer| Rows::new(*layer, from, to)).collect();
        Merge { index: self.index.clone(), layers }
    }
}

/// A key, and what each layer says of it, uppermost first: (number of the layer from the top, value).
struct Row {
    key: Key,
    said: SmallVec<[(usize, Version); 2]>,
}

/// The rows of several layers, in the order of their keys. Ends after the first failure.
struct Merge {
    index: Arc<Index>,
    layers: SmallVec<[Rows; 8]>,
}

impl Iterator for Merge {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_row().transpose();
        if matches!(next, Some(Err(_))) {
            self.layers.clear();
        }
        next
    }
}

impl Merge {
    /// The next key of which any layer says anything.
    fn next_row(&mut self) -> Result<Option<Row>> {
        loop {
            let mut least = None;
            for layer in &mut self.layers {
                let key = layer.peek(&self.index)?;
                least = least.into_iter().chain(key).min();
            }
            let Some(key) = least else { return Ok(None) };
            let mut said = SmallVec::new();
            for (level, layer) in self.layers.iter_mut().enumerate() {
                let version = layer.take(&self.index, key)?.filter(|version| version.value.is_some());
                said.extend(version.map(|version| (level, version)));
            }
            if !said.is_empty() {
                return Ok(Some(Row { key, said }));
            }
        }
    }
}

/// The rows of one layer that are still to come.
struct Rows {
    layer: Layer,
    page: VecDeque<(Key, Version)>,
    /// Where the next page begins.
    from: Option<Key>,
    to: Key,
}

impl Rows {
    fn new(layer: Layer, from: Key, to: Key) -> Self {
        Self { layer, page: VecDeque::new(), from: Some(from), to }
    }

    /// The next key of which the overlay says, or said, anything.
    fn peek(&mut self, index: &Index) -> Result<Option<Key>> {
        if self.page.is_empty()
            && let Some(from) = self.from.take()
        {
            self.page = index.heads(self.layer.overlay, from, self.to, PAGE)?.into();
            let full = self.page.len() == PAGE;
            self.from = self.page.back().filter(|_| full).and_then(|(key, _)| key.next());
        }
        Ok(self.page.front().map(|(key, _)| *key))
    }

    /// The value of `key` in this layer, if that is the next key.
    fn take(&mut self, index: &Index, key: Key) -> Result<Option<Version>> {
        if self.page.front().is_none_or(|(next, _)| *next != key) {
            return Ok(None);
        }
        let Some((_, newest)) = self.page.pop_front() else { return Ok(None) };
        let Layer { overlay, upto, .. } = self.layer;
        if newest.position <= upto { Ok(Some(newest)) } else { index.at(overlay, &key, upto) }
    }
}

fn object(row: &Row) -> Result<PrivateObject> {
    let ino = Ino(row.key.a);
    let mut object = PrivateObject { ino, node: None, bytes_private: 0, shows_image_upto: u64::MAX };
    for (level, version) in &row.said {
        let Some(state) = state(*level, version) else { return Err(damaged(ino)) };
        let NodeState::Present(node) = state else {
            // One that came back shows its base, not nothing.
            if object.node.as_ref().is_none_or(|node| node.base.is_none()) {
                object.shows_image_upto = 0;
            }
            break;
        };
        // What a layer above cut off shows no more.
        object.bytes_private += node.own.min(object.shows_image_upto);
        object.shows_image_upto = object.shows_image_upto.min(node.below);
        object.node.get_or_insert(node);
    }
    let size = object.node.as_ref().map_or(0, |node| node.size);
    object.bytes_private = object.bytes_private.min(size);
    Ok(object)
}

/// What a layer says of an object; the number of the layer is that in a tree of sealed layers.
fn state(level: usize, version: &Version) -> Option<NodeState> {
    NodeState::decode(version.value.as_ref()?, Level::Layer(level + 1))
}

fn name(row: &Row) -> Result<PrivateName> {
    let (dir, cookie) = (Ino(row.key.a), Cookie(row.key.b));
    debug_assert_eq!(row.key.kind, Kind::Entry);
    let uppermost = row.said.first().map(|(_, version)| EntryState::of(dir, &row.key, version)).transpose()?;
    Ok(PrivateName { dir, cookie, entry: uppermost.flatten().and_then(|state| state.entry(cookie)) })
}

fn damaged(ino: Ino) -> Error {
    Error::corrupt(format!("the private state of inode {} is damaged", ino.0)).remedy("run `mimeo fsck`")
}

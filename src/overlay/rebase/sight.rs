//! The three sides of a rebase: the version before, the view, the version to come.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::Rebase;
use crate::chunk::{Fetch, Step};
use crate::error::{Error, Result};
use crate::manifest::{Cookie, Entry, Ino, Inode, MAX_DEPTH, Manifest};
use crate::overlay::changes::Private;
use crate::overlay::keys::{Key, Kind};
use crate::overlay::node::{Level, NodeState};
use crate::overlay::paths::PrivateNames;
use crate::overlay::{Layer, Node, OverlayStore, Position, Tree};

/// Keys that are read together.
const PAGE: usize = 1000;
/// Questions between two of which loaded pages are let go.
const RELEASE_EVERY: u32 = 256;

/// Reads all three; on a thread that may block.
pub struct Sight<'a> {
    pub store: &'a OverlayStore,
    layers: &'a [Layer],
    /// What the layers say.
    pub private: Private,
    names: PrivateNames,
    pub from: Manifest,
    pub to: Manifest,
    fetch: Fetch<'a>,
    asked: u32,
}

impl<'a> Sight<'a> {
    pub fn new(store: &'a OverlayStore, rebase: &'a Rebase) -> Result<Self> {
        let mut fetch = Fetch::new(&*store.chunks);
        let from = fetch.run_blocking(|fetch| Manifest::open(fetch, &rebase.from))?;
        let to = fetch.run_blocking(|fetch| Manifest::open(fetch, &rebase.to))?;
        let private = store.private_in_index(&rebase.layers);
        let names = PrivateNames::new(&private, false);
        Ok(Self { store, layers: &rebase.layers, private, names, from, to, fetch, asked: 0 })
    }

    fn ask<T>(&mut self, mut question: impl FnMut(&Tree<'_>, &mut Fetch<'_>) -> Step<T>) -> Result<T> {
        self.ask_over(self.from, &mut question)
    }

    /// Ask what the layers show over `manifest`.
    pub fn ask_over<T>(
        &mut self,
        manifest: Manifest,
        question: &mut dyn FnMut(&Tree<'_>, &mut Fetch<'_>) -> Step<T>,
    ) -> Result<T> {
        self.asked += 1;
        if self.asked.is_multiple_of(RELEASE_EVERY) {
            self.fetch.release();
        }
        let (store, layers) = (self.store, self.layers);
        self.fetch.run_blocking(|fetch| question(&Tree::open_sealed(store, manifest, layers)?, fetch))
    }

    pub fn inode(&mut self, manifest: Manifest, ino: Ino) -> Result<Option<Arc<Inode>>> {
        self.ask(|_, fetch| manifest.inode(fetch, ino))
    }

    pub fn entry(&mut self, manifest: Manifest, dir: Ino, cookie: Cookie) -> Result<Option<Entry>> {
        self.ask(|_, fetch| manifest.entry_at(fetch, dir, cookie))
    }

    /// The names of an object in a version.
    pub fn names(&mut self, manifest: Manifest, ino: Ino, inode: &Inode) -> Result<Vec<(Ino, Cookie)>> {
        self.ask(|_, fetch| manifest.names(fetch, ino, inode))
    }

    /// The object as the view has it.
    pub fn node(&mut self, ino: Ino) -> Result<Option<Node>> {
        self.ask(|tree, fetch| tree.node(fetch, ino))
    }

    /// The name as the view has it.
    pub fn shown(&mut self, dir: Ino, cookie: Cookie) -> Result<Option<Entry>> {
        self.ask(|tree, fetch| tree.entry_at(fetch, dir, cookie))
    }

    /// Whether some layer says anything of a key.
    pub fn is_private(&self, key: &Key) -> Result<bool> {
        for layer in self.layers {
            if self.store.index.at(layer.overlay, key, layer.upto)?.is_some_and(|version| version.value.is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether some layer has data of a file of the version before, or cut some off, since it was last removed.
    pub fn has_data(&self, ino: Ino, image: &Inode) -> Result<bool> {
        for layer in self.layers.iter().rev() {
            let version = self.store.index.at(layer.overlay, &Key::node(ino), layer.upto)?;
            match version.and_then(|version| NodeState::decode(version.value.as_ref()?, Level::New)) {
                Some(NodeState::Present(node)) if node.has_private_data(Some(image)) => return Ok(true),
                Some(NodeState::Removed | NodeState::Absent) => return Ok(false),
                _ if self.has_buckets(layer, ino)? => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }

    fn has_buckets(&self, layer: &Layer, ino: Ino) -> Result<bool> {
        let (mut from, to) = (Key::bucket(ino, 0), Key::bucket(ino, u64::MAX));
        loop {
            let keys = self.store.index.keys(layer.overlay, from, to, PAGE)?;
            for key in &keys {
                if self.store.index.at(layer.overlay, key, layer.upto)?.is_some_and(|version| version.value.is_some()) {
                    return Ok(true);
                }
            }
            match keys.last().and_then(Key::next) {
                Some(next) if keys.len() == PAGE => from = next,
                _ => return Ok(false),
            }
        }
    }

    /// Visit the keys of one kind of a layer that were changed after `after`.
    pub fn each_key(
        &mut self,
        layer: &Layer,
        range: RangeInclusive<Key>,
        after: Position,
        visit: &mut dyn FnMut(&mut Self, Key) -> Result<()>,
    ) -> Result<()> {
        let (mut from, to) = range.into_inner();
        loop {
            let heads = self.store.index.heads(layer.overlay, from, to, PAGE)?;
            let (last, is_full) = (heads.last().map(|(key, _)| *key), heads.len() == PAGE);
            for (key, head) in heads {
                let version = match head.position <= layer.upto {
                    true => Some(head),
                    false => self.store.index.at(layer.overlay, &key, layer.upto)?,
                };
                // What says nothing any more may have said something when it was looked at.
                if version.is_some_and(|v| v.position > after && (v.value.is_some() || after > 0)) {
                    visit(self, key)?;
                }
            }
            match last.as_ref().and_then(Key::next) {
                Some(next) if is_full => from = next,
                _ => return Ok(()),
            }
        }
    }

    /// Where the view has a directory: in which other one, and under which name. `None` for the root.
    pub fn home(&mut self, dir: Ino) -> Result<Option<(Ino, Entry)>> {
        if dir == Ino::ROOT {
            return Ok(None);
        }
        let lost = || Error::corrupt(format!("directory {} has no name in its parent", dir.0));
        if let Some(node) = self.node(dir)? {
            return Ok(Some((node.parent, self.name_in(node.parent, dir)?.ok_or_else(lost)?)));
        }
        // What the view removed is told as the version before has it.
        let from = self.from;
        let inode = self.inode(from, dir)?.ok_or_else(lost)?;
        let entry = self.entry(from, inode.parent, inode.parent_cookie)?.ok_or_else(lost)?;
        Ok(Some((inode.parent, entry)))
    }

    /// A name by which the view has `ino` in `parent`; of several that the image has there, the first.
    pub fn name_in(&mut self, parent: Ino, ino: Ino) -> Result<Option<Entry>> {
        let mut of_image: Option<Entry> = None;
        if let Some(inode) = self.inode(self.from, ino)? {
            for (dir, cookie) in self.names(self.from, ino, &inode)? {
                if dir == parent
                    && let Some(entry) = self.shown(dir, cookie)?.filter(|entry| entry.ino == ino)
                    && of_image.as_ref().is_none_or(|first| entry.name < first.name)
                {
                    of_image = Some(entry);
                }
            }
        }
        if of_image.is_some() {
            return Ok(of_image);
        }
        self.names.find(parent, ino)
    }

    /// The path of a name in a directory of the view.
    pub fn path(&mut self, dir: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let mut names = vec![name.to_vec()];
        let mut at = dir;
        while let Some((parent, entry)) = self.home(at)? {
            if names.len() == MAX_DEPTH {
                return Err(Error::corrupt(format!("directory {} is deeper than {MAX_DEPTH}", dir.0)));
            }
            names.push(entry.name.to_vec());
            at = parent;
        }
        names.reverse();
        Ok(names.join(&b'/'))
    }

    /// A path of an object in the view; of one that is gone there, in the version before.
    pub fn path_of(&mut self, ino: Ino) -> Result<Vec<u8>> {
        if let Some(node) = self.node(ino)?
            && let Some(entry) = self.name_in(node.parent, ino)?
        {
            return self.path(node.parent, &entry.name);
        }
        let (from, to) = (self.from, self.to);
        for manifest in [from, to] {
            if let Some(path) = self.ask(|_, fetch| manifest.path_of(fetch, ino))? {
                return Ok(path);
            }
        }
        Ok(format!("(inode {})", ino.0).into_bytes())
    }
}

/// All keys of one kind.
pub fn all_of(kind: Kind) -> RangeInclusive<Key> {
    Key { kind, a: 0, b: 0 }..=Key { kind, a: u64::MAX, b: u64::MAX }
}

//! Flattening: a stack of sealed layers becomes one layer that shows the same.
//!
//! Only the index is copied: both stacks refer to the same data. The new overlay is in the index from the
//! start, so that one that was not finished is found and purged.

use std::sync::Arc;

use super::{Held, OverlayStore};
use crate::error::{Error, Result};
use crate::manifest::{Cookie, Ino};
use crate::meta::Durability;
use crate::overlay::bucket::Bucket;
use crate::overlay::index::{Copy, Index, OverlayRow};
use crate::overlay::keys::{Key, Kind};
use crate::overlay::node::{Level, NodeState};
use crate::overlay::rebase::{Choice, FITS};
use crate::overlay::state::Overlay;
use crate::overlay::touched::Touched;
use crate::overlay::{Counts, Layer, OverlayId, Position};

/// Rows of one batch.
const BATCH: usize = 1000;

impl OverlayStore {
    /// Make the fresh overlay `into` show what `layers` (bottom first, sealed) show together. On stable
    /// storage when it returns; to be named before the second answer goes.
    pub async fn flatten(self: &Arc<Self>, layers: Vec<Layer>, into: OverlayId) -> Result<(Layer, Held)> {
        self.flatten_choice(layers, None, into).await
    }

    /// The same of a part of what they show.
    pub(in crate::overlay) async fn flatten_choice(
        self: &Arc<Self>,
        layers: Vec<Layer>,
        choice: Option<Choice>,
        into: OverlayId,
    ) -> Result<(Layer, Held)> {
        let upto = choice.as_ref().map_or(FITS, Choice::upto);
        let held = self.hold(&[Layer { overlay: into, upto, counts: Counts::default() }]);
        // What is sealed is in the index from here on, at its positions.
        self.flush(Durability::Buffered).await?;
        self.insert(Overlay::new(into, OverlayRow::default(), vec![upto], Touched::Unread));
        let index = self.index.clone();
        let done = tokio::task::spawn_blocking(move || Flatten::new(&index, layers, choice, (into, upto)).run()).await;
        let counts = done.map_err(|e| Error::internal("flattening layers").because(e))??;
        self.find(into)
            .ok_or_else(|| Error::internal("a flattened overlay is gone"))?
            .lock()
            .restart(OverlayRow { position: upto, counts });
        Ok((Layer { overlay: into, upto, counts }, held))
    }
}

struct Flatten<'a> {
    index: &'a Index,
    /// Uppermost first.
    layers: Vec<Layer>,
    /// `None`: all of it.
    choice: Option<Choice>,
    copy: Copy<'a>,
    counts: Counts,
}

impl<'a> Flatten<'a> {
    fn new(
        index: &'a Index,
        mut layers: Vec<Layer>,
        choice: Option<Choice>,
        (into, upto): (OverlayId, Position),
    ) -> Self {
        layers.reverse();
        Self { index, layers, choice, copy: Copy::new(index, into, upto, BATCH), counts: Counts::default() }
    }

    fn run(mut self) -> Result<Counts> {
        self.copy.begin()?;
        for level in 0..self.layers.len() {
            self.each_key(level, Kind::Node, &mut |this, key| this.object(level, Ino(key.a)))?;
            self.each_key(level, Kind::Entry, &mut |this, key| this.entry(level, key))?;
        }
        let above = self.choice.as_mut().map(|choice| std::mem::take(&mut choice.above)).unwrap_or_default();
        for (ino, mut node) in above {
            node.raise();
            self.put_node(ino, &NodeState::Present(node))?;
        }
        self.copy.finish(self.counts, Durability::Synced)?;
        Ok(self.counts)
    }

    /// Visit the keys of one kind of a layer, page by page.
    fn each_key(
        &mut self,
        level: usize,
        kind: Kind,
        visit: &mut dyn FnMut(&mut Self, Key) -> Result<()>,
    ) -> Result<()> {
        let (overlay, mut from) = (self.layers[level].overlay, Key { kind, a: 0, b: 0 });
        loop {
            let keys = self.index.keys(overlay, from, Key { kind, a: u64::MAX, b: u64::MAX }, BATCH)?;
            for key in &keys {
                visit(self, *key)?;
            }
            match keys.last().and_then(Key::next) {
                Some(next) if keys.len() == BATCH => from = next,
                _ => return Ok(()),
            }
        }
    }

    /// What layer `level` says of `key`.
    fn value(&self, level: usize, key: &Key) -> Result<Option<bytes::Bytes>> {
        let Layer { overlay, upto, .. } = self.layers[level];
        Ok(self.index.at(overlay, key, upto)?.and_then(|version| version.value))
    }

    /// The layers from `level` down that say anything of an object; none if one above does, or if `level`
    /// itself does not (its newest state may have an object that its sealed one has not).
    fn node_states(&self, level: usize, ino: Ino) -> Result<Vec<(usize, NodeState)>> {
        let key = Key::node(ino);
        for above in 0..level {
            if self.value(above, &key)?.is_some() {
                return Ok(Vec::new());
            }
        }
        let mut states = Vec::new();
        for level in level..self.layers.len() {
            let Some(bytes) = self.value(level, &key)? else { if states.is_empty() { break } else { continue } };
            let state = NodeState::decode(&bytes, Level::Layer(0));
            states.push((level, state.ok_or_else(|| damaged(ino))?));
            if !matches!(states.last(), Some((_, NodeState::Present(_)))) {
                break;
            }
        }
        Ok(states)
    }

    /// An object and its data.
    fn object(&mut self, level: usize, ino: Ino) -> Result<()> {
        let nlink = self.choice.as_ref().map(|choice| choice.objects.get(&ino).copied());
        if nlink == Some(None) {
            return Ok(());
        }
        let states = self.node_states(level, ino)?;
        let mut node = match states.first() {
            None => return Ok(()),
            Some((_, NodeState::Present(top))) => top.clone(),
            Some((_, gone)) => return self.put_node(ino, gone),
        };
        let nlink = nlink.flatten().unwrap_or(node.nlink);
        if nlink == 0 {
            return self.put_node(ino, &NodeState::Absent);
        }
        if std::mem::replace(&mut node.nlink, nlink) != nlink {
            // Clients tell by the ctime that something changed.
            node.ctime = node.ctime.next();
        }
        node.own = self.buckets(ino, &states)?;
        for (_, state) in &states[1..] {
            match state {
                NodeState::Present(below) => {
                    (node.below, node.below_used) = (node.below.min(below.below), below.below_used);
                }
                // What came back shows its base there.
                NodeState::Removed | NodeState::Absent if node.base.is_some() => {}
                NodeState::Removed | NodeState::Absent => (node.below, node.below_used) = (0, 0),
            }
        }
        self.put_node(ino, &NodeState::Present(node))
    }

    fn put_node(&mut self, ino: Ino, state: &NodeState) -> Result<()> {
        self.counts.inodes += 1;
        let position = self.choice.as_ref().map_or(FITS, |choice| choice.position(ino));
        self.copy.put_at(Key::node(ino), state.encode()?, position)
    }

    /// Merge the buckets of a file; answers how many bytes they cover.
    fn buckets(&mut self, ino: Ino, states: &[(usize, NodeState)]) -> Result<u64> {
        let mut numbers = std::collections::BTreeSet::new();
        for (level, _) in states {
            let (from, to) = (Key::bucket(ino, 0), Key::bucket(ino, u64::MAX));
            let keys = self.index.keys(self.layers[*level].overlay, from, to, usize::MAX)?;
            numbers.extend(keys.iter().map(|key| key.b));
        }
        let mut covered = 0;
        for number in numbers {
            let bucket = self.bucket(ino, number, states)?;
            if !bucket.is_empty() {
                covered += bucket.covered();
                self.counts.bytes += bucket.stored();
                self.copy.put_at(Key::bucket(ino, number), bucket.encode(), FITS)?;
            }
        }
        Ok(covered)
    }

    /// One bucket: lowest layer first, each cut where the one above lets nothing through.
    fn bucket(&self, ino: Ino, number: u64, states: &[(usize, NodeState)]) -> Result<Bucket> {
        let key = Key::bucket(ino, number);
        let mut merged = Bucket::default();
        for (level, state) in states.iter().rev() {
            let NodeState::Present(node) = state else { continue };
            merged.cut_at(number, node.below);
            let Some(bytes) = self.value(*level, &key)? else { continue };
            for fragment in Bucket::decode(&bytes).ok_or_else(|| damaged(ino))?.fragments {
                merged.write(fragment);
            }
        }
        Ok(merged)
    }

    fn entry(&mut self, level: usize, key: Key) -> Result<()> {
        let name = (Ino(key.a), Cookie(key.b));
        if self.choice.as_ref().is_some_and(|choice| !choice.names.contains(&name)) {
            return Ok(());
        }
        for above in 0..level {
            if self.value(above, &key)?.is_some() {
                return Ok(());
            }
        }
        match self.value(level, &key)? {
            Some(bytes) => self.copy.put_at(key, bytes, FITS),
            None => Ok(()),
        }
    }
}

fn damaged(ino: Ino) -> Error {
    Error::corrupt(format!("the private state of inode {} is damaged", ino.0)).remedy("run `mimeo fsck`")
}

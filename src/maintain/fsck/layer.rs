//! What one overlay changed between two of its positions, judged by itself: data against nodes, names
//! against directories. What was right before need not be looked at again.

use std::collections::{BTreeMap, BTreeSet};

use super::{LayerFlaw, Store};
use crate::error::{Error, Result};
use crate::manifest::{Cookie, FileKind, Ino, MAX_FILE_SIZE, MAX_SYMLINK};
use crate::overlay::check::{About, LayerNode};
use crate::overlay::{Node, OverlayId, Position};

/// A part of the life of an overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub overlay: OverlayId,
    /// Everything up to there is right.
    pub after: Position,
    pub upto: Position,
}

impl Span {
    /// Judge an object of which the node or data changed. `gained`: bytes that its data cover more than
    /// before.
    fn object(&self, store: &Store<'_>, ino: Ino, gained: i64, found: &mut Vec<LayerFlaw>) -> Result<()> {
        let node = |at| store.overlays.layer_node(self.overlay, at, ino);
        let former = match node(self.after)? {
            LayerNode::Present { own, .. } => own,
            LayerNode::Removed | LayerNode::Nothing => 0,
        };
        let counted = (former as i64).saturating_add(gained);
        let LayerNode::Present { node, own: kept, below } = node(self.upto)? else {
            // Of what is gone some may be left, or may have been left before.
            if counted != 0 && !self.has_orphan(store, ino)? {
                found.push(LayerFlaw::StrayData { ino });
            }
            return Ok(());
        };
        if node.kind != FileKind::Regular && counted != 0 {
            found.push(LayerFlaw::StrayData { ino });
        } else if i64::try_from(kept) != Ok(counted) {
            found.push(LayerFlaw::Own { ino, kept, counted });
        } else if kept > 0 && store.overlays.layer_has_data_beyond(self.overlay, self.upto, ino, node.size)? {
            found.push(LayerFlaw::BeyondEnd { ino, size: node.size });
        }
        found.extend(shape(ino, &node, below));
        Ok(())
    }

    fn has_orphan(&self, store: &Store<'_>, ino: Ino) -> Result<bool> {
        let at = |position| store.overlays.layer_has_orphan(self.overlay, position, ino);
        Ok(at(self.after)? || at(self.upto)?)
    }

    /// By how many bytes a bucket covers more than before.
    fn gained(&self, store: &Store<'_>, ino: Ino, bucket: u64) -> Result<i64> {
        let covered = |at| store.overlays.layer_data(self.overlay, at, ino, bucket);
        // A bucket covers 64 KiB at most.
        Ok(covered(self.upto)? as i64 - covered(self.after)? as i64)
    }

    /// Judge a name that changed: who reads a directory asks only layers that have it.
    fn name(&self, store: &Store<'_>, dir: Ino, cookie: Cookie, found: &mut Vec<LayerFlaw>) -> Result<()> {
        let has_name = store.overlays.layer_has_name(self.overlay, self.upto, dir, cookie)?;
        if has_name && store.overlays.layer_node(self.overlay, self.upto, dir)? == LayerNode::Nothing {
            found.push(LayerFlaw::StrayName { dir, cookie });
        }
        Ok(())
    }
}

/// What of a node cannot be, whatever its data are.
fn shape(ino: Ino, node: &Node, below: u64) -> impl Iterator<Item = LayerFlaw> {
    let size = node.size;
    let target = match node.kind {
        FileKind::Symlink => size == node.target.len() as u64 && (1..=MAX_SYMLINK as u64).contains(&size),
        _ => node.target.is_empty(),
    };
    let flaws = [
        (size > MAX_FILE_SIZE).then_some(LayerFlaw::Size { ino, size }),
        (!target).then_some(LayerFlaw::Target { ino }),
        (below > size).then_some(LayerFlaw::Below { ino, below }),
    ];
    flaws.into_iter().flatten()
}

/// What a judgement found.
#[derive(Default)]
pub struct Judged {
    pub flaws: Vec<LayerFlaw>,
    /// What could not be read, and so was not judged.
    pub errors: Vec<Error>,
}

/// Judge `changes`, which are those of `span`.
pub fn check(store: &Store<'_>, span: &Span, changes: &BTreeSet<About>) -> Judged {
    let mut judged = Judged::default();
    // By how many bytes the data of an object cover more than before; `None` if that cannot be told.
    let mut objects: BTreeMap<Ino, Option<i64>> = BTreeMap::new();
    for about in changes {
        match *about {
            About::Node(ino) => drop(objects.entry(ino).or_insert(Some(0))),
            About::Name(dir, cookie) => judged.errors.extend(span.name(store, dir, cookie, &mut judged.flaws).err()),
            About::Data(ino, bucket) => {
                let gained = span.gained(store, ino, bucket).map_err(|error| judged.errors.push(error)).ok();
                let sum = objects.entry(ino).or_insert(Some(0));
                *sum = sum.zip(gained).map(|(sum, gained)| sum + gained);
            }
            About::Orphan(_) => {}
        }
    }
    for (ino, gained) in objects.into_iter().filter_map(|(ino, gained)| Some((ino, gained?))) {
        judged.errors.extend(span.object(store, ino, gained, &mut judged.flaws).err());
    }
    judged
}

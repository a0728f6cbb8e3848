//! Which views there are, each once, and whether their layers are there.
//!
//! A view is a version under a stack of layers. Views that have lower layers in common share the work: what
//! a view stands on is looked at here as well. Mostly it is a view that some clone showed at some moment;
//! but if the clone was switched to the version with its writes kept, only the upper layers make the lower
//! ones fit, and what these show by themselves nobody ever saw. So nobody is told of it, either.

use std::collections::BTreeMap;

use super::rows::Overlays;
use super::{Report, Store, ViewFlaw, ViewName, Violation};
use crate::image::{CloneRecord, ImageId, MAX_LAYERS, VersionNumber, View};
use crate::overlay::{Layer, OverlayId, Position};

/// What a view consists of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stack {
    pub image: ImageId,
    pub version: VersionNumber,
    /// Bottom first; each up to a position, the open one to [`Position::MAX`].
    pub layers: Vec<(OverlayId, Position)>,
}

impl Stack {
    /// Whether it shows what `base` shows, and what was written over that.
    pub fn extends(&self, base: &Self) -> bool {
        let same_version = (self.image, self.version) == (base.image, base.version);
        let Some(((last, upto), lower)) = base.layers.split_last() else { return same_version };
        let same_lower = same_version && self.layers.starts_with(lower);
        same_lower && self.layers.get(lower.len()).is_some_and(|(id, position)| id == last && position >= upto)
    }

    /// Without its uppermost layers.
    fn lower(&self, layers: usize) -> Self {
        Self { layers: self.layers[..layers].to_vec(), ..*self }
    }
}

/// By whom a view is shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// `None`: by nobody; others stand on it.
    pub by: Option<ViewName>,
    /// By pins alone.
    pub pinned: bool,
}

/// Every view.
pub type Views = BTreeMap<Stack, Shown>;

/// The views of all clones, pins and snapshots, and what they stand on.
pub fn collect(store: &Store<'_>, overlays: &Overlays, report: &mut Report) -> Views {
    let mut collector = Collector { store, overlays, report, views: Views::new() };
    for clone in store.state.clones() {
        collector.clone(clone);
    }
    let Collector { mut views, .. } = collector;
    let lower: Vec<_> =
        views.keys().flat_map(|stack| (1..stack.layers.len()).map(|layers| stack.lower(layers))).collect();
    for stack in lower {
        views.entry(stack).or_insert(Shown { by: None, pinned: false });
    }
    report.checked.views = views.len() as u64;
    views
}

struct Collector<'a> {
    store: &'a Store<'a>,
    overlays: &'a Overlays,
    report: &'a mut Report,
    views: Views,
}

impl Collector<'_> {
    fn clone(&mut self, clone: &CloneRecord) {
        self.report.checked.clones += 1;
        let name = ViewName::Clone(clone.name.clone());
        self.view(clone, &clone.view, name.clone());
        for pin in &clone.pins {
            let by = ViewName::Pin { clone: clone.name.clone(), view: pin.view.number };
            pin.sealed.iter().for_each(|layer| self.layer(layer, &by));
            self.view(clone, &pin.view, by);
        }
        for layer in clone.layers_told_apart() {
            self.layer(layer, &name);
        }
        for snapshot in self.store.state.snapshots_of(clone.id) {
            self.report.checked.snapshots += 1;
            let by = ViewName::Snapshot { clone: clone.name.clone(), name: snapshot.name.clone() };
            self.stack(clone.image, snapshot.version, &snapshot.layers, None, by);
        }
    }

    fn view(&mut self, clone: &CloneRecord, view: &View, by: ViewName) {
        self.stack(clone.image, view.version, &view.layers, Some(view.top), by);
    }

    fn stack(
        &mut self,
        image: ImageId,
        version: VersionNumber,
        layers: &[Layer],
        top: Option<OverlayId>,
        by: ViewName,
    ) {
        layers.iter().for_each(|layer| self.layer(layer, &by));
        if layers.len() > MAX_LAYERS {
            self.add(&by, ViewFlaw::TooManyLayers { layers: layers.len() });
        }
        if layers.iter().any(|layer| layer.upto > 0 && !self.overlays.contains_key(&layer.overlay)) {
            // It cannot be read, and that is told.
            return;
        }
        let top = top.filter(|top| self.overlays.contains_key(top)).map(|top| (top, Position::MAX));
        let layers = layers.iter().map(|layer| (layer.overlay, layer.upto)).chain(top).collect();
        let pinned = matches!(by, ViewName::Pin { .. });
        let shown = self.views.entry(Stack { image, version, layers });
        shown.and_modify(|shown| shown.pinned &= pinned).or_insert(Shown { by: Some(by), pinned });
    }

    /// A sealed layer is within its overlay.
    fn layer(&mut self, layer: &Layer, by: &ViewName) {
        let overlay = layer.overlay;
        let now = self.overlays.get(&overlay);
        let last = now.map_or(0, |now| now.upto);
        if layer.upto > last {
            self.add(by, ViewFlaw::LayerAhead { overlay, upto: layer.upto, last });
        } else if let Some(now) = now.filter(|now| now.upto == layer.upto && now.counts != layer.counts) {
            self.add(by, ViewFlaw::LayerCounts { overlay, named: layer.counts, kept: now.counts });
        }
    }

    fn add(&mut self, view: &ViewName, flaw: ViewFlaw) {
        self.report.add(Violation::View { view: view.clone(), flaw });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(version: VersionNumber, layers: &[(u64, Position)]) -> Stack {
        let layers = layers.iter().map(|(id, upto)| (OverlayId(*id), *upto)).collect();
        Stack { image: ImageId(1), version, layers }
    }

    #[test]
    fn a_stack_extends_what_was_written_before_it() {
        let base = stack(1, &[(5, 3), (7, 9)]);
        for (extends, other) in [
            (true, stack(1, &[(5, 3), (7, 9)])),
            (true, stack(1, &[(5, 3), (7, 10)])),
            (true, stack(1, &[(5, 3), (7, Position::MAX), (8, 1)])),
            (false, stack(1, &[(5, 3), (7, 8)])),
            (false, stack(1, &[(5, 4), (7, 9)])),
            (false, stack(1, &[(5, 3)])),
            (false, stack(1, &[(5, 3), (8, 9)])),
            (false, stack(2, &[(5, 3), (7, 9)])),
        ] {
            assert_eq!(other.extends(&base), extends, "{other:?}");
        }
        assert!(base.extends(&stack(1, &[])) && !base.extends(&stack(2, &[])));
    }

    /// Whatever order views come in, those that extend others come after them.
    #[test]
    fn views_come_after_those_that_they_extend() {
        let mut stacks = [
            stack(1, &[(5, Position::MAX)]),
            stack(1, &[(5, 3), (7, 2)]),
            stack(1, &[(5, 3)]),
            stack(1, &[]),
            stack(1, &[(5, 9)]),
        ];
        stacks.sort();
        for (at, stack) in stacks.iter().enumerate() {
            assert!(stacks[..at].iter().all(|former| !former.extends(stack)), "{stack:?}");
        }
    }
}

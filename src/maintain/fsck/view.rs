//! Views, tree against tree.
//!
//! A view is compared with one that it extends and that is good: another view, at last the image
//! itself. Only what was written over that one is looked at: how many names each object gained, how
//! many subdirectories each directory gained, and whether link counts changed by as much. So 5,000
//! snapshots of a clone cost as much as what was written between them.
//!
//! Everything is read through [`Tree`], as a request reads it.

mod diff;

use std::collections::{BTreeMap, BTreeSet};

use self::diff::Diff;
use super::layer::{self, Span};
use super::stack::{Shown, Stack, Views};
use super::{Report, Store, ViewFlaw, Violation, damage};
use crate::chunk::{Fetch, Step};
use crate::error::Result;
use crate::manifest::{Cookie, Entry, Ino, Manifest};
use crate::overlay::check::About;
use crate::overlay::{Counts, Layer, Node, OverlayId, Position, Tree};

/// Check every view.
pub fn check_all(store: &Store<'_>, views: &Views, report: &mut Report) -> Result<()> {
    let mut changes = Changes { store, of: BTreeMap::new() };
    // Good ones, each extending the one before it.
    let mut good: Vec<&Stack> = Vec::new();
    for (stack, shown) in views.iter().filter(|(stack, _)| !stack.layers.is_empty()) {
        while good.last().is_some_and(|base| !stack.extends(base)) {
            good.pop();
        }
        changes.forget_others(stack);
        if check(store, stack, good.last().copied(), shown, &mut changes, report)? {
            good.push(stack);
        }
    }
    Ok(())
}

/// Whether nothing is wrong with the view.
fn check(
    store: &Store<'_>,
    stack: &Stack,
    base: Option<&Stack>,
    shown: &Shown,
    changes: &mut Changes<'_>,
    report: &mut Report,
) -> Result<bool> {
    let mut sound = true;
    let mut tell = |flaw: ViewFlaw| {
        sound = false;
        shown.by.iter().for_each(|by| report.add(Violation::View { view: by.clone(), flaw: flaw.clone() }));
    };
    let manifest = match store.manifest(stack.image, stack.version) {
        Ok(manifest) => manifest,
        Err(error) => {
            tell(ViewFlaw::Unreadable { what: damage(error)? });
            return Ok(false);
        }
    };
    let mut diff = Diff::new(Shape::new(store, manifest, base), Shape::new(store, manifest, Some(stack)), shown.pinned);
    for span in spans(stack, base) {
        let changed = changes.within(&span)?;
        let judged = layer::check(store, &span, &changed);
        judged.flaws.into_iter().for_each(|flaw| tell(ViewFlaw::Layer { overlay: span.overlay, flaw }));
        for error in judged.errors {
            tell(ViewFlaw::Unreadable { what: damage(error)? });
        }
        changed.into_iter().for_each(|about| diff.add(about));
    }
    diff.run()?.into_iter().for_each(tell);
    Ok(sound)
}

/// What a view has over its base.
fn spans(stack: &Stack, base: Option<&Stack>) -> Vec<Span> {
    let base = base.map_or(&[][..], |base| &base.layers);
    let from = base.len().saturating_sub(1);
    let after = |at: usize| base.get(at).map_or(0, |(_, upto)| *upto);
    let over = stack.layers.iter().enumerate().skip(from);
    over.map(|(at, (overlay, upto))| Span { overlay: *overlay, after: after(at), upto: *upto }).collect()
}

/// What overlays changed, read once for the views that follow each other.
struct Changes<'a> {
    store: &'a Store<'a>,
    of: BTreeMap<OverlayId, Vec<(Position, About)>>,
}

impl Changes<'_> {
    fn forget_others(&mut self, stack: &Stack) {
        self.of.retain(|overlay, _| stack.layers.iter().any(|(id, _)| id == overlay));
    }

    fn within(&mut self, span: &Span) -> Result<BTreeSet<About>> {
        if !self.of.contains_key(&span.overlay) {
            self.of.insert(span.overlay, self.store.overlays.changes(span.overlay)?);
        }
        let all = self.of.get(&span.overlay).map_or(&[][..], |changes| changes);
        let from = all.partition_point(|(position, _)| *position <= span.after);
        let to = all.partition_point(|(position, _)| *position <= span.upto);
        Ok(all[from..to].iter().map(|(_, about)| *about).collect())
    }
}

/// A tree that can be opened again and again.
struct Shape<'a> {
    store: &'a Store<'a>,
    manifest: Manifest,
    sealed: Vec<Layer>,
    open: Option<OverlayId>,
}

impl<'a> Shape<'a> {
    /// Of the image itself, if there is no stack.
    fn new(store: &'a Store<'a>, manifest: Manifest, stack: Option<&Stack>) -> Self {
        let layers = stack.map_or(&[][..], |stack| &stack.layers);
        let (open, sealed) = match layers.split_last() {
            // A tree holds the lock of its open overlay: nobody may ask for the same one below it.
            Some(((top, Position::MAX), lower)) if lower.iter().all(|(id, _)| id != top) => (Some(*top), lower),
            _ => (None, layers),
        };
        let layer = |(overlay, upto): &(OverlayId, Position)| Layer {
            overlay: *overlay,
            upto: *upto,
            counts: Counts::default(),
        };
        Self { store, manifest, sealed: sealed.iter().map(layer).collect(), open }
    }

    fn read<T>(&self, step: impl Fn(&Tree<'_>, &mut Fetch<'_>) -> Step<T>) -> Result<T> {
        let Store { overlays, chunks, .. } = self.store;
        Fetch::new(&***chunks).run_blocking(|fetch| {
            let tree = match self.open {
                Some(top) => Tree::open(overlays, fetch, self.manifest, &self.sealed, top)?,
                None => Tree::open_sealed(overlays, self.manifest, &self.sealed)?,
            };
            step(&tree, fetch)
        })
    }

    fn node(&self, ino: Ino) -> Result<Option<Node>> {
        self.read(|tree, fetch| tree.node(fetch, ino))
    }

    fn is_removed(&self, ino: Ino) -> Result<bool> {
        self.read(|tree, fetch| tree.is_removed(fetch, ino))
    }

    fn entry(&self, dir: Ino, cookie: Cookie) -> Result<Option<Entry>> {
        self.read(|tree, fetch| tree.entry_at(fetch, dir, cookie))
    }

    fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Option<Entry>> {
        self.read(|tree, fetch| tree.lookup(fetch, dir, name))
    }
}

//! Quotas: what a clone may hold in private.
//!
//! Counted is what the clone's view holds, over all its layers, and what was written into former views
//! since the clone's last switch: data, and a little for each object. What takes nothing more is never
//! refused.

use super::resolve::{Run, Scope};
use crate::image::{CloneRecord, Pin};
use crate::overlay::Tree;

/// How much a clone may hold, and held before a change.
pub(super) struct Allowance {
    pub quota: u64,
    held: u64,
    /// Of that, what the view holds that is about to change.
    here: u64,
}

impl Allowance {
    /// Of what nothing is held yet.
    pub fn left(&self) -> u64 {
        self.quota.saturating_sub(self.held)
    }

    /// Whether what was done to `tree` lets the clone hold more than it may, and more than before.
    pub fn is_exceeded(&self, tree: &Tree<'_>) -> bool {
        let held = self.held.saturating_add(tree.counts().charge()).saturating_sub(self.here);
        held > self.quota.max(self.held)
    }
}

impl<'s> Run<'s, '_> {
    /// What the clone of `scope` may hold, if it has a quota; `tree` is its view, unchanged yet.
    pub(super) fn allowance(&self, scope: &Scope<'s>, tree: &Tree<'s>) -> Option<Allowance> {
        let (clone, _) = scope.shown?;
        Some(Allowance { quota: clone.quota?, held: self.held(clone), here: tree.counts().charge() })
    }

    fn held(&self, clone: &CloneRecord) -> u64 {
        let charge = |top| self.vfs.overlays().charge(top);
        let left = |pin: &Pin| pin.sealed.map_or(0, |layer| layer.counts.charge());
        let since = clone.pins.iter().map(|pin| charge(pin.view.top).saturating_sub(left(pin)));
        clone.view.sealed_counts().charge() + charge(clone.view.top) + since.sum::<u64>()
    }
}

//! Positions of overlays that stay readable although the catalog names them no more.
//!
//! Owns those that lost their last name: a request runs on the revision of the catalog that it began
//! with, so they are let go only after a grace; and those that a change named of which nobody knows if
//! it is in the log: these stay until the next start, which knows.
//!
//! Invariant: the marks that the overlays have are those of the newest state, or more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Fleet;
use crate::overlay::{Layer, OverlayId, Position};

#[derive(Default)]
pub(super) struct Lingering {
    /// Since when they have no name, by the first look at them.
    unnamed: BTreeMap<(OverlayId, Position), Option<Duration>>,
    unsettled: BTreeSet<(OverlayId, Position)>,
}

impl Lingering {
    /// Drop those that had no name for `grace`; answers whose they were.
    fn expire(&mut self, now: Duration, grace: Duration) -> BTreeSet<OverlayId> {
        let mut overlays = BTreeSet::new();
        self.unnamed.retain(|(overlay, _), since| {
            let due = now.saturating_sub(*since.get_or_insert(now)) >= grace;
            if due {
                overlays.insert(*overlay);
            }
            !due
        });
        overlays
    }

    fn positions(&self, overlay: OverlayId) -> impl Iterator<Item = Position> {
        let all = (overlay, 0)..=(overlay, Position::MAX);
        let unnamed = self.unnamed.range(all.clone()).map(|((_, position), _)| *position);
        unnamed.chain(self.unsettled.range(all).map(|(_, position)| *position))
    }
}

impl Fleet {
    /// Nothing may name these positions any more: those of which that is so are let go in a while.
    pub(in crate::image) fn release<'a>(&self, layers: impl Iterator<Item = &'a Layer>) {
        let state = self.catalog.state();
        let mut lingering = self.lingering.lock();
        for layer in layers.filter(|layer| !state.is_marked(layer)) {
            lingering.unnamed.entry((layer.overlay, layer.upto)).or_default();
        }
    }

    /// A change that may turn up in the log at the next start names these.
    pub(super) fn keep_until_restart(&self, layers: &[Layer]) {
        self.lingering.lock().unsettled.extend(layers.iter().map(|layer| (layer.overlay, layer.upto)));
    }

    /// Let the overlays forget the positions that nothing named for `grace`. `now` counts from any moment,
    /// the same at each call.
    pub async fn forget_marks(&self, now: Duration, grace: Duration) {
        let overlays = self.lingering.lock().expire(now, grace);
        if overlays.is_empty() {
            return;
        }
        let marks = || {
            let (state, lingering) = (self.catalog.state(), self.lingering.lock());
            let of = |id| state.marks(id).into_iter().chain(lingering.positions(id)).collect();
            overlays.into_iter().map(|id| (id, of(id))).collect()
        };
        self.overlays.update_marks(marks).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_position_goes_when_it_had_no_name_for_the_grace() {
        let (mut lingering, o) = (Lingering::default(), OverlayId(1));
        lingering.unsettled.insert((o, 3));
        lingering.unnamed.insert((o, 5), None);
        assert!(lingering.expire(10 * SECOND, 2 * SECOND).is_empty());
        lingering.unnamed.insert((o, 6), None);
        assert!(lingering.expire(11 * SECOND, 2 * SECOND).is_empty());
        assert_eq!(lingering.expire(12 * SECOND, 2 * SECOND), BTreeSet::from([o]));
        assert_eq!(lingering.positions(o).collect::<Vec<_>>(), [6, 3]);
        assert_eq!(lingering.expire(13 * SECOND, 2 * SECOND), BTreeSet::from([o]));
        assert_eq!(lingering.positions(o).collect::<Vec<_>>(), [3], "that of a change that may turn up stays");
    }
}

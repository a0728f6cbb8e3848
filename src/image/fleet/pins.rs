//! The end of pins: dropped by an admin, or not needed any more.
//!
//! A pin that holds private writes ends only together with the older pins of its clone, or after them: else
//! a handle into it would find an older state of its object in one of those.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Fleet, Freeze};
use crate::error::{Error, ErrorKind, Result};
use crate::image::catalog::Draft;
use crate::image::change::Change;
use crate::image::clones::CloneTarget;
use crate::image::readers::IsDue;
use crate::image::record::{CloneRecord, ExportId, Pin, View};
use crate::image::state::State;
use crate::image::switch::Sealed;
use crate::overlay::{Layer, OverlayId};

/// Former views of clones, by number.
pub type PinnedViews = BTreeMap<ExportId, Vec<u64>>;

/// A pin that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedPin {
    pub clone: Arc<CloneRecord>,
    pub pin: Pin,
}

impl Fleet {
    /// Drop the pins of clones; answers what they were. Handles into the former views that the clone no
    /// longer shows are dead from then on. `All` and `Select` take clones of every image.
    pub async fn drop_pins(&self, target: CloneTarget) -> Result<Vec<EndedPin>> {
        let pinned = move |state: &State| {
            let mut clones = target.choose(state)?;
            clones.retain(|clone| !clone.pins.is_empty());
            Ok(clones)
        };
        let drop = |draft: &mut Draft, clones: &[Arc<CloneRecord>], sealed: &Sealed| {
            let pinned: Vec<_> = clones.iter().filter(|clone| !clone.pins.is_empty()).collect();
            if !pinned.is_empty() {
                let clones = pinned.iter().map(|clone| clone.id).collect();
                draft.apply(Change::DropPins { clones, sealed: sealed.clone() })?;
            }
            Ok(pinned.into_iter().flat_map(|clone| ended(clone, |_| true)).collect())
        };
        self.at_one_instant("drop pins", Freeze::ViewsAndPins, pinned, drop).await
    }

    /// Drop one former view of a clone. Refused if an older one has to go before.
    pub async fn drop_pin(&self, clone: &str, view: u64) -> Result<EndedPin> {
        let name = clone.to_owned();
        let choose = move |state: &State| Ok(vec![find_pinned(state, &name, view)?]);
        let drop = move |draft: &mut Draft, clones: &[Arc<CloneRecord>], sealed: &Sealed| {
            let clone = clones.first().ok_or_else(|| Error::internal("a pin of no clone"))?;
            if let Some(older) = clone.held_back_by(view, |view| sealed.is_private(view), |_| false) {
                return Err(held_back(clone, view, older));
            }
            drop_views(draft, sealed, vec![(clone, vec![view])])?.pop().ok_or_else(|| no_pin(&clone.name, view))
        };
        self.at_one_instant("drop a pin", Freeze::ViewsAndPins, choose, drop).await
    }

    /// Drop these former views, as far as they are there, no older one holds them back, and they are `due` still,
    /// which is asked in the commit itself; answers those that were dropped.
    pub async fn expire_pins(&self, views: PinnedViews, due: Arc<dyn IsDue>) -> Result<Vec<EndedPin>> {
        let views = Arc::new(views);
        let wanted = views.clone();
        let choose = move |state: &State| {
            let clones = wanted.keys().filter_map(|id| state.clone_by_id(*id));
            Ok(clones.filter(|clone| clone.pins.iter().any(|pin| names(&wanted, clone, pin))).cloned().collect())
        };
        let drop = move |draft: &mut Draft, clones: &[Arc<CloneRecord>], sealed: &Sealed| {
            let mut of = Vec::with_capacity(clones.len());
            for clone in clones {
                let wanted = views.get(&clone.id).into_iter().flatten().copied();
                let wanted: Vec<_> = wanted.filter(|view| due.is_due(clone.id, *view)).collect();
                of.push((clone, droppable(clone, &wanted, |view| sealed.is_private(view))));
            }
            drop_views(draft, sealed, of)
        };
        self.at_one_instant("expire pins", Freeze::ViewsAndPins, choose, drop).await
    }

    /// Of the pins of a clone that are `due`, those that no older one holds back now.
    pub fn pins_that_can_end(&self, clone: &CloneRecord, due: impl Fn(u64) -> bool) -> Vec<u64> {
        let due: Vec<_> = clone.pins.iter().map(|pin| pin.view.number).filter(|view| due(*view)).collect();
        if due.is_empty() { due } else { droppable(clone, &due, |view| self.is_private(view)) }
    }

    /// The private bytes that a pin alone holds: what was written into its view while it was the newest and
    /// since, and the layers below that no other view, pin, snapshot or fork names. Ending it lets them go,
    /// if not now, then with the clone's next turn of generations.
    pub fn bytes_held(&self, state: &State, clone: &CloneRecord, pin: &Pin) -> u64 {
        let alone = |layer: &&Layer| state.names(layer.overlay) == names_by_pin(clone, pin, layer.overlay);
        let sealed: u64 = pin.view.layers.iter().filter(alone).map(|layer| layer.counts.bytes).sum();
        let is_open_alone = state.names(pin.view.top) == names_by_pin(clone, pin, pin.view.top);
        sealed + if is_open_alone { self.overlays.counts(pin.view.top).bytes } else { 0 }
    }
}

/// How often the pin names positions of an overlay, and the clone for the sake of handles into it.
fn names_by_pin(clone: &CloneRecord, pin: &Pin, overlay: OverlayId) -> u64 {
    let pinned = pin.view.layers.iter().chain(&pin.sealed);
    pinned.chain(clone.layers_told_apart()).filter(|layer| layer.overlay == overlay).count() as u64
}

fn names(views: &PinnedViews, clone: &CloneRecord, pin: &Pin) -> bool {
    views.get(&clone.id).is_some_and(|views| views.contains(&pin.view.number))
}

fn find_pinned(state: &State, clone: &str, view: u64) -> Result<Arc<CloneRecord>> {
    let clone = state.find_clone(clone)?;
    let is_pinned = clone.pins.iter().any(|pin| pin.view.number == view);
    if is_pinned { Ok(clone.clone()) } else { Err(no_pin(&clone.name, view)) }
}

/// Of the pins with these numbers those that can go now, given that the others stay.
fn droppable(clone: &CloneRecord, views: &[u64], is_private: impl Fn(&View) -> bool) -> Vec<u64> {
    let mut going: Vec<u64> = Vec::new();
    let oldest_first = clone.pins.iter().rev().map(|pin| pin.view.number);
    for view in oldest_first.filter(|view| views.contains(view)) {
        if clone.held_back_by(view, &is_private, |older| going.contains(&older)).is_none() {
            going.push(view);
        }
    }
    going
}

fn drop_views(draft: &mut Draft, sealed: &Sealed, of: Vec<(&Arc<CloneRecord>, Vec<u64>)>) -> Result<Vec<EndedPin>> {
    let of: Vec<_> = of.into_iter().filter(|(_, views)| !views.is_empty()).collect();
    if of.is_empty() {
        return Ok(Vec::new());
    }
    let dropped = of.iter().flat_map(|(clone, views)| ended(clone, |view| views.contains(&view))).collect();
    let (clones, views) = of.into_iter().map(|(clone, views)| (clone.id, views)).unzip();
    draft.apply(Change::DropViews { clones, views, sealed: sealed.clone() })?;
    Ok(dropped)
}

fn ended(clone: &Arc<CloneRecord>, goes: impl Fn(u64) -> bool) -> Vec<EndedPin> {
    let pins = clone.pins.iter().filter(|pin| goes(pin.view.number));
    pins.map(|pin| EndedPin { clone: clone.clone(), pin: pin.clone() }).collect()
}

fn no_pin(clone: &str, view: u64) -> Error {
    Error::not_found(format!("clone {clone:?} has no pin of view {view}"))
        .remedy(format!("see `mimeo pins --clone {clone}`"))
}

fn held_back(clone: &CloneRecord, view: u64, older: u64) -> Error {
    let name = &clone.name;
    let what = format!(
        "the pin of view {view} of clone {name:?} holds private writes, and cannot go before that of view {older}"
    );
    Error::new(ErrorKind::Conflict, what)
        .remedy(format!("drop the older one first, or all: mimeo pins --drop --clone {name}"))
}

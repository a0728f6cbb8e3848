//! The view switch: what repoint, restore, discard and rollback have in common.
//!
//! Owns what a switch makes of one clone's record: the new view under a new number with an overlay of
//! its own, the former view as a pin, and the turn that gives everything with private state a new
//! generation; and what the end of pins makes of it. Pure functions of the record and the change, replayed
//! from the log as they are.
//!
//! Invariants: a handle that resolved before resolves afterwards, to the same line of content; so a
//! pin goes only if the new view serves all that it has under the same generations. A turn goes only
//! when no view that is left resolves anything by it. A pin with private writes never goes before an older
//! one, where its handles would find other bytes. View numbers and switch times grow strictly.
//!
//! Failure story: none of its own; whether the clone may be switched is checked before.

use serde::{Deserialize, Serialize};

use super::record::{CloneRecord, ExportId, MAX_LAYERS, MAX_TURNS, OperationId, Pin, Span, Turn, VersionNumber, View};
use crate::env::Time;
use crate::error::{Error, ErrorKind, Result};
use crate::overlay::rebase::FITS;
use crate::overlay::{Layer, OverlayId};

#[cfg(test)]
mod tests;

/// After so many turns that name layers the next one is for all objects. At most half of
/// [`MAX_TURNS`], so that dropping a clone's pins makes room for turns; only what is kept every time never gets one.
const TURNS_BETWEEN_ALL: usize = MAX_TURNS / 2 - 1;
/// Layers that a switch may add: what the view's top held, and what makes it fit.
const LAYERS_OF_A_SWITCH: usize = 2;

/// What open overlays held at one instant: one layer for each that was ever written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(Vec<Layer>);

impl Sealed {
    pub fn from_layers(layers: impl IntoIterator<Item = Layer>) -> Self {
        let mut layers: Vec<_> = layers.into_iter().collect();
        layers.sort_unstable_by_key(|layer| layer.overlay);
        Self(layers)
    }

    /// What `top` held; `None` if it was never written.
    pub fn layer(&self, top: OverlayId) -> Option<Layer> {
        self.0.binary_search_by_key(&top, |layer| layer.overlay).ok().map(|at| self.0[at])
    }

    pub fn layers(&self) -> &[Layer] {
        &self.0
    }

    /// What of it is of these clones.
    pub fn of(&self, clones: &[&std::sync::Arc<CloneRecord>]) -> Self {
        Self::from_layers(clones.iter().flat_map(|clone| clone.tops()).filter_map(|top| self.layer(top)))
    }

    /// Whether the view holds private writes.
    pub fn is_private(&self, view: &View) -> bool {
        !view.layers.is_empty() || self.layer(view.top).is_some()
    }

    /// The view as sealed layers, bottom first.
    pub fn stack(&self, view: &View) -> Vec<Layer> {
        view.layers.iter().copied().chain(self.layer(view.top)).collect()
    }

    /// What the view shows.
    pub fn content(&self, view: &View) -> Content {
        Content { version: view.version, layers: self.stack(view), bases: view.bases.clone() }
    }
}

/// A version under sealed layers, bottom first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub version: VersionNumber,
    pub layers: Vec<Layer>,
    /// Other versions that objects in the layers have their base data from, ascending.
    pub bases: Vec<VersionNumber>,
}

impl Content {
    /// A version without private writes.
    pub fn of_version(version: VersionNumber) -> Self {
        Self { version, ..Self::default() }
    }

    /// The same, with a layer more that lets what the layers hold fit the version.
    #[must_use]
    pub(super) fn fitted(mut self, fitting: &Fitting) -> Self {
        self.layers.push(fitting.layer);
        self.bases.extend(&fitting.bases);
        self.bases.sort_unstable();
        self.bases.dedup();
        self
    }

    pub(super) fn is_shown_by(&self, view: &View) -> bool {
        (self.version, &self.layers) == (view.version, &view.layers)
    }
}

/// A layer that lets the private writes of a clone fit another version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fitting {
    pub clone: ExportId,
    pub layer: Layer,
    /// Versions that objects in it have their base data from.
    pub bases: Vec<VersionNumber>,
}

/// What the clones of a switch show from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shown {
    Same(Content),
    /// This version under the layers that each has, what its top held included, and one more where
    /// they did not fit. Sorted by clone.
    Kept {
        version: VersionNumber,
        fitted: Vec<Fitting>,
    },
    /// Each what stands here for it, in the order of the clones.
    Each(Vec<Content>),
    /// The same; and what the layers hold is a part of what the clone held.
    Preserved(Vec<Content>),
}

/// A switch of any number of clones: one key in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewSwitch {
    pub clones: Vec<ExportId>,
    pub shown: Shown,
    pub at: Time,
    pub operation: OperationId,
    /// The new views' tops: this one for the first clone, the next for the second, ...
    pub first_overlay: u64,
    /// What the tops of the clones' views and pins held at that instant.
    pub sealed: Sealed,
}

impl ViewSwitch {
    /// Of one clone, to see whether it has room.
    pub(super) fn of_one(clone: &std::sync::Arc<CloneRecord>, shown: Shown, sealed: &Sealed) -> Self {
        let (operation, sealed) = (OperationId(0), sealed.of(&[clone]));
        Self { clones: vec![clone.id], shown, at: clone.switched, operation, first_overlay: 0, sealed }
    }

    /// What the clone, number `at` of those that are switched, is to show.
    fn content(&self, at: usize, clone: &CloneRecord) -> Content {
        match &self.shown {
            Shown::Same(content) => content.clone(),
            // A switch that says less than it has clones is damaged: what it does not name stays.
            Shown::Each(contents) | Shown::Preserved(contents) => {
                contents.get(at).cloned().unwrap_or_else(|| self.sealed.content(&clone.view))
            }
            Shown::Kept { version, fitted } => {
                let content = Content { version: *version, ..self.sealed.content(&clone.view) };
                match fitted.binary_search_by_key(&clone.id, |fitting| fitting.clone) {
                    Ok(at) => content.fitted(&fitted[at]),
                    Err(_) => content,
                }
            }
        }
    }
}

impl CloneRecord {
    /// Show what `switch` says for it, number `at` of its clones, from then on, or from just after the last
    /// switch where the clock stepped back. `false` if the clone shows exactly that already.
    pub(super) fn switch(&mut self, switch: &ViewSwitch, at: usize, top: OverlayId) -> bool {
        let sealed = switch.sealed.layer(self.view.top);
        let content = switch.content(at, self);
        if sealed.is_none() && content.is_shown_by(&self.view) {
            return false;
        }
        let turn = self.turn_for(switch, &content.layers);
        for pin in &mut self.pins {
            pin.sealed = switch.sealed.layer(pin.view.top).or(pin.sealed);
        }
        let operation = Some(switch.operation);
        let view = View { operation, ..View::showing(self.view.number + 1, content, top) };
        self.switched = switch.at.max(self.switched.next());
        let former = std::mem::replace(&mut self.view, view);
        self.turns.extend(turn);
        self.loose.clear();
        let (view, last_turn) = (&self.view, self.turns.last().map_or(0, |turn| turn.view));
        self.pins.retain(|pin| pin.view.number < last_turn || !pin.view.same_content(view));
        self.pins.insert(0, Pin { view: former, since: self.switched, operation: switch.operation, sealed });
        self.lagging = self.lagging.filter(|lagging| lagging.version != self.view.version);
        self.staged = None;
        self.forget_turns();
        true
    }

    /// Refuse a switch that the clone, number `at` of its clones, has no room for.
    pub(super) fn check_switch(&self, switch: &ViewSwitch, at: usize) -> Result<()> {
        let content = switch.content(at, self);
        let name = &self.name;
        check_layers(&format!("clone {name:?} after the switch"), &content.layers)?;
        // After one for all objects those before it can be forgotten: it makes room.
        let all = self.turns.iter().any(|turn| turn.all);
        if self.turns.len() < MAX_TURNS || self.turn_for(switch, &content.layers).is_none_or(|turn| turn.all && !all) {
            return Ok(());
        }
        let what = format!(
            "clone {name:?} has {} pinned views, and {MAX_TURNS} switches of private writes to tell apart",
            self.pins.len()
        );
        let remedy = match all {
            true => format!("drop pins that no client needs any more: mimeo pins --drop --clone {name}"),
            false => {
                "discard its writes (--writes discard), drop its pins, restore the snapshot that this took".to_owned()
            }
        };
        Err(Error::new(ErrorKind::Conflict, what).remedy(remedy))
    }

    /// Whether a switch may find no room.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.turns.len() >= MAX_TURNS || self.view.layers.len() + LAYERS_OF_A_SWITCH > MAX_LAYERS
    }

    /// Drop the former views that `goes` names, and whose tops hold what `sealed` says; `false` if there are
    /// none.
    pub(super) fn drop_pins(&mut self, sealed: &Sealed, goes: impl Fn(u64) -> bool) -> bool {
        let (dropped, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pins).into_iter().partition(|pin| goes(pin.view.number));
        self.loose.extend(written_pins(&dropped, sealed));
        self.pins = kept;
        self.forget_turns();
        !dropped.is_empty()
    }

    /// The oldest former view that has to go before this one, or together with it: a handle into this one
    /// would find another state of its object there, where this one has private writes.
    pub(super) fn held_back_by(
        &self,
        view: u64,
        is_private: impl Fn(&View) -> bool,
        goes: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let pin = self.pins.iter().find(|pin| pin.view.number == view)?;
        let is_private = pin.sealed.is_some() || is_private(&pin.view);
        let older = self.pins.iter().map(|pin| pin.view.number).filter(|other| *other < view && !goes(*other));
        older.min().filter(|_| is_private)
    }

    /// The turn that a switch to `layers` makes: what has private state in layers that only one side of it
    /// has, and what was written into pins since the last one (the new view may have the same objects,
    /// without that). What lies in layers that both sides stand on is the same line of content.
    fn turn_for(&self, switch: &ViewSwitch, new: &[Layer]) -> Option<Turn> {
        let former = switch.sealed.stack(&self.view);
        let common = former.iter().zip(new).take_while(|(a, b)| a == b).count();
        let kept = matches!(switch.shown, Shown::Kept { .. });
        // What makes kept writes fit says nothing of any object's content, but of those that come back.
        let other = if kept { &[] } else { &new[common..] };
        let mut layers: Vec<_> = former[common..].iter().chain(other).copied().collect();
        let written: Vec<_> = self.loose.iter().copied().chain(written_pins(&self.pins, &switch.sealed)).collect();
        let returned = returned(switch, former.len(), new);
        layers.sort_unstable_by_key(|layer| (layer.overlay, layer.upto));
        layers.dedup();
        if layers.is_empty() && written.is_empty() && returned.is_empty() {
            return None;
        }
        // What goes along keeps its generation, however many turns there are.
        let all = !kept
            && self.turns.iter().rev().take(TURNS_BETWEEN_ALL).filter(|turn| !turn.all).count() == TURNS_BETWEEN_ALL;
        let view = self.view.number + 1;
        if all {
            let (layers, written, except, returned) = Default::default();
            return Some(Turn { view, all, layers, written, except, returned });
        }
        let except = match switch.shown {
            Shown::Kept { .. } if !written.is_empty() => former,
            // The first of them holds what went along.
            Shown::Preserved(_) => other.first().copied().into_iter().collect(),
            _ => Vec::new(),
        };
        Some(Turn { view, all, layers, written, except, returned })
    }

    /// Forget the turns before one for all objects that no view is older than.
    fn forget_turns(&mut self) {
        let views = self.pins.iter().map(|pin| pin.view.number);
        let oldest = views.fold(self.view.number, u64::min);
        if let Some(last) = self.turns.iter().rposition(|turn| turn.all && turn.view <= oldest) {
            self.turns.drain(..last);
        }
    }
}

/// The objects that come back: in the layer that makes private writes fit, which lies over those that were
/// kept, `were` of them; or also in the one that holds what is preserved.
fn returned(switch: &ViewSwitch, were: usize, new: &[Layer]) -> Vec<Span> {
    let from = match switch.shown {
        Shown::Kept { .. } => were,
        Shown::Preserved(_) => 0,
        Shown::Same(_) | Shown::Each(_) => return Vec::new(),
    };
    let back = new.iter().skip(from).filter(|layer| layer.upto > FITS);
    back.map(|layer| Span { after: FITS, upto: *layer }).collect()
}

/// What was written to the tops of pins since the last switch.
fn written_pins(pins: &[Pin], sealed: &Sealed) -> impl Iterator<Item = Span> {
    let written = |pin: &Pin| {
        let upto = sealed.layer(pin.view.top).filter(|now| pin.sealed != Some(*now))?;
        Some(Span { after: pin.sealed.map_or(0, |sealed| sealed.upto), upto })
    };
    pins.iter().filter_map(written)
}

/// Refuse more sealed layers than a view may have. `what` is to get them.
pub(super) fn check_layers(what: &str, layers: &[Layer]) -> Result<()> {
    if layers.len() <= MAX_LAYERS {
        return Ok(());
    }
    let many = layers.len();
    Err(Error::new(ErrorKind::Conflict, format!("{what} would have {many} layers, more than {MAX_LAYERS}"))
        .remedy("try again in a while: the layers of a clone are flattened in the background"))
}

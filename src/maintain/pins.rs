//! The end of pins that nobody needs any more.
//!
//! A pin ends when nothing was resolved in it for long; or some time after all clients that used the clone
//! while it showed that view, or one before, have mounted it anew or unmounted it. All that is known of clients
//! is in memory, so a restart begins both times anew, and the second rule holds only where all clients are
//! known: for clones that were made since the start, and for all once the start is as long ago as the first
//! rule asks for.
//!
//! Invariant: a pin never ends earlier: it is looked at again in the commit that ends it. It may end later: looks
//! are a minute apart, and one with private writes waits for the older ones of its clone.
//!
//! Failure story: pins whose end cannot be written to the audit log stay, and are looked at again.

mod told;

pub use told::note_ended;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::told::{MAX_TOLD, told};
use super::worker::{Step, Worker};
use crate::audit::{Actor, Asked, Deed, Outcome};
use crate::env::{Clock, Env};
use crate::error::Result;
use crate::image::{EndedPin, ExportId, Fleet, IsDue, PinnedViews, State, ViewUses};

/// Between two looks at all pins.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Pins that end in one step at most: their clones stand still for it.
const MAX_PINS: usize = 1024;

/// How long pins stay.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After something was last resolved in one.
    pub idle: Duration,
    /// After the last of its clients mounted anew or unmounted.
    pub unmounted: Duration,
}

pub struct Pins {
    fleet: Arc<Fleet>,
    rule: Arc<Rule>,
    next_look: Duration,
    /// What is left of the last look.
    todo: Vec<PinId>,
}

/// A clone, and the number of its former view.
type PinId = (ExportId, u64);

/// When a pin is due.
struct Rule {
    uses: Arc<dyn ViewUses>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    /// Clones from this id on were made since the start.
    first_id: u64,
    /// Since when all that clients did is known, at the start.
    known_from: Duration,
    /// When each pin was first seen here.
    seen: Mutex<HashMap<PinId, Duration>>,
}

impl IsDue for Rule {
    fn is_due(&self, clone: ExportId, view: u64) -> bool {
        let Limits { idle, unmounted } = self.limits;
        let (now, known) = (self.clock.uptime(), self.uses.complete_since());
        let seen = self.seen.lock().get(&(clone, view)).copied().unwrap_or(now);
        let past = |since: Duration| now.saturating_sub(since);
        let resolved = self.uses.last_resolved(clone, view).unwrap_or(seen);
        if past(resolved.max(seen).max(known)) >= idle {
            return true;
        }
        let knows_all = clone.0 >= self.first_id && known == self.known_from || past(known) >= idle;
        let left = self.uses.left_since(clone, view).filter(|_| knows_all);
        left.is_some_and(|left| past(left.max(seen)) >= unmounted)
    }
}

impl Rule {
    /// Remember when pins were first seen, and forget those that are gone.
    fn see(&self, state: &State) {
        let (now, mut seen) = (self.clock.uptime(), self.seen.lock());
        seen.retain(|(clone, view), _| is_pinned(state, *clone, *view));
        for clone in state.clones() {
            for pin in &clone.pins {
                seen.entry((clone.id, pin.view.number)).or_insert(now);
            }
        }
        drop(seen);
        self.uses.keep_only(&|clone, view| match view {
            Some(view) => is_pinned(state, clone, view),
            None => state.clone_by_id(clone).is_some(),
        });
    }
}

impl Pins {
    pub fn new(fleet: Arc<Fleet>, uses: Arc<dyn ViewUses>, env: Env, limits: Limits) -> Self {
        let first_id = fleet.catalog().state().next_id();
        let known_from = uses.complete_since();
        let rule = Rule { uses, clock: env.clock, limits, first_id, known_from, seen: Mutex::default() };
        Self { fleet, rule: Arc::new(rule), next_look: Duration::ZERO, todo: Vec::new() }
    }

    async fn round(&mut self) -> Result<Step> {
        let now = self.rule.clock.uptime();
        if self.todo.is_empty() && now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            self.look();
        }
        let rest = self.todo.len().saturating_sub(MAX_PINS);
        let due = self.todo.split_off(rest);
        if !due.is_empty() {
            self.end(due).await?;
        }
        Ok(Step { bytes: 0, more: !self.todo.is_empty() })
    }

    /// See which pins there are, and which of them are due.
    fn look(&mut self) {
        let state = self.fleet.catalog().state();
        self.rule.see(&state);
        // From the end: of each clone the oldest first.
        self.todo.clear();
        for clone in state.clones() {
            let can_end = self.fleet.pins_that_can_end(clone, |view| self.rule.is_due(clone.id, view));
            self.todo.extend(can_end.into_iter().rev().map(|view| (clone.id, view)));
        }
    }

    async fn end(&self, pins: Vec<PinId>) -> Result<()> {
        let asked = self.ask(&pins).await?;
        let mut views = PinnedViews::new();
        for (clone, view) in &pins {
            views.entry(*clone).or_default().push(*view);
        }
        let ended = self.fleet.expire_pins(views, self.rule.clone()).await;
        let gone: Result<BTreeSet<PinId>, _> = match &ended {
            Ok(ended) => Ok(ended.iter().map(|EndedPin { clone, pin }| (clone.id, pin.view.number)).collect()),
            Err(error) => Err(error),
        };
        // Together, so that they share syncs.
        let noted = asked.into_iter().zip(pins.chunks(MAX_TOLD)).map(|(asked, pins)| {
            asked.done(match &gone {
                Ok(gone) => Outcome::done(json!({ "count": pins.iter().filter(|pin| gone.contains(*pin)).count() })),
                Err(error) => Outcome::failed(error),
            })
        });
        try_join_all(noted).await?;
        let ended = ended?.len();
        if ended > 0 {
            tracing::info!("{ended} pins ended that nobody used");
        }
        Ok(())
    }

    /// Note that these pins are to end: an entry for each few of them.
    async fn ask(&self, pins: &[PinId]) -> Result<Vec<Asked>> {
        let (state, mut asked) = (self.fleet.catalog().state(), Vec::new());
        let tell = |(clone, view): &PinId| {
            let clone = state.clone_by_id(*clone)?;
            let pin = clone.pins.iter().find(|pin| pin.view.number == *view)?;
            Some(told(&state, &*self.rule.uses, clone, pin))
        };
        for few in pins.chunks(MAX_TOLD) {
            let pins: Vec<_> = few.iter().filter_map(tell).collect();
            let (actor, action) = (Actor::mimeo("idle"), "expire pins".to_owned());
            let deed = Deed { actor, action, request: json!({ "pins": pins }), before: Value::Null };
            asked.push(self.fleet.audit().ask(deed).await?);
        }
        Ok(asked)
    }
}

fn is_pinned(state: &State, clone: ExportId, view: u64) -> bool {
    state.clone_by_id(clone).is_some_and(|clone| clone.pins.iter().any(|pin| pin.view.number == view))
}

impl Worker for Pins {
    fn name(&self) -> &'static str {
        "pins"
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        self.round().boxed()
    }
}

#[cfg(test)]
mod tests;

//! The end of pins that nobody needs any more.
//!
//! A pin ends when nothing was resolved in it for long; or some time after all clients that used the clone
//! while it showed that view, or one before, have mounted it anew or unmounted it. All that is known of clients
//! is in memory, so a restart begins both times anew, and the second rule holds only where all clients are
//! known: for clones that were made since the start, and for all once the start is as long ago as the first
//! rule asks for.
//!
//! Invariant: a pin never ends earlier. It may end later: looks are a minute apart, and one with private
//! writes waits for the older ones of its clone.
//!
//! Failure story: pins whose end cannot be written to the audit log stay, and are looked at again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::worker::{Step, Worker};
use crate::audit::{Actor, Deed, Outcome};
use crate::env::Env;
use crate::error::Result;
use crate::image::{CloneRecord, ExportId, Fleet, PinnedViews, State, ViewUses};

/// Between two looks at all pins.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Pins that end in one step at most: their clones stand still for it.
const MAX_PINS: usize = 1024;
/// Ended pins that one entry of the audit log names.
const MAX_NAMED: usize = 16;

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
    uses: Arc<dyn ViewUses>,
    env: Env,
    limits: Limits,
    /// Clones from this id on were made since the start.
    first_id: u64,
    /// Since when all that clients did is known, at the start.
    known_from: Duration,
    /// When each pin was first seen here.
    seen: HashMap<PinId, Duration>,
    next_look: Duration,
    /// What is left of the last look.
    todo: Vec<PinId>,
}

/// A clone, and the number of its former view.
type PinId = (ExportId, u64);

impl Pins {
    pub fn new(fleet: Arc<Fleet>, uses: Arc<dyn ViewUses>, env: Env, limits: Limits) -> Self {
        let first_id = fleet.catalog().state().next_id();
        let known_from = uses.complete_since();
        let (seen, next_look, todo) = (HashMap::new(), Duration::ZERO, Vec::new());
        Self { fleet, uses, env, limits, first_id, known_from, seen, next_look, todo }
    }

    async fn round(&mut self) -> Result<Step> {
        let now = self.env.clock.uptime();
        if self.todo.is_empty() && now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            self.look(now);
        }
        let rest = self.todo.len().saturating_sub(MAX_PINS);
        let due = self.todo.split_off(rest);
        if !due.is_empty() {
            self.end(due).await?;
        }
        Ok(Step { bytes: 0, more: !self.todo.is_empty() })
    }

    /// See which pins there are, and which of them are due.
    fn look(&mut self, now: Duration) {
        let state = self.fleet.catalog().state();
        self.see(&state, now);
        // From the end: of each clone the oldest first.
        let pins = state.clones().flat_map(|clone| clone.pins.iter().map(move |pin| (clone, pin.view.number)));
        let due = pins.filter(|(clone, view)| self.is_due(clone, *view, now));
        self.todo = due.map(|(clone, view)| (clone.id, view)).collect();
    }

    /// Remember when pins were first seen, and forget those that are gone.
    fn see(&mut self, state: &State, now: Duration) {
        self.seen.retain(|(clone, view), _| is_pinned(state, *clone, *view));
        for clone in state.clones() {
            for pin in &clone.pins {
                self.seen.entry((clone.id, pin.view.number)).or_insert(now);
            }
        }
        self.uses.keep_only(&|clone, view| match view {
            Some(view) => is_pinned(state, clone, view),
            None => state.clone_by_id(clone).is_some(),
        });
    }

    fn is_due(&self, clone: &CloneRecord, view: u64, now: Duration) -> bool {
        let Limits { idle, unmounted } = self.limits;
        let known = self.uses.complete_since();
        let seen = self.seen.get(&(clone.id, view)).copied().unwrap_or(now);
        let past = |since: Duration| now.saturating_sub(since);
        let resolved = self.uses.last_resolved(clone.id, view).unwrap_or(seen);
        if past(resolved.max(seen).max(known)) >= idle {
            return true;
        }
        let knows_all = clone.id.0 >= self.first_id && known == self.known_from || past(known) >= idle;
        let left = self.uses.left_since(clone.id, view).filter(|_| knows_all);
        left.is_some_and(|left| past(left.max(seen)) >= unmounted)
    }

    async fn end(&self, pins: Vec<PinId>) -> Result<()> {
        let deed = Deed {
            actor: Actor::mimeo("idle"),
            action: "expire pins".into(),
            request: json!({ "count": pins.len(), "pins": self.named(&pins) }),
            before: Value::Null,
        };
        let mut views = PinnedViews::new();
        for (clone, view) in pins {
            views.entry(clone).or_default().push(view);
        }
        let asked = self.fleet.audit().ask(deed).await?;
        let ended = self.fleet.expire_pins(views).await;
        let outcome = match &ended {
            Ok(ended) => Outcome::done(json!({ "count": ended.len() })),
            Err(error) => Outcome::failed(error),
        };
        asked.done(outcome).await?;
        let ended = ended?.len();
        if ended > 0 {
            tracing::info!("{ended} pins ended that nobody used");
        }
        Ok(())
    }

    /// The first of these pins, in words.
    fn named(&self, pins: &[PinId]) -> Vec<String> {
        let state = self.fleet.catalog().state();
        let name = |clone: ExportId| state.clone_by_id(clone).map_or_else(String::new, |clone| clone.name.to_string());
        pins.iter().take(MAX_NAMED).map(|(clone, view)| format!("{} view {view}", name(*clone))).collect()
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

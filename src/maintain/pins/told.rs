//! Pins that end, as the audit log tells them: each with its clone, its version and its clients.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::audit::{Actor, AuditLog, Deed, Outcome};
use crate::error::Result;
use crate::image::{CloneRecord, EndedPin, Pin, State, ViewUses};

/// Pins that one entry tells: with the longest names they fit into a line.
pub const MAX_TOLD: usize = 8;
/// Clients that are told of a pin.
const MAX_CLIENTS: usize = 4;

/// A pin of `clone`.
pub fn told(state: &State, uses: &dyn ViewUses, clone: &CloneRecord, pin: &Pin) -> Value {
    let image = state.image(clone.image).map_or("", |image| &image.name);
    let clients = uses.clients(clone.id, pin.view.number, MAX_CLIENTS + 1);
    let more = clients.len() > MAX_CLIENTS;
    let clients = clients.iter().take(MAX_CLIENTS).map(ToString::to_string).chain(more.then(|| "...".to_owned()));
    json!({
        "clone": &*clone.name,
        "view": pin.view.number,
        "version": format!("{image}@v{}", pin.view.version),
        "clients": clients.collect::<Vec<_>>(),
    })
}

/// Note pins that ended, after what they were asked to: an entry for each few of them.
pub async fn note_ended(
    audit: &Arc<AuditLog>,
    actor: &Actor,
    action: &str,
    state: &State,
    uses: &dyn ViewUses,
    ended: &[EndedPin],
) -> Result<()> {
    let mut asked = Vec::new();
    for few in ended.chunks(MAX_TOLD) {
        let pins: Vec<_> = few.iter().map(|ended| told(state, uses, &ended.clone, &ended.pin)).collect();
        let (actor, action) = (actor.clone(), action.to_owned());
        let deed = Deed { actor, action, request: json!({ "pins": pins }), before: Value::Null };
        asked.push(audit.ask(deed).await?);
    }
    // Together, so that they share syncs.
    let done = asked.into_iter().map(|asked| asked.done(Outcome::done(Value::Null)));
    futures_util::future::try_join_all(done).await.map(drop)
}

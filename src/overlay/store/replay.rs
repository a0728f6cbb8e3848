//! Bringing memory up to the log when the store is opened.

use std::collections::HashMap;
use std::sync::Arc;

use super::OverlayStore;
use crate::error::{Error, Result};
use crate::overlay::index::OverlayRow;
use crate::overlay::keys::Key;
use crate::overlay::log::Replayed;
use crate::overlay::memtable::Version;
use crate::overlay::record::{ChangeRecord, Value};
use crate::overlay::state::{Overlay, State};
use crate::overlay::{OverlayId, Position};

/// Apply every record that the index does not have. `marks`: sealed positions of overlays that the
/// index does not know. Blocks.
pub(super) fn run(store: &mut OverlayStore, mut marks: HashMap<OverlayId, Vec<Position>>) -> Result<()> {
    let log = store.log.clone();
    let from = store.index.replay_from()?;
    log.replay(from, &mut |replayed| apply(store, &mut marks, &replayed))
}

fn apply(store: &mut OverlayStore, marks: &mut HashMap<OverlayId, Vec<Position>>, replayed: &Replayed) -> Result<()> {
    let damaged = || {
        let what = format!("the record that ends at {} of the log is no change of an overlay", replayed.lsn);
        Error::corrupt(what).remedy("restore the data directory from a backup")
    };
    let mut record = ChangeRecord::decode(&replayed.body).ok_or_else(damaged)?;
    let place = |index: u32| replayed.pieces.get(index as usize).map(|(offset, _)| *offset);
    record.resolve(replayed.segment, place).ok_or_else(damaged)?;
    let overlay = store.find(record.overlay).unwrap_or_else(|| {
        let marks = marks.remove(&record.overlay).unwrap_or_default();
        store.insert(Overlay::new(record.overlay, OverlayRow::default(), marks, store.known.known([])))
    });
    if let Some(receipt) = record.receipt.take() {
        store.former_receipts.push(receipt.clone());
        store.receipts.lock().push((replayed.lsn, receipt));
    }
    let mut state = overlay.lock();
    if record.moved {
        let newest = with_former(store, &state, record.values)?;
        let same = |former: &Option<Version>| former.as_ref().is_some_and(|v| v.position == record.position);
        let moved = newest.into_iter().filter(|(_, _, former)| same(former)).map(|(key, value, _)| (key, value));
        let bytes = state.relocate(record.position, moved);
        store.dirty.lock().insert(record.overlay);
        store.note_change(replayed.lsn, None, bytes);
    } else if record.position > state.position {
        let values = with_former(store, &state, record.values)?;
        let bytes = state.apply(record.position, record.counts, replayed.lsn, values);
        store.dirty.lock().insert(record.overlay);
        store.note_change(replayed.lsn, None, bytes);
    }
    Ok(())
}

/// Each value with the version that it replaces.
fn with_former(
    store: &OverlayStore,
    state: &State,
    values: Vec<(Key, Value)>,
) -> Result<Vec<(Key, Value, Option<Version>)>> {
    let index = Arc::clone(&store.index);
    let with = |(key, value)| {
        let former = match state.in_memory(&key) {
            Some(version) => Some(version.clone()),
            None => index.head(state.id, &key)?,
        };
        Ok((key, value, former))
    };
    values.into_iter().map(with).collect()
}

//! What `mimeo fsck` looks at in the index, on a store without a catalog.

use std::collections::BTreeMap;

use super::world::World;
use crate::overlay::OverlayId;
use crate::overlay::check::{About, Age, Row, Stored, Value};

/// Flush, then everything that is wrong.
pub async fn violations(world: &World) -> Vec<String> {
    world.flush().await;
    let store = world.store();
    let (mut wrong, mut overlays, mut values) = (Vec::new(), BTreeMap::new(), Vec::new());
    let scanned = store.scan_rows(&mut |row| match row {
        Row::Undecodable { table, key } => wrong.push(format!("row {key:02x?} of {table} does not decode")),
        Row::Overlay(overlay) => drop(overlays.insert(overlay.overlay, overlay)),
        Row::Value(value) => values.push(value),
    });
    scanned.unwrap();
    for value in &values {
        let last = overlays.get(&value.overlay).map(|overlay| overlay.upto);
        wrong.extend(misplaced(value, last));
        wrong.extend(unreadable(world, value).await);
    }
    for (id, overlay) in overlays.iter().filter(|(id, _)| world.is_named(**id)) {
        let counted = store.recount(*id).unwrap();
        if counted != overlay.counts {
            wrong.push(format!("{id:?} keeps {:?}, holds {counted:?}", overlay.counts));
        }
    }
    let mut counted = store.recount_live().unwrap();
    counted.retain(|_, bytes| *bytes != 0);
    if counted != store.live_bytes() {
        wrong.push(format!("live bytes {:?}, counted {counted:?}", store.live_bytes()));
    }
    wrong
}

/// What is wrong with the position of a value in an overlay that ends at `last`.
fn misplaced(value: &Value, last: Option<u64>) -> Option<String> {
    let Value { overlay: OverlayId(id), about, position, age, .. } = value;
    let Some(last) = last else { return Some(format!("{about:?} of overlay {id}, which has no row")) };
    let in_order = match age {
        Age::Newest | Age::Older(None) => *age == Age::Newest,
        Age::Older(Some(newest)) => newest > position,
    };
    let is_good = in_order && (1..=last).contains(position);
    (!is_good).then(|| format!("{about:?} of overlay {id} at {position} of {last}, {age:?}"))
}

/// The pieces of a value that cannot be read.
async fn unreadable(world: &World, value: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let About::Data(..) = value.about else { return wrong };
    for place in &value.stored {
        let Stored::Piece { segment, offset, len } = *place else { continue };
        if let Err(error) = world.store().read_piece(segment, offset, len).await {
            wrong.push(format!("{:?} of {:?}: {error}", value.about, value.overlay));
        }
    }
    wrong
}

//! The index of private writes, row by row, and what is kept twice: counts and live bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::data::Data;
use super::{OverlayFlaw, Owner, Report, SegmentFlaw, Store, Violation, damage};
use crate::error::{Error, Result};
use crate::overlay::check::{About, Age, Row, Stored, Value};
use crate::overlay::log::SegmentId;
use crate::overlay::{Layer, OverlayId, Position};

/// Every overlay that has a row: where it is now, and what it says that it holds.
pub type Overlays = BTreeMap<OverlayId, Layer>;

/// Look at every row. Of overlays that are not in `named` nothing is expected but that they can be
/// purged.
pub fn check(store: &Store<'_>, named: &BTreeSet<OverlayId>, report: &mut Report) -> Result<Overlays> {
    let data = store.read_data.then(Data::new);
    let (overlays, segments) = (Overlays::new(), store.overlays.segments());
    let mut judge = Judge { store, report, segments, overlays, unknown: BTreeSet::new(), data, failed: None };
    store.overlays.scan_rows(&mut |row| judge.row(row))?;
    let Judge { overlays, data, failed, .. } = judge;
    failed.map_or(Ok(()), Err)?;
    if let Some(mut data) = data {
        data.finish(store, report)?;
    }
    check_counts(store, &overlays, named, report)?;
    check_live(store, report)?;
    report.checked.overlays = overlays.len() as u64;
    report.checked.overlays_reclaimable = overlays.keys().filter(|id| !named.contains(id)).count() as u64;
    Ok(overlays)
}

struct Judge<'a> {
    store: &'a Store<'a>,
    report: &'a mut Report,
    segments: BTreeMap<SegmentId, u64>,
    overlays: Overlays,
    /// Overlays without a row that were told.
    unknown: BTreeSet<OverlayId>,
    /// If data are to be read.
    data: Option<Data>,
    failed: Option<Error>,
}

impl Judge<'_> {
    fn row(&mut self, row: Row<'_>) {
        match row {
            Row::Undecodable { table, key } => self.report.add(Violation::Row { table, key: key.to_vec() }),
            Row::Overlay(overlay) => {
                self.report.checked.bytes += overlay.counts.bytes;
                self.overlays.insert(overlay.overlay, overlay);
            }
            Row::Value(value) => self.value(&value),
        }
    }

    fn value(&mut self, value: &Value) {
        match (value.about, value.age) {
            (About::Node(_), Age::Newest) if value.is_some => self.report.checked.objects += 1,
            (About::Name(..), Age::Newest) if value.is_some => self.report.checked.names += 1,
            _ => {}
        }
        self.position(value);
        if let About::Data(ino, _) = value.about {
            let of = Owner { overlay: value.overlay, ino };
            self.places(value, of);
            self.read(value, of);
        }
    }

    fn position(&mut self, value: &Value) {
        let Value { overlay, about, position, .. } = *value;
        let flaw = match self.overlays.get(&overlay) {
            None if self.unknown.insert(overlay) => Some(OverlayFlaw::Unknown),
            Some(Layer { upto: last, .. }) if !(1..=*last).contains(&position) => {
                Some(OverlayFlaw::Position { about, position, last: *last })
            }
            _ => order(value.age, position).map(|newest| OverlayFlaw::Order { about, position, newest }),
        };
        if let Some(flaw) = flaw {
            self.report.add(Violation::Overlay { overlay, flaw });
        }
    }

    /// Every piece is within its segment, and none overlaps another of the same bucket.
    fn places(&mut self, value: &Value, of: Owner) {
        let mut last: Option<(SegmentId, u64)> = None;
        for place in &value.stored {
            let Stored::Piece { segment, offset, len } = *place else { continue };
            let end = u64::from(offset) + u64::from(len);
            let outside = self.segments.get(&segment).is_none_or(|bytes| end > *bytes);
            let overlaps = last.is_some_and(|(of, end)| of == segment && end > u64::from(offset));
            if outside {
                let flaw = SegmentFlaw::Outside { offset, len, of };
                self.report.add(Violation::Segment { segment, flaw });
            } else if overlaps {
                let flaw = SegmentFlaw::Overlap { offset, len, of };
                self.report.add(Violation::Segment { segment, flaw });
            }
            last = Some((segment, end));
        }
    }

    fn read(&mut self, value: &Value, of: Owner) {
        let Some(data) = self.data.as_mut().filter(|_| self.failed.is_none()) else { return };
        for place in &value.stored {
            let within = match place {
                Stored::Piece { segment, offset, len } => {
                    self.segments.get(segment).is_some_and(|bytes| u64::from(*offset) + u64::from(*len) <= *bytes)
                }
                Stored::Chunk { .. } => true,
            };
            if within && let Err(error) = data.want(self.store, *place, of, self.report) {
                self.failed = Some(error);
                return;
            }
        }
    }
}

/// What is wrong with the order of the versions of a value, if anything: the position of the newest.
fn order(age: Age, position: Position) -> Option<Option<Position>> {
    match age {
        Age::Older(newest) if newest.is_none_or(|newest| newest <= position) => Some(newest),
        _ => None,
    }
}

fn check_counts(
    store: &Store<'_>,
    overlays: &Overlays,
    named: &BTreeSet<OverlayId>,
    report: &mut Report,
) -> Result<()> {
    for (overlay, Layer { counts: kept, .. }) in overlays.iter().filter(|(id, _)| named.contains(id)) {
        match store.overlays.recount(*overlay) {
            Ok(counted) if counted == *kept => {}
            Ok(counted) => {
                let flaw = OverlayFlaw::Counts { kept: *kept, counted };
                report.add(Violation::Overlay { overlay: *overlay, flaw });
            }
            // A row that does not decode: told already.
            Err(error) => drop(damage(error)?),
        }
    }
    Ok(())
}

fn check_live(store: &Store<'_>, report: &mut Report) -> Result<()> {
    let counted = match store.overlays.recount_live() {
        Ok(counted) => counted,
        Err(error) => return damage(error).map(drop),
    };
    let kept = store.overlays.live_bytes();
    let segments: BTreeSet<SegmentId> = kept.keys().chain(counted.keys()).copied().collect();
    for segment in segments {
        let [kept, counted] = [&kept, &counted].map(|live| live.get(&segment).copied().unwrap_or(0));
        if kept != counted {
            report.add(Violation::Segment { segment, flaw: SegmentFlaw::Live { kept, counted } });
        }
    }
    Ok(())
}

//! One overlay in memory.
//!
//! Owns what is not in the index yet, the position and counts, and what reading needs to know at once:
//! which objects it has at all, which positions are sealed, whether changes are held back. All of it is
//! behind one lock, which a verb holds while it runs; nobody waits or reads the disk under it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{ArcMutexGuard, Mutex, RawMutex};

use super::index::{Index, OverlayRow};
use super::keys::{Key, Kind};
use super::log::Lsn;
use super::memtable::{Memtable, Version};
use super::record::Value;
use super::touched::Touched;
use super::{Counts, OverlayId, Position};
use crate::chunk::{Fetch, Step};
use crate::manifest::Ino;

/// An overlay that was written, or is held back.
pub struct Overlay {
    pub id: OverlayId,
    /// Of its counts; to be had without the lock.
    charge: Arc<AtomicU64>,
    state: Arc<Mutex<State>>,
}

pub type Guard = ArcMutexGuard<RawMutex, State>;

pub struct State {
    pub id: OverlayId,
    pub position: Position,
    pub counts: Counts,
    charge: Arc<AtomicU64>,
    /// End of the record of the newest change.
    pub last_change: Lsn,
    pub frozen: bool,
    pub touched: Touched,
    /// Whether some objects that are gone have left something; `None` if nobody looked since the start.
    pub orphans: Option<bool>,
    /// Positions that sealed layers name, ascending.
    marks: Vec<Position>,
    /// It has, or had, values that only a sealed layer shows.
    pub sealed: bool,
    active: Memtable,
    flushing: Option<Arc<Memtable>>,
}

impl Overlay {
    pub fn new(id: OverlayId, row: OverlayRow, marks: Vec<Position>, touched: Touched) -> Self {
        let mut state = State {
            id,
            position: row.position,
            counts: row.counts,
            charge: Arc::new(AtomicU64::new(row.counts.charge())),
            last_change: Lsn::default(),
            frozen: false,
            // What is made by this start has none yet.
            orphans: matches!(touched, Touched::Known(_)).then_some(false),
            touched,
            sealed: false,
            marks: Vec::new(),
            active: Memtable::default(),
            flushing: None,
        };
        state.set_marks(marks);
        Self { id, charge: state.charge.clone(), state: Arc::new(Mutex::new(state)) }
    }

    /// What a quota counts of it, as of a moment ago.
    pub fn charge(&self) -> u64 {
        self.charge.load(Ordering::Relaxed)
    }

    /// Never hold it over an await; of several, lock that of the upper layer first.
    pub fn lock(&self) -> Guard {
        self.state.lock_arc()
    }
}

impl State {
    /// Whether the overlay may have private state of this object.
    pub fn may_have(&self, ino: Ino) -> bool {
        self.touched.may_have(ino)
    }

    /// The newest value not after `upto`; `None` if the overlay has nothing to say.
    pub fn get(&self, index: &Index, fetch: &mut Fetch<'_>, key: &Key, upto: Position) -> Step<Option<Version>> {
        let in_memory = [Some(&self.active), self.flushing.as_deref()].into_iter().flatten();
        for table in in_memory {
            if let Some(version) = table.get(key, upto) {
                return Ok(Some(version));
            }
        }
        index.get(fetch, self.id, key, upto)
    }

    /// The newest version, if it is in memory.
    pub fn in_memory(&self, key: &Key) -> Option<&Version> {
        self.active.heads.get(key).or_else(|| self.flushing.as_ref()?.heads.get(key))
    }

    /// The values of the keys of `range`, as of `upto`, in order; and up to which key they are complete
    /// (`None`: to the end of the range).
    pub fn page(
        &self,
        index: &Index,
        fetch: &mut Fetch<'_>,
        range: &RangeInclusive<Key>,
        upto: Position,
    ) -> Step<(BTreeMap<Key, Version>, Option<Key>)> {
        let (rows, more) = index.page(fetch, self.id, range)?;
        let end = if more { rows.last().map(|(key, _)| *key) } else { None };
        let mut merged: BTreeMap<Key, Version> = rows.into_iter().collect();
        let covered = *range.start()..=end.unwrap_or(*range.end());
        for table in [self.flushing.as_deref(), Some(&self.active)].into_iter().flatten() {
            merged.extend(table.keys(covered.clone()).map(|(key, version)| (*key, version.clone())));
        }
        if upto < self.position {
            let newer: Vec<Key> = merged.iter().filter(|(_, v)| v.position > upto).map(|(key, _)| *key).collect();
            for key in newer {
                match self.get(index, fetch, &key, upto)? {
                    Some(version) => drop(merged.insert(key, version)),
                    None => drop(merged.remove(&key)),
                }
            }
        }
        Ok((merged, end))
    }

    /// Take the values of the record of `position` in. `former` are the versions that they replace.
    /// Answers how much memory that takes.
    pub fn apply(
        &mut self,
        position: Position,
        counts: Counts,
        lsn: Lsn,
        values: impl IntoIterator<Item = (Key, Value, Option<Version>)>,
    ) -> i64 {
        let before = self.active.bytes;
        for (key, value, former) in values {
            if let Some(former) = former.filter(|former| self.is_marked(former.position, position)) {
                self.active.keep(key, former);
            }
            if key.kind == Kind::Orphan && value.is_some() {
                self.orphans = Some(true);
            }
            self.active.put(key, Version { position, value });
            if key.kind == Kind::Node {
                self.touched.insert(key.a);
            }
        }
        (self.position, self.counts, self.last_change) = (position, counts, lsn);
        self.charge.store(counts.charge(), Ordering::Relaxed);
        self.active.bytes as i64 - before as i64
    }

    /// Take values in that say what those of `position` said, which must be the newest. Answers how much
    /// memory that takes.
    pub fn relocate(&mut self, position: Position, values: impl IntoIterator<Item = (Key, Value)>) -> i64 {
        let before = self.active.bytes;
        values.into_iter().for_each(|(key, value)| self.active.put(key, Version { position, value }));
        self.active.bytes as i64 - before as i64
    }

    /// The objects of which there is private state in memory.
    pub fn inodes_in_memory(&self) -> Vec<u64> {
        let tables = [Some(&self.active), self.flushing.as_deref()].into_iter().flatten();
        let nodes = tables.flat_map(|table| table.heads.keys()).filter(|key| key.kind == Kind::Node);
        nodes.map(|key| key.a).collect()
    }

    /// Which objects it has, and whether it has older versions, as was read while nothing changed.
    pub fn set_touched(&mut self, touched: Touched, sealed: bool) {
        if matches!(self.touched, Touched::Unread) {
            self.touched = touched;
            self.sealed |= sealed;
        }
    }

    /// Let the numbers of its objects go, if all of them are in the index.
    pub fn let_go_touched(&mut self, although_wanted: bool) {
        if self.flushing.is_none() && self.active.heads.is_empty() {
            self.touched.let_go(although_wanted);
        }
    }

    /// Whether a sealed layer shows what was written at `from` and replaced at `to`.
    fn is_marked(&self, from: Position, to: Position) -> bool {
        let next = self.marks.partition_point(|mark| *mark < from);
        self.marks.get(next).is_some_and(|mark| *mark < to)
    }

    pub fn set_marks(&mut self, mut marks: Vec<Position>) {
        marks.sort_unstable();
        marks.dedup();
        self.sealed |= !marks.is_empty();
        self.marks = marks;
    }

    pub fn protect(&mut self, mark: Position) {
        self.sealed = true;
        if let Err(at) = self.marks.binary_search(&mark) {
            self.marks.insert(at, mark);
        }
    }

    pub fn marks(&self) -> &[Position] {
        &self.marks
    }

    /// The overlay was filled behind our back, in the index.
    pub fn restart(&mut self, row: OverlayRow) {
        (self.position, self.counts, self.touched) = (row.position, row.counts, Touched::Unread);
        self.charge.store(row.counts.charge(), Ordering::Relaxed);
    }

    /// Begin a flush: what is in memory now, and the row that it leads to.
    pub fn begin_flush(&mut self) -> (Arc<Memtable>, OverlayRow) {
        let table = Arc::new(std::mem::take(&mut self.active));
        self.flushing = Some(table.clone());
        (table, OverlayRow { position: self.position, counts: self.counts })
    }

    /// Nothing of the flush was written: what it took is as if it had not been taken. Answers how much
    /// less memory that takes now.
    pub fn abandon_flush(&mut self) -> usize {
        let Some(taken) = self.flushing.take() else { return 0 };
        let before = taken.bytes + self.active.bytes;
        let newer = std::mem::replace(&mut self.active, Arc::unwrap_or_clone(taken));
        self.active.overlay(newer);
        before - self.active.bytes
    }

    /// The flush is in the index.
    pub fn end_flush(&mut self) {
        self.flushing = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_kept_exactly_as_long_as_a_mark_lies_in_its_life() {
        let overlay = Overlay::new(OverlayId(1), OverlayRow::default(), vec![5, 9], Touched::Many);
        let state = overlay.lock();
        assert!(state.is_marked(5, 6) && state.is_marked(1, 6) && state.is_marked(6, 10));
        assert!(!state.is_marked(1, 5), "replaced at 5: the layer up to 5 shows the new one");
        assert!(!state.is_marked(6, 9) && !state.is_marked(10, 20));
    }
}

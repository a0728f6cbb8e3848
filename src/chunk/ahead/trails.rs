//! Places in packs where readers may go on: which are followed, how far, and how much that paid.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Round;
use super::held::Place;
use crate::chunk::pack::{Frame, Location, PackId};

/// Places that are remembered; the one that was touched longest ago goes first.
const MAX_TRAILS: usize = 64;
/// Tables of packs that are kept for them.
const MAX_TABLES: usize = 16;
/// Credit without which it is not asked what lies ahead, in bytes.
const LEAST_CREDIT: u64 = 64 << 10;
/// Chunks that a trail is ahead of its readers at most.
const MAX_WINDOW: usize = 64;
/// Chunks that have to be used for each by which the window grows.
const GROWS: usize = 2;

/// A trail's number, never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrailId(u64);

struct Trail {
    id: TrailId,
    pack: PackId,
    /// Where the first miss was; it reaches from there to where the last one ended. Bytes of the pack.
    start: u64,
    end: u64,
    /// Up to where chunks were read ahead, or need not be.
    next: u64,
    round: Round,
    /// Chunks that were missed in this round, and in the one before.
    misses: usize,
    width: usize,
    /// An access began where another had ended.
    followed: bool,
    /// Its pack's table is being read.
    waiting: bool,
    /// How far its chunks were used lately.
    used: usize,
}

impl Trail {
    fn window(&self) -> usize {
        (self.width.max(1) + self.used / GROWS).min(MAX_WINDOW)
    }

    fn is_at(&self, pack: PackId, offset: u64) -> bool {
        self.pack == pack && (self.start..=self.end.max(self.next)).contains(&offset)
    }

    fn extend(&mut self, round: Round, end: u64) {
        if self.round == round {
            self.misses += 1;
        } else {
            self.followed |= end > self.end;
            (self.width, self.misses, self.round) = (self.misses, 1, round);
        }
        self.advance(end);
    }

    fn advance(&mut self, end: u64) {
        self.end = self.end.max(end);
        self.next = self.next.max(self.end);
    }
}

/// What a trail could go on with.
pub struct Wanted {
    pub pack: PackId,
    /// `None`: its table is needed to know.
    pub frames: Option<Frames>,
}

/// Some frames of a table.
pub struct Frames {
    table: Arc<[Frame]>,
    range: std::ops::Range<usize>,
}

impl Frames {
    pub fn iter(&self) -> std::slice::Iter<'_, Frame> {
        self.table[self.range.clone()].iter()
    }
}

#[derive(Default)]
pub struct Trails {
    /// The one that was touched last is last.
    trails: VecDeque<Trail>,
    /// The one that was used last is last.
    tables: VecDeque<(PackId, Arc<[Frame]>)>,
    next_id: u64,
}

impl Trails {
    /// A chunk was missed there. The trail that it belongs to, if that is followed.
    pub fn missed(&mut self, round: Round, at: &Location) -> Option<TrailId> {
        let (start, end) = (u64::from(at.span.offset), at.span.payload().end);
        let Some(found) = self.trails.iter().rposition(|trail| trail.is_at(at.pack, start)) else {
            self.begin(round, at.pack, start, end);
            return None;
        };
        let mut trail = self.trails.remove(found)?;
        // What is missed once more on the way says nothing of what comes next.
        let goes_on = end > trail.end;
        trail.extend(round, end);
        let followed = (trail.followed && goes_on).then_some(trail.id);
        self.trails.push_back(trail);
        followed
    }

    fn begin(&mut self, round: Round, pack: PackId, start: u64, end: u64) {
        if self.trails.len() == MAX_TRAILS {
            self.trails.pop_front();
        }
        let id = TrailId(self.next_id);
        self.next_id += 1;
        let (misses, width, used) = (1, 1, 0);
        let (followed, waiting, next) = (false, false, end);
        self.trails.push_back(Trail { id, pack, start, end, next, round, misses, width, followed, waiting, used });
    }

    /// A chunk that was read for a trail was asked for.
    pub fn used(&mut self, place: Place) {
        if let Some(trail) = find(&mut self.trails, place.trail) {
            trail.used = (trail.used + 1).min(MAX_WINDOW * GROWS);
            trail.advance(place.end);
        }
    }

    /// A chunk that was read for it went unused.
    pub fn wasted(&mut self, id: TrailId) {
        if let Some(trail) = find(&mut self.trails, id) {
            trail.used /= 2;
        }
    }

    pub fn end(&mut self, id: TrailId) {
        self.trails.retain(|trail| trail.id != id);
    }

    /// Keep a pack's table.
    pub fn learn(&mut self, pack: PackId, frames: Arc<[Frame]>) {
        self.tables.retain(|(other, _)| *other != pack);
        if self.tables.len() == MAX_TABLES {
            self.tables.pop_front();
        }
        self.tables.push_back((pack, frames));
        for trail in self.trails.iter_mut().filter(|trail| trail.pack == pack) {
            trail.waiting = false;
        }
    }

    /// What the trail could go on with: nothing while its readers have half a window before them, or half of what
    /// the credit lets them have.
    pub fn plan(&mut self, id: TrailId, credit: u64) -> Option<Wanted> {
        if credit < LEAST_CREDIT {
            return None;
        }
        let trail = find(&mut self.trails, id).filter(|trail| trail.followed && !trail.waiting)?;
        let pack = trail.pack;
        let Some(at) = self.tables.iter().position(|(of, _)| *of == pack) else {
            trail.waiting = true;
            return Some(Wanted { pack, frames: None });
        };
        let kept = self.tables.remove(at)?;
        let table = kept.1.clone();
        self.tables.push_back(kept);
        let index = |offset: u64| table.partition_point(|frame| u64::from(frame.span.offset) < offset);
        let (reader, next) = (index(trail.end), index(trail.next));
        let affordable = credit / u64::from(table.get(next)?.span.raw_len);
        let window = trail.window().min(next - reader + affordable as usize);
        let end = table.len().min(reader + window);
        if next >= end || next - reader > window / 2 {
            return None;
        }
        Some(Wanted { pack, frames: Some(Frames { table: table.clone(), range: next..end }) })
    }

    /// So many of the chunks that were planned are seen to.
    pub fn passed(&mut self, id: TrailId, count: usize) {
        let Some(trail) = find(&mut self.trails, id) else { return };
        let Some((_, table)) = self.tables.iter().find(|(of, _)| *of == trail.pack) else { return };
        let first = table.partition_point(|frame| u64::from(frame.span.offset) < trail.next);
        if let Some(last) = (first + count).checked_sub(1).and_then(|last| table.get(last)) {
            trail.next = trail.next.max(last.span.payload().end);
        }
    }
}

fn find(trails: &mut VecDeque<Trail>, id: TrailId) -> Option<&mut Trail> {
    trails.iter_mut().rfind(|trail| trail.id == id)
}

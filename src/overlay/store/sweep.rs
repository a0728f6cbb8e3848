//! Sweeping: what objects that are gone left behind is erased, a little at a time.
//!
//! A large file is removed by one small record; its buckets go here. The first look after a start asks the index, later ones a flag in memory.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use smallvec::SmallVec;

use super::OverlayStore;
use super::commit::Commit;
use crate::chunk::{Fetch, Step};
use crate::error::{Error, Result};
use crate::manifest::Ino;
use crate::overlay::bucket::Bucket;
use crate::overlay::keys::{Key, Kind};
use crate::overlay::memtable::Version;
use crate::overlay::state::Guard;
use crate::overlay::{OverlayId, Position};

/// Where a sweep of an overlay goes on: at this key of an object, by default at the first object that
/// left anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepCursor(Option<Key>);

/// The keys of its object from `key` on that are of its kind.
fn rest(key: Key) -> RangeInclusive<Key> {
    key..=Key { b: u64::MAX, ..key }
}

/// Where the page behind the one from `key` begins, which ended at `end` or with its range; `None` if
/// that was the last.
fn behind(key: Key, end: Option<Key>) -> Option<Key> {
    end.and_then(|end| end.next()).filter(|next| next.a == key.a)
}

impl OverlayStore {
    /// Overlays in which objects that are gone may have left something.
    pub fn unswept(&self) -> Vec<OverlayId> {
        self.all().iter().filter(|overlay| overlay.lock().orphans != Some(false)).map(|overlay| overlay.id).collect()
    }

    /// Erase one page of what is left in the open overlay `id`; answers where to go on, `None` if nothing
    /// is left.
    pub async fn sweep(&self, id: OverlayId, cursor: SweepCursor) -> Result<Option<SweepCursor>> {
        if !self.has_orphans(id).await? {
            return Ok(None);
        }
        let mut fetch = Fetch::new(&*self.chunks);
        fetch.run(|fetch| self.sweep_page(fetch, id, cursor)).await
    }

    async fn has_orphans(&self, id: OverlayId) -> Result<bool> {
        let Some(overlay) = self.find(id) else { return Ok(false) };
        let known = overlay.lock().orphans;
        if let Some(known) = known {
            return Ok(known);
        }
        let (first, last) = (Key::orphan(Ino(0)), Key::orphan(Ino(u64::MAX)));
        let found = self.exclusively(move |index| index.keys(id, first, last, 1)).await?;
        Ok(*overlay.lock().orphans.get_or_insert(!found.is_empty()))
    }

    fn sweep_page(&self, fetch: &mut Fetch<'_>, id: OverlayId, cursor: SweepCursor) -> Step<Option<SweepCursor>> {
        let mut state = self.lock_for_change(fetch, id)?;
        let Some(from) = cursor.0.map_or_else(|| self.first_orphan(fetch, &state), |key| Ok(Some(key)))? else {
            state.orphans = Some(false);
            return Ok(None);
        };
        let (mut rows, end) = state.page(&self.index, fetch, &rest(from), Position::MAX)?;
        let next = behind(from, end);
        let mut counts = state.counts;
        counts.bytes = counts.bytes.saturating_sub(stored(&rows)?);
        if next.is_none() {
            let key = Key::orphan(Ino(from.a));
            rows.extend(state.get(&self.index, fetch, &key, Position::MAX)?.map(|version| (key, version)));
        }
        let erased = rows.into_iter().filter(|(_, version)| version.value.is_some());
        let values: Vec<_> = erased.map(|(key, version)| (key, None, Some(version))).collect();
        if !values.is_empty() {
            self.commit(state, Commit { values, data: SmallVec::new(), counts, receipt: None })?;
        }
        Ok(Some(SweepCursor(next)))
    }

    fn first_orphan(&self, fetch: &mut Fetch<'_>, state: &Guard) -> Step<Option<Key>> {
        let mut from = Some(Key::orphan(Ino(0)));
        while let Some(first) = from {
            let (rows, end) = state.page(&self.index, fetch, &(first..=Key::orphan(Ino(u64::MAX))), Position::MAX)?;
            if let Some((key, _)) = rows.iter().find(|(_, version)| version.value.is_some()) {
                return Ok(Some(Key::bucket(Ino(key.a), 0)));
            }
            from = end.and_then(|end| end.next());
        }
        Ok(None)
    }
}

/// Bytes that buckets store.
fn stored(rows: &BTreeMap<Key, Version>) -> Result<u64> {
    let mut bytes = 0;
    for (key, version) in rows.iter().filter(|(key, _)| key.kind == Kind::Bucket) {
        let Some(value) = &version.value else { continue };
        let damaged = || Error::corrupt(format!("bucket {} of inode {} is damaged", key.b, key.a));
        bytes += Bucket::decode(value).ok_or_else(damaged)?.stored();
    }
    Ok(bytes)
}

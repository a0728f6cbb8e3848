//! Changing a view: everything is staged, then appended to the log and made visible as one record.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};

use super::Tree;
use super::data::decode;
use super::entry::EntryState;
use crate::chunk::{Fetch, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Cookie, Entry, FileKind, Ino, MAX_TIES};
use crate::overlay::bucket::{BUCKET, Bucket, Fragment, MAX_FRAGMENTS, Source};
use crate::overlay::keys::Key;
use crate::overlay::log::Lsn;
use crate::overlay::memtable::Version;
use crate::overlay::node::{Level, NodeState};
use crate::overlay::record::{Receipt, Value};
use crate::overlay::store::Commit;
use crate::overlay::{Counts, Node, Position};

/// Most buckets that one change erases: a bound for its record, and for the time under the lock.
pub const MAX_ERASED: usize = 4096;

/// A value to be, and what it replaces in the open overlay.
struct Change {
    value: Value,
    former: Option<Version>,
}

/// What a run has changed so far.
#[derive(Default)]
pub(super) struct Staged {
    changes: BTreeMap<Key, Change>,
    data: Vec<Bytes>,
    bytes: i64,
    inodes: i64,
}

impl Staged {
    pub fn get(&self, key: &Key) -> Option<Version> {
        self.changes.get(key).map(version)
    }

    pub fn range(&self, range: RangeInclusive<Key>) -> impl Iterator<Item = (Key, Version)> {
        self.changes.range(range).map(|(key, change)| (*key, version(change)))
    }

    pub fn has(&self, ino: Ino) -> bool {
        self.changes.contains_key(&Key::node(ino))
    }

    pub fn piece(&self, index: u32) -> Result<Bytes> {
        let piece = self.data.get(index as usize).cloned();
        piece.ok_or_else(|| Error::corrupt("a bucket refers to a piece that its record does not have"))
    }

    /// `counts` with the changes made so far.
    pub fn counts(&self, counts: Counts) -> Counts {
        Counts {
            bytes: counts.bytes.saturating_add_signed(self.bytes),
            inodes: counts.inodes.saturating_add_signed(self.inodes),
        }
    }
}

fn version(change: &Change) -> Version {
    Version { position: Position::MAX, value: change.value.clone() }
}

impl Tree<'_> {
    /// Stage a value of the open overlay.
    fn stage(&mut self, fetch: &mut Fetch<'_>, ino: Ino, key: Key, value: Value) -> Step<()> {
        if let Some(staged) = self.staged.changes.get_mut(&key) {
            staged.value = value;
            return Ok(());
        }
        let former = self.own_committed(fetch, ino, &key)?;
        self.staged.changes.insert(key, Change { value, former });
        Ok(())
    }

    /// Stage a node, and count it.
    fn stage_node(&mut self, fetch: &mut Fetch<'_>, ino: Ino, value: Value) -> Step<()> {
        let key = Key::node(ino);
        let had = self.own(fetch, ino, &key)?.is_some_and(|version| version.value.is_some());
        self.staged.inodes += i64::from(value.is_some()) - i64::from(had);
        self.stage(fetch, ino, key, value)
    }

    /// The node takes effect at the commit; for new objects too.
    pub fn put(&mut self, fetch: &mut Fetch<'_>, ino: Ino, mut node: Node) -> Step<()> {
        node.raise();
        self.stage_node(fetch, ino, Some(NodeState::Present(node).encode()?))
    }

    /// The object is gone: its last name was removed. What it leaves beyond a bound is noted, for
    /// [`OverlayStore::sweep`](crate::overlay::OverlayStore::sweep).
    pub fn remove(&mut self, fetch: &mut Fetch<'_>, ino: Ino, node: &Node) -> Step<()> {
        if node.level == Level::Layer(0) && node.own > 0 {
            if self.has_buckets(fetch, ino, 0, MAX_ERASED)? {
                self.stage(fetch, ino, Key::orphan(ino), Some(Bytes::new()))?;
            } else {
                self.cut(fetch, ino, 0)?;
            }
        }
        // A lower layer that removed it hides it from the image as well as we would.
        let below = self.node_below(fetch, 1, ino)?.is_some();
        let value = if below { Some(NodeState::Removed.encode()?) } else { None };
        self.stage_node(fetch, ino, value)
    }

    /// Give `dir` a name that it does not have.
    pub fn add_entry(&mut self, fetch: &mut Fetch<'_>, dir: Ino, name: &[u8], ino: Ino, kind: FileKind) -> Step<()> {
        let base = self.manifest.name_seed().cookie_base(name);
        let mut free = None;
        for cookie in (base.0..base.0 + MAX_TIES).map(Cookie) {
            if self.entry_below(fetch, 0, dir, cookie)?.is_none() {
                free = Some(cookie);
                break;
            }
        }
        let cookie = free.ok_or_else(|| {
            let what = format!("directory {} has {MAX_TIES} names of one hash", dir.0);
            Error::new(ErrorKind::NoSpace, what).remedy("choose another name")
        })?;
        let state = EntryState::Present { name: name.to_vec(), ino, kind };
        self.stage(fetch, dir, Key::entry(dir, cookie), Some(state.encode()?))
    }

    /// Take an entry, as looked up, out of `dir`.
    pub fn remove_entry(&mut self, fetch: &mut Fetch<'_>, dir: Ino, entry: &Entry) -> Step<()> {
        let below = self.entry_below(fetch, 1, dir, entry.cookie)?.is_some();
        let value = if below { Some(EntryState::Removed.encode()?) } else { None };
        self.stage(fetch, dir, Key::entry(dir, entry.cookie), value)
    }

    /// The entry of `dir` with exactly this cookie.
    pub fn entry_at(&self, fetch: &mut Fetch<'_>, dir: Ino, cookie: Cookie) -> Step<Option<Entry>> {
        self.entry_below(fetch, 0, dir, cookie)
    }

    /// The entry with this cookie as layer `level` and those below it show it.
    fn entry_below(&self, fetch: &mut Fetch<'_>, level: usize, dir: Ino, cookie: Cookie) -> Step<Option<Entry>> {
        let key = Key::entry(dir, cookie);
        for level in level..self.depth() {
            if let Some(version) = self.version(fetch, level, dir, &key)?
                && let Some(state) = EntryState::of(dir, &key, &version)?
            {
                return Ok(state.entry(cookie));
            }
        }
        self.manifest.entry_at(fetch, dir, cookie)
    }

    /// Put `data` at `offset` and let `node` grow to hold it. The caller puts the node.
    pub fn write(&mut self, fetch: &mut Fetch<'_>, ino: Ino, node: &mut Node, offset: u64, data: Bytes) -> Step<()> {
        node.raise();
        let end = offset.saturating_add(data.len() as u64);
        let mut at = offset;
        while at < end {
            let until = end.min((at / BUCKET + 1) * BUCKET);
            let piece = data.slice((at - offset) as usize..(until - offset) as usize);
            self.write_piece(fetch, ino, node, at, piece)?;
            at = until;
        }
        node.size = node.size.max(end);
        Ok(())
    }

    /// Write within one bucket.
    fn write_piece(&mut self, fetch: &mut Fetch<'_>, ino: Ino, node: &mut Node, at: u64, piece: Bytes) -> Step<()> {
        let number = at / BUCKET;
        let mut bucket = self.own_bucket(fetch, ino, number)?.unwrap_or_default();
        let new = self.fragment((at % BUCKET) as u32, piece);
        let many = bucket.fragments.len() >= MAX_FRAGMENTS;
        bucket.write(new);
        self.stage_bucket(fetch, ino, node, number, bucket)?;
        if many { self.rewrite(fetch, ino, node, number, at % BUCKET + u64::from(new.len)) } else { Ok(()) }
    }

    /// A fragment of new data. Zeros are not stored.
    fn fragment(&mut self, start: u32, piece: Bytes) -> Fragment {
        let len = piece.len() as u32;
        let source = if piece.iter().all(|byte| *byte == 0) {
            Source::Zero
        } else {
            self.staged.data.push(piece);
            Source::Own { index: self.staged.data.len() as u32 - 1, len }
        };
        Fragment { start, len, skip: 0, source }
    }

    /// Write a bucket of too many fragments anew, in one piece, with what shows through its holes.
    fn rewrite(&mut self, fetch: &mut Fetch<'_>, ino: Ino, node: &mut Node, number: u64, end: u64) -> Step<()> {
        let base = number * BUCKET;
        let end = (base + BUCKET).min(node.size.max(base + end));
        let shown = Node { size: node.size.max(end), ..node.clone() };
        let mut whole = BytesMut::with_capacity(BUCKET as usize);
        for slice in self.read(fetch, ino, &shown, base, end)? {
            whole.extend_from_slice(&slice);
        }
        let mut bucket = Bucket::default();
        bucket.write(self.fragment(0, whole.freeze()));
        self.stage_bucket(fetch, ino, node, number, bucket)
    }

    fn own_bucket(&self, fetch: &mut Fetch<'_>, ino: Ino, number: u64) -> Step<Option<Bucket>> {
        let version = self.own(fetch, ino, &Key::bucket(ino, number))?;
        Ok(decode(ino, number, version)?)
    }

    /// Stage a bucket, and count its bytes.
    fn stage_bucket(
        &mut self,
        fetch: &mut Fetch<'_>,
        ino: Ino,
        node: &mut Node,
        number: u64,
        bucket: Bucket,
    ) -> Step<()> {
        let former = self.own_bucket(fetch, ino, number)?.unwrap_or_default();
        self.staged.bytes += bucket.stored() as i64 - former.stored() as i64;
        node.own = node.own + bucket.covered() - former.covered();
        let value = if bucket.is_empty() { None } else { Some(bucket.encode()) };
        self.stage(fetch, ino, Key::bucket(ino, number), value)
    }

    /// Cut or extend the file to `size`; what it gains reads as zeros. The caller puts the node. `false`
    /// if that is more than one change may erase: then it is a part of the way shorter, from the end.
    pub fn truncate(&mut self, fetch: &mut Fetch<'_>, ino: Ino, node: &mut Node, size: u64) -> Step<bool> {
        node.raise();
        let wanted = size;
        let size = if node.own > 0 { self.within_reach(fetch, ino, node.size, size)? } else { size };
        if size < node.size {
            if node.own > 0 {
                node.own -= self.cut(fetch, ino, size)?;
            }
            node.below = node.below.min(size);
        }
        node.size = size;
        Ok(size == wanted)
    }

    /// The smallest size from `wanted` on to which one change can cut a file of `size`.
    fn within_reach(&self, fetch: &mut Fetch<'_>, ino: Ino, size: u64, wanted: u64) -> Step<u64> {
        let (mut reached, mut span) = (size, MAX_ERASED as u64 * BUCKET);
        while reached > wanted {
            let next = wanted.max(size.saturating_sub(span) / BUCKET * BUCKET);
            if reached < size && self.has_buckets(fetch, ino, next / BUCKET, MAX_ERASED)? {
                return Ok(reached);
            }
            (reached, span) = (next, span.saturating_mul(2));
        }
        Ok(wanted)
    }

    /// Whether the open overlay has more than `most` buckets of a file from `from` on.
    fn has_buckets(&self, fetch: &mut Fetch<'_>, ino: Ino, mut from: u64, most: usize) -> Step<bool> {
        let mut found = 0;
        loop {
            let keys = Key::bucket(ino, from)..=Key::bucket(ino, u64::MAX);
            let (rows, end) = self.page(fetch, 0, ino, &keys)?;
            found += rows.values().filter(|version| version.value.is_some()).count();
            match end {
                _ if found > most => return Ok(true),
                Some(end) => from = end.b + 1,
                None => return Ok(false),
            }
        }
    }

    /// Forget the open overlay's data of a file from `at` on; answers how many bytes it covered.
    fn cut(&mut self, fetch: &mut Fetch<'_>, ino: Ino, at: u64) -> Step<u64> {
        let mut freed = 0;
        let mut from = at / BUCKET;
        loop {
            let keys = Key::bucket(ino, from)..=Key::bucket(ino, u64::MAX);
            let (rows, end) = self.page(fetch, 0, ino, &keys)?;
            for (key, version) in rows {
                let Some(mut bucket) = decode(ino, key.b, Some(version.clone()))? else { continue };
                let (covered_before, stored_before) = (bucket.covered(), bucket.stored());
                bucket.cut_at(key.b, at);
                freed += covered_before - bucket.covered();
                self.staged.bytes -= (stored_before - bucket.stored()) as i64;
                let value = if bucket.is_empty() { None } else { Some(bucket.encode()) };
                self.stage(fetch, ino, key, value)?;
            }
            match end {
                Some(end) => from = end.b + 1,
                None => return Ok(freed),
            }
        }
    }

    /// Make all changes visible and append them to the log, as one record. They are on stable storage
    /// when [`OverlayStore::durable`](crate::overlay::OverlayStore::durable) says so.
    pub fn commit(mut self, receipt: Option<Receipt>) -> Result<Lsn> {
        self.commit_part(receipt)
    }

    /// The same, of a verb that has more to do and runs again: nothing can be read or changed any more.
    pub fn commit_part(&mut self, receipt: Option<Receipt>) -> Result<Lsn> {
        let store = self.store()?;
        let (top, staged) = (self.top.take(), std::mem::take(&mut self.staged));
        let state = top.ok_or_else(|| Error::internal("a view that was opened for reading is changed"))?;
        if staged.changes.is_empty() {
            return Ok(state.last_change);
        }
        let counts = staged.counts(state.counts);
        let values = staged.changes.into_iter().map(|(key, change)| (key, change.value, change.former)).collect();
        store.commit(state, Commit { values, data: staged.data.into(), counts, receipt })
    }
}

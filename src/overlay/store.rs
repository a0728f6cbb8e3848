//! All overlays of a store: opening, freezing, flushing.
//!
//! Owns the table of overlays that have any private state, and the one worker that brings changes from
//! memory to the index. An overlay that was never written is in no table and costs nothing.
//!
//! A flush makes a cut: it swaps the memory of every changed overlay, waits until the log is durable up
//! to there, writes one batch for each, and then moves the place from which a restart replays. So the
//! index never knows what the log might lose.
//!
//! Failure story: if the index refuses a batch, changes stay in memory and in the log, further ones are
//! refused, and a restart replays; a flush that cannot begin because the log waits for space puts back
//! what it took. A poisoned log refuses changes by itself.

mod commit;
mod compact;
mod dedup;
mod flatten;
mod flush;
mod freeze;
mod hold;
mod purge;
mod replay;
mod sweep;

pub(super) use commit::Commit;
pub use compact::Compacted;
pub use dedup::{IdleBucket, IdleCursor};
pub use freeze::Frozen;
pub use hold::Held;
pub use purge::Purged;
pub use sweep::SweepCursor;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use self::hold::Holds;
use super::blocks::Blocks;
use super::index::{Index, OverlayRow};
use super::keys::Key;
use super::log::{DeltaLog, Health, Lsn, SegmentId};
use super::record::Receipt;
use super::state::{Guard, Overlay};
use super::touched::{KnownCount, MAX_KNOWN, Touched};
use super::{Counts, Layer, OverlayId, Position};
use crate::chunk::{ChunkSource, Fetch, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Ino;
use crate::meta::{KvStore, Table};

const SHARDS: usize = 64;
/// Memory of changes above which a flush begins, in bytes.
const FLUSH_AT: i64 = 32 << 20;
/// Memory of changes above which further ones wait.
const MAX_MEMORY: i64 = 256 << 20;

/// How often who waits for a sync looks if the log waits for space.
const LOOK_AT_HEALTH: Duration = Duration::from_millis(100);

/// What a store of overlays is opened with.
#[derive(Clone, Debug)]
pub struct OverlayOptions {
    /// Budget of the cache of private data.
    pub cache_bytes: u64,
}

/// The overlays of a store.
pub struct OverlayStore {
    pub(super) log: Arc<dyn DeltaLog>,
    pub(super) index: Arc<Index>,
    pub(super) chunks: Arc<dyn ChunkSource>,
    pub(super) blocks: Arc<Blocks>,
    shards: Vec<RwLock<Shard>>,
    pub(super) known: KnownCount,
    epoch: u64,
    /// Overlays that changed since the last flush.
    dirty: Mutex<HashSet<OverlayId>>,
    /// Receipts since the last flush.
    receipts: Mutex<Vec<(Lsn, Receipt)>>,
    /// Receipts from before this start.
    former_receipts: Vec<Receipt>,
    memory: AtomicI64,
    flush_wanted: Arc<Notify>,
    /// Counts flushes; who waits for memory or a thaw subscribes.
    flushed: watch::Sender<u64>,
    thawed: watch::Sender<u64>,
    switching: Arc<tokio::sync::Mutex<()>>,
    /// One flush at a time.
    flushing: Arc<tokio::sync::Mutex<()>>,
    failed: Mutex<Option<String>>,
    holds: Mutex<Holds>,
    /// That of the opening, which outlives every caller.
    runtime: Handle,
}

#[derive(Default)]
struct Shard {
    overlays: FxHashMap<OverlayId, Arc<Overlay>>,
    /// Held back, although never written.
    frozen: HashSet<OverlayId>,
}

impl OverlayStore {
    /// Tables of the index.
    pub const TABLES: &'static [Table] = super::keys::TABLES;

    /// The number of this start, for the log. Durable when it returns.
    pub fn next_epoch(kv: &dyn KvStore) -> Result<u64> {
        Index::next_epoch(kv)
    }

    /// Open, and bring the index up to the log. `marks` are the positions that sealed layers name. Must
    /// be called on a tokio runtime, which then runs the flushing worker until the store is dropped.
    pub async fn open(
        log: Arc<dyn DeltaLog>,
        kv: Arc<dyn KvStore>,
        chunks: Arc<dyn ChunkSource>,
        epoch: u64,
        marks: HashMap<OverlayId, Vec<Position>>,
        options: OverlayOptions,
    ) -> Result<Arc<Self>> {
        let opened = tokio::task::spawn_blocking(move || Self::load(log, kv, chunks, epoch, marks, &options)).await;
        let store = opened.map_err(|e| Error::internal("opening the overlays").because(e))??;
        flush::spawn(&store);
        Ok(store)
    }

    fn load(
        log: Arc<dyn DeltaLog>,
        kv: Arc<dyn KvStore>,
        chunks: Arc<dyn ChunkSource>,
        epoch: u64,
        mut marks: HashMap<OverlayId, Vec<Position>>,
        options: &OverlayOptions,
    ) -> Result<Arc<Self>> {
        let index = Arc::new(Index::open(kv)?);
        let former_receipts = index.receipts()?;
        let mut store = Self {
            log,
            index,
            chunks,
            blocks: Arc::new(Blocks::new(options.cache_bytes)),
            shards: std::iter::repeat_with(RwLock::default).take(SHARDS).collect(),
            known: KnownCount::default(),
            epoch,
            dirty: Mutex::default(),
            receipts: Mutex::default(),
            former_receipts,
            memory: AtomicI64::new(0),
            flush_wanted: Arc::default(),
            flushed: watch::Sender::new(0),
            thawed: watch::Sender::new(0),
            switching: Arc::default(),
            flushing: Arc::default(),
            failed: Mutex::default(),
            holds: Mutex::default(),
            runtime: Handle::current(),
        };
        for (id, row) in store.index.overlays()? {
            let marks = marks.remove(&id).unwrap_or_default();
            store.insert(Overlay::new(id, row, marks, Touched::Unread));
        }
        replay::run(&mut store, marks)?;
        Ok(Arc::new(store))
    }

    fn shard(&self, id: OverlayId) -> &RwLock<Shard> {
        // Neighbours are made together and used together.
        &self.shards[(id.0 % SHARDS as u64) as usize]
    }

    pub(super) fn insert(&self, overlay: Overlay) -> Arc<Overlay> {
        let mut shard = self.shard(overlay.id).write();
        shard.overlays.entry(overlay.id).or_insert_with(|| Arc::new(overlay)).clone()
    }

    /// The overlay, if it has any private state.
    pub(super) fn find(&self, id: OverlayId) -> Option<Arc<Overlay>> {
        self.shard(id).read().overlays.get(&id).cloned()
    }

    /// Every overlay that has any private state.
    pub(super) fn all(&self) -> Vec<Arc<Overlay>> {
        self.shards.iter().flat_map(|shard| shard.read().overlays.values().cloned().collect::<Vec<_>>()).collect()
    }

    /// Lock an overlay for reading; stops until it was read, if it is older than this start.
    pub(super) fn lock(&self, fetch: &mut Fetch<'_>, overlay: &Arc<Overlay>) -> Step<Guard> {
        let mut state = overlay.lock();
        if !matches!(state.touched, Touched::Unread) {
            state.touched.want();
            return Ok(state);
        }
        drop(state);
        let (index, known, overlay) = (self.index.clone(), self.known.clone(), overlay.clone());
        Err(fetch.wait_for(async move {
            let read = tokio::task::spawn_blocking(move || read_touched(&index, &known, &overlay)).await;
            read.map_err(|e| Error::internal("reading an overlay").because(e))?
        }))
    }

    /// Lock an overlay for changing, which makes it if it was never written. Stops while it is frozen,
    /// or while there is no room for further changes.
    pub(super) fn lock_for_change(&self, fetch: &mut Fetch<'_>, id: OverlayId) -> Step<Guard> {
        self.check_failed()?;
        if let Some(room) = self.log.room() {
            return Err(fetch.wait_for(async move {
                room.await;
                Ok(())
            }));
        }
        if self.memory.load(Ordering::Relaxed) > MAX_MEMORY {
            let mut flushed = self.flushed.subscribe();
            self.flush_wanted.notify_one();
            if self.memory.load(Ordering::Relaxed) > MAX_MEMORY {
                return Err(fetch.wait_for(async move {
                    let _ = flushed.changed().await;
                    Ok(())
                }));
            }
        }
        let overlay = self.find_or_make(fetch, id)?;
        let state = self.lock(fetch, &overlay)?;
        if state.frozen {
            return Err(self.wait_for_thaw(fetch));
        }
        Ok(state)
    }

    fn find_or_make(&self, fetch: &mut Fetch<'_>, id: OverlayId) -> Step<Arc<Overlay>> {
        if let Some(overlay) = self.find(id) {
            return Ok(overlay);
        }
        let mut shard = self.shard(id).write();
        if shard.frozen.contains(&id) {
            return Err(self.wait_for_thaw(fetch));
        }
        let fresh = || Arc::new(Overlay::new(id, OverlayRow::default(), Vec::new(), self.known.known([])));
        Ok(shard.overlays.entry(id).or_insert_with(fresh).clone())
    }

    /// Called with the lock held that a thaw needs, so that none is missed.
    fn wait_for_thaw(&self, fetch: &mut Fetch<'_>) -> crate::chunk::Stop {
        let mut thawed = self.thawed.subscribe();
        fetch.wait_for(async move {
            let _ = thawed.changed().await;
            Ok(())
        })
    }

    /// A record is in the log and in its overlay's memory, which grew by `bytes`. Called under the lock of
    /// the overlay, so that a flush that takes the one takes the other.
    fn note_change(&self, lsn: Lsn, receipt: Option<Receipt>, bytes: i64) {
        if let Some(receipt) = receipt {
            self.receipts.lock().push((lsn, receipt));
        }
        if self.memory.fetch_add(bytes, Ordering::Relaxed) + bytes > FLUSH_AT {
            self.flush_wanted.notify_one();
        }
    }

    /// Let overlays forget which objects they have, if together they keep more than `most` numbers: first
    /// those that nobody wanted since the last time.
    pub(super) fn trim_known(&self, most: usize) {
        for although_wanted in [false, true] {
            if self.known.get() <= most {
                return;
            }
            for overlay in self.all() {
                if self.known.get() > most {
                    overlay.lock().let_go_touched(although_wanted);
                }
            }
        }
    }

    /// Refuse what would change anything after a flush that failed.
    fn check_failed(&self) -> Result<()> {
        let Some(cause) = &*self.failed.lock() else { return Ok(()) };
        let what = format!("private writes are refused since an earlier failure: {cause}");
        Err(Error::new(ErrorKind::ReadOnly, what).remedy("check the disk, then restart mimeo"))
    }

    /// Everything appended so far is on stable storage. `Err` if that will never be known; `NoSpace` if the
    /// log waits for space.
    pub async fn sync(&self) -> Result<()> {
        self.settle(self.log.end()).await
    }

    /// The log is on stable storage up to `upto`. Unlike a client, who may wait until there is space on the
    /// disk, what gives space back must not.
    async fn settle(&self, upto: Lsn) -> Result<()> {
        let mut synced = self.log.sync(upto);
        loop {
            if let Ok(synced) = tokio::time::timeout(LOOK_AT_HEALTH, &mut synced).await {
                return synced;
            }
            if let Health::Full(cause) = self.log.health() {
                return Err(Error::new(ErrorKind::NoSpace, cause).remedy("free space on the disk"));
            }
        }
    }

    /// A future that ends when the record that ends at `lsn` is on stable storage; `None` if it is.
    pub fn durable(&self, lsn: Lsn) -> Option<BoxFuture<'static, Result<()>>> {
        (self.log.durable() < lsn).then(|| self.log.sync(lsn))
    }

    /// Where work goes to its end although its caller's runtime may not live as long.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The newest change of this overlay, for COMMIT; `None` if all of it is on stable storage.
    pub fn last_change(&self, id: OverlayId) -> Option<Lsn> {
        let last = self.find(id)?.lock().last_change;
        (last > self.log.durable()).then_some(last)
    }

    /// What an overlay holds now; nothing if it was never written. From memory.
    pub fn counts(&self, id: OverlayId) -> Counts {
        self.find(id).map(|overlay| overlay.lock().counts).unwrap_or_default()
    }

    /// What a quota counts of an overlay, as of a moment ago. Takes no lock of an overlay.
    pub fn charge(&self, id: OverlayId) -> u64 {
        self.find(id).map_or(0, |overlay| overlay.charge())
    }

    /// The position of its newest change; 0 if it was never written.
    pub fn position(&self, id: OverlayId) -> Position {
        self.find(id).map_or(0, |overlay| overlay.lock().position)
    }

    /// Every overlay that has any private state.
    pub fn ids(&self) -> Vec<OverlayId> {
        self.all().iter().map(|overlay| overlay.id).collect()
    }

    /// Whether anything was ever written to it.
    pub fn is_written(&self, id: OverlayId) -> bool {
        self.find(id).is_some_and(|overlay| overlay.lock().position > 0)
    }

    /// Replace the positions of overlays that must stay readable although they are written further.
    /// `marks` is asked while nothing is frozen, so that it knows every position that was protected.
    pub async fn update_marks(&self, marks: impl FnOnce() -> Vec<(OverlayId, Vec<Position>)>) {
        let _turn = self.switching.lock().await;
        for (id, marks) in marks() {
            if let Some(overlay) = self.find(id) {
                overlay.lock().set_marks([marks, self.held_positions(id)].concat());
            }
        }
    }

    /// Add one such position: before the freeze that names it ends.
    pub fn protect(&self, id: OverlayId, mark: Position) {
        if let Some(overlay) = self.find(id) {
            overlay.lock().protect(mark);
        }
    }

    /// Whether the layer has private state of this object (changed, new or removed).
    pub fn touched(&self, fetch: &mut Fetch<'_>, layer: &Layer, ino: Ino) -> Step<bool> {
        self.touched_after(fetch, layer, 0, ino)
    }

    /// Whether the object was changed (made, removed) in the layer after a position.
    pub fn touched_after(&self, fetch: &mut Fetch<'_>, layer: &Layer, after: Position, ino: Ino) -> Step<bool> {
        let Some(overlay) = self.find(layer.overlay) else { return Ok(false) };
        let state = self.lock(fetch, &overlay)?;
        if !state.may_have(ino) {
            return Ok(false);
        }
        let version = state.get(&self.index, fetch, &Key::node(ino), layer.upto)?;
        Ok(version.is_some_and(|version| version.position > after && (version.value.is_some() || after > 0)))
    }

    /// Changes with every start: what WRITE and COMMIT answer as write verifier (RFC 1813 3.3.7).
    pub fn write_verifier(&self) -> [u8; 8] {
        self.epoch.to_be_bytes()
    }

    /// The newest receipts, oldest first, from before this start.
    pub fn receipts(&self) -> &[Receipt] {
        &self.former_receipts
    }

    /// The private data at a place in the log.
    pub(super) fn block(&self, fetch: &mut Fetch<'_>, segment: SegmentId, offset: u32, len: u32) -> Step<Bytes> {
        let key = (segment.0, offset);
        if let Some(bytes) = self.blocks.get(key) {
            return Ok(bytes);
        }
        fetch.block(key, || {
            let (load, blocks) = (self.log.read(segment, offset, len), self.blocks.clone());
            Box::pin(async move {
                let bytes = load.await?;
                blocks.insert(key, &bytes);
                Ok(bytes)
            })
        })
    }
}

/// Read which objects an overlay has, which nobody changes meanwhile. Blocks.
fn read_touched(index: &Index, known: &KnownCount, overlay: &Overlay) -> Result<()> {
    // First: a flush may bring them from there to the index while that is read.
    let replayed = overlay.lock().inodes_in_memory();
    let inodes = index.inodes(overlay.id, MAX_KNOWN)?;
    let sealed = index.has_history(overlay.id)?;
    let touched = inodes.map_or(Touched::Many, |inodes| known.known(inodes.into_iter().chain(replayed)));
    overlay.lock().set_touched(touched, sealed);
    Ok(())
}

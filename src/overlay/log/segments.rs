//! The segments that are on the disk: their names, their lengths, and files open for reading.
//!
//! Owns the registry and a bounded number of open files. Invariants: a segment is registered before
//! anything in it is taken out of the buffer; the file of a segment that is removed stays open as long
//! as somebody holds the segment, so that reads which have begun end well.
//!
//! Failure story: an unknown segment is `NotFound`; bytes that do not fit their CRC are `Corrupt`, with
//! segment and offset.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;
use quick_cache::sync::Cache;

use super::format::{self, SEGMENT_HEADER};
use super::walk::{damaged, segment_io};
use super::{MAX_PIECE, SegmentId};
use crate::env::{Disk, DiskFile};
use crate::error::{Error, ErrorKind, Result};

/// Files of sealed segments held open for reading.
const OPEN_FILES: usize = 256;

/// The file name of a segment.
pub fn file_name(id: SegmentId) -> String {
    format!("{id}.seg")
}

/// The segment that a file name stands for.
pub fn parse_name(name: &str) -> Option<SegmentId> {
    let id = SegmentId(u32::from_str_radix(name.strip_suffix(".seg")?, 16).ok()?);
    (id.0 > 0 && file_name(id) == name).then_some(id)
}

/// How far a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The writer appends to it.
    Open,
    Sealed,
    /// The last one of the former start, good up to here, not sealed yet.
    Unsettled(u32),
}

/// A segment on the disk.
pub struct Segment {
    pub id: SegmentId,
    pub stage: Stage,
    bytes: AtomicU64,
    /// Its file, where it must not be closed: that of the open segment, and of one that is removed.
    kept: OnceLock<Arc<dyn DiskFile>>,
}

impl Segment {
    pub fn new(id: SegmentId, stage: Stage, bytes: u64) -> Self {
        Self { id, stage, bytes: AtomicU64::new(bytes), kept: OnceLock::new() }
    }

    pub fn keeping(self, file: Arc<dyn DiskFile>) -> Self {
        Self { kept: file.into(), ..self }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Release);
    }
}

/// The registry.
pub struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    by_id: RwLock<BTreeMap<SegmentId, Arc<Segment>>>,
    files: Cache<SegmentId, Arc<dyn DiskFile>>,
}

impl Segments {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir, by_id: RwLock::default(), files: Cache::new(OPEN_FILES) }
    }

    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, id: SegmentId) -> PathBuf {
        self.dir.join(file_name(id))
    }

    /// Register a segment, or put it in the place of the one with its number.
    pub fn insert(&self, segment: Segment) -> Arc<Segment> {
        let segment = Arc::new(segment);
        self.by_id.write().insert(segment.id, segment.clone());
        // The name may stand for another file now.
        self.files.remove(&segment.id);
        segment
    }

    pub fn find(&self, id: SegmentId) -> Result<Arc<Segment>> {
        let found = self.by_id.read().get(&id).cloned();
        found.ok_or_else(|| Error::not_found(format!("log segment {id}")))
    }

    /// All from `first` on, in order.
    pub fn from(&self, first: SegmentId) -> Vec<Arc<Segment>> {
        self.by_id.read().range(first..).map(|(_, segment)| segment.clone()).collect()
    }

    /// Of each segment, in order, number and bytes.
    pub fn list(&self) -> Vec<(SegmentId, u64)> {
        self.by_id.read().values().map(|segment| (segment.id, segment.bytes())).collect()
    }

    /// The segment's file, open for reading. May block.
    pub fn file(&self, segment: &Segment) -> Result<Arc<dyn DiskFile>> {
        if let Some(file) = segment.kept.get() {
            return Ok(file.clone());
        }
        if let Some(file) = self.files.get(&segment.id) {
            return Ok(file);
        }
        match self.disk.open(&self.path(segment.id)) {
            Ok(file) => {
                self.files.insert(segment.id, file.clone());
                if segment.kept.get().is_some() {
                    // Removed meanwhile: a file that stays open would keep its space.
                    self.files.remove(&segment.id);
                }
                Ok(file)
            }
            // Removed meanwhile: whoever did that left the file.
            Err(error) => segment.kept.get().cloned().ok_or_else(|| segment_io(segment.id, error)),
        }
    }

    /// Unlink and forget a sealed segment. The directory is not synced. Blocks.
    pub fn remove(&self, id: SegmentId) -> Result<()> {
        let segment = self.find(id)?;
        // Without the newest name, the next start would use its number again.
        let newest = self.by_id.read().last_key_value().is_some_and(|(newest, _)| *newest == id);
        if newest || segment.stage != Stage::Sealed {
            let what = format!("log segment {id} is in use");
            return Err(Error::new(ErrorKind::Unavailable, what).remedy("remove it when the next one is there"));
        }
        let file = self.file(&segment)?;
        // Set already if a removal was tried before.
        let _ = segment.kept.set(file);
        self.disk.unlink(&self.path(id)).map_err(|e| segment_io(id, e))?;
        self.by_id.write().remove(&id);
        self.files.remove(&id);
        Ok(())
    }
}

/// Read the piece at `offset` of a segment and verify it. Blocks.
pub fn read_piece(id: SegmentId, file: &dyn DiskFile, offset: u32, len: u32) -> Result<Bytes> {
    let crcs = format::crc_bytes(len as usize);
    // At most 64 bytes for a piece of the largest length.
    let start = offset.checked_sub(crcs as u32).filter(|start| *start >= SEGMENT_HEADER);
    let (Some(start), 1..=MAX_PIECE) = (start, len as usize) else {
        return Err(Error::internal(format!("log segment {id}: no piece of {len} bytes can be at byte {offset}")));
    };
    let mut bytes = vec![0; crcs + len as usize];
    file.read_at(&mut bytes, start.into()).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(id, offset, "the segment ends before the data does"),
        _ => segment_io(id, error),
    })?;
    format::check_piece(bytes.into(), len as usize).map_err(|flaw| damaged(id, offset, flaw))
}

//! The one thread that writes: group commit, segments in their turn, and what to do when the disk fails.
//!
//! A round takes the whole buffer, appends it, and syncs if somebody waits; who comes meanwhile shares
//! the next round. At the start the writer settles the last segment of the former start: its good
//! part is copied to a new file, sealed, synced, and renamed over it. For what a process that died has
//! written may be in the page cache only, or be lost already to a sync that failed; a copy that was
//! synced is on the disk.
//!
//! Failure story: a full disk stalls the call that met it, and the call is repeated where the file
//! ends; everything else that fails ends the writer and poisons the log.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::buffer::Group;
use super::format::{Encoded, GroupHeader, SEGMENT_HEADER, SegmentHeader};
use super::segments::{Segment, Segments, Stage, file_name};
use super::shared::{End, Shared};
use super::walk::{Step, Walk};
use super::{Lsn, SegmentId};
use crate::env::{DiskFile, Rng};
use crate::error::Error;

/// Why the writer goes before it is done.
pub enum Stop {
    /// Nobody wants the rest.
    Abandoned,
    /// It was to finish, and there is no space for it.
    Full(String),
    Failed(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What the writer starts from.
pub struct Start {
    /// The last segment of the former start, and where it ends.
    pub last: Option<(SegmentId, u32)>,
    pub next: SegmentId,
    pub epoch: u64,
    /// How long to wait for space before the next try.
    pub retry: Duration,
}

pub struct Writer {
    shared: Arc<Shared>,
    segments: Arc<Segments>,
    rng: Arc<dyn Rng>,
    start: Start,
}

/// The segment that grows.
struct Open {
    header: SegmentHeader,
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    /// The end of what was written.
    end: u32,
}

impl Open {
    fn lsn(&self) -> Lsn {
        Lsn::new(self.header.id, self.end)
    }
}

/// Tells the waiters if the writer panics.
struct Watchdog<'a>(&'a Shared);

impl Drop for Watchdog<'_> {
    fn drop(&mut self) {
        // Has no effect on a writer that ended with a reason of its own.
        if std::thread::panicking() {
            self.0.end_with(End::Poisoned("its writer panicked, which is a bug in mimeo".into()));
        }
    }
}

impl Writer {
    pub fn new(shared: Arc<Shared>, segments: Arc<Segments>, rng: Arc<dyn Rng>, start: Start) -> Self {
        Self { shared, segments, rng, start }
    }

    pub fn run(self) {
        let _watchdog = Watchdog(&self.shared);
        self.shared.end_with(match self.work() {
            Ok(()) | Err(Stop::Abandoned) => End::Closed,
            Err(Stop::Full(why)) => End::Full(why.into()),
            Err(Stop::Failed(why)) => End::Poisoned(why.into()),
        });
    }

    /// Until the log is closed.
    fn work(&self) -> Result<(), Stop> {
        if let Some((id, end)) = self.start.last {
            self.settle(id, end)?;
        }
        let mut open = self.create(self.start.next)?;
        self.shared.synced(open.lsn());
        self.shared.ready();
        loop {
            let round = self.shared.next_round()?;
            let mut rest = &round.groups[..];
            while let Some(first) = rest.first() {
                if first.segment != open.header.id {
                    open = self.roll(open)?;
                }
                let (here, later) = rest.split_at(rest.partition_point(|group| group.segment == first.segment));
                self.write(&mut open, here)?;
                rest = later;
            }
            if round.last || self.shared.sync_wanted() {
                self.sync(&open)?;
            }
            if round.last {
                return self.finish(open);
            }
        }
    }

    /// Append `groups` to their segment.
    fn write(&self, open: &mut Open, groups: &[Arc<Group>]) -> Result<(), Stop> {
        let durable = self.shared.durable();
        let mut bytes = Encoded::default();
        for group in groups {
            bytes.push_group(&open.header, group.start, durable, group.records());
            open.end = group.end;
        }
        self.append(open.header.id, &*open.file, open.segment.bytes(), &bytes)?;
        open.segment.set_bytes(open.end.into());
        self.shared.written(groups.len());
        Ok(())
    }

    fn sync(&self, open: &Open) -> Result<(), Stop> {
        self.sync_file(open.header.id, &*open.file)?;
        self.shared.synced(open.lsn());
        Ok(())
    }

    /// Seal the segment, and begin the next one when that is durable.
    fn roll(&self, open: Open) -> Result<Open, Stop> {
        let id = open.header.id;
        let seal = GroupHeader::seal(&open.header, self.shared.durable(), open.end).encode();
        self.append(id, &*open.file, open.end.into(), &Encoded::plain(&seal))?;
        self.sync(&open)?;
        self.segments.insert(Segment::new(id, Stage::Sealed, u64::from(open.end) + seal.len() as u64));
        self.create(SegmentId(id.0 + 1))
    }

    /// Everything is durable; leave a log whose next start has nothing to copy.
    fn finish(&self, open: Open) -> Result<(), Stop> {
        if open.end > SEGMENT_HEADER {
            self.roll(open)?;
        }
        Ok(())
    }

    /// Create a segment: when this returns, it survives a power cut.
    fn create(&self, id: SegmentId) -> Result<Open, Stop> {
        let mut salt = [0; 8];
        self.rng.fill(&mut salt);
        let header = SegmentHeader { id, epoch: self.start.epoch, salt: u64::from_be_bytes(salt) };
        let bytes = Encoded::plain(&header.encode());
        let file = self.until_room(id, "create", || self.segments.disk().create(&self.segments.path(id)))?;
        self.append(id, &*file, 0, &bytes)?;
        self.sync_file(id, &*file)?;
        self.sync_dir()?;
        let segment = self.segments.insert(Segment::new(id, Stage::Open, bytes.len()).keeping(file.clone()));
        Ok(Open { header, segment, file, end: SEGMENT_HEADER })
    }

    /// Put a copy of segment `id` up to `end`, sealed and synced, in its place.
    fn settle(&self, id: SegmentId, end: u32) -> Result<(), Stop> {
        let disk = self.segments.disk();
        let (path, copy_path) = (self.segments.path(id), self.segments.dir().join(temp_name(id)));
        let old = disk.open(&path).map_err(failed(id, "open"))?;
        let copy = self.until_room(id, "create a copy", || disk.create(&copy_path))?;
        let mut walk = Walk::begin(id, &*old)?;
        self.append(id, &*copy, 0, &Encoded::plain(&walk.segment.encode()))?;
        while walk.at < end {
            let at = walk.at;
            match walk.step()? {
                Step::Group(_, bytes) => self.append(id, &*copy, at.into(), &Encoded::plain(&bytes))?,
                _ => return Err(walk.damaged("what was good a moment ago cannot be read again").into()),
            }
        }
        let seal = GroupHeader::seal(&walk.segment, Lsn::new(id, end), end).encode();
        self.append(id, &*copy, end.into(), &Encoded::plain(&seal))?;
        self.sync_file(id, &*copy)?;
        self.until_room(id, "rename", || disk.rename(&copy_path, &path))?;
        self.sync_dir()?;
        self.segments.insert(Segment::new(id, Stage::Sealed, u64::from(end) + seal.len() as u64));
        Ok(())
    }

    /// Append `bytes` to a file that had `base` bytes before; goes on where a full disk cut it off.
    fn append(&self, id: SegmentId, file: &dyn DiskFile, base: u64, bytes: &Encoded) -> Result<(), Stop> {
        self.until_room(id, "write", || {
            let written = file.len()?.checked_sub(base).filter(|written| *written <= bytes.len());
            let written = written.ok_or_else(|| io::Error::other("somebody else has changed the file"))?;
            file.append_vectored(&bytes.slices(written))
        })
    }

    fn sync_file(&self, id: SegmentId, file: &dyn DiskFile) -> Result<(), Stop> {
        file.sync().map_err(failed(id, "sync"))
    }

    fn sync_dir(&self) -> Result<(), Stop> {
        sync_dir(&self.segments).map_err(Stop::Failed)
    }

    /// Repeat `call` while the disk is full.
    fn until_room<T>(&self, id: SegmentId, doing: &str, mut call: impl FnMut() -> io::Result<T>) -> Result<T, Stop> {
        loop {
            match call() {
                Ok(done) => {
                    self.shared.resume();
                    return Ok(done);
                }
                Err(error) if is_full(&error) => {
                    self.shared.stall(&format!("segment {id}: {doing}"), &error, self.start.retry)?;
                }
                Err(error) => return Err(failed(id, doing)(error)),
            }
        }
    }
}

/// The name of the copy of a segment that is settled.
pub fn temp_name(id: SegmentId) -> String {
    file_name(id) + TEMP
}

/// How such names end.
pub const TEMP: &str = ".tmp";

/// Make the names of segments durable; the error says why they are not.
pub fn sync_dir(segments: &Segments) -> Result<(), String> {
    let dir: &Path = segments.dir();
    segments.disk().sync_dir(dir).map_err(|error| format!("{}: sync: {error}", dir.display()))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn failed(id: SegmentId, doing: &str) -> impl Fn(io::Error) -> Stop {
    let doing = doing.to_owned();
    move |error| Stop::Failed(format!("segment {id}: {doing}: {error}"))
}

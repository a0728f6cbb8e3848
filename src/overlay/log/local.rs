//! A [`DeltaLog`] as files in a directory: `NNNNNNNN.seg`, eight hexadecimal digits.
//!
//! Opening finds the end of the last segment and starts the writer, which settles that segment and
//! creates the next. If there is no space for that, the log opens stalled: it reads, replays and lets
//! segments be removed, and takes writes when there is room.
//!
//! Failure story: a last segment with damage in what was synced, or with an epoch that is not older
//! than ours, is not opened. Dropping a log ends its writer; what was not synced may be lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::format::{GROUP_HEADER, SEGMENT_HEADER, SegmentHeader};
use super::segments::{Segment, Segments, Stage, file_name, parse_name, read_piece};
use super::shared::{End, Order, Shared};
use super::walk::{Head, Walk, damaged, find_tail, read_head, segment_io, visit_records};
use super::writer::{Start, TEMP, Writer, sync_dir};
use super::{Appended, DeltaLog, Health, LogOptions, Lsn, Record, SegmentId, Visit};
use crate::env::{Disk, Env, create_dir_durably};
use crate::error::{Error, ErrorKind, Result};

/// How long a full disk is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// Smallest segment: header, and a group and a seal without anything in them.
const MIN_SEGMENT: u32 = SEGMENT_HEADER + 2 * GROUP_HEADER;

/// The log of a single node.
pub struct LocalLog {
    shared: Arc<Shared>,
    segments: Arc<Segments>,
    /// Until it was waited for.
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl LocalLog {
    /// Open or create the log in directory `dir`. `epoch` is this start's number and grows with every
    /// start; it stands in the segments that this start writes. When this returns and the log's health
    /// is good, everything that a replay shows is on stable storage. One at a time may have a directory
    /// open; its owner sees to that. Blocks.
    pub fn open(env: Env, dir: PathBuf, epoch: u64, options: LogOptions) -> Result<Arc<Self>> {
        Self::open_retrying(env, dir, epoch, options, RETRY)
    }

    pub(in crate::overlay) fn open_retrying(
        env: Env,
        dir: PathBuf,
        epoch: u64,
        options: LogOptions,
        retry: Duration,
    ) -> Result<Arc<Self>> {
        if options.segment_bytes < MIN_SEGMENT {
            let small = options.segment_bytes;
            return Err(Error::invalid(format!("a log segment of {small} bytes, at least {MIN_SEGMENT} are needed")));
        }
        let found = find_segments(&*env.disk, &dir)?;
        let segments = Arc::new(Segments::new(env.disk, dir));
        let Found { last, next, durable } = register(&segments, found, epoch)?;
        let shared = Arc::new(Shared::new(options, next, durable));
        let start = Start { last, next, epoch, retry };
        let writer = Writer::new(shared.clone(), segments.clone(), env.rng, start);
        let cannot = |e| Error::io("the log's writer: cannot start a thread", e);
        let writer = thread::Builder::new().name("log-writer".into()).spawn(|| writer.run()).map_err(cannot)?;
        let log = Arc::new(Self { shared, segments, writer: Mutex::new(Some(writer)) });
        match log.shared.until_ready() {
            Health::Poisoned(why) => Err(Error::new(ErrorKind::Io, format!("the log cannot be opened: {why}"))
                .remedy("check the disk, then start mimeo again")),
            Health::Good | Health::Full(_) => Ok(log),
        }
    }

    fn join(&self) {
        if let Some(writer) = self.writer.lock().take() {
            // A panic of the writer has poisoned the log.
            let _ = writer.join();
        }
    }
}

/// The segments in directory `dir`, which is made if it is not there. What an unfinished start left
/// is removed.
fn find_segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentId>> {
    let failed = |e| Error::io(format!("log in {}", dir.display()), e);
    create_dir_durably(disk, dir).map_err(failed)?;
    let names = disk.list(dir).map_err(failed)?;
    for name in names.iter().filter(|name| name.ends_with(TEMP)) {
        disk.unlink(&dir.join(name)).map_err(failed)?;
    }
    // As many digits for all: the names are sorted as the numbers are.
    Ok(names.iter().filter_map(|name| parse_name(name)).collect())
}

/// Where the log goes on.
struct Found {
    /// The last segment and its end, if it may be torn.
    last: Option<(SegmentId, u32)>,
    next: SegmentId,
    /// Known to be durable whatever became of the last segment.
    durable: Lsn,
}

/// Register the segments of former starts.
fn register(segments: &Segments, mut ids: Vec<SegmentId>, epoch: u64) -> Result<Found> {
    let newest = ids.last().map_or(0, |id| id.0);
    let next = newest.checked_add(1).map(SegmentId).ok_or_else(|| Error::internal("log: no segment number is left"))?;
    let last = match ids.pop() {
        Some(id) => find_end(segments, id, epoch)?.map(|end| (id, end)),
        None => None,
    };
    for id in ids {
        let file = segments.disk().open(&segments.path(id)).map_err(|e| segment_io(id, e))?;
        let bytes = file.len().map_err(|e| segment_io(id, e))?;
        segments.insert(Segment::new(id, Stage::Sealed, bytes));
    }
    if let Some((id, end)) = last {
        segments.insert(Segment::new(id, Stage::Unsettled(end), end.into()));
    }
    let durable = Lsn::new(last.map_or(next, |(id, _)| id), SEGMENT_HEADER);
    Ok(Found { last, next, durable })
}

/// Find the end of the last segment. One whose creation was cut off is removed: nothing was ever in
/// it, and that it was begun shows that the one before was sealed and synced.
fn find_end(segments: &Segments, id: SegmentId, epoch: u64) -> Result<Option<u32>> {
    let (disk, path) = (segments.disk(), segments.path(id));
    let file = disk.open(&path).map_err(|e| segment_io(id, e))?;
    match read_head(id, &*file)? {
        Head::Good(header) => {
            is_older(&header, epoch)?;
            Ok(Some(find_tail(Walk::begin(id, &*file)?)?))
        }
        Head::Bad(flaw) => Err(damaged(id, 0, flaw)),
        Head::Torn => {
            disk.unlink(&path).map_err(|e| segment_io(id, e))?;
            // Now, for behind a later segment the same file would be damage.
            disk.sync_dir(segments.dir()).map_err(|e| segment_io(id, e))?;
            Ok(None)
        }
    }
}

fn is_older(last: &SegmentHeader, epoch: u64) -> Result<()> {
    if epoch > last.epoch {
        return Ok(());
    }
    let (id, theirs) = (last.id, last.epoch);
    Err(Error::new(
        ErrorKind::Conflict,
        format!("log segment {id} was written by start {theirs}, this is start {epoch}"),
    )
    .remedy("the rest of the store is older than its log: restore both from one backup"))
}

impl DeltaLog for LocalLog {
    fn append(&self, record: Record) -> Result<Appended> {
        self.shared.append(record)
    }

    fn end(&self) -> Lsn {
        self.shared.end()
    }

    fn durable(&self) -> Lsn {
        self.shared.durable()
    }

    fn sync(&self, upto: Lsn) -> BoxFuture<'static, Result<()>> {
        self.shared.sync(upto)
    }

    fn room(&self) -> Option<BoxFuture<'static, ()>> {
        self.shared.room()
    }

    fn read(&self, id: SegmentId, offset: u32, len: u32) -> BoxFuture<'static, Result<Bytes>> {
        // In this order: what leaves the buffer is in a registered segment.
        if let Some(piece) = self.shared.piece(id, offset).filter(|piece| piece.len() == len as usize) {
            return std::future::ready(Ok(piece)).boxed();
        }
        let segments = self.segments.clone();
        let segment = match segments.find(id) {
            Ok(segment) => segment,
            Err(error) => return std::future::ready(Err(error)).boxed(),
        };
        let work = move || read_piece(id, &*segments.file(&segment)?, offset, len);
        async move {
            let read = tokio::task::spawn_blocking(work).await;
            read.map_err(|e| Error::new(ErrorKind::Unavailable, "a read of the log was given up").because(e))?
        }
        .boxed()
    }

    fn replay(&self, from: Lsn, visit: Visit<'_>) -> Result<()> {
        let end = self.end();
        if from > end {
            return Err(Error::corrupt(format!("the log ends at {end}, but the store knows it up to {from}"))
                .remedy("segments are missing: restore the store from a backup"));
        }
        // One that nothing was in up to `from` may never have been finished.
        if from.offset() > SEGMENT_HEADER && self.segments.find(from.segment()).is_err() {
            let segment = from.segment();
            return Err(Error::corrupt(format!("log segment {segment} is missing: the store knows it up to {from}"))
                .remedy("restore the store from a backup"));
        }
        for segment in self.segments.from(from.segment()) {
            if segment.stage != Stage::Open {
                visit_segment(&self.segments, &segment, from, visit)?;
            }
        }
        Ok(())
    }

    fn replay_segment(&self, id: SegmentId, visit: Visit<'_>) -> Result<()> {
        let segment = self.segments.find(id)?;
        if segment.stage == Stage::Open {
            return Err(Error::invalid(format!("log segment {id} is not sealed")));
        }
        visit_segment(&self.segments, &segment, Lsn::default(), visit)
    }

    fn segments(&self) -> Vec<(SegmentId, u64)> {
        self.segments.list()
    }

    fn remove(&self, id: SegmentId) -> Result<()> {
        self.segments.remove(id)?;
        self.shared.try_again();
        sync_dir(&self.segments).map_err(|why| {
            self.shared.end_with(End::Poisoned(why.as_str().into()));
            Error::new(ErrorKind::Io, format!("{}: {why}", file_name(id)))
        })
    }

    fn close(&self) -> Result<()> {
        self.shared.order(Order::Close);
        self.join();
        self.shared.outcome()
    }

    fn health(&self) -> Health {
        self.shared.health()
    }
}

fn visit_segment(segments: &Segments, segment: &Segment, from: Lsn, visit: Visit<'_>) -> Result<()> {
    let file = segments.file(segment)?;
    let end = match segment.stage {
        Stage::Unsettled(end) => Some(end),
        Stage::Open | Stage::Sealed => None,
    };
    visit_records(Walk::begin(segment.id, &*file)?, end, from, visit)
}

impl Drop for LocalLog {
    fn drop(&mut self) {
        self.shared.order(Order::Abandon);
        self.join();
    }
}

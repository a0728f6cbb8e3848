//! Where recordings of clones take what clients ask.
//!
//! Owns the list of recordings under way and, for each, a queue. A front end asks [`Tap::is_on`] of every
//! request, which is one relaxed load; only while somebody records does it look further.
//!
//! Invariants: a client never waits for a recording: what does not fit into the queue is counted and left out.
//! At most [`MAX_RECORDINGS`] at a time, each with a queue of [`QUEUE`] operations.
//!
//! Failure story: who drops a [`Listener`] ends its recording; operations under way are then noted nowhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::{ExportId, Object};
use crate::env::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::trace::Op;

/// Recordings at a time.
const MAX_RECORDINGS: usize = 16;
/// Operations that wait for their recorder; a millisecond or two of the fastest clients.
const QUEUE: usize = 16 * 1024;

/// An operation as a front end notes it.
pub type RecordedOp = Op<Object>;

/// Recordings under way.
pub struct Tap {
    on: AtomicBool,
    recordings: ArcSwap<Vec<Arc<Recording>>>,
    /// Held while `recordings` is replaced.
    changes: Mutex<()>,
    clock: Arc<dyn Clock>,
}

/// A recording as a front end sees it.
pub struct Recording {
    export: ExportId,
    /// Of the export, as clients mount it.
    path: Vec<u8>,
    queue: mpsc::Sender<RecordedOp>,
    lost: AtomicU64,
    started: Duration,
    clock: Arc<dyn Clock>,
    /// Somebody wants it to end.
    over: Notify,
}

impl Tap {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { on: AtomicBool::new(false), recordings: ArcSwap::default(), changes: Mutex::new(()), clock })
    }

    /// Whether anybody records.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The recording of an export.
    pub fn of_export(&self, export: ExportId) -> Option<Arc<Recording>> {
        self.recordings.load().iter().find(|recording| recording.export == export).cloned()
    }

    /// The recording of the export that clients mount as `path`.
    pub fn of_path(&self, path: &[u8]) -> Option<Arc<Recording>> {
        self.recordings.load().iter().find(|recording| recording.path == path).cloned()
    }

    /// Begin to record; one recording of an export at a time.
    pub fn listen(self: &Arc<Self>, export: ExportId, path: Vec<u8>) -> Result<Listener> {
        let _changes = self.changes.lock();
        let mut recordings = Vec::clone(&self.recordings.load());
        let name = || format!("recording of {}", String::from_utf8_lossy(&path));
        if recordings.iter().any(|recording| recording.export == export) {
            return Err(Error::new(ErrorKind::Conflict, format!("{}: one is under way", name())).remedy("end it first"));
        }
        if recordings.len() == MAX_RECORDINGS {
            let what = format!("{}: {MAX_RECORDINGS} others are under way", name());
            return Err(Error::new(ErrorKind::Unavailable, what).remedy("end one of them"));
        }
        let (queue, ops) = mpsc::channel(QUEUE);
        let (started, clock, over) = (self.clock.uptime(), self.clock.clone(), Notify::new());
        let recording = Recording { export, path, queue, lost: AtomicU64::new(0), started, clock, over };
        let recording = Arc::new(recording);
        recordings.push(recording.clone());
        self.replace(recordings);
        Ok(Listener { tap: self.clone(), recording, ops })
    }

    /// Ask for the end of the recording of an export, which is there.
    pub fn end(&self, export: ExportId) -> Result<()> {
        let missing = || Error::not_found(format!("recording of clone {}", export.0)).remedy("nobody records it");
        self.of_export(export).map(|recording| recording.over.notify_one()).ok_or_else(missing)
    }

    fn forget(&self, recording: &Arc<Recording>) {
        let _changes = self.changes.lock();
        let mut recordings = Vec::clone(&self.recordings.load());
        recordings.retain(|other| !Arc::ptr_eq(other, recording));
        self.replace(recordings);
    }

    fn replace(&self, recordings: Vec<Arc<Recording>>) {
        let on = !recordings.is_empty();
        self.recordings.store(Arc::new(recordings));
        self.on.store(on, Ordering::Relaxed);
    }
}

impl Recording {
    /// Time since the start of the recording, in microseconds.
    pub fn micros(&self) -> u64 {
        u64::try_from(self.clock.uptime().saturating_sub(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    /// Until somebody asks for its end.
    pub async fn over(&self) {
        self.over.notified().await;
    }

    /// Note an operation, unless the recorder is behind.
    pub fn note(&self, op: RecordedOp) {
        if self.queue.try_send(op).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The recorder's end of a recording.
pub struct Listener {
    tap: Arc<Tap>,
    recording: Arc<Recording>,
    ops: mpsc::Receiver<RecordedOp>,
}

impl Listener {
    /// The next operations, at most `limit`, in the order of their answers; none when it was stopped and all are
    /// taken. Nothing is lost if the future is dropped.
    pub async fn next(&mut self, ops: &mut Vec<RecordedOp>, limit: usize) {
        self.ops.recv_many(ops, limit).await;
    }

    /// Take no more than what is in the queue.
    pub fn stop(&mut self) {
        self.tap.forget(&self.recording);
        self.ops.close();
    }

    /// Operations that there was no room for.
    pub fn lost(&self) -> u64 {
        self.recording.lost.load(Ordering::Relaxed)
    }

    pub fn recording(&self) -> Arc<Recording> {
        self.recording.clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.tap.forget(&self.recording);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::ManualClock;
    use crate::trace::Call;

    fn op(at_micros: u64) -> RecordedOp {
        Op { at_micros, took_micros: 0, uid: 0, gid: 0, status: 0, call: Call::Mount }
    }

    fn tap() -> Arc<Tap> {
        Tap::new(Arc::new(ManualClock::at_secs(1)))
    }

    #[test]
    fn a_tap_is_on_while_somebody_listens_and_finds_his_export_only() {
        let tap = tap();
        assert!(!tap.is_on());
        let one = tap.listen(ExportId(1), b"/clones/a".to_vec()).unwrap();
        let two = tap.listen(ExportId(2), b"/clones/b".to_vec()).unwrap();
        assert!(tap.of_export(ExportId(3)).is_none() && tap.of_path(b"/clones/c").is_none());
        assert_eq!(tap.of_path(b"/clones/b").unwrap().export, ExportId(2));
        let again = tap.listen(ExportId(1), b"/clones/a".to_vec());
        assert_eq!(again.err().map(|e| e.kind()), Some(ErrorKind::Conflict));
        drop(one);
        assert!(tap.is_on() && tap.of_export(ExportId(1)).is_none() && tap.of_export(ExportId(2)).is_some());
        drop(two);
        assert!(!tap.is_on());
    }

    #[test]
    fn recordings_are_bounded() {
        let tap = tap();
        let listen = |n: usize| tap.listen(ExportId(n as u64), vec![]);
        let all: Vec<_> = (0..MAX_RECORDINGS).map(|n| listen(n).unwrap()).collect();
        assert_eq!(listen(MAX_RECORDINGS).err().map(|e| e.kind()), Some(ErrorKind::Unavailable));
        drop(all);
        assert!(listen(MAX_RECORDINGS).is_ok());
    }

    #[tokio::test]
    async fn what_does_not_fit_is_counted_and_what_waits_is_taken_after_the_stop() {
        let tap = tap();
        let mut listener = tap.listen(ExportId(1), vec![]).unwrap();
        let recording = tap.of_export(ExportId(1)).unwrap();
        (0..QUEUE as u64 + 3).for_each(|at| recording.note(op(at)));
        assert_eq!(listener.lost(), 3);
        listener.stop();
        assert!(!tap.is_on());
        recording.note(op(0));
        assert_eq!(listener.lost(), 4, "it came too late");
        let mut ops = Vec::new();
        loop {
            let before = ops.len();
            listener.next(&mut ops, 1000).await;
            if ops.len() == before {
                break;
            }
        }
        assert!(ops.iter().map(|op| op.at_micros).eq(0..QUEUE as u64));
    }
}

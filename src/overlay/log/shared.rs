//! What the callers of a log and its writer share, and how they wait for each other.
//!
//! One lock holds the buffer, the wishes and the health; it is taken for moments, never during I/O.
//! The writer waits on a condition variable, the callers' futures on a watch of [`Progress`], which is
//! sent under the lock, so that it never steps back. Futures hold nothing but their end of the watch.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::buffer::{Buffer, Group};
use super::writer::Stop;
use super::{Appended, Health, LogOptions, Lsn, Record, SegmentId};
use crate::error::{Error, ErrorKind, Result};

/// What is known to all who wait.
#[derive(Clone)]
struct Progress {
    durable: Lsn,
    /// Bytes written since the opening.
    written: u64,
    /// Appends are refused at once, for whatever reason.
    refusing: bool,
    /// Nothing more will become durable, and why.
    ended: Option<End>,
}

/// Why the writer went.
#[derive(Clone)]
pub enum End {
    Closed,
    Full(Arc<str>),
    Poisoned(Arc<str>),
}

impl End {
    /// The answer to those who wait for what will not come.
    fn error(&self) -> Error {
        match self {
            Self::Closed => Error::new(ErrorKind::Unavailable, "the log is closed"),
            Self::Full(why) => {
                Error::new(ErrorKind::NoSpace, format!("the log is closed, not all of it written: {why}"))
            }
            Self::Poisoned(why) => poisoned(why),
        }
    }
}

fn poisoned(why: &str) -> Error {
    Error::new(ErrorKind::ReadOnly, format!("the log takes no writes: {why}"))
        .remedy("check the disk, then restart mimeo")
}

fn full(why: &str) -> Error {
    Error::new(ErrorKind::NoSpace, format!("the log waits for space: {why}"))
        .remedy("free space on its disk; it goes on by itself")
}

/// What the owner wants of the writer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Work,
    /// Write and sync what there is, then go.
    Close,
    /// Go, whatever is left.
    Abandon,
}

struct State {
    buffer: Buffer,
    /// Somebody waits for everything up to there.
    wanted: Lsn,
    order: Order,
    /// The writer got as far as to take writes.
    ready: bool,
    health: Health,
}

/// What the writer does next.
pub struct Round {
    pub groups: Vec<Arc<Group>>,
    /// The owner wants it to be the last one.
    pub last: bool,
}

pub struct Shared {
    options: LogOptions,
    state: Mutex<State>,
    /// Something for the writer, or from the writer to who opens the log.
    changed: Condvar,
    /// Something for a writer that waits for space.
    retry: Condvar,
    progress: watch::Sender<Progress>,
}

impl Shared {
    /// A log that goes on in the new segment `next` and is durable up to `durable`.
    pub fn new(options: LogOptions, next: SegmentId, durable: Lsn) -> Self {
        // A full buffer is written also if nobody waits for a sync: somebody waits for room.
        let options = LogOptions { write_after: options.write_after.min(options.buffer_bytes), ..options };
        let buffer = Buffer::new(next, options.segment_bytes);
        let (order, health) = (Order::Work, Health::Good);
        let state = State { buffer, wanted: Lsn::default(), order, ready: false, health };
        let progress = Progress { durable, written: 0, refusing: false, ended: None };
        let progress = watch::Sender::new(progress);
        Self { options, state: Mutex::new(state), changed: Condvar::new(), retry: Condvar::new(), progress }
    }

    // For the callers.

    pub fn append(&self, record: Record) -> Result<Appended> {
        let mut state = self.state.lock();
        match &state.health {
            Health::Good => {}
            Health::Full(why) => return Err(full(why)),
            Health::Poisoned(why) => return Err(poisoned(why)),
        }
        if state.order != Order::Work {
            return Err(End::Closed.error());
        }
        let appended = state.buffer.append(record)?;
        if state.buffer.unwritten() >= self.options.write_after as u64 {
            self.changed.notify_all();
        }
        Ok(appended)
    }

    pub fn end(&self) -> Lsn {
        self.state.lock().buffer.end()
    }

    pub fn durable(&self) -> Lsn {
        self.progress.borrow().durable
    }

    pub fn health(&self) -> Health {
        self.state.lock().health.clone()
    }

    /// The piece at `offset`, if it is not written yet.
    pub fn piece(&self, segment: SegmentId, offset: u32) -> Option<Bytes> {
        self.state.lock().buffer.piece(segment, offset)
    }

    pub fn sync(&self, upto: Lsn) -> BoxFuture<'static, Result<()>> {
        if let Err(error) = self.want(upto) {
            return std::future::ready(Err(error)).boxed();
        }
        let mut progress = self.progress.subscribe();
        let settled = move |p: &Progress| p.durable >= upto || p.ended.is_some();
        async move {
            // The watch ends without an end only if the log is dropped.
            let progress = progress.wait_for(settled).await.map_err(|_| End::Closed.error())?;
            match &progress.ended {
                Some(end) if progress.durable < upto => Err(end.error()),
                _ => Ok(()),
            }
        }
        .boxed()
    }

    /// Tell the writer that somebody waits for `upto`.
    fn want(&self, upto: Lsn) -> Result<()> {
        let mut state = self.state.lock();
        let end = state.buffer.end();
        if upto > end {
            return Err(Error::internal(format!("log: nothing was appended at {upto}, the end is {end}")));
        }
        if upto > state.wanted {
            state.wanted = upto;
            self.changed.notify_all();
        }
        Ok(())
    }

    pub fn room(&self) -> Option<BoxFuture<'static, ()>> {
        let state = self.state.lock();
        let bound = self.options.buffer_bytes as u64;
        if state.buffer.unwritten() < bound || state.health != Health::Good || state.order != Order::Work {
            return None;
        }
        // There is room when all but a full buffer of what is appended now is written.
        let enough = state.buffer.appended() - bound;
        let mut progress = self.progress.subscribe();
        let has_room = move |p: &Progress| p.written > enough || p.refusing || p.ended.is_some();
        Some(async move { drop(progress.wait_for(has_room).await) }.boxed())
    }

    // For the owner.

    /// Wait until the writer takes writes, or says that it cannot yet or ever.
    pub fn until_ready(&self) -> Health {
        let mut state = self.state.lock();
        while !state.ready && state.health == Health::Good {
            self.changed.wait(&mut state);
        }
        state.health.clone()
    }

    /// Take nothing more, and end the writer. An earlier, more urgent order stays.
    pub fn order(&self, order: Order) {
        let mut state = self.state.lock();
        if state.order != Order::Abandon {
            state.order = order;
        }
        self.progress.send_modify(|p| p.refusing = true);
        self.changed.notify_all();
        self.retry.notify_all();
    }

    /// Ok if everything that was appended is durable.
    pub fn outcome(&self) -> Result<()> {
        let end = self.end();
        let progress = self.progress.borrow();
        match &progress.ended {
            Some(why) if progress.durable < end || matches!(why, End::Poisoned(_)) => Err(why.error()),
            _ => Ok(()),
        }
    }

    /// There may be room on the disk again.
    pub fn try_again(&self) {
        self.retry.notify_all();
    }

    // For the writer.

    /// Everything of former starts is durable, and what comes will be written.
    pub fn ready(&self) {
        self.state.lock().ready = true;
        self.changed.notify_all();
    }

    /// Wait for something to do.
    pub fn next_round(&self) -> Result<Round, Stop> {
        let mut state = self.state.lock();
        loop {
            let last = match state.order {
                Order::Abandon => return Err(Stop::Abandoned),
                Order::Close => true,
                Order::Work => false,
            };
            let due = state.buffer.unwritten() >= self.options.write_after as u64;
            if last || due || state.wanted > self.durable() {
                return Ok(Round { groups: state.buffer.take(), last });
            }
            self.changed.wait(&mut state);
        }
    }

    /// The oldest `groups` of the round are in the file.
    pub fn written(&self, groups: usize) {
        let mut state = self.state.lock();
        // Else nobody waits for room, and who waits for a sync need not wake up for this.
        let crowded = state.buffer.unwritten() >= self.options.buffer_bytes as u64;
        state.buffer.forget(groups);
        let written = state.buffer.written();
        self.progress.send_if_modified(|p| {
            p.written = written;
            crowded
        });
    }

    /// Whether somebody waits for a sync.
    pub fn sync_wanted(&self) -> bool {
        self.state.lock().wanted > self.durable()
    }

    pub fn synced(&self, upto: Lsn) {
        let _state = self.state.lock();
        self.progress.send_modify(|p| p.durable = p.durable.max(upto));
    }

    /// Refuse appends and wait a while, or until something changes. `Err` if nothing will.
    pub fn stall(&self, what: &str, error: &io::Error, at_most: Duration) -> Result<(), Stop> {
        let mut state = self.state.lock();
        match state.order {
            Order::Abandon => return Err(Stop::Abandoned),
            Order::Close => return Err(Stop::Full(format!("{what}: {error}"))),
            Order::Work => {}
        }
        state.health = Health::Full(format!("{what}: {error}"));
        self.progress.send_modify(|p| p.refusing = true);
        self.changed.notify_all();
        self.retry.wait_for(&mut state, at_most);
        Ok(())
    }

    /// There was room.
    pub fn resume(&self) {
        let mut state = self.state.lock();
        if matches!(state.health, Health::Full(_)) {
            state.health = Health::Good;
            let refusing = state.order != Order::Work;
            self.progress.send_modify(|p| p.refusing = refusing);
        }
    }

    /// Nothing more becomes durable. The first reason stays.
    pub fn end_with(&self, end: End) {
        let mut state = self.state.lock();
        if let End::Poisoned(why) = &end {
            state.health = Health::Poisoned(why.to_string());
        }
        state.order = Order::Abandon;
        self.progress.send_modify(|p| {
            p.ended.get_or_insert(end);
        });
        self.changed.notify_all();
        self.retry.notify_all();
    }
}

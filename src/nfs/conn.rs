//! One connection: read, answer, write, all on one task.
//!
//! Owns the connection's buffers and its slow requests. All complete records in the input are run at
//! once; their replies leave together. A request that misses chunks goes aside and is polled here
//! too, so that it ends with its connection, and so does a reply that waits for stable storage.
//! Replies leave in any order: clients match them by xid.
//!
//! Invariants: at most [`MAX_IN_FLIGHT`] slow requests that may hold about [`MAX_SLOW_BYTES`]
//! together, then nothing more is read until one is done, nor while the last waits for room in the budget of all
//! connections. A large record is read on when there is room in theirs, and each must have come in a
//! bounded time. An idle connection holds no buffer.
//!
//! Failure story: whatever ends a connection is told in one log line, thinned out; its client
//! connects again and sends again what was not answered.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::budget::Charge;
use super::dispatch::{self, Core, Held, Origin, Outcome};
use super::drc::{Claim, Presence};
use super::log::Thinned;
use super::record::{BadRecord, MAX_RECORD, RecordBuffer};
use super::reply::Replies;
use crate::vfs::Vfs;

/// Most slow requests of one connection.
pub const MAX_IN_FLIGHT: usize = 128;
/// Bytes that slow requests of one connection may hold before nothing more is read.
pub const MAX_SLOW_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of replies after which other connections of the worker get their turn.
const TURN_BYTES: usize = 512 * 1024;
/// Bytes of calls after which they do: their replies may be short.
const TURN_CALLS: usize = 32 * 1024;

/// Quiet time after which a connection gives its buffers back.
const IDLE: Duration = Duration::from_secs(1);
/// Pause between looks whether the client of a busy connection has closed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longest wait for the client to close after we did.
const LINGER: Duration = Duration::from_secs(1);

static BROKEN: Thinned = Thinned::new();

/// Why a connection was closed by us.
#[derive(Debug)]
enum End {
    Io(io::Error),
    BadRecord(BadRecord),
    NotCall,
    Stalled,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<BadRecord> for End {
    fn from(bad: BadRecord) -> Self {
        Self::BadRecord(bad)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::BadRecord(bad) => write!(f, "{bad}"),
            Self::NotCall => f.write_str("a record that is no RPC call"),
            Self::Stalled => f.write_str("a record that was begun and not finished in time"),
        }
    }
}

/// A slow request's reply and what it weighed.
struct Finished {
    replies: Replies,
    weight: usize,
}

enum Event {
    Finished(Finished),
    Read(io::Result<usize>),
    /// The client closed while nothing was read.
    HungUp,
    /// Others have left room, which is taken.
    Room(Charge),
    Quiet,
    Stop,
}

pub struct Connection<V> {
    core: Arc<Core<V>>,
    origin: Origin,
    presence: Presence,
    stream: TcpStream,
    input: RecordBuffer,
    output: Replies,
    slow: FuturesUnordered<BoxFuture<'static, Finished>>,
    slow_bytes: usize,
    /// For a large record, and for the buffer that it came in.
    input_charge: Option<Charge>,
    /// The last slow request waits for room.
    crowded: bool,
    /// When the record that is coming in must be there; set while it is read.
    deadline: Option<Instant>,
    /// Bytes of calls that were run, and of their replies, since others had their turn.
    turn: (usize, usize),
    /// More may be read: neither end has closed.
    open: bool,
}

impl<V: Vfs> Connection<V> {
    /// From `peer`, at our `port`.
    pub fn new(core: Arc<Core<V>>, peer: SocketAddr, port: u16, stream: TcpStream) -> Self {
        let presence = core.drc.connect(peer);
        let footprint = core.vfs.activity().connect(peer.ip());
        Self {
            core,
            origin: Origin { peer, port, footprint },
            presence,
            stream,
            input: RecordBuffer::new(),
            output: Replies::default(),
            slow: FuturesUnordered::new(),
            slow_bytes: 0,
            input_charge: None,
            crowded: false,
            deadline: None,
            turn: (0, 0),
            open: true,
        }
    }

    /// Serve until the client closes or `stop` changes; then answer what is in flight.
    pub async fn serve(mut self, mut stop: watch::Receiver<bool>) {
        let peer = self.origin.peer;
        match self.run(&mut stop).await {
            Ok(()) => self.linger().await,
            Err(End::Io(error)) => debug!(%peer, %error, "a connection broke"),
            Err(end) => {
                if let Some(count) = BROKEN.count() {
                    warn!(%peer, count, "a connection was closed: {end}");
                }
            }
        }
    }

    async fn run(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), End> {
        loop {
            let answered = self.answer_received();
            let answers = self.output.len();
            self.output.write_to(&self.stream, self.core.memory.as_deref()).await?;
            self.share(answers).await;
            match answered? {
                Progress::OutputFull => {}
                Progress::InputEmpty if !self.open && self.slow.is_empty() => return Ok(()),
                progress => self.wait(progress, stop).await?,
            }
        }
    }

    /// Whoever always has something to do waits here now and then, so that nobody else waits for long.
    async fn share(&mut self, answers: usize) {
        self.turn.0 += self.input.take_consumed();
        self.turn.1 += answers;
        if self.turn.0 >= TURN_CALLS || self.turn.1 >= TURN_BYTES {
            self.turn = (0, 0);
            yield_now().await;
        }
    }

    /// Run every complete record in the input, as far as the bounds let it.
    fn answer_received(&mut self) -> Result<Progress, End> {
        self.origin.footprint.tick(self.core.vfs.uptime());
        loop {
            if self.is_busy() {
                return Ok(Progress::Busy);
            }
            if self.output.is_full() {
                return Ok(Progress::OutputFull);
            }
            let Some(record) = self.input.next_record()? else { return Ok(Progress::InputEmpty) };
            self.deadline = None;
            match dispatch::answer(&self.core, &self.origin, record, &mut self.output) {
                Outcome::Answered => {}
                Outcome::Slow(claim) => {
                    let weight = dispatch::weight(record);
                    self.crowded = !self.core.slow.has_room();
                    let finished = finish(Arc::clone(&self.core), self.origin.clone(), record.into(), claim, weight);
                    self.put_aside(weight, finished.boxed());
                }
                Outcome::Held(held) => {
                    let weight = held.weight();
                    self.put_aside(weight, hold(held, weight).boxed());
                }
                Outcome::NotCall => return Err(End::NotCall),
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.crowded || self.slow.len() >= MAX_IN_FLIGHT || self.slow_bytes >= MAX_SLOW_BYTES
    }

    fn put_aside(&mut self, weight: usize, finished: BoxFuture<'static, Finished>) {
        self.slow_bytes += weight;
        self.slow.push(finished);
    }

    /// Whether more of a record may be read: a large one needs room in the budget, once.
    fn may_grow(&mut self) -> bool {
        if self.input.is_large() && self.input_charge.is_none() {
            self.input_charge = Charge::at_once(&self.core.input, MAX_RECORD);
            return self.input_charge.is_some();
        }
        true
    }

    /// Give the input buffer back, if no record is in progress.
    fn release_input(&mut self) {
        self.input.release();
        if !self.input.in_progress() {
            self.input_charge = None;
        }
    }

    /// Wait until there is something to do, and take it in.
    async fn wait(&mut self, progress: Progress, stop: &mut watch::Receiver<bool>) -> Result<(), End> {
        // A large record that waits is charged as input.
        if !self.crowded && self.input_charge.is_some() && !self.core.input.has_room() {
            self.release_input();
        }
        match self.event(progress, stop).await {
            Event::Finished(finished) => self.take_finished(finished),
            Event::Read(read) => match read? {
                0 => {
                    self.open = false;
                    self.presence.close();
                }
                _ => self.input.filled(),
            },
            Event::HungUp => self.presence.close(),
            Event::Room(charge) => self.input_charge = Some(charge),
            Event::Quiet if self.input.in_progress() => return Err(End::Stalled),
            Event::Quiet => {
                self.release_input();
                self.output.release();
            }
            Event::Stop => self.open = false,
        }
        Ok(())
    }

    async fn event(&mut self, progress: Progress, stop: &mut watch::Receiver<bool>) -> Event {
        let could_read = self.open && progress == Progress::InputEmpty;
        let reading = could_read && self.may_grow();
        let watching = self.open && !reading && !self.presence.is_closed();
        let quiet_at = self.quiet_at(reading);
        let impatient = self.input.in_progress() || self.input.holds_memory() || self.output.holds_memory();
        let Self { core, stream, input, slow, open, .. } = self;
        tokio::select! {
            biased;
            Some(finished) = slow.next(), if !slow.is_empty() => Event::Finished(finished),
            event = read_or_watch(stream, input, reading), if reading || watching => event,
            charge = Charge::in_turn(&core.input, MAX_RECORD), if could_read && !reading => Event::Room(charge),
            _ = stop.changed(), if *open => Event::Stop,
            () = sleep_until(quiet_at), if reading && impatient => Event::Quiet,
        }
    }

    /// Until when nothing may happen: the record that is coming in must be there, or the buffers go.
    fn quiet_at(&mut self, reading: bool) -> Instant {
        let now = Instant::now();
        self.deadline = match self.deadline {
            _ if !reading || !self.input.in_progress() => None,
            None => Some(now + self.core.record_time),
            set => set,
        };
        self.deadline.unwrap_or(now + IDLE)
    }

    /// Queue a finished request's reply, and those of all others that are finished too.
    fn take_finished(&mut self, first: Finished) {
        self.crowded = false;
        let mut next = Some(first);
        while let Some(finished) = next {
            self.slow_bytes -= finished.weight;
            self.output.append(finished.replies);
            next = if self.output.is_full() { None } else { self.slow.next().now_or_never().flatten() };
        }
    }

    /// Close our side and wait shortly for the client's. Closing with bytes unread would reset the
    /// connection, and the client might lose replies that are on their way.
    async fn linger(mut self) {
        let until_closed = async {
            self.stream.shutdown().await?;
            let mut unread = [0; 4096];
            while self.stream.read(&mut unread).await? > 0 {}
            io::Result::Ok(())
        };
        if let Ok(Err(error)) = timeout(LINGER, until_closed).await {
            debug!(peer = %self.origin.peer, %error, "a connection broke while it was closed");
        }
    }
}

/// Read if the input may grow; otherwise see whether the client is still there.
async fn read_or_watch(stream: &mut TcpStream, input: &mut RecordBuffer, reading: bool) -> Event {
    if reading {
        return Event::Read(stream.read_buf(input.room()).await);
    }
    // Data that is not read keeps the stream ready, so there is no event to wait for.
    while stream.ready(Interest::READABLE).await.is_ok_and(|ready| !ready.is_read_closed()) {
        sleep(LOOK_AGAIN).await;
    }
    Event::HungUp
}

/// Why no more records are run now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    InputEmpty,
    /// Replies have to be written first.
    OutputFull,
    /// Slow requests have to finish first.
    Busy,
}

async fn finish<V: Vfs>(
    core: Arc<Core<V>>,
    origin: Origin,
    record: Box<[u8]>,
    claim: Option<Claim>,
    weight: usize,
) -> Finished {
    Finished { replies: dispatch::finish_slow(&core, &origin, &record, claim).await, weight }
}

async fn hold(held: Held, weight: usize) -> Finished {
    Finished { replies: held.finish().await, weight }
}

//! The load generator: many connections, each with a fixed number of calls under way.
//!
//! It must cost less than the server that it measures. The calls are built before the run; sending
//! one means to write its transaction id into place, and calls that are sent together are one slice
//! of one buffer. Of a reply only the header is looked at; a long payload is dropped by the kernel
//! (`MSG_TRUNC`), never copied. Every reply is checked: its transaction, its statuses, a READ's count.
//!
//! The loop is closed: the next call leaves when a reply came, so latencies are those of a system
//! that is kept busy, not of one at a chosen rate.

#![allow(clippy::disallowed_methods, reason = "a bench measures by the clock and waits for processes")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::process;
use super::wire::{FATTR, LAST_FRAGMENT, READ_HEADER, REPLY_HEADER, XID_AT, u32_at};

/// Most calls under way on one connection: a slot's number must fit the low bits of an id.
pub const MAX_DEPTH: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 8;
/// Payloads from this size on are dropped by the kernel.
const LONG_PAYLOAD: u32 = 16 * 1024;
/// A run that is so late is taken for hung.
const GRACE: Duration = Duration::from_secs(60);

/// Calls in the order in which one connection sends them, over and over.
#[derive(Clone, Default)]
pub struct Script {
    bytes: Vec<u8>,
    calls: Vec<ScriptedCall>,
}

#[derive(Clone, Copy)]
struct ScriptedCall {
    start: usize,
    end: usize,
    /// Payload that a READ must bring; 0 for other calls.
    count: u32,
}

impl Script {
    pub fn push(&mut self, call: &[u8], count: u32) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(call);
        self.calls.push(ScriptedCall { start, end: self.bytes.len(), count });
    }
}

/// How hard, and how long.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Calls under way per connection, at most [`MAX_DEPTH`].
    pub depth: usize,
    pub threads: usize,
    pub warm_up: Duration,
    pub measure: Duration,
}

/// What was measured in one run.
pub struct Outcome {
    pub ops: u64,
    pub elapsed: Duration,
    pub server_cpu: Duration,
    pub generator_cpu: Duration,
    /// In nanoseconds.
    pub latency: Histogram<u64>,
}

impl Outcome {
    pub fn ops_per_second(&self) -> f64 {
        self.ops as f64 / self.elapsed.as_secs_f64()
    }

    pub fn server_micros_per_op(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.ops.max(1) as f64
    }

    /// Cores that the server kept busy.
    pub fn server_cores(&self) -> f64 {
        self.server_cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    /// Cores that the generator kept busy.
    pub fn generator_cores(&self) -> f64 {
        self.generator_cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    pub fn micros_at(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }
}

pub const WARMING: u8 = 0;
pub const MEASURING: u8 = 1;
pub const STOPPED: u8 = 2;

/// Load the server at `address`, whose process is `server`, with one connection per script.
pub fn run(address: SocketAddr, server: u32, scripts: &[Script], options: LoadOptions) -> Result<Outcome> {
    ensure!(!scripts.is_empty() && (1..=MAX_DEPTH).contains(&options.depth), "no load: {options:?}");
    let stage = Arc::new(AtomicU8::new(WARMING));
    let threads = options.threads.clamp(1, scripts.len());
    let mut shares: Vec<Vec<Connection>> = (0..threads).map(|_| Vec::new()).collect();
    for (i, script) in scripts.iter().enumerate() {
        shares[i % threads].push(Connection::open(address, script.clone(), options.depth, stage.clone())?);
    }
    let limit = options.warm_up + options.measure + GRACE;
    let workers: Vec<_> = shares.into_iter().map(|share| std::thread::spawn(move || drive(share, limit))).collect();
    let mut outcome = observe(server, &stage, options.warm_up, options.measure)?;
    for worker in workers {
        let tally = worker.join().map_err(|_| anyhow!("a thread of the load generator failed"))??;
        outcome.ops += tally.ops;
        outcome.latency.add(&tally.latency)?;
    }
    ensure!(outcome.ops > 0, "no reply came while the load was measured");
    Ok(outcome)
}

/// Let the load pass through its stages; what the processes spent in the one that counts.
pub fn observe(server: u32, stage: &AtomicU8, warm_up: Duration, measure: Duration) -> Result<Outcome> {
    let own = std::process::id();
    std::thread::sleep(warm_up);
    let before = (process::cpu_time(server)?, process::cpu_time(own)?);
    let start = Instant::now();
    stage.store(MEASURING, Ordering::Relaxed);
    std::thread::sleep(measure);
    stage.store(STOPPED, Ordering::Relaxed);
    let elapsed = start.elapsed();
    let (server_cpu, generator_cpu) = (process::cpu_time(server)? - before.0, process::cpu_time(own)? - before.1);
    Ok(Outcome { ops: 0, elapsed, server_cpu, generator_cpu, latency: new_histogram() })
}

/// One thread: its connections until the load stops.
fn drive(connections: Vec<Connection>, limit: Duration) -> Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let run = |connection: Connection| tokio::spawn(tokio::time::timeout(limit, connection.run()));
        let tasks: Vec<_> = connections.into_iter().map(run).collect();
        let mut sum = Tally::new();
        for task in tasks {
            let tally = task.await?.context("the server stopped answering")??;
            sum.ops += tally.ops;
            sum.latency.add(&tally.latency)?;
        }
        Ok(sum)
    })
}

struct Tally {
    ops: u64,
    latency: Histogram<u64>,
}

impl Tally {
    fn new() -> Self {
        Self { ops: 0, latency: new_histogram() }
    }
}

/// 1 ns to 100 s, to 1 %.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 2).expect("the bounds are in order")
}

/// A call under way.
#[derive(Clone, Copy)]
struct Slot {
    xid: u32,
    sent: Instant,
    count: u32,
}

struct Connection {
    stream: std::net::TcpStream,
    stage: Arc<AtomicU8>,
    script: Script,
    /// The script's next call.
    cursor: usize,
    sequence: u32,
    slots: Vec<Slot>,
    free: Vec<usize>,
    inbox: Inbox,
    tally: Tally,
}

impl Connection {
    fn open(address: SocketAddr, script: Script, depth: usize, stage: Arc<AtomicU8>) -> Result<Self> {
        let stream = std::net::TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let longest = script.calls.iter().map(|call| call.count).max().context("an empty script")?;
        let idle = Slot { xid: 0, sent: Instant::now(), count: 0 };
        Ok(Self {
            stream,
            stage,
            script,
            cursor: 0,
            sequence: 0,
            slots: vec![idle; depth],
            free: (0..depth).collect(),
            inbox: Inbox::new(longest),
            tally: Tally::new(),
        })
    }

    async fn run(mut self) -> Result<Tally> {
        let mut stream = TcpStream::from_std(self.stream.try_clone()?)?;
        loop {
            self.send(&mut stream).await?;
            self.inbox.receive(&mut stream).await?;
            let stage = self.stage.load(Ordering::Relaxed);
            if stage == STOPPED {
                return Ok(self.tally);
            }
            self.settle(stage == MEASURING)?;
        }
    }

    /// Fill the free slots with the script's next calls.
    async fn send(&mut self, stream: &mut TcpStream) -> Result<()> {
        while !self.free.is_empty() {
            let upto = self.script.calls.len().min(self.cursor + self.free.len());
            let range = self.script.calls[self.cursor].start..self.script.calls[upto - 1].end;
            let sent = Instant::now();
            for i in self.cursor..upto {
                let call = self.script.calls[i];
                let slot = self.free.pop().expect("not more calls than free slots");
                self.sequence = self.sequence.wrapping_add(1);
                let xid = self.sequence << SLOT_BITS | slot as u32;
                self.slots[slot] = Slot { xid, sent, count: call.count };
                let at = call.start + XID_AT;
                self.script.bytes[at..at + 4].copy_from_slice(&xid.to_be_bytes());
            }
            self.cursor = upto % self.script.calls.len();
            stream.write_all(&self.script.bytes[range]).await?;
        }
        Ok(())
    }

    /// Account for the replies that are complete.
    fn settle(&mut self, measuring: bool) -> Result<()> {
        let now = Instant::now();
        while let Some(slot) = self.inbox.next_reply(&self.slots)? {
            self.slots[slot].xid = 0;
            self.free.push(slot);
            if measuring {
                self.tally.ops += 1;
                let nanos = (now - self.slots[slot].sent).as_nanos() as u64;
                self.tally.latency.saturating_record(nanos);
            }
        }
        self.inbox.compact();
        Ok(())
    }
}

/// What came in and was not looked at yet.
struct Inbox {
    buffer: Vec<u8>,
    /// Lends its length to the calls that drop bytes; nothing is ever written into it.
    sink: Vec<u8>,
    start: usize,
    end: usize,
    /// The reply that is being received: its slot, and the bytes that are still to come.
    current: Option<(usize, usize)>,
}

impl Inbox {
    /// For payloads of at most `longest` bytes.
    fn new(longest: u32) -> Self {
        let (room, sink) = if longest >= LONG_PAYLOAD { (4 * 1024, longest as usize) } else { (256 * 1024, 0) };
        Self { buffer: vec![0; room], sink: vec![0; sink], start: 0, end: 0, current: None }
    }

    /// Wait for bytes and take them: into the buffer, or nowhere where a long payload is due.
    async fn receive(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let received = match &mut self.current {
            Some((_, rest)) if (self.buffer.len()..=self.sink.len()).contains(rest) => {
                let dropped = discard(stream, &mut self.sink[..*rest]).await?;
                *rest -= dropped;
                dropped
            }
            _ => {
                let read = stream.read(&mut self.buffer[self.end..]).await?;
                self.end += read;
                read
            }
        };
        if received == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// The slot of the next complete reply.
    fn next_reply(&mut self, slots: &[Slot]) -> Result<Option<usize>> {
        if self.current.is_none() {
            let received = &self.buffer[self.start..self.end];
            let Some(mark) = u32_at(received, 0) else { return Ok(None) };
            let len = 4 + (mark & !LAST_FRAGMENT) as usize;
            let looked_at = len.min(READ_HEADER);
            if received.len() < looked_at {
                return Ok(None);
            }
            self.current = Some((check(&received[..looked_at], slots)?, len));
        }
        let Some((slot, rest)) = &mut self.current else { return Ok(None) };
        let here = (*rest).min(self.end - self.start);
        self.start += here;
        *rest -= here;
        let complete = (*rest == 0).then_some(*slot);
        if complete.is_some() {
            self.current = None;
        }
        Ok(complete)
    }

    /// Make room for the next read.
    fn compact(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }
}

/// Drop at most as many bytes of the stream as `sink` is long, without copying them; how many.
async fn discard(stream: &TcpStream, sink: &mut [u8]) -> io::Result<usize> {
    let receive = || Ok(rustix::net::recv(stream, &mut *sink, RecvFlags::TRUNC)?.1);
    stream.async_io(Interest::READABLE, receive).await
}

/// Check a reply's header against the call in its slot; the slot.
fn check(header: &[u8], slots: &[Slot]) -> Result<usize> {
    let word = |at: usize| u32_at(header, at).context("a reply that is cut short");
    let (mark, xid) = (word(0)?, word(XID_AT)?);
    let slot = xid as usize % MAX_DEPTH;
    let call =
        slots.get(slot).filter(|call| call.xid == xid).with_context(|| format!("a reply to no call: {xid:#x}"))?;
    ensure!(mark & LAST_FRAGMENT != 0, "a reply in several fragments");
    ensure!(word(8)? == 1 && word(12)? == 0 && word(20)? == 0 && word(24)? == 0, "a call was not accepted");
    ensure!(word(REPLY_HEADER)? == 0, "a call failed with status {}", word(REPLY_HEADER)?);
    if call.count > 0 {
        let count = word(REPLY_HEADER + 8 + FATTR)?;
        let len = 4 + (mark & !LAST_FRAGMENT) as usize;
        ensure!(word(REPLY_HEADER + 4)? == 1, "a READ without attributes");
        ensure!(
            count == call.count && word(READ_HEADER - 4)? == count,
            "a READ of {count} instead of {} bytes",
            call.count
        );
        ensure!(len == READ_HEADER + count.next_multiple_of(4) as usize, "a READ's reply of {len} bytes");
    }
    Ok(slot)
}

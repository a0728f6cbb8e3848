//! Clients that change something: each is a thread with a connection, and waits for what it was promised
//! before it goes on.
//!
//! The loop is closed. A latency is that of a promise: of one FILE_SYNC write, of one CREATE or REMOVE, or
//! of a burst of UNSTABLE writes and the COMMIT behind it.

#![allow(clippy::disallowed_methods, reason = "a bench measures by the clock and waits for processes")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::load::{MEASURING, Outcome, STOPPED, WARMING, new_histogram, observe};
use super::tree::noise;
use super::wire::{self, Client, Stable};

/// Names that a client makes before it removes them.
const NAMES: usize = 32;

/// What each client does.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Writes of `len` bytes into a file of `file_bytes`.
    Write { len: usize, file_bytes: u64, place: Place, promise: Promise },
    /// Make files in a directory, and remove them.
    Names,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Random,
    Sequential,
}

/// How a client is told that its bytes will last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Each write is FILE_SYNC.
    Each,
    /// So many UNSTABLE writes under way at once, then a COMMIT.
    Burst(usize),
}

/// A server: where it is, and its process.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    pub address: SocketAddr,
    pub pid: u32,
}

/// One client per handle: of a file, or of a directory for [`Work::Names`].
pub fn run(server: Server, handles: &[Vec<u8>], work: Work, seconds: f64) -> Result<Outcome> {
    ensure!(!handles.is_empty(), "no clients");
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let stage = AtomicU8::new(WARMING);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let measure = Duration::from_secs_f64(seconds);
    std::thread::scope(|scope| {
        let stage = &stage;
        let start = |(i, handle): (usize, &Vec<u8>)| {
            let client = Worker::connect(server.address, handle, run, i as u64);
            scope.spawn(move || client?.run(work, stage))
        };
        let workers: Vec<_> = handles.iter().enumerate().map(start).collect();
        let mut outcome = observe(server.pid, stage, measure / 5, measure)?;
        for worker in workers {
            let (ops, latency) = worker.join().map_err(|_| anyhow!("a client failed"))??;
            outcome.ops += ops;
            outcome.latency.add(&latency)?;
        }
        ensure!(outcome.ops > 0, "nothing was promised while the load was measured");
        Ok(outcome)
    })
}

struct Worker {
    client: Client,
    handle: Vec<u8>,
    rng: SmallRng,
    /// The names of another run may still be there.
    run: u64,
    /// Where the next sequential write goes.
    next: u64,
}

impl Worker {
    fn connect(address: SocketAddr, handle: &[u8], run: u64, seed: u64) -> Result<Self> {
        let client = Client::connect(address)?;
        Ok(Self { client, handle: handle.into(), rng: SmallRng::seed_from_u64(seed), run, next: 0 })
    }

    fn run(mut self, work: Work, stage: &AtomicU8) -> Result<(u64, Histogram<u64>)> {
        let (mut ops, mut latency) = (0, new_histogram());
        let mut record = self.record(work);
        let mut round = 0;
        loop {
            let (began, start) = (stage.load(Ordering::Relaxed), Instant::now());
            if began == STOPPED {
                return Ok((ops, latency));
            }
            let done = match work {
                Work::Write { len, file_bytes, place, promise } => {
                    self.write(&mut record, len, file_bytes, place, promise)?
                }
                Work::Names => self.name(round)?,
            };
            round += 1;
            if began == MEASURING && stage.load(Ordering::Relaxed) == MEASURING {
                ops += done;
                latency.saturating_record(start.elapsed().as_nanos() as u64);
            }
        }
    }

    /// The call that is sent over and over, with another offset and other data each time.
    fn record(&self, work: Work) -> Vec<u8> {
        match work {
            Work::Write { len, promise, .. } => {
                let stable = if promise == Promise::Each { Stable::FileSync } else { Stable::Unstable };
                wire::write(&self.handle, 0, stable, &noise(1, len))
            }
            Work::Names => Vec::new(),
        }
    }

    fn write(&mut self, record: &mut [u8], len: usize, file: u64, place: Place, promise: Promise) -> Result<u64> {
        let count = match promise {
            Promise::Each => 1,
            Promise::Burst(count) => count,
        };
        let (data, offset) = wire::write_places(record, len);
        for _ in 0..count {
            let blocks = file / len as u64;
            let block = match place {
                Place::Random => self.rng.random_range(0..blocks),
                Place::Sequential => self.next % blocks,
            };
            self.next += 1;
            record[offset..offset + 8].copy_from_slice(&(block * len as u64).to_be_bytes());
            // No two blocks alike: what is stored must not depend on what can be found twice.
            for piece in record[data..].chunks_mut(4096) {
                piece[..8].copy_from_slice(&self.rng.random::<u64>().to_be_bytes());
            }
            self.client.send(record)?;
        }
        for _ in 0..count {
            self.client.receive()?;
        }
        if promise != Promise::Each {
            self.client.send(&mut wire::commit(&self.handle))?;
            self.client.receive()?;
        }
        Ok(count as u64)
    }

    /// The next CREATE or REMOVE.
    fn name(&mut self, round: usize) -> Result<u64> {
        let (pass, nth) = (round / NAMES, round % NAMES);
        let name = format!("run-{}-{nth}", self.run);
        let mut record =
            if pass.is_multiple_of(2) { wire::create(&self.handle, &name) } else { wire::remove(&self.handle, &name) };
        self.client.send(&mut record)?;
        self.client.receive()?;
        Ok(1)
    }
}

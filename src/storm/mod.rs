//! The storm tool: N clients of an NFSv3 server, each with its export, each with its load.
//!
//! | file | owns |
//! |---|---|
//! | `exports`, `target`, `ramp`, `dice` | who mounts what, where, when; randomness |
//! | `plan`, `mix`, `survey`, `workload` | what a client does: a recorded trace, or a synthetic mix over what an export has |
//! | `schedule` | which step is due when: open and closed loop |
//! | `wire`, `connection`, `client` | calls and replies; TCP; one client's life |
//! | `digests`, `ledger` | what each byte has to be |
//! | `measure`, `disk`, `cpu` | latencies, counts, ticks; what a disk read and a process computed meanwhile |
//! | `report`, `figures`, `plot`, `html` | what came of it, for programs and for people |
//!
//! It works against any server: of the daemon's code it uses only the bounded decoder and record marking, and
//! the format of traces. A client is a task with one connection; thousands of them share a few threads.
//!
//! Invariants: the same seed, settings and server files give the same calls in the same plans; whatever a server
//! sends is bounded before memory is taken for it; a latency counts from when a call should have gone out.
//!
//! Failure story: a client that gets no further ends and is counted, with the reason; the storm goes on. Only a
//! server that cannot be used at all, or settings that make no sense, end it with an error.

mod client;
mod connection;
mod cpu;
mod dice;
mod digests;
mod disk;
mod exports;
mod figures;
mod html;
mod ledger;
mod measure;
mod mix;
mod plan;
mod plot;
mod ramp;
mod report;
mod schedule;
mod survey;
mod target;
#[cfg(test)]
mod tests;
mod wire;
mod workload;

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use self::measure::{Meters, Tally};
use crate::env::{OsRng, Rng as _};
use crate::error::{Error, Result};

pub use self::connection::Sources;
pub use self::cpu::CpuCounter;
pub use self::digests::Digests;
pub use self::disk::DiskCounter;
pub use self::exports::Exports;
pub use self::figures::{figures, grouped, millis};
pub use self::html::page;
pub use self::measure::Tick;
pub use self::mix::{Mix, MixOptions, Mixer};
pub use self::ramp::Ramp;
pub use self::report::{Around, DiskBytes, Facts, Procedure, Report, read_reports};
pub use self::schedule::{Pace, Tempo};
pub use self::survey::Survey;
pub use self::target::Target;
pub use self::wire::Caller;
pub use self::workload::{Load, Workload};

/// Clients of one storm.
pub const MAX_CLIENTS: u32 = 10_000;
/// Calls that one client may have under way.
pub const MAX_WINDOW: usize = 64;
/// How long clients wait after JUKEBOX, as Linux does.
pub const JUKEBOX_PAUSE: Duration = Duration::from_secs(5);
/// Files that a process has open besides its connections.
const OTHER_FILES: u64 = 64;
const TICK: Duration = Duration::from_secs(1);

/// Who asks, how fast, for how long.
#[derive(Clone, Debug)]
pub struct Settings {
    pub exports: Exports,
    pub clients: u32,
    /// The number of the first client's export.
    pub first: u64,
    pub ramp: Ramp,
    pub tempo: Tempo,
    /// The storm ends then, whoever is not done.
    pub duration: Option<Duration>,
    /// How long an answer may take before its call is sent again, and a connection before its client gives up.
    pub timeout: Duration,
    /// After which a call that was answered JUKEBOX goes out again.
    pub jukebox_pause: Duration,
    /// Calls that one client may have under way.
    pub window: usize,
    /// As whom clients mount, and make the calls of a mix.
    pub caller: Caller,
    pub seed: u64,
}

impl Settings {
    fn export_of(&self, client: u32) -> String {
        self.exports.path(self.first + u64::from(client))
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: String, remedy: &str| Err(Error::invalid(what).remedy(remedy));
        if !(1..=MAX_CLIENTS).contains(&self.clients) {
            return refuse(format!("{} clients", self.clients), "a storm has 1 to 10000 clients");
        }
        if !(1..=MAX_WINDOW).contains(&self.window) {
            return refuse(format!("a window of {}", self.window), "a client has 1 to 64 calls under way");
        }
        if self.tempo.pace == Pace::Open && !self.tempo.speed.is_finite() {
            return refuse("an open loop without a pace".to_owned(), "give a --speed, or run a closed loop");
        }
        Ok(())
    }
}

/// What all clients share.
pub struct Storm {
    settings: Settings,
    target: Target,
    workload: Workload,
    sources: Sources,
    meters: Meters,
    /// Transaction ids count from here, another place in each storm: what a server remembers of the one before must
    /// not answer this one.
    first_xid: u32,
    started: Instant,
    stop_at: Option<Instant>,
}

/// What came of a storm, before it is made into a report.
pub struct Outcome {
    pub tally: Tally,
    pub ticks: Vec<Tick>,
    pub elapsed: Duration,
    /// Somebody ended it before its time.
    pub interrupted: bool,
}

/// Let the storm loose, and hand each second of it to `on_tick`. It ends when all clients are done, when its time
/// is up, or when `interrupt` is ready.
pub async fn run(
    settings: Settings,
    target: Target,
    workload: Workload,
    interrupt: impl Future<Output = ()>,
    mut on_tick: impl FnMut(&Tick),
) -> Result<Outcome> {
    settings.check()?;
    allow_connections(settings.clients, target)?;
    let starts = settings.ramp.starts(settings.clients, &mut dice::of(settings.seed, dice::RAMP));
    let started = Instant::now();
    let shards = 4 * std::thread::available_parallelism().map_or(1, usize::from);
    let stop_at = settings.duration.map(|duration| started + duration);
    let (sources, meters) = (Sources::default(), Meters::new(shards));
    let first_xid = chance();
    let storm = Arc::new(Storm { settings, target, workload, sources, meters, first_xid, started, stop_at });
    let mut clients = JoinSet::new();
    for (number, start) in (0..).zip(starts) {
        clients.spawn(client::run(storm.clone(), number, started + start));
    }
    let interrupted = watch(&storm, &mut clients, interrupt, &mut on_tick).await?;
    let elapsed = started.elapsed();
    let storm = Arc::into_inner(storm).ok_or_else(|| Error::internal("a client outlived its storm"))?;
    let (tally, ticks) = storm.meters.finish(elapsed);
    Ok(Outcome { tally, ticks, elapsed, interrupted })
}

/// A number that no seed repeats.
fn chance() -> u32 {
    let mut bytes = [0; 4];
    OsRng.fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

/// Tick until the end; whether that was an interrupt.
async fn watch(
    storm: &Storm,
    clients: &mut JoinSet<()>,
    interrupt: impl Future<Output = ()>,
    on_tick: &mut impl FnMut(&Tick),
) -> Result<bool> {
    let mut ticks = interval_at(storm.started + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(interrupt);
    loop {
        tokio::select! {
            ended = clients.join_next() => match ended {
                None => return Ok(false),
                Some(Ok(())) => {}
                Some(Err(e)) => return Err(Error::internal("a client of the storm").because(e)),
            },
            _ = ticks.tick() => on_tick(&storm.meters.tick(storm.started.elapsed())),
            () = &mut interrupt => {
                clients.shutdown().await;
                return Ok(true);
            }
        }
    }
}

/// One file for each client, two while it mounts elsewhere; and some more.
fn allow_connections(clients: u32, target: Target) -> Result<()> {
    let each = if target.mount == target.nfs { 1 } else { 2 };
    let wanted = each * u64::from(clients) + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let limit = Rlimit { current: Some(maximum.map_or(wanted, |maximum| wanted.min(maximum))), maximum };
    let raised = setrlimit(Resource::Nofile, limit).is_ok() && maximum.is_none_or(|maximum| maximum >= wanted);
    if raised {
        return Ok(());
    }
    let what = format!("{clients} clients need {wanted} open files, more than this process may have");
    Err(Error::invalid(what).remedy(format!("raise the limit (`ulimit -n {wanted}`) or take fewer clients")))
}

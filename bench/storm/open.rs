//! Latencies at a chosen rate: an open loop at 70 % of what a server could take in a closed one.
//!
//! The load is the boot mix on a disk image, whose calls come at random times: a recorded boot that all clients start
//! at once is a sequence of bursts, and shows them rather than the server.

use anyhow::{Result, ensure};
use mimeo::storm::{Procedure, Report as Storm};

use crate::common::null_server::DISK_NAME;
use crate::common::report::{Cell, Table};
use crate::load::Load;
use crate::stage::{Fleet, Kind, Server, Stage};
use crate::storms::{Order, Storms};

/// Of what a server could take.
const PART: f64 = 0.7;
/// From DESIGN section 8: p99 is at most so many times p50.
const TAIL_TARGET: f64 = 5.0;
/// READs and WRITEs of one client of the boot mix in a second.
const RATE: f64 = 17.0;
/// No server here takes more READs and WRITEs in a second: so long are the plans.
const MOST: u32 = 150_000;

/// Under which rate a server is shown.
#[derive(Clone, Copy, PartialEq)]
enum Rate {
    Own,
    /// That of the slowest of those that went before.
    Slowest,
}

struct Bench<'a> {
    stage: &'a Stage,
    storms: &'a Storms,
    clients: u32,
    seconds: u32,
}

/// What a server can take.
struct Capacity {
    calls_per_sec: f64,
    /// Calls of the mix for each READ or WRITE in it.
    calls_per_transfer: f64,
}

pub fn run(stage: &mut Stage, storms: &Storms, load: &Load, clients: u32, seconds: u32) -> Result<Table> {
    let title = format!("Open loop at {PART} of capacity: {clients} clients, boot mix on a disk image, caches warm");
    let mut table = Table::new(title);
    let mut slowest = None;
    // The one whose rate is put to all goes first.
    for kind in stage.kinds().into_iter().rev() {
        let fleet = stage.fresh(kind, load, clients)?;
        let bench = Bench { stage, storms, clients, seconds };
        let server = stage.start(kind)?;
        eprintln!("open loop, {} ...", kind.name());
        bench.closed((&server, &fleet), "warm-up")?;
        let capacity = bench.closed((&server, &fleet), "capacity")?;
        let own = PART * capacity.calls_per_sec;
        let asked = [(Rate::Own, Some(own)), (Rate::Slowest, slowest)];
        for (rate, calls) in asked {
            let Some(calls) = calls else { continue };
            let storm = bench.open((&server, &fleet), &capacity, (rate, calls))?;
            table.row(row(kind, rate, &capacity, calls, &storm));
        }
        slowest = Some(slowest.map_or(own, |slowest: f64| slowest.min(own)));
        server.stop()?;
    }
    Ok(table)
}

impl Bench<'_> {
    fn order<'a>(&'a self, (server, fleet): (&'a Server, &'a Fleet), transfers: u32) -> Order<'a> {
        let (transfers, seconds) = (transfers.clamp(1, 1_000_000).to_string(), self.seconds.to_string());
        let arguments =
            ["--mix", "boot", "--file", DISK_NAME, "--transfers", transfers.as_str(), "--duration", seconds.as_str()];
        Order::new(self.stage, server, fleet, self.clients).with(&arguments)
    }

    fn closed(&self, side: (&Server, &Fleet), what: &str) -> Result<Capacity> {
        let transfers = MOST * self.seconds / self.clients;
        let order = self.order(side, transfers).with(&["--speed", "max"]);
        let storm = self.storms.run(&order, &format!("open-{what}-{}", side.0.kind.key()))?;
        let transfers = calls(&storm, "READ") + calls(&storm, "WRITE");
        ensure!(transfers > 0, "no READ was answered: {:?}", storm.error_examples);
        Ok(Capacity {
            calls_per_sec: storm.operations_per_sec,
            calls_per_transfer: storm.operations as f64 / transfers as f64,
        })
    }

    fn open(&self, side: (&Server, &Fleet), capacity: &Capacity, (rate, calls): (Rate, f64)) -> Result<Storm> {
        let speed = calls / (f64::from(self.clients) * RATE * capacity.calls_per_transfer);
        let transfers = RATE * speed * f64::from(self.seconds) * 1.2 + 20.0;
        let speed = format!("{speed:.4}");
        let order = self.order(side, transfers as u32).with(&["--loop", "open", "--speed", &speed]);
        // Mounting is no part of it, so it is spread.
        let order = order.with(&["--ramp", &format!("poisson:{:.1}", f64::from(self.seconds) / 10.0)]);
        let what = if rate == Rate::Own { "own" } else { "slowest" };
        self.storms.run(&order, &format!("open-{what}-{}", side.0.kind.key()))
    }
}

fn procedure<'a>(storm: &'a Storm, name: &str) -> Option<&'a Procedure> {
    storm.procedures.iter().find(|one| one.procedure == name)
}

fn calls(storm: &Storm, name: &str) -> u64 {
    procedure(storm, name).map_or(0, |one| one.latency.count)
}

fn row(kind: Kind, rate: Rate, capacity: &Capacity, asked: f64, storm: &Storm) -> [(&'static str, Cell); 15] {
    let ms = |micros: u64| Cell::number(micros as f64 / 1e3, 2);
    let all = &storm.latency;
    let ratio = all.p99_micros as f64 / all.p50_micros.max(1) as f64;
    let read = procedure(storm, "READ").map(|one| &one.latency);
    let judged = kind == Kind::Mimeo && rate == Rate::Own;
    let part = |of: Option<f64>, decimals| of.map_or(Cell::none(), |value| Cell::number(value, decimals));
    [
        ("server", Cell::text(kind.name())),
        ("rate", Cell::text(if rate == Rate::Own { "its own" } else { "the slowest one's so far" })),
        ("capacity, calls/s", Cell::count(capacity.calls_per_sec as u64)),
        ("asked, calls/s", Cell::count(asked as u64)),
        ("answered, calls/s", Cell::count(storm.operations_per_sec as u64)),
        ("p50, ms", ms(all.p50_micros)),
        ("p99, ms", ms(all.p99_micros)),
        ("p99.9, ms", ms(all.p999_micros)),
        ("p99 / p50", Cell::number(ratio, 1)),
        ("reach", if judged { Cell::text(format!("<= {TAIL_TARGET}")) } else { Cell::none() }),
        ("reached", if judged { Cell::verdict(ratio <= TAIL_TARGET) } else { Cell::none() }),
        ("READ p50, ms", read.map_or(Cell::none(), |read| ms(read.p50_micros))),
        ("READ p99, ms", read.map_or(Cell::none(), |read| ms(read.p99_micros))),
        ("server busy, cores", part(storm.server_cpu_secs.map(|secs| secs / storm.elapsed_secs), 2)),
        ("generator busy, %", part(storm.generator_busy().map(|busy| busy * 100.0), 0)),
    ]
}

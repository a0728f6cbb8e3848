//! What one greedy client leaves for the polite ones.
//!
//! Polite clients read 4 KiB now and then, in an open loop far below what the server can take, from a small file that
//! is in every cache. A greedy one has many connections and keeps many READs of 1 MiB under way on each. Its process has
//! the lowest priority on the generator's cores, so that it is the server that lets the polite ones wait, and not
//! the generator.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result};
use mimeo::storm::Report as Storm;
use mimeo::trace::{Call, Header, Item, NameVerb, Node, NodeId, Op, Trace, Verb, Writer};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::null_server::DISK_NAME;
use crate::common::report::{Cell, Table};
use crate::common::tree::noise;
use crate::load::Load;
use crate::stage::{Fleet, Kind, Server, Stage, drop_page_cache};
use crate::storms::{Order, Storms};

const MIB: u64 = 1 << 20;
const GREEDY_NAME: &str = "large.img";
/// What the polite ones read.
const POLITE_MIB: usize = 16;
/// The least cache that a daemon may have: the greedy one's file does not fit.
const CACHE: &str = "[cache]\nbytes = 67108864\n";
/// What the greedy one reads again and again where it is to be found in the cache.
const CACHED_MIB: u64 = 16;
/// READs of one greedy connection: more than a server answers meanwhile.
const READS: u64 = 20_000;
/// Processes of the greedy client, each with an order of its own, and the connections of each.
const GREEDY_PROCESSES: u64 = 4;
const GREEDY_CONNECTIONS: u32 = 4;
/// Calls of the polite ones in a second, together.
const POLITE_RATE: f64 = 4000.0;
/// Of one client of the steady mix, when it only reads.
const STEADY_RATE: f64 = 8.0;

#[derive(Clone, Copy, PartialEq)]
enum Greed {
    None,
    Cached,
    Uncached,
}

impl Greed {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cached => "cached",
            Self::Uncached => "uncached",
        }
    }
}

/// `clients` polite ones for `seconds`; the greedy one has a file of `mib`.
pub fn run(
    stage: &mut Stage,
    storms: &Storms,
    scratch: &Path,
    (clients, seconds, mib): (u32, u32, u64),
) -> Result<Table> {
    let load = golden(scratch, mib)?;
    stage.add(&load)?;
    stage.config = CACHE.to_owned();
    let title = format!(
        "Fairness: {clients} polite clients (READ 4 KiB, open loop, {POLITE_RATE} calls/s) beside a greedy one \
         (READ 1 MiB, {} connections, 32 under way on each)",
        GREEDY_PROCESSES * u64::from(GREEDY_CONNECTIONS),
    );
    let mut table = Table::new(title);
    for kind in stage.kinds() {
        let fleet = stage.fresh(kind, &load, clients + 1)?;
        let mut alone = None;
        for greed in [Greed::None, Greed::Cached, Greed::Uncached] {
            eprintln!("fairness, {}, {} ...", kind.name(), greed.name());
            drop_page_cache()?;
            let server = stage.start(kind)?;
            let bench = Bench { stage, storms, scratch, clients, seconds, mib };
            let (polite, greedy) = bench.measure((&server, &fleet), greed)?;
            server.stop()?;
            let p99 = polite.latency.p99_micros;
            let alone = *alone.get_or_insert(p99);
            table.row(row(kind, greed, &polite, &greedy, p99 as f64 / alone.max(1) as f64));
        }
    }
    stage.config.clear();
    Ok(table)
}

/// A folder with a small file for the polite ones and a large one for the greedy one.
fn golden(scratch: &Path, mib: u64) -> Result<Load> {
    let source = scratch.join("fair");
    fs::create_dir(&source)?;
    fs::write(source.join(DISK_NAME), noise(1, POLITE_MIB << 20))?;
    let mut large = File::create(source.join(GREEDY_NAME))?;
    for seed in 0..mib {
        std::io::Write::write_all(&mut large, &noise(2 + seed, MIB as usize))?;
    }
    let trace = PathBuf::new();
    Ok(Load {
        name: "fairness",
        key: "fair",
        null_trace: trace.clone(),
        trace,
        source,
        working_set: 0,
        changed: Vec::new(),
        most_clients: u32::MAX,
    })
}

struct Bench<'a> {
    stage: &'a Stage,
    storms: &'a Storms,
    scratch: &'a Path,
    clients: u32,
    seconds: u32,
    mib: u64,
}

impl Bench<'_> {
    /// The polite ones' report, and those of the greedy one's processes.
    fn measure(&self, (server, fleet): (&Server, &Fleet), greed: Greed) -> Result<(Storm, Vec<Storm>)> {
        let file = format!("fairness-{}-{}", greed.name(), server.kind.key());
        // What the polite ones read is in the caches before.
        self.polite((server, fleet), self.seconds.min(2), &format!("{file}-before"))?;
        let processes = if greed == Greed::None { 0 } else { GREEDY_PROCESSES };
        let children = (0..processes).map(|seed| self.greedy((server, fleet), greed, seed));
        let children = children.collect::<Result<Vec<_>>>()?;
        #[allow(clippy::disallowed_methods, reason = "a bench waits for processes")]
        std::thread::sleep(Duration::from_secs(1));
        let polite = self.polite((server, fleet), self.seconds, &file)?;
        let end = |(i, child): (usize, Child)| {
            kill_process(Pid::from_child(&child), Signal::INT)?;
            self.storms.keep(child.wait_with_output()?, &format!("{file}-greedy-{i}"))
        };
        let greedy = children.into_iter().enumerate().map(end).collect::<Result<_>>()?;
        Ok((polite, greedy))
    }

    fn polite(&self, (server, fleet): (&Server, &Fleet), seconds: u32, file: &str) -> Result<Storm> {
        let speed = POLITE_RATE / (f64::from(self.clients) * STEADY_RATE);
        let (speed, seconds) = (format!("{speed:.4}"), seconds.to_string());
        let arguments = ["--mix", "steady", "--read-percent", "100", "--file", DISK_NAME];
        let order = Order::new(self.stage, server, fleet, self.clients).with(&arguments);
        let order = order.with(&["--loop", "open", "--speed", &speed, "--duration", &seconds, "--ramp", "poisson:1"]);
        self.storms.run(&order, file)
    }

    fn greedy(&self, (server, fleet): (&Server, &Fleet), greed: Greed, seed: u64) -> Result<Child> {
        let trace = self.scratch.join(format!("greedy-{}-{seed}.trace", greed.name()));
        let range = if greed == Greed::Cached { CACHED_MIB.min(self.mib) } else { self.mib };
        write_trace(&trace, range, seed)?;
        // All its connections use one clone, the last.
        let export = fleet.export.replace("{}", &self.clients.to_string());
        let fleet = Fleet { export, made_in: None };
        let mut order = Order::new(self.stage, server, &fleet, GREEDY_CONNECTIONS);
        order = order.with(&["--trace", &trace.display().to_string(), "--speed", "max", "--window", "32"]);
        let child = self.storms.start(&order)?;
        let lower = ["-n", "19", "-p", &child.id().to_string()].map(str::to_owned);
        crate::common::loop_fs::run(std::process::Command::new("renice").args(lower)).context("renice")?;
        Ok(child)
    }
}

/// READs of 1 MiB at random places of the first `range` MiB, all of which may be under way at once.
fn write_trace(to: &Path, range: u64, seed: u64) -> Result<()> {
    let mut writer = Writer::new(File::create(to)?, &Header::default())?;
    writer.item(&Item::Node(Node { parent: Some(NodeId::ROOT), name: GREEDY_NAME.as_bytes().into() }))?;
    let object = NodeId(1);
    let op = |at_micros, call| Item::Op(Op { at_micros, took_micros: READS, uid: 0, gid: 0, status: 0, call });
    let verb = NameVerb::Lookup;
    let found = Call::Name { dir: NodeId::ROOT, name: GREEDY_NAME.as_bytes().into(), verb, object: Some(object) };
    writer.item(&op(0, found))?;
    let mut rng = SmallRng::seed_from_u64(seed);
    for at in 1..READS {
        let offset = rng.random_range(0..range) * MIB;
        let len = MIB as u32;
        writer.item(&op(at, Call::Object { object, verb: Verb::Read { offset, len, got: len } }))?;
    }
    writer.finish(0)?;
    Trace::read("greedy", File::open(to)?)?;
    Ok(())
}

fn row(kind: Kind, greed: Greed, polite: &Storm, greedy: &[Storm], ratio: f64) -> [(&'static str, Cell); 11] {
    let ms = |micros: u64| Cell::number(micros as f64 / 1e3, 2);
    let latency = &polite.latency;
    let taken: f64 = greedy.iter().map(|storm| storm.bytes_read_per_sec / MIB as f64).sum();
    let busy = |storm: &Storm| storm.server_cpu_secs.map(|secs| secs / storm.elapsed_secs);
    let own = polite.generator_cpu_secs.map(|secs| secs / polite.elapsed_secs);
    [
        ("server", Cell::text(kind.name())),
        ("greedy one", Cell::text(greed.name())),
        ("polite, calls/s", Cell::count(polite.operations_per_sec as u64)),
        ("p50, ms", ms(latency.p50_micros)),
        ("p99, ms", ms(latency.p99_micros)),
        ("p99.9, ms", ms(latency.p999_micros)),
        ("max, ms", ms(latency.max_micros)),
        ("p99 / p99 alone", Cell::number(ratio, 1)),
        ("greedy, MiB/s", Cell::count(taken as u64)),
        ("server busy, cores", busy(polite).map_or(Cell::none(), |cores| Cell::number(cores, 2))),
        ("polite generator, cores", own.map_or(Cell::none(), |cores| Cell::number(cores, 2))),
    ]
}

//! READ, GETATTR, LOOKUP, ACCESS and FSSTAT of warm image data, against a null server.
//!
//! A daemon serves some hundred clones of one image. For each operation the same calls (Zipf over
//! clones, files and offsets) go to it and to the null server by turns, several rounds, and the
//! table gives the ratios of rates and of server CPU. Where there are two cores or more, the server
//! and the generator have their own, so that the generator does not slow down the server; a run in
//! which the generator was the slower of both is marked, as its ratio says little.

mod common;

use std::any::Any;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use common::args::CommonArgs;
use common::daemon::Daemon;
use common::farm::Farm;
use common::load::{self, LoadOptions, Outcome, Script};
use common::null_server::{self, NullServer};
use common::process::{self, Cores};
use common::report::{Cell, Report, Spread, Table};
use common::tree::TreeFile;
use common::zipf::Zipf;
use common::{tree, wire};

const SEED: u64 = 0x6d69_6d65_6f01;
/// Calls that a connection repeats.
const SCRIPT_LEN: usize = 1024;
/// How unequal clones, files and offsets are.
const ZIPF_EXPONENT: f64 = 0.99;
/// Files whose handles are looked up in every clone.
const MOST_FILES: usize = 2000;
/// A generator that is busier than this, of what it may use, was the slower side.
const SATURATED: f64 = 0.95;
/// From DESIGN section 8: at least so much of the null server's rate; a READ at most so much of its CPU.
const RATE_TARGET: f64 = 0.8;
const CPU_TARGET: f64 = 1.25;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// A real tree to import instead of a generated one.
    #[arg(long, value_name = "DIR", env = "MIMEO_BENCH_SOURCE")]
    source: Option<PathBuf>,
    #[arg(long, default_value_t = 200)]
    clones: usize,
    /// Files of the generated tree.
    #[arg(long, default_value_t = 2000)]
    files: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[arg(long, value_enum, default_value_t = Cores::Split)]
    cores: Cores,
    /// Put a second null server in the daemon's place: how far from 1 its ratios are is the error of
    /// the method.
    #[arg(long)]
    calibrate: bool,
    /// Only operations whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

/// One operation that is measured.
#[derive(Clone, Copy, Debug)]
enum Op {
    Read(u32),
    GetAttr,
    Lookup,
    Access,
    FsStat,
    /// The calls of a recorded Linux boot that only read, in its proportions.
    Boot,
}

const OPS: [(&str, Op); 8] = [
    ("READ 4 KiB", Op::Read(4 << 10)),
    ("READ 64 KiB", Op::Read(64 << 10)),
    ("READ 1 MiB", Op::Read(1 << 20)),
    ("GETATTR", Op::GetAttr),
    ("LOOKUP", Op::Lookup),
    ("ACCESS", Op::Access),
    ("FSSTAT", Op::FsStat),
    ("boot mix", Op::Boot),
];

/// Calls of the recorded boot: 26 MB by 668 READs makes 32 KiB the nearest usual size.
const BOOT_MIX: [(Op, u32); 5] =
    [(Op::GetAttr, 1492), (Op::Read(32 << 10), 668), (Op::Lookup, 623), (Op::Access, 431), (Op::FsStat, 266)];

impl Op {
    /// (connections, calls under way on each): enough to keep the server busy, little enough that
    /// payloads under way fit the sockets' buffers.
    fn load(self) -> (usize, usize) {
        match self {
            Self::Read(count) if count >= 1 << 20 => (16, 2),
            Self::Read(count) if count >= 1 << 16 => (32, 4),
            Self::Read(_) => (64, 8),
            _ => (64, 16),
        }
    }

    /// What is to be reached, and whether it was; nothing is asked of a mix.
    fn judge(self, rate: Spread, cpu: Spread) -> (String, Option<bool>) {
        let fast = rate.median >= RATE_TARGET;
        match self {
            Self::Read(_) => {
                let reach = format!(">= {RATE_TARGET}, CPU <= {CPU_TARGET}");
                (reach, Some(fast && cpu.median <= CPU_TARGET))
            }
            Self::Boot => ("-".into(), None),
            _ => (format!(">= {RATE_TARGET}"), Some(fast)),
        }
    }

    /// Least length of a file that it can be asked of.
    fn least_size(self) -> u64 {
        match self {
            Self::Read(count) => u64::from(count),
            Self::Boot => BOOT_MIX.iter().map(|(op, _)| op.least_size()).max().unwrap_or(0),
            _ => 0,
        }
    }
}

fn main() -> Result<()> {
    if std::env::args().any(|argument| argument == null_server::FLAG) {
        return null_server::run();
    }
    let mut args = Args::parse();
    if args.common.quick {
        (args.files, args.clones, args.rounds, args.seconds) = (60, 8, 1, 0.2);
    }
    ensure!(args.rounds > 0 && args.clones > 0 && args.files > 0, "nothing to measure");
    // Before this process is held to some of the cores.
    let mut report = Report::new("nfs_ops", args.common.quick);
    let bench = Bench::set_up(&args)?;
    bench.describe(&args, &mut report);
    report.add(bench.measure_all(&args)?);
    args.common.publish(&report)
}

/// A server under load. It ends with the value.
struct Side {
    address: SocketAddr,
    pid: u32,
    _process: Box<dyn Any>,
}

impl Side {
    fn daemon(daemon: Daemon) -> Self {
        Self { address: daemon.address, pid: daemon.pid(), _process: Box::new(daemon) }
    }

    fn null(cores: Option<&str>) -> Result<Self> {
        let null = NullServer::start(cores)?;
        Ok(Self { address: null.address, pid: null.pid(), _process: Box::new(null) })
    }
}

struct Bench {
    farm: Farm,
    ours: Side,
    null: Side,
    cores: Option<(String, String)>,
    generator_cores: usize,
    /// Goes away last.
    _scratch: tempfile::TempDir,
}

impl Bench {
    fn set_up(args: &Args) -> Result<Self> {
        let scratch = args.common.scratch_dir()?;
        let cores = process::core_lists(args.cores);
        let server_cores = cores.as_ref().map(|(server, _)| server.as_str());
        let null = Side::null(server_cores)?;
        let (farm, ours) = if args.calibrate {
            (Farm::made_up(tree::plan(args.files, SEED), args.clones), Side::null(server_cores)?)
        } else {
            let (source, files) = source_of(args, scratch.path())?;
            let daemon = Daemon::start(&scratch.path().join("data"), server_cores)?;
            let farm = Farm::set_up(&daemon, &source, files, args.clones)?;
            farm.warm(&daemon, &source)?;
            (farm, Side::daemon(daemon))
        };
        if let Some((_, generator)) = &cores {
            process::pin_self(generator)?;
        }
        let generator_cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { farm, ours, null, cores, generator_cores, _scratch: scratch })
    }

    fn describe(&self, args: &Args, report: &mut Report) {
        let bytes: u64 = self.farm.files.iter().map(|file| file.size).sum();
        report.fact("image", format!("{} files, {} MiB, all of it read before", self.farm.files.len(), bytes >> 20));
        report.fact("clones", self.farm.clones.len().to_string());
        report.fact("rounds", format!("{} of {} s, ours and null by turns", args.rounds, args.seconds));
        let cores = match &self.cores {
            Some((server, generator)) => format!("server {server}, generator {generator}"),
            None => "shared by server and generator".into(),
        };
        report.fact("cores", cores);
    }

    fn measure_all(&self, args: &Args) -> Result<Table> {
        let mut table = Table::new("Operations against the null server: median (least..greatest) of the rounds");
        for (name, op) in OPS.into_iter().filter(|(name, _)| name.contains(&args.only)) {
            eprintln!("{name} ...");
            let Some(scripts) = self.scripts(op) else {
                eprintln!("{name}: no file is long enough");
                continue;
            };
            let rounds = self.measure(op, &scripts, args)?;
            self.add_row(&mut table, (name, op), &rounds);
        }
        Ok(table)
    }

    /// (ours, null) of each round.
    fn measure(&self, op: Op, scripts: &[Script], args: &Args) -> Result<Vec<(Outcome, Outcome)>> {
        let measure = Duration::from_secs_f64(args.seconds);
        let options = LoadOptions { depth: op.load().1, threads: self.generator_cores, warm_up: measure / 5, measure };
        let round = |_| -> Result<_> {
            let ours = load::run(self.ours.address, self.ours.pid, scripts, options)?;
            let null = load::run(self.null.address, self.null.pid, scripts, options)?;
            Ok((ours, null))
        };
        (0..args.rounds).map(round).collect()
    }

    fn add_row(&self, table: &mut Table, (name, op): (&str, Op), rounds: &[(Outcome, Outcome)]) {
        let over =
            |value: fn(&Outcome, &Outcome) -> f64| Spread::of(rounds.iter().map(|(ours, null)| value(ours, null)));
        let rate = over(|ours, null| ours.ops_per_second() / null.ops_per_second());
        let cpu = over(|ours, null| ours.server_micros_per_op() / null.server_micros_per_op());
        let limit = SATURATED * self.generator_cores as f64;
        let bound = rounds.iter().any(|(ours, null)| {
            [ours, null]
                .into_iter()
                .any(|side| side.generator_cores() > limit && side.generator_cores() > side.server_cores())
        });
        let (reach, reached) = op.judge(rate, cpu);
        let verdict = if bound { Cell::text("generator-bound") } else { reached.map_or(Cell::none(), Cell::verdict) };
        table.row([
            ("operation", Cell::text(name)),
            ("ours, ops/s", Cell::count(over(|ours, _| ours.ops_per_second()).median as u64)),
            ("null, ops/s", Cell::count(over(|_, null| null.ops_per_second()).median as u64)),
            ("ratio", Cell::spread(rate, 2)),
            ("ours, CPU us/op", Cell::number(over(|ours, _| ours.server_micros_per_op()).median, 2)),
            ("null, CPU us/op", Cell::number(over(|_, null| null.server_micros_per_op()).median, 2)),
            ("CPU ratio", Cell::spread(cpu, 2)),
            ("p50, us", Cell::number(over(|ours, _| ours.micros_at(0.5)).median, 0)),
            ("p99, us", Cell::number(over(|ours, _| ours.micros_at(0.99)).median, 0)),
            ("generator, cores", Cell::number(over(|_, null| null.generator_cores()).median, 2)),
            ("reach", Cell::text(reach)),
            ("reached", verdict),
        ]);
    }

    /// One script per connection, or nothing if no file is long enough.
    fn scripts(&self, op: Op) -> Option<Vec<Script>> {
        let mut rng = SmallRng::seed_from_u64(SEED);
        let mut files: Vec<_> =
            (0..self.farm.files.len()).filter(|i| self.farm.files[*i].size >= op.least_size()).collect();
        // The popular ones are of any length.
        files.shuffle(&mut rng);
        let draw = (!files.is_empty()).then(|| Draw {
            clones: Zipf::new(self.farm.clones.len(), ZIPF_EXPONENT),
            ranks: Zipf::new(files.len(), ZIPF_EXPONENT),
            offsets: Zipf::new(SCRIPT_LEN, ZIPF_EXPONENT),
            files,
        })?;
        let script = |_| {
            let mut script = Script::default();
            (0..SCRIPT_LEN).for_each(|_| self.push_call(&mut script, op, &draw, &mut rng));
            script
        };
        Some((0..op.load().0).map(script).collect())
    }

    fn push_call(&self, script: &mut Script, op: Op, draw: &Draw, rng: &mut SmallRng) {
        let clone = &self.farm.clones[draw.clones.draw(rng)];
        let index = draw.files[draw.ranks.draw(rng)];
        let (file, handle) = (&self.farm.files[index], &clone.files[index]);
        match op {
            Op::Read(count) => {
                let places = file.size / u64::from(count);
                let offset = draw.offsets.draw(rng) as u64 % places * u64::from(count);
                script.push(&wire::read(handle, offset, count), count);
            }
            Op::GetAttr => script.push(&wire::getattr(handle), 0),
            Op::Lookup => script.push(&wire::lookup(clone.dir(&file.dir), &file.name), 0),
            Op::Access => script.push(&wire::access(handle), 0),
            Op::FsStat => script.push(&wire::fsstat(clone.dir("")), 0),
            Op::Boot => self.push_call(script, boot_op(rng), draw, rng),
        }
    }
}

/// The folder that is imported, and those of its files that are read.
fn source_of(args: &Args, scratch: &Path) -> Result<(PathBuf, Vec<TreeFile>)> {
    if let Some(source) = &args.source {
        let files = spread_out(tree::scan(source)?);
        ensure!(!files.is_empty(), "{} has no files", source.display());
        return Ok((source.clone(), files));
    }
    let source = scratch.join("source");
    let files = tree::plan(args.files, SEED);
    tree::write(&source, &files)?;
    Ok((source, files))
}

/// Where calls go.
struct Draw {
    clones: Zipf,
    /// Indices of files, the most popular first.
    files: Vec<usize>,
    ranks: Zipf,
    offsets: Zipf,
}

fn boot_op(rng: &mut SmallRng) -> Op {
    let total = BOOT_MIX.iter().map(|(_, weight)| weight).sum();
    let mut point = rng.random_range(0..total);
    for (op, weight) in BOOT_MIX {
        if point < weight {
            return op;
        }
        point -= weight;
    }
    unreachable!("the point is below the sum of the weights")
}

/// At most `MOST_FILES` of them, evenly over the tree; empty ones cannot be read.
fn spread_out(mut files: Vec<TreeFile>) -> Vec<TreeFile> {
    files.retain(|file| file.size > 0);
    let step = files.len().div_ceil(MOST_FILES).max(1);
    files.into_iter().step_by(step).collect()
}

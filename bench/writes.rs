//! Private writes: what a promise costs, beside another NFS server on the same disk.
//!
//! Both servers get the same calls from the same clients, by turns, round after round; a ratio is one of
//! two neighbours in time. Then, of mimeo alone: reads and writes of clones with many snapshots against
//! one with none, and what an idle clone and a written file take of memory.
//!
//! `bench/beside-ganesha` sets the other server up and gives both the same kind of filesystem.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;

use common::args::CommonArgs;
use common::daemon::Daemon;
use common::fsync;
use common::load::{self, LoadOptions, Outcome, Script};
use common::report::{Cell, Report, Spread, Table};
use common::wire::{self, Client, Stable};
use common::writers::{self, Place, Promise, Server, Work};
use common::{process, tree};

const IMAGE: &str = "golden";
const FOUR_KIB: usize = 4096;
const ONE_MIB: usize = 1 << 20;
/// Small writes between two COMMITs, as a client's page cache sends them; and large ones.
const SMALL_BURST: usize = 16;
const LARGE_BURST: usize = 8;
/// From DESIGN section 8.
const WRITE_TARGET: f64 = 1.0;
const SNAPSHOT_TARGET: f64 = 1.10;
const IDLE_TARGET: f64 = 1024.0;
/// Places that are written between two snapshots.
const BETWEEN: u64 = 4;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// The other server, and a directory that it exports: NFS-ADDRESS,MOUNT-ADDRESS,DIR,PID
    #[arg(long, value_name = "ADDR,ADDR,DIR,PID")]
    beside: Option<Beside>,
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 64])]
    clients: Vec<usize>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Of each client's file.
    #[arg(long, default_value_t = 32)]
    file_mib: u64,
    /// Snapshots of one clone.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 5000])]
    snapshots: Vec<usize>,
    /// Clones and files whose memory is measured.
    #[arg(long, default_value_t = 10_000)]
    many: usize,
    /// Only the tables whose name contains this: writes, names, snapshots, memory.
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(Clone)]
struct Beside {
    nfs: std::net::SocketAddr,
    mount: std::net::SocketAddr,
    dir: PathBuf,
    pid: u32,
}

impl FromStr for Beside {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let [nfs, mount, dir, pid] = text.split(',').collect::<Vec<_>>()[..] else {
            return Err(anyhow!("four parts: {text}"));
        };
        Ok(Self { nfs: nfs.parse()?, mount: mount.parse()?, dir: dir.into(), pid: pid.parse()? })
    }
}

/// Makes one table of figures.
type Measure = fn(&Bench, &Args) -> Result<Table>;

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.common.quick {
        args.clients = vec![1, 4];
        (args.rounds, args.seconds, args.file_mib, args.snapshots, args.many) = (1, 0.2, 2, vec![10], 100);
    }
    ensure!(args.rounds > 0 && !args.clients.is_empty(), "nothing to measure");
    let scratch = args.common.scratch_dir()?;
    let mut report = Report::new("writes", args.common.quick);
    let disk = fsync::probe(scratch.path(), if args.common.quick { 20 } else { 500 })?;
    report.fact("sync of 512 appended bytes", format!("p50 {:.2} ms, p99 {:.2} ms", disk.p50, disk.p99));
    report.fact("rounds", format!("{} of {} s, the servers by turns", args.rounds, args.seconds));
    let bench = Bench::set_up(&args, scratch.path())?;
    let tables: [(&str, Measure); 4] = [
        ("writes", Bench::writes),
        ("names", Bench::names),
        ("snapshots", Bench::snapshots),
        ("memory", Bench::memory),
    ];
    for (name, measure) in tables.into_iter().filter(|(name, _)| name.contains(&args.only)) {
        eprintln!("{name} ...");
        report.add(measure(&bench, &args)?);
    }
    bench.daemon.stop()?;
    args.common.publish(&report)
}

/// A server, with a file and a directory for each client.
struct Side {
    server: Server,
    files: Vec<Vec<u8>>,
    dirs: Vec<Vec<u8>>,
}

struct Bench {
    daemon: Daemon,
    ours: Side,
    theirs: Option<Side>,
}

impl Bench {
    fn set_up(args: &Args, scratch: &Path) -> Result<Self> {
        let clients = args.clients.iter().copied().max().context("no clients")?;
        let content = tree::noise(7, (args.file_mib << 20) as usize);
        let source = scratch.join("source");
        fs::create_dir(&source)?;
        fs::write(source.join("disk"), &content)?;
        let daemon = Daemon::start(&scratch.join("data"), None)?;
        daemon.command(&["image", "import", IMAGE, &source.display().to_string()])?;
        daemon.command(&["clone", "create", IMAGE, "--count", &clients.to_string(), "--name", "desk-{:04}"])?;
        let exports: Vec<String> = (0..clients).map(|i| format!("/clones/desk-{i:04}")).collect();
        let server = Server { address: daemon.address, pid: daemon.pid() };
        let ours = Side::look_up(server, daemon.address, &exports)?;
        let theirs = args.beside.as_ref().map(|beside| set_up_beside(beside, clients, &content)).transpose()?;
        Ok(Self { daemon, ours, theirs })
    }

    /// (ours, theirs) of each round, by turns.
    fn measure(&self, clients: usize, of: fn(&Side) -> &[Vec<u8>], work: Work, args: &Args) -> Result<Pairs> {
        let run = |side: &Side| writers::run(side.server, &of(side)[..clients], work, args.seconds);
        let round = |_| Ok((run(&self.ours)?, self.theirs.as_ref().map(run).transpose()?));
        Ok(Pairs { rounds: (0..args.rounds).map(round).collect::<Result<_>>()? })
    }

    fn writes(&self, args: &Args) -> Result<Table> {
        let mut table = Table::new("Writes: median (least..greatest) of the rounds; a latency is that of a promise");
        let file_bytes = args.file_mib << 20;
        for (name, len, place, promise) in [
            ("random 4 KiB, FILE_SYNC", FOUR_KIB, Place::Random, Promise::Each),
            ("random 4 KiB, 16 UNSTABLE + COMMIT", FOUR_KIB, Place::Random, Promise::Burst(SMALL_BURST)),
            ("sequential 1 MiB, FILE_SYNC", ONE_MIB, Place::Sequential, Promise::Each),
            ("sequential 1 MiB, 8 UNSTABLE + COMMIT", ONE_MIB, Place::Sequential, Promise::Burst(LARGE_BURST)),
        ] {
            for &clients in &args.clients {
                let work = Work::Write { len, file_bytes, place, promise };
                let pairs = self.measure(clients, |side| &side.files, work, args)?;
                pairs.add_row(&mut table, name, clients, (len == FOUR_KIB).then_some(WRITE_TARGET));
            }
        }
        Ok(table)
    }

    fn names(&self, args: &Args) -> Result<Table> {
        let mut table = Table::new("CREATE and REMOVE, a directory for each client");
        for &clients in &args.clients {
            let pairs = self.measure(clients, |side| &side.dirs, Work::Names, args)?;
            pairs.add_row(&mut table, "CREATE, REMOVE", clients, None);
        }
        Ok(table)
    }

    /// Clones that were overwritten alike, one without snapshots between the overwrites, the others with.
    fn snapshots(&self, args: &Args) -> Result<Table> {
        let mut table = Table::new("One clone with so many snapshots, against one with none: time per operation");
        let most = args.snapshots.iter().copied().max().unwrap_or(0);
        let plain = self.overwritten("plain", most, 0, args)?;
        for &count in &args.snapshots {
            let with = self.overwritten(&format!("with-{count}"), most, count, args)?;
            for (what, work) in [
                ("READ 4 KiB", None),
                ("WRITE 4 KiB, FILE_SYNC", Some(Promise::Each)),
                ("WRITE 4 KiB, 16 UNSTABLE + COMMIT", Some(Promise::Burst(SMALL_BURST))),
            ] {
                let run = |file: &Vec<u8>| self.one_client(file, work, args);
                let ratio = |_| Ok(run(&plain)?.ops_per_second() / run(&with)?.ops_per_second());
                let cost = Spread::of((0..args.rounds).map(ratio).collect::<Result<Vec<f64>>>()?);
                table.row([
                    ("snapshots", Cell::count(count as u64)),
                    ("operation", Cell::text(what)),
                    ("time against none", Cell::spread(cost, 3)),
                    ("reach", Cell::text(format!("<= {SNAPSHOT_TARGET:.2}"))),
                    ("reached", Cell::verdict(cost.median <= SNAPSHOT_TARGET)),
                ]);
            }
        }
        Ok(table)
    }

    /// The file of a new clone after `rounds` overwrites, with `snapshots` taken evenly between them.
    fn overwritten(&self, name: &str, rounds: usize, snapshots: usize, args: &Args) -> Result<Vec<u8>> {
        self.daemon.command(&["clone", "create", IMAGE, name])?;
        let mut client = Client::connect(self.daemon.address)?;
        let root = client.mount_all(&[format!("/clones/{name}")])?.remove(0);
        let file = client.lookup_all([(root.as_slice(), "disk")].into_iter())?.remove(0);
        let blocks = (args.file_mib << 20) / FOUR_KIB as u64;
        for round in 0..rounds {
            let place = |i| (round as u64 * BETWEEN + i) * 7919 % blocks * FOUR_KIB as u64;
            let data = tree::noise(round as u64, FOUR_KIB);
            let write = |i| wire::write(&file, place(i), Stable::FileSync, &data);
            client.call_all((0..BETWEEN).map(write).collect())?;
            if (round + 1) * snapshots / rounds > round * snapshots / rounds {
                self.daemon.command(&["clone", "snapshot", name, &format!("s{round}")])?;
            }
        }
        Ok(file)
    }

    /// Reads, or writes under a promise, by one client at random places.
    fn one_client(&self, file: &[u8], promise: Option<Promise>, args: &Args) -> Result<Outcome> {
        let file_bytes = args.file_mib << 20;
        let server = self.ours.server;
        if let Some(promise) = promise {
            let work = Work::Write { len: FOUR_KIB, file_bytes, place: Place::Random, promise };
            return writers::run(server, &[file.to_vec()], work, args.seconds);
        }
        let mut script = Script::default();
        let blocks = file_bytes / FOUR_KIB as u64;
        for i in 0..blocks.min(8192) {
            script.push(&wire::read(file, i * 7919 % blocks * FOUR_KIB as u64, FOUR_KIB as u32), FOUR_KIB as u32);
        }
        let measure = std::time::Duration::from_secs_f64(args.seconds);
        let options = LoadOptions { depth: 16, threads: 1, warm_up: measure / 5, measure };
        load::run(server.address, server.pid, &[script], options)
    }

    /// What `args.many` of something add to the daemon's resident memory.
    fn memory(&self, args: &Args) -> Result<Table> {
        let mut table = Table::new("Resident memory");
        let many = args.many;
        let resident = || process::resident_bytes(self.ours.server.pid);
        let before = resident()?;
        self.daemon.command(&["clone", "create", IMAGE, "--count", &many.to_string(), "--name", "idle-{}"])?;
        let per_clone = resident()?.saturating_sub(before) as f64 / many as f64;
        let reach = Some((format!("<= {IDLE_TARGET:.0}"), per_clone <= IDLE_TARGET));
        table.finding(format!("an idle clone, of {many}"), format!("{per_clone:.0} bytes"), reach);
        let mut client = Client::connect(self.daemon.address)?;
        let dir = self.ours.dirs[0].clone();
        let names: Vec<String> = (0..many).map(|i| format!("open-{i}")).collect();
        let before = resident()?;
        client.call_all(names.iter().map(|name| wire::create(&dir, name)).collect())?;
        let files = client.lookup_all(names.iter().map(|name| (dir.as_slice(), name.as_str())))?;
        let data = tree::noise(3, FOUR_KIB);
        client.call_all(files.iter().map(|file| wire::write(file, 0, Stable::FileSync, &data)).collect())?;
        let per_file = resident()?.saturating_sub(before) as f64 / many as f64;
        let what = format!("a file made and written with 4 KiB, of {many}, caches included");
        table.finding(what, format!("{per_file:.0} bytes"), None);
        Ok(table)
    }
}

impl Side {
    /// The file `disk` in each export, and the exports' roots.
    fn look_up(server: Server, mount: std::net::SocketAddr, exports: &[String]) -> Result<Self> {
        let dirs = Client::connect(mount)?.mount_all(exports)?;
        let files = Client::connect(server.address)?.lookup_all(dirs.iter().map(|dir| (dir.as_slice(), "disk")))?;
        Ok(Self { server, files, dirs })
    }
}

/// A folder for each client, with the file that the image has, written and synced.
fn set_up_beside(beside: &Beside, clients: usize, content: &[u8]) -> Result<Side> {
    let mut exports = Vec::new();
    for i in 0..clients {
        let dir = beside.dir.join(format!("desk-{i:04}"));
        fs::create_dir_all(&dir)?;
        let disk = dir.join("disk");
        fs::write(&disk, content)?;
        fs::File::open(&disk)?.sync_all()?;
        exports.push(dir.display().to_string());
    }
    Side::look_up(Server { address: beside.nfs, pid: beside.pid }, beside.mount, &exports)
}

/// What one row is made of.
struct Pairs {
    rounds: Vec<(Outcome, Option<Outcome>)>,
}

impl Pairs {
    fn ours(&self, value: fn(&Outcome) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(|(ours, _)| value(ours)))
    }

    /// `None` where there is no other server.
    fn theirs(&self, value: fn(&Outcome) -> f64) -> Option<Spread> {
        let values: Option<Vec<f64>> = self.rounds.iter().map(|(_, theirs)| theirs.as_ref().map(value)).collect();
        values.map(Spread::of)
    }

    fn ratio(&self) -> Option<Spread> {
        let ratio = |(ours, theirs): &(Outcome, Option<Outcome>)| {
            theirs.as_ref().map(|theirs| ours.ops_per_second() / theirs.ops_per_second())
        };
        self.rounds.iter().map(ratio).collect::<Option<Vec<f64>>>().map(Spread::of)
    }

    fn add_row(&self, table: &mut Table, name: &str, clients: usize, target: Option<f64>) {
        let number = |spread: Option<Spread>, decimals| {
            spread.map_or(Cell::none(), |spread| Cell::number(spread.median, decimals))
        };
        let count = |spread: Option<Spread>| spread.map_or(Cell::none(), |spread| Cell::count(spread.median as u64));
        let p50 = |outcome: &Outcome| outcome.micros_at(0.5);
        let p99 = |outcome: &Outcome| outcome.micros_at(0.99);
        let verdict = target.zip(self.ratio()).map(|(target, ratio)| ratio.median >= target);
        table.row([
            ("operation", Cell::text(name)),
            ("clients", Cell::count(clients as u64)),
            ("ours, ops/s", count(Some(self.ours(Outcome::ops_per_second)))),
            ("theirs, ops/s", count(self.theirs(Outcome::ops_per_second))),
            ("ratio", self.ratio().map_or(Cell::none(), |ratio| Cell::spread(ratio, 2))),
            ("ours, p50 us", number(Some(self.ours(p50)), 0)),
            ("ours, p99 us", number(Some(self.ours(p99)), 0)),
            ("theirs, p50 us", number(self.theirs(p50), 0)),
            ("theirs, p99 us", number(self.theirs(p99), 0)),
            ("ours, CPU us/op", number(Some(self.ours(Outcome::server_micros_per_op)), 1)),
            ("theirs, CPU us/op", number(self.theirs(Outcome::server_micros_per_op), 1)),
            ("reach", target.map_or(Cell::none(), |target| Cell::text(format!(">= {target:.1}")))),
            ("reached", verdict.map_or(Cell::none(), Cell::verdict)),
        ]);
    }
}

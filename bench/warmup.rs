//! The first boot of a clone: from a cold daemon, from one that was warmed, and again.
//!
//! A boot is what a trace read, in its order, one call at a time and without think times: a LOOKUP for each name
//! on the way to a file that is new, then its READs. Without `--trace`, one is made up over a tree of noise: a
//! third of its files, at random, in READs of 64 KiB. Each round starts the daemon anew; as root, the system's
//! page cache is dropped before each cold boot and each warm-up, else the "disk" is memory, and the report says so.

#![allow(clippy::disallowed_methods, reason = "a bench measures by the clock")]

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use mimeo::trace::{Call, Header, Item, Node, NodeId, Op, Trace, Verb, Writer};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use common::args::CommonArgs;
use common::daemon::Daemon;
use common::report::{Cell, Report, Spread, Table};
use common::tree::{self, TreeFile};
use common::wire::{Client, read, read_payload};

const IMAGE: &str = "golden";
const EXPORT: &str = "/clones/desk";
const SEED: u64 = 5;
/// Of a boot that is made up.
const READ: u64 = 64 * 1024;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// A recorded boot; then also give the tree that it was recorded on
    #[arg(long, requires = "source")]
    trace: Option<PathBuf>,
    #[arg(long, requires = "trace")]
    source: Option<PathBuf>,
    /// Files of the tree that is made up
    #[arg(long, default_value_t = 3000)]
    files: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// One READ.
struct Step {
    path: String,
    offset: u64,
    len: u32,
}

/// What a boot took: its time, and what the daemon read from disk meanwhile.
struct Boot {
    secs: f64,
    bytes_loaded: u64,
}

#[derive(Default)]
struct Figures {
    cold: Vec<Boot>,
    warmed: Vec<Boot>,
    again: Vec<Boot>,
    warm_up: Vec<f64>,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.common.quick {
        (args.files, args.rounds) = (30, 2);
    }
    let scratch = args.common.scratch_dir()?;
    let (source, file) = workload(&args, scratch.path())?;
    let trace = Trace::read(&file.display().to_string(), fs::File::open(&file)?)?;
    let boot = steps(&trace);
    let data = scratch.path().join("data");
    let daemon = Daemon::start(&data, None)?;
    daemon.command(&["image", "import", IMAGE, source.to_str().context("a source in UTF-8")?])?;
    daemon.command(&["clone", "create", IMAGE, "desk"])?;
    daemon.stop()?;
    let mut figures = Figures::default();
    for _ in 0..args.rounds {
        round(&data, &file, &boot, &mut figures)?;
    }
    args.common.publish(&report(&args, &boot, &figures))
}

/// The tree and the trace over it.
fn workload(args: &Args, scratch: &Path) -> Result<(PathBuf, PathBuf)> {
    if let (Some(trace), Some(source)) = (&args.trace, &args.source) {
        return Ok((source.clone(), trace.clone()));
    }
    let (source, file) = (scratch.join("tree"), scratch.join("boot.trace"));
    let files = tree::plan(args.files, SEED);
    tree::write(&source, &files)?;
    make_up(&files, &file)?;
    Ok((source, file))
}

/// A trace that reads a third of the files.
fn make_up(files: &[TreeFile], to: &Path) -> Result<()> {
    let mut rng = SmallRng::seed_from_u64(SEED);
    let mut chosen: Vec<&TreeFile> = files.iter().filter(|_| rng.random_ratio(1, 3)).collect();
    chosen.shuffle(&mut rng);
    let mut writer = Writer::new(fs::File::create(to)?, &Header::default())?;
    let (mut dirs, mut nodes, mut at_micros) = (HashMap::new(), 0, 0);
    let mut node = |writer: &mut Writer<fs::File>, parent, name: &str| {
        writer.item(&Item::Node(Node { parent: Some(parent), name: name.as_bytes().into() }))?;
        nodes += 1;
        anyhow::Ok(NodeId(nodes))
    };
    for file in chosen {
        let dir = match dirs.get(&file.dir) {
            Some(dir) => *dir,
            None => node(&mut writer, NodeId::ROOT, &file.dir)?,
        };
        dirs.insert(&file.dir, dir);
        let object = node(&mut writer, dir, &file.name)?;
        for offset in (0..file.size).step_by(READ as usize) {
            let got = u32::try_from(READ.min(file.size - offset))?;
            let call = Call::Object { object, verb: Verb::Read { offset, len: READ as u32, got } };
            writer.item(&Item::Op(Op { at_micros, took_micros: 0, uid: 0, gid: 0, status: 0, call }))?;
            at_micros += 1;
        }
    }
    writer.finish(0)?;
    Ok(())
}

/// The READs of a trace that can be found by path.
fn steps(trace: &Trace) -> Vec<Step> {
    let step = |op: &Op| match op.call {
        Call::Object { object, verb: Verb::Read { offset, len, got } } if got > 0 => {
            Some(Step { path: String::from_utf8(trace.path(object)?).ok()?, offset, len })
        }
        _ => None,
    };
    trace.ops().iter().filter_map(step).collect()
}

fn round(data: &Path, trace: &Path, boot: &[Step], figures: &mut Figures) -> Result<()> {
    drop_caches();
    let daemon = Daemon::start(data, None)?;
    figures.cold.push(run(&daemon, boot)?);
    figures.again.push(run(&daemon, boot)?);
    daemon.stop()?;
    drop_caches();
    let daemon = Daemon::start(data, None)?;
    let begin = Instant::now();
    let version = format!("{IMAGE}@v1");
    daemon.command(&["warm", &version, "--trace", trace.to_str().context("a path in UTF-8")?])?;
    figures.warm_up.push(begin.elapsed().as_secs_f64());
    let warmed = run(&daemon, boot)?;
    ensure!(warmed.bytes_loaded == 0, "a warmed boot read {} bytes from disk", warmed.bytes_loaded);
    figures.warmed.push(warmed);
    daemon.stop()
}

/// Let the next reads come from the disk; needs root.
fn drop_caches() {
    if fs::write("/proc/sys/vm/drop_caches", "3").is_err() {
        eprintln!("warmup: cannot drop the page cache: cold means a cold daemon only");
    }
}

fn run(daemon: &Daemon, boot: &[Step]) -> Result<Boot> {
    let before = loaded(daemon)?;
    let begin = Instant::now();
    let mut client = Client::connect(daemon.address)?;
    let root = client.mount_all(&[EXPORT.into()])?.remove(0);
    let mut handles = HashMap::from([(String::new(), root)]);
    for step in boot {
        let handle = resolve(&mut client, &mut handles, &step.path)?;
        let reply = client.call_all(vec![read(&handle, step.offset, step.len)])?.remove(0);
        ensure!(!read_payload(&reply)?.is_empty(), "{} is empty at {}", step.path, step.offset);
    }
    Ok(Boot { secs: begin.elapsed().as_secs_f64(), bytes_loaded: loaded(daemon)? - before })
}

fn resolve(client: &mut Client, handles: &mut HashMap<String, Vec<u8>>, path: &str) -> Result<Vec<u8>> {
    if let Some(handle) = handles.get(path) {
        return Ok(handle.clone());
    }
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let dir = resolve(client, handles, dir)?;
    let handle = client.lookup_all([(&*dir, name)].into_iter())?.remove(0);
    handles.insert(path.into(), handle.clone());
    Ok(handle)
}

fn loaded(daemon: &Daemon) -> Result<u64> {
    daemon.command(&["df"])?["bytes_cache_loaded"].as_u64().context("no bytes_cache_loaded in df")
}

fn report(args: &Args, boot: &[Step], figures: &Figures) -> Report {
    let mut report = Report::new("warmup", args.common.quick);
    let bytes: u64 = boot.iter().map(|step| u64::from(step.len)).sum();
    report.fact("boot", format!("{} READs, of {} MiB at most", boot.len(), bytes >> 20));
    let mut table = Table::new("one client, one call at a time; median (least..greatest)");
    let ms = |secs: Vec<f64>| Cell::spread(Spread::of(secs.into_iter().map(|secs| secs * 1e3)), 1);
    for (what, boots) in [("cold", &figures.cold), ("warmed", &figures.warmed), ("again", &figures.again)] {
        let mib = boots.iter().map(|boot| boot.bytes_loaded as f64 / f64::from(1 << 20));
        table.row([
            ("boot", Cell::text(what)),
            ("ms", ms(boots.iter().map(|boot| boot.secs).collect())),
            ("MiB from disk", Cell::spread(Spread::of(mib), 1)),
        ]);
    }
    let none = Cell::none();
    table.row([("boot", Cell::text("mimeo warm")), ("ms", ms(figures.warm_up.clone())), ("MiB from disk", none)]);
    report.add(table);
    report
}

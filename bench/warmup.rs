//! The first boot of a clone: from a cold daemon with and without read-ahead, from one that was warmed, and again;
//! with packs as an import lays them out by itself, and in the order of the trace. Then one large file, read from
//! front to back and at random.
//!
//! A boot is what a trace read, in its order, one call at a time and without think times: a LOOKUP for each name
//! on the way to a file that is new, then its READs. Without `--trace`, one is made up over a tree of noise: a
//! third of its files, at random, in READs of 64 KiB. Each boot starts the daemon anew; as root, the system's
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
const FLAT: &str = "/clones/flat";
const LARGE: &str = "large.bin";
const SEED: u64 = 5;
const NO_READ_AHEAD: &str = "[cache]\nread_ahead_bytes = 0\n";
/// READs at random places of the large file.
const RANDOM_READS: u64 = 1000;
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
    /// MiB of the large file
    #[arg(long, default_value_t = 256)]
    large: u64,
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
    bytes_asked: u64,
}

/// A data directory with the image in it.
struct Store {
    data: PathBuf,
    layout: &'static str,
}

/// Boots and reads by what they were, in the order of the report.
#[derive(Default)]
struct Figures {
    boots: Vec<(String, Vec<Boot>)>,
    warm_up: Vec<f64>,
    plain: Vec<(String, Vec<Boot>)>,
}

fn note(rows: &mut Vec<(String, Vec<Boot>)>, what: String, boot: Boot) {
    match rows.iter_mut().find(|(row, _)| *row == what) {
        Some((_, boots)) => boots.push(boot),
        None => rows.push((what, vec![boot])),
    }
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.common.quick {
        (args.files, args.rounds, args.large) = (30, 2, 8);
    }
    let scratch = args.common.scratch_dir()?;
    let (source, file) = workload(&args, scratch.path())?;
    let trace = Trace::read(&file.display().to_string(), fs::File::open(&file)?)?;
    let boot = steps(&trace);
    let utf8 = |path: &Path| path.to_str().map(String::from).context("a path in UTF-8");
    let (source, file) = (utf8(&source)?, utf8(&file)?);
    let store = |layout| Store { data: scratch.path().join(layout), layout };
    let stores = [store("imported"), store("laid-out")];
    import(&stores[0], &["image", "import", IMAGE, &source])?;
    import(&stores[1], &["image", "import", IMAGE, &source, "--layout", &file])?;
    let mut figures = Figures::default();
    for _ in 0..args.rounds {
        for store in &stores {
            cold(store, &boot, &mut figures)?;
        }
        warm(&stores[0], &file, &boot, &mut figures)?;
    }
    plain(&args, scratch.path(), &mut figures)?;
    args.common.publish(&report(&args, &boot, &figures))
}

fn import(store: &Store, command: &[&str]) -> Result<()> {
    let daemon = Daemon::start(&store.data, None)?;
    daemon.command(command)?;
    daemon.command(&["clone", "create", IMAGE, "desk"])?;
    daemon.stop()
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

/// A cold boot without read-ahead, and one with it.
fn cold(store: &Store, boot: &[Step], figures: &mut Figures) -> Result<()> {
    for (read_ahead, sections) in [("no read-ahead", NO_READ_AHEAD), ("read-ahead", "")] {
        drop_caches();
        let daemon = Daemon::start_with(&store.data, None, sections)?;
        note(&mut figures.boots, format!("cold, {}, {read_ahead}", store.layout), run(&daemon, boot)?);
        daemon.stop()?;
    }
    Ok(())
}

fn warm(store: &Store, trace: &str, boot: &[Step], figures: &mut Figures) -> Result<()> {
    drop_caches();
    let daemon = Daemon::start(&store.data, None)?;
    let begin = Instant::now();
    daemon.command(&["warm", &format!("{IMAGE}@v1"), "--trace", trace])?;
    figures.warm_up.push(begin.elapsed().as_secs_f64());
    let warmed = run(&daemon, boot)?;
    ensure!(warmed.bytes_loaded == 0, "a warmed boot read {} bytes from disk", warmed.bytes_loaded);
    note(&mut figures.boots, "warmed".into(), warmed);
    note(&mut figures.boots, "again".into(), run(&daemon, boot)?);
    daemon.stop()
}

/// A large file of noise, from front to back and at random.
fn plain(args: &Args, scratch: &Path, figures: &mut Figures) -> Result<()> {
    let (source, data, size) = (scratch.join("flat"), scratch.join("flat-data"), args.large << 20);
    fs::create_dir_all(&source)?;
    fs::write(source.join(LARGE), tree::noise(SEED, usize::try_from(size)?))?;
    let daemon = Daemon::start(&data, None)?;
    daemon.command(&["image", "import", "flat", source.to_str().context("a path in UTF-8")?])?;
    daemon.command(&["clone", "create", "flat", "flat"])?;
    daemon.stop()?;
    let mut rng = SmallRng::seed_from_u64(SEED);
    let random: Vec<u64> = (0..RANDOM_READS).map(|_| rng.random_range(0..size / READ) * READ).collect();
    let in_order = |len: u64| (0..size).step_by(len as usize).collect::<Vec<_>>();
    let works = [("in order, 64 KiB", in_order(READ), READ), ("in order, 1 MiB", in_order(1 << 20), 1 << 20)];
    let works = works.into_iter().chain([("at random, 64 KiB", random, READ)]);
    for (what, offsets, len) in works {
        for _ in 0..args.rounds {
            for (read_ahead, sections) in [("no read-ahead", NO_READ_AHEAD), ("read-ahead", "")] {
                drop_caches();
                let daemon = Daemon::start_with(&data, None, sections)?;
                let read = read_large(&daemon, &offsets, u32::try_from(len)?)?;
                note(&mut figures.plain, format!("{what}, {read_ahead}"), read);
                daemon.stop()?;
            }
        }
    }
    Ok(())
}

fn read_large(daemon: &Daemon, offsets: &[u64], len: u32) -> Result<Boot> {
    let mut client = Client::connect(daemon.address)?;
    let root = client.mount_all(&[FLAT.into()])?.remove(0);
    let handle = client.lookup_all([(&*root, LARGE)].into_iter())?.remove(0);
    let before = loaded(daemon)?;
    let begin = Instant::now();
    for offset in offsets {
        let reply = client.call_all(vec![read(&handle, *offset, len)])?.remove(0);
        ensure!(read_payload(&reply)?.len() == len as usize, "{LARGE} is short at {offset}");
    }
    let bytes_asked = offsets.len() as u64 * u64::from(len);
    Ok(Boot { secs: begin.elapsed().as_secs_f64(), bytes_loaded: loaded(daemon)? - before, bytes_asked })
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
    let bytes_asked = boot.iter().map(|step| u64::from(step.len)).sum();
    Ok(Boot { secs: begin.elapsed().as_secs_f64(), bytes_loaded: loaded(daemon)? - before, bytes_asked })
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
    report.fact("large file", format!("{} MiB; at random: {RANDOM_READS} READs", args.large));
    report.add(boots(figures));
    report.add(plain_reads(figures));
    report
}

fn mib(boots: &[Boot]) -> Cell {
    Cell::spread(Spread::of(boots.iter().map(|boot| boot.bytes_loaded as f64 / f64::from(1 << 20))), 1)
}

fn boots(figures: &Figures) -> Table {
    let mut table = Table::new("one client, one call at a time; median (least..greatest)");
    let ms = |secs: &mut dyn Iterator<Item = f64>| Cell::spread(Spread::of(secs.map(|secs| secs * 1e3)), 1);
    // Without read-ahead each chunk that is touched is read, once, and no other.
    let touched = figures.boots.first().and_then(|(_, boots)| boots.first()).map_or(0, |boot| boot.bytes_loaded);
    for (what, boots) in &figures.boots {
        let ratio = boots.iter().map(|boot| boot.bytes_loaded as f64 / touched as f64);
        table.row([
            ("boot", Cell::text(what)),
            ("ms", ms(&mut boots.iter().map(|boot| boot.secs))),
            ("MiB from disk", mib(boots)),
            ("of what is touched", Cell::spread(Spread::of(ratio), 3)),
        ]);
    }
    table.row([
        ("boot", Cell::text("mimeo warm")),
        ("ms", ms(&mut figures.warm_up.iter().copied())),
        ("MiB from disk", Cell::none()),
        ("of what is touched", Cell::none()),
    ]);
    table
}

fn plain_reads(figures: &Figures) -> Table {
    let mut table = Table::new("a large file, one call at a time; median (least..greatest)");
    for (what, reads) in &figures.plain {
        let rate = reads.iter().map(|read| read.bytes_asked as f64 / f64::from(1 << 20) / read.secs);
        let ratio = reads.iter().map(|read| read.bytes_loaded as f64 / read.bytes_asked as f64);
        table.row([
            ("READs", Cell::text(what)),
            ("MiB/s", Cell::spread(Spread::of(rate), 1)),
            ("MiB from disk", mib(reads)),
            ("of what was asked for", Cell::spread(Spread::of(ratio), 3)),
        ]);
    }
    table
}

//! Import of a real tree against the stages that it is made of, and what a re-import stores.
//!
//! The bound of an import is its slowest stage alone: reading the source, the CPU work (cutting,
//! hashing, compressing, on all threads), or writing and syncing what is stored. All are measured in
//! the same run; the CPU work and the writing on a part of the tree, scaled to all of it. The source
//! is dropped from the page cache before it is read and before it is imported.

mod common;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use mimeo::chunk::ChunkId;
use mimeo::chunk::cutter::{Cutting, SECTION, cut};
use rustix::fs::{Advice, fadvise};
use serde_json::Value;

use common::args::CommonArgs;
use common::daemon::Daemon;
use common::report::{Report, Table};
use common::tree::{self, DISK_BLOCK, Touch, TreeFile};

/// From DESIGN section 8: of the slowest stage's rate; stored bytes over changed bytes.
const RATE_TARGET: f64 = 0.7;
const STORED_TARGET: f64 = 1.1;
/// As in `config/default.toml`.
const ZSTD_LEVEL: i32 = 3;
const PACK_BYTES: usize = 64 << 20;
/// One file of the patched tree in so many is changed.
const PATCH_EVERY: usize = 20;
const MIB: f64 = (1 << 20) as f64;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// The tree whose import is timed.
    #[arg(long, value_name = "DIR", env = "MIMEO_BENCH_SOURCE", default_value = "/usr")]
    source: PathBuf,
    /// Most MiB of it on which the CPU stages are measured.
    #[arg(long, default_value_t = 1024)]
    sample_mib: u64,
    /// Files of the generated tree that is patched.
    #[arg(long, default_value_t = 2000)]
    files: usize,
    /// MiB of the disk image that is patched.
    #[arg(long, default_value_t = 1024)]
    disk_mib: u64,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    let scratch = args.common.scratch_dir()?;
    if args.common.quick {
        (args.files, args.disk_mib, args.sample_mib) = (60, 64, 16);
        args.source = scratch.path().join("quick");
        tree::write(&args.source, &tree::plan(60, 2))?;
    }
    let daemon = Daemon::start(&scratch.path().join("data"), None)?;
    let mut report = Report::new("import", args.common.quick);
    throughput(&args, &daemon, scratch.path(), &mut report)?;
    let mut stored = Table::new("What a re-import stores: bytes that do not compress");
    patched_tree(&args, &daemon, scratch.path(), &mut stored)?;
    for touch in [Touch::Scattered, Touch::Clustered] {
        patched_disk(&args, &daemon, scratch.path(), touch, &mut stored)?;
    }
    report.add(stored);
    daemon.stop()?;
    args.common.publish(&report)
}

fn import(daemon: &Daemon, image: &str, source: &Path) -> Result<Value> {
    daemon.command(&["image", "import", image, &source.display().to_string()])
}

fn number(document: &Value, field: &str) -> Result<u64> {
    document[field].as_u64().with_context(|| format!("an import tells no {field}"))
}

/// Time an import, and each of its stages by itself.
fn throughput(args: &Args, daemon: &Daemon, scratch: &Path, report: &mut Report) -> Result<()> {
    let files = tree::scan(&args.source)?;
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    ensure!(bytes > 0, "{} has no bytes", args.source.display());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    report.fact("source", format!("{}: {} files, {} MiB", args.source.display(), files.len(), bytes >> 20));
    drop_from_page_cache(&args.source, &files);
    let read = read_all(&args.source, &files, threads)?;
    let stages = measure_stages(&args.source, &files, args.sample_mib << 20)?;
    let cpu = stages.cpu().mul_f64(bytes as f64 / stages.bytes as f64 / threads as f64);
    let to_write = (stages.stored as f64 * bytes as f64 / stages.bytes as f64) as u64;
    let write = write_packs(scratch, to_write)?;
    drop_from_page_cache(&args.source, &files);
    let begin = Instant::now();
    let done = import(daemon, "throughput", &args.source)?;
    let whole = begin.elapsed();
    ensure!(number(&done, "bytes_added")? > 0, "the import stored nothing");
    let rate = |time: Duration| format!("{:.0} MiB/s", bytes as f64 / MIB / time.as_secs_f64());
    let mut table = Table::new("Import: MiB of the source per second, of each stage alone and of all together");
    table.finding(format!("read the source, {threads} threads"), rate(read), None);
    let shares = [stages.cut, stages.hash, stages.compress].map(|stage| stage.div_duration_f64(stages.cpu()) * 100.0);
    let [cut, hash, compress] = shares;
    let what = format!("CPU: cut {cut:.0} %, hash {hash:.0} %, compress {compress:.0} %, {threads} threads");
    table.finding(what, rate(cpu), None);
    table.finding(format!("write and sync {} MiB", to_write >> 20), rate(write), None);
    let ratio = read.max(cpu).max(write).div_duration_f64(whole);
    table.finding("import", rate(whole), None);
    let reach = Some((format!(">= {RATE_TARGET}"), ratio >= RATE_TARGET));
    table.finding("import, of the slowest stage", format!("{ratio:.2}"), reach);
    report.add(table);
    Ok(())
}

/// Advice only: what is mapped or dirty stays, and a file that cannot be opened fails later.
fn drop_from_page_cache(root: &Path, files: &[TreeFile]) {
    for file in files.iter().filter_map(|file| File::open(file.path_in(root)).ok()) {
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
}

fn read_all(root: &Path, files: &[TreeFile], threads: usize) -> Result<Duration> {
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let read = || -> Result<()> {
            let mut buffer = vec![0; 1 << 20];
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let path = file.path_in(root);
                let mut file = File::open(&path).with_context(|| path.display().to_string())?;
                while file.read(&mut buffer)? > 0 {}
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("reading does not panic"))
    })?;
    Ok(begin.elapsed())
}

/// CPU time of each stage on one thread, for `bytes` of the source.
#[derive(Default)]
struct Stages {
    bytes: u64,
    stored: u64,
    cut: Duration,
    hash: Duration,
    compress: Duration,
}

impl Stages {
    fn cpu(&self) -> Duration {
        self.cut + self.hash + self.compress
    }
}

/// Put files from all over the tree through the stages, `limit` bytes of them.
fn measure_stages(root: &Path, files: &[TreeFile], limit: u64) -> Result<Stages> {
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    let step = bytes.div_ceil(limit.max(1)).max(1) as usize;
    let mut stages = Stages::default();
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    let mut seen = HashSet::new();
    for file in files.iter().step_by(step) {
        let content = fs::read(file.path_in(root))?;
        stages.bytes += content.len() as u64;
        for section in content.chunks(SECTION as usize) {
            measure_section(section, &mut compressor, &mut seen, &mut stages)?;
        }
    }
    ensure!(stages.bytes > 0, "the sample has no bytes");
    Ok(stages)
}

/// Only the first copy of a chunk is compressed and stored.
fn measure_section(
    section: &[u8],
    compressor: &mut zstd::bulk::Compressor<'_>,
    seen: &mut HashSet<ChunkId>,
    stages: &mut Stages,
) -> Result<()> {
    let begin = Instant::now();
    let pieces = cut(section, Cutting::ContentDefined);
    stages.cut += begin.elapsed();
    for piece in pieces {
        let bytes = piece.of(section);
        let begin = Instant::now();
        let id = ChunkId::of(bytes);
        stages.hash += begin.elapsed();
        if seen.insert(id) {
            let begin = Instant::now();
            let compressed = compressor.compress(bytes)?;
            stages.compress += begin.elapsed();
            stages.stored += compressed.len().min(bytes.len()) as u64;
        }
    }
    Ok(())
}

/// Write so many bytes in files of a pack's size, each synced; at most 1 GiB, scaled.
fn write_packs(scratch: &Path, bytes: u64) -> Result<Duration> {
    let noise = tree::noise(3, PACK_BYTES);
    let dir = scratch.join("pack-probe");
    fs::create_dir_all(&dir)?;
    let wanted = (bytes as usize).clamp(1, 1 << 30);
    let begin = Instant::now();
    for start in (0..wanted).step_by(PACK_BYTES) {
        let mut file = File::create(dir.join(start.to_string()))?;
        file.write_all(&noise[..PACK_BYTES.min(wanted - start)])?;
        file.sync_data()?;
    }
    let spent = begin.elapsed();
    fs::remove_dir_all(&dir)?;
    Ok(spent.mul_f64(bytes as f64 / wanted as f64))
}

/// Import `source` again as the next version of `image`; what that stored against `changed` bytes.
fn reimport(daemon: &Daemon, image: &str, source: &Path, changed: u64, what: &str, table: &mut Table) -> Result<()> {
    let stored = number(&import(daemon, image, source)?, "bytes_added")?;
    let ratio = stored as f64 / changed as f64;
    ensure!(ratio > 0.9, "{what}: {stored} bytes are stored for {changed} that changed");
    let figure = format!("{ratio:.3} ({:.1} of {:.1} MiB)", stored as f64 / MIB, changed as f64 / MIB);
    table.finding(what, figure, Some((format!("<= {STORED_TARGET}"), ratio <= STORED_TARGET)));
    Ok(())
}

fn patched_tree(args: &Args, daemon: &Daemon, scratch: &Path, table: &mut Table) -> Result<()> {
    let source = scratch.join("patched");
    let files = tree::plan(args.files, 4);
    tree::write(&source, &files)?;
    import(daemon, "patched", &source)?;
    let changed = tree::patch(&source, &files, PATCH_EVERY)?;
    let what = format!("tree of {} files, one in {PATCH_EVERY} replaced: stored / changed files", files.len());
    reimport(daemon, "patched", &source, changed, &what, table)
}

fn patched_disk(args: &Args, daemon: &Daemon, scratch: &Path, touch: Touch, table: &mut Table) -> Result<()> {
    let name = format!("disk-{touch:?}").to_lowercase();
    let source = scratch.join(&name);
    fs::create_dir_all(&source)?;
    let disk = source.join("disk.img");
    let blocks = (args.disk_mib << 20) / DISK_BLOCK;
    let touched = 256.min(blocks / 4);
    tree::write_disk(&disk, blocks, 5)?;
    import(daemon, &name, &source)?;
    let changed = tree::touch_disk(&disk, blocks, touched, touch, 6)?;
    let what = format!("disk of {} MiB, {touched} blocks touched, {touch:?}: stored / touched blocks", args.disk_mib);
    reimport(daemon, &name, &source, changed, &what, table)
}

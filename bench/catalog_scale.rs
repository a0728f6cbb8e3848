//! The catalog with 100,000 clones: creating them, switching them, starting with them.
//!
//! First through the library, on a log in RocksDB on a real disk: clones one by one with 16 callers,
//! clones in bulk, the latency of a single one, and repoints of growing sets. Then through the daemon:
//! how soon it answers over NFS after a clean stop and after a `kill -9`, and its memory per clone.
//! The first part has no files and no mounted clients; what it shows is the transaction.
//! What a commit costs is mostly the disk's: its own time for a sync stands beside the figures.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use mimeo::chunk::ChunkId;
use mimeo::config::Config;
use mimeo::daemon::{DataDir, Stores};
use mimeo::env::Env;
use mimeo::image::{
    Catalog, CloneTarget, Fleet, Labels, NewClones, NewVersion, RepointPlan, VersionNumber, VersionRef, Writes,
};
use tokio::task::JoinSet;

use common::args::CommonArgs;
use common::daemon::Daemon;
use common::fsync::{self, FsyncTimes};
use common::report::{Cell, Report, Spread, Table, quantile};
use common::{process, tree};

const IMAGE: &str = "golden";
/// Clients that create clones at once, each waiting for its answer.
const CALLERS: usize = 16;
/// Repoints of one set; as many go back.
const REPOINTS: usize = 5;
/// From DESIGN section 8.
const REPOINT_TARGET_MS: f64 = 50.0;
const CREATE_TARGET: f64 = 1000.0;
const SLOWDOWN_TARGET: f64 = 1.2;
const RAM_TARGET: f64 = 1024.0;
const CLEAN_START_TARGET: f64 = 1.0;
const KILLED_START_TARGET: f64 = 5.0;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    #[arg(long, default_value_t = 100_000)]
    clones: usize,
    /// Syncs that are timed to know the disk.
    #[arg(long, default_value_t = 500)]
    syncs: usize,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.common.quick {
        (args.clones, args.syncs) = (2000, 20);
    }
    ensure!(args.clones >= 100, "at least 100 clones are needed");
    let scratch = args.common.scratch_dir()?;
    let mut report = Report::new("catalog_scale", args.common.quick);
    let disk = fsync::probe(scratch.path(), args.syncs)?;
    report.fact("sync of 512 appended bytes", format!("p50 {:.2} ms, p99 {:.2} ms", disk.p50, disk.p99));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(through_the_library(&args, scratch.path(), disk, &mut report))?;
    report.add(through_the_daemon(&args, scratch.path())?);
    args.common.publish(&report)
}

async fn through_the_library(args: &Args, scratch: &Path, disk: FsyncTimes, report: &mut Report) -> Result<()> {
    let stores = open_stores(&scratch.join("one-by-one")).await?;
    let fleet = Fleet::new(stores.catalog.clone(), stores.overlays.clone());
    let mut creating = Table::new("Creating clones");
    create_one_by_one(&stores.catalog, args.clones, &mut creating).await?;
    create_alone(&fleet, args.clones, disk, &mut creating).await?;
    let bulk = open_stores(&scratch.join("bulk")).await?;
    create_in_bulk(&bulk.catalog, args.clones, &mut creating).await?;
    bulk.close().await?;
    report.add(creating);
    let mut switching = Table::new("Repoint to another version and back, not mounted: ms, median (least..greatest)");
    for count in [100, 1000, 10_000, 100_000].into_iter().filter(|count| *count <= args.clones) {
        repoint(&fleet, count, disk, &mut switching).await?;
    }
    report.add(switching);
    drop(fleet);
    Ok(stores.close().await?)
}

/// New stores with one image in two versions, which are records only: no tree is behind them.
async fn open_stores(dir: &Path) -> Result<Stores> {
    let env = Env::real();
    let stores = Stores::open(&DataDir::open(dir, &env)?, &Config::default(), &env).await?;
    let catalog = &stores.catalog;
    let image = catalog.create_or_get_image(IMAGE, Labels::new()).await?;
    for number in 1..=2_u8 {
        let version = NewVersion {
            image: image.id,
            manifest: ChunkId::of(&[number]),
            created: env.clock.now(),
            source: "bench".into(),
            author: "bench".into(),
            labels: Labels::new(),
            consistency: "unknown".into(),
            inodes: 1,
            bytes_logical: 0,
            bytes_stored: 0,
            bytes_added: 0,
        };
        catalog.add_version(version).await?;
    }
    Ok(stores)
}

fn clones_of(version: VersionNumber, names: Vec<String>) -> NewClones {
    NewClones { version: VersionRef::number(IMAGE, version), names, labels: Labels::new() }
}

fn desk(i: usize) -> String {
    format!("desk-{i:06}")
}

/// `count` clones, one answer each, with [`CALLERS`] callers.
async fn create_one_by_one(catalog: &Arc<Catalog>, count: usize, table: &mut Table) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(create_while_any(catalog.clone(), next.clone(), count, begin));
    }
    let mut done = Vec::with_capacity(count);
    while let Some(answered) = callers.join_next().await {
        done.extend(answered??);
    }
    done.sort();
    ensure!(catalog.state().clone_count() == count, "not every clone is there");
    let rate = count as f64 / done[count - 1].as_secs_f64();
    let sample = 1000.min(count / 2);
    let first = done[sample - 1];
    let last = done[count - 1] - done[count - 1 - sample];
    let slowdown = last.as_secs_f64() / first.as_secs_f64();
    table.finding(
        format!("{count} clones, {CALLERS} callers, one answer each"),
        format!("{rate:.0} clones/s"),
        Some((format!(">= {CREATE_TARGET:.0} clones/s"), rate >= CREATE_TARGET)),
    );
    table.finding(
        format!("the last {sample} of them against the first"),
        format!("{slowdown:.2} times as slow"),
        Some((format!("<= {SLOWDOWN_TARGET}"), slowdown <= SLOWDOWN_TARGET)),
    );
    Ok(())
}

/// One caller; when each of its answers came, counted from `begin`.
async fn create_while_any(
    catalog: Arc<Catalog>,
    next: Arc<AtomicUsize>,
    count: usize,
    begin: Instant,
) -> Result<Vec<Duration>> {
    let mut done = Vec::new();
    loop {
        let i = next.fetch_add(1, Ordering::Relaxed);
        if i >= count {
            return Ok(done);
        }
        catalog.create_clones(clones_of(1, vec![desk(i)])).await?;
        done.push(begin.elapsed());
    }
}

/// Single clones by a single caller: what one person waits.
async fn create_alone(fleet: &Fleet, there: usize, disk: FsyncTimes, table: &mut Table) -> Result<()> {
    const SAMPLES: usize = 300;
    let mut times = Vec::with_capacity(SAMPLES);
    for i in 0..SAMPLES {
        let begin = Instant::now();
        fleet.catalog().create_clones(clones_of(1, vec![format!("alone-{i}")])).await?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let names = (0..SAMPLES).map(|i| format!("alone-{i}")).collect();
    fleet.remove_clones(CloneTarget::Names(names)).await?;
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
    let target = 2.0 * disk.p99 + 1.0;
    table.finding(
        format!("a single clone beside {there} others"),
        format!("p50 {p50:.2} ms, p99 {p99:.2} ms"),
        Some((format!("<= 2 sync p99 + 1 ms = {target:.2} ms"), p99 <= target)),
    );
    Ok(())
}

async fn create_in_bulk(catalog: &Catalog, count: usize, table: &mut Table) -> Result<()> {
    let begin = Instant::now();
    let made = catalog.create_clones(clones_of(1, (0..count).map(desk).collect())).await?;
    ensure!(made.len() == count, "{} clones instead of {count}", made.len());
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    table.finding(format!("{count} clones in one call"), format!("{rate:.0} clones/s"), None);
    Ok(())
}

/// Switch the first `count` clones to version 2 and back, several times.
async fn repoint(fleet: &Fleet, count: usize, disk: FsyncTimes, table: &mut Table) -> Result<()> {
    let names: Vec<_> = (0..count).map(desk).collect();
    let mut times = Vec::new();
    for version in [2, 1].into_iter().cycle().take(2 * REPOINTS) {
        let plan = RepointPlan::new(IMAGE, VersionRef::number(IMAGE, version), CloneTarget::Names(names.clone()))
            .with(Writes::Keep);
        let begin = Instant::now();
        let done = fleet.repoint(plan).await?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        ensure!(
            done.outcome.switched() == count,
            "{} clones were switched instead of {count}",
            done.outcome.switched()
        );
    }
    fleet.drop_pins(CloneTarget::Names(names)).await?;
    let times = Spread::of(times);
    let target = REPOINT_TARGET_MS + 2.0 * disk.p99;
    let judged = count == 10_000;
    table.row([
        ("clones", Cell::count(count as u64)),
        ("ms", Cell::spread(times, 2)),
        ("reach", if judged { Cell::text(format!("<= 50 ms + 2 sync p99 = {target:.2} ms")) } else { Cell::none() }),
        ("reached", if judged { Cell::verdict(times.max <= target) } else { Cell::none() }),
    ]);
    Ok(())
}

/// Starts of a daemon that has all these clones, and its memory.
fn through_the_daemon(args: &Args, scratch: &Path) -> Result<Table> {
    let (data, source) = (scratch.join("data"), scratch.join("source"));
    tree::write(&source, &tree::plan(10, 1))?;
    let mut table = Table::new(format!("A daemon with {} clones", args.clones));
    Daemon::start(&data, None)?.stop()?;
    let daemon = Daemon::start(&data, None)?;
    let resident_before = process::resident_bytes(daemon.pid())?;
    daemon.command(&["image", "import", IMAGE, &source.display().to_string()])?;
    let count = args.clones.to_string();
    let begin = Instant::now();
    daemon.command(&["clone", "create", IMAGE, "--count", &count, "--name", "desk-{:06}"])?;
    table.finding("created by one `clone create --count`", seconds(begin.elapsed()), None);
    daemon.kill()?;
    let daemon = Daemon::start(&data, None)?;
    start_finding(
        &mut table,
        args,
        &daemon,
        "after kill -9 (catalog only: no private writes to replay)",
        KILLED_START_TARGET,
    )?;
    daemon.stop()?;
    let daemon = Daemon::start(&data, None)?;
    start_finding(&mut table, args, &daemon, "after a clean stop", CLEAN_START_TARGET)?;
    let grown = process::resident_bytes(daemon.pid())?.saturating_sub(resident_before);
    let each = grown as f64 / args.clones as f64;
    let reach = Some((format!("<= {RAM_TARGET} bytes"), each <= RAM_TARGET));
    table.finding("resident memory per idle clone", format!("{each:.0} bytes"), reach);
    daemon.stop()?;
    Ok(table)
}

fn start_finding(table: &mut Table, args: &Args, daemon: &Daemon, when: &str, target: f64) -> Result<()> {
    let start = daemon.started_in;
    let usage = daemon.command(&["df"])?;
    let clones = usage["clones"].as_u64().context("`mimeo df` tells no number of clones")?;
    ensure!(clones == args.clones as u64, "{clones} clones instead of {} {when}", args.clones);
    let reach = Some((format!("<= {target} s"), start.as_secs_f64() <= target));
    table.finding(format!("from its start to its first answer, {when}"), seconds(start), reach);
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

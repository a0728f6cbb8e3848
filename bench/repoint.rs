//! Repoint and rollback of fleets that are mounted, idle and under readers, beside what a local filesystem does.
//!
//! A daemon serves an image in two versions, of which one file in twenty differs, and its clones; each was
//! mounted and asked for its root's attributes. The time of a switch is that of the admin API's request, on
//! a connection that is open, until its answer is there: choosing the clones, holding their overlays, the
//! synced commit, both synced lines of the audit log, the answer's JSON. A rollback is the request that
//! undoes that operation. By turns with them, on another XFS on the same disk, as many clones are switched
//! by hand: symlinks, renamed directories, copies by reflink. Pins are dropped after each round.
//!
//! Asserted, never by the clock: every clone is switched, no reader sees the new version and then the old,
//! a handle keeps its bytes, private writes are what they were after a rollback.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use common::args::CommonArgs;
use common::audience::{Audience, MARKER_LEN, Markers, Place, Seen, clone_of};
use common::fsync::{self, FsyncTimes};
use common::local::{LocalFleet, Way, write_trees};
use common::loop_fs::LoopFs;
use common::report::{Cell, Report, Spread, Table};
use common::served::Served;
use common::tree::TreeFile;
use common::wire::{self, Client, Stable};
use common::{process, tree};

/// One file in so many differs between the versions; the first does.
const EVERY: usize = 20;
/// From DESIGN section 8, of so many clones.
const TARGET_MS: f64 = 50.0;
const TARGET_CLONES: usize = 10_000;
/// Of each private write.
const PRIVATE_LEN: usize = 4096;
const WAYS: [Way; 3] = [Way::Symlink, Way::Rename, Way::Copy];

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 10_000, 100_000])]
    clones: Vec<usize>,
    /// Fleets of which every clone has private writes.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 10_000])]
    private: Vec<usize>,
    /// Files that each of these has changed.
    #[arg(long, default_value_t = 10)]
    changed: usize,
    /// Connections that read.
    #[arg(long, default_value_t = 200)]
    readers: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Of the image.
    #[arg(long, default_value_t = 300)]
    files: usize,
    /// Larger fleets are not copied.
    #[arg(long, default_value_t = 1000)]
    copies: usize,
    /// How long readers are watched before a switch and after it.
    #[arg(long, default_value_t = 300)]
    quiet_ms: u64,
    /// Of each loop file, which is sparse.
    #[arg(long, default_value_t = 16)]
    gib: u64,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.common.quick {
        (args.clones, args.private, args.readers) = (vec![10, 40], vec![10], 10);
        (args.rounds, args.files, args.copies, args.quiet_ms, args.gib) = (2, 40, 10, 20, 1);
    }
    ensure!(args.rounds > 0 && args.readers > 0 && args.changed > 0, "nothing to measure");
    ensure!(args.files / args.changed >= 2, "an image of fewer files than twice those that are changed");
    let scratch = args.common.scratch_dir()?;
    let mut report = Report::new("repoint", args.common.quick);
    let bench = Bench::set_up(args, scratch.path(), &mut report)?;
    let mut switches = Table::new("All clones to another version and back: ms, median (least..greatest) of the rounds");
    let mut seen = Table::new("What readers saw of it: ms, median (least..greatest)");
    for &clones in &bench.args.clones {
        bench.measure(clones, &mut switches, &mut seen)?;
    }
    report.add(switches);
    report.add(seen);
    report.add(bench.private()?);
    bench.args.common.publish(&report)
}

struct Bench {
    args: Args,
    files: Vec<TreeFile>,
    trees: [PathBuf; 2],
    markers: Markers,
    disk: FsyncTimes,
    /// Where data directories go.
    ours: PathBuf,
    /// A filesystem to switch clones on by hand, and its trees.
    theirs: Option<(PathBuf, [PathBuf; 2])>,
    /// Unmounted when all is done.
    _mounted: Vec<LoopFs>,
}

impl Bench {
    fn set_up(args: Args, scratch: &Path, report: &mut Report) -> Result<Self> {
        let files = tree::plan(args.files, 1);
        let trees = write_trees(scratch, &files, EVERY)?;
        let marker = |tree: &PathBuf| anyhow::Ok(fs::read(files[0].path_in(tree))?[..MARKER_LEN].to_vec());
        let markers = [marker(&trees[0])?, marker(&trees[1])?].into();
        let mounted: Result<Vec<_>> =
            ["ours", "theirs"].iter().map(|name| LoopFs::make(scratch, name, args.gib)).collect();
        let (mounted, filesystem) = match mounted {
            Ok(mounted) => (mounted, "an XFS each for the daemon and the local ways, in files on one disk".into()),
            Err(error) => (Vec::new(), format!("no local ways to compare with: {error:#}")),
        };
        report.fact("filesystems", filesystem);
        let (ours, theirs) = match &mounted[..] {
            [ours, theirs] => (ours.dir(), Some((theirs.dir(), write_trees(theirs.dir(), &files, EVERY)?))),
            _ => (scratch, None),
        };
        let disk = fsync::probe(ours, if args.common.quick { 20 } else { 500 })?;
        report.fact("sync of 512 appended bytes", format!("p50 {:.2} ms, p99 {:.2} ms", disk.p50, disk.p99));
        report.fact("readers", format!("{} connections, one call under way on each", args.readers));
        report.fact("rounds", format!("{}, all ways by turns", args.rounds));
        let (ours, theirs) = (ours.to_owned(), theirs.map(|(dir, trees)| (dir.to_owned(), trees)));
        Ok(Self { args, files, trees, markers, disk, ours, theirs, _mounted: mounted })
    }

    /// One fleet, idle and under readers.
    fn measure(&self, clones: usize, switches: &mut Table, seen: &mut Table) -> Result<()> {
        eprintln!("{clones} clones ...");
        let mut served = Served::set_up(&self.ours.join(format!("fleet-{clones}")), &self.trees, clones)?;
        let pid = served.pid();
        let local = self.make_local(clones)?;
        for readers in [0, self.args.readers] {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            for _ in 0..self.args.rounds {
                let audience = self.nfs_audience(&served, readers)?;
                let (ours, operation) = self.switch(pid, audience, 1, || served.repoint("keep", "clones"))?;
                there.push(Round { ours, local: self.switch_local(&local, readers, 1)? });
                let audience = self.nfs_audience(&served, readers)?;
                let (ours, _) = self.switch(pid, audience, 0, || served.roll_back(&operation))?;
                back.push(Round { ours, local: self.switch_local(&local, readers, 0)? });
                served.drop_pins()?;
            }
            for (what, rounds) in [("repoint", there), ("rollback", back)] {
                self.add_switch(switches, (clones, readers, what), &rounds);
                if readers > 0 {
                    add_seen(seen, (clones, what), &rounds);
                }
            }
        }
        served.stop()
    }

    /// Time a switch by process `pid`, when what was written before is on the disk.
    fn switch<T>(
        &self,
        pid: u32,
        audience: Option<Audience>,
        to: usize,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(Sample, T)> {
        for dir in [Some(&self.ours), self.theirs.as_ref().map(|(dir, _)| dir)].into_iter().flatten() {
            rustix::fs::syncfs(fs::File::open(dir)?)?;
        }
        let timed = || {
            let (cpu, begin) = (process::cpu_time(pid)?, Instant::now());
            let done = work()?;
            anyhow::Ok((begin.elapsed(), process::cpu_time(pid)?.saturating_sub(cpu), done))
        };
        let ((took, cpu, done), seen) = match audience {
            Some(audience) => {
                let (done, seen) = audience.watch(to, Duration::from_millis(self.args.quiet_ms), timed)?;
                (done, Some(seen))
            }
            None => (timed()?, None),
        };
        Ok((Sample { took, cpu, seen }, done))
    }

    fn make_local(&self, clones: usize) -> Result<Vec<LocalFleet>> {
        let Some((root, trees)) = &self.theirs else { return Ok(Vec::new()) };
        let ways = WAYS.into_iter().filter(|way| *way != Way::Copy || clones <= self.args.copies);
        ways.map(|way| LocalFleet::make(way, root, trees, &self.files[0], clones)).collect()
    }

    fn nfs_audience(&self, served: &Served, readers: usize) -> Result<Option<Audience>> {
        let watching = || Audience::over_nfs(served.address(), served.places(&self.files[0], readers)?, &self.markers);
        (readers > 0).then(watching).transpose()
    }

    /// What each of [`WAYS`] took, where it was measured.
    fn switch_local(&self, fleets: &[LocalFleet], readers: usize, to: usize) -> Result<Vec<Option<Sample>>> {
        let measured = |fleet: &LocalFleet| {
            if fleet.way() == Way::Copy && (readers > 0 || to == 0) {
                // Going back, the former copies are there: it is the renames, and not measured twice.
                return if readers == 0 { fleet.put_copies_back().map(|()| None) } else { Ok(None) };
            }
            let paths = || (0..readers).map(|i| fleet.marker(clone_of(i, readers, fleet.clones()))).collect();
            let audience = (readers > 0).then(|| Audience::on_disk(paths(), &self.markers)).transpose()?;
            Ok(Some(self.switch(std::process::id(), audience, to, || fleet.switch(to))?.0))
        };
        let of_way = |way| fleets.iter().find(|fleet| fleet.way() == way).map_or(Ok(None), measured);
        WAYS.into_iter().map(of_way).collect()
    }

    fn add_switch(&self, table: &mut Table, (clones, readers, what): (usize, usize, &str), rounds: &[Round]) {
        let ours = Spread::of(rounds.iter().map(|round| round.ours.millis()));
        let cpu = rounds.iter().map(|round| millis(round.ours.cpu)).sum::<f64>() / rounds.len() as f64;
        let times = |way: usize| spread_of(rounds, |round| Some(round.local[way]?.millis()), 2);
        let ratio = |way: usize, decimals| {
            spread_of(rounds, |round| Some(round.ours.millis() / round.local[way]?.millis()), decimals)
        };
        let target = TARGET_MS + 2.0 * self.disk.p99;
        let judged = clones == TARGET_CLONES;
        table.row([
            ("clones", Cell::count(clones as u64)),
            ("readers", Cell::count(readers as u64)),
            ("what", Cell::text(what)),
            ("ours", Cell::spread(ours, 2)),
            ("its CPU, mean", Cell::number(cpu, 0)),
            ("symlinks", times(0)),
            ("renames", times(1)),
            ("reflinks", times(2)),
            ("ours / symlinks", ratio(0, 2)),
            ("ours / renames", ratio(1, 2)),
            ("ours / reflinks", ratio(2, 4)),
            ("reach", if judged { Cell::text(format!("<= 50 ms + 2 sync p99 = {target:.1}")) } else { Cell::none() }),
            ("reached", if judged { Cell::verdict(ours.max <= target) } else { Cell::none() }),
        ]);
    }

    /// Fleets of which every clone has private writes in some files that the new version did not change.
    fn private(&self) -> Result<Table> {
        let title = format!(
            "Fleets with {} private files of 4 KiB in each clone: ms, median (least..greatest)",
            self.args.changed
        );
        let mut table = Table::new(title);
        for &clones in &self.args.private {
            eprintln!("{clones} clones with private writes ...");
            let mut served = Served::set_up(&self.ours.join(format!("private-{clones}")), &self.trees, clones)?;
            let pid = served.pid();
            let written = self.write(&served)?;
            let mut samples: [Vec<Sample>; 5] = Default::default();
            for _ in 0..self.args.rounds {
                for (at, (writes, counted)) in [("keep", "kept"), ("discard", "discarded")].into_iter().enumerate() {
                    let (there, operation) = self.switch(pid, None, 1, || served.repoint(writes, counted))?;
                    let (back, _) = self.switch(pid, None, 0, || served.roll_back(&operation))?;
                    written.check(&served)?;
                    samples[2 * at].push(there);
                    samples[2 * at + 1].push(back);
                }
                // Nothing is switched, so there is nothing to roll back.
                samples[4].push(self.switch(pid, None, 0, || served.repoint("stay", "lagging"))?.0);
                served.drop_pins()?;
            }
            let rows = ["repoint, keep", "its rollback", "repoint, discard", "its rollback", "repoint, stay"];
            for (what, samples) in rows.into_iter().zip(samples) {
                let spread = Spread::of(samples.iter().map(Sample::millis));
                let cpu = samples.iter().map(|sample| millis(sample.cpu)).sum::<f64>() / samples.len() as f64;
                let each = |ms: f64| Cell::number(ms * 1e3 / clones as f64, 1);
                table.row([
                    ("clones", Cell::count(clones as u64)),
                    ("what", Cell::text(what)),
                    ("ms", Cell::spread(spread, 2)),
                    ("us per clone", each(spread.median)),
                    ("CPU us per clone, mean", each(cpu)),
                ]);
            }
            served.stop()?;
        }
        Ok(table)
    }

    /// Write into the files of all clones, durably.
    fn write(&self, served: &Served) -> Result<Written> {
        let mut client = Client::connect(served.address())?;
        let mut last = None;
        for i in 0..self.args.changed {
            let at = i * (self.files.len() / self.args.changed) + 1;
            ensure!(!at.is_multiple_of(EVERY), "file {at} differs between the versions");
            let places = served.places(&self.files[at], served.clones())?;
            let names = places.iter().map(|place| (place.dir.as_slice(), place.name.as_str()));
            let handles = client.lookup_all(names)?;
            let data = tree::noise(i as u64, PRIVATE_LEN);
            let write =
                |(clone, handle): (usize, &Vec<u8>)| wire::write(handle, 0, Stable::FileSync, &of_clone(&data, clone));
            client.call_all(handles.iter().enumerate().map(write).collect())?;
            last = Some(Written { places, data });
        }
        last.context("no private writes")
    }
}

/// No two clones write the same.
fn of_clone(data: &[u8], clone: usize) -> Vec<u8> {
    [&clone.to_be_bytes(), &data[size_of::<usize>()..]].concat()
}

/// What was written last into each clone.
struct Written {
    places: Vec<Place>,
    data: Vec<u8>,
}

impl Written {
    /// It is what the first and the last clone show.
    fn check(&self, served: &Served) -> Result<()> {
        let mut client = Client::connect(served.address())?;
        for clone in [0, self.places.len() - 1] {
            let Place { dir, name } = &self.places[clone];
            let handle = client.lookup_all([(dir.as_slice(), name.as_str())].into_iter())?.remove(0);
            let shown = client.read_file(&handle, PRIVATE_LEN as u64, PRIVATE_LEN as u32)?;
            ensure!(shown == of_clone(&self.data, clone), "private writes of clone {clone} did not come back");
        }
        Ok(())
    }
}

/// One switch.
#[derive(Clone, Copy)]
struct Sample {
    took: Duration,
    /// Of the process that switches, whatever else it did meanwhile; in steps of 10 ms.
    cpu: Duration,
    seen: Option<Seen>,
}

impl Sample {
    fn millis(&self) -> f64 {
        millis(self.took)
    }
}

/// Neighbours in time.
struct Round {
    ours: Sample,
    /// In the order of [`WAYS`].
    local: Vec<Option<Sample>>,
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Over all rounds, if it was measured.
fn spread_of(rounds: &[Round], value: impl Fn(&Round) -> Option<f64>, decimals: usize) -> Cell {
    let values: Option<Vec<f64>> = rounds.iter().map(value).collect();
    values.map_or(Cell::text("not measured"), |values| Cell::spread(Spread::of(values), decimals))
}

fn add_seen(table: &mut Table, (clones, what): (usize, &str), rounds: &[Round]) {
    let ours = |value: fn(&Seen) -> f64| spread_of(rounds, |round| round.ours.seen.as_ref().map(value), 2);
    let theirs = |way: usize, value: fn(&Seen) -> f64, decimals| {
        spread_of(rounds, |round| round.local[way]?.seen.as_ref().map(value), decimals)
    };
    let last = |seen: &Seen| millis(seen.last);
    table.row([
        ("clones", Cell::count(clones as u64)),
        ("what", Cell::text(what)),
        ("answered", spread_of(rounds, |round| Some(round.ours.millis()), 2)),
        ("first saw it", ours(|seen| millis(seen.first))),
        ("last saw it", ours(last)),
        ("longest wait", ours(|seen| millis(seen.longest_gap))),
        ("before the switch", ours(|seen| millis(seen.quiet_gap))),
        ("symlinks: last", theirs(0, last, 2)),
        ("renames: last", theirs(1, last, 2)),
        ("renames: not found", theirs(1, |seen| seen.missed as f64, 0)),
    ]);
}

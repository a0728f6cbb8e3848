//! Recorded boots, replayed by all clients at once and as fast as answers come: cold, and again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mimeo::storm::Report as Storm;

use crate::common::report::{Cell, Spread, Table};
use crate::load::Load;
use crate::stage::{Fleet, Kind, Server, Stage, drop_page_cache};
use crate::storms::{Order, Storms};

const MIB: f64 = 1048576.0;
/// From DESIGN section 8.
const DISK_TARGET: f64 = 1.05;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caches {
    /// Servers and the page cache begin empty.
    Cold,
    /// The same storm again, on the same clones.
    Warm,
}

impl Caches {
    fn key(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// What is compared: the rounds of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    load: &'static str,
    clients: u32,
    caches: Caches,
}

/// One storm.
#[derive(Clone)]
struct Run {
    storm: Storm,
    /// What the server's disk read.
    disk: Option<u64>,
    /// What was read of chunks, or of the disk, over what is touched of it, each byte once.
    unique: Option<f64>,
}

impl Run {
    fn last_secs(&self) -> f64 {
        self.storm.boots.last_secs.unwrap_or(f64::NAN)
    }

    fn cpu_per_gib(&self) -> f64 {
        self.storm.server_cpu_per_gib().unwrap_or(f64::NAN)
    }
}

/// All that was measured.
#[derive(Default)]
pub struct Boots {
    /// By row and server, in the order of the rounds.
    runs: BTreeMap<Row, BTreeMap<Kind, Vec<Run>>>,
    /// How long clones took, by load, clients and server.
    made: BTreeMap<(&'static str, u32, Kind), Vec<Duration>>,
    /// Bytes of distinct chunks that a boot touches, decompressed.
    touched: BTreeMap<&'static str, u64>,
    /// The reports of a page, by its name.
    pages: BTreeMap<String, Vec<String>>,
}

impl Boots {
    /// How much a boot touches: what the daemon loads that is told to warm it up.
    pub fn touch(&mut self, stage: &Stage, load: &Load) -> Result<u64> {
        let server = stage.start(Kind::Mimeo)?;
        let daemon = server.daemon().context("a daemon")?;
        let version = format!("{}@v1", load.key);
        let warmed = daemon.command(&["warm", &version, "--trace", &load.trace.display().to_string()])?;
        let bytes = warmed["bytes"].as_u64().context("no bytes in what warm told")?;
        self.touched.insert(load.key, bytes);
        server.stop()?;
        Ok(bytes)
    }

    /// Fresh clones, then the storm twice.
    pub fn round(
        &mut self,
        stage: &mut Stage,
        storms: &Storms,
        load: &Load,
        (clients, round): (u32, usize),
        kind: Kind,
    ) -> Result<()> {
        let fleet = stage.fresh(kind, load, clients)?;
        if let Some(made_in) = fleet.made_in {
            self.made.entry((load.name, clients, kind)).or_default().push(made_in);
        }
        drop_page_cache()?;
        let server = stage.start(kind)?;
        let mut before = None;
        for caches in [Caches::Cold, Caches::Warm] {
            let page = format!("{}-{clients}-{}", load.key, caches.key());
            // The null server has no caches: one storm is both.
            let (run, file) = match before.take_if(|_| kind == Kind::Null) {
                Some(before) => before,
                None => {
                    let file = format!("{page}-{}-{round}", kind.key());
                    eprintln!("{file} ...");
                    (self.measure(stage, storms, load, (&server, &fleet), clients, &file)?, file)
                }
            };
            ensure!(run.storm.boots.clients_booted == u64::from(clients), "{file}: {:?}", run.storm.error_examples);
            let row = Row { load: load.name, clients, caches };
            self.runs.entry(row).or_default().entry(kind).or_default().push(run.clone());
            if round == 0 {
                self.pages.entry(page).or_default().push(file.clone());
            }
            before = Some((run, file));
        }
        server.stop()
    }

    fn measure(
        &self,
        stage: &Stage,
        storms: &Storms,
        load: &Load,
        (server, fleet): (&Server, &Fleet),
        clients: u32,
        file: &str,
    ) -> Result<Run> {
        let before = (stage.device_read(server.kind)?, server.bytes_loaded()?);
        let storm = storms.run(&Order::new(stage, server, fleet, clients).replay(load), file)?;
        let since = |before: Option<u64>, after: Option<u64>| Some(after? - before?);
        let disk = since(before.0, stage.device_read(server.kind)?);
        let loaded = since(before.1, server.bytes_loaded()?);
        let unique = match server.kind {
            Kind::Null => None,
            Kind::Mimeo => loaded.zip(self.touched.get(load.key).copied()),
            Kind::Ganesha => disk.map(|disk| (disk, load.working_set)),
        };
        Ok(Run { storm, disk, unique: unique.map(|(read, unique)| read as f64 / unique.max(1) as f64) })
    }

    /// The pages, written.
    pub fn compare(&self, storms: &Storms) -> Result<()> {
        for (page, files) in &self.pages {
            // Ours first: the others are told as times of it.
            let mut files: Vec<String> = files.clone();
            files.sort_by_key(|file| Kind::ALL.iter().position(|kind| file.contains(&format!("-{}-", kind.key()))));
            storms.compare(&files, page)?;
        }
        Ok(())
    }

    pub fn tables(&self) -> [Table; 4] {
        [self.figures(), self.ratios(), self.reach(), self.clones()]
    }

    /// What the daemon reads of its disk in a cold storm.
    fn reach(&self) -> Table {
        let mut table = Table::new("Bytes of chunks that mimeo read in cold storms, over those of the chunks touched");
        for (row, sides) in self.runs.iter().filter(|(row, _)| row.caches == Caches::Cold) {
            let ratios: Vec<f64> = sides.get(&Kind::Mimeo).into_iter().flatten().filter_map(|run| run.unique).collect();
            if ratios.is_empty() {
                continue;
            }
            let spread = Spread::of(ratios);
            let reach = Some((format!("<= {DISK_TARGET}"), spread.max <= DISK_TARGET));
            table.finding(format!("{} clients, {}", row.clients, row.load), format!("{:.3}", spread.max), reach);
        }
        table
    }

    fn figures(&self) -> Table {
        let mut table = Table::new("Storms: all clients at once, no thinking; median of the rounds");
        for (row, sides) in &self.runs {
            // The null server's one storm is told once.
            let told = |kind: Kind| kind != Kind::Null || row.caches == Caches::Cold;
            for (kind, runs) in sides.iter().filter(|(kind, _)| told(**kind)) {
                table.row(figures(*row, *kind, runs));
            }
        }
        table
    }

    /// Ours over the others', round by round.
    fn ratios(&self) -> Table {
        let mut table = Table::new("Ratios, of runs of one round: median (least..greatest)");
        for (row, sides) in &self.runs {
            let Some(ours) = sides.get(&Kind::Mimeo) else { continue };
            let over = |kind: Kind, of: fn(&Run) -> f64| match sides.get(&kind) {
                Some(theirs) => {
                    Cell::spread(Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| of(ours) / of(theirs))), 2)
                }
                None => Cell::none(),
            };
            let rate: fn(&Run) -> f64 = |run| run.storm.operations_per_sec;
            table.row([
                ("load", Cell::text(row.load)),
                ("clients", Cell::count(row.clients.into())),
                ("caches", Cell::text(row.caches.key())),
                ("rate, ours / null", over(Kind::Null, rate)),
                ("CPU per GiB, ours / null", over(Kind::Null, Run::cpu_per_gib)),
                ("rate, ours / Ganesha", over(Kind::Ganesha, rate)),
                ("last booted, ours / Ganesha", over(Kind::Ganesha, Run::last_secs)),
                ("CPU per GiB, ours / Ganesha", over(Kind::Ganesha, Run::cpu_per_gib)),
            ]);
        }
        table
    }

    fn clones(&self) -> Table {
        let mut table =
            Table::new("Making the clones: `clone create --count`, beside `cp -a --reflink=always` for each");
        let secs = |times: &Vec<Duration>| Spread::of(times.iter().map(Duration::as_secs_f64));
        for ((load, clients, kind), times) in &self.made {
            if *kind != Kind::Mimeo {
                continue;
            }
            let theirs = self.made.get(&(*load, *clients, Kind::Ganesha)).map(secs);
            let ours = secs(times);
            table.row([
                ("load", Cell::text(*load)),
                ("clones", Cell::count((*clients).into())),
                ("mimeo, s", Cell::spread(ours, 3)),
                ("reflinks, s", theirs.map_or(Cell::none(), |theirs| Cell::spread(theirs, 2))),
                ("reflinks / mimeo", theirs.map_or(Cell::none(), |s| Cell::number(s.median / ours.median, 0))),
            ]);
        }
        table
    }
}

fn figures(row: Row, kind: Kind, runs: &[Run]) -> [(&'static str, Cell); 15] {
    let median = |of: fn(&Run) -> f64| Spread::of(runs.iter().map(of)).median;
    let some = |of: fn(&Run) -> Option<f64>, decimals| {
        let values: Vec<f64> = runs.iter().filter_map(of).collect();
        if values.is_empty() { Cell::none() } else { Cell::number(Spread::of(values).median, decimals) }
    };
    [
        ("load", Cell::text(row.load)),
        ("clients", Cell::count(row.clients.into())),
        ("caches", Cell::text(if kind == Kind::Null { "-" } else { row.caches.key() })),
        ("server", Cell::text(kind.name())),
        ("calls/s", Cell::count(median(|run| run.storm.operations_per_sec) as u64)),
        ("MiB/s read", Cell::count(median(|run| run.storm.bytes_read_per_sec / MIB) as u64)),
        ("last booted, s", Cell::number(median(Run::last_secs), 2)),
        ("p50, ms", Cell::number(median(|run| run.storm.latency.p50_micros as f64 / 1e3), 2)),
        ("p99, ms", Cell::number(median(|run| run.storm.latency.p99_micros as f64 / 1e3), 2)),
        ("server CPU, s/GiB", some(|run| run.storm.server_cpu_per_gib(), 3)),
        ("server busy, cores", some(|run| Some(run.storm.server_cpu_secs? / run.storm.elapsed_secs), 2)),
        ("generator busy, %", some(|run| Some(run.storm.generator_busy()? * 100.0), 0)),
        ("from disk, MiB", some(|run| Some(run.disk? as f64 / MIB), 0)),
        ("read / touched", some(|run| run.unique, 2)),
        ("errors", Cell::count(runs.iter().map(|run| run.storm.errors_total()).sum())),
    ]
}

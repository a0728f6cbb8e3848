//! `mimeo storm`: arguments, the view while it runs, what is told at its end.

mod around;
mod live;
mod server_disk;
mod tell;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::builder::NonEmptyStringValueParser as Text;
use clap::{Args, Subcommand, ValueEnum};

use self::around::Before;
use self::live::Live;
use super::output::{Output, count, size};
use super::{Global, misused};
use crate::env::{Env, OsRng, Rng};
use crate::storm::{
    self, Caller, Digests, Exports, Facts, Load, Mix, MixOptions, Mixer, Pace, Ramp, Report, Settings, Sources, Survey,
    Target, Tempo, Workload,
};
use crate::trace::{Stable, Trace};

/// A storm, or what is done before and after one.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Storm {
    #[command(subcommand)]
    command: Option<StormCommand>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum StormCommand {
    /// Write down what each byte of a folder is, for --verify
    Manifest {
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Compare runs that were kept with --json, and write a page of them
    Compare {
        #[arg(value_name = "RUN.json", required = true, num_args = 1..)]
        runs: Vec<PathBuf>,
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
}

/// A storm.
#[derive(Args)]
struct Run {
    /// The server: HOST asks its port mapper (else 2049), HOST:PORT takes NFS and MOUNT to be there
    #[arg(long, value_name = "HOST[:PORT]", value_parser = Text::new())]
    server: Option<String>,
    /// Where its MOUNT is, if not where the port mapper says or beside NFS
    #[arg(long, value_name = "PORT")]
    mount_port: Option<u16>,
    /// What each client mounts: {} is its number, {:04} the number in four digits
    #[arg(long, value_name = "PATH")]
    export: Option<Exports>,
    /// How many clients, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 1)]
    clients: u32,
    /// The number of the first client
    #[arg(long, value_name = "N", default_value_t = 0)]
    first: u64,
    /// End then, whoever is not done
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    duration: Option<Duration>,
    /// How long an answer may take before its call is sent again
    #[arg(long, value_name = "SECS", default_value = "60", value_parser = seconds)]
    timeout: Duration,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// What the clients do, and when.
#[derive(Args)]
#[command(next_help_heading = "Load")]
struct LoadArgs {
    /// Replay what `mimeo trace record` recorded
    #[arg(long, value_name = "FILE", conflicts_with = "mix")]
    trace: Option<PathBuf>,
    /// A synthetic load, over the files that the first export has
    #[arg(long, value_enum, default_value_t = Mix::Boot)]
    mix: Mix,
    /// Of a mix: read and write this file only, in place (a disk image)
    #[arg(long, value_name = "PATH", conflicts_with = "trace", value_parser = Text::new())]
    file: Option<String>,
    /// Of a mix: so many of 100 READs and WRITEs are READs
    #[arg(long, value_name = "N", conflicts_with = "trace", value_parser = clap::value_parser!(u8).range(0..=100))]
    read_percent: Option<u8>,
    /// Of a mix: READs and WRITEs until a client is done
    #[arg(long, value_name = "N", conflicts_with = "trace", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    transfers: Option<u32>,
    /// Of a mix: how its WRITEs are promised
    #[arg(long, value_enum, default_value_t = Promise::Unstable, conflicts_with = "trace")]
    stable: Promise,
    /// When clients start: all at once, poisson:SECS, or shift:SECS, the start of a shift
    #[arg(long, value_name = "SHAPE", default_value = "all")]
    ramp: Ramp,
    /// closed: a client waits for answers and thinks; open: it asks when the time has come
    #[arg(long = "loop", value_enum, default_value_t = Loop::Closed)]
    pace: Loop,
    /// Times are divided by this; `max`: no waiting at all
    #[arg(long, value_name = "X", default_value = "1", value_parser = speed)]
    speed: f64,
    /// Calls that one client has under way at most, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 16)]
    window: usize,
    /// As whom clients mount, and make the calls of a mix
    #[arg(long, default_value_t = 0)]
    uid: u32,
    #[arg(long, default_value_t = 0)]
    gid: u32,
    /// Repeat the storm of this seed [default: one by chance]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// What is told of it.
#[derive(Args)]
#[command(next_help_heading = "Report")]
struct ReportArgs {
    /// Compare each byte that is read with this folder, or with a manifest of it (see `storm manifest`)
    #[arg(long, value_name = "DIR|FILE")]
    verify: Option<PathBuf>,
    #[command(flatten)]
    measure: Measure,
    /// What this run is called in comparisons [default: the server]
    #[arg(long, value_parser = Text::new())]
    name: Option<String>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Compare with runs that were kept with --json
    #[arg(long, value_name = "RUN.json", num_args = 1..)]
    compare: Vec<PathBuf>,
}

/// What is measured beside the calls.
#[derive(Args)]
struct Measure {
    /// Tell what this disk of this machine reads meanwhile [default: ask the daemon, if it is a mimeo here]
    #[arg(long, value_name = "DEVICE")]
    disk: Option<String>,
    /// Tell what CPU time this process of this machine, the server, takes meanwhile
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Loop {
    Closed,
    Open,
}

#[derive(Clone, Copy, ValueEnum)]
enum Promise {
    Unstable,
    FileSync,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let secs = text.parse().ok().filter(|secs| (0.001..=604_800.0).contains(secs));
    secs.map(Duration::from_secs_f64).ok_or_else(|| "write seconds, at most 604800".to_owned())
}

fn speed(text: &str) -> Result<f64, String> {
    if text == "max" {
        return Ok(f64::INFINITY);
    }
    let speed = text.parse().ok().filter(|speed| (0.001..=1_000_000.0).contains(speed));
    speed.ok_or_else(|| "write a number from 0.001 to 1000000, or max".to_owned())
}

pub(super) fn run(storm: Storm, global: &Global, output: &mut Output) -> Result<()> {
    match storm.command {
        Some(StormCommand::Manifest { folder, out }) => manifest(&folder, &out, output),
        Some(StormCommand::Compare { runs, html }) => {
            let reports = storm::read_reports(&runs)?;
            write_page(html.as_deref(), &reports)?;
            output.show(&reports, |reports| tell::compared(reports))
        }
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(storm.run.blow(global, output))
        }
    }
}

fn manifest(folder: &Path, out: &Path, output: &mut Output) -> Result<()> {
    let digests = Digests::of_folder(folder)?;
    digests.save(out)?;
    let document = serde_json::json!({ "files": digests.files(), "bytes": digests.bytes() });
    output.show(&document, |_| format!("{}, {}", count(digests.files() as u64, "file"), size(digests.bytes())))
}

fn write_page(path: Option<&Path>, reports: &[Report]) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let page = storm::page(reports)?;
    std::fs::write(path, page).with_context(|| format!("the page {} cannot be written", path.display()))
}

impl Run {
    async fn blow(self, global: &Global, output: &mut Output) -> Result<()> {
        let (Some(server), Some(export)) = (&self.server, &self.export) else {
            misused("a storm needs --server and --export");
        };
        if self.duration.is_none() && self.load.goes_on_for_ever() {
            misused("steady work does not end by itself: give --duration or --transfers");
        }
        // What is wrong with it should not come out after the storm.
        let others = storm::read_reports(&self.report.compare)?;
        let target = Target::find(server, self.mount_port).await?;
        let seed = self.load.seed.unwrap_or_else(chance);
        let settings = self.settings(export, seed);
        let workload = self.load.workload(&settings, target, self.report.verify.as_deref()).await?;
        eprintln!("{} of {server}, seed {seed}", count(u64::from(self.clients), "client"));
        let facts = self.facts(&settings, server, workload.left_out());
        let Measure { disk, server_pid } = &self.report.measure;
        let before = Before::read(disk.as_deref(), *server_pid, target, global).await?;
        let mut live = Live::new(self.clients);
        let outcome = storm::run(settings, target, workload, interrupt(), |tick| live.show(tick)).await?;
        live.finish();
        let around = before.after(self.report.verify.is_some(), global).await;
        let report = Report::new(facts, outcome, around);
        self.tell(report, others, output)
    }

    fn settings(&self, export: &Exports, seed: u64) -> Settings {
        let load = &self.load;
        let pace = match load.pace {
            Loop::Closed => Pace::Closed,
            Loop::Open => Pace::Open,
        };
        Settings {
            exports: export.clone(),
            clients: self.clients,
            first: self.first,
            ramp: load.ramp,
            tempo: Tempo { pace, speed: load.speed },
            duration: self.duration,
            timeout: self.timeout,
            jukebox_pause: storm::JUKEBOX_PAUSE,
            window: load.window,
            caller: Caller { uid: load.uid, gid: load.gid },
            seed,
        }
    }

    fn facts(&self, settings: &Settings, server: &str, left_out: u64) -> Facts {
        let load = match &self.load.trace {
            // Its place says nothing to who reads the report elsewhere.
            Some(trace) => format!("trace {}", Path::new(trace.file_name().unwrap_or_default()).display()),
            None => format!("mix {}", self.load.mix.name()),
        };
        let pace = if settings.tempo.pace == Pace::Open { "open" } else { "closed" };
        Facts {
            name: self.report.name.clone().unwrap_or_else(|| server.to_owned()),
            server: server.to_owned(),
            export: settings.exports.to_string(),
            load,
            clients: settings.clients,
            pace: pace.to_owned(),
            speed: Some(settings.tempo.speed).filter(|speed| speed.is_finite()),
            ramp: settings.ramp.to_string(),
            duration_secs: settings.duration.map(|duration| duration.as_secs_f64()),
            seed: settings.seed,
            started_at: Env::real().clock.now().rfc3339(),
            steps_left_out: left_out,
        }
    }

    /// The document or the table, then the page; an error if anything went wrong.
    fn tell(&self, report: Report, others: Vec<Report>, output: &mut Output) -> Result<()> {
        let reports: Vec<Report> = std::iter::once(report).chain(others).collect();
        output.show(&reports[0], |_| tell::compared(&reports))?;
        output.finish()?;
        write_page(self.report.html.as_deref(), &reports)?;
        let report = &reports[0];
        if report.bytes_wrong > 0 {
            bail!("{} of what was read is wrong: {}", size(report.bytes_wrong), tell::examples(report));
        }
        if !report.is_clean() {
            bail!("{}: {}", count(report.errors_total(), "error"), tell::examples(report));
        }
        Ok(())
    }
}

impl LoadArgs {
    fn goes_on_for_ever(&self) -> bool {
        self.trace.is_none() && self.mix == Mix::Steady && self.transfers.is_none()
    }

    async fn workload(&self, settings: &Settings, target: Target, verify: Option<&Path>) -> Result<Workload> {
        let digests = verify.map(Digests::open).transpose()?;
        let load = match &self.trace {
            Some(path) => {
                let file = std::fs::File::open(path).with_context(|| format!("trace {}", path.display()))?;
                Load::of_trace(&Trace::read(&path.display().to_string(), file)?)
            }
            None => {
                let export = settings.exports.path(settings.first);
                let survey = Survey::of_export(target, &Sources::default(), settings.caller, &export).await?;
                let options = MixOptions {
                    read_percent: self.read_percent,
                    transfers: self.transfers,
                    stable: match self.stable {
                        Promise::Unstable => Stable::Unstable,
                        Promise::FileSync => Stable::FileSync,
                    },
                    file: self.file.clone(),
                    seed: settings.seed,
                    caller: settings.caller,
                };
                Load::Mix(Box::new(Mixer::new(self.mix, &options, survey)?))
            }
        };
        Ok(Workload::new(load, digests.as_ref()))
    }
}

/// A seed that is short enough to be typed.
fn chance() -> u64 {
    let mut bytes = [0; 4];
    OsRng.fill(&mut bytes);
    u64::from(u32::from_le_bytes(bytes))
}

/// Ready at Ctrl-C.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(speed("max"), Ok(f64::INFINITY));
        for bad in ["0", "-1", "NaN", "inf", "x", "1e12"] {
            assert!(seconds(bad).is_err() && speed(bad).is_err(), "{bad}");
        }
    }
}

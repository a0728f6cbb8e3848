//! Boot storms: mimeo beside a null server and NFS-Ganesha, under the same clients of `mimeo storm`.
//!
//! Recorded boots are replayed by 1 to 1,000 clients at once, each on a clone of its own: as fast as answers come,
//! cold and again. Then one storm of each is verified byte by byte, an open loop at 70 % of what each server could
//! take shows its latencies, and one greedy client shows what is left for the polite ones. The servers take turns;
//! each has the same cores, the generator the others, and each its data on an XFS of its own on the same disk.
//!
//! `bench/storm-compare` gets the golden folders and starts it with what it needs.

#[path = "storm/boots.rs"]
mod boots;
mod common;
#[path = "storm/fairness.rs"]
mod fairness;
#[path = "storm/load.rs"]
mod load;
#[path = "storm/open.rs"]
mod open;
#[path = "storm/proof.rs"]
mod proof;
#[path = "storm/stage.rs"]
mod stage;
#[path = "storm/storms.rs"]
mod storms;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Parser;

use boots::Boots;
use common::args::CommonArgs;
use common::ganesha::Script;
use common::null_server;
use common::process::{self, Cores};
use common::report::Report;
use load::Load;
use stage::Stage;
use storms::Storms;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// The operating system's tree that `os-tree.trace` is replayed on
    #[arg(long, value_name = "DIR", env = "MIMEO_BENCH_TREE")]
    tree: Option<PathBuf>,
    /// A folder with `disk0.img` of 1 GiB, which `vm-disk.trace` is replayed on
    #[arg(long, value_name = "DIR", env = "MIMEO_BENCH_DISKS")]
    disks: PathBuf,
    /// The script that starts NFS-Ganesha; without it there is no such
    #[arg(long, value_name = "FILE")]
    ganesha: Option<PathBuf>,
    /// NFS of NFS-Ganesha, MOUNT at the next one
    #[arg(long, default_value_t = 14049)]
    port: u16,
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1000])]
    clients: Vec<u32>,
    /// More clients than these do not boot from the tree: it is copied for each of them
    #[arg(long, default_value_t = 100)]
    tree_clients: u32,
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Rounds of storms with 1,000 clients or more
    #[arg(long, default_value_t = 1)]
    large_rounds: usize,
    /// Of each storm of the open loop, and of polite clients
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Clients of the open loop
    #[arg(long, default_value_t = 1000)]
    open_clients: u32,
    /// Polite clients beside one greedy one
    #[arg(long, default_value_t = 200)]
    polite: u32,
    /// Of each server's filesystem, a sparse file
    #[arg(long, default_value_t = 24)]
    gib: u64,
    #[arg(long, value_enum, default_value_t = Cores::Split)]
    cores: Cores,
    /// Where the reports and pages of the storms go
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/storm"))]
    out: PathBuf,
    /// Put the tables into this document, between its marks
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Only parts whose name contains this: boots, proof, open, fairness
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> Result<()> {
    if std::env::args().any(|argument| argument == null_server::FLAG) {
        return null_server::run();
    }
    let mut args = Args::parse();
    if args.common.quick {
        (args.clients, args.rounds, args.seconds, args.tree_clients) = (vec![1, 10], 1, 1, 4);
        (args.open_clients, args.polite) = (20, 10);
    }
    ensure!(args.rounds > 0 && args.large_rounds > 0 && args.seconds > 0, "nothing to measure");
    let scratch = args.common.scratch_dir()?;
    std::fs::create_dir_all(&args.out)?;
    let mut report = Report::new("storm", args.common.quick);
    let mut bench = Bench::set_up(args, scratch.path())?;
    bench.describe(&mut report);
    report.fact("load average of the machine before", load_average());
    let parts: [(&str, Part); 4] =
        [("boots", Bench::boots), ("proof", Bench::proof), ("open", Bench::open), ("fairness", Bench::fairness)];
    let only = bench.args.only.clone();
    for (_, measure) in parts.into_iter().filter(|(name, _)| name.contains(&only)) {
        measure(&mut bench, &mut report)?;
    }
    report.fact("load average at the end (this bench alone makes 1 to 2)", load_average());
    eprintln!("the storms' reports and pages are in {}", bench.args.out.display());
    bench.args.common.publish(&report)?;
    bench.args.into.as_ref().map_or(Ok(()), |document| report.write_into(document))
}

/// Of the last 1, 5 and 15 minutes.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(", ")
}

/// Measures something and adds it to the report.
type Part = fn(&mut Bench, &mut Report) -> Result<()>;

struct Bench {
    args: Args,
    loads: Vec<Load>,
    storms: Storms,
    stage: Stage,
    scratch: PathBuf,
}

impl Bench {
    fn set_up(args: Args, scratch: &Path) -> Result<Self> {
        let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/traces");
        let mut loads = vec![Load::new(("disk image", "vm-disk"), &traces, &args.disks, scratch, u32::MAX)?];
        if let Some(tree) = &args.tree {
            loads.push(Load::new(("OS tree", "os-tree"), &traces, tree, scratch, args.tree_clients)?);
        }
        let script = |path: &PathBuf| {
            anyhow::Ok(Script { path: path.canonicalize()?, scratch: scratch.join("ganesha"), port: args.port })
        };
        let ganesha = args.ganesha.as_ref().map(script).transpose()?;
        let (server_cores, generator_cores) = process::core_lists(args.cores).unzip();
        let storms = Storms { generator_cores, out: args.out.canonicalize()? };
        let stage = Stage::set_up(scratch, args.gib, ganesha, server_cores, &loads)?;
        Ok(Self { args, loads, storms, stage, scratch: scratch.to_owned() })
    }

    fn describe(&self, report: &mut Report) {
        let cores = match (&self.stage.server_cores, &self.storms.generator_cores) {
            (Some(server), Some(generator)) => format!("server {server}, generator {generator}"),
            _ => "shared by server and generator".to_owned(),
        };
        report.fact("cores", cores);
        let names: Vec<_> = self.stage.kinds().iter().map(|kind| kind.name()).collect();
        report.fact("servers, by turns", names.join(", "));
        for load in &self.loads {
            let what = format!(
                "{}, {:.1} MiB read, each byte once",
                load.trace.file_name().unwrap_or_default().display(),
                load.working_set as f64 / f64::from(1 << 20)
            );
            report.fact(load.name, what);
        }
    }

    fn boots(&mut self, report: &mut Report) -> Result<()> {
        let Self { args, loads, storms, stage, .. } = self;
        let mut boots = Boots::default();
        for load in loads {
            let bytes = boots.touch(stage, load)?;
            let what = format!("{:.1} MiB, decompressed", bytes as f64 / f64::from(1 << 20));
            report.fact(&format!("chunks that a boot from the {} touches", load.name), what);
            for clients in args.clients.iter().copied().filter(|clients| *clients <= load.most_clients) {
                let rounds = if clients >= 1000 { args.large_rounds } else { args.rounds };
                for round in 0..rounds {
                    let mut kinds = stage.kinds();
                    if round % 2 == 1 {
                        kinds.reverse();
                    }
                    for kind in kinds {
                        boots.round(stage, storms, load, (clients, round), kind)?;
                    }
                }
            }
        }
        boots.compare(storms)?;
        boots.tables().into_iter().for_each(|table| report.add(table));
        Ok(())
    }

    fn proof(&mut self, report: &mut Report) -> Result<()> {
        let clients = if self.args.common.quick { 4 } else { self.args.tree_clients };
        report.add(proof::run(&mut self.stage, &self.storms, &self.loads, clients, &self.scratch)?);
        Ok(())
    }

    fn open(&mut self, report: &mut Report) -> Result<()> {
        let Args { open_clients, seconds, .. } = self.args;
        report.add(open::run(&mut self.stage, &self.storms, &self.loads[0], open_clients, seconds)?);
        Ok(())
    }

    fn fairness(&mut self, report: &mut Report) -> Result<()> {
        let Args { polite, seconds, ref common, .. } = self.args;
        let mib = if common.quick { 64 } else { 1024 };
        report.add(fairness::run(&mut self.stage, &self.storms, &self.scratch, (polite, seconds, mib))?);
        Ok(())
    }
}

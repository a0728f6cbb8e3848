//! `mimeo fsck`: whether a store is in order. Works on the data directory itself, while no daemon runs.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::Global;
use super::output::{Output, count, fields, size};
use super::serve::absolute;
use crate::config::Config;
use crate::daemon::{DataDir, Stores, open_private_index};
use crate::env::Env;
use crate::error::{Error, ErrorKind};
use crate::maintain::fsck::{self, Checked, Options, Report, Violation};

#[derive(Args)]
pub(super) struct Fsck {
    /// Read and verify all data too: private writes, manifests and chunks
    #[arg(long)]
    read_data: bool,
}

pub(super) fn run(fsck: Fsck, global: &Global, output: &mut Output) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let path = absolute(&global.data)?;
    let env = Env::real();
    let dir = DataDir::open_existing(&path, &env)?;
    let report = runtime.block_on(check(&dir, &env, Options { read_data: fsck.read_data }))?;
    drop(dir);
    output.show(&Findings::of(&report), |findings| findings.text(&report.checked))?;
    if report.is_clean() {
        return Ok(());
    }
    output.finish()?;
    let what = format!("{} found in {}", count(report.total(), "violation"), path.display());
    Err(Error::corrupt(what).remedy("each has its remedy").into())
}

/// Open all stores as the daemon does, and check them.
async fn check(dir: &DataDir, env: &Env, options: Options) -> Result<Report, Error> {
    let stores = match Stores::open(dir, &Config::default(), env).await {
        Ok(stores) => stores,
        Err(error) if error.kind() == ErrorKind::Corrupt => return unopenable(dir, &error).await,
        Err(error) => return Err(error),
    };
    let report = fsck::check(&stores.catalog, &stores.overlays, stores.chunks.clone(), options).await;
    // If that fails, the next start replays.
    let _ = stores.close().await;
    report
}

/// Say at least which rows do not decode.
async fn unopenable(dir: &DataDir, error: &Error) -> Result<Report, Error> {
    let mut report = match open_private_index(dir).await {
        Ok(index) => fsck::check_rows(&*index)?,
        Err(_) => Report::default(),
    };
    report.add(Violation::unopenable(error));
    Ok(report)
}

/// The report as a document.
#[derive(Serialize)]
struct Findings {
    clean: bool,
    violations: Vec<Finding>,
    /// Violations beyond those that are listed.
    omitted: Vec<Omitted>,
    checked: Figures,
}

#[derive(Serialize)]
struct Finding {
    kind: &'static str,
    object: String,
    what: String,
    remedy: String,
}

#[derive(Serialize)]
struct Omitted {
    kind: &'static str,
    violations: u64,
}

#[derive(Serialize)]
struct Figures {
    versions: u64,
    clones: u64,
    snapshots: u64,
    views: u64,
    overlays: u64,
    overlays_reclaimable: u64,
    objects: u64,
    names: u64,
    bytes_private: u64,
    pieces_read: u64,
    chunks_read: u64,
}

impl Findings {
    fn of(report: &Report) -> Self {
        let finding = |violation: &Violation| Finding {
            kind: violation.kind(),
            object: violation.object(),
            what: violation.what(),
            remedy: violation.remedy(),
        };
        Self {
            clean: report.is_clean(),
            violations: report.violations().iter().map(finding).collect(),
            omitted: report.omitted().map(|(kind, violations)| Omitted { kind, violations }).collect(),
            checked: Figures::of(&report.checked),
        }
    }

    /// For people: a line for each violation, then what was looked at.
    fn text(&self, checked: &Checked) -> String {
        let lines = self.violations.iter().map(|v| format!("{}: {}; {}", v.object, v.what, v.remedy));
        let omitted = self.omitted.iter().map(|o| format!("... and {} more ({})", o.violations, o.kind));
        let lines: Vec<_> = lines.chain(omitted).chain([summary(checked)]).collect();
        lines.join("\n")
    }
}

impl Figures {
    fn of(checked: &Checked) -> Self {
        Self {
            versions: checked.versions,
            clones: checked.clones,
            snapshots: checked.snapshots,
            views: checked.views,
            overlays: checked.overlays,
            overlays_reclaimable: checked.overlays_reclaimable,
            objects: checked.objects,
            names: checked.names,
            bytes_private: checked.bytes,
            pieces_read: checked.pieces_read,
            chunks_read: checked.chunks_read,
        }
    }
}

fn summary(checked: &Checked) -> String {
    let read = match checked.pieces_read + checked.chunks_read {
        0 => "nothing (see --read-data)".to_owned(),
        _ => {
            format!("{} of private data, {}", count(checked.pieces_read, "piece"), count(checked.chunks_read, "chunk"))
        }
    };
    fields(&[
        ("versions", checked.versions.to_string()),
        ("clones", format!("{} with {}", checked.clones, count(checked.snapshots, "snapshot"))),
        ("views", checked.views.to_string()),
        ("overlays", format!("{}, of which {} can be given back", checked.overlays, checked.overlays_reclaimable)),
        (
            "private",
            format!(
                "{} in {} and {}",
                size(checked.bytes),
                count(checked.objects, "object"),
                count(checked.names, "name")
            ),
        ),
        ("data read", read),
    ])
}

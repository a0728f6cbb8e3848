//! `mimeo repoint`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use clap::builder::{NonEmptyStringValueParser as Name, OsStringValueParser as OsText, TypedValueParser};
use hyper::Method;

use super::client::Client;
use super::operations::{self, RolloutArgs};
use super::output::{Output, count, size, table, words};
use crate::admin::types::{ConflictInfo, Findings, RepointBody, RepointInfo, SwitchWords};
use crate::image::{path_bytes, path_words};

/// Clones that are named to people of those that were planned again.
const MAX_MOVED: usize = 20;

#[derive(Args)]
pub(super) struct Repoint {
    /// Whose clones: all of them, unless --select or --clone says which
    #[arg(value_parser = Name::new())]
    image: String,
    /// The version that they show from then on
    #[arg(long, value_name = "IMAGE@vN", value_parser = Name::new())]
    to: String,
    /// Only those whose labels match: k=v, k!=v, k, !k, separated by commas
    #[arg(long, value_name = "SELECTOR", conflicts_with = "clones")]
    select: Option<String>,
    /// Only these clones
    #[arg(long = "clone", value_name = "NAME", num_args = 1.., value_parser = Name::new())]
    clones: Vec<String>,
    /// Only the clones whose names are in this file, one a line; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["select", "clones"])]
    clones_from: Option<PathBuf>,
    /// Only N % of these, rounded up: which ones, a hash of their ids decides, so that 10 are a part of 20
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    percent: Option<u8>,
    #[command(flatten)]
    policy: SwitchArgs,
    /// So many clones may stay because of conflicts, marked as lagging; with more, nothing is switched
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_failures: usize,
    /// Only tell what would be done, wave by wave
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    rollout: RolloutArgs,
}

/// How clones are switched.
#[derive(Args)]
pub(super) struct SwitchArgs {
    /// What becomes of private writes: keep takes them along path by path; discard drops them after a
    /// snapshot; preserve keeps those below --path and discards the rest; stay leaves such clones as they
    /// are, marked as lagging [default: what the clone says, else its image, else keep]
    #[arg(long, value_parser = ["keep", "discard", "preserve", "stay", "default"])]
    writes: Option<String>,
    /// A path to preserve, with what is below it; `\xNN` is the byte NN
    #[arg(long = "path", value_name = "PATH", num_args = 1.., requires = "writes", value_parser = OsText::new().try_map(path_text))]
    paths: Vec<String>,
    /// Where a clone and the version changed the same: stop switches nothing; clone-wins keeps the clone's;
    /// image-wins shows the version's and saves the clone's beside it [default: as above, else stop]
    #[arg(long, value_parser = ["stop", "clone-wins", "image-wins", "default"])]
    conflict: Option<String>,
    /// When: live is at once, under live mounts; on-mount when a clone that nobody uses is mounted next
    /// [default: as above, else live]
    #[arg(long, value_parser = ["live", "on-mount", "default"])]
    activate: Option<String>,
}

/// A path in words; bytes that are no text are written as they are printed.
fn path_text(path: OsString) -> Result<String, &'static str> {
    if path.is_empty() { Err("a path must not be empty") } else { Ok(path_words(&path_bytes(path.as_bytes()))) }
}

impl From<SwitchArgs> for SwitchWords {
    fn from(args: SwitchArgs) -> Self {
        let SwitchArgs { writes, paths, conflict, activate } = args;
        Self { writes, paths, conflict, activate }
    }
}

pub(super) async fn run(repoint: Repoint, client: &mut Client, output: &mut Output) -> Result<()> {
    let Repoint { image, to, select, clones, clones_from, percent, policy, max_failures, dry_run, rollout } = repoint;
    let clones = clones_from.map_or(Ok(clones), |from| names_in(&from))?;
    let body = RepointBody { image, to, select, clones, percent, policy: policy.into(), max_failures, dry_run };
    if rollout.is_given() {
        return operations::start(rollout, body, client, output).await;
    }
    let done: RepointInfo = client.send(Method::POST, "/v1/repoint", &body).await?;
    output.show(&done, switched)
}

/// Names, one a line, in a file or, for `-`, on standard input.
pub(super) fn names_in(from: &Path) -> Result<Vec<String>> {
    let read = match from == Path::new("-") {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(from),
    };
    let text = read.with_context(|| format!("names of clones in {}", from.display()))?;
    let names: Vec<_> = text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    anyhow::ensure!(!names.is_empty(), "there are no names in {}; write one a line", from.display());
    Ok(names)
}

fn switched(done: &RepointInfo) -> String {
    let head = done.operation.as_deref().unwrap_or("dry run");
    let would = if done.dry_run { "would be " } else { "" };
    let mut text = format!("{head}: {} {would}switched to {}", count(done.clones, "clone"), done.version);
    let parts = [
        (done.unchanged, "showed it already"),
        (done.kept, "kept their private writes"),
        (done.preserved, "kept some paths"),
        (done.discarded, "lost their private writes"),
        (done.staged, "wait for their next mount"),
        (done.lagging, "stayed because of private writes"),
    ];
    for (n, what) in parts.iter().filter(|(n, _)| *n > 0) {
        text.push_str(&format!(", {n} {what}"));
    }
    if let Some(snapshot) = &done.snapshot {
        text.push_str(&format!("\nwhat clones with private writes showed before is kept in snapshot {snapshot}"));
    }
    if !done.moved.is_empty() {
        let more = match done.moved.len().saturating_sub(MAX_MOVED) {
            0 => String::new(),
            more => format!(" and {}", count(more as u64, "clone more")),
        };
        let moved = done.moved.iter().take(MAX_MOVED).map(String::as_str).collect::<Vec<_>>().join(" ");
        text.push_str(&format!("\nwritten or switched meanwhile, and planned again: {moved}{more}"));
    }
    text.push_str(&found(&done.findings));
    if let Some(refused) = &done.refused {
        text.push_str(&format!("\nwould be refused: {refused}"));
    }
    text
}

/// Each on lines of its own.
pub(super) fn found(findings: &Findings) -> String {
    let Findings { conflicts, conflicts_total, stuck, pins: _, bytes_refetched } = findings;
    let mut text = String::new();
    if let Some(bytes) = bytes_refetched {
        text.push_str(&format!("\nclients would fetch up to {} anew", size(*bytes)));
    }
    if *conflicts_total > 0 {
        let row = |c: &ConflictInfo| {
            vec![c.name.clone(), format!("/{}", c.path), c.clone.clone(), c.image.clone(), c.outcome.clone()]
        };
        text.push_str(&format!("\n{}:\n", count(*conflicts_total, "conflict")));
        text.push_str(&table(&["CLONE", "PATH", "IN THE CLONE", "IN THE IMAGE", "OUTCOME"], conflicts.iter().map(row)));
    }
    for stuck in stuck {
        text.push_str(&format!("\n{}: {}", stuck.name, stuck.why));
    }
    text
}

/// How clones are switched, as `set` takes it; empty where nothing is said.
pub(super) fn switch_policy(switch: &SwitchWords) -> String {
    let word = |flag: &str, word: &Option<String>| word.as_ref().map_or(String::new(), |word| format!("{flag} {word}"));
    let paths = switch.paths.iter().map(|path| format!("--path /{path}")).collect::<Vec<_>>().join(" ");
    let (writes, conflict) = (word("--writes", &switch.writes), word("--conflict", &switch.conflict));
    words(&[writes, paths, conflict, word("--activate", &switch.activate)])
}

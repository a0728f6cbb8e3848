//! `mimeo repoint`.

use anyhow::Result;
use clap::Args;
use clap::builder::NonEmptyStringValueParser as Name;
use hyper::Method;

use super::client::Client;
use super::output::{Output, count, size, table};
use crate::admin::types::{ConflictInfo, RepointBody, RepointInfo, SwitchWords};

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
    #[command(flatten)]
    policy: SwitchArgs,
    /// So many clones may stay because of conflicts, marked as lagging; with more, nothing is switched
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_failures: usize,
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
}

/// How clones are switched.
#[derive(Args)]
pub(super) struct SwitchArgs {
    /// What becomes of private writes: keep takes them along path by path; discard drops them after a
    /// snapshot; preserve keeps those below --path and discards the rest; stay leaves such clones as they
    /// are, marked as lagging [default: what the clone says, else its image, else keep]
    #[arg(long, value_parser = ["keep", "discard", "preserve", "stay"])]
    writes: Option<String>,
    /// A path to preserve, with what is below it
    #[arg(long = "path", value_name = "PATH", num_args = 1.., value_parser = Name::new())]
    paths: Vec<String>,
    /// Where a clone and the version changed the same: stop switches nothing; clone-wins keeps the clone's;
    /// image-wins shows the version's and saves the clone's beside it [default: as above, else stop]
    #[arg(long, value_parser = ["stop", "clone-wins", "image-wins"])]
    conflict: Option<String>,
    /// When: live is at once, under live mounts; on-mount when a clone that nobody uses is mounted next
    /// [default: as above, else live]
    #[arg(long, value_parser = ["live", "on-mount"])]
    activate: Option<String>,
}

impl From<SwitchArgs> for SwitchWords {
    fn from(args: SwitchArgs) -> Self {
        let SwitchArgs { writes, paths, conflict, activate } = args;
        Self { writes, paths, conflict, activate }
    }
}

pub(super) async fn run(repoint: Repoint, client: &mut Client, output: &mut Output) -> Result<()> {
    let Repoint { image, to, select, clones, policy, max_failures, dry_run } = repoint;
    let body = RepointBody { image, to, select, clones, policy: policy.into(), max_failures, dry_run };
    let done: RepointInfo = client.send(Method::POST, "/v1/repoint", &body).await?;
    output.show(&done, switched)
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
        (done.lagging, "stayed because of private writes"),
    ];
    for (n, what) in parts.iter().filter(|(n, _)| *n > 0) {
        text.push_str(&format!(", {n} {what}"));
    }
    if let Some(snapshot) = &done.snapshot {
        text.push_str(&format!("\nwhat clones with private writes showed before is kept in snapshot {snapshot}"));
    }
    if let Some(bytes) = done.bytes_refetched {
        text.push_str(&format!("\nclients would fetch up to {} anew", size(bytes)));
    }
    if !done.moved.is_empty() {
        text.push_str(&format!("\nwritten meanwhile and planned again: {}", done.moved.join(" ")));
    }
    if done.conflicts_total > 0 {
        let row = |c: &ConflictInfo| {
            vec![c.name.clone(), format!("/{}", c.path), c.clone.clone(), c.image.clone(), c.outcome.clone()]
        };
        text.push_str(&format!("\n{}:\n", count(done.conflicts_total, "conflict")));
        text.push_str(&table(
            &["CLONE", "PATH", "IN THE CLONE", "IN THE IMAGE", "OUTCOME"],
            done.conflicts.iter().map(row),
        ));
    }
    if let Some(refused) = &done.refused {
        text.push_str(&format!("\nwould be refused: {refused}"));
    }
    text
}

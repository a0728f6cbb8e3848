//! `mimeo repoint`.

use anyhow::Result;
use clap::Args;
use clap::builder::NonEmptyStringValueParser as Name;
use hyper::Method;

use super::client::Client;
use super::output::{Output, count};
use crate::admin::types::{RepointBody, RepointInfo, SwitchWords};

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
    let Repoint { image, to, select, clones, policy } = repoint;
    let body = RepointBody { image, to, select, clones, policy: policy.into() };
    let done: RepointInfo = client.send(Method::POST, "/v1/repoint", &body).await?;
    output.show(&done, switched)
}

fn switched(done: &RepointInfo) -> String {
    let already = match done.unchanged {
        0 => String::new(),
        n => format!(", {n} showed it already"),
    };
    let staying = match done.lagging {
        0 => String::new(),
        n => format!(", {n} stayed because of private writes"),
    };
    let kept = done.snapshot.as_ref().map_or(String::new(), |snapshot| {
        format!("\n{} had private writes, which are kept in snapshot {snapshot}", count(done.discarded, "clone"))
    });
    let switched = count(done.clones, "clone");
    format!("{}: {switched} switched to {}{already}{staying}{kept}", done.operation, done.version)
}

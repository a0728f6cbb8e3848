//! `mimeo clone snapshot`, `restore`, `fork`, ...: clones at a moment, and what is made of them.

use anyhow::Result;
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser as Name;
use hyper::Method;

use super::client::{Client, escape, selecting};
use super::clone::show;
use super::image::make_version;
use super::output::{Output, count, labels, local, size, table};
use crate::admin::types::{
    CloneInfo, ForkBody, LabelSnapshot, PromoteBody, Remove, Removed, RestoreBody, RestoreInfo, SnapshotInfo,
    SnapshotList, TakeSnapshots,
};

#[derive(Subcommand)]
pub(super) enum SnapshotCommand {
    /// Take a snapshot of a clone, or of many at the same instant
    #[command(allow_missing_positional = true)]
    Snapshot {
        #[arg(required_unless_present = "select", conflicts_with = "select", value_parser = Name::new())]
        clone: Option<String>,
        /// The name that it gets
        #[arg(required = true, value_parser = Name::new())]
        snapshot: String,
        /// Of all clones whose labels match: k=v, k!=v, k, !k, separated by commas
        #[arg(long, value_name = "SELECTOR")]
        select: Option<String>,
        /// Label; may be repeated
        #[arg(long = "label", value_name = "k=v")]
        labels: Vec<String>,
    },
    /// List the snapshots of a clone
    Snapshots {
        #[arg(value_parser = Name::new())]
        clone: String,
        /// Only those whose labels match: k=v, k!=v, k, !k, separated by commas
        #[arg(long, value_name = "SELECTOR")]
        select: Option<String>,
    },
    /// Remove snapshots of a clone: all of them or none
    RmSnapshot {
        #[arg(value_parser = Name::new())]
        clone: String,
        #[arg(value_name = "SNAPSHOT", required_unless_present = "select", value_parser = Name::new())]
        snapshots: Vec<String>,
        /// Those whose labels match: k=v, k!=v, k, !k, separated by commas
        #[arg(long, value_name = "SELECTOR", conflicts_with = "snapshots")]
        select: Option<String>,
    },
    /// Let a clone show what a snapshot of it holds; what it shows now is kept in another
    Restore {
        #[arg(value_parser = Name::new())]
        clone: String,
        #[arg(value_parser = Name::new())]
        snapshot: String,
    },
    /// Make a version of an image from what a clone shows now, or what a snapshot of it holds
    Promote {
        #[arg(value_name = "CLONE[@SNAPSHOT]", value_parser = Name::new())]
        source: String,
        /// The image; made if there is none of that name
        #[arg(value_parser = Name::new())]
        image: String,
        /// Label of the version; may be repeated
        #[arg(long = "label", value_name = "k=v")]
        labels: Vec<String>,
    },
    /// Make a clone of a clone as it is now, or as a snapshot of it is
    Fork {
        #[arg(value_name = "CLONE[@SNAPSHOT]", value_parser = Name::new())]
        source: String,
        #[arg(value_parser = Name::new())]
        new: String,
        /// Label of the new clone; may be repeated
        #[arg(long = "label", value_name = "k=v")]
        labels: Vec<String>,
    },
}

pub(super) async fn run(command: SnapshotCommand, client: &mut Client, output: &mut Output) -> Result<()> {
    match command {
        SnapshotCommand::Snapshot { clone, snapshot, select, labels } => {
            let body = TakeSnapshots { names: clone.into_iter().collect(), select, snapshot, labels };
            let taken: SnapshotList = client.send(Method::POST, "/v1/snapshots", &body).await?;
            output.show(&taken, show_taken)
        }
        SnapshotCommand::Snapshots { clone, select } => {
            let path = selecting(&path(&clone), select.as_deref());
            output.show(&client.get::<SnapshotList>(&path).await?, list)
        }
        SnapshotCommand::RmSnapshot { clone, snapshots, select } => {
            let body = Remove { names: snapshots, select };
            let removed: Removed = client.send(Method::DELETE, &path(&clone), &body).await?;
            output.show(&removed, |removed| format!("removed {}", count(removed.names.len() as u64, "snapshot")))
        }
        SnapshotCommand::Restore { clone, snapshot } => {
            let path = format!("/v1/clones/{}/restore", escape(&clone));
            let done: RestoreInfo = client.send(Method::POST, &path, &RestoreBody { snapshot }).await?;
            output.show(&done, show_restored)
        }
        SnapshotCommand::Promote { source, image, labels } => {
            let body = PromoteBody { source, image, labels };
            make_version(client, output, (&body.image, "made from the clone"), "/v1/promotions", &body).await
        }
        SnapshotCommand::Fork { source, new, labels } => {
            let body = ForkBody { source, name: new, labels };
            output.show(&client.send::<CloneInfo>(Method::POST, "/v1/forks", &body).await?, show)
        }
    }
}

/// Labels of one snapshot.
pub(super) async fn label(
    clone: &str,
    snapshot: &str,
    edits: Vec<String>,
    client: &mut Client,
    output: &mut Output,
) -> Result<()> {
    let path = format!("{}/{}", path(clone), escape(snapshot));
    let labelled: SnapshotInfo = client.send(Method::PATCH, &path, &LabelSnapshot { edits }).await?;
    output.show(&labelled, |info| format!("{}@{}: {}", info.clone, info.name, labels(&info.labels)))
}

fn path(clone: &str) -> String {
    format!("/v1/clones/{}/snapshots", escape(clone))
}

fn show_taken(taken: &SnapshotList) -> String {
    match taken.snapshots.as_slice() {
        [one] => format!("took snapshot {}@{} with {} private", one.clone, one.name, size(one.bytes_private)),
        many => format!("took snapshots of {} at one instant", count(many.len() as u64, "clone")),
    }
}

fn show_restored(done: &RestoreInfo) -> String {
    let RestoreInfo { operation, name, snapshot, before, .. } = done;
    format!("{operation}: clone {name} shows snapshot {snapshot}; what it showed before is in snapshot {before}")
}

fn list(list: &SnapshotList) -> String {
    let row = |snapshot: &SnapshotInfo| {
        vec![
            snapshot.name.clone(),
            snapshot.version.clone(),
            size(snapshot.bytes_private),
            labels(&snapshot.labels),
            local(&snapshot.created),
            snapshot.operation.clone().unwrap_or_default(),
        ]
    };
    let header = ["NAME", "VERSION", ">PRIVATE", "LABELS", "CREATED", "BEFORE"];
    table(&header, list.snapshots.iter().map(row))
}

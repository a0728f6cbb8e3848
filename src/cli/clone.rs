//! `mimeo clone ...`

use anyhow::Result;
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser as Name;
use hyper::Method;

use super::client::{Client, escape};
use super::output::{Output, count, fields, labels, local, table};
use crate::admin::types::{CloneInfo, CloneList, ClonesCreated, CreateClones, LabelClones, RemoveClones, Removed};

#[derive(Subcommand)]
pub(super) enum CloneCommand {
    /// Create clones of a version: all of them or none
    Create {
        /// Without a version or tag: the newest version
        #[arg(value_name = "IMAGE[@vN|@TAG]", value_parser = Name::new())]
        image: String,
        #[arg(value_name = "NAME", required_unless_present = "count", value_parser = Name::new())]
        names: Vec<String>,
        /// How many, with names from --name
        #[arg(long, value_name = "N", requires = "name", conflicts_with = "names")]
        count: Option<usize>,
        /// Pattern of the names: {} is the number, counted from 0, {:04} the number in four digits
        #[arg(long, value_name = "PATTERN", requires = "count")]
        name: Option<String>,
        /// Label; may be repeated
        #[arg(long = "label", value_name = "k=v")]
        labels: Vec<String>,
    },
    /// List clones
    Ls {
        /// Only those whose labels match: k=v, k!=v, k, !k, separated by commas
        #[arg(long, value_name = "SELECTOR")]
        select: Option<String>,
    },
    /// Show a clone
    Show {
        #[arg(value_parser = Name::new())]
        clone: String,
    },
    /// Remove clones: all of them or none
    Rm {
        #[arg(value_name = "CLONE", required = true, value_parser = Name::new())]
        clones: Vec<String>,
    },
    /// Set labels of a clone (k=v), or remove them (k-)
    Label {
        #[arg(value_parser = Name::new())]
        clone: String,
        /// k=v sets, k- removes
        #[arg(value_name = "k=v|k-", required = true)]
        edits: Vec<String>,
    },
}

pub(super) async fn run(command: CloneCommand, client: &mut Client, output: &mut Output) -> Result<()> {
    match command {
        CloneCommand::Create { image, names, count, name, labels } => {
            let body = CreateClones { image, names, pattern: name, count, labels };
            let created: ClonesCreated = client.send(Method::POST, "/v1/clones", &body).await?;
            output.show(&created, show_created)
        }
        CloneCommand::Ls { select } => {
            let query = select.map_or(String::new(), |select| format!("?select={}", escape(&select)));
            output.show(&client.get::<CloneList>(&format!("/v1/clones{query}")).await?, list)
        }
        CloneCommand::Show { clone } => {
            output.show(&client.get::<CloneInfo>(&format!("/v1/clones/{}", escape(&clone))).await?, show)
        }
        CloneCommand::Rm { clones } => {
            let removed: Removed = client.send(Method::DELETE, "/v1/clones", &RemoveClones { names: clones }).await?;
            output.show(&removed, |removed| format!("removed {}", count(removed.names.len() as u64, "clone")))
        }
        CloneCommand::Label { clone, edits } => {
            let body = LabelClones { names: vec![clone], edits };
            let labelled: CloneList = client.send(Method::PATCH, "/v1/clones", &body).await?;
            let line = |clone: &CloneInfo| format!("{}: {}", clone.name, labels(&clone.labels));
            output.show(&labelled, |list| list.clones.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
    }
}

fn show_created(created: &ClonesCreated) -> String {
    let which = match created.names.as_slice() {
        [one] => format!("clone {one}"),
        [first, .., last] => format!("{}, {first} to {last},", count(created.clones, "clone")),
        [] => count(0, "clone"),
    };
    format!("created {which} of {}", created.version)
}

fn list(list: &CloneList) -> String {
    let row = |clone: &CloneInfo| {
        vec![
            clone.name.clone(),
            clone.version.clone(),
            labels(&clone.labels),
            clone.pins.to_string(),
            local(&clone.switched),
        ]
    };
    table(&["NAME", "VERSION", "LABELS", ">PINS", "SWITCHED"], list.clones.iter().map(row))
}

fn show(clone: &CloneInfo) -> String {
    fields(&[
        ("name", clone.name.clone()),
        ("export", clone.export.clone()),
        ("version", clone.version.clone()),
        ("view", clone.view.to_string()),
        ("labels", labels(&clone.labels)),
        ("created", local(&clone.created)),
        ("switched", local(&clone.switched)),
        ("pins", clone.pins.to_string()),
    ])
}

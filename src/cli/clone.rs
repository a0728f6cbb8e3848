//! `mimeo clone ...`: clones as such; what is made of their snapshots is in `snapshot`.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser as Name;
use clap::{ArgGroup, Args, Subcommand};
use hyper::Method;

use super::activation;
use super::client::{Client, escape, selecting};
use super::diff;
use super::output::{Output, count, fields, labels, local, size, table};
use super::repoint::{SwitchArgs, switch_policy};
use super::snapshot::{self, SnapshotCommand};
use crate::admin::types::{
    CloneInfo, CloneList, ClonesCreated, CreateClones, LabelClones, PolicyInfo, Remove, Removed, SetClones, StagedInfo,
};

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
    /// List what a clone, or a snapshot of it, changed in its version: A added, M modified, D deleted
    Diff {
        #[arg(value_name = "CLONE[@SNAPSHOT]", value_parser = Name::new())]
        clone: String,
    },
    /// Remove clones with their snapshots: all of them or none
    Rm(Which),
    /// Make the switch that waits for clones (for their mount, or a time) now, under live mounts
    Activate(Which),
    /// Withdraw the switch that waits for clones
    Unstage(Which),
    /// Set labels of clones or of a snapshot (k=v), or remove them (k-)
    #[command(override_usage = "mimeo clone label <CLONE[@SNAPSHOT]> <k=v|k->...\n       \
                                mimeo clone label --select <SELECTOR> <k=v|k->...")]
    Label {
        /// All clones whose labels match: k=v, k!=v, k, !k, separated by commas
        #[arg(long, value_name = "SELECTOR")]
        select: Option<String>,
        /// The clone or the snapshot, unless --select is given; then k=v, which sets, or k-, which removes
        #[arg(value_name = "CLONE[@SNAPSHOT] k=v|k-", required = true, value_parser = Name::new())]
        arguments: Vec<String>,
    },
    /// Set who may use clones and how, how much they may hold, and how they are switched
    Set(Set),
    #[command(flatten)]
    Snapshot(SnapshotCommand),
}

/// Clones by name or by label.
#[derive(Args)]
pub(super) struct Which {
    #[arg(value_name = "CLONE", required_unless_present = "select", value_parser = Name::new())]
    clones: Vec<String>,
    /// Those whose labels match: k=v, k!=v, k, !k, separated by commas
    #[arg(long, value_name = "SELECTOR", conflicts_with = "clones")]
    select: Option<String>,
}

impl From<Which> for Remove {
    fn from(Which { clones, select }: Which) -> Self {
        Self { names: clones, select }
    }
}

/// What `clone set` sets; one of them at least.
const EDITS: [&str; 10] =
    ["allow", "ro", "rw", "squash", "privileged_port", "quota", "default", "writes", "conflict", "activate"];

#[derive(Args)]
#[command(group(ArgGroup::new("edits").args(EDITS).required(true).multiple(true)))]
pub(super) struct Set {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    policy: Policy,
}

#[derive(Args)]
#[group(skip)]
struct Policy {
    /// Network (or address) whose machines may use the clones, in place of the configured ones; may be repeated
    #[arg(long, value_name = "NET", value_parser = Name::new())]
    allow: Vec<String>,
    /// Serve them read-only
    #[arg(long, conflicts_with = "rw")]
    ro: bool,
    /// Serve them writable
    #[arg(long)]
    rw: bool,
    /// Whom to serve as the anonymous user
    #[arg(long, value_parser = ["none", "root", "all"])]
    squash: Option<String>,
    /// Whether to serve only source ports below 1024
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    privileged_port: Option<bool>,
    /// Most private bytes: a number, with K, M, G or T for powers of 1024; none takes the quota away
    #[arg(long, value_name = "BYTES|none", value_parser = quota)]
    quota: Option<Quota>,
    /// First of all, go back to what the configuration says (the quota stays)
    #[arg(long)]
    default: bool,
    #[command(flatten)]
    switch: SwitchArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quota {
    Bytes(u64),
    None,
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("write yes or no".into()),
    }
}

fn quota(text: &str) -> Result<Quota, String> {
    if text == "none" {
        return Ok(Quota::None);
    }
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text[digits.len()..].trim();
    let shift = match unit.trim_end_matches("iB") {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("unit {unit:?}; write K, M, G or T for powers of 1024")),
    };
    let number: u64 = digits.parse().map_err(|_| "write a whole number of bytes, such as 10G, or none".to_owned())?;
    let bytes = number.checked_mul(1 << shift).ok_or("too many bytes to count")?;
    Ok(Quota::Bytes(bytes))
}

pub(super) async fn run(command: CloneCommand, client: &mut Client, output: &mut Output) -> Result<()> {
    match command {
        CloneCommand::Create { image, names, count, name, labels } => {
            let body = CreateClones { image, names, pattern: name, count, labels };
            let created: ClonesCreated = client.send(Method::POST, "/v1/clones", &body).await?;
            output.show(&created, show_created)
        }
        CloneCommand::Ls { select } => {
            output.show(&client.get::<CloneList>(&selecting("/v1/clones", select.as_deref())).await?, list)
        }
        CloneCommand::Show { clone } => {
            output.show(&client.get::<CloneInfo>(&format!("/v1/clones/{}", escape(&clone))).await?, show)
        }
        CloneCommand::Diff { clone } => {
            diff::show(client, output, &format!("/v1/clones/{}/diff", escape(&clone))).await
        }
        CloneCommand::Activate(which) => activation::activate(which.into(), client, output).await,
        CloneCommand::Unstage(which) => activation::unstage(which.into(), client, output).await,
        CloneCommand::Rm(which) => {
            let removed: Removed = client.send(Method::DELETE, "/v1/clones", &Remove::from(which)).await?;
            output.show(&removed, |removed| format!("removed {}", count(removed.names.len() as u64, "clone")))
        }
        CloneCommand::Label { select, arguments } => label(select, arguments, client, output).await,
        CloneCommand::Set(set) => {
            let set: CloneList = client.send(Method::PATCH, "/v1/policies", &set_body(set)).await?;
            let line = |clone: &CloneInfo| format!("{}: {}", clone.name, policy(clone));
            output.show(&set, |list| list.clones.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        CloneCommand::Snapshot(command) => snapshot::run(command, client, output).await,
    }
}

async fn label(select: Option<String>, mut edits: Vec<String>, client: &mut Client, output: &mut Output) -> Result<()> {
    let names: Vec<_> = if select.is_some() { Vec::new() } else { edits.drain(..1).collect() };
    if edits.is_empty() {
        super::misused("no label to set (k=v) or to remove (k-) is given");
    }
    if let Some((clone, of)) = names.first().and_then(|name| name.split_once('@')) {
        return snapshot::label(clone, of, edits, client, output).await;
    }
    let body = LabelClones { names, select, edits };
    let labelled: CloneList = client.send(Method::PATCH, "/v1/clones", &body).await?;
    let line = |clone: &CloneInfo| format!("{}: {}", clone.name, labels(&clone.labels));
    output.show(&labelled, |list| list.clones.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn set_body(Set { which, policy }: Set) -> SetClones {
    let Policy { allow, ro, rw, squash, privileged_port, quota, default, switch } = policy;
    SetClones {
        names: which.clones,
        select: which.select,
        default,
        allow: (!allow.is_empty()).then_some(allow),
        read_only: (ro || rw).then_some(ro),
        squash,
        privileged_port,
        bytes_quota: quota.and_then(|quota| match quota {
            Quota::Bytes(bytes) => Some(bytes),
            Quota::None => None,
        }),
        no_quota: quota == Some(Quota::None),
        switch: switch.into(),
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
            size(clone.bytes_private),
            labels(&clone.labels),
            clone.pins.to_string(),
            clone.snapshots.to_string(),
            local(&clone.switched),
            clone.lagging.clone().unwrap_or_default(),
            clone.staged.as_ref().map_or(String::new(), |staged| staged.version.clone()),
        ]
    };
    let header =
        ["NAME", "VERSION", ">PRIVATE", "LABELS", ">PINS", ">SNAPSHOTS", "SWITCHED", "LAGGING BEHIND", "STAGED"];
    table(&header, list.clones.iter().map(row))
}

/// All about one clone.
pub(super) fn show(clone: &CloneInfo) -> String {
    let quota = clone.bytes_quota.map_or(String::new(), |bytes| format!(" of {}", size(bytes)));
    fields(&[
        ("name", clone.name.clone()),
        ("export", clone.export.clone()),
        ("version", clone.version.clone()),
        ("lagging behind", clone.lagging.clone().unwrap_or_default()),
        ("staged", clone.staged.as_ref().map_or(String::new(), staged)),
        ("blocked by", clone.blocked_by.join(", ")),
        ("view", clone.view.to_string()),
        ("private", format!("{}{quota} in {}", size(clone.bytes_private), count(clone.inodes_private, "object"))),
        ("layers", clone.layers.to_string()),
        ("fork depth", clone.depth.to_string()),
        ("policy", policy(clone)),
        ("labels", labels(&clone.labels)),
        ("created", local(&clone.created)),
        ("switched", local(&clone.switched)),
        ("pins", clone.pins.to_string()),
        ("snapshots", clone.snapshots.to_string()),
    ])
}

fn staged(staged: &StagedInfo) -> String {
    let due = staged.at.as_ref().map_or("its next mount".to_owned(), |at| local(at));
    format!("{} by {}, due at {due}", staged.version, staged.operation)
}

/// What `clone set` set, in its words.
fn policy(clone: &CloneInfo) -> String {
    let PolicyInfo { allow, read_only, squash, privileged_port } = &clone.policy;
    let mut words = Vec::new();
    words.extend(allow.iter().flatten().map(|net| format!("--allow {net}")));
    words.extend(read_only.map(|ro| if ro { "--ro" } else { "--rw" }.to_owned()));
    words.extend(squash.as_ref().map(|squash| format!("--squash {squash}")));
    words.extend(privileged_port.map(|yes| format!("--privileged-port {}", if yes { "yes" } else { "no" })));
    words.extend(clone.bytes_quota.map(|bytes| format!("--quota {}", size(bytes).replace(' ', ""))));
    words.extend(Some(switch_policy(&clone.switch)).filter(|switch| !switch.is_empty()));
    if words.is_empty() { "as configured".into() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_whole_numbers_of_bytes() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("10K", 10 << 10), ("3MiB", 3 << 20), ("2G", 2 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(quota(text), Ok(Quota::Bytes(bytes)), "{text}");
        }
        assert_eq!(quota("none"), Ok(Quota::None));
        for bad in ["", "G", "1.5G", "-1", "10KB", "10 parsecs", "99999999T"] {
            assert!(quota(bad).is_err(), "{bad}");
        }
    }
}

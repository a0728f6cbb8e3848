//! `mimeo ops`, and a repoint in waves.

use std::path::Path;

use anyhow::{Result, bail};
use clap::builder::NonEmptyStringValueParser as Text;
use clap::{Args, Subcommand};
use hyper::Method;

use super::client::{Client, broken_off, escape};
use super::output::{Output, count, fields, local, table, words};
use super::repoint::{found, names_in, switch_policy};
use crate::admin::types::{
    OperationBody, OperationClone, OperationClones, OperationDetail, OperationForecast, OperationInfo, OperationList,
    OutcomeCounts, RepointBody, RollbackBody, RollbackInfo, RolloutWords, WaveInfo,
};

/// Clones that `ops show` lists for people.
const MAX_SHOWN: usize = 100;

/// How a repoint gets from wave to wave.
#[derive(Args)]
#[command(next_help_heading = "Waves")]
pub(super) struct RolloutArgs {
    /// Switch wave by wave: N clones; N%, until so many of all are switched; those whose labels match; those
    /// named in clones:NAME,NAME or, one a line, in @FILE (@- is standard input). What the waves leave is the
    /// last one
    #[arg(long = "wave", value_name = "N|N%|SELECTOR|clones:NAME,NAME|@FILE", num_args = 1.., value_parser = Text::new())]
    waves: Vec<String>,
    /// What must hold after each wave, else the operation halts: a command that exits 0, an http:// URL that
    /// answers 2xx, or clients:N, so many clients seen reading from the wave; may be repeated
    #[arg(long = "gate", value_name = "CMD|URL|clients:N", value_parser = Text::new())]
    gates: Vec<String>,
    /// How long the gates are tried [default: 300]
    #[arg(long, value_name = "SECS")]
    gate_timeout: Option<u64>,
    /// Between two tries of a gate [default: 5]
    #[arg(long, value_name = "SECS")]
    gate_interval: Option<u64>,
    /// How long a wave is left alone before its gates are tried [default: 0]
    #[arg(long, value_name = "SECS")]
    soak: Option<u64>,
    /// What a failure does [default: halt]
    #[arg(long, value_parser = ["halt", "rollback"])]
    on_failure: Option<String>,
    /// Begin then: RFC 3339, or +2h from now. The clones are staged until then
    #[arg(long, value_name = "TIME", value_parser = Text::new())]
    at: Option<String>,
    /// Return at once, and let it go on by itself
    #[arg(long)]
    detach: bool,
}

impl RolloutArgs {
    /// Whether this is more than one switch at once.
    pub fn is_given(&self) -> bool {
        let Self { waves, gates, gate_timeout, gate_interval, soak, on_failure, at, detach } = self;
        let numbers = [gate_timeout, gate_interval, soak].iter().any(|number| number.is_some());
        !waves.is_empty() || !gates.is_empty() || numbers || on_failure.is_some() || at.is_some() || *detach
    }
}

/// Begin a repoint in waves, and follow it to its end; or tell what it would come to.
pub(super) async fn start(
    rollout: RolloutArgs,
    repoint: RepointBody,
    client: &mut Client,
    output: &mut Output,
) -> Result<()> {
    let RolloutArgs { waves, gates, gate_timeout, gate_interval, soak, on_failure, at, detach } = rollout;
    let detach = detach || at.is_some();
    let waves = waves.into_iter().map(wave_words).collect::<Result<_>>()?;
    let rollout = RolloutWords {
        gates,
        gate_timeout_secs: gate_timeout,
        gate_interval_secs: gate_interval,
        soak_secs: soak,
        on_failure,
    };
    let body = OperationBody { repoint, waves, rollout, at };
    if body.repoint.dry_run {
        let forecast: OperationForecast = client.send(Method::POST, "/v1/operations", &body).await?;
        return output.show(&forecast, predicted);
    }
    let begun: OperationInfo = client.send(Method::POST, "/v1/operations", &body).await?;
    if detach { output.show(&begun, in_a_line) } else { follow(&begun, client, output).await }
}

/// A file of names becomes a list of names.
fn wave_words(wave: String) -> Result<String> {
    match wave.strip_prefix('@') {
        Some(file) => Ok(format!("clones:{}", names_in(Path::new(file))?.join(","))),
        None => Ok(wave),
    }
}

/// A line on standard error for each wave; the document when it stands still.
async fn follow(begun: &OperationInfo, client: &mut Client, output: &mut Output) -> Result<()> {
    let mut lines = client.get_lines(&path(&begun.operation, "/follow")).await?;
    let (mut now, mut told) = (begun.clone(), 0);
    while let Some(step) = lines.next::<OperationInfo>().await? {
        let done: Vec<_> = step.waves.iter().filter(|wave| wave.switched_at.is_some()).collect();
        for wave in &done[told.min(done.len())..] {
            eprintln!("{}: wave {}/{}: {}", step.operation, wave.wave, step.waves.len(), outcome(&wave.outcome));
        }
        told = done.len();
        if step.state == "paused" && now.state != "paused" {
            eprintln!("{}: paused", step.operation);
        }
        now = step;
    }
    match now.state.as_str() {
        "done" => output.show(&now, in_a_line),
        "halted" | "rolled-back" | "aborted" => {
            let why = now.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
            bail!("{} is {}{why}; see `mimeo ops show {0}`", now.operation, now.state)
        }
        _ => Err(broken_off().context(format!("{} goes on by itself: mimeo ops show {0}", now.operation))),
    }
}

#[derive(Args)]
pub(super) struct Ops {
    #[command(subcommand)]
    command: Option<OpsCommand>,
}

#[derive(Subcommand)]
enum OpsCommand {
    /// List operations, newest first; so does `mimeo ops` alone
    Ls,
    /// Show an operation, its waves, and what became of its clones
    Show {
        #[arg(value_name = "op-N", value_parser = Text::new())]
        operation: String,
    },
    /// Let an operation stand still before its next step
    Pause {
        #[arg(value_name = "op-N", value_parser = Text::new())]
        operation: String,
    },
    /// Go on with an operation that is paused or halted; what failed is tried again
    Resume {
        #[arg(value_name = "op-N", value_parser = Text::new())]
        operation: String,
    },
    /// End an operation: what is switched stays, what is staged is withdrawn
    Abort {
        #[arg(value_name = "op-N", value_parser = Text::new())]
        operation: String,
    },
}

pub(super) async fn run(ops: Ops, client: &mut Client, output: &mut Output) -> Result<()> {
    let (operation, verb) = match ops.command {
        None | Some(OpsCommand::Ls) => {
            return output.show(&client.get::<OperationList>("/v1/operations").await?, list);
        }
        Some(OpsCommand::Show { operation }) => return show(&operation, client, output).await,
        Some(OpsCommand::Pause { operation }) => (operation, "/pause"),
        Some(OpsCommand::Resume { operation }) => (operation, "/resume"),
        Some(OpsCommand::Abort { operation }) => (operation, "/abort"),
    };
    let info: OperationInfo = client.send(Method::POST, &path(&operation, verb), &()).await?;
    output.show(&info, in_a_line)
}

#[derive(Args)]
pub(super) struct Rollback {
    /// The operation that is undone
    #[arg(value_name = "op-N", value_parser = Text::new())]
    operation: String,
    /// So many clones may stay as they are, because something else has switched them since; with more,
    /// nothing is rolled back
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_failures: usize,
}

pub(super) async fn roll_back(rollback: Rollback, client: &mut Client, output: &mut Output) -> Result<()> {
    let Rollback { operation, max_failures } = rollback;
    let body = RollbackBody { max_failures };
    let done: RollbackInfo = client.send(Method::POST, &path(&operation, "/rollback"), &body).await?;
    output.show(&done, |done| {
        let left: Vec<_> =
            done.left.iter().map(|left| format!("\n{} stays as it is: {}", left.name, left.why)).collect();
        let RollbackInfo { operation, rollback_of, clones, .. } = done;
        let clones = count(*clones, "clone");
        format!(
            "{operation}: {clones} as before {rollback_of}; to undo that: mimeo rollback {operation}{}",
            left.concat()
        )
    })
}

async fn show(operation: &str, client: &mut Client, output: &mut Output) -> Result<()> {
    let info: OperationInfo = client.get(&path(operation, "")).await?;
    let clones: OperationClones = client.get(&path(operation, "/clones")).await?;
    output.show(&OperationDetail { operation: info, clones }, detail)
}

fn path(operation: &str, verb: &str) -> String {
    format!("/v1/operations/{}{verb}", escape(operation))
}

fn in_a_line(info: &OperationInfo) -> String {
    let to = info.version.as_ref().unwrap_or(&info.image);
    let what = outcome(&info.outcome);
    let waves = match info.waves.len() {
        0 | 1 => String::new(),
        n => format!(" in {}", count(n as u64, "wave")),
    };
    format!(
        "{}: {} of {} to {to}{waves}: {}; {what}",
        info.operation,
        info.kind,
        count(info.clones, "clone"),
        state(info)
    )
}

/// `3 switched, 1 failed`.
fn outcome(counts: &OutcomeCounts) -> String {
    let OutcomeCounts { switched, kept, preserved, discarded, staged, unchanged, lagging, failed, gone } = counts;
    let some = |parts: &[(&u64, &str)]| -> Vec<String> {
        parts.iter().filter(|(n, _)| **n > 0).map(|(n, word)| format!("{n} {word}")).collect()
    };
    let private = some(&[(kept, "kept"), (preserved, "preserved"), (discarded, "discarded")]).join(", ");
    let private = if private.is_empty() { private } else { format!(" ({private})") };
    let others =
        [(staged, "staged"), (unchanged, "unchanged"), (lagging, "lagging"), (failed, "failed"), (gone, "gone")];
    [vec![format!("{switched} switched{private}")], some(&others)].concat().join(", ")
}

fn state(info: &OperationInfo) -> String {
    let wave = info.wave.filter(|_| info.waves.len() > 1).map_or(String::new(), |wave| format!(" (wave {wave})"));
    match (&info.at, info.state.as_str()) {
        (Some(at), "scheduled") => format!("scheduled for {}", local(at)),
        (_, word) => format!("{word}{wave}"),
    }
}

fn list(list: &OperationList) -> String {
    let row = |info: &OperationInfo| {
        let wave = info.wave.map_or(String::new(), |wave| format!("{wave}/{}", info.waves.len()));
        vec![
            info.operation.clone(),
            info.kind.clone(),
            info.image.clone(),
            info.version.clone().unwrap_or_default(),
            info.state.clone(),
            wave,
            format!("{}/{}", info.outcome.switched, info.clones),
            info.outcome.failed.to_string(),
            local(&info.since),
        ]
    };
    let header = ["ID", "KIND", "IMAGE", "TO", "STATE", ">WAVE", ">SWITCHED", ">FAILED", "SINCE"];
    table(&header, list.operations.iter().map(row))
}

fn detail(detail: &OperationDetail) -> String {
    let info = &detail.operation;
    let rollout = &info.rollout;
    let head = fields(&[
        ("operation", words(&[info.operation.clone(), info.kind.clone()])),
        ("to", info.version.clone().unwrap_or_else(|| info.image.clone())),
        ("state", state(info)),
        ("why", info.why.clone().unwrap_or_default()),
        ("clones", format!("{}: {}", info.clones, outcome(&info.outcome))),
        ("policy", switch_policy(&info.switch)),
        ("gates", rollout.gates.join(", ")),
        ("on failure", rollout.on_failure.clone().unwrap_or_default()),
        ("rollback of", info.rollback_of.clone().unwrap_or_default()),
        ("rolled back by", info.rolled_back_by.clone().unwrap_or_default()),
        ("made by", info.who.clone()),
        ("created", local(&info.created)),
        ("since", local(&info.since)),
    ]);
    let (waves, clones) = (waves(&info.waves), clones(&detail.clones.clone_states));
    format!("{head}\n\n{waves}\n\n{clones}")
}

fn predicted(forecast: &OperationForecast) -> String {
    let info = OperationInfo { operation: "dry run".into(), ..forecast.operation.clone() };
    let begins = info.at.as_deref().map_or(String::new(), |at| format!("\nit would begin at {}", local(at)));
    let why = info.why.as_ref().map_or(String::new(), |why| format!("\nit would fail: {why}"));
    let row = |wave: &WaveInfo| {
        let what = match info.wave {
            Some(last) if wave.wave == last => "fails, nothing of it is switched".to_owned(),
            Some(last) if wave.wave > last => "is not reached".to_owned(),
            _ => outcome(&wave.outcome),
        };
        vec![wave.wave.to_string(), wave.clones.to_string(), what]
    };
    let waves = table(&[">WAVE", ">CLONES", "OUTCOME"], info.waves.iter().map(row));
    format!("{}{begins}{why}{}\n\n{waves}", in_a_line(&info), found(&forecast.findings))
}

fn waves(waves: &[WaveInfo]) -> String {
    let row = |wave: &WaveInfo| {
        let what = wave.switched_at.as_ref().map_or("waiting".to_owned(), |_| outcome(&wave.outcome));
        let at = wave.switched_at.as_deref().map_or(String::new(), local);
        vec![wave.wave.to_string(), wave.clones.to_string(), at, what]
    };
    table(&[">WAVE", ">CLONES", "SWITCHED", "OUTCOME"], waves.iter().map(row))
}

/// First those that are not as they should be, and no more than people read.
fn clones(clones: &[OperationClone]) -> String {
    let usual = |clone: &OperationClone| {
        matches!(clone.state.as_str(), "switched" | "kept" | "preserved" | "discarded" | "unchanged" | "waiting")
    };
    let mut sorted: Vec<_> = clones.iter().collect();
    sorted.sort_by_key(|clone| usual(clone));
    let row = |clone: &&OperationClone| {
        vec![
            clone.name.clone(),
            clone.wave.to_string(),
            clone.state.clone(),
            clone.version.clone().unwrap_or_default(),
            clone.target.clone().unwrap_or_default(),
            clone.lagging_since.as_deref().map_or(String::new(), local),
            clone.why.clone().unwrap_or_default(),
        ]
    };
    let header = ["CLONE", ">WAVE", "STATE", "VERSION", "TO", "LAGGING SINCE", "WHY"];
    let text = table(&header, sorted.iter().take(MAX_SHOWN).map(row));
    match sorted.len().saturating_sub(MAX_SHOWN) {
        0 => text,
        more => format!("{text}\nand {more} more: --json lists all"),
    }
}

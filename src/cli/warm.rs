//! `mimeo warm`: bringing a version, or what a trace read of it, into the daemon's cache.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::client::{Client, broken_off, refused};
use super::output::{Output, count, size};
use super::trace;
use crate::admin::types::{WarmBody, WarmFile, WarmInfo, WarmLine};
use crate::trace::{Call, NodeId, Trace, Verb, WorkingSet};

const TEMPLATE: &str = "{prefix} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec}";

#[derive(Args)]
pub(super) struct Warm {
    /// The version: IMAGE@vN or IMAGE@TAG
    #[arg(value_name = "IMAGE@VERSION")]
    version: String,
    /// Only what this recording read, found by path
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

pub(super) async fn run(command: Warm, client: &mut Client, output: &mut Output) -> Result<()> {
    let Warm { version, trace } = command;
    let files = trace.map(|file| trace::read(&file)).transpose()?.map(|trace| files(&trace));
    let info = follow(client, &WarmBody { version: version.clone(), files }).await;
    output.show(&info.with_context(|| format!("{version} was not warmed"))?, text)
}

/// What a trace read, and what it only looked at, by path; without what its client made itself, and what has no
/// place.
fn files(trace: &Trace) -> Vec<WarmFile> {
    let set = WorkingSet::of(trace);
    let ranges: BTreeMap<_, _> = set.files().collect();
    let nodes = trace.made().into_iter().zip(0..).filter(|(made, _)| !made).map(|(_, number)| NodeId(number));
    let file = |node| {
        let ranges = ranges.get(&node).map_or(Vec::new(), |ranges| ranges.iter().map(|r| (r.start, r.end)).collect());
        Some(WarmFile { path: trace.path(node)?, ranges })
    };
    nodes.filter_map(file).collect()
}

/// What a trace read, in the order in which it did: of files next to each other, each once.
pub(super) fn in_order(trace: &Trace) -> Vec<WarmFile> {
    let mut parts: Vec<(NodeId, WarmFile)> = Vec::new();
    for op in trace.ops() {
        let Call::Object { object, verb: Verb::Read { offset, got, .. } } = op.call else { continue };
        let range = (offset, offset.saturating_add(u64::from(got)));
        match parts.last_mut() {
            _ if got == 0 => {}
            Some((last, file)) if *last == object => file.ranges.push(range),
            _ => parts.extend(trace.path(object).map(|path| (object, WarmFile { path, ranges: vec![range] }))),
        }
    }
    parts.into_iter().map(|(_, part)| part).collect()
}

async fn follow(client: &mut Client, body: &WarmBody) -> Result<WarmInfo> {
    let style = ProgressStyle::with_template(TEMPLATE)?.progress_chars("=> ");
    let bar = ProgressBar::new(0).with_style(style).with_prefix(body.version.clone());
    let mut lines = client.post_lines("/v1/warm", body).await?;
    while let Some(line) = lines.next().await? {
        match line {
            WarmLine::Progress { bytes_wanted, bytes_done } => {
                bar.set_length(bytes_wanted);
                bar.set_position(bytes_done);
            }
            WarmLine::Done(info) => {
                bar.finish_and_clear();
                return Ok(info);
            }
            WarmLine::Error(info) => {
                bar.finish_and_clear();
                return Err(refused(info));
            }
        }
    }
    bar.finish_and_clear();
    Err(broken_off())
}

fn text(info: &WarmInfo) -> String {
    let mut text = format!(
        "{}: {} in {} wanted, {} read from disk, {:.1} s",
        info.version,
        size(info.bytes),
        count(info.chunks, "chunk"),
        size(info.bytes_loaded),
        info.millis as f64 / 1000.0,
    );
    if info.objects_missing > 0 {
        let named = info.missing.join(", ");
        let more = if info.objects_missing > info.missing.len() as u64 { ", ..." } else { "" };
        text += &format!("\n{} of the trace not in this version: {named}{more}", count(info.objects_missing, "object"));
    }
    if info.bytes_left_out > 0 {
        text += &format!("\n{} left out: the cache is full; raise cache.bytes", size(info.bytes_left_out));
    }
    let gone = (info.bytes - info.bytes_left_out).saturating_sub(info.bytes_cached);
    if gone > 0 {
        text += &format!("\n{} did not stay: clients ask for more than the cache holds; raise cache.bytes", size(gone));
    }
    text
}

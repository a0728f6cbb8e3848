//! `mimeo trace`: recording what clients do with a clone, and showing what a recording holds.
//!
//! A recording is written under another name and gets its own when it is whole.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Subcommand;
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use textplots::{Chart, Plot, Shape};
use tokio::signal::unix::{SignalKind, signal};

use super::Global;
use super::client::{Client, Lines, broken_off, escape, refused};
use super::output::{Output, count, fields, local, size, table};
use crate::admin::types::{TraceInfo, TraceLine};
use crate::env::Time;
use crate::error::ErrorKind;
use crate::trace::{Call, Header, Item, Op, Totals, Trace, Verb, WorkingSet, Writer};

/// The drawing of a trace, in dots of which a character has two by four.
const DOTS_WIDE: u32 = 140;
const DOTS_HIGH: u32 = 40;
/// Bars of it.
const BARS: usize = 70;

#[derive(Subcommand)]
pub(super) enum TraceCommand {
    /// Record what clients ask of a clone, until Ctrl-C or for a time: start it, then boot the client
    Record {
        clone: String,
        /// The file [default: CLONE.trace]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// For how long: 90s, 5m, 1h
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        length: Option<Duration>,
        /// What is to be remembered of the client, such as its kernel
        #[arg(long, value_name = "TEXT", default_value = "")]
        client: String,
    },
    /// Show what a recording holds: operations by kind, bytes, the working set, and all that over time
    Show { file: PathBuf },
}

/// `90s`, `5m 30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let span = text.parse::<jiff::SignedDuration>().map_err(|e| format!("{e}; write 90s, 5m or 1h"))?;
    Duration::try_from(span).map_err(|_| "write a time to come, such as 90s".into())
}

/// Show a recording; needs no daemon.
pub(super) fn show(file: &Path, output: &mut Output) -> Result<()> {
    let trace = read(file)?;
    output.show(&info(file, &trace), |info| text(info, &trace))
}

/// The trace in `file`.
pub(super) fn read(file: &Path) -> Result<Trace> {
    let name = file.display().to_string();
    let from = File::open(file).with_context(|| format!("cannot open trace {name}"))?;
    Ok(Trace::read(&name, BufReader::new(from))?)
}

pub(super) async fn record(
    (clone, out): (&str, Option<PathBuf>),
    (length, note): (Option<Duration>, &str),
    global: &Global,
    output: &mut Output,
) -> Result<()> {
    let out = out.unwrap_or_else(|| format!("{clone}.trace").into());
    let secs = length.map_or(String::new(), |length| format!("&secs={}", length.as_secs().max(1)));
    let path = format!("/v1/clones/{}/trace", escape(clone));
    let mut lines = Client::connect(global).await?.get_lines(&format!("{path}?client={}{secs}", escape(note))).await?;
    let Some(TraceLine::Header(header)) = lines.next().await? else { return Err(broken_off()) };
    let part = out.with_extension("trace-part");
    // From here on Ctrl-C ends the recording, not the program.
    let mut interrupt = signal(SignalKind::interrupt())?;
    eprintln!("recording clone {clone}, which shows {}; Ctrl-C ends it", header.version);
    let end = async {
        interrupt.recv().await;
        Client::connect(global).await?.send::<()>(Method::DELETE, &path, &()).await
    };
    let recorded = receive(&mut lines, &header, &part, end).await;
    let kept = recorded.and_then(|()| std::fs::rename(&part, &out).context("the trace cannot get its name"));
    if kept.is_err() {
        // What is not whole is of no use; the error is told.
        let _ = std::fs::remove_file(&part);
    }
    kept.with_context(|| format!("trace {} was not written", out.display()))?;
    let trace = read(&out)?;
    output.show(&info(&out, &trace), |info| summary(info))
}

/// Write what comes, until it ends; `end` makes that so.
async fn receive(lines: &mut Lines, header: &Header, part: &Path, end: impl Future<Output = Result<()>>) -> Result<()> {
    let to = File::create(part).with_context(|| format!("cannot make {}", part.display()))?;
    let mut writer = Writer::new(BufWriter::new(to), header)?;
    let (mut tally, mut ended) = (Tally::new()?, false);
    tokio::pin!(end);
    let lost = loop {
        let line = tokio::select! {
            line = lines.next() => line?.ok_or_else(broken_off)?,
            done = &mut end, if !ended => {
                done?;
                ended = true;
                continue;
            }
        };
        match line {
            TraceLine::Header(_) => bail!("the daemon began a second recording"),
            TraceLine::Item(item) => tally.take(&mut writer, &item)?,
            TraceLine::Done { lost } => break lost,
            TraceLine::Error(info) => return Err(refused(info)),
        }
    };
    tally.bar.finish_and_clear();
    let file = writer.finish(lost + tally.lost)?.into_inner().map_err(|e| anyhow!("{}", e.error()))?;
    Ok(file.sync_all()?)
}

/// What came so far, drawn on a terminal.
struct Tally {
    bar: ProgressBar,
    ops: u64,
    bytes: u64,
    /// Came after the trace was full.
    lost: u64,
    full: bool,
}

impl Tally {
    fn new() -> Result<Self> {
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
        Ok(Self { bar, ops: 0, bytes: 0, lost: 0, full: false })
    }

    fn take<W: Write>(&mut self, writer: &mut Writer<W>, item: &Item) -> Result<()> {
        if !self.full {
            match writer.item(item) {
                Err(error) if error.kind() == ErrorKind::Invalid => self.full = true,
                written => written?,
            }
        }
        if let Item::Op(op) = item {
            self.lost += u64::from(self.full);
            self.ops += 1;
            self.bytes += read_by(op);
            self.bar.set_message(format!("{}, {} read", count(self.ops, "operation"), size(self.bytes)));
        }
        Ok(())
    }
}

fn read_by(op: &Op) -> u64 {
    match op.call {
        Call::Object { verb: Verb::Read { got, .. }, .. } => got.into(),
        _ => 0,
    }
}

fn info(file: &Path, trace: &Trace) -> TraceInfo {
    let (totals, set) = (Totals::of(trace), WorkingSet::of(trace));
    TraceInfo {
        trace: file.display().to_string(),
        version: trace.header.version.clone(),
        clone: trace.header.clone.clone(),
        client: trace.header.client.clone(),
        started: Time::new(i64::try_from(trace.header.started_secs).unwrap_or(i64::MAX), 0).rfc3339(),
        millis: totals.micros / 1000,
        operations: totals.ops,
        operations_failed: totals.failed,
        operations_lost: trace.lost,
        procedures: totals.by_procedure.into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
        bytes_read: totals.bytes_read,
        bytes_written: totals.bytes_written,
        bytes_working_set: set.bytes(),
        files_read: set.files().count() as u64,
    }
}

/// `boot.trace: debian@v3, 4258 operations in 12.3 s, ...`
fn summary(info: &TraceInfo) -> String {
    let lost = if info.operations_lost == 0 { String::new() } else { format!(", {} lost", info.operations_lost) };
    format!(
        "{}: {}, {} in {:.1} s{lost}; {} read, of {} in {}",
        info.trace,
        info.version,
        count(info.operations, "operation"),
        info.millis as f64 / 1000.0,
        size(info.bytes_read),
        size(info.bytes_working_set),
        count(info.files_read, "file"),
    )
}

fn text(info: &TraceInfo, trace: &Trace) -> String {
    let client = if info.client.is_empty() { "not noted".to_owned() } else { info.client.clone() };
    let head = fields(&[
        ("version", info.version.clone()),
        ("clone", info.clone.clone()),
        ("client", client),
        ("started", local(&info.started)),
        ("length", format!("{:.1} s", info.millis as f64 / 1000.0)),
        (
            "operations",
            format!("{} ({} failed, {} lost)", info.operations, info.operations_failed, info.operations_lost),
        ),
        ("read", size(info.bytes_read)),
        ("written", size(info.bytes_written)),
        ("working set", format!("{} in {}", size(info.bytes_working_set), count(info.files_read, "file"))),
    ]);
    let mut kinds: Vec<_> = info.procedures.iter().collect();
    kinds.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let kinds = table(&["PROCEDURE", ">CALLS"], kinds.into_iter().map(|(name, n)| vec![name.clone(), n.to_string()]));
    let secs = info.millis as f64 / 1000.0;
    let calls = drawn("calls a second", secs, trace, |_| 1.0);
    let read = drawn("MiB read a second", secs, trace, |op| read_by(op) as f64 / f64::from(1 << 20));
    format!("{head}\n\n{kinds}\n\n{calls}\n{read}")
}

/// What operations add up to, over time.
fn drawn(title: &str, secs: f64, trace: &Trace, of: impl Fn(&Op) -> f64) -> String {
    let first = trace.ops().first().map_or(0, |op| op.at_micros);
    let width = (secs / BARS as f64).max(1e-6);
    let mut sums = vec![0.0; BARS];
    for op in trace.ops() {
        let bar = (op.at_micros - first) as f64 / 1e6 / width;
        sums[(bar as usize).min(BARS - 1)] += of(op);
    }
    let point = |(i, sum): (usize, &f64)| ((i as f64 * width) as f32, (*sum / width) as f32);
    let points: Vec<(f32, f32)> = sums.iter().enumerate().map(point).collect();
    let bars = Shape::Bars(&points);
    let mut chart = Chart::new(DOTS_WIDE, DOTS_HIGH, 0.0, secs.max(1e-6) as f32);
    let chart = chart.lineplot(&bars);
    chart.axis();
    chart.figures();
    format!("{title}, over seconds\n{chart}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_people_do() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "90", "soon", "-3s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}

//! What differs between two versions: an answer of lines, made while it is sent.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{Query, State};
use axum::response::Response;
use crossbeam_channel::{Receiver, Sender, bounded};
use futures_util::stream;
use serde::Deserialize;

use super::Context;
use super::reply::{Refused, error_info, line, lines};
use super::types::{DiffEntry, DiffLine};
use crate::error::{Error, Result};
use crate::image::VersionRef;
use crate::manifest::{self, Change, ChangeKind, ManifestId};

/// Text that is gathered before it goes to the client, in bytes.
const BATCH: usize = 64 * 1024;
/// Batches that wait for the client; then the comparison waits.
const MAX_BATCHES: usize = 4;

#[derive(Deserialize)]
pub(super) struct Pair {
    a: String,
    b: String,
}

pub(super) async fn diff(State(cx): State<Arc<Context>>, Query(pair): Query<Pair>) -> Result<Response, Refused> {
    let (old, new) = (find(&cx, &pair.a)?, find(&cx, &pair.b)?);
    let (batches, gathered) = bounded(MAX_BATCHES);
    let runtime = tokio::runtime::Handle::current();
    // A thread that may block, since it waits for the client.
    tokio::task::spawn_blocking(move || runtime.block_on(compare(&cx, old, new, Lines::to(batches))));
    Ok(lines(HttpBody::from_stream(stream::unfold(gathered, next_batch))))
}

fn find(cx: &Context, name: &str) -> Result<ManifestId> {
    let version: VersionRef = name.parse()?;
    Ok(cx.catalog.state().find_version(&version)?.manifest)
}

async fn next_batch(gathered: Receiver<Bytes>) -> Option<(Result<Bytes, std::convert::Infallible>, Receiver<Bytes>)> {
    let waiting = tokio::task::spawn_blocking(move || gathered.recv().ok().map(|batch| (Ok(batch), gathered)));
    waiting.await.ok().flatten()
}

async fn compare(cx: &Context, old: ManifestId, new: ManifestId, mut lines: Lines) {
    let mut visit = |change: Change| {
        let entry = DiffEntry { change: letter(change.kind).into(), path: escaped(&change.path) };
        Ok(lines.push(&DiffLine::Entry(entry)))
    };
    let outcome = manifest::diff(&*cx.chunks, &old, &new, &mut visit).await;
    let last = match outcome {
        Ok(()) => DiffLine::Done(lines.count),
        Err(error) => DiffLine::Error(error_info(&broken_off(error))),
    };
    // Whoever went away does not want the last line either.
    let _ = lines.push(&last);
    let _ = lines.flush();
}

fn broken_off(error: Error) -> Error {
    Error::new(error.kind(), "the comparison broke off").because(error)
}

/// Lines on their way to the client, in batches.
struct Lines {
    batches: Sender<Bytes>,
    text: Vec<u8>,
    count: u64,
}

impl Lines {
    fn to(batches: Sender<Bytes>) -> Self {
        Self { batches, text: Vec::new(), count: 0 }
    }

    /// Breaks when the client is gone. Blocks while it is slow.
    fn push(&mut self, document: &DiffLine) -> ControlFlow<()> {
        self.count += 1;
        self.text.extend_from_slice(&line(document));
        if self.text.len() >= BATCH { self.flush() } else { ControlFlow::Continue(()) }
    }

    fn flush(&mut self) -> ControlFlow<()> {
        let batch = Bytes::from(std::mem::take(&mut self.text));
        if self.batches.send(batch).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

fn letter(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "A",
        ChangeKind::Removed => "D",
        ChangeKind::Modified { .. } => "M",
    }
}

/// `path` as printable ASCII; all other bytes, and the backslash, as `\xNN`.
pub(super) fn escaped(path: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(path.len());
    for byte in path {
        match byte {
            b' '..=b'~' if *byte != b'\\' => text.push(char::from(*byte)),
            _ => write!(text, "\\x{byte:02x}").expect("writing to a string cannot fail"),
        }
    }
    if text.is_empty() { ".".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_print_as_one_line_of_ascii() {
        assert_eq!(escaped(b"usr/bin/a b~"), "usr/bin/a b~");
        assert_eq!(escaped(b"gr\xc3\xbcn\n\\"), "gr\\xc3\\xbcn\\x0a\\x5c");
        assert_eq!(escaped(b""), ".");
    }
}

//! What differs between two versions, or between a clone and its version: an answer of lines, made while
//! it is sent.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use crossbeam_channel::{Receiver, Sender, bounded};
use futures_util::stream;
use serde::Deserialize;

use super::Context;
use super::reply::{Refused, error_info, line, lines};
use super::types::{DiffEntry, DiffLine, DiffTotals};
use crate::error::{Error, Result};
use crate::image::VersionRef;
use crate::manifest::{self, Change, ChangeKind, ManifestId};
use crate::overlay::diff::Difference;

/// Text that is gathered before it goes to the client, in bytes.
const BATCH: usize = 64 * 1024;
/// Batches that wait for the client; then the comparison waits.
const MAX_BATCHES: usize = 4;

#[derive(Deserialize)]
pub(super) struct Pair {
    a: String,
    b: String,
}

/// What differs between two versions.
pub(super) async fn diff(State(cx): State<Arc<Context>>, Query(pair): Query<Pair>) -> Result<Response, Refused> {
    let (old, new) = (find(&cx, &pair.a)?, find(&cx, &pair.b)?);
    let runtime = tokio::runtime::Handle::current();
    let (mut lines, response) = Lines::answer();
    // A thread that may block, since it waits for the client.
    tokio::task::spawn_blocking(move || {
        let mut visit = |change: Change| Ok(lines.entry(&change, None));
        let outcome = runtime.block_on(manifest::diff(&*cx.chunks, &old, &new, &mut visit));
        lines.end(outcome);
    });
    Ok(response)
}

fn find(cx: &Context, name: &str) -> Result<ManifestId> {
    let version: VersionRef = name.parse()?;
    Ok(cx.catalog.state().find_version(&version)?.manifest)
}

/// What a clone or a snapshot has that its version has not.
pub(super) async fn diff_clone(State(cx): State<Arc<Context>>, Path(name): Path<String>) -> Result<Response, Refused> {
    let look = cx.fleet.look(&name.parse()?).await?;
    let private = look.private().await?;
    let (mut lines, response) = Lines::answer();
    tokio::task::spawn_blocking(move || {
        let mut visit = |found: Difference| Ok(lines.entry(&found.change, Some(found.bytes_private)));
        let outcome = look.diff(&*cx.chunks, &private, &mut visit);
        lines.totals.bytes_private = outcome.as_ref().ok().copied();
        lines.end(outcome.map(drop));
    });
    Ok(response)
}

async fn next_batch(gathered: Receiver<Bytes>) -> Option<(Result<Bytes, std::convert::Infallible>, Receiver<Bytes>)> {
    let waiting = tokio::task::spawn_blocking(move || gathered.recv().ok().map(|batch| (Ok(batch), gathered)));
    waiting.await.ok().flatten()
}

fn broken_off(error: Error) -> Error {
    Error::new(error.kind(), "the comparison broke off").because(error)
}

/// Lines on their way to the client, in batches.
struct Lines {
    batches: Sender<Bytes>,
    text: Vec<u8>,
    totals: DiffTotals,
}

impl Lines {
    /// Lines, and the answer that sends them.
    fn answer() -> (Self, Response) {
        let (batches, gathered) = bounded(MAX_BATCHES);
        let this = Self { batches, text: Vec::new(), totals: DiffTotals::default() };
        (this, lines(HttpBody::from_stream(stream::unfold(gathered, next_batch))))
    }

    fn entry(&mut self, change: &Change, bytes_private: Option<u64>) -> ControlFlow<()> {
        self.totals.add(change);
        self.push(&DiffLine::Entry(entry(change, bytes_private)))
    }

    /// Send what is left, and the last line.
    fn end(&mut self, outcome: Result<()>) {
        let last = match outcome {
            Ok(()) => DiffLine::Done(self.totals.clone()),
            Err(error) => DiffLine::Error(error_info(&broken_off(error))),
        };
        // Whoever went away does not want the last line either.
        let _ = self.push(&last);
        let _ = self.flush();
    }

    /// Breaks when the client is gone. Blocks while it is slow.
    fn push(&mut self, document: &DiffLine) -> ControlFlow<()> {
        self.text.extend_from_slice(&line(document));
        if self.text.len() >= BATCH { self.flush() } else { ControlFlow::Continue(()) }
    }

    fn flush(&mut self) -> ControlFlow<()> {
        let batch = Bytes::from(std::mem::take(&mut self.text));
        if self.batches.send(batch).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

impl DiffTotals {
    fn add(&mut self, change: &Change) {
        let paths = match change.kind {
            ChangeKind::Added => &mut self.paths_added,
            ChangeKind::Removed => &mut self.paths_removed,
            ChangeKind::Modified { .. } => &mut self.paths_changed,
        };
        *paths += 1;
        self.bytes_old = self.bytes_old.saturating_add(change.bytes_old);
        self.bytes_new = self.bytes_new.saturating_add(change.bytes_new);
    }
}

fn entry(change: &Change, bytes_private: Option<u64>) -> DiffEntry {
    let (letter, what) = match change.kind {
        ChangeKind::Added => ("A", Vec::new()),
        ChangeKind::Removed => ("D", Vec::new()),
        ChangeKind::Modified { data, attrs, file_type } => {
            ("M", [(data, "data"), (attrs, "attributes"), (file_type, "type")].to_vec())
        }
    };
    let what = what.into_iter().filter(|(is, _)| *is).map(|(_, word)| word.to_owned()).collect();
    let (bytes_old, bytes_new) = (change.bytes_old, change.bytes_new);
    DiffEntry { change: letter.into(), what, bytes_old, bytes_new, bytes_private, path: escaped(&change.path) }
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

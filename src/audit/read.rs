//! Reading the audit log: the two lines of a change become one entry.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::line::Line;
use super::{failed, numbers, path_of};
use crate::env::{Disk, Time};
use crate::error::Result;

/// Most entries of one answer.
pub const MAX_ENTRIES: usize = 10_000;
/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;

/// Which entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not those from before.
    pub since: Option<Time>,
    /// Only so many, the newest; at most 10,000 in any case.
    pub tail: Option<usize>,
}

/// A change, or something that mimeo did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was asked for: RFC 3339, UTC.
    pub time: String,
    /// `uid N`, or `mimeo`.
    pub who: String,
    pub pid: Option<u32>,
    pub from: String,
    pub action: String,
    pub request: Value,
    pub before: Value,
    /// `done`, `failed`, or `unknown`: it is under way, or a crash broke it off.
    pub outcome: String,
    pub error: Option<String>,
    pub operation: Option<String>,
    pub after: Value,
}

/// The newest entries that pass, oldest first. Reads all files, in pieces; memory is bounded by the answer.
pub(super) fn entries(disk: &dyn Disk, dir: &Path, filter: &Filter) -> Result<Vec<Entry>> {
    let since = filter.since.map(Time::rfc3339);
    let mut newest = Newest::new(filter.tail.unwrap_or(MAX_ENTRIES).min(MAX_ENTRIES));
    for number in numbers(disk, dir)? {
        let path = path_of(dir, number);
        let file = match disk.open(&path) {
            // It was one too many in the meantime.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            opened => opened.map_err(|e| failed(&path, e))?,
        };
        let bytes = file.len().map_err(|e| failed(&path, e))?;
        let (mut at, mut rest) = (0, Vec::new());
        while at < bytes {
            let len = PIECE.min(usize::try_from(bytes - at).unwrap_or(PIECE));
            let begin = rest.len();
            rest.resize(begin + len, 0);
            file.read_at(&mut rest[begin..], at).map_err(|e| failed(&path, e))?;
            at += len as u64;
            take_lines(&mut rest, |line| newest.take(line, since.as_deref()));
        }
    }
    Ok(newest.entries.into())
}

/// Hand out the whole lines of `text`, and leave what follows the last.
fn take_lines(text: &mut Vec<u8>, mut take: impl FnMut(Line)) {
    let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else { return };
    for line in text[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(line) => take(line),
            Err(error) => tracing::warn!(%error, "a damaged line in the audit log was skipped"),
        }
    }
    text.drain(..=end);
}

/// The last entries, of which the outcomes may still come.
struct Newest {
    entries: VecDeque<Entry>,
    max: usize,
    /// How many were dropped at the front.
    dropped: usize,
    /// Those without an outcome, by number: where they are, counted from the first ever.
    open: HashMap<u64, usize>,
}

impl Newest {
    fn new(max: usize) -> Self {
        Self { entries: VecDeque::new(), max, dropped: 0, open: HashMap::new() }
    }

    fn take(&mut self, line: Line, since: Option<&str>) {
        let Line { id, time, actor, action, request, before, outcome, error, operation, after } = line;
        let Some((actor, action)) = actor.zip(action) else {
            let at = self.open.remove(&id).and_then(|at| at.checked_sub(self.dropped));
            if let Some(entry) = at.and_then(|at| self.entries.get_mut(at)) {
                let outcome = outcome.unwrap_or_default();
                (entry.outcome, entry.error, entry.operation, entry.after) = (outcome, error, operation, after);
            }
            return;
        };
        // Text of one form sorts as the times do.
        if since.is_some_and(|since| *time < *since) || self.max == 0 {
            return;
        }
        if outcome.is_none() {
            self.open.insert(id, self.dropped + self.entries.len());
        }
        let outcome = outcome.unwrap_or_else(|| "unknown".into());
        let (who, pid, from) = (actor.who, actor.pid, actor.from);
        self.entries.push_back(Entry {
            time,
            who,
            pid,
            from,
            action,
            request,
            before,
            outcome,
            error,
            operation,
            after,
        });
        if self.entries.len() > self.max {
            self.entries.pop_front();
            self.dropped += 1;
        }
    }
}

//! The audit log: who changed what, from where, and what it was before and after.
//!
//! Owns `DATA/audit/`: files of JSON lines, `00000001.jsonl` and on, the newest appended to. A change makes
//! two lines that have one number: that it was asked for, written before anything is done, and what became
//! of it, synced before it is answered; callers who wait at the same time share one sync.
//!
//! Invariants: nothing is changed whose first line cannot be written; nothing is answered as done whose lines
//! are not on stable storage; lines, their parts, the files and their number are bounded, the oldest file
//! goes first.
//!
//! Failure story: a change that a crash broke off has no outcome in the log: the catalog knows. The line that
//! a crash cut is told as damaged and skipped. While lines cannot be written, changes are refused, each after
//! another try; reading and serving go on. After a failed sync the next line begins another file.

mod line;
mod read;
#[cfg(test)]
mod tests;

pub use line::{Actor, Deed, MAX_LINE, Outcome, summary};
pub use read::{Entry, Filter};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::line::Line;
use crate::env::{Clock, Disk, DiskFile, Env, create_dir_durably};
use crate::error::{Error, ErrorKind, Result};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// A file is followed by the next when it has so many bytes.
    pub file_bytes: u64,
    /// Of more files the oldest go.
    pub files: usize,
}

/// The log of one data directory, or none at all ([`AuditLog::none`]).
pub struct AuditLog {
    store: Option<Store>,
}

struct Store {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    bounds: Bounds,
    tail: Mutex<Tail>,
    /// How many lines are on stable storage. Held while a sync runs: who waits for it finds that done.
    synced: Mutex<u64>,
}

/// Where the next line goes.
struct Tail {
    /// `None` before the first line, and after a failure.
    file: Option<Arc<dyn DiskFile>>,
    /// Of the newest file; 0 if there is none.
    number: u64,
    bytes: u64,
    /// An append to the newest file failed: it may end with a part of a line.
    torn: bool,
    /// Lines so far.
    lines: u64,
    /// Of the lines up to this one nobody knows whether they are there, unless they were synced before.
    doubtful: u64,
    next_id: u64,
}

/// A change that was asked for, and has no outcome yet.
#[must_use = "its outcome belongs into the log"]
pub struct Asked {
    log: Arc<AuditLog>,
    id: u64,
}

impl AuditLog {
    /// A log that keeps nothing, for what works without one.
    pub fn none() -> Arc<Self> {
        Arc::new(Self { store: None })
    }

    /// Open the log in `dir`, which is made if it is not there. Blocks.
    pub fn open(env: &Env, dir: PathBuf, bounds: Bounds) -> Result<Arc<Self>> {
        create_dir_durably(&*env.disk, &dir).map_err(|e| failed(&dir, e))?;
        let number = numbers(&*env.disk, &dir)?.last().copied().unwrap_or(0);
        // No two starts are in one millisecond, nor has one a million lines for each of its milliseconds.
        let next_id = env.clock.now().millis().min(u64::MAX >> 20) << 20;
        let mut tail = Tail { file: None, number, bytes: 0, torn: false, lines: 0, doubtful: 0, next_id };
        if number > 0 {
            tail.resume(&*env.disk, &path_of(&dir, number)).map_err(|e| failed(&dir, e))?;
        }
        let (disk, clock) = (env.disk.clone(), env.clock.clone());
        let store = Store { disk, clock, dir, bounds, tail: Mutex::new(tail), synced: Mutex::new(0) };
        Ok(Arc::new(Self { store: Some(store) }))
    }

    /// Note that a change is asked for. Must be done before the change.
    pub async fn ask(self: &Arc<Self>, deed: Deed) -> Result<Asked> {
        let (log, id) = (self.clone(), self.new_id());
        self.blocking(move |store| store.append(&Line::asked(id, store.clock.now(), &deed)).map(drop)).await?;
        Ok(Asked { log, id })
    }

    /// The newest entries that pass, oldest first.
    pub async fn entries(self: &Arc<Self>, filter: Filter) -> Result<Vec<Entry>> {
        let log = self.clone();
        let read = move || match &log.store {
            Some(store) => read::entries(&*store.disk, &store.dir, &filter),
            None => Ok(Vec::new()),
        };
        tokio::task::spawn_blocking(read).await.map_err(|e| Error::internal("reading the audit log").because(e))?
    }

    fn new_id(&self) -> u64 {
        let Some(store) = &self.store else { return 0 };
        let mut tail = store.tail.lock();
        tail.next_id += 1;
        tail.next_id
    }

    async fn blocking(self: &Arc<Self>, work: impl FnOnce(&Store) -> Result<()> + Send + 'static) -> Result<()> {
        let log = self.clone();
        let work = move || log.store.as_ref().map_or(Ok(()), work);
        tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("writing the audit log").because(e))?
    }
}

impl Asked {
    /// Note what became of it. Ends when that is on stable storage.
    pub async fn done(self, outcome: Outcome) -> Result<()> {
        let id = self.id;
        self.log.blocking(move |store| store.write(&Line::done(id, store.clock.now(), &outcome))).await
    }
}

impl Store {
    /// Append a line and wait until it is on stable storage.
    fn write(&self, line: &Line) -> Result<()> {
        let number = self.append(line)?;
        let mut synced = self.synced.lock();
        if *synced >= number {
            return Ok(());
        }
        let (file, lines, doubtful) = {
            let tail = self.tail.lock();
            (tail.file.clone(), tail.lines, tail.doubtful)
        };
        let Some(file) = file.filter(|_| number > doubtful) else {
            return Err(self.refused(std::io::Error::other("another line could not be written")));
        };
        // Of files before this one everything was synced, or is doubtful.
        if let Err(error) = file.sync() {
            self.tail.lock().fail(false);
            return Err(self.refused(error));
        }
        *synced = lines;
        Ok(())
    }

    /// Append a line; answers how many there are with it.
    fn append(&self, line: &Line) -> Result<u64> {
        let text = line.to_text();
        let mut tail = self.tail.lock();
        let file = self.file_for(&mut tail, text.len() as u64).map_err(|error| self.refused(error))?;
        if let Err(error) = file.append(&text) {
            tail.fail(true);
            return Err(self.refused(error));
        }
        tail.bytes += text.len() as u64;
        tail.lines += 1;
        Ok(tail.lines)
    }

    /// The file that takes the next line, of so many bytes.
    fn file_for(&self, tail: &mut Tail, bytes: u64) -> std::io::Result<Arc<dyn DiskFile>> {
        match tail.file.clone() {
            Some(file) if tail.bytes + bytes <= self.bounds.file_bytes => Ok(file),
            Some(full) => {
                full.sync().inspect_err(|_| tail.fail(false))?;
                let file = self.begin_file(tail)?;
                self.remove_oldest()?;
                Ok(file)
            }
            None if tail.torn => tail.resume(&*self.disk, &path_of(&self.dir, tail.number)),
            None => self.begin_file(tail),
        }
    }

    fn begin_file(&self, tail: &mut Tail) -> std::io::Result<Arc<dyn DiskFile>> {
        let number = tail.number + 1;
        let file = match self.disk.create(&path_of(&self.dir, number)) {
            // Begun before, when its name could not be synced.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                self.disk.open(&path_of(&self.dir, number))?
            }
            created => created?,
        };
        self.disk.sync_dir(&self.dir)?;
        (tail.number, tail.bytes, tail.file) = (number, 0, Some(file.clone()));
        Ok(file)
    }

    /// Remove the files that are too many.
    fn remove_oldest(&self) -> std::io::Result<()> {
        let names = self.disk.list(&self.dir)?;
        let ours: Vec<_> = names.iter().filter(|name| parse_name(name).is_some()).collect();
        let too_many = ours.len().saturating_sub(self.bounds.files);
        // Names sort as numbers do, up to a hundred million files.
        ours.into_iter().take(too_many).try_for_each(|name| self.disk.unlink(&self.dir.join(name)))
    }

    fn refused(&self, cause: std::io::Error) -> Error {
        tracing::error!("audit log {}: {cause}", self.dir.display());
        let kind = match cause.kind() {
            std::io::ErrorKind::StorageFull => ErrorKind::NoSpace,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, format!("the audit log in {} cannot be written", self.dir.display()))
            .because(cause)
            .remedy("changes are refused until it can: free space, or see to its disk")
    }
}

impl Tail {
    /// An append or a sync of the newest file failed.
    fn fail(&mut self, torn: bool) {
        (self.file, self.torn, self.doubtful) = (None, torn, self.lines);
    }

    /// Go on with the newest file. A part of a line at its end is ended.
    fn resume(&mut self, disk: &dyn Disk, path: &Path) -> std::io::Result<Arc<dyn DiskFile>> {
        let file = disk.open(path)?;
        let mut bytes = file.len()?;
        let mut last = [b'\n'];
        if bytes > 0 {
            file.read_at(&mut last, bytes - 1)?;
        }
        if last != [b'\n'] {
            file.append(b"\n")?;
            bytes += 1;
        }
        (self.bytes, self.torn, self.file) = (bytes, false, Some(file.clone()));
        Ok(file)
    }
}

fn failed(dir: &Path, cause: std::io::Error) -> Error {
    Error::io(format!("audit log {}", dir.display()), cause)
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.jsonl"))
}

fn parse_name(name: &str) -> Option<u64> {
    name.strip_suffix(".jsonl")?.parse().ok()
}

/// The numbers of the files, ascending.
fn numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>> {
    let names = disk.list(dir).map_err(|e| failed(dir, e))?;
    let mut numbers: Vec<_> = names.iter().filter_map(|name| parse_name(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

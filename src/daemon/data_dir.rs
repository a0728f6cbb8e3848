//! The data directory: whose it is, which format it has, and who holds it.
//!
//! Owns `DATA/FORMAT` (text: what this directory is) and `DATA/lock` (held with flock(2) while a
//! daemon runs; its content, the holder's process id, is for people). Invariants: nothing is written
//! to a directory that is neither ours nor empty; `FORMAT` appears whole or not at all, and before
//! anything that it describes; at most one process is past [`DataDir::open`].
//!
//! Failure story: a first start that died leaves at most `lock` and `FORMAT.new`, which the next
//! start recognises and completes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::env::{Env, create_dir_durably};
use crate::error::{Error, ErrorKind, Result};

/// The format of the data directory that this program writes, and the only one that it reads: there
/// was no release with an older one.
pub const FORMAT: u32 = 3;

const FORMAT_FILE: &str = "FORMAT";
const FORMAT_DRAFT: &str = "FORMAT.new";
const LOCK_FILE: &str = "lock";
const FIRST_LINE: &str = "mimeo store";
/// Names that an unused directory may hold: what an interrupted first start leaves, and what a
/// fresh filesystem has.
const UNUSED: [&str; 3] = [LOCK_FILE, FORMAT_DRAFT, "lost+found"];
/// `FORMAT` is a few lines; a longer file is not ours.
const MAX_FORMAT_BYTES: u64 = 4096;

/// A data directory that this process holds until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    id: String,
    /// Closing it gives the directory up.
    _lock: File,
}

impl DataDir {
    /// Open the directory at `path`, or make a new one where there is none or an empty one.
    ///
    /// # Errors
    /// `Invalid` for a directory that is not ours or that a newer program wrote, `Unavailable` for one
    /// that another process holds, `Corrupt` for a damaged `FORMAT`.
    pub fn open(path: &Path, env: &Env) -> Result<Self> {
        let named = || format!("data directory {}", path.display());
        create_dir_durably(&*env.disk, path).map_err(|e| Error::io(named(), e))?;
        refuse_foreign(path, env)?;
        let lock = take_lock(path)?;
        // Again, under the lock: another first start may have completed meanwhile.
        let id = match read_format(path, env)? {
            Some(text) => parse_format(path, &text)?,
            None => create_format(path, env)?,
        };
        Ok(Self { path: path.to_owned(), id, _lock: lock })
    }

    /// Open a directory that was opened before: makes none, and `NotFound` where there is none.
    pub fn open_existing(path: &Path, env: &Env) -> Result<Self> {
        if read_format(path, env)?.is_some() {
            return Self::open(path, env);
        }
        Err(Error::not_found(format!("there is no mimeo data directory at {}", path.display()))
            .remedy("name one with --data"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// 32 hexadecimal digits that tell this directory from every other.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Refuse a directory with something in it that is not a store. Writes nothing.
fn refuse_foreign(path: &Path, env: &Env) -> Result<()> {
    let names = env.disk.list(path).map_err(|e| Error::io(format!("data directory {}", path.display()), e))?;
    if names.iter().any(|name| name == FORMAT_FILE) {
        return read_format(path, env)?.map_or(Ok(()), |text| parse_format(path, &text).map(drop));
    }
    match names.iter().find(|name| !UNUSED.contains(&name.as_str())) {
        None => Ok(()),
        Some(stranger) => Err(Error::invalid(format!(
            "{} is not a mimeo data directory: it has {stranger:?}, but no {FORMAT_FILE} file",
            path.display()
        ))
        .remedy("name an empty or a new directory with --data")),
    }
}

fn take_lock(path: &Path) -> Result<File> {
    let lock_path = path.join(LOCK_FILE);
    let failed = |e: std::io::Error| Error::io(format!("lock file {}", lock_path.display()), e);
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(held(path, &mut file)),
        Err(errno) => return Err(failed(errno.into())),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

/// The error for a directory that another process holds.
fn held(path: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    // The text is a hint: if it cannot be read, the lock still says enough.
    let _ = file.take(32).read_to_string(&mut text);
    let holder = text.trim().parse::<u32>().map_or("another process".to_owned(), |pid| format!("process {pid}"));
    Error::new(ErrorKind::Unavailable, format!("data directory {} is held by {holder}", path.display()))
        .remedy("stop that daemon first, or name another directory with --data")
}

fn read_format(path: &Path, env: &Env) -> Result<Option<String>> {
    let path = path.join(FORMAT_FILE);
    let failed = |e: std::io::Error| Error::io(path.display().to_string(), e);
    let file = match env.disk.open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let len = file.len().map_err(failed)?;
    if len > MAX_FORMAT_BYTES {
        return Err(damaged(&path, "it is too long"));
    }
    let mut text = vec![0; len as usize];
    file.read_at(&mut text, 0).map_err(failed)?;
    String::from_utf8(text).map(Some).map_err(|_| damaged(&path, "it is not text"))
}

/// The id in a `FORMAT` text that this program reads.
fn parse_format(path: &Path, text: &str) -> Result<String> {
    let file = path.join(FORMAT_FILE);
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(Error::invalid(format!("{} is not that of a mimeo data directory", file.display()))
            .remedy("name another directory with --data"));
    }
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(" = ")).collect();
    let field = |key| fields.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
    let format: u32 =
        field("format").and_then(|v| v.parse().ok()).ok_or_else(|| damaged(&file, "it names no format"))?;
    if format > FORMAT {
        return Err(Error::invalid(format!(
            "data directory {} was written by a newer mimeo: format {format}, this binary reads up to {FORMAT}",
            path.display()
        ))
        .remedy("start that newer version, or name another directory with --data"));
    }
    if format < FORMAT {
        return Err(Error::invalid(format!(
            "data directory {} has format {format}, this mimeo reads {FORMAT} only",
            path.display()
        ))
        .remedy("start the mimeo that wrote it, or import into a new directory"));
    }
    field("id").map(str::to_owned).ok_or_else(|| damaged(&file, "it names no id"))
}

fn damaged(file: &Path, how: &str) -> Error {
    Error::corrupt(format!("{} is damaged: {how}", file.display()))
        .remedy("restore the file from a backup of the directory")
}

/// Make the directory ours. The last step of it is the one that counts.
fn create_format(path: &Path, env: &Env) -> Result<String> {
    let mut bytes = [0; 16];
    env.rng.fill(&mut bytes);
    let id: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let text = format!("{FIRST_LINE}\nformat = {FORMAT}\nid = {id}\n");
    write_format(path, env, &text).map_err(|e| Error::io(format!("making data directory {}", path.display()), e))?;
    Ok(id)
}

fn write_format(path: &Path, env: &Env, text: &str) -> std::io::Result<()> {
    let draft = path.join(FORMAT_DRAFT);
    match env.disk.unlink(&draft) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = env.disk.create(&draft)?;
    file.append(text.as_bytes())?;
    file.sync()?;
    env.disk.rename(&draft, &path.join(FORMAT_FILE))?;
    env.disk.sync_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<DataDir> {
        DataDir::open(path, &Env::real())
    }

    #[test]
    fn a_new_directory_keeps_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let id = open(&path).unwrap().id().to_owned();
        assert_eq!(id.len(), 32);
        assert_eq!(open(&path).unwrap().id(), id);
    }

    #[test]
    fn what_an_interrupted_first_start_left_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOCK_FILE), "12").unwrap();
        std::fs::write(dir.path().join(FORMAT_DRAFT), "mimeo st").unwrap();
        open(dir.path()).unwrap();
        open(dir.path()).unwrap();
    }

    #[test]
    fn a_foreign_directory_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let error = open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("thesis.tex"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_is_held_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        let error = open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        open(dir.path()).unwrap();
    }

    #[test]
    fn a_newer_format_and_a_damaged_one_are_refused() {
        for (text, expected) in [
            ("mimeo store\nformat = 4\nid = 00\n", "reads up to 3"),
            ("mimeo store\nformat = 1\nid = 00\n", "reads 3 only"),
            ("mimeo store\nid = 00\n", "names no format"),
            ("mimeo store\nformat = 3\n", "names no id"),
            ("", "not that of a mimeo"),
            ("something else\n", "not that of a mimeo"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FORMAT_FILE), text).unwrap();
            let error = open(dir.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}

//! Phase 1, the walk: path order, one note per name, one job per file.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Sender;

use super::source::{self, Root, Stamp};
use super::stage::{self, Node, NodeNo};
use super::{Progress, changed};
use crate::chunk::Session;
use crate::error::{Error, Result};
use crate::manifest::{FileKind, MAX_NAME, MAX_SYMLINK};

/// Deepest directory below the root.
const MAX_DEPTH: usize = 2048;

/// A regular file to be read.
pub struct FileJob {
    pub node: NodeNo,
    pub path: PathBuf,
    pub stamp: Stamp,
    pub size: u64,
}

/// What the walk met.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Names, the root included.
    pub nodes: u64,
    pub mounts_skipped: u64,
}

/// A directory whose names are being gone through.
struct OpenDir {
    node: NodeNo,
    path: PathBuf,
    stamp: Stamp,
    names: std::vec::IntoIter<Vec<u8>>,
}

pub struct Walk<'a> {
    pub session: &'a Session,
    pub jobs: Sender<FileJob>,
    pub progress: &'a Progress,
    /// The source's filesystem; others mounted below are left out.
    pub device: u64,
    /// Jobs that are sent and not read yet; counted before they are sent.
    pub pending: &'a AtomicU64,
    found: Found,
}

impl<'a> Walk<'a> {
    pub fn new(
        session: &'a Session,
        jobs: Sender<FileJob>,
        progress: &'a Progress,
        device: u64,
        pending: &'a AtomicU64,
    ) -> Self {
        Self { session, jobs, progress, device, pending, found: Found::default() }
    }

    /// Walk the whole tree. Ends early, without an error of its own, when the readers are gone.
    pub fn run(mut self, root: &Root) -> Result<Found> {
        let mut stack = Vec::new();
        self.note(0, Vec::new(), &root.path, &root.meta)?;
        stack.push(open_dir(0, root.path.clone(), &root.meta)?);
        while let Some(dir) = stack.last_mut() {
            self.progress.check()?;
            let Some(name) = dir.names.next() else {
                check_unmoved(dir)?;
                stack.pop();
                continue;
            };
            let (parent, path) = (dir.node, source::join(&dir.path, &name));
            if let Some(sub) = self.visit(parent, name, path)? {
                if stack.len() > MAX_DEPTH {
                    return Err(Error::invalid(format!(
                        "{} is more than {MAX_DEPTH} directories deep",
                        sub.path.display()
                    )));
                }
                stack.push(sub);
            }
        }
        Ok(self.found)
    }

    /// Note one name; a directory comes back to be gone through.
    fn visit(&mut self, parent: NodeNo, name: Vec<u8>, path: PathBuf) -> Result<Option<OpenDir>> {
        if name.len() > MAX_NAME {
            return Err(Error::invalid(format!("the name of {} is longer than {MAX_NAME} bytes", path.display())));
        }
        let meta = std::fs::symlink_metadata(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => changed(&path),
            _ => Error::io(path.display().to_string(), e),
        })?;
        let (node, first) = self.note(parent, name, &path, &meta)?;
        match source::kind_of(&meta) {
            FileKind::Regular if first => {
                self.send(FileJob { node, stamp: Stamp::of(&meta), size: meta.len(), path })?
            }
            FileKind::Directory if meta.dev() != self.device => {
                self.found.mounts_skipped += 1;
                tracing::warn!(path = %path.display(), "another filesystem is mounted here; imported as an empty directory");
            }
            FileKind::Directory => return open_dir(node, path, &meta).map(Some),
            _ => {}
        }
        Ok(None)
    }

    /// Stage the node. Its number, and whether it is the first name of its object.
    fn note(
        &mut self,
        parent: NodeNo,
        name: Vec<u8>,
        path: &std::path::Path,
        meta: &std::fs::Metadata,
    ) -> Result<(NodeNo, bool)> {
        let number = self.found.nodes;
        self.found.nodes += 1;
        self.progress.inodes_found.fetch_add(1, Ordering::Relaxed);
        let kind = source::kind_of(meta);
        let link_set = (kind != FileKind::Directory && meta.nlink() > 1).then(|| (meta.dev(), meta.ino()));
        let first = match link_set {
            None => true,
            Some(set) => super::identity::join(self.session, set, number)?,
        };
        let target = if kind == FileKind::Symlink { read_link(path)? } else { Vec::new() };
        let mut stat = source::stat_of(path, meta)?;
        if kind == FileKind::Symlink {
            stat.size = target.len() as u64;
        }
        let node = Node { parent, name, kind, stat, target, xattrs: source::xattrs(path)?, link_set };
        stage::put(self.session, &stage::key(b'N', &[number]), &node)?;
        Ok((number, first))
    }

    fn send(&self, job: FileJob) -> Result<()> {
        self.progress.bytes_found.fetch_add(job.size, Ordering::Relaxed);
        self.pending.fetch_add(1, Ordering::SeqCst);
        self.jobs.send(job).map_err(|_| Error::internal("the import's readers stopped"))
    }
}

fn open_dir(node: NodeNo, path: PathBuf, meta: &std::fs::Metadata) -> Result<OpenDir> {
    let names = source::sorted_names(&path)?.into_iter();
    Ok(OpenDir { node, stamp: Stamp::of(meta), names, path })
}

/// A directory must look the same after its names were gone through as before.
fn check_unmoved(dir: &OpenDir) -> Result<()> {
    match std::fs::metadata(&dir.path) {
        Ok(meta) if Stamp::of(&meta) == dir.stamp => Ok(()),
        _ => Err(changed(&dir.path)),
    }
}

fn read_link(path: &std::path::Path) -> Result<Vec<u8>> {
    let target = std::fs::read_link(path).map_err(|e| Error::io(path.display().to_string(), e))?;
    let target = target.as_os_str().as_bytes().to_vec();
    if target.is_empty() || target.len() > MAX_SYMLINK {
        return Err(Error::invalid(format!("the target of {} is not 1 to {MAX_SYMLINK} bytes long", path.display())));
    }
    Ok(target)
}

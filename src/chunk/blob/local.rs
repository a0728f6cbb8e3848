//! Blobs as files below a directory.
//!
//! Blob `packs/0/7` is the file `ROOT/packs/0/7`. A put writes and syncs `ROOT/tmp/N`, renames it and
//! syncs the directory, so a name appears with all its bytes or not at all. Directories are made as
//! names need them, and made durable before anything in them is.
//!
//! All disk work runs on tokio's blocking threads, or on the caller's where he says that it may block. A bounded
//! number of files stays open for reading; one that is deleted does not, or its space would not come back.
//!
//! Failure story: see [`BlobStore::put`]. When even the removal of a failed put fails, the disk has
//! said so twice; a file in `tmp/` then goes at the next open, and a blob that nobody refers to is
//! what its owner collects anyway.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use super::{BlobStore, TMP, check_name, check_range, taken, unknown};
use crate::env::{Disk, DiskFile, create_dir_durably};
use crate::error::{Error, ErrorKind, Result};

/// Files held open for reading.
const OPEN_FILES: usize = 256;

/// A [`BlobStore`] on a [`Disk`]. One at a time may have a directory open; its owner sees to that.
#[derive(Clone)]
pub struct LocalBlobs {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    open: Cache<String, Opened>,
    /// Number of deletions; tells a reader that the file it just opened may be gone.
    deletions: AtomicU64,
    next_temp: AtomicU64,
    /// Names that a put is at work on.
    claimed: Mutex<HashSet<String>>,
    /// Directories whose names were synced since the store was opened.
    durable_dirs: Mutex<HashSet<PathBuf>>,
}

/// A file open for reading, and its final length.
#[derive(Clone)]
struct Opened {
    file: Arc<dyn DiskFile>,
    len: u64,
}

impl LocalBlobs {
    /// Open or create the store in directory `root`, and remove what unfinished puts left.
    pub fn open(disk: Arc<dyn Disk>, root: PathBuf) -> Result<Self> {
        prepare_root(&*disk, &root).map_err(|e| Error::io(format!("blobs in {}", root.display()), e))?;
        let inner = Inner {
            disk,
            root,
            open: Cache::new(OPEN_FILES),
            deletions: AtomicU64::new(0),
            next_temp: AtomicU64::new(0),
            claimed: Mutex::default(),
            durable_dirs: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Run `work` where it may block; it goes on if the future is dropped.
    fn blocking<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&Inner, &str) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let (inner, name) = (self.inner.clone(), name.to_owned());
        async move {
            let done = tokio::task::spawn_blocking(move || work(&inner, &name)).await;
            done.unwrap_or_else(|e| Err(Error::internal("disk work on a blob").because(e)))
        }
        .boxed()
    }
}

fn prepare_root(disk: &dyn Disk, root: &Path) -> io::Result<()> {
    create_dir_durably(disk, root)?;
    let temps = root.join(TMP);
    // Its name need not be durable: without it there are no leftovers in it.
    disk.create_dir_all(&temps)?;
    disk.list(&temps)?.iter().try_for_each(|name| disk.unlink(&temps.join(name)))
}

/// Whether the error says that there is no such file.
fn absent(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | IsADirectory | NotADirectory)
}

/// A name that a put is at work on; free again when dropped.
struct Claim<'a> {
    inner: &'a Inner,
    name: &'a str,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.inner.claimed.lock().remove(self.name);
    }
}

impl Inner {
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn claim<'a>(&'a self, name: &'a str) -> Result<Claim<'a>> {
        if self.claimed.lock().insert(name.to_owned()) { Ok(Claim { inner: self, name }) } else { Err(taken(name)) }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        check_name(name)?;
        let _claim = self.claim(name)?;
        if self.find(name)?.is_some() {
            return Err(taken(name));
        }
        self.check_space(name, bytes.len() as u64)?;
        let temp = self.root.join(TMP).join(self.next_temp.fetch_add(1, Ordering::Relaxed).to_string());
        let written = self.write_temp(&temp, bytes).and_then(|()| self.publish(&temp, &self.path(name)));
        written.map_err(|e| Error::io(format!("writing blob {name}"), e))
    }

    fn check_space(&self, name: &str, len: u64) -> Result<()> {
        let at = |e| Error::io(format!("the disk of {}", self.root.display()), e);
        let space = self.disk.space(&self.root).map_err(at)?;
        let reserve = space.reserve();
        if space.free >= len.saturating_add(reserve) {
            return Ok(());
        }
        let root = self.root.display();
        let what = format!("no space for blob {name}: {} bytes are free at {root}, {reserve} are kept", space.free);
        Err(Error::new(ErrorKind::NoSpace, what).remedy("free space on that disk, or move the store to a larger one"))
    }

    fn write_temp(&self, temp: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = self.disk.create(temp)?;
        let written = file.append(bytes).and_then(|()| file.sync());
        written.inspect_err(|_| self.discard(temp))
    }

    fn publish(&self, temp: &Path, path: &Path) -> io::Result<()> {
        let dir = path.parent().unwrap_or(&self.root);
        let renamed = self.prepare_dir(dir).and_then(|()| self.disk.rename(temp, path));
        renamed.inspect_err(|_| self.discard(temp))?;
        self.disk.sync_dir(dir).inspect_err(|_| {
            self.discard(path);
            self.note("syncing", dir, self.disk.sync_dir(dir));
        })
    }

    /// Remove what a failed put wrote. The put's own error is the one to report.
    fn discard(&self, path: &Path) {
        self.note("removing", path, self.disk.unlink(path));
    }

    fn note(&self, doing: &str, path: &Path, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!("{doing} {} after a failed put: {error}", path.display());
        }
    }

    /// Make `dir` and its name durable, once.
    fn prepare_dir(&self, dir: &Path) -> io::Result<()> {
        let mut durable = self.durable_dirs.lock();
        if durable.contains(dir) {
            return Ok(());
        }
        self.disk.create_dir_all(dir)?;
        for made in dir.ancestors().take_while(|dir| *dir != self.root) {
            self.disk.sync_dir(made.parent().unwrap_or(&self.root))?;
        }
        durable.insert(dir.to_owned());
        Ok(())
    }

    /// The blob's file, from the cache of open ones or opened for it.
    fn find(&self, name: &str) -> Result<Option<Opened>> {
        if let Some(opened) = self.open.get(name) {
            return Ok(Some(opened));
        }
        let before = self.deletions.load(Ordering::SeqCst);
        let opened = match self.open_file(name) {
            Ok(opened) => opened,
            Err(e) if absent(&e) => return Ok(None),
            Err(e) => return Err(Error::io(format!("opening blob {name}"), e)),
        };
        self.open.insert(name.to_owned(), opened.clone());
        // A delete that we missed has either still seen our entry, or counted before we look here.
        if self.deletions.load(Ordering::SeqCst) != before {
            self.open.remove(name);
        }
        Ok(Some(opened))
    }

    fn open_file(&self, name: &str) -> io::Result<Opened> {
        let file = self.disk.open(&self.path(name))?;
        let len = file.len()?;
        Ok(Opened { file, len })
    }

    fn get_range(&self, name: &str, range: &Range<u64>) -> Result<Bytes> {
        check_name(name)?;
        let opened = self.find(name)?.ok_or_else(|| unknown(name))?;
        let mut bytes = vec![0; check_range(name, range, opened.len)?];
        match opened.file.read_at(&mut bytes, range.start) {
            Ok(()) => Ok(bytes.into()),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Error::corrupt(format!("blob {name} became shorter")).because(e))
            }
            Err(e) => Err(Error::io(format!("reading blob {name}"), e)),
        }
    }

    fn len(&self, name: &str) -> Result<Option<u64>> {
        check_name(name)?;
        Ok(self.find(name)?.map(|opened| opened.len))
    }

    fn delete(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let path = self.path(name);
        let unlinked = self.disk.unlink(&path);
        self.deletions.fetch_add(1, Ordering::SeqCst);
        self.open.remove(name);
        // Also if it is gone already: whoever removed it may not have come to the sync.
        let synced = self.disk.sync_dir(path.parent().unwrap_or(&self.root));
        let failed = [unlinked, synced].into_iter().filter_map(io::Result::err).find(|e| !absent(e));
        failed.map_or(Ok(()), |e| Err(Error::io(format!("deleting blob {name}"), e)))
    }

    /// Collect the blobs below directory `dir` ("" or a path that ends in a slash).
    fn walk(&self, dir: &str, names: Vec<String>, prefix: &str, found: &mut Vec<String>) -> Result<()> {
        for name in names.iter().map(|name| format!("{dir}{name}")) {
            let inside = format!("{name}/");
            let wanted = name.starts_with(prefix);
            // What cannot be a blob's name is not ours; this also bounds the depth.
            if check_name(&name).is_err() || !(wanted || prefix.starts_with(&inside) || inside.starts_with(prefix)) {
                continue;
            }
            match self.disk.list(&self.path(&name)) {
                Ok(names) => self.walk(&inside, names, prefix, found)?,
                Err(e) if e.kind() == io::ErrorKind::NotADirectory && wanted => found.push(name),
                Err(e) if absent(&e) => {}
                Err(e) => return Err(Error::io(format!("listing {}", self.path(&name).display()), e)),
            }
        }
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let listed = self.disk.list(&self.root);
        let names = listed.map_err(|e| Error::io(format!("listing {}", self.root.display()), e))?;
        let mut found = Vec::new();
        self.walk("", names, prefix, &mut found)?;
        found.sort();
        Ok(found)
    }
}

impl BlobStore for LocalBlobs {
    fn put(&self, name: &str, bytes: Bytes) -> BoxFuture<'static, Result<()>> {
        self.blocking(name, move |inner, name| inner.put(name, &bytes))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> BoxFuture<'static, Result<Bytes>> {
        self.blocking(name, move |inner, name| inner.get_range(name, &range))
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.inner.get_range(name, &range)
    }

    fn len(&self, name: &str) -> BoxFuture<'static, Result<Option<u64>>> {
        self.blocking(name, Inner::len)
    }

    fn list(&self, prefix: &str) -> BoxFuture<'static, Result<Vec<String>>> {
        self.blocking(prefix, Inner::list)
    }

    fn delete(&self, name: &str) -> BoxFuture<'static, Result<()>> {
        self.blocking(name, Inner::delete)
    }
}

//! The disk: whole files that are appended to, synced, renamed and read at offsets.
//!
//! Owns the traits and the machine's filesystem behind them. Bytes are durable after
//! [`DiskFile::sync`], names after [`Disk::sync_dir`] of their directory, and neither before.
//!
//! Failure story: errors are those of the operating system, unchanged and without the path: who
//! calls knows what the file is for and says so. After a failed sync the bytes since the last good
//! one may be gone although they can still be read, and a later sync that succeeds proves nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

/// Bytes of a filesystem, as `statvfs` tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    /// What an unprivileged writer may still take.
    pub free: u64,
}

/// Most bytes that are kept free.
const RESERVE: u64 = 256 * 1024 * 1024;

impl Space {
    /// What stores leave free, 256 MiB or a tenth of a small disk, so that whatever else is on it, the
    /// catalog's log first, can go on and space can be freed.
    pub fn reserve(&self) -> u64 {
        RESERVE.min(self.total / 10)
    }
}

/// The few things that we ask of a filesystem. All calls block.
pub trait Disk: Send + Sync + 'static {
    /// Create a new file for appending; `AlreadyExists` if there is one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Open an existing file for reading and appending.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Rename a file, atomically; a file that has the new name goes.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Remove a file. Open files stay readable.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Create `path` and its parents; no error if it is there.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Make the names in directory `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in directory `path`, sorted; `NotADirectory` if it is a file.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// Append all of `data`. One caller at a time. After an error any prefix of it may be there.
    fn append(&self, data: &[u8]) -> io::Result<()>;
    /// [`append`](Self::append) of all `parts` as if they were one.
    fn append_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut data = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| data.extend_from_slice(part));
        self.append(&data)
    }
    /// Fill `buf` from `offset`; `UnexpectedEof` where the file ends before.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Make the bytes appended so far durable. After an error nothing is known.
    fn sync(&self) -> io::Result<()>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// The machine's filesystem.
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).append(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).append(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(rustix::fs::fsync(dir)?)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let not_ours = |_| io::Error::new(io::ErrorKind::InvalidData, "a name in it is not UTF-8, so not ours");
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name().into_string().map_err(not_ours)?);
        }
        names.sort();
        Ok(names)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { total: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
    }
}

/// A file opened with `O_APPEND`.
struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn append(&self, data: &[u8]) -> io::Result<()> {
        (&self.0).write_all(data)
    }

    fn append_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut parts = parts.to_vec();
        let mut rest = &mut parts[..];
        // Takes leading empty parts away: of nothing but them a write returns 0.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match (&self.0).write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync: of the metadata only what is needed to read the bytes, the length included.
        self.0.sync_data()
    }
}

/// Create the directory `path` and its missing parents, and make all their names durable. The name
/// of `path` itself is synced also if it is there: whoever made it may have died before syncing.
pub fn create_dir_durably(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let missing = |dir: &&Path| matches!(disk.list(dir), Err(e) if e.kind() == io::ErrorKind::NotFound);
    let mut fresh: Vec<PathBuf> = path.ancestors().skip(1).take_while(missing).map(Path::to_owned).collect();
    disk.create_dir_all(path)?;
    fresh.insert(0, path.to_owned());
    fresh.iter().filter_map(|dir| dir.parent()).try_for_each(|parent| disk.sync_dir(or_here(parent)))
}

/// The parent of a relative name without a slash is the empty path, which names nothing.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

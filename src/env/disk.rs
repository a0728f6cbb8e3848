//! The disk: whole files that are appended to, synced, renamed and read at offsets.

use std::io;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a filesystem, as `statvfs` tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    /// What an unprivileged writer may still take.
    pub free: u64,
}

/// The few things that we ask of a filesystem. All calls block.
pub trait Disk: Send + Sync + 'static {
    /// Create a new file for appending; `AlreadyExists` if there is one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Open an existing file for reading and appending.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Create `path` and its parents; no error if it is there.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Make the names in directory `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in directory `path`, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// Append all of `data`. After an error any prefix of it may be there.
    fn append(&self, data: &[u8]) -> io::Result<()>;
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

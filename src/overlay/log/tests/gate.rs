//! A disk that holds the writer in front of an append or a sync until the test lets it go.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::env::{Disk, DiskFile, SimDisk, Space};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Append,
    Sync,
}

#[derive(Default)]
struct Gate {
    /// The call that is held, and whether one is.
    shut: Mutex<(Option<Call>, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self, call: Call) {
        let mut shut = self.shut.lock();
        while shut.0 == Some(call) {
            shut.1 = true;
            self.changed.notify_all();
            self.changed.wait(&mut shut);
        }
    }
}

pub struct GatedDisk {
    disk: Arc<SimDisk>,
    gate: Arc<Gate>,
}

impl GatedDisk {
    pub fn new(disk: Arc<SimDisk>) -> Arc<Self> {
        Arc::new(Self { disk, gate: Arc::default() })
    }

    /// Hold the writer in front of its next such call.
    pub fn shut(&self, call: Call) -> Shut {
        *self.gate.shut.lock() = (Some(call), false);
        Shut(self.gate.clone())
    }

    fn gated(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(GatedFile { file, gate: self.gate.clone() })
    }
}

/// A gate that opens when this is dropped, also by a test that fails: else its log would wait for the
/// writer for ever.
pub struct Shut(Arc<Gate>);

impl Shut {
    /// Wait until the writer is held.
    pub fn until_reached(&self) {
        let mut shut = self.0.shut.lock();
        while !shut.1 {
            self.0.changed.wait(&mut shut);
        }
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        *self.0.shut.lock() = (None, false);
        self.0.changed.notify_all();
    }
}

impl Disk for GatedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.gated(self.disk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.gated(self.disk.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.disk.unlink(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
}

struct GatedFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl DiskFile for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn append(&self, data: &[u8]) -> io::Result<()> {
        self.gate.pass(Call::Append);
        self.file.append(data)
    }

    fn append_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.gate.pass(Call::Append);
        self.file.append_vectored(parts)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.gate.pass(Call::Sync);
        self.file.sync()
    }
}

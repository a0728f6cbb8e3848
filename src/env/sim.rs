//! A disk in memory that can crash, tear, fail and fill up. For tests.
//!
//! It keeps two images of itself: the live one, which all calls see, and the durable one, which is
//! what a power cut leaves. Appended bytes become durable with [`DiskFile::sync`], names (created,
//! renamed, unlinked) only with [`Disk::sync_dir`] of their directory. In a [`crash`](SimDisk::crash)
//! - of the un-synced bytes of each file a random prefix survives, its last sector perhaps as garbage;
//! - each un-synced change of a name happened or did not, a rename as a whole, and none without the
//!   earlier changes of the same names;
//! - files that are left without a durable directory are gone;
//! - open files go dead.
//!
//! After a failed sync a random part of the bytes that it should have made durable will be lost in
//! the next crash, however many later syncs succeed. Real filesystems are kinder in most of this (they
//! keep the order of names, say); what works here works there.
//!
//! The same seed and the same calls give the same disk. To try every crash point of some work, run
//! it once, ask [`count_mutations`](SimDisk::count_mutations), and then for each `k` below that run it
//! on a new disk after [`halt_after(k)`](SimDisk::halt_after).

mod fault;
mod world;

pub use fault::Fault;

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile, Space};
use world::World;

/// An in-memory [`Disk`]. A mutating call is one that appends, syncs or changes a name.
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

impl SimDisk {
    /// An empty disk with only its root directory, of boundless capacity.
    pub fn new(seed: u64) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(seed))) }
    }

    /// Power cut and restart. Ends all faults; files opened before answer `EIO` for ever.
    pub fn crash(&self) {
        self.world.lock().crash(&|dice, unsynced| dice.part(unsynced));
    }

    /// [`crash`](Self::crash) in which `survive` tells how many of the un-synced bytes of each file survive.
    pub fn crash_keeping(&self, survive: impl Fn(usize) -> usize) {
        self.world.lock().crash(&|_, unsynced| survive(unsynced));
    }

    /// A copy of the disk as it is, to see one moment end in several ways.
    pub fn fork(&self, seed: u64) -> Self {
        Self { world: Arc::new(Mutex::new(self.world.lock().fork(seed))) }
    }

    /// A mutating call of something else that has the same power and the same faults: counted, and
    /// refused, as one of the disk's own.
    pub fn strike(&self) -> io::Result<()> {
        self.world.lock().faults.strike()
    }

    /// Fails while the disk is halted.
    pub fn alive(&self) -> io::Result<()> {
        self.world.lock().faults.alive()
    }

    /// Bytes of its files that a crash may take.
    pub fn count_unsynced(&self) -> usize {
        self.world.lock().unsynced()
    }

    /// The next `n` mutating calls succeed; the one after them fails, and only that one. An append
    /// that fails leaves a random prefix.
    pub fn fail_after(&self, n: u64, fault: Fault) {
        self.world.lock().faults.fail_after(n, fault);
    }

    /// The next `n` mutating calls succeed; from the one after them on everything fails, reads too,
    /// until the [`crash`](Self::crash).
    pub fn halt_after(&self, n: u64) {
        self.world.lock().faults.halt_after(n);
    }

    /// From now on the files may take this many bytes altogether.
    pub fn set_capacity(&self, bytes: u64) {
        self.world.lock().capacity = bytes;
    }

    /// Mutating calls that succeeded so far.
    pub fn count_mutations(&self) -> u64 {
        self.world.lock().faults.mutations
    }

    /// Those of them that were syncs, of files and directories.
    pub fn count_syncs(&self) -> u64 {
        self.world.lock().faults.syncs
    }

    /// Flip every bit of one byte, live and durable. False if there is no such byte.
    pub fn corrupt(&self, path: &Path, offset: usize) -> bool {
        self.world.lock().corrupt(&key(path), offset)
    }

    fn file(&self, world: &World, id: u64) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { world: self.world.clone(), id, boot: world.boot })
    }
}

/// The path without `.` in it.
fn key(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world.lock();
        let id = world.create(&key(path))?;
        Ok(self.file(&world, id))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let world = self.world.lock();
        let id = world.find_file(&key(path))?;
        Ok(self.file(&world, id))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.world.lock().rename(&key(from), &key(to))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.world.lock().unlink(&key(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.world.lock().create_dir_all(&key(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.world.lock().sync_dir(&key(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.world.lock().list(&key(path))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        self.world.lock().space()
    }
}

/// An open file of one boot of the disk.
struct SimFile {
    world: Arc<Mutex<World>>,
    id: u64,
    boot: u64,
}

impl SimFile {
    fn with<T>(&self, f: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.world.lock();
        if world.boot != self.boot {
            return Err(Fault::Io.error());
        }
        world.faults.alive()?;
        f(&mut world)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|world| Ok(world.content(self.id).bytes.len() as u64))
    }

    fn append(&self, data: &[u8]) -> io::Result<()> {
        self.with(|world| world.append(self.id, data))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|world| world.content(self.id).read_at(buf, offset))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|world| world.sync(self.id))
    }
}

#[cfg(test)]
mod tests;

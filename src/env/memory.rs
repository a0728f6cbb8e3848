//! Memory that is a file, so that the kernel can send from it without copying.
//!
//! Owns an anonymous file (`memfd_create(2)`) of equal slots, mapped once. Bytes that are placed in a slot are
//! shared like any others; who wants to send them asks where in the file they are, and leaves the rest to
//! `sendfile(2)`: the socket then refers to the pages.
//!
//! Invariants: a slot is written once, before any slice of it exists, and given back after the last one is
//! gone. Giving back takes its pages out of the file: what a socket still refers to keeps the bytes that it had.
//!
//! A huge page that is larger than a slot cannot be punched while a socket refers to any of it: the kernel writes
//! zeros instead. So there is no such file where the host gives shared memory huge pages unasked.
//!
//! Failure story: without a slot, or without memory for it, nothing is placed, and the caller keeps his bytes.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

/// Where the kernel tells who gets huge pages.
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage";

/// A file in memory, in slots.
pub struct MemoryFile {
    file: File,
    map: MmapRaw,
    slot_bytes: usize,
    slots: usize,
    free: Mutex<Free>,
}

/// Slots that nobody has.
#[derive(Default)]
struct Free {
    given_back: Vec<usize>,
    /// This one and those behind it were never used.
    next: usize,
}

/// What lies in a slot. The slot is given back with it.
struct Placed {
    memory: Arc<MemoryFile>,
    slot: usize,
    len: usize,
}

impl MemoryFile {
    /// Room for `slots` pieces of up to `slot_bytes`, a multiple of the page size. Takes address space, and
    /// memory only for what is placed. `Unsupported` where the host gives shared memory huge pages.
    pub fn new(slots: usize, slot_bytes: usize) -> io::Result<Arc<Self>> {
        let len = slots.checked_mul(slot_bytes).filter(|len| *len > 0).ok_or(io::ErrorKind::InvalidInput)?;
        if gives_huge_pages(Path::new(HUGE_PAGES)) {
            let what =
                "shared memory gets huge pages (transparent_hugepage/.../shmem_enabled); set it to advise or never";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        let file = File::from(memfd_create("mimeo-cache", MemfdFlags::CLOEXEC)?);
        file.set_len(len as u64)?;
        let map = MmapOptions::new().len(len).map_raw_read_only(&file)?;
        // A core dump would take memory for every slot, used or not.
        map.advise(Advice::DontDump)?;
        Ok(Arc::new(Self { file, map, slot_bytes, slots, free: Mutex::default() }))
    }

    /// A copy of `bytes` in the file; `None` if there is no room.
    pub fn place(self: &Arc<Self>, bytes: &[u8]) -> Option<Bytes> {
        if bytes.is_empty() || bytes.len() > self.slot_bytes {
            return None;
        }
        // From here on the slot is given back, whatever comes.
        let placed = Placed { slot: self.take()?, len: bytes.len(), memory: self.clone() };
        self.file.write_all_at(bytes, placed.offset()).ok()?;
        Some(Bytes::from_owner(placed))
    }

    /// Where these bytes lie in the file, if they do.
    pub fn offset_of(&self, bytes: &[u8]) -> Option<u64> {
        let offset = (bytes.as_ptr() as usize).checked_sub(self.map.as_ptr() as usize)?;
        (offset < self.map.len()).then_some(offset as u64)
    }

    fn take(&self) -> Option<usize> {
        let mut free = self.free.lock();
        if let Some(slot) = free.given_back.pop() {
            return Some(slot);
        }
        let slot = free.next;
        free.next += usize::from(slot < self.slots);
        (slot < self.slots).then_some(slot)
    }
}

/// Whether files in memory get huge pages that nobody asked for, of any size: as `dir` (of sysfs) says it, with the
/// choice in brackets.
fn gives_huge_pages(dir: &Path) -> bool {
    let sizes = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = sizes.chain([dir.to_owned()]).map(|dir| dir.join("shmem_enabled"));
    // What is not there gives none.
    files.filter_map(|file| fs::read_to_string(file).ok()).any(|choices| {
        let chosen = choices.split('[').nth(1).and_then(|rest| rest.split(']').next());
        !matches!(chosen, Some("never" | "deny" | "advise" | "inherit"))
    })
}

impl AsFd for MemoryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Placed {
    fn offset(&self) -> u64 {
        (self.slot * self.memory.slot_bytes) as u64
    }
}

impl AsRef<[u8]> for Placed {
    #[allow(unsafe_code, reason = "the one way to borrow from a mapping; see SAFETY")]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the slot lies within the mapping, which lives as long as `memory`, and so as long as the
        // slice. Nobody writes to these bytes meanwhile: the file has no name and its descriptor does not leave
        // this type but to be read from; within this type a slot is written in `place` only, before it is a
        // `Placed` that anybody else has, and punched when that is dropped. The file is never made shorter.
        unsafe {
            std::slice::from_raw_parts(self.memory.map.as_ptr().add(self.slot * self.memory.slot_bytes), self.len)
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // A slot whose pages cannot be taken out is not used again: a socket may refer to them.
        if fallocate(&self.memory.file, flags, self.offset(), self.memory.slot_bytes as u64).is_ok() {
            self.memory.free.lock().given_back.push(self.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    const SLOT: usize = 64 * 1024;

    #[test]
    fn what_is_placed_is_a_slice_of_the_file() {
        let memory = MemoryFile::new(4, SLOT).unwrap();
        let (one, two) = (memory.place(&[1; SLOT]).unwrap(), memory.place(&[2; 100]).unwrap());
        assert!(one.iter().all(|byte| *byte == 1) && two[..] == [2; 100]);
        let offset = memory.offset_of(&two[7..]).unwrap();
        let mut read = [0; 93];
        memory.file.read_exact_at(&mut read, offset).unwrap();
        assert_eq!(read, [2; 93]);
        assert_eq!(memory.offset_of(&[0; 8]), None);
        assert!(memory.place(&[0; SLOT + 1]).is_none() && memory.place(&[]).is_none());
    }

    #[test]
    fn a_slot_is_used_again_after_its_last_slice_and_its_pages_are_gone() {
        let memory = MemoryFile::new(1, SLOT).unwrap();
        let placed = memory.place(&[1; SLOT]).unwrap();
        let slice = placed.slice(10..20);
        drop(placed);
        assert!(memory.place(&[2; 8]).is_none(), "a slice is left");
        drop(slice);
        let mut read = [9; 8];
        memory.file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, [0; 8], "the pages are given back");
        assert_eq!(memory.place(&[2; 8]).as_deref(), Some(&[2; 8][..]));
    }

    #[test]
    fn huge_pages_that_come_unasked_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!gives_huge_pages(dir.path()), "a kernel without them");
        let size = dir.path().join("hugepages-2048kB");
        fs::create_dir(&size).unwrap();
        for (all, of_size, gives) in [
            ("always within_size advise [never] deny force", "always [inherit] within_size advise never", false),
            ("always within_size [advise] never deny force", "always inherit within_size advise [never]", false),
            ("[always] within_size advise never deny force", "always inherit within_size advise [never]", true),
            ("always within_size advise never deny [force]", "always [inherit] within_size advise never", true),
            ("always within_size advise [never] deny force", "[always] inherit within_size advise never", true),
            ("always [within_size] advise never deny force", "always [inherit] within_size advise never", true),
        ] {
            fs::write(dir.path().join("shmem_enabled"), all).unwrap();
            fs::write(size.join("shmem_enabled"), of_size).unwrap();
            assert_eq!(gives_huge_pages(dir.path()), gives, "{all} / {of_size}");
        }
    }

    /// What makes it safe to use slots again while clients are slow.
    #[test]
    fn what_a_socket_has_taken_stays_as_it_was() {
        let memory = MemoryFile::new(1, SLOT).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let placed = memory.place(&[1; SLOT]).unwrap();
        let mut offset = memory.offset_of(&placed).unwrap();
        assert_eq!(rustix::fs::sendfile(&ours, &memory, Some(&mut offset), SLOT).unwrap(), SLOT);
        drop(placed);
        let other = memory.place(&[2; SLOT]).unwrap();
        let mut received = vec![0; SLOT];
        theirs.read_exact(&mut received).unwrap();
        assert!(received.iter().all(|byte| *byte == 1), "sent from the slot's former pages");
        drop(other);
    }
}

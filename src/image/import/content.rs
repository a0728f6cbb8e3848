//! Phase 1, the reading: files are cut into chunks by several threads.
//!
//! A file of one section is read by the thread that takes its job. A larger one is put on a shared
//! list, and every thread helps with its sections before it takes another job, so that one disk
//! image keeps all cores busy. Cuts are forced at section ends, so the result does not depend on who
//! read what.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;

use super::source::{self, Root, Stamp};
use super::stage::{self, NodeNo};
use super::walk::{FileJob, Found, Walk};
use super::{Progress, changed};
use crate::chunk::Session;
use crate::chunk::cutter::{self, Cutting, SECTION};
use crate::env::Priority;
use crate::error::{Error, Result};
use crate::manifest::{ContentBuilder, Extent};

/// Files that wait for a reader.
const QUEUED_FILES: usize = 1024;

/// Walk and read the tree under `root` with `threads` readers.
pub(super) fn read_tree(root: &Root, session: &Session, threads: usize, progress: &Progress) -> Result<Found> {
    use std::os::unix::fs::MetadataExt;
    let (send, jobs) = bounded(QUEUED_FILES);
    let readers = Readers {
        session,
        progress,
        pending: AtomicU64::new(0),
        large: Mutex::default(),
        failed: AtomicBool::new(false),
        error: Mutex::default(),
    };
    let walked = std::thread::scope(|scope| {
        for _ in 0..threads {
            let jobs = jobs.clone();
            scope.spawn(|| {
                Priority::Import.take();
                readers.work(jobs);
            });
        }
        drop(jobs);
        Walk::new(session, send, progress, root.meta.dev(), &readers.pending).run(root)
    });
    match readers.error.into_inner() {
        Some(error) => Err(error),
        None => walked,
    }
}

/// What the reading threads share.
struct Readers<'a> {
    session: &'a Session,
    progress: &'a Progress,
    /// Jobs that nobody has read yet; each may still turn out to be a large file.
    pending: AtomicU64,
    /// Files of several sections that still have unclaimed ones.
    large: Mutex<Vec<Arc<LargeFile>>>,
    failed: AtomicBool,
    /// The first error; the rest follows from it.
    error: Mutex<Option<Error>>,
}

/// A file whose sections several threads read.
struct LargeFile {
    node: NodeNo,
    path: PathBuf,
    file: File,
    stamp: Stamp,
    size: u64,
    disk_image: bool,
    /// The next section that nobody has claimed.
    next: AtomicU64,
    /// Sections not finished yet; who finishes the last one puts the file together.
    unfinished: AtomicU64,
}

impl LargeFile {
    fn sections(&self) -> u64 {
        self.size.div_ceil(SECTION)
    }
}

impl Readers<'_> {
    fn work(&self, jobs: Receiver<FileJob>) {
        let mut buffer = Vec::new();
        while !self.failed.load(Ordering::Relaxed) {
            let large = self.large.lock().last().cloned();
            let outcome = match large {
                Some(large) => self.help(&large, &mut buffer),
                None => match jobs.recv() {
                    Ok(job) => {
                        let read = self.read(job, &mut buffer);
                        self.pending.fetch_sub(1, Ordering::SeqCst);
                        read
                    }
                    Err(_) if self.pending.load(Ordering::SeqCst) == 0 && self.large.lock().is_empty() => return,
                    // Somebody is opening the last file, which may need all of us.
                    Err(_) => {
                        std::thread::yield_now();
                        Ok(())
                    }
                },
            };
            if let Err(error) = outcome.and_then(|()| self.progress.check()) {
                self.error.lock().get_or_insert(error);
                self.failed.store(true, Ordering::Relaxed);
            }
        }
    }

    fn read(&self, job: FileJob, buffer: &mut Vec<u8>) -> Result<()> {
        let file = source::open_file(&job.path)?;
        check_stamp(&file, &job.path, job.stamp)?;
        let disk_image = is_disk_image(&file, &job.path, job.size)?;
        if job.size <= SECTION {
            let extents = self.read_section(&file, &job.path, 0..job.size, disk_image, buffer)?;
            check_stamp(&file, &job.path, job.stamp)?;
            return self.finish(job.node, job.size, disk_image, |push| extents.into_iter().try_for_each(push));
        }
        let sections = job.size.div_ceil(SECTION);
        self.large.lock().push(Arc::new(LargeFile {
            node: job.node,
            path: job.path,
            file,
            stamp: job.stamp,
            size: job.size,
            disk_image,
            next: AtomicU64::new(0),
            unfinished: AtomicU64::new(sections),
        }));
        Ok(())
    }

    /// Read one section of a large file, if one is left.
    fn help(&self, large: &Arc<LargeFile>, buffer: &mut Vec<u8>) -> Result<()> {
        let section = large.next.fetch_add(1, Ordering::Relaxed);
        if section + 1 >= large.sections() {
            self.large.lock().retain(|other| !Arc::ptr_eq(other, large));
        }
        if section >= large.sections() {
            return Ok(());
        }
        let start = section * SECTION;
        let range = start..large.size.min(start + SECTION);
        let extents = self.read_section(&large.file, &large.path, range, large.disk_image, buffer)?;
        if !extents.is_empty() {
            stage::put_extents(self.session, large.node, section, &extents)?;
        }
        if large.unfinished.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        check_stamp(&large.file, &large.path, large.stamp)?;
        self.finish(large.node, large.size, large.disk_image, |push| stage::each_extent(self.session, large.node, push))
    }

    fn read_section(
        &self,
        file: &File,
        path: &Path,
        range: std::ops::Range<u64>,
        disk_image: bool,
        buffer: &mut Vec<u8>,
    ) -> Result<Vec<Extent>> {
        source::read_section(file, buffer, range.clone()).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => changed(path),
            _ => Error::io(path.display().to_string(), e),
        })?;
        let extents = store_section(self.session, buffer, range.start, disk_image)?;
        self.progress.bytes_done.fetch_add(range.end - range.start, Ordering::Relaxed);
        Ok(extents)
    }

    /// Put a file's extents, given in order by `feed`, into its content.
    fn finish(
        &self,
        node: NodeNo,
        size: u64,
        disk_image: bool,
        feed: impl FnOnce(&mut dyn FnMut(Extent) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        let mut builder = ContentBuilder::new(self.session);
        feed(&mut |extent| builder.push(extent))?;
        stage::put_content(self.session, node, size, disk_image, builder.finish(size)?)?;
        self.progress.inodes_done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Cut the bytes of a section that begins at `start`, and store them.
pub(in crate::image) fn store_section(
    session: &Session,
    bytes: &[u8],
    start: u64,
    disk_image: bool,
) -> Result<Vec<Extent>> {
    let mut extents = Vec::new();
    let pieces = cutter::cut(bytes, Cutting::of(disk_image));
    for (piece, stored) in pieces.iter().zip(session.put_all(pieces.iter().map(|piece| piece.of(bytes)))?) {
        stage::put_chunk(session, &stored.id, piece.len as u32, stored.stored_len)?;
        extents.push(Extent { offset: start + piece.offset as u64, len: piece.len as u32, chunk: stored.id });
    }
    Ok(extents)
}

fn check_stamp(file: &File, path: &Path, stamp: Stamp) -> Result<()> {
    let meta = file.metadata().map_err(|e| Error::io(path.display().to_string(), e))?;
    if Stamp::of(&meta) == stamp { Ok(()) } else { Err(changed(path)) }
}

/// Bytes at the start of a file that tell whether it is a disk image.
pub(in crate::image) const HEAD: usize = 1024;
/// Smallest file that can be a disk image.
const MIN_DISK: u64 = 1024 * 1024;
const SECTOR: u64 = 512;
const DISK_SUFFIXES: [&str; 6] = ["img", "raw", "qcow2", "vmdk", "vhd", "vdi"];

pub(super) fn is_disk_image(file: &File, path: &Path, size: u64) -> Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut head = [0; HEAD];
    let take = head.len().min(usize::try_from(size).unwrap_or(usize::MAX));
    match file.read_exact_at(&mut head[..take], 0) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Err(changed(path)),
        Err(e) => return Err(Error::io(path.display().to_string(), e)),
    }
    Ok(looks_like_disk(&head, path, size))
}

/// Whether a file is a virtual disk: by its first bytes (qcow2, sparse or described vmdk, a partition
/// table), or by its name where a raw disk has none. `head`: zeros behind the end of a shorter file.
pub(in crate::image) fn looks_like_disk(head: &[u8; HEAD], path: &Path, size: u64) -> bool {
    if head.starts_with(b"QFI\xfb") || head.starts_with(b"KDMV") || head.starts_with(b"# Disk DescriptorFile") {
        return true;
    }
    if size < MIN_DISK || !size.is_multiple_of(SECTOR) {
        return false;
    }
    let partitioned = head[510..512] == [0x55, 0xaa] || head[512..].starts_with(b"EFI PART");
    let suffix = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    partitioned || DISK_SUFFIXES.contains(&suffix.as_str())
}

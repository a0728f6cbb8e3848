//! The source folder: opening, attributes, extended attributes, holes.

use std::ffi::{CString, OsStr};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, SeekFrom};

use super::changed;
use super::stage::Stat;
use crate::env::Time;
use crate::error::{Error, Result};
use crate::manifest::{FileKind, MAX_FILE_SIZE, MAX_XATTRS};

/// Most extended attributes of one object.
const MAX_XATTR_COUNT: usize = 1024;
/// What is to be done about a source that may not be read.
const READABLE: &str = "run the daemon as a user who may read the whole source";

/// The folder that is imported.
pub struct Root {
    pub path: PathBuf,
    pub meta: Metadata,
}

/// The folder behind `path`, which may be a link to it.
pub fn open_root(path: &Path) -> Result<Root> {
    let failed = |e| Error::io(format!("source {}", path.display()), e).remedy("name a readable folder");
    let real = std::fs::canonicalize(path).map_err(failed)?;
    let meta = std::fs::metadata(&real).map_err(failed)?;
    if !meta.is_dir() {
        return Err(Error::invalid(format!("source {} is not a folder", path.display()))
            .remedy("name a folder; put a disk image into one"));
    }
    Ok(Root { path: real, meta })
}

pub fn kind_of(meta: &Metadata) -> FileKind {
    let kind = meta.file_type();
    match () {
        () if kind.is_dir() => FileKind::Directory,
        () if kind.is_symlink() => FileKind::Symlink,
        () if kind.is_block_device() => FileKind::Block,
        () if kind.is_char_device() => FileKind::Char,
        () if kind.is_fifo() => FileKind::Fifo,
        () if kind.is_socket() => FileKind::Socket,
        () => FileKind::Regular,
    }
}

/// The attributes that are taken over.
pub fn stat_of(path: &Path, meta: &Metadata) -> Result<Stat> {
    if meta.len() > MAX_FILE_SIZE {
        return Err(Error::invalid(format!("{} is larger than {MAX_FILE_SIZE} bytes", path.display())));
    }
    let kind = kind_of(meta);
    let device = matches!(kind, FileKind::Block | FileKind::Char);
    Ok(Stat {
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: if device { (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())) } else { (0, 0) },
        size: if kind == FileKind::Directory { 4096 } else { meta.len() },
        atime: Time::new(meta.atime(), meta.atime_nsec() as u32),
        mtime: Time::new(meta.mtime(), meta.mtime_nsec() as u32),
    })
}

/// What changes if anybody touches an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    pub fn of(meta: &Metadata) -> Self {
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.len(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// Open a regular file for reading, without following a link and, where allowed, without moving its
/// access time. A fifo put there meanwhile must not block us.
pub fn open_file(path: &Path) -> Result<File> {
    let open = |extra: OFlags| {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | extra;
        OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
    };
    let opened = open(OFlags::NOATIME).or_else(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => open(OFlags::empty()),
        _ => Err(e),
    });
    opened.map_err(|e| unreadable(path, e))
}

/// The parts of `range` that hold data, as the filesystem tells. One that does not know holes tells
/// all of it.
fn data_ranges(file: &File, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    use rustix::io::Errno;
    let mut ranges = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) if start < range.end => start,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => at,
            Err(e) => return Err(e.into()),
        };
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(range.end),
            Err(Errno::INVAL) => range.end,
            Err(e) => return Err(e.into()),
        };
        ranges.push(start..end);
        at = end;
    }
    Ok(ranges)
}

/// Put the file's bytes of `range` into `buf`, holes as zeros. Nothing but a hole gives an empty
/// `buf`, and costs no memory however long it is.
pub fn read_section(file: &File, buf: &mut Vec<u8>, range: Range<u64>) -> io::Result<()> {
    buf.clear();
    let data = data_ranges(file, range.clone())?;
    if data.is_empty() {
        return Ok(());
    }
    buf.resize((range.end - range.start) as usize, 0);
    for part in data {
        let (from, to) = ((part.start - range.start) as usize, (part.end - range.start) as usize);
        file.read_exact_at(&mut buf[from..to], part.start)?;
    }
    Ok(())
}

/// Extended attributes, sorted by name. An object that has none, or a filesystem that knows none,
/// gives an empty list.
pub fn xattrs(path: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let failed = |e: rustix::io::Errno| Error::io(format!("extended attributes of {}", path.display()), e.into());
    let mut names = vec![0; MAX_XATTRS];
    let len = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(len) => len,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(e) => return Err(failed(e)),
    };
    let mut found = Vec::new();
    let mut bytes = 0;
    for name in names[..len].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; MAX_XATTRS];
        let c_name =
            CString::new(name).map_err(|e| Error::internal("an attribute name with a zero byte").because(e))?;
        let got = rustix::fs::lgetxattr(path, &c_name, &mut value[..]).map_err(failed)?;
        value.truncate(got);
        bytes += name.len() + got + 8;
        found.push((name.to_vec(), value));
        if bytes > MAX_XATTRS || found.len() > MAX_XATTR_COUNT {
            return Err(Error::invalid(format!(
                "{} has more than {MAX_XATTRS} bytes of extended attributes",
                path.display()
            )));
        }
    }
    found.sort();
    Ok(found)
}

/// Names in a directory, sorted by bytes.
pub fn sorted_names(path: &Path) -> Result<Vec<Vec<u8>>> {
    let failed = |e| unreadable(path, e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().as_bytes().to_vec());
    }
    names.sort_unstable();
    Ok(names)
}

/// Error for something of the source that cannot be opened.
fn unreadable(path: &Path, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::NotFound => changed(path),
        io::ErrorKind::PermissionDenied => Error::io(path.display().to_string(), e).remedy(READABLE),
        _ => Error::io(path.display().to_string(), e),
    }
}

pub fn join(dir: &Path, name: &[u8]) -> PathBuf {
    dir.join(OsStr::from_bytes(name))
}

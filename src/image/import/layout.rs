//! Before the walk: what a boot reads goes into packs of its own, in the boot's order.
//!
//! Owns the way from the parts of files that a trace read to their chunks. Files are cut as the walk's readers will
//! cut them, so those find these chunks stored. A boot of the version then goes through packs from front to back,
//! which is what read-ahead follows. A chunk that an earlier version brought stays where it is.
//!
//! Failure story: what the source does not have is left out; it costs its place in the order, nothing else. A file
//! that changes before the walk gets to it leaves chunks that no version names.

use std::collections::HashMap;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::content::is_disk_image;
use super::source::{self, Root};
use super::{Progress, changed};
use crate::chunk::cutter::{self, Cutting, Piece, SECTION};
use crate::chunk::{ChunkSink, Session};
use crate::error::{Error, Result};

/// Parts of a file that were read one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// From the root, without a leading slash.
    pub path: Vec<u8>,
    pub ranges: Vec<Range<u64>>,
}

/// A file that is laid out, part by part.
struct Laid {
    path: PathBuf,
    size: u64,
    cutting: Cutting,
    /// Its sections that were cut: pieces, and whether each is stored.
    sections: HashMap<u64, Vec<(Piece, bool)>>,
}

/// Store the chunks of `parts` in their order.
pub(super) fn lay_out(root: &Root, session: &Session, parts: &[Part], progress: &Progress) -> Result<()> {
    let mut files: HashMap<&[u8], Option<Laid>> = HashMap::new();
    let mut buffer = Vec::new();
    for part in parts {
        progress.check()?;
        if !files.contains_key(&*part.path) {
            files.insert(&part.path, Laid::find(root, &part.path)?);
        }
        if let Some(Some(file)) = files.get_mut(&*part.path) {
            file.store(session, &part.ranges, &mut buffer)?;
        }
    }
    // What follows is read at other times.
    session.end_pack()
}

impl Laid {
    /// The regular file at `path`, if there is one and no link or other filesystem on the way.
    fn find(root: &Root, path: &[u8]) -> Result<Option<Self>> {
        let mut at = root.path.clone();
        let mut meta = root.meta.clone();
        for name in path.split(|byte| *byte == b'/') {
            let is_name = !matches!(name, b"" | b"." | b"..");
            if !is_name || !meta.is_dir() || meta.dev() != root.meta.dev() {
                return Ok(None);
            }
            at = source::join(&at, name);
            let Ok(found) = fs::symlink_metadata(&at) else { return Ok(None) };
            meta = found;
        }
        if !meta.is_file() {
            return Ok(None);
        }
        let disk_image = is_disk_image(&source::open_file(&at)?, &at, meta.len())?;
        let cutting = Cutting::of(disk_image);
        Ok(Some(Self { path: at, size: meta.len(), cutting, sections: HashMap::new() }))
    }

    fn store(&mut self, session: &Session, ranges: &[Range<u64>], buffer: &mut Vec<u8>) -> Result<()> {
        let file = source::open_file(&self.path)?;
        for range in ranges {
            let end = range.end.min(self.size);
            let sections = range.start / SECTION..end.div_ceil(SECTION);
            for section in sections {
                let start = section * SECTION;
                if !self.sections.contains_key(&section) {
                    let pieces = self.cut(&file, start, buffer)?;
                    self.sections.insert(section, pieces);
                }
                let wanted = range.start.saturating_sub(start)..end - start;
                let pieces = self.sections.get_mut(&section).into_iter().flatten();
                for (piece, stored) in pieces.filter(|(piece, stored)| !stored && touches(piece, &wanted)) {
                    buffer.resize(piece.len, 0);
                    let read = file.read_exact_at(buffer, start + piece.offset as u64);
                    read.map_err(|e| unreadable(&self.path, e))?;
                    session.put(buffer)?;
                    *stored = true;
                }
            }
        }
        Ok(())
    }

    fn cut(&self, file: &File, start: u64, buffer: &mut Vec<u8>) -> Result<Vec<(Piece, bool)>> {
        let section = start..self.size.min(start + SECTION);
        source::read_section(file, buffer, section).map_err(|e| unreadable(&self.path, e))?;
        Ok(cutter::cut(buffer, self.cutting).into_iter().map(|piece| (piece, false)).collect())
    }
}

fn touches(piece: &Piece, range: &Range<u64>) -> bool {
    (piece.offset as u64) < range.end && (piece.offset + piece.len) as u64 > range.start
}

fn unreadable(path: &Path, e: std::io::Error) -> Error {
    match e.kind() {
        std::io::ErrorKind::UnexpectedEof => changed(path),
        _ => Error::io(path.display().to_string(), e),
    }
}

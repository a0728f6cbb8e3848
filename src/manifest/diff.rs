//! What is different between two manifests, path by path.
//!
//! Walks both trees together, depth first, and skips every directory whose digest is the same on
//! both sides, and every object whose record is in a page that both sides share; the cost follows the
//! directories that hold a change. Memory is one position per level of depth, and 8 bytes for each
//! run of changed pages. A file with several links is compared at each of its paths; renames show as one path
//! removed and one added; differences in ctime, atime, inode numbers and link counts are none.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::content::same_attrs;
use super::pairs::{Pair, Pairs, Sides};
use super::read::MAX_DEPTH;
use super::{FileKind, Ino, Inode, ManifestId};
use crate::chunk::ChunkSource;
use crate::error::{Error, Result};

/// One path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// From the root, without a leading slash; empty for the root itself.
    pub path: Vec<u8>,
    pub kind: ChangeKind,
    /// Length of the file or symbolic link on each side; 0 for all else.
    pub bytes_old: u64,
    pub bytes_new: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Removed,
    Modified {
        /// Other bytes or another target; always if the type differs.
        data: bool,
        /// Other mode, owner, mtime, device number, extended attributes or disk-image mark.
        attrs: bool,
        /// A file became a directory, or the like.
        file_type: bool,
    },
}

/// Visit every path that differs between `old` and `new`, until `visit` breaks. A directory comes
/// before what is in it; otherwise the order is that of the name hashes, the same on every run.
pub async fn diff(
    source: &dyn ChunkSource,
    old: &ManifestId,
    new: &ManifestId,
    visit: &mut (dyn FnMut(Change) -> Result<ControlFlow<()>> + Send),
) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let sides = Sides::open(source, [old, new]).await?;
    let mut walk = Walk { sides, frames: Vec::new(), path: Vec::new(), visit };
    if walk.compare([Some(Ino::ROOT), Some(Ino::ROOT)]).await?.is_continue() {
        walk.run().await?;
    }
    Ok(())
}

/// A directory that is being compared.
struct Frame {
    pairs: Pairs,
    /// Length of its path.
    path_len: usize,
}

struct Walk<'a, 'v> {
    sides: Sides<'a>,
    frames: Vec<Frame>,
    /// The path last compared.
    path: Vec<u8>,
    visit: &'v mut (dyn FnMut(Change) -> Result<ControlFlow<()>> + Send),
}

impl Walk<'_, '_> {
    async fn run(&mut self) -> Result<()> {
        while let Some(frame) = self.frames.last_mut() {
            self.sides.fetch.release();
            let Some(pair) = frame.pairs.next(&mut self.sides).await? else {
                self.frames.pop();
                continue;
            };
            if self.sides.is_shared(&pair) {
                continue;
            }
            self.path.truncate(frame.path_len);
            push_name(&mut self.path, &pair);
            if self.compare(pair.map(|entry| entry.map(|e| e.ino))).await?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Compare the two objects at the current path; go into them next if they are directories that
    /// differ.
    async fn compare(&mut self, inos: [Option<Ino>; 2]) -> Result<ControlFlow<()>> {
        let old = self.inode(0, inos[0]).await?;
        let new = self.inode(1, inos[1]).await?;
        if let Some(kind) = kind_of_change(old.as_deref(), new.as_deref()) {
            let (bytes_old, bytes_new) = (length(old.as_deref()), length(new.as_deref()));
            let change = Change { path: self.path.clone(), kind, bytes_old, bytes_new };
            if (self.visit)(change)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if !same_subtree(old.as_deref(), new.as_deref()) {
            self.enter([directory(old.as_deref(), inos[0]), directory(new.as_deref(), inos[1])])?;
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn inode(&mut self, side: usize, ino: Option<Ino>) -> Result<Option<Arc<Inode>>> {
        match ino {
            Some(ino) => self.sides.inode(side, ino).await.map(Some),
            None => Ok(None),
        }
    }

    fn enter(&mut self, dirs: [Option<Ino>; 2]) -> Result<()> {
        if dirs == [None, None] {
            return Ok(());
        }
        if self.frames.len() == MAX_DEPTH {
            return Err(Error::corrupt(format!("directories deeper than {MAX_DEPTH}")));
        }
        if let Some(parent) = self.frames.last_mut() {
            parent.pairs.park();
        }
        let pairs = Pairs::new(&self.sides, dirs)?;
        self.frames.push(Frame { pairs, path_len: self.path.len() });
        Ok(())
    }
}

fn push_name(path: &mut Vec<u8>, pair: &Pair) {
    if !path.is_empty() {
        path.push(b'/');
    }
    if let Some(entry) = pair.iter().flatten().next() {
        path.extend_from_slice(&entry.name);
    }
}

fn kind_of_change(old: Option<&Inode>, new: Option<&Inode>) -> Option<ChangeKind> {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (None, Some(_)) => return Some(ChangeKind::Added),
        (Some(_), None) => return Some(ChangeKind::Removed),
        (None, None) => return None,
    };
    let file_type = old.kind != new.kind;
    let is_data = matches!(old.kind, FileKind::Regular | FileKind::Symlink);
    let data = file_type || (is_data && (old.size, old.digest) != (new.size, new.digest));
    let attrs = !same_attrs(old, new);
    (data || attrs).then_some(ChangeKind::Modified { data, attrs, file_type })
}

/// Whether nothing under the two needs a look. A zero digest says nothing.
fn same_subtree(old: Option<&Inode>, new: Option<&Inode>) -> bool {
    old.zip(new).is_some_and(|(old, new)| old.kind == new.kind && old.digest == new.digest && old.digest != [0; 32])
}

fn directory(inode: Option<&Inode>, ino: Option<Ino>) -> Option<Ino> {
    inode.filter(|inode| inode.kind == FileKind::Directory).and(ino)
}

fn length(inode: Option<&Inode>) -> u64 {
    inode.filter(|i| matches!(i.kind, FileKind::Regular | FileKind::Symlink)).map_or(0, |i| i.size)
}

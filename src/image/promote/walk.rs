//! The walk of a view: what an import's first phase notes of a folder, noted of merged layers.
//!
//! In path order: names sorted by bytes, a directory before what is in it. A file is gone through in
//! the sections that imports cut it into. Where a section shows what the image has, its chunks are
//! taken over by name; where it is private, it is read, cut and stored.

use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::chunk::cutter::SECTION;
use crate::chunk::{ChunkSource, ChunkStore, Fetch, Session, Step};
use crate::error::{Error, Result};
use crate::image::import::content::{HEAD, looks_like_disk, store_section};
use crate::image::import::stage::{self, NodeNo, Stat};
use crate::image::import::{Progress, identity};
use crate::manifest::{ContentBuilder, Entry, Extent, FileKind, Ino, Inode, Manifest, ManifestId, decode_xattrs};
use crate::overlay::{Layer, Node, Origin, OverlayStore, Tree};

/// Sealed layers over a version.
pub struct View<'a> {
    pub chunks: &'a Arc<ChunkStore>,
    pub overlays: &'a OverlayStore,
    pub manifest: ManifestId,
    /// Bottom first.
    pub layers: &'a [Layer],
}

impl View<'_> {
    /// Ask the view; on a thread that may block.
    fn ask<T>(&self, mut question: impl FnMut(&Tree<'_>, &mut Fetch<'_>) -> Step<T>) -> Result<T> {
        let source: &dyn ChunkSource = self.chunks.as_ref();
        Fetch::new(source).run_blocking(|fetch| {
            let manifest = Manifest::open(fetch, &self.manifest)?;
            question(&Tree::open_sealed(self.overlays, manifest, self.layers)?, fetch)
        })
    }

    fn node(&self, ino: Ino) -> Result<Node> {
        let node = self.ask(|tree, fetch| tree.node(fetch, ino))?;
        node.ok_or_else(|| Error::corrupt(format!("inode {} is named by an entry but not there", ino.0)))
    }

    /// The image's object of this number, if it has one; of a file with data of another version, that one's.
    fn image_inode(&self, ino: Ino, node: &Node) -> Result<Option<Arc<Inode>>> {
        self.ask(|tree, fetch| match &node.base {
            Some(base) => Manifest::open(fetch, base)?.inode(fetch, ino),
            None => tree.manifest().inode(fetch, ino),
        })
    }

    /// The entries of a directory, by the bytes of their names.
    fn sorted_entries(&self, dir: Ino) -> Result<Vec<Entry>> {
        let mut entries = self.ask(|tree, fetch| tree.entries(fetch, dir))?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Extended attributes: only the image has any.
    fn xattrs(&self, image: &Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let encoded = self.ask(|tree, fetch| tree.manifest().xattrs(fetch, image))?;
        if encoded.is_empty() {
            return Ok(Vec::new());
        }
        Ok(decode_xattrs(&encoded)?.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
    }
}

/// A directory whose entries are being gone through.
struct OpenDir {
    number: NodeNo,
    entries: std::vec::IntoIter<Entry>,
}

pub struct Walk<'a> {
    view: &'a View<'a>,
    session: &'a Session,
    progress: &'a Progress,
    nodes: u64,
}

impl<'a> Walk<'a> {
    pub fn new(view: &'a View<'a>, session: &'a Session, progress: &'a Progress) -> Self {
        Self { view, session, progress, nodes: 0 }
    }

    /// Note everything; answers how many names there are, the root included.
    pub fn run(mut self) -> Result<u64> {
        let number = self.note(0, &[], Ino::ROOT)?.0;
        let mut stack = vec![self.open_dir(number, Ino::ROOT)?];
        while let Some(dir) = stack.last_mut() {
            self.progress.check()?;
            let Some(entry) = dir.entries.next() else {
                stack.pop();
                continue;
            };
            let (number, kind) = self.note(dir.number, &entry.name, entry.ino)?;
            if kind == FileKind::Directory {
                stack.push(self.open_dir(number, entry.ino)?);
            }
        }
        Ok(self.nodes)
    }

    fn open_dir(&self, number: NodeNo, ino: Ino) -> Result<OpenDir> {
        Ok(OpenDir { number, entries: self.view.sorted_entries(ino)?.into_iter() })
    }

    /// Stage one name, and what a regular file holds at its first.
    fn note(&mut self, parent: NodeNo, name: &[u8], ino: Ino) -> Result<(NodeNo, FileKind)> {
        let number = self.nodes;
        self.nodes += 1;
        self.progress.inodes_found.fetch_add(1, Ordering::Relaxed);
        let node = self.view.node(ino)?;
        let image = self.view.image_inode(ino, &node)?;
        let link_set = (!node.is_dir() && node.nlink > 1).then_some((0, ino.0));
        let first = link_set.map_or(Ok(true), |set| identity::join(self.session, set, number))?;
        if node.kind == FileKind::Regular && first {
            self.file(number, name, ino, &node, image.as_deref())?;
        }
        let xattrs = image.as_ref().map_or(Ok(Vec::new()), |image| self.view.xattrs(image))?;
        let staged = stage::Node {
            parent,
            name: name.to_vec(),
            kind: node.kind,
            stat: stat(&node),
            target: node.target.to_vec(),
            xattrs,
            link_set,
        };
        stage::put(self.session, &stage::key(b'N', &[number]), &staged)?;
        self.progress.inodes_done.fetch_add(1, Ordering::Relaxed);
        Ok((number, node.kind))
    }

    fn file(&self, number: NodeNo, name: &[u8], ino: Ino, node: &Node, image: Option<&Inode>) -> Result<()> {
        self.progress.bytes_found.fetch_add(node.size, Ordering::Relaxed);
        let disk_image = match image {
            Some(image) => image.disk_image,
            None => self.looks_like_disk(name, ino, node)?,
        };
        let mut content = ContentBuilder::new(self.session);
        for start in (0..node.size).step_by(SECTION as usize) {
            self.progress.check()?;
            let range = start..node.size.min(start + SECTION);
            let extents = self.section(ino, node, image, range.clone(), disk_image)?;
            extents.into_iter().try_for_each(|extent| content.push(extent))?;
            self.progress.bytes_done.fetch_add(range.end - range.start, Ordering::Relaxed);
        }
        stage::put_content(self.session, number, node.size, disk_image, content.finish(node.size)?)
    }

    fn looks_like_disk(&self, name: &[u8], ino: Ino, node: &Node) -> Result<bool> {
        let read = self.read(ino, node, 0..node.size.min(HEAD as u64))?;
        let mut head = [0; HEAD];
        head[..read.len()].copy_from_slice(&read);
        Ok(looks_like_disk(&head, Path::new(std::ffi::OsStr::from_bytes(name)), node.size))
    }

    fn section(
        &self,
        ino: Ino,
        node: &Node,
        image: Option<&Inode>,
        range: Range<u64>,
        disk_image: bool,
    ) -> Result<Vec<Extent>> {
        match (self.view.ask(|tree, fetch| tree.origin(fetch, ino, node, range.clone()))?, image) {
            (Origin::Hole, _) => return Ok(Vec::new()),
            (Origin::Image, Some(image)) => {
                if let Some(extents) = self.image_section(image, &range)? {
                    return Ok(extents);
                }
            }
            _ => {}
        }
        let bytes = self.read(ino, node, range.clone())?;
        store_section(self.session, &bytes, range.start, disk_image)
    }

    /// The image's extents of a section, noted as they are; `None` if one reaches out of it.
    fn image_section(&self, image: &Inode, range: &Range<u64>) -> Result<Option<Vec<Extent>>> {
        let extents =
            self.view.ask(|tree, fetch| tree.manifest().extents(fetch, &image.content, range.clone()))?.to_vec();
        let inside =
            |extent: &Extent| range.start <= extent.offset && extent.offset + u64::from(extent.len) <= range.end;
        if !extents.iter().all(inside) {
            return Ok(None);
        }
        for extent in &extents {
            let stored_len = self.view.chunks.stored_len(&extent.chunk)?;
            let stored_len = stored_len.ok_or_else(|| Error::corrupt(format!("chunk {} is missing", extent.chunk)))?;
            stage::put_chunk(self.session, &extent.chunk, extent.len, stored_len)?;
        }
        Ok(Some(extents))
    }

    fn read(&self, ino: Ino, node: &Node, range: Range<u64>) -> Result<Vec<u8>> {
        self.view.ask(|tree, fetch| Ok(tree.read(fetch, ino, node, range.start, range.end)?.concat()))
    }
}

fn stat(node: &Node) -> Stat {
    Stat {
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        rdev: node.rdev,
        size: if node.kind == FileKind::Symlink { node.target.len() as u64 } else { node.size },
        atime: node.atime,
        mtime: node.mtime,
    }
}

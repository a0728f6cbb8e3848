//! Phase 2, identity: which inode numbers and cookies the new version takes over from its base.
//!
//! The rules (`docs/semantics.md`): a path whose kind and data are unchanged keeps its number; a
//! directory keeps it by path alone; of a hard-link set that splits or joins, the path that sorts
//! first keeps the number; everything else gets a new one. A name keeps its cookie in a directory
//! that keeps its number.

use std::sync::Arc;

use super::Base;
use super::stage::{self, Node, NodeNo};
use crate::chunk::{ChunkSource, ChunkStore, Fetch, Session, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Cookie, Entry, FileKind, Ino, Inode, Manifest, ManifestId};

/// The version that numbers are taken over from, if there is one.
pub(super) struct BaseTree<'a> {
    chunks: &'a Arc<ChunkStore>,
    manifest: Option<ManifestId>,
}

impl<'a> BaseTree<'a> {
    pub fn new(chunks: &'a Arc<ChunkStore>, base: &Base) -> Self {
        Self { chunks, manifest: base.version.as_ref().map(|version| version.manifest) }
    }

    /// Ask the base; `None` where there is none.
    fn ask<T>(&self, mut question: impl FnMut(&Manifest, &mut Fetch<'_>) -> Step<Option<T>>) -> Result<Option<T>> {
        let Some(id) = self.manifest else { return Ok(None) };
        let source: &dyn ChunkSource = self.chunks.as_ref();
        let answer = Fetch::new(source).run_blocking(|fetch| {
            let manifest = Manifest::open(fetch, &id)?;
            question(&manifest, fetch)
        });
        // A damaged page of the base costs what is under it its identity; it must not stop the import
        // that would heal the image.
        answer.or_else(|error| match error.kind() {
            ErrorKind::Corrupt => {
                tracing::warn!(%error, "the version before is damaged here; what it held gets new numbers");
                Ok(None)
            }
            _ => Err(error),
        })
    }

    pub fn inode(&self, ino: Ino) -> Result<Option<Arc<Inode>>> {
        self.ask(|manifest, fetch| manifest.inode(fetch, ino))
    }

    pub fn entry(&self, dir: Option<Ino>, name: &[u8]) -> Result<Option<Entry>> {
        let Some(dir) = dir else { return Ok(None) };
        self.ask(|manifest, fetch| manifest.lookup(fetch, dir, name))
    }

    /// Whether some name has this cookie in the base's directory.
    pub fn cookie_taken(&self, dir: Option<Ino>, cookie: Cookie) -> Result<bool> {
        let Some(dir) = dir else { return Ok(false) };
        Ok(self.ask(|manifest, fetch| manifest.entry_at(fetch, dir, cookie))?.is_some())
    }

    /// Entries of the base's directory; `None` where that cannot be told.
    pub fn entry_count(&self, dir: Ino) -> Result<Option<u64>> {
        self.ask(|manifest, fetch| {
            let mut count = 0;
            manifest.list(fetch, dir, Cookie(0), &mut |_| {
                count += 1;
                Ok(std::ops::ControlFlow::Continue(()))
            })?;
            Ok(Some(count))
        })
    }
}

/// Note a name of a hard-link set of the source. Whether it is the first.
pub(in crate::image) fn join(session: &Session, set: (u64, u64), node: NodeNo) -> Result<bool> {
    let first = first_member(session, set)?.is_none();
    stage::put(session, &stage::key(b'G', &[set.0, set.1, node]), &())?;
    Ok(first)
}

/// The first name of a hard-link set, of those noted so far.
fn first_member(session: &Session, (device, inode): (u64, u64)) -> Result<Option<NodeNo>> {
    let prefix = stage::key(b'G', &[device, inode]);
    let mut first = None;
    session.scratch_scan(&prefix, &crate::meta::prefix_end(&prefix), &mut |key, _| {
        first = Some(stage::number(key, 2));
        std::ops::ControlFlow::Break(())
    })?;
    first.transpose()
}

/// All names of a hard-link set, in path order.
pub(super) fn members(session: &Session, (device, inode): (u64, u64)) -> Result<Vec<NodeNo>> {
    let mut members = Vec::new();
    stage::each(session, &stage::key(b'G', &[device, inode]), |key, _| {
        members.push(stage::number(key, 2)?);
        Ok(())
    })?;
    Ok(members)
}

/// Whether two objects that are no directories have the same kind and data.
fn same_data(new: &Inode, old: &Inode) -> bool {
    (new.kind, new.digest, new.disk_image, new.rdev) == (old.kind, old.digest, old.disk_image, old.rdev)
}

/// Decides over the numbers of objects that are no directories.
pub(super) struct Identity<'a> {
    pub base: &'a BaseTree<'a>,
    pub session: &'a Session,
}

impl Identity<'_> {
    /// The base's inode whose number this object keeps, if any.
    pub fn kept(&self, node: &Node, new: &Inode, at_path: Option<&Entry>) -> Result<Option<(Ino, Arc<Inode>)>> {
        if let Some(kept) = self.claim(new, at_path)? {
            return Ok(Some(kept));
        }
        // Later names of a hard-link set speak for it where the first one has no claim.
        let Some(set) = node.link_set else { return Ok(None) };
        for member in members(self.session, set)?.into_iter().skip(1) {
            let at_path = self.entry_of(member)?;
            if let Some(kept) = self.claim(new, at_path.as_ref())? {
                return Ok(Some(kept));
            }
        }
        Ok(None)
    }

    /// Take the number of the base's object at a path, if its data is the same and nobody has it.
    fn claim(&self, new: &Inode, at_path: Option<&Entry>) -> Result<Option<(Ino, Arc<Inode>)>> {
        let Some(entry) = at_path else { return Ok(None) };
        let Some(old) = self.base.inode(entry.ino)? else { return Ok(None) };
        if !same_data(new, &old) {
            return Ok(None);
        }
        if old.nlink > 1 {
            let taken = stage::key(b'T', &[entry.ino.0]);
            if self.session.scratch_get(&taken)?.is_some() {
                return Ok(None);
            }
            stage::put(self.session, &taken, &())?;
        }
        Ok(Some((entry.ino, old)))
    }

    /// The base's entry at the path of `node`.
    fn entry_of(&self, node: NodeNo) -> Result<Option<Entry>> {
        let mut names = Vec::new();
        let mut at = node;
        while at != 0 {
            let node: Node = stage::get(self.session, &stage::key(b'N', &[at]))?
                .ok_or_else(|| Error::internal("a node of an import is missing"))?;
            names.push(node.name);
            at = node.parent;
        }
        let mut found = None;
        let mut dir = Some(Ino::ROOT);
        for name in names.iter().rev() {
            found = self.base.entry(dir, name)?;
            let below = |entry: &Entry| (entry.kind == FileKind::Directory).then_some(entry.ino);
            dir = found.as_ref().and_then(below);
        }
        Ok(found)
    }
}

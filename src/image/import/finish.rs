//! Phase 2: from staged nodes to a manifest.
//!
//! One pass over the nodes in path order with a stack of open directories. A node that is no
//! directory is done at once; a directory is done when the pass leaves it, because its digest, its
//! link count and whether its entries changed are known only then. The results are staged once more,
//! because the manifest wants them in the order of inode numbers, not of paths.

use std::sync::Arc;

use super::identity::{BaseTree, Identity, members};
use super::stage::{self, Node, NodeNo};
use super::{Base, ImportContext, Progress};
use crate::chunk::{ChunkSink, Session};
use crate::env::Time;
use crate::error::{Error, Result};
use crate::image::IdRange;
use crate::manifest::{
    Content, Cookie, Entry, FileKind, Ino, Inode, MAX_TIES, ManifestBuilder, ManifestId, ManifestStats, NameSeed,
    SubtreeHasher, Xattrs, content_digest,
};

pub(in crate::image) struct Finished {
    pub manifest: ManifestId,
    pub stats: ManifestStats,
    /// Inodes whose number was taken over from the base.
    pub kept: u64,
}

/// Decide identities and write the manifest of the `nodes` staged in `session`.
pub(in crate::image) fn finish(
    context: &ImportContext,
    base: &Base,
    session: &Session,
    nodes: u64,
    progress: &Progress,
) -> Result<Finished> {
    let base_tree = BaseTree::new(&context.chunks, base);
    let ids = tokio::runtime::Handle::current().block_on(context.catalog.id_range(nodes))?;
    let identity = Identity { base: &base_tree, session };
    let mut pass =
        Pass { session, identity, base: &base_tree, seed: base.seed, now: base.now, ids, open: Vec::new(), kept: 0 };
    for number in 0..nodes {
        if number % 1024 == 0 {
            progress.check()?;
        }
        let node: Node = stage::get(session, &stage::key(b'N', &[number]))?
            .ok_or_else(|| Error::internal("a node of an import is missing"))?;
        pass.node(number, node)?;
    }
    pass.leave_all()?;
    let kept = pass.kept;
    write_manifest(session, base.seed, kept)
}

/// A directory that the pass is in.
struct OpenDir {
    number: NodeNo,
    node: Node,
    ino: Ino,
    parent: Ino,
    cookie: Cookie,
    /// The base's directory at the same path.
    old: Option<Arc<Inode>>,
    hasher: SubtreeHasher,
    subdirs: u32,
    children: u64,
    /// Children that are the same object under the same name as in the base.
    unchanged: u64,
}

impl OpenDir {
    /// Where names of this directory are looked up in the base.
    fn base_ino(&self) -> Option<Ino> {
        self.old.as_ref().map(|_| self.ino)
    }
}

struct Pass<'a> {
    session: &'a Session,
    identity: Identity<'a>,
    base: &'a BaseTree<'a>,
    seed: NameSeed,
    now: Time,
    ids: IdRange,
    open: Vec<OpenDir>,
    kept: u64,
}

/// Where an object was found to be in the new tree.
struct Place {
    dir: Ino,
    cookie: Cookie,
}

impl Pass<'_> {
    fn node(&mut self, number: NodeNo, node: Node) -> Result<()> {
        if number == 0 {
            let old = self.base.inode(Ino::ROOT)?;
            return self.enter(number, node, Ino::ROOT, Place { dir: Ino::ROOT, cookie: Cookie(0) }, old);
        }
        while self.open.last().is_some_and(|dir| dir.number != node.parent) {
            self.leave()?;
        }
        let dir = self.open.last().ok_or_else(|| Error::internal("a node of an import has no directory"))?;
        let (dir_ino, base_dir) = (dir.ino, dir.base_ino());
        let at_path = self.base.entry(base_dir, &node.name)?;
        let cookie = match &at_path {
            Some(entry) => entry.cookie,
            None => self.free_cookie(dir_ino, base_dir, &node.name)?,
        };
        let place = Place { dir: dir_ino, cookie };
        match node.kind {
            FileKind::Directory => self.directory(number, node, place, at_path.as_ref()),
            _ => self.object(number, node, &place, at_path.as_ref()),
        }
    }

    fn directory(&mut self, number: NodeNo, node: Node, place: Place, at_path: Option<&Entry>) -> Result<()> {
        let same = at_path.filter(|entry| entry.kind == FileKind::Directory);
        let old = same.map(|entry| self.base.inode(entry.ino)).transpose()?.flatten();
        let ino = match (same, &old) {
            (Some(entry), Some(_)) => entry.ino,
            _ => self.new_ino()?,
        };
        self.add_entry(&place, &node, ino)?;
        self.enter(number, node, ino, place, old)
    }

    fn enter(&mut self, number: NodeNo, node: Node, ino: Ino, place: Place, old: Option<Arc<Inode>>) -> Result<()> {
        let (parent, cookie) = (place.dir, place.cookie);
        let hasher = SubtreeHasher::new();
        self.open.push(OpenDir {
            number,
            node,
            ino,
            parent,
            cookie,
            old,
            hasher,
            subdirs: 0,
            children: 0,
            unchanged: 0,
        });
        Ok(())
    }

    /// The pass is through with the innermost directory.
    fn leave(&mut self) -> Result<()> {
        let Some(dir) = self.open.pop() else { return Ok(()) };
        let entries_same = match &dir.old {
            Some(_) => dir.unchanged == dir.children && self.base.entry_count(dir.ino)? == Some(dir.children),
            None => false,
        };
        let mut inode = self.bare_inode(&dir.node, dir.parent, dir.cookie)?;
        inode.nlink = 2 + dir.subdirs;
        inode.digest = dir.hasher.finish();
        self.settle_times(&mut inode, dir.old.as_deref(), entries_same);
        let same_object = dir.old.is_some();
        self.add_inode(dir.ino, &inode)?;
        self.join_parent(&dir.node, &inode, same_object)
    }

    fn leave_all(&mut self) -> Result<()> {
        while !self.open.is_empty() {
            self.leave()?;
        }
        Ok(())
    }

    /// Anything but a directory.
    fn object(&mut self, number: NodeNo, node: Node, place: &Place, at_path: Option<&Entry>) -> Result<()> {
        let assigned = match node.link_set {
            Some((device, inode)) => stage::get(self.session, &stage::key(b'A', &[device, inode]))?.map(Ino),
            None => None,
        };
        let (ino, inode) = match assigned {
            Some(ino) => (ino, self.staged_inode(ino)?),
            None => self.new_object(number, &node, place, at_path)?,
        };
        self.add_entry(place, &node, ino)?;
        if inode.nlink > 1 {
            self.session.scratch_put(&stage::key(b'L', &[ino.0, place.dir.0, place.cookie.0]), &[])?;
        }
        self.join_parent(&node, &inode, at_path.is_some_and(|entry| entry.ino == ino))
    }

    /// The first name of an object: give it a number and write its inode.
    fn new_object(
        &mut self,
        number: NodeNo,
        node: &Node,
        place: &Place,
        at_path: Option<&Entry>,
    ) -> Result<(Ino, Inode)> {
        let mut inode = self.bare_inode(node, place.dir, place.cookie)?;
        self.fill_data(number, node, &mut inode)?;
        if let Some(set) = node.link_set {
            inode.nlink = u32::try_from(members(self.session, set)?.len())
                .map_err(|_| Error::invalid("a file with too many names"))?;
        }
        let kept = self.identity.kept(node, &inode, at_path)?;
        let ino = match &kept {
            Some((ino, _)) => *ino,
            None => self.new_ino()?,
        };
        self.settle_times(&mut inode, kept.as_ref().map(|(_, old)| &**old), true);
        if let Some((device, source_inode)) = node.link_set {
            stage::put(self.session, &stage::key(b'A', &[device, source_inode]), &ino.0)?;
        }
        self.add_inode(ino, &inode)?;
        Ok((ino, inode))
    }

    /// The attributes that a node alone gives.
    fn bare_inode(&self, node: &Node, parent: Ino, parent_cookie: Cookie) -> Result<Inode> {
        let stat = &node.stat;
        Ok(Inode {
            kind: node.kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            nlink: 1,
            rdev: stat.rdev,
            size: stat.size,
            used: 0,
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: self.now,
            parent,
            parent_cookie,
            digest: [0; 32],
            disk_image: false,
            content: Content::None,
            xattrs: self.store_xattrs(node)?,
        })
    }

    fn fill_data(&self, number: NodeNo, node: &Node, inode: &mut Inode) -> Result<()> {
        match node.kind {
            FileKind::Regular => {
                let data = stage::content(self.session, number)?;
                (inode.content, inode.digest, inode.used, inode.disk_image) =
                    (data.content, data.digest, data.used, data.disk_image);
            }
            FileKind::Symlink => {
                inode.content = Content::Symlink(node.target.clone().into());
                inode.digest = content_digest(inode.size, &inode.content);
            }
            _ => {}
        }
        Ok(())
    }

    fn store_xattrs(&self, node: &Node) -> Result<Xattrs> {
        let (xattrs, chunk) = Xattrs::store(&node.xattrs, self.session)?;
        if let (Some(stored), Xattrs::Chunk { len, .. }) = (chunk, &xattrs) {
            stage::put_chunk(self.session, &stored.id, *len, stored.stored_len)?;
        }
        Ok(xattrs)
    }

    /// An inode that did not change keeps the base's ctime bit for bit, and its access time, which
    /// reading the source may have moved.
    fn settle_times(&self, inode: &mut Inode, old: Option<&Inode>, entries_same: bool) {
        let Some(old) = old else { return };
        (inode.atime, inode.ctime) = (old.atime, old.ctime);
        let mut own = inode.clone();
        if own.kind == FileKind::Directory {
            // A subtree's digest moves with anything below; the directory itself did not change by it.
            own.digest = old.digest;
        }
        if own != *old || !entries_same {
            inode.ctime = self.now;
        }
    }

    /// Tell the directory around about a child that is done.
    fn join_parent(&mut self, node: &Node, inode: &Inode, same_object: bool) -> Result<()> {
        let Some(dir) = self.open.last_mut() else { return Ok(()) };
        dir.hasher.child(&node.name, inode)?;
        dir.children += 1;
        dir.unchanged += u64::from(same_object);
        dir.subdirs += u32::from(inode.kind == FileKind::Directory);
        self.kept += u64::from(same_object);
        Ok(())
    }

    /// A cookie for a new name, which no name of the directory has, before or after.
    fn free_cookie(&self, dir: Ino, base_dir: Option<Ino>, name: &[u8]) -> Result<Cookie> {
        let base = self.seed.cookie_base(name);
        for cookie in (base.0..base.0 + MAX_TIES).map(Cookie) {
            let staged = self.session.scratch_get(&stage::key(b'D', &[dir.0, cookie.0]))?;
            if staged.is_none() && !self.base.cookie_taken(base_dir, cookie)? {
                return Ok(cookie);
            }
        }
        Err(Error::internal(format!("no free cookie for the name {}", name.escape_ascii())))
    }

    fn new_ino(&mut self) -> Result<Ino> {
        self.ids.next().map(Ino).ok_or_else(|| Error::internal("an import ran out of inode numbers"))
    }

    fn add_entry(&self, place: &Place, node: &Node, ino: Ino) -> Result<()> {
        let entry = Entry { name: node.name.clone().into(), cookie: place.cookie, ino, kind: node.kind };
        self.session.scratch_put(&stage::key(b'D', &[place.dir.0, place.cookie.0]), &entry.encode()?)
    }

    fn add_inode(&self, ino: Ino, inode: &Inode) -> Result<()> {
        self.session.scratch_put(&stage::key(b'I', &[ino.0]), &inode.encode()?)
    }

    fn staged_inode(&self, ino: Ino) -> Result<Inode> {
        let bytes = self.session.scratch_get(&stage::key(b'I', &[ino.0]))?;
        Inode::decode(&bytes.ok_or_else(|| Error::internal("an inode of an import is missing"))?.into())
    }
}

/// The four streams of the manifest, each in its order.
fn write_manifest(session: &Session, seed: NameSeed, kept: u64) -> Result<Finished> {
    let mut builder = ManifestBuilder::new(session as &dyn ChunkSink, seed);
    stage::each(session, b"I", |key, value| {
        builder.add_inode(Ino(stage::number(key, 0)?), &Inode::decode(&value.to_vec().into())?)
    })?;
    stage::each(session, b"D", |key, value| {
        let cookie = Cookie(stage::number(key, 1)?);
        builder.add_entry(Ino(stage::number(key, 0)?), &Entry::decode(cookie, &value.to_vec().into())?)
    })?;
    stage::each(session, b"L", |key, _| {
        builder.add_link(Ino(stage::number(key, 0)?), Ino(stage::number(key, 1)?), Cookie(stage::number(key, 2)?))
    })?;
    stage::each_chunk(session, |id, raw_len, stored_len| builder.add_chunk(id, raw_len, stored_len))?;
    let (manifest, stats) = builder.finish()?;
    Ok(Finished { manifest, stats, kept })
}

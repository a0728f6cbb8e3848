//! What a view has that its version has not, path by path.
//!
//! Owns the comparison of sealed layers with the image below them. It goes through what the layers hold,
//! names first, then objects; what they do not hold is not looked at, so that it costs what was changed.
//! A name is told where it was added or taken away, an object at each name that it had and still has.
//! What lies below a directory that was renamed is where it was in it, and is not told.
//!
//! Differences in ctime, atime, inode numbers and link counts are none, as between versions; data count
//! as changed where the layers cover some of them, also with the same bytes.
//!
//! Failure story: what does not decode or has no place in the tree is `Corrupt`, and ends it.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Node;
use super::changes::{Private, PrivateName, PrivateObject};
use super::paths::{Paths, SealedView, joined};
use crate::error::{Error, Result};
use crate::manifest::{Change, ChangeKind, Content, Entry, FileKind, Ino, Inode, Manifest, Xattrs};

/// One path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub change: Change,
    /// Bytes of the file that are private; of one with several names, the same at each.
    pub bytes_private: u64,
}

/// Takes a difference; breaks if it wants no more.
pub type Visit<'a> = &'a mut (dyn FnMut(Difference) -> Result<ControlFlow<()>> + Send);

/// Visit every path at which the view differs from its version; `private` is what its layers hold.
/// Answers how many bytes of its files are private. Blocks.
pub fn compare(view: SealedView<'_>, private: &Private, visit: Visit<'_>) -> Result<u64> {
    let mut diff = Diff { view, private, paths: Paths::new(view, private), former: None, visit };
    for name in private.names() {
        if diff.name(&name?)?.is_break() {
            return Ok(0);
        }
    }
    let mut bytes_private: u64 = 0;
    for object in private.objects() {
        let object = object?;
        bytes_private = bytes_private.saturating_add(object.bytes_private);
        if diff.object(&object)?.is_break() {
            break;
        }
    }
    Ok(bytes_private)
}

struct Diff<'a, 'v> {
    view: SealedView<'a>,
    private: &'a Private,
    paths: Paths<'a>,
    /// The directory last asked for that only the image has, and its path.
    former: Option<(Ino, Vec<u8>)>,
    visit: Visit<'v>,
}

/// An object as the view shows it.
struct Shown {
    node: Node,
    /// The image's, if that has one of this number.
    image: Option<Arc<Inode>>,
    /// The one under its private data: the image's, or that of the version that it keeps as its base.
    base: Option<Arc<Inode>>,
    private: Option<PrivateObject>,
}

impl Diff<'_, '_> {
    fn name(&mut self, name: &PrivateName) -> Result<ControlFlow<()>> {
        let PrivateName { dir, cookie, entry } = name;
        match (self.view.image_entry(*dir, *cookie)?, entry) {
            (None, None) => Ok(ControlFlow::Continue(())),
            (Some(was), None) => self.removed(*dir, &was),
            (None, Some(is)) => self.added(*dir, is),
            (Some(was), Some(is)) if was.name == is.name && was.ino == is.ino => Ok(ControlFlow::Continue(())),
            (Some(was), Some(is)) if was.name == is.name && !are_directories(&was, is) => self.replaced(*dir, &was, is),
            // Another directory is there now: what is below either is not compared.
            (Some(was), Some(is)) => match self.removed(*dir, &was)? {
                ControlFlow::Continue(()) => self.added(*dir, is),
                broken => Ok(broken),
            },
        }
    }

    fn removed(&mut self, dir: Ino, was: &Entry) -> Result<ControlFlow<()>> {
        let bytes_old = length_of_image(&*self.image(was.ino)?);
        let path = joined(&self.path_of(dir)?, &was.name);
        self.tell(Change { path, kind: ChangeKind::Removed, bytes_old, bytes_new: 0 }, 0)
    }

    fn added(&mut self, dir: Ino, is: &Entry) -> Result<ControlFlow<()>> {
        let shown = self.shown(is.ino)?;
        let path = joined(&self.path_of(dir)?, &is.name);
        let change = Change { path, kind: ChangeKind::Added, bytes_old: 0, bytes_new: length(&shown.node) };
        self.tell(change, shown.bytes_private())
    }

    /// Another object has the name now.
    fn replaced(&mut self, dir: Ino, was: &Entry, is: &Entry) -> Result<ControlFlow<()>> {
        let (image, shown) = (self.image(was.ino)?, self.shown(is.ino)?);
        let path = joined(&self.path_of(dir)?, &is.name);
        self.compare(path, &image, &shown)
    }

    /// Compare an object that is in the image too, at each of the names that it had and still has.
    fn object(&mut self, object: &PrivateObject) -> Result<ControlFlow<()>> {
        let Some(node) = &object.node else { return Ok(ControlFlow::Continue(())) };
        let Some(image) = self.view.image_inode(object.ino)? else { return Ok(ControlFlow::Continue(())) };
        let base = Some(image.clone());
        let shown = Shown { node: node.clone(), image: base.clone(), base, private: Some(object.clone()) };
        if kind_of_change(&image, &shown).is_none() {
            return Ok(ControlFlow::Continue(()));
        }
        if object.ino == Ino::ROOT {
            return self.compare(Vec::new(), &image, &shown);
        }
        let names = self.view.ask(|tree, fetch| tree.manifest().names(fetch, object.ino, &image))?;
        for (dir, cookie) in names {
            let Some(entry) = self.view.entry(dir, cookie)?.filter(|entry| entry.ino == object.ino) else { continue };
            let path = joined(&self.path_of(dir)?, &entry.name);
            if self.compare(path, &image, &shown)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn compare(&mut self, path: Vec<u8>, was: &Inode, is: &Shown) -> Result<ControlFlow<()>> {
        let Some(kind) = kind_of_change(was, is) else { return Ok(ControlFlow::Continue(())) };
        let change = Change { path, kind, bytes_old: length_of_image(was), bytes_new: length(&is.node) };
        self.tell(change, is.bytes_private())
    }

    fn tell(&mut self, change: Change, bytes_private: u64) -> Result<ControlFlow<()>> {
        (self.visit)(Difference { change, bytes_private })
    }

    /// Where a directory is; of one that is gone, where it was.
    fn path_of(&mut self, dir: Ino) -> Result<Vec<u8>> {
        if let Some(path) = self.paths.of_directory(dir)? {
            return Ok(path);
        }
        if let Some((_, path)) = self.former.as_ref().filter(|(former, _)| *former == dir) {
            return Ok(path.clone());
        }
        let path = self.view.ask(|tree, fetch| tree.manifest().path_of(fetch, dir))?;
        let path = path.ok_or_else(|| missing(dir))?;
        self.former = Some((dir, path.clone()));
        Ok(path)
    }

    fn image(&self, ino: Ino) -> Result<Arc<Inode>> {
        self.view.image_inode(ino)?.ok_or_else(|| missing(ino))
    }

    fn shown(&self, ino: Ino) -> Result<Shown> {
        let private = self.private.object(ino)?;
        let node = self.view.node(ino)?.ok_or_else(|| missing(ino))?;
        let image = self.view.image_inode(ino)?;
        let base = match node.base {
            Some(id) => self.view.ask(|_, fetch| Manifest::open(fetch, &id)?.inode(fetch, ino))?,
            None => image.clone(),
        };
        Ok(Shown { node, image, base, private })
    }
}

impl Shown {
    fn bytes_private(&self) -> u64 {
        self.private.as_ref().map_or(0, |private| private.bytes_private)
    }

    /// Whether its data are not those of the image's object `was`.
    fn has_other_data(&self, was: &Inode) -> bool {
        match self.node.kind {
            FileKind::Symlink => was.content != Content::Symlink(self.node.target.clone()),
            FileKind::Regular => self.node.size != was.size || (was.size > 0 && self.has_other_bytes(was)),
            _ => false,
        }
    }

    fn has_other_bytes(&self, was: &Inode) -> bool {
        let Some(base) = &self.base else { return true };
        let private = self.private.as_ref();
        private.is_some_and(|private| private.bytes_private > 0 || private.shows_image_upto < base.size)
            || base.digest != was.digest
    }

    fn has_other_attrs(&self, was: &Inode) -> bool {
        let Self { node, image, .. } = self;
        let xattrs = image.as_ref().map_or(&Xattrs::None, |image| &image.xattrs);
        (node.mode, node.uid, node.gid, node.rdev, node.mtime) != (was.mode, was.uid, was.gid, was.rdev, was.mtime)
            || *xattrs != was.xattrs
    }
}

fn kind_of_change(was: &Inode, is: &Shown) -> Option<ChangeKind> {
    let file_type = was.kind != is.node.kind;
    let (data, attrs) = (file_type || is.has_other_data(was), is.has_other_attrs(was));
    (data || attrs).then_some(ChangeKind::Modified { data, attrs, file_type })
}

fn are_directories(was: &Entry, is: &Entry) -> bool {
    was.kind == FileKind::Directory && is.kind == FileKind::Directory
}

fn length(node: &Node) -> u64 {
    match node.kind {
        FileKind::Regular => node.size,
        FileKind::Symlink => node.target.len() as u64,
        _ => 0,
    }
}

fn length_of_image(inode: &Inode) -> u64 {
    if matches!(inode.kind, FileKind::Regular | FileKind::Symlink) { inode.size } else { 0 }
}

fn missing(ino: Ino) -> Error {
    Error::corrupt(format!("inode {} is named but not there", ino.0)).remedy("run `mimeo fsck`")
}

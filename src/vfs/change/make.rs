//! CREATE, MKDIR, SYMLINK, MKNOD, LINK: new names.
//!
//! A name that is taken is told before a missing permission, as local filesystems do it: `mkdir -p`
//! relies on it.

use bytes::Bytes;

use super::super::policy::Identity;
use super::super::read::check_name;
use super::super::resolve::{Ended, Found, Run};
use super::super::{
    Attr, Changed, CreateHow, FileKind, MAX_FILE_BYTES, MAX_LINKS, NewAttr, NewObject, Object, Place, Refusal, access,
};
use super::attr::check_time;
use crate::env::Time;
use crate::manifest::{Entry, MAX_SYMLINK};
use crate::overlay::{Node, Tree};

/// Mode bits that a new directory takes from its maker; SGID comes from its parent.
const DIR_MODE: u32 = 0o1777;

impl<'s> Run<'s, '_> {
    pub fn create(&mut self, place: Place<'_>, how: &CreateHow) -> Ended<Changed> {
        let (tree, dir) = self.open_for_name(place)?;
        if let Some(entry) = tree.lookup(self.fetch, dir.ino, place.name)? {
            return self.take_existing(tree, &dir, &entry, how);
        }
        let (new, verifier) = match how {
            CreateHow::Unchecked(new) | CreateHow::Guarded(new) => (*new, None),
            CreateHow::Exclusive(verifier) => (NewAttr::default(), Some(*verifier)),
        };
        let fresh = Fresh { kind: FileKind::Regular, rdev: (0, 0), target: b"", verifier };
        self.add(tree, dir, place.name, &fresh, &new)
    }

    pub fn make(&mut self, place: Place<'_>, what: &NewObject<'_>, new: &NewAttr) -> Ended<Changed> {
        let (tree, dir) = self.open_for_name(place)?;
        if tree.lookup(self.fetch, dir.ino, place.name)?.is_some() {
            return Err(dir.refuse(Refusal::Exists));
        }
        let fresh = Fresh::of(what).map_err(|why| dir.refuse(why))?;
        if fresh.kind == FileKind::Directory {
            self.way_up(&tree, &dir)?;
        }
        let is_device = matches!(fresh.kind, FileKind::Char | FileKind::Block);
        if is_device && !self.identity(&dir.scope).is_root() {
            return Err(dir.refuse(Refusal::Perm));
        }
        self.add(tree, dir, place.name, &fresh, &NewAttr { size: None, ..*new })
    }

    /// Open the directory of a name that is to be made.
    fn open_for_name(&mut self, place: Place<'_>) -> Ended<(Tree<'s>, Found<'s>)> {
        let (tree, dir) = self.open_dir(place.dir)?;
        match place.name {
            b"." | b".." => return Err(dir.refuse(Refusal::Exists)),
            name => check_name(name).map_err(|why| dir.refuse(why))?,
        }
        Ok((tree, dir))
    }

    /// CREATE of a name that is taken.
    fn take_existing(&mut self, mut tree: Tree<'s>, dir: &Found<'s>, entry: &Entry, how: &CreateHow) -> Ended<Changed> {
        let mut file = self.named(&tree, dir.scope, entry.ino)?;
        let taken = || dir.refuse(Refusal::Exists);
        if file.node.kind != FileKind::Regular {
            return Err(taken());
        }
        let new = match how {
            CreateHow::Guarded(_) => return Err(taken()),
            CreateHow::Exclusive(verifier) if file.node.verifier != Some(*verifier) => return Err(taken()),
            CreateHow::Exclusive(_) => NewAttr::default(),
            CreateHow::Unchecked(new) => NewAttr { size: new.size, ..NewAttr::default() },
        };
        let set = self.set(&mut tree, &mut file, &new).map_err(|end| about(dir, end))?;
        let object = Some((file.object(), file.attr()));
        let changed = Changed { object, wcc: dir.unchanged(), to: None, durable: None };
        if set { self.take_effect(tree, changed) } else { Ok(self.nothing_to_do(tree, dir, changed)) }
    }

    /// Add a new object under a name that is free.
    fn add(
        &mut self,
        mut tree: Tree<'s>,
        mut dir: Found<'s>,
        name: &[u8],
        fresh: &Fresh<'_>,
        new: &NewAttr,
    ) -> Ended<Changed> {
        self.check_names(&dir)?;
        self.check_space(&dir)?;
        let who = self.identity(&dir.scope);
        check_new(new).map_err(|why| dir.refuse(why))?;
        let now = self.vfs.now();
        let ino = self.vfs.inodes().take(self.fetch)?;
        let allowance = self.allowance(&dir.scope, &tree);
        let mut node = fresh.node(&dir, now);
        own(&who, &dir.attr(), new, &mut node);
        if let Some(size) = new.size.filter(|size| *size > 0) {
            tree.truncate(self.fetch, ino, &mut node, size)?;
        }
        node.atime = new.atime.at(now).unwrap_or(now);
        node.mtime = new.mtime.at(now).unwrap_or(now);
        tree.put(self.fetch, ino, node.clone())?;
        tree.add_entry(self.fetch, dir.ino, name, ino, fresh.kind)?;
        if fresh.kind == FileKind::Directory {
            dir.node.nlink += 1;
        }
        let refused = dir.refuse(Refusal::Quota);
        let wcc = self.put_dir(&mut tree, &mut dir, now)?;
        if allowance.is_some_and(|allowance| allowance.is_exceeded(&tree)) {
            return Err(refused);
        }
        // A view that began with new generations for all gives them to what is made in it, too.
        let generation = self.generation(&dir.scope, ino, fresh.kind)?;
        let made = Found { scope: dir.scope, ino, generation, node };
        self.take_effect(tree, Changed { object: Some((made.object(), made.attr())), wcc, to: None, durable: None })
    }

    pub fn link(&mut self, object: Object, to: Place<'_>) -> Ended<Changed> {
        let (mut tree, mut dir) = self.open_for_name(to)?;
        self.check_names(&dir)?;
        let here = match object.export == to.dir.export {
            true => self.find_here(&tree, dir.scope, crate::manifest::Ino(object.ino))?,
            false => None,
        };
        let Some(mut file) = here.filter(|file| file.object() == object) else {
            drop(tree);
            // A dead handle is told; a live one is of another export, or of a view that takes no names.
            self.find(object)?;
            return Err(dir.refuse(Refusal::CrossDevice));
        };
        if file.is_dir() {
            return Err(dir.refuse(Refusal::IsDirectory));
        }
        if tree.lookup(self.fetch, dir.ino, to.name)?.is_some() {
            return Err(dir.refuse(Refusal::Exists));
        }
        if file.node.nlink >= MAX_LINKS {
            return Err(dir.refuse(Refusal::TooManyLinks));
        }
        self.check_space(&dir)?;
        let now = self.vfs.now();
        file.node.nlink += 1;
        file.node.parent = dir.ino;
        file.touch(now);
        self.put(&mut tree, &file)?;
        tree.add_entry(self.fetch, dir.ino, to.name, file.ino, file.node.kind)?;
        let wcc = self.put_dir(&mut tree, &mut dir, now)?;
        self.take_effect(tree, Changed { object: Some((object, file.attr())), wcc, to: None, durable: None })
    }
}

/// A refusal about an entry is told with the attributes of its directory.
fn about(dir: &Found<'_>, end: super::End) -> super::End {
    match end {
        super::End::Refused(refused) => dir.refuse(refused.why),
        end => end,
    }
}

/// What a new object is, apart from its attributes.
struct Fresh<'a> {
    kind: FileKind,
    rdev: (u32, u32),
    target: &'a [u8],
    verifier: Option<[u8; 8]>,
}

impl<'a> Fresh<'a> {
    fn of(what: &NewObject<'a>) -> Result<Self, Refusal> {
        let (kind, rdev, target) = match *what {
            NewObject::Directory => (FileKind::Directory, (0, 0), &b""[..]),
            NewObject::Symlink(target) => (FileKind::Symlink, (0, 0), target),
            NewObject::Char(major, minor) => (FileKind::Char, (major, minor), &b""[..]),
            NewObject::Block(major, minor) => (FileKind::Block, (major, minor), &b""[..]),
            NewObject::Fifo => (FileKind::Fifo, (0, 0), &b""[..]),
            NewObject::Socket => (FileKind::Socket, (0, 0), &b""[..]),
        };
        if target.len() > MAX_SYMLINK {
            return Err(Refusal::NameTooLong);
        }
        if kind == FileKind::Symlink && (target.is_empty() || target.contains(&0)) {
            return Err(Refusal::Invalid);
        }
        Ok(Self { kind, rdev, target, verifier: None })
    }

    fn node(&self, dir: &Found<'_>, now: Time) -> Node {
        let mut node = Node::new(self.kind, dir.ino, now);
        node.rdev = self.rdev;
        node.verifier = self.verifier;
        if self.kind == FileKind::Symlink {
            node.target = Bytes::copy_from_slice(self.target);
            node.size = self.target.len() as u64;
        }
        node
    }
}

/// Refuse attributes that no new object can have.
fn check_new(new: &NewAttr) -> Result<(), Refusal> {
    check_time(new.atime)?;
    check_time(new.mtime)?;
    if new.size.is_some_and(|size| size > MAX_FILE_BYTES) { Err(Refusal::FileTooBig) } else { Ok(()) }
}

/// Give a new object its owner and its mode: the caller's, and in an SGID directory its group. Who is
/// not root does not choose an owner, and is not told so (some clients always send one).
fn own(who: &Identity<'_>, dir: &Attr, new: &NewAttr, node: &mut Node) {
    let inherits = dir.mode & access::SGID != 0;
    let (uid, gid) = (who.uid, if inherits { dir.gid } else { who.gid });
    (node.uid, node.gid) = if who.is_root() { (new.uid.unwrap_or(uid), new.gid.unwrap_or(gid)) } else { (uid, gid) };
    let mode = new.mode.unwrap_or(0) & 0o7777;
    node.mode = match node.kind {
        FileKind::Symlink => 0o777,
        FileKind::Directory if inherits => mode & DIR_MODE | access::SGID,
        FileKind::Directory => mode & DIR_MODE,
        _ if who.is_root() || who.in_group(node.gid) => mode,
        _ if mode & access::GROUP_EXEC != 0 => mode & !access::SGID,
        _ => mode,
    };
}

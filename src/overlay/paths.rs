//! Where the objects of a view are: paths, found by parent links, without a walk of the tree.
//!
//! A private node knows its directory, not its name there. The name of a directory that is where the
//! image has it is the image's; that of one that was made or renamed in private is among the private
//! names of its parent. Those are gone through once for each such parent, whatever number of its
//! directories are asked for.
//!
//! Memory: some thousand paths, and a few words for each private directory, up to a bound beyond which
//! names are looked for again.
//!
//! Failure story: a directory without a name in its parent is `Corrupt`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::changes::Private;
use super::{Layer, Node, OverlayStore, Tree};
use crate::chunk::{ChunkSource, Fetch, Step};
use crate::error::{Error, Result};
use crate::manifest::{Cookie, Entry, FileKind, Ino, Inode, MAX_DEPTH, Manifest, ManifestId};

/// Paths of directories that are remembered.
const MAX_PATHS: usize = 4096;
/// Private names that are remembered.
const MAX_NAMES: usize = 256 * 1024;

/// Sealed layers over a version, to be asked on a thread that may block.
#[derive(Clone, Copy)]
pub struct SealedView<'a> {
    pub overlays: &'a OverlayStore,
    pub chunks: &'a dyn ChunkSource,
    pub manifest: ManifestId,
    /// Bottom first.
    pub layers: &'a [Layer],
}

impl SealedView<'_> {
    pub(super) fn ask<T>(&self, mut question: impl FnMut(&Tree<'_>, &mut Fetch<'_>) -> Step<T>) -> Result<T> {
        Fetch::new(self.chunks).run_blocking(|fetch| {
            let manifest = Manifest::open(fetch, &self.manifest)?;
            question(&Tree::open_sealed(self.overlays, manifest, self.layers)?, fetch)
        })
    }

    pub(super) fn node(&self, ino: Ino) -> Result<Option<Node>> {
        self.ask(|tree, fetch| tree.node(fetch, ino))
    }

    pub(super) fn entry(&self, dir: Ino, cookie: Cookie) -> Result<Option<Entry>> {
        self.ask(|tree, fetch| tree.entry_at(fetch, dir, cookie))
    }

    /// The image's object of this number, if it has one.
    pub(super) fn image_inode(&self, ino: Ino) -> Result<Option<Arc<Inode>>> {
        self.ask(|tree, fetch| tree.manifest().inode(fetch, ino))
    }

    pub(super) fn image_entry(&self, dir: Ino, cookie: Cookie) -> Result<Option<Entry>> {
        self.ask(|tree, fetch| tree.manifest().entry_at(fetch, dir, cookie))
    }
}

/// The paths of a view's directories.
pub struct Paths<'a> {
    view: SealedView<'a>,
    paths: HashMap<Ino, Vec<u8>>,
    names: PrivateNames,
}

/// Private names, by what they lead to. A directory is gone through once, whatever number of its names are
/// asked for.
pub struct PrivateNames {
    private: Private,
    /// Of directories only.
    dirs_only: bool,
    /// By (directory, object): all names of the directories in `scanned`, and of one object the first.
    names: HashMap<(Ino, Ino), Entry>,
    scanned: HashSet<Ino>,
}

impl<'a> Paths<'a> {
    /// `private` is what the view's layers hold.
    pub fn new(view: SealedView<'a>, private: &'a Private) -> Self {
        Self { view, paths: HashMap::new(), names: PrivateNames::new(private, true) }
    }

    /// The path of a directory as the view has it, from the root and without a leading slash; `None` if
    /// the view does not have it.
    pub fn of_directory(&mut self, dir: Ino) -> Result<Option<Vec<u8>>> {
        let (mut way, mut at) = (Vec::new(), dir);
        let mut path = loop {
            if at == Ino::ROOT {
                break Vec::new();
            }
            if let Some(path) = self.paths.get(&at) {
                break path.clone();
            }
            let Some(node) = self.view.node(at)?.filter(Node::is_dir) else {
                return if way.is_empty() { Ok(None) } else { Err(nameless(at)) };
            };
            if way.len() == MAX_DEPTH {
                return Err(Error::corrupt(format!("directory {} is deeper than {MAX_DEPTH}", dir.0)));
            }
            way.push((at, self.name(node.parent, at)?));
            at = node.parent;
        };
        for (_, name) in way.iter().rev() {
            path = joined(&path, name);
        }
        self.remember(dir, &path);
        Ok(Some(path))
    }

    fn remember(&mut self, dir: Ino, path: &[u8]) {
        if self.paths.len() == MAX_PATHS {
            self.paths.clear();
        }
        self.paths.insert(dir, path.to_vec());
    }

    /// The name of directory `dir` in `parent`.
    fn name(&mut self, parent: Ino, dir: Ino) -> Result<Bytes> {
        if let Some(image) = self.view.image_inode(dir)?.filter(|image| image.parent == parent)
            && let Some(entry) = self.view.entry(parent, image.parent_cookie)?.filter(|entry| entry.ino == dir)
        {
            return Ok(entry.name);
        }
        self.names.find(parent, dir)?.map(|entry| entry.name).ok_or_else(|| nameless(dir))
    }
}

impl PrivateNames {
    pub fn new(private: &Private, dirs_only: bool) -> Self {
        Self { private: private.clone(), dirs_only, names: HashMap::new(), scanned: HashSet::new() }
    }

    /// The first private name of `ino` in `parent`.
    pub fn find(&mut self, parent: Ino, ino: Ino) -> Result<Option<Entry>> {
        if let Some(entry) = self.names.get(&(parent, ino)) {
            return Ok(Some(entry.clone()));
        }
        if self.scanned.contains(&parent) {
            return Ok(None);
        }
        let (mut found, mut whole) = (None, true);
        for name in self.private.names_of(parent) {
            let Some(entry) = name?.entry else { continue };
            if self.dirs_only && entry.kind != FileKind::Directory {
                continue;
            }
            if entry.ino == ino {
                found = found.or_else(|| Some(entry.clone()));
            }
            if self.names.len() == MAX_NAMES {
                self.names.clear();
                self.scanned.clear();
                whole = false;
            }
            self.names.entry((parent, entry.ino)).or_insert(entry);
        }
        // One that has more than are remembered is gone through again.
        if whole {
            self.scanned.insert(parent);
        }
        Ok(found)
    }
}

/// `name` below the directory `path`.
pub(super) fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, name].join(&b'/') }
}

fn nameless(dir: Ino) -> Error {
    Error::corrupt(format!("directory {} has no name in its parent", dir.0)).remedy("run `mimeo fsck`")
}

//! What is preserved: the private names and objects at and below some paths, as a view of their own.
//!
//! Owns the choice, and the layer that holds what was chosen and nothing else. Over the version that the
//! clone showed, that layer shows the version, with the clone's changes below the paths; so from there on
//! it is rebased as any other. Data are not copied, only what the index says of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::sight::Sight;
use super::survey::{Gains, Name, Object, check_rows};
use super::{FITS, RETURNED, Rebase};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Cookie, FileKind, Ino, MAX_DEPTH};
use crate::overlay::paths::joined;
use crate::overlay::{Node, OverlayStore, Position};

/// Paths of directories that are remembered.
const MAX_PATHS: usize = 4096;

/// What of a view's private state is preserved.
#[derive(Debug, Default)]
pub struct Choice {
    pub names: BTreeSet<(Ino, Cookie)>,
    /// Objects, with the link count that they have then.
    pub objects: BTreeMap<Ino, u32>,
    /// Directories above, and what keeps some of its names: as the version has them, with the names that are
    /// preserved.
    pub above: BTreeMap<Ino, Node>,
    /// Those of the latter that were removed.
    pub returned: BTreeSet<Ino>,
}

impl Choice {
    /// The last position of the layer that holds it.
    pub fn upto(&self) -> Position {
        if self.returned.is_empty() { FITS } else { RETURNED }
    }

    pub fn position(&self, ino: Ino) -> Position {
        if self.returned.contains(&ino) { RETURNED } else { FITS }
    }
}

/// Choose what lies at or below `paths`, which are normalised. Blocks.
pub fn choose(store: &OverlayStore, rebase: &Rebase, paths: &[Vec<u8>]) -> Result<Choice> {
    let sight = Sight::new(store, rebase)?;
    let mut chooser = Chooser {
        sight,
        paths,
        known: HashMap::new(),
        names: BTreeMap::new(),
        objects: BTreeSet::new(),
        homes: BTreeSet::new(),
    };
    let private = chooser.sight.private.clone();
    for name in private.names() {
        let name = name?;
        chooser.name(name.dir, name.cookie)?;
    }
    for object in private.objects() {
        chooser.object(object?.ino)?;
    }
    let named: Vec<_> = chooser.names.keys().map(|(dir, _)| *dir).collect();
    chooser.place(named)?;
    chooser.finish()
}

struct Chooser<'a> {
    sight: Sight<'a>,
    paths: &'a [Vec<u8>],
    /// Paths of directories.
    known: HashMap<Ino, Vec<u8>>,
    names: BTreeMap<(Ino, Cookie), Name>,
    /// Objects that are chosen by a name that did not change, or to which a chosen name leads.
    objects: BTreeSet<Ino>,
    /// Directories with such a name that did not change.
    homes: BTreeSet<Ino>,
}

impl Chooser<'_> {
    fn name(&mut self, dir: Ino, cookie: Cookie) -> Result<()> {
        let name = self.sight.name(dir, cookie)?;
        let Some(entry) = name.mine.as_ref().or(name.base.as_ref()) else { return Ok(()) };
        if name.mine != name.base && self.is_chosen(dir, &entry.name)? {
            self.choose(dir, cookie, name)?;
        }
        Ok(())
    }

    fn choose(&mut self, dir: Ino, cookie: Cookie, name: Name) -> Result<()> {
        let ends = [&name.mine, &name.base].into_iter().flatten().map(|entry| entry.ino);
        self.objects.extend(ends);
        self.names.insert((dir, cookie), name);
        check_rows(self.names.len() + self.objects.len())
    }

    /// Whether a name of a directory is at or below one of the paths.
    fn is_chosen(&mut self, dir: Ino, name: &[u8]) -> Result<bool> {
        let path = joined(self.path_of_dir(dir)?, name);
        let covers = |folder: &Vec<u8>| {
            let rest = path.strip_prefix(&folder[..]);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        Ok(self.paths.iter().any(covers))
    }

    /// The path of a directory, from that of one above it that is known.
    fn path_of_dir(&mut self, dir: Ino) -> Result<&[u8]> {
        if self.known.len() >= MAX_PATHS {
            self.known.clear();
        }
        let (mut way, mut at) = (Vec::new(), dir);
        while at != Ino::ROOT && !self.known.contains_key(&at) {
            if way.len() == MAX_DEPTH {
                return Err(Error::corrupt(format!("directory {} is deeper than {MAX_DEPTH}", dir.0)));
            }
            let Some((parent, entry)) = self.sight.home(at)? else { break };
            way.push((at, entry.name));
            at = parent;
        }
        let mut path = self.known.get(&at).cloned().unwrap_or_default();
        for (dir, name) in way.into_iter().rev() {
            path = joined(&path, &name);
            self.known.insert(dir, path.clone());
        }
        Ok(self.known.get(&dir).map_or(&[], Vec::as_slice))
    }

    /// See that directories in which something is preserved are where they were, and those above them.
    fn place(&mut self, dirs: Vec<Ino>) -> Result<()> {
        let mut left: Vec<_> = dirs.into_iter().chain(std::mem::take(&mut self.homes)).collect();
        let mut placed = BTreeSet::new();
        while let Some(dir) = left.pop() {
            if !placed.insert(dir) || self.sight.node(dir)?.is_none() {
                continue;
            }
            let Some((parent, entry)) = self.sight.home(dir)? else { continue };
            let name = self.sight.name(parent, entry.cookie)?;
            if name.mine != name.base {
                if !self.names.contains_key(&(parent, entry.cookie)) {
                    self.choose(parent, entry.cookie, name)?;
                }
                left.push(parent);
            }
            check_rows(placed.len() + left.len())?;
        }
        Ok(())
    }

    /// An object of the version that has, at a path that is preserved, the name that it had.
    fn object(&mut self, ino: Ino) -> Result<()> {
        if self.objects.contains(&ino) {
            return Ok(());
        }
        let from = self.sight.from;
        let (Some(inode), true) = (self.sight.inode(from, ino)?, self.sight.node(ino)?.is_some()) else {
            return Ok(());
        };
        for (dir, cookie) in self.sight.names(from, ino, &inode)? {
            let Some(entry) = self.sight.shown(dir, cookie)?.filter(|entry| entry.ino == ino) else { continue };
            if ino != Ino::ROOT && self.is_chosen(dir, &entry.name)? {
                self.objects.insert(ino);
                self.homes.insert(dir);
                break;
            }
        }
        check_rows(self.names.len() + self.objects.len() + self.homes.len())
    }

    fn finish(mut self) -> Result<Choice> {
        let mut gains = Gains::default();
        for ((dir, _), name) in &self.names {
            gains.add(*dir, name.mine.as_ref(), 1);
            gains.add(*dir, name.base.as_ref(), -1);
        }
        let mut choice = Choice { names: self.names.keys().copied().collect(), ..Choice::default() };
        let dirs = self.names.keys().map(|(dir, _)| *dir);
        for ino in dirs.chain(self.objects.iter().copied()).collect::<BTreeSet<_>>() {
            let Object { base, mine, .. } = self.sight.object(ino)?;
            let dir = mine.as_ref().map(|m| m.kind).or(base.as_ref().map(|b| b.kind)) == Some(FileKind::Directory);
            let gained = gains.of(ino);
            let named = i64::from(base.is_some()) + gained;
            // At both its places, or at none of them.
            if dir && ino != Ino::ROOT && (named > 1 || (named <= 0 && mine.is_some())) {
                return Err(self.torn(ino)?);
            }
            let nlink = match (dir, &base) {
                // It was removed.
                (true, _) if named <= 0 => 0,
                (true, base) => base.as_ref().map_or(2, |b| i64::from(b.nlink)) + gains.subdirs_of(ino),
                (false, base) => base.as_ref().map_or(0, |b| i64::from(b.nlink)) + gained,
            };
            let nlink = u32::try_from(nlink).unwrap_or(0);
            // Where the clone removed all names, and not all of that is preserved, it is as in the version.
            let comes_back = mine.is_none() && nlink > 0;
            if self.objects.contains(&ino) && !comes_back {
                choice.objects.insert(ino, nlink);
            } else if let Some(base) = base {
                choice.returned.extend((comes_back && !dir).then_some(ino));
                choice.above.insert(ino, Node { nlink, ..Node::of_image(base) });
            }
        }
        Ok(choice)
    }

    /// Of the two places of a directory only one is preserved.
    fn torn(&mut self, dir: Ino) -> Result<Error> {
        let path = self.sight.path_of(dir)?;
        let what = format!("directory /{} was renamed to or from what is preserved", path.escape_ascii());
        Ok(Error::new(ErrorKind::Conflict, what).remedy("preserve both places, or keep all writes"))
    }
}

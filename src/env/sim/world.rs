//! The two images of a simulated disk, and how one becomes the other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};

use super::fault::{Dice, Fault, Faults};
use crate::env::Space;

/// Unit in which a disk tears and loses.
const SECTOR: usize = 512;

/// Why a file that is open is there.
const KEPT: &str = "files go only in a crash, and open files with them";

type Names = BTreeMap<PathBuf, Node>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Dir,
    File(u64),
}

/// Names that change together: each gets a node or goes.
#[derive(Clone)]
struct Change(Vec<(PathBuf, Option<Node>)>);

/// The bytes of a file.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub bytes: Vec<u8>,
    /// So many bytes were given to a sync.
    synced: usize,
    /// Parts of these that a failed sync lost; still readable until the crash.
    lost: Vec<Range<usize>>,
}

pub(super) struct World {
    live: Names,
    durable: Names,
    /// Changes of live names that are not in the durable ones, oldest first.
    pending: Vec<Change>,
    files: BTreeMap<u64, Content>,
    next_id: u64,
    /// Number of crashes.
    pub boot: u64,
    pub capacity: u64,
    pub faults: Faults,
    dice: Dice,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let roots: Names = ["/", ""].into_iter().map(|root| (PathBuf::from(root), Node::Dir)).collect();
        Self {
            live: roots.clone(),
            durable: roots,
            pending: Vec::new(),
            files: BTreeMap::new(),
            next_id: 0,
            boot: 0,
            capacity: 1 << 40,
            faults: Faults::default(),
            dice: Dice::new(seed),
        }
    }

    /// The same disk, of which the dice fall otherwise from now on.
    pub fn fork(&self, seed: u64) -> Self {
        Self {
            live: self.live.clone(),
            durable: self.durable.clone(),
            pending: self.pending.clone(),
            files: self.files.clone(),
            faults: self.faults.clone(),
            dice: Dice::new(seed),
            ..*self
        }
    }

    pub fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.parent_is_there(path)?;
        if self.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.faults.strike()?;
        let id = self.next_id;
        self.next_id += 1;
        self.files.insert(id, Content::default());
        self.change(vec![(path.to_owned(), Some(Node::File(id)))]);
        Ok(id)
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find_file(from)?;
        self.parent_is_there(to)?;
        if self.live.get(to) == Some(&Node::Dir) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.faults.strike()?;
        if from != to {
            self.change(vec![(from.to_owned(), None), (to.to_owned(), Some(Node::File(id)))]);
        }
        Ok(())
    }

    pub fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.find_file(path)?;
        self.faults.strike()?;
        self.change(vec![(path.to_owned(), None)]);
        Ok(())
    }

    pub fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.faults.alive()?;
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        for dir in ancestors {
            match self.live.get(dir) {
                Some(Node::Dir) => {}
                Some(Node::File(_)) if dir == path => return Err(io::ErrorKind::AlreadyExists.into()),
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    self.faults.strike()?;
                    self.change(vec![(dir.to_owned(), Some(Node::Dir))]);
                }
            }
        }
        Ok(())
    }

    pub fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.find_dir(dir)?;
        self.faults.strike()?;
        self.faults.syncs += 1;
        self.settle(|change, _| change.0.iter().any(|(path, _)| path.parent() == Some(dir)));
        Ok(())
    }

    pub fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.find_dir(dir)?;
        let below = self.live.range::<Path, _>((Bound::Excluded(dir), Bound::Unbounded)).map(|(path, _)| path);
        let below = below.take_while(|path| path.starts_with(dir)).filter(|path| path.parent() == Some(dir));
        Ok(below.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect())
    }

    pub fn space(&self) -> io::Result<Space> {
        self.faults.alive()?;
        Ok(Space { total: self.capacity, free: self.capacity.saturating_sub(self.used()) })
    }

    /// Number of the file at `path`.
    pub fn find_file(&self, path: &Path) -> io::Result<u64> {
        self.faults.alive()?;
        match self.live.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(self.missing(path)),
        }
    }

    fn find_dir(&self, path: &Path) -> io::Result<()> {
        self.faults.alive()?;
        match self.live.get(path) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(self.missing(path)),
        }
    }

    /// Why nothing is at `path`.
    fn missing(&self, path: &Path) -> io::Error {
        let through_file = path.ancestors().any(|dir| matches!(self.live.get(dir), Some(Node::File(_))));
        if through_file { io::ErrorKind::NotADirectory.into() } else { io::ErrorKind::NotFound.into() }
    }

    fn parent_is_there(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Err(io::ErrorKind::AlreadyExists.into()), |parent| self.find_dir(parent))
    }

    /// The bytes of all files that have a name.
    fn used(&self) -> u64 {
        let named = self.live.values().filter_map(|node| match node {
            Node::File(id) => self.files.get(id),
            Node::Dir => None,
        });
        named.map(|content| content.bytes.len() as u64).sum()
    }

    /// The file `id`, which some open file of this boot keeps.
    pub fn content(&self, id: u64) -> &Content {
        self.files.get(&id).expect(KEPT)
    }

    fn content_mut(&mut self, id: u64) -> &mut Content {
        self.files.get_mut(&id).expect(KEPT)
    }

    pub fn append(&mut self, id: u64, data: &[u8]) -> io::Result<()> {
        if let Err(error) = self.faults.strike() {
            // A power cut tears all that was not synced, these bytes with it.
            let there = if self.faults.alive().is_err() { data.len() } else { self.dice.part(data.len()) };
            self.content_mut(id).bytes.extend_from_slice(&data[..there]);
            return Err(error);
        }
        let free = usize::try_from(self.capacity.saturating_sub(self.used())).unwrap_or(usize::MAX);
        let fits = data.len().min(free);
        self.content_mut(id).bytes.extend_from_slice(&data[..fits]);
        if fits < data.len() { Err(Fault::NoSpace.error()) } else { Ok(()) }
    }

    pub fn sync(&mut self, id: u64) -> io::Result<()> {
        let outcome = self.faults.strike();
        let Self { files, faults, dice, .. } = self;
        let content = files.get_mut(&id).expect(KEPT);
        match outcome {
            Ok(()) => {
                faults.syncs += 1;
                content.synced = content.bytes.len();
            }
            // A sync that a power cut interrupts loses nothing that it would not lose without.
            Err(_) if faults.alive().is_err() => {}
            Err(_) => content.lose_unsynced(dice),
        }
        outcome
    }

    pub fn corrupt(&mut self, path: &Path, offset: usize) -> bool {
        let Ok(id) = self.find_file(path) else { return false };
        match self.content_mut(id).bytes.get_mut(offset) {
            Some(byte) => {
                *byte ^= 0xff;
                true
            }
            None => false,
        }
    }

    /// The bytes that were given to no sync.
    pub fn unsynced(&self) -> usize {
        self.files.values().map(|content| content.bytes.len() - content.synced).sum()
    }

    fn change(&mut self, names: Vec<(PathBuf, Option<Node>)>) {
        let change = Change(names);
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    /// Make the chosen changes durable, and before them all earlier ones of the same names.
    fn settle(&mut self, mut choose: impl FnMut(&Change, &Dice) -> bool) {
        let mut needed = BTreeSet::new();
        let mut chosen = Vec::new();
        for change in self.pending.iter().rev() {
            let choice = choose(change, &self.dice) || change.0.iter().any(|(path, _)| needed.contains(path));
            if choice {
                needed.extend(change.0.iter().map(|(path, _)| path));
            }
            chosen.push(choice);
        }
        let mut chosen = chosen.into_iter().rev();
        let mut rest = Vec::new();
        for change in std::mem::take(&mut self.pending) {
            match chosen.next() {
                Some(true) => change.apply(&mut self.durable),
                _ => rest.push(change),
            }
        }
        self.pending = rest;
    }

    /// Become what a power cut leaves; `survive` tells how many of the un-synced bytes of a file.
    pub fn crash(&mut self, survive: &dyn Fn(&Dice, usize) -> usize) {
        self.settle(|_, dice| dice.coin());
        self.pending.clear();
        self.live = reachable(std::mem::take(&mut self.durable));
        self.durable = self.live.clone();
        let named: BTreeSet<Node> = self.live.values().copied().collect();
        self.files.retain(|id, _| named.contains(&Node::File(*id)));
        for content in self.files.values_mut() {
            content.tear(&self.dice, survive);
        }
        self.faults.clear();
        self.boot += 1;
    }
}

/// The names whose directories are all there.
fn reachable(names: Names) -> Names {
    let mut kept = Names::new();
    // A directory sorts before what is in it.
    for (path, node) in names {
        if path.parent().is_none_or(|parent| kept.get(parent) == Some(&Node::Dir)) {
            kept.insert(path, node);
        }
    }
    kept
}

impl Change {
    fn apply(&self, names: &mut Names) {
        for (path, node) in &self.0 {
            match node {
                Some(node) => names.insert(path.clone(), *node),
                None => names.remove(path),
            };
        }
    }
}

impl Content {
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = start.checked_add(buf.len()).and_then(|end| self.bytes.get(start..end));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// A failed sync: some sectors were written, the others are now taken for clean and never will be.
    fn lose_unsynced(&mut self, dice: &Dice) {
        let mut start = self.synced;
        while start < self.bytes.len() {
            let end = self.bytes.len().min((start / SECTOR + 1) * SECTOR);
            if dice.coin() {
                self.lost.push(start..end);
            }
            start = end;
        }
        self.synced = self.bytes.len();
    }

    fn tear(&mut self, dice: &Dice, survive: &dyn Fn(&Dice, usize) -> usize) {
        let unsynced = self.bytes.len() - self.synced;
        let survived = survive(dice, unsynced);
        self.bytes.truncate(self.synced + survived);
        if survived > 0 && survived < unsynced && dice.coin() {
            let sector = (self.bytes.len() - 1) / SECTOR * SECTOR;
            dice.fill(&mut self.bytes[sector.max(self.synced)..]);
        }
        for lost in self.lost.drain(..) {
            self.bytes[lost].fill(0);
        }
        self.synced = self.bytes.len();
    }
}

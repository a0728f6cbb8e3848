//! What a view should show: plain maps.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::manifest::Ino;

/// What a client does to a view.
#[derive(Clone, Debug)]
pub enum Change {
    Write { ino: Ino, offset: u64, data: Bytes },
    Truncate { ino: Ino, size: u64 },
    Create { name: String, ino: Ino },
    Remove { name: String },
    Rename { from: String, to: String },
}

#[derive(Clone)]
pub struct Model {
    pub names: BTreeMap<String, Ino>,
    pub files: BTreeMap<Ino, Vec<u8>>,
}

/// What a view shows, by name.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    pub files: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digest = |bytes: &Vec<u8>| (bytes.len(), blake3::hash(bytes).to_hex()[..8].to_string());
        f.debug_map().entries(self.files.iter().map(|(name, bytes)| (name, digest(bytes)))).finish()
    }
}

impl Model {
    pub fn pick(&self, rng: &mut SmallRng) -> Ino {
        let at = rng.random_range(0..self.files.len().max(1));
        self.files.keys().nth(at).copied().unwrap_or(Ino(0))
    }

    pub fn pick_name(&self, rng: &mut SmallRng) -> Option<String> {
        // One file always stays, so that there is something to write to.
        let most = self.names.len().checked_sub(1).filter(|most| *most > 0)?;
        self.names.keys().nth(rng.random_range(0..most)).cloned()
    }

    pub fn find(&self, name: &str) -> Option<Ino> {
        self.names.get(name).copied()
    }

    pub fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) {
        let bytes = self.files.get_mut(&ino).unwrap();
        let end = offset as usize + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(data);
    }

    pub fn truncate(&mut self, ino: Ino, size: u64) {
        self.files.get_mut(&ino).unwrap().resize(size as usize, 0);
    }

    pub fn create(&mut self, name: &str, ino: Ino) {
        self.names.insert(name.into(), ino);
        self.files.insert(ino, Vec::new());
    }

    pub fn remove(&mut self, name: &str) {
        let ino = self.names.remove(name).unwrap();
        self.files.remove(&ino);
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        let ino = self.names.remove(from).unwrap();
        self.names.insert(to.into(), ino);
    }

    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { ino, offset, data } => self.write(*ino, *offset, data),
            Change::Truncate { ino, size } => self.truncate(*ino, *size),
            Change::Create { name, ino } => self.create(name, *ino),
            Change::Remove { name } => self.remove(name),
            Change::Rename { from, to } => self.rename(from, to),
        }
    }

    pub fn seen(&self) -> Seen {
        Seen { files: self.names.iter().map(|(name, ino)| (name.clone(), self.files[ino].clone())).collect() }
    }
}

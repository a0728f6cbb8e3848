//! Changes that are not in the index yet.
//!
//! Owns the newest value of every key that was changed since the last flush, and those older values
//! that a sealed layer still shows. Two tables per overlay: one takes changes, one is being flushed.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::Position;
use super::keys::Key;
use super::record::Value;

/// What an entry costs beyond its value, about.
const ENTRY: usize = 96;

/// A value as of a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub position: Position,
    pub value: Value,
}

#[derive(Clone, Debug, Default)]
pub struct Memtable {
    pub heads: BTreeMap<Key, Version>,
    pub history: BTreeMap<(Key, Reverse<Position>), Value>,
    /// Memory that it takes, about.
    pub bytes: usize,
}

impl Memtable {
    /// The newest version not after `upto`.
    pub fn get(&self, key: &Key, upto: Position) -> Option<Version> {
        let head = self.heads.get(key)?;
        if head.position <= upto {
            return Some(head.clone());
        }
        let versions = (*key, Reverse(upto))..=(*key, Reverse(0));
        let ((_, Reverse(position)), value) = self.history.range(versions).next()?;
        Some(Version { position: *position, value: value.clone() })
    }

    /// The keys of a range.
    pub fn keys(&self, range: RangeInclusive<Key>) -> impl Iterator<Item = (&Key, &Version)> {
        self.heads.range(range)
    }

    pub fn put(&mut self, key: Key, version: Version) {
        self.bytes += cost(&version.value);
        if let Some(former) = self.heads.insert(key, version) {
            self.bytes -= cost(&former.value);
        }
    }

    /// Take in what another table has, which is newer.
    pub fn overlay(&mut self, newer: Self) {
        for (key, version) in newer.heads {
            self.put(key, version);
        }
        for ((key, Reverse(position)), value) in newer.history {
            self.keep(key, Version { position, value });
        }
    }

    /// Keep a version that `put` is about to replace, or has replaced.
    pub fn keep(&mut self, key: Key, version: Version) {
        self.bytes += cost(&version.value);
        if let Some(same) = self.history.insert((key, Reverse(version.position)), version.value) {
            self.bytes -= cost(&same);
        }
    }
}

fn cost(value: &Value) -> usize {
    ENTRY + value.as_ref().map_or(0, |bytes| bytes.len())
}

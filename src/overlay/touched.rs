//! Which objects an overlay has private state of, so that it says at once that it has nothing of others.
//!
//! Owns the numbers that are kept in memory for that, and their count over all overlays of a store. They
//! can be let go, and are read from the index when they are wanted again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustc_hash::FxHashSet;

use crate::manifest::Ino;

/// Numbers that one overlay keeps.
pub const MAX_KNOWN: usize = 64 * 1024;
/// Numbers that all overlays of a store keep together, about: some 64 MiB.
pub const MAX_KNOWN_IN_ALL: usize = 4 << 20;

/// Which objects have private state, or had some.
pub enum Touched {
    /// Not read yet, or let go.
    Unread,
    Known(Known),
    Many,
}

/// The count of the numbers that are kept in a store.
#[derive(Clone, Default)]
pub struct KnownCount(Arc<AtomicUsize>);

/// Numbers of objects, counted as long as they are kept.
pub struct Known {
    inodes: FxHashSet<u64>,
    count: KnownCount,
    /// Somebody wanted them since the last [`Touched::let_go`].
    wanted: bool,
}

impl KnownCount {
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Those of an overlay that has these.
    pub fn known(&self, inodes: impl IntoIterator<Item = u64>) -> Touched {
        let inodes: FxHashSet<u64> = inodes.into_iter().collect();
        self.0.fetch_add(inodes.len(), Ordering::Relaxed);
        Touched::Known(Known { inodes, count: self.clone(), wanted: true })
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.count.0.fetch_sub(self.inodes.len(), Ordering::Relaxed);
    }
}

impl Touched {
    /// Whether there may be private state of this object.
    pub fn may_have(&self, ino: Ino) -> bool {
        match self {
            Self::Known(known) => known.inodes.contains(&ino.0),
            Self::Unread | Self::Many => true,
        }
    }

    pub fn insert(&mut self, ino: u64) {
        let Self::Known(known) = self else { return };
        if known.inodes.insert(ino) {
            known.count.0.fetch_add(1, Ordering::Relaxed);
        }
        if known.inodes.len() > MAX_KNOWN {
            *self = Self::Many;
        }
    }

    pub fn want(&mut self) {
        if let Self::Known(known) = self {
            known.wanted = true;
        }
    }

    /// Let the numbers go, or only if nobody wanted them since the last time.
    pub fn let_go(&mut self, although_wanted: bool) {
        let Self::Known(known) = self else { return };
        let wanted = std::mem::take(&mut known.wanted);
        if !known.inodes.is_empty() && (although_wanted || !wanted) {
            *self = Self::Unread;
        }
    }
}

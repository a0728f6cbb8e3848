//! Operations on a tree, as data: they print as what happened, and become calls.

use std::fmt;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use super::tree::{Instant, ObjectId, Tree};
use crate::common::nfs3::{Call, How, Sattr, Stable};

/// Bytes to write, made from a seed, so that a trace can be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Data {
    pub seed: u64,
    pub len: usize,
}

impl Data {
    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        SmallRng::seed_from_u64(self.seed).fill_bytes(&mut bytes);
        bytes
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of seed {:x}", self.len, self.seed)
    }
}

/// A name that prints as text.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(pub Vec<u8>);

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0..=40 => write!(f, "{:?}", self.0.escape_ascii().to_string()),
            len => write!(f, "name of {len} bytes"),
        }
    }
}

/// The ctime that a SETATTR asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    None,
    Right,
    Wrong,
}

#[derive(Clone, Debug)]
pub enum Op {
    Getattr { id: ObjectId },
    Lookup { dir: ObjectId, name: Name },
    Readlink { id: ObjectId },
    Read { id: ObjectId, offset: u64, count: u32 },
    Setattr { id: ObjectId, set: Sattr, guard: Guard },
    Write { id: ObjectId, offset: u64, data: Data, stable: Stable },
    Commit { id: ObjectId },
    Create { dir: ObjectId, name: Name, how: How },
    Mkdir { dir: ObjectId, name: Name, set: Sattr },
    Symlink { dir: ObjectId, name: Name, set: Sattr, target: Name },
    Mknod { dir: ObjectId, name: Name, kind: u32, device: Option<(u32, u32)>, set: Sattr },
    Remove { dir: ObjectId, name: Name },
    Rmdir { dir: ObjectId, name: Name },
    Rename { from: (ObjectId, Name), to: (ObjectId, Name) },
    Link { id: ObjectId, dir: ObjectId, name: Name },
}

impl Op {
    /// The call, with the handles that the server gave for the objects.
    pub fn call(&self, tree: &Tree) -> Call {
        let handle = |id: &ObjectId| tree.handle(*id).as_slice();
        match self {
            Self::Getattr { id } => Call::getattr(handle(id)),
            Self::Lookup { dir, name } => Call::lookup(handle(dir), &name.0),
            Self::Readlink { id } => Call::readlink(handle(id)),
            Self::Read { id, offset, count } => Call::read(handle(id), *offset, *count),
            Self::Setattr { id, set, guard } => {
                let guard = match (guard, tree.attr(*id).ctime) {
                    (Guard::Right, Instant::Is(time)) => Some(time),
                    (Guard::Wrong, _) => Some((1, 1)),
                    _ => None,
                };
                Call::setattr(handle(id), set, guard)
            }
            Self::Write { id, offset, data, stable } => Call::write(handle(id), *offset, *stable, &data.bytes()),
            Self::Commit { id } => Call::commit(handle(id)),
            Self::Create { dir, name, how } => Call::create(handle(dir), &name.0, how),
            Self::Mkdir { dir, name, set } => Call::mkdir(handle(dir), &name.0, set),
            Self::Symlink { dir, name, set, target } => Call::symlink(handle(dir), &name.0, set, &target.0),
            Self::Mknod { dir, name, kind, device, set } => Call::mknod(handle(dir), &name.0, *kind, set, *device),
            Self::Remove { dir, name } => Call::remove(handle(dir), &name.0),
            Self::Rmdir { dir, name } => Call::rmdir(handle(dir), &name.0),
            Self::Rename { from, to } => Call::rename((handle(&from.0), &from.1.0), (handle(&to.0), &to.1.0)),
            Self::Link { id, dir, name } => Call::link(handle(id), handle(dir), &name.0),
        }
    }

    /// Whether running it again, whatever a crash left of it, makes it whole: what is not in this list has an
    /// answer that must be given again.
    pub fn may_run_twice(&self) -> bool {
        let reads =
            matches!(self, Self::Getattr { .. } | Self::Lookup { .. } | Self::Readlink { .. } | Self::Read { .. });
        reads || matches!(self, Self::Write { .. } | Self::Setattr { .. } | Self::Commit { .. })
    }
}

//! Random operations: few names, so that they meet; edges of blocks and of files more often than not.

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use super::caller::Caller;
use super::op::{Data, Guard, Name, Op};
use super::tree::{Kind, ObjectId, Tree, is_foreign};
use crate::common::nfs3::{How, Sattr, SetTime, Stable, kind};

/// What the operations are to be like.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Most objects in the tree.
    pub objects: usize,
    /// Of ten WRITEs so many are UNSTABLE.
    pub unstable_of_ten: u32,
}

/// With fewer objects, more are made first.
const FEW: usize = 5;
/// Longest file, but for far writes.
const NEAR: u64 = 1 << 20;
/// Far writes end below this.
const FAR: u64 = 8 << 40;
const LENGTHS: [usize; 10] = [1, 3, 511, 4095, 4096, 4097, 8192, 12_289, 65_536, 100_000];

pub fn random_op(tree: &Tree, mix: Mix, rng: &mut SmallRng) -> Op {
    let draw = Draw { tree, mix };
    let full = tree.objects.len() >= mix.objects;
    if tree.objects.len() < FEW {
        return draw.create(rng);
    }
    match rng.random_range(0..100) {
        0..30 => draw.write(rng),
        30..36 => draw.read(rng),
        36..40 => Op::Commit { id: draw.file(rng) },
        40..42 => Op::Getattr { id: draw.any(rng) },
        42..45 => {
            let (dir, name) = draw.some_name(rng);
            Op::Lookup { dir, name }
        }
        45..52 => draw.setattr(rng),
        52..56 => draw.cut(rng),
        56..64 => draw.rename(rng),
        64..78 if !full => draw.make(rng),
        64..82 => draw.remove(rng),
        82..86 => {
            let (dir, name) = draw.new_name(rng);
            Op::Link { id: draw.any(rng), dir, name }
        }
        86..94 if !full => draw.create(rng),
        86..96 => draw.remove(rng),
        _ => draw.create(rng),
    }
}

struct Draw<'a> {
    tree: &'a Tree,
    mix: Mix,
}

impl Draw<'_> {
    fn any(&self, rng: &mut SmallRng) -> ObjectId {
        let nth = rng.random_range(0..self.tree.objects.len());
        *self.tree.objects.keys().nth(nth).expect("counted")
    }

    fn dir(&self, rng: &mut SmallRng) -> ObjectId {
        let dirs: Vec<ObjectId> = self.tree.objects.keys().copied().filter(|id| self.tree.is_dir(*id)).collect();
        *dirs.choose(rng).expect("the root at least")
    }

    /// A file if there is one.
    fn file(&self, rng: &mut SmallRng) -> ObjectId {
        let files: Vec<ObjectId> = self.tree.objects.keys().copied().filter(|id| self.tree.is_file(*id)).collect();
        files.choose(rng).copied().unwrap_or(self.tree.root)
    }

    /// A name that is there more often than not.
    fn some_name(&self, rng: &mut SmallRng) -> (ObjectId, Name) {
        let dir = self.dir(rng);
        let names: Vec<&Vec<u8>> = self.tree.entries(dir).expect("a directory").keys().collect();
        match names.choose(rng) {
            Some(name) if rng.random_ratio(9, 10) => (dir, Name((*name).clone())),
            _ => (dir, name(rng)),
        }
    }

    fn new_name(&self, rng: &mut SmallRng) -> (ObjectId, Name) {
        let dir = if rng.random_ratio(1, 50) { self.any(rng) } else { self.dir(rng) };
        (dir, name(rng))
    }

    fn write(&self, rng: &mut SmallRng) -> Op {
        let id = if rng.random_ratio(1, 100) { self.any(rng) } else { self.file(rng) };
        let size = self.tree.attr(id).size;
        let data = Data { seed: rng.random(), len: *LENGTHS.choose(rng).expect("some") };
        let offset = match rng.random_range(0..100) {
            0..30 => size,
            30..60 => rng.random_range(0..=size.min(NEAR)),
            60..80 => rng.random_range(0..=size.min(NEAR)) / 4096 * 4096,
            80..98 => rng.random_range(0..NEAR),
            _ => rng.random_range(0..FAR - data.len as u64),
        };
        let stable = match rng.random_range(0..10) {
            n if n < self.mix.unstable_of_ten => Stable::Unstable,
            n if n % 2 == 0 => Stable::DataSync,
            _ => Stable::FileSync,
        };
        Op::Write { id, offset: offset.min(FAR - data.len as u64), data, stable }
    }

    fn read(&self, rng: &mut SmallRng) -> Op {
        let id = self.file(rng);
        let size = self.tree.attr(id).size;
        let offset = if rng.random() { rng.random_range(0..=size) } else { rng.random_range(0..=size.min(NEAR)) };
        Op::Read { id, offset, count: rng.random_range(1..=200_000) }
    }

    fn cut(&self, rng: &mut SmallRng) -> Op {
        let id = self.file(rng);
        let size = self.tree.attr(id).size;
        let size = match rng.random_range(0..4) {
            0 => 0,
            1 => rng.random_range(0..=size),
            2 => (size + rng.random_range(0..100_000)).min(FAR),
            _ => rng.random_range(0..=size.min(NEAR)),
        };
        let set = Sattr { size: Some(size), ..attributes(rng, 10) };
        Op::Setattr { id, set, guard: guard(rng) }
    }

    fn setattr(&self, rng: &mut SmallRng) -> Op {
        let id = self.any(rng);
        // One at least is set: whether an empty SETATTR changes anything is nobody's business, and neither
        // is the mode of a symbolic link.
        let set = match self.tree.object(id).kind {
            Kind::Link(_) | Kind::Fifo | Kind::Socket | Kind::Device(..) if is_foreign() => return Op::Getattr { id },
            Kind::Link(_) => Sattr { uid: Some(rng.random_range(0..5000)), ..attributes(rng, 2) },
            Kind::Dir { .. } => Sattr { mode: Some(dir_mode(rng)), ..attributes(rng, 2) },
            _ => Sattr { mode: Some(file_mode(rng)), ..attributes(rng, 2) },
        };
        Op::Setattr { id, set, guard: guard(rng) }
    }

    fn make(&self, rng: &mut SmallRng) -> Op {
        let (dir, name) = self.new_name(rng);
        let set = Sattr { mode: Some(mode(rng)), ..attributes(rng, 4) };
        match rng.random_range(0..5) {
            0 | 1 => Op::Mkdir { dir, name, set: Sattr { mode: Some(dir_mode(rng)), ..set } },
            2 => {
                let len = rng.random_range(1..200);
                let target = Name((0..len).map(|_| rng.random_range(b'a'..=b'z')).collect());
                Op::Symlink { dir, name, set: Sattr::default(), target }
            }
            3 if !is_foreign() => {
                let kind = if rng.random() { kind::CHR } else { kind::BLK };
                Op::Mknod { dir, name, kind, device: Some((rng.random_range(0..300), rng.random_range(0..300))), set }
            }
            _ => Op::Mknod { dir, name, kind: if rng.random() { kind::FIFO } else { kind::SOCK }, device: None, set },
        }
    }

    fn create(&self, rng: &mut SmallRng) -> Op {
        if rng.random_ratio(1, 8)
            && let Some(op) = self.create_again()
        {
            return op;
        }
        let (dir, name) = if rng.random_ratio(1, 4) { self.some_name(rng) } else { self.new_name(rng) };
        let set = Sattr { mode: Some(file_mode(rng)), ..attributes(rng, 4) };
        let how = match rng.random_range(0..3) {
            // Over a file that is there nothing but the size counts.
            0 if !is_foreign() => How::Unchecked(Sattr { size: Some(0), mode: set.mode, ..Sattr::default() }),
            0 | 1 => How::Guarded(set),
            _ => How::Exclusive(rng.random()),
        };
        Op::Create { dir, name, how }
    }

    /// An exclusive CREATE once more, as a client sends it that missed the answer.
    fn create_again(&self) -> Option<Op> {
        let (id, object) = self.tree.objects.iter().find(|(_, object)| object.verifier.is_some())?;
        let mut dirs = self.tree.objects.keys().filter_map(|dir| Some((*dir, self.tree.entries(*dir)?)));
        let (dir, name) =
            dirs.find_map(|(dir, entries)| Some((dir, entries.iter().find(|(_, entry)| *entry == id)?.0.clone())))?;
        Some(Op::Create { dir, name: Name(name), how: How::Exclusive(object.verifier?) })
    }

    fn rename(&self, rng: &mut SmallRng) -> Op {
        let from = self.some_name(rng);
        let to = if rng.random_ratio(1, 3) { self.some_name(rng) } else { self.new_name(rng) };
        Op::Rename { from, to }
    }

    fn remove(&self, rng: &mut SmallRng) -> Op {
        let (dir, name) = self.some_name(rng);
        let is_dir = self.tree.lookup(dir, &name.0).is_some_and(|id| self.tree.is_dir(id));
        if is_dir != rng.random_ratio(1, 20) { Op::Rmdir { dir, name } } else { Op::Remove { dir, name } }
    }
}

fn name(rng: &mut SmallRng) -> Name {
    Name(match rng.random_range(0..40) {
        0 => vec![b'x'; 255],
        1 => vec![b'y'; 256],
        2 => b"\xff\xfe not UTF-8".to_vec(),
        3 => b"new\nline".to_vec(),
        n => vec![b'a' + (n % 14) as u8],
    })
}

/// One that lets everybody in is as likely as all others.
fn mode(rng: &mut SmallRng) -> u32 {
    if rng.random() { 0o777 } else { rng.random_range(0..=0o777) }
}

/// SUID and SGID, which writing and a new owner take away.
fn file_mode(rng: &mut SmallRng) -> u32 {
    let lent = if is_foreign() || rng.random_ratio(3, 4) { 0 } else { rng.random_range(1..=3) << 10 };
    mode(rng) | lent
}

/// SGID and the sticky bit.
fn dir_mode(rng: &mut SmallRng) -> u32 {
    let special = if rng.random_ratio(2, 3) { 0 } else { rng.random_range(1..=3) << 9 };
    mode(rng) | special
}

/// Each of the other attributes is set once in `of`.
fn attributes(rng: &mut SmallRng, of: u32) -> Sattr {
    let mut id = || {
        let known = *[0, Caller::USER.uid].choose(rng).expect("two");
        rng.random_ratio(1, of).then(|| if rng.random() { known } else { rng.random_range(0..5000) })
    };
    let (uid, gid) = (id(), id());
    let mut time = || match rng.random_range(0..3 * of) {
        0 => SetTime::Server,
        1 | 2 => SetTime::To((rng.random_range(0..2_000_000_000), rng.random_range(0..1_000_000_000))),
        _ => SetTime::Keep,
    };
    let (atime, mtime) = (time(), time());
    Sattr { mode: None, uid, gid, size: None, atime, mtime }
}

fn guard(rng: &mut SmallRng) -> Guard {
    match rng.random_range(0..20) {
        0 => Guard::Wrong,
        1..5 => Guard::Right,
        _ => Guard::None,
    }
}

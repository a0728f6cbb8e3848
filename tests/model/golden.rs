//! The image's versions: trees in memory, and the same as folders to import.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rand::Rng;
use rand::rngs::SmallRng;
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps};

use crate::reference::{Attr, Data, Instant, Kind, Object, ObjectId, Tree, content, states};
use crate::three_way::names_of;

/// The root of every version and every clone.
pub const ROOT: ObjectId = 1;
/// Long ago, so that no clock comes near it.
const MTIME: u32 = 1_000_000_000;
const LENGTHS: [usize; 12] = [0, 1, 100, 4095, 4096, 4097, 10_000, 65_536, 65_537, 200_000, 1_000_000, 3_000_000];

/// Makes versions, each from the one before.
pub struct Press {
    next: ObjectId,
}

impl Press {
    /// Objects get numbers from `first`.
    pub fn new(first: ObjectId) -> Self {
        Self { next: first }
    }

    fn attr(&self, mode: u32, size: u64) -> Attr {
        let owner = Owner::of_this_process();
        Attr {
            mode: mode | owner.least_mode,
            uid: owner.uid.unwrap_or(100 + mode),
            gid: owner.gid.unwrap_or(200 + mode),
            size,
            atime: Instant::Unknown,
            mtime: Instant::Is((MTIME + self.next as u32, 123_456_789)),
            ctime: Instant::Unknown,
            touched: false,
        }
    }

    fn put(&mut self, tree: &mut Tree, dir: ObjectId, name: &str, mode: u32, kind: Kind) -> ObjectId {
        self.next += 1;
        let size = match &kind {
            Kind::Link(target) => target.len() as u64,
            _ => 0,
        };
        let mode = if matches!(kind, Kind::Link(_)) { 0o777 } else { mode };
        let (attr, nlink) = (self.attr(mode, size), if matches!(kind, Kind::Dir { .. }) { 2 } else { 1 });
        let object = Object { kind, nlink, attr: states::States::new(attr), verifier: None };
        tree.insert(dir, name.as_bytes(), self.next, object);
        self.next
    }

    fn dir(&mut self, tree: &mut Tree, dir: ObjectId, name: &str) -> ObjectId {
        self.put(tree, dir, name, 0o755, Kind::Dir { entries: BTreeMap::new(), parent: dir })
    }

    fn file(&mut self, tree: &mut Tree, dir: ObjectId, name: &str, data: Data) -> ObjectId {
        let id = self.put(tree, dir, name, 0o640, Kind::File(content::Content::of(&data.bytes())));
        tree.object_mut(id).attr.now_mut().size = data.len as u64;
        id
    }

    /// The first version: all kinds of objects and of lengths, a hole, and hard links.
    pub fn first(&mut self, rng: &mut SmallRng) -> Tree {
        let mut tree = Tree::new(ROOT, self.attr(0o755, 0));
        let (etc, deep) = (self.dir(&mut tree, ROOT, "etc"), self.dir(&mut tree, ROOT, "deep"));
        let deeper = self.dir(&mut tree, deep, "deeper");
        self.dir(&mut tree, deeper, "empty");
        for (i, len) in LENGTHS.into_iter().enumerate() {
            let dir = [ROOT, etc, deep, deeper][i % 4];
            self.file(&mut tree, dir, &format!("file-{len}"), Data { seed: rng.random(), len });
        }
        let hole = self.file(&mut tree, etc, "hole", Data { seed: rng.random(), len: 5000 });
        tree.content_mut(hole).write(0, 1_500_000, &[7; 5000]);
        tree.content_mut(hole).settle(0);
        tree.object_mut(hole).attr.now_mut().size = 1_505_000;
        let linked = self.file(&mut tree, deep, "linked", Data { seed: rng.random(), len: 70_000 });
        tree.entries_mut(etc).insert(b"linked-too".to_vec(), linked);
        tree.object_mut(linked).nlink = 2;
        self.put(&mut tree, deeper, "link", 0, Kind::Link(b"../file-1".to_vec()));
        self.put(&mut tree, etc, "fifo", 0o600, Kind::Fifo);
        tree
    }

    /// The next version: in each directory some names have another object, others another mode, others are
    /// gone; and there is something new, now and then under a name that clients use, too.
    pub fn next(&mut self, tree: &Tree, rng: &mut SmallRng) -> Tree {
        let mut next = tree.clone();
        let dirs: Vec<ObjectId> = next.objects.keys().copied().filter(|id| next.is_dir(*id)).collect();
        for dir in dirs {
            // It may have been removed with one above it.
            let Some(entries) = next.objects.contains_key(&dir).then(|| next.entries(dir)).flatten().cloned() else {
                continue;
            };
            for (name, id) in entries {
                let name = std::str::from_utf8(&name).expect("ours");
                match rng.random_range(0..24) {
                    0 => {
                        remove(&mut next, dir, name, id);
                        let len = rng.random_range(1..100_000);
                        self.file(&mut next, dir, name, Data { seed: rng.random(), len });
                    }
                    1 | 2 if !matches!(next.object(id).kind, Kind::Link(_)) => {
                        next.object_mut(id).attr.now_mut().mode ^= [0o044, 0o010][rng.random_range(0..2)];
                    }
                    3 => remove(&mut next, dir, name, id),
                    // An import finds a directory again by its path, whatever became of what is in it.
                    4 if rng.random_ratio(1, 3) && next.is_dir(id) => empty(&mut next, id),
                    4 if rng.random_ratio(1, 3) && !next.is_dir(id) => {
                        remove(&mut next, dir, name, id);
                        self.dir(&mut next, dir, name);
                    }
                    5 if next.is_file(id) => self.link(&mut next, dir, id),
                    _ => {}
                }
            }
            self.add(&mut next, tree, dir, rng);
            // Its mtime on disk is set anyway; whether the ctime moves is a matter of what the import saw.
            let attr = next.object_mut(dir).attr.now_mut();
            attr.ctime = attr.ctime.same_or_later();
        }
        let facts = |object: &Object| (object.attr.now().mode, object.nlink);
        let names = |tree: &Tree, id: ObjectId| names_of(tree).filter(|(_, to)| *to == id).collect::<Vec<_>>();
        let linked: Vec<ObjectId> =
            next.objects.keys().copied().filter(|id| names(tree, *id) != names(&next, *id)).collect();
        for (id, object) in &mut next.objects {
            if tree.objects.get(id).is_some_and(|before| facts(before) != facts(object)) {
                object.attr.each(|attr| attr.ctime = attr.ctime.later());
            } else if linked.contains(id) {
                // As many names as before, and others.
                object.attr.each(|attr| attr.ctime = attr.ctime.same_or_later());
            }
        }
        next
    }

    /// Something new in `dir`, under a name that the version `before` does not have there: of what it has, an
    /// import may find it again.
    fn add(&mut self, tree: &mut Tree, before: &Tree, dir: ObjectId, rng: &mut SmallRng) {
        let name = match rng.random_range(0..3) {
            0 => char::from(b'a' + rng.random_range(0..14)).to_string(),
            _ => format!("added-{}", self.next),
        };
        if [&*tree, before].iter().any(|tree| tree.lookup(dir, name.as_bytes()).is_some()) {
            return;
        }
        let data = Data { seed: rng.random(), len: rng.random_range(1..50_000) };
        match rng.random_range(0..6) {
            0 => {
                let made = self.dir(tree, dir, &name);
                self.file(tree, made, "inner", data);
            }
            1 => {
                self.put(tree, dir, &name, 0, Kind::Link(format!("to-{}", self.next).into_bytes()));
            }
            _ => {
                self.file(tree, dir, &name, data);
            }
        }
    }

    /// One more name for a file. It sorts behind the others in its directory: the number is that of the first.
    fn link(&mut self, tree: &mut Tree, dir: ObjectId, id: ObjectId) {
        let name = format!("zz-link-{}", self.next);
        if tree.lookup(dir, name.as_bytes()).is_none() {
            tree.entries_mut(dir).insert(name.into_bytes(), id);
            tree.object_mut(id).nlink += 1;
        }
    }
}

/// The names in a directory go.
fn empty(tree: &mut Tree, dir: ObjectId) {
    for (name, inner) in tree.entries(dir).cloned().unwrap_or_default() {
        remove(tree, dir, std::str::from_utf8(&name).expect("ours"), inner);
    }
}

/// A name goes, and whatever has no other.
fn remove(tree: &mut Tree, dir: ObjectId, name: &str, id: ObjectId) {
    tree.entries_mut(dir).remove(name.as_bytes());
    if tree.is_dir(id) {
        empty(tree, id);
        tree.objects.remove(&id);
        tree.object_mut(dir).nlink -= 1;
    } else if tree.object(id).nlink == 1 {
        tree.objects.remove(&id);
    } else {
        tree.object_mut(id).nlink -= 1;
    }
}

/// Only root may give files away, and read what nobody may.
struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
    least_mode: u32,
}

impl Owner {
    fn of_this_process() -> Self {
        let uid = rustix::process::geteuid();
        if uid.is_root() {
            return Self { uid: None, gid: None, least_mode: 0 };
        }
        let gid = rustix::process::getegid().as_raw();
        Self { uid: Some(uid.as_raw()), gid: Some(gid), least_mode: 0o400 }
    }
}

/// Write a version as the folder `path`.
pub fn write(tree: &Tree, path: &Path) {
    let mut written = BTreeMap::new();
    write_dir(tree, tree.root, path, &mut written);
}

fn write_dir(tree: &Tree, dir: ObjectId, path: &Path, written: &mut BTreeMap<ObjectId, std::path::PathBuf>) {
    fs::create_dir(path).expect("a new folder");
    for (name, id) in tree.entries(dir).expect("a directory") {
        let path = path.join(std::ffi::OsStr::from_bytes(name));
        if let Some(first) = written.get(id) {
            fs::hard_link(first, &path).expect("a hard link");
            continue;
        }
        match &tree.object(*id).kind {
            Kind::Dir { .. } => write_dir(tree, *id, &path, written),
            Kind::File(content) => write_file(content, tree.attr(*id).size, &path),
            Kind::Link(target) => symlink(std::ffi::OsStr::from_bytes(target), &path).expect("a symbolic link"),
            Kind::Fifo => rustix::fs::mkfifoat(CWD, &path, Mode::empty()).expect("a FIFO"),
            Kind::Socket | Kind::Device(..) => panic!("neither sockets nor devices in images"),
        }
        written.insert(*id, path.clone());
        set_attributes(tree, *id, &path);
    }
    set_attributes(tree, dir, path);
}

fn write_file(content: &content::Content, size: u64, path: &Path) {
    let file = File::create(path).expect("a file");
    file.set_len(size).expect("a length");
    for (offset, len) in content.runs() {
        let bytes = content.read(offset, len.min(size - offset) as usize);
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, offset).expect("written");
    }
}

fn set_attributes(tree: &Tree, id: ObjectId, path: &Path) {
    let attr = tree.attr(id);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(path, Some(attr.uid), Some(attr.gid)).expect("root may");
    }
    if !matches!(tree.object(id).kind, Kind::Link(_)) {
        fs::set_permissions(path, Permissions::from_mode(attr.mode)).expect("the owner may");
    }
    if let Instant::Is((seconds, nanos)) = attr.mtime {
        let time = Timespec { tv_sec: i64::from(seconds), tv_nsec: i64::from(nanos) };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("the owner may");
    }
}

//! The tree: objects by number, names in directories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use super::content::Content;
use super::states::{Seq, States, Window};
use crate::common::nfs3::{Handle, Time, kind};

/// An object across all clones, snapshots and versions that share it.
pub type ObjectId = u64;

static FOREIGN: AtomicBool = AtomicBool::new(false);

/// The server is one of others. Its clock may stand still between two changes, reading may move the
/// atime, it forgets an exclusive CREATE sooner, and its UNCHECKED CREATE cuts nothing.
pub fn be_foreign() {
    FOREIGN.store(true, Ordering::Relaxed);
}

pub fn is_foreign() -> bool {
    FOREIGN.load(Ordering::Relaxed)
}

/// What is known of a time that the server chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instant {
    Is(Time),
    /// Not earlier.
    From(Time),
    /// Later.
    After(Time),
    Unknown,
}

impl Instant {
    pub fn allows(self, time: Time) -> bool {
        match self {
            Self::Is(known) => time == known,
            Self::From(least) => time >= least,
            Self::After(before) if is_foreign() => time >= before,
            Self::After(before) => time > before,
            Self::Unknown => true,
        }
    }

    /// After a change that moves it on.
    pub fn later(self) -> Self {
        match self {
            Self::Is(time) | Self::From(time) | Self::After(time) => Self::After(time),
            Self::Unknown => Self::Unknown,
        }
    }

    /// After something that may have moved it on.
    pub fn same_or_later(self) -> Self {
        match self {
            Self::Is(time) => Self::From(time),
            other => other,
        }
    }
}

/// Attributes that a crash can take back together.
#[derive(Clone, Debug)]
pub struct Attr {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of files and links.
    pub size: u64,
    pub atime: Instant,
    pub mtime: Instant,
    pub ctime: Instant,
    /// It has private state, in any layer.
    pub touched: bool,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Dir {
        entries: BTreeMap<Vec<u8>, ObjectId>,
        parent: ObjectId,
    },
    File(Content),
    Link(Vec<u8>),
    Fifo,
    Socket,
    /// Its kind on the wire, and its numbers.
    Device(u32, (u32, u32)),
}

impl Kind {
    pub fn ftype(&self) -> u32 {
        match self {
            Self::Dir { .. } => kind::DIR,
            Self::File(_) => kind::REG,
            Self::Link(_) => kind::LNK,
            Self::Fifo => kind::FIFO,
            Self::Socket => kind::SOCK,
            Self::Device(kind, _) => *kind,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Object {
    pub kind: Kind,
    pub nlink: u32,
    pub attr: States<Attr>,
    /// Of the exclusive CREATE that made it, until its attributes are set.
    pub verifier: Option<[u8; 8]>,
}

/// How the server names an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    pub handle: Handle,
    pub fileid: u64,
}

/// One view of one clone, or what a snapshot kept of it.
#[derive(Clone, Debug)]
pub struct Tree {
    pub root: ObjectId,
    pub objects: BTreeMap<ObjectId, Object>,
    /// Touched and removed.
    pub gone: BTreeSet<ObjectId>,
    /// How the server named what was removed since this view began.
    pub ended: BTreeMap<Identity, ObjectId>,
    /// Whether anything changed since this view began.
    pub changed: bool,
    /// How the server names what was seen; never by another name again in this view.
    pub seen: BTreeMap<ObjectId, Identity>,
    /// Objects that must not have any of the names in `former`.
    pub renewed: BTreeSet<ObjectId>,
    pub former: BTreeMap<ObjectId, BTreeSet<Identity>>,
    /// Files with more than one state.
    uncertain: BTreeSet<ObjectId>,
}

impl Tree {
    pub fn new(root: ObjectId, attr: Attr) -> Self {
        let kind = Kind::Dir { entries: BTreeMap::new(), parent: root };
        let object = Object { kind, nlink: 2, attr: States::new(attr), verifier: None };
        Self {
            root,
            objects: BTreeMap::from([(root, object)]),
            gone: BTreeSet::new(),
            ended: BTreeMap::new(),
            changed: false,
            seen: BTreeMap::new(),
            renewed: BTreeSet::new(),
            former: BTreeMap::new(),
            uncertain: BTreeSet::new(),
        }
    }

    pub fn object(&self, id: ObjectId) -> &Object {
        &self.objects[&id]
    }

    pub fn object_mut(&mut self, id: ObjectId) -> &mut Object {
        self.objects.get_mut(&id).expect("an object of this tree")
    }

    pub fn attr(&self, id: ObjectId) -> &Attr {
        self.object(id).attr.now()
    }

    pub fn entries(&self, dir: ObjectId) -> Option<&BTreeMap<Vec<u8>, ObjectId>> {
        match &self.object(dir).kind {
            Kind::Dir { entries, .. } => Some(entries),
            _ => None,
        }
    }

    pub fn entries_mut(&mut self, dir: ObjectId) -> &mut BTreeMap<Vec<u8>, ObjectId> {
        match &mut self.object_mut(dir).kind {
            Kind::Dir { entries, .. } => entries,
            other => panic!("{dir} is no directory: {other:?}"),
        }
    }

    pub fn is_dir(&self, id: ObjectId) -> bool {
        matches!(self.object(id).kind, Kind::Dir { .. })
    }

    pub fn is_file(&self, id: ObjectId) -> bool {
        matches!(self.object(id).kind, Kind::File(_))
    }

    pub fn content(&self, id: ObjectId) -> &Content {
        match &self.object(id).kind {
            Kind::File(content) => content,
            other => panic!("{id} is no file: {other:?}"),
        }
    }

    pub fn content_mut(&mut self, id: ObjectId) -> &mut Content {
        match &mut self.object_mut(id).kind {
            Kind::File(content) => content,
            other => panic!("{id} is no file: {other:?}"),
        }
    }

    pub fn lookup(&self, dir: ObjectId, name: &[u8]) -> Option<ObjectId> {
        self.entries(dir)?.get(name).copied()
    }

    pub fn parent(&self, dir: ObjectId) -> ObjectId {
        match &self.object(dir).kind {
            Kind::Dir { parent, .. } => *parent,
            other => panic!("{dir} is no directory: {other:?}"),
        }
    }

    /// Whether `inner` is `outer` or somewhere below it.
    pub fn is_within(&self, mut inner: ObjectId, outer: ObjectId) -> bool {
        loop {
            if inner == outer {
                return true;
            }
            if inner == self.root {
                return false;
            }
            inner = self.parent(inner);
        }
    }

    /// Put an object with its first name into `dir`.
    pub fn insert(&mut self, dir: ObjectId, name: &[u8], id: ObjectId, object: Object) {
        if matches!(object.kind, Kind::Dir { .. }) {
            self.object_mut(dir).nlink += 1;
        }
        self.objects.insert(id, object);
        self.entries_mut(dir).insert(name.to_vec(), id);
    }

    pub fn handle(&self, id: ObjectId) -> &Handle {
        &self.seen.get(&id).unwrap_or_else(|| panic!("{id} was never looked up")).handle
    }

    /// Everything with private state, removed objects too.
    pub fn touched(&self) -> BTreeSet<ObjectId> {
        let here = self.objects.iter().filter(|(_, object)| object.attr.now().touched).map(|(id, _)| *id);
        here.chain(self.gone.iter().copied()).collect()
    }

    /// The newest operation that a crash may take back.
    pub fn since(&self) -> Seq {
        self.objects.values().map(|object| object.attr.since()).max().unwrap_or(0)
    }

    /// A path to `id`, for messages.
    pub fn path(&self, id: ObjectId) -> String {
        if id == self.root {
            return "/".into();
        }
        for (dir, object) in &self.objects {
            let Kind::Dir { entries, .. } = &object.kind else { continue };
            if let Some((name, _)) = entries.iter().find(|(_, entry)| **entry == id) {
                let above = if *dir == self.root { String::new() } else { self.path(*dir) };
                return format!("{above}/{}", name.escape_ascii());
            }
        }
        format!("(no name: {id})")
    }

    /// Whether something was removed that had this handle.
    pub fn has_ended(&self, handle: &Handle) -> bool {
        self.ended.keys().any(|identity| identity.handle == *handle)
    }

    pub fn mark_uncertain(&mut self, id: ObjectId) {
        self.uncertain.insert(id);
    }

    pub fn is_certain(&self) -> bool {
        self.uncertain.is_empty()
    }

    /// Operation `stable` and all before it are on stable storage.
    pub fn settle(&mut self, stable: Seq) {
        for id in std::mem::take(&mut self.uncertain) {
            let Some(object) = self.objects.get_mut(&id) else { continue };
            object.attr.settle(stable);
            let mut certain = object.attr.is_certain();
            if let Kind::File(content) = &mut object.kind {
                content.settle(stable);
                certain &= content.is_certain();
            }
            if !certain {
                self.uncertain.insert(id);
            }
        }
    }

    /// All is as it is now.
    pub fn settle_now(&mut self) {
        for id in std::mem::take(&mut self.uncertain) {
            let Some(object) = self.objects.get_mut(&id) else { continue };
            object.attr.settle_now();
            if let Kind::File(content) = &mut object.kind {
                content.settle_now();
            }
        }
    }

    /// After a crash, of a file that was read whole: nothing is uncertain any more.
    pub fn certain_again(&mut self, id: ObjectId) {
        self.uncertain.remove(&id);
    }

    pub fn after_crash(&mut self, id: ObjectId, window: &mut Window, matches: impl Fn(&Attr) -> bool) -> bool {
        self.object_mut(id).attr.after_crash(window, matches)
    }
}

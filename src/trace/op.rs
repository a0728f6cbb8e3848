//! One operation, without its data.

use serde::{Deserialize, Serialize};

/// A name or the target of a link: bytes, as NFS has them.
pub type Name = Box<[u8]>;

/// The number of an object in its trace; 0 is the root of the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u32);

impl NodeId {
    pub const ROOT: Self = Self(0);
}

/// Where an object was when the trace first met it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// A smaller number than its own; `None` of the root, and of an object whose place was not found.
    pub parent: Option<NodeId>,
    pub name: Name,
}

/// An operation: `N` is how it names objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op<N = NodeId> {
    /// When the call was there, in microseconds since the start of the trace.
    pub at_micros: u64,
    /// Until its answer was ready to leave.
    pub took_micros: u64,
    /// As whom the client called.
    pub uid: u32,
    pub gid: u32,
    /// `nfsstat3` or, of a MNT, `mountstat3`.
    pub status: u32,
    pub call: Call<N>,
}

/// What was asked, and which object the answer gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call<N = NodeId> {
    /// MNT of the export.
    Mount,
    Object {
        object: N,
        verb: Verb,
    },
    Name {
        dir: N,
        name: Name,
        verb: NameVerb,
        /// What was found or made.
        object: Option<N>,
    },
    Rename {
        from_dir: N,
        from: Name,
        to_dir: N,
        to: Name,
    },
    Link {
        object: N,
        dir: N,
        name: Name,
    },
}

/// What is done with an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    GetAttr,
    SetAttr(NewAttrs),
    /// The rights that are asked for, as on the wire.
    Access(u32),
    ReadLink,
    Read {
        offset: u64,
        len: u32,
        /// Bytes that it was answered.
        got: u32,
    },
    Write {
        offset: u64,
        len: u32,
        stable: Stable,
    },
    Commit {
        offset: u64,
        len: u32,
    },
    /// READDIR, or with `plus` READDIRPLUS: from the first entry, or behind what the one before answered.
    List {
        from_start: bool,
        plus: bool,
        max_bytes: u32,
    },
    FsStat,
    FsInfo,
    PathConf,
}

/// What is done with a name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameVerb {
    Lookup,
    Create(Creation),
    MakeDir(NewAttrs),
    SymLink { new: NewAttrs, target: Name },
    MakeNode { new: NewAttrs, what: Special },
    Remove,
    RemoveDir,
}

/// `createhow3`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Creation {
    Unchecked(NewAttrs),
    Guarded(NewAttrs),
    Exclusive([u8; 8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Special {
    Char,
    Block,
    Socket,
    Fifo,
    /// What MKNOD does not make.
    Other,
}

/// `stable_how`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stable {
    Unstable,
    DataSync,
    FileSync,
}

/// Attributes to be set; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewAttrs {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: SetTime,
    pub mtime: SetTime,
}

/// What a time is set to; the client's own is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    #[default]
    Keep,
    Server,
    Client,
}

impl<N> Op<N> {
    /// Whether it was answered without an error.
    pub fn is_ok(&self) -> bool {
        self.status == 0
    }

    /// When its answer was ready, in microseconds since the start of the trace.
    pub fn answered_micros(&self) -> u64 {
        self.at_micros.saturating_add(self.took_micros)
    }

    /// The same operation with its objects named by `name`, which is asked in the order of the arguments.
    pub fn try_map<M, E>(self, name: impl FnMut(N) -> Result<M, E>) -> Result<Op<M>, E> {
        let Self { at_micros, took_micros, uid, gid, status, call } = self;
        Ok(Op { at_micros, took_micros, uid, gid, status, call: call.try_map(name)? })
    }
}

impl<N> Call<N> {
    fn try_map<M, E>(self, mut name_of: impl FnMut(N) -> Result<M, E>) -> Result<Call<M>, E> {
        Ok(match self {
            Self::Mount => Call::Mount,
            Self::Object { object, verb } => Call::Object { object: name_of(object)?, verb },
            Self::Name { dir, name, verb, object } => {
                Call::Name { dir: name_of(dir)?, name, verb, object: object.map(name_of).transpose()? }
            }
            Self::Rename { from_dir, from, to_dir, to } => {
                Call::Rename { from_dir: name_of(from_dir)?, from, to_dir: name_of(to_dir)?, to }
            }
            Self::Link { object, dir, name } => Call::Link { object: name_of(object)?, dir: name_of(dir)?, name },
        })
    }

    /// The procedure's name in RFC 1813.
    pub fn procedure(&self) -> &'static str {
        match self {
            Self::Mount => "MNT",
            Self::Object { verb, .. } => verb.procedure(),
            Self::Name { verb, .. } => verb.procedure(),
            Self::Rename { .. } => "RENAME",
            Self::Link { .. } => "LINK",
        }
    }
}

impl Verb {
    fn procedure(&self) -> &'static str {
        match self {
            Self::GetAttr => "GETATTR",
            Self::SetAttr(_) => "SETATTR",
            Self::Access(_) => "ACCESS",
            Self::ReadLink => "READLINK",
            Self::Read { .. } => "READ",
            Self::Write { .. } => "WRITE",
            Self::Commit { .. } => "COMMIT",
            Self::List { plus: false, .. } => "READDIR",
            Self::List { plus: true, .. } => "READDIRPLUS",
            Self::FsStat => "FSSTAT",
            Self::FsInfo => "FSINFO",
            Self::PathConf => "PATHCONF",
        }
    }
}

impl NameVerb {
    fn procedure(&self) -> &'static str {
        match self {
            Self::Lookup => "LOOKUP",
            Self::Create(_) => "CREATE",
            Self::MakeDir(_) => "MKDIR",
            Self::SymLink { .. } => "SYMLINK",
            Self::MakeNode { .. } => "MKNOD",
            Self::Remove => "REMOVE",
            Self::RemoveDir => "RMDIR",
        }
    }
}

//! From an object to its inode: the current view first, then the pins, newest first.

use super::policy::{ExportPolicy, Identity};
use super::{Attr, FileKind, Object, Refusal, Refused, Request, Verb};
use crate::env::Time;
use crate::image::{CloneRecord, Export, VersionNumber};
use crate::manifest::{Ino, Inode, Manifest, ManifestId};

/// An object of an export, found.
pub(super) struct Found {
    pub manifest: Manifest,
    pub ino: Ino,
    pub inode: Inode,
    pub scope: Scope,
    /// Found in the view that the export shows now, not in a pin.
    pub current: bool,
}

/// What all objects of one export share.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    pub fsid: u64,
    /// Directories serve no ctime before this: the time of the clone's last view switch.
    pub floor: Time,
}

impl Found {
    pub fn attr(&self) -> Attr {
        self.scope.attr(self.ino, &self.inode)
    }

    /// A refusal that carries this object's attributes.
    pub fn refuse(&self, why: Refusal) -> Refused {
        Refused { why, attr: Some(self.attr()) }
    }

    pub fn is_dir(&self) -> bool {
        self.inode.kind == FileKind::Directory
    }
}

impl Scope {
    /// The attributes under which `inode` is served in this export.
    pub fn attr(&self, ino: Ino, inode: &Inode) -> Attr {
        let ctime = match inode.kind {
            FileKind::Directory => inode.ctime.max(self.floor),
            _ => inode.ctime,
        };
        Attr {
            kind: inode.kind,
            mode: inode.mode,
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            used: inode.used,
            rdev: inode.rdev,
            fsid: self.fsid,
            fileid: ino.0,
            atime: inode.atime,
            mtime: inode.mtime,
            ctime,
        }
    }
}

/// The views of one export in the order in which a handle is resolved.
struct Views {
    scope: Scope,
    manifests: smallvec::SmallVec<[ManifestId; 4]>,
}

fn refused(why: Refusal) -> Refused {
    Refused { why, attr: None }
}

fn views(rq: &Request<'_>, object: Object) -> Result<Views, Refused> {
    // A generation other than 0 belongs to private state, and no clone has any.
    if object.generation != 0 {
        return Err(refused(Refusal::Stale));
    }
    match rq.state().export(object.export) {
        None => Err(refused(Refusal::Stale)),
        Some(Export::Version(version)) => Ok(Views {
            scope: Scope { fsid: object.export.0, floor: Time::default() },
            manifests: smallvec::smallvec![version.manifest],
        }),
        Some(Export::Clone(clone)) => Ok(clone_views(rq, clone)),
    }
}

fn clone_views(rq: &Request<'_>, clone: &CloneRecord) -> Views {
    let numbers = std::iter::once(&clone.view).chain(clone.pins.iter().map(|pin| &pin.view)).map(|view| view.version);
    let manifest = |number: VersionNumber| rq.state().version(clone.image, number).map(|version| version.manifest);
    Views {
        scope: Scope { fsid: clone.id.0, floor: clone.switched },
        manifests: numbers.filter_map(manifest).collect(),
    }
}

/// Find `object`, for a caller that the export's policy admits.
pub(super) fn resolve(rq: &mut Request<'_>, policy: &ExportPolicy, object: Object) -> Verb<Found> {
    if !policy.admits(rq.caller) {
        return Ok(Err(refused(Refusal::Access)));
    }
    let views = match views(rq, object) {
        Ok(views) => views,
        Err(refused) => return Ok(Err(refused)),
    };
    let ino = Ino(object.ino);
    for (age, id) in views.manifests.iter().enumerate() {
        let manifest = Manifest::open(rq.fetch(), id)?;
        if let Some(inode) = manifest.inode(rq.fetch(), ino)? {
            return Ok(Ok(Found { manifest, ino, inode, scope: views.scope, current: age == 0 }));
        }
    }
    Ok(Err(refused(Refusal::Stale)))
}

/// The identity under which the request's caller is judged.
pub(super) fn identity<'a>(rq: &Request<'a>, policy: &ExportPolicy) -> Identity<'a> {
    policy.identity(rq.caller)
}

//! What all procedures that change something share: how their arguments are understood, and the shapes
//! of their results, in success and in failure.

use nfsserve::nfs::{
    nfsstat3, nfstime3, sattr3, set_atime, set_gid3, set_mode3, set_mtime, set_size3, set_uid3, specdata3,
};

use super::super::args::{DirOp, Handle};
use super::super::dispatch::{Context, Halt, PutChanged};
use super::super::encode::EncodeReply;
use super::super::handle::{BadHandle, HandleKeys};
use super::super::reply::Replies;
use super::super::status::Failure;
use super::super::xdr::Encode;
use crate::vfs::{Attr, Changed, NewAttr, Object, Place, Request, SetTime, Time, Verb, Vfs};

pub fn new_attr(wanted: &sattr3) -> NewAttr {
    NewAttr {
        mode: match wanted.mode {
            set_mode3::mode(mode) => Some(mode),
            set_mode3::Void => None,
        },
        uid: match wanted.uid {
            set_uid3::uid(uid) => Some(uid),
            set_uid3::Void => None,
        },
        gid: match wanted.gid {
            set_gid3::gid(gid) => Some(gid),
            set_gid3::Void => None,
        },
        size: match wanted.size {
            set_size3::size(size) => Some(size),
            set_size3::Void => None,
        },
        atime: match wanted.atime {
            set_atime::DONT_CHANGE => SetTime::Keep,
            set_atime::SET_TO_SERVER_TIME => SetTime::Now,
            set_atime::SET_TO_CLIENT_TIME(to) => SetTime::To(time(to)),
        },
        mtime: match wanted.mtime {
            set_mtime::DONT_CHANGE => SetTime::Keep,
            set_mtime::SET_TO_SERVER_TIME => SetTime::Now,
            set_mtime::SET_TO_CLIENT_TIME(to) => SetTime::To(time(to)),
        },
    }
}

pub fn time(time: nfstime3) -> Time {
    Time::new(i64::from(time.seconds), time.nseconds)
}

/// Major and minor number.
pub fn device(numbers: specdata3) -> (u32, u32) {
    (numbers.specdata1, numbers.specdata2)
}

impl<V: Vfs> Context<'_, '_, V> {
    pub fn object(&self, handle: Handle<'_>) -> Result<Object, Failure> {
        self.core.handles.decode(handle).map_err(|BadHandle| BadHandle.into())
    }

    pub fn place<'a>(&self, place: DirOp<'a>) -> Result<Place<'a>, Failure> {
        Ok(Place { dir: self.object(place.dir)?, name: place.name })
    }

    /// The attributes of an object that a failure tells beside others.
    pub fn attr(&mut self, handle: Handle<'_>) -> Result<Option<Attr>, Halt> {
        Ok(self.on(handle, |vfs, request, object| vfs.getattr(request, object))?.ok())
    }

    /// Fail with `status` and the attributes of the object of `handle`, if it has any.
    pub fn fail(&mut self, handle: Handle<'_>, status: nfsstat3) -> Result<Failure, Halt> {
        Ok(match self.on(handle, |vfs, request, object| vfs.getattr(request, object))? {
            Ok(attr) => Failure { status, attr: Some(attr) },
            Err(failure) => failure,
        })
    }
}

/// Run a change whose failure carries one `wcc_data`, and append its results; whether it succeeded.
pub fn change<'r, V: Vfs, T>(
    cx: &mut Context<'_, 'r, V>,
    on: Result<T, Failure>,
    put: PutChanged,
    out: &mut Replies,
    verb: impl FnOnce(&V, &mut Request<'r>, T) -> Verb<Changed>,
) -> Result<bool, Halt> {
    let outcome = cx.change(on, put, verb)?;
    match &outcome {
        Ok(changed) => put(changed, &cx.core.handles, out.head()),
        Err(failure) => put_failure(out, failure),
    }
    Ok(outcome.is_ok())
}

pub fn put_failure(out: &mut Replies, failure: &Failure) {
    out.head().put_status(failure.status);
    out.head().put_unchanged(failure.attr.as_ref());
}

/// SETATTR, REMOVE, RMDIR: `wcc_data` alone.
pub fn put_wcc(changed: &Changed, _: &HandleKeys, out: &mut Vec<u8>) {
    out.put_status(nfsstat3::NFS3_OK);
    out.put_wcc(&changed.wcc);
}

/// CREATE, MKDIR, SYMLINK, MKNOD: the object, and `wcc_data` of its directory.
pub fn put_made(changed: &Changed, handles: &HandleKeys, out: &mut Vec<u8>) {
    out.put_status(nfsstat3::NFS3_OK);
    out.put_bool(changed.object.is_some());
    if let Some((object, _)) = changed.object {
        handles.put(out, object);
    }
    out.put_post_op(changed.object.as_ref().map(|(_, attr)| attr));
    out.put_wcc(&changed.wcc);
}

/// RENAME: `wcc_data` of both directories.
pub fn put_renamed(changed: &Changed, _: &HandleKeys, out: &mut Vec<u8>) {
    out.put_status(nfsstat3::NFS3_OK);
    out.put_wcc(&changed.wcc);
    out.put_wcc(&changed.to.unwrap_or(changed.wcc));
}

/// LINK: attributes of the object, and `wcc_data` of the directory.
pub fn put_linked(changed: &Changed, _: &HandleKeys, out: &mut Vec<u8>) {
    out.put_status(nfsstat3::NFS3_OK);
    out.put_post_op(changed.object.as_ref().map(|(_, attr)| attr));
    out.put_wcc(&changed.wcc);
}

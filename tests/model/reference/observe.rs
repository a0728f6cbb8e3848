//! Attributes that the server shows, against those of the tree; times are learnt from them.

use super::states::Window;
use super::tree::{Attr, Instant, Kind, ObjectId, Tree, is_foreign};
use crate::common::nfs3::Before;
use crate::common::xdr::Fattr;

impl Attr {
    /// Whether the server may show `shown` of an object of this kind.
    fn allows(&self, kind: &Kind, shown: &Fattr) -> bool {
        if let Kind::Device(_, numbers) = kind
            && *numbers != shown.rdev
        {
            return false;
        }
        let sized = matches!(kind, Kind::File(_) | Kind::Link(_));
        (self.mode, self.uid, self.gid) == (shown.mode & 0o7777, shown.uid, shown.gid)
            && (!sized || self.size == shown.size)
            && (self.atime.allows(shown.atime) || is_foreign())
            && self.mtime.allows(shown.mtime)
            && self.ctime.allows(shown.ctime)
    }
}

impl Tree {
    /// Compare what the server shows of an object, and learn the times that it chose. After a crash,
    /// `window` narrows down to when it can have been.
    pub fn observe(&mut self, id: ObjectId, shown: &Fattr, window: Option<&mut Window>) -> Result<(), String> {
        let object = self.objects.get_mut(&id).ok_or("it shows what is not there")?;
        if (object.kind.ftype(), object.nlink) != (shown.kind, shown.nlink) {
            let want = (object.kind.ftype(), object.nlink);
            return Err(format!("kind and links {want:?}, shown {shown:?}"));
        }
        let good = match window {
            Some(window) => object.attr.after_crash(window, |attr| attr.allows(&object.kind, shown)),
            None => object.attr.now().allows(&object.kind, shown),
        };
        if !good {
            return Err(format!("{:?}, shown {shown:?}", object.attr));
        }
        let attr = object.attr.now_mut();
        attr.atime = Instant::Is(shown.atime);
        attr.mtime = Instant::Is(shown.mtime);
        attr.ctime = Instant::Is(shown.ctime);
        match self.seen.get(&id) {
            Some(identity) if identity.fileid != shown.fileid => {
                Err(format!("fileid {} where it was {}", shown.fileid, identity.fileid))
            }
            _ => Ok(()),
        }
    }

    /// `wcc_attr` is what the object had just before.
    pub fn observe_before(&self, id: ObjectId, before: &Before) -> Result<(), String> {
        let attr = self.attr(id);
        let sized = self.is_file(id);
        let good =
            (!sized || attr.size == before.size) && attr.mtime.allows(before.mtime) && attr.ctime.allows(before.ctime);
        if good { Ok(()) } else { Err(format!("before it was {attr:?}, shown {before:?}")) }
    }
}

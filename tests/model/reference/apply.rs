//! What a successful operation does to the tree. Times are left to the server within bounds; what it
//! chose is learnt from its answer (`observe`).

use std::collections::BTreeMap;

use super::caller::{Caller, SGID, without_privileges};
use super::content::Content;
use super::op::{Name, Op};
use super::states::{Seq, States};
use super::tree::{Attr, Identity, Instant, Kind, Object, ObjectId, Tree};
use crate::common::nfs3::{Answer, How, Sattr, SetTime};

/// What a new directory takes from its maker.
const DIR_MODE: u32 = 0o1777;

fn chosen(time: SetTime, otherwise: Instant) -> Instant {
    match time {
        SetTime::Keep => otherwise,
        SetTime::Server => Instant::Unknown,
        SetTime::To(time) => Instant::Is(time),
    }
}

impl Tree {
    /// Apply `op`, which the server ran for `by` and answered as `seq`. `new` is the number for what it makes.
    pub fn apply(&mut self, op: &Op, by: Caller, answer: &Answer, seq: Seq, new: ObjectId) -> Option<ObjectId> {
        match op {
            Op::Getattr { .. } | Op::Readlink { .. } | Op::Read { .. } | Op::Commit { .. } => None,
            Op::Lookup { dir, name } => self.lookup(*dir, &name.0),
            Op::Setattr { id, set, .. } => {
                self.set(*id, set, by, seq);
                Some(*id)
            }
            Op::Write { id, offset, data, .. } => {
                self.write(*id, *offset, &data.bytes(), by, seq);
                Some(*id)
            }
            Op::Create { dir, name, how } => Some(self.create(*dir, name, how, by, answer, new)),
            Op::Mkdir { dir, name, set } => {
                let entries = BTreeMap::new();
                Some(self.make(*dir, name, Kind::Dir { entries, parent: *dir }, set, by, new))
            }
            Op::Symlink { dir, name, set, target } => {
                let id = self.make(*dir, name, Kind::Link(target.0.clone()), set, by, new);
                self.object_mut(id).attr.now_mut().size = target.0.len() as u64;
                // Nobody looks at a link's mode: what it shows is the server's affair.
                self.object_mut(id).attr.now_mut().mode = answer.attr.as_ref().map_or(0o777, |attr| attr.mode);
                Some(id)
            }
            Op::Mknod { dir, name, kind, device, set } => {
                let made = match device {
                    Some(numbers) => Kind::Device(*kind, *numbers),
                    None if *kind == Kind::Fifo.ftype() => Kind::Fifo,
                    None => Kind::Socket,
                };
                Some(self.make(*dir, name, made, set, by, new))
            }
            Op::Remove { dir, name } | Op::Rmdir { dir, name } => {
                let id = self.take(*dir, name);
                self.lose_link(id);
                None
            }
            Op::Rename { from, to } => {
                self.rename(from, to);
                None
            }
            Op::Link { id, dir, name } => {
                self.object_mut(*id).nlink += 1;
                self.moved_on(*id);
                self.names_changed(*dir);
                self.entries_mut(*dir).insert(name.0.clone(), *id);
                Some(*id)
            }
        }
    }

    /// An operation that was applied may have been done before; then the times are of then.
    pub fn recall(&mut self, op: &Op) {
        if let Op::Setattr { id, .. } | Op::Write { id, .. } = op {
            let attr = self.object_mut(*id).attr.now_mut();
            if let Instant::After(before) = attr.ctime {
                attr.ctime = Instant::From(before);
            }
        }
    }

    /// The ctime moves on, whatever else is uncertain of the object.
    fn moved_on(&mut self, id: ObjectId) {
        self.changed = true;
        self.object_mut(id).attr.each(|attr| {
            attr.ctime = attr.ctime.later();
            attr.touched = true;
        });
    }

    fn names_changed(&mut self, dir: ObjectId) {
        self.moved_on(dir);
        self.object_mut(dir).attr.each(|attr| attr.mtime = Instant::Unknown);
    }

    /// Directories of newer states than the file: size and bytes change as one step.
    fn write(&mut self, id: ObjectId, offset: u64, data: &[u8], by: Caller, seq: Seq) {
        self.changed = true;
        let mut attr = self.attr(id).clone();
        attr.size = attr.size.max(offset + data.len() as u64);
        attr.mode = by.mode_after_write(attr.mode);
        attr.mtime = Instant::Unknown;
        attr.ctime = attr.ctime.later();
        attr.touched = true;
        self.object_mut(id).attr.push(seq, attr);
        self.content_mut(id).write(seq, offset, data);
        self.mark_uncertain(id);
    }

    fn set(&mut self, id: ObjectId, set: &Sattr, by: Caller, seq: Seq) {
        self.changed = true;
        let old = self.attr(id).clone();
        let mut attr = Attr { ctime: old.ctime.later(), touched: true, ..old.clone() };
        attr.uid = set.uid.unwrap_or(old.uid);
        attr.gid = set.gid.unwrap_or(old.gid);
        attr.mode = set.mode.map_or(old.mode, |mode| by.mode_given(mode & 0o7777, attr.gid));
        let of_others = set.uid.is_some() || set.gid.is_some();
        if !self.is_dir(id) && (of_others || set.size.is_some() && !by.is_root()) {
            attr.mode = without_privileges(attr.mode);
        }
        attr.atime = chosen(set.atime, old.atime);
        // A cut moves it on; whether a cut to the same size does is the server's affair.
        attr.mtime = chosen(set.mtime, if set.size.is_some() { Instant::Unknown } else { old.mtime });
        if let Some(size) = set.size {
            attr.size = size;
            self.content_mut(id).cut(seq, size);
        }
        let object = self.object_mut(id);
        object.attr.push(seq, attr);
        object.verifier = None;
        self.mark_uncertain(id);
    }

    fn create(
        &mut self,
        dir: ObjectId,
        name: &Name,
        how: &How,
        by: Caller,
        answer: &Answer,
        new: ObjectId,
    ) -> ObjectId {
        if let Some(id) = self.lookup(dir, &name.0) {
            if let How::Unchecked(Sattr { size: Some(0), .. }) = how {
                self.empty(id, by);
            }
            return id;
        }
        let set = match how {
            How::Unchecked(set) | How::Guarded(set) => set.clone(),
            // RFC 1813 3.3.8: the attributes are the server's until a SETATTR.
            How::Exclusive(_) => Sattr { mode: answer.attr.as_ref().map(|attr| attr.mode), ..Sattr::default() },
        };
        let id = self.make(dir, name, Kind::File(Content::default()), &set, by, new);
        if let How::Exclusive(verifier) = how {
            let object = self.object_mut(id);
            object.verifier = Some(*verifier);
            (object.attr.now_mut().atime, object.attr.now_mut().mtime) = (Instant::Unknown, Instant::Unknown);
        }
        id
    }

    /// Cut to nothing, stable: whatever was uncertain of the file is certain now.
    fn empty(&mut self, id: ObjectId, by: Caller) {
        self.set(id, &Sattr { size: Some(0), ..Sattr::default() }, by, Seq::MAX);
        let object = self.object_mut(id);
        object.attr.settle_now();
        object.kind = Kind::File(Content::default());
        self.certain_again(id);
    }

    fn make(&mut self, dir: ObjectId, name: &Name, kind: Kind, set: &Sattr, by: Caller, id: ObjectId) -> ObjectId {
        let above = self.attr(dir).clone();
        let inherits = above.mode & SGID != 0;
        let is_dir = matches!(kind, Kind::Dir { .. });
        // Who is not root does not choose an owner.
        let chosen_by_root = |id: Option<u32>| id.filter(|_| by.is_root());
        let gid = chosen_by_root(set.gid).unwrap_or(if inherits { above.gid } else { by.gid });
        let mode = set.mode.unwrap_or(0) & 0o7777;
        let attr = Attr {
            mode: match is_dir {
                true => mode & DIR_MODE | if inherits { SGID } else { 0 },
                false => by.mode_of_new(mode, gid),
            },
            uid: chosen_by_root(set.uid).unwrap_or(by.uid),
            gid,
            size: set.size.unwrap_or(0),
            atime: chosen(set.atime, Instant::Unknown),
            mtime: chosen(set.mtime, Instant::Unknown),
            ctime: Instant::Unknown,
            touched: true,
        };
        let nlink = if is_dir { 2 } else { 1 };
        self.names_changed(dir);
        self.insert(dir, &name.0, id, Object { kind, nlink, attr: States::new(attr), verifier: None });
        id
    }

    /// Take a name out of a directory.
    fn take(&mut self, dir: ObjectId, name: &Name) -> ObjectId {
        self.names_changed(dir);
        let id = self.entries_mut(dir).remove(&name.0).expect("a name that is there");
        if self.is_dir(id) {
            self.object_mut(dir).nlink -= 1;
        }
        id
    }

    fn lose_link(&mut self, id: ObjectId) {
        let last = self.is_dir(id) || self.object(id).nlink == 1;
        if last {
            self.objects.remove(&id);
            self.ended.extend(self.seen.remove(&id).map(|identity| (identity, id)));
            self.gone.insert(id);
            self.certain_again(id);
        } else {
            self.object_mut(id).nlink -= 1;
            self.moved_on(id);
        }
    }

    fn rename(&mut self, from: &(ObjectId, Name), to: &(ObjectId, Name)) {
        let target = self.lookup(to.0, &to.1.0);
        if target == self.lookup(from.0, &from.1.0) {
            return;
        }
        let id = self.take(from.0, &from.1);
        if target.is_some() {
            let replaced = self.take(to.0, &to.1);
            self.lose_link(replaced);
        }
        self.names_changed(to.0);
        self.moved_on(id);
        self.entries_mut(to.0).insert(to.1.0.clone(), id);
        if let Kind::Dir { parent, .. } = &mut self.object_mut(id).kind {
            *parent = to.0;
            self.object_mut(to.0).nlink += 1;
        }
    }

    /// The server's name for an object, as it gave it.
    pub fn name(&mut self, id: ObjectId, identity: Identity) -> Result<(), String> {
        if let Some(known) = self.seen.get(&id) {
            return match *known == identity {
                true => Ok(()),
                false => Err(format!("{identity:?} where it was {known:?}")),
            };
        }
        let former = self.former.get(&id);
        let reused = former
            .and_then(|all| all.iter().find(|old| old.handle == identity.handle || old.fileid == identity.fileid));
        if let Some(old) = reused.filter(|_| self.renewed.contains(&id)) {
            return Err(format!("{id} is {identity:?} although {old:?} was another line of content"));
        }
        self.seen.insert(id, identity);
        Ok(())
    }
}

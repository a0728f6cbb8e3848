//! What a recording notes of a call: its arguments and what it was answered, without data.
//!
//! A call of an export that nobody records costs one relaxed load, or a look at the export that its handle says
//! while others are recorded. An answer that is given again to a repeated call is not noted.

use std::sync::Arc;

use nfsserve::nfs::{sattr3, set_atime, set_gid3, set_mode3, set_mtime, set_size3, set_uid3};

use super::args::{self, How};
use super::dispatch::Core;
use super::encode::FATTR3;
use super::handle::{self, HandleKeys, NFS3_FHSIZE};
use super::mount::{self, Path};
use super::proc3;
use super::rpc::{Call, Credential, NOBODY};
use super::xdr::{Decode, Decoder, Garbage};
use crate::trace::{self, Creation, NameVerb, NewAttrs, Op, SetTime, Special, Stable, Verb};
use crate::vfs::{Object, Recording, Tap, Vfs};

const MNT: u32 = 1;

/// A call that is recorded.
pub struct Watched {
    recording: Arc<Recording>,
    at_micros: u64,
}

/// A recorded call with its answer, which has not left yet.
pub struct Noted {
    recording: Arc<Recording>,
    op: Op<Object>,
}

impl Watched {
    /// The call is there. `None`: nobody records it.
    pub fn begin<V: Vfs>(core: &Core<V>, call: &Call<'_>) -> Option<Self> {
        let tap = core.vfs.tap();
        if !tap.is_on() {
            return None;
        }
        let recording = recording(tap, call)?;
        Some(Self { at_micros: recording.micros(), recording })
    }

    /// Its results are encoded. `None`: there is nothing to note.
    pub fn answered(self, keys: &HandleKeys, call: &Call<'_>, results: &[u8]) -> Option<Noted> {
        let Self { recording, at_micros } = self;
        let (uid, gid) = match call.credential {
            Credential::Sys { uid, gid, .. } => (uid, gid),
            Credential::None => (NOBODY, NOBODY),
        };
        let (status, call) = View { keys, call, results }.call().ok()?;
        Some(Noted { recording, op: Op { at_micros, took_micros: 0, uid, gid, status, call } })
    }
}

impl Noted {
    /// The answer may leave.
    pub fn leaves(mut self) {
        self.op.took_micros = self.recording.micros().saturating_sub(self.op.at_micros);
        self.recording.note(self.op);
    }
}

fn recording(tap: &Tap, call: &Call<'_>) -> Option<Arc<Recording>> {
    match call.program {
        proc3::PROGRAM => {
            let said = Decoder::new(call.arguments).opaque(NFS3_FHSIZE).ok()?;
            tap.of_export(handle::said_export(said)?)
        }
        mount::PROGRAM if call.procedure == MNT => tap.of_path(call.arguments::<Path<'_>>().ok()?.0),
        _ => None,
    }
}

/// A call and its results.
struct View<'a> {
    keys: &'a HandleKeys,
    call: &'a Call<'a>,
    results: &'a [u8],
}

type Seen<T> = Result<T, Garbage>;

impl<'a> View<'a> {
    fn call(&self) -> Seen<(u32, trace::Call<Object>)> {
        let status = Decoder::new(self.results).u32()?;
        if self.call.program == mount::PROGRAM {
            return Ok((status, trace::Call::Mount));
        }
        let call = match self.call.procedure {
            3 | proc3::CREATE..=proc3::RMDIR => self.name(status == 0)?,
            proc3::RENAME => {
                let args: args::Rename<'_> = self.call.arguments()?;
                let (from, to) = (args.from, args.to);
                let (from_dir, to_dir) = (self.object(from.dir)?, self.object(to.dir)?);
                trace::Call::Rename { from_dir, from: from.name.into(), to_dir, to: to.name.into() }
            }
            proc3::LINK => {
                let args: args::Link<'_> = self.call.arguments()?;
                let (object, dir) = (self.object(args.file)?, self.object(args.place.dir)?);
                trace::Call::Link { object, dir, name: args.place.name.into() }
            }
            _ => {
                let handle = args::Object::decode(&mut Decoder::new(self.call.arguments))?.handle;
                trace::Call::Object { object: self.object(handle)?, verb: self.verb(status == 0)? }
            }
        };
        Ok((status, call))
    }

    fn object(&self, handle: &[u8]) -> Seen<Object> {
        self.keys.decode(handle).map_err(|_| Garbage)
    }

    fn verb(&self, ok: bool) -> Seen<Verb> {
        Ok(match self.call.procedure {
            1 => Verb::GetAttr,
            proc3::SETATTR => Verb::SetAttr(new_attrs(&self.call.arguments::<args::SetAttr<'_>>()?.new)),
            4 => Verb::Access(self.call.arguments::<args::Access<'_>>()?.rights),
            5 => Verb::ReadLink,
            proc3::READ => {
                let args::Range { offset, count, .. } = self.call.arguments()?;
                Verb::Read { offset, len: count, got: if ok { self.count_read()? } else { 0 } }
            }
            7 => {
                let args::Write { offset, count, stable, .. } = self.call.arguments()?;
                Verb::Write { offset, len: count, stable: stable_how(stable) }
            }
            16 => {
                let args::ReadDir { cookie, count, .. } = self.call.arguments()?;
                Verb::List { from_start: cookie == 0, plus: false, max_bytes: count }
            }
            17 => {
                let args::ReadDirPlus { cookie, maxcount, .. } = self.call.arguments()?;
                Verb::List { from_start: cookie == 0, plus: true, max_bytes: maxcount }
            }
            18 => Verb::FsStat,
            19 => Verb::FsInfo,
            20 => Verb::PathConf,
            21 => {
                let args::Range { offset, count, .. } = self.call.arguments()?;
                Verb::Commit { offset, len: count }
            }
            _ => return Err(Garbage),
        })
    }

    fn name(&self, ok: bool) -> Seen<trace::Call<Object>> {
        let (place, verb) = match self.call.procedure {
            proc3::CREATE => {
                let args: args::Create<'_> = self.call.arguments()?;
                (args.place, NameVerb::Create(creation(args.how)))
            }
            proc3::MKDIR => {
                let args: args::MkDir<'_> = self.call.arguments()?;
                (args.place, NameVerb::MakeDir(new_attrs(&args.new)))
            }
            proc3::SYMLINK => {
                let args: args::SymLink<'_> = self.call.arguments()?;
                (args.place, NameVerb::SymLink { new: new_attrs(&args.new), target: args.target.into() })
            }
            proc3::MKNOD => {
                let args: args::MkNod<'_> = self.call.arguments()?;
                (args.place, special(args.what))
            }
            procedure => {
                let verb = match procedure {
                    proc3::REMOVE => NameVerb::Remove,
                    proc3::RMDIR => NameVerb::RemoveDir,
                    _ => NameVerb::Lookup,
                };
                (self.call.arguments::<args::DirOp<'_>>()?, verb)
            }
        };
        let object = if ok { self.given(&verb)? } else { None };
        Ok(trace::Call::Name { dir: self.object(place.dir)?, name: place.name.into(), verb, object })
    }

    /// The object that the results give.
    fn given(&self, verb: &NameVerb) -> Seen<Option<Object>> {
        let mut results = Decoder::new(self.results);
        results.u32()?;
        let gives = match verb {
            NameVerb::Remove | NameVerb::RemoveDir => false,
            NameVerb::Lookup => true,
            _ => results.bool()?,
        };
        gives.then(|| self.object(results.opaque(NFS3_FHSIZE)?)).transpose()
    }

    /// `count` in the results of a READ, behind the attributes.
    fn count_read(&self) -> Seen<u32> {
        let mut results = Decoder::new(self.results);
        results.u32()?;
        if results.bool()? {
            results.fixed::<FATTR3>()?;
        }
        results.u32()
    }
}

fn stable_how(stable: args::Stable) -> Stable {
    match stable {
        args::Stable::Unstable => Stable::Unstable,
        args::Stable::DataSync => Stable::DataSync,
        args::Stable::FileSync => Stable::FileSync,
    }
}

fn creation(how: How) -> Creation {
    match how {
        How::Unchecked(new) => Creation::Unchecked(new_attrs(&new)),
        How::Guarded(new) => Creation::Guarded(new_attrs(&new)),
        How::Exclusive(verifier) => Creation::Exclusive(verifier),
    }
}

fn special(node: args::Node) -> NameVerb {
    let (new, what) = match node {
        args::Node::Char(new, _) => (new, Special::Char),
        args::Node::Block(new, _) => (new, Special::Block),
        args::Node::Socket(new) => (new, Special::Socket),
        args::Node::Fifo(new) => (new, Special::Fifo),
        args::Node::Other => return NameVerb::MakeNode { new: NewAttrs::default(), what: Special::Other },
    };
    NameVerb::MakeNode { new: new_attrs(&new), what }
}

fn new_attrs(wanted: &sattr3) -> NewAttrs {
    NewAttrs {
        mode: if let set_mode3::mode(mode) = wanted.mode { Some(mode) } else { None },
        uid: if let set_uid3::uid(uid) = wanted.uid { Some(uid) } else { None },
        gid: if let set_gid3::gid(gid) = wanted.gid { Some(gid) } else { None },
        size: if let set_size3::size(size) = wanted.size { Some(size) } else { None },
        atime: match wanted.atime {
            set_atime::DONT_CHANGE => SetTime::Keep,
            set_atime::SET_TO_SERVER_TIME => SetTime::Server,
            set_atime::SET_TO_CLIENT_TIME(_) => SetTime::Client,
        },
        mtime: match wanted.mtime {
            set_mtime::DONT_CHANGE => SetTime::Keep,
            set_mtime::SET_TO_SERVER_TIME => SetTime::Server,
            set_mtime::SET_TO_CLIENT_TIME(_) => SetTime::Client,
        },
    }
}

//! Calls: whole records, appended to a buffer.

use super::{Caller, MOUNT, PORTMAP, VERSION};
use crate::nfs::xdr::Encode;
use crate::trace::{Call, Creation, NameVerb, NewAttrs, NodeId, SetTime, Special, Stable, Verb};

const PORTMAP_VERSION: u32 = 2;
const TCP: u32 = 6;
const MNT: u32 = 1;
const GETPORT: u32 = 3;
pub(super) const LAST_FRAGMENT: u32 = 1 << 31;
pub(super) const AUTH_SYS: u32 = 1;

/// `stable_how` by its number.
const _: () = assert!(Stable::Unstable as u32 == 0 && Stable::DataSync as u32 == 1 && Stable::FileSync as u32 == 2);

/// A call's own part of its record.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub xid: u32,
    pub program: u32,
    pub procedure: u32,
    pub caller: Caller,
}

/// Append a whole record: mark, RPC header, what `arguments` appends.
pub fn put_call(to: &mut Vec<u8>, head: Head, arguments: impl FnOnce(&mut Vec<u8>)) {
    let start = to.len();
    let version = if head.program == PORTMAP { PORTMAP_VERSION } else { VERSION };
    for word in [0, head.xid, 0, 2, head.program, version, head.procedure] {
        to.put_u32(word);
    }
    // AUTH_SYS: stamp, machine name, uid, gid, no more groups.
    for word in [AUTH_SYS, 20, 0, 0, head.caller.uid, head.caller.gid, 0] {
        to.put_u32(word);
    }
    // The verifier: AUTH_NONE, empty.
    to.put_u64(0);
    arguments(to);
    let len = u32::try_from(to.len() - start - 4).expect("a call is bounded far below 2 GiB");
    to[start..start + 4].copy_from_slice(&(len | LAST_FRAGMENT).to_be_bytes());
}

pub fn put_mount(to: &mut Vec<u8>, xid: u32, caller: Caller, export: &str) {
    put_call(to, Head { xid, program: MOUNT, procedure: MNT, caller }, |to| to.put_opaque(export.as_bytes()));
}

/// Ask a port mapper for the TCP port of a program.
pub fn put_get_port(to: &mut Vec<u8>, xid: u32, program: u32) {
    let head = Head { xid, program: PORTMAP, procedure: GETPORT, caller: Caller::default() };
    put_call(to, head, |to| [program, VERSION, TCP, 0].into_iter().for_each(|word| to.put_u32(word)));
}

/// Where a listing goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListPosition {
    pub cookie: u64,
    pub verifier: u64,
}

/// What a client puts into a call that no plan has.
pub trait Fill {
    fn handle(&self, object: NodeId) -> &[u8];
    /// Where a listing of `dir` goes on.
    fn position(&self, dir: NodeId) -> ListPosition;
    /// The data of a WRITE.
    fn data(&self, file: NodeId, offset: u64, to: &mut [u8]);
}

/// Append the arguments of `call`.
pub fn put_arguments(to: &mut Vec<u8>, call: &Call, fill: &impl Fill) {
    match call {
        Call::Mount => {}
        Call::Object { object, verb } => {
            to.put_opaque(fill.handle(*object));
            put_verb(to, *object, verb, fill);
        }
        Call::Name { dir, name, verb, .. } => {
            put_lookup(to, fill.handle(*dir), name);
            put_name_verb(to, verb);
        }
        Call::Rename { from_dir, from, to_dir, to: new } => {
            put_lookup(to, fill.handle(*from_dir), from);
            put_lookup(to, fill.handle(*to_dir), new);
        }
        Call::Link { object, dir, name } => {
            to.put_opaque(fill.handle(*object));
            put_lookup(to, fill.handle(*dir), name);
        }
    }
}

/// `diropargs3`: all that LOOKUP takes.
pub fn put_lookup(to: &mut Vec<u8>, dir: &[u8], name: &[u8]) {
    to.put_opaque(dir);
    to.put_opaque(name);
}

fn put_verb(to: &mut Vec<u8>, object: NodeId, verb: &Verb, fill: &impl Fill) {
    match *verb {
        Verb::GetAttr | Verb::ReadLink | Verb::FsStat | Verb::FsInfo | Verb::PathConf => {}
        Verb::SetAttr(ref new) => {
            put_new_attrs(to, new);
            to.put_bool(false);
        }
        Verb::Access(rights) => to.put_u32(rights),
        Verb::Read { offset, len, .. } | Verb::Commit { offset, len } => {
            to.put_u64(offset);
            to.put_u32(len);
        }
        Verb::Write { offset, len, stable } => {
            to.put_u64(offset);
            to.put_u32(len);
            to.put_u32(stable as u32);
            to.put_u32(len);
            let start = to.len();
            to.resize(start + len as usize, 0);
            fill.data(object, offset, &mut to[start..]);
            to.put_padding(len as usize);
        }
        Verb::List { plus, max_bytes, from_start } => {
            let position = if from_start { ListPosition::default() } else { fill.position(object) };
            to.put_u64(position.cookie);
            to.put_u64(position.verifier);
            to.put_u32(max_bytes);
            if plus {
                to.put_u32(max_bytes);
            }
        }
    }
}

fn put_name_verb(to: &mut Vec<u8>, verb: &NameVerb) {
    match verb {
        NameVerb::Lookup | NameVerb::Remove | NameVerb::RemoveDir => {}
        NameVerb::Create(Creation::Exclusive(verifier)) => {
            to.put_u32(2);
            to.extend_from_slice(verifier);
        }
        NameVerb::Create(Creation::Unchecked(new)) => {
            to.put_u32(0);
            put_new_attrs(to, new);
        }
        NameVerb::Create(Creation::Guarded(new)) => {
            to.put_u32(1);
            put_new_attrs(to, new);
        }
        NameVerb::MakeDir(new) => put_new_attrs(to, new),
        NameVerb::SymLink { new, target } => {
            put_new_attrs(to, new);
            to.put_opaque(target);
        }
        NameVerb::MakeNode { new, what } => put_node(to, new, *what),
    }
}

fn put_node(to: &mut Vec<u8>, new: &NewAttrs, what: Special) {
    let (kind, is_device) = match what {
        Special::Block => (3, true),
        Special::Char => (4, true),
        Special::Socket => (6, false),
        Special::Fifo => (7, false),
        Special::Other => (1, false),
    };
    to.put_u32(kind);
    if what == Special::Other {
        return;
    }
    put_new_attrs(to, new);
    if is_device {
        to.put_u64(0);
    }
}

fn put_new_attrs(to: &mut Vec<u8>, new: &NewAttrs) {
    for value in [new.mode, new.uid, new.gid] {
        to.put_bool(value.is_some());
        value.into_iter().for_each(|value| to.put_u32(value));
    }
    to.put_bool(new.size.is_some());
    new.size.into_iter().for_each(|size| to.put_u64(size));
    for time in [new.atime, new.mtime] {
        // The client's own times are not in a trace; the server's are as good.
        to.put_u32(u32::from(time != SetTime::Keep));
    }
}

//! MOUNT version 3 (RFC 1813 appendix I), and the list of who mounted what.
//!
//! Owns the mount table, which is what DUMP shows: a courtesy of at most [`MAX_MOUNTS`] entries, in
//! memory only, oldest dropped. Access is decided per request; UMNTALL means the exports that are listed here.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use parking_lot::Mutex;

use super::dispatch::{Context, Halt};
use super::reply::Replies;
use super::rpc::{AUTH_NONE, AUTH_SYS, Call, Reject};
use super::status;
use super::xdr::{Decode, Decoder, Encode, Garbage};
use crate::vfs::{Refusal, Vfs};

pub const PROGRAM: u32 = 100_005;
pub const VERSION: u32 = 3;

/// Longest path of an export, in bytes (MNTPATHLEN).
const MAX_PATH: usize = 1024;
/// Longest path that is decoded at all, in bytes.
const MAX_DECODED_PATH: usize = 4096;
/// Entries of the mount table.
const MAX_MOUNTS: usize = 16_384;
/// Exports that EXPORT lists.
const MAX_EXPORTS: usize = 16_384;
/// Bytes of a list above which DUMP and EXPORT end it.
const MAX_LIST: usize = 1024 * 1024;

/// `dirpath`
#[derive(Clone, Copy, Debug)]
pub struct Path<'a>(pub &'a [u8]);

impl<'a> Decode<'a> for Path<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, Garbage> {
        from.opaque(MAX_DECODED_PATH).map(Self)
    }
}

pub fn run<V: Vfs>(cx: &mut Context<'_, '_, V>, call: &Call<'_>, out: &mut Replies) -> Result<(), Halt> {
    match call.procedure {
        0 => call.arguments::<()>()?,
        1 => mnt(cx, call.arguments()?, out)?,
        2 => dump(cx, call.arguments()?, out),
        3 => umnt(cx, call.arguments()?),
        4 => umntall(cx, call.arguments()?),
        5 => export(cx, call.arguments()?, out),
        _ => return Err(Reject::ProcedureUnavailable.into()),
    }
    Ok(())
}

fn mnt<V: Vfs>(cx: &mut Context<'_, '_, V>, Path(path): Path<'_>, out: &mut Replies) -> Result<(), Halt> {
    if path.len() > MAX_PATH {
        out.head().put_u32(status::mount(Refusal::NameTooLong));
        return Ok(());
    }
    match cx.ask(|vfs, request| vfs.mount(request, path))? {
        Ok(root) => {
            cx.core.mounts.add(cx.origin.peer.ip(), path);
            let head = out.head();
            head.put_u32(0);
            cx.core.handles.put(head, root);
            for word in [2, AUTH_SYS, AUTH_NONE] {
                head.put_u32(word);
            }
        }
        Err(refused) => out.head().put_u32(status::mount(refused.why)),
    }
    Ok(())
}

fn dump<V: Vfs>(cx: &Context<'_, '_, V>, (): (), out: &mut Replies) {
    let head = out.head();
    let start = head.len();
    cx.core.mounts.each(|client, path| {
        head.put_bool(true);
        head.put_opaque(client.to_string().as_bytes());
        head.put_opaque(path);
        head.len() - start < MAX_LIST
    });
    head.put_bool(false);
}

fn umnt<V: Vfs>(cx: &mut Context<'_, '_, V>, Path(path): Path<'_>) {
    cx.core.mounts.remove(cx.origin.peer.ip(), path);
    let (vfs, request) = cx.request();
    vfs.unmount(request, path);
}

fn umntall<V: Vfs>(cx: &mut Context<'_, '_, V>, (): ()) {
    let paths = cx.core.mounts.remove_all(cx.origin.peer.ip());
    let (vfs, request) = cx.request();
    paths.iter().for_each(|path| vfs.unmount(request, path));
}

fn export<V: Vfs>(cx: &mut Context<'_, '_, V>, (): (), out: &mut Replies) {
    let (vfs, request) = cx.request();
    let exports = vfs.exports(request, MAX_EXPORTS);
    let head = out.head();
    let start = head.len();
    for line in exports {
        if head.len() - start >= MAX_LIST {
            break;
        }
        head.put_bool(true);
        head.put_opaque(&line.path);
        for network in &line.networks {
            head.put_bool(true);
            head.put_opaque(network.as_bytes());
        }
        head.put_bool(false);
    }
    head.put_bool(false);
}

/// Who mounted what, oldest first.
#[derive(Debug, Default)]
pub struct MountTable(Mutex<Mounts>);

#[derive(Debug, Default)]
struct Mounts {
    by_age: BTreeMap<u64, (IpAddr, Box<[u8]>)>,
    ages: HashMap<(IpAddr, Box<[u8]>), u64>,
    next_age: u64,
}

impl MountTable {
    pub fn add(&self, client: IpAddr, path: &[u8]) {
        let mut mounts = self.0.lock();
        let key = (client, Box::from(path));
        mounts.remove(&key);
        if mounts.ages.len() >= MAX_MOUNTS
            && let Some((_, oldest)) = mounts.by_age.pop_first()
        {
            mounts.ages.remove(&oldest);
        }
        let age = mounts.next_age;
        mounts.next_age += 1;
        mounts.by_age.insert(age, key.clone());
        mounts.ages.insert(key, age);
    }

    pub fn remove(&self, client: IpAddr, path: &[u8]) {
        self.0.lock().remove(&(client, Box::from(path)));
    }

    /// Take all entries of a client out; answers their paths.
    pub fn remove_all(&self, client: IpAddr) -> Vec<Box<[u8]>> {
        let mut mounts = self.0.lock();
        mounts.by_age.retain(|_, (of, _)| *of != client);
        let removed = mounts.ages.extract_if(|(of, _), _| *of == client);
        removed.map(|((_, path), _)| path).collect()
    }

    /// Show every entry, until `show` says false.
    fn each(&self, mut show: impl FnMut(IpAddr, &[u8]) -> bool) {
        for (client, path) in self.0.lock().by_age.values() {
            if !show(*client, path) {
                break;
            }
        }
    }
}

impl Mounts {
    fn remove(&mut self, key: &(IpAddr, Box<[u8]>)) {
        if let Some(age) = self.ages.remove(key) {
            self.by_age.remove(&age);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn shown(table: &MountTable) -> Vec<(IpAddr, Vec<u8>)> {
        let mut shown = Vec::new();
        table.each(|client, path| {
            shown.push((client, path.to_vec()));
            true
        });
        shown
    }

    #[test]
    fn a_mount_is_listed_once_until_it_is_undone() {
        let table = MountTable::default();
        for (client, path) in [(A, &b"/x"[..]), (A, b"/y"), (B, b"/x"), (A, b"/x")] {
            table.add(client, path);
        }
        assert_eq!(shown(&table), [(A, b"/y".to_vec()), (B, b"/x".to_vec()), (A, b"/x".to_vec())]);
        table.remove(B, b"/x");
        table.remove(B, b"/never");
        assert_eq!(shown(&table), [(A, b"/y".to_vec()), (A, b"/x".to_vec())]);
        let mut removed = table.remove_all(A);
        removed.sort();
        assert_eq!(removed, [Box::from(&b"/x"[..]), Box::from(&b"/y"[..])]);
        assert_eq!(shown(&table), []);
    }

    #[test]
    fn a_full_table_drops_its_oldest_entry() {
        let table = MountTable::default();
        for n in 0..=MAX_MOUNTS {
            table.add(A, n.to_string().as_bytes());
        }
        let shown = shown(&table);
        assert_eq!(shown.len(), MAX_MOUNTS);
        assert_eq!(shown[0].1, b"1");
    }
}

//! File handles: what a client holds instead of a path.
//!
//! 44 bytes, big-endian: format (1 byte, 1), key id (1), zero (2), export id (8), inode (8),
//! generation (8), MAC (16). The MAC is a keyed BLAKE3 over the 28 bytes before it, cut to 16. The
//! keys belong to the store, so handles outlive restarts and move between machines.
//!
//! Failure story: anything that this store did not make is [`BadHandle`], whatever is wrong with it.
//! Whether the object of a good handle still exists is for the file service to say.

use super::xdr::Encode;
use crate::vfs::{ExportId, Object};

/// Longest handle of NFSv3, in bytes (RFC 1813 2.4).
pub const NFS3_FHSIZE: usize = 64;
/// Length of our handles, in bytes.
pub const HANDLE: usize = BODY + MAC;

const FORMAT: u8 = 1;
const BODY: usize = 28;
const MAC: usize = 16;

/// Not a handle of this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHandle;

/// The store's keys for handles.
pub struct HandleKeys {
    /// (key id, key), newest last.
    keys: Vec<(u8, [u8; 32])>,
}

impl HandleKeys {
    /// `keys` with the one that new handles get last; there must be one.
    pub fn new(keys: Vec<(u8, [u8; 32])>) -> Self {
        assert!(!keys.is_empty(), "a store has at least one handle key");
        Self { keys }
    }

    pub fn encode(&self, object: Object) -> [u8; HANDLE] {
        let (id, key) = self.keys.last().expect("checked in new");
        let mut handle = [0; HANDLE];
        handle[0] = FORMAT;
        handle[1] = *id;
        handle[4..12].copy_from_slice(&object.export.0.to_be_bytes());
        handle[12..20].copy_from_slice(&object.ino.to_be_bytes());
        handle[20..BODY].copy_from_slice(&object.generation.to_be_bytes());
        let mac = mac(key, &handle[..BODY]);
        handle[BODY..].copy_from_slice(&mac);
        handle
    }

    pub fn decode(&self, handle: &[u8]) -> Result<Object, BadHandle> {
        let handle: &[u8; HANDLE] = handle.try_into().map_err(|_| BadHandle)?;
        let [FORMAT, id, 0, 0, ..] = *handle else { return Err(BadHandle) };
        let (_, key) = self.keys.iter().find(|(known, _)| *known == id).ok_or(BadHandle)?;
        let (body, tag) = handle.split_at(BODY);
        if !same(&mac(key, body), tag) {
            return Err(BadHandle);
        }
        Ok(Object { export: ExportId(word(body, 4)), ino: word(body, 12), generation: word(body, 20) })
    }

    /// Append an object's handle as `nfs_fh3`.
    pub fn put(&self, out: &mut Vec<u8>, object: Object) {
        out.put_opaque(&self.encode(object));
    }
}

/// The export that `handle` says it is of, without looking whether it is one of this store's.
pub fn said_export(handle: &[u8]) -> Option<ExportId> {
    (handle.len() == HANDLE).then(|| ExportId(word(handle, 4)))
}

fn mac(key: &[u8; 32], body: &[u8]) -> [u8; MAC] {
    *blake3::keyed_hash(key, body).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// Compares without telling by its duration where the difference is.
fn same(a: &[u8; MAC], b: &[u8]) -> bool {
    a.iter().zip(b).fold(0, |different, (x, y)| different | (x ^ y)) == 0
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(*bytes[at..].first_chunk().expect("inside the body"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Object {
        Object { export: ExportId(7), ino: u64::MAX - 1, generation: 42 }
    }

    #[test]
    fn a_handle_means_its_object_also_under_an_older_key() {
        let old = HandleKeys::new(vec![(1, [1; 32])]);
        let rotated = HandleKeys::new(vec![(1, [1; 32]), (2, [2; 32])]);
        assert_eq!(rotated.decode(&old.encode(object())), Ok(object()));
        assert_eq!(rotated.decode(&rotated.encode(object())), Ok(object()));
        assert_eq!(old.decode(&rotated.encode(object())), Err(BadHandle), "a key that is not known");
    }

    #[test]
    fn the_bytes_are_frozen() {
        let handle = HandleKeys::new(vec![(3, [9; 32])]).encode(object());
        let body =
            [1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 255, 255, 255, 255, 255, 255, 255, 254, 0, 0, 0, 0, 0, 0, 0, 42];
        assert_eq!(handle[..BODY], body);
        assert_eq!(handle[BODY..], blake3::keyed_hash(&[9; 32], &body).as_bytes()[..MAC]);
    }

    #[test]
    fn forged_cut_and_foreign_handles_are_bad() {
        let keys = HandleKeys::new(vec![(1, [1; 32])]);
        let handle = keys.encode(object());
        for at in 0..HANDLE {
            for bit in 0..8 {
                let mut forged = handle;
                forged[at] ^= 1 << bit;
                assert_eq!(keys.decode(&forged), Err(BadHandle), "bit {bit} of byte {at}");
            }
            assert_eq!(keys.decode(&handle[..at]), Err(BadHandle), "cut at {at}");
        }
        assert_eq!(keys.decode(&[&handle[..], &[0]].concat()), Err(BadHandle));
        assert_eq!(HandleKeys::new(vec![(1, [2; 32])]).decode(&handle), Err(BadHandle));
    }
}

//! File handles: what a client holds instead of a path.
//!
//! 44 bytes, big-endian: format (1 byte, 1), key id (1), zero (2), export id (8), inode (8),
//! generation (8), MAC (16). The MAC is a keyed BLAKE3 over the 28 bytes before it, cut to 16. The
//! keys belong to the store, so handles outlive restarts and move between machines.
//!
//! A hash takes longer than the rest of a request that is answered from memory, so each thread keeps handles that
//! it made or verified lately; one that is equal to such a handle in every byte needs none.
//!
//! Failure story: anything that this store did not make is [`BadHandle`], whatever is wrong with it.
//! Whether the object of a good handle still exists is for the file service to say.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::xdr::Encode;
use crate::vfs::{ExportId, Object};

/// Longest handle of NFSv3, in bytes (RFC 1813 2.4).
pub const NFS3_FHSIZE: usize = 64;
/// Length of our handles, in bytes.
pub const HANDLE: usize = BODY + MAC;

const FORMAT: u8 = 1;
const BODY: usize = 28;
const MAC: usize = 16;

/// Handles that a thread keeps, a power of two: some 400 KiB.
const SLOTS: usize = 8 * 1024;

/// A handle that is one of these keys'.
type Verified = (KeysId, [u8; HANDLE]);
/// Tells the keys of several stores in one process apart; 0 is nobody's.
type KeysId = u64;

static NEXT_KEYS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static VERIFIED: RefCell<Box<[Verified]>> = RefCell::new(vec![(0, [0; HANDLE]); SLOTS].into_boxed_slice());
}

/// Not a handle of this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHandle;

/// The store's keys for handles.
pub struct HandleKeys {
    /// (key id, key), newest last.
    keys: Vec<(u8, [u8; 32])>,
    id: KeysId,
}

impl HandleKeys {
    /// `keys` with the one that new handles get last; there must be one.
    pub fn new(keys: Vec<(u8, [u8; 32])>) -> Self {
        assert!(!keys.is_empty(), "a store has at least one handle key");
        Self { keys, id: NEXT_KEYS.fetch_add(1, Ordering::Relaxed) }
    }

    pub fn encode(&self, object: Object) -> [u8; HANDLE] {
        let (key_id, key) = self.keys.last().expect("checked in new");
        let mut handle = [0; HANDLE];
        handle[0] = FORMAT;
        handle[1] = *key_id;
        handle[4..12].copy_from_slice(&object.export.0.to_be_bytes());
        handle[12..20].copy_from_slice(&object.ino.to_be_bytes());
        handle[20..BODY].copy_from_slice(&object.generation.to_be_bytes());
        let kept = kept(&handle);
        if kept.0 == self.id && kept.1[..BODY] == handle[..BODY] {
            return kept.1;
        }
        let mac = mac(key, &handle[..BODY]);
        handle[BODY..].copy_from_slice(&mac);
        keep((self.id, handle));
        handle
    }

    pub fn decode(&self, handle: &[u8]) -> Result<Object, BadHandle> {
        let handle: &[u8; HANDLE] = handle.try_into().map_err(|_| BadHandle)?;
        let kept = kept(handle);
        if kept.0 != self.id || !same(&kept.1, handle) {
            self.verify(handle)?;
            keep((self.id, *handle));
        }
        Ok(Object { export: ExportId(word(handle, 4)), ino: word(handle, 12), generation: word(handle, 20) })
    }

    fn verify(&self, handle: &[u8; HANDLE]) -> Result<(), BadHandle> {
        let [FORMAT, id, 0, 0, ..] = *handle else { return Err(BadHandle) };
        let (_, key) = self.keys.iter().find(|(known, _)| *known == id).ok_or(BadHandle)?;
        let (body, tag) = handle.split_at(BODY);
        let tag: &[u8; MAC] = tag.try_into().map_err(|_| BadHandle)?;
        if same(&mac(key, body), tag) { Ok(()) } else { Err(BadHandle) }
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
fn same<const N: usize>(a: &[u8; N], b: &[u8; N]) -> bool {
    a.iter().zip(b).fold(0, |different, (x, y)| different | (x ^ y)) == 0
}

/// The handle that is kept where one with this body would be.
fn kept(handle: &[u8; HANDLE]) -> Verified {
    VERIFIED.with_borrow(|verified| verified[slot(handle)])
}

fn keep(verified: Verified) {
    VERIFIED.with_borrow_mut(|kept| kept[slot(&verified.1)] = verified);
}

fn slot(handle: &[u8; HANDLE]) -> usize {
    let [export, ino, generation] = [word(handle, 4), word(handle, 12), word(handle, 20)];
    let spread = (export.rotate_left(32) ^ ino ^ generation.rotate_left(16)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (spread >> (64 - SLOTS.trailing_zeros())) as usize
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
    fn what_is_kept_is_good_for_its_own_keys_only() {
        let (ours, theirs) = (HandleKeys::new(vec![(1, [1; 32])]), HandleKeys::new(vec![(1, [2; 32])]));
        for _ in 0..2 {
            let handle = ours.encode(object());
            assert_eq!(ours.decode(&handle), Ok(object()));
            assert_eq!(theirs.decode(&handle), Err(BadHandle));
            assert_ne!(theirs.encode(object()), handle);
        }
        let again = HandleKeys::new(vec![(1, [1; 32])]);
        assert_eq!(again.encode(object()), ours.encode(object()));
    }

    #[test]
    fn a_handle_that_lost_its_place_is_verified_again() {
        let keys = HandleKeys::new(vec![(1, [1; 32])]);
        let handles: Vec<_> = (0..3 * SLOTS as u64).map(|ino| keys.encode(Object { ino, ..object() })).collect();
        for (ino, handle) in handles.iter().enumerate() {
            assert_eq!(keys.decode(handle), Ok(Object { ino: ino as u64, ..object() }));
        }
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

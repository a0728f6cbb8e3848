//! Names of directory entries and the READDIR cookies made of them.
//!
//! A cookie is 63 bits: a keyed hash of the name (59 bits) and a tie-breaker (4 bits) that is stored
//! with the entry. So it stays the same whatever else happens in the directory, and in every version
//! of the image. The seed is secret: nobody outside can make names that collide.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The least cookie an entry may have: 0 starts a listing, 1 and 2 are `.` and `..`.
pub const FIRST_COOKIE: Cookie = Cookie(3);

const TIE_BITS: u32 = 4;
/// Names of one directory that may share a hash.
pub const MAX_TIES: u64 = 1 << TIE_BITS;
/// Completes the seed to a BLAKE3 key and separates this use of it from others.
const DOMAIN: &[u8; 16] = b"mimeo-name-hash1";

/// The position of an entry in its directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cookie(pub u64);

impl Cookie {
    /// The first of the cookies that names with the hash `hash` (59 bits) may take.
    pub(super) const fn base(hash: u64) -> Self {
        let base = hash << TIE_BITS;
        // Hash 0 would begin with the reserved cookies: it shares the next.
        Self(if base == 0 { MAX_TIES } else { base })
    }

    /// The first cookie of the group that this one is in.
    pub(super) const fn group(self) -> Self {
        Self(self.0 & !(MAX_TIES - 1))
    }

    /// The last cookie of the group that begins with this base.
    pub(super) const fn last_tie(self) -> Self {
        Self(self.0 | (MAX_TIES - 1))
    }
}

/// The key of the name hash. Belongs to the image: all its versions have the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NameSeed(pub [u8; 16]);

impl NameSeed {
    /// The upper 59 bits of the keyed BLAKE3 of `name`, read as a big-endian number.
    pub fn hash(&self, name: &[u8]) -> u64 {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&self.0);
        key[16..].copy_from_slice(DOMAIN);
        let hash = blake3::keyed_hash(&key, name);
        let word = hash.as_bytes().first_chunk().expect("a BLAKE3 hash has 32 bytes");
        u64::from_be_bytes(*word) >> (TIE_BITS + 1)
    }

    /// The first of the cookies that `name` may have.
    pub fn cookie_base(&self, name: &[u8]) -> Cookie {
        Cookie::base(self.hash(name))
    }

    /// A cookie for `name` that is not taken in its directory; `None` if all 16 are, which does not
    /// happen by chance. A name that had a cookie in an earlier version should keep it instead.
    pub fn choose_cookie(&self, name: &[u8], taken: impl Fn(Cookie) -> bool) -> Option<Cookie> {
        first_free(self.cookie_base(name), taken)
    }
}

impl fmt::Debug for NameSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameSeed(secret)")
    }
}

fn first_free(base: Cookie, taken: impl Fn(Cookie) -> bool) -> Option<Cookie> {
    (base.0..=base.last_tie().0).map(Cookie).find(|cookie| !taken(*cookie))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn hash_is_frozen_and_keyed() {
        assert_eq!(NameSeed([1; 16]).hash(b"passwd"), 135_524_441_574_052_652);
        assert_ne!(NameSeed([1; 16]).hash(b"passwd"), NameSeed([2; 16]).hash(b"passwd"));
        assert!((0..1000u32).all(|i| NameSeed([3; 16]).hash(&i.to_be_bytes()) < 1 << 59));
    }

    #[test]
    fn cookies_fit_63_bits_and_spare_the_reserved() {
        assert_eq!(Cookie::base(0), Cookie(16));
        assert!(Cookie::base(0) >= FIRST_COOKIE);
        assert_eq!(Cookie::base((1 << 59) - 1).last_tie(), Cookie((1 << 63) - 1));
        assert_eq!(Cookie(0x127).group(), Cookie(0x120));
    }

    #[test]
    fn sixteen_names_may_share_a_hash() {
        let mut taken = BTreeSet::new();
        for _ in 0..16 {
            let cookie = first_free(Cookie::base(5), |c| taken.contains(&c)).unwrap();
            assert!(taken.insert(cookie));
        }
        assert_eq!(taken.iter().map(|c| c.0).collect::<Vec<_>>(), (80..96).collect::<Vec<_>>());
        assert_eq!(first_free(Cookie::base(5), |c| taken.contains(&c)), None);
    }
}

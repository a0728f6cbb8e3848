//! Where pages end: decided by content, so that equal entries make equal pages whatever the history.
//!
//! After an entry of `b` bytes a page of at least `min` bytes ends with probability
//! `b / (target - min)`, drawn from a hash of the entry's key. An entry that would bring the page
//! over `max` begins a new one. So pages are of about `target` bytes, and behind a changed entry the
//! cuts fall again where they fell before. The figures are part of the format: [`CUTTING_ID`] names
//! them in the header of every manifest.

use super::page::{MAX_PAGE, TreeKind};

/// Names the figures below. Other figures need another id, or nothing would be shared any more.
pub(super) const CUTTING_ID: u8 = 1;

#[derive(Clone, Copy)]
pub(super) struct Cutting {
    min: usize,
    target: usize,
    pub max: usize,
}

/// A chunk id is random, so a changed chunk changes a random leaf: small ones make that cheap.
const CHUNK_LEAF: Cutting = Cutting { min: 512, target: 1024, max: 8 * 1024 };
const LEAF: Cutting = Cutting { min: 1024, target: 4 * 1024, max: 32 * 1024 };
const INNER: Cutting = Cutting { min: 4 * 1024, target: 16 * 1024, max: MAX_PAGE };

impl Cutting {
    pub const fn of(kind: TreeKind, level: u8) -> Self {
        match (kind, level) {
            (TreeKind::Chunks, 0) => CHUNK_LEAF,
            (_, 0) => LEAF,
            _ => INNER,
        }
    }

    /// Whether a page that now has `page_len` bytes ends after the entry `key` of `cost` bytes.
    pub fn ends_after(self, page_len: usize, level: u8, key: &[u8], cost: usize) -> bool {
        let drawn = hash(level, key) >> 32;
        let limit = ((cost as u64) << 32) / (self.target - self.min) as u64;
        page_len >= self.min && drawn < limit
    }
}

/// A hash of the key, other on each level. Keys are whole 64-bit words.
fn hash(level: u8, key: &[u8]) -> u64 {
    let (words, _) = key.as_chunks::<8>();
    words.iter().fold(mix(u64::from(level) + 1), |h, word| mix(h ^ u64::from_be_bytes(*word)))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): each bit of the input moves half of the output.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_frozen() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_ne!(hash(0, &[7; 8]), hash(1, &[7; 8]));
        assert_ne!(hash(0, &[7; 16]), hash(0, &[7; 8]));
    }

    #[test]
    fn small_pages_never_end_and_probability_follows_size() {
        let cutting = Cutting::of(TreeKind::Inodes, 0);
        let ends = |len: usize, cost: usize| {
            (0..10_000u64).filter(|k| cutting.ends_after(len, 0, &k.to_be_bytes(), cost)).count()
        };
        assert_eq!(ends(1023, 200), 0);
        assert!((250..420).contains(&ends(2000, 100)), "{}", ends(2000, 100));
        assert_eq!(ends(2000, 4000), 10_000);
    }
}

//! Private data in memory: what was written or read lately, by its place in the log.
//!
//! Owns a cache with a byte budget. A piece comes in when it is written, so that what a client reads
//! back at once is not read from the disk, or when it was read and verified. It is copied: a slice would
//! keep all of the WRITE that it came in, of which nobody counts the rest.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::chunk::BlockKey;

/// What an entry costs beyond its payload.
const OVERHEAD: u64 = 96;

pub struct Blocks(Cache<BlockKey, Bytes, Weight>);

#[derive(Clone)]
struct Weight;

impl Weighter<BlockKey, Bytes> for Weight {
    fn weight(&self, _: &BlockKey, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + OVERHEAD
    }
}

impl Blocks {
    pub fn new(capacity_bytes: u64) -> Self {
        let expected = usize::try_from(capacity_bytes / 4096).unwrap_or(usize::MAX).max(1);
        Self(Cache::with_weighter(expected, capacity_bytes, Weight))
    }

    pub fn get(&self, key: BlockKey) -> Option<Bytes> {
        self.0.get(&key)
    }

    pub fn insert(&self, key: BlockKey, bytes: &[u8]) {
        self.0.insert(key, Bytes::copy_from_slice(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_part_of_a_large_write_costs_what_it_counts() {
        let (blocks, write) = (Blocks::new(1 << 20), Bytes::from(vec![1; 1 << 20]));
        blocks.insert((1, 36), &write.slice(77..78));
        assert_eq!(blocks.get((1, 36)).unwrap(), write.slice(77..78));
        assert!(write.is_unique(), "the cache keeps the whole write");
    }
}

//! A share of clones, such as ten of a hundred.
//!
//! Which clones are in it is decided by their ids alone: in the order of a hash of the id, the first N
//! hundredths, rounded up. So it is the same for every operation over the same clones, and a small share is a
//! part of every larger one.

use std::sync::Arc;

use super::record::{CloneRecord, ExportId};
use crate::error::{Error, Result};

/// From 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(u8);

impl Percent {
    pub fn new(percent: u8) -> Result<Self> {
        match percent {
            1..=100 => Ok(Self(percent)),
            _ => Err(Error::invalid(format!("{percent} percent")).remedy("choose from 1 to 100")),
        }
    }

    /// The clones of `all` that are in the share, in the order given.
    pub fn of(self, mut all: Vec<Arc<CloneRecord>>) -> Vec<Arc<CloneRecord>> {
        let mut places: Vec<_> = all.iter().map(|clone| place(clone.id)).collect();
        places.sort_unstable();
        let count = (places.len() * usize::from(self.0)).div_ceil(100);
        let Some(last) = count.checked_sub(1).map(|last| places[last]) else { return Vec::new() };
        all.retain(|clone| place(clone.id) <= last);
        all
    }
}

/// Where a clone stands: the first eight bytes of the BLAKE3 of its id (both little endian); no two at one place.
fn place(id: ExportId) -> (u64, ExportId) {
    let hash = blake3::hash(&id.0.to_le_bytes());
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    (u64::from_le_bytes(*first), id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::image::operation::tests::clones;

    fn share(percent: u8, of: u64) -> BTreeSet<u64> {
        Percent::new(percent).unwrap().of(clones(of)).iter().map(|clone| clone.id.0).collect()
    }

    #[test]
    fn a_share_is_a_part_of_every_larger_one() {
        for of in [1, 7, 100, 1000] {
            let mut smaller = BTreeSet::new();
            for percent in 1..=100 {
                let larger = share(percent, of);
                assert_eq!(larger.len() as u64, (of * u64::from(percent)).div_ceil(100), "{percent} % of {of}");
                assert!(smaller.is_subset(&larger), "{percent} % of {of}");
                smaller = larger;
            }
        }
        assert!(share(50, 0).is_empty());
        assert!(Percent::new(0).is_err() && Percent::new(101).is_err());
    }

    /// It is said in the documents, and somebody may count on it.
    #[test]
    fn who_is_in_a_share_never_changes() {
        assert_eq!(share(10, 50), BTreeSet::from([10, 18, 21, 37, 44]));
    }
}

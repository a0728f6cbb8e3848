//! Randomness: one seed, and of it one stream for each purpose and client, so that what one client draws
//! does not depend on when another one ran.

use rand::SeedableRng;
use rand::rngs::SmallRng;

pub type Dice = SmallRng;

/// What dice are for, besides clients, which have their index.
pub const RAMP: u64 = u64::MAX;
pub const WORKING_SET: u64 = u64::MAX - 1;

/// The dice for `purpose`.
pub fn of(seed: u64, purpose: u64) -> Dice {
    SmallRng::seed_from_u64(spread(seed ^ spread(purpose)))
}

/// A number whose every bit depends on every bit of `n` (the finaliser of SplitMix64).
pub fn spread(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

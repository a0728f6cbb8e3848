//! Log lines that a client can provoke, thinned out.

use std::sync::atomic::{AtomicU64, Ordering};

/// Lets the 1st, 2nd, 4th, 8th, ... occurrence of an event through, so that no client fills the log.
#[derive(Debug, Default)]
pub struct Thinned(AtomicU64);

impl Thinned {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Count an occurrence; how many there were, if this one is to be logged.
    pub fn count(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        count.is_power_of_two().then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_makes_few_lines() {
        let event = Thinned::new();
        let logged: Vec<u64> = (0..1000).filter_map(|_| event.count()).collect();
        assert_eq!(logged, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    }
}

//! Memory that all connections take together for what clients sent and have not got answered.
//!
//! What is taken from a [`Budget`] is a [`Charge`], which goes with the connection or the request. Who comes first
//! is served first: what is freed is set aside for him, piece by piece, also while nobody polls him. So one who asks
//! for little gets it after those before him and no later, and a connection whose client takes no replies keeps
//! back what it asked for, and not the others.
//!
//! Invariant: who holds a charge can finish without taking more of the same budget, so room comes back and
//! nobody waits in a circle. Input waits for slow requests to finish, and these for no input.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in units of so many.
const UNIT: usize = 1024;

#[derive(Debug)]
pub struct Budget {
    units: usize,
    free: Arc<Semaphore>,
}

impl Budget {
    /// A budget of `bytes`, one unit at least.
    pub fn new(bytes: usize) -> Arc<Self> {
        let units = bytes.div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Arc::new(Self { units, free: Arc::new(Semaphore::new(units)) })
    }

    /// Whether anything is free that nobody waits for.
    pub fn has_room(&self) -> bool {
        self.free.available_permits() > 0
    }

    /// What `bytes` cost. More than the whole budget is taken as all of it: alone, it may go.
    fn cost(&self, bytes: usize) -> u32 {
        bytes.div_ceil(UNIT).min(self.units) as u32
    }
}

/// What one connection or request takes from a budget, until it is dropped.
#[derive(Debug)]
pub struct Charge {
    _permit: OwnedSemaphorePermit,
}

impl Charge {
    /// Wait for so much.
    pub async fn in_turn(budget: &Budget, bytes: usize) -> Self {
        let permit = budget.free.clone().acquire_many_owned(budget.cost(bytes)).await;
        Self { _permit: permit.expect("nobody closes a budget") }
    }

    /// So much, if it is there and nobody waits.
    pub fn at_once(budget: &Budget, bytes: usize) -> Option<Self> {
        let permit = budget.free.clone().try_acquire_many_owned(budget.cost(bytes)).ok()?;
        Some(Self { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_budget_has_room_until_it_is_used_up_and_again_when_a_charge_goes() {
        let budget = Budget::new(100 * UNIT);
        let most = Charge::at_once(&budget, 99 * UNIT - 1).unwrap();
        assert!(budget.has_room() && Charge::at_once(&budget, 2 * UNIT).is_none());
        let rest = Charge::at_once(&budget, 1);
        assert!(rest.is_some() && !budget.has_room());
        drop(most);
        assert!(budget.has_room());
    }

    #[test]
    fn what_is_more_than_all_goes_alone() {
        let budget = Budget::new(1);
        let all = Charge::at_once(&budget, 1 << 20).unwrap();
        assert!(Charge::at_once(&budget, 1).is_none());
        drop(all);
        assert!(Charge::at_once(&budget, 1 << 20).is_some());
    }

    #[test]
    fn who_has_waited_longest_goes_first() {
        let budget = Budget::new(100 * UNIT);
        let mut charge = Charge::at_once(&budget, 100 * UNIT).unwrap();
        let mut waiting: Vec<_> = (0..4).map(|_| Charge::in_turn(&budget, 100 * UNIT).boxed()).collect();
        assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        for _ in 0..waiting.len() {
            drop(charge);
            // Whoever comes now is no faster.
            assert!(Charge::at_once(&budget, 1).is_none());
            assert!(waiting[1..].iter_mut().all(|waiting| waiting.now_or_never().is_none()));
            charge = waiting.remove(0).now_or_never().unwrap();
        }
    }

    #[test]
    fn one_who_is_not_polled_keeps_nobody_else() {
        let budget = Budget::new(100 * UNIT);
        let all = Charge::at_once(&budget, 100 * UNIT).unwrap();
        let mut stalled = Charge::in_turn(&budget, 10 * UNIT).boxed();
        let mut other = Charge::in_turn(&budget, 90 * UNIT).boxed();
        assert!((&mut stalled).now_or_never().is_none() && (&mut other).now_or_never().is_none());
        drop(all);
        assert!(other.now_or_never().is_some());
        drop(stalled);
        assert_eq!(budget.free.available_permits(), 100);
    }
}

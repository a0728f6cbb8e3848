//! Memory that all connections take together for what clients sent and have not got answered.
//!
//! A [`Budget`] is asked for room before something is taken from it, and what is taken then is not
//! measured against what is left: so it may be exceeded, by one thing for each worker at most, and nobody
//! waits for room that fits. What is taken is a [`Charge`], which goes with the connection or the request.
//!
//! Invariant: who holds a charge can finish without taking more of the same budget, so room comes back and
//! nobody waits in a circle. Input waits for slow requests to finish, and these for no input.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore};

#[derive(Debug)]
pub struct Budget {
    bytes: usize,
    used: AtomicUsize,
    freed: Notify,
    /// Whoever has waited longest looks for room, and the others wait for him.
    first: Semaphore,
}

impl Budget {
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { bytes, used: AtomicUsize::new(0), freed: Notify::new(), first: Semaphore::new(1) })
    }

    pub fn has_room(&self) -> bool {
        self.used.load(Ordering::Acquire) < self.bytes
    }

    /// Wait until there is room, in the order in which it is asked for; who did not have to wait may be faster all
    /// the same.
    pub async fn room(&self) {
        let _first = self.first.acquire().await;
        while !self.has_room() {
            self.freed.notified().await;
        }
    }
}

/// What one connection or request takes from a budget, in bytes.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    pub fn none(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Take so much when there is room.
    pub async fn in_turn(budget: &Arc<Budget>, bytes: usize) -> Self {
        budget.room().await;
        let mut charge = Self::none(budget);
        charge.set(bytes);
        charge
    }

    pub fn is_none(&self) -> bool {
        self.bytes == 0
    }

    /// Take so much from now on, whatever is left.
    pub fn set(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        let less = self.bytes.saturating_sub(bytes);
        self.bytes = bytes;
        if more > 0 {
            self.budget.used.fetch_add(more, Ordering::AcqRel);
        }
        if less > 0 {
            self.budget.used.fetch_sub(less, Ordering::AcqRel);
            self.budget.freed.notify_one();
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_budget_has_room_until_it_is_used_up_and_again_when_a_charge_goes() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (Charge::none(&budget), Charge::none(&budget));
        one.set(99);
        assert!(budget.has_room());
        other.set(1000);
        assert!(!budget.has_room());
        other.set(1);
        assert!(!budget.has_room());
        drop(one);
        assert!(budget.has_room());
    }

    #[tokio::test]
    async fn all_who_wait_go_on_when_there_is_room() {
        let budget = Budget::new(100);
        let mut charge = Charge::none(&budget);
        charge.set(100);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let budget = Arc::clone(&budget);
                tokio::spawn(async move { budget.room().await })
            })
            .collect();
        assert!(budget.room().now_or_never().is_none());
        charge.set(0);
        for waiting in waiting {
            waiting.await.unwrap();
        }
    }

    #[tokio::test]
    async fn who_has_waited_longest_goes_first() {
        let budget = Budget::new(100);
        let mut charge = Charge::none(&budget);
        charge.set(100);
        let mut waiting: Vec<_> = (0..4).map(|_| Charge::in_turn(&budget, 100).boxed()).collect();
        assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        for first in 0..waiting.len() {
            charge.set(0);
            let woken: Vec<_> = waiting.iter_mut().map(FutureExt::now_or_never).collect();
            assert!(woken[0].is_some() && woken[1..].iter().all(Option::is_none), "after {first} others");
            charge = woken.into_iter().flatten().next().unwrap();
            drop(waiting.remove(0));
        }
    }
}

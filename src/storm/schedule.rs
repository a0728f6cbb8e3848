//! Which step of a plan is due when.
//!
//! Closed loop: a step is due when what it waits for was answered and the client has thought. Open loop: a
//! step is due at its own time, whatever happened before; where it still has to wait for an answer, because it
//! needs what is in it, it goes out late and its latency counts from the time at which it was due. So a server
//! that stalls cannot make the load wait for it unseen (coordinated omission).
//!
//! Knows no clock: times are handed in, as durations since the client's start.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use super::plan::{Plan, StepId};

/// Who sets the pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The answers: think, ask, wait.
    Closed,
    /// The clock.
    Open,
}

/// How a plan's times become those of the storm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tempo {
    pub pace: Pace,
    /// Times are divided by this; infinite: no waiting at all.
    pub speed: f64,
}

impl Tempo {
    fn scale(self, time: Duration) -> Duration {
        if self.speed.is_finite() { time.div_f64(self.speed) } else { Duration::ZERO }
    }
}

/// A step that may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// When it can go out.
    pub at: Duration,
    pub step: StepId,
    /// When it should have gone out: latency counts from here.
    pub intended: Duration,
}

/// One client's way through a plan.
pub struct Schedule {
    plan: Arc<Plan>,
    tempo: Tempo,
    /// The client's time at which the plan begins.
    base: Duration,
    /// Of each step, how many answers it waits for.
    missing: Vec<u8>,
    due: BinaryHeap<Reverse<Due>>,
    /// Steps whose answer has not come.
    open: usize,
}

impl Schedule {
    pub fn new(plan: Arc<Plan>, tempo: Tempo, base: Duration) -> Self {
        let missing: Vec<u8> = plan.steps().map(|step| step.needs(tempo.pace)).collect();
        let open = missing.len();
        let mut this = Self { plan, tempo, base, missing, due: BinaryHeap::new(), open };
        let free: Vec<usize> = (0..open).filter(|&i| this.missing[i] == 0).collect();
        free.into_iter().for_each(|i| this.release(StepId::from_index(i), base));
        this
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Until the last step is due, by the clock.
    pub fn span(&self) -> Duration {
        self.tempo.scale(self.plan.span())
    }

    /// Whether every step was answered.
    pub fn is_done(&self) -> bool {
        self.open == 0
    }

    /// When the next step can go out.
    pub fn next_at(&self) -> Option<Duration> {
        self.due.peek().map(|Reverse(due)| due.at)
    }

    /// A step that can go out now.
    pub fn take(&mut self, now: Duration) -> Option<Due> {
        self.next_at().filter(|at| *at <= now)?;
        self.due.pop().map(|Reverse(due)| due)
    }

    /// A step that went out and has to go out again at `at`; its latency goes on.
    pub fn put_back(&mut self, due: Due, at: Duration) {
        self.due.push(Reverse(Due { at, ..due }));
    }

    /// The step was answered, or will never be.
    pub fn finish(&mut self, step: StepId, now: Duration) {
        self.open -= 1;
        let plan = self.plan.clone();
        for &next in plan.waiting_for(step) {
            if !plan.step(next).waits_for(step, self.tempo.pace) {
                continue;
            }
            let missing = &mut self.missing[next.index()];
            *missing -= 1;
            if *missing == 0 {
                self.release(next, now);
            }
        }
    }

    /// Steps that should have gone out by `now` and did not.
    pub fn late(&self, now: Duration) -> usize {
        match self.tempo.pace {
            Pace::Closed => self.due.iter().filter(|Reverse(due)| due.intended <= now).count(),
            Pace::Open => {
                let waits = |i: &usize| self.missing[*i] > 0;
                let blocked = (0..self.missing.len()).filter(waits);
                let blocked = blocked.filter(|i| self.own_time(StepId::from_index(*i)) <= now).count();
                blocked + self.due.iter().filter(|Reverse(due)| due.intended <= now).count()
            }
        }
    }

    /// When the clock alone makes it due.
    fn own_time(&self, step: StepId) -> Duration {
        self.base + self.tempo.scale(self.plan.step(step).at)
    }

    fn release(&mut self, step: StepId, now: Duration) {
        let due = match self.tempo.pace {
            Pace::Closed => {
                let at = now + self.tempo.scale(self.plan.step(step).think);
                Due { at, step, intended: at }
            }
            Pace::Open => {
                let intended = self.own_time(step);
                Due { at: intended.max(now), step, intended }
            }
        };
        self.due.push(Reverse(due));
    }
}

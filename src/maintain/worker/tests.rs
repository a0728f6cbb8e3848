//! Goal: workers have their turns, keep to the rate, survive failures and end when told. Method: workers
//! that do what a script says, and pauses that only move a clock.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Pace, Step, Worker, run, run_with};
use crate::env::{Clock, ManualClock};
use crate::error::{Error, Result};

const PACE: Pace = Pace { interval: Duration::from_secs(10), bytes_per_sec: 1000 };
const MORE: bool = true;
const DONE: bool = false;

/// Who had a turn, and when, in seconds.
type Turns = Arc<Mutex<Vec<(&'static str, u64)>>>;

/// Bytes and whether there is more, or a failure, for each step; idle afterwards.
type Script = Vec<Option<(u64, bool)>>;

struct Scripted {
    name: &'static str,
    turns: Turns,
    clock: Arc<ManualClock>,
    script: VecDeque<Option<(u64, bool)>>,
}

impl Worker for Scripted {
    fn name(&self) -> &'static str {
        self.name
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        self.turns.lock().push((self.name, self.clock.uptime().as_secs()));
        let step = match self.script.pop_front() {
            None => Ok(Step::IDLE),
            Some(None) => Err(Error::internal("as the script says")),
            Some(Some((bytes, more))) => Ok(Step { bytes, more }),
        };
        std::future::ready(step).boxed()
    }
}

/// Run scripts for so many rounds; answers the turns.
async fn play(scripts: Vec<(&'static str, Script)>, rounds: usize) -> Vec<(&'static str, u64)> {
    let (turns, clock) = (Turns::default(), Arc::new(ManualClock::at_secs(0)));
    let worker = |(name, script): (&'static str, Script)| {
        let (turns, clock) = (turns.clone(), clock.clone());
        Box::new(Scripted { name, turns, clock, script: script.into() }) as Box<dyn Worker>
    };
    let workers = scripts.into_iter().map(worker).collect();
    let (stop, stopped) = watch::channel(false);
    let begun = Mutex::new(0);
    let pause = |time| {
        clock.advance(time);
        *begun.lock() += usize::from(time == PACE.interval);
        if *begun.lock() > rounds {
            stop.send_replace(true);
        }
        tokio::task::yield_now()
    };
    run_with(workers, PACE, stopped, &pause).await;
    turns.lock().clone()
}

#[tokio::test]
async fn workers_run_in_turn_each_until_it_has_nothing_more() {
    let scripts = vec![("a", vec![Some((0, MORE)), Some((0, MORE)), Some((0, DONE))]), ("b", vec![]), ("c", vec![])];
    let turns = play(scripts, 2).await;
    assert_eq!(
        turns,
        [("a", 10), ("a", 10), ("a", 10), ("b", 10), ("c", 10), ("a", 20), ("b", 20), ("c", 20)],
        "and nothing begins after the stop"
    );
}

#[tokio::test]
async fn what_a_step_moves_is_paid_for_before_the_next() {
    let scripts = vec![("a", vec![Some((5000, MORE)), Some((2000, DONE))]), ("b", vec![Some((3000, DONE))])];
    let turns = play(scripts, 2).await;
    assert_eq!(turns, [("a", 10), ("a", 15), ("b", 17), ("a", 30), ("b", 30)]);
}

#[tokio::test]
async fn a_failure_ends_a_turn_and_nothing_else() {
    let scripts = vec![("a", vec![None, None, Some((0, MORE)), None]), ("b", vec![])];
    let turns = play(scripts, 4).await;
    let names: String = turns.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, "ababaabab");
}

/// A step that never ends.
struct Stuck;

impl Worker for Stuck {
    fn name(&self) -> &'static str {
        "stuck"
    }

    fn step(&mut self) -> BoxFuture<'_, Result<Step>> {
        pending().boxed()
    }
}

/// In a step, and in the pause between two rounds.
#[tokio::test]
async fn who_is_told_to_stop_does_so_wherever_it_is() {
    for interval in [Duration::ZERO, Duration::from_secs(100_000)] {
        let (stop, stopped) = watch::channel(false);
        let pace = Pace { interval, ..PACE };
        let running = tokio::spawn(run(vec![Box::new(Stuck)], pace, stopped));
        tokio::task::yield_now().await;
        assert!(!running.is_finished());
        stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
    }
}

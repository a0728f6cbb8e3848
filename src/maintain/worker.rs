//! Background work: one task that runs all workers in turn.
//!
//! Owns the order and the pace. Workers never run at once, so that none has to mind the others; each
//! step is short. What a step costs in data is followed by a pause as long as the configured rate asks
//! for, so that clients do not feel it.
//!
//! Failure story: a step that fails is told once and tried again in the next round; nothing depends on
//! it but space. A step is given up where it waits when the work is told to stop, so whatever must not be
//! done by half does not end with who waits for it.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::error::Result;

/// One kind of background work.
pub trait Worker: Send {
    fn name(&self) -> &'static str;
    /// Do a little.
    fn step(&mut self) -> BoxFuture<'_, Result<Step>>;
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of data that it read or wrote.
    pub bytes: u64,
    /// There is more to do at once.
    pub more: bool,
}

impl Step {
    pub const IDLE: Self = Self { bytes: 0, more: false };
}

/// How fast workers go.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two rounds in which there was nothing more to do.
    pub interval: Duration,
    /// Data that all workers may move, in bytes a second.
    pub bytes_per_sec: u64,
}

impl Pace {
    fn pause(&self, bytes: u64) -> Duration {
        Duration::from_millis(bytes.saturating_mul(1000) / self.bytes_per_sec.max(1))
    }
}

/// Run `workers` until `stop` changes.
pub async fn run(workers: Vec<Box<dyn Worker>>, pace: Pace, stop: watch::Receiver<bool>) {
    run_with(workers, pace, stop, &sleep).await;
}

/// [`run`], with pauses that `pause` makes.
async fn run_with<P: Future<Output = ()>>(
    mut workers: Vec<Box<dyn Worker>>,
    pace: Pace,
    mut stop: watch::Receiver<bool>,
    pause: &impl Fn(Duration) -> P,
) {
    let mut failing = vec![false; workers.len()];
    let rounds = async {
        loop {
            pause(pace.interval).await;
            for (worker, failing) in workers.iter_mut().zip(&mut failing) {
                until_idle(worker.as_mut(), &pace, failing, pause).await;
            }
        }
    };
    tokio::select! {
        biased;
        // The sender lives as long as the daemon.
        _ = stop.wait_for(|stop| *stop) => {}
        () = rounds => {}
    }
}

/// Steps of one worker, until it has nothing more to do at once.
async fn until_idle<P: Future<Output = ()>>(
    worker: &mut dyn Worker,
    pace: &Pace,
    failing: &mut bool,
    pause: &impl Fn(Duration) -> P,
) {
    loop {
        match worker.step().await {
            Ok(step) => {
                *failing = false;
                pause(pace.pause(step.bytes)).await;
                if !step.more {
                    return;
                }
            }
            Err(error) => {
                if !std::mem::replace(failing, true) {
                    tracing::warn!(worker = worker.name(), %error, "background work failed; it is tried again");
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! How many answers came, and waiting for so many.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Writers that get no answers for so long are stuck.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
pub struct Progress {
    answers: Mutex<u64>,
    changed: Condvar,
}

impl Progress {
    pub fn answered(&self) {
        *self.answers.lock().expect("no panic inside") += 1;
        self.changed.notify_all();
    }

    pub fn wait_for(&self, target: u64) {
        let answers = self.answers.lock().expect("no panic inside");
        let (answers, timeout) =
            self.changed.wait_timeout_while(answers, PATIENCE, |answers| *answers < target).expect("no panic inside");
        assert!(!timeout.timed_out(), "{} answers of {target} in {PATIENCE:?}", *answers);
    }
}

//! What CPU time a process of this machine has taken: `/proc/PID/stat`. A server's says what its bytes cost, the
//! generator's whether it was the slower of both.

use std::fs;
use std::time::Duration;

use crate::error::{Error, Result};

/// Linux reports CPU time to user space in this unit on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// A process, with all its threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuCounter {
    path: String,
}

impl CpuCounter {
    pub fn of_process(pid: u32) -> Self {
        Self { path: format!("/proc/{pid}/stat") }
    }

    pub fn of_this_process() -> Self {
        Self { path: "/proc/self/stat".to_owned() }
    }

    /// User and system time so far, in steps of 10 ms.
    pub fn time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(&self.path).map_err(|e| Error::io(&*self.path, e))?;
        time(&stat).ok_or_else(|| Error::internal(format!("{} is not as Linux writes it", self.path)))
    }
}

/// Words 14 and 15. The second is the program's name in parentheses, which may hold anything, spaces too.
fn time(stat: &str) -> Option<Duration> {
    let mut words = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(14 - 3);
    let mut ticks = || words.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 9 0 0 0 150 25 0 0 20 0 3 0 100 1 2";
        assert_eq!(time(stat), Some(Duration::from_millis(1750)));
        assert_eq!(time("42 (a"), None);
        assert!(CpuCounter::of_this_process().time().is_ok());
    }
}

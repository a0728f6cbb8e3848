//! Which threads give way to which, where there are fewer cores than work.

use rustix::process::{getpriority_process, setpriority_process};

/// What a thread is for, as a nice value (sched(7)). Those that answer requests keep that of the process: what can be
/// answered from memory does not wait behind work that takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Priority {
    /// Loads chunks that readers wait for. Of a core that a worker wants all of, too, such a thread gets a quarter.
    Load = 5,
    /// Imports.
    Import = 19,
}

impl Priority {
    /// Give the calling thread this priority for the rest of its life, if that is lower than what it has.
    pub fn take(self) {
        // On Linux a priority is that of the thread that calls, not of the process.
        let lowered = getpriority_process(None).and_then(|own| setpriority_process(None, own.max(self as i32)));
        if let Err(error) = lowered {
            tracing::debug!(%error, priority = ?self, "a thread does not give way");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_the_calling_thread_only() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let taken = std::thread::spawn(move || {
            Priority::Import.take();
            own()
        });
        assert_eq!(taken.join().unwrap(), Priority::Import as i32);
        assert_eq!(own(), before);
    }
}

//! Which threads give way to which, where there are fewer cores than work.

use rustix::process::setpriority_process;

/// What a thread is for, as a nice value (sched(7)). Those that answer requests have that of the process, 0: what can
/// be answered from memory does not wait behind work that takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Priority {
    /// Loads chunks that readers wait for. Sixteen such threads together get a third of a core that a worker wants, too.
    Load = 15,
    /// Imports.
    Import = 19,
}

impl Priority {
    /// Give the calling thread this priority for the rest of its life. Where the system refuses, it keeps what it has.
    pub fn take(self) {
        // On Linux a priority is that of the thread that calls, not of the process.
        if let Err(error) = setpriority_process(None, self as i32) {
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

//! Threads that load chunks: find, read, decompress, hash.
//!
//! Owns the processor time that loads take. They give way to the threads that answer requests, so what can be
//! answered from memory does not wait behind what has to be decompressed first. A load is one piece of work from its
//! look-up to its verified bytes: handing it from thread to thread would cost more than the disk does.
//!
//! Failure story: work that panics is told to whoever waits for it, and the thread goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::env::Priority;
use crate::error::{Error, ErrorKind, Result};

type Work = Box<dyn FnOnce() + Send>;

/// Threads to load chunks on. They end when this is dropped.
pub struct Loaders {
    // Bounded by those who wait: a turn to load and a read-ahead have one piece of work each.
    queue: Sender<Work>,
}

impl Loaders {
    pub fn start(threads: usize) -> Result<Self> {
        let (queue, work) = unbounded();
        for index in 0..threads {
            let work = work.clone();
            let started = thread::Builder::new().name(format!("load-{index}")).spawn(move || run(&work));
            started.map_err(|cause| Error::io(format!("cannot start loader {index}"), cause))?;
        }
        Ok(Self { queue })
    }

    /// Do `work`, which may block, in the caller's runtime. It is done even if nobody waits any more.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let runtime = Handle::current();
        let (tell, told) = oneshot::channel();
        let work = move || {
            let _entered = runtime.enter();
            // Nobody waits if the caller has gone.
            tell.send(work()).ok();
        };
        let interrupted = || Error::new(ErrorKind::Unavailable, "the chunk store was interrupted");
        self.queue.send(Box::new(work)).map_err(|_| interrupted())?;
        told.await.map_err(|_| interrupted())
    }
}

fn run(queue: &Receiver<Work>) {
    Priority::Load.take();
    for work in queue {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            tracing::error!("loading a chunk panicked: this is a bug, please report it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_the_thread_goes_on() {
        let loaders = Loaders::start(1).unwrap();
        let failed = loaders.run(|| panic!("as the test wants")).await;
        assert_eq!(failed.map(|()| 0).unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(loaders.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn they_give_way_to_those_that_answer() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let loaders = Loaders::start(1).unwrap();
        assert!(loaders.run(priority).await.unwrap() > priority());
    }
}

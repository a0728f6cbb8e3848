//! Threads that load chunks: find, read, decompress, hash.
//!
//! Owns the processor time that loads take. Many threads wait for the disk at a time; no more of them compute than
//! there are cores, and these give way to the threads that answer requests: so what can be answered from memory does
//! not wait behind what has to be decompressed first. A load is one piece of work from its look-up to its verified
//! bytes: handing it from thread to thread would cost more than the disk does.
//!
//! Failure story: work that panics is told to whoever waits for it, and the thread goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::env::Priority;
use crate::error::{Error, ErrorKind, Result};

type Work = Box<dyn FnOnce() + Send>;

/// Threads to load chunks on. They end when this is dropped.
pub struct Loaders {
    /// A turn to load and a read-ahead have one piece of work each, as has who joined a load that failed. `None`: closed.
    queue: Mutex<Option<Sender<Work>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// A token for each core.
    cores: (Sender<()>, Receiver<()>),
}

impl Loaders {
    pub fn start(threads: usize) -> Result<Self> {
        let (queue, work) = unbounded();
        let start = |index| {
            let work = work.clone();
            let started = thread::Builder::new().name(format!("load-{index}")).spawn(move || run(&work));
            started.map_err(|cause| Error::io(format!("cannot start loader {index}"), cause))
        };
        let threads = (0..threads).map(start).collect::<Result<_>>()?;
        let cores = bounded(thread::available_parallelism().map_or(1, usize::from));
        while cores.0.try_send(()).is_ok() {}
        Ok(Self { queue: Mutex::new(Some(queue)), threads: Mutex::new(threads), cores })
    }

    /// Do `work`, which may block, in the caller's runtime. It is done even if nobody waits any more.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let runtime = Handle::current();
        let (tell, told) = oneshot::channel();
        let work: Work = Box::new(move || {
            let _entered = runtime.enter();
            // Nobody waits if the caller has gone.
            tell.send(work()).ok();
        });
        // The lock is given back first: what is dropped here may have more to do.
        let queue = self.queue.lock().clone();
        match queue {
            Some(queue) => drop(queue.send(work)),
            None => drop(work),
        }
        told.await.map_err(|_| Error::new(ErrorKind::Unavailable, "the chunk store was interrupted"))
    }

    /// The part of a thread's work that keeps a core busy, when there is one for it.
    pub fn compute<T>(&self, work: impl FnOnce() -> T) -> T {
        let (give_back, take) = &self.cores;
        // Both ends are ours: it never fails.
        take.recv().ok();
        let _core = Core(give_back);
        work()
    }

    /// Wait for what is queued and being done; nothing more is taken in. Not to be called by work of theirs.
    pub fn close(&self) {
        drop(self.queue.lock().take());
        for thread in self.threads.lock().drain(..) {
            // It ends with the queue: work that panics does not end it.
            thread.join().ok();
        }
    }
}

/// Gives its token back, also when the work panics.
struct Core<'a>(&'a Sender<()>);

impl Drop for Core<'_> {
    fn drop(&mut self) {
        self.0.try_send(()).ok();
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

    #[test]
    fn a_panic_takes_no_core_along() {
        let loaders = Loaders::start(0).unwrap();
        for _ in 0..100 {
            catch_unwind(AssertUnwindSafe(|| loaders.compute(|| panic!("as the test wants")))).unwrap_err();
        }
        assert_eq!(loaders.compute(|| 7), 7);
        assert!(loaders.cores.1.is_full());
    }

    #[tokio::test]
    async fn they_give_way_to_those_that_answer() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let loaders = Loaders::start(1).unwrap();
        assert_eq!(loaders.run(priority).await.unwrap(), priority().max(Priority::Load as i32));
    }

    #[tokio::test]
    async fn what_was_begun_is_done_before_they_are_closed_and_nothing_after() {
        let loaders = Loaders::start(2).unwrap();
        let (began, begun) = oneshot::channel();
        let (go_on, gone_on) = std::sync::mpsc::channel();
        let work = loaders.run(move || {
            began.send(()).unwrap();
            gone_on.recv().unwrap();
            7
        });
        let close = async {
            begun.await.unwrap();
            go_on.send(()).unwrap();
            loaders.close();
        };
        assert_eq!(tokio::join!(work, close).0.unwrap(), 7);
        assert_eq!(loaders.run(|| 7).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

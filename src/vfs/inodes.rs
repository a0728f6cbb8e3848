//! Inode numbers for new objects.
//!
//! Numbers are granted by the catalog in ranges, durably, so none is ever given twice. A verb takes one
//! without waiting; when few are left, the next range is granted in the background, and only if none
//! are left does a verb wait for it.
//!
//! Failure story: numbers that a stop leaves unused are lost, and so are those of verbs that are run
//! again; there are 2^64. If the catalog grants none, verbs that need one fail with its error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::chunk::{Fetch, Step};
use crate::error::Result;
use crate::image::{Catalog, IdRange};
use crate::manifest::Ino;

/// Numbers granted at once.
const GRANT: u64 = 1 << 16;
/// Numbers left at which the next are asked for.
const LOW: u64 = GRANT / 4;

pub(super) struct Inodes {
    pool: Arc<Pool>,
    runtime: Handle,
}

struct Pool {
    catalog: Arc<Catalog>,
    granted: Mutex<Granted>,
    /// Held by who asks for a range.
    asking: tokio::sync::Mutex<()>,
    /// A task in the background is about to ask.
    ahead: AtomicBool,
}

/// The range that numbers are taken from, and the one after it.
#[derive(Default)]
struct Granted {
    first: Option<IdRange>,
    next: Option<IdRange>,
}

impl Granted {
    fn take(&mut self) -> Option<u64> {
        if let Some(id) = self.first.as_mut().and_then(Iterator::next) {
            return Some(id);
        }
        self.first = self.next.take();
        self.first.as_mut().and_then(Iterator::next)
    }

    fn left(&self) -> u64 {
        [&self.first, &self.next].into_iter().flatten().map(IdRange::left).sum()
    }
}

impl Inodes {
    /// Must be called on a tokio runtime, which then does the work in the background.
    pub fn new(catalog: Arc<Catalog>) -> Self {
        let pool =
            Pool { catalog, granted: Mutex::default(), asking: tokio::sync::Mutex::default(), ahead: false.into() };
        Self { pool: Arc::new(pool), runtime: Handle::current() }
    }

    /// A number that nobody has or will have.
    pub fn take(&self, fetch: &mut Fetch<'_>) -> Step<Ino> {
        let (taken, left) = {
            let mut granted = self.pool.granted.lock();
            (granted.take(), granted.left())
        };
        let Some(id) = taken else {
            let pool = self.pool.clone();
            return Err(fetch.wait_for(async move { pool.refill().await }));
        };
        if left < LOW && !self.pool.ahead.swap(true, Ordering::Relaxed) {
            self.refill_ahead();
        }
        Ok(Ino(id))
    }

    fn refill_ahead(&self) {
        let pool = self.pool.clone();
        self.runtime.spawn(async move {
            if let Err(error) = pool.refill().await {
                tracing::warn!(%error, "no inode numbers were granted ahead; trying again when they are needed");
            }
            pool.ahead.store(false, Ordering::Relaxed);
        });
    }
}

impl Pool {
    /// See that there are numbers.
    async fn refill(&self) -> Result<()> {
        let _asking = self.asking.lock().await;
        if self.granted.lock().left() >= LOW {
            return Ok(());
        }
        let range = self.catalog.id_range(GRANT).await?;
        let mut granted = self.granted.lock();
        let Granted { first, next } = &mut *granted;
        let place = if first.as_ref().is_none_or(|range| range.left() == 0) { first } else { next };
        *place = Some(range);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::chunk::MemoryChunks;
    use crate::env::Env;
    use crate::image::MemoryCatalogLog;

    /// Takers on several threads empty range after range: all get what they ask for, none twice.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_number_is_given_twice_and_nobody_is_left_without() {
        const EACH: usize = GRANT as usize;
        let catalog = Catalog::open(Arc::new(MemoryCatalogLog::new()), Env::real()).await.unwrap();
        let inodes = Arc::new(Inodes::new(catalog.clone()));
        let takers: Vec<_> = (0..3)
            .map(|_| {
                let inodes = inodes.clone();
                tokio::spawn(async move {
                    let chunks = MemoryChunks::new();
                    let mut taken = Vec::with_capacity(EACH);
                    while taken.len() < EACH {
                        taken.push(Fetch::new(&chunks).run(|fetch| inodes.take(fetch)).await.unwrap());
                    }
                    taken
                })
            })
            .collect();
        let mut all = HashSet::new();
        for taker in takers {
            for ino in taker.await.unwrap() {
                assert!(all.insert(ino), "{ino:?} twice");
            }
        }
        assert_eq!(all.len(), 3 * EACH);
        catalog.close().await.unwrap();
        let chunks = MemoryChunks::new();
        let mut fetch = Fetch::new(&chunks);
        let refused = loop {
            match inodes.take(&mut fetch) {
                Ok(_) => {}
                Err(_) => break fetch.fill().await,
            }
        };
        assert!(refused.is_err(), "a closed catalog grants none");
    }
}

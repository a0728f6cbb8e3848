//! The catalog: the state that everybody reads, and the one way to change it.
//!
//! Owns the published [`State`] behind an atomic pointer, the committer that turns closures into
//! change sets, and the identifiers. Readers never lock and never wait. A change is a closure over a
//! [`Draft`]: all closures that wait while one change set is being synced go into the next one
//! together (group commit), each on the state that the one before it left.
//!
//! Invariants: what is published is durable; a closure that fails leaves no trace; answers come
//! after the publication, so who got one reads his own change; revisions are published in order.
//!
//! Failure story: if the log refuses, the closures run again on the newer state; if its outcome is
//! unknown, it is asked again before anybody is answered; if it fails, the callers of that change set
//! get the error and the state stays.

mod commit;
mod draft;
#[cfg(test)]
mod tests;

pub use draft::Draft;

use std::ops::Range;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{mpsc, oneshot, watch};

use self::commit::{Committer, Message, Transaction};
use super::change::Change;
use super::log::{CatalogLog, Rev};
use super::record::StoreRecord;
use super::state::State;
use crate::env::{Env, Time};
use crate::error::{Error, ErrorKind, Result};

/// Closures that wait for the committer; more wait outside.
pub const MAX_WAITING: usize = 1024;
/// Largest range of identifiers in one grant.
pub const MAX_ID_RANGE: u64 = 1 << 32;

/// All images, versions and clones of a store.
pub struct Catalog {
    state: Arc<ArcSwap<State>>,
    env: Env,
    queue: mpsc::Sender<Message>,
    revisions: watch::Receiver<Rev>,
}

impl Catalog {
    /// Open the catalog on its log. A new log gets a store identity and a first handle key.
    ///
    /// Must be called on a tokio runtime, which then runs the committer until the catalog is dropped.
    pub async fn open(log: Arc<dyn CatalogLog>, env: Env) -> Result<Arc<Self>> {
        let state = Arc::new(ArcSwap::from_pointee(log.checkpoint().await?));
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let (published, revisions) = watch::channel(state.load().rev());
        tokio::spawn(Committer::new(log, state.clone(), published, env.clock.clone()).run(waiting));
        let catalog = Arc::new(Self { state, env, queue, revisions });
        if catalog.state().store().is_none() {
            catalog.create_store().await?;
        }
        Ok(catalog)
    }

    async fn create_store(&self) -> Result<()> {
        let (store_id, key) = (self.random(), self.random());
        self.transact("create the store", move |draft| {
            if draft.store().is_some() {
                return Ok(());
            }
            let store = StoreRecord { store_id, handle_keys: vec![(1, key)], created: draft.now() };
            draft.apply(Change::PutStore(store))
        })
        .await
    }

    /// The newest revision. It stays as it is for as long as the caller holds it.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// The newest revision for a moment: cheaper than [`state`](Self::state), not to be held.
    pub fn load(&self) -> Guard<Arc<State>> {
        self.state.load()
    }

    /// The newest revision, and when there is a newer one. Ends when the catalog is closed.
    pub fn revisions(&self) -> watch::Receiver<Rev> {
        self.revisions.clone()
    }

    /// Run `work` on a draft of the newest state and make its changes durable and visible, together
    /// with those of others that wait now. `label` names the change in errors.
    ///
    /// `work` runs again from the start if somebody else was first. It must not block, and must not
    /// wait for another transaction. An error drops its changes and goes to the caller.
    pub async fn transact<T: Send + 'static>(
        &self,
        label: &'static str,
        work: impl FnMut(&mut Draft) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (transaction, answer) = Transaction::job(label, work);
        self.queue.send(Message::Job(transaction)).await.map_err(|_| closed(label))?;
        answer.await.unwrap_or_else(|_| Err(closed(label)))
    }

    /// What `work` would answer, and make of a state; nothing comes of it.
    pub fn rehearse<T>(&self, state: &State, work: impl FnOnce(&mut Draft) -> Result<T>) -> Result<(T, State)> {
        let mut draft = Draft::new(state.clone(), 0..0, self.env.clock.clone());
        let answer = work(&mut draft)?;
        Ok((answer, draft.into_parts().0))
    }

    /// Identifiers for the caller alone, granted durably. `count` is bounded by [`MAX_ID_RANGE`].
    pub async fn id_range(&self, count: u64) -> Result<IdRange> {
        if !(1..=MAX_ID_RANGE).contains(&count) {
            return Err(Error::invalid(format!("a range of {count} identifiers")));
        }
        self.transact("grant identifiers", move |draft| draft.grant(count).map(IdRange)).await
    }

    /// Refuse further changes, finish those that wait, and save a checkpoint, so that the next
    /// opening has nothing to replay. Reading goes on.
    pub async fn close(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Close(reply)).await.map_err(|_| closed("close"))?;
        answer.await.unwrap_or_else(|_| Err(closed("close")))
    }

    /// Wall time, as its transactions see it.
    pub(super) fn now(&self) -> Time {
        self.env.clock.now()
    }

    /// Fresh random bytes.
    pub(super) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.env.rng.fill(&mut bytes);
        bytes
    }
}

fn closed(label: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("catalog is closed: {label}")).remedy("try again when the daemon runs")
}

/// Identifiers that nobody else has or will have. Those that are not taken are lost.
#[derive(Debug)]
pub struct IdRange(Range<u64>);

impl IdRange {
    /// How many are left.
    pub fn left(&self) -> u64 {
        self.0.end - self.0.start
    }
}

impl Iterator for IdRange {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0.next()
    }
}

//! Writing full packs in the background, a few at a time.

use std::error::Error as _;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::chunk::blob::SharedBlobs;
use crate::chunk::pack::{PackId, SealedPack, Totals};
use crate::error::{Error, ErrorKind, Result};

/// Packs of one session that are written at once. One keeps the disk busy while the next is filled.
pub const MAX_WRITES: usize = 2;

/// Writes the packs of one session. Clones write for the same session.
#[derive(Clone)]
pub struct PackWriter {
    state: Arc<State>,
    runtime: Handle,
}

struct State {
    blobs: SharedBlobs,
    permits: Arc<Semaphore>,
    packs: Mutex<Packs>,
    /// The first failure: nothing goes on after it.
    failed: OnceLock<Error>,
}

#[derive(Default)]
struct Packs {
    /// Everything that may exist under its name.
    submitted: Vec<PackId>,
    /// What is durable.
    written: Vec<(PackId, Totals)>,
}

impl PackWriter {
    pub fn new(blobs: SharedBlobs, runtime: Handle) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_WRITES));
        let state = State { blobs, permits, packs: Mutex::default(), failed: OnceLock::new() };
        Self { state: Arc::new(state), runtime }
    }

    /// The first failure, if there was one.
    pub fn check(&self) -> Result<()> {
        self.state.failed.get().map_or(Ok(()), |error| Err(again(error)))
    }

    /// Let nothing go on, because of `error`.
    pub fn fail(&self, error: &Error) {
        let _ = self.state.failed.set(again(error));
    }

    /// Begin to write a pack. Waits while `MAX_WRITES` are under way.
    pub async fn submit(&self, pack: SealedPack) -> Result<()> {
        self.check()?;
        let permit = self.state.permits.clone().acquire_owned().await.map_err(closed)?;
        self.start(pack, permit);
        Ok(())
    }

    /// [`submit`](Self::submit) from a thread that may block.
    pub fn submit_blocking(&self, pack: SealedPack) -> Result<()> {
        self.check()?;
        let permits = &self.state.permits;
        let permit = match permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.runtime.block_on(permits.clone().acquire_owned()).map_err(closed)?,
        };
        self.start(pack, permit);
        Ok(())
    }

    fn start(&self, pack: SealedPack, permit: OwnedSemaphorePermit) {
        let state = self.state.clone();
        state.packs.lock().submitted.push(pack.id);
        self.runtime.spawn(async move {
            match state.blobs.put(&pack.id.name(), pack.bytes).await {
                Ok(()) => state.packs.lock().written.push((pack.id, pack.totals)),
                Err(error) => {
                    let _ = state.failed.set(error);
                }
            }
            drop(permit);
        });
    }

    /// Wait for all packs to be durable, and name them.
    pub async fn finish(&self) -> Result<Vec<(PackId, Totals)>> {
        self.idle().await?;
        self.check()?;
        let packs = self.state.packs.lock();
        if packs.written.len() < packs.submitted.len() {
            // A write that neither succeeded nor failed: its task went down with the runtime.
            return Err(Error::new(ErrorKind::Unavailable, "the import was interrupted while it wrote packs"));
        }
        Ok(packs.written.clone())
    }

    /// Best effort: what stays goes at the next open.
    pub async fn remove_all(&self) {
        if self.idle().await.is_err() {
            return;
        }
        let submitted = std::mem::take(&mut self.state.packs.lock().submitted);
        for pack in submitted {
            if let Err(error) = self.state.blobs.delete(&pack.name()).await {
                tracing::warn!(%pack, %error, "a pack of an aborted import stays until the next start");
            }
        }
    }

    async fn idle(&self) -> Result<()> {
        self.state.permits.acquire_many(MAX_WRITES as u32).await.map(drop).map_err(closed)
    }
}

/// The same failure, for the next caller that it stops.
fn again(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.what());
    if let Some(cause) = error.source() {
        copy = copy.because(cause.to_string());
    }
    match error.remedy_text() {
        Some(remedy) => copy.remedy(remedy),
        None => copy,
    }
}

fn closed(e: AcquireError) -> Error {
    Error::internal("the writer of an import is closed").because(e)
}

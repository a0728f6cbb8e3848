//! Blobs in memory: the twin of [`LocalBlobs`](super::LocalBlobs), for tests of what stands on blobs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;

use super::{BlobStore, check_name, check_range, taken, unknown};
use crate::error::{Error, ErrorKind, Result};

/// An in-memory [`BlobStore`] that can fail and go bad. Clones are the same store.
#[derive(Clone, Default)]
pub struct MemoryBlobs {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Bytes>,
    /// Puts that still succeed.
    fail_after: Option<u64>,
}

impl MemoryBlobs {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next `n` puts succeed; all after them fail with `Io`.
    pub fn fail_puts_after(&self, n: u64) {
        self.state.lock().fail_after = Some(n);
    }

    /// Flip every bit of one byte. False if there is no such byte.
    pub fn corrupt(&self, name: &str, offset: usize) -> bool {
        let mut state = self.state.lock();
        let Some(bytes) = state.blobs.get_mut(name).filter(|bytes| offset < bytes.len()) else {
            return false;
        };
        let mut bad = bytes.to_vec();
        bad[offset] ^= 0xff;
        *bytes = bad.into();
        true
    }
}

impl State {
    fn put(&mut self, name: &str, bytes: Bytes) -> Result<()> {
        check_name(name)?;
        if self.blobs.contains_key(name) {
            return Err(taken(name));
        }
        match &mut self.fail_after {
            Some(0) => return Err(Error::new(ErrorKind::Io, format!("put of blob {name} failed as told"))),
            Some(left) => *left -= 1,
            None => {}
        }
        self.blobs.insert(name.to_owned(), bytes);
        Ok(())
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        check_name(name)?;
        let bytes = self.blobs.get(name).ok_or_else(|| unknown(name))?;
        let len = check_range(name, &range, bytes.len() as u64)?;
        // Inside the blob, so it fits.
        let start = range.start as usize;
        Ok(bytes.slice(start..start + len))
    }
}

impl BlobStore for MemoryBlobs {
    fn put(&self, name: &str, bytes: Bytes) -> BoxFuture<'static, Result<()>> {
        ready(self.state.lock().put(name, bytes)).boxed()
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> BoxFuture<'static, Result<Bytes>> {
        ready(self.state.lock().get_range(name, range)).boxed()
    }

    fn len(&self, name: &str) -> BoxFuture<'static, Result<Option<u64>>> {
        let len = || Ok(self.state.lock().blobs.get(name).map(|bytes| bytes.len() as u64));
        ready(check_name(name).and_then(|()| len())).boxed()
    }

    fn list(&self, prefix: &str) -> BoxFuture<'static, Result<Vec<String>>> {
        let state = self.state.lock();
        let names = state.blobs.range(prefix.to_owned()..).map(|(name, _)| name);
        ready(Ok(names.take_while(|name| name.starts_with(prefix)).cloned().collect())).boxed()
    }

    fn delete(&self, name: &str) -> BoxFuture<'static, Result<()>> {
        let removed = check_name(name).map(|()| self.state.lock().blobs.remove(name));
        ready(removed.map(|_| ())).boxed()
    }
}

//! Blobs: write-once named bytes. Packs are blobs; in a fleet they are objects in an S3 store.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::error::Result;

/// Write-once storage (`docs/architecture.md`). Names are `[a-z0-9/._-]+`, at most 200 bytes;
/// putting a name that is there is a bug and is answered `Exists`.
pub trait BlobStore: Send + Sync + 'static {
    /// Store `bytes` under `name`; durable, name included, when it returns `Ok`. After an error the
    /// name does not exist, also after a crash.
    fn put(&self, name: &str, bytes: Bytes) -> BoxFuture<'static, Result<()>>;
    /// The bytes in `range`; `NotFound` for an unknown name, `Invalid` for a range beyond the end.
    fn get_range(&self, name: &str, range: Range<u64>) -> BoxFuture<'static, Result<Bytes>>;
    /// Length of the blob, `None` for an unknown name.
    fn len(&self, name: &str) -> BoxFuture<'static, Result<Option<u64>>>;
    /// The names that start with `prefix`, sorted.
    fn list(&self, prefix: &str) -> BoxFuture<'static, Result<Vec<String>>>;
    /// Remove the name; no error if it is not there.
    fn delete(&self, name: &str) -> BoxFuture<'static, Result<()>>;
}

pub type SharedBlobs = Arc<dyn BlobStore>;

//! Blobs: write-once named bytes. Packs are blobs; in a fleet they are objects in an S3 store.
//!
//! Owns the [`BlobStore`] trait, its implementation on a [`Disk`](crate::env::Disk) and the in-memory
//! twin. A blob is there whole or not at all, whatever crashes; no blob ever changes.
//!
//! Failure story: a `put` that fails removes what it wrote and says why; the store goes on, because
//! no later blob depends on the bytes of an earlier one. What a crash leaves of unfinished puts is
//! under `tmp/` and goes when the store is opened again.

mod local;
mod memory;

pub use local::LocalBlobs;
pub use memory::MemoryBlobs;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use crate::error::{Error, Result};

/// Longest name, in bytes.
pub const MAX_NAME: usize = 200;

/// Largest range that one [`BlobStore::get_range`] returns, in bytes.
pub const MAX_RANGE: u64 = 64 << 20;

/// Write-once storage (`docs/architecture.md`). Names are `[a-z0-9/._-]+`, at most [`MAX_NAME`]
/// bytes; their parts between slashes are not empty, `.` or `..`; names under `tmp/` are reserved, and
/// no name is a directory of another. A name that breaks this is answered `Invalid`. Putting a name
/// that is there is a bug and is answered `Exists`.
pub trait BlobStore: Send + Sync + 'static {
    /// Store `bytes` under `name`; durable, name included, when it returns `Ok`. After an error the
    /// name does not exist, also after a crash.
    fn put(&self, name: &str, bytes: Bytes) -> BoxFuture<'static, Result<()>>;
    /// The bytes in `range`; `NotFound` for an unknown name, `Invalid` for a range beyond the
    /// end or longer than [`MAX_RANGE`].
    fn get_range(&self, name: &str, range: Range<u64>) -> BoxFuture<'static, Result<Bytes>>;
    /// [`get_range`](Self::get_range) on a thread that may block and has entered a runtime.
    fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        Handle::current().block_on(self.get_range(name, range))
    }
    /// Length of the blob, `None` for an unknown name.
    fn len(&self, name: &str) -> BoxFuture<'static, Result<Option<u64>>>;
    /// The names that start with `prefix`, sorted.
    fn list(&self, prefix: &str) -> BoxFuture<'static, Result<Vec<String>>>;
    /// Remove the name; no error if it is not there.
    fn delete(&self, name: &str) -> BoxFuture<'static, Result<()>>;
}

pub type SharedBlobs = Arc<dyn BlobStore>;

/// `Invalid` unless `name` is one that a blob may have.
fn check_name(name: &str) -> Result<()> {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/._-".contains(&b);
    let mut parts = name.split('/');
    let proper = name.len() <= MAX_NAME
        && name.bytes().all(known)
        && parts.all(|part| !matches!(part, "" | "." | ".."))
        && name.split('/').next() != Some(TMP);
    if proper {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_NAME).collect();
    Err(Error::invalid(format!("{shown:?} is not a name for a blob")))
}

/// Directory of unfinished puts.
const TMP: &str = "tmp";

/// The length of `range`, if a blob of `len` bytes has it.
fn check_range(name: &str, range: &Range<u64>, len: u64) -> Result<usize> {
    let Range { start, end } = *range;
    if start > end || end > len {
        return Err(Error::invalid(format!("bytes {start}..{end} of blob {name}, which has {len}")));
    }
    let wanted = end - start;
    if wanted > MAX_RANGE {
        return Err(Error::invalid(format!("{wanted} bytes of blob {name} in one read: the limit is {MAX_RANGE}")));
    }
    usize::try_from(wanted).map_err(|e| Error::invalid(format!("blob {name}")).because(e))
}

fn unknown(name: &str) -> Error {
    Error::not_found(format!("blob {name}"))
}

fn taken(name: &str) -> Error {
    Error::exists(format!("blob {name} is there already"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar() {
        let longest = "a".repeat(MAX_NAME);
        for good in ["a", "packs/00/0f.pack", "a..b", "tmpfile", "x/tmp", "-_.", &longest] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(MAX_NAME + 1);
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "A", "a b", "a\0", "tmp", "tmp/1", &too_long] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_are_checked_before_memory_is_taken() {
        assert_eq!(check_range("b", &(3..7), 7).unwrap(), 4);
        assert_eq!(check_range("b", &(7..7), 7).unwrap(), 0);
        assert!(check_range("b", &(3..8), 7).is_err());
        assert!(check_range("b", &Range { start: 5, end: 3 }, 7).is_err());
        assert!(check_range("b", &(0..MAX_RANGE), u64::MAX).is_ok());
        assert!(check_range("b", &(0..MAX_RANGE + 1), u64::MAX).is_err());
    }
}

//! Bringing what will be read into the cache, ahead of time.
//!
//! Owns the way from a version, or from the parts of its files that a trace names, to chunks in memory: pages of
//! the manifest on the way, then data in the order in which packs have it, some at a time. What the trace names
//! and the version does not have is counted.
//!
//! Invariants: never more than the cache's budget is loaded, and what is left out is told; what was loaded is
//! looked at once, so that the cache does not take it for a scan. Names and ranges are bounded by the request.
//!
//! Failure story: the first chunk that cannot be read ends it, by name; what is in memory stays there. Dropping
//! the future cancels it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::chunk::{ChunkCache, ChunkId, ChunkSource, ChunkStore, Fetch, Step};
use crate::error::{Error, Result};
use crate::manifest::{Content, Ino, Inode, Manifest, ManifestId};

/// Loads under way at a time.
const LOADS: usize = 16;
/// Files that are looked for at a time.
const LOOKUPS: usize = 16;
/// Bytes of a file whose extents are asked for at once.
const STRIDE: u64 = 64 << 20;
/// Paths that are told by name of those that the version does not have.
const MAX_TOLD: usize = 16;

/// Parts of one file, or with no parts an object that is only looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// From the root, without a leading slash.
    pub path: Vec<u8>,
    pub ranges: Vec<Range<u64>>,
}

/// What is done so far, for those who watch.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes to be in memory at the end, and those that are.
    pub bytes_wanted: AtomicU64,
    pub bytes_done: AtomicU64,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warmed {
    /// Objects that were wanted, and those of them that the version does not have.
    pub objects: u64,
    pub objects_missing: u64,
    /// Some of these.
    pub missing: Vec<Vec<u8>>,
    /// Chunks of data that are wanted and their bytes.
    pub chunks: u64,
    pub bytes: u64,
    /// What of these had to be read from disk.
    pub chunks_loaded: u64,
    pub bytes_loaded: u64,
    /// What did not fit into the cache.
    pub bytes_left_out: u64,
    /// What is in memory at the end: less than was wanted if others ask for more than the cache holds.
    pub bytes_cached: u64,
}

/// Load what `wanted` names of a version, or with `None` all of it.
pub async fn warm(
    chunks: &Arc<ChunkStore>,
    version: &ManifestId,
    wanted: Option<Vec<Wanted>>,
    progress: &Progress,
) -> Result<Warmed> {
    let mut warmed = Warmed::default();
    let manifest = Fetch::new(&**chunks).run(|fetch| Manifest::open(fetch, version)).await?;
    let ids = match wanted {
        Some(wanted) => named(chunks, &manifest, wanted, &mut warmed).await?,
        None => all(chunks, &manifest, &mut warmed).await?,
    };
    let store = chunks.clone();
    let order = tokio::task::spawn_blocking(move || store.in_disk_order(ids)).await;
    let order = order.map_err(|e| Error::internal("looking for chunks").because(e))??;
    let fitting = fit(chunks.cache(), order, &mut warmed);
    progress.bytes_wanted.store(warmed.bytes - warmed.bytes_left_out, Ordering::Relaxed);
    load(chunks, &fitting, &mut warmed, progress).await?;
    let cached = fitting.iter().filter(|(id, _)| chunks.cached(id).is_some());
    warmed.bytes_cached = cached.map(|(_, len)| u64::from(*len)).sum();
    Ok(warmed)
}

/// The chunks of what is named.
async fn named(
    chunks: &ChunkStore,
    manifest: &Manifest,
    wanted: Vec<Wanted>,
    warmed: &mut Warmed,
) -> Result<Vec<ChunkId>> {
    warmed.objects = wanted.len() as u64;
    let look = |wanted: Wanted| async move {
        let found = chunks_of(chunks, manifest, &wanted).await?;
        Ok::<_, Error>((wanted.path, found))
    };
    let mut looks = stream::iter(wanted).map(look).buffered(LOOKUPS);
    let mut ids = Vec::new();
    while let Some((path, found)) = looks.try_next().await? {
        match found {
            Some(found) => ids.extend(found),
            None => {
                warmed.objects_missing += 1;
                if warmed.missing.len() < MAX_TOLD {
                    warmed.missing.push(path);
                }
            }
        }
    }
    Ok(ids)
}

/// The chunks of an object's parts; `None` if the version has no object there.
async fn chunks_of(chunks: &ChunkStore, manifest: &Manifest, wanted: &Wanted) -> Result<Option<Vec<ChunkId>>> {
    let mut fetch = Fetch::new(chunks);
    let Some(inode) = fetch.run(|fetch| find(fetch, manifest, &wanted.path)).await? else { return Ok(None) };
    let mut ids = Vec::new();
    for range in &wanted.ranges {
        let end = range.end.min(inode.size);
        let mut at = range.start;
        while at < end {
            let stride = at..end.min(at.saturating_add(STRIDE));
            at = stride.end;
            fetch.release();
            let extents = fetch.run(|fetch| manifest.extents(fetch, &inode.content, stride.clone())).await?;
            ids.extend(extents.iter().map(|extent| extent.chunk));
        }
    }
    Ok(Some(ids))
}

/// The object at `path`.
fn find(fetch: &mut Fetch<'_>, manifest: &Manifest, path: &[u8]) -> Step<Option<Arc<Inode>>> {
    let mut at = Ino::ROOT;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let Some(entry) = manifest.lookup(fetch, at, name)? else { return Ok(None) };
        at = entry.ino;
    }
    manifest.inode(fetch, at)
}

/// The chunks of a whole version. All pages of the manifest are loaded on the way.
async fn all(chunks: &ChunkStore, manifest: &Manifest, warmed: &mut Warmed) -> Result<Vec<ChunkId>> {
    let (mut ids, mut large) = (Vec::new(), Vec::new());
    let mut visit = |_, inode: Inode| {
        warmed.objects += 1;
        match &inode.content {
            Content::Inline(extents) => ids.extend(extents.iter().map(|extent| extent.chunk)),
            Content::Tree(_) => large.push(inode),
            Content::None | Content::Symlink(_) => {}
        }
        Ok(std::ops::ControlFlow::Continue(()))
    };
    manifest.for_each_inode(chunks, &mut visit).await?;
    manifest.for_each_entry(chunks, &mut |_, _| Ok(std::ops::ControlFlow::Continue(()))).await?;
    for inode in large {
        let mut visit = |extent: crate::manifest::Extent| {
            ids.push(extent.chunk);
            Ok(std::ops::ControlFlow::Continue(()))
        };
        manifest.for_each_extent(chunks, &inode, &mut visit).await?;
    }
    Ok(ids)
}

/// Those chunks, from the first, that the cache can hold together.
fn fit(cache: &ChunkCache, order: Vec<(ChunkId, u32)>, warmed: &mut Warmed) -> Vec<(ChunkId, u32)> {
    let mut room = cache.stats().capacity_bytes;
    let mut fitting = Vec::with_capacity(order.len());
    for (id, len) in order {
        warmed.chunks += 1;
        warmed.bytes += u64::from(len);
        // Behind the first that does not fit, none is tried: the disk goes forward to one place.
        match room.checked_sub(ChunkCache::cost(len)) {
            Some(left) if warmed.bytes_left_out == 0 => {
                room = left;
                fitting.push((id, len));
            }
            _ => warmed.bytes_left_out += u64::from(len),
        }
    }
    fitting
}

async fn load(chunks: &ChunkStore, fitting: &[(ChunkId, u32)], warmed: &mut Warmed, progress: &Progress) -> Result<()> {
    let one = |&(id, len): &(ChunkId, u32)| async move {
        let was_here = chunks.cached(&id).is_some();
        if !was_here {
            chunks.load(id).await?;
        }
        // Who is looked at again is no scan.
        chunks.cached(&id);
        Ok::<_, Error>((was_here, len))
    };
    let mut loads = stream::iter(fitting).map(one).buffered(LOADS);
    while let Some((was_here, len)) = loads.try_next().await? {
        progress.bytes_done.fetch_add(u64::from(len), Ordering::Relaxed);
        if !was_here {
            warmed.chunks_loaded += 1;
            warmed.bytes_loaded += u64::from(len);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loading_stops_at_the_budget_and_says_what_is_left_out() {
        let order: Vec<_> = (0..4u8).map(|n| (ChunkId::of(&[n]), 1000 + u32::from(n))).collect();
        let fits = |capacity| {
            let mut warmed = Warmed::default();
            let fitting = fit(&ChunkCache::new(capacity), order.clone(), &mut warmed);
            assert_eq!((warmed.chunks, warmed.bytes), (4, 4006));
            (fitting.len(), warmed.bytes_left_out)
        };
        let two = ChunkCache::cost(1000) + ChunkCache::cost(1001);
        assert_eq!(fits(1 << 20), (4, 0));
        assert_eq!(fits(two), (2, 2005));
        assert_eq!(fits(two - 1), (1, 3006));
        assert_eq!(fits(0), (0, 4006));
    }
}

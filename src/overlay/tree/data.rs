//! Reading file bytes: fragments of each layer, what lies below in their holes, zeros for the rest.

use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Slices, Tree};
use crate::chunk::{ChunkId, Fetch, Step, Stop};
use crate::error::Error;
use crate::manifest::{Content, Ino};
use crate::overlay::Node;
use crate::overlay::bucket::{BUCKET, Bucket, Source};
use crate::overlay::keys::Key;
use crate::overlay::memtable::Version;
use crate::overlay::node::Level;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Where a run of file bytes is.
#[derive(Clone, Copy)]
enum Place {
    Zeros,
    /// Bytes of a fragment, from `skip` on.
    Private(Source, u32),
    /// Bytes of a chunk of `len` bytes, from `skip` on.
    Image {
        chunk: ChunkId,
        len: u32,
        skip: u32,
    },
}

/// Where the bytes of a range of a file come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// They are what the image has there under the same inode number.
    Image,
    /// Nowhere: all of it is a hole.
    Hole,
    Private,
}

type Runs = SmallVec<[(u64, Place); 8]>;

impl Tree<'_> {
    /// The bytes `start..end` of a regular file; `end` must not be beyond its size.
    pub fn read(&self, fetch: &mut Fetch<'_>, ino: Ino, node: &Node, start: u64, end: u64) -> Step<Slices> {
        let mut runs = Runs::new();
        self.runs(fetch, ino, node, start..end, &mut runs)?;
        let mut slices = Slices::new();
        // Note every missing chunk and piece before stopping, so that they load together.
        let mut missing = false;
        for (len, place) in runs {
            match self.slice(fetch, len, place, &mut slices) {
                Ok(()) => {}
                Err(Stop::Missing) => missing = true,
                Err(failed) => return Err(failed),
            }
        }
        if missing { Err(Stop::Missing) } else { Ok(slices) }
    }

    /// Where the bytes of `range` come from; it must not go beyond the file's size.
    pub fn origin(&self, fetch: &mut Fetch<'_>, ino: Ino, node: &Node, range: Range<u64>) -> Step<Origin> {
        if self.shows_image(fetch, ino, node, &range)? {
            return Ok(Origin::Image);
        }
        let mut runs = Runs::new();
        self.runs(fetch, ino, node, range, &mut runs)?;
        let hole = |(_, place): &(u64, Place)| matches!(place, Place::Zeros | Place::Private(Source::Zero, _));
        Ok(if runs.iter().all(hole) { Origin::Hole } else { Origin::Private })
    }

    /// Whether no layer has anything of a range, and none cut it off.
    fn shows_image(&self, fetch: &mut Fetch<'_>, ino: Ino, node: &Node, range: &Range<u64>) -> Step<bool> {
        let level = match node.level {
            _ if node.base.is_some() => return Ok(false),
            Level::Image => return Ok(true),
            Level::New => return Ok(false),
            Level::Layer(level) => level,
        };
        if range.end > node.below || (node.own > 0 && !self.buckets(fetch, level, ino, range)?.is_empty()) {
            return Ok(false);
        }
        let below = self.node_below(fetch, level + 1, ino)?;
        below.map_or(Ok(false), |node| self.shows_image(fetch, ino, &node, range))
    }

    fn slice(&self, fetch: &mut Fetch<'_>, len: u64, place: Place, out: &mut Slices) -> Step<()> {
        let (bytes, skip) = match place {
            Place::Zeros | Place::Private(Source::Zero, _) => {
                push_zeros(out, len);
                return Ok(());
            }
            Place::Image { chunk, len, skip } => (whole(chunk, fetch.get(&chunk)?, len)?, skip),
            Place::Private(Source::Chunk(chunk), skip) => (fetch.get(&chunk)?, skip),
            Place::Private(Source::Log { segment, offset, len }, skip) => {
                (self.store()?.block(fetch, segment, offset, len)?, skip)
            }
            Place::Private(Source::Own { index, .. }, skip) => (self.staged.piece(index)?, skip),
        };
        let end = skip as usize + len as usize;
        if end > bytes.len() {
            return Err(Error::corrupt(format!("private data has {} bytes where {end} are wanted", bytes.len())).into());
        }
        out.push(bytes.slice(skip as usize..end));
        Ok(())
    }

    /// Where the bytes of `range` are, run by run.
    fn runs(&self, fetch: &mut Fetch<'_>, ino: Ino, node: &Node, range: Range<u64>, out: &mut Runs) -> Step<()> {
        let level = match node.level {
            Level::Image => return self.image_runs(fetch, node, range, out),
            Level::New => 0,
            Level::Layer(level) => level,
        };
        let mut below = Below { level, ino, node, found: None };
        let mut at = range.start;
        if node.own > 0 {
            for (bucket, fragments) in self.buckets(fetch, level, ino, &range)? {
                let base = bucket * BUCKET;
                let (from, to) = (range.start.saturating_sub(base), (range.end - base).min(BUCKET));
                for part in fragments.fragments.iter().filter_map(|f| f.part(from as u32, to as u32)) {
                    let start = base + u64::from(part.start);
                    self.hole(fetch, &mut below, at..start, out)?;
                    out.push((u64::from(part.len), Place::Private(part.source, part.skip)));
                    at = start + u64::from(part.len);
                }
            }
        }
        self.hole(fetch, &mut below, at..range.end, out)
    }

    /// What shows through a hole of a layer's data.
    fn hole(&self, fetch: &mut Fetch<'_>, below: &mut Below<'_>, range: Range<u64>, out: &mut Runs) -> Step<()> {
        let seen = below.node.below.clamp(range.start, range.end);
        let mut end = range.start;
        if seen > range.start {
            if below.found.is_none() {
                below.found = Some(self.base_below(fetch, below.level, below.ino, below.node.base)?);
            }
            if let Some(Some(node)) = &below.found {
                end = node.size.clamp(range.start, seen);
                if end > range.start {
                    self.runs(fetch, below.ino, node, range.start..end, out)?;
                }
            }
        }
        if range.end > end {
            out.push((range.end - end, Place::Zeros));
        }
        Ok(())
    }

    fn image_runs(&self, fetch: &mut Fetch<'_>, node: &Node, range: Range<u64>, out: &mut Runs) -> Step<()> {
        let mut at = range.start;
        let content = node.image.as_ref().map_or(&Content::None, |image| &image.content);
        for extent in self.manifest.extents(fetch, content, range.clone())? {
            if extent.offset > at {
                out.push((extent.offset - at, Place::Zeros));
                at = extent.offset;
            }
            let until = range.end.min(extent.offset + u64::from(extent.len));
            let skip = (at - extent.offset) as u32;
            out.push((until - at, Place::Image { chunk: extent.chunk, len: extent.len, skip }));
            at = until;
        }
        if range.end > at {
            out.push((range.end - at, Place::Zeros));
        }
        Ok(())
    }

    /// The buckets of layer `level` that `range` touches, in order.
    fn buckets(
        &self,
        fetch: &mut Fetch<'_>,
        level: usize,
        ino: Ino,
        range: &Range<u64>,
    ) -> Step<SmallVec<[(u64, Bucket); 2]>> {
        let (first, last) = (range.start / BUCKET, range.end.saturating_sub(1) / BUCKET);
        let mut buckets = SmallVec::new();
        if range.is_empty() {
            return Ok(buckets);
        }
        if first == last {
            let version = self.version(fetch, level, ino, &Key::bucket(ino, first))?;
            buckets.extend(decode(ino, first, version)?.map(|bucket| (first, bucket)));
            return Ok(buckets);
        }
        let mut from = first;
        loop {
            let keys = Key::bucket(ino, from)..=Key::bucket(ino, last);
            let (rows, end) = self.page(fetch, level, ino, &keys)?;
            for (key, version) in rows {
                buckets.extend(decode(ino, key.b, Some(version))?.map(|bucket| (key.b, bucket)));
            }
            match end {
                Some(end) if end.b < last => from = end.b + 1,
                _ => return Ok(buckets),
            }
        }
    }
}

/// The object in the layers below, looked up when a hole first needs it.
struct Below<'a> {
    level: usize,
    ino: Ino,
    node: &'a Node,
    found: Option<Option<Node>>,
}

pub(super) fn decode(ino: Ino, bucket: u64, version: Option<Version>) -> Result<Option<Bucket>, Error> {
    let Some(bytes) = version.and_then(|version| version.value) else { return Ok(None) };
    let damaged = || Error::corrupt(format!("bucket {bucket} of inode {} is damaged", ino.0));
    Bucket::decode(&bytes).ok_or_else(damaged).map(Some)
}

/// A chunk, if it is as long as the manifest says.
fn whole(chunk: ChunkId, bytes: Bytes, len: u32) -> Result<Bytes, Error> {
    if bytes.len() == len as usize {
        return Ok(bytes);
    }
    Err(Error::corrupt(format!("chunk {chunk} has {} bytes where the manifest says {len}", bytes.len())))
}

fn push_zeros(out: &mut Slices, mut len: u64) {
    while len > 0 {
        let run = len.min(ZEROS.len() as u64);
        out.push(Bytes::from_static(&ZEROS[..run as usize]));
        len -= run;
    }
}

//! Buckets: where the private bytes of 64 KiB of a file are.
//!
//! Owns the list of fragments of one bucket, how a write and a cut change it, and its bytes. Fixed
//! buckets make every version of every extent one value under one key: a write of 4 KiB into a large
//! file reads and replaces one small value, however the file was written before.
//!
//! Invariant: fragments are sorted, do not overlap, and lie within the bucket.

use bytes::{Buf, BufMut, Bytes};
use smallvec::SmallVec;

use super::log::{MAX_PIECE, SegmentId};
use crate::chunk::ChunkId;

/// Bytes of a file that one bucket covers.
pub const BUCKET: u64 = 64 * 1024;
/// Fragments above which a bucket is written anew, in one piece.
pub const MAX_FRAGMENTS: usize = 48;

const _: () = assert!(BUCKET as usize == MAX_PIECE);
/// The version of the encoding.
const FORMAT: u8 = 1;

/// Where the bytes of a fragment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In piece `index` of the record that this bucket stands in.
    Own { index: u32, len: u32 },
    /// In the log: a piece of `len` bytes.
    Log { segment: SegmentId, offset: u32, len: u32 },
    /// In the chunk store.
    Chunk(ChunkId),
    /// They are zeros, and nothing below shows through.
    Zero,
}

/// A run of private bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Offset in the bucket.
    pub start: u32,
    pub len: u32,
    /// Where it begins in the piece or chunk.
    pub skip: u32,
    pub source: Source,
}

impl Fragment {
    pub const fn end(&self) -> u32 {
        self.start + self.len
    }

    /// Bytes of storage that it refers to.
    pub const fn stored(&self) -> u64 {
        match self.source {
            Source::Zero => 0,
            _ => self.len as u64,
        }
    }

    /// The part of it within `from..to`, if any.
    pub fn part(&self, from: u32, to: u32) -> Option<Self> {
        let (start, end) = (self.start.max(from), self.end().min(to));
        (start < end).then(|| Self { start, len: end - start, skip: self.skip + (start - self.start), ..*self })
    }
}

/// The fragments of one bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    pub fragments: SmallVec<[Fragment; 4]>,
}

impl Bucket {
    /// Put `new` over what is there.
    pub fn write(&mut self, new: Fragment) {
        let mut fragments = SmallVec::with_capacity(self.fragments.len() + 2);
        fragments.extend(self.fragments.iter().filter_map(|old| old.part(0, new.start)));
        fragments.push(new);
        fragments.extend(self.fragments.iter().filter_map(|old| old.part(new.end(), u32::MAX)));
        self.fragments = fragments;
    }

    /// Forget everything from `at` on.
    pub fn cut(&mut self, at: u32) {
        self.fragments = self.fragments.iter().filter_map(|old| old.part(0, at)).collect();
    }

    /// Forget what lies from offset `at` of the file on; this is its bucket `number`.
    pub fn cut_at(&mut self, number: u64, at: u64) {
        self.cut(at.saturating_sub(number * BUCKET).min(BUCKET) as u32);
    }

    /// Bytes of the file that it has.
    pub fn covered(&self) -> u64 {
        self.fragments.iter().map(|fragment| u64::from(fragment.len)).sum()
    }

    /// Bytes of storage that it refers to.
    pub fn stored(&self) -> u64 {
        self.fragments.iter().map(Fragment::stored).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// With the pieces of its record where the log put them.
    pub fn resolve(&mut self, segment: SegmentId, offset: impl Fn(u32) -> Option<u32>) -> Option<()> {
        for fragment in &mut self.fragments {
            if let Source::Own { index, len } = fragment.source {
                fragment.source = Source::Log { segment, offset: offset(index)?, len };
            }
        }
        Some(())
    }

    /// Version (1), then for each fragment start (2), length - 1 (2), skip (4), tag (1) and source.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(1 + self.fragments.len() * 24);
        out.push(FORMAT);
        for fragment in &self.fragments {
            out.put_u16(fragment.start as u16);
            out.put_u16((fragment.len - 1) as u16);
            out.put_u32(fragment.skip);
            match fragment.source {
                Source::Own { index, len } => {
                    out.put_u8(0);
                    out.put_u32(index);
                    out.put_u32(len);
                }
                Source::Log { segment, offset, len } => {
                    out.put_u8(1);
                    out.put_u32(segment.0);
                    out.put_u32(offset);
                    out.put_u32(len);
                }
                Source::Chunk(id) => {
                    out.put_u8(2);
                    out.extend_from_slice(id.as_bytes());
                }
                Source::Zero => out.put_u8(3),
            }
        }
        out.into()
    }

    /// `None` for bytes that are no bucket.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&FORMAT, mut from) = bytes.split_first()? else { return None };
        let mut bucket = Self::default();
        let mut end = 0;
        while !from.is_empty() {
            let fragment = decode_fragment(&mut from)?;
            if fragment.start < end || u64::from(fragment.end()) > BUCKET {
                return None;
            }
            end = fragment.end();
            bucket.fragments.push(fragment);
        }
        Some(bucket)
    }
}

fn decode_fragment(from: &mut &[u8]) -> Option<Fragment> {
    let (start, len) = (from.try_get_u16().ok()?, from.try_get_u16().ok()?);
    let (skip, tag) = (from.try_get_u32().ok()?, from.try_get_u8().ok()?);
    let mut word = || from.try_get_u32().ok();
    let source = match tag {
        0 => Source::Own { index: word()?, len: word()? },
        1 => Source::Log { segment: SegmentId(word()?), offset: word()?, len: word()? },
        2 => {
            let id = ChunkId::from_slice(from.get(..32)?)?;
            from.advance(32);
            Source::Chunk(id)
        }
        3 => Source::Zero,
        _ => return None,
    };
    let (start, len) = (u32::from(start), u32::from(len) + 1);
    let inside = match source {
        Source::Own { len: piece, .. } | Source::Log { len: piece, .. } => skip.checked_add(len)? <= piece,
        Source::Chunk(_) | Source::Zero => true,
    };
    inside.then_some(Fragment { start, len, skip, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(start: u32, len: u32, offset: u32) -> Fragment {
        Fragment { start, len, skip: 0, source: Source::Log { segment: SegmentId(1), offset, len } }
    }

    /// The bucket agrees with a map of bytes after any writes and cuts.
    #[test]
    fn a_bucket_is_what_was_written_last() {
        use rand::{Rng, SeedableRng};
        let seed: u64 = rand::rng().random();
        println!("seed {seed}");
        let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
        for _ in 0..50 {
            let mut bucket = Bucket::default();
            let mut bytes: Vec<Option<(u32, u32)>> = vec![None; BUCKET as usize];
            for step in 1..40u32 {
                let start = rng.random_range(0..BUCKET as u32);
                if rng.random_bool(0.2) {
                    bucket.cut(start);
                    bytes[start as usize..].fill(None);
                    continue;
                }
                let len = rng.random_range(1..=BUCKET as u32 - start);
                bucket.write(fragment(start, len, step));
                for i in 0..len {
                    bytes[(start + i) as usize] = Some((step, i));
                }
            }
            let decoded = Bucket::decode(&bucket.encode()).unwrap();
            assert_eq!(decoded, bucket);
            let mut shown = vec![None; BUCKET as usize];
            for f in &decoded.fragments {
                let Source::Log { offset, .. } = f.source else { panic!("{f:?}") };
                for i in 0..f.len {
                    shown[(f.start + i) as usize] = Some((offset, f.skip + i));
                }
            }
            assert!(shown == bytes);
        }
    }

    #[test]
    fn bytes_that_are_no_bucket_are_none() {
        let mut bucket = Bucket::default();
        bucket.write(fragment(0, 100, 7));
        bucket.write(Fragment { start: 200, len: 5, skip: 9, source: Source::Zero });
        let bytes = bucket.encode();
        for cut in [0, 2, bytes.len() - 1] {
            assert_eq!(Bucket::decode(&bytes[..cut]), None, "cut at {cut}");
        }
        let overlapping = [&bytes[..], &bytes[1..]].concat();
        assert_eq!(Bucket::decode(&overlapping), None);
        let beyond = Bucket { fragments: [fragment(BUCKET as u32 - 1, 2, 0)].into_iter().collect() };
        assert_eq!(Bucket::decode(&beyond.encode()), None);
    }

    #[test]
    fn own_pieces_become_places_in_the_log() {
        let own = Source::Own { index: 1, len: 10 };
        let mut bucket =
            Bucket { fragments: [Fragment { start: 0, len: 10, skip: 0, source: own }].into_iter().collect() };
        assert_eq!(bucket.clone().resolve(SegmentId(4), |_| None), None);
        bucket.resolve(SegmentId(4), |index| Some(index * 100)).unwrap();
        assert_eq!(bucket.fragments[0].source, Source::Log { segment: SegmentId(4), offset: 100, len: 10 });
    }
}

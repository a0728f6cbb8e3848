//! Cutting bytes into chunks.
//!
//! Owns the cutting rules, which are part of the format: two imports of the same bytes must cut them
//! alike or nothing is shared, so nothing in here may ever move a cut. The golden vectors in the
//! tests hold it still, also against an update of the `fastcdc` crate.
//!
//! A file is cut in sections of [`SECTION`] bytes, each by itself, so that sections can be cut in
//! parallel and in bounded memory. Invariant: a hole of the file and zeros written into it cut the
//! same, because the test for holes looks at aligned blocks only and never at how the file is stored.
//! Nothing in here can fail.

use fastcdc::v2020::FastCDC;

use super::MAX_CHUNK;

/// How the bytes between holes are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cutting {
    /// FastCDC: an insertion moves the cuts with the content. For files.
    ContentDefined,
    /// One chunk per aligned [`BLOCK`]. For disk images, where guests overwrite in place.
    FixedBlocks,
}

impl Cutting {
    pub const fn of(disk_image: bool) -> Self {
        if disk_image { Self::FixedBlocks } else { Self::ContentDefined }
    }
}

/// Bytes of a fixed block; also the granule of holes.
pub const BLOCK: usize = 64 * 1024;
/// Bytes of a section: every multiple of it in a file is a cut.
pub const SECTION: u64 = 16 * 1024 * 1024;

const MIN_SIZE: usize = 16 * 1024;
const AVG_SIZE: usize = 64 * 1024;

/// A chunk to be, in bytes from the start of its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub offset: usize,
    pub len: usize,
}

impl Piece {
    /// The piece's bytes in its section.
    pub fn of(self, section: &[u8]) -> &[u8] {
        &section[self.offset..self.offset + self.len]
    }
}

/// Cut one section (at most [`SECTION`] bytes, starting at a multiple of it in the file). Returns
/// the pieces in order; what is in none of them is zero and is not stored.
pub fn cut(section: &[u8], cutting: Cutting) -> Vec<Piece> {
    debug_assert!(section.len() as u64 <= SECTION, "a section of {} bytes", section.len());
    match cutting {
        Cutting::FixedBlocks => blocks(section).filter(|block| !is_zero(block.of(section))).collect(),
        Cutting::ContentDefined => runs(section).into_iter().flat_map(|run| cut_run(section, run)).collect(),
    }
}

/// True if every byte is zero.
pub fn is_zero(data: &[u8]) -> bool {
    let (lanes, rest) = data.as_chunks::<128>();
    // Folding a lane without an early exit lets the compiler use vector instructions.
    lanes.iter().all(|lane| lane.iter().fold(0, |all, byte| all | byte) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// The aligned blocks of a section; the last may be short.
fn blocks(section: &[u8]) -> impl Iterator<Item = Piece> + '_ {
    (0..section.len()).step_by(BLOCK).map(|offset| Piece { offset, len: BLOCK.min(section.len() - offset) })
}

/// The longest runs of blocks that are not zero.
fn runs(section: &[u8]) -> Vec<Piece> {
    let mut runs: Vec<Piece> = Vec::new();
    for block in blocks(section).filter(|block| !is_zero(block.of(section))) {
        match runs.last_mut() {
            Some(run) if run.offset + run.len == block.offset => run.len += block.len,
            _ => runs.push(block),
        }
    }
    runs
}

fn cut_run(section: &[u8], run: Piece) -> impl Iterator<Item = Piece> + '_ {
    FastCDC::new(run.of(section), MIN_SIZE, AVG_SIZE, MAX_CHUNK)
        .map(move |chunk| Piece { offset: run.offset + chunk.offset, len: chunk.length })
}

#[cfg(test)]
mod tests;

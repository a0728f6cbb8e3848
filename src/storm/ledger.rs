//! What bytes have to be: a manifest for what nobody wrote, and for what a client wrote itself a pattern that
//! names the client, the object and the place.
//!
//! A reply is compared block by block of [`BLOCK`] bytes. What a client wrote is right if it is its own pattern:
//! bytes of another clone, another file, another place or an older write are wrong. What nobody can know is
//! counted as not verified: blocks that were written in part, and what was read while it was being written.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::dice::spread;
use super::digests::{BLOCK, Digests, FileDigests};
use super::plan::Objects;
use crate::trace::NodeId;

/// What the manifest has of the objects.
pub struct Expected {
    /// By object.
    files: Vec<Option<Arc<FileDigests>>>,
}

impl Expected {
    pub fn new(objects: &Objects, digests: &Digests) -> Self {
        let of = |i: usize| digests.get(&objects.path(NodeId(u32::try_from(i).ok()?))?);
        Self { files: (0..objects.len()).map(of).collect() }
    }

    fn get(&self, node: NodeId) -> Option<&FileDigests> {
        self.files.get(node.0 as usize)?.as_deref()
    }
}

/// How many bytes of a reply are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub verified: u64,
    pub unverified: u64,
    pub wrong: u64,
    /// Where the first wrong block is.
    pub wrong_at: Option<u64>,
}

/// Of what a client wrote to one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// The whole block has the client's pattern.
    Whole,
    /// Some of it has.
    Part,
}

/// What one client knows of its own changes.
#[derive(Default)]
pub struct Ledger {
    /// Mixed into the pattern: no two clients have the same.
    key: u64,
    files: HashMap<NodeId, Changed>,
}

#[derive(Default)]
struct Changed {
    /// By block.
    blocks: BTreeMap<u64, Written>,
    /// It was made, cut or replaced by the client: what was not written is not known.
    unknown: bool,
}

impl Ledger {
    pub fn new(seed: u64, client: u32) -> Self {
        Self { key: spread(seed ^ spread(u64::from(client) + 1)), files: HashMap::new() }
    }

    /// The bytes that this client writes at `offset` of `node`.
    pub fn fill(&self, node: NodeId, offset: u64, to: &mut [u8]) {
        let key = spread(self.key ^ spread(u64::from(node.0) + 1));
        let mut at = offset;
        let mut rest = to;
        while !rest.is_empty() {
            let word = spread(key ^ spread(at / 8 + 1)).to_le_bytes();
            let word = &word[(at % 8) as usize..];
            let n = word.len().min(rest.len());
            rest[..n].copy_from_slice(&word[..n]);
            rest = &mut rest[n..];
            at += n as u64;
        }
    }

    /// A WRITE was acknowledged.
    pub fn wrote(&mut self, node: NodeId, range: Range<u64>) {
        let changed = self.files.entry(node).or_default();
        for block in blocks(&range) {
            let whole = range.start <= block * BLOCK && (block + 1) * BLOCK <= range.end;
            let written = changed.blocks.entry(block).or_insert(Written::Part);
            if whole {
                *written = Written::Whole;
            }
        }
    }

    /// Something else happened to the object: what was not written by us from now on is not known.
    pub fn forget(&mut self, node: NodeId) {
        *self.files.entry(node).or_default() = Changed { blocks: BTreeMap::new(), unknown: true };
    }

    /// The server lost what was not synced: nothing that was written is known any more.
    pub fn forget_all(&mut self) {
        let nodes: Vec<NodeId> = self.files.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.forget(node));
    }

    /// Compare a reply's data with what it has to be. `eof` is the server's word.
    pub fn check(&self, expected: &Expected, node: NodeId, offset: u64, data: &[u8], eof: bool) -> Verdict {
        let mut verdict = Verdict::default();
        let file = expected.get(node);
        let changed = self.files.get(&node);
        let range = offset..offset + data.len() as u64;
        for block in blocks(&range) {
            let start = (block * BLOCK).max(range.start);
            let end = ((block + 1) * BLOCK).min(range.end);
            let bytes = &data[(start - offset) as usize..(end - offset) as usize];
            let right = self.is_right(node, file, changed, start, bytes);
            let count = end - start;
            match right {
                None => verdict.unverified += count,
                Some(true) => verdict.verified += count,
                Some(false) => {
                    verdict.wrong += count;
                    verdict.wrong_at.get_or_insert(start);
                }
            }
        }
        // A file that ends too early has no wrong byte to show for it.
        let ends_early = |file: &FileDigests| eof && range.end < file.size;
        if changed.is_none() && file.is_some_and(ends_early) {
            verdict.wrong += 1;
            verdict.wrong_at.get_or_insert(range.end);
        }
        verdict
    }

    /// Whether the bytes at `start`, all of one block, are right; `None` if nobody knows.
    fn is_right(
        &self,
        node: NodeId,
        file: Option<&FileDigests>,
        changed: Option<&Changed>,
        start: u64,
        bytes: &[u8],
    ) -> Option<bool> {
        match changed.and_then(|changed| changed.blocks.get(&(start / BLOCK))) {
            Some(Written::Part) => return None,
            Some(Written::Whole) => {
                let mut pattern = [0; BLOCK as usize];
                let pattern = &mut pattern[..bytes.len()];
                self.fill(node, start, pattern);
                return Some(pattern == bytes);
            }
            None if changed.is_some_and(|changed| changed.unknown) => return None,
            None => {}
        }
        file?.matches(start, bytes, changed.is_some())
    }
}

/// The blocks that a range touches.
fn blocks(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storm::digests::tests::digests_of;

    const FILE: NodeId = NodeId(1);
    const SIZE: usize = 3 * BLOCK as usize + 100;

    fn content() -> Vec<u8> {
        (0..SIZE).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    fn expected() -> Expected {
        Expected { files: vec![None, digests_of(&[("f", &content())]).get(b"f")] }
    }

    fn check(ledger: &Ledger, offset: usize, data: &[u8]) -> Verdict {
        ledger.check(&expected(), FILE, offset as u64, data, offset + data.len() >= SIZE)
    }

    #[test]
    fn each_byte_counts() {
        let (ledger, content) = (Ledger::new(1, 0), content());
        assert_eq!(check(&ledger, 0, &content).verified, SIZE as u64);
        for at in [0, 4095, 4096, SIZE - 1] {
            let mut wrong = content.clone();
            wrong[at] ^= 1;
            let verdict = check(&ledger, 0, &wrong);
            assert_eq!(verdict.wrong_at, Some(at as u64 / BLOCK * BLOCK), "byte {at}");
            assert_eq!(verdict.wrong + verdict.verified, SIZE as u64);
        }
    }

    #[test]
    fn a_file_that_ends_too_early_or_too_late_is_wrong() {
        let (ledger, content) = (Ledger::new(1, 0), content());
        let cut = ledger.check(&expected(), FILE, 0, &content[..4096], true);
        assert_eq!((cut.verified, cut.wrong, cut.wrong_at), (4096, 1, Some(4096)));
        assert_eq!(ledger.check(&expected(), FILE, 0, &content[..4096], false).wrong, 0, "a short read");
        let long = [&content[..], b"x"].concat();
        assert_eq!(check(&ledger, 0, &long).wrong_at, Some(3 * BLOCK));
    }

    #[test]
    fn blocks_in_part_are_not_verified() {
        let content = content();
        let verdict = check(&Ledger::new(1, 0), 100, &content[100..8192]);
        assert_eq!(verdict, Verdict { verified: 4096, unverified: 3996, ..Verdict::default() });
    }

    #[test]
    fn what_a_client_wrote_is_its_own_pattern() {
        let mut ledger = Ledger::new(1, 0);
        let mut data = content();
        ledger.fill(FILE, 4096, &mut data[4096..8192]);
        assert_eq!(check(&ledger, 0, &data).wrong_at, Some(4096), "it was not written yet");
        ledger.wrote(FILE, 4096..8192);
        assert_eq!(check(&ledger, 0, &data).verified, SIZE as u64);
        assert_eq!(check(&ledger, 4100, &data[4100..8000]).verified, 3900, "a part of a pattern is known, too");
        let mut other = Ledger::new(1, 1);
        other.wrote(FILE, 4096..8192);
        assert_eq!(check(&other, 0, &data).wrong_at, Some(4096), "of another client");
        assert_eq!(check(&ledger, 0, &content()).wrong_at, Some(4096), "the image's, as if it was never written");
    }

    #[test]
    fn what_nobody_knows_is_not_verified() {
        let mut ledger = Ledger::new(1, 0);
        ledger.wrote(FILE, 100..200);
        let verdict = check(&ledger, 0, &content());
        assert_eq!((verdict.unverified, verdict.wrong), (4096, 0));
        ledger.wrote(FILE, 0..4096);
        assert_eq!(check(&ledger, 0, &content()).wrong, 4096, "written whole");
        ledger.forget_all();
        assert_eq!(check(&ledger, 0, &content()).unverified, SIZE as u64);
    }
}

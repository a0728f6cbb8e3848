//! The header page of a manifest: what names its trees and sums them up.

use bytes::Bytes;

use super::codec::{ROOT_LEN, Reader, put_root};
use super::cut::CUTTING_ID;
use super::page::FORMAT_VERSION;
use super::tree::TreeRoot;
use super::{ManifestId, NameSeed};
use crate::error::{Error, Result};

const MAGIC: [u8; 2] = *b"MH";
const STATS: usize = 12;
const HEADER_LEN: usize = 4 + 16 + 4 * ROOT_LEN + 8 * STATS;

/// Figures of one manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ManifestStats {
    /// Objects of all kinds.
    pub inodes: u64,
    pub directories: u64,
    pub regular: u64,
    pub symlinks: u64,
    /// Devices, fifos and sockets.
    pub others: u64,
    /// Sum of the lengths of the regular files; a file with several links counts once.
    pub bytes_logical: u64,
    /// Of these, bytes that are not holes.
    pub bytes_used: u64,
    /// Distinct chunks of file data and large extended attributes.
    pub chunks: u64,
    pub chunk_bytes_raw: u64,
    /// Their bytes in packs, without frames.
    pub chunk_bytes_stored: u64,
    /// Pages of the four trees, without the header and without the extent trees of files.
    pub pages: u64,
    pub page_bytes_stored: u64,
}

impl ManifestStats {
    fn to_words(self) -> [u64; STATS] {
        [
            self.inodes,
            self.directories,
            self.regular,
            self.symlinks,
            self.others,
            self.bytes_logical,
            self.bytes_used,
            self.chunks,
            self.chunk_bytes_raw,
            self.chunk_bytes_stored,
            self.pages,
            self.page_bytes_stored,
        ]
    }

    fn from_words(w: [u64; STATS]) -> Self {
        Self {
            inodes: w[0],
            directories: w[1],
            regular: w[2],
            symlinks: w[3],
            others: w[4],
            bytes_logical: w[5],
            bytes_used: w[6],
            chunks: w[7],
            chunk_bytes_raw: w[8],
            chunk_bytes_stored: w[9],
            pages: w[10],
            page_bytes_stored: w[11],
        }
    }
}

/// What the header page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub seed: NameSeed,
    pub inodes: TreeRoot,
    pub entries: TreeRoot,
    pub links: TreeRoot,
    pub chunks: TreeRoot,
    pub stats: ManifestStats,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&[MAGIC[0], MAGIC[1], FORMAT_VERSION, CUTTING_ID]);
        out.extend_from_slice(&self.seed.0);
        for root in [&self.inodes, &self.entries, &self.links, &self.chunks] {
            put_root(root, &mut out);
        }
        for word in self.stats.to_words() {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out
    }

    pub fn decode(id: &ManifestId, bytes: &Bytes) -> Result<Self> {
        check_head(id, bytes)?;
        Self::read(bytes).ok_or_else(|| Error::corrupt(format!("manifest {id} is damaged")))
    }

    fn read(bytes: &Bytes) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let _magic_version_cutting: [u8; 4] = r.take()?;
        let header = Self {
            seed: NameSeed(r.take()?),
            inodes: r.root()?,
            entries: r.root()?,
            links: r.root()?,
            chunks: r.root()?,
            stats: read_stats(&mut r)?,
        };
        (r.left() == 0).then_some(header)
    }
}

/// Cutting parameters of another id do not matter to a reader: only builders use them.
fn check_head(id: &ManifestId, bytes: &[u8]) -> Result<()> {
    match bytes {
        [a, b, FORMAT_VERSION, ..] if [*a, *b] == MAGIC => Ok(()),
        [a, b, version, ..] if [*a, *b] == MAGIC && *version > FORMAT_VERSION => {
            let what = format!("manifest {id} has format version {version}; this mimeo knows up to {FORMAT_VERSION}");
            Err(Error::invalid(what).remedy("use a newer mimeo"))
        }
        _ => Err(Error::corrupt(format!("chunk {id} is not the header of a manifest"))),
    }
}

fn read_stats(r: &mut Reader<'_>) -> Option<ManifestStats> {
    let mut words = [0; STATS];
    for word in &mut words {
        *word = r.u64()?;
    }
    Some(ManifestStats::from_words(words))
}

//! The manifest of every version, and what it names.

use std::collections::HashSet;

use futures_util::future::join_all;

use super::{Report, Store, Violation, damage, wait};
use crate::chunk::ChunkId;
use crate::error::{Error, Result};
use crate::image::VersionRecord;
use crate::manifest::{Manifest, NamedChunk};

/// Chunks that are read at once: some MiB.
const BATCH: usize = 64;

/// Open every manifest; if data are to be read, read all of it and every chunk that it names.
pub fn check_all(store: &Store<'_>, report: &mut Report) -> Result<()> {
    let mut versions = Versions { store, report, read: HashSet::new() };
    store.state.versions().try_for_each(|version| versions.check(version))
}

struct Versions<'a> {
    store: &'a Store<'a>,
    report: &'a mut Report,
    /// The first half words of the names of chunks that were read: 8 bytes of a hash are enough here.
    read: HashSet<u64>,
}

impl Versions<'_> {
    fn check(&mut self, version: &VersionRecord) -> Result<()> {
        self.report.checked.versions += 1;
        let name = self.store.version_name(version.image, version.number);
        match self.store.manifest(version.image, version.number) {
            Ok(manifest) if self.store.read_data => self.read(&name, &manifest),
            Ok(_) => Ok(()),
            Err(error) => self.tell(&name, error),
        }
    }

    fn tell(&mut self, version: &str, error: Error) -> Result<()> {
        self.report.add(Violation::Version { version: version.to_owned(), what: damage(error)? });
        Ok(())
    }

    fn read(&mut self, version: &str, manifest: &Manifest) -> Result<()> {
        let mut errors = Vec::new();
        wait(manifest.read_pages(&**self.store.chunks, &mut |error| {
            if errors.len() < BATCH {
                errors.push(error);
            }
        }));
        errors.into_iter().try_for_each(|error| self.tell(version, error))?;
        let mut after = None;
        loop {
            // If that fails, so did reading the pages: it was told.
            let Ok(chunks) = wait(manifest.chunks_after(&**self.store.chunks, after, BATCH)) else { return Ok(()) };
            let Some(last) = chunks.last() else { return Ok(()) };
            after = Some(last.id);
            self.read_chunks(version, chunks)?;
        }
    }

    fn read_chunks(&mut self, version: &str, mut chunks: Vec<NamedChunk>) -> Result<()> {
        chunks.retain(|chunk| self.read.insert(prefix(&chunk.id)));
        let outcomes = wait(join_all(chunks.iter().map(|chunk| self.store.chunks.load(chunk.id))));
        for (NamedChunk { id, raw_len }, outcome) in chunks.into_iter().zip(outcomes) {
            self.report.checked.chunks_read += 1;
            let what = match outcome {
                Ok(bytes) if bytes.len() == raw_len as usize => continue,
                Ok(bytes) => format!("it has {} bytes where {raw_len} are wanted", bytes.len()),
                Err(error) => damage(error)?,
            };
            self.report.add(Violation::Chunk { chunk: id, of: format!("version {version}"), what });
        }
        Ok(())
    }
}

fn prefix(id: &ChunkId) -> u64 {
    id.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

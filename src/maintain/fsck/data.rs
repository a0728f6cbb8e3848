//! Reading private data, to see that they are there and are what was written.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::{Owner, Report, SegmentFlaw, Store, Violation, damage, wait};
use crate::error::{Error, Result};
use crate::overlay::check::Stored;

/// Places that are read at once: some MiB.
const BATCH: usize = 64;
/// Places that are remembered, because older versions and neighbours refer to them too.
const RECENT: usize = 64 * 1024;

/// Places in the log and chunks, each read about once.
pub struct Data {
    wanted: Vec<(Stored, Owner)>,
    recent: BTreeSet<Stored>,
}

impl Data {
    pub fn new() -> Self {
        Self { wanted: Vec::new(), recent: BTreeSet::new() }
    }

    /// Read what is at `place`, now or with others that follow.
    pub fn want(&mut self, store: &Store<'_>, place: Stored, of: Owner, report: &mut Report) -> Result<()> {
        if self.recent.len() >= RECENT {
            self.recent.clear();
        }
        if self.recent.insert(place) {
            self.wanted.push((place, of));
        }
        if self.wanted.len() < BATCH { Ok(()) } else { self.finish(store, report) }
    }

    /// Read what waits.
    pub fn finish(&mut self, store: &Store<'_>, report: &mut Report) -> Result<()> {
        let wanted = std::mem::take(&mut self.wanted);
        let outcomes = wait(join_all(wanted.iter().map(|(place, _)| read(store, *place))));
        for ((place, of), outcome) in wanted.into_iter().zip(outcomes) {
            match place {
                Stored::Piece { .. } => report.checked.pieces_read += 1,
                Stored::Chunk { .. } => report.checked.chunks_read += 1,
            }
            if let Err(error) = outcome {
                report.add(violation(place, of, damage(error)?));
            }
        }
        Ok(())
    }
}

async fn read(store: &Store<'_>, place: Stored) -> Result<()> {
    match place {
        Stored::Piece { segment, offset, len } => store.overlays.read_piece(segment, offset, len).await.map(drop),
        Stored::Chunk { id, end } => {
            let len = store.chunks.load(id).await?.len();
            let short = || Error::corrupt(format!("it has {len} bytes where {end} are wanted"));
            if len >= end as usize { Ok(()) } else { Err(short()) }
        }
    }
}

fn violation(place: Stored, of: Owner, what: String) -> Violation {
    match place {
        Stored::Piece { segment, offset, .. } => {
            Violation::Segment { segment, flaw: SegmentFlaw::Unreadable { offset, of, what } }
        }
        Stored::Chunk { id, .. } => Violation::Chunk { chunk: id, of: of.to_string(), what },
    }
}

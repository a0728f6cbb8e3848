//! The one way in which an overlay changes.

use bytes::Bytes;
use smallvec::SmallVec;

use super::OverlayStore;
use crate::error::{Error, Result};
use crate::overlay::Counts;
use crate::overlay::keys::Key;
use crate::overlay::log::{Lsn, Record};
use crate::overlay::memtable::Version;
use crate::overlay::record::{ChangeRecord, Receipt, Value};
use crate::overlay::state::Guard;

/// What one record is to say.
pub struct Commit {
    /// Values to be, and the versions that they replace.
    pub values: Vec<(Key, Value, Option<Version>)>,
    pub data: SmallVec<[Bytes; 2]>,
    /// What the overlay holds afterwards.
    pub counts: Counts,
    pub receipt: Option<Receipt>,
}

impl OverlayStore {
    /// Append a record to the log and make it visible.
    pub(in crate::overlay) fn commit(&self, mut state: Guard, commit: Commit) -> Result<Lsn> {
        let Commit { values, data, counts, receipt } = commit;
        let position = state.position + 1;
        let (values, formers): (Vec<_>, Vec<_>) =
            values.into_iter().map(|(key, value, former)| ((key, value), former)).unzip();
        let mut record = ChangeRecord { overlay: state.id, position, moved: false, counts, values, receipt };
        let lsn = self.append(&mut record, data)?;
        let values = record.values.into_iter().zip(formers).map(|((key, value), former)| (key, value, former));
        let grown = state.apply(position, counts, lsn, values);
        self.note_change(lsn, record.receipt, grown);
        Ok(lsn)
    }

    /// Let the newest version of `key`, which is `former`, refer to other places that hold the same. It
    /// keeps its position: sealed layers show it as before, and nothing was written to anything.
    pub(super) fn relocate(
        &self,
        mut state: Guard,
        key: Key,
        value: Value,
        data: SmallVec<[Bytes; 2]>,
        former: &Version,
    ) -> Result<Lsn> {
        let (overlay, position, counts) = (state.id, former.position, state.counts);
        let values = vec![(key, value)];
        let mut record = ChangeRecord { overlay, position, moved: true, counts, values, receipt: None };
        let lsn = self.append(&mut record, data)?;
        let grown = state.relocate(position, record.values);
        self.note_change(lsn, None, grown);
        Ok(lsn)
    }

    /// Append a record, and note in its buckets where their data went. Called under the overlay's lock.
    fn append(&self, record: &mut ChangeRecord, data: SmallVec<[Bytes; 2]>) -> Result<Lsn> {
        let body = record.encode()?;
        // Before the record is in the log: a flush that moves the log's start beyond it must find us.
        self.dirty.lock().insert(record.overlay);
        let appended = self.log.append(Record { body, data: data.clone() })?;
        let resolved = record.resolve(appended.segment, |index| appended.pieces.get(index as usize).copied());
        resolved.ok_or_else(|| Error::internal("a bucket that does not fit its own record"))?;
        for (offset, piece) in appended.pieces.iter().zip(data) {
            self.blocks.insert((appended.segment.0, *offset), &piece);
        }
        Ok(appended.lsn)
    }
}

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
        let mut record = ChangeRecord { overlay: state.id, position, counts, values, receipt };
        let body = record.encode()?;
        // Before the record is in the log: a flush that moves the log's start beyond it must find us.
        self.dirty.lock().insert(state.id);
        let appended = self.log.append(Record { body, data: data.clone() })?;
        let resolved = record.resolve(appended.segment, |index| appended.pieces.get(index as usize).copied());
        resolved.ok_or_else(|| Error::internal("a bucket that does not fit its own record"))?;
        for (offset, piece) in appended.pieces.iter().zip(data) {
            self.blocks.insert((appended.segment.0, *offset), &piece);
        }
        let values = record.values.into_iter().zip(formers).map(|((key, value), former)| (key, value, former));
        let grown = state.apply(position, counts, appended.lsn, values);
        self.note_change(appended.lsn, record.receipt, grown);
        Ok(appended.lsn)
    }
}

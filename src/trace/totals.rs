//! What a trace holds, added up.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Call, NodeId, Op, Trace, Verb};

/// Sums over a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub ops: u64,
    /// Operations that were answered with an error.
    pub failed: u64,
    /// Operations by the name of their procedure.
    pub by_procedure: BTreeMap<&'static str, u64>,
    /// Bytes that READs were answered, and WRITEs brought.
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// From the first call to the last answer.
    pub micros: u64,
}

impl Totals {
    pub fn of(trace: &Trace) -> Self {
        let mut totals = Self::default();
        trace.ops().iter().for_each(|op| totals.add(op));
        let first = trace.ops().first().map_or(0, |op| op.at_micros);
        totals.micros = totals.micros.saturating_sub(first);
        totals
    }

    fn add(&mut self, op: &Op) {
        self.ops += 1;
        self.failed += u64::from(!op.is_ok());
        *self.by_procedure.entry(op.call.procedure()).or_default() += 1;
        self.micros = self.micros.max(op.answered_micros());
        match op.call {
            Call::Object { verb: Verb::Read { got, .. }, .. } => self.bytes_read += u64::from(got),
            Call::Object { verb: Verb::Write { len, .. }, .. } if op.is_ok() => self.bytes_written += u64::from(len),
            _ => {}
        }
    }
}

/// The bytes of files that were read, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkingSet {
    /// By file: ranges that do not touch, in order.
    files: BTreeMap<NodeId, Vec<Range<u64>>>,
}

impl WorkingSet {
    pub fn of(trace: &Trace) -> Self {
        let mut files: BTreeMap<NodeId, Vec<Range<u64>>> = BTreeMap::new();
        for op in trace.ops() {
            if let Call::Object { object, verb: Verb::Read { offset, got, .. } } = op.call {
                let range = offset..offset.saturating_add(u64::from(got));
                if !range.is_empty() {
                    files.entry(object).or_default().push(range);
                }
            }
        }
        files.values_mut().for_each(merge);
        Self { files }
    }

    /// Each file with what was read of it.
    pub fn files(&self) -> impl Iterator<Item = (NodeId, &[Range<u64>])> {
        self.files.iter().map(|(file, ranges)| (*file, &**ranges))
    }

    pub fn bytes(&self) -> u64 {
        self.files.values().flatten().map(|range| range.end - range.start).sum()
    }
}

/// Sort ranges and make one of those that touch.
fn merge(ranges: &mut Vec<Range<u64>>) {
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, range| {
        let touches = next.start <= range.end;
        if touches {
            range.end = range.end.max(next.end);
        }
        touches
    });
}

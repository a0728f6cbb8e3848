//! What a check found.

use std::collections::BTreeMap;

use super::Violation;

/// Violations of one kind that are listed; more are counted.
pub const MAX_LISTED: u64 = 100;

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub versions: u64,
    pub clones: u64,
    pub snapshots: u64,
    /// Views that differ: of clones, pins and snapshots, and what they stand on.
    pub views: u64,
    pub overlays: u64,
    /// Of the overlays, those that nothing names: their space is given back by and by.
    pub overlays_reclaimable: u64,
    /// Private objects and names, counted once in each overlay.
    pub objects: u64,
    pub names: u64,
    /// Private bytes.
    pub bytes: u64,
    /// Pieces of private data that were read.
    pub pieces_read: u64,
    pub chunks_read: u64,
}

/// The outcome of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub checked: Checked,
    violations: Vec<Violation>,
    by_kind: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Note a violation, and list it unless there are many of its kind.
    pub fn add(&mut self, violation: Violation) {
        let found = self.by_kind.entry(violation.kind()).or_insert(0);
        *found += 1;
        if *found <= MAX_LISTED {
            self.violations.push(violation);
        }
    }

    pub fn is_clean(&self) -> bool {
        self.by_kind.is_empty()
    }

    /// The first [`MAX_LISTED`] of each kind.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many there are, listed or not.
    pub fn total(&self) -> u64 {
        self.by_kind.values().sum()
    }

    /// How many of each kind are not listed.
    pub fn omitted(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let rest = |(kind, found): (&&'static str, &u64)| (*kind, found.saturating_sub(MAX_LISTED));
        self.by_kind.iter().map(rest).filter(|(_, omitted)| *omitted > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_violations_of_one_kind_are_counted_and_hide_no_other() {
        let mut report = Report::default();
        for n in 0..MAX_LISTED + 5 {
            report.add(Violation::Version { version: n.to_string(), what: "gone".into() });
        }
        report.add(Violation::Row { table: "heads", key: vec![1] });
        assert_eq!(report.violations().len() as u64, MAX_LISTED + 1);
        assert_eq!(report.total(), MAX_LISTED + 6);
        assert_eq!(report.omitted().collect::<Vec<_>>(), [("version", 5)]);
        assert!(!report.is_clean() && Report::default().is_clean());
    }
}

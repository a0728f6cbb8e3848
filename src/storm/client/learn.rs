//! What a client learns from good answers: handles, positions, and whether bytes are right.

use std::collections::HashMap;

use super::{Client, UnderWay};
use crate::storm::ledger::{Ledger, Verdict};
use crate::storm::plan::Step;
use crate::storm::wire::{Answer, Fill, Handle, ListPosition, status};
use crate::trace::{Call, NodeId, Verb};

/// What a client learned from answers, and what it puts into calls.
pub(super) struct Known {
    pub handles: HashMap<NodeId, Handle>,
    listings: HashMap<NodeId, ListPosition>,
    pub ledger: Ledger,
    /// The server's write verifier.
    verifier: Option<[u8; 8]>,
}

impl Fill for Known {
    fn handle(&self, object: NodeId) -> &[u8] {
        self.handles.get(&object).map_or(&[], |handle| handle)
    }

    fn position(&self, dir: NodeId) -> ListPosition {
        self.listings.get(&dir).copied().unwrap_or_default()
    }

    fn data(&self, file: NodeId, offset: u64, to: &mut [u8]) {
        self.ledger.fill(file, offset, to);
    }
}

impl Known {
    pub fn new(ledger: Ledger) -> Self {
        Self { handles: HashMap::new(), listings: HashMap::new(), ledger, verifier: None }
    }
}

impl Client<'_> {
    /// What a good answer says: handles, positions, and whether its bytes are right.
    pub(super) fn learn(&mut self, call: &UnderWay, step: &Step, answer: &Answer<'_>) {
        if answer.status != status::OK {
            return;
        }
        match &step.call {
            Call::Name { object: Some(object), .. } => {
                if let Some(handle) = answer.handle {
                    self.known.handles.insert(*object, handle.into());
                }
            }
            Call::Object { object, verb } => match *verb {
                Verb::Read { offset, .. } => self.read(call, *object, offset, answer),
                Verb::Write { offset, .. } => self.wrote(*object, offset, answer),
                Verb::Commit { .. } => self.see_verifier(answer),
                Verb::List { .. } => self.listed(*object, answer),
                _ => {}
            },
            _ => {}
        }
    }

    fn read(&mut self, call: &UnderWay, file: NodeId, offset: u64, answer: &Answer<'_>) {
        let len = answer.data.len() as u64;
        let verdict = match &self.storm.workload.expected {
            None => Verdict::default(),
            Some(_) if !call.knowable => Verdict { unverified: len, ..Verdict::default() },
            Some(expected) => self.known.ledger.check(expected, file, offset, answer.data, answer.eof),
        };
        self.tally(|tally| {
            tally.counts.bytes_read += len;
            tally.counts.bytes_verified += verdict.verified;
            tally.counts.bytes_unverified += verdict.unverified;
            tally.counts.bytes_wrong += verdict.wrong;
            if let Some(at) = verdict.wrong_at {
                tally
                    .error("wrong bytes", || format!("wrong bytes: {}{} at offset {at}", self.export, self.path(file)));
            }
        });
    }

    fn wrote(&mut self, file: NodeId, offset: u64, answer: &Answer<'_>) {
        self.see_verifier(answer);
        let len = u64::from(answer.written);
        self.known.ledger.wrote(file, offset..offset.saturating_add(len));
        self.tally(|tally| tally.counts.bytes_written += len);
    }

    /// Another one than before: the server was started again, and what was not synced is lost.
    fn see_verifier(&mut self, answer: &Answer<'_>) {
        if self.known.verifier.is_some_and(|known| answer.verifier.is_some_and(|now| now != known)) {
            self.known.ledger.forget_all();
            self.tally(|tally| {
                tally.error("write verifier changed", || format!("{}: the server was restarted", self.export))
            });
        }
        self.known.verifier = answer.verifier;
    }

    fn listed(&mut self, dir: NodeId, answer: &Answer<'_>) {
        self.known.listings.insert(dir, answer.position);
        let objects = self.schedule.plan().objects().clone();
        for entry in &answer.entries {
            let (Some(handle), Some(object)) = (entry.handle, objects.child(dir, entry.name)) else { continue };
            self.known.handles.entry(object).or_insert_with(|| handle.into());
        }
    }
}

//! What waited for what.
//!
//! A server does not see why a client asks; it sees which answers the client had when it did. A call is
//! taken to wait for the answer that left last before it came, and the time between is the client's own. In a
//! replay that keeps the order of a slow server on a fast one, and calls that were under way together stay so.
//! An object's handle is a second bond: a call needs the answer that gave it (see `Call::Name`).

use super::Op;

/// When an operation may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The operation whose answer it waits for, by its place in the trace; `None`: the start.
    pub after: Option<usize>,
    /// How long the client thinks then, in microseconds.
    pub think_micros: u64,
}

/// Of each operation, which are in the order in which they were asked.
pub fn pace<N>(ops: &[Op<N>]) -> Vec<Pace> {
    let mut by_answer: Vec<usize> = (0..ops.len()).collect();
    by_answer.sort_by_key(|&i| (ops[i].answered_micros(), i));
    let mut answered = by_answer.into_iter().peekable();
    let mut last = None;
    let pace_of = |(i, op): (usize, &Op<N>)| {
        // One that was answered in the same microsecond in which it came is no reason for itself.
        while let Some(earlier) = answered.next_if(|&j| j < i && ops[j].answered_micros() <= op.at_micros) {
            last = Some(earlier);
        }
        let since = last.map_or(0, |j| ops[j].answered_micros());
        Pace { after: last, think_micros: op.at_micros - since }
    };
    ops.iter().enumerate().map(pace_of).collect()
}

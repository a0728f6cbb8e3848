//! Recorded boots: what a client asked of a clone, in order, and when.
//!
//! | file | owns |
//! |---|---|
//! | `op` | operations, and the objects that they are about |
//! | `file` | the format: reading and writing (`docs/formats/trace.md`) |
//! | `pace` | what waited for what, and how long the client thought |
//! | `totals` | what a trace holds, added up |
//!
//! A trace holds no data of files, only what was done with them. It names objects by number; a table says
//! where each was, so that a trace can be mapped onto another version by path, and replayed against a server
//! whose handles are others.
//!
//! Invariants: everything that a file says was compared with a bound before memory was taken for it; every
//! number of an object in a [`Trace`] is one of its table.
//!
//! Failure story: a file that is cut short, damaged or of another format is refused by name.

mod file;
mod op;
mod pace;
mod totals;

pub use file::{FORMAT, Header, Item, MAX_NODES, MAX_OPS, Trace, Writer};
pub use op::{Call, Creation, Name, NameVerb, NewAttrs, Node, NodeId, Op, SetTime, Special, Stable, Verb};
pub use pace::{Pace, pace};
pub use totals::{Totals, WorkingSet};

#[cfg(test)]
mod tests;

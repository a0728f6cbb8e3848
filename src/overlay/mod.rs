//! Overlays: the private writes of clones.
//!
//! Owns the shared [`log`] of segments that holds every private write of every clone. Nothing is
//! acknowledged before the log's sync covers it; what that promises is in `docs/durability.md`.

pub mod log;

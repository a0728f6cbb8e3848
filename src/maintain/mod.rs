//! Looking after a store that is not in anybody's way.
//!
//! Owns the check of a store ([`fsck`]). Nothing in here is on the path of a request.

pub mod fsck;

//! What the tests that look at the daemon from outside share: the real program as a process, and an
//! NFSv3 client of their own whose calls can be sent again, byte for byte.

// Every test target is a crate of its own and uses its share of this.
#![allow(dead_code)]

pub mod daemon;
pub mod nfs3;
pub mod rpc;
#[path = "../wire/client.rs"]
pub mod xdr;

//! What the benches share: a null server and a load generator, trees to import, probes of the
//! machine, and one form of report.

// Every bench is a crate of its own and uses its share of this.
#![allow(dead_code)]

pub mod admin;
pub mod args;
pub mod audience;
pub mod daemon;
pub mod farm;
pub mod fsync;
pub mod ganesha;
pub mod load;
pub mod local;
pub mod loop_fs;
pub mod null_server;
pub mod process;
pub mod report;
pub mod served;
pub mod tree;
pub mod wire;
pub mod writers;
pub mod zipf;

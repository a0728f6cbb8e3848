//! Goal: the command line is the contract that scripts rely on: names, flags, exit codes, `--json`.
//! Method: run the real program against the real daemon, on a directory of its own per test.

#[path = "cli/activation.rs"]
mod activation;
#[path = "cli/audit.rs"]
mod audit;
#[path = "common/mod.rs"]
mod common;
#[path = "cli/data_dir.rs"]
mod data_dir;
#[path = "cli/dry_run.rs"]
mod dry_run;
#[path = "cli/fsck.rs"]
mod fsck;
#[path = "cli/life.rs"]
mod life;
#[path = "cli/operations.rs"]
mod operations;
#[path = "cli/private.rs"]
mod private;
#[path = "cli/refusals.rs"]
mod refusals;
#[path = "cli/storm.rs"]
mod storm;
#[path = "cli/trace.rs"]
mod trace;
#[path = "cli/world.rs"]
mod world;

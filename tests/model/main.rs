//! Goal: whatever clients and administrators do to a fleet of clones, every clone and every snapshot is
//! what a plain tree in memory says, over restarts and crashes too.
//!
//! Method: random operations over the wire to the real daemon, through an NFSv3 client of our own, and
//! commands of the real program; the same in a reference model; whole trees compared again and again.
//! A failure prints its seed: `MIMEO_SEED=N cargo test --test model` repeats it. `MIMEO_OPS` is how many
//! operations are run in each world.

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod fleet;
mod fleets;
mod golden;
mod held;
mod preserved;
#[allow(dead_code, reason = "the crash tests use the rest")]
mod reference;
mod switches;
mod three_way;
mod trusted;
mod views;
mod winners;
mod world;

/// A number from the environment.
fn from_env(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => otherwise,
    }
}

//! Goal: nothing that was acknowledged as stable is lost when the daemon dies at any moment, nothing is
//! there that was never written, no block is a mix, and a call in flight gets its first answer.
//!
//! Method: `kill -9` of the real daemon under writers, again and again on the same data. Walkers
//! (`walkers`) each work in a directory of their own against the reference model: after the crash a call
//! that was not answered is sent again under its old id, then the whole directory must be as a crash may
//! leave it. Streamers (`streamers`) keep many stamped writes under way over two connections. `mimeo fsck`
//! looks at what each crash left. Repoints of a fleet (`switches`) are killed under a reader.
//!
//! `MIMEO_ROUNDS` is how often it is killed. A failure prints its seed; threads make that no exact repeat.

#[path = "../common/mod.rs"]
mod common;
mod progress;
#[allow(dead_code, unused_imports, reason = "the model tests use the rest")]
#[path = "../model/reference/mod.rs"]
mod reference;
mod streamers;
mod switches;
mod walkers;

use std::fs;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use common::daemon::Daemon;
use progress::Progress;
use streamers::Streamer;
use walkers::Walker;

const CLONES: [&str; 2] = ["desk-0", "desk-1"];
const WALKERS: u64 = 2;

fn from_env(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => otherwise,
    }
}

#[test]
fn kill_9_under_writers() {
    let seed = from_env("MIMEO_SEED", rand::random::<u32>().into());
    println!("MIMEO_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("hostname"), "golden\n").unwrap();
    let mut daemon = Daemon::start(&dir.path().join("data"));
    daemon.must(&["image", "import", "base", source.to_str().unwrap()]);
    daemon.must(&["clone", "create", "base", CLONES[0], CLONES[1]]);
    let mut walkers: Vec<Walker> = CLONES
        .iter()
        .flat_map(|clone| (0..WALKERS).map(move |n| (clone, n)))
        .map(|(clone, n)| Walker::start(daemon.address, clone, n, rng.random()))
        .collect();
    let mut streamers: Vec<Streamer> =
        CLONES.iter().map(|clone| Streamer::start(daemon.address, clone, rng.random())).collect();
    for round in 1..=from_env("MIMEO_ROUNDS", 20) {
        let target = rng.random_range(1..2000);
        println!("round {round}: killed after {target} answers");
        let progress = Progress::default();
        std::thread::scope(|scope| {
            walkers.iter_mut().for_each(|walker| drop(scope.spawn(|| walker.work(&progress))));
            streamers.iter_mut().for_each(|streamer| drop(scope.spawn(|| streamer.work(&progress))));
            progress.wait_for(target);
            daemon.kill();
        });
        daemon.fsck();
        daemon.start_again();
        walkers.iter_mut().for_each(|walker| walker.recover(daemon.address));
        streamers.iter_mut().for_each(|streamer| streamer.recover(daemon.address));
    }
}

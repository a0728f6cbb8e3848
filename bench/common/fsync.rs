//! How long this disk takes to make a small append durable.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::report::quantile;

/// What one record of the catalog's log may weigh.
const RECORD: [u8; 512] = [0x5a; 512];

/// Times of `fdatasync` after an append of 512 bytes, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct FsyncTimes {
    pub p50: f64,
    pub p99: f64,
}

/// Append and sync `rounds` times in a new file in `dir`.
pub fn probe(dir: &Path, rounds: usize) -> Result<FsyncTimes> {
    let path = dir.join("fsync-probe");
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        file.write_all(&RECORD)?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(&path)?;
    times.sort_by(f64::total_cmp);
    Ok(FsyncTimes { p50: quantile(&times, 0.5), p99: quantile(&times, 0.99) })
}

//! Everything that is not deterministic: disk, clock, randomness. And what else is the kernel's: memory that it can
//! send from, priorities of threads.
//!
//! Owns the traits through which all of our own I/O, time and randomness go, so that a test can
//! crash, tear and fill the disk, stop the clock and repeat the dice. RocksDB keeps its own files.

mod clock;
mod disk;
mod memory;
mod priority;
mod rng;
mod sim;

pub use clock::{Clock, ManualClock, SystemClock, Time};
pub use disk::{Disk, DiskFile, RealDisk, Space, create_dir_durably};
pub use memory::MemoryFile;
pub use priority::Priority;
pub use rng::{OsRng, Rng, SeededRng};
pub use sim::{Fault, SimDisk};

use std::sync::Arc;

/// The outside world, handed to constructors.
#[derive(Clone)]
pub struct Env {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
}

impl Env {
    /// The real machine.
    pub fn real() -> Self {
        Self { disk: Arc::new(RealDisk), clock: Arc::new(SystemClock::new()), rng: Arc::new(OsRng) }
    }
}

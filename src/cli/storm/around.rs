//! What is measured around a storm: counters before and after.

use std::time::Duration;

use anyhow::Result;

use super::super::Global;
use super::server_disk::ServerDisk;
use crate::storm::{Around, CpuCounter, Target};

/// A process, and what it had computed before.
struct Computed {
    counter: CpuCounter,
    before: Duration,
}

impl Computed {
    fn before(counter: CpuCounter) -> Result<Self> {
        let before = counter.time()?;
        Ok(Self { counter, before })
    }

    /// Nothing of a process that is gone, or that was started again under its number.
    fn since(&self) -> Option<Duration> {
        self.counter.time().ok()?.checked_sub(self.before)
    }
}

/// Counters, and what they said before the storm.
pub struct Before {
    disk: ServerDisk,
    server: Option<Computed>,
    generator: Option<Computed>,
}

impl Before {
    /// Of the device and the process that are named; see [`ServerDisk::before`].
    pub async fn read(device: Option<&str>, server: Option<u32>, target: Target, global: &Global) -> Result<Self> {
        let disk = ServerDisk::before(device, target, global).await?;
        let server = server.map(|pid| Computed::before(CpuCounter::of_process(pid))).transpose()?;
        Ok(Self { disk, server, generator: Computed::before(CpuCounter::of_this_process()).ok() })
    }

    pub async fn after(self, verified: bool, global: &Global) -> Around {
        let [server_cpu, generator_cpu] = [&self.server, &self.generator].map(|one| one.as_ref()?.since());
        let disk = self.disk.bytes_read_since(global).await.unwrap_or_else(|error| {
            eprintln!("mimeo: what the server read from disk is not known: {error:#}");
            None
        });
        Around { verified, disk, server_cpu, generator_cpu }
    }
}

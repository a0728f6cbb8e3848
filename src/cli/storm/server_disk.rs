//! What the server reads from its disk during a storm: a counter before and after.

use anyhow::Result;

use super::super::Global;
use super::super::client::Client;
use crate::admin::types::StatusInfo;
use crate::storm::{DiskBytes, DiskCounter, Target};

/// The daemon's counter of what it read from disk.
const METRIC: &str = "mimeo_cache_loaded_bytes_total";

/// A counter, and what it said before the storm.
pub enum ServerDisk {
    Unknown,
    Device { name: String, counter: DiskCounter, before: u64 },
    Daemon { before: u64 },
}

impl ServerDisk {
    /// Of the device that is named; else of a daemon that is reached and serves at `target`.
    pub async fn before(device: Option<&str>, target: Target, global: &Global) -> Result<Self> {
        if let Some(device) = device {
            let counter = DiskCounter::new(device);
            let before = counter.bytes_read()?;
            return Ok(Self::Device { name: device.to_owned(), counter, before });
        }
        // It need not be a daemon of ours, and need not be here.
        let Ok(mut client) = Client::connect(global).await else { return Ok(Self::Unknown) };
        let Ok(status) = client.get::<StatusInfo>("/v1/status").await else { return Ok(Self::Unknown) };
        let serves = |address: &String| address.parse() == Ok(target.nfs) || listens_everywhere(address, target);
        if !status.nfs.iter().any(serves) {
            return Ok(Self::Unknown);
        }
        Ok(loaded(global).await?.map_or(Self::Unknown, |before| Self::Daemon { before }))
    }

    pub async fn bytes_read_since(self, global: &Global) -> Result<Option<DiskBytes>> {
        let (source, before, after) = match self {
            Self::Unknown => return Ok(None),
            Self::Device { name, counter, before } => (name, before, Some(counter.bytes_read()?)),
            Self::Daemon { before } => ("mimeo".to_owned(), before, loaded(global).await?),
        };
        // A daemon that was started again counts from 0.
        let bytes_read = after.and_then(|after| after.checked_sub(before));
        Ok(bytes_read.map(|bytes_read| DiskBytes { source, bytes_read }))
    }
}

fn listens_everywhere(address: &str, target: Target) -> bool {
    let address: Option<std::net::SocketAddr> = address.parse().ok();
    address.is_some_and(|a| a.ip().is_unspecified() && a.port() == target.nfs.port() && target.nfs.ip().is_loopback())
}

/// On a connection of its own: one that has just answered need not be ready for the next request.
async fn loaded(global: &Global) -> Result<Option<u64>> {
    Ok(metric(&Client::connect(global).await?.get_text("/metrics").await?))
}

fn metric(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(METRIC)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metric_is_found_in_what_the_daemon_says() {
        let readings = crate::metrics::Readings { cache_loaded_bytes: 77, ..Default::default() };
        assert_eq!(metric(&crate::metrics::encode(readings)), Some(77));
        assert_eq!(metric("# EOF\n"), None);
    }
}

//! Who reads, as far as an operation wants to know.

use std::time::Duration;

use super::record::ExportId;

/// Counts clients, by what they were seen doing since this daemon started.
pub trait Readers: Send + Sync + 'static {
    /// Clients that read from any of these clones at or after `since`, an uptime of the daemon's clock.
    fn readers_since(&self, clones: &[ExportId], since: Duration) -> usize;
}

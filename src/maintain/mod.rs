//! Work in the background: giving space back and keeping reads short.
//!
//! | file | owns |
//! |---|---|
//! | `worker` | the one task that runs all workers, and its pace |
//! | `reclaim` | overlays and older values that nothing names or shows any more |
//! | `marks` | positions of overlays that nothing names any more |
//! | `operations` | waves, gates and pauses of operations under way; forgetting those that ended |
//! | `pins` | former views of clones that nobody needs any more |
//! | `flatten` | clones with many sealed layers |
//! | `sweep` | what removed files left behind |
//! | `dedup` | idle private data on its way into the chunk store |
//! | `warm` | bringing what will be read into the cache ahead of time |
//! | `fsck` | the check of a whole store |
//! | `compact` | sparse segments of the delta log |
//!
//! Nothing here but `operations` and `pins` changes what any client sees, and nothing that is acknowledged waits for
//! it.

mod compact;
mod dedup;
mod flatten;
pub mod fsck;
mod marks;
pub mod operations;
mod pins;
mod reclaim;
mod sweep;
pub mod warm;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::pins::note_ended;
use self::worker::{Pace, Worker};
use crate::chunk::ChunkStore;
use crate::config::{Config, MaintenanceConfig};
use crate::env::Env;
use crate::image::{Fleet, Retention, ViewUses};
use crate::overlay::OverlayStore;

/// What is looked after.
pub struct Parts {
    pub fleet: Arc<Fleet>,
    pub overlays: Arc<OverlayStore>,
    pub chunks: Arc<ChunkStore>,
    /// How clients use former views.
    pub uses: Arc<dyn ViewUses>,
}

/// Start the background work; it ends when `stop` changes.
pub fn spawn(parts: Parts, env: &Env, config: &Config, stop: watch::Receiver<bool>) -> JoinHandle<()> {
    let Parts { fleet, overlays, chunks, uses } = parts;
    let MaintenanceConfig { interval_secs, idle_secs, grace_secs, bytes_per_sec } = config.maintenance;
    let (grace, idle) = (Duration::from_secs(grace_secs), Duration::from_secs(idle_secs));
    let reclaim = reclaim::Reclaim::new(fleet.catalog().clone(), overlays.clone(), env.clone(), grace);
    let keep = Retention {
        operations: config.operations.keep,
        age: Duration::from_secs(config.operations.keep_secs),
        window: Duration::from_secs(config.operations.rollback_secs),
    };
    let pins = pins::Limits {
        idle: Duration::from_secs(config.pins.idle_secs),
        unmounted: Duration::from_secs(config.pins.unmounted_secs),
    };
    let workers: Vec<Box<dyn Worker>> = vec![
        Box::new(operations::Prune::new(fleet.clone(), env.clone(), keep)),
        Box::new(pins::Pins::new(fleet.clone(), uses, env.clone(), pins)),
        Box::new(flatten::Flatten::new(fleet.clone(), env.clone())),
        Box::new(marks::Marks::new(fleet.clone(), env.clone(), grace)),
        Box::new(sweep::Sweep::new(fleet, overlays.clone())),
        Box::new(reclaim),
        Box::new(dedup::Dedup::new(overlays.clone(), chunks, env.clone(), idle)),
        Box::new(compact::Compact::new(overlays)),
    ];
    let pace = Pace { interval: Duration::from_secs(interval_secs), bytes_per_sec };
    tokio::spawn(worker::run(workers, pace, stop))
}

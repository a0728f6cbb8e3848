//! What the catalog's operations want to know of clients. The file service sees them; here are only the
//! questions, so that what lies beside it may ask.

use std::net::IpAddr;
use std::time::Duration;

use super::record::ExportId;

/// Who reads clones.
pub trait Readers: Send + Sync + 'static {
    /// How many clients were seen reading what one of these clones shows, in the view with this number or a later
    /// one, at or after the moment `since` of the clock's uptime: each address once for each clone. Reads of one
    /// view within one second count as one, at its first.
    fn readers_since(&self, views: &[(ExportId, u64)], since: Duration) -> usize;

    /// Why some who read since then may not be counted; `None`: all are.
    fn why_incomplete(&self, since: Duration) -> Option<&'static str>;
}

/// Whether a clone may be switched without anybody noticing.
pub trait Quiet: Send + Sync + 'static {
    /// Nobody uses the clone, as far as is known.
    fn is_quiet(&self, clone: ExportId) -> bool;
}

/// Whether nobody needs a former view of a clone any more.
pub trait IsDue: Send + Sync + 'static {
    fn is_due(&self, clone: ExportId, view: u64) -> bool;
}

impl<F: Fn(ExportId, u64) -> bool + Send + Sync + 'static> IsDue for F {
    fn is_due(&self, clone: ExportId, view: u64) -> bool {
        self(clone, view)
    }
}

/// Who may still hold handles into former views of clones.
pub trait ViewUses: Send + Sync + 'static {
    /// From this uptime on nothing that clients did is missing here: the start at first.
    fn complete_since(&self) -> Duration;

    /// When something was last resolved in a former view of a clone; `None`: never since
    /// [`complete_since`](Self::complete_since).
    fn last_resolved(&self, clone: ExportId, view: u64) -> Option<Duration>;

    /// When the last of the clients that used the clone while it showed `view`, or an earlier view, mounted
    /// it anew or unmounted it; `None` if one has not. If there were no such clients: zero.
    fn left_since(&self, clone: ExportId, view: u64) -> Option<Duration>;

    /// Clients that something was resolved for in a former view, or that may hold handles into it, at most `limit`.
    fn clients(&self, clone: ExportId, view: u64, limit: usize) -> Vec<IpAddr>;

    /// Forget all clones, and all former views, that are not there any more.
    fn keep_only(&self, is_there: &dyn Fn(ExportId, Option<u64>) -> bool);
}

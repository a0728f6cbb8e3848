//! `mimeo fsck`: whether what a store holds fits together.
//!
//! Owns the judgement; what is judged is read through the same code that serves it. Checked are: every
//! row of the index of private writes, and the places in the log that they refer to; counts and live
//! bytes against what can be counted; every sealed layer that the catalog names; every view, tree
//! against tree (`view`); the manifest of every version. With `read_data` also every private byte,
//! every page and every chunk.
//!
//! It changes nothing that the start of a daemon would not change. It wants the store for itself: what
//! is written meanwhile looks like damage. Time is proportional to the private state of all clones,
//! not to their images; memory to that of one view.
//!
//! Failure story: damage is a [`Violation`], and what it does not touch is checked further. An error
//! says that the check itself could not be made.

mod data;
mod layer;
mod report;
mod rows;
mod stack;
#[cfg(test)]
pub(super) mod tests;
mod versions;
mod view;
mod violation;

pub use report::{Checked, MAX_LISTED, Report};
pub use violation::{LayerFlaw, NameFlaw, NodeFlaw, OverlayFlaw, Owner, SegmentFlaw, ViewFlaw, ViewName, Violation};

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::chunk::{ChunkSource, Fetch};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Catalog, ImageId, State, VersionNumber};
use crate::manifest::Manifest;
use crate::meta::{Durability, KvStore};
use crate::overlay::OverlayStore;
use crate::overlay::check::{Row, scan};

/// How thorough a check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Read and verify private data, pages and chunks too.
    pub read_data: bool,
}

/// Check a store that nobody writes to.
pub async fn check(
    catalog: &Arc<Catalog>,
    overlays: &Arc<OverlayStore>,
    chunks: Arc<dyn ChunkSource>,
    options: Options,
) -> Result<Report> {
    let flushed = overlays.flush(Durability::Buffered).await;
    let (state, overlays) = (catalog.state(), overlays.clone());
    let work = move || match flushed {
        Ok(()) => Store { state: &state, overlays: &overlays, chunks: &chunks, read_data: options.read_data }.check(),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            let mut report = Report::default();
            overlays.scan_rows(&mut |row| note_undecodable(&row, &mut report))?;
            report.add(Violation::unopenable(&error));
            Ok(report)
        }
        Err(error) => Err(error),
    };
    let checked = tokio::task::spawn_blocking(work).await;
    checked.map_err(|e| Error::internal("the check of the store died").because(e))?
}

/// Look at the rows alone of an index of private writes: for a store that does not open. Blocks.
pub fn check_rows(index: &dyn KvStore) -> Result<Report> {
    let mut report = Report::default();
    scan(index, &mut |row| note_undecodable(&row, &mut report))?;
    Ok(report)
}

fn note_undecodable(row: &Row<'_>, report: &mut Report) {
    if let Row::Undecodable { table, key } = row {
        report.add(Violation::Row { table, key: key.to_vec() });
    }
}

/// What is checked, on a thread that may block.
struct Store<'a> {
    state: &'a State,
    overlays: &'a OverlayStore,
    chunks: &'a Arc<dyn ChunkSource>,
    read_data: bool,
}

impl Store<'_> {
    fn check(&self) -> Result<Report> {
        let mut report = Report::default();
        let named = self.state.overlay_roots().into_keys().collect();
        let overlays = rows::check(self, &named, &mut report)?;
        let views = stack::collect(self, &overlays, &mut report);
        view::check_all(self, &views, &mut report)?;
        versions::check_all(self, &mut report)?;
        Ok(report)
    }

    fn manifest(&self, image: ImageId, number: VersionNumber) -> Result<Manifest> {
        let version = self.state.version(image, number);
        let version =
            version.ok_or_else(|| Error::not_found(format!("version {}", self.version_name(image, number))))?;
        Fetch::new(&**self.chunks).run_blocking(|fetch| Manifest::open(fetch, &version.manifest))
    }

    fn version_name(&self, image: ImageId, number: VersionNumber) -> String {
        let image =
            self.state.image(image).map_or_else(|| format!("image {}", image.0), |image| image.name.to_string());
        format!("{image}@v{number}")
    }
}

/// What is wrong, if an error says that something that is kept is not as it should be.
fn damage(error: Error) -> Result<String> {
    if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io | ErrorKind::NotFound | ErrorKind::Invalid) {
        return Err(error);
    }
    Ok(what(&error))
}

/// An error without its remedy: what to do is the violation's to say.
fn what(error: &Error) -> String {
    let mut what = error.what().to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let text = next.to_string();
        if !what.contains(&text) {
            what = format!("{what}: {text}");
        }
        cause = next.source();
    }
    what
}

/// Run a future on a thread that may block.
fn wait<T>(future: impl Future<Output = T>) -> T {
    Handle::current().block_on(future)
}

//! Import: a folder becomes a version.
//!
//! Owns the walk of the source, the cutting of its files by several threads, and the identity rules
//! of a re-import (`docs/semantics.md`). Two phases:
//!
//! 1. [`walk`] goes through the folder in path order (names sorted by bytes, a directory before what
//!    is in it) and numbers what it finds; [`content`] reads and cuts the files, on several threads.
//!    Everything found is staged in the chunk session's scratch space, sorted by key, so memory does
//!    not grow with the tree.
//! 2. [`finish`] goes through the staged nodes in path order, decides which inode numbers are kept,
//!    and writes the manifest. One change set publishes the version.
//!
//! Invariants: all or nothing; a source that changes while it is read fails the import; the base of
//! identity is the image's newest version, and is still that when the new one is published.
//!
//! Failure story: whatever fails before the session commits, the session is dropped and its packs go
//! away. Between that commit and the change set there is a moment in which a crash leaves chunks that
//! no version names; they cost space, nothing else.

pub(super) mod content;
pub(super) mod finish;
pub(super) mod identity;
mod layout;
pub(super) mod publish;
mod source;
pub(super) mod stage;
mod walk;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

pub use self::layout::Part;

use crate::chunk::{ChunkStore, Session};
use crate::env::{Env, Time};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Catalog, ImageId, ImageRecord, Labels, State, VersionRecord, check_name};
use crate::manifest::{ManifestId, ManifestStats, NameSeed};

/// What an import works with.
#[derive(Clone)]
pub struct ImportContext {
    pub catalog: Arc<Catalog>,
    pub chunks: Arc<ChunkStore>,
    pub env: Env,
    /// Threads that read and cut files; at least 1.
    pub threads: usize,
    pub running: Arc<Running>,
}

/// The images that are being imported: one import of each at a time, or the later one would have
/// read everything for nothing.
#[derive(Default)]
pub struct Running(Mutex<BTreeSet<String>>);

impl Running {
    pub(super) fn enter(self: &Arc<Self>, image: &str) -> Result<Turn> {
        if !self.0.lock().insert(image.to_owned()) {
            return Err(Error::new(ErrorKind::Conflict, format!("image {image} is being imported already"))
                .remedy("wait for that import, or cancel it"));
        }
        Ok(Turn { running: self.clone(), image: image.to_owned() })
    }
}

/// The right to import one image; ends when dropped.
pub(super) struct Turn {
    running: Arc<Running>,
    image: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.running.0.lock().remove(&self.image);
    }
}

/// What is to be imported.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    pub image: String,
    /// A folder on the daemon's machine.
    pub source: PathBuf,
    pub labels: Labels,
    pub author: String,
    /// `application`, `crash` or `unknown`.
    pub consistency: String,
    /// What is to lie in packs before all else, in this order.
    pub layout: Vec<Part>,
}

/// What an import did.
#[derive(Clone, Debug)]
pub struct ImportDone {
    pub image: String,
    pub version: Arc<VersionRecord>,
    pub stats: ManifestStats,
    /// Inodes taken over from the version before: same number, same handle.
    pub kept: u64,
    /// Directories that were left empty because another filesystem is mounted there.
    pub mounts_skipped: u64,
}

/// How far an import is. Read by anybody at any time.
#[derive(Default)]
pub struct Progress {
    pub inodes_found: AtomicU64,
    pub inodes_done: AtomicU64,
    pub bytes_found: AtomicU64,
    pub bytes_done: AtomicU64,
    phase: AtomicU8,
    cancelled: AtomicBool,
}

impl Progress {
    /// `reading`, `sorting` or `publishing`.
    pub fn phase(&self) -> &'static str {
        match self.phase.load(Ordering::Relaxed) {
            0 => "reading",
            1 => "sorting",
            _ => "publishing",
        }
    }

    pub(super) fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
    }

    /// Make the import stop soon, with nothing done.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Unavailable, "the import was cancelled"));
        }
        Ok(())
    }
}

/// What the new version stands on.
pub(super) struct Base {
    /// Files keep their identity from it.
    pub version: Option<Arc<VersionRecord>>,
    /// It must be the image's newest, also when the new one is published.
    pub newest: bool,
    /// The image's, or a new one.
    pub seed: NameSeed,
    /// Time of the new version; later than anything that the base serves.
    pub now: Time,
}

/// What both phases left behind: everything but the commit.
pub(super) struct Built {
    pub session: Session,
    pub manifest: ManifestId,
    pub stats: ManifestStats,
    pub kept: u64,
    pub mounts_skipped: u64,
}

/// Import `request.source` as the next version of `request.image`.
///
/// # Errors
/// `Invalid` for a bad name, or a source that is no folder, empty, or holds what cannot be imported;
/// `Conflict` for a source that changed meanwhile or an image that got another version meanwhile;
/// `NoSpace` for a full disk. Nothing is left behind in any case.
pub async fn run_import(
    context: &ImportContext,
    request: ImportRequest,
    progress: Arc<Progress>,
) -> Result<ImportDone> {
    check_name("image", &request.image)?;
    let _turn = context.running.enter(&request.image)?;
    let base = Arc::new(find_base(context, &request.image));
    let session = context.chunks.begin()?;
    let work = {
        let (context, base, progress) = (context.clone(), base.clone(), progress.clone());
        let request = request.clone();
        move || build(&context, &request, &base, session, &progress)
    };
    let built = tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("the import's thread failed").because(e))??;
    progress.check()?;
    progress.enter(2);
    // Once more, cheaply, before the packs are there to stay.
    publish::check_base(&context.catalog.state(), &request.image, &base)?;
    let bytes_added = built.session.commit().await?.bytes_stored;
    let image = request.image.clone();
    let draft = publish::VersionDraft {
        image: request.image,
        source: request.source.display().to_string(),
        author: request.author,
        labels: request.labels,
        consistency: request.consistency,
        base,
        manifest: built.manifest,
        stats: built.stats,
        bytes_added,
    };
    let version = publish::publish(&context.catalog, draft).await?;
    Ok(ImportDone { image, version, stats: built.stats, kept: built.kept, mounts_skipped: built.mounts_skipped })
}

fn find_base(context: &ImportContext, name: &str) -> Base {
    let state = context.catalog.state();
    let newest = state.image_named(name).and_then(|image| identity_base(&state, image.id));
    Base::new(context, &state, name, newest.cloned(), true)
}

impl Base {
    /// For the next version of image `name`, which may not be there yet.
    pub(super) fn new(
        context: &ImportContext,
        state: &State,
        name: &str,
        version: Option<Arc<VersionRecord>>,
        newest: bool,
    ) -> Self {
        let image: Option<&Arc<ImageRecord>> = state.image_named(name);
        let mut fresh = [0; 16];
        context.env.rng.fill(&mut fresh);
        let seed = NameSeed(image.map_or(fresh, |image| image.name_seed));
        let former = image.and_then(|image| identity_base(state, image.id));
        let now = context.env.clock.now().max(former.map_or(Time::default(), |former| former.created.next()));
        Self { version, newest, seed, now }
    }
}

/// The version that files keep their identity from: the newest that is stored, also one that was
/// removed by name, as long as clones show it.
fn identity_base(state: &State, image: ImageId) -> Option<&Arc<VersionRecord>> {
    state.versions_of(image).next_back()
}

/// Both phases, on a thread that may block.
fn build(
    context: &ImportContext,
    request: &ImportRequest,
    base: &Base,
    session: Session,
    progress: &Progress,
) -> Result<Built> {
    let source = &request.source;
    let root = source::open_root(source)?;
    if !request.layout.is_empty() {
        layout::lay_out(&root, &session, &request.layout, progress)?;
    }
    let found = content::read_tree(&root, &session, context.threads.max(1), progress)?;
    if found.nodes == 1 {
        return Err(Error::invalid(format!("the source {} is empty", source.display()))
            .remedy("name a folder with something in it"));
    }
    progress.enter(1);
    let finished = finish::finish(context, base, &session, found.nodes, progress)?;
    Ok(Built {
        session,
        manifest: finished.manifest,
        stats: finished.stats,
        kept: finished.kept,
        mounts_skipped: found.mounts_skipped,
    })
}

/// Error for a source that moved under the import.
fn changed(path: &Path) -> Error {
    Error::new(ErrorKind::Conflict, format!("{} changed while it was read", path.display()))
        .remedy("import from a source that stands still, a snapshot for example")
}

//! What the clients do, and over what: a recorded boot, and the folder that it is replayed on.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mimeo::trace::{Call, Header, Item, NameVerb, Trace, Verb, WorkingSet, Writer};

/// A recorded boot on a golden folder.
pub struct Load {
    /// What it is called in tables.
    pub name: &'static str,
    /// What it is called in names of images, exports and files.
    pub key: &'static str,
    pub trace: PathBuf,
    /// The same calls, of which all go well: a server that knows no files answers so.
    pub null_trace: PathBuf,
    /// What is imported, copied, and compared with.
    pub source: PathBuf,
    /// Bytes that it reads, each once.
    pub working_set: u64,
    /// What it changes, so that it has to be put back before it is replayed again; none if it writes in place only.
    pub changed: Vec<PathBuf>,
    /// More clients than these do not run it.
    pub most_clients: u32,
}

impl Load {
    /// The recorded boot `name`.trace of `traces`.
    pub fn new(
        (name, key): (&'static str, &'static str),
        traces: &Path,
        source: &Path,
        scratch: &Path,
        most_clients: u32,
    ) -> Result<Self> {
        let trace = traces.join(format!("{key}.trace"));
        let file = File::open(&trace).with_context(|| format!("{}", trace.display()))?;
        let recorded = Trace::read(key, file)?;
        let null_trace = scratch.join(format!("{key}.trace"));
        write_without_errors(&recorded, &null_trace)?;
        let working_set = WorkingSet::of(&recorded).bytes();
        let changed = changed(&recorded);
        // Absolute, as commands run elsewhere.
        let (trace, source) = (fs::canonicalize(trace)?, fs::canonicalize(source)?);
        Ok(Self { name, key, trace, null_trace, source, working_set, changed, most_clients })
    }

    /// Whether all that it changes are bytes of files.
    pub fn writes_in_place(&self) -> bool {
        self.changed.is_empty()
    }
}

/// The trace, with success for every answer.
fn write_without_errors(trace: &Trace, to: &Path) -> Result<()> {
    let mut writer = Writer::new(File::create(to)?, &Header::default())?;
    for node in trace.nodes().iter().skip(1) {
        writer.item(&Item::Node(node.clone()))?;
    }
    for op in trace.ops() {
        let mut op = op.clone();
        op.status = 0;
        writer.item(&Item::Op(op))?;
    }
    writer.finish(0)?;
    Ok(())
}

/// Names that it makes, removes or moves, and the files that it writes to if there are such names.
fn changed(trace: &Trace) -> Vec<PathBuf> {
    let mut names = BTreeSet::new();
    let mut written = BTreeSet::new();
    let path = |node| trace.path(node).map(|path| PathBuf::from(OsStr::from_bytes(&path)));
    let named = |dir, name: &[u8]| Some(path(dir)?.join(OsStr::from_bytes(name)));
    for op in trace.ops().iter().filter(|op| op.is_ok()) {
        match &op.call {
            Call::Name { verb: NameVerb::Lookup, .. } | Call::Mount => {}
            Call::Name { dir, name, .. } | Call::Link { dir, name, .. } => names.extend(named(*dir, name)),
            Call::Rename { from_dir, from, to_dir, to } => {
                names.extend(named(*from_dir, from));
                names.extend(named(*to_dir, to));
            }
            Call::Object { object, verb: Verb::Write { .. } } => written.extend(path(*object)),
            Call::Object { .. } => {}
        }
    }
    if !names.is_empty() {
        names.extend(written);
    }
    names.into_iter().filter(|path| path.parent().is_some()).collect()
}

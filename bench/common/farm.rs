//! A farm to load: a daemon with one image, its clones, and the handles of their files.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::daemon::Daemon;
use super::tree::TreeFile;
use super::wire::Client;

const IMAGE: &str = "golden";
/// What warming reads at a time.
const WARM_READ: u32 = 1024 * 1024;

pub type Handle = Vec<u8>;

/// Handles of one clone. Those of its files are in the order of [`Farm::files`].
pub struct CloneHandles {
    dirs: HashMap<String, Handle>,
    pub files: Vec<Handle>,
}

impl CloneHandles {
    /// The handle of a directory that holds a file, or of one above it; the root is "".
    pub fn dir(&self, path: &str) -> &Handle {
        &self.dirs[path]
    }
}

pub struct Farm {
    pub files: Vec<TreeFile>,
    pub clones: Vec<CloneHandles>,
}

impl Farm {
    /// Import `source`, make `clones` clones and look up `files` in each of them.
    pub fn set_up(daemon: &Daemon, source: &Path, files: Vec<TreeFile>, clones: usize) -> Result<Self> {
        daemon.command(&["image", "import", IMAGE, &source.display().to_string()])?;
        let count = clones.to_string();
        daemon.command(&["clone", "create", IMAGE, "--count", &count, "--name", "desk-{:04}"])?;
        let mut client = Client::connect(daemon.address)?;
        let listed = daemon.command(&["clone", "ls"])?;
        let exports: Vec<String> = listed["clones"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|clone| clone["export"].as_str())
            .map(Into::into)
            .collect();
        ensure!(exports.len() == clones, "{} clones instead of {clones}", exports.len());
        let roots = client.mount_all(&exports)?;
        let clones = roots.into_iter().map(|root| resolve(&mut client, root, &files)).collect::<Result<_>>()?;
        Ok(Self { files, clones })
    }

    /// Handles that only a server accepts which looks at none.
    pub fn made_up(files: Vec<TreeFile>, clones: usize) -> Self {
        const LEN: usize = 48;
        let dirs = files.iter().flat_map(|file| ancestors(&file.dir)).chain([""]);
        let dirs: HashMap<_, _> = dirs.map(|dir| (dir.to_owned(), vec![0x64; LEN])).collect();
        let clone = |_| CloneHandles { dirs: dirs.clone(), files: vec![vec![0x66; LEN]; files.len()] };
        Self { clones: (0..clones).map(clone).collect(), files }
    }

    /// Read every file once, so that all is in the server's cache, and compare it with its source.
    pub fn warm(&self, daemon: &Daemon, source: &Path) -> Result<()> {
        let mut client = Client::connect(daemon.address)?;
        for (file, handle) in self.files.iter().zip(&self.clones[0].files) {
            let served = client.read_file(handle, file.size, WARM_READ)?;
            ensure!(served == fs::read(file.path_in(source))?, "{}/{} is served with other bytes", file.dir, file.name);
        }
        Ok(())
    }
}

/// Look up all directories, level by level, then the files.
fn resolve(client: &mut Client, root: Handle, files: &[TreeFile]) -> Result<CloneHandles> {
    let mut dirs = HashMap::from([(String::new(), root)]);
    let wanted: BTreeSet<&str> = files.iter().flat_map(|file| ancestors(&file.dir)).collect();
    let deepest = wanted.iter().map(|dir| depth(dir)).max().unwrap_or(0);
    for level in 0..=deepest {
        let here: Vec<_> = wanted.iter().copied().filter(|dir| depth(dir) == level).collect();
        let handles = client.lookup_all(here.iter().map(|dir| {
            let (parent, name) = dir.rsplit_once('/').unwrap_or(("", dir));
            (dirs[parent].as_slice(), name)
        }))?;
        dirs.extend(here.into_iter().map(String::from).zip(handles));
    }
    let files = client.lookup_all(files.iter().map(|file| (dirs[&file.dir].as_slice(), file.name.as_str())))?;
    Ok(CloneHandles { dirs, files })
}

/// `a`, `a/b` and `a/b/c` for `a/b/c`; nothing for the root.
fn ancestors(dir: &str) -> impl Iterator<Item = &str> {
    let ends = dir.match_indices('/').map(|(at, _)| at).chain([dir.len()]);
    ends.filter(|end| *end > 0).map(move |end| &dir[..end])
}

fn depth(dir: &str) -> usize {
    dir.matches('/').count()
}

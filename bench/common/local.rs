//! How a fleet of folders is switched without a NAS that can: on a local filesystem, one clone after another.
//!
//! Each way ends with a sync, so that all has been made durable when it returns, as a repoint is. None of
//! them is all-or-none: a crash, or whoever looks meanwhile, finds some clones switched and others not.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::loop_fs::run;
use super::tree::{self, TreeFile};

/// What is done to each clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is a symlink to a tree: make another beside it, and rename that over it.
    Symlink,
    /// It is a directory, and that of the other version lies ready: two renames.
    Rename,
    /// `cp -r --reflink=always` of the other version's tree, then two renames.
    Copy,
}

/// Clones, made in one of the ways, on a filesystem.
pub struct LocalFleet {
    way: Way,
    dir: PathBuf,
    trees: [PathBuf; 2],
    clones: usize,
    /// A file that differs between the versions, below each clone.
    file: PathBuf,
}

/// Both versions of a tree, for all fleets on a filesystem.
pub fn write_trees(root: &Path, files: &[TreeFile], every: usize) -> Result<[PathBuf; 2]> {
    let trees = [root.join("v1"), root.join("v2")];
    tree::write(&trees[0], files)?;
    run(Command::new("cp").arg("-a").args(&trees))?;
    tree::patch(&trees[1], files, every)?;
    Ok(trees)
}

impl LocalFleet {
    /// So many clones, at version 0 of `trees`. `marker` is a file that differs between these.
    pub fn make(way: Way, root: &Path, trees: &[PathBuf; 2], marker: &TreeFile, clones: usize) -> Result<Self> {
        let dir = root.join(format!("{way:?}-{clones}"));
        fs::create_dir(&dir)?;
        let below = Path::new(&marker.dir).join(&marker.name);
        let file = if way == Way::Rename { PathBuf::from("file") } else { below.clone() };
        let fleet = Self { way, dir, trees: trees.clone(), clones, file };
        for i in 0..clones {
            match way {
                Way::Symlink => symlink(&trees[0], fleet.clone(i))?,
                // What a rename takes does not depend on what is below: one file, a link to that of the tree.
                Way::Rename => {
                    for (place, tree) in [fleet.clone(i), fleet.beside(i, 1)].iter().zip(trees) {
                        fs::create_dir(place)?;
                        fs::hard_link(tree.join(&below), place.join("file"))?;
                    }
                }
                Way::Copy => copy(&trees[0], &fleet.clone(i))?,
            }
        }
        rustix::fs::syncfs(File::open(&fleet.dir)?)?;
        Ok(fleet)
    }

    pub fn clones(&self) -> usize {
        self.clones
    }

    pub fn way(&self) -> Way {
        self.way
    }

    fn clone(&self, i: usize) -> PathBuf {
        self.dir.join(format!("desk-{i:06}"))
    }

    /// Where the directory of this version is while the clone shows another one.
    fn beside(&self, i: usize, version: usize) -> PathBuf {
        self.dir.join(format!("desk-{i:06}.v{version}"))
    }

    /// The file of clone `i` that tells which version it shows.
    pub fn marker(&self, i: usize) -> PathBuf {
        self.clone(i).join(&self.file)
    }

    /// From the other version to this one, durably.
    pub fn switch(&self, to: usize) -> Result<()> {
        for i in 0..self.clones {
            match self.way {
                Way::Symlink => {
                    let new = self.beside(i, to);
                    symlink(&self.trees[to], &new)?;
                    fs::rename(&new, self.clone(i))?;
                }
                Way::Rename => self.exchange(i, to)?,
                Way::Copy => {
                    copy(&self.trees[to], &self.beside(i, to))?;
                    self.exchange(i, to)?;
                }
            }
        }
        let dir = File::open(&self.dir)?;
        match self.way {
            Way::Symlink | Way::Rename => dir.sync_all()?,
            Way::Copy => rustix::fs::syncfs(dir)?,
        }
        Ok(())
    }

    fn exchange(&self, i: usize, to: usize) -> Result<()> {
        fs::rename(self.clone(i), self.beside(i, 1 - to))?;
        Ok(fs::rename(self.beside(i, to), self.clone(i))?)
    }

    /// Let copies show version 0 again, which lies beside them, and remove the others.
    pub fn put_copies_back(&self) -> Result<()> {
        for i in 0..self.clones {
            self.exchange(i, 0)?;
            fs::remove_dir_all(self.beside(i, 1))?;
        }
        Ok(rustix::fs::syncfs(File::open(&self.dir)?)?)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(["-r", "--reflink=always"]).arg(from).arg(to))
}

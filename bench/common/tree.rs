//! Trees and disk images to import: the same bytes for the same seed, and none that compress.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

const KIB: f64 = 1024.0;
/// Files are this long at least; the longest has 1,024 times as much.
const SHORTEST: f64 = 4.0 * KIB;
/// Files of one directory.
const FILES_PER_DIR: usize = 50;

/// A file of a tree, as an importer and a client find it.
#[derive(Clone, Debug)]
pub struct TreeFile {
    /// Path of its directory below the tree's root; empty for the root itself.
    pub dir: String,
    pub name: String,
    pub size: u64,
}

impl TreeFile {
    pub fn path_in(&self, root: &Path) -> PathBuf {
        root.join(&self.dir).join(&self.name)
    }

    /// The bytes that it is generated with, or those of a later version.
    fn content(&self, version: u64) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.dir.as_bytes()).update(self.name.as_bytes()).update(&version.to_le_bytes());
        let seed = hasher.finalize().as_bytes()[..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        noise(seed, self.size as usize)
    }
}

/// Incompressible bytes.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// The files of a tree of `count`: 4 KiB to 4 MiB each, many short and few long, 260 KiB on average.
pub fn plan(count: usize, seed: u64) -> Vec<TreeFile> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let plan_one = |i: usize| TreeFile {
        dir: format!("dir-{:03}", i / FILES_PER_DIR),
        name: format!("file-{i:05}.bin"),
        size: (SHORTEST * KIB.powf(rng.random::<f64>().powf(2.5))) as u64,
    };
    (0..count).map(plan_one).collect()
}

/// Write the files under `root`.
pub fn write(root: &Path, files: &[TreeFile]) -> Result<()> {
    for file in files {
        fs::create_dir_all(root.join(&file.dir))?;
        fs::write(file.path_in(root), file.content(0))?;
    }
    Ok(())
}

/// Replace one file in `every` by other bytes of the same length; the bytes of the changed files.
pub fn patch(root: &Path, files: &[TreeFile], every: usize) -> Result<u64> {
    let mut changed = 0;
    for file in files.iter().step_by(every) {
        fs::write(file.path_in(root), file.content(1))?;
        changed += file.size;
    }
    Ok(changed)
}

/// The regular files of a real tree, on one filesystem, in path order; of hard links one, as an import
/// reads the bytes once. Those whose path is not UTF-8 are left out.
pub fn scan(root: &Path) -> Result<Vec<TreeFile>> {
    let device = fs::symlink_metadata(root)?.dev();
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root.join(&dir))? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let (Some(parent), Ok(name)) = (dir.to_str(), entry.file_name().into_string()) else { continue };
            if metadata.is_dir() && metadata.dev() == device {
                dirs.push(dir.join(name));
            } else if metadata.is_file() && seen.insert(metadata.ino()) {
                found.push(TreeFile { dir: parent.into(), name, size: metadata.len() });
            }
        }
    }
    found.sort_by(|a, b| (&a.dir, &a.name).cmp(&(&b.dir, &b.name)));
    Ok(found)
}

/// Block of a disk image, as the chunk store cuts it.
pub const DISK_BLOCK: u64 = 64 * 1024;

/// Blocks that are filled in a row, and holes after them.
const RUN: u64 = 64;

/// The `n`th block of a disk image that is not a hole.
fn filled_block(n: u64) -> u64 {
    n / RUN * 2 * RUN + n % RUN
}

/// A sparse raw disk image of `blocks` blocks, a multiple of 128: noise and holes by turns.
pub fn write_disk(path: &Path, blocks: u64, seed: u64) -> Result<()> {
    let mut disk = File::create(path)?;
    disk.set_len(blocks * DISK_BLOCK)?;
    for block in (0..blocks / 2).map(filled_block) {
        overwrite_block(&mut disk, block, DISK_BLOCK, seed.wrapping_add(block))?;
    }
    Ok(())
}

/// What a guest did to its disk.
#[derive(Clone, Copy, Debug)]
pub enum Touch {
    /// 4 KiB written into each of blocks all over the disk.
    Scattered,
    /// Blocks in a row, written whole.
    Clustered,
}

/// Touch `count` distinct filled blocks of a disk of `blocks`; how many bytes these blocks have.
pub fn touch_disk(path: &Path, blocks: u64, count: u64, touch: Touch, seed: u64) -> Result<u64> {
    let mut disk = File::options().write(true).open(path)?;
    let mut rng = SmallRng::seed_from_u64(seed);
    let stride = blocks / 2 / count;
    for i in 0..count {
        let noise_seed = seed.wrapping_add(blocks + i);
        match touch {
            Touch::Scattered => {
                let block = filled_block(i * stride + rng.random_range(0..stride));
                overwrite_block(&mut disk, block, 4096, noise_seed)?;
            }
            Touch::Clustered => overwrite_block(&mut disk, filled_block(i), DISK_BLOCK, noise_seed)?,
        }
    }
    Ok(count * DISK_BLOCK)
}

fn overwrite_block(disk: &mut File, block: u64, len: u64, seed: u64) -> Result<()> {
    disk.seek(SeekFrom::Start(block * DISK_BLOCK))?;
    Ok(disk.write_all(&noise(seed, len as usize))?)
}

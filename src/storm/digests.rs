//! A manifest of digests: what each block of each file of an image has to be (`docs/formats/digests.md`).
//!
//! Owns the file and its making from a folder. A digest is the first 16 bytes of a block's BLAKE3; blocks of
//! 4 KiB are what clients read, so nearly every READ covers whole ones. A GiB takes 4 MiB of digests, before
//! compression.
//!
//! Invariants: everything that a file says was compared with a bound before memory was taken for it.
//!
//! Failure story: a file that is cut short, damaged or of another format is refused by name.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

/// Bytes that one digest covers.
pub const BLOCK: u64 = 4096;
const MAGIC: &[u8; 8] = b"mimeoDIG";
const FORMAT: u8 = 1;
const LEVEL: i32 = 3;

/// Files of one manifest.
const MAX_FILES: usize = 4 << 20;
/// Longest path, in bytes.
const MAX_PATH: usize = 4096;
/// Digests of one manifest: 1 TiB of data.
const MAX_DIGESTS: u64 = (1 << 40) / BLOCK;

type Digest = [u8; 16];

fn digest(block: &[u8]) -> Digest {
    *blake3::hash(block).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileDigests {
    pub size: u64,
    blocks: Vec<Digest>,
}

impl FileDigests {
    /// Whether `bytes`, all of one block, are what is at `start`; `None` if they are only a part of the block,
    /// or lie behind the end of a file that `may_have_grown`.
    pub fn matches(&self, start: u64, bytes: &[u8], may_have_grown: bool) -> Option<bool> {
        let block = start / BLOCK;
        let Some(digest_of_block) = usize::try_from(block).ok().and_then(|i| self.blocks.get(i)) else {
            return (!may_have_grown).then_some(false);
        };
        let len = (self.size - block * BLOCK).min(BLOCK);
        let end = start % BLOCK + bytes.len() as u64;
        if end > len {
            return (!may_have_grown).then_some(false);
        }
        let whole = start.is_multiple_of(BLOCK) && end == len;
        whole.then(|| digest(bytes) == *digest_of_block)
    }

    fn of(mut content: impl Read) -> io::Result<Self> {
        let mut file = Self::default();
        let mut block = vec![0; BLOCK as usize];
        loop {
            let n = fill(&mut content, &mut block)?;
            if n == 0 {
                return Ok(file);
            }
            file.blocks.push(digest(&block[..n]));
            file.size += n as u64;
        }
    }
}

/// As much as there is.
fn fill(from: &mut impl Read, to: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < to.len() {
        match from.read(&mut to[len..])? {
            0 => break,
            n => len += n,
        }
    }
    Ok(len)
}

/// Digests of the regular files of one image, by path from its root, without a leading slash.
#[derive(Clone, Debug, Default)]
pub struct Digests {
    files: HashMap<Vec<u8>, Arc<FileDigests>>,
}

impl Digests {
    pub fn get(&self, path: &[u8]) -> Option<Arc<FileDigests>> {
        self.files.get(path).cloned()
    }

    /// Of a folder, or of a manifest file.
    pub fn open(path: &Path) -> Result<Self> {
        let unreadable = |e| Error::io(format!("manifest {}", path.display()), e);
        if fs::metadata(path).map_err(unreadable)?.is_dir() {
            return Self::of_folder(path);
        }
        let file = File::open(path).map_err(unreadable)?;
        Self::read(BufReader::new(file)).map_err(|e| {
            Error::new(e.kind(), format!("manifest {}", path.display()))
                .because(e)
                .remedy("give a folder, or a file that `mimeo storm manifest` made")
        })
    }

    /// Of all regular files below `root`.
    pub fn of_folder(root: &Path) -> Result<Self> {
        let mut digests = Self::default();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let unreadable = |e| Error::io(format!("folder {}", root.join(&folder).display()), e);
            for entry in fs::read_dir(root.join(&folder)).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let kind = entry.file_type().map_err(unreadable)?;
                let path = folder.join(entry.file_name());
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    digests.add_file(root, &path)?;
                }
            }
        }
        Ok(digests)
    }

    fn add_file(&mut self, root: &Path, path: &Path) -> Result<()> {
        let full = root.join(path);
        let file = File::open(&full).and_then(FileDigests::of);
        let file = file.map_err(|e| Error::io(format!("file {}", full.display()), e))?;
        self.files.insert(path.as_os_str().as_bytes().to_vec(), Arc::new(file));
        Ok(())
    }

    pub fn files(&self) -> usize {
        self.files.len()
    }

    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }

    /// Write it as a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let unwritten = |e| Error::io(format!("manifest {}", path.display()), e);
        let file = File::create(path).map_err(unwritten)?;
        let mut to = self.write(BufWriter::new(file)).map_err(unwritten)?;
        to.flush().map_err(unwritten)
    }

    /// In the order of the paths, so that the same folder gives the same file.
    fn write<W: Write>(&self, mut to: W) -> io::Result<W> {
        to.write_all(MAGIC)?;
        to.write_all(&[FORMAT])?;
        let mut body = zstd::Encoder::new(to, LEVEL)?;
        body.include_checksum(true)?;
        let mut paths: Vec<&Vec<u8>> = self.files.keys().collect();
        paths.sort_unstable();
        for path in paths {
            let file = &self.files[path];
            let len = u16::try_from(path.len()).map_err(io::Error::other)?;
            body.write_all(&len.to_be_bytes())?;
            body.write_all(path)?;
            body.write_all(&file.size.to_be_bytes())?;
            file.blocks.iter().try_for_each(|block| body.write_all(block))?;
        }
        body.write_all(&0u16.to_be_bytes())?;
        body.finish()
    }

    fn read(mut from: impl Read) -> Result<Self> {
        let mut start = [0; MAGIC.len() + 1];
        from.read_exact(&mut start).map_err(|e| Error::corrupt("it is no manifest of digests").because(e))?;
        if start[..MAGIC.len()] != MAGIC[..] {
            return Err(Error::corrupt("it is no manifest of digests"));
        }
        if start[MAGIC.len()] != FORMAT {
            return Err(Error::corrupt(format!(
                "its format is {}, this mimeo reads {FORMAT} only",
                start[MAGIC.len()]
            )));
        }
        let mut body = BufReader::new(zstd::Decoder::new(from).map_err(damaged)?);
        let (mut digests, mut room) = (Self::default(), MAX_DIGESTS);
        while let Some((path, size)) = next_file(&mut body)? {
            let blocks = size.div_ceil(BLOCK);
            room = room.checked_sub(blocks).ok_or_else(|| Error::corrupt("it has more than 1 TiB of data"))?;
            if digests.files.len() == MAX_FILES {
                return Err(Error::corrupt(format!("it has more than {MAX_FILES} files")));
            }
            let file = FileDigests { size, blocks: take_digests(&mut body, blocks)? };
            digests.files.insert(path, Arc::new(file));
        }
        // Only at the end of the frame is its checksum compared.
        match body.read(&mut [0]).map_err(damaged)? {
            0 => Ok(digests),
            _ => Err(Error::corrupt("something follows its end")),
        }
    }
}

/// Digests that are really there: memory grows with what is read, not with what is promised.
fn take_digests(from: &mut impl Read, count: u64) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    for _ in 0..count {
        let mut digest = Digest::default();
        from.read_exact(&mut digest).map_err(damaged)?;
        digests.push(digest);
    }
    Ok(digests)
}

/// A file's path and size; `None` behind the last.
fn next_file(from: &mut impl Read) -> Result<Option<(Vec<u8>, u64)>> {
    let (mut len, mut size) = ([0; 2], [0; 8]);
    from.read_exact(&mut len).map_err(damaged)?;
    let len = usize::from(u16::from_be_bytes(len));
    if len == 0 {
        return Ok(None);
    }
    if len > MAX_PATH {
        return Err(Error::corrupt(format!("it has a path of {len} bytes, at most {MAX_PATH}")));
    }
    let mut path = vec![0; len];
    from.read_exact(&mut path).and_then(|()| from.read_exact(&mut size)).map_err(damaged)?;
    Ok(Some((path, u64::from_be_bytes(size))))
}

fn damaged(error: io::Error) -> Error {
    Error::corrupt("it is damaged or cut short").because(error)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn digests_of(files: &[(&str, &[u8])]) -> Digests {
        let of = |content: &[u8]| Arc::new(FileDigests::of(content).unwrap());
        Digests { files: files.iter().map(|(path, content)| (path.as_bytes().to_vec(), of(content))).collect() }
    }

    fn sample() -> Digests {
        digests_of(&[("a", &[1; 10_000]), ("b/c", b""), ("b/d", &[2; 4096])])
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = sample().write(Vec::new()).unwrap();
        assert_eq!(Digests::read(&bytes[..]).unwrap().files, sample().files);
        assert_eq!((sample().files(), sample().bytes()), (3, 14_096));
    }

    #[test]
    fn damage_is_refused() {
        let bytes = sample().write(Vec::new()).unwrap();
        for cut in 0..bytes.len() {
            assert!(Digests::read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut other = bytes.clone();
        other[8] = 2;
        assert!(Digests::read(&other[..]).unwrap_err().to_string().contains("format"));
        let mut flipped = bytes;
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x10;
        assert!(Digests::read(&flipped[..]).is_err());
    }

    #[test]
    fn a_folder_and_its_manifest_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        for (name, content) in [("a", &[1u8; 10_000][..]), ("b/c", b""), ("b/d", &[2; 4096])] {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let digests = Digests::open(dir.path()).unwrap();
        assert_eq!(digests.files, sample().files);
        let file = dir.path().join("digests");
        digests.save(&file).unwrap();
        assert_eq!(Digests::open(&file).unwrap().files, sample().files);
    }
}

//! What a disk of this machine has read: `/proc/diskstats`, for servers that have no counter of their own.

use std::fs;

use crate::error::{Error, Result};

const DISKSTATS: &str = "/proc/diskstats";
/// What its counts are in, whatever the disk's own sectors are.
const SECTOR_BYTES: u64 = 512;

/// A block device by its name, such as `nvme0n1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskCounter(String);

impl DiskCounter {
    pub fn new(device: &str) -> Self {
        Self(device.trim_start_matches("/dev/").to_owned())
    }

    /// Bytes that were read from it since the machine started.
    pub fn bytes_read(&self) -> Result<u64> {
        let table = fs::read_to_string(DISKSTATS).map_err(|e| Error::io(DISKSTATS, e))?;
        let unknown = || {
            let what = format!("device {:?} is not in {DISKSTATS}", self.0);
            Error::not_found(what).remedy("give a name that `lsblk` lists")
        };
        sectors_read(&table, &self.0).map(|sectors| sectors * SECTOR_BYTES).ok_or_else(unknown)
    }
}

/// The sixth word of the line whose third is the device.
fn sectors_read(table: &str, device: &str) -> Option<u64> {
    let mut lines = table.lines().map(|line| line.split_ascii_whitespace());
    lines.find_map(|mut words| if words.nth(2)? == device { words.nth(2)?.parse().ok() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_are_the_sixth_word() {
        let table = " 259 0 nvme0n1 10 1 2048 5 7 0 9 1 0 0 0\n 7 0 loop0 3 0 24 0 0 0 0 0 0 0 0\n";
        assert_eq!(sectors_read(table, "nvme0n1"), Some(2048));
        assert_eq!(sectors_read(table, "loop0"), Some(24));
        assert_eq!(sectors_read(table, "sda"), None);
        assert_eq!(DiskCounter::new("/dev/sda"), DiskCounter::new("sda"));
    }
}

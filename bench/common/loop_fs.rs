//! An XFS of its own in a file: what is measured on it shares nothing with other filesystems but the disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A mounted filesystem. It goes away with the value.
pub struct LoopFs {
    dir: PathBuf,
    device: Option<String>,
}

impl LoopFs {
    /// Of at most so many GiB, in `scratch`. Needs root and `mkfs.xfs`.
    pub fn make(scratch: &Path, name: &str, gib: u64) -> Result<Self> {
        let (image, dir) = (scratch.join(format!("{name}.img")), scratch.join(name));
        File::create(&image)?.set_len(gib << 30)?;
        fs::create_dir(&dir)?;
        run(Command::new("mkfs.xfs").arg("-q").arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&dir))?;
        Ok(Self { dir, device: None })
    }

    /// The same on a device of its own past which nothing is cached: what is read of it comes from the disk, not from
    /// the page cache of its file.
    pub fn make_direct(scratch: &Path, name: &str, gib: u64) -> Result<Self> {
        let (image, dir) = (scratch.join(format!("{name}.img")), scratch.join(name));
        File::create(&image)?.set_len(gib << 30)?;
        fs::create_dir(&dir)?;
        run(Command::new("mkfs.xfs").arg("-q").arg(&image))?;
        let output = Command::new("losetup").args(["--find", "--show", "--direct-io=on"]).arg(&image).output()?;
        ensure!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr).trim());
        let device = String::from_utf8(output.stdout)?.trim().to_owned();
        let mounted = run(Command::new("mount").args(["-o", "noatime"]).arg(&device).arg(&dir));
        // It stays until it is unmounted, and no longer.
        run(Command::new("losetup").args(["--detach", &device]))?;
        mounted?;
        Ok(Self { dir, device: Some(device.trim_start_matches("/dev/").to_owned()) })
    }

    /// The name of its device, if it has one of its own.
    pub fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.dir)) {
            eprintln!("{} stays mounted: {error:#}", self.dir.display());
        }
    }
}

/// Run a command that must succeed; its error is what it says.
pub fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

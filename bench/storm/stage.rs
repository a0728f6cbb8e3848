//! The three servers, what they serve from, and fresh clones on each.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mimeo::storm::DiskCounter;

use crate::common::daemon::Daemon;
use crate::common::ganesha::{Ganesha, Script};
use crate::common::loop_fs::{LoopFs, run};
use crate::common::null_server::NullServer;
use crate::load::Load;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Null,
    Mimeo,
    Ganesha,
}

impl Kind {
    /// In the order in which people compare them.
    pub const ALL: [Self; 3] = [Self::Mimeo, Self::Ganesha, Self::Null];

    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null server",
            Self::Mimeo => "mimeo",
            Self::Ganesha => "NFS-Ganesha",
        }
    }

    /// In names of files.
    pub fn key(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Mimeo => "mimeo",
            Self::Ganesha => "ganesha",
        }
    }
}

/// A running server. It ends with the value.
pub struct Server {
    pub kind: Kind,
    pub nfs: SocketAddr,
    pub mount_port: u16,
    pub pid: u32,
    process: Process,
}

enum Process {
    Null { _server: NullServer },
    Mimeo(Daemon),
    Ganesha { _server: Ganesha },
}

impl Server {
    /// The daemon, if this is one.
    pub fn daemon(&self) -> Option<&Daemon> {
        if let Process::Mimeo(daemon) = &self.process { Some(daemon) } else { None }
    }

    /// Bytes of chunks that a daemon has read from disk, decompressed.
    pub fn bytes_loaded(&self) -> Result<Option<u64>> {
        let Some(daemon) = self.daemon() else { return Ok(None) };
        Ok(daemon.command(&["df"])?["bytes_cache_loaded"].as_u64())
    }

    pub fn stop(self) -> Result<()> {
        match self.process {
            Process::Mimeo(daemon) => daemon.stop(),
            Process::Null { .. } | Process::Ganesha { .. } => Ok(()),
        }
    }
}

/// Clones for so many clients.
#[derive(Clone)]
pub struct Fleet {
    /// What the clients mount, as `mimeo storm` takes it.
    pub export: String,
    /// How long it took to make them; nothing where they were put back only.
    pub made_in: Option<Duration>,
}

/// What the servers serve from.
pub struct Stage {
    /// Where the daemon's data is, and other clones than these.
    ours: LoopFs,
    /// Golden folders, and below `export` their copies.
    theirs: Option<(LoopFs, Script)>,
    /// A `taskset` list.
    pub server_cores: Option<String>,
    /// What the daemon's configuration has besides the benches' own.
    pub config: String,
    /// Fleets so far.
    serial: u32,
}

impl Stage {
    /// Import and copy the golden folders.
    pub fn set_up(
        scratch: &Path,
        gib: u64,
        ganesha: Option<Script>,
        server_cores: Option<String>,
        loads: &[Load],
    ) -> Result<Self> {
        let ours = LoopFs::make_direct(scratch, "ours", gib)?;
        let theirs = ganesha.map(|script| anyhow::Ok((LoopFs::make_direct(scratch, "theirs", gib)?, script)));
        let stage = Self { ours, theirs: theirs.transpose()?, server_cores, config: String::new(), serial: 0 };
        if let Some((filesystem, _)) = &stage.theirs {
            fs::create_dir(filesystem.dir().join("export"))?;
        }
        loads.iter().try_for_each(|load| stage.add(load))?;
        Ok(stage)
    }

    /// Import and copy a golden folder.
    pub fn add(&self, load: &Load) -> Result<()> {
        let server = self.start(Kind::Mimeo)?;
        let daemon = server.daemon().context("a daemon")?;
        daemon.command(&["image", "import", load.key, text(&load.source)?])?;
        server.stop()?;
        if self.theirs.is_some() {
            let golden = self.golden(load)?;
            run(Command::new("cp").args(["-a", "--sparse=always"]).arg(&load.source).arg(golden))?;
            fs::create_dir(self.copies(load)?)?;
        }
        Ok(())
    }

    pub fn kinds(&self) -> Vec<Kind> {
        let ganesha = self.theirs.as_ref().map(|_| Kind::Ganesha);
        [Kind::Null, Kind::Mimeo].into_iter().chain(ganesha).collect()
    }

    pub fn start(&self, kind: Kind) -> Result<Server> {
        let cores = self.server_cores.as_deref();
        Ok(match kind {
            Kind::Null => {
                let null = NullServer::start(cores)?;
                let (nfs, pid) = (null.address, null.pid());
                Server { kind, nfs, mount_port: nfs.port(), pid, process: Process::Null { _server: null } }
            }
            Kind::Mimeo => {
                let daemon = Daemon::start_with(&self.ours.dir().join("data"), cores, &self.config)?;
                let (nfs, pid) = (daemon.address, daemon.pid());
                Server { kind, nfs, mount_port: nfs.port(), pid, process: Process::Mimeo(daemon) }
            }
            Kind::Ganesha => {
                let (filesystem, script) = self.theirs.as_ref().context("there is no NFS-Ganesha")?;
                let ganesha = Ganesha::start(script, &filesystem.dir().join("export"), cores)?;
                let (nfs, mount_port, pid) = (ganesha.address, ganesha.mount_port, ganesha.pid);
                Server { kind, nfs, mount_port, pid, process: Process::Ganesha { _server: ganesha } }
            }
        })
    }

    /// Clones of the golden folder as it is, for so many clients. The server must not run.
    pub fn fresh(&mut self, kind: Kind, load: &Load, clients: u32) -> Result<Fleet> {
        self.serial += 1;
        match kind {
            Kind::Null => Ok(Fleet { export: "/any/{}".to_owned(), made_in: None }),
            Kind::Mimeo => self.clone_images(load, clients),
            Kind::Ganesha => {
                let copies = self.copies(load)?;
                let export = format!("{}/{{}}", text(&copies)?);
                let keep = !load.writes_in_place() && copies.join((clients - 1).to_string()).exists();
                let made_in = if keep { self.put_back(load, &copies, clients)? } else { self.copy(load, clients)? };
                Ok(Fleet { export, made_in })
            }
        }
    }

    fn clone_images(&self, load: &Load, clients: u32) -> Result<Fleet> {
        let server = self.start(Kind::Mimeo)?;
        let name = format!("{}-{}-", load.key, self.serial);
        let daemon = server.daemon().context("a daemon")?;
        let begin = Instant::now();
        daemon.command(&[
            "clone",
            "create",
            load.key,
            "--count",
            &clients.to_string(),
            "--name",
            &format!("{name}{{}}"),
        ])?;
        let made_in = Some(begin.elapsed());
        server.stop()?;
        Ok(Fleet { export: format!("/clones/{name}{{}}"), made_in })
    }

    /// The golden folder, as NFS-Ganesha's filesystem has it.
    fn golden(&self, load: &Load) -> Result<PathBuf> {
        let (filesystem, _) = self.theirs.as_ref().context("there is no NFS-Ganesha")?;
        Ok(filesystem.dir().join(load.key))
    }

    /// Where copies of a golden folder are.
    fn copies(&self, load: &Load) -> Result<PathBuf> {
        let (filesystem, _) = self.theirs.as_ref().context("there is no NFS-Ganesha")?;
        Ok(filesystem.dir().join("export").join(load.key))
    }

    /// New copies that share their blocks, one command each, as an administrator makes them.
    fn copy(&self, load: &Load, clients: u32) -> Result<Option<Duration>> {
        let copies = self.copies(load)?;
        run(Command::new("rm").arg("-rf").arg(&copies))?;
        fs::create_dir(&copies)?;
        let golden = self.golden(load)?;
        let begin = Instant::now();
        for i in 0..clients {
            run(Command::new("cp").args(["-a", "--reflink=always"]).arg(&golden).arg(copies.join(i.to_string())))?;
        }
        rustix::fs::syncfs(File::open(&copies)?)?;
        Ok(Some(begin.elapsed()))
    }

    /// Replace what a replay changed by what the golden folder has.
    fn put_back(&self, load: &Load, copies: &Path, clients: u32) -> Result<Option<Duration>> {
        let golden = self.golden(load)?;
        let there: Vec<_> = load.changed.iter().filter(|path| golden.join(path).symlink_metadata().is_ok()).collect();
        for i in 0..clients {
            let copy = copies.join(i.to_string());
            run(Command::new("rm").arg("-rf").args(&load.changed).current_dir(&copy))?;
            let mut command = Command::new("cp");
            command.args(["-a", "--reflink=always", "--parents"]).args(&there).arg(&copy).current_dir(&golden);
            if !there.is_empty() {
                run(&mut command)?;
            }
        }
        Ok(None)
    }

    /// The device that a server reads from.
    pub fn device(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Null => None,
            Kind::Mimeo => self.ours.device(),
            Kind::Ganesha => self.theirs.as_ref()?.0.device(),
        }
    }

    pub fn device_read(&self, kind: Kind) -> Result<Option<u64>> {
        Ok(self.device(kind).map(|device| DiskCounter::new(device).bytes_read()).transpose()?)
    }
}

/// Write out what is dirty and let the next reads come from the disk.
pub fn drop_page_cache() -> Result<()> {
    run(&mut Command::new("sync"))?;
    if fs::write("/proc/sys/vm/drop_caches", "3").is_err() {
        bail!("the page cache cannot be dropped: storms are cold only for root");
    }
    Ok(())
}

pub fn text(path: &Path) -> Result<&str> {
    let text = path.to_str();
    ensure!(text.is_some(), "{} is no UTF-8", path.display());
    text.context("checked")
}

//! NFS-Ganesha, started and stopped by a script that knows how (`ganesha` in the folder `NFS_CLIENT`).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::loop_fs::run;
use super::process;

/// How to start it.
#[derive(Clone)]
pub struct Script {
    /// The script itself.
    pub path: PathBuf,
    /// Where it keeps what it needs while the server runs.
    pub scratch: PathBuf,
    /// NFS is here, MOUNT at the next one.
    pub port: u16,
}

/// A running server. Dropping it stops it.
pub struct Ganesha {
    script: Script,
    pub address: SocketAddr,
    pub mount_port: u16,
    pub pid: u32,
}

impl Ganesha {
    /// Export `dir`; on `cores` (a `taskset` list), or anywhere.
    pub fn start(script: &Script, dir: &Path, cores: Option<&str>) -> Result<Self> {
        let program = script.path.to_str().context("a script with a path in UTF-8")?;
        let port = script.port.to_string();
        let mut command = process::command_on(cores, program);
        command.args(["start", "--port", &port]).arg(dir).env("VMNFS_CACHE", &script.scratch);
        run(&mut command)?;
        // What the script starts keeps its process id through exec.
        let pid = fs::read_to_string(script.scratch.join(format!("ganesha-{port}/pid")))?.trim().parse()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, script.port));
        Ok(Self { script: script.clone(), address, mount_port: script.port + 1, pid })
    }
}

impl Drop for Ganesha {
    fn drop(&mut self) {
        let Script { path, scratch, port } = &self.script;
        let mut command = std::process::Command::new(path);
        command.args(["stop", "--port", &port.to_string()]).env("VMNFS_CACHE", scratch);
        if let Err(error) = run(&mut command) {
            eprintln!("NFS-Ganesha goes on, as process {}: {error:#}", self.pid);
        }
    }
}

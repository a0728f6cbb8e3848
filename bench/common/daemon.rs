//! The release binary as users run it: `mimeo serve` on a data directory, and commands to it.

#![allow(clippy::disallowed_methods, reason = "a bench measures by the clock and waits for processes")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::process;
use super::wire::Client;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mimeo");
/// The benches are no root: their ports are above 1023.
const CONFIG: &str = "[exports]\nprivileged_port = false\n[log]\nfilter = \"warn\"\n";
/// A daemon that does not answer after so long has failed.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(1);

/// A running daemon. Dropping it stops it.
pub struct Daemon {
    child: Child,
    data: PathBuf,
    pub address: SocketAddr,
    /// From the start of the process to the first answer over NFS.
    pub started_in: Duration,
}

impl Daemon {
    /// Serve the data directory `data` on a free port; on `cores` (a `taskset` list), or anywhere.
    pub fn start(data: &Path, cores: Option<&str>) -> Result<Self> {
        Self::start_with(data, cores, "")
    }

    /// The same with more sections of its configuration.
    pub fn start_with(data: &Path, cores: Option<&str>, sections: &str) -> Result<Self> {
        let config = data.with_extension("toml");
        fs::write(&config, format!("{CONFIG}{sections}"))?;
        let address = free_address()?;
        let begin = Instant::now();
        let child = process::command_on(cores, PROGRAM)
            .arg("serve")
            .arg("--data")
            .arg(data)
            .args(["--nfs", &address.to_string(), "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            // Its ready line is no part of a report.
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {PROGRAM}"))?;
        let mut daemon = Self { child, data: data.into(), address, started_in: Duration::ZERO };
        daemon.wait_until_it_answers(begin)?;
        daemon.started_in = begin.elapsed();
        Ok(daemon)
    }

    fn wait_until_it_answers(&mut self, begin: Instant) -> Result<()> {
        while Client::connect(self.address).and_then(|mut client| client.null()).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("mimeo serve ended with {status}");
            }
            ensure!(begin.elapsed() < START_LIMIT, "mimeo serve does not answer");
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its admin API is.
    pub fn socket(&self) -> PathBuf {
        self.data.join("admin.sock")
    }

    /// Run a command against this daemon; the document that it prints.
    pub fn command(&self, arguments: &[&str]) -> Result<Value> {
        let output = Command::new(PROGRAM)
            .args(arguments)
            .arg("--json")
            .env("MIMEO_DATA", &self.data)
            .env_remove("MIMEO_ADMIN")
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "mimeo {} failed", arguments.join(" "));
        serde_json::from_slice(&output.stdout).with_context(|| format!("mimeo {} printed no JSON", arguments.join(" ")))
    }

    /// Ask the daemon to end, and wait for it.
    pub fn stop(mut self) -> Result<()> {
        self.terminate()
    }

    /// End the daemon without a warning, as a crash does.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn terminate(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > STOP_LIMIT {
                self.child.kill()?;
                self.child.wait()?;
                bail!("mimeo serve did not stop within {} s", STOP_LIMIT.as_secs());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.terminate() {
            eprintln!("{error:#}");
        }
    }
}

fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}

//! What the kernel says about a process: CPU time and memory; and where processes may run.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

/// Linux reports CPU time to user space in this unit on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of all threads of process `pid` so far, in steps of 10 ms.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("CPU time of process {pid}"))?;
    // The second field is the program's name in parentheses and may hold anything, spaces too.
    let after_name = stat.rsplit_once(')').context("/proc/PID/stat has no name")?.1;
    let field = |n: usize| -> Result<u64> {
        let text = after_name.split_whitespace().nth(n - 3).context("/proc/PID/stat is short")?;
        Ok(text.parse()?)
    };
    let ticks = field(14)? + field(15)?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Resident memory of process `pid`, in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("/proc/PID/status has no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Which cores the server and the load generator run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cores {
    /// The server has one half of them, the generator the other: what saturates is the server.
    Split,
    /// Both have all of them.
    Shared,
}

/// Core lists for `taskset`, (server, generator); `None` where nothing is pinned.
pub fn core_lists(cores: Cores) -> Option<(String, String)> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let pinned = cores == Cores::Split && count >= 2 && Command::new("taskset").arg("-V").output().is_ok();
    pinned.then(|| (format!("0-{}", count / 2 - 1), format!("{}-{}", count / 2, count - 1)))
}

/// A command for `program`, held to `cores` if they are given.
pub fn command_on(cores: Option<&str>, program: &str) -> Command {
    let Some(cores) = cores else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", cores, program]);
    command
}

/// Hold this process, all its threads, to `cores`.
pub fn pin_self(cores: &str) -> Result<()> {
    let pid = std::process::id().to_string();
    let output = Command::new("taskset").args(["-a", "-c", "-p", cores, &pid]).output()?;
    anyhow::ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

//! `mimeo storm` as a process of its own, on the generator's cores, and what it told.

use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use anyhow::{Context, Result, bail};
use mimeo::storm::Report;

use crate::common::process;
use crate::load::Load;
use crate::stage::{Fleet, Kind, Server, Stage};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mimeo");
/// Repeats all plans.
const SEED: &str = "1";

/// Runs storms and keeps what they tell.
pub struct Storms {
    /// A `taskset` list.
    pub generator_cores: Option<String>,
    /// Where reports and pages go.
    pub out: PathBuf,
}

/// A storm that was not started yet: which server, and further arguments.
pub struct Order<'a> {
    pub server: &'a Server,
    pub fleet: &'a Fleet,
    pub device: Option<&'a str>,
    pub clients: u32,
    pub arguments: Vec<String>,
}

impl<'a> Order<'a> {
    pub fn new(stage: &'a Stage, server: &'a Server, fleet: &'a Fleet, clients: u32) -> Self {
        Self { server, fleet, device: stage.device(server.kind), clients, arguments: Vec::new() }
    }

    /// The recorded boot, as fast as answers come.
    pub fn replay(mut self, load: &Load) -> Self {
        let trace = if self.server.kind == Kind::Null { &load.null_trace } else { &load.trace };
        self.push(&["--trace", &trace.display().to_string(), "--speed", "max"]);
        self
    }

    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.push(arguments);
        self
    }

    fn push(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
    }
}

impl Storms {
    /// Run it to its end; the report also goes to a file of that name.
    pub fn run(&self, order: &Order<'_>, file: &str) -> Result<Report> {
        let output = self.start(order)?.wait_with_output()?;
        self.keep(output, file)
    }

    /// Start it.
    pub fn start(&self, order: &Order<'_>) -> Result<Child> {
        let Order { server, fleet, device, clients, arguments } = order;
        let mut command = process::command_on(self.generator_cores.as_deref(), PROGRAM);
        command.args(["storm", "--json", "--seed", SEED, "--timeout", "300", "--name", server.kind.name()]);
        command.args(["--server", &server.nfs.to_string(), "--mount-port", &server.mount_port.to_string()]);
        command.args(["--server-pid", &server.pid.to_string(), "--export", &fleet.export]);
        command.args(["--clients", &clients.to_string()]).args(arguments);
        if let Some(device) = device {
            command.args(["--disk", device]);
        }
        // Nothing of a daemon that somebody runs here.
        command.env_remove("MIMEO_DATA").env_remove("MIMEO_ADMIN");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().context("cannot start the storm")
    }

    /// The report of a storm that has ended. One with errors has its report, too.
    pub fn keep(&self, output: Output, file: &str) -> Result<Report> {
        let Ok(report) = serde_json::from_slice(&output.stdout) else {
            bail!("the storm {file} told nothing: {}", String::from_utf8_lossy(&output.stderr).trim());
        };
        let path = self.out.join(format!("{file}.json"));
        std::fs::write(&path, &output.stdout).with_context(|| format!("{}", path.display()))?;
        Ok(report)
    }

    /// A page of these reports.
    pub fn compare(&self, files: &[String], page: &str) -> Result<PathBuf> {
        let page = self.out.join(format!("{page}.html"));
        let reports = files.iter().map(|file| self.out.join(format!("{file}.json")));
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["storm", "compare"]).args(reports).arg("--html").arg(&page);
        crate::common::loop_fs::run(&mut command)?;
        Ok(page)
    }

    /// What each byte of a golden folder is.
    pub fn manifest(&self, source: &Path, out: &Path) -> Result<()> {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["storm", "manifest"]).arg(source).arg("--out").arg(out);
        crate::common::loop_fs::run(&mut command)
    }
}

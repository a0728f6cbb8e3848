//! The real program as a process that can be killed and started again on its port, and its commands.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const MIMEO: &str = env!("CARGO_BIN_EXE_mimeo");
/// Tests may run without root, whose ports are the privileged ones.
const CONFIG: &str = "[exports]\nprivileged_port = false\n[log]\nfilter = \"info\"\n";

/// A daemon on a data directory. Dropping it kills it; `start` again goes on where it was.
pub struct Daemon {
    data: PathBuf,
    pub address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// Holds what is written after the ready line.
    _stdout: BufReader<ChildStdout>,
}

impl Daemon {
    /// Start one on `data`, a directory that may not be there yet. Its log is beside it.
    pub fn start(data: &Path) -> Self {
        fs::write(data.with_extension("toml"), CONFIG).expect("a configuration file");
        let mut daemon = Self { data: data.to_owned(), address: free_address(), running: None };
        daemon.start_again();
        daemon
    }

    /// Start it again, on the same port.
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let log = fs::File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut command = self.program();
        command.arg("serve").args(["--nfs", &self.address.to_string(), "--config"]);
        command.arg(self.data.with_extension("toml")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut ready = String::new();
        stdout.read_line(&mut ready).expect("readable");
        self.running = Some(Running { child, _stdout: stdout });
        assert!(!ready.is_empty(), "the daemon did not start:\n{}", self.end_of_log());
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    fn log_path(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// The last lines of its log, for a failure's message.
    pub fn end_of_log(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The program, told of this data directory and of nothing in the caller's environment.
    fn program(&self) -> Command {
        let mut command = Command::new(MIMEO);
        command.env_remove("MIMEO_ADMIN").env("MIMEO_DATA", &self.data).env("TZ", "UTC");
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.program().args(arguments).stdin(Stdio::null()).output().expect("the program starts")
    }

    /// Run a command; what it said on standard error if it failed.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.output(arguments);
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).expect("our output is UTF-8")),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Run a command that must succeed.
    #[track_caller]
    pub fn must(&self, arguments: &[&str]) {
        if let Err(said) = self.run(arguments) {
            panic!("mimeo {}: {said}\n{}", arguments.join(" "), self.end_of_log());
        }
    }

    /// Run a command that must succeed; the document that it prints.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = match self.run(&[arguments, &["--json"]].concat()) {
            Ok(text) => text,
            Err(said) => panic!("mimeo {}: {said}\n{}", arguments.join(" "), self.end_of_log()),
        };
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("mimeo {}: {e}: {text}", arguments.join(" ")))
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("it runs").child.id()
    }

    /// SIGKILL, as a crash.
    pub fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.child.kill().expect("it runs");
        running.child.wait().expect("waited for");
    }

    /// SIGTERM; it must end well.
    pub fn stop(&mut self) {
        let mut running = self.running.take().expect("it runs");
        kill_process(Pid::from_child(&running.child), Signal::TERM).expect("it runs");
        let status = running.child.wait().expect("waited for");
        assert!(status.success(), "stopped with {status}:\n{}", self.end_of_log());
    }

    /// `mimeo fsck` over the data directory of a daemon that does not run: no violation.
    pub fn fsck(&self) {
        assert!(self.running.is_none(), "fsck wants the data directory for itself");
        let output = self.output(&["fsck", "--data", &self.data.display().to_string()]);
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "mimeo fsck: {}", String::from_utf8_lossy(&said));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // Both fail where it has ended already.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the end of the daemon's log:\n{}", self.end_of_log());
        }
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound")
}

//! The real program: a daemon on a directory of its own, and commands against it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const MIMEO: &str = env!("CARGO_BIN_EXE_mimeo");

/// The program, with nothing of the caller's environment that it reads.
pub fn mimeo() -> Command {
    let mut command = Command::new(MIMEO);
    command.env_remove("MIMEO_ADMIN").env_remove("MIMEO_DATA").env("TZ", "UTC");
    command
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("our output is UTF-8");
        Self {
            code: output.status.code().expect("no command of ours dies of a signal"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Done {
    /// Standard output of a command that succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// The one JSON document of a command that succeeded.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ok();
        assert_eq!(text.lines().count(), 1, "one document: {text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// A command that failed with `code`, and said all of `words` on standard error only.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "a failure says nothing on standard output");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {:?}", self.stderr);
        }
    }
}

/// A running daemon. Dropping it kills it.
pub struct Daemon {
    child: Child,
    pub data: PathBuf,
    /// Holds what is written after the ready line.
    _stdout: BufReader<ChildStdout>,
    pub ready: String,
}

impl Daemon {
    /// Start one on `data` and wait for the ready line.
    pub fn start(data: &Path) -> Self {
        let mut command = mimeo();
        command.arg("serve").arg("--data").arg(data).args(["--nfs", "127.0.0.1:0"]);
        let log_path = data.with_extension("log");
        let log = std::fs::File::create(&log_path).expect("a log file");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut ready = String::new();
        stdout.read_line(&mut ready).expect("readable");
        assert!(!ready.is_empty(), "no ready line: {}", std::fs::read_to_string(&log_path).unwrap_or_default());
        Self { child, data: data.to_owned(), _stdout: stdout, ready }
    }

    pub fn run(&self, args: &[&str]) -> Done {
        mimeo().args(args).env("MIMEO_DATA", &self.data).output().expect("the program starts").into()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        self.run(&[args, &["--json"]].concat()).json()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).expect("not 0");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        self.child.wait().expect("waited for").code().expect("not killed")
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("waited for");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon, and a folder to import.
pub struct World {
    pub dir: TempDir,
    pub daemon: Daemon,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let daemon = Daemon::start(&dir.path().join("data"));
        let world = Self { dir, daemon };
        world.write("etc/hostname", "golden\n");
        world.write("bin/sh", "#!\n");
        world
    }

    /// One with image `base`, version 1.
    pub fn with_image() -> Self {
        let world = Self::new();
        world.import().ok();
        world
    }

    pub fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.source().join(path);
        std::fs::create_dir_all(path.parent().expect("in the source")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    /// Import the folder as the next version of `base`.
    pub fn import(&self) -> Done {
        self.run(&["image", "import", "base", self.source().to_str().expect("UTF-8")])
    }

    pub fn run(&self, args: &[&str]) -> Done {
        self.daemon.run(args)
    }

    pub fn json(&self, args: &[&str]) -> Value {
        self.daemon.json(args)
    }
}

/// The strings at `key` of the objects in `list`.
pub fn column<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    list.as_array().expect("a list").iter().map(|item| item[key].as_str().expect("a string")).collect()
}

//! Repoints of a fleet under a reader, and `kill -9` during some of them.
//!
//! The versions ascend, so that whoever reads may only ever see a greater one: not an older one after a
//! newer one, whichever clone and whichever connection it asks, and neither over a crash.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::daemon::Daemon;
use crate::common::nfs3::{Call, Handle, status};
use crate::common::rpc::Connection;
use crate::from_env;
use crate::progress::Progress;

const CLONES: usize = 10_000;
/// Clones that the reader asks in turn, and its connections.
const ASKED: usize = 64;
const CONNECTIONS: usize = 4;
/// A repoint, from the start of its command, is over before so many answers as a rule.
const MAX_ANSWERS: u64 = 3000;

fn desk(n: usize) -> String {
    format!("desk-{n:05}")
}

/// Asks one clone after the other, each time over another connection, which version it shows.
struct Reader {
    address: SocketAddr,
    roots: Vec<Handle>,
    /// Which version a handle of the file `version` is of: it never means another one.
    known: HashMap<Handle, u32>,
    newest: u32,
    asked: usize,
}

impl Reader {
    fn new(address: SocketAddr) -> Self {
        let mut link = Connection::open(address).unwrap();
        let export = |n: usize| format!("/clones/{}", desk(n * (CLONES / ASKED)));
        let roots = (0..ASKED).map(|n| link.mount(&export(n)).unwrap()).collect();
        Self { address, roots, known: HashMap::new(), newest: 0, asked: 0 }
    }

    /// Until the daemon is gone or `stop` is set.
    fn read(&mut self, progress: &Progress, stop: &AtomicBool) {
        let connections: Result<Vec<_>, _> = (0..CONNECTIONS).map(|_| Connection::open(self.address)).collect();
        let Ok(mut connections) = connections else { return };
        while !stop.load(Ordering::Relaxed) {
            let link = &mut connections[self.asked % CONNECTIONS];
            let Ok(version) = Self::ask(&self.roots[self.asked % ASKED], link, &mut self.known) else { return };
            assert!(version >= self.newest, "{version} after {}", self.newest);
            self.newest = version;
            self.asked += 1;
            progress.answered();
        }
    }

    fn ask(root: &Handle, link: &mut Connection, known: &mut HashMap<Handle, u32>) -> std::io::Result<u32> {
        let found = link.call(&Call::lookup(root, b"version"))?;
        assert_eq!(found.status, status::OK);
        let handle = found.handle.unwrap();
        if let Some(version) = known.get(&handle) {
            return Ok(*version);
        }
        let read = link.call(&Call::read(&handle, 0, 100))?;
        assert_eq!(read.status, status::OK);
        let version = String::from_utf8(read.data).unwrap().trim().parse().unwrap();
        known.insert(handle, version);
        Ok(version)
    }
}

fn import(daemon: &Daemon, source: &Path, version: u32) {
    fs::write(source.join("version"), format!("{version}\n")).unwrap();
    daemon.must(&["image", "import", "base", source.to_str().unwrap()]);
}

/// The one version that all clones show.
fn shown(daemon: &Daemon) -> u32 {
    let list = daemon.json(&["clone", "ls"]);
    let clones = list["clones"].as_array().unwrap();
    assert_eq!(clones.len(), CLONES);
    let versions: BTreeSet<_> = clones.iter().map(|clone| clone["version"].as_str().unwrap()).collect();
    assert_eq!(versions.len(), 1, "after the restart some show one version and some another: {versions:?}");
    versions.into_iter().next().unwrap().strip_prefix("base@v").unwrap().parse().unwrap()
}

/// Repoint to `version` under the reader, with a kill after `killed_after` answers; whether it said that
/// it was done.
fn switch(daemon: &Daemon, reader: &mut Reader, version: u32, killed_after: Option<u64>) -> bool {
    let (progress, stop) = (Progress::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| reader.read(&progress, &stop));
        progress.wait_for(1);
        let switch = scope.spawn(|| daemon.run(&["repoint", "base", "--to", &format!("base@v{version}")]).is_ok());
        if let Some(answers) = killed_after {
            progress.wait_for(answers);
            kill_process(Pid::from_raw(daemon.pid() as i32).unwrap(), Signal::KILL).unwrap();
        }
        let done = switch.join().unwrap();
        stop.store(true, Ordering::Relaxed);
        reading.join().unwrap();
        done
    })
}

#[test]
fn kill_9_during_repoints_of_a_fleet() {
    let seed = from_env("MIMEO_SEED", rand::random::<u32>().into());
    println!("MIMEO_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let mut daemon = Daemon::start(&dir.path().join("data"));
    import(&daemon, &source, 1);
    daemon.must(&["clone", "create", "base", "--count", &CLONES.to_string(), "--name", "desk-{:05}"]);
    let mut reader = Reader::new(daemon.address);
    let (mut version, mut imported) = (1, 1);
    for round in 1..=from_env("MIMEO_ROUNDS", 12) {
        // What a crash left undone is tried again.
        if imported == version {
            imported += 1;
            import(&daemon, &source, imported);
        }
        let killed_after = (round % 4 != 0).then(|| rng.random_range(1..MAX_ANSWERS));
        let done = switch(&daemon, &mut reader, imported, killed_after);
        if killed_after.is_some() {
            daemon.kill();
            daemon.fsck();
            daemon.start_again();
        }
        let now = shown(&daemon);
        println!("round {round}: v{imported}, killed after {killed_after:?} answers, done: {done}: all show v{now}");
        assert!(now == imported || (now == version && !done), "v{now} after v{version}");
        assert!(now >= reader.newest, "what somebody saw is gone: v{}", reader.newest);
        version = now;
    }
}

//! Recordings of clones, and warming up by them: over the wire, with the real program.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Stdio};

use mimeo::trace::{Call as Recorded, NameVerb, Trace, Verb, WorkingSet};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::common::nfs3::{Call, Handle, How, Sattr, Stable};
use super::common::rpc::Connection;
use super::world::{Daemon, World, mimeo};

/// A clone `desk` of an image with a file of some chunks, which any port may use.
fn world() -> World {
    let world = World::new();
    world.write("etc/large", &(0..40_000).map(|n| format!("line {n}\n")).collect::<String>());
    world.write("etc/other", &(0..40_000).map(|n| format!("{n} of another file\n")).collect::<String>());
    world.import().ok();
    world.run(&["clone", "create", "base", "desk"]).ok();
    world.run(&["clone", "set", "desk", "--privileged-port", "no"]).ok();
    world
}

fn connect(daemon: &Daemon) -> (Connection, Handle) {
    let address = daemon.ready.split(&[' ', ','][..]).find_map(|word| word.parse::<SocketAddr>().ok());
    let mut connection = Connection::open(address.expect("in the ready line")).unwrap();
    let root = connection.mount("/clones/desk").unwrap();
    (connection, root)
}

fn lookup(connection: &mut Connection, dir: &[u8], name: &[u8]) -> Handle {
    connection.call(&Call::lookup(dir, name)).unwrap().handle.unwrap()
}

/// `mimeo trace record`, from when it has begun.
struct Recording {
    child: Child,
    stderr: BufReader<ChildStderr>,
    file: PathBuf,
}

impl Recording {
    fn of(world: &World, more: &[&str]) -> Self {
        let file = world.dir.path().join("boot.trace");
        let mut command = mimeo();
        command.args(["trace", "record", "desk", "--client", "a test", "--json", "--out"]).arg(&file).args(more);
        command.env("MIMEO_DATA", &world.daemon.data).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("recording clone desk, which shows base@v1"), "{line}");
        Self { child, stderr, file }
    }

    /// Ctrl-C, and what it says then.
    fn end(mut self) -> (Value, Trace) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let mut errors = String::new();
        std::io::Read::read_to_string(&mut self.stderr, &mut errors).unwrap();
        let done = self.child.wait_with_output().unwrap();
        assert!(done.status.success(), "{errors}");
        (serde_json::from_slice(&done.stdout).unwrap(), trace(&self.file))
    }
}

fn trace(file: &Path) -> Trace {
    Trace::read("t", std::fs::File::open(file).unwrap()).unwrap()
}

/// What the daemon has read from disk since its start, in bytes.
fn loaded(daemon: &Daemon) -> u64 {
    daemon.json(&["df"])["bytes_cache_loaded"].as_u64().unwrap()
}

/// Read `etc/large` as a booting client does, and make a file.
fn boot(daemon: &Daemon) -> usize {
    let (mut connection, root) = connect(daemon);
    let etc = lookup(&mut connection, &root, b"etc");
    let large = lookup(&mut connection, &etc, b"large");
    connection.call(&Call::create(&root, b"made", &How::Unchecked(Sattr::default()))).unwrap();
    let mut read = 0;
    loop {
        let data = connection.call(&Call::read(&large, read as u64, 65536)).unwrap().data;
        if data.is_empty() {
            break read;
        }
        read += data.len();
    }
}

#[test]
fn a_recording_has_what_the_client_did_and_nothing_of_others() {
    let world = world();
    world.run(&["clone", "create", "base", "idle"]).ok();
    world.run(&["clone", "set", "idle", "--privileged-port", "no"]).ok();
    let (mut connection, root) = connect(&world.daemon);
    // Known to the client before the recording begins.
    let etc = lookup(&mut connection, &root, b"etc");
    let large = lookup(&mut connection, &etc, b"large");
    let recording = Recording::of(&world, &[]);
    connection.call(&Call::read(&large, 65536, 1000)).unwrap();
    let missing = connection.call(&Call::lookup(&etc, b"gone\xff")).unwrap();
    assert_ne!(missing.status, 0);
    let made = connection.call(&Call::create(&etc, b"new", &How::Unchecked(Sattr::default()))).unwrap();
    let new = made.handle.unwrap();
    connection.call(&Call::write(&new, 10, Stable::Unstable, b"bytes")).unwrap();
    connection.call(&Call::commit(&new)).unwrap();
    connection.mount("/clones/idle").unwrap();
    connection.mount("/clones/desk").unwrap();
    let (info, trace) = recording.end();
    assert_eq!((&info["version"], &info["client"]), (&"base@v1".into(), &"a test".into()));
    assert_eq!((&info["operations"], &info["operations_lost"]), (&6.into(), &0.into()));
    assert_eq!((&info["bytes_read"], &info["bytes_written"]), (&1000.into(), &5.into()));
    let seen: Vec<_> = trace.ops().iter().map(|op| (op.call.procedure(), op.is_ok())).collect();
    let ok = |name| (name, true);
    assert_eq!(seen, [ok("READ"), ("LOOKUP", false), ok("CREATE"), ok("WRITE"), ok("COMMIT"), ok("MNT")]);
    let Recorded::Object { object, verb: Verb::Read { offset, len, got } } = trace.ops()[0].call else { panic!() };
    assert_eq!((offset, len, got), (65536, 1000, 1000));
    assert_eq!(trace.path(object), Some(b"etc/large".to_vec()), "its place is the version's");
    let Recorded::Name { name, verb, object, .. } = &trace.ops()[1].call else { panic!() };
    assert_eq!((&**name, verb, object), (&b"gone\xff"[..], &NameVerb::Lookup, &None));
    let Recorded::Name { object: Some(new), .. } = trace.ops()[2].call else { panic!() };
    assert_eq!(trace.path(new), Some(b"etc/new".to_vec()), "its place is where it was made");
    assert!(matches!(trace.ops()[3].call, Recorded::Object { object, .. } if object == new));
}

/// What `mimeo trace show` says of a file.
fn shown(file: &Path) -> String {
    let shown = mimeo().args(["trace", "show"]).arg(file).output().unwrap();
    assert!(shown.status.success(), "{shown:?}");
    String::from_utf8(shown.stdout).unwrap()
}

#[test]
fn a_recording_ends_by_itself_also_if_nothing_came() {
    let world = world();
    let mut recording = Recording::of(&world, &["--for", "1s"]);
    assert!(recording.child.wait().unwrap().success());
    assert!(trace(&recording.file).ops().is_empty());
    let text = shown(&recording.file);
    assert!(text.contains("base@v1") && text.contains("calls a second: none"), "{text}");
}

#[test]
fn a_recording_is_shown() {
    let world = world();
    let recording = Recording::of(&world, &[]);
    let file = recording.file.clone();
    boot(&world.daemon);
    recording.end();
    let text = shown(&file);
    for words in ["base@v1", "a test", "READ", "LOOKUP", "working set:", "MiB read a second, over seconds"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    std::fs::write(&file, b"something else").unwrap();
    world.run(&["trace", "show", file.to_str().unwrap()]).refused(1, &["boot.trace", "it is no trace"]);
}

#[test]
fn a_warmed_boot_reads_nothing_from_disk() {
    let world = world();
    let recording = Recording::of(&world, &[]);
    let read = boot(&world.daemon);
    let (_, trace) = recording.end();
    assert_eq!(WorkingSet::of(&trace).bytes(), read as u64);
    let file = world.dir.path().join("boot.trace");
    let file = file.to_str().unwrap();
    // A new process has an empty cache.
    let data = world.daemon.data.clone();
    assert_eq!(world.daemon.stop(), 0);
    let daemon = Daemon::start(&data);
    let warmed = daemon.json(&["warm", "base@v1", "--trace", file]);
    assert_eq!((&warmed["version"], &warmed["objects_missing"]), (&"base@v1".into(), &0.into()));
    assert_eq!(warmed["bytes"], warmed["bytes_loaded"]);
    assert_eq!(warmed["bytes"], warmed["bytes_cached"]);
    let (before, data) = (loaded(&daemon), warmed["bytes_loaded"].as_u64().unwrap());
    assert!((read as u64..before).contains(&data), "pages are loaded beside {data} bytes, of {before}");
    assert_eq!(boot(&daemon), read);
    assert_eq!(loaded(&daemon), before, "the boot read from disk");
    let again = daemon.json(&["warm", "base@v1", "--trace", file]);
    assert_eq!((&again["chunks"], &again["chunks_loaded"]), (&warmed["chunks"], &0.into()));
    let all = daemon.json(&["warm", "base@v1"]);
    assert!(all["bytes_loaded"].as_u64() > Some(0) && all["bytes"].as_u64() > warmed["bytes"].as_u64(), "{all}");
}

#[test]
fn a_recording_is_mapped_onto_another_version_by_path() {
    let world = world();
    let recording = Recording::of(&world, &[]);
    boot(&world.daemon);
    recording.end();
    let file = world.dir.path().join("boot.trace");
    let file = file.to_str().unwrap();
    world.write("etc/large", &"another text\n".repeat(20_000));
    world.import().ok();
    let warmed = world.json(&["warm", "base@v2", "--trace", file]);
    assert_eq!((&warmed["objects_missing"], &warmed["version"]), (&0.into(), &"base@v2".into()));
    assert!(warmed["bytes"].as_u64() <= Some(13 * 20_000) && warmed["bytes"].as_u64() > Some(0), "{warmed}");
    std::fs::remove_file(world.source().join("etc/large")).unwrap();
    world.import().ok();
    let warmed = world.json(&["warm", "base@v3", "--trace", file]);
    assert_eq!((&warmed["objects_missing"], &warmed["missing"][0]), (&1.into(), &"etc/large".into()));
    assert_eq!(warmed["bytes"], 0);
}

#[test]
fn an_import_is_laid_out_by_a_recording() {
    let world = world();
    let recording = Recording::of(&world, &[]);
    let read = boot(&world.daemon);
    recording.end();
    let (file, source) = (world.dir.path().join("boot.trace"), world.source());
    let (file, source) = (file.to_str().unwrap(), source.to_str().unwrap());
    // Of a store that has none of it yet.
    let other = World::new();
    let laid = other.json(&["image", "import", "base", source, "--layout", file]);
    assert_eq!(laid["version"], "base@v1");
    other.run(&["clone", "create", "base", "desk"]).ok();
    other.run(&["clone", "set", "desk", "--privileged-port", "no"]).ok();
    assert_eq!(boot(&other.daemon), read);
    other.run(&["image", "import", "base", source, "--layout", "no/such/file"]).refused(1, &["no/such/file"]);
}

#[test]
fn what_cannot_be_recorded_or_warmed_is_refused_by_name() {
    let world = world();
    let recording = Recording::of(&world, &[]);
    world.run(&["trace", "record", "desk"]).refused(1, &["/clones/desk", "under way"]);
    recording.end();
    world.run(&["trace", "record", "nobody"]).refused(1, &["nobody"]);
    world.run(&["trace", "record", "desk", "--for", "soon"]).refused(2, &["90s"]);
    world.run(&["warm", "base@v9"]).refused(1, &["base@v9"]);
    world.run(&["warm", "base@v1", "--trace", "no/such/file"]).refused(1, &["no/such/file"]);
}

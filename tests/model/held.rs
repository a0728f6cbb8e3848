//! A disk that is held open by a client over a discard, a restore and a repoint: its writes go to the
//! former view, never onto the new one, and the new lookup has another handle and fileid.

use crate::common::daemon::Daemon;
use crate::common::nfs3::{Call, Handle, Sattr, Stable, status};
use crate::common::rpc::Connection;

const DISK: &[u8] = b"disk";
const LEN: usize = 40_000;

/// A clone whose `disk` a client holds open, and has written.
struct Machine {
    daemon: Daemon,
    link: Connection,
    root: Handle,
    held: Opened,
    _dir: tempfile::TempDir,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Opened {
    handle: Handle,
    fileid: u64,
}

impl Machine {
    /// Two versions: all of `disk` is 1 in the first, 2 in the second; `kept` is the same in both.
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        let daemon = Daemon::start(&dir.path().join("data"));
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("kept"), "the same").unwrap();
        for version in 1..=2 {
            std::fs::write(source.join("disk"), [version; LEN]).unwrap();
            daemon.must(&["image", "import", "base", source.to_str().unwrap()]);
        }
        daemon.must(&["clone", "create", "base@v1", "desk"]);
        let mut link = Connection::open(daemon.address).unwrap();
        let root = link.mount("/clones/desk").unwrap();
        let held = Opened { handle: Vec::new(), fileid: 0 };
        let mut machine = Self { daemon, link, root, held, _dir: dir };
        machine.held = machine.open(DISK);
        machine
    }

    fn open(&mut self, name: &[u8]) -> Opened {
        let answer = self.link.call(&Call::lookup(&self.root, name)).unwrap();
        assert_eq!(answer.status, status::OK);
        Opened { handle: answer.handle.unwrap(), fileid: answer.attr.unwrap().fileid }
    }

    fn write(&mut self, file: &Opened, byte: u8) {
        let call = Call::write(&file.handle, 4096, Stable::FileSync, &[byte; 4096]);
        assert_eq!(self.link.call(&call).unwrap().status, status::OK);
    }

    /// Second block of the file; all else must be `rest`.
    #[track_caller]
    fn read(&mut self, file: &Opened, rest: u8) -> u8 {
        let answer = self.link.call(&Call::read(&file.handle, 0, LEN as u32)).unwrap();
        assert_eq!((answer.status, answer.data.len()), (status::OK, LEN), "{file:?}, held {:?}", self.held);
        let second = answer.data[4096];
        let want = |at| if (4096..8192).contains(&at) { second } else { rest };
        assert!(answer.data.iter().enumerate().all(|(at, byte)| *byte == want(at)), "no mix of views");
        second
    }

    fn restart(&mut self) {
        self.daemon.kill();
        self.daemon.start_again();
        self.link = Connection::open(self.daemon.address).unwrap();
    }

    /// After a switch away from what the client holds: `rest` is what its disk and the new one hold apart
    /// from the second block, `new` what the new one has there.
    #[track_caller]
    fn assert_apart(&mut self, rest: (u8, u8), new: u8) {
        let held = self.held.clone();
        for byte in [21, 22] {
            let opened = self.open(DISK);
            assert_ne!(opened.handle, held.handle, "another line of content");
            assert_ne!(opened.fileid, held.fileid, "another line of content");
            self.write(&held, byte);
            assert_eq!(self.read(&opened, rest.1), new, "a write through the old handle");
            self.write(&opened, byte + 10);
            assert_eq!(self.read(&held, rest.0), byte, "a write through the new handle");
            assert_eq!(self.read(&opened, rest.1), byte + 10);
            self.write(&opened, new);
            self.restart();
            assert_eq!((self.read(&held, rest.0), self.read(&opened, rest.1)), (byte, new), "after a crash");
        }
        self.daemon.must(&["pins", "--drop", "--clone", "desk"]);
        assert_eq!(self.link.call(&Call::getattr(&held.handle)).unwrap().status, status::STALE);
        let late = Call::write(&held.handle, 0, Stable::Unstable, b"too late");
        assert_eq!(self.link.call(&late).unwrap().status, status::STALE);
        let opened = self.open(DISK);
        assert_eq!(self.read(&opened, rest.1), new);
    }
}

#[test]
fn a_disk_held_over_a_discard() {
    let mut machine = Machine::start();
    let held = machine.held.clone();
    machine.write(&held, 11);
    let kept = machine.open(b"kept");
    machine.daemon.must(&["repoint", "base", "--to", "base@v1", "--clone", "desk", "--writes", "discard"]);
    assert_eq!(machine.open(b"kept"), kept, "nobody wrote this one");
    assert_eq!(machine.read(&held, 1), 11);
    machine.assert_apart((1, 1), 1);
}

#[test]
fn a_disk_held_over_a_restore() {
    let mut machine = Machine::start();
    let held = machine.held.clone();
    machine.write(&held, 11);
    machine.daemon.must(&["clone", "snapshot", "desk", "good"]);
    machine.write(&held, 12);
    let kept = machine.open(b"kept");
    machine.daemon.must(&["clone", "restore", "desk", "good"]);
    assert_eq!(machine.open(b"kept"), kept, "nobody wrote this one");
    assert_eq!(machine.read(&held, 1), 12);
    machine.assert_apart((1, 1), 11);
}

#[test]
fn a_disk_held_over_a_repoint() {
    let mut machine = Machine::start();
    let held = machine.held.clone();
    machine.write(&held, 11);
    let kept = machine.open(b"kept");
    machine.daemon.must(&["repoint", "base", "--to", "base@v2", "--clone", "desk", "--writes", "discard"]);
    assert_eq!(machine.open(b"kept"), kept, "the same in both versions");
    machine.assert_apart((1, 2), 2);
}

/// A file that only a pinned view has is like one that was unlinked while it was open: it can be written
/// and grows, its directory takes nothing new, and no snapshot has it.
#[test]
fn a_file_of_a_former_view_is_like_an_unlinked_one() {
    let mut machine = Machine::start();
    let set = Sattr { mode: Some(0o755), ..Sattr::default() };
    let dir = machine.link.call(&Call::mkdir(&machine.root, b"dir", &set)).unwrap().handle.unwrap();
    let how = crate::common::nfs3::How::Guarded(Sattr { mode: Some(0o600), ..Sattr::default() });
    let file = machine.link.call(&Call::create(&dir, b"file", &how)).unwrap().handle.unwrap();
    machine.daemon.must(&["repoint", "base", "--to", "base@v1", "--clone", "desk", "--writes", "discard"]);
    let write = Call::write(&file, 0, Stable::FileSync, b"still open");
    assert_eq!(machine.link.call(&write).unwrap().status, status::OK);
    assert_eq!(machine.link.call(&Call::read(&file, 0, 100)).unwrap().data, b"still open");
    for call in [Call::create(&dir, b"more", &how), Call::mkdir(&dir, b"more", &set), Call::remove(&dir, b"file")] {
        assert_eq!(machine.link.call(&call).unwrap().status, status::STALE, "procedure {}", call.procedure);
    }
    machine.daemon.must(&["clone", "fork", "desk", "twin"]);
    let twin = machine.link.mount("/clones/twin").unwrap();
    assert_eq!(machine.link.call(&Call::lookup(&twin, b"dir")).unwrap().status, status::NOENT);
}

/// What was kept stays open, also where somebody wrote into a former view that holds it, too.
#[test]
fn a_kept_file_goes_on_whatever_is_written_into_former_views() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let daemon = Daemon::start(&dir.path().join("data"));
    std::fs::create_dir(&source).unwrap();
    for name in ["log", "gone"] {
        std::fs::write(source.join(name), name).unwrap();
    }
    let import = || daemon.must(&["image", "import", "base", source.to_str().unwrap()]);
    import();
    std::fs::remove_file(source.join("gone")).unwrap();
    import();
    std::fs::write(source.join("new"), "new").unwrap();
    import();
    daemon.must(&["clone", "create", "base@v1", "desk"]);
    let mut link = Connection::open(daemon.address).unwrap();
    let root = link.mount("/clones/desk").unwrap();
    let mut open = |name: &[u8]| link.call(&Call::lookup(&root, name)).unwrap().handle.unwrap();
    let (log, gone) = (open(b"log"), open(b"gone"));
    let write = |file: &Handle| {
        let call = Call::write(file, 0, Stable::FileSync, b"written");
        assert_eq!(Connection::open(daemon.address).unwrap().call(&call).unwrap().status, status::OK);
    };
    write(&log);
    daemon.must(&["repoint", "base", "--to", "base@v2", "--clone", "desk"]);
    write(&gone);
    daemon.must(&["repoint", "base", "--to", "base@v3", "--clone", "desk"]);
    assert_eq!(open(b"log"), log, "it went along twice");
    write(&log);
}

/// A file that goes along keeps its handle, also where somebody wrote another line of it in a former view.
#[test]
fn a_kept_file_goes_on_where_a_former_view_of_it_is_written() {
    let mut machine = Machine::start();
    let first = machine.held.clone();
    machine.daemon.must(&["clone", "snapshot", "desk", "clean"]);
    machine.write(&first, 11);
    machine.daemon.must(&["clone", "restore", "desk", "clean"]);
    let second = machine.open(DISK);
    machine.write(&second, 12);
    machine.write(&first, 13);
    machine.daemon.must(&["repoint", "base", "--to", "base@v2", "--clone", "desk", "--conflict", "clone-wins"]);
    assert_eq!(machine.open(DISK), second, "it went along");
    machine.write(&second, 14);
    let opened = machine.open(DISK);
    assert_eq!((machine.read(&opened, 1), machine.read(&first, 1)), (14, 13));
}

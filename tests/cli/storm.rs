//! Goal: `mimeo storm` drives many clients against a real server, tells what it measured, and tells a server that
//! lies. Method: the daemon itself, and a relay before it that changes one byte of what it answers.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use mimeo::trace::{Call, Creation, Header, Item, NameVerb, NewAttrs, Node, NodeId, Op, Stable, Verb, Writer};
use serde_json::Value;

use super::world::{Done, World, mimeo};

const CLIENTS: &str = "50";

/// A daemon with so many clones of an image whose bytes all differ.
fn fleet() -> World {
    let world = World::new();
    let big: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    world.write("usr/lib/big", &big);
    world.write("usr/lib/odd", &big[..12_345]);
    world.import().ok();
    world.run(&["clone", "create", "base", "--count", CLIENTS, "--name", "desk-{:04}", "--label", "pool=a"]).ok();
    // Tests may run without root, whose ports are the privileged ones.
    world.run(&["clone", "set", "--select", "pool=a", "--privileged-port", "no"]).ok();
    world
}

fn address(world: &World) -> String {
    let status = world.daemon.ready.clone();
    let found = status.split_whitespace().find(|word| word.starts_with("127.0.0.1:"));
    found.unwrap_or_else(|| panic!("no address in {status:?}")).trim_end_matches(',').to_owned()
}

/// A storm of the fleet's clients, verified, at full speed.
fn storm(world: &World, server: &str, more: &[&str]) -> Done {
    let source = world.source();
    let verify = source.to_str().expect("UTF-8");
    let fixed = ["storm", "--server", server, "--export", "/clones/desk-{:04}", "--clients", CLIENTS, "--seed", "7"];
    let pace = ["--speed", "max", "--verify", verify];
    world.run(&[&fixed[..], &pace, more].concat())
}

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("{key} of {report}"))
}

/// A storm that ran, and found something: the figures are there, and what it found.
#[track_caller]
fn told(done: &Done, words: &[&str]) {
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stdout.contains("bytes wrong"), "{done:?}");
    for word in words {
        assert!(done.stderr.contains(word), "{word:?} is not in {:?}", done.stderr);
    }
}

/// Fifty clients boot, each from its own clone, and every byte is compared; the run is told as a document, as a
/// table and as a page beside another run.
#[test]
fn fifty_clients_boot_and_every_byte_is_right() {
    let world = fleet();
    let server = address(&world);
    let report = storm(&world, &server, &["--transfers", "40", "--json"]).json();
    let boots = &report["boots"];
    assert_eq!((number(boots, "clients_mounted"), number(boots, "clients_booted")), (50, 50), "{report}");
    assert_eq!(number(&report, "bytes_wrong"), 0);
    assert!(number(&report, "bytes_verified") > 50 * 40 * 1000, "{report}");
    assert!(number(&report, "bytes_written") > 0);
    assert_eq!(report["disk"]["source"], "mimeo", "the daemon is asked what it read from disk");
    assert_eq!(report["errors"], serde_json::json!({}));

    let kept = world.dir.path().join("run.json");
    std::fs::write(&kept, report.to_string()).expect("a file");
    let page = world.dir.path().join("page.html");
    let (kept, page_path) = (kept.to_str().expect("UTF-8"), page.to_str().expect("UTF-8"));
    let more = ["--transfers", "10", "--name", "again", "--compare", kept, "--html", page_path];
    let table = storm(&world, &server, &more).ok();
    for wanted in ["again", &server, "clients booted", "50 of 50", "READ", "MNT"] {
        assert!(table.contains(wanted), "{wanted} is not in {table}");
    }
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("again") && page.contains(&server) && page.contains("<svg"), "{page}");
    let compared = world.run(&["storm", "compare", kept, kept]).ok();
    assert!(compared.contains("clients booted"), "{compared}");
}

/// What clients write is verified when it is read again: steady work in place on one file, in an open loop.
#[test]
fn what_was_written_is_read_again() {
    let world = fleet();
    let more = ["--mix", "steady", "--transfers", "200", "--file", "/usr/lib/big", "--read-percent", "50"];
    let pace = ["--loop", "open", "--speed", "200", "--ramp", "poisson:0.2", "--stable", "file-sync", "--json"];
    let source = world.source();
    let fixed = ["storm", "--server", &address(&world), "--export", "/clones/desk-{:04}", "--clients", "10"];
    let verify = ["--seed", "7", "--verify", source.to_str().expect("UTF-8")];
    let report = world.run(&[&fixed[..], &verify, &more, &pace].concat()).json();
    assert_eq!(number(&report["boots"], "clients_booted"), 10, "{report}");
    assert_eq!(number(&report, "bytes_wrong"), 0, "{report}");
    assert!(number(&report, "bytes_verified") > 0 && number(&report, "bytes_written") > 0);
}

/// A trace with all that matters: names that are found, not found and made, an object whose handle came from nowhere,
/// data that is written and read again.
fn trace() -> Vec<u8> {
    let node = |parent, name: &str| Item::Node(Node { parent: Some(NodeId(parent)), name: name.as_bytes().into() });
    let [lib, big, made] = [NodeId(2), NodeId(3), NodeId(4)];
    let object = |object, verb| Call::Object { object, verb };
    let name = |dir, name: &str, verb, object| Call::Name { dir, name: name.as_bytes().into(), verb, object };
    let create = NameVerb::Create(Creation::Guarded(NewAttrs { mode: Some(0o644), ..NewAttrs::default() }));
    let calls = [
        (0, Call::Mount),
        (0, object(big, Verb::Read { offset: 4096, len: 8192, got: 8192 })),
        (2, name(lib, "missing", NameVerb::Lookup, None)),
        (0, name(NodeId::ROOT, "made", create, Some(made))),
        (0, object(made, Verb::Write { offset: 0, len: 10_000, stable: Stable::FileSync })),
        (0, object(made, Verb::Read { offset: 0, len: 8192, got: 8192 })),
        (0, object(NodeId::ROOT, Verb::List { from_start: true, plus: true, max_bytes: 4096 })),
        (0, name(NodeId::ROOT, "made", NameVerb::Remove, None)),
    ];
    let mut writer = Writer::new(Vec::new(), &Header::default()).expect("a header");
    let nodes = [node(0, "usr"), node(1, "lib"), node(2, "big"), node(0, "made")];
    let ops = (0u64..).zip(calls).map(|(i, (status, call))| {
        Item::Op(Op { at_micros: i * 1000, took_micros: 500, uid: 0, gid: 0, status, call })
    });
    nodes.into_iter().chain(ops).for_each(|item| writer.item(&item).expect("an item"));
    writer.finish(0).expect("the end")
}

/// Twenty clients replay a trace: each recorded call is made, and answered as it was recorded.
#[test]
fn a_trace_is_replayed() {
    let world = fleet();
    world.run(&["clone", "set", "--select", "pool=a", "--squash", "none"]).ok();
    let file = world.dir.path().join("boot.trace");
    std::fs::write(&file, trace()).expect("a file");
    let (server, source) = (address(&world), world.source());
    let fixed = ["storm", "--server", &server, "--export", "/clones/desk-{:04}", "--clients", "20", "--json"];
    let replay = ["--trace", file.to_str().expect("UTF-8"), "--verify", source.to_str().expect("UTF-8")];
    let report = world.run(&[&fixed[..], &replay].concat()).json();
    assert_eq!(number(&report["boots"], "clients_booted"), 20, "{report}");
    assert_eq!(number(&report, "lookups_added"), 3 * 20, "usr, lib and big: {report}");
    let made = report["procedures"].as_array().expect("a list");
    let count =
        |wanted: &str| made.iter().find(|one| one["procedure"] == wanted).map(|one| number(&one["latency"], "count"));
    let once = ["MNT", "CREATE", "WRITE", "READDIRPLUS", "REMOVE"].map(|procedure| (procedure, 20));
    for (procedure, times) in once.into_iter().chain([("LOOKUP", 80), ("READ", 40)]) {
        assert_eq!(count(procedure), Some(times), "{procedure}: {report}");
    }
    assert_eq!((number(&report, "bytes_verified"), number(&report, "bytes_written")), (20 * 16_384, 20 * 10_000));
}

/// One byte of one READ is changed on its way: the storm fails and says where.
#[test]
fn a_server_that_lies_is_told() {
    let world = fleet();
    let relay = lying_relay(address(&world).parse().expect("an address"));
    let done = storm(&world, &relay.to_string(), &["--transfers", "40"]);
    told(&done, &["is wrong", "wrong bytes: /clones/desk-00", "/usr/lib/", "at offset"]);
}

/// A manifest says the same as the folder that it was made of, and an edited folder is no match.
#[test]
fn a_manifest_stands_for_its_folder() {
    let world = fleet();
    let manifest: PathBuf = world.dir.path().join("base.digests");
    let manifest = manifest.to_str().expect("UTF-8");
    let source = world.source();
    world.run(&["storm", "manifest", source.to_str().expect("UTF-8"), "--out", manifest]).ok();
    let server = address(&world);
    let storm = ["storm", "--server", &server, "--export", "/clones/desk-0000", "--speed", "max", "--seed", "7"];
    let verified = [&storm[..], &["--verify", manifest]].concat();
    world.run(&verified).ok();
    let text = std::fs::read_to_string(source.join("usr/lib/big")).expect("a file");
    world.write("usr/lib/big", &text.replace("line", "Line"));
    world.run(&["storm", "manifest", source.to_str().expect("UTF-8"), "--out", manifest]).ok();
    told(&world.run(&verified), &["is wrong", "/usr/lib/big"]);
}

/// What cannot work is refused before anybody is bothered.
#[test]
fn storms_that_make_no_sense_are_refused() {
    let run = |more: &[&str]| Done::from(mimeo().arg("storm").args(more).output().expect("the program starts"));
    run(&[]).refused(2, &["--server", "--export"]);
    run(&["--server", "h", "--export", "desk"]).refused(2, &["slash"]);
    run(&["--server", "h", "--export", "/d", "--ramp", "steep"]).refused(2, &["poisson:SECS"]);
    run(&["--server", "h", "--export", "/d", "--mix", "steady"]).refused(2, &["--duration"]);
    run(&["--server", "127.0.0.1:1", "--export", "/d"]).refused(1, &["127.0.0.1:1", "--mount-port"]);
    run(&["compare", "nowhere.json"]).refused(1, &["nowhere.json"]);
}

/// Passes calls and answers on, but for one byte in the data of each large answer.
fn lying_relay(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let upstream = TcpStream::connect(server).expect("the daemon listens");
            let (from, to) = (client.try_clone().expect("a socket"), upstream.try_clone().expect("a socket"));
            thread::spawn(move || pass_on(from, to));
            thread::spawn(move || lie(upstream, client));
        }
    });
    address
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    // Either end may go first.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn lie(mut from: TcpStream, mut to: TcpStream) {
    const LARGE: usize = 8192;
    let mut mark = [0; 4];
    while from.read_exact(&mut mark).is_ok() {
        let mut record = vec![0; (u32::from_be_bytes(mark) & !(1 << 31)) as usize];
        if from.read_exact(&mut record).is_err() {
            return;
        }
        if record.len() > LARGE {
            let middle = record.len() / 2;
            record[middle] ^= 1;
        }
        if to.write_all(&mark).and_then(|()| to.write_all(&record)).is_err() {
            return;
        }
    }
}

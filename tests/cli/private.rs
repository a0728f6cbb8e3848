//! What clones have of their own: written over NFS, seen, snapshotted, restored, forked, limited.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use super::common::nfs3::{Call, Handle, Stable};
use super::common::rpc::Connection;
use super::world::{Done, World, column, mimeo};

const HOSTNAME: &[u8] = b"golden\n";

/// Two clones of `base` in the pool `a`, which any port may use.
fn world() -> World {
    let world = World::with_image();
    world.run(&["clone", "create", "base", "desk", "other", "--label", "pool=a"]).ok();
    world.run(&["clone", "set", "--select", "pool=a", "--privileged-port", "no"]).ok();
    world
}

pub struct Client {
    connection: Connection,
    file: Handle,
}

impl Client {
    /// A client of a clone that holds `etc/hostname` open.
    pub fn of(world: &World, clone: &str) -> Self {
        Self::at(world, clone, &[b"etc", b"hostname"])
    }

    /// One that holds what is at this path open.
    fn at(world: &World, clone: &str, path: &[&[u8]]) -> Self {
        let address = world.daemon.ready.split(&[' ', ','][..]).find_map(|word| word.parse::<SocketAddr>().ok());
        let mut connection = Connection::open(address.expect("in the ready line")).unwrap();
        let root = connection.mount(&format!("/clones/{clone}")).unwrap();
        let mut lookup = |dir: &[u8], name: &[u8]| connection.call(&Call::lookup(dir, name)).unwrap().handle.unwrap();
        let file = path.iter().fold(root, |dir, name| lookup(&dir, name));
        Self { connection, file }
    }

    /// The status of the answer.
    pub fn write(&mut self, text: &str) -> u32 {
        let call = Call::write(&self.file, 0, Stable::FileSync, text.as_bytes());
        self.connection.call(&call).unwrap().status
    }

    fn read(&mut self) -> Vec<u8> {
        self.connection.call(&Call::read(&self.file, 0, 100)).unwrap().data
    }
}

/// What a new lookup finds in `etc/hostname` of a clone.
fn hostname(world: &World, clone: &str) -> Vec<u8> {
    Client::of(world, clone).read()
}

fn show(world: &World, clone: &str) -> Value {
    world.json(&["clone", "show", clone])
}

#[test]
fn private_bytes_and_inodes_are_counted() {
    let world = world();
    assert_eq!(
        (&show(&world, "desk")["bytes_private"], &show(&world, "desk")["inodes_private"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(Client::of(&world, "desk").write("mine..\n"), 0);
    let desk = show(&world, "desk");
    assert_eq!((&desk["bytes_private"], &desk["inodes_private"], &desk["layers"]), (&json!(7), &json!(1), &json!(0)));
    let list = world.json(&["clone", "ls"]);
    assert_eq!((&list["clones"][0]["bytes_private"], &list["clones"][1]["bytes_private"]), (&json!(7), &json!(0)));
    assert_eq!((hostname(&world, "desk"), hostname(&world, "other")), (b"mine..\n".to_vec(), HOSTNAME.to_vec()));
}

#[test]
fn a_clone_tells_what_it_changed_in_its_version() {
    let world = world();
    assert_eq!(
        world.run(&["clone", "diff", "desk"]).ok(),
        "0 paths added, 0 paths removed, 0 paths changed; 0 B -> 0 B, 0 B private\n"
    );
    Client::of(&world, "desk").write("mine, longer\n");
    world.json(&["clone", "snapshot", "desk", "nightly"]);
    Client::of(&world, "desk").write("yours\n");
    let change = json!({"change": "M", "what": ["data", "attributes"], "path": "etc/hostname",
                        "bytes_old": 7, "bytes_new": 13, "bytes_private": 13});
    for source in ["desk", "desk@nightly"] {
        let diff = world.json(&["clone", "diff", source]);
        assert_eq!(diff["changes"], json!([change]), "{source}");
        assert_eq!((&diff["paths_changed"], &diff["bytes_private"]), (&json!(1), &json!(13)));
    }
    let text = world.run(&["clone", "diff", "desk"]).ok();
    assert!(text.ends_with("; 7 B -> 13 B, 13 B private\n"), "{text}");
    assert_eq!(world.json(&["clone", "snapshots", "desk"])["snapshots"].as_array().unwrap().len(), 1);
    world.run(&["clone", "diff", "desk@never"]).refused(1, &["never"]);
}

#[test]
fn a_snapshot_is_listed_restored_and_removed() {
    let world = world();
    let mut client = Client::of(&world, "desk");
    client.write("first.\n");
    let taken = world.json(&["clone", "snapshot", "desk", "nightly", "--label", "keep=yes"]);
    let one = &taken["snapshots"][0];
    assert_eq!((&one["name"], &one["clone"], &one["version"]), (&json!("nightly"), &json!("desk"), &json!("base@v1")));
    assert_eq!(
        (&one["bytes_private"], &one["auto"], &one["labels"]),
        (&json!(7), &json!(false), &json!({"keep": "yes"}))
    );
    client.write("second\n");
    let done = world.json(&["clone", "restore", "desk", "nightly"]);
    assert_eq!((&done["name"], &done["snapshot"], &done["view"]), (&json!("desk"), &json!("nightly"), &json!(2)));
    assert_eq!(hostname(&world, "desk"), b"first.\n");
    assert_eq!(client.read(), b"second\n", "who holds the file open reads on");
    assert_eq!(client.write("third.\n"), 0);
    assert_eq!(hostname(&world, "desk"), b"first.\n", "and never writes into the new view");
    let snapshots = world.json(&["clone", "snapshots", "desk"]);
    let before = done["before"].as_str().unwrap();
    assert_eq!(column(&snapshots["snapshots"], "name"), [before, "nightly"]);
    assert_eq!(
        (&snapshots["snapshots"][0]["auto"], &snapshots["snapshots"][0]["operation"]),
        (&json!(true), &done["operation"])
    );
    world.run(&["clone", "restore", "desk", before]).ok();
    assert_eq!(hostname(&world, "desk"), b"second\n");
    assert_eq!(world.json(&["clone", "label", "desk@nightly", "keep-"])["labels"], json!({}));
    assert_eq!(world.json(&["clone", "rm-snapshot", "desk", "nightly"]), json!({"names": ["nightly"]}));
    world.run(&["clone", "restore", "desk", "nightly"]).refused(1, &["\"nightly\"", "mimeo clone snapshots desk"]);
    assert_eq!(show(&world, "desk")["snapshots"], 2);
    assert_eq!(world.json(&["df"])["snapshots"], 2);
}

#[test]
fn a_set_is_snapshotted_at_once_and_selected_by_label() {
    let world = world();
    let taken = world.json(&["clone", "snapshot", "--select", "pool=a", "s1", "--label", "day=1"]);
    assert_eq!(column(&taken["snapshots"], "clone"), ["desk", "other"]);
    world.run(&["clone", "snapshot", "desk", "s2", "--label", "day=2"]).ok();
    world.run(&["clone", "snapshot", "desk", "s2"]).refused(1, &["\"s2\"", "\"desk\"", "rm-snapshot"]);
    world.run(&["clone", "snapshot", "desk", "before-op-1"]).refused(1, &["reserved"]);
    let second = world.json(&["clone", "snapshots", "desk", "--select", "day=2"]);
    assert_eq!(column(&second["snapshots"], "name"), ["s2"]);
    assert_eq!(world.json(&["clone", "rm-snapshot", "desk", "--select", "day"]), json!({"names": ["s1", "s2"]}));
    assert_eq!(world.json(&["clone", "rm", "--select", "pool=a"]), json!({"names": ["desk", "other"]}));
    assert_eq!(world.json(&["df"])["snapshots"], 0);
}

#[test]
fn a_fork_is_a_clone_of_its_own() {
    let mut world = world();
    let mut client = Client::of(&world, "desk");
    client.write("first.\n");
    world.run(&["clone", "snapshot", "desk", "s"]).ok();
    client.write("second\n");
    let now = world.json(&["clone", "fork", "desk", "now", "--label", "x=1"]);
    assert_eq!(
        (&now["name"], &now["depth"], &now["labels"], &now["layers"]),
        (&json!("now"), &json!(1), &json!({"x": "1"}), &json!(1))
    );
    assert_eq!(now["policy"]["privileged_port"], false, "the policy comes from the source");
    world.run(&["clone", "fork", "desk@s", "then"]).ok();
    world.run(&["clone", "rm", "desk"]).ok();
    for kill in [false, true] {
        assert_eq!(hostname(&world, "now"), b"second\n", "killed: {kill}");
        assert_eq!(hostname(&world, "then"), b"first.\n", "killed: {kill}");
        if !kill {
            let data = world.daemon.data.clone();
            let other = super::world::Daemon::start(&world.dir.path().join("other"));
            std::mem::replace(&mut world.daemon, other).kill();
            world.daemon = super::world::Daemon::start(&data);
        }
    }
    world.run(&["clone", "fork", "now", "then"]).refused(1, &["\"then\"", "exists"]);
    world.run(&["clone", "fork", "now@gone", "x"]).refused(1, &["\"gone\""]);
}

#[test]
fn a_clone_is_promoted_to_a_version_that_others_are_made_of() {
    let world = world();
    Client::of(&world, "desk").write("mine..\n");
    let made = world.json(&["clone", "promote", "desk", "base", "--label", "from=desk"]);
    assert_eq!(
        (&made["name"], &made["version"], &made["consistency"]),
        (&json!("base"), &json!("base@v2"), &json!("crash"))
    );
    assert_eq!((&made["source"], &made["labels"]), (&json!("clone desk"), &json!({"from": "desk"})));
    world.run(&["repoint", "base", "--to", "base@v2", "--clone", "other"]).ok();
    assert_eq!(hostname(&world, "other"), b"mine..\n");
    world.run(&["clone", "promote", "desk@gone", "base"]).refused(1, &["\"gone\"", "mimeo clone snapshots desk"]);
    assert_eq!(world.json(&["clone", "promote", "desk", "fresh"])["version"], "fresh@v1");
    assert_eq!(show(&world, "desk")["snapshots"], 0, "nothing was left behind");
}

#[test]
fn a_repoint_says_what_becomes_of_private_writes() {
    let world = world();
    world.write("etc/hostname", "second\n");
    world.import().ok();
    let mut client = Client::of(&world, "desk");
    client.write("mine..\n");
    let all = ["repoint", "base", "--to", "base@v2"];
    for args in [&all[..], &[&all[..], &["--writes", "keep"]].concat()] {
        world.run(args).refused(1, &["\"desk\"", "/etc/hostname", "--writes discard", "--writes stay"]);
    }
    let stay = world.json(&[&all[..], &["--writes", "stay"]].concat());
    assert_eq!((&stay["clones"], &stay["lagging"], &stay["discarded"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(
        (&show(&world, "desk")["lagging"], &show(&world, "desk")["version"]),
        (&json!("base@v2"), &json!("base@v1"))
    );
    assert_eq!(hostname(&world, "desk"), b"mine..\n");
    let discard = world.json(&[&all[..], &["--writes", "discard"]].concat());
    assert_eq!((&discard["clones"], &discard["unchanged"], &discard["discarded"]), (&json!(1), &json!(1), &json!(1)));
    let desk = show(&world, "desk");
    assert_eq!(
        (&desk["lagging"], &desk["version"], &desk["bytes_private"]),
        (&Value::Null, &json!("base@v2"), &json!(0))
    );
    assert_eq!((hostname(&world, "desk"), client.read()), (b"second\n".to_vec(), b"mine..\n".to_vec()));
    let pins = world.json(&["pins", "--clone", "desk"]);
    assert_eq!(pins["pins"][0]["bytes_private"], 7);
    let snapshot = discard["snapshot"].as_str().unwrap();
    world.run(&["clone", "restore", "desk", snapshot]).ok();
    assert_eq!(
        (hostname(&world, "desk"), show(&world, "desk")["version"].clone()),
        (b"mine..\n".to_vec(), json!("base@v1"))
    );
}

/// A name is bytes: on the command line as they are, or as they are printed.
#[test]
fn what_is_preserved_may_have_any_name() {
    const ODD: &[u8] = b"o\xffd\\d";
    let world = World::new();
    std::fs::write(world.source().join(OsStr::from_bytes(ODD)), "golden\n").unwrap();
    world.import().ok();
    let clones = ["raw", "printed", "policy"];
    world.run(&[&["clone", "create", "base", "--label", "pool=a"], &clones[..]].concat()).ok();
    world.run(&["clone", "set", "--select", "pool=a", "--privileged-port", "no"]).ok();
    world.write("bin/sh", "#!!\n");
    world.import().ok();
    for clone in clones {
        assert_eq!(Client::at(&world, clone, &[ODD]).write("mine..\n"), 0);
        assert_eq!(Client::of(&world, clone).write("mine..\n"), 0);
    }
    let mut repoint = mimeo();
    repoint.args(["repoint", "base", "--to", "base@v2", "--clone", "raw", "--writes", "preserve", "--path"]);
    let done: Done = repoint.arg(OsStr::from_bytes(ODD)).env("MIMEO_DATA", &world.daemon.data).output().unwrap().into();
    done.ok();
    let printed = r"/o\xffd\x5cd";
    let preserve = ["--writes", "preserve", "--path", printed];
    world.run(&[&["repoint", "base", "--to", "base@v2", "--clone", "printed"], &preserve[..]].concat()).ok();
    world.run(&[&["clone", "set", "policy"], &preserve[..]].concat()).ok();
    assert_eq!(show(&world, "policy")["switch"]["paths"], json!([printed.trim_start_matches('/')]));
    world.run(&["repoint", "base", "--to", "base@v2", "--clone", "policy"]).ok();
    for clone in clones {
        let kept = Client::at(&world, clone, &[ODD]).read();
        assert_eq!((kept, hostname(&world, clone)), (b"mine..\n".to_vec(), HOSTNAME.to_vec()), "{clone}");
    }
    world.run(&["clone", "set", "policy", "--writes", "preserve", "--path", ""]).refused(2, &["--path"]);
}

#[test]
fn policy_and_quota_are_set_shown_and_kept_to() {
    let world = world();
    let set = world.json(&[
        "clone",
        "set",
        "desk",
        "--allow",
        "10.1.0.0/16",
        "--allow",
        "127.0.0.1",
        "--ro",
        "--squash",
        "root",
        "--quota",
        "1M",
    ]);
    let policy = &set["clones"][0]["policy"];
    assert_eq!(policy["allow"], json!(["10.1.0.0/16", "127.0.0.1/32"]));
    assert_eq!(
        (&policy["read_only"], &policy["squash"], &policy["privileged_port"]),
        (&json!(true), &json!("root"), &json!(false))
    );
    assert_eq!(set["clones"][0]["bytes_quota"], 1 << 20);
    assert!(world.run(&["clone", "show", "desk"]).ok().contains("--squash root"));
    const ROFS: u32 = 30;
    const DQUOT: u32 = 69;
    assert_eq!(Client::of(&world, "desk").write("mine..\n"), ROFS);
    world.run(&["clone", "set", "desk", "--rw", "--quota", "4", "--squash", "none"]).ok();
    assert_eq!(Client::of(&world, "desk").write("mine..\n"), DQUOT);
    world.run(&["clone", "set", "desk", "--quota", "none"]).ok();
    assert_eq!(Client::of(&world, "desk").write("mine..\n"), 0);
    let cleared = world.json(&["clone", "set", "--select", "pool=a", "--default"]);
    for clone in cleared["clones"].as_array().unwrap() {
        assert_eq!(clone["policy"], json!({"allow": null, "read_only": null, "squash": null, "privileged_port": null}));
    }
    world.run(&["clone", "set", "desk", "--allow", "10.0.0.5/8"]).refused(1, &["10.0.0.5/8", "10.0.0.0/8"]);
    world.run(&["clone", "set", "desk", "--allow", "nowhere"]).refused(1, &["nowhere"]);
    world.run(&["clone", "set", "--select", "pool=z", "--ro"]).refused(1, &["pool=z"]);
}

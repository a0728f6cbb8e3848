//! Who changed what: the audit log, and the ends of pins that are in it.

use serde_json::{Value, json};

use super::world::{Daemon, World, column};

/// Two versions, a clone of the first that was switched to the second, and back, and again.
fn switched() -> World {
    let world = World::with_image();
    world.write("etc/hostname", "second\n");
    world.import().ok();
    world.run(&["clone", "create", "base@v1", "desk"]).ok();
    world.write("etc/hostname", "third\n");
    world.import().ok();
    for version in ["base@v2", "base@v3"] {
        world.run(&["repoint", "base", "--to", version]).ok();
    }
    world
}

fn audit(world: &World, arguments: &[&str]) -> Vec<Value> {
    let document = world.json(&[&["audit"], arguments].concat());
    document["entries"].as_array().expect("a list").clone()
}

#[test]
fn every_change_is_in_the_audit_log_with_who_and_what() {
    let world = switched();
    let entries = audit(&world, &[]);
    let actions: Vec<_> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    let import = "POST /v1/images/base/import";
    assert_eq!(actions, [import, import, "POST /v1/clones", import, "POST /v1/repoint", "POST /v1/repoint"]);
    assert!(entries.iter().all(|entry| entry["outcome"] == "done"), "{entries:#?}");
    let uid = rustix::process::geteuid().as_raw();
    assert!(entries.iter().all(|entry| entry["who"] == format!("uid {uid}") && entry["pid"].is_u64()));
    assert!(entries[0]["from"].as_str().unwrap().starts_with("unix:/"));
    assert_eq!(entries[0]["after"]["version"], "base@v1");
    let repoint = &entries[4];
    assert_eq!(repoint["request"]["to"], "base@v2");
    assert!(repoint["operation"].as_str().unwrap().starts_with("op-"));
    assert_eq!(repoint["before"]["clones"][0]["version"], "base@v1");
    assert_eq!(repoint["after"]["objects"]["clones"][0]["version"], "base@v2");
    assert_eq!(repoint["after"]["answer"]["clones"], 1);
    let text = world.run(&["audit", "--tail", "1"]).ok();
    assert!(text.contains("POST /v1/repoint") && text.lines().count() == 2, "{text}");
}

#[test]
fn what_was_refused_is_there_with_its_reason() {
    let world = World::with_image();
    world.run(&["clone", "create", "base", "desk"]).ok();
    world.run(&["clone", "create", "base", "desk"]).refused(1, &["\"desk\""]);
    let last = audit(&world, &["--tail", "1"]).remove(0);
    assert_eq!(last["outcome"], "failed");
    assert!(last["error"].as_str().unwrap().contains("\"desk\" exists"), "{last}");
    world.run(&["image", "import", "bad", "/nowhere/at/all"]).refused(1, &["/nowhere"]);
    let last = audit(&world, &["--since", "1h", "--tail", "1"]).remove(0);
    assert_eq!((&last["action"], &last["outcome"]), (&json!("POST /v1/images/bad/import"), &json!("failed")));
    assert_eq!(audit(&world, &["--since", "2999-01-01T00:00:00Z"]), [] as [Value; 0]);
    world.run(&["audit", "--since", "yesterday"]).refused(2, &["2h"]);
}

#[test]
fn the_log_outlives_the_daemon() {
    let World { dir, daemon } = World::with_image();
    daemon.run(&["clone", "create", "base", "desk"]).ok();
    let data = daemon.data.clone();
    daemon.kill();
    let daemon = Daemon::start(&data);
    daemon.run(&["clone", "label", "desk", "x=1"]).ok();
    let entries = daemon.json(&["audit"]);
    assert_eq!(entries["entries"].as_array().unwrap().len(), 3);
    assert_eq!(entries["entries"][2]["before"]["clones"][0]["labels"], Value::Null);
    assert_eq!(entries["entries"][2]["after"]["objects"]["clones"][0]["labels"], json!({ "x": "1" }));
    drop(dir);
}

#[test]
fn one_pin_is_dropped_by_its_view() {
    let world = switched();
    let pins = world.json(&["pins"]);
    assert_eq!(column(&pins["pins"], "version"), ["base@v2", "base@v1"]);
    assert_eq!(pins["pins"][0]["clients"], json!([]));
    assert_eq!((&pins["pins"][0]["bytes_held"], &pins["pins"][0]["version_removed"]), (&json!(0), &json!(false)));
    world.run(&["pins", "--drop", "--view", "1"]).refused(2, &["--clone"]);
    world.run(&["pins", "--drop"]).refused(2, &["--clone"]);
    world.run(&["pins", "--clone", "nobody"]).refused(1, &["\"nobody\""]);
    world.run(&["pins", "--drop", "--clone", "desk", "--view", "7"]).refused(1, &["\"desk\"", "view 7"]);
    let dropped = world.json(&["pins", "--drop", "--clone", "desk", "--view", "1"]);
    assert_eq!(dropped, json!({ "pins": 1, "names": ["desk view 1"] }));
    assert_eq!(column(&world.json(&["pins"])["pins"], "version"), ["base@v2"]);
    let [asked, ended] = <[Value; 2]>::try_from(audit(&world, &["--tail", "2"])).unwrap();
    assert_eq!(asked["request"], json!({ "clones": ["desk"], "view": 1 }));
    assert_eq!(asked["after"]["answer"]["names"], json!(["desk view 1"]));
    let pin = json!({ "clone": "desk", "view": 1, "version": "base@v1", "clients": [] });
    assert_eq!((&ended["action"], &ended["who"]), (&json!("pins dropped"), &asked["who"]));
    assert_eq!(ended["request"]["pins"].as_array().unwrap()[0]["version"], pin["version"]);
    world.run(&["image", "rm", "base@v2"]).ok();
    assert!(world.run(&["pins"]).ok().contains("base@v2 (removed)"));
}

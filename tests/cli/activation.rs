//! Switches that wait for their clones.

use serde_json::{Value, json};

use super::world::{World, column};

/// Two versions, and three clones of the first, for which a switch to the second waits.
fn staged() -> (World, Value) {
    let world = World::with_image();
    world.write("etc/hostname", "second\n");
    world.import().ok();
    world.run(&["clone", "create", "base@v1", "a", "b", "c"]).ok();
    let done = world.json(&["repoint", "base", "--to", "base@v2", "--activate", "on-mount"]);
    (world, done)
}

fn versions(world: &World) -> Vec<String> {
    let clones = world.json(&["clone", "ls"]);
    column(&clones["clones"], "version").into_iter().map(str::to_owned).collect()
}

#[test]
fn what_waits_is_made_at_once_for_those_who_ask() {
    let (world, staged) = staged();
    assert_eq!(versions(&world), ["base@v1"; 3]);
    let clone = world.json(&["clone", "show", "a"]);
    assert_eq!(
        clone["blocked_by"],
        json!(["who used it in the last 90 s is not known"]),
        "the daemon has just started"
    );
    let activated = world.json(&["clone", "activate", "a", "b"]);
    assert_eq!(column(&activated["clones"], "version"), ["base@v2"; 2]);
    assert_eq!(activated["clones"][0]["staged"], false);
    assert_eq!(
        (&activated["clones"][0]["staged_by"], &activated["clones"][0]["error"]),
        (&staged["operation"], &Value::Null)
    );
    assert_eq!(versions(&world), ["base@v2", "base@v2", "base@v1"]);
    assert_eq!(world.json(&["clone", "show", "a"])["blocked_by"], json!([]));
    let last = world.json(&["audit", "--tail", "1"])["entries"][0].clone();
    assert_eq!((&last["action"], &last["outcome"]), (&json!("POST /v1/activations"), &json!("done")));
    assert_eq!(last["before"]["clones"][0]["staged"], 2);
}

#[test]
fn what_is_withdrawn_does_not_wait() {
    let (world, _) = staged();
    assert_eq!(world.json(&["clone", "unstage", "a"]), json!({ "names": ["a"] }));
    world.run(&["clone", "activate", "a"]).refused(1, &["no switch waits", "\"a\"", "on-mount"]);
    world.run(&["clone", "activate", "a", "b"]).refused(1, &["\"a\""]);
    assert_eq!(versions(&world), ["base@v1"; 3], "all or none");
    assert_eq!(world.json(&["clone", "unstage", "a"]), json!({ "names": [] }));
    world.run(&["clone", "activate"]).refused(2, &["CLONE"]);
}

#[test]
fn what_waits_for_a_time_is_made_at_once_for_those_who_ask() {
    let (world, _) = staged();
    world.run(&["clone", "unstage", "a", "b", "c"]).ok();
    let scheduled = world.json(&["repoint", "base", "--to", "base@v2", "--at", "+2h"]);
    let activated = world.json(&["clone", "activate", "b"]);
    assert_eq!(activated["clones"][0]["operation"], scheduled["operation"]);
    assert_eq!(versions(&world), ["base@v1", "base@v2", "base@v1"]);
    let id = scheduled["operation"].as_str().unwrap();
    let shown = world.json(&["ops", "show", id]);
    assert_eq!((&shown["state"], &shown["outcome"]["switched"]), (&json!("scheduled"), &json!(1)));
    assert_eq!(column(&shown["clone_states"], "state"), ["waiting", "switched", "waiting"]);
    world.run(&["ops", "abort", id]).ok();
    world.run(&["rollback", id]).ok();
    assert_eq!(versions(&world), ["base@v1"; 3]);
}

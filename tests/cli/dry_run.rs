//! Dry runs of operations: what they tell is what the run then does.

use serde_json::{Value, json};

use super::private::Client;
use super::world::{Done, World};

/// Two versions of `base` with another `etc/hostname`, and clones `c0` to `c5` of the first; `c1` and `c4` changed it, too.
fn world() -> World {
    let world = World::with_image();
    world.write("etc/hostname", "second\n");
    world.import().ok();
    world.run(&["clone", "create", "base@v1", "--count", "6", "--name", "c{}", "--label", "pool=a"]).ok();
    world.run(&["clone", "set", "--select", "pool=a", "--privileged-port", "no"]).ok();
    for clone in ["c1", "c4"] {
        assert_eq!(Client::of(&world, clone).write("mine!!\n"), 0);
    }
    world
}

fn repoint(world: &World, args: &[&str]) -> Done {
    world.run(&[&["repoint", "base", "--to", "base@v2", "--writes", "keep"], args].concat())
}

/// Without what only a run has: its number, its times, and who rolled it back.
fn untimed(document: &Value) -> Value {
    let mut document = document.clone();
    let fields = document.as_object_mut().unwrap();
    for field in ["operation", "created", "since", "rolled_back_by"] {
        fields.remove(field);
    }
    for (list, field) in [("waves", "switched_at"), ("clone_states", "lagging_since")] {
        for item in fields[list].as_array_mut().unwrap() {
            item.as_object_mut().unwrap().remove(field);
        }
    }
    document
}

#[test]
fn a_dry_run_in_waves_tells_what_the_run_does() {
    for (allowed, on_failure, state, wave) in
        [("1", "halt", "halted", Some(3)), ("1", "rollback", "rolling-back", Some(3)), ("2", "halt", "done", None)]
    {
        let world = world();
        let args = ["--wave", "2", "2", "--max-failures", allowed, "--on-failure", on_failure];
        let dry = [&args[..], &["--dry-run"]].concat();
        let told = repoint(&world, &dry).ok();
        assert!(told.starts_with("dry run: repoint of 6 clones to base@v2 in 3 waves: "), "{told}");
        assert_eq!(told.contains("it would fail: wave 3:"), wave.is_some(), "{told}");
        let predicted = repoint(&world, &[&dry[..], &["--json"]].concat()).json();
        assert_eq!((&predicted["state"], &predicted["wave"]), (&json!(state), &json!(wave)), "{predicted}");
        assert_eq!((&predicted["conflicts_total"], &predicted["dry_run"]), (&json!(2), &json!(true)), "{predicted}");
        assert_eq!(world.json(&["ops"]), json!({"operations": []}), "nothing has begun");

        let ran = repoint(&world, &args);
        assert_eq!(ran.code == 0, wave.is_none(), "{ran:?}");
        let id = world.json(&["ops"])["operations"].as_array().unwrap().last().unwrap()["operation"].clone();
        let shown = untimed(&world.json(&["ops", "show", id.as_str().unwrap()]));
        let predicted = untimed(&predicted);
        for (field, value) in shown.as_object().unwrap() {
            match (field.as_str(), state) {
                // The rollback itself is another operation.
                ("state", "rolling-back") => assert_eq!(value, "rolled-back"),
                ("wave" | "clone_states", "rolling-back") => {}
                _ => assert_eq!(&predicted[field], value, "{field}"),
            }
        }
    }
}

/// Also what is about waves, gates and times only.
#[test]
fn a_dry_run_refuses_what_the_run_refuses() {
    let world = world();
    for args in [
        &["--wave", "ring=tpyo"][..],
        &["--wave", "1", "--gate", "https://up"],
        &["--wave", "1", "--gate", "true", "--gate-timeout", "0"],
        &["--at", "yesterday"],
        &["--wave", "clones:other"],
    ] {
        let refused = repoint(&world, args);
        let dry = repoint(&world, &[args, &["--dry-run"]].concat());
        assert_eq!((dry.code, &dry.stderr), (1, &refused.stderr), "{args:?}: {dry:?}");
        assert_eq!(refused.code, 1);
    }
}

#[test]
fn a_dry_run_of_what_begins_later_tells_when() {
    let world = world();
    let told =
        world.run(&["repoint", "base", "--to", "base@v2", "--writes", "discard", "--at", "+2h", "--dry-run"]).ok();
    assert!(told.contains("it would begin at ") && told.contains("6 switched (2 discarded)"), "{told}");
    assert_eq!(world.json(&["ops"]), json!({"operations": []}));
}

/// Between the dry run and the run: at once, and in waves.
#[test]
fn clones_that_were_written_since_the_dry_run_are_named() {
    for in_waves in [false, true] {
        let world = world();
        let repoint = |more: &[&str]| {
            let waves: &[&str] = if in_waves { &["--wave", "2"] } else { &[] };
            let args = ["repoint", "base", "--to", "base@v2", "--writes", "discard", "--json"];
            world.run(&[&args[..], waves, more].concat()).json()
        };
        repoint(&["--dry-run"]);
        assert_eq!(Client::of(&world, "c3").write("since!\n"), 0);
        let done = repoint(&[]);
        let shown = world.json(&["ops", "show", done["operation"].as_str().unwrap()]);
        for clone in shown["clone_states"].as_array().unwrap() {
            assert_eq!(clone["why"].is_string(), clone["name"] == "c3", "{clone}");
        }
        assert!(in_waves || done["moved"] == json!(["c3"]), "{done}");
    }
}

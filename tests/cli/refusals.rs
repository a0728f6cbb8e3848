//! Bad input: the exit code, the object and the remedy.

use super::world::{World, mimeo};

#[test]
fn what_is_not_understood_exits_2() {
    let world = World::new();
    for args in [
        &["nonsense"][..],
        &["image", "show"],
        &["image", "show", ""],
        &["image", "set", "base"],
        &["image", "import", "base", "/", "--consistency", "perfect"],
        &["clone", "create", "base"],
        &["clone", "create", "base", "a", "--count", "2", "--name", "b{}"],
        &["clone", "create", "base", "--count", "2"],
        &["clone", "create", "base", "--count", "-1", "--name", "b{}"],
        &["clone", "rm"],
        &["repoint", "base"],
        &["repoint", "base", "--to", "base@v1", "--select", "a=b", "--clone", "c"],
        &["repoint", "base", "--to", "base@v1", "--activate", "soon"],
        &["repoint", "base", "--to", "base@v1", "--on-failure", "panic"],
        &["repoint", "base", "--to", "base@v1", "--clone", "c", "--clones-from", "f"],
        &["ops", "show"],
        &["repoint", "base", "--to", "base@v1", "--writes", "burn"],
        &["clone", "rm", "a", "--select", "x=1"],
        &["clone", "label", "a"],
        &["clone", "label", "--select", "x=1"],
        &["clone", "set", "a"],
        &["clone", "set", "--ro"],
        &["clone", "set", "a", "--ro", "--rw"],
        &["clone", "set", "a", "--quota", "10KB"],
        &["clone", "set", "a", "--privileged-port", "maybe"],
        &["clone", "snapshot", "a"],
        &["clone", "snapshot", "a", "s", "--select", "x=1"],
        &["clone", "rm-snapshot", "a"],
        &["clone", "restore", "a"],
        &["clone", "fork", "a"],
        &["df", "--admin", "http://127.0.0.1:80"],
    ] {
        world.run(args).refused(2, &["error:"]);
    }
}

#[test]
fn unknown_objects_are_named() {
    let world = World::with_image();
    for (args, name) in [
        (&["image", "show", "nope"][..], "\"nope\""),
        (&["image", "rm", "nope"], "\"nope\""),
        (&["image", "rm", "base@v7"], "base@v7"),
        (&["image", "tag", "base@v7", "x"], "base@v7"),
        (&["image", "set", "nope", "a=b"], "\"nope\""),
        (&["image", "set", "base", "--untag", "gone"], "\"gone\""),
        (&["image", "diff", "base@v1", "base@v7"], "base@v7"),
        (&["clone", "show", "nope"], "\"nope\""),
        (&["clone", "rm", "nope"], "\"nope\""),
        (&["clone", "diff", "nope"], "\"nope\""),
        (&["clone", "label", "nope", "a=b"], "\"nope\""),
        (&["clone", "create", "nope", "a"], "\"nope\""),
        (&["clone", "create", "base@gold", "a"], "base@gold"),
        (&["repoint", "nope", "--to", "nope@v1"], "\"nope\""),
        (&["repoint", "base", "--to", "base@v7"], "base@v7"),
        (&["repoint", "base", "--to", "base@v1", "--clone", "nope"], "\"nope\""),
        (&["repoint", "base", "--to", "base@v1", "--select", "a=b"], "a=b"),
        (&["pins", "--drop", "--clone", "nope"], "\"nope\""),
    ] {
        world.run(args).refused(1, &["mimeo: ", name]);
    }
}

#[test]
fn bad_names_say_what_is_wrong() {
    let world = World::with_image();
    let long = "x".repeat(129);
    for (name, why) in
        [("a/b", "slash"), (long.as_str(), "longer than 128"), ("a\tb", "do not print"), ("a@b", "'@'"), (".", "begin")]
    {
        world.run(&["clone", "create", "base", name]).refused(1, &["clone name", why]);
        let source = world.source();
        world.run(&["image", "import", name, source.to_str().unwrap()]).refused(1, &["image name", why]);
    }
    world.run(&["image", "tag", "base@v1", "v2"]).refused(1, &["\"v2\"", "reserved"]);
    world.run(&["clone", "create", "base", "--count", "2", "--name", "desk"]).refused(1, &["\"desk\"", "{:0W}"]);
    world.run(&["clone", "create", "base", "a", "--label", "novalue"]).refused(1, &["\"novalue\"", "k=v"]);
    world.run(&["clone", "ls", "--select", "a=b=c"]).refused(1, &["a=b=c"]);
}

#[test]
fn a_duplicate_creates_nothing() {
    let world = World::with_image();
    world.run(&["clone", "create", "base", "a"]).ok();
    world.run(&["clone", "create", "base", "b", "a"]).refused(1, &["\"a\"", "exists"]);
    world.run(&["clone", "create", "base", "b", "b"]).refused(1, &["\"b\"", "twice"]);
    world.run(&["clone", "show", "b"]).refused(1, &["\"b\""]);
    world.run(&["clone", "rm", "a", "nope"]).refused(1, &["\"nope\""]);
    world.run(&["clone", "show", "a"]).ok();
}

#[test]
fn bad_sources_leave_no_image() {
    let world = World::new();
    let empty = world.dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let file = world.source().join("bin/sh");
    for (source, why) in [(empty, "empty"), (world.dir.path().join("none"), "none"), (file, "bin/sh")] {
        world.run(&["image", "import", "base", source.to_str().unwrap()]).refused(1, &["base was not imported", why]);
    }
    world.run(&["image", "show", "base"]).refused(1, &["\"base\""]);
}

#[test]
fn another_image_s_version_is_refused() {
    let world = World::with_image();
    let source = world.source();
    world.run(&["image", "import", "other", source.to_str().unwrap()]).ok();
    world.run(&["clone", "create", "base", "a"]).ok();
    world.run(&["repoint", "base", "--to", "other@v1"]).refused(1, &["other@v1", "\"base\""]);
    world.run(&["repoint", "other", "--to", "other@v1", "--clone", "a"]).refused(1, &["\"a\"", "\"other\""]);
}

#[test]
fn without_a_daemon_the_message_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let output = mimeo().args(["df", "--data"]).arg(dir.path()).output().unwrap();
    let start = format!("mimeo serve --data {}", dir.path().display());
    super::world::Done::from(output).refused(1, &["cannot reach the daemon", "admin.sock", &start]);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let world = World::with_image();
    world.run(&["clone", "create", "base", "--count", "5000", "--name", "n{}"]).ok();
    let mut command = mimeo();
    command.args(["clone", "ls", "--json"]).env("MIMEO_DATA", &world.daemon.data);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

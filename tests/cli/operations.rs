//! Operations in waves: gates that are commands and servers, halts, pauses, schedules, restarts.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::world::{Daemon, Done, World, column, mimeo};

const LIMIT: Duration = Duration::from_secs(60);

/// Two versions of `base`, and six clones of the first: `c0` to `c5`, of which the first two are `ring=0`.
fn world() -> World {
    let world = World::with_image();
    world.write("etc/hostname", "second\n");
    world.import().ok();
    world.run(&["clone", "create", "base@v1", "--count", "6", "--name", "c{}"]).ok();
    world.run(&["clone", "label", "c0", "ring=0"]).ok();
    world.run(&["clone", "label", "c1", "ring=0"]).ok();
    world
}

impl World {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A gate that is passed when the file is there.
    fn gate(&self, name: &str) -> String {
        format!("test -e {}", self.file(name).display())
    }

    fn open(&self, name: &str) {
        std::fs::write(self.file(name), "").unwrap();
    }

    fn repoint(&self, args: &[&str]) -> Done {
        self.run(&[&["repoint", "base", "--to", "base@v2"], args].concat())
    }

    fn start(&self, args: &[&str]) -> String {
        let begun = self.json(&[&["repoint", "base", "--to", "base@v2"], args].concat());
        begun["operation"].as_str().unwrap().to_owned()
    }

    fn versions(&self) -> Vec<String> {
        let list = self.json(&["clone", "ls"]);
        column(&list["clones"], "version").into_iter().map(|version| version.replace("base@", "")).collect()
    }
}

/// Until `daemon` says that the operation is in this state.
fn until(daemon: &Daemon, operation: &str, state: &str) -> Value {
    let begin = Instant::now();
    loop {
        let shown = daemon.json(&["ops", "show", operation]);
        if shown["state"] == state {
            return shown;
        }
        assert!(begin.elapsed() < LIMIT, "{shown}");
    }
}

#[test]
fn waves_come_one_after_another_and_are_told() {
    let world = world();
    let done = world.repoint(&["--wave", "ring=0", "50%", "--gate", "true"]);
    assert_eq!(done.code, 0, "{done:?}");
    let told: Vec<_> = done.stderr.lines().collect();
    assert_eq!(told.len(), 3, "{told:?}");
    for (line, words) in told.iter().zip(["wave 1/3: 2 switched", "wave 2/3: 1 switched", "wave 3/3: 3 switched"]) {
        assert!(line.starts_with("op-") && line.contains(words), "{line}");
    }
    assert!(done.stdout.contains("6 clones to base@v2 in 3 waves: done; 6 switched"), "{done:?}");
    assert_eq!(world.versions(), ["v2"; 6]);
    let list = world.json(&["ops"]);
    let operation = &list["operations"][0];
    assert_eq!(
        (&operation["state"], &operation["switched"], &operation["clones"]),
        (&json!("done"), &json!(6), &json!(6))
    );
    assert_eq!(operation["who"], format!("uid {}", rustix::process::geteuid().as_raw()));
    let shown = world.json(&["ops", "show", operation["operation"].as_str().unwrap()]);
    let clones = &shown["clone_states"];
    assert_eq!(column(clones, "name"), ["c0", "c1", "c2", "c3", "c4", "c5"]);
    assert_eq!(column(clones, "state"), ["switched"; 6]);
    assert_eq!(
        (&clones[2]["wave"], &clones[2]["version"], &clones[2]["target"]),
        (&json!(2), &json!("base@v2"), &json!("base@v2"))
    );
}

#[test]
fn a_repoint_at_once_is_an_operation_too() {
    let world = world();
    world.repoint(&["--clone", "c3"]).ok();
    let done = world.json(&["repoint", "base", "--to", "base@v2"]);
    let shown = world.json(&["ops", "show", done["operation"].as_str().unwrap()]);
    assert_eq!((&shown["state"], &shown["switched"], &shown["unchanged"]), (&json!("done"), &json!(5), &json!(1)));
    let text = world.run(&["ops"]).ok();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().nth(1).unwrap().contains("5/6"), "the newest first: {text}");
    let text = world.run(&["ops", "show", done["operation"].as_str().unwrap()]).ok();
    assert!(text.contains("unchanged") && text.contains("c3"), "{text}");
}

#[test]
fn a_gate_that_fails_halts_and_is_tried_again_on_resume() {
    let world = world();
    let gate = world.gate("ready");
    let halted = world.repoint(&["--wave", "1", "--gate", &gate, "--gate-timeout", "1", "--gate-interval", "1"]);
    assert_eq!((halted.code, halted.stdout.as_str()), (1, ""), "{halted:?}");
    for word in ["wave 1/2: 1 switched", "is halted", "ready", "1 s", "mimeo ops show op-"] {
        assert!(halted.stderr.contains(word), "{word}: {halted:?}");
    }
    assert_eq!(world.versions(), ["v2", "v1", "v1", "v1", "v1", "v1"]);
    let list = world.json(&["ops", "ls"]);
    let operation = list["operations"][0]["operation"].as_str().unwrap().to_owned();
    assert!(list["operations"][0]["why"].as_str().unwrap().contains("after wave 1"), "{list}");
    world.repoint(&["--clone", "c1"]).refused(1, &["\"c1\"", &operation, "mimeo ops abort"]);
    world.run(&["ops", "pause", &operation]).refused(1, &[&operation]);
    world.open("ready");
    world.run(&["ops", "resume", &operation]).ok();
    until(&world.daemon, &operation, "done");
    assert_eq!(world.versions(), ["v2"; 6]);
    world.run(&["ops", "abort", &operation]).refused(1, &[&operation, "ended"]);
}

#[test]
fn a_gate_that_fails_rolls_back_by_itself_if_that_was_chosen() {
    let world = world();
    let waves = ["--wave", "1", "50%", "--on-failure", "rollback"];
    let back = world.repoint(&[&waves[..], &["--gate", "test $MIMEO_WAVE -lt 2", "--gate-timeout", "1"]].concat());
    assert_eq!((back.code, back.stdout.as_str()), (1, ""), "{back:?}");
    for word in ["wave 1/3: 1 switched", "wave 2/3: 2 switched", "is rolled-back", "after wave 2", "-lt 2"] {
        assert!(back.stderr.contains(word), "{word}: {back:?}");
    }
    assert_eq!(world.versions(), ["v1"; 6]);
    let list = world.json(&["ops"]);
    let (rollback, failed) = (&list["operations"][0], &list["operations"][1]);
    assert_eq!((&rollback["kind"], &rollback["rollback_of"]), (&json!("rollback"), &failed["operation"]));
    assert_eq!((&failed["state"], &failed["rolled_back_by"]), (&json!("rolled-back"), &rollback["operation"]));
    let shown = world.json(&["ops", "show", rollback["operation"].as_str().unwrap()]);
    let clones = &shown["clone_states"];
    assert_eq!((column(clones, "state"), column(clones, "target")), (vec!["restored"; 3], vec!["base@v1"; 3]));
    let text = world.run(&["ops", "show", rollback["operation"].as_str().unwrap()]).ok();
    let undone = failed["operation"].as_str().unwrap();
    assert!(text.lines().any(|line| line.starts_with("rollback of:") && line.ends_with(undone)), "{text}");
    world.run(&["rollback", rollback["operation"].as_str().unwrap()]).ok();
    assert_eq!(world.versions(), ["v2", "v2", "v2", "v1", "v1", "v1"], "a rollback can be undone");
    world.repoint(&[]).ok();
}

/// A server on the loopback that is not ready at first.
#[test]
fn a_server_is_asked_until_it_is_ready() {
    let world = world();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/health", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for status in ["503 Service Unavailable", "200 OK", "204 No Content"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(reader.read_line(&mut head).unwrap() > 0, "{head:?}");
            }
            assert!(head.starts_with("GET /health HTTP/1.1\r\n"), "{head}");
            write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n").unwrap();
        }
    });
    world.repoint(&["--wave", "2", "--gate", &url, "--gate-interval", "1"]).ok();
    server.join().unwrap();
    assert_eq!(world.versions(), ["v2"; 6]);
}

#[test]
fn a_command_knows_what_it_is_asked_about() {
    let world = world();
    let file = world.file("asked");
    let gate = format!("echo $MIMEO_OPERATION $MIMEO_WAVE $MIMEO_VERSION >> {}", file.display());
    let done = world.json(&["repoint", "base", "--to", "base@v2", "--wave", "50%", "--gate", &gate]);
    let operation = done["operation"].as_str().unwrap();
    let asked = std::fs::read_to_string(file).unwrap();
    assert_eq!(asked, format!("{operation} 1 base@v2\n{operation} 2 base@v2\n"));
}

#[test]
fn an_operation_is_paused_resumed_and_aborted() {
    let world = world();
    let operation = world.start(&["--wave", "1", "1", "--gate", &world.gate("never"), "--detach"]);
    let waiting = until(&world.daemon, &operation, "waiting");
    assert_eq!((&waiting["wave"], &waiting["clone_states"][0]["state"]), (&json!(1), &json!("switched")));
    assert_eq!(world.json(&["ops", "pause", &operation])["state"], "paused");
    world.open("never");
    assert_eq!(world.versions(), ["v2", "v1", "v1", "v1", "v1", "v1"]);
    std::fs::remove_file(world.file("never")).unwrap();
    world.run(&["ops", "resume", &operation]).ok();
    until(&world.daemon, &operation, "waiting");
    let text = world.run(&["ops", "abort", &operation]).ok();
    assert!(text.contains("aborted") && text.contains("1 switched"), "{text}");
    world.repoint(&["--wave", "3"]).ok();
    assert_eq!(world.versions(), ["v2"; 6]);
}

#[test]
fn an_operation_goes_on_after_kill_9() {
    let world = world();
    let gate = world.gate("ready");
    let operation = world.start(&["--wave", "2", "--gate", &gate, "--gate-interval", "1", "--detach"]);
    until(&world.daemon, &operation, "waiting");
    let World { dir, daemon } = world;
    let data = daemon.data.clone();
    daemon.kill();
    let daemon = Daemon::start(&data);
    assert_eq!(daemon.json(&["ops", "show", &operation])["state"], "waiting");
    std::fs::write(dir.path().join("ready"), "").unwrap();
    let done = until(&daemon, &operation, "done");
    assert_eq!(done["switched"], 6);
    assert!(column(&daemon.json(&["clone", "ls"])["clones"], "version").iter().all(|version| *version == "base@v2"));
    assert!(daemon.json(&["clone", "ls"])["clones"].as_array().unwrap().iter().all(|clone| clone["view"] == 2));
}

#[test]
fn a_scheduled_operation_stages_its_clones_until_it_is_aborted() {
    let world = world();
    let operation = world.start(&["--at", "+2h", "--select", "ring=0"]);
    let World { dir: _dir, daemon } = world;
    let data = daemon.data.clone();
    assert_eq!(daemon.stop(), 0);
    let daemon = Daemon::start(&data);
    let shown = daemon.json(&["ops", "show", &operation]);
    assert_eq!((&shown["state"], &shown["clones"]), (&json!("scheduled"), &json!(2)));
    let list = daemon.json(&["clone", "ls"]);
    let staged = &list["clones"][0]["staged"];
    assert_eq!((&staged["version"], &staged["operation"]), (&json!("base@v2"), &json!(operation)));
    assert_eq!((&staged["at"], &list["clones"][2]["staged"]), (&shown["at"], &Value::Null));
    assert!(daemon.run(&["clone", "show", "c1"]).ok().contains(&format!("base@v2 by {operation}")));
    daemon.run(&["repoint", "base", "--to", "base@v2"]).refused(1, &["\"c0\"", &operation]);
    daemon.run(&["ops", "abort", &operation]).ok();
    assert_eq!(daemon.json(&["clone", "show", "c0"])["staged"], Value::Null);
    daemon.run(&["repoint", "base", "--to", "base@v2"]).ok();
}

#[test]
fn a_clone_waits_for_its_mount_where_that_is_its_policy() {
    let world = world();
    world.run(&["clone", "set", "c0", "c1", "--activate", "on-mount"]).ok();
    let text = world.repoint(&[]).ok();
    assert!(text.contains("4 clones switched to base@v2, 2 wait for their next mount"), "{text}");
    let list = world.json(&["ops"]);
    let operation = list["operations"][0]["operation"].as_str().unwrap();
    assert_eq!(
        column(&world.json(&["ops", "show", operation])["clone_states"], "state")[..3],
        ["staged", "staged", "switched"]
    );
    world.run(&["ops", "abort", operation]).ok();
    assert_eq!(
        column(&world.json(&["ops", "show", operation])["clone_states"], "state")[..3],
        ["withdrawn", "withdrawn", "switched"]
    );
    assert_eq!(world.versions(), ["v1", "v1", "v2", "v2", "v2", "v2"]);
}

#[test]
fn policies_of_switches_are_set_and_taken_back() {
    let world = world();
    let image = world.json(&["image", "set", "base", "--writes", "preserve", "--path", "/var/log", "etc/ssh/"]);
    let paths = json!(["etc/ssh", "var/log"]);
    assert_eq!((&image["switch"]["writes"], &image["switch"]["paths"]), (&json!("preserve"), &paths));
    let set = world.json(&["clone", "set", "c0", "--conflict", "image-wins", "--ro"]);
    let clone = &set["clones"][0];
    assert_eq!((&clone["switch"]["conflict"], &clone["policy"]["read_only"]), (&json!("image-wins"), &json!(true)));
    let text = world.run(&["clone", "set", "c0", "--writes", "discard"]).ok();
    assert_eq!(text, "c0: --ro --writes discard --conflict image-wins\n");
    let text = world.run(&["clone", "set", "c0", "--conflict", "default", "--writes", "default"]).ok();
    assert_eq!(text, "c0: --ro\n");
    assert_eq!(world.json(&["image", "set", "base", "--writes", "default"])["switch"]["writes"], Value::Null);
    world.run(&["image", "set", "base@v1", "--writes", "keep"]).refused(1, &["base@v1"]);
    world.run(&["clone", "set", "c0", "--path", "/a"]).refused(2, &["error:"]);
}

#[test]
fn clones_are_named_in_a_file_or_on_standard_input() {
    let world = world();
    let file = world.file("names");
    std::fs::write(&file, "c1\n\n  c4 \n").unwrap();
    world.repoint(&["--clones-from", file.to_str().unwrap()]).ok();
    assert_eq!(world.versions(), ["v1", "v2", "v1", "v1", "v2", "v1"]);
    let mut command = mimeo();
    command.args(["repoint", "base", "--to", "base@v2", "--clones-from", "-"]).env("MIMEO_DATA", &world.daemon.data);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"c0\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(world.versions(), ["v2", "v2", "v1", "v1", "v2", "v1"]);
    std::fs::write(&file, "\n").unwrap();
    world.repoint(&["--clones-from", file.to_str().unwrap()]).refused(1, &["names"]);
    world.repoint(&["--clones-from", "/no/such/file"]).refused(1, &["/no/such/file"]);
}

#[test]
fn operations_that_make_no_sense_are_refused() {
    let world = world();
    for (args, words) in [
        (&["--wave", "0"][..], &["\"0\""][..]),
        (&["--wave", "101%"], &["101%"]),
        (&["--wave", "ring=7"], &["ring=7"]),
        (&["--wave", "1", "--gate", "https://up"], &["https://up", "curl"]),
        (&["--wave", "1", "--gate", "clients:many"], &["clients:many"]),
        (&["--wave", "1", "--gate", "true", "--gate-timeout", "0"], &["timeout"]),
        (&["--at", "yesterday"], &["yesterday", "+2h"]),
        (&["--at", "2020-01-01T00:00:00Z"], &["over"]),
        (&["--wave", "1", "--select", "a=b"], &["a=b"]),
    ] {
        world.repoint(args).refused(1, words);
    }
    assert_eq!(world.json(&["ops"]), json!({"operations": []}));
    for verb in ["show", "pause", "resume", "abort"] {
        world.run(&["ops", verb, "op-7"]).refused(1, &["op-7", "mimeo ops"]);
        world.run(&["ops", verb, "7"]).refused(1, &["\"7\""]);
    }
}

#[test]
fn waves_are_named_and_names_are_in_files() {
    let world = world();
    std::fs::write(world.file("second"), "c3\n\n c5 \n").unwrap();
    let file = format!("@{}", world.file("second").display());
    let id = world.start(&["--wave", "clones:c4,c1", &file, "--detach"]);
    let shown = until(&world.daemon, &id, "done");
    assert_eq!(column(&shown["clone_states"], "name"), ["c1", "c4", "c3", "c5", "c0", "c2"]);
    let waves: Vec<_> = shown["waves"].as_array().unwrap().iter().map(|wave| &wave["clones"]).collect();
    assert_eq!(waves, [2, 2, 2]);
    world.repoint(&["--wave", "clones:c1,nobody"]).refused(1, &["\"nobody\"", "--select"]);
    world.repoint(&["--wave", "clones:"]).refused(1, &["clones:NAME"]);
    world.repoint(&["--wave", "@/does/not/exist"]).refused(1, &["/does/not/exist"]);
}

#[test]
fn a_share_of_the_clones_is_a_part_of_a_larger_one() {
    let world = world();
    let names = |args: &[&str]| {
        let predicted = world.json(&[&["repoint", "base", "--to", "base@v2", "--dry-run"], args].concat());
        predicted["clones"].as_u64().unwrap()
    };
    assert_eq!((names(&["--percent", "1"]), names(&["--percent", "50"]), names(&["--percent", "100"])), (1, 3, 6));
    assert_eq!(names(&["--select", "ring=0", "--percent", "50"]), 1);
    world.repoint(&["--percent", "50"]).ok();
    let half = world.versions();
    let more = world.json(&["repoint", "base", "--to", "base@v2", "--percent", "80"]);
    assert_eq!((&more["clones"], &more["unchanged"]), (&json!(2), &json!(3)), "the first half is among them");
    assert!(half.iter().zip(world.versions()).all(|(before, now)| *before == now || now == "v2"));
    for bad in ["0", "101", "ten"] {
        world.repoint(&["--percent", bad]).refused(2, &["--percent"]);
    }
}

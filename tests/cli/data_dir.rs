//! Starting and stopping: whose directory it is, and what is told when it is not.

use std::path::Path;

use super::world::{Daemon, Done, World, mimeo};

/// A start that is expected to fail.
fn serve(data: &Path, more: &[&str]) -> Done {
    let mut command = mimeo();
    command.arg("serve").arg("--data").arg(data).args(["--nfs", "127.0.0.1:0"]).args(more);
    command.output().unwrap().into()
}

#[test]
fn the_ready_line_names_both_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let daemon = Daemon::start(&data);
    let socket = data.join("admin.sock");
    assert!(daemon.ready.starts_with("mimeo: serving NFS on 127.0.0.1:"), "{}", daemon.ready);
    assert!(daemon.ready.ends_with(&format!(", admin on unix:{}\n", socket.display())), "{}", daemon.ready);
    assert_eq!(daemon.stop(), 0);
    assert!(!socket.exists());
    assert!(std::fs::read_to_string(data.join("FORMAT")).unwrap().starts_with("mimeo store\nformat = 3\nid = "));
}

#[test]
fn a_second_daemon_is_told_who_holds_the_directory() {
    let world = World::new();
    let holder = format!("process {}", world.daemon.pid());
    serve(&world.daemon.data, &[]).refused(1, &["is held by", &holder]);
    world.run(&["df"]).ok();
}

#[test]
fn a_foreign_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    serve(dir.path(), &[]).refused(1, &["not a mimeo data directory", "thesis.tex"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("FORMAT"), "mimeo store\nformat = 7\nid = 00\n").unwrap();
    serve(dir.path(), &[]).refused(1, &["newer mimeo", "format 7", "up to 3"]);
}

#[test]
fn a_half_made_directory_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("lock"), "").unwrap();
    std::fs::write(data.join("FORMAT.new"), "mime").unwrap();
    assert_eq!(Daemon::start(&data).stop(), 0);
}

#[test]
fn a_bad_configuration_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mimeo.toml");
    let with = |text: &str| {
        std::fs::write(&file, text).unwrap();
        serve(&dir.path().join("data"), &["--config", file.to_str().unwrap()])
    };
    with("[cache]\nbites = 1").refused(1, &["mimeo.toml", "bites"]);
    with("[cache]\nbytes = 1\n[nfs]\nmax_connections = 0").refused(1, &["cache.bytes", "nfs.max_connections"]);
    serve(&dir.path().join("data"), &["--config", "/nonexistent.toml"]).refused(1, &["/nonexistent.toml"]);
    assert!(!dir.path().join("data").exists(), "nothing was made");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let output = mimeo().args(["serve", "--nfs", &addr, "--data"]).arg(dir.path()).output().unwrap();
    Done::from(output).refused(1, &[&addr]);
}

#[test]
fn the_admin_socket_may_be_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let admin = format!("unix:{}", dir.path().join("here.sock").display());
    let mut command = mimeo();
    command.arg("serve").arg("--data").arg(dir.path().join("data")).args(["--nfs", "127.0.0.1:0", "--admin", &admin]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut ready).unwrap();
    let by_flag = mimeo().args(["df", "--admin", &admin]).output().unwrap();
    let by_variable = mimeo().arg("df").env("MIMEO_ADMIN", &admin).output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(by_flag.status.success() && by_variable.status.success(), "{ready}{by_flag:?}{by_variable:?}");
}

//! Gates as they are: a shell, a server on the loopback, clients that are counted.

use std::path::Path;

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::image::Readers;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(50);

async fn ask(gate: &str, limit: Duration) -> Result<(), String> {
    ask_on(&Machine { readers: None }, gate, limit).await
}

async fn ask_on(machine: &Machine, gate: &str, limit: Duration) -> Result<(), String> {
    let (gate, views) = (gate.parse().unwrap(), [(ExportId(7), 2), (ExportId(8), 5)]);
    let (operation, since) = (OperationId(5), Duration::from_secs(9));
    let question = Question { gate: &gate, operation, wave: 1, version: "os@v2", views: &views, since, limit };
    machine.ask(question).await
}

#[tokio::test]
async fn a_command_passes_by_its_exit_code() {
    ask("true", LONG).await.unwrap();
    ask("test $MIMEO_OPERATION/$MIMEO_WAVE/$MIMEO_VERSION = op-5/2/os@v2", LONG).await.unwrap();
    let why = ask("echo out; echo two >&2; echo 'are sick' >&2; exit 3", LONG).await.unwrap_err();
    assert!(why.contains('3') && why.ends_with("two are sick"), "{why}");
    assert!(ask("kill -9 $$", LONG).await.unwrap_err().contains('9'));
    let why = ask("yes | head -c 1000000 >&2; echo end >&2; false", LONG).await.unwrap_err();
    assert!(why.len() < 1000 && why.ends_with("end"), "{} bytes", why.len());
}

/// Also what the shell left in the background, which holds standard error open.
#[tokio::test]
async fn nothing_is_left_of_a_command_whose_time_is_over() {
    for (line, passed) in [("sleep 600 & echo $! > FILE; wait", false), ("sleep 600 & echo $! > FILE", true)] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let limit = if passed { LONG } else { Duration::from_secs(1) };
        let outcome = ask(&line.replace("FILE", file.to_str().unwrap()), limit).await;
        assert_eq!(outcome.is_ok(), passed, "{outcome:?}");
        let pid = std::fs::read_to_string(&file).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let gone = async {
            // A zombie waits for whoever adopted it.
            while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, gone).await.expect("it was killed");
    }
}

/// What left the process group and holds standard error open: nobody here reads it any more, whether the question was
/// answered, ran out of time, or was dropped.
#[tokio::test]
async fn nothing_here_is_left_of_a_command_that_leaves_its_group() {
    let folder = tempfile::tempdir().unwrap();
    let leave = |n: usize, then: &str| {
        let file = folder.path().join(n.to_string()).display().to_string();
        format!("setsid sh -c 'echo $$ > {file}; exec sleep 600' & while ! test -s {file}; do :; done; {then}")
    };
    let long = [leave(0, "false"), leave(1, "true"), leave(2, "false")];
    let (answers, late) = (long.each_ref().map(|line| ask(line, LONG)), leave(3, "sleep 600"));
    let (answers, late) = tokio::join!(join_all(answers), ask(&late, Duration::from_secs(5)));
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false], "{answers:?}");
    late.unwrap_err();
    let dropped = leave(4, "sleep 600");
    let left = async {
        while !std::fs::read_to_string(folder.path().join("4")).is_ok_and(|pid| pid.ends_with('\n')) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = ask(&dropped, LONG) => panic!("it sleeps"),
        () = left => {}
    }
    for n in 0..5 {
        let pid: i32 = std::fs::read_to_string(folder.path().join(n.to_string())).unwrap().trim().parse().unwrap();
        let pipe = std::fs::read_link(format!("/proc/{pid}/fd/2")).expect("it left the group, and lives");
        let let_go = async {
            while holds(&pipe) {
                tokio::task::yield_now().await;
            }
        };
        let let_go = tokio::time::timeout(LIMIT, let_go).await;
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        assert!(let_go.is_ok(), "command {n}: its standard error is still read");
    }
}

/// Whether this process has the other end of a pipe.
fn holds(pipe: &Path) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|link| link == pipe)
}

/// A server that answers each connection with `answer`, after the whole head of the request.
async fn server(answer: &'static str) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/up?wave=1", listener.local_addr().unwrap());
    let heads = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut head, mut piece) = (Vec::new(), [0; 1024]);
        while !head.ends_with(b"\r\n\r\n") {
            let n = stream.read(&mut piece).await.unwrap();
            head.extend_from_slice(&piece[..n]);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap().lines().map(str::to_owned).collect()
    });
    (url, heads)
}

#[tokio::test]
async fn a_server_passes_by_its_status() {
    for (answer, passed) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", true),
        ("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", false),
        ("SMTP ready\r\n\r\n", false),
        ("", false),
    ] {
        let (url, heads) = server(answer).await;
        let outcome = ask(&url, LONG).await;
        assert_eq!(outcome.is_ok(), passed, "{answer:?}: {outcome:?}");
        let head = heads.await.unwrap();
        assert_eq!(head[0], "GET /up?wave=1 HTTP/1.1");
        assert!(head.iter().any(|line| line.to_lowercase().starts_with("host: 127.0.0.1:")), "{head:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_says_nothing_fails_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    assert!(ask(&url, SHORT).await.unwrap_err().contains("in time"));
    drop(listener);
    ask(&url, LONG).await.unwrap_err();
}

struct Seen(usize);

impl Readers for Seen {
    fn readers_since(&self, views: &[(ExportId, u64)], since: Duration) -> usize {
        assert_eq!((views, since), (&[(ExportId(7), 2), (ExportId(8), 5)][..], Duration::from_secs(9)));
        self.0
    }

    fn why_incomplete(&self, since: Duration) -> Option<&'static str> {
        assert_eq!(since, Duration::from_secs(9));
        (self.0 == 5).then_some("there is no room")
    }
}

#[tokio::test]
async fn clients_are_counted() {
    let machine = Machine { readers: Some(Arc::new(Seen(3))) };
    ask_on(&machine, "clients:3", LONG).await.unwrap();
    let why = ask_on(&machine, "clients:4", LONG).await.unwrap_err();
    assert!(why.ends_with("3 of 4 clients were seen reading"), "{why}");
    let full = Machine { readers: Some(Arc::new(Seen(5))) };
    let why = ask_on(&full, "clients:6", LONG).await.unwrap_err();
    assert!(why.ends_with("5 of 6 clients were seen reading; but there is no room"), "{why}");
    ask("clients:1", LONG).await.unwrap_err();
}

use axum::middleware;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::admin::router::admit;

const ALLOWED: [u32; 2] = [0, 7];

fn allowed() -> Allowed {
    Allowed { trusted: ALLOWED.to_vec(), more: (1000..1100).collect() }
}

fn peer(uid: u32) -> Peer {
    Peer { uid: Some(uid), pid: None }
}

#[test]
fn root_ourselves_and_the_listed_are_admitted() {
    for uid in [0, 7, 1000] {
        assert!(allowed().admits(peer(uid)), "{uid}");
    }
    assert!(!allowed().admits(peer(8)));
    assert!(!allowed().admits(Peer { uid: None, pid: None }));
    assert!(Allowed::with(Vec::new()).admits(peer(rustix::process::geteuid().as_raw())));
}

#[test]
fn nobody_takes_the_seats_of_others() {
    let (allowed, seats) = (allowed(), Arc::<Seats>::default());
    let take = |uid| seats.take(allowed.standing(peer(uid)), &allowed.trusted);
    let fill = |uid| std::iter::from_fn(|| take(uid)).collect::<Vec<_>>();
    let foreign = fill(8);
    assert_eq!(foreign.len(), MAX_FOREIGN);
    assert!(take(9).is_none(), "the room of all who are not admitted is one");
    let users: Vec<_> = (1000..1100).map(fill).collect();
    assert_eq!((users[0].len(), users.iter().map(Vec::len).sum::<usize>()), (MAX_OF_USER, MAX_OF_USERS));
    assert_eq!((fill(0).len(), fill(7).len()), (MAX_OF_TRUSTED, MAX_OF_TRUSTED));
    let trusted = fill(0);
    drop((foreign, users));
    assert!(take(8).is_some() && take(1099).is_some() && take(0).is_none());
    drop(trusted);
    assert!(seats.0.lock().is_empty());
}

/// Long enough for a busy machine.
const SHORT: Patience = Patience { head: Duration::from_secs(2), foreign: Duration::from_secs(2) };

/// A socket that answers `ok` to whom `allowed` admits.
struct World {
    folder: tempfile::TempDir,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl World {
    fn new(allowed: Allowed) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        let (allowed, (stop, stopped)) = (Arc::new(allowed), watch::channel(false));
        let admitted = middleware::from_fn_with_state(allowed.clone(), admit);
        let router = Router::new().route("/", get(async || "ok")).layer(admitted);
        Self { folder, stop, serving: tokio::spawn(serve(listener, router, allowed, SHORT, stopped)) }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("sock")).await.unwrap()
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.serving.await.unwrap();
    }
}

/// All that comes until the other end closes.
async fn rest(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    // It may be reset, which ends it as well.
    let _ = timeout(LIMIT, stream.read_to_end(&mut text)).await.expect("it is closed");
    String::from_utf8(text).unwrap()
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: mimeo\r\n\r\n";

/// Longest wait for what must come.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn idle_connections_of_foreign_users_are_closed() {
    let world = World::new(Allowed { trusted: Vec::new(), more: Vec::new() });
    let mut idle = Vec::new();
    for _ in 0..10 * MAX_FOREIGN {
        idle.push(world.connect().await);
    }
    for stream in &mut idle {
        assert_eq!(rest(stream).await, "");
    }
    let mut asks = world.connect().await;
    asks.write_all(REQUEST).await.unwrap();
    let answer = rest(&mut asks).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("admin.allow_uids"), "{answer}");
    world.stop().await;
}

#[tokio::test]
async fn an_admitted_user_is_answered_until_he_is_idle_or_has_too_many() {
    let own = rustix::process::geteuid().as_raw();
    let world = World::new(Allowed { trusted: Vec::new(), more: vec![own] });
    let mut open = Vec::new();
    for _ in 0..MAX_OF_USER {
        let mut stream = world.connect().await;
        stream.write_all(REQUEST).await.unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        open.push(stream);
    }
    assert_eq!(rest(&mut world.connect().await).await, "", "one more than he may have");
    let mut half = open.pop().unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nHost").await.unwrap();
    assert!(rest(&mut half).await.ends_with("ok"), "closed without an answer to half a head");
    for stream in &mut open {
        assert!(rest(stream).await.ends_with("ok"), "closed when nothing more came");
    }
    world.stop().await;
}

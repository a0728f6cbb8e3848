//! The connections of the admin socket: whose, how many, and for how long.
//!
//! Owns the accept loop. The kernel tells at accept who is at the other end, so whoever is not admitted costs next to
//! nothing: a few of them at a time are answered (by the router: 403) and closed after a moment, more are closed at
//! once. An admitted user has a number of connections; root and the daemon's own user have room of their own, which nobody
//! can take from them.
//!
//! Invariants: each connection has a seat until it is closed; one on which no request arrives is closed.
//!
//! Failure story: if no connection can be accepted, it is tried again after a pause. A client that is closed because
//! there is no seat has changed nothing.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use futures_util::FutureExt;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Peer;

/// Connections of root, and of the daemon's own user.
const MAX_OF_TRUSTED: usize = 1024;
/// Connections of one admitted user.
const MAX_OF_USER: usize = 64;
/// Connections of all admitted users together.
const MAX_OF_USERS: usize = 512;
/// Connections of users who are not admitted, all together, while they are told so.
const MAX_FOREIGN: usize = 16;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long clients are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until the head of the next request is there.
    pub head: Duration,
    /// For all that somebody has to say who is not admitted.
    pub foreign: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(60), foreign: Duration::from_secs(2) }
    }
}

/// Who may call.
#[derive(Debug)]
pub(super) struct Allowed {
    /// Root, and the daemon's own user.
    pub trusted: Vec<u32>,
    pub more: Vec<u32>,
}

/// What a user is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Trusted(u32),
    Admitted(u32),
    Foreign,
}

impl Allowed {
    /// Root, ourselves, and these.
    pub fn with(more: Vec<u32>) -> Self {
        Self { trusted: vec![0, rustix::process::geteuid().as_raw()], more }
    }

    pub fn admits(&self, peer: Peer) -> bool {
        self.standing(peer) != Standing::Foreign
    }

    fn standing(&self, peer: Peer) -> Standing {
        match peer.uid {
            Some(uid) if self.trusted.contains(&uid) => Standing::Trusted(uid),
            Some(uid) if self.more.contains(&uid) => Standing::Admitted(uid),
            _ => Standing::Foreign,
        }
    }
}

/// Open connections, by who has them. Nobody is in it with none.
#[derive(Default)]
struct Seats(Mutex<HashMap<Option<u32>, usize>>);

impl Seats {
    /// A place for one more connection; `None`: there is none.
    fn take(self: &Arc<Self>, standing: Standing, trusted: &[u32]) -> Option<Seat> {
        let (whose, max) = match standing {
            Standing::Trusted(uid) => (Some(uid), MAX_OF_TRUSTED),
            Standing::Admitted(uid) => (Some(uid), MAX_OF_USER),
            Standing::Foreign => (None, MAX_FOREIGN),
        };
        let mut open = self.0.lock();
        let of_users = open.iter().filter(|(uid, _)| uid.is_some_and(|uid| !trusted.contains(&uid)));
        let users_full =
            matches!(standing, Standing::Admitted(_)) && of_users.map(|(_, n)| n).sum::<usize>() >= MAX_OF_USERS;
        if users_full || open.get(&whose).is_some_and(|open| *open >= max) {
            return None;
        }
        *open.entry(whose).or_default() += 1;
        Some(Seat { seats: self.clone(), whose })
    }
}

/// The place of one connection.
struct Seat {
    seats: Arc<Seats>,
    whose: Option<u32>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.seats.0.lock();
        if let Some(count) = open.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.whose);
            }
        }
    }
}

/// Let `router` answer who connects, until `stop` becomes true and the answers under way are done.
pub(super) async fn serve(
    listener: UnixListener,
    router: Router,
    allowed: Arc<Allowed>,
    patience: Patience,
    stop: watch::Receiver<bool>,
) {
    let (seats, mut open, mut stopped) = (Arc::<Seats>::default(), JoinSet::new(), stop.clone());
    loop {
        let accepted = tokio::select! {
            // An error means that nobody is left who could stop us: stop.
            _ = stopped.wait_for(|stop| *stop) => break,
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted.map(|(stream, _)| stream),
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin socket cannot accept a connection; raise the limit of open files");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let peer = Peer::of(&stream);
        let standing = allowed.standing(peer);
        if let Some(seat) = seats.take(standing, &allowed.trusted) {
            let answered = answered(stream, peer, (standing, patience), router.clone(), stop.clone());
            open.spawn(answered.map(|()| drop(seat)));
        } else if standing != Standing::Foreign {
            tracing::warn!("admin API: {} has too many connections; one was closed", peer.who());
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// Answer one connection until it is closed. How it ends is the client's matter.
async fn answered(
    stream: UnixStream,
    peer: Peer,
    (standing, patience): (Standing, Patience),
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let service = TowerToHyperService::new(router.layer(Extension(ConnectInfo(peer))));
    let foreign = standing == Standing::Foreign;
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience.head).keep_alive(!foreign);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let to_end = async {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = stopped => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    };
    let longest = if foreign { patience.foreign } else { Duration::MAX };
    let _ = timeout(longest, to_end).await;
}

#[cfg(test)]
mod tests;

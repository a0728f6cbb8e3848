//! Listeners, workers, and the way down.
//!
//! Owns the sockets that listen and the worker threads. Each worker is one thread with a
//! single-threaded tokio runtime of its own; a connection stays where it was put, so that a request
//! touches no other thread. The acceptor gives a new connection to the worker that has the fewest.
//!
//! Invariant: at most `max_connections` are open, and at most three quarters of them from one address; one
//! more is closed at once.
//!
//! Failure story: on shutdown nothing new is accepted or read, what is in flight is answered for at
//! most `drain`, then the rest is cut. Clients connect again and send again.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use super::conn::Connection;
use super::dispatch::Core;
use super::log::Thinned;
use crate::error::{Error, ErrorKind, Result};
use crate::vfs::{Vfs, host_of};

/// Connections that the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 4096;
/// Silence after which a peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Between questions that are not answered, and after how many of them it is taken for dead: a machine that
/// lost its power is seen to be gone in the time in which its clone would count as unused.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// Pause after a failed accept, which means that we are out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time beyond the drain after which a worker that does not end is left behind.
const GRACE: Duration = Duration::from_secs(1);

/// Turns of connections after which a worker looks for what has come in meanwhile.
const EVENT_INTERVAL: u32 = 16;

static REFUSED: Thinned = Thinned::new();
static ACCEPT_FAILED: Thinned = Thinned::new();

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Addresses to listen at; port 0 takes any free one. An IPv6 address takes IPv6 only.
    pub listen: Vec<SocketAddr>,
    /// Threads that serve connections, at least 1.
    pub workers: usize,
    /// Connections open at a time.
    pub max_connections: usize,
    /// Longest wait for requests in flight at shutdown.
    pub drain: Duration,
    pub bounds: Bounds,
}

/// What all clients may take together, and how long.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Bytes of large records that are coming in.
    pub input_bytes: usize,
    /// Bytes that slow requests hold, about.
    pub slow_bytes: usize,
    /// Longest time in which a record must have come, while it is read.
    pub record_time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let half_a_gib = 512 * 1024 * 1024;
        Self { input_bytes: half_a_gib, slow_bytes: half_a_gib, record_time: Duration::from_secs(60) }
    }
}

impl ServerOptions {
    /// Serve at `listen`, with a worker per core.
    pub fn new(listen: Vec<SocketAddr>) -> Self {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let (drain, bounds) = (Duration::from_secs(10), Bounds::default());
        Self { listen, workers, max_connections: 16_384, drain, bounds }
    }
}

/// A server whose sockets are bound.
pub struct Server<V> {
    core: Arc<Core<V>>,
    options: ServerOptions,
    listeners: Vec<std::net::TcpListener>,
}

impl<V: Vfs> Server<V> {
    /// Bind all addresses. Connections queue from now on and are served once [`run`](Self::run) is
    /// polled.
    pub fn bind(vfs: Arc<V>, options: ServerOptions) -> Result<Self> {
        if options.listen.is_empty() || options.workers == 0 || options.max_connections == 0 {
            return Err(Error::invalid("an NFS server without an address, a worker or a connection"));
        }
        let listeners = options.listen.iter().map(|at| listen(*at)).collect::<Result<_>>()?;
        Ok(Self { core: Arc::new(Core::new(vfs, &options.bounds)), options, listeners })
    }

    /// The addresses that it listens at, with the ports that were taken.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serve until `shutdown` is ready; returns when every connection is closed.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let Self { core, options, listeners } = self;
        let listeners = listeners.into_iter().map(register).collect::<Result<Vec<_>>>()?;
        let (stop, stopped) = watch::channel(false);
        let workers = (0..options.workers)
            .map(|index| Worker::start(index, Arc::clone(&core), &options, stopped.clone()))
            .collect::<Result<Vec<_>>>()?;
        let acceptor = Acceptor::new(&workers, options.max_connections);
        tokio::select! {
            () = shutdown => {}
            () = acceptor.run(&listeners) => {}
        }
        drop(listeners);
        // Without receivers there is nobody to tell.
        stop.send(true).ok();
        finish(workers, options.drain).await
    }
}

async fn finish(workers: Vec<Worker>, drain: Duration) -> Result<()> {
    let ends: Vec<_> = workers.into_iter().map(Worker::close).collect();
    for end in ends {
        match timeout(drain + GRACE, end).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Error::internal("an NFS worker died")),
            Err(_) => return Err(Error::new(ErrorKind::Unavailable, "an NFS worker does not end")),
        }
    }
    Ok(())
}

fn listen(at: SocketAddr) -> Result<std::net::TcpListener> {
    let bound = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&at.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    };
    let cannot = |cause| {
        Error::io(format!("cannot listen at {at} for NFS"), cause)
            .remedy("choose another address or port with --nfs, or stop what uses this one")
    };
    bound().map(Into::into).map_err(cannot)
}

fn register(listener: std::net::TcpListener) -> Result<TcpListener> {
    TcpListener::from_std(listener).map_err(|cause| Error::io("cannot watch the NFS socket", cause))
}

/// Takes connections and hands them to workers.
struct Acceptor<'a> {
    workers: &'a [Worker],
    max_connections: usize,
    /// Of these, how many one address may have.
    max_of_address: usize,
    by_address: Arc<Addresses>,
}

impl<'a> Acceptor<'a> {
    /// One address is one client, or many behind it: it gets most of the connections, and never all.
    fn new(workers: &'a [Worker], max_connections: usize) -> Self {
        let max_of_address = max_connections - max_connections / 4;
        Self { workers, max_connections, max_of_address, by_address: Arc::default() }
    }

    async fn run(&self, listeners: &[TcpListener]) {
        loop {
            match accept(listeners).await {
                Ok((stream, peer)) => self.place(stream, peer),
                Err(error) => {
                    if let Some(count) = ACCEPT_FAILED.count() {
                        warn!(%error, count, "cannot accept a connection; raise the limit of open files");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn place(&self, stream: TcpStream, peer: SocketAddr) {
        let open: usize = self.workers.iter().map(Worker::load).sum();
        if open >= self.max_connections {
            if let Some(count) = REFUSED.count() {
                warn!(%peer, count, "refused a connection: {open} are open, which is the limit");
            }
            return;
        }
        let Some(address) = AddressSeat::take(&self.by_address, peer.ip(), self.max_of_address) else {
            if let Some(count) = REFUSED.count() {
                warn!(%peer, count, "refused a connection: its address has {}, which is the limit", self.max_of_address);
            }
            return;
        };
        let idlest = self.workers.iter().min_by_key(|worker| worker.load());
        if let Err(error) = idlest.expect("there is a worker").give(stream, peer, address) {
            debug!(%peer, %error, "a connection broke before it was served");
        }
    }
}

/// How many connections each address has.
type Addresses = Mutex<HashMap<IpAddr, usize>>;

/// A connection's place in its address's count.
struct AddressSeat {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl AddressSeat {
    /// `None`: the address, with those of the same machine, has `max` already.
    fn take(addresses: &Arc<Addresses>, address: IpAddr, max: usize) -> Option<Self> {
        let address = host_of(address);
        let mut counts = addresses.lock();
        let count = counts.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Self { addresses: Arc::clone(addresses), address })
    }
}

impl Drop for AddressSeat {
    fn drop(&mut self) {
        let mut counts = self.addresses.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// The next connection of any listener.
async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        let ready = listeners.iter().find_map(|listener| match listener.poll_accept(cx) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// A connection on its way to its worker.
struct Incoming {
    stream: StdStream,
    peer: SocketAddr,
    port: u16,
    seats: (Seat, AddressSeat),
}

/// A connection's place in its worker's count.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The acceptor's end of a worker thread.
struct Worker {
    queue: mpsc::Sender<Incoming>,
    /// Connections that it has.
    load: Arc<AtomicUsize>,
    ended: oneshot::Receiver<()>,
}

impl Worker {
    fn start<V: Vfs>(
        index: usize,
        core: Arc<Core<V>>,
        options: &ServerOptions,
        stopped: watch::Receiver<bool>,
    ) -> Result<Self> {
        let cannot = |cause| Error::io(format!("cannot start NFS worker {index}"), cause);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build();
        let runtime = runtime.map_err(cannot)?;
        let (queue, incoming) = mpsc::channel(options.max_connections);
        let (end, ended) = oneshot::channel();
        let drain = options.drain;
        let work = move || {
            runtime.block_on(work(core, incoming, stopped, drain));
            // Nobody waits any more if the server was dropped.
            end.send(()).ok();
        };
        thread::Builder::new().name(format!("nfs-{index}")).spawn(work).map_err(cannot)?;
        Ok(Self { queue, load: Arc::default(), ended })
    }

    fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Hand a connection over.
    fn give(&self, stream: TcpStream, peer: SocketAddr, address: AddressSeat) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
        let keepalive = keepalive.with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&keepalive)?;
        // Keepalive rests while something sent is unanswered.
        socket.set_tcp_user_timeout(Some(KEEPALIVE + KEEPALIVE_INTERVAL * KEEPALIVE_RETRIES))?;
        let port = stream.local_addr()?.port();
        let seats = (Seat::take(&self.load), address);
        let incoming = Incoming { stream: stream.into_std()?, peer, port, seats };
        self.queue.try_send(incoming).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// No more connections; resolves when those that it has are closed.
    fn close(self) -> oneshot::Receiver<()> {
        self.ended
    }
}

/// A worker's life: serve what comes until the queue is closed, then drain.
async fn work<V: Vfs>(
    core: Arc<Core<V>>,
    mut incoming: mpsc::Receiver<Incoming>,
    stopped: watch::Receiver<bool>,
    drain: Duration,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            next = incoming.recv() => match next {
                Some(next) => { connections.spawn(serve(Arc::clone(&core), next, stopped.clone())); }
                None => break,
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => told(ended),
        }
    }
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            told(ended);
        }
    };
    if timeout(drain, all_ended).await.is_err() {
        info!(connections = connections.len(), "cut the connections that did not end in time");
    }
}

async fn serve<V: Vfs>(core: Arc<Core<V>>, incoming: Incoming, stopped: watch::Receiver<bool>) {
    let Incoming { stream, peer, port, seats } = incoming;
    match TcpStream::from_std(stream) {
        Ok(stream) => Connection::new(core, peer, port, stream).serve(stopped).await,
        Err(error) => debug!(%peer, %error, "a connection broke before it was served"),
    }
    drop(seats);
}

fn told(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a connection's task died: this is a bug, please report it");
    }
}

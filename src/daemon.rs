//! The composition root: open, serve, drain.
//!
//! Owns the data directory and the order in which everything starts and stops. Start: lock, index,
//! packs, chunk store, catalog, file service, NFS socket, admin socket; then the ready line. Stop, on
//! SIGTERM or SIGINT: imports are cancelled, both servers answer what is under way, the catalog saves
//! a checkpoint, the lock goes. Invariants: nothing is served before all of it is open; the ready
//! line comes when both sockets accept.
//!
//! Failure story: what cannot be opened is named, and nothing stays behind but a data directory that
//! the next start completes. A second signal ends the process at once; it loses what was never
//! answered, as `kill -9` does.

mod data_dir;
mod stores;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

pub use data_dir::{DataDir, FORMAT};
pub use stores::{Stores, open_private_index};

use crate::admin;
use crate::audit::{self, AuditLog};
use crate::config::{Config, Squash};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::image::Fleet;
use crate::maintain;
use crate::metrics::ImportCounters;
use crate::nfs;
use crate::vfs::{self, ExportPolicy, ImageVfs, Vfs};

/// Open files beside the clients' connections: RocksDB's, packs, sockets.
const OTHER_FILES: u64 = 2048;

/// What a daemon is started with.
#[derive(Clone, Debug)]
pub struct Options {
    pub data: PathBuf,
    pub config: Config,
}

/// Run a daemon until it is told to stop.
pub async fn run(options: Options) -> Result<()> {
    let mut signals = Signals::new()?;
    let Options { data, config } = options;
    raise_file_limit(config.nfs.max_connections);
    let env = Env::real();
    let dir = DataDir::open(&data, &env)?;
    tracing::info!("data directory {} (store {})", data.display(), dir.id());
    let stores = Stores::open(&dir, &config, &env).await?;
    let servers = Servers::bind(&dir, &config, &env, &stores).await?;
    servers.announce();
    servers.run(&mut signals).await?;
    stores.close().await?;
    tracing::info!("stopped");
    drop(dir);
    Ok(())
}

/// Both front ends, bound but not yet serving.
struct Servers {
    nfs: nfs::Server<ImageVfs>,
    addrs: Vec<SocketAddr>,
    admin: admin::Server,
    context: admin::Context,
    socket: PathBuf,
    stop: watch::Sender<bool>,
    background: JoinHandle<()>,
    operations: JoinHandle<()>,
    /// How long the front ends may take to end.
    drain: Duration,
}

impl Servers {
    async fn bind(dir: &DataDir, config: &Config, env: &Env, stores: &Stores) -> Result<Self> {
        let data_dir = dir.path().to_owned();
        let policy = export_policy(config);
        let (catalog, chunks) = (stores.catalog.clone(), stores.chunks.clone());
        let audit = open_audit(config, env, data_dir.join("audit")).await?;
        let fleet = Fleet::new(stores.catalog.clone(), stores.overlays.clone()).with_audit(audit);
        let fleet = Arc::new(fleet.with_fork_depth(config.clones.max_fork_depth));
        let vfs = ImageVfs::new(catalog, chunks, stores.overlays.clone(), policy, env.clone(), data_dir.clone());
        let vfs = vfs.activating(Fleet::clone(&fleet));
        let (activity, tap) = (vfs.activity().clone(), vfs.tap().clone());
        let nfs = nfs::Server::bind(Arc::new(vfs), nfs_options(config))?;
        let addrs = nfs.local_addrs();
        let socket = config.admin_socket(dir.path());
        let admin = admin::Server::bind(&socket, &config.admin.allow_uids).await?;
        let (stop, stopped) = watch::channel(false);
        let parts = maintain::Parts {
            fleet: fleet.clone(),
            overlays: stores.overlays.clone(),
            chunks: stores.chunks.clone(),
            uses: activity.clone(),
        };
        let background = maintain::spawn(parts, env, config, stopped.clone());
        let outside = Arc::new(maintain::operations::Machine { readers: Some(activity.clone()) });
        let operations = maintain::operations::spawn(fleet.clone(), env.clock.clone(), outside, stopped.clone());
        let context = admin::Context {
            catalog: stores.catalog.clone(),
            fleet,
            activity,
            tap,
            chunks: stores.chunks.clone(),
            env: env.clone(),
            data_dir,
            import_threads: or_cores(config.import.threads),
            imports: ImportCounters::default(),
            running_imports: Arc::default(),
            socket: socket.clone(),
            nfs: addrs.clone(),
            stop: stopped,
        };
        let drain = Duration::from_secs(config.nfs.drain_secs);
        Ok(Self { nfs, addrs, admin, context, socket, stop, background, operations, drain })
    }

    /// The line that scripts wait for.
    fn announce(&self) {
        let addrs = self.addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let line = format!("mimeo: serving NFS on {addrs}, admin on unix:{}", self.socket.display());
        tracing::info!("{line}");
        // Whoever started us may have closed standard output; that is no reason not to serve.
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    /// Serve until a signal, or until one of the two fails; then drain both.
    async fn run(self, signals: &mut Signals) -> Result<()> {
        let Self { nfs, admin, context, stop, background, operations, drain, .. } = self;
        let mut stopped = stop.subscribe();
        let until_stop = async move {
            // The sender lives until both have ended.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let mut nfs = tokio::spawn(nfs.run(until_stop));
        let mut admin = tokio::spawn(admin.serve(context));
        let (mut nfs_end, mut admin_end) = (None, None);
        tokio::select! {
            name = signals.next() => tracing::info!("{name}: stopping"),
            end = &mut nfs => nfs_end = Some(end),
            end = &mut admin => admin_end = Some(end),
        }
        signals.exit_on_next();
        stop.send_replace(true);
        let admin_end = match admin_end {
            Some(end) => end,
            None => drained(&mut admin, drain).await,
        };
        let nfs_end = match nfs_end {
            Some(end) => end,
            None => nfs.await,
        };
        operations.await.map_err(|e| Error::internal("the operations died").because(e))?;
        background.await.map_err(|e| Error::internal("the background work died").because(e))?;
        admin_end.map_err(|e| Error::internal("the admin server died").because(e))??;
        nfs_end.map_err(|e| Error::internal("the NFS server died").because(e))?
    }
}

/// Wait for the admin server, but not for clients that never finish their request or never read their
/// answer.
async fn drained(admin: &mut JoinHandle<Result<()>>, drain: Duration) -> Result<Result<()>, JoinError> {
    if let Ok(end) = tokio::time::timeout(drain, &mut *admin).await {
        return end;
    }
    tracing::warn!("admin clients are still connected; leaving them");
    admin.abort();
    Ok(Ok(()))
}

/// Allow as many open files as the system lets us: each client is one.
fn raise_file_limit(wanted: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    if raised.is_err() || now.maximum.is_some_and(|limit| limit < wanted as u64 + OTHER_FILES) {
        tracing::warn!(
            ?now,
            wanted,
            "the limit of open files is too low for nfs.max_connections; raise it (ulimit -n)"
        );
    }
}

async fn open_audit(config: &Config, env: &Env, dir: PathBuf) -> Result<Arc<AuditLog>> {
    let bounds = audit::Bounds { file_bytes: config.audit.file_bytes, files: config.audit.files };
    let env = env.clone();
    let open = tokio::task::spawn_blocking(move || AuditLog::open(&env, dir, bounds));
    open.await.map_err(|e| Error::internal("opening the audit log").because(e))?
}

fn export_policy(config: &Config) -> ExportPolicy {
    let exports = &config.exports;
    let squash = match exports.squash {
        Squash::None => vfs::Squash::None,
        Squash::Root => vfs::Squash::Root,
        Squash::All => vfs::Squash::All,
    };
    ExportPolicy {
        networks: exports.allow.clone(),
        read_only: exports.read_only,
        squash,
        anon_uid: exports.anon_uid,
        anon_gid: exports.anon_gid,
        privileged_port: exports.privileged_port,
    }
}

fn nfs_options(config: &Config) -> nfs::ServerOptions {
    nfs::ServerOptions {
        listen: config.nfs.listen.clone(),
        workers: or_cores(config.nfs.workers),
        max_connections: config.nfs.max_connections,
        bounds: nfs::Bounds::default(),
        drain: Duration::from_secs(config.nfs.drain_secs),
    }
}

/// `threads`, or one per core where that is 0.
fn or_cores(threads: usize) -> usize {
    match threads {
        0 => available_parallelism().map_or(1, usize::from),
        _ => threads,
    }
}

/// The signals that stop a daemon.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|e| Error::io("signal handlers", e));
        Ok(Self { term: listen(SignalKind::terminate())?, int: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }

    /// From now on a signal ends the process: whoever signals twice does not want to wait.
    fn exit_on_next(&self) {
        let signals = Self::new();
        tokio::spawn(async move {
            if let Ok(mut signals) = signals {
                tracing::warn!("{}: not waiting any longer", signals.next().await);
                std::process::exit(1);
            }
        });
    }
}

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

use crate::admin;
use crate::chunk::blob::LocalBlobs;
use crate::chunk::{ChunkStore, ChunkStoreOptions};
use crate::config::{Config, Squash};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::image::{CATALOG_TABLES, Catalog, Fleet, KvCatalogLog};
use crate::meta::{Durability, KvStore, RocksKv, RocksOptions, Table};
use crate::metrics::ImportCounters;
use crate::nfs;
use crate::overlay::log::{DeltaLog, LocalLog, LogOptions};
use crate::overlay::{OverlayOptions, OverlayStore};
use crate::vfs::{self, ExportPolicy, ImageVfs};

/// Open files beside the clients' connections: RocksDB's, packs, sockets.
const OTHER_FILES: u64 = 2048;

/// Cache of private data.
const OVERLAY_CACHE_BYTES: u64 = 64 << 20;

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

/// Everything that is kept.
struct Stores {
    chunks: Arc<ChunkStore>,
    catalog: Arc<Catalog>,
    log: Arc<LocalLog>,
    overlays: Arc<OverlayStore>,
    fleet: Arc<Fleet>,
}

impl Stores {
    async fn open(dir: &DataDir, config: &Config, env: &Env) -> Result<Self> {
        let index_tables = [ChunkStore::TABLES, ChunkStore::SCRATCH].concat();
        let index = open_kv(dir.path().join("index"), index_tables, ChunkStore::SCRATCH).await?;
        let packs = Arc::new(LocalBlobs::open(env.disk.clone(), dir.path().to_path_buf())?);
        let chunks = ChunkStore::open(index, packs, env.clone(), chunk_options(config)?).await?;
        let log = open_kv(dir.path().join("catalog"), CATALOG_TABLES.to_vec(), &[]).await?;
        let log = blocking(move || KvCatalogLog::open(log)).await?;
        let catalog = Catalog::open(Arc::new(log), env.clone()).await?;
        let (log, overlays) = open_overlays(dir, env, &chunks, &catalog).await?;
        let fleet = Fleet::new(catalog.clone(), overlays.clone()).with_fork_depth(config.clones.max_fork_depth);
        Ok(Self { chunks, catalog, log, overlays, fleet: Arc::new(fleet) })
    }

    /// Leave nothing to replay.
    async fn close(self) -> Result<()> {
        self.overlays.flush(Durability::Synced).await?;
        blocking(move || self.log.close()).await?;
        self.catalog.close().await
    }
}

/// The delta log and the overlays over it, which need to know what the catalog names.
async fn open_overlays(
    dir: &DataDir,
    env: &Env,
    chunks: &Arc<ChunkStore>,
    catalog: &Catalog,
) -> Result<(Arc<LocalLog>, Arc<OverlayStore>)> {
    let kv = open_kv(dir.path().join("overlays"), OverlayStore::TABLES.to_vec(), &[]).await?;
    let (env, path, index) = (env.clone(), dir.path().join("log"), kv.clone());
    let (epoch, log) = blocking(move || {
        let epoch = OverlayStore::next_epoch(&*index)?;
        Ok((epoch, LocalLog::open(env, path, epoch, LogOptions::default())?))
    })
    .await?;
    let options = OverlayOptions { cache_bytes: OVERLAY_CACHE_BYTES };
    let marks = catalog.state().marked_overlays();
    let overlays = OverlayStore::open(log.clone(), kv, chunks.clone(), epoch, marks, options).await?;
    Ok((log, overlays))
}

async fn open_kv(path: PathBuf, tables: Vec<Table>, scratch: &[Table]) -> Result<Arc<dyn KvStore>> {
    let options = RocksOptions { scratch: scratch.to_vec(), ..RocksOptions::default() };
    Ok(Arc::new(blocking(move || RocksKv::open(path, &tables, options)).await?))
}

/// Run `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("opening a store").because(e))?
}

fn chunk_options(config: &Config) -> Result<ChunkStoreOptions> {
    let pack_bytes = usize::try_from(config.store.pack_bytes)
        .map_err(|e| Error::invalid(format!("store.pack_bytes is {}", config.store.pack_bytes)).because(e))?;
    Ok(ChunkStoreOptions { cache_bytes: config.cache.bytes, pack_bytes, zstd_level: config.store.zstd_level })
}

/// Both front ends, bound but not yet serving.
struct Servers {
    nfs: nfs::Server<ImageVfs>,
    addrs: Vec<SocketAddr>,
    admin: admin::Server,
    context: admin::Context,
    socket: PathBuf,
    stop: watch::Sender<bool>,
    /// How long the front ends may take to end.
    drain: Duration,
}

impl Servers {
    async fn bind(dir: &DataDir, config: &Config, env: &Env, stores: &Stores) -> Result<Self> {
        let data_dir = dir.path().to_owned();
        let policy = export_policy(config);
        let vfs = ImageVfs::new(stores.catalog.clone(), stores.chunks.clone(), policy, env.clone(), data_dir.clone());
        let nfs = nfs::Server::bind(Arc::new(vfs), nfs_options(config))?;
        let addrs = nfs.local_addrs();
        let socket = config.admin_socket(dir.path());
        let admin = admin::Server::bind(&socket, &config.admin.allow_uids).await?;
        let (stop, stopped) = watch::channel(false);
        let context = admin::Context {
            catalog: stores.catalog.clone(),
            fleet: stores.fleet.clone(),
            chunks: stores.chunks.clone(),
            env: env.clone(),
            data_dir,
            import_threads: or_cores(config.import.threads),
            imports: ImportCounters::default(),
            running_imports: Arc::default(),
            nfs: addrs.clone(),
            stop: stopped,
        };
        let drain = Duration::from_secs(config.nfs.drain_secs);
        Ok(Self { nfs, addrs, admin, context, socket, stop, drain })
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
        let Self { nfs, admin, context, stop, drain, .. } = self;
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

//! The admin API: HTTP/1 with JSON on a Unix socket.
//!
//! | file | owns |
//! |---|---|
//! | `types` | the documents, shared with the command line |
//! | `router` | which path and method means which handler; limits; who may call |
//! | `images`, `clones`, `snapshots`, `repoint`, `operations`, `activations`, `pins`, `status` | one function per endpoint, calling one verb of the catalog or the fleet |
//! | `import`, `diff`, `trace`, `warm` | the answers that are streams of lines |
//! | `fed` | such an answer, made by a task |
//! | `selection` | which objects a request means |
//! | `views` | catalog records as documents |
//! | `audit` | notes every change in the audit log; reads it |
//! | `reply` | errors and bodies |
//!
//! Invariants: only root, the daemon's own user and the users in `admin.allow_uids` are answered
//! (SO_PEERCRED); a body is bounded before it is read; an answer runs on one catalog revision.
//!
//! Failure story: every refusal is a JSON document with the error, its kind and the remedy; a client
//! that goes away cancels its import, and nothing of it is left.

mod activations;
mod audit;
mod clones;
mod diff;
mod fed;
mod images;
mod import;
mod operations;
mod pins;
mod reply;
mod repoint;
mod router;
mod selection;
mod snapshots;
mod status;
mod trace;
pub mod types;
mod views;
mod warm;

use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::chunk::ChunkStore;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::image::import::Running as RunningImports;
use crate::image::{Catalog, Fleet};
use crate::metrics::ImportCounters;
use crate::vfs::{Activity, Tap};

/// What the handlers work with.
pub struct Context {
    pub catalog: Arc<Catalog>,
    pub fleet: Arc<Fleet>,
    /// Who uses which clone.
    pub activity: Arc<Activity>,
    /// Where recordings take what clients ask.
    pub tap: Arc<Tap>,
    pub chunks: Arc<ChunkStore>,
    pub env: Env,
    pub data_dir: PathBuf,
    /// Threads of one import.
    pub import_threads: usize,
    pub imports: ImportCounters,
    pub running_imports: Arc<RunningImports>,
    /// Where the API is served.
    pub socket: PathBuf,
    /// Where NFS is served.
    pub nfs: Vec<SocketAddr>,
    /// Becomes true when the daemon stops; imports under way are then cancelled.
    pub stop: watch::Receiver<bool>,
}

/// Who is at the other end of a connection; `None` if the kernel would not tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    uid: Option<u32>,
    pid: Option<u32>,
}

impl Peer {
    /// Root, or the user whom the daemon runs as.
    fn is_trusted(self) -> bool {
        self.uid.is_some_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw())
    }

    /// As operations remember it.
    fn who(self) -> String {
        self.uid.map_or_else(|| "somebody".to_owned(), |uid| format!("uid {uid}"))
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let peer = stream.io().peer_cred().ok();
        let pid = peer.and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok());
        Self { uid: peer.map(|peer| peer.uid()), pid }
    }
}

/// A bound admin socket.
pub struct Server {
    listener: UnixListener,
    socket: PathBuf,
    allow_uids: Vec<u32>,
}

impl Server {
    /// Bind `socket`. One that a dead daemon left is replaced; one that answers is not.
    pub async fn bind(socket: &Path, allow_uids: &[u32]) -> Result<Self> {
        let failed = |e| {
            Error::io(format!("admin socket {}", socket.display()), e)
                .remedy("name a path of at most 107 bytes in a directory that exists, with --admin unix:PATH")
        };
        remove_dead(socket).await?;
        let listener = UnixListener::bind(socket).map_err(failed)?;
        // Who may connect is decided per connection; the mode only keeps others from trying.
        let mode = if allow_uids.is_empty() { 0o600 } else { 0o666 };
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(Self { listener, socket: socket.to_owned(), allow_uids: allow_uids.to_vec() })
    }

    /// Answer until `context.stop` becomes true and the answers under way are done.
    pub async fn serve(self, context: Context) -> Result<()> {
        let mut stop = context.stop.clone();
        let router = router::router(Arc::new(context), self.allow_uids);
        let stopped = async move {
            // An error means that nobody is left who could stop us: stop.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let service = router.into_make_service_with_connect_info::<Peer>();
        let served = axum::serve(self.listener, service).with_graceful_shutdown(stopped).await;
        // The name only: who is connected is answered to the end.
        let _ = std::fs::remove_file(&self.socket);
        served.map_err(|e| Error::io(format!("admin socket {}", self.socket.display()), e))
    }
}

/// Remove the socket of a daemon that is gone.
async fn remove_dead(socket: &Path) -> Result<()> {
    let named = || format!("admin socket {}", socket.display());
    match std::fs::symlink_metadata(socket) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(named(), e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(Error::invalid(format!("{}: there is something that is not a socket", named()))
                .remedy("name another path with --admin unix:PATH"));
        }
        Ok(_) => {}
    }
    if UnixStream::connect(socket).await.is_ok() {
        return Err(Error::new(ErrorKind::Unavailable, format!("{} is in use by another process", named()))
            .remedy("name another path with --admin unix:PATH"));
    }
    std::fs::remove_file(socket).map_err(|e| Error::io(named(), e))
}

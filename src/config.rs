//! The configuration: a TOML file, every key optional, overridden by command-line flags.
//!
//! Owns the keys, their defaults and the checks between them. A configuration file that is empty
//! equals [`Config::default`]; an unknown key is refused by name. `config/default.toml` and
//! `docs/configuration.md` list every key, and a test holds them to it.
//!
//! Failure story: a file that cannot be read or parsed, or that contradicts itself, keeps the daemon
//! from starting; all contradictions are told at once, each with its remedy.

mod check;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

pub use check::{Finding, Severity};

use crate::error::{Error, Result};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const DAY_SECS: u64 = 24 * 3600;

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub nfs: NfsConfig,
    pub exports: ExportsConfig,
    pub cache: CacheConfig,
    pub store: StoreConfig,
    pub import: ImportConfig,
    pub clones: ClonesConfig,
    pub pins: PinsConfig,
    pub admin: AdminConfig,
    pub audit: AuditConfig,
    pub maintenance: MaintenanceConfig,
    pub operations: OperationsConfig,
    pub log: LogConfig,
}

/// Background work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaintenanceConfig {
    /// Pause between two rounds, in seconds.
    pub interval_secs: u64,
    /// Private data that was not written for so long is deduplicated, in seconds.
    pub idle_secs: u64,
    /// How long what nothing names any more is kept for requests that still run, in seconds.
    pub grace_secs: u64,
    /// Data that background work moves at most, in bytes a second.
    pub bytes_per_sec: u64,
}

impl Default for MaintenanceConfig {
    fn default() -> Self {
        Self { interval_secs: 10, idle_secs: 600, grace_secs: 120, bytes_per_sec: 8 * MIB }
    }
}

/// Operations that have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OperationsConfig {
    /// How many are kept, the newest.
    pub keep: usize,
    /// For how long, in seconds.
    pub keep_secs: u64,
    /// Each for so long at least, since it may be rolled back, in seconds.
    pub rollback_secs: u64,
}

impl Default for OperationsConfig {
    fn default() -> Self {
        Self { keep: 200, keep_secs: 30 * DAY_SECS, rollback_secs: 7 * DAY_SECS }
    }
}

/// The NFS front end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NfsConfig {
    /// Addresses and ports of NFS and MOUNT. Port 0 takes a free one; an IPv6 address takes IPv6 only.
    pub listen: Vec<SocketAddr>,
    /// Threads that serve connections; 0 is one per core.
    pub workers: usize,
    /// Connections open at once; further ones are closed when they arrive.
    pub max_connections: usize,
    /// How long a stop waits for requests in flight, in seconds.
    pub drain_secs: u64,
}

impl Default for NfsConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 2049))],
            workers: 0,
            max_connections: 16_384,
            drain_secs: 10,
        }
    }
}

/// Who may use the exports, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExportsConfig {
    /// Networks whose machines may mount and use exports.
    pub allow: Vec<IpNet>,
    /// Serve clones read-only too.
    pub read_only: bool,
    /// Which callers become the anonymous user.
    pub squash: Squash,
    pub anon_uid: u32,
    pub anon_gid: u32,
    /// Serve only requests from source ports below 1024.
    pub privileged_port: bool,
}

impl Default for ExportsConfig {
    fn default() -> Self {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        let v6 = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
        Self {
            allow: vec![v4.into(), v6.into()],
            read_only: false,
            squash: Squash::None,
            anon_uid: 65534,
            anon_gid: 65534,
            privileged_port: true,
        }
    }
}

/// Which callers are served as the anonymous user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Squash {
    /// Nobody: machines boot from clones as root, and the list of networks is the gate.
    None,
    /// Uid 0.
    Root,
    /// Everybody.
    All,
}

/// The cache of verified chunks in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    pub bytes: u64,
    /// Of private data that was written or read lately.
    pub private_bytes: u64,
    /// Of chunks that were read ahead and nobody has asked for yet; 0 reads nothing ahead.
    pub read_ahead_bytes: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { bytes: GIB, private_bytes: 256 * MIB, read_ahead_bytes: 8 * MIB }
    }
}

/// The chunk store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// A pack is closed when it is this long.
    pub pack_bytes: u64,
    /// zstd level of new chunks, 1 to 19; 0 stores them uncompressed.
    pub zstd_level: i32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { pack_bytes: 32 * MIB, zstd_level: 1 }
    }
}

/// Imports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImportConfig {
    /// Threads that read, cut and compress; 0 is one per core.
    pub threads: usize,
}

/// Clones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClonesConfig {
    /// How deep forks of forks may go; 0 allows no fork.
    pub max_fork_depth: u32,
}

impl Default for ClonesConfig {
    fn default() -> Self {
        Self { max_fork_depth: 8 }
    }
}

/// Former views of clones, kept because handles into them may be in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PinsConfig {
    /// One ends when nothing was resolved in it for so long, in seconds.
    pub idle_secs: u64,
    /// And so long after all clients that used it have mounted the clone anew or unmounted it, in seconds.
    pub unmounted_secs: u64,
}

impl Default for PinsConfig {
    fn default() -> Self {
        Self { idle_secs: 7 * 24 * 3600, unmounted_secs: 3600 }
    }
}

/// The audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// A file is followed by the next when it is so long.
    pub file_bytes: u64,
    /// Files that are kept.
    pub files: usize,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { file_bytes: 16 * MIB, files: 16 }
    }
}

/// The admin API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Path of the Unix socket; empty is `admin.sock` in the data directory.
    pub socket: PathBuf,
    /// Users who may use the socket besides root and the daemon's own.
    pub allow_uids: Vec<u32>,
}

/// What the daemon writes to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,mimeo::nfs=debug`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into() }
    }
}

impl Config {
    /// Parse TOML. `origin` names it in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| {
            Error::invalid(format!("configuration {origin}"))
                .because(e)
                .remedy("config/default.toml lists every key with its default")
        })
    }

    /// Read and parse the file at `path`.
    pub fn load(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(format!("configuration {origin}"), e))?;
        Self::parse(&text, &origin)
    }

    /// The admin socket of a daemon on `data`.
    pub fn admin_socket(&self, data: &Path) -> PathBuf {
        if self.admin.socket.as_os_str().is_empty() { data.join("admin.sock") } else { self.admin.socket.clone() }
    }
}

//! Contradictions in a configuration, each with its remedy.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use super::{Config, MIB, Squash};
use crate::error::{Error, Result};

/// Slowest background work, in bytes a second.
const MIN_RATE: u64 = 64 * 1024;
/// Below this the pages of a manifest push each other out.
const MIN_CACHE_BYTES: u64 = 64 * MIB;
const PACK_BYTES: std::ops::RangeInclusive<u64> = MIB..=64 * MIB;
const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = 0..=19;
const MAX_THREADS: usize = 1024;
const MAX_DRAIN_SECS: u64 = 3600;
const MAX_FORK_DEPTH: u32 = 1024;
const AUDIT_FILE_BYTES: std::ops::RangeInclusive<u64> = MIB..=1024 * MIB;
const AUDIT_FILES: std::ops::RangeInclusive<usize> = 2..=10_000;
/// Clients cache attributes for up to a minute, and look again.
const MIN_PIN_SECS: u64 = 60;
const MAX_OPERATIONS: usize = 4096;
/// Whoever finds out that a repoint was wrong needs time to say so.
const MIN_ROLLBACK_SECS: u64 = 600;

/// Whether the daemon may start in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Warning,
    Error,
}

/// Something in a configuration that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub what: String,
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Collects findings.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, wrong: bool, what: impl Into<String>, remedy: &str) {
        self.add(Severity::Error, wrong, what.into(), remedy);
    }

    fn warn(&mut self, wrong: bool, what: impl Into<String>, remedy: &str) {
        self.add(Severity::Warning, wrong, what.into(), remedy);
    }

    fn add(&mut self, severity: Severity, wrong: bool, what: String, remedy: &str) {
        if wrong {
            self.0.push(Finding { severity, what, remedy: remedy.into() });
        }
    }
}

impl Config {
    /// Every contradiction, in the order of the sections.
    pub fn findings(&self) -> Vec<Finding> {
        let mut found = Findings::default();
        self.check_nfs(&mut found);
        self.check_exports(&mut found);
        self.check_reach(&mut found);
        self.check_store(&mut found);
        self.check_maintenance(&mut found);
        self.check_clones(&mut found);
        self.check_pins(&mut found);
        self.check_audit(&mut found);
        self.check_operations(&mut found);
        self.check_log(&mut found);
        found.0
    }

    /// The warnings; or one error that tells every finding of severity `Error`.
    pub fn validate(&self) -> Result<Vec<Finding>> {
        let (errors, warnings): (Vec<_>, Vec<_>) =
            self.findings().into_iter().partition(|f| f.severity == Severity::Error);
        if errors.is_empty() {
            return Ok(warnings);
        }
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Err(Error::invalid(format!("the configuration contradicts itself:\n  {}", told.join("\n  "))))
    }

    fn check_nfs(&self, found: &mut Findings) {
        let nfs = &self.nfs;
        found.error(nfs.listen.is_empty(), "nfs.listen is empty: nobody could connect", "name an address and a port");
        found.error(nfs.max_connections == 0, "nfs.max_connections is 0: nobody could connect", "set it to 1 or more");
        found.error(
            nfs.workers > MAX_THREADS,
            format!("nfs.workers is {}", nfs.workers),
            "set at most 1024, or 0 for one per core",
        );
        found.error(
            nfs.drain_secs > MAX_DRAIN_SECS,
            format!("nfs.drain_secs is {}: a stop would wait that long", nfs.drain_secs),
            "set at most 3600",
        );
    }

    fn check_exports(&self, found: &mut Findings) {
        let exports = &self.exports;
        found.error(
            exports.allow.is_empty(),
            "exports.allow is empty: nobody could mount anything",
            "name at least one network, such as \"127.0.0.0/8\"",
        );
        for net in exports.allow.iter().filter(|net| net.trunc() != **net) {
            let what = format!("exports.allow has {net}, an address with a network's prefix length");
            let host = IpNet::from(net.addr());
            found.error(true, what, &format!("write {} for the network or {host} for the one machine", net.trunc()));
        }
        let squashed_to_root = exports.squash != Squash::None && exports.anon_uid == 0;
        found.error(
            squashed_to_root,
            "exports.squash turns callers into exports.anon_uid, which is 0: root",
            "set exports.anon_uid = 65534, or exports.squash = \"none\"",
        );
    }

    /// The addresses that NFS listens on against the networks that may use it.
    fn check_reach(&self, found: &mut Findings) {
        let listen: Vec<IpAddr> = self.nfs.listen.iter().map(SocketAddr::ip).collect();
        let allow = &self.exports.allow;
        if listen.is_empty() || allow.is_empty() {
            return;
        }
        let shown = listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let outside = |net: &IpNet| !net.network().is_loopback();
        found.warn(
            !listen.iter().all(IpAddr::is_loopback) && !allow.iter().any(outside),
            format!("nfs.listen is {shown}, but exports.allow has only loopback: every other machine is refused"),
            "add the clients' networks to exports.allow, or listen on 127.0.0.1",
        );
        for net in allow.iter().filter(|net| outside(net)) {
            let reached = listen.iter().any(|ip| !ip.is_loopback() && ip.is_ipv4() == net.addr().is_ipv4());
            found.warn(
                !reached,
                format!("exports.allow has {net}, which cannot reach nfs.listen, {shown}"),
                "listen on an address of that network too, such as 0.0.0.0 (IPv4) or [::] (IPv6)",
            );
        }
    }

    fn check_store(&self, found: &mut Findings) {
        found.error(
            self.cache.bytes < MIN_CACHE_BYTES,
            format!("cache.bytes is {}: too small to hold the pages that every lookup needs", self.cache.bytes),
            "set it to 67108864 (64 MiB) or more",
        );
        found.error(
            self.cache.read_ahead_bytes > self.cache.bytes,
            format!("cache.read_ahead_bytes is {}, more than cache.bytes", self.cache.read_ahead_bytes),
            "set it to 8388608 (8 MiB), or to 0 to read nothing ahead",
        );
        found.error(
            !PACK_BYTES.contains(&self.store.pack_bytes),
            format!("store.pack_bytes is {}", self.store.pack_bytes),
            "set it between 1048576 (1 MiB) and 67108864 (64 MiB)",
        );
        found.error(
            !ZSTD_LEVELS.contains(&self.store.zstd_level),
            format!("store.zstd_level is {}", self.store.zstd_level),
            "set it between 1 and 19, or 0 for no compression",
        );
        found.error(
            self.import.threads > MAX_THREADS,
            format!("import.threads is {}", self.import.threads),
            "set at most 1024, or 0 for one per core",
        );
    }

    fn check_maintenance(&self, found: &mut Findings) {
        let maintenance = &self.maintenance;
        found.error(
            maintenance.interval_secs == 0 || maintenance.grace_secs == 0,
            "maintenance.interval_secs or maintenance.grace_secs is 0".to_owned(),
            "set both to 1 or more",
        );
        found.error(
            maintenance.bytes_per_sec < MIN_RATE,
            format!("maintenance.bytes_per_sec is {}", maintenance.bytes_per_sec),
            "set it to 65536 (64 KiB) or more",
        );
    }

    fn check_clones(&self, found: &mut Findings) {
        found.error(
            self.clones.max_fork_depth > MAX_FORK_DEPTH,
            format!("clones.max_fork_depth is {}", self.clones.max_fork_depth),
            "set at most 1024",
        );
    }

    fn check_pins(&self, found: &mut Findings) {
        let pins = &self.pins;
        found.error(
            pins.unmounted_secs < MIN_PIN_SECS || pins.idle_secs < pins.unmounted_secs,
            format!("pins.idle_secs is {} and pins.unmounted_secs {}", pins.idle_secs, pins.unmounted_secs),
            "set pins.unmounted_secs to 60 or more, and pins.idle_secs to that or more",
        );
    }

    fn check_audit(&self, found: &mut Findings) {
        let audit = &self.audit;
        found.error(
            !AUDIT_FILE_BYTES.contains(&audit.file_bytes) || !AUDIT_FILES.contains(&audit.files),
            format!("audit.file_bytes is {} and audit.files {}", audit.file_bytes, audit.files),
            "set audit.file_bytes between 1048576 (1 MiB) and 1073741824 (1 GiB), and audit.files between 2 and 10000",
        );
    }

    fn check_operations(&self, found: &mut Findings) {
        found.error(
            self.operations.rollback_secs < MIN_ROLLBACK_SECS,
            format!("operations.rollback_secs is {}", self.operations.rollback_secs),
            "set it to 600 or more: until then the snapshots that a rollback needs are kept",
        );
        found.error(
            self.operations.keep > MAX_OPERATIONS,
            format!("operations.keep is {}", self.operations.keep),
            "set at most 4096",
        );
    }

    fn check_log(&self, found: &mut Findings) {
        let wrong = EnvFilter::try_new(&self.log.filter).err();
        let what = format!(
            "log.filter is {:?}: {}",
            self.log.filter,
            wrong.as_ref().map_or(String::new(), ToString::to_string)
        );
        found.error(wrong.is_some(), what, "use a level such as \"info\", or \"info,mimeo::nfs=debug\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(toml: &str) -> Vec<Finding> {
        Config::parse(toml, "test").expect("parses").findings()
    }

    #[test]
    fn the_default_has_no_findings() {
        assert_eq!(Config::default().findings(), []);
    }

    #[test]
    fn every_contradiction_is_told_at_once() {
        let config = "nfs.max_connections = 0\ncache.bytes = 1\nstore.zstd_level = 40\nexports.allow = []\noperations.keep = 4097\noperations.rollback_secs = 599";
        let error = Config::parse(config, "test").unwrap().validate().unwrap_err().to_string();
        for key in [
            "nfs.max_connections",
            "cache.bytes",
            "store.zstd_level",
            "exports.allow",
            "operations.keep",
            "operations.rollback_secs",
        ] {
            assert!(error.contains(key), "{key} in {error}");
        }
    }

    #[test]
    fn a_listener_nobody_may_use_is_a_warning() {
        let found = findings("nfs.listen = [\"0.0.0.0:2049\"]");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(found[0].remedy.contains("exports.allow"));
        assert_eq!(findings("nfs.listen = [\"0.0.0.0:2049\"]\nexports.allow = [\"10.0.0.0/8\"]"), []);
        assert_eq!(findings("exports.allow = [\"10.0.0.0/8\"]").len(), 1);
    }

    #[test]
    fn an_address_in_place_of_a_network_is_refused() {
        let found = findings("nfs.listen = [\"0.0.0.0:2049\"]\nexports.allow = [\"10.0.0.5/8\"]");
        assert!(found[0].remedy.contains("10.0.0.0/8") && found[0].remedy.contains("10.0.0.5/32"), "{}", found[0]);
    }

    #[test]
    fn squashing_to_root_is_refused() {
        assert_eq!(findings("exports.squash = \"all\"\nexports.anon_uid = 0")[0].severity, Severity::Error);
    }
}

//! Who may use an export, and as whom.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Caller;
pub use crate::image::Squash;

/// The policy of an export. Checked on every request, not only at MOUNT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportPolicy {
    /// Client networks that are let in; nobody else is.
    pub networks: Vec<IpNet>,
    /// Refuse everything that changes something.
    pub read_only: bool,
    pub squash: Squash,
    pub anon_uid: u32,
    pub anon_gid: u32,
    /// Let in only source ports below 1024, which on a Unix client takes root.
    pub privileged_port: bool,
}

impl Default for ExportPolicy {
    /// Loopback only, from privileged ports.
    fn default() -> Self {
        let loopback = |addr: [u8; 4]| IpNet::new_assert(IpAddr::from(addr), 8);
        Self {
            networks: vec![
                loopback([127, 0, 0, 0]),
                IpNet::new_assert(IpAddr::from(std::net::Ipv6Addr::LOCALHOST), 128),
            ],
            read_only: false,
            squash: Squash::None,
            anon_uid: 65534,
            anon_gid: 65534,
            privileged_port: true,
        }
    }
}

impl ExportPolicy {
    /// Whether requests from this address and port are answered at all.
    pub fn admits(&self, caller: &Caller) -> bool {
        let addr = caller.peer.ip().to_canonical();
        (!self.privileged_port || caller.peer.port() < 1024) && self.networks.iter().any(|net| net.contains(&addr))
    }

    /// The identity under which the caller's permissions are judged.
    pub fn identity<'a>(&self, caller: &'a Caller) -> Identity<'a> {
        let squashed = match self.squash {
            Squash::None => false,
            Squash::Root => caller.uid == 0,
            Squash::All => true,
        };
        if squashed {
            Identity { uid: self.anon_uid, gid: self.anon_gid, groups: &[] }
        } else {
            Identity { uid: caller.uid, gid: caller.gid, groups: &caller.groups }
        }
    }
}

/// A caller after squashing.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    pub uid: u32,
    pub gid: u32,
    pub groups: &'a [u32],
}

impl Identity<'_> {
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    fn caller(peer: &str, uid: u32) -> Caller {
        Caller { peer: peer.parse().unwrap(), uid, gid: uid, groups: smallvec![7] }
    }

    #[test]
    fn default_admits_only_privileged_loopback() {
        let policy = ExportPolicy::default();
        assert!(policy.admits(&caller("127.0.0.1:1000", 0)));
        assert!(policy.admits(&caller("[::1]:1000", 0)));
        assert!(policy.admits(&caller("[::ffff:127.0.0.1]:1000", 0)), "a mapped IPv4 address is the IPv4 address");
        assert!(!policy.admits(&caller("127.0.0.1:1024", 0)));
        assert!(!policy.admits(&caller("10.0.0.1:1000", 0)));
    }

    #[test]
    fn squash_maps_root_or_all() {
        let root = ExportPolicy { squash: Squash::Root, ..ExportPolicy::default() };
        let zero = caller("127.0.0.1:1", 0);
        let five = caller("127.0.0.1:1", 5);
        assert_eq!(root.identity(&zero).uid, 65534);
        assert!(!root.identity(&zero).in_group(7), "a squashed caller loses its groups");
        assert_eq!(root.identity(&five).uid, 5);
        assert!(root.identity(&five).in_group(7));
        let all = ExportPolicy { squash: Squash::All, ..ExportPolicy::default() };
        assert_eq!(all.identity(&five).uid, 65534);
    }
}

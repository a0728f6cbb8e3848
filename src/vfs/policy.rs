//! Who may use an export, and as whom.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Caller;
use crate::image::ExportOverrides;
pub use crate::image::Squash;

/// The policy of exports that have none of their own. Checked on every request, not only at MOUNT.
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
    /// As it stands.
    pub fn rules(&self) -> Rules<'_> {
        Rules {
            networks: &self.networks,
            read_only: self.read_only,
            squash: self.squash,
            anon_uid: self.anon_uid,
            anon_gid: self.anon_gid,
            privileged_port: self.privileged_port,
        }
    }

    /// With what an export has of its own. Allocates nothing: it is done for every request.
    pub fn with<'a>(&'a self, own: &'a ExportOverrides) -> Rules<'a> {
        Rules {
            networks: own.allow.as_deref().unwrap_or(&self.networks),
            read_only: own.read_only.unwrap_or(self.read_only),
            squash: own.squash.unwrap_or(self.squash),
            anon_uid: own.anon_uid.unwrap_or(self.anon_uid),
            anon_gid: own.anon_gid.unwrap_or(self.anon_gid),
            privileged_port: own.privileged_port.unwrap_or(self.privileged_port),
        }
    }
}

/// What holds for one export: see [`ExportPolicy`].
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub networks: &'a [IpNet],
    pub read_only: bool,
    pub squash: Squash,
    pub anon_uid: u32,
    pub anon_gid: u32,
    pub privileged_port: bool,
}

impl Rules<'_> {
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
        if squashed || caller.anonymous {
            return Identity { uid: self.anon_uid, gid: self.anon_gid, groups: &[], group_zero: self.anon_gid };
        }
        let group_zero = if self.squash == Squash::Root { self.anon_gid } else { 0 };
        let gid = if caller.gid == 0 { group_zero } else { caller.gid };
        Identity { uid: caller.uid, gid, groups: &caller.groups, group_zero }
    }
}

/// A caller after squashing.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    pub uid: u32,
    pub gid: u32,
    /// As the caller gave them: see `group_zero`.
    pub groups: &'a [u32],
    /// What a 0 among `groups` means. (Mapped when it is asked for, so that nothing is copied.)
    pub group_zero: u32,
}

impl Identity<'_> {
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    pub fn in_group(&self, gid: u32) -> bool {
        let mapped = |group: u32| if group == 0 { self.group_zero } else { group };
        self.gid == gid || self.groups.iter().any(|group| mapped(*group) == gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    fn caller(peer: &str, uid: u32) -> Caller {
        Caller { peer: peer.parse().unwrap(), anonymous: false, uid, gid: uid, groups: smallvec![7] }
    }

    #[test]
    fn default_admits_only_privileged_loopback() {
        let policy = ExportPolicy::default();
        let policy = policy.rules();
        assert!(policy.admits(&caller("127.0.0.1:1000", 0)));
        assert!(policy.admits(&caller("[::1]:1000", 0)));
        assert!(policy.admits(&caller("[::ffff:127.0.0.1]:1000", 0)), "a mapped IPv4 address is the IPv4 address");
        assert!(!policy.admits(&caller("127.0.0.1:1024", 0)));
        assert!(!policy.admits(&caller("10.0.0.1:1000", 0)));
    }

    #[test]
    fn squash_maps_root_or_all() {
        let policy = ExportPolicy { squash: Squash::Root, ..ExportPolicy::default() };
        let root = policy.rules();
        let zero = caller("127.0.0.1:1", 0);
        let five = caller("127.0.0.1:1", 5);
        assert_eq!(root.identity(&zero).uid, 65534);
        assert!(!root.identity(&zero).in_group(7), "a squashed caller loses its groups");
        assert_eq!(root.identity(&five).uid, 5);
        assert!(root.identity(&five).in_group(7));
        let all = ExportPolicy { squash: Squash::All, ..ExportPolicy::default() };
        assert_eq!(all.rules().identity(&five).uid, 65534);
    }

    #[test]
    fn a_squashed_root_has_no_group_0() {
        let policy = ExportPolicy { squash: Squash::Root, anon_gid: 99, ..ExportPolicy::default() };
        let user = Caller { gid: 0, groups: smallvec![0, 7], ..caller("127.0.0.1:1", 1000) };
        let who = policy.rules().identity(&user);
        assert_eq!((who.uid, who.gid), (1000, 99));
        assert!(!who.in_group(0) && who.in_group(7) && who.in_group(99));
        let secondary = Caller { gid: 5, ..user.clone() };
        let who = policy.rules().identity(&secondary);
        assert!(!who.in_group(0) && who.in_group(5) && who.in_group(99));
        let policy = ExportPolicy { squash: Squash::None, ..policy };
        let who = policy.rules().identity(&user);
        assert!(who.in_group(0) && !who.in_group(99));
    }

    #[test]
    fn who_gives_no_credentials_is_the_anonymous_user_whatever_the_squash() {
        for squash in [Squash::None, Squash::Root, Squash::All] {
            let policy = ExportPolicy { squash, anon_uid: 98, anon_gid: 99, ..ExportPolicy::default() };
            let nobody = Caller { anonymous: true, ..caller("127.0.0.1:1", 5) };
            let who = policy.rules().identity(&nobody);
            assert_eq!((who.uid, who.gid, who.groups), (98, 99, &[][..]));
        }
    }

    #[test]
    fn an_export_overrides_what_it_names_and_keeps_the_rest() {
        let policy = ExportPolicy { anon_uid: 7, ..ExportPolicy::default() };
        let own = ExportOverrides {
            allow: Some(vec!["10.1.0.0/16".parse().unwrap()]),
            squash: Some(Squash::All),
            ..ExportOverrides::default()
        };
        let rules = policy.with(&own);
        assert!(rules.admits(&caller("10.1.2.3:1000", 0)));
        assert!(!rules.admits(&caller("127.0.0.1:1000", 0)), "its networks replace the default's");
        assert!(!rules.admits(&caller("10.1.2.3:2000", 0)), "the port rule is the default's");
        assert_eq!(rules.identity(&caller("10.1.2.3:1000", 5)).uid, 7);
        assert!(!rules.read_only);
        let own = ExportOverrides { read_only: Some(true), privileged_port: Some(false), ..ExportOverrides::default() };
        assert!(policy.with(&own).read_only && policy.with(&own).admits(&caller("127.0.0.1:2000", 0)));
    }
}

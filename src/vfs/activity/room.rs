//! Room in the table of who uses which clone: how many entries there may be, and how many of one machine.
//!
//! Invariant: each entry is charged to the client that made it, until it is given back; of all clients no more than
//! `max`, of one machine no more than `max_of_host`. So a machine that uses everything is listed in part, and the others
//! in full.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

pub(super) struct Room {
    max: usize,
    max_of_host: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// Nobody is in it with nothing.
    by_host: HashMap<IpAddr, usize>,
}

/// What has no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Table,
    /// The share of this machine.
    Share(IpAddr),
}

impl Room {
    pub fn new(max: usize, max_of_host: usize) -> Self {
        Self { max, max_of_host, taken: Mutex::default() }
    }

    /// Room for one more entry of a client.
    pub fn take(&self, client: IpAddr) -> Result<(), Full> {
        let (host, mut taken) = (host_of(client), self.taken.lock());
        if taken.all >= self.max {
            return Err(Full::Table);
        }
        if taken.by_host.get(&host).is_some_and(|of_host| *of_host >= self.max_of_host) {
            return Err(Full::Share(host));
        }
        taken.all += 1;
        *taken.by_host.entry(host).or_default() += 1;
        Ok(())
    }

    /// So many entries of a client are gone.
    pub fn give(&self, client: IpAddr, entries: usize) {
        let (host, mut taken) = (host_of(client), self.taken.lock());
        taken.all -= entries;
        let of_host = taken.by_host.get_mut(&host).map(|of_host| {
            *of_host -= entries;
            *of_host
        });
        if of_host == Some(0) {
            taken.by_host.remove(&host);
        }
    }

    #[cfg(test)]
    pub fn count(&self) -> (usize, usize) {
        let taken = self.taken.lock();
        (taken.all, taken.by_host.len())
    }
}

/// One machine: an address, or of IPv6 the network of 64 bits that one machine may have.
pub fn host_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

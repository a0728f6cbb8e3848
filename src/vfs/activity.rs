//! Who uses which clone, as far as requests tell.
//!
//! Owns, for each clone and client address: the last request with a handle of the clone, the last READ, the
//! last MNT or UMNT, and the open connections that have used a handle of it; and for each former view, when
//! something was last resolved in it and by whom. In memory only: after a restart it begins empty.
//!
//! A connection has a [`Footprint`], which notes each use of a clone once a second: what it noted in this
//! second already costs one load from the connection's own memory, so the table is never asked by a
//! request that reads on and on. The table is in shards by clone.
//!
//! Invariants: the entries of all kinds are at most [`MAX_ENTRIES`], those of one machine a quarter of them. Whatever is not here happened before
//! [`complete_since`](ViewUses::complete_since): who wants to know that something is *not* used must look at
//! that too.
//!
//! Failure story: a full table forgets who did nothing for a while and has no connection, a shard once a second
//! at most, and so does a full share of the table with its own; if that is not enough, it says that it is not complete
//! until the connections that it cannot list are closed. So nothing counts as unused because there was no room: pins stay, switches go on waiting.

mod room;
#[cfg(test)]
mod tests;

pub use room::host_of;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use self::room::{Full, Room};
use super::resolve::mixed;
use crate::image::{ExportId, Readers, ViewUses};

/// Clients of clones, connections of these, and users of former views that are listed altogether: 100 to
/// 200 bytes each.
const MAX_ENTRIES: usize = 1 << 20;
/// Of these, as many as one machine may fill.
const MAX_OF_HOST: usize = MAX_ENTRIES / 4;
/// Clients that are listed for one former view.
const MAX_VIEW_CLIENTS: usize = 64;
/// How long nobody may have used a clone for it to count as unused.
pub const QUIET: Duration = Duration::from_secs(90);
/// How long a machine may have been silent, and unconnected, and still counts where another address mounts: a
/// client closes an idle connection after some minutes, and has the clone mounted all the same.
pub const AWAY: Duration = Duration::from_secs(3600);
/// Uses within it are one.
const RESOLUTION: Duration = Duration::from_secs(1);
const SHARDS: usize = 64;
/// What a connection remembers to have noted: a machine that runs a hundred desktops has all of their clones on one.
const SLOTS: usize = 256;

/// What was done with a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A request came with it, whatever became of it.
    Request,
    /// A file was read in this view.
    Read(u64),
    /// It was resolved in this former view.
    View(u64),
}

/// The table. Times are the clock's uptime.
pub struct Activity {
    shards: Box<[Mutex<Shard>]>,
    room: Room,
    began: Duration,
    complete_since: Mutex<Duration>,
    /// Open connections of which some use could not be listed.
    unlisted: AtomicUsize,
    /// The newest time that was noted.
    latest: AtomicU64,
    connections: AtomicU64,
}

#[derive(Default)]
struct Shard {
    clients: BTreeMap<(ExportId, IpAddr), Client>,
    views: BTreeMap<(ExportId, u64), ViewUse>,
    /// When who is idle was last forgotten: of all, and of some full share.
    swept: [Option<Duration>; 2],
}

/// One client of one clone.
#[derive(Default)]
struct Client {
    last: Option<Duration>,
    /// The newest view in which it was seen reading, and when it last did.
    read: Option<(u64, Duration)>,
    left: Option<Left>,
    connections: SmallVec<[Connected; 1]>,
}

/// A MNT or UMNT.
struct Left {
    at: Duration,
    /// From then on the client has no handles of views before this one.
    view: u64,
    /// There is no mount: a request says that there is another one all the same.
    unmounted: bool,
}

struct Connected {
    connection: u64,
    /// When it used the clone first.
    since: Duration,
}

struct ViewUse {
    last: Duration,
    /// Whose entry it is.
    by: IpAddr,
    clients: SmallVec<[(IpAddr, Duration); 1]>,
    /// There were more clients.
    more: bool,
}

/// A client of a clone, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub client: IpAddr,
    /// Its last request with a handle; `None`: it has only mounted.
    pub last: Option<Duration>,
    pub connected: bool,
}

impl Activity {
    /// Empty at `now`.
    pub fn new(now: Duration) -> Arc<Self> {
        Self::with_room(now, MAX_ENTRIES, MAX_OF_HOST)
    }

    fn with_room(now: Duration, max_entries: usize, max_of_host: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            room: Room::new(max_entries, max_of_host),
            began: now,
            complete_since: Mutex::new(now),
            unlisted: AtomicUsize::new(0),
            latest: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        })
    }

    /// A new connection of `client`.
    pub fn connect(self: &Arc<Self>, client: IpAddr) -> Arc<Footprint> {
        Arc::new(Footprint {
            activity: self.clone(),
            client: client.to_canonical(),
            connection: self.connections.fetch_add(1, Ordering::Relaxed),
            now_millis: AtomicU64::new(0),
            noted: std::array::from_fn(|_| AtomicU64::new(0)),
            clones: Mutex::default(),
            unlisted: AtomicBool::new(false),
        })
    }

    /// A client mounted `clone`, which showed `view`: handles that it had are those of a machine that is gone.
    pub fn mounted(&self, clone: ExportId, client: IpAddr, view: u64, at: Duration) {
        self.left(clone, client, Left { at, view, unmounted: false });
    }

    /// A client unmounted `clone`, which showed `view`.
    pub fn unmounted(&self, clone: ExportId, client: IpAddr, view: u64, at: Duration) {
        self.left(clone, client, Left { at, view: view + 1, unmounted: true });
    }

    fn left(&self, clone: ExportId, client: IpAddr, left: Left) {
        let mut shard = self.shard(clone).lock();
        let client = client.to_canonical();
        let key = (clone, client);
        // Who unmounts what he never used left nothing behind.
        if !shard.clients.contains_key(&key) && (left.unmounted || !self.take_room(&mut shard, client, left.at)) {
            return;
        }
        shard.clients.entry(key).or_default().left = Some(left);
    }

    fn shard(&self, clone: ExportId) -> &Mutex<Shard> {
        // Ids of clones that were made together follow each other.
        &self.shards[clone.0 as usize % SHARDS]
    }

    fn note(&self, by: &Footprint, clone: ExportId, what: Use, now: Duration) {
        self.latest.fetch_max(millis(now), Ordering::Relaxed);
        let mut shard = self.shard(clone).lock();
        let listed = self.note_client(&mut shard, by, clone, what, now)
            && match what {
                Use::View(view) => self.note_view(&mut shard, by.client, (clone, view), now),
                Use::Request | Use::Read(_) => true,
            };
        if !listed {
            self.incomplete(now);
            if !by.unlisted.swap(true, Ordering::Relaxed) {
                self.unlisted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// `false` if there is no room for it.
    fn note_client(&self, shard: &mut Shard, by: &Footprint, clone: ExportId, what: Use, now: Duration) -> bool {
        let key = (clone, by.client);
        if !shard.clients.contains_key(&key) && !self.take_room(shard, by.client, now) {
            return false;
        }
        let client = shard.clients.entry(key).or_default();
        client.last = Some(now);
        if let Use::Read(view) = what {
            client.read = client.read.max(Some((view, now)));
        }
        client.left = client.left.take().filter(|left| !left.unmounted);
        if by.clones.lock().contains(&clone) {
            return true;
        }
        let has_room = self.take_room(shard, by.client, now);
        if has_room && let Some(client) = shard.clients.get_mut(&key) {
            client.connections.push(Connected { connection: by.connection, since: now });
            by.clones.lock().insert(clone);
        }
        has_room
    }

    /// `false` if there is no room for it.
    fn note_view(&self, shard: &mut Shard, client: IpAddr, key: (ExportId, u64), now: Duration) -> bool {
        if !shard.views.contains_key(&key) && !self.take_room(shard, client, now) {
            return false;
        }
        let none = || ViewUse { last: now, by: client, clients: SmallVec::new(), more: false };
        let view = shard.views.entry(key).or_insert_with(none);
        view.last = now;
        match view.clients.iter().position(|(known, _)| *known == client) {
            Some(at) => view.clients[at].1 = now,
            None if view.clients.len() < MAX_VIEW_CLIENTS => view.clients.push((client, now)),
            None => view.more = true,
        }
        true
    }

    /// Room for one more entry of a client. What is full forgets who has no connection and did nothing for a while.
    fn take_room(&self, shard: &mut Shard, client: IpAddr, now: Duration) -> bool {
        let Err(full) = self.room.take(client) else { return true };
        let forgotten = shard.forget_idle(full, now);
        if !forgotten.is_empty() {
            self.incomplete(now);
        }
        forgotten.into_iter().for_each(|client| self.room.give(client, 1));
        self.room.take(client).is_ok()
    }

    fn incomplete(&self, now: Duration) {
        let mut since = self.complete_since.lock();
        *since = now.max(*since);
    }

    /// Whether a mount by this address finds the clone unused, as far as is known.
    pub fn is_quiet(&self, clone: ExportId, by: IpAddr, now: Duration) -> bool {
        let by = by.to_canonical();
        let blocks = |address: IpAddr, client: &Client| match address == by {
            true => client.is_active(now),
            false => client.is_active(now) || client.is_away(now),
        };
        self.knows_users(now) && self.seen(clone, blocks).next().is_none()
    }

    /// Whether it is known who has used a clone lately.
    pub fn knows_users(&self, now: Duration) -> bool {
        self.complete_since() + QUIET <= now
    }

    /// Who keeps a mount of the clone, by anybody or by another one, from finding it unused, at most `limit`.
    pub fn users(&self, clone: ExportId, now: Duration, limit: usize) -> Vec<Seen> {
        self.seen(clone, |_, client| client.is_active(now) || client.is_away(now)).take(limit).collect()
    }

    /// The clients of a clone that may hold handles into its view `view`, at most `limit`.
    pub fn holders(&self, clone: ExportId, view: u64, limit: usize) -> Vec<Seen> {
        self.seen(clone, |_, client| client.may_hold(view)).take(limit).collect()
    }

    /// The clients of a clone for which `wanted` holds, by address.
    fn seen(&self, clone: ExportId, wanted: impl Fn(IpAddr, &Client) -> bool) -> impl Iterator<Item = Seen> {
        let shard = self.shard(clone).lock();
        let of_clone = shard.of_clone(clone).filter(|(address, client)| wanted(*address, client));
        let seen = |(address, client): (IpAddr, &Client)| Seen {
            client: address,
            last: client.last,
            connected: !client.connections.is_empty(),
        };
        of_clone.map(seen).collect::<Vec<_>>().into_iter()
    }

    fn disconnect(&self, by: &mut Footprint) {
        let clones = std::mem::take(by.clones.get_mut());
        for clone in &clones {
            let mut shard = self.shard(*clone).lock();
            if let Some(client) = shard.clients.get_mut(&(*clone, by.client)) {
                client.connections.retain(|connected| connected.connection != by.connection);
            }
        }
        self.room.give(by.client, clones.len());
        if *by.unlisted.get_mut() {
            self.incomplete(Duration::from_millis(self.latest.load(Ordering::Relaxed)));
            self.unlisted.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Readers for Activity {
    fn readers_since(&self, views: &[(ExportId, u64)], since: Duration) -> usize {
        let readers = |(clone, view): &(ExportId, u64)| {
            let reads = |_, client: &Client| client.read.is_some_and(|(read, at)| read >= *view && at >= since);
            self.seen(*clone, reads).count()
        };
        views.iter().map(readers).sum()
    }

    fn why_incomplete(&self, since: Duration) -> Option<&'static str> {
        match self.complete_since() {
            known if known <= since => None,
            known if known == self.began => Some("what was before the start of the daemon is not known"),
            _ => Some("more clones are used by more clients than can be listed"),
        }
    }
}

impl ViewUses for Activity {
    fn complete_since(&self) -> Duration {
        let known = *self.complete_since.lock();
        match self.unlisted.load(Ordering::Relaxed) {
            0 => known,
            // As long as they are open, anything may be missing.
            _ => Duration::MAX / 2,
        }
    }

    fn last_resolved(&self, clone: ExportId, view: u64) -> Option<Duration> {
        self.shard(clone).lock().views.get(&(clone, view)).map(|used| used.last + RESOLUTION)
    }

    fn left_since(&self, clone: ExportId, view: u64) -> Option<Duration> {
        let shard = self.shard(clone).lock();
        let used = shard.views.get(&(clone, view));
        if used.is_some_and(|used| used.more) {
            return None;
        }
        let mut since = Duration::ZERO;
        for (address, client) in shard.of_clone(clone) {
            let resolved = used.and_then(|used| used.clients.iter().find(|(by, _)| *by == address));
            let left = client.left.as_ref().filter(|_| client.has_left(view))?;
            if resolved.is_some_and(|(_, at)| *at + RESOLUTION > left.at) {
                return None;
            }
            since = since.max(left.at);
        }
        Some(since)
    }

    fn clients(&self, clone: ExportId, view: u64, limit: usize) -> Vec<IpAddr> {
        let shard = self.shard(clone).lock();
        let resolved =
            shard.views.get(&(clone, view)).into_iter().flat_map(|used| used.clients.iter().map(|(ip, _)| *ip));
        let holding = shard.of_clone(clone).filter(|(_, client)| client.may_hold(view)).map(|(ip, _)| ip);
        let all: BTreeSet<_> = resolved.chain(holding).collect();
        all.into_iter().take(limit).collect()
    }

    fn keep_only(&self, is_there: &dyn Fn(ExportId, Option<u64>) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            // Those with connections go when these close: the connections have them in their lists.
            shard.clients.retain(|(clone, address), client| {
                let stays = !client.connections.is_empty() || is_there(*clone, None);
                if !stays {
                    self.room.give(*address, 1);
                }
                stays
            });
            shard.views.retain(|(clone, view), used| {
                let stays = is_there(*clone, Some(*view));
                if !stays {
                    self.room.give(used.by, 1);
                }
                stays
            });
        }
    }
}

impl Shard {
    /// Forget who did nothing for a while and has no connection, to make room in what is full; answers who.
    fn forget_idle(&mut self, full: Full, now: Duration) -> Vec<IpAddr> {
        let swept = match full {
            Full::Table => &mut self.swept[0],
            Full::Share(_) => &mut self.swept[1],
        };
        if swept.is_some_and(|swept| now < swept + RESOLUTION) {
            return Vec::new();
        }
        *swept = Some(now);
        let counts = |address| match full {
            Full::Table => true,
            Full::Share(host) => host_of(address) == host,
        };
        let mut forgotten = Vec::new();
        self.clients.retain(|(_, address), client| {
            let stays = !client.connections.is_empty() || client.was_active(now) || !counts(*address);
            if !stays {
                forgotten.push(*address);
            }
            stays
        });
        forgotten
    }

    fn of_clone(&self, clone: ExportId) -> impl Iterator<Item = (IpAddr, &Client)> {
        let from = (clone, IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        self.clients.range(from..).take_while(move |((of, _), _)| *of == clone).map(|((_, ip), client)| (*ip, client))
    }
}

impl Client {
    /// It uses the clone: it has a connection that does, or sent a request lately.
    fn is_active(&self, now: Duration) -> bool {
        !self.connections.is_empty() || self.last.is_some_and(|last| last + QUIET + RESOLUTION > now)
    }

    /// It used the clone not too long ago, and has not unmounted it since.
    fn is_away(&self, now: Duration) -> bool {
        let unmounted = self.left.as_ref().is_some_and(|left| left.unmounted);
        !unmounted && self.last.is_some_and(|last| last + AWAY + RESOLUTION > now)
    }

    /// It did anything lately.
    fn was_active(&self, now: Duration) -> bool {
        let last = self.last.max(self.left.as_ref().map(|left| left.at));
        last.is_some_and(|last| last + QUIET + RESOLUTION > now)
    }

    fn may_hold(&self, view: u64) -> bool {
        self.last.is_some() && !self.has_left(view)
    }

    /// Whether it mounted the clone anew, or unmounted it, after the clone showed `view`, and no connection is
    /// left from before.
    fn has_left(&self, view: u64) -> bool {
        let left = self.left.as_ref().filter(|left| left.view > view);
        left.is_some_and(|left| self.connections.iter().all(|connected| connected.since >= left.at))
    }
}

/// What one connection has used. Dropping it closes the connection, for the table.
pub struct Footprint {
    activity: Arc<Activity>,
    client: IpAddr,
    connection: u64,
    now_millis: AtomicU64,
    /// What was noted in which second, as far as there is room: each a hash of both.
    noted: [AtomicU64; SLOTS],
    /// The clones at which it is listed.
    clones: Mutex<BTreeSet<ExportId>>,
    unlisted: AtomicBool,
}

impl Footprint {
    /// What is noted from now on happens at `now`.
    pub fn tick(&self, now: Duration) {
        self.now_millis.store(millis(now), Ordering::Relaxed);
    }

    /// Note a use of a clone, if it is the first of its kind in this second.
    pub fn note(&self, clone: ExportId, what: Use) {
        let now = self.now_millis.load(Ordering::Relaxed);
        let kind = match what {
            Use::Request => 0,
            Use::Read(view) => !view,
            Use::View(view) => view,
        };
        let key = mixed(clone.0 ^ mixed(kind));
        let mark = mixed(key ^ (now / millis(RESOLUTION) + 1)) | 1;
        let slot = &self.noted[key as usize % SLOTS];
        if slot.load(Ordering::Relaxed) != mark {
            slot.store(mark, Ordering::Relaxed);
            self.activity.note(self, clone, what, Duration::from_millis(now));
        }
    }
}

impl Drop for Footprint {
    fn drop(&mut self) {
        let activity = self.activity.clone();
        activity.disconnect(self);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

//! Goal: whenever the power goes during a repoint, all of its clones show the old version afterwards or all
//! show the new one, whole, with what was private on either side; and what was acknowledged is so.
//! Method: the catalog and the overlays on one simulated disk, 10,000 clones of which some have private
//! writes. A repoint, and the catalog's checkpoint behind it, are cut at each of their calls; each such
//! moment ends in several ways.

use std::collections::BTreeSet;

use super::world::{A, SEED, START, manifest, overlays};
use super::*;
use crate::chunk::{Fetch, MemoryChunks};
use crate::env::{Env, ManualClock, SeededRng, SimDisk, Time};
use crate::image::log::KvCatalogLog;
use crate::image::record::VersionNumber;
use crate::image::{Labels, NewClones, NewVersion, VersionRef, Writes};
use crate::manifest::{Ino, Manifest};
use crate::meta::MemoryKv;
use crate::overlay::{Layer, Tree};

const CLONES: usize = 10_000;
/// So many of them have a private number in file `a`.
const WRITTEN: usize = 20;
/// What the first of them has there in the end, in memory only.
const LAST: u64 = 5000;
const MAX_CALLS: u64 = 100;

/// What a power cut leaves.
struct Machine {
    disk: Arc<SimDisk>,
    catalog: Arc<MemoryKv>,
    index: Arc<MemoryKv>,
    chunks: Arc<MemoryChunks>,
}

struct Running {
    chunks: Arc<MemoryChunks>,
    catalog: Arc<Catalog>,
    overlays: Arc<OverlayStore>,
    fleet: Fleet,
}

fn desk(n: usize) -> String {
    format!("desk-{n:05}")
}

fn private(n: usize) -> u64 {
    1000 + n as u64
}

impl Machine {
    /// Of its own dice, at the same moment.
    fn fork(&self, seed: u64) -> Self {
        let disk = Arc::new(self.disk.fork(seed));
        let (catalog, index) = (self.catalog.fork(disk.clone()), self.index.fork(disk.clone()));
        Self { catalog: Arc::new(catalog), index: Arc::new(index), chunks: self.chunks.clone(), disk }
    }

    /// Two versions, all clones on the first one, and private numbers that are on the disk.
    async fn new() -> Self {
        let disk = Arc::new(SimDisk::new(SEED.0[0].into()));
        let (catalog, index) = (MemoryKv::beside(disk.clone()), MemoryKv::beside(disk.clone()));
        let machine = Self { catalog: Arc::new(catalog), index: Arc::new(index), chunks: Arc::default(), disk };
        let running = machine.open().await;
        for b in [2, 20] {
            running.add_version([("a", A, 1), ("b", Ino(10 + b), b)]).await;
        }
        let names = (0..CLONES).map(desk).collect();
        let new = NewClones { version: VersionRef::number("os", 1), names, labels: Labels::new() };
        running.catalog.create_clones(new).await.unwrap();
        for n in 0..WRITTEN {
            running.write(&desk(n), private(n)).await;
        }
        running.overlays.sync().await.unwrap();
        running.catalog.close().await.unwrap();
        machine
    }

    async fn open(&self) -> Running {
        let clock = Arc::new(ManualClock::at_secs(START));
        let env = Env { disk: self.disk.clone(), clock, rng: Arc::new(SeededRng::new(1)) };
        let log = KvCatalogLog::open(self.catalog.clone()).unwrap();
        let catalog = Catalog::open(Arc::new(log), env.clone()).await.unwrap();
        let overlays = overlays(&env, &self.index, &self.chunks, &catalog).await;
        let fleet = Fleet::new(catalog.clone(), overlays.clone());
        Running { chunks: self.chunks.clone(), catalog, overlays, fleet }
    }
}

impl Running {
    async fn add_version(&self, files: [(&str, Ino, u64); 2]) {
        let image = self.catalog.create_or_get_image("os", Labels::new()).await.unwrap().id;
        let new = NewVersion {
            image,
            manifest: manifest(&self.chunks, files),
            created: Time::new(1, 0),
            source: "/src".into(),
            author: "me".into(),
            labels: Labels::new(),
            consistency: "unknown".into(),
            inodes: 3,
            bytes_logical: 16,
            bytes_stored: 0,
            bytes_added: 0,
        };
        self.catalog.add_version(new).await.unwrap();
    }

    fn clone_named(&self, name: &str) -> Arc<CloneRecord> {
        self.catalog.state().find_clone(name).unwrap().clone()
    }

    fn manifest(&self, version: VersionNumber) -> crate::manifest::ManifestId {
        self.catalog.state().find_version(&VersionRef::number("os", version)).unwrap().manifest
    }

    /// A private number into file `a`.
    async fn write(&self, clone: &str, number: u64) {
        let view = self.clone_named(clone).view.clone();
        let manifest = self.manifest(view.version);
        let mut fetch = Fetch::new(&*self.chunks);
        let write = fetch.run(|fetch| {
            let manifest = Manifest::open(fetch, &manifest)?;
            let mut tree = Tree::open_for_change(&self.overlays, fetch, manifest, &view.layers, view.top)?;
            let mut node = tree.node(fetch, A)?.expect("it is in both versions");
            tree.write(fetch, A, &mut node, 0, number.to_be_bytes().to_vec().into())?;
            tree.put(fetch, A, node)?;
            tree.commit(None)?;
            Ok(())
        });
        write.await.unwrap();
    }

    /// The number in file `a` under these layers.
    async fn read(&self, version: VersionNumber, layers: &[Layer], top: Option<OverlayId>) -> u64 {
        let manifest = self.manifest(version);
        let mut fetch = Fetch::new(&*self.chunks);
        let read = fetch.run(|fetch| {
            let manifest = Manifest::open(fetch, &manifest)?;
            let tree = match top {
                Some(top) => Tree::open(&self.overlays, fetch, manifest, layers, top)?,
                None => Tree::open_sealed(&self.overlays, manifest, layers)?,
            };
            super::world::number(&tree, fetch, A)
        });
        read.await.unwrap()
    }

    /// Whether it was acknowledged; and whether the checkpoint behind it was written, with every record
    /// that changed.
    async fn repoint(&self, version: VersionNumber, writes: Writes) -> (bool, bool) {
        let plan = super::world::to("os", version, CloneTarget::All, writes);
        let acknowledged = self.fleet.repoint(plan).await.is_ok();
        (acknowledged, self.catalog.close().await.is_ok())
    }

    /// The one version that all show; those that stayed with their private writes aside.
    async fn check(&self, writes: &Writes, what: &str) -> VersionNumber {
        let state = self.catalog.state();
        assert_eq!(state.clone_count(), CLONES, "{what}");
        let stay = *writes == Writes::Stay;
        let moved = (if stay { WRITTEN } else { 0 }..CLONES).map(desk);
        let versions: BTreeSet<_> = moved.map(|name| state.find_clone(&name).unwrap().view.version).collect();
        assert_eq!(versions.len(), 1, "{what}: mixed");
        let version = versions.into_iter().next().unwrap();
        for n in 0..WRITTEN {
            self.check_private(n, version, writes, what).await;
        }
        version
    }

    /// A clone with private writes, where the others show `version`.
    async fn check_private(&self, n: usize, version: VersionNumber, writes: &Writes, what: &str) {
        let state = self.catalog.state();
        let clone = self.clone_named(&desk(n));
        let shown = self.read(clone.view.version, &clone.view.layers, Some(clone.view.top)).await;
        let snapshots: Vec<_> = state.snapshots_of(clone.id).cloned().collect();
        let lagging = clone.lagging.map(|lagging| lagging.version);
        let last = if n == 0 { LAST } else { private(n) };
        if version == 2 && *writes != Writes::Stay {
            // What was there when it was switched is on the disk.
            let expected = if *writes == Writes::Keep { last } else { 1 };
            assert_eq!((shown, snapshots.len(), lagging), (expected, 1, None), "{what}: {}", clone.name);
            let kept = self.read(snapshots[0].version, &snapshots[0].layers, None).await;
            assert_eq!(kept, last, "{what}: {}", clone.name);
        } else {
            assert!(shown == private(n) || shown == last, "{what}: {} shows {shown}", clone.name);
            let expected = (1, 0, if version == 2 { Some(2) } else { None });
            assert_eq!((clone.view.version, snapshots.len(), lagging), expected, "{what}: {}", clone.name);
        }
    }
}

/// None, some and all of `n`.
fn parts(n: usize) -> [usize; 3] {
    [0, n / 2, n]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repoint_that_is_cut_at_any_call_is_made_for_all_clones_or_none() {
    let machine = Machine::new().await;
    for writes in [Writes::Discard, Writes::Stay, Writes::Keep] {
        let mut outcomes = BTreeSet::new();
        for point in 0.. {
            assert!(point < MAX_CALLS, "a repoint is not so many calls");
            let cut = machine.fork(point);
            let running = cut.open().await;
            // Not synced yet.
            running.write(&desk(0), LAST).await;
            cut.disk.halt_after(point);
            let (acknowledged, finished) = running.repoint(2, writes.clone()).await;
            let what = format!("{writes:?}: cut after {point} calls");
            for version in ends(&cut, &writes, &what).await {
                assert!(version == 2 || !acknowledged, "{what}: it was acknowledged");
                outcomes.insert(version);
            }
            if acknowledged && finished {
                println!("{writes:?}: {point} calls");
                break;
            }
        }
        assert_eq!(outcomes, BTreeSet::from([1, 2]), "the cuts came before and after the change");
    }
}

/// The power is cut now: the versions that are shown after each way in which it may end.
async fn ends(cut: &Machine, writes: &Writes, what: &str) -> Vec<VersionNumber> {
    let mut versions = Vec::new();
    let ways = parts(cut.disk.count_unsynced()).into_iter().zip(parts(cut.catalog.count_pending()));
    for (survive, kept) in ways {
        let end = cut.fork(survive as u64);
        end.disk.crash_keeping(|len| survive.min(len));
        end.catalog.crash_keeping(kept);
        end.index.crash();
        let what = format!("{what}, {survive} bytes and {kept} batches survive");
        versions.push(end.open().await.check(writes, &what).await);
    }
    versions
}

//! Synthetic loads: a boot, a login, a day's work, as VDI is sized for (`docs/decisions/0012-storm-tool.md` has
//! where each figure is from).
//!
//! A mix is turned into plans, so that it runs as a recorded trace does. What is read is chosen once for the
//! storm, since clones of one image boot from the same bytes: a boot reads it in the same order everywhere, a
//! login picks from it, steady work picks some of it far more often than the rest (Zipf).

use std::collections::HashSet;
use std::sync::Arc;

use rand::Rng;
use rand_distr::{Distribution, Exp, Zipf};

use super::dice::{self, Dice};
use super::plan::{Objects, Plan};
use super::survey::{Found, Survey};
use super::wire::Caller;
use crate::error::Result;
use crate::trace::{Call, Creation, NameVerb, NewAttrs, NodeId, Op, Stable, Verb};

/// What clients read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mix {
    Boot,
    Login,
    Steady,
}

/// A mix in figures.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Of 100 READs and WRITEs, how many READs.
    pub read_percent: u8,
    /// READs and WRITEs of one desktop in a second.
    pub rate: f64,
    pub read_bytes: u32,
    pub write_bytes: u32,
    /// READs and WRITEs until it is done; `None`: it goes on until the storm ends.
    pub transfers: Option<u32>,
}

impl Mix {
    pub const fn profile(self) -> Profile {
        const KIB: u32 = 1024;
        let (read_percent, rate, read_bytes, write_bytes, transfers) = match self {
            Self::Boot => (84, 17.0, 32 * KIB, 4 * KIB, Some(1000)),
            Self::Login => (38, 12.0, 24 * KIB, 4 * KIB, Some(300)),
            Self::Steady => (20, 8.0, 4 * KIB, 8 * KIB, None),
        };
        Profile { read_percent, rate, read_bytes, write_bytes, transfers }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Login => "login",
            Self::Steady => "steady",
        }
    }
}

/// What a mix that goes on for ever is cut into, in READs and WRITEs.
const CHUNK: u32 = 128;
/// Places that are read from, at most.
const PLACES: usize = 10_000;
/// Zipf's exponent of steady reads.
const SKEW: f64 = 1.0;
/// The file that each client writes to, in the root of its export, and its length.
pub const SCRATCH: &[u8] = b".mimeo-storm";
const SCRATCH_BYTES: u64 = 64 << 20;
/// Unstable WRITEs before a COMMIT.
const COMMIT_EVERY: u32 = 16;
const PAGE: u64 = 4096;

/// Makes the plans of a mix.
pub struct Mixer {
    mix: Mix,
    profile: Profile,
    stable: Stable,
    seed: u64,
    caller: Caller,
    objects: Arc<Objects>,
    /// What is read: a file and where.
    places: Vec<(NodeId, u64)>,
    /// What is written, and how long it is.
    writable: (NodeId, u64),
    /// Whether `writable` is made by the client.
    makes: bool,
    /// A boot's, which is the same for all.
    shared: Option<Arc<Plan>>,
}

/// How a mix departs from its profile.
#[derive(Clone, Debug)]
pub struct MixOptions {
    pub read_percent: Option<u8>,
    pub transfers: Option<u32>,
    pub stable: Stable,
    /// Read and write this file only, in place: a disk image.
    pub file: Option<String>,
    pub seed: u64,
    pub caller: Caller,
}

impl Mixer {
    pub fn new(mix: Mix, options: &MixOptions, survey: Survey) -> Result<Self> {
        let mut profile = mix.profile();
        profile.read_percent = options.read_percent.unwrap_or(profile.read_percent).min(100);
        profile.transfers = options.transfers.or(profile.transfers);
        let (objects, files, writable, makes) = match &options.file {
            None => {
                let (objects, files, scratch) = survey.with_file(SCRATCH);
                (objects, files, (scratch, SCRATCH_BYTES), profile.read_percent < 100)
            }
            Some(path) => {
                let Survey { nodes, files } = survey.only(path)?;
                let disk = (files[0].file, files[0].size);
                (Arc::new(Objects::new(nodes)), files, disk, false)
            }
        };
        let places = places(&files, profile.read_bytes, &mut dice::of(options.seed, dice::WORKING_SET));
        let MixOptions { stable, seed, caller, .. } = *options;
        let mut this = Self { mix, profile, stable, seed, caller, objects, places, writable, makes, shared: None };
        if mix == Mix::Boot {
            this.shared = Some(Arc::new(this.make(dice::WORKING_SET, 0, profile.transfers.unwrap_or(CHUNK))));
        }
        Ok(this)
    }

    pub fn objects(&self) -> &Arc<Objects> {
        &self.objects
    }

    /// The `round`th plan of a client, if it has so many.
    pub fn plan(&self, client: u32, round: u32) -> Option<Arc<Plan>> {
        let done = round.saturating_mul(CHUNK);
        let transfers = match (&self.shared, self.profile.transfers) {
            (Some(shared), _) => return (round == 0).then(|| shared.clone()),
            (None, None) => CHUNK,
            (None, Some(all)) => all.checked_sub(done).filter(|left| *left > 0)?.min(CHUNK),
        };
        Some(Arc::new(self.make(u64::from(client), round, transfers)))
    }

    fn make(&self, purpose: u64, round: u32, transfers: u32) -> Plan {
        let mut draft = Draft {
            mixer: self,
            dice: dice::of(self.seed, dice::spread(purpose ^ u64::from(round) << 32)),
            at_micros: 0,
            next_place: 0,
            ops: Vec::new(),
            opened: HashSet::new(),
        };
        if round == 0 && self.makes {
            draft.make_scratch();
        }
        let mut written = 0;
        for _ in 0..transfers {
            draft.wait();
            if draft.dice.random_range(0..100) < self.profile.read_percent {
                draft.read();
            } else {
                draft.write();
                written += 1;
                if self.stable == Stable::Unstable && written % COMMIT_EVERY == 0 {
                    draft.commit();
                }
            }
        }
        Plan::of_ops(self.objects.clone(), &draft.ops, 0)
    }
}

/// Where reads go: files by lot, places in them by lot, on whole pages.
fn places(files: &[Found], read_bytes: u32, dice: &mut Dice) -> Vec<(NodeId, u64)> {
    let all: u64 = files.iter().map(|found| found.size.div_ceil(u64::from(read_bytes))).sum();
    let wanted = usize::try_from(all).unwrap_or(PLACES).min(PLACES);
    let place = |_| {
        let Found { file, size } = files[dice.random_range(0..files.len())];
        let last = size.saturating_sub(u64::from(read_bytes)) / PAGE;
        (file, dice.random_range(0..=last) * PAGE)
    };
    (0..wanted).map(place).collect()
}

/// A plan in the making.
struct Draft<'a> {
    mixer: &'a Mixer,
    dice: Dice,
    at_micros: u64,
    /// A boot goes through the places in turn.
    next_place: usize,
    ops: Vec<Op>,
    opened: HashSet<NodeId>,
}

impl Draft<'_> {
    /// Let the time pass until the next transfer.
    fn wait(&mut self) {
        let gap = Exp::new(self.mixer.profile.rate).expect("a rate above 0").sample(&mut self.dice);
        self.at_micros += (gap * 1e6) as u64;
    }

    fn put(&mut self, call: Call) {
        let Caller { uid, gid } = self.mixer.caller;
        self.ops.push(Op { at_micros: self.at_micros, took_micros: 0, uid, gid, status: 0, call });
    }

    fn object(&mut self, object: NodeId, verb: Verb) {
        self.put(Call::Object { object, verb });
    }

    fn make_scratch(&mut self) {
        let new = NewAttrs { mode: Some(0o600), ..NewAttrs::default() };
        let verb = NameVerb::Create(Creation::Unchecked(new));
        let object = Some(self.mixer.writable.0);
        self.put(Call::Name { dir: NodeId::ROOT, name: SCRATCH.into(), verb, object });
    }

    /// What a client asks when it opens a file, the first time in a plan.
    fn open(&mut self, file: NodeId) {
        if !self.opened.insert(file) {
            return;
        }
        let mut way = vec![file];
        while let Some(parent) = self.mixer.objects.node(way[way.len() - 1]).parent {
            way.push(parent);
        }
        let unseen = |draft: &mut Self, node| node == file || draft.opened.insert(node);
        for pair in way.windows(2).rev() {
            let (node, dir) = (pair[0], pair[1]);
            if unseen(self, node) {
                let name = self.mixer.objects.node(node).name.clone();
                self.put(Call::Name { dir, name, verb: NameVerb::Lookup, object: Some(node) });
            }
        }
        self.object(file, Verb::Access(ACCESS_READ));
    }

    fn read(&mut self) {
        let places = &self.mixer.places;
        let index = match self.mixer.mix {
            Mix::Boot => self.next_place,
            Mix::Login => self.dice.random_range(0..places.len()),
            Mix::Steady => {
                let zipf = Zipf::new(places.len() as f64, SKEW).expect("one place at least");
                zipf.sample(&mut self.dice) as usize - 1
            }
        };
        self.next_place += 1;
        let (file, offset) = places[index % places.len()];
        self.open(file);
        self.object(file, Verb::Read { offset, len: self.mixer.profile.read_bytes, got: 0 });
    }

    fn write(&mut self) {
        let (file, size) = self.mixer.writable;
        let len = self.mixer.profile.write_bytes;
        let last = size.saturating_sub(u64::from(len)) / PAGE;
        let offset = self.dice.random_range(0..=last) * PAGE;
        self.object(file, Verb::Write { offset, len, stable: self.mixer.stable });
    }

    fn commit(&mut self) {
        self.object(self.mixer.writable.0, Verb::Commit { offset: 0, len: 0 });
    }
}

/// `ACCESS3_READ`
const ACCESS_READ: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Node;

    const SIZE: u64 = 1 << 20;

    fn mixer(mix: Mix, change: impl FnOnce(&mut MixOptions)) -> Mixer {
        let node = |parent, name: &str| Node { parent, name: name.as_bytes().into() };
        let nodes = vec![node(None, ""), node(Some(NodeId::ROOT), "disks"), node(Some(NodeId(1)), "a.img")];
        let files = vec![Found { file: NodeId(2), size: SIZE }];
        let caller = Caller::default();
        let mut options =
            MixOptions { read_percent: None, transfers: None, stable: Stable::Unstable, file: None, seed: 3, caller };
        change(&mut options);
        Mixer::new(mix, &options, Survey { nodes, files }).unwrap()
    }

    fn calls(mixer: &Mixer, client: u32) -> Vec<Call> {
        let rounds = (0..).map_while(|round| mixer.plan(client, round)).take(4);
        rounds.flat_map(|plan| plan.steps().map(|step| step.call.clone()).collect::<Vec<_>>()).collect()
    }

    fn transfers(calls: &[Call]) -> (usize, usize) {
        let count = |wanted: &str| calls.iter().filter(|call| call.procedure() == wanted).count();
        (count("READ"), count("WRITE"))
    }

    #[test]
    fn mixes_are_as_long_and_as_mixed_as_they_say() {
        for (mix, all) in [(Mix::Boot, 1000), (Mix::Login, 300), (Mix::Steady, 4 * CHUNK as usize)] {
            let (reads, writes) = transfers(&calls(&mixer(mix, |_| {}), 5));
            assert_eq!(reads + writes, all, "{mix:?}");
            let wanted = usize::from(mix.profile().read_percent) * all / 100;
            assert!(reads.abs_diff(wanted) <= all / 10, "{mix:?}: {reads} READs of {all}, seed 3");
        }
    }

    #[test]
    fn a_seed_repeats_a_mix() {
        for mix in [Mix::Boot, Mix::Login, Mix::Steady] {
            let of = |seed, client| calls(&mixer(mix, |options| options.seed = seed), client);
            assert_eq!(of(1, 2), of(1, 2));
            assert_ne!(of(1, 2), of(9, 2));
            assert_eq!(of(1, 2) == of(1, 3), mix == Mix::Boot, "{mix:?}: only a boot is the same for all");
        }
    }

    #[test]
    fn a_disk_is_written_in_place_and_within_its_end() {
        let mixer = mixer(Mix::Steady, |options| options.file = Some("/disks/a.img".to_owned()));
        for call in calls(&mixer, 0) {
            match call {
                Call::Name { verb, .. } => assert_eq!(verb, NameVerb::Lookup, "nothing is made"),
                Call::Object { object, verb: Verb::Read { offset, len, .. } | Verb::Write { offset, len, .. } } => {
                    assert_eq!(object, NodeId(2));
                    assert!(offset % PAGE == 0 && offset + u64::from(len) <= SIZE, "{len} at {offset}");
                }
                _ => {}
            }
        }
    }

    #[test]
    fn who_only_reads_makes_nothing() {
        let mixer = mixer(Mix::Login, |options| options.read_percent = Some(100));
        let calls = calls(&mixer, 0);
        assert_eq!(transfers(&calls), (300, 0));
        assert!(calls.iter().all(|call| call.procedure() != "CREATE"));
    }

    #[test]
    fn unstable_writes_are_committed_and_stable_ones_are_not() {
        let commits = |stable| {
            let calls = calls(&mixer(Mix::Steady, |options| options.stable = stable), 0);
            calls.iter().filter(|call| call.procedure() == "COMMIT").count()
        };
        assert!(commits(Stable::Unstable) > 0);
        assert_eq!(commits(Stable::FileSync), 0);
    }
}

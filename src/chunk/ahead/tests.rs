//! What is read ahead, by itself: a pack that is a table only, readers that are calls.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use super::*;
use crate::chunk::pack::{Encoding, HEADER_LEN, Span};

const LEN: u64 = 64 << 10;
const PACK: PackId = PackId { epoch: 1, seq: 1 };
const LIMIT: u64 = 8 << 20;

/// A pack of `count` chunks of [`LEN`], and who reads it.
struct World {
    ahead: Arc<Ahead>,
    table: Arc<[Frame]>,
    work: Vec<Batch>,
    /// Chunks that readers loaded themselves.
    missed: u64,
    tables_read: u64,
}

fn payload(n: u64) -> Bytes {
    let mut bytes = vec![0; LEN as usize];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes.into()
}

impl World {
    fn new(limit: u64, count: u64) -> Self {
        let mut offset = HEADER_LEN as u32;
        let frame = |n: u64| {
            let span = Span { offset, stored_len: LEN as u32, raw_len: LEN as u32, encoding: Encoding::Raw };
            offset = span.payload().end as u32;
            Frame { id: ChunkId::of(&n.to_be_bytes()), span }
        };
        let table = (0..count).map(frame).collect();
        Self { ahead: Ahead::new(limit), table, work: Vec::new(), missed: 0, tables_read: 0 }
    }

    fn go(&mut self, work: Option<Work>) {
        match work {
            Some(Work::Table(wanted)) => {
                self.tables_read += 1;
                let trail = wanted.learn(self.table.clone());
                let next = self.ahead.next(trail, &|_| false);
                self.go(next);
            }
            Some(Work::Read(batch)) => {
                let trail = batch.trail;
                self.work.push(batch);
                let next = self.ahead.next(trail, &|_| false);
                self.go(next);
            }
            None => {}
        }
    }

    /// A READ of `count` chunks from `first`; its misses are read.
    fn read(&mut self, first: u64, count: u64) {
        let Some(round) = self.ahead.begin_round() else { return self.missed += count };
        for n in first..first + count {
            let frame = self.table[n as usize];
            if self.ahead.loading(&frame.id).is_some() {
                self.settle();
            }
            match self.ahead.take(&frame.id, |_| (), &|_| false) {
                Some((_, work)) => self.go(work),
                None => {
                    self.missed += 1;
                    let at = Location { pack: PACK, span: frame.span };
                    let work = self.ahead.missed(round, &at, &|_| false);
                    self.go(work);
                }
            }
        }
    }

    /// Everything that is being read ahead arrives.
    fn settle(&mut self) {
        while let Some(mut batch) = self.work.pop() {
            for n in 0..batch.frames().len() {
                batch.arrived(Some(payload(n as u64)));
            }
            let trail = batch.trail;
            drop(batch);
            let next = self.ahead.next(trail, &|_| false);
            self.go(next);
        }
    }

    fn stats(&self) -> AheadStats {
        self.ahead.stats()
    }

    fn check_bounds(&self) {
        let state = self.ahead.state.lock();
        assert!(state.held.bytes() <= self.ahead.limit && state.credit <= self.ahead.limit && state.reads <= READS);
    }

    fn under_way(&self) -> u64 {
        self.work.iter().map(|batch| batch.frames().len() as u64).sum()
    }
}

#[test]
fn who_reads_on_finds_what_follows() {
    let mut world = World::new(LIMIT, 1000);
    for n in 0..1000 {
        world.read(n, 1);
        world.settle();
    }
    let stats = world.stats();
    assert_eq!((world.missed, stats.loads, stats.used), (2, 998, 998));
    assert_eq!((stats.used_bytes, stats.wasted_bytes, world.tables_read), (998 * LEN, 0, 1));
}

#[test]
fn one_access_is_no_sequence_however_many_chunks_it_has() {
    let mut world = World::new(LIMIT, 1000);
    world.read(0, 16);
    assert_eq!((world.under_way(), world.missed), (0, 16));
    // The next one is, and what is read ahead then is as wide.
    world.read(16, 1);
    assert!((2..=16).contains(&world.under_way()), "{}", world.under_way());
}

#[test]
fn readers_that_share_a_place_share_what_is_read() {
    let mut world = World::new(LIMIT, 1000);
    for n in 0..300 {
        // One is ahead; those behind find what it read in the cache, or come while it is being read.
        world.read(n, 1);
        world.settle();
    }
    assert_eq!(
        (world.missed, world.stats().loads - world.stats().used),
        (2, world.ahead.entries.load(Ordering::Relaxed) as u64)
    );
    let mut other = World::new(LIMIT, 1000);
    for n in [5, 5, 5] {
        other.read(n, 1);
    }
    assert_eq!(other.under_way(), 0, "the same place again is no sequence");
}

/// The places of a random reader, all different.
fn scattered(count: u64) -> Vec<u64> {
    let mut places: Vec<u64> = (0..count).collect();
    places.shuffle(&mut SmallRng::seed_from_u64(7));
    places
}

#[test]
fn random_reads_load_next_to_nothing_ahead() {
    let mut world = World::new(LIMIT, 4001);
    for n in scattered(4001) {
        world.read(n, 1);
        world.settle();
    }
    let stats = world.stats();
    assert!(stats.loads - stats.used <= 4001 / EARNS, "{stats:?}");
}

/// Two chunks side by side, then somewhere else: each second access promises what it does not keep.
#[test]
fn what_does_not_pay_stops() {
    let mut world = World::new(LIMIT, 30_000);
    let mut ahead = Vec::new();
    for n in 0..3000 {
        world.read(n * 10, 1);
        world.read(n * 10 + 1, 1);
        world.settle();
        ahead.push(world.stats().loads);
    }
    assert_eq!(world.stats().used, 0);
    let bound = START / LEN + 6000 / EARNS;
    assert!(ahead[10] <= START / LEN + 1 && ahead[2999] <= bound, "{} {}, at most {bound}", ahead[10], ahead[2999]);
    // A reader who reads on pays for it again.
    for n in 5..80 {
        world.read(n, 1);
        world.settle();
    }
    assert!(world.stats().used > 0);
}

#[test]
fn the_bounds_hold() {
    let mut world = World::new(1 << 20, 30_000);
    for n in 0..30_000 {
        // Four readers, of which none has what it asked for arrive at once.
        world.read(n / 4 + n % 4 * 7500, 1);
        world.check_bounds();
        if n % 7 == 0 {
            world.settle();
        }
    }
    let stats = world.stats();
    assert!(stats.used > 20_000, "{stats:?}");
    assert!(stats.loaded_bytes - stats.used_bytes <= (1 << 20) + 30_000 * LEN / EARNS, "{stats:?}");
}

#[test]
fn what_is_known_already_is_passed_over() {
    let mut world = World::new(LIMIT, 100);
    world.read(0, 1);
    let table = world.table.clone();
    let at = Location { pack: PACK, span: table[1].span };
    let round = world.ahead.begin_round().unwrap();
    let known = |id: &ChunkId| *id == table[2].id;
    let Some(Work::Table(wanted)) = world.ahead.missed(round, &at, &known) else { panic!("it is followed") };
    let trail = wanted.learn(table.clone());
    assert!(world.ahead.next(trail, &known).is_none(), "the window holds one chunk, and that is known");
    let round = world.ahead.begin_round().unwrap();
    let at = Location { pack: PACK, span: table[3].span };
    let Some(Work::Read(batch)) = world.ahead.missed(round, &at, &known) else { panic!("it goes on behind") };
    assert_eq!(batch.frames(), &table[4..5]);
}

#[test]
fn what_fails_is_forgotten_and_paid_back() {
    let mut world = World::new(LIMIT, 100);
    world.read(0, 1);
    world.read(1, 1);
    let credit = world.ahead.state.lock().credit;
    let batch = world.work.pop().unwrap();
    let (id, lost) = (batch.frames()[0].id, batch.frames().len() as u64 * LEN);
    let waiting = world.ahead.loading(&id).unwrap();
    assert!(!waiting.is_closed());
    batch.failed();
    assert!(waiting.is_closed() && world.ahead.loading(&id).is_none());
    assert!(world.ahead.take(&id, |_| (), &|_| false).is_none());
    let state = world.ahead.state.lock();
    assert_eq!((state.credit, state.reads, state.held.len()), (credit + lost, 0, 0));
}

#[test]
fn a_limit_of_zero_turns_it_off() {
    let mut world = World::new(0, 100);
    for n in 0..100 {
        world.read(n, 1);
        world.settle();
    }
    assert_eq!((world.missed, world.stats()), (100, AheadStats::default()));
}

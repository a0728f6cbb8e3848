//! Goal: nothing that was acknowledged is lost, nothing is there that was not appended, whatever fails
//! and wherever the power goes.
//! Method: a history of several starts is run once to count the calls that change the disk; then again
//! for each of these calls, with the power cut there, or with that call failing. After every start the
//! replay is compared with a plain list. Seeds are in every message.

use super::*;

/// What the log should hold.
struct Model {
    seed: u64,
    dice: Dice,
    /// Everything that was appended since it was last known to be lost.
    appended: Vec<Record>,
    /// So many of them are durable: acknowledged, or seen after a start.
    acknowledged: usize,
}

/// How a start ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Close,
    Kill,
    PowerCut,
}

const WAYS: [Way; 5] = [Way::Kill, Way::Close, Way::PowerCut, Way::Close, Way::Kill];

impl Model {
    fn new(seed: u64) -> Self {
        Self { seed, dice: Dice::new(seed), appended: Vec::new(), acknowledged: 0 }
    }

    /// One start: look at what is there, append and sync, end.
    fn start(&mut self, world: &World, options: LogOptions, way: Way) -> Result<()> {
        let log = world.open(options)?;
        // If it had to wait for space: until what is replayed is durable.
        wait(log.sync(log.end()))?;
        self.compare(&log)?;
        for _ in 0..6 {
            self.append(&log)?;
            if self.dice.below(2) == 0 {
                self.sync(&log)?;
            }
        }
        if way == Way::Close {
            log.close()?;
            self.acknowledged = self.appended.len();
        }
        drop(log);
        if way == Way::PowerCut {
            world.disk.crash();
        }
        Ok(())
    }

    fn compare(&mut self, log: &LocalLog) -> Result<()> {
        let found = contents(log)?;
        let (seed, acknowledged) = (self.seed, self.acknowledged);
        assert!(found.len() >= acknowledged, "seed {seed}: {} of {acknowledged} are left", found.len());
        assert!(self.appended.starts_with(&found), "seed {seed}: something else than was appended");
        self.acknowledged = found.len();
        self.appended = found;
        Ok(())
    }

    fn append(&mut self, log: &LocalLog) -> Result<()> {
        for record in self.dice.records(1 + self.dice.below(3)) {
            while let Err(error) = log.append(record.clone()) {
                if error.kind() != ErrorKind::NoSpace {
                    return Err(error);
                }
                std::thread::yield_now();
            }
            self.appended.push(record);
        }
        Ok(())
    }

    fn sync(&mut self, log: &LocalLog) -> Result<()> {
        let upto = self.appended.len();
        wait(log.sync(log.end()))?;
        self.acknowledged = upto;
        Ok(())
    }

    /// The whole history. A start that fails is followed by the next, after a power cut or not.
    fn live(&mut self, world: &World, options: LogOptions, cut_after_failure: bool) -> usize {
        let mut failures = 0;
        for way in WAYS {
            if self.start(world, options, way).is_err() {
                failures += 1;
                if cut_after_failure {
                    world.disk.crash();
                }
            }
        }
        failures
    }

    /// Nothing fails any more: everything is there, and still after another power cut.
    fn check(&mut self, world: &World, options: LogOptions, what: &str) {
        for way in [Way::PowerCut, Way::Kill, Way::PowerCut] {
            let done = self.start(world, options, way);
            assert!(done.is_ok(), "seed {}, {what}: {}", self.seed, done.unwrap_err());
        }
    }
}

/// Small segments and writes only when somebody waits: the same calls every time.
const QUIET: LogOptions = LogOptions { segment_bytes: 15 << 10, ..SMALL };
/// Writes go on in the background.
const BUSY: LogOptions = LogOptions { write_after: 1, ..QUIET };

/// The number of calls that change the disk in the history of this seed.
fn count_calls(seed: u64, options: LogOptions) -> u64 {
    let (world, mut model) = (World::new(seed), Model::new(seed));
    assert_eq!(model.live(&world, options, true), 0, "seed {seed}");
    let calls = world.disk.count_mutations();
    assert!(calls > 60, "seed {seed}: {calls} calls are not much of a history");
    calls
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_acknowledged() {
    for (seed, options) in [(1, QUIET), (2, QUIET), (3, BUSY)] {
        for point in 0..count_calls(seed, options) {
            let (world, mut model) = (World::new(seed ^ point << 8), Model::new(seed));
            world.disk.halt_after(point);
            model.live(&world, options, true);
            model.check(&world, options, &format!("power cut after call {point}"));
        }
    }
}

#[test]
fn any_failing_call_loses_nothing_acknowledged() {
    for (seed, options) in [(11, QUIET), (12, BUSY)] {
        for point in 0..count_calls(seed, options) {
            for fault in [Fault::Io, Fault::NoSpace] {
                for cut in [false, true] {
                    let (world, mut model) = (World::new(seed ^ point << 8), Model::new(seed));
                    world.disk.fail_after(point, fault);
                    model.live(&world, options, cut);
                    model.check(&world, options, &format!("call {point} fails with {fault:?}, power cut {cut}"));
                }
            }
        }
    }
}

/// Two faults in one history: the mend of the first is hit by the second.
#[test]
fn a_power_cut_after_a_failure_loses_nothing_acknowledged() {
    for seed in 100..250 {
        let dice = Dice::new(seed);
        let (world, mut model) = (World::new(seed), Model::new(seed));
        for _ in 0..3 {
            let point = dice.below(60) as u64;
            match dice.below(3) {
                0 => world.disk.fail_after(point, Fault::Io),
                1 => world.disk.fail_after(point, Fault::NoSpace),
                _ => world.disk.halt_after(point),
            }
            model.live(&world, QUIET, dice.below(2) == 0);
            if dice.below(2) == 0 {
                world.disk.crash();
            }
        }
        world.disk.crash();
        model.check(&world, QUIET, "several faults");
    }
}

/// Several callers at once: each finds all that it was told is durable, in the order of its appends.
#[test]
fn callers_that_share_syncs_lose_nothing_acknowledged() {
    const CALLERS: usize = 4;
    for seed in 0..60 {
        let world = World::new(seed);
        let log = world.open(QUIET).unwrap();
        world.disk.halt_after(Dice::new(seed).below(120) as u64);
        let acknowledged = std::thread::scope(|scope| {
            let log = &*log;
            let callers: Vec<_> =
                (0..CALLERS).map(|caller| scope.spawn(move || call_until_it_fails(caller, log))).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect::<Vec<usize>>()
        });
        drop(log);
        world.disk.crash();
        let mut found = vec![0; CALLERS];
        for record in contents(&world.open(QUIET).unwrap()).unwrap() {
            let (caller, number) = (record.body[0] as usize, record.body[1] as usize);
            assert_eq!((found[caller], record), (number, numbered(caller, number)), "seed {seed}");
            found[caller] += 1;
        }
        assert!(found.iter().zip(&acknowledged).all(|(f, a)| f >= a), "seed {seed}: {found:?} of {acknowledged:?}");
    }
}

fn numbered(caller: usize, number: usize) -> Record {
    record(&[caller as u8, number as u8], &[&vec![caller as u8; 1 + number * 40]])
}

/// The number of records that were acknowledged.
fn call_until_it_fails(caller: usize, log: &LocalLog) -> usize {
    for number in 0..100 {
        let synced = log.append(numbered(caller, number)).and_then(|place| wait(log.sync(place.lsn)));
        if synced.is_err() {
            return number;
        }
    }
    100
}

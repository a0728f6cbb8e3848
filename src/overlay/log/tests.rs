//! Goal: what the log says holds, on a disk that obeys; `crash` and `damage` have those that do not.
//! Method: a log on a simulated disk, small segments, records made from a seed; where the order of
//! writer and callers matters, a gate in the disk holds the writer.

mod crash;
mod damage;
mod gate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};

use super::format::{self, GROUP_HEADER, SEGMENT_HEADER};
use super::*;
use crate::env::{Disk, Env, Fault, ManualClock, Rng, SeededRng, SimDisk, create_dir_durably};
use crate::error::{Error, ErrorKind};
use gate::{Call, GatedDisk};

const DIR: &str = "/data/log";

const SMALL: LogOptions = LogOptions { segment_bytes: 16 << 10, buffer_bytes: 1 << 20, write_after: 1 << 20 };

/// A simulated disk, and the logs of one store on it.
struct World {
    disk: Arc<SimDisk>,
    epoch: AtomicU64,
    seed: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        create_dir_durably(&disk, "/data".as_ref()).unwrap();
        Self { disk: Arc::new(disk), epoch: AtomicU64::new(0), seed }
    }

    fn open(&self, options: LogOptions) -> Result<Arc<LocalLog>> {
        self.open_on(self.disk.clone(), options)
    }

    fn open_on(&self, disk: Arc<dyn Disk>, options: LogOptions) -> Result<Arc<LocalLog>> {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        let rng = Arc::new(SeededRng::new(self.seed ^ epoch << 32));
        let env = Env { disk, clock: Arc::new(ManualClock::at_secs(1_800_000_000)), rng };
        LocalLog::open_retrying(env, DIR.into(), epoch, options, std::time::Duration::from_millis(1))
    }

    fn small(&self) -> Arc<LocalLog> {
        self.open(SMALL).unwrap()
    }

    /// The files of the log, by name.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let names = self.disk.list(DIR.as_ref()).unwrap();
        let read = |name: String| {
            let file = self.disk.open(format!("{DIR}/{name}").as_ref()).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_at(&mut bytes, 0).unwrap();
            (name, bytes)
        };
        names.into_iter().map(read).collect()
    }

    /// A store whose log has these files; later starts than those that wrote them.
    fn planted(files: &[(String, Vec<u8>)]) -> Self {
        Self::planted_on(1, files)
    }

    fn planted_on(seed: u64, files: &[(String, Vec<u8>)]) -> Self {
        static PLANTED: AtomicU64 = AtomicU64::new(1);
        let epoch = AtomicU64::new(PLANTED.fetch_add(1, Ordering::SeqCst) * 1000);
        let world = Self { epoch, ..Self::new(seed) };
        world.disk.create_dir_all(DIR.as_ref()).unwrap();
        for (name, bytes) in files {
            let file = world.disk.create(format!("{DIR}/{name}").as_ref()).unwrap();
            file.append(bytes).unwrap();
            file.sync().unwrap();
        }
        for dir in [DIR, "/data", "/"] {
            world.disk.sync_dir(dir.as_ref()).unwrap();
        }
        world
    }
}

/// Repeatable choices.
struct Dice(SeededRng);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(SeededRng::new(seed))
    }

    fn below(&self, n: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % n as u64) as usize
    }

    fn bytes(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.fill(&mut bytes);
        bytes
    }

    /// A record of 14 KiB at most, and mostly of less than one.
    fn record(&self) -> Record {
        let body = self.bytes(self.below(300));
        let piece = |_| Bytes::from(self.bytes(1 + self.below(if self.below(10) == 0 { 4500 } else { 500 })));
        Record { body, data: (0..self.below(4)).map(piece).collect() }
    }

    fn records(&self, n: usize) -> Vec<Record> {
        (0..n).map(|_| self.record()).collect()
    }
}

fn record(body: &[u8], pieces: &[&[u8]]) -> Record {
    Record { body: body.to_vec(), data: pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect() }
}

/// Run a future to its end, where blocking reads can run.
fn wait<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Poll for something that the writer does by itself.
#[track_caller]
fn until(met: impl Fn() -> bool) {
    let polls = (0..50_000_000).take_while(|_| !met()).inspect(|_| std::thread::yield_now()).count();
    assert!(polls < 50_000_000, "it never happened");
}

fn append_all(log: &LocalLog, records: &[Record]) -> Vec<Appended> {
    records.iter().map(|record| log.append(record.clone()).unwrap()).collect()
}

fn sync_all(log: &LocalLog) {
    wait(log.sync(log.end())).unwrap();
    assert_eq!(log.durable(), log.end());
}

fn replayed(log: &LocalLog, from: Lsn) -> Result<Vec<Replayed>> {
    let mut found = Vec::new();
    log.replay(from, &mut |record| {
        found.push(record);
        Ok(())
    })?;
    Ok(found)
}

/// The record that was appended, all of it read back.
async fn read_back(log: &LocalLog, found: &Replayed) -> Record {
    let pieces = found.pieces.iter().map(|(at, len)| log.read(found.segment, *at, *len));
    let data = join_all(pieces).await.into_iter().map(Result::unwrap).collect();
    Record { body: found.body.to_vec(), data }
}

fn contents(log: &LocalLog) -> Result<Vec<Record>> {
    let found = replayed(log, Lsn::default())?;
    Ok(wait(async { join_all(found.iter().map(|record| read_back(log, record))).await }))
}

/// What a replay should say of a record that went there.
fn expected(record: &Record, appended: &Appended) -> Replayed {
    let lens = record.data.iter().map(|piece| piece.len() as u32);
    let pieces = appended.pieces.iter().copied().zip(lens).collect();
    Replayed { lsn: appended.lsn, segment: appended.segment, body: record.body.clone().into(), pieces }
}

#[test]
fn lsns_sort_by_segment_then_offset() {
    let lsn = Lsn::new(SegmentId(3), 77);
    assert_eq!((lsn.segment(), lsn.offset(), lsn.to_string().as_str()), (SegmentId(3), 77, "00000003+77"));
    assert!(Lsn::default() < Lsn::new(SegmentId(1), 0));
    assert!(Lsn::new(SegmentId(1), u32::MAX) < Lsn::new(SegmentId(2), 0));
}

/// Every record comes back with its bytes and its place: from memory, from the file, after a restart.
#[test]
fn records_of_every_shape_come_back() {
    let world = World::new(1);
    let dice = Dice::new(1);
    let mut records = vec![
        Record::default(),
        record(b"body", &[]),
        record(b"", &[&[7; 4096], &[8; 4097], &[9; 1]]),
        Record { body: dice.bytes(MAX_BODY), data: SmallVec::new() },
        Record { body: vec![1], data: (0..MAX_PIECES).map(|_| dice.bytes(MAX_PIECE).into()).collect() },
    ];
    records.extend(dice.records(40));
    let log = world.open(LogOptions { write_after: 64 << 20, ..LogOptions::default() }).unwrap();
    let places = append_all(&log, &records);
    let expected: Vec<Replayed> = records.iter().zip(&places).map(|(r, a)| expected(r, a)).collect();
    let all_read =
        |log: &LocalLog| wait(async { join_all(expected.iter().map(|found| read_back(log, found))).await == records });
    assert_eq!(world.files()[0].1.len(), SEGMENT_HEADER as usize, "nothing is written before somebody waits");
    assert!(all_read(&log), "from memory");
    sync_all(&log);
    assert!(all_read(&log), "from the file");
    drop(log);
    let log = world.open(LogOptions::default()).unwrap();
    assert!(all_read(&log), "after a restart");
    assert_eq!(replayed(&log, Lsn::default()).unwrap(), expected);
    for (at, place) in places.iter().enumerate() {
        assert_eq!(replayed(&log, place.lsn).unwrap(), expected[at + 1..], "from {}", place.lsn);
    }
}

/// Records that break a bound are bugs of the caller: refused, and the log goes on as if they were not.
#[test]
fn bounds_are_checked_before_anything_is_taken() {
    let log = World::new(1).small();
    let piece = |len| Bytes::from(vec![0; len]);
    let records = [
        Record { body: vec![0; MAX_BODY + 1], data: SmallVec::new() },
        Record { body: vec![], data: [piece(MAX_PIECE + 1)].into_iter().collect() },
        Record { body: vec![], data: [piece(1), piece(0)].into_iter().collect() },
        Record { body: vec![], data: (0..=MAX_PIECES).map(|_| piece(1)).collect() },
        Record { body: vec![0; SMALL.segment_bytes as usize], data: SmallVec::new() },
    ];
    let end = log.end();
    for record in records {
        assert_eq!(log.append(record).unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(log.end(), end);
    }
    let free =
        SMALL.segment_bytes - SEGMENT_HEADER - 2 * GROUP_HEADER - format::record_len(&Record::default()).unwrap();
    append_all(&log, &[Record { body: vec![0; free as usize], data: SmallVec::new() }]);
    assert_eq!(log.end().offset() + GROUP_HEADER, SMALL.segment_bytes, "the largest that fits, and the seal");
    let beyond = Lsn(log.end().0 + 1);
    assert_eq!(wait(log.sync(beyond)).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(wait(log.read(SegmentId(1), 5, 4)).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(wait(log.read(SegmentId(1), 100, 0)).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(wait(log.read(SegmentId(9), 100, 1)).unwrap_err().kind(), ErrorKind::NotFound);
}

/// All who come while a sync runs share the next one.
#[test]
fn waiters_share_syncs() {
    let world = World::new(1);
    let gated = GatedDisk::new(world.disk.clone());
    let log = world.open_on(gated.clone(), SMALL).unwrap();
    let before = world.disk.count_syncs();
    let gate = gated.shut(Call::Sync);
    let mut syncs = vec![log.sync(log.append(record(b"first", &[])).unwrap().lsn)];
    gate.until_reached();
    for _ in 0..100 {
        syncs.push(log.sync(log.append(record(b"later", &[])).unwrap().lsn));
    }
    assert!(syncs.iter_mut().all(|sync| sync.now_or_never().is_none()), "nobody is told early");
    drop(gate);
    assert!(wait(join_all(syncs)).into_iter().all(|synced| synced.is_ok()));
    assert_eq!(world.disk.count_syncs() - before, 2);
    sync_all(&log);
    assert_eq!(world.disk.count_syncs() - before, 2, "what is durable needs no sync");
}

/// What nobody waits for is written anyway, and synced only when somebody does.
#[test]
fn much_is_written_in_the_background() {
    let world = World::new(1);
    let log = world.open(LogOptions { write_after: 4096, ..SMALL }).unwrap();
    let (durable, syncs) = (log.durable(), world.disk.count_syncs());
    append_all(&log, &[record(b"", &[&[1; 5000]])]);
    let written = u64::from(log.end().offset());
    until(|| log.segments() == [(SegmentId(1), written)]);
    assert_eq!((log.durable(), world.disk.count_syncs()), (durable, syncs));
    sync_all(&log);
    assert_eq!(world.disk.count_syncs(), syncs + 1);
}

/// The buffer is bounded by those who ask for room; memory is read while the disk is at work.
#[test]
fn a_full_buffer_has_no_room_until_it_is_written() {
    let world = World::new(1);
    let gated = GatedDisk::new(world.disk.clone());
    let log = world.open_on(gated.clone(), LogOptions { buffer_bytes: 8000, ..SMALL }).unwrap();
    let gate = gated.shut(Call::Append);
    let first = log.append(record(b"", &[&[1; 5000]])).unwrap();
    let synced = log.sync(first.lsn);
    gate.until_reached();
    assert!(log.room().is_none());
    let second = log.append(record(b"", &[&[2; 5000]])).unwrap();
    let mut room = log.room().expect("more than the buffer takes");
    assert!(room.as_mut().now_or_never().is_none());
    for (appended, byte) in [(&first, 1), (&second, 2)] {
        let read = log.read(appended.segment, appended.pieces[0], 5000).now_or_never();
        assert_eq!(read.expect("in memory").unwrap(), vec![byte; 5000]);
    }
    drop(gate);
    wait(async {
        room.await;
        synced.await.unwrap();
    });
    assert!(log.room().is_none());
    sync_all(&log);
}

/// Who waits for room need not wait for somebody's sync.
#[test]
fn a_full_buffer_is_written_although_nobody_syncs() {
    let log = World::new(1).open(LogOptions { buffer_bytes: 1000, ..SMALL }).unwrap();
    for _ in 0..100 {
        if let Some(room) = log.room() {
            wait(room);
        }
        append_all(&log, &[record(&[0; 600], &[])]);
    }
}

/// Segments are filled in their turn, sealed, visited one by one, removed one by one.
#[test]
fn segments_follow_one_another_and_are_removed() {
    let world = World::new(3);
    let log = world.small();
    let records = Dice::new(3).records(150);
    let places = append_all(&log, &records);
    sync_all(&log);
    let segments = log.segments();
    assert!(segments.len() > 5, "{segments:?}");
    assert!(segments.iter().map(|(id, _)| id.0).eq(1..=segments.len() as u32));
    assert!(segments.iter().all(|(_, bytes)| *bytes <= SMALL.segment_bytes.into()));

    let (open, sealed) = segments.split_last().unwrap();
    let mut visited = Vec::new();
    for (id, _) in sealed {
        log.replay_segment(*id, &mut |found| {
            assert_eq!(found.segment, *id);
            visited.push(found);
            Ok(())
        })
        .unwrap();
    }
    let expected: Vec<Replayed> = records.iter().zip(&places).map(|(r, a)| expected(r, a)).collect();
    assert_eq!(visited, expected[..visited.len()]);
    assert_eq!(log.replay_segment(open.0, &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Invalid);

    let (gone, stays) = (SegmentId(3), SegmentId(4));
    log.remove(gone).unwrap();
    assert_eq!(log.remove(gone).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(log.remove(open.0).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(log.replay_segment(gone, &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::NotFound);
    drop(log);
    world.disk.crash();
    let log = world.small();
    let left: Vec<Replayed> = expected.into_iter().filter(|found| found.segment != gone).collect();
    assert!(left.iter().any(|found| found.segment == stays));
    assert_eq!(replayed(&log, Lsn::default()).unwrap(), left);
}

/// A read that has begun ends well although the segment goes; its space comes back afterwards.
#[test]
fn a_segment_is_removed_while_it_is_read() {
    let world = World::new(1);
    for opened_before in [false, true] {
        let log = world.small();
        let place = log.append(record(b"", &[&[5; 4096]])).unwrap();
        append_all(&log, &Dice::new(1).records(40));
        sync_all(&log);
        let read = || log.read(place.segment, place.pieces[0], 4096);
        if opened_before {
            wait(read()).unwrap();
        }
        let begun = read();
        log.remove(place.segment).unwrap();
        assert_eq!(wait(begun).unwrap(), vec![5; 4096]);
        assert_eq!(wait(read()).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

/// A visitor's error ends the replay and comes out of it.
#[test]
fn a_visitor_can_end_the_replay() {
    let world = World::new(1);
    let log = world.small();
    append_all(&log, &Dice::new(1).records(5));
    sync_all(&log);
    drop(log);
    let mut seen = 0;
    let error = world.small().replay(Lsn::default(), &mut |_| {
        seen += 1;
        if seen == 3 { Err(Error::invalid("enough")) } else { Ok(()) }
    });
    assert_eq!((error.unwrap_err().what(), seen), ("enough", 3));
}

/// A closed log has everything on the disk, refuses more, and leaves the next start nothing to copy.
#[test]
fn a_closed_log_is_whole() {
    let world = World::new(1);
    let log = world.small();
    let records = Dice::new(1).records(9);
    append_all(&log, &records);
    log.close().unwrap();
    log.close().unwrap();
    assert_eq!(log.durable(), log.end());
    assert!(wait(log.sync(log.end())).is_ok());
    assert_eq!(log.append(Record::default()).unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(log.room().is_none(), "who waits for room would wait for ever");
    let (last, _) = *log.segments().last().unwrap();
    assert_eq!(world.files().last().unwrap().1.len(), SEGMENT_HEADER as usize);
    drop(log);
    world.disk.crash();
    let log = world.small();
    assert_eq!(contents(&log).unwrap(), records);
    assert_eq!(log.end().segment().0, last.0 + 1);
}

/// Waiters of a log that is dropped are told so.
#[test]
fn a_dropped_log_leaves_nobody_waiting() {
    let world = World::new(1);
    let gated = GatedDisk::new(world.disk.clone());
    let log = world.open_on(gated.clone(), LogOptions { buffer_bytes: 100, ..SMALL }).unwrap();
    let gate = gated.shut(Call::Append);
    let sync = log.sync(append_all(&log, &[record(&[0; 200], &[])])[0].lsn);
    gate.until_reached();
    let later = log.sync(append_all(&log, &[record(b"", &[])])[0].lsn);
    let room = log.room().unwrap();
    let dropping = std::thread::spawn(move || drop(log));
    wait(room);
    drop(gate);
    assert_eq!(wait(later).unwrap_err().kind(), ErrorKind::Unavailable);
    // Was under way: may be told either.
    drop(wait(sync));
    dropping.join().unwrap();
}

/// A full disk: appends refused, syncs wait, nothing lost, nobody told early; and on it goes.
#[test]
fn a_full_disk_stalls_and_nothing_is_lost() {
    for seed in 0..20 {
        let world = World::new(seed);
        let (dice, log) = (Dice::new(seed), world.small());
        let mut records = dice.records(5);
        append_all(&log, &records);
        sync_all(&log);
        let used: usize = world.files().iter().map(|(_, bytes)| bytes.len()).sum();
        world.disk.set_capacity((used + dice.below(15_000)) as u64);
        let more = dice.records(60);
        let places = append_all(&log, &more);
        records.extend(more);
        let mut syncs: Vec<_> = places.iter().map(|place| log.sync(place.lsn)).collect();
        until(|| log.health() != Health::Good);
        let Health::Full(why) = log.health() else { panic!("seed {seed}: {:?}", log.health()) };
        assert!(why.contains("segment 0000000"), "{why}");
        let refused = log.append(Record::default()).unwrap_err();
        assert_eq!((refused.kind(), refused.remedy_text().is_some()), (ErrorKind::NoSpace, true));
        assert!(log.room().is_none(), "an append would be answered at once");
        assert!(syncs.last_mut().unwrap().now_or_never().is_none(), "seed {seed}");
        world.disk.set_capacity(1 << 40);
        assert!(wait(join_all(syncs)).into_iter().all(|synced| synced.is_ok()));
        assert_eq!(log.health(), Health::Good);
        append_all(&log, &[Record::default()]);
        records.push(Record::default());
        sync_all(&log);
        drop(log);
        world.disk.crash();
        assert_eq!(contents(&world.small()).unwrap(), records, "seed {seed}");
    }
}

/// Who waits for room when the disk fills up is sent to the append that says so.
#[test]
fn a_full_disk_ends_the_wait_for_room() {
    let world = World::new(1);
    let gated = GatedDisk::new(world.disk.clone());
    let log = world.open_on(gated.clone(), LogOptions { buffer_bytes: 100, write_after: 1, ..SMALL }).unwrap();
    world.disk.set_capacity(100);
    let gate = gated.shut(Call::Append);
    append_all(&log, &[record(&[0; 200], &[])]);
    gate.until_reached();
    let room = log.room().unwrap();
    drop(gate);
    wait(room);
    assert_eq!(log.append(Record::default()).unwrap_err().kind(), ErrorKind::NoSpace);
    let error = log.close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "what could not be written is told at the end: {error}");
}

/// A log that starts on a full disk reads and gives space back, and then goes on by itself.
#[test]
fn a_log_opens_on_a_full_disk() {
    let world = World::new(1);
    let log = world.small();
    let records = Dice::new(1).records(80);
    append_all(&log, &records);
    sync_all(&log);
    let durable = log.durable();
    drop(log);
    let used: usize = world.files().iter().map(|(_, bytes)| bytes.len()).sum();
    world.disk.set_capacity(used as u64 + 10);
    let log = world.small();
    assert!(matches!(log.health(), Health::Full(_)));
    assert_eq!(contents(&log).unwrap(), records);
    assert_eq!(log.append(Record::default()).unwrap_err().kind(), ErrorKind::NoSpace);
    let (last, _) = *log.segments().last().unwrap();
    assert_eq!(log.remove(last).unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(log.durable() < durable && log.sync(durable).now_or_never().is_none());
    let synced = log.sync(durable);
    log.remove(SegmentId(1)).unwrap();
    log.remove(SegmentId(2)).unwrap();
    wait(synced).unwrap();
    until(|| log.health() == Health::Good);
    append_all(&log, &[Record::default()]);
    sync_all(&log);
}

/// A failed sync, or a failed write that is not for lack of space, stops all writes and says why.
#[test]
fn a_failed_sync_or_write_poisons() {
    for (after, fault) in [(0, Fault::Io), (1, Fault::Io), (1, Fault::NoSpace)] {
        let world = World::new(1);
        let log = world.small();
        let first = log.append(record(b"", &[&[1; 100]])).unwrap();
        sync_all(&log);
        let second = log.append(record(b"", &[&[2; 100]])).unwrap();
        world.disk.fail_after(after, fault);
        let failed = wait(log.sync(second.lsn)).unwrap_err();
        let refused = log.append(Record::default()).unwrap_err();
        for error in [failed, refused] {
            assert_eq!(error.kind(), ErrorKind::ReadOnly);
            let text = error.to_string();
            assert!(
                text.contains("segment 00000001: ") && text.ends_with("check the disk, then restart mimeo"),
                "{text}"
            );
        }
        assert!(matches!(log.health(), Health::Poisoned(_)));
        assert!(wait(log.sync(first.lsn)).is_ok(), "what was durable before stays so");
        assert_eq!(log.durable(), first.lsn);
        assert!(log.room().is_none());
        for (place, byte) in [(first, 1), (second, 2)] {
            assert_eq!(wait(log.read(place.segment, place.pieces[0], 100)).unwrap(), vec![byte; 100]);
        }
        assert_eq!(log.close().unwrap_err().kind(), ErrorKind::ReadOnly);
    }
}

/// A log that is newer than the rest of its store is not touched.
#[test]
fn an_older_start_is_refused() {
    let world = World::new(1);
    world.small().close().unwrap();
    let files = world.files();
    world.epoch.store(0, Ordering::SeqCst);
    assert_eq!(world.open(SMALL).err().unwrap().kind(), ErrorKind::Conflict);
    assert!(world.files() == files);
}

/// A store that knows more of the log than is there has lost segments.
#[test]
fn a_replay_from_beyond_the_end_is_refused() {
    let world = World::new(1);
    let log = world.small();
    append_all(&log, &Dice::new(1).records(100));
    let known = log.end();
    assert!(known.segment() > SegmentId(2), "beyond what was written, and beyond the next start's segment");
    drop(log);
    let error = world.small().replay(known, &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// Segments too small to hold anything are refused.
#[test]
fn impossible_options_are_refused() {
    let error = World::new(1).open(LogOptions { segment_bytes: 100, ..SMALL }).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

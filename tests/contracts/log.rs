//! The contract of `DeltaLog`: files on a real and on a simulated disk.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use mimeo::env::{Env, Fault, ManualClock, SeededRng, SimDisk};
use mimeo::error::{Error, ErrorKind};
use mimeo::overlay::log::{
    Appended, DeltaLog, Health, LocalLog, LogOptions, Lsn, MAX_BODY, MAX_PIECE, MAX_PIECES, Record, Replayed, SegmentId,
};

/// Small segments, so that there are some; else the defaults.
const OPTIONS: LogOptions = LogOptions { segment_bytes: 256 << 10, buffer_bytes: 64 << 20, write_after: 1 << 20 };

/// Opens the log of one store again and again, each time as the next start.
type Open<'a> = &'a mut dyn FnMut() -> Arc<dyn DeltaLog>;

/// Everything that the users of a log rely on, from an empty one on.
async fn contract(open: Open<'_>) {
    an_empty_log_is_durable_to_its_end(open);
    let (records, places) = records_are_read_before_and_after_they_are_durable(open).await;
    records_are_replayed_after_a_restart(open, &records, &places).await;
    many_callers_append_and_sync(open).await;
    segments_are_listed_visited_and_removed(open).await;
    bounds_and_mistakes_are_refused(open).await;
    a_closed_log_takes_nothing(open).await;
}

fn record(body: &str, pieces: &[(u8, usize)]) -> Record {
    let data = pieces.iter().map(|(byte, len)| Bytes::from(vec![*byte; *len])).collect();
    Record { body: body.into(), data }
}

fn replay(log: &dyn DeltaLog, from: Lsn) -> Vec<Replayed> {
    let mut found = Vec::new();
    log.replay(from, &mut |record| {
        found.push(record);
        Ok(())
    })
    .unwrap();
    found
}

async fn assert_read(log: &dyn DeltaLog, record: &Record, place: &Appended) {
    assert_eq!(place.pieces.len(), record.data.len());
    for (offset, data) in place.pieces.iter().zip(&record.data) {
        assert_eq!(log.read(place.segment, *offset, data.len() as u32).await.unwrap(), data);
    }
}

fn an_empty_log_is_durable_to_its_end(open: Open<'_>) {
    let log = open();
    assert_eq!((log.health(), log.durable()), (Health::Good, log.end()));
    assert!(log.end() > Lsn::default() && log.room().is_none());
    assert_eq!(replay(&*log, Lsn::default()), []);
    assert_eq!(log.segments().len(), 1);
}

async fn records_are_read_before_and_after_they_are_durable(open: Open<'_>) -> (Vec<Record>, Vec<Appended>) {
    let log = open();
    let records = vec![
        record("", &[]),
        record("a body", &[(1, 1), (2, 4095), (3, 4096), (4, 4097)]),
        record("large", &[(5, MAX_PIECE), (6, MAX_PIECE)]),
        record(&"b".repeat(70_000), &[(7, 10)]),
    ];
    let mut places = Vec::new();
    for record in &records {
        let place = log.append(record.clone()).unwrap();
        assert_eq!((place.lsn, place.lsn.segment()), (log.end(), place.segment));
        assert_read(&*log, record, &place).await;
        places.push(place);
    }
    assert!(places.is_sorted_by(|a, b| a.lsn < b.lsn));
    log.sync(places[1].lsn).await.unwrap();
    assert!(log.durable() >= places[1].lsn);
    log.sync(log.end()).await.unwrap();
    assert_eq!(log.durable(), log.end());
    for (record, place) in records.iter().zip(&places) {
        assert_read(&*log, record, place).await;
    }
    (records, places)
}

async fn records_are_replayed_after_a_restart(open: Open<'_>, records: &[Record], places: &[Appended]) {
    for _ in 0..2 {
        let log = open();
        let found = replay(&*log, Lsn::default());
        assert_eq!(found.len(), records.len());
        for ((found, record), place) in found.iter().zip(records).zip(places) {
            assert_eq!((found.lsn, found.segment), (place.lsn, place.segment));
            assert_eq!(found.body, record.body);
            let lens = record.data.iter().map(|piece| piece.len() as u32);
            assert!(found.pieces.iter().copied().eq(place.pieces.iter().copied().zip(lens)));
            assert_read(&*log, record, place).await;
        }
        for (at, place) in places.iter().enumerate() {
            assert_eq!(replay(&*log, place.lsn), found[at + 1..]);
        }
        let mut visits = 0;
        let ended = log.replay(Lsn::default(), &mut |_| {
            visits += 1;
            Err(Error::invalid("enough"))
        });
        assert_eq!((ended.unwrap_err().what(), visits), ("enough", 1));
    }
}

async fn many_callers_append_and_sync(open: Open<'_>) {
    let log = open();
    let before = replay(&*log, Lsn::default()).len();
    let call = |caller: u8| {
        let log = log.clone();
        tokio::spawn(async move {
            for number in 0..30 {
                while let Some(room) = log.room() {
                    room.await;
                }
                let record = record(&format!("{caller} {number}"), &[(caller, 3000)]);
                let place = log.append(record.clone()).unwrap();
                log.sync(place.lsn).await.unwrap();
                assert!(log.durable() >= place.lsn);
                assert_read(&*log, &record, &place).await;
            }
        })
    };
    for called in join_all((0..8).map(call)).await {
        called.unwrap();
    }
    drop(log);
    let mut next = [0; 8];
    for found in replay(&*open(), Lsn::default()).into_iter().skip(before) {
        let body = String::from_utf8(found.body.to_vec()).unwrap();
        let (caller, number) = body.split_once(' ').unwrap();
        let next = &mut next[caller.parse::<usize>().unwrap()];
        assert_eq!(number.parse(), Ok(*next), "each caller's records in the order of its appends");
        *next += 1;
    }
    assert_eq!(next, [30; 8]);
}

async fn segments_are_listed_visited_and_removed(open: Open<'_>) {
    let log = open();
    let all = replay(&*log, Lsn::default());
    let segments = log.segments();
    assert!(segments.is_sorted_by(|a, b| a.0 < b.0) && segments.iter().all(|(_, bytes)| *bytes > 0));
    let (last, sealed) = segments.split_last().unwrap();
    let mut visited = Vec::new();
    for (id, _) in sealed {
        log.replay_segment(*id, &mut |found| {
            visited.push(found);
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(visited, all);
    assert_eq!(log.replay_segment(last.0, &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(log.remove(last.0).unwrap_err().kind(), ErrorKind::Unavailable);

    let one = all.iter().find(|found| !found.pieces.is_empty()).unwrap();
    let (id, (offset, len), one_lsn) = (one.segment, one.pieces[0], one.lsn);
    let begun = log.read(id, offset, len);
    log.remove(id).unwrap();
    assert_eq!(begun.await.unwrap().len(), len as usize, "a read that has begun ends well");
    assert_eq!(log.read(id, offset, len).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(log.remove(id).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(log.replay_segment(id, &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::NotFound);
    drop(log);
    let log = open();
    assert!(log.segments().iter().all(|(there, _)| *there != id));
    assert!(replay(&*log, Lsn::default()).into_iter().eq(all.into_iter().filter(|found| found.segment != id)));
    let refused = log.replay(one_lsn, &mut |_| Ok(())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(refused.what().contains(&format!("segment {id}")), "{refused}");
}

async fn bounds_and_mistakes_are_refused(open: Open<'_>) {
    let log = open();
    let end = log.end();
    let too_many = [(1, 1); MAX_PIECES + 1];
    for record in [
        record(&"b".repeat(MAX_BODY + 1), &[]),
        record("", &[(1, MAX_PIECE + 1)]),
        record("", &[(1, 0)]),
        record("", &too_many),
        record(&"b".repeat(OPTIONS.segment_bytes as usize), &[]),
    ] {
        assert_eq!(log.append(record).unwrap_err().kind(), ErrorKind::Internal);
    }
    assert_eq!(log.end(), end);
    assert_eq!(log.sync(Lsn(end.0 + 1)).await.unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(log.replay(Lsn(end.0 + 1), &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(log.read(SegmentId(u32::MAX), 100, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn a_closed_log_takes_nothing(open: Open<'_>) {
    let log = open();
    let before = replay(&*log, Lsn::default()).len();
    let (record, lost) = (record("last", &[(9, 5000)]), record("lost", &[]));
    let place = log.append(record.clone()).unwrap();
    log.close().unwrap();
    assert_eq!(log.durable(), place.lsn);
    log.sync(place.lsn).await.unwrap();
    assert_read(&*log, &record, &place).await;
    assert_eq!(log.append(lost).unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(log.room().is_none());
    log.close().unwrap();
    drop(log);
    let found = replay(&*open(), Lsn::default());
    assert_eq!((found.len(), found.last().unwrap().lsn), (before + 1, place.lsn));
}

/// Starts of a log in one directory, each with the next epoch.
fn starts(env: Env, dir: PathBuf) -> impl FnMut() -> Arc<dyn DeltaLog> {
    let mut epoch = 0;
    move || {
        epoch += 1;
        LocalLog::open(env.clone(), dir.clone(), epoch, OPTIONS).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_log_on_the_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    contract(&mut starts(Env::real(), dir.path().join("log"))).await;
}

fn sim() -> (Arc<SimDisk>, Env) {
    let disk = Arc::new(SimDisk::new(1));
    let (clock, rng) = (Arc::new(ManualClock::at_secs(1)), Arc::new(SeededRng::new(1)));
    (disk.clone(), Env { disk, clock, rng })
}

#[tokio::test(flavor = "multi_thread")]
async fn local_log_on_a_simulated_disk() {
    let (_, env) = sim();
    contract(&mut starts(env, "/log".into())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_log_with_a_power_cut_before_each_start() {
    let (disk, env) = sim();
    let mut start = starts(env, "/log".into());
    contract(&mut || {
        disk.crash();
        start()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_poisons_until_the_next_start() {
    let (disk, env) = sim();
    let mut start = starts(env, "/log".into());
    let log = start();
    let place = log.append(record("synced", &[])).unwrap();
    log.sync(place.lsn).await.unwrap();
    let lost = log.append(record("not synced", &[])).unwrap();
    disk.fail_after(1, Fault::Io);
    assert_eq!(log.sync(lost.lsn).await.unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(log.append(record("", &[])).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert!(matches!(log.health(), Health::Poisoned(_)));
    assert_eq!(log.close().unwrap_err().kind(), ErrorKind::ReadOnly);
    drop(log);
    disk.crash();
    assert_eq!(replay(&*start(), Lsn::default())[0].lsn, place.lsn);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_out() {
    let (disk, env) = sim();
    let mut start = starts(env, "/log".into());
    let log = start();
    disk.set_capacity(1000);
    let place = log.append(record("", &[(1, 5000)])).unwrap();
    let synced = tokio::spawn(log.sync(place.lsn));
    while log.health() == Health::Good {
        tokio::task::yield_now().await;
    }
    assert!(matches!(log.health(), Health::Full(_)) && log.durable() < place.lsn);
    assert_eq!(log.append(record("", &[])).unwrap_err().kind(), ErrorKind::NoSpace);
    disk.set_capacity(1 << 40);
    synced.await.unwrap().unwrap();
    assert_eq!(log.health(), Health::Good);
    log.append(record("", &[])).unwrap();
    drop(log);
    disk.crash();
    assert_eq!(replay(&*start(), Lsn::default())[0].lsn, place.lsn);
}

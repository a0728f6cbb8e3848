//! The same for the segments of the delta log.
//!
//! Method: three records in two groups, with fixed dice, and an orderly stop that seals the segment;
//! its file is the frozen dump. The dump alone, as the file of a store, is then replayed and read.

use std::path::Path;

use mimeo::env::{Disk, create_dir_durably};
use mimeo::overlay::log::{DeltaLog, LocalLog, LogOptions, Lsn, Record};

use super::stores::{assert_frozen, env, hex};
use super::{fixture, unhex};

const DIR: &str = "/log";
const SEGMENT: &str = "/log/00000001.seg";

/// Of each group, the records.
fn groups() -> Vec<Vec<Record>> {
    let record = |body: &[u8], pieces: &[&'static [u8]]| Record {
        body: body.to_vec(),
        data: pieces.iter().map(|piece| (*piece).into()).collect(),
    };
    vec![vec![record(b"first", &[&[0xab; 5000], b"c"]), record(b"", &[])], vec![record(b"third", &[b"data"])]]
}

fn read(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[tokio::test]
async fn the_logs_segments_are_frozen() {
    let env = env();
    let log = LocalLog::open(env.clone(), DIR.into(), 7, LogOptions::default()).unwrap();
    for group in groups() {
        group.into_iter().for_each(|record| drop(log.append(record).unwrap()));
        log.sync(log.end()).await.unwrap();
    }
    log.close().unwrap();
    let dump = hex(&read(&*env.disk, SEGMENT.as_ref())) + "\n";
    assert_frozen(&fixture("log-segment.hex"), &dump);
}

#[tokio::test]
async fn a_frozen_segment_is_read() {
    let env = env();
    create_dir_durably(&*env.disk, DIR.as_ref()).unwrap();
    let text = std::fs::read_to_string(fixture("log-segment.hex")).unwrap();
    env.disk.create(SEGMENT.as_ref()).unwrap().append(&unhex(text.trim())).unwrap();

    let log = LocalLog::open(env, DIR.into(), 8, LogOptions::default()).unwrap();
    let mut found = Vec::new();
    log.replay(Lsn::default(), &mut |record| {
        found.push(record);
        Ok(())
    })
    .unwrap();
    let expected = groups().concat();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.body, expected.body);
        assert_eq!(found.pieces.len(), expected.data.len());
        for ((offset, len), data) in found.pieces.iter().zip(expected.data) {
            assert_eq!(log.read(found.segment, *offset, *len).await.unwrap(), data);
        }
    }
}

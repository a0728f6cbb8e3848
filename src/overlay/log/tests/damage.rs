//! Goal: a torn end is dropped, damage is refused by name, and neither is taken for the other.
//! Method: the files of a log are cut, flipped and extended at every byte, planted on a new disk, opened
//! and replayed.

use super::*;

/// Files of a log, and where the records of its last segment are.
struct Sample {
    files: Vec<(String, Vec<u8>)>,
    records: Vec<Record>,
    /// The end of each group of the last segment, after that of its header.
    ends: Vec<usize>,
}

/// One segment, not sealed, with three groups of two records, each synced before the next was written.
fn sample() -> Sample {
    let (world, dice) = (World::new(1), Dice::new(1));
    let log = world.small();
    let (mut records, mut ends) = (Vec::new(), vec![SEGMENT_HEADER as usize]);
    for _ in 0..3 {
        let group = [record(&dice.bytes(20), &[&dice.bytes(200)]), record(b"second of the group", &[])];
        append_all(&log, &group);
        sync_all(&log);
        records.extend(group);
        ends.push(log.end().offset() as usize);
    }
    Sample { files: world.files(), records, ends }
}

impl Sample {
    /// The contents of a log whose last segment is changed like that.
    fn reopened(&self, change: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<Record>> {
        let mut files = self.files.clone();
        change(&mut files.last_mut().unwrap().1);
        let world = World::planted(&files);
        let read = contents(&*world.open(SMALL)?)?;
        // What was decided once stays decided.
        world.disk.crash();
        let log = world.open(SMALL)?;
        assert!(contents(&log)? == read);
        Ok(read)
    }
}

#[track_caller]
fn assert_corrupt(result: Result<Vec<Record>>, segment: u32, at: usize) {
    let error = result.expect_err("damage");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let text = error.to_string();
    assert!(text.contains(&format!("log segment {segment:08x}, byte {at}:")), "{text}, not at {at}");
    assert!(text.contains("backup") && text.contains("mimeo fsck"), "{text}");
}

#[test]
fn a_torn_end_is_dropped_at_every_byte() {
    let sample = sample();
    let Sample { records, ends, .. } = &sample;
    for cut in ends[2]..ends[3] {
        assert!(sample.reopened(|file| file.truncate(cut)).unwrap() == records[..4], "cut at {cut}");
        let zeroed = sample.reopened(|file| file[cut..].fill(0));
        assert!(zeroed.unwrap() == records[..4], "zeros from {cut}");
        let flipped = sample.reopened(|file| file[cut] ^= 0xff);
        assert!(flipped.unwrap() == records[..4], "byte {cut} flipped");
    }
    assert!(sample.reopened(|file| file.extend([0; 700])).unwrap() == *records, "a length without bytes");
    assert!(sample.reopened(|_| ()).unwrap() == *records);
}

#[test]
fn damage_in_what_was_synced_is_refused_at_every_byte() {
    let sample = sample();
    for at in 0..sample.ends[2] {
        let start = sample.ends[..2].iter().rev().find(|end| **end <= at).copied().unwrap_or(0);
        assert_corrupt(sample.reopened(|file| file[at] ^= 0xff), 1, start);
    }
    // Half of a sector gone, heads of groups among it.
    assert_corrupt(sample.reopened(|file| file[40..sample.ends[1] + 60].fill(0)), 1, sample.ends[0]);
}

#[test]
fn damage_in_a_sealed_segment_is_refused_at_every_byte() {
    let mut sample = sample();
    let world = World::planted(&sample.files);
    world.small().close().unwrap();
    sample.files = world.files();
    assert_eq!(sample.files.len(), 2);
    let seal = sample.files[0].1.len() - GROUP_HEADER as usize;
    assert_eq!(seal, sample.ends[3]);
    for at in 0..sample.files[0].1.len() {
        let start = sample.ends.iter().rev().find(|end| **end <= at).copied().unwrap_or(0);
        let mut files = sample.files.clone();
        files[0].1[at] ^= 0xff;
        let world = World::planted(&files);
        assert_corrupt(contents(&world.small()), 1, start);
        assert_eq!(world.small().replay_segment(SegmentId(1), &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    for cut in [seal, seal + 1, sample.ends[2], sample.ends[2] + 10, 20] {
        let mut files = sample.files.clone();
        files[0].1.truncate(cut);
        assert_eq!(contents(&World::planted(&files).small()).unwrap_err().kind(), ErrorKind::Corrupt, "cut at {cut}");
    }
    sample.files[0].1.push(0);
    assert_corrupt(contents(&World::planted(&sample.files).small()), 1, seal);
}

/// A client that stores what looks like a group does not make a torn end look like damage: neither
/// copies of the log's own bytes, nor heads that call everything durable but lack the salt or the place.
#[test]
fn data_is_no_witness() {
    let world = World::new(1);
    let log = world.small();
    append_all(&log, &[record(b"before", &[])]);
    sync_all(&log);
    let copy = world.files()[0].1.clone();
    let segment = format::SegmentHeader::decode(copy.first_chunk().unwrap()).unwrap();
    let end = log.end().offset();
    // One record of one piece: where its payload will be.
    let start = end + GROUP_HEADER + format::piece_offsets(0, &record(b"torn", &[&copy])).next().unwrap();
    let forged = |salt, start| {
        let segment = format::SegmentHeader { salt, ..segment };
        format::GroupHeader::seal(&segment, Lsn(u64::MAX), start).encode().to_vec()
    };
    let witnesses = [copy, forged(segment.salt ^ 1, start), forged(segment.salt, start - 1), forged(segment.salt, end)];
    for (number, witness) in witnesses.iter().enumerate() {
        assert_eq!(
            contents_torn_after(&world, record(b"torn", &[witness])).unwrap(),
            [record(b"before", &[])],
            "{number}"
        );
    }
    // The same with both is one: the test would notice.
    assert_corrupt(contents_torn_after(&world, record(b"torn", &[&forged(segment.salt, start)])), 1, end as usize);
}

/// The contents of the log if the first segment of `world` went on with `torn`, without its first byte.
fn contents_torn_after(world: &World, torn: Record) -> Result<Vec<Record>> {
    let mut files = world.files();
    let file = &mut files[0].1;
    let segment = format::SegmentHeader::decode(file.first_chunk().unwrap()).unwrap();
    let mut group = format::Encoded::default();
    let end = file.len();
    group.push_group(&segment, end as u32, Lsn::default(), [&torn].into_iter());
    group.slices(0).iter().for_each(|part| file.extend_from_slice(part));
    file[end] ^= 0xff;
    contents(&*World::planted(&files).open(SMALL)?)
}

#[test]
fn a_creation_that_was_cut_off_is_undone() {
    let sample = sample();
    let world = World::planted(&sample.files);
    drop(world.small());
    let files = world.files();
    assert_eq!((files.len(), files[1].1.len()), (2, SEGMENT_HEADER as usize));
    for cut in 0..=SEGMENT_HEADER as usize {
        let mut files = files.clone();
        files[1].1[cut..].fill(0);
        let lengths = [cut, SEGMENT_HEADER as usize];
        for length in lengths {
            files[1].1.truncate(lengths[1]);
            files[1].1.resize(length, 0);
            let world = World::planted(&files);
            let log = world.small();
            assert!(contents(&log).unwrap() == sample.records, "{cut} bytes of {length}");
            assert_eq!(log.end().segment(), SegmentId(3), "a number that was taken is not taken again");
        }
    }
    // More than a header: it was in use, so the header was durable.
    let mut files = files.clone();
    files[1].1[9] ^= 1;
    files[1].1.push(0);
    assert_corrupt(World::planted(&files).open(SMALL).map(|_| Vec::new()), 2, 0);
}

/// What was undone stays so, behind later segments too, wherever the next power cut comes.
#[test]
fn a_creation_that_was_cut_off_stays_undone() {
    let sample = sample();
    let world = World::planted(&sample.files);
    drop(world.small());
    let mut files = world.files();
    files[1].1.truncate(10);
    for seed in 0..40 {
        for point in 0..20 {
            let world = World::planted_on(seed, &files);
            world.disk.halt_after(point);
            drop(world.open(SMALL));
            world.disk.crash();
            let found = world.open(SMALL).and_then(|log| contents(&log));
            assert!(found.unwrap() == sample.records, "seed {seed}, call {point}");
        }
    }
}

/// An empty segment of a later program is not taken for a creation that was cut off.
#[test]
fn a_newer_format_is_refused() {
    let sample = sample();
    let mut newer = sample.files.clone();
    let head = &mut newer[0].1;
    head.truncate(SEGMENT_HEADER as usize);
    head[9] = 2;
    let crc = crc32fast::hash(&head[..SEGMENT_HEADER as usize - 4]);
    head[SEGMENT_HEADER as usize - 4..].copy_from_slice(&crc.to_be_bytes());
    let error = World::planted(&newer).open(SMALL).err().unwrap();
    assert!(error.to_string().contains("newer"), "{error}");
}

/// What is read is verified; the rest of the segment goes on.
#[test]
fn a_damaged_piece_is_never_served() {
    let world = World::new(1);
    let log = world.small();
    let place = log.append(record(b"body", &[&[1; 9000], &[2; 100]])).unwrap();
    sync_all(&log);
    let read = |piece: usize, len| wait(log.read(place.segment, place.pieces[piece], len));
    let path = format!("{DIR}/{}.seg", place.segment);
    let (start, crcs) = (place.pieces[0] as usize, 12);
    for at in [start - crcs, start - 1, start, start + 5000, start + 8999] {
        assert!(world.disk.corrupt(path.as_ref(), at));
        let error = read(0, 9000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.what().contains(&format!("segment 00000001, byte {start}")), "{error}");
        assert_eq!(read(1, 100).unwrap(), vec![2; 100]);
        assert!(world.disk.corrupt(path.as_ref(), at));
    }
    assert_eq!(read(0, 9000).unwrap(), vec![1; 9000]);
    let beyond = wait(log.read(place.segment, place.pieces[1] + 50, 100)).unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::Corrupt);
}

/// Decoding takes any bytes without a panic: headers that are right over groups that are not.
#[test]
fn random_groups_are_refused() {
    for seed in 0..2000 {
        let dice = Dice::new(seed);
        let mut bytes = dice.bytes(GROUP_HEADER as usize + 1 + dice.below(200));
        // Small numbers reach farther into the decoder.
        bytes.iter_mut().for_each(|byte| *byte = if dice.below(3) > 0 { 0 } else { *byte });
        let len = bytes.len() as u32;
        let (count, records_crc) = (dice.below(3) as u32, 0);
        let header =
            format::GroupHeader { salt: 0, epoch: 0, durable_upto: Lsn(0), start: 36, len, count, records_crc };
        let decoded = format::decode_group(SegmentId(1), &header, &bytes.into());
        assert!(decoded.is_err(), "seed {seed}");
    }
}

//! Damage to the index of private writes, to the log, to chunks, and to what the catalog says of them.

use super::world::{
    DATA, DIR, F, FRAGMENT, FRAGMENT_LEN, FRAGMENT_OFFSET, NAME, NODE, World, cookie, desk, key, snapshot, version,
};
use crate::chunk::{ChunkSink, ChunkSource};
use crate::maintain::fsck::{
    LayerFlaw, OverlayFlaw, Owner, Report, SegmentFlaw, ViewFlaw, ViewName, Violation, check_rows,
};
use crate::manifest::{FileKind, Ino};
use crate::meta::{Durability, Table};
use crate::overlay::check::About;
use crate::overlay::log::SegmentId;
use crate::overlay::{Counts, IdleCursor, Layer, OverlayId, Position};

/// The clone's open overlay has 7 bytes of `/dir/f`, at position 1 as snapshot `s` shows them, and 5 of
/// them anew at position 2.
async fn written() -> World {
    let world = World::new().await;
    world.write("desk", F, 1000, b"private").await;
    world.snapshot("desk", "s").await;
    world.write("desk", F, 1002, b"again").await;
    world
}

const HELD: Counts = Counts { bytes: 7, inodes: 1 };

/// What the bucket of `/dir/f` refers to as its first fragment, or its second: offset in the log.
fn offset(world: &World, fragment: usize) -> u32 {
    let row = world.row("heads", &key(world.top("desk"), DATA, F, 0));
    u32::from_be_bytes(row[FRAGMENT_OFFSET + fragment * FRAGMENT_LEN..][..4].try_into().unwrap())
}

fn overlay(overlay: OverlayId, flaw: OverlayFlaw) -> Violation {
    Violation::Overlay { overlay, flaw }
}

fn segment(flaw: SegmentFlaw) -> Violation {
    Violation::Segment { segment: SegmentId(1), flaw }
}

fn layer(view: ViewName, overlay: OverlayId, flaw: LayerFlaw) -> Violation {
    Violation::View { view, flaw: ViewFlaw::Layer { overlay, flaw } }
}

#[track_caller]
fn assert_found(report: &Report, expected: &[Violation]) {
    assert_eq!(report.violations(), expected);
    for violation in expected {
        let text = violation.to_string();
        assert!(text.contains("; ") && text.len() < 400, "what and remedy: {text}");
    }
}

/// Rows that are not of their table at all hurt nothing else; each is told.
#[tokio::test]
async fn rows_that_do_not_decode_are_told() {
    let world = written().await;
    world.assert_clean().await;
    let top = world.top("desk");
    let mut of_no_kind = key(top, NODE, F, 0);
    of_no_kind[8] = 9;
    let cases: [(Table, Vec<u8>, Vec<u8>); 8] = [
        ("heads", vec![1, 2, 3], vec![]),
        ("heads", of_no_kind, vec![0; 9]),
        ("history", vec![1, 2, 3], vec![]),
        ("overlays", vec![1, 2, 3], vec![0; 24]),
        ("overlays", vec![0; 8], vec![0; 23]),
        ("segments", vec![0; 3], vec![0; 8]),
        ("receipts", vec![0; 8], vec![0; 15]),
        ("state", b"unheard".to_vec(), vec![0; 8]),
    ];
    for (table, key, row) in cases {
        world.put(table, &key, row);
        let expected = Violation::Row { table, key: key.clone() };
        assert_found(&world.check().await, std::slice::from_ref(&expected));
        assert_found(&check_rows(&*world.kv).unwrap(), &[expected]);
        world.delete(table, &key);
    }
    world.assert_clean().await;
}

/// A row whose value does not decode is told, and so are the views that cannot be read because of it.
#[tokio::test]
async fn values_that_do_not_decode_are_told_with_who_shows_them() {
    let mut world = written().await;
    world.make("desk", DIR, "new", FileKind::Regular).await;
    let top = world.top("desk");
    let old = |key: &[u8]| version(key, 1);
    let (node, data, name) = (key(top, NODE, F, 0), key(top, DATA, F, 0), key(top, NAME, DIR, cookie("new").0));
    for (table, key, shown) in [
        ("heads", node.clone(), desk()),
        ("heads", data.clone(), desk()),
        ("heads", name, desk()),
        ("history", old(&node), snapshot("s")),
        ("history", old(&data), snapshot("s")),
    ] {
        world.assert_clean().await;
        let good = world.row(table, &key);
        world.stop().await;
        world.put(table, &key, [&good[..], b"?"].concat());
        world.start().await;
        let report = world.check().await;
        let (first, rest) = report.violations().split_first().unwrap();
        assert_eq!(*first, Violation::Row { table, key: key.clone() });
        let unreadable =
            |v: &Violation| matches!(v, Violation::View { view, flaw: ViewFlaw::Unreadable { .. } } if *view == shown);
        assert!(!rest.is_empty() && rest.iter().all(unreadable), "{shown}: {rest:#?}");
        world.put(table, &key, good);
    }
}

#[tokio::test]
async fn positions_are_within_the_life_of_the_overlay() {
    let mut world = written().await;
    let top = world.top("desk");
    let row = top.0.to_be_bytes();
    let report = world.check_damaged(|world| world.edit_row("overlays", &row, |row| row[7] = 1)).await;
    let flaw = |about| overlay(top, OverlayFlaw::Position { about, position: 2, last: 1 });
    assert_found(&report, &[flaw(About::Node(F)), flaw(About::Data(F, 0))]);
}

#[tokio::test]
async fn an_overlay_without_a_row_is_told() {
    let mut world = written().await;
    let top = world.top("desk");
    let report = world.check_damaged(|world| world.delete("overlays", &top.0.to_be_bytes())).await;
    let ahead = ViewFlaw::LayerAhead { overlay: top, upto: 1, last: 0 };
    let expected = [overlay(top, OverlayFlaw::Unknown), Violation::View { view: snapshot("s"), flaw: ahead }];
    assert_found(&report, &expected);
}

#[tokio::test]
async fn older_versions_are_older_than_the_newest() {
    let mut world = written().await;
    let (top, node) = (world.top("desk"), key(world.top("desk"), NODE, F, 0));
    let copy = |world: &World| {
        let former = world.row("history", &version(&node, 1));
        world.put("history", &version(&node, 2), former);
    };
    let report = world.check_damaged(copy).await;
    let order = |ino, position, newest| OverlayFlaw::Order { about: About::Node(ino), position, newest };
    assert_found(&report, &[overlay(top, order(F, 2, Some(2)))]);
    world.delete("history", &version(&node, 2));

    // "Removed", of an object that has no newest version.
    let forgotten = version(&key(top, NODE, Ino(999), 0), 1);
    let report = world.check_damaged(|world| world.put("history", &forgotten, vec![1, 2, 0])).await;
    assert_found(&report, &[overlay(top, order(Ino(999), 1, None))]);
}

#[tokio::test]
async fn counts_and_live_bytes_are_those_that_can_be_counted() {
    let mut world = written().await;
    let top = world.top("desk");
    let row = top.0.to_be_bytes();
    let report = world.check_damaged(|world| world.edit_row("overlays", &row, |row| row[15] += 1)).await;
    let kept = Counts { bytes: 8, ..HELD };
    assert_found(&report, &[overlay(top, OverlayFlaw::Counts { kept, counted: HELD })]);
    world.edit_row("overlays", &row, |row| row[15] -= 1);
    world.restart().await;

    // 7 and 5 bytes, of which 2 are in both versions.
    let counted = 7 + 2 + 5;
    let report = world.check_damaged(|world| world.edit_row("segments", &[0, 0, 0, 1], |row| row[7] -= 3)).await;
    assert_found(&report, &[segment(SegmentFlaw::Live { kept: counted - 3, counted })]);
}

#[tokio::test]
async fn nodes_say_how_much_data_they_have() {
    let mut world = written().await;
    let (top, node) = (world.top("desk"), key(world.top("desk"), NODE, F, 0));
    let flaw = LayerFlaw::Own { ino: F, kept: 8, counted: 7 };
    // Behind it only that the node has no base of its own.
    let own = |row: &mut Vec<u8>, value| *row.iter_mut().nth_back(1).unwrap() = value;
    let last = |row: &mut Vec<u8>| own(row, 8);
    let report = world.check_damaged(|world| world.edit_row("heads", &node, last)).await;
    assert_found(&report, &[layer(desk(), top, flaw)]);
    world.edit_row("heads", &node, |row| own(row, 7));
    world.restart().await;

    let report = world.check_damaged(|world| world.edit_row("history", &version(&node, 1), last)).await;
    assert_found(&report, &[layer(snapshot("s"), top, flaw)]);
}

#[tokio::test]
async fn data_and_names_belong_to_something_in_their_layer() {
    let mut world = written().await;
    let top = world.top("desk");
    // Position 1, something, format, and 10 zeros at offset 0.
    let zeros = [&[0, 0, 0, 0, 0, 0, 0, 1, 1, 1][..], &[0, 0, 0, 9, 0, 0, 0, 0, 3]].concat();
    let stray = key(top, DATA, DIR, 0);
    let report = world.check_damaged(|world| world.put("heads", &stray, zeros)).await;
    // The snapshot shows position 1 too; what is wrong in it is not told again for the clone.
    let flaw = LayerFlaw::StrayData { ino: DIR };
    assert_found(&report, &[layer(snapshot("s"), top, flaw), layer(desk(), top, flaw)]);
    world.delete("heads", &stray);
    world.restart().await;

    // "Removed", at position 2, which the snapshot does not show.
    let stray = key(top, NAME, DIR, cookie("f").0);
    let report = world.check_damaged(|world| world.put("heads", &stray, vec![0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 0])).await;
    assert_found(&report, &[layer(desk(), top, LayerFlaw::StrayName { dir: DIR, cookie: cookie("f") })]);
}

#[tokio::test]
async fn data_end_where_the_file_does() {
    let mut world = World::new().await;
    let file = world.make("desk", DIR, "new", FileKind::Regular).await;
    world.write("desk", file, 200_000, &[1; 10]).await;
    world.assert_clean().await;
    world.edit("desk", file, |node| node.size = 200_005).await;
    let flaw = LayerFlaw::BeyondEnd { ino: file, size: 200_005 };
    assert_found(&world.check().await, &[layer(desk(), world.top("desk"), flaw)]);
}

#[tokio::test]
async fn data_lie_within_their_segment_and_apart() {
    let mut world = written().await;
    let (top, data) = (world.top("desk"), key(world.top("desk"), DATA, F, 0));
    let of = Owner { overlay: top, ino: F };
    let second = FRAGMENT_OFFSET + FRAGMENT_LEN;
    world.stop().await;
    assert_eq!(world.row("heads", &data).len(), FRAGMENT + 2 * FRAGMENT_LEN, "two fragments");
    world.start().await;
    let (first, former) = (offset(&world, 0), offset(&world, 1));
    let set = |world: &World, offset: u32| {
        world.edit_row("heads", &data, |row| row[second..second + 4].copy_from_slice(&offset.to_be_bytes()));
    };

    let report = world.check_damaged(|world| set(world, 1 << 30)).await;
    assert_found(&report, &[segment(SegmentFlaw::Outside { offset: 1 << 30, len: 5, of })]);
    set(&world, former);
    world.restart().await;

    let report = world.check_damaged(|world| set(world, first + 1)).await;
    assert_found(&report, &[segment(SegmentFlaw::Overlap { offset: first + 1, len: 5, of })]);
}

/// Damage that only reading finds: a flipped byte in the log, a chunk of private data that is gone.
#[tokio::test]
async fn private_data_are_read_and_verified() {
    let mut world = written().await;
    world.restart().await;
    let (top, at) = (world.top("desk"), offset(&world, 1));
    world.corrupt_segment(1, at as usize);
    assert!(world.check().await.is_clean(), "nothing was read");
    let report = world.check_with(true).await;
    let [Violation::Segment { segment: SegmentId(1), flaw }] = report.violations() else { panic!("{report:#?}") };
    let of = Owner { overlay: top, ino: F };
    assert!(matches!(flaw, SegmentFlaw::Unreadable { offset, of: whose, .. } if (*offset, *whose) == (at, of)));

    let mut world = World::new().await;
    world.write("desk", F, 0, &[9; 8192]).await;
    world.store().flush(Durability::Synced).await.unwrap();
    let top = world.top("desk");
    let (idle, _) = world.store().idle_buckets(top, Position::MAX, IdleCursor::default(), 1 << 20).await.unwrap();
    let chunk = world.chunks.put(&idle[0].runs[0].1).unwrap().id;
    assert!(world.store().adopt_chunks(top, &idle[0], &[chunk]).await.unwrap());
    world.assert_clean().await;
    world.chunks.remove(&chunk);
    world.restart().await;
    assert!(world.check().await.is_clean(), "nothing was read");
    let report = world.check_with(true).await;
    let [Violation::Chunk { chunk: missing, of, .. }] = report.violations() else { panic!("{report:#?}") };
    assert_eq!((*missing, of.as_str()), (chunk, &*Owner { overlay: top, ino: F }.to_string()));
}

#[tokio::test]
async fn what_the_catalog_says_of_layers_is_so() {
    let world = written().await;
    world.new_clone("other").await;
    world.assert_clean().await;
    let (overlay, view) = (world.top("desk"), ViewName::Clone("other".into()));
    let flaw = |flaw| [Violation::View { view: view.clone(), flaw }];
    let layers = |upto, bytes, times| vec![Layer { overlay, upto, counts: Counts { bytes, inodes: 1 } }; times];

    let ahead = layers(99, 7, 1);
    world.edit_clone("other", move |clone| clone.view.layers = ahead.clone()).await;
    assert_found(&world.check().await, &flaw(ViewFlaw::LayerAhead { overlay, upto: 99, last: 2 }));

    let miscounted = layers(2, 6, 1);
    let named = miscounted[0].counts;
    world.edit_clone("other", move |clone| clone.view.layers = miscounted.clone()).await;
    assert_found(&world.check().await, &flaw(ViewFlaw::LayerCounts { overlay, named, kept: HELD }));

    let many = layers(1, 7, 9);
    world.edit_clone("other", move |clone| clone.view.layers = many.clone()).await;
    assert_found(&world.check().await, &flaw(ViewFlaw::TooManyLayers { layers: 9 }));
}

/// Each page and each chunk of an image, taken away one by one, is missed.
#[tokio::test]
async fn manifests_and_their_chunks_are_read() {
    let world = World::new().await;
    let (header, mut of_header) = (world.manifest, 0);
    for id in world.chunks.ids() {
        let bytes = world.chunks.load(id).await.unwrap();
        world.chunks.remove(&id);
        let report = world.check_with(true).await;
        assert!(!report.is_clean(), "chunk {id} of {} bytes is not missed", bytes.len());
        for violation in report.violations() {
            let text = violation.to_string();
            assert!(text.contains("os@v1") && text.contains(&id.to_string()), "{id}: {text}");
        }
        let quick = world.check().await;
        assert_eq!(quick.is_clean(), id != header, "without reading data, only the header page is looked at");
        of_header += quick.total();
        world.chunks.put(&bytes).unwrap();
    }
    assert_eq!(of_header, 1);
    world.assert_clean().await;
}

/// What is in memory cannot be brought into an index that is damaged: told, with the row.
#[tokio::test]
async fn an_index_that_takes_no_changes_is_told() {
    let world = World::new().await;
    world.write("desk", F, 0, b"first").await;
    world.store().flush(Durability::Synced).await.unwrap();
    world.write("desk", F, 0, b"second").await;
    let data = key(world.top("desk"), DATA, F, 0);
    world.edit_row("heads", &data, |row| row.push(7));
    let report = world.check().await;
    let [row, Violation::Unopenable { .. }] = report.violations() else { panic!("{report:#?}") };
    assert_eq!(*row, Violation::Row { table: "heads", key: data });
}

//! Goal: the rules of the view switch, of removal and of names, as pure functions of state and change.

use super::*;
use crate::chunk::ChunkId;
use crate::env::Time;
use crate::image::change::{Change, ChangeSet};
use crate::image::record::{Lagging, Span, Turn};
use crate::image::record::{OperationId, SnapshotId, View};
use crate::image::switch::{Content, Sealed, Shown, ViewSwitch};
use crate::overlay::{Counts, Layer};

const IMAGE: ImageId = ImageId(1);

fn image(id: u64, name: &str) -> Change {
    Change::PutImage(ImageRecord {
        id: ImageId(id),
        name: name.into(),
        created: Time::new(1, 0),
        labels: Labels::new(),
        tags: Default::default(),
        next_version: 1,
        name_seed: [7; 16],
        policy: Default::default(),
    })
}

fn version(number: u32) -> Change {
    Change::PutVersion(VersionRecord {
        export: ExportId(100 + u64::from(number)),
        image: IMAGE,
        number,
        manifest: ChunkId::of(&number.to_le_bytes()),
        created: Time::new(1, 0),
        source: "/src".into(),
        author: String::new(),
        labels: Labels::new(),
        consistency: "unknown".into(),
        inodes: 1,
        bytes_logical: 0,
        bytes_stored: 0,
        bytes_added: 0,
        removed: false,
    })
}

fn clone(id: u64, name: &str, labels: &[&str]) -> Change {
    Change::PutClone(CloneRecord {
        id: ExportId(id),
        name: name.into(),
        image: IMAGE,
        created: Time::new(5, 0),
        labels: Arc::new(Labels::parse(labels).unwrap()),
        view: View::of(1, 1, OverlayId(id)),
        pins: Vec::new(),
        switched: Time::new(5, 0),
        turns: Vec::new(),
        loose: Vec::new(),
        export: Arc::default(),
        quota: None,
        policy: Arc::default(),
        lagging: None,
        staged: None,
        depth: 0,
    })
}

fn layer(overlay: u64, upto: Position) -> Layer {
    Layer { overlay: OverlayId(overlay), upto, counts: Counts { bytes: 10 * upto, inodes: upto } }
}

/// The next top is 1000 for the switch at second 0, 1001 for that at second 1, ...
fn switch_of(number: u32, secs: i64, layers: Vec<Layer>, sealed: Vec<Layer>) -> Change {
    Change::Switch(ViewSwitch {
        clones: vec![ExportId(500)],
        shown: Shown::Same(Content { version: number, layers, bases: Vec::new() }),
        at: Time::new(secs, 0),
        operation: OperationId(9),
        first_overlay: 1000 + secs as u64,
        sealed: Sealed::from_layers(sealed),
    })
}

fn switch(number: u32, secs: i64) -> Change {
    switch_of(number, secs, Vec::new(), Vec::new())
}

fn snapshot(clone: u64, name: &str, version: u32, layers: Vec<Layer>) -> Change {
    Change::PutSnapshot(SnapshotRecord {
        id: SnapshotId(7),
        clone: ExportId(clone),
        name: name.into(),
        created: Time::new(6, 0),
        labels: Arc::default(),
        version,
        layers,
        bases: Vec::new(),
        operation: None,
    })
}

fn remove_snapshot(clone: u64, name: &str) -> Change {
    Change::RemoveSnapshot { clone: ExportId(clone), name: name.into() }
}

fn drop_pins(clones: &[u64], sealed: Vec<Layer>) -> Change {
    Change::DropPins { clones: clones.iter().copied().map(ExportId).collect(), sealed: Sealed::from_layers(sealed) }
}

/// Image 1 with versions v1, v2, v3 and clone 500.
fn sample() -> State {
    let mut state = State::default();
    for change in [image(1, "os"), version(1), version(2), version(3), clone(500, "desk", &["pool=a"])] {
        state.apply(&change).unwrap();
    }
    state
}

fn desk(state: &State) -> &CloneRecord {
    state.clone_named("desk").unwrap()
}

fn pinned(state: &State) -> Vec<(u64, u32)> {
    desk(state).pins.iter().map(|pin| (pin.view.number, pin.view.version)).collect()
}

/// A view that a switch of [`switch_of`] made.
fn switched(number: u64, version: u32, top: u64) -> View {
    View { operation: Some(OperationId(9)), ..View::of(number, version, OverlayId(top)) }
}

#[test]
fn a_switch_pins_the_former_view_and_never_pins_the_same_content_twice() {
    let mut state = sample();
    state.apply(&switch(2, 10)).unwrap();
    assert_eq!((desk(&state).view.clone(), pinned(&state)), (switched(2, 2, 1010), vec![(1, 1)]));
    state.apply(&switch(1, 20)).unwrap();
    assert_eq!((desk(&state).view.clone(), pinned(&state)), (switched(3, 1, 1020), vec![(2, 2)]));
    state.apply(&switch(3, 30)).unwrap();
    assert_eq!((desk(&state).view.clone(), pinned(&state)), (switched(4, 3, 1030), vec![(3, 1), (2, 2)]));
    state.apply(&switch(2, 40)).unwrap();
    assert_eq!((desk(&state).view.clone(), pinned(&state)), (switched(5, 2, 1040), vec![(4, 3), (3, 1)]));
}

#[test]
fn a_switch_to_what_is_shown_changes_nothing() {
    let mut state = sample();
    let before = state.clone();
    state.apply(&switch(1, 10)).unwrap();
    assert_eq!(state, before);
}

#[test]
fn switch_times_grow_when_the_clock_steps_back() {
    let mut state = sample();
    let mut last = desk(&state).switched;
    for (number, secs) in [(2, 50), (1, 10), (2, 50), (1, 49), (3, 51)] {
        state.apply(&switch(number, secs)).unwrap();
        let switched = desk(&state).switched;
        assert!(switched > last, "{switched:?} after {last:?}");
        assert_eq!(desk(&state).pins[0].since, switched);
        last = switched;
    }
    assert_eq!(last, Time::new(51, 0));
}

#[test]
fn a_removed_version_is_kept_exactly_while_it_is_read() {
    let mut state = sample();
    state.apply(&switch(2, 10)).unwrap();
    for number in [1, 2, 3] {
        state.apply(&Change::RemoveVersion { image: IMAGE, number }).unwrap();
    }
    let kept = |state: &State| [1, 2, 3].map(|n| state.version(IMAGE, n).is_some());
    assert_eq!(kept(&state), [true, true, false], "v1 is pinned, v2 is shown, v3 is not read");
    assert!(state.export(ExportId(101)).is_none() && state.export(ExportId(102)).is_none());
    assert!(state.find_version(&VersionRef::newest("os")).is_err());
    assert!(state.find_version(&VersionRef::number("os", 2)).is_err());

    state.apply(&drop_pins(&[500], vec![])).unwrap();
    assert_eq!(kept(&state), [false, true, false]);
    state.apply(&Change::RemoveClone(ExportId(500))).unwrap();
    assert_eq!(kept(&state), [false; 3]);
    assert!(state.readers.is_empty());
    state.apply(&Change::RemoveImage(IMAGE)).unwrap();
}

#[test]
fn removing_a_version_drops_the_tags_that_named_it() {
    let mut state = sample();
    let mut tagged = ImageRecord::clone(state.image(IMAGE).unwrap());
    tagged.tags = [("old".to_owned(), 1), ("new".to_owned(), 3)].into();
    state.apply(&Change::PutImage(tagged)).unwrap();
    state.apply(&Change::RemoveVersion { image: IMAGE, number: 3 }).unwrap();
    let tags: Vec<_> = state.image(IMAGE).unwrap().tags.keys().cloned().collect();
    assert_eq!(tags, ["old"]);
    assert_eq!(state.image(IMAGE).unwrap().next_version, 4, "numbers are not used again");
    assert_eq!(state.find_version(&"os@old".parse().unwrap()).unwrap().number, 1);
    assert_eq!(state.find_version(&"os".parse().unwrap()).unwrap().number, 2);
}

#[test]
fn impossible_changes_are_errors() {
    let mut state = sample();
    state.apply(&Change::GrantIds { next: 5000 }).unwrap();
    let unknown = ExportId(999);
    let foreign = |id, name: &str, image, version| {
        let Change::PutClone(record) = clone(id, name, &[]) else { unreachable!() };
        Change::PutClone(CloneRecord { image: ImageId(image), view: View::of(1, version, OverlayId(9)), ..record })
    };
    for change in [
        Change::RemoveClone(unknown),
        Change::RemoveClone(ExportId(101)),
        drop_pins(&[999], vec![]),
        switch(4, 10),
        Change::RemoveVersion { image: IMAGE, number: 9 },
        Change::RemoveImage(IMAGE),
        Change::RemoveImage(ImageId(2)),
        Change::GrantIds { next: 5000 },
        image(2, "os"),
        clone(501, "desk", &[]),
        foreign(101, "on-an-export", 1, 1),
        foreign(502, "of-no-image", 2, 1),
        foreign(503, "of-no-version", 1, 4),
        snapshot(999, "of-no-clone", 1, vec![]),
        snapshot(500, "of-no-version", 4, vec![]),
        remove_snapshot(500, "unknown"),
        Change::SetLagging { clones: vec![unknown], lagging: None },
    ] {
        let error = state.clone().apply(&change).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Internal, "{change:?}");
    }
}

#[test]
fn a_change_set_applies_only_to_the_revision_before_it() {
    let mut state = sample();
    let set = ChangeSet { changes: vec![switch(2, 10)] };
    assert!(state.apply_set(Rev(2), &set).is_err());
    state.apply_set(Rev(1), &set).unwrap();
    assert_eq!(state.rev(), Rev(1));
    assert!(state.apply_set(Rev(1), &set).is_err());
}

#[test]
fn listings_are_sorted_and_selected_by_label() {
    let mut state = sample();
    for (id, name, label) in [(503, "b", "pool=b"), (501, "z", "pool=a"), (502, "a", "pool=a")] {
        state.apply(&clone(id, name, &[label])).unwrap();
    }
    let names = |clones: Vec<&Arc<CloneRecord>>| clones.iter().map(|c| c.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(state.clones().collect()), ["a", "b", "desk", "z"]);
    assert_eq!(names(state.select(&"pool=a".parse().unwrap()).collect()), ["a", "desk", "z"]);
    assert_eq!(names(state.clones_of(IMAGE).collect()), ["desk", "z", "a", "b"]);
    let shared = |name| Arc::as_ptr(&state.clone_named(name).unwrap().labels);
    assert_eq!(shared("a"), shared("z"), "equal label sets are stored once");
}

#[test]
fn a_renamed_clone_leaves_its_old_name() {
    let mut state = sample();
    state.apply(&clone(500, "renamed", &[])).unwrap();
    assert!(state.clone_named("desk").is_none());
    assert_eq!((state.clone_count(), state.readers(IMAGE, 1)), (1, 1));
}

#[test]
fn the_former_view_keeps_what_its_top_held_and_a_turn_names_both_sides() {
    let mut state = sample();
    state.apply(&switch_of(2, 10, vec![], vec![layer(500, 7)])).unwrap();
    assert_eq!(desk(&state).pins[0].sealed, Some(layer(500, 7)));
    assert_eq!(desk(&state).turns, [turn(2, vec![layer(500, 7)])]);
    // Back to version 1 without the writes: another line of content, so the pin of it stays.
    state.apply(&switch(1, 20)).unwrap();
    assert_eq!((desk(&state).turns.len(), pinned(&state)), (1, vec![(2, 2), (1, 1)]));
    // The pin was written meanwhile, and the new view has layers.
    state.apply(&switch_of(1, 30, vec![layer(500, 7)], vec![layer(500, 9)])).unwrap();
    let written = vec![Span { after: 7, upto: layer(500, 9) }];
    assert_eq!(desk(&state).turns[1], Turn { written, ..turn(4, vec![layer(500, 7)]) });
    assert_eq!(desk(&state).view.layers, [layer(500, 7)]);
    assert_eq!(desk(&state).pins[2].sealed, Some(layer(500, 9)));
    // What was named once is not named again.
    state.apply(&switch_of(3, 40, vec![], vec![layer(500, 9)])).unwrap();
    assert_eq!(desk(&state).turns[2], turn(5, vec![layer(500, 7)]));
}

fn turn(view: u64, layers: Vec<Layer>) -> Turn {
    Turn { view, all: false, layers, written: Vec::new(), except: Vec::new(), returned: Vec::new() }
}

#[test]
fn what_was_written_into_dropped_pins_is_named_by_the_next_turn() {
    let mut state = sample();
    state.apply(&switch(2, 10)).unwrap();
    state.apply(&drop_pins(&[500], vec![layer(500, 3)])).unwrap();
    assert_eq!(state.marks(OverlayId(500)), [3]);
    state.apply(&switch(1, 20)).unwrap();
    let written = vec![Span { after: 0, upto: layer(500, 3) }];
    assert_eq!(desk(&state).turns, [Turn { written, ..turn(3, Vec::new()) }]);
    assert!(desk(&state).loose.is_empty());
}

#[test]
fn marks_are_the_positions_that_anything_names() {
    let mut state = sample();
    let marks = |state: &State| state.marks(OverlayId(500));
    state.apply(&snapshot(500, "b", 1, vec![layer(500, 4)])).unwrap();
    state.apply(&snapshot(500, "a", 1, vec![layer(500, 4)])).unwrap();
    state.apply(&snapshot(500, "c", 1, vec![layer(500, 6)])).unwrap();
    assert_eq!(marks(&state), [4, 6]);
    state.apply(&remove_snapshot(500, "b")).unwrap();
    assert_eq!(marks(&state), [4, 6], "another snapshot names the same position");
    state.apply(&remove_snapshot(500, "a")).unwrap();
    assert_eq!(marks(&state), [6]);
    state.apply(&switch_of(2, 10, vec![], vec![layer(500, 8)])).unwrap();
    assert_eq!(marks(&state), [6, 8]);
    let roots = state.overlay_roots();
    assert_eq!(roots[&OverlayId(500)], OverlayRoot { open: true, marks: vec![6, 8] });
    assert_eq!(roots[&OverlayId(1010)], OverlayRoot { open: true, marks: vec![] });
    assert_eq!(state.marked_overlays(), [(OverlayId(500), vec![6, 8])].into());
    state.apply(&Change::RemoveClone(ExportId(500))).unwrap();
    assert!(state.overlay_roots().is_empty() && state.marks.is_empty() && state.snapshots.is_empty());
}

#[test]
fn a_fork_keeps_its_layers_when_its_source_goes() {
    let mut state = sample();
    let Change::PutClone(mut fork) = clone(501, "fork", &[]) else { unreachable!() };
    fork.view.layers = vec![layer(500, 4)];
    state.apply(&Change::PutClone(fork)).unwrap();
    state.apply(&Change::RemoveClone(ExportId(500))).unwrap();
    assert_eq!(state.overlay_roots()[&OverlayId(500)], OverlayRoot { open: false, marks: vec![4] });
}

#[test]
fn snapshots_are_found_by_clone_and_name_and_read_their_version() {
    let mut state = sample();
    state.apply(&clone(501, "other", &[])).unwrap();
    for name in ["nightly", "first", "a"] {
        state.apply(&snapshot(500, name, 2, vec![])).unwrap();
    }
    state.apply(&snapshot(501, "nightly", 3, vec![])).unwrap();
    let names: Vec<_> = state.snapshots_of(ExportId(500)).map(|s| s.name.to_string()).collect();
    assert_eq!(names, ["a", "first", "nightly"]);
    assert_eq!((state.snapshot_count(), state.readers(IMAGE, 2), state.readers(IMAGE, 3)), (4, 3, 1));
    assert_eq!(state.find_snapshot(state.clone_named("other").unwrap(), "nightly").unwrap().version, 3);
    assert!(state.find_snapshot(desk(&state), "gone").unwrap_err().what().contains("\"gone\""));
    state.apply(&Change::RemoveVersion { image: IMAGE, number: 2 }).unwrap();
    for name in ["a", "nightly"] {
        state.apply(&remove_snapshot(500, name)).unwrap();
        assert!(state.version(IMAGE, 2).is_some());
    }
    state.apply(&remove_snapshot(500, "first")).unwrap();
    assert!(state.version(IMAGE, 2).is_none(), "nobody reads it any more");
}

#[test]
fn policies_are_stored_once_and_lagging_ends_with_the_switch_that_was_meant() {
    let mut state = sample();
    state.apply(&clone(501, "other", &[])).unwrap();
    let export = ExportOverrides { read_only: Some(true), ..Default::default() };
    for id in [500, 501] {
        let change = Change::SetPolicy { clones: vec![ExportId(id)], export: Arc::new(export.clone()), quota: Some(5) };
        state.apply(&change).unwrap();
    }
    let other = state.clone_named("other").unwrap();
    assert!(Arc::ptr_eq(&desk(&state).export, &other.export) && other.quota == Some(5));
    let lagging = Lagging { version: 3, since: Time::new(9, 0), operation: OperationId(8) };
    state.apply(&Change::SetLagging { clones: vec![ExportId(500)], lagging: Some(lagging) }).unwrap();
    state.apply(&switch(2, 10)).unwrap();
    assert_eq!(desk(&state).lagging, Some(lagging));
    state.apply(&switch(3, 20)).unwrap();
    assert_eq!(desk(&state).lagging, None);
}

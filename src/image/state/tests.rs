//! Goal: the rules of the view switch, of removal and of names, as pure functions of state and change.

use super::*;
use crate::chunk::ChunkId;
use crate::env::Time;
use crate::image::change::{Change, ChangeSet};
use crate::image::record::{OperationId, View};

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
        view: View::of(1, 1),
        pins: Vec::new(),
        switched: Time::new(5, 0),
    })
}

fn switch(number: u32, secs: i64) -> Change {
    Change::Switch { clones: vec![ExportId(500)], number, at: Time::new(secs, 0), operation: OperationId(9) }
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

#[test]
fn a_switch_pins_the_former_view_and_never_pins_the_same_content_twice() {
    let mut state = sample();
    state.apply(&switch(2, 10)).unwrap();
    assert_eq!((desk(&state).view.clone(), pinned(&state)), (View::of(2, 2), vec![(1, 1)]));
    state.apply(&switch(1, 20)).unwrap();
    assert_eq!((desk(&state).view.clone(), pinned(&state)), (View::of(3, 1), vec![(2, 2)]));
    state.apply(&switch(3, 30)).unwrap();
    assert_eq!((desk(&state).view.clone(), pinned(&state)), (View::of(4, 3), vec![(3, 1), (2, 2)]));
    state.apply(&switch(2, 40)).unwrap();
    assert_eq!((desk(&state).view.clone(), pinned(&state)), (View::of(5, 2), vec![(4, 3), (3, 1)]));
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

    state.apply(&Change::DropPins { clones: vec![ExportId(500)] }).unwrap();
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
        Change::PutClone(CloneRecord { image: ImageId(image), view: View::of(1, version), ..record })
    };
    for change in [
        Change::RemoveClone(unknown),
        Change::RemoveClone(ExportId(101)),
        Change::DropPins { clones: vec![unknown] },
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

use super::*;

const CLONE: ExportId = ExportId(7);
const OTHER: ExportId = ExportId(8);
const SECOND: Duration = Duration::from_secs(1);
/// When the table begins.
const START: Duration = Duration::from_secs(1000);

fn client(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

/// A connection of client `n` that used a clone at this moment.
fn used(activity: &Arc<Activity>, n: u8, clone: ExportId, at: Duration) -> Arc<Footprint> {
    let connection = activity.connect(client(n));
    connection.tick(at);
    connection.note(clone, Use::Request);
    connection
}

#[test]
fn a_clone_is_quiet_when_nobody_has_used_it_for_long_and_nobody_is_connected() {
    let activity = Activity::new(START);
    assert!(!activity.is_quiet(CLONE, client(1), START + 89 * SECOND), "what was before the start is not known");
    assert!(activity.is_quiet(CLONE, client(1), START + QUIET));
    let at = START + 200 * SECOND;
    let connection = used(&activity, 1, CLONE, at);
    assert!(!activity.is_quiet(CLONE, client(1), at + 1000 * SECOND), "there is a connection");
    assert!(activity.is_quiet(OTHER, client(1), at));
    assert_eq!(
        activity.users(CLONE, at + 1000 * SECOND, 9),
        [Seen { client: client(1), last: Some(at), connected: true }]
    );
    drop(connection);
    assert!(!activity.is_quiet(CLONE, client(1), at + 90 * SECOND), "it may have used it up to a second later");
    assert!(activity.is_quiet(CLONE, client(1), at + 91 * SECOND));
    assert_eq!(activity.users(CLONE, at + AWAY + SECOND, 9), []);
}

#[test]
fn another_machine_that_is_silent_has_the_clone_mounted_until_it_unmounts_or_for_an_hour() {
    let activity = Activity::new(START);
    let at = START + 200 * SECOND;
    let quiet = |by, after| activity.is_quiet(CLONE, client(by), at + after);
    drop(used(&activity, 1, CLONE, at));
    assert!(!quiet(2, 91 * SECOND) && !quiet(2, AWAY), "client 1 may have closed an idle connection");
    assert!(quiet(1, 91 * SECOND), "its own mount tells that it was started again");
    assert!(quiet(2, AWAY + SECOND));
    assert_eq!(activity.users(CLONE, at + AWAY, 9).len(), 1);
    activity.unmounted(CLONE, client(1), 1, at + 60 * SECOND);
    assert!(!quiet(2, 90 * SECOND) && quiet(2, 91 * SECOND));
    drop(used(&activity, 1, CLONE, at + 100 * SECOND));
    activity.mounted(CLONE, client(1), 1, at + 300 * SECOND);
    assert!(!quiet(2, 400 * SECOND), "it has mounted again");
}

#[test]
fn a_mount_alone_is_no_use() {
    let activity = Activity::new(START);
    activity.mounted(CLONE, client(1), 1, START + 200 * SECOND);
    assert!(activity.is_quiet(CLONE, client(1), START + 200 * SECOND));
}

#[test]
fn uses_are_noted_once_a_second_and_kind() {
    let activity = Activity::new(START);
    let at = START + 100 * SECOND;
    let connection = used(&activity, 1, CLONE, at);
    let readers = |since| activity.readers_since(&[(CLONE, 2), (OTHER, 2)], since);
    assert_eq!(readers(START), 0, "it has not read");
    connection.note(CLONE, Use::Read(2));
    assert_eq!((readers(at), readers(at + SECOND / 1000)), (1, 0));
    connection.tick(at + SECOND / 2);
    connection.note(CLONE, Use::Read(2));
    assert_eq!(readers(at + SECOND / 1000), 0, "in the same second");
    connection.tick(at + SECOND);
    connection.note(CLONE, Use::Read(2));
    assert_eq!(readers(at + SECOND), 1);
    let second = activity.connect(client(1));
    second.tick(at + SECOND);
    second.note(CLONE, Use::Read(2));
    assert_eq!(readers(at), 1, "one client, two connections");
    second.note(OTHER, Use::Read(2));
    let third = used(&activity, 3, CLONE, at + SECOND);
    third.note(CLONE, Use::Read(2));
    assert_eq!(readers(at), 3);
}

/// Who reads on in a former view has not seen the new one.
#[test]
fn readers_count_from_the_view_that_is_asked_for() {
    let activity = Activity::new(START);
    let readers = |view| activity.readers_since(&[(CLONE, view)], START);
    let connection = used(&activity, 1, CLONE, START);
    connection.note(CLONE, Use::Read(1));
    assert_eq!((readers(1), readers(2)), (1, 0));
    connection.note(CLONE, Use::Read(2));
    assert_eq!((readers(2), readers(3)), (1, 0), "in the same second");
    connection.tick(START + SECOND);
    connection.note(CLONE, Use::Read(1));
    assert_eq!((readers(2), readers(3)), (1, 0), "it has both open");
}

#[test]
fn many_clones_on_one_connection_are_all_noted() {
    let activity = Activity::new(START);
    let connection = activity.connect(client(1));
    connection.tick(START);
    let clones: Vec<_> = (0..1000).map(ExportId).collect();
    clones.iter().for_each(|clone| connection.note(*clone, Use::Read(2)));
    assert_eq!(activity.readers_since(&clones.iter().map(|clone| (*clone, 2)).collect::<Vec<_>>(), START), 1000);
    drop(connection);
    let later = START + 91 * SECOND;
    assert!(clones.iter().all(|clone| activity.is_quiet(*clone, client(1), later)));
}

#[test]
fn a_view_is_left_when_all_its_clients_have_mounted_anew() {
    let activity = Activity::new(START);
    let at = START + 10 * SECOND;
    let left = |view| activity.left_since(CLONE, view);
    assert_eq!(left(1), Some(Duration::ZERO), "nobody used it");
    let (one, two) = (used(&activity, 1, CLONE, at), used(&activity, 2, CLONE, at));
    assert_eq!(left(1), None);
    // The clone shows view 2 from now on. A machine that mounts is one that was started again.
    drop(one);
    activity.mounted(CLONE, client(1), 2, at + 10 * SECOND);
    assert_eq!(left(1), None, "the other one has not");
    drop(two);
    activity.mounted(CLONE, client(2), 1, at + 5 * SECOND);
    assert_eq!(left(1), None, "that was before the switch");
    activity.mounted(CLONE, client(2), 2, at + 20 * SECOND);
    let again = used(&activity, 2, CLONE, at + 21 * SECOND);
    assert_eq!(left(1), Some(at + 20 * SECOND));
    assert_eq!(left(2), None, "they use view 2");
    assert_eq!(activity.holders(CLONE, 2, 9).len(), 2);
    assert_eq!(activity.holders(CLONE, 1, 9), []);
    // It resolves an old handle all the same.
    again.tick(at + 30 * SECOND);
    again.note(CLONE, Use::View(1));
    assert_eq!(left(1), None);
    assert_eq!(activity.last_resolved(CLONE, 1), Some(at + 31 * SECOND));
    assert_eq!(activity.last_resolved(CLONE, 2), None);
}

#[test]
fn a_mount_beside_a_connection_from_before_is_a_second_one() {
    let activity = Activity::new(START);
    let connection = used(&activity, 1, CLONE, START);
    activity.mounted(CLONE, client(1), 2, START + 10 * SECOND);
    assert_eq!(activity.left_since(CLONE, 1), None);
    drop(connection);
    assert_eq!(activity.left_since(CLONE, 1), Some(START + 10 * SECOND));
}

#[test]
fn who_unmounts_has_no_handles_unless_he_goes_on() {
    let activity = Activity::new(START);
    let connection = used(&activity, 1, CLONE, START);
    drop(connection);
    activity.unmounted(CLONE, client(1), 1, START + 10 * SECOND);
    activity.unmounted(CLONE, client(9), 1, START + 10 * SECOND);
    assert_eq!(activity.left_since(CLONE, 1), Some(START + 10 * SECOND), "of the view that it had, too");
    drop(used(&activity, 1, CLONE, START + 20 * SECOND));
    assert_eq!(activity.left_since(CLONE, 1), None, "there is another mount");
}

#[test]
fn more_clients_of_a_view_than_are_listed_have_not_left() {
    let activity = Activity::new(START);
    let many = u8::try_from(MAX_VIEW_CLIENTS + 1).unwrap();
    for n in 0..many {
        used(&activity, n, CLONE, START).note(CLONE, Use::View(1));
        activity.unmounted(CLONE, client(n), 2, START + 10 * SECOND);
        assert_eq!(activity.left_since(CLONE, 1).is_some(), n + 1 < many, "{n}");
    }
}

#[test]
fn a_full_table_forgets_the_idle_and_says_so() {
    let activity = Activity::with_room(START, 4, 4);
    let connected = used(&activity, 1, CLONE, START);
    drop(used(&activity, 2, CLONE, START));
    let later = START + 200 * SECOND;
    assert!(activity.is_quiet(OTHER, client(1), later));
    // Three entries are there; the next client needs two.
    let more = used(&activity, 3, CLONE, later);
    assert_eq!(activity.complete_since(), later, "client 2 was forgotten");
    assert_eq!((activity.why_incomplete(later), activity.why_incomplete(START).is_some()), (None, true));
    assert!(!activity.is_quiet(OTHER, client(1), later) && activity.is_quiet(OTHER, client(1), later + QUIET));
    assert_eq!(activity.users(CLONE, later, 9).len(), 2);
    // Nobody can be forgotten now.
    let unlisted = used(&activity, 4, CLONE, later + 100 * SECOND);
    assert!(!activity.is_quiet(OTHER, client(1), later + 1000 * SECOND), "as long as it is connected");
    drop(unlisted);
    assert_eq!(activity.complete_since(), later + 100 * SECOND);
    drop((connected, more));
    activity.keep_only(&|_, _| false);
    assert_eq!(activity.room.count(), (0, 0), "all that was counted is counted back");
    drop(used(&activity, 5, CLONE, later + 2000 * SECOND));
    assert_eq!(activity.complete_since(), later + 100 * SECOND);
}

/// A machine that uses everything, from many connections, fills its share and no more.
#[test]
fn one_machine_does_not_take_the_room_of_the_others() {
    let activity = Activity::with_room(START, 40, 6);
    let readers = |clone| activity.readers_since(&[(clone, 1)], START);
    let greedy: Vec<_> = (0..40).map(|n| used(&activity, 1, ExportId(n), START)).collect();
    assert_eq!(activity.room.count(), (6, 1));
    assert_eq!(activity.why_incomplete(START), Some("more clones are used by more clients than can be listed"));
    let polite = used(&activity, 2, CLONE, START);
    [CLONE, OTHER, ExportId(1)].iter().for_each(|clone| polite.note(*clone, Use::Read(1)));
    assert_eq!((readers(CLONE), readers(OTHER), readers(ExportId(1))), (1, 1, 1));
    drop((greedy, polite));
    // What it does not use any more makes room for what it does; the other's stays.
    let again = used(&activity, 1, ExportId(SHARDS as u64), START + 200 * SECOND);
    let same_shard = ExportId(SHARDS as u64 + 1);
    again.note(same_shard, Use::Read(1));
    assert_eq!((readers(same_shard), readers(ExportId(1))), (1, 1));
    drop(again);
    activity.keep_only(&|_, _| false);
    assert_eq!(activity.room.count(), (0, 0));
}

#[test]
fn the_addresses_of_one_machine_share() {
    let activity = Activity::with_room(START, 40, 3);
    let note = |address: &str| {
        let connection = activity.connect(address.parse().unwrap());
        connection.tick(START);
        connection.note(CLONE, Use::Read(1));
        connection
    };
    let _open = ["fd00::1:1", "fd00::1:2", "fd00:0:0:1::1", "::ffff:10.0.0.9", "10.0.0.9"].map(note);
    let mut listed: Vec<_> = activity.clients(CLONE, 1, 9).iter().map(ToString::to_string).collect();
    listed.sort();
    assert_eq!(listed, ["10.0.0.9", "fd00:0:0:1::1", "fd00::1:1", "fd00::1:2"]);
    assert_eq!(activity.room.count(), (3 + 2 + 3, 3), "of fd00::/64 the second connection has no room any more");
}

#[test]
fn what_is_gone_is_forgotten() {
    let activity = Activity::new(START);
    let connection = used(&activity, 1, CLONE, START);
    drop(used(&activity, 2, CLONE, START));
    connection.note(CLONE, Use::View(3));
    connection.note(CLONE, Use::View(4));
    activity.keep_only(&|clone, view| clone == CLONE && view != Some(3));
    assert_eq!(activity.last_resolved(CLONE, 3), None);
    assert!(activity.last_resolved(CLONE, 4).is_some());
    assert_eq!(activity.holders(CLONE, 9, 9).len(), 2);
    activity.keep_only(&|_, _| false);
    assert_eq!(activity.holders(CLONE, 9, 9).len(), 1, "the connected one stays until it closes");
    drop(connection);
    activity.keep_only(&|_, _| false);
    assert_eq!(activity.room.count(), (0, 0));
}

//! Switches that wait for a mount, and what the server knows of who uses a clone.

use std::net::IpAddr;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use mimeo::audit::Filter;
use mimeo::image::{
    Activation, Change, CloneTarget, Draft, ExportId, OperationId, Staged, SwitchPolicy, VersionRef, ViewUses, Writes,
};

use crate::client::{Client, MOUNT, Xdr};
use crate::ops::{FILE_SYNC, Fh};
use crate::real::{HELLO_TEXT, World, next_image};

const UMNT: u32 = 3;
const UMNTALL: u32 = 4;
const NEXT_TEXT: &[u8] = b"version two\n";
/// After so long without a use a clone counts as unused.
const QUIET: Duration = Duration::from_secs(91);

/// A clone `desk` of version 1, for which a switch to version 2 waits, and a server that has run for long.
fn staged() -> World {
    let world = World::new();
    world.publish(next_image);
    stage(&world, 2);
    world.machine.clock.advance(QUIET);
    world
}

fn stage(world: &World, version: u32) {
    let policy = SwitchPolicy { activation: Some(Activation::OnMount), ..Writes::Discard.into() };
    let stage = move |draft: &mut Draft| {
        let (operation, since) = (OperationId(draft.new_id()?), draft.now());
        let staged = Staged { version, policy: policy.clone(), operation, since, at: None };
        let clones = vec![draft.find_clone("desk")?.id];
        draft.apply(Change::Stage { clones, staged: Some(Arc::new(staged)) })
    };
    world.block_on(world.catalog().transact("stage", stage)).unwrap();
}

/// The number of the view that the clone shows.
fn view(world: &World) -> u64 {
    world.clone_record("desk").view.number
}

fn desk(world: &World) -> ExportId {
    world.clone_record("desk").id
}

fn hello(client: &mut Client, root: &Fh) -> Vec<u8> {
    let hello = client.find(root, "hello");
    client.read_all(&hello)
}

fn mount(world: &World) -> Fh {
    world.client().mount("/clones/desk").unwrap()
}

/// Who is connected: long after the last request nobody else counts.
fn connected(world: &World) -> Vec<IpAddr> {
    let far = Duration::from_secs(u64::from(u32::MAX));
    world.activity().users(desk(world), far, 9).iter().map(|seen| seen.client).collect()
}

/// Close the only connection that uses the clone, and wait until the server has seen it.
fn close(world: &World, client: Client) {
    assert_eq!(connected(world), [IpAddr::from([127, 0, 0, 1])]);
    drop(client);
    for _ in 0..10_000_000 {
        if connected(world).is_empty() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("the server does not see that the connection is closed");
}

#[test]
fn a_mount_of_an_unused_clone_makes_the_switch_before_it_is_answered() {
    let world = staged();
    let (mut client, root) = world.desk();
    let clone = world.clone_record("desk");
    assert_eq!((clone.view.number, clone.view.version, &clone.staged), (2, 2, &None));
    assert_eq!(hello(&mut client, &root), NEXT_TEXT);
    let entries = world.block_on(world.fleet().audit().entries(Filter::default())).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].action.as_str(), entries[0].from.as_str()), ("activate", "mount by 127.0.0.1"));
    assert_eq!((entries[0].outcome.as_str(), entries[0].operation.is_some()), ("done", true));
    assert_eq!((&entries[0].before["view"], &entries[0].after["version"]), (&1.into(), &2.into()));
}

#[test]
fn a_machine_that_runs_is_not_switched_by_another_mount() {
    let world = staged();
    world.block_on(world.fleet().unstage(CloneTarget::Names(vec!["desk".into()]))).unwrap();
    let (mut machine, root) = world.desk();
    assert_eq!(hello(&mut machine, &root), HELLO_TEXT);
    stage(&world, 2);
    // However long it is silent: it is connected.
    world.machine.clock.advance(100 * QUIET);
    for _ in 0..3 {
        mount(&world);
        assert_eq!(view(&world), 1);
    }
    // Its own mount that is sent again.
    assert_eq!(machine.mount("/clones/desk").unwrap(), root);
    assert_eq!((view(&world), hello(&mut machine, &root)), (1, HELLO_TEXT.to_vec()));
    // It lost its connection, and may come back.
    close(&world, machine);
    mount(&world);
    world.machine.clock.advance(QUIET - Duration::from_secs(1));
    mount(&world);
    assert_eq!(view(&world), 1);
    world.machine.clock.advance(Duration::from_secs(1));
    mount(&world);
    assert_eq!(view(&world), 2);
}

#[test]
fn mounts_at_one_time_make_one_switch_and_all_see_it() {
    let world = Arc::new(staged());
    let start = Arc::new(Barrier::new(8));
    let mounts = (0..8).map(|_| {
        let (world, start) = (world.clone(), start.clone());
        std::thread::spawn(move || {
            start.wait();
            let (mut client, root) = world.desk();
            hello(&mut client, &root)
        })
    });
    for mount in mounts.collect::<Vec<_>>() {
        assert_eq!(mount.join().unwrap(), NEXT_TEXT);
    }
    assert_eq!((view(&world), world.clone_record("desk").pins.len()), (2, 1));
}

#[test]
fn nobody_is_switched_soon_after_a_start() {
    let mut world = staged();
    world.crash();
    let (mut machine, root) = world.desk();
    assert_eq!(view(&world), 1, "who used it before the start is not known");
    assert_eq!(hello(&mut machine, &root), HELLO_TEXT);
    world.crash();
    assert!(world.clone_record("desk").staged.is_some(), "it goes on waiting");
    world.machine.clock.advance(QUIET);
    mount(&world);
    assert_eq!(view(&world), 2);
    world.crash();
    assert_eq!((view(&world), &world.clone_record("desk").staged), (2, &None));
}

#[test]
fn a_switch_that_fails_goes_on_waiting_and_the_mount_is_answered() {
    let world = staged();
    world.block_on(world.catalog().remove_version(VersionRef::number("base", 2))).unwrap();
    let (mut client, root) = world.desk();
    assert_eq!(hello(&mut client, &root), HELLO_TEXT);
    assert!(world.clone_record("desk").staged.is_some() && view(&world) == 1);
    let entries = world.block_on(world.fleet().audit().entries(Filter::default())).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.outcome.as_str()).collect::<Vec<_>>(), ["failed"]);
    assert!(entries[0].error.as_ref().unwrap().contains("base@v2"), "{entries:?}");
}

#[test]
fn a_switch_that_failed_is_not_tried_at_each_mount() {
    let world = staged();
    world.block_on(world.catalog().remove_version(VersionRef::number("base", 2))).unwrap();
    let tries = || world.block_on(world.fleet().audit().entries(Filter::default())).unwrap().len();
    for _ in 0..5 {
        mount(&world);
    }
    assert_eq!(tries(), 1);
    world.machine.clock.advance(Duration::from_secs(59));
    mount(&world);
    assert_eq!(tries(), 1);
    world.machine.clock.advance(Duration::from_secs(1));
    mount(&world);
    assert_eq!(tries(), 2);
    // Another one is tried at once.
    stage(&world, 1);
    mount(&world);
    assert_eq!((tries(), &world.clone_record("desk").staged), (3, &None));
}

#[test]
fn a_machine_that_is_idle_and_unconnected_is_not_switched_by_another_one() {
    let world = staged();
    world.block_on(world.fleet().unstage(CloneTarget::Names(vec!["desk".into()]))).unwrap();
    let (mut machine, root) = world.desk();
    hello(&mut machine, &root);
    close(&world, machine);
    stage(&world, 2);
    // Linux closes an idle connection after five minutes.
    world.machine.clock.advance(6 * QUIET);
    let other = || world.client_from("127.0.0.2:0".parse().unwrap()).mount("/clones/desk").unwrap();
    other();
    assert_eq!(view(&world), 1);
    world.client().run(MOUNT, UMNT, Xdr::new().opaque(b"/clones/desk"));
    other();
    assert_eq!(view(&world), 2, "it has unmounted");
}

#[test]
fn who_may_not_mount_switches_nothing() {
    let mut world = staged();
    world.policy.networks.clear();
    world.crash();
    world.machine.clock.advance(QUIET);
    assert!(world.client().mount("/clones/desk").is_err());
    assert_eq!(view(&world), 1);
}

#[test]
fn a_switch_that_waits_for_its_time_is_not_made_by_a_mount() {
    let world = staged();
    world.edit_clone("desk", |clone| {
        let staged = Staged::clone(clone.staged.as_ref().unwrap());
        clone.staged = Some(Arc::new(Staged { at: Some(mimeo::env::Time::new(4_000_000_000, 0)), ..staged }));
    });
    mount(&world);
    assert_eq!(view(&world), 1);
}

#[test]
fn a_former_view_is_used_until_its_clients_have_left() {
    let world = World::new();
    let (mut client, root) = world.desk();
    let hello = client.find(&root, "hello");
    client.write(&hello, 0, b"HELLO", FILE_SYNC).unwrap();
    world.discard(1);
    let (activity, desk) = (world.activity().clone(), desk(&world));
    assert_eq!(activity.last_resolved(desk, 1), None);
    assert_eq!(activity.left_since(desk, 1), None, "it may hold handles");
    client.read_all(&hello);
    assert!(activity.last_resolved(desk, 1).is_some());
    close(&world, client);
    world.machine.clock.advance(QUIET);
    assert_eq!(activity.left_since(desk, 1), None, "it may come back");
    world.client().run(MOUNT, UMNT, Xdr::new().opaque(b"/clones/desk"));
    let now = Duration::from_secs(u64::from(crate::real::NOW)) + QUIET;
    assert_eq!(activity.left_since(desk, 1), Some(now));
    assert_eq!(activity.holders(desk, 1, 9), []);
}

#[test]
fn umntall_leaves_all_that_was_mounted() {
    let world = World::new();
    let (mut client, root) = world.desk();
    client.find(&root, "hello");
    close(&world, client);
    world.machine.clock.advance(QUIET);
    let left = || world.activity().left_since(desk(&world), 1);
    assert_eq!(left(), None);
    world.client().run(MOUNT, UMNTALL, Xdr::new());
    assert!(left().is_some());
}

//! Goal: whatever call of the disk or of the index fails, nothing panics or hangs, nothing that was acknowledged
//! is lost, and who is refused is told why and what to do.
//! Method: the scenario is run once for each call that changes the disk or the index, with that call failing. It
//! goes on where that is possible; then the process dies, or the power goes.

use std::time::Duration;

use bytes::Bytes;

use super::model::Change;
use super::scenario::{Plan, Play};
use super::world::{FILES, ViewId, World};
use crate::env::Fault;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Ino;
use crate::meta::Durability;
use crate::overlay::log::Health;

/// Longest that one run may take.
const LIMIT: Duration = Duration::from_secs(60);
/// What is said of changes once the index has failed.
const REFUSED: &str = "private writes are refused since an earlier failure: ";

/// Why a run ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// At the end of the script, perhaps with the last step failed.
    Closed,
    Poisoned(String),
    IndexFailed,
    NotOpened,
}

/// Run the scenario with one call that fails in it. A step that fails is tried again if anything is taken.
async fn live(play: &mut Play<'_>, what: &str) -> End {
    let hangs = |_| panic!("{what}: it hangs");
    let Err(first) = tokio::time::timeout(LIMIT, play.run()).await.unwrap_or_else(hangs) else { return End::Closed };
    let Some(store) = play.world.try_store() else {
        return if play.has_begun() { End::Closed } else { End::NotOpened };
    };
    if let Health::Poisoned(why) = store.log.health() {
        return End::Poisoned(why);
    }
    if play.world.kv.is_poisoned() {
        return End::IndexFailed;
    }
    match tokio::time::timeout(LIMIT, play.go_on()).await.unwrap_or_else(hangs) {
        Err(second) if second.to_string().contains(REFUSED) => End::IndexFailed,
        Err(second) => panic!("{what}: {:?} fails twice: {first}, then {second}", play.step()),
        Ok(()) => End::Closed,
    }
}

/// What is told and what still works after such an end.
async fn check_end(play: &mut Play<'_>, end: &End, what: &str) {
    match end {
        End::Closed | End::NotOpened => {}
        End::Poisoned(why) => {
            play.check_now(what).await;
            let names_the_log = why.contains("segment") || why.contains("/log");
            assert!(names_the_log, "{what}: which object? {why}");
            let refused = refusal(play).await.expect_err(what);
            // Nothing may be left to sync.
            for refused in [Some(refused), play.sync().await.err()].into_iter().flatten() {
                assert_eq!(refused.kind(), ErrorKind::ReadOnly, "{what}: {refused}");
                let told = format!("the log takes no writes: {why}; check the disk, then restart mimeo");
                assert!(refused.to_string().contains(&told), "{what}: {refused}");
            }
        }
        End::IndexFailed => {
            play.check_now(what).await;
            play.sync().await.unwrap_or_else(|error| panic!("{what}: the log is good: {error}"));
            let error = play.world.store().flush(Durability::Synced).await.expect_err(what);
            assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::ReadOnly), "{what}: {error}");
        }
    }
}

/// One more change: what it is answered.
async fn refusal(play: &Play<'_>) -> Result<()> {
    let view = play.world.views().into_iter().find(|view| play.world.is_open(*view)).unwrap();
    play.world.try_change(view, &Change::Create { name: "refused".into(), ino: Ino(6000) }, None).await
}

/// The process dies, or the power goes with more or less of the index.
async fn check_ends(play: &Play<'_>, what: &str) {
    let killed = play.world.fork_world(1);
    killed.kv.crash_keeping(usize::MAX);
    play.check_recovery(killed, &format!("{what}, then the process dies")).await;
    for kept in [0, usize::MAX] {
        let cut = play.world.fork_world(2);
        cut.disk.crash();
        cut.kv.crash_keeping(kept);
        play.check_recovery(cut, &format!("{what}, then the power goes, {kept} batches are kept")).await;
    }
}

#[tokio::test]
async fn any_failing_call_loses_nothing_acknowledged_and_is_told() {
    let plan = Plan::new().await;
    let calls = plan.count(|world| world.disk.count_mutations()).await;
    for point in 0..calls {
        for fault in [Fault::Io, Fault::NoSpace] {
            let mut play = Play::new(&plan, point);
            play.world.disk.fail_after(point, fault);
            let what = format!("call {point} of {calls} fails with {fault:?}");
            let end = live(&mut play, &what).await;
            check_end(&mut play, &end, &what).await;
            check_ends(&play, &what).await;
        }
    }
}

#[tokio::test]
async fn any_failing_read_of_the_index_loses_nothing_acknowledged() {
    let plan = Plan::new().await;
    let reads = plan.count(|world| world.kv.count_reads()).await;
    for point in 0..reads {
        let mut play = Play::new(&plan, point);
        play.world.kv.fail_read_after(point);
        let what = format!("read {point} of {reads} fails");
        let end = live(&mut play, &what).await;
        check_end(&mut play, &end, &what).await;
        check_ends(&play, &what).await;
    }
}

/// A flush reads the buckets that it replaces: if that fails, it fails in the middle, and the index takes further
/// writes. The next one must not say that everything is in the index.
#[tokio::test]
async fn a_flush_after_one_that_failed_loses_nothing() {
    let mut world = World::new(1).await;
    let (view, ino) = (world.new_view(), FILES[2].1);
    world.write(view, ino, 0, b"first").await;
    world.flush().await;
    world.write(view, ino, 0, b"second").await;
    world.sync().await;
    world.kv.fail_read_after(0);
    world.store().flush(Durability::Buffered).await.unwrap_err();
    // As at the end of the daemon; whether it is refused or made good is one.
    let _ = world.store().flush(Durability::Synced).await;
    let seen = world.seen(view).await;
    world.restart(usize::MAX).await;
    assert_eq!(world.seen(view).await, seen, "what was synced is there after the restart");
}

#[tokio::test]
async fn a_failed_write_of_the_index_refuses_changes_until_the_restart_and_keeps_reading() {
    let mut world = World::new(1).await;
    let (view, ino) = (world.new_view(), FILES[2].1);
    world.write(view, ino, 0, b"before").await;
    world.sync().await;
    world.kv.fail_writes_after(0);
    let refused = tokio::time::timeout(LIMIT, until_refused(&world, view)).await.expect("the worker flushes");
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    let told = refused.to_string();
    assert!(told.contains(&format!("{REFUSED}write to the in-memory store failed")), "{told}");
    assert!(told.ends_with("check the disk, then restart mimeo"), "{told}");
    let seen = world.seen(view).await;
    assert!(seen.files["c"].starts_with(b"before"));
    world.sync().await;
    world.restart(1).await;
    assert_eq!(world.seen(view).await, seen, "the log has what the index did not take");
    world.write(view, ino, 0, b"after").await;
}

/// Until the worker has met the failure and told it.
async fn until_refused(world: &World, view: ViewId) -> Error {
    while !world.kv.is_poisoned() {
        tokio::task::yield_now().await;
    }
    next_refusal(world, view).await
}

async fn next_refusal(world: &World, view: ViewId) -> Error {
    loop {
        let change = Change::Write { ino: FILES[2].1, offset: 100, data: Bytes::from_static(b"more") };
        match world.try_change(view, &change, None).await {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_goes_on_when_there_is_room() {
    let mut world = World::new(1).await;
    let (view, ino) = (world.new_view(), FILES[2].1);
    world.write(view, ino, 0, b"before").await;
    world.sync().await;
    world.disk.set_capacity(0);
    world.write(view, ino, 1000, b"taken, and not written").await;
    let synced = world.store().sync();
    let refused = tokio::time::timeout(LIMIT, next_refusal(&world, view)).await.expect("the disk is full");
    assert_eq!(refused.kind(), ErrorKind::NoSpace);
    let told = refused.to_string();
    assert!(told.starts_with("the log waits for space: segment 00000001: write: "), "{told}");
    assert!(told.ends_with("; free space on its disk; it goes on by itself"), "{told}");
    assert!(matches!(world.store().log.health(), Health::Full(why) if told.contains(&why)));
    let seen = world.seen(view).await;
    assert!(seen.files["c"][1000..].starts_with(b"taken"));
    world.disk.set_capacity(1 << 40);
    tokio::time::timeout(LIMIT, synced).await.expect("there is room").unwrap();
    world.sync().await;
    world.restart(0).await;
    assert_eq!(world.seen(view).await, seen);
    world.write(view, ino, 0, b"after").await;
}

//! Goal: a power cut at any moment loses nothing that was acknowledged, mixes nothing, and leaves an index
//! in order.
//! Method: the scenario is run once to count the calls that change the disk and the batches of the index, which
//! are one sequence; then again for each of these, with the power cut there. Each such moment ends in
//! several ways: how much of what was not synced survives in the log, how many batches in the index.

use std::collections::BTreeSet;

use super::scenario::{Plan, Play};
use super::world::World;
use crate::error::Result;
use crate::meta::Durability;

/// None, some and all of `len`.
fn parts(len: usize) -> BTreeSet<usize> {
    [0, len / 2, len.saturating_sub(1), len].into()
}

/// The power is cut now, in each way.
async fn end(play: &Play<'_>, what: &str) {
    let (unsynced, pending) = (play.world.disk.count_unsynced(), play.world.kv.count_pending());
    for (number, (survive, kept)) in ways(unsynced, pending).into_iter().enumerate() {
        let world = play.world.fork_world(number as u64);
        // Only the last file has bytes that were not synced.
        world.disk.crash_keeping(|len| survive.min(len));
        world.kv.crash_keeping(kept);
        let way = format!("{what}, {survive} of {unsynced} bytes and {kept} of {pending} batches survive");
        play.check_recovery(world, &way).await;
    }
}

/// Each part of the one with some part of the other, and all and nothing of both with each other.
fn ways(unsynced: usize, pending: usize) -> BTreeSet<(usize, usize)> {
    let (unsynced, pending) = (parts(unsynced), parts(pending));
    let mut ways = BTreeSet::new();
    for (at, survive) in unsynced.iter().enumerate() {
        ways.extend(pending.iter().nth(at % pending.len()).map(|kept| (*survive, *kept)));
    }
    for (at, kept) in pending.iter().enumerate() {
        ways.extend(unsynced.iter().rev().nth(at % unsynced.len()).map(|survive| (*survive, *kept)));
    }
    ways
}

#[tokio::test]
async fn a_power_cut_at_any_call_loses_nothing_acknowledged() {
    let plan = Plan::new().await;
    let calls = plan.count(|world| world.disk.count_mutations()).await;
    assert!(calls > 100, "{calls} calls are not much of a history");
    for point in 0..=calls {
        let mut play = Play::new(&plan, 1);
        play.world.disk.halt_after(point);
        let failed = play.run().await.err();
        let what = format!("power cut after call {point} of {calls}, in {:?}", play.step());
        assert_eq!(failed.is_none(), play.step().is_none(), "{what}: {failed:?}");
        end(&play, &what).await;
    }
}

/// The start after the power cut is cut too, at each of its calls.
#[tokio::test]
async fn a_power_cut_during_a_start_loses_nothing_acknowledged() {
    let plan = Plan::new().await;
    let calls = plan.count(|world| world.disk.count_mutations()).await;
    for point in (0..calls).step_by(7) {
        let mut play = Play::new(&plan, 1);
        play.world.disk.halt_after(point);
        // However it fails: what counts is what is left.
        let _ = play.run().await;
        for kept in [0, usize::MAX] {
            let cut = play.world.fork_world(point);
            cut.disk.crash();
            cut.kv.crash_keeping(kept);
            let mut whole = cut.fork_world(1);
            let before = whole.disk.count_mutations();
            start(&mut whole).await.unwrap();
            for call in 0..whole.disk.count_mutations() - before {
                let mut again = cut.fork_world(call);
                again.disk.halt_after(call);
                let _ = start(&mut again).await;
                let again = again.fork_world(call);
                again.disk.crash();
                again.kv.crash_keeping(kept);
                let what = format!("power cut after call {point}, then after call {call} of the start, {kept} kept");
                play.check_recovery(again, &what).await;
            }
        }
    }
}

/// Open, and bring the index up to the log.
async fn start(world: &mut World) -> Result<()> {
    world.open().await?;
    world.store().flush(Durability::Synced).await
}

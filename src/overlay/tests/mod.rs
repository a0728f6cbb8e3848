//! Goal: views show exactly what was written to them, through snapshots, forks, flushes, restarts and
//! crashes. Method: random changes to a real store on a simulated disk, beside plain maps of bytes.

mod changes;
mod compact;
mod crash;
mod faults;
mod flush;
mod model;
mod scans;
mod scenario;
mod sweep;
mod touched;
pub(super) mod world;

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use self::model::{Model, Seen};
use self::world::{FILES, ViewId, World};
use crate::meta::Durability;

fn seeded() -> (u64, SmallRng) {
    let seed = std::env::var("MIMEO_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}: MIMEO_SEED={seed} repeats it");
    (seed, SmallRng::seed_from_u64(seed))
}

/// One random change of one view, on the store and on the model.
async fn step(world: &World, view: ViewId, model: &mut Model, rng: &mut SmallRng) {
    let ino = model.pick(rng);
    match rng.random_range(0..100) {
        0..45 => {
            let offset = rng.random_range(0..200_000u64);
            let len = if rng.random_bool(0.3) { rng.random_range(1..150_000) } else { rng.random_range(1..5000usize) };
            let zeros = rng.random_bool(0.1);
            let fill: Vec<u8> = (0..len).map(|_| if zeros { 0 } else { rng.random() }).collect();
            world.write(view, ino, offset, &fill).await;
            model.write(ino, offset, &fill);
        }
        45..60 => {
            let size = if rng.random_bool(0.2) { 0 } else { rng.random_range(0..250_000u64) };
            world.truncate(view, ino, size).await;
            model.truncate(ino, size);
        }
        60..75 => {
            let name = format!("n{}", rng.random_range(0..40));
            if model.find(&name).is_none() {
                let ino = world.create(view, &name).await;
                model.create(&name, ino);
            }
        }
        75..85 => {
            if let Some(name) = model.pick_name(rng) {
                world.remove(view, &name).await;
                model.remove(&name);
            }
        }
        85..95 => {
            let to = format!("n{}", rng.random_range(0..40));
            if let Some(from) = model.pick_name(rng)
                && model.find(&to).is_none()
            {
                world.rename(view, &from, &to).await;
                model.rename(&from, &to);
            }
        }
        _ => world.flush().await,
    }
}

/// Many small writes to one place go through the rewriting of full buckets.
#[tokio::test]
async fn a_bucket_of_many_fragments_stays_right() {
    let (seed, mut rng) = seeded();
    let mut world = World::new(seed).await;
    let view = world.new_view();
    let mut model = world.base_model();
    let ino = FILES[2].1;
    for _ in 0..400 {
        let (offset, byte) = (60_000 + rng.random_range(0..9000u64), rng.random::<u8>());
        world.write(view, ino, offset, &[byte, 1]).await;
        model.write(ino, offset, &[byte, 1]);
    }
    assert_eq!(world.seen(view).await, model.seen());
}

#[tokio::test]
async fn views_show_what_was_written_to_them() {
    let (seed, rng) = seeded();
    // Small segments, so that many of them get sparse.
    live(World::with_segments(seed, 256 << 10).await, rng).await;
}

/// Nothing of the index is in memory that was not read just before: what reads or changes a view stops, and
/// runs again when it was read.
#[tokio::test]
async fn views_show_what_was_written_to_them_when_nothing_is_cached() {
    let (seed, rng) = seeded();
    let world = World::new(seed).await;
    world.kv.forget_what_is_cached();
    let kv = world.kv.clone();
    live(world, rng).await;
    assert!(kv.count_misses() > 100, "{} reads ran again", kv.count_misses());
}

/// Views, snapshots of them and forks of the snapshots, changed at random, with restarts between.
async fn live(mut world: World, mut rng: SmallRng) {
    let first = world.new_view();
    let mut views = vec![(first, world.base_model())];
    let mut snapshots: Vec<(ViewId, Seen)> = Vec::new();
    for round in 0..400 {
        let at = rng.random_range(0..views.len());
        let (view, model) = &mut views[at];
        step(&world, *view, model, &mut rng).await;
        if round % 40 == 7 {
            let model = model.clone();
            let sealed = world.snapshot(*view).await;
            snapshots.push((sealed, model.seen()));
            if world.layers(sealed) < 6 {
                views.push((world.fork(sealed), model));
            }
        }
        if round % 30 == 11 {
            world.compact().await;
        }
        if round % 45 == 44 {
            for (view, _) in &views {
                world.dedup(*view).await;
            }
        }
        if round % 60 == 59 {
            let deep = views.iter().map(|(view, _)| *view).chain(snapshots.iter().map(|(view, _)| *view));
            for view in deep.filter(|view| world.layers(*view) > 2).collect::<Vec<_>>() {
                world.flatten(view).await;
            }
        }
        if round % 100 == 61 {
            views.truncate(views.len().max(2) - 1);
            snapshots.swap_remove(rng.random_range(0..snapshots.len()));
            let kept: Vec<_> =
                views.iter().map(|(view, _)| *view).chain(snapshots.iter().map(|(view, _)| *view)).collect();
            world.keep_only(&kept).await;
        }
        if round % 50 == 49 {
            world.sync().await;
            world.restart(rng.random_range(0..4)).await;
        }
        if round % 20 == 0 {
            for (view, model) in &views {
                assert_eq!(world.seen(*view).await, model.seen(), "round {round}, view {view:?}");
            }
            for (view, seen) in &snapshots {
                assert_eq!(world.seen(*view).await, *seen, "round {round}, snapshot {view:?}");
            }
        }
    }
    world.check_counts().await;
    world.keep_only(&[]).await;
    world.compact().await;
    world.check_empty().await;
}

/// A power cut at any moment: the view shows what it showed after some change, none before the last
/// sync, and goes on from there.
#[tokio::test]
async fn a_crash_loses_nothing_that_was_synced_and_mixes_nothing() {
    let (seed, mut rng) = seeded();
    for _ in 0..12 {
        let mut world = World::new(seed).await;
        let view = world.new_view();
        let mut model = world.base_model();
        let mut possible = vec![model.seen()];
        let steps = rng.random_range(5..60);
        for _ in 0..steps {
            step(&world, view, &mut model, &mut rng).await;
            possible.push(model.seen());
            if rng.random_bool(0.15) {
                world.sync().await;
                possible = vec![model.seen()];
            }
        }
        world.restart(rng.random_range(0..6)).await;
        let seen = world.seen(view).await;
        assert!(possible.contains(&seen), "none of the {} states that are allowed", possible.len());
        world.restart(0).await;
        assert_eq!(world.seen(view).await, seen, "what was found after the crash stays");
    }
}

/// Who waits for a flush may give up, as background work does that is told to stop.
#[tokio::test]
async fn a_flush_that_nobody_waits_for_loses_nothing() {
    let mut world = World::new(1).await;
    let view = world.new_view();
    world.write(view, FILES[0].1, 0, b"kept").await;
    world.set_disk_bytes(0);
    {
        let mut flush = std::pin::pin!(world.store().flush(Durability::Synced));
        assert!(futures_util::poll!(&mut flush).is_pending(), "it has begun, and waits for the log");
    }
    world.set_disk_bytes(1 << 40);
    world.store().flush(Durability::Synced).await.unwrap();
    world.restart(0).await;
    assert!(world.seen(view).await.files[FILES[0].0].starts_with(b"kept"));
}

/// While a freeze holds, no change gets through; after it, all do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_holds_changes_back() {
    let (seed, _) = seeded();
    let mut world = World::new(seed).await;
    let (old, fresh) = (world.new_view(), world.new_view());
    world.write(old, FILES[0].1, 0, b"before").await;
    let world = Arc::new(world);
    let frozen = world.store().freeze(vec![world.top(old), world.top(fresh)]).await;
    assert!(frozen.layer(world.top(fresh)).is_none(), "never written");
    let position = frozen.layer(world.top(old)).unwrap().upto;
    let writers: Vec<_> = [old, fresh]
        .into_iter()
        .map(|view| {
            let world = world.clone();
            tokio::spawn(async move { world.write(view, FILES[0].1, 0, b"after!").await })
        })
        .collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(writers.iter().all(|writer| !writer.is_finished()));
    let still = world.seen(old).await;
    assert!(still.files[FILES[0].0].starts_with(b"before"));
    drop(frozen);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(world.seen(old).await.files[FILES[0].0].starts_with(b"after!"));
    let frozen = world.store().freeze(vec![world.top(old)]).await;
    assert_eq!(frozen.layer(world.top(old)).unwrap().upto, position + 1);
}

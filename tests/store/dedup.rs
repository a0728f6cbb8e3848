//! Background work as the daemon runs it: equal private data of several clones goes into the chunk store
//! when it is idle, is there once, and gives its space in the log back.

use std::sync::Arc;
use std::time::Duration;

use mimeo::config::Config;
use mimeo::env::{Env, ManualClock};
use mimeo::image::{CloneTarget, Fleet};
use mimeo::maintain;
use mimeo::vfs::Activity;
use mimeo::vfs::{Object, Vfs};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::world::{World, noise, write};

/// Four whole buckets.
const LEN: usize = 4 * 65_536;
const IDLE: Duration = Duration::from_secs(600);

struct Background {
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Background {
    /// Without pauses and without grace.
    fn start(world: &World) -> Self {
        let mut config = Config::default();
        let pace = &mut config.maintenance;
        (pace.interval_secs, pace.grace_secs, pace.idle_secs) = (0, 0, IDLE.as_secs());
        pace.bytes_per_sec = 1 << 40;
        let (stop, stopped) = watch::channel(false);
        let overlays = world.overlays().clone();
        let fleet = Arc::new(Fleet::new(world.catalog.clone(), overlays.clone()));
        let uses = Activity::new(world.env.clock.uptime());
        let parts = maintain::Parts { fleet, overlays, chunks: world.chunks.clone(), uses };
        let running = maintain::spawn(parts, &world.env, &config, stopped);
        Self { stop, running }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.running.await.unwrap();
    }
}

/// Wait for what background work does.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// Two rounds have begun since: the layers of a removed clone go in one.
async fn pass_a_round(world: &World) {
    for name in ["mark-1", "mark-2"] {
        let root = world.clone_of("img", name).await;
        put(world, world.find(root, "f").await.unwrap(), b"mark").await;
        let top = world.catalog.state().find_clone(name).unwrap().view.top;
        world.fleet.remove_clones(CloneTarget::Names(vec![name.into()])).await.unwrap();
        until("a layer without a name goes", || !world.overlays().is_written(top)).await;
    }
}

async fn put(world: &World, file: Object, data: &[u8]) {
    world.run(|vfs, rq| vfs.write(rq, file, 0, data, false)).await.unwrap();
}

fn live(world: &World) -> i64 {
    world.overlays().live_bytes().values().sum()
}

#[tokio::test]
async fn equal_private_data_of_two_clones_is_kept_once_when_it_is_idle() {
    let clock = Arc::new(ManualClock::at_secs(1_800_000_000));
    let env = Env { clock: clock.clone(), ..Env::real() };
    let mut world = World::open_with(TempDir::new().unwrap(), env).await;
    let source = world.source("src");
    write(&source, "f", b"of the image");
    world.import("img", &source).await.unwrap();
    let (data, before) = (noise(7, LEN), world.chunks.usage().unwrap());
    for name in ["one", "two"] {
        let root = world.clone_of("img", name).await;
        put(&world, world.find(root, "f").await.unwrap(), &data).await;
    }
    world.overlays().flush(mimeo::meta::Durability::Buffered).await.unwrap();
    assert_eq!(live(&world), 2 * LEN as i64);

    let background = Background::start(&world);
    pass_a_round(&world).await;
    assert_eq!((world.chunks.usage().unwrap(), live(&world)), (before, 2 * LEN as i64), "nothing is idle yet");
    clock.advance(IDLE);
    until("no private data is in the log", || live(&world) == 0).await;
    pass_a_round(&world).await;
    background.stop().await;

    let after = world.chunks.usage().unwrap();
    assert_eq!((after.chunks - before.chunks, after.raw_bytes - before.raw_bytes), (4, LEN as u64), "once");
    for _ in 0..2 {
        for name in ["one", "two"] {
            let root = world.root(&format!("/clones/{name}")).await;
            assert!(world.read_path(root, "f").await == data, "{name}");
        }
        assert!(world.fsck().await.is_clean());
        world = world.restart().await;
    }
    world.overlays().compact(None).await.unwrap();
    let log: u64 = world.overlays().segments().values().sum();
    assert!(log < LEN as u64 / 4, "the log has {log} bytes");
}

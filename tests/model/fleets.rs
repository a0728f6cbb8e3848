//! Random fleets. Each test leans to one side; all do all.

use rand::Rng;

use crate::from_env;
use crate::reference::Mix;
use crate::world::World;

/// In runs of so many operations the user may never be let.
const FEW: u64 = 4;

/// What happens between two runs of operations, out of a hundred.
struct Events {
    repoint: u32,
    command: u32,
    crash: u32,
    restart: u32,
}

/// Runs of at most `run` operations; `ops` in all, if the environment says nothing else.
fn live(events: Events, mix: Mix, run: u64, ops: u64) {
    let mut world = World::new(from_env("MIMEO_SEED", rand::random::<u32>().into()));
    world.create();
    world.create();
    let ops = from_env("MIMEO_OPS", ops);
    let mut left = ops;
    while left > 0 {
        let count = world.rng.random_range(1..=run).min(left);
        left -= count;
        let name = world.some_clone();
        world.run(&name, count, mix);
        let Events { repoint, command, crash, restart } = events;
        match world.rng.random_range(0..100) {
            n if n < repoint => world.repoint(),
            n if n < repoint + command => world.command(),
            n if n < repoint + command + crash => world.crash(),
            n if n < repoint + command + crash + restart => world.restart(),
            n if n.is_multiple_of(2) => world.look_at_a_snapshot(),
            _ => world.compare_all(),
        }
    }
    world.restart();
    world.promote();
    world.crash();
    if run > FEW {
        world.driver.check_user(ops / 500);
    }
    println!("what became of clones: {:?}", world.fates);
}

#[test]
fn long_runs_of_operations() {
    live(
        Events { repoint: 0, command: 50, crash: 10, restart: 5 },
        Mix { objects: 120, unstable_of_ten: 5 },
        200,
        4000,
    );
}

#[test]
fn many_switches_of_views() {
    live(Events { repoint: 0, command: 85, crash: 3, restart: 2 }, Mix { objects: 60, unstable_of_ten: 5 }, 25, 1500);
}

#[test]
fn many_crashes() {
    live(Events { repoint: 0, command: 30, crash: 50, restart: 10 }, Mix { objects: 80, unstable_of_ten: 8 }, 60, 1500);
}

/// Few writes between two switches: most of them meet nothing that the image changed.
#[test]
fn switches_that_keep_a_few_writes() {
    live(Events { repoint: 0, command: 92, crash: 2, restart: 1 }, Mix { objects: 80, unstable_of_ten: 5 }, FEW, 600);
}

/// Most of them by repoints: what one of them decided, the next one meets again.
#[test]
fn versions_that_come_and_go_under_a_few_writes() {
    let events = Events { repoint: 60, command: 36, crash: 1, restart: 1 };
    live(events, Mix { objects: 80, unstable_of_ten: 5 }, FEW, 300);
}

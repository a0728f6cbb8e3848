//! Goal: what was begun is done whole, whoever goes away meanwhile, and what somebody may still read stays.
//! Method: the world of the other tests; a catalog that is kept busy or fails; readers with old records.

use std::sync::mpsc;

use futures_util::poll;

use super::*;
use crate::image::log::Fault;
use crate::meta::Durability;

/// A write that comes after the caller of a switch went away is in the view that the clone shows then.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_switch_goes_to_its_end_without_its_caller() {
    let world = Arc::new(World::new().await);
    world.clones(&["desk"]).await;
    let (busy, is_busy) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let catalog = world.catalog.clone();
    let holder = tokio::spawn(async move {
        let hold = move |_: &mut Draft| {
            let _ = busy.send(());
            let _ = wait.recv();
            Ok(())
        };
        catalog.transact("keep the catalog busy", hold).await
    });
    tokio::task::spawn_blocking(move || is_busy.recv()).await.unwrap().unwrap();
    {
        let mut switch = Box::pin(world.repoint(2, names(&["desk"]), Writes::Keep));
        assert!(poll!(&mut switch).is_pending());
    }
    let writer = tokio::spawn({
        let world = world.clone();
        async move { world.write("desk", A, 77).await }
    });
    // It waits, or it comes before the switch, which then refuses to run.
    let _ = tokio::time::timeout(std::time::Duration::from_millis(20), async {
        while !writer.is_finished() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    go.send(()).unwrap();
    holder.await.unwrap().unwrap();
    writer.await.unwrap();
    assert_eq!(world.read("desk", A).await, 77, "in the view of {}", world.get("desk").view.version);
}

#[tokio::test]
async fn who_reads_by_an_old_record_reads_what_it_named() {
    let world = World::new().await;
    world.clones(&["x"]).await;
    world.write("x", A, 5).await;
    world.fleet.fork(fork("x", "y")).await.unwrap();
    let old = world.get("y");
    assert!(world.fleet.flatten(&old).await.unwrap());
    // Nothing names the position of x's overlay now.
    world.write("x", A, 6).await;
    world.overlays.flush(Durability::Buffered).await.unwrap();
    assert_eq!(world.read_in(&old, &old.view, A).await, 5);
}

/// A snapshot whose change failed in the log, where it turns up at the next start, shows what it named,
/// although other changes came and failed in between.
#[tokio::test]
async fn a_change_that_turns_up_later_finds_what_it_names() {
    let mut world = World::new().await;
    world.clones(&["desk"]).await;
    world.write("desk", A, 5).await;
    world.log.inject([Fault::FailLanded, Fault::Fail]);
    assert!(world.snapshot("desk", "first").await.is_err());
    assert!(world.snapshot("desk", "second").await.is_err());
    world.fleet.forget_marks(std::time::Duration::ZERO, std::time::Duration::ZERO).await;
    world.write("desk", A, 6).await;
    world.overlays.flush(Durability::Synced).await.unwrap();
    world.crash().await;
    assert_eq!(world.read("desk", A).await, 6);
    assert_eq!(world.read_at("desk", "first", A).await, 5);
}

//! Activation: what becomes of a staged clone is its operation's, and can be rolled back with it.

use super::operations::{on_mount, plain};
use super::world::{A, World, names, to};
use super::*;
use crate::env::Time;
use crate::image::record::{ExportId, OperationId, VersionNumber};
use crate::image::{Fate, MemoryCatalogLog, Next, OperationState, Quiet, RepointPlan, Writes};

const THREE: [&str; 3] = ["c0", "c1", "c2"];

/// Nobody uses any clone.
pub(super) struct Nobody;

impl Quiet for Nobody {
    fn is_quiet(&self, _: ExportId) -> bool {
        true
    }
}

/// Somebody uses every clone. It is asked before anything was committed, and in the commit, when the clones'
/// overlays stand still.
struct Somebody {
    log: MemoryCatalogLog,
    asked: Mutex<Vec<(ExportId, u64)>>,
}

impl Quiet for Somebody {
    fn is_quiet(&self, clone: ExportId) -> bool {
        self.asked.lock().push((clone, self.log.count_commits()));
        false
    }
}

/// What the operation says of each clone: its fate, and the version that it showed before.
fn told(world: &World, id: OperationId) -> [(Fate, VersionNumber); 3] {
    let operation = world.catalog.state().find_operation(id).unwrap().clone();
    let all: Vec<_> = operation.outcomes_of_clones().collect();
    THREE.map(|name| {
        let id = world.get(name).id;
        all.iter().find(|(clone, ..)| *clone == id).map_or((Fate::Gone, 0), |(_, fate, from)| (*fate, *from))
    })
}

fn versions(world: &World) -> [VersionNumber; 3] {
    THREE.map(|name| world.get(name).view.version)
}

async fn activate(world: &World, clones: &[&str]) -> Result<Vec<Activated>> {
    world.fleet.activate(names(clones)).await
}

/// Three clones, `c1` with private writes, which wait for their mount by this operation.
async fn staged() -> (World, OperationId) {
    let world = World::new().await;
    world.clones(&THREE).await;
    world.write("c1", A, 100).await;
    let plan = RepointPlan { policy: on_mount(), ..to("os", 2, CloneTarget::All, Writes::Keep) };
    let id = world.fleet.repoint(plan).await.unwrap().operation;
    (world, id)
}

/// Three clones of which one operation waits for its time.
async fn scheduled(writes: Writes) -> (World, OperationId) {
    let world = World::new().await;
    world.clones(&THREE).await;
    let at = Some(Time::new(world.catalog.now().secs + 3600, 0));
    let repoint = to("os", 2, CloneTarget::All, writes);
    let id = world.fleet.start(NewOperation { repoint, at, ..plain(&["2"]) }).await.unwrap().id;
    (world, id)
}

#[tokio::test]
async fn what_became_of_an_activated_clone_is_in_the_record_of_its_operation() {
    let (mut world, id) = staged().await;
    assert_eq!(told(&world, id), [(Fate::Staged, 1); 3]);
    activate(&world, &["c0"]).await.unwrap();
    let c1 = world.get("c1").id;
    let done = world.fleet.activate_mounted(c1, Arc::new(Nobody)).await.unwrap().unwrap();
    assert_eq!(done.outcome.unwrap().operation, id);
    for _ in 0..2 {
        assert_eq!(told(&world, id), [(Fate::Switched, 1), (Fate::Kept, 1), (Fate::Staged, 1)]);
        world.crash().await;
    }
}

#[tokio::test]
async fn an_activation_is_rolled_back_with_its_operation_also_without_pins() {
    let (world, id) = staged().await;
    activate(&world, &["c0", "c1"]).await.unwrap();
    world.fleet.drop_pins(CloneTarget::All).await.unwrap();
    let done = world.fleet.rollback(id, 0).await.unwrap();
    assert_eq!((done.restored.len(), done.left.len(), versions(&world)), (2, 0, [1; 3]));
    assert_eq!((world.read("c0", A).await, world.read("c1", A).await), (1, 100));
    assert!(world.get("c2").staged.is_none());
}

#[tokio::test]
async fn a_scheduled_clone_can_be_activated_and_is_not_switched_again() {
    let (mut world, id) = scheduled(Writes::Discard).await;
    let done = activate(&world, &["c0"]).await.unwrap().remove(0).outcome.unwrap();
    assert_eq!((done.operation, versions(&world)), (id, [2, 1, 1]));
    world.crash().await;
    world.write("c0", A, 100).await;
    assert_eq!(told(&world, id), [(Fate::Switched, 1), (Fate::Gone, 0), (Fate::Gone, 0)]);
    world.fleet.begin(id).await.unwrap();
    world.fleet.switch_wave(id, 0).await.unwrap();
    world.fleet.switch_wave(id, 1).await.unwrap();
    assert_eq!((versions(&world), world.get("c0").view.number), ([2; 3], 2));
    assert_eq!(world.read("c0", A).await, 100, "what was written since is not discarded");
    assert_eq!(told(&world, id), [(Fate::Switched, 1); 3]);
    let operation = world.catalog.state().find_operation(id).unwrap().clone();
    assert_eq!((&operation.state, operation.early.len()), (&OperationState::Done, 0));
    assert_eq!(world.fleet.rollback(id, 0).await.unwrap().restored.len(), 3);
}

#[tokio::test]
async fn an_activated_clone_is_free_for_others_and_goes_back_with_its_operation() {
    let (mut world, id) = scheduled(Writes::Keep).await;
    activate(&world, &["c0", "c2"]).await.unwrap();
    assert!(world.repoint(1, names(&["c1"]), Writes::Keep).await.is_err(), "its wave is to come");
    world.repoint(1, names(&["c2"]), Writes::Keep).await.unwrap();
    world.crash().await;
    world.fleet.pause(id).await.unwrap();
    world.fleet.drop_pins(CloneTarget::All).await.unwrap();
    let done = world.fleet.rollback(id, 1).await.unwrap();
    assert_eq!((done.restored.len(), &*done.left[0].0, versions(&world)), (1, "c2", [1; 3]));
}

#[tokio::test]
async fn a_failed_activation_leaves_the_record_as_it_was() {
    let (world, id) = staged().await;
    world.catalog.remove_version("os@v2".parse().unwrap()).await.unwrap();
    let failed = activate(&world, &["c0"]).await.unwrap().remove(0);
    assert!(failed.outcome.is_err());
    assert_eq!((told(&world, id), versions(&world)), ([(Fate::Staged, 1); 3], [1; 3]));
}

#[tokio::test]
async fn a_wave_of_which_all_were_early_is_done() {
    let (world, id) = scheduled(Writes::Keep).await;
    activate(&world, &["c0", "c1"]).await.unwrap();
    world.fleet.begin(id).await.unwrap();
    world.fleet.switch_wave(id, 0).await.unwrap();
    let operation = world.catalog.state().find_operation(id).unwrap().clone();
    assert_eq!((operation.next, operation.count(&[Fate::Switched])), (Next::Wave(1), 2));
}

/// The mount found nobody, and then somebody came.
#[tokio::test]
async fn a_clone_that_is_used_when_its_switch_is_committed_goes_on_waiting() {
    let (world, id) = staged().await;
    let (c1, commits) = (world.get("c1"), world.log.count_commits());
    let somebody = Arc::new(Somebody { log: world.log.clone(), asked: Mutex::default() });
    let refused = world.fleet.activate_mounted(c1.id, somebody.clone()).await.unwrap().unwrap().outcome.unwrap_err();
    assert!(refused.kind() == ErrorKind::Conflict && refused.what().contains("\"c1\" is used"), "{refused}");
    assert_eq!(*somebody.asked.lock(), [(c1.id, commits)]);
    assert_eq!((world.get("c1"), told(&world, id)), (c1, [(Fate::Staged, 1); 3]));
    activate(&world, &["c1"]).await.unwrap();
    assert_eq!(world.get("c1").view.version, 2, "who asks for it by name means it");
}

/// Only this clone is used.
struct Uses(ExportId);

impl Quiet for Uses {
    fn is_quiet(&self, clone: ExportId) -> bool {
        clone != self.0
    }
}

/// All but two: one is used, the private writes of the other conflict. These refuse nobody else.
#[tokio::test]
async fn clones_that_are_mounted_together_are_switched_in_few_commits() {
    let world = World::new().await;
    let all: Vec<_> = (0..200).map(|n| format!("d{n}")).collect();
    world.clones(&all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for (clone, ino) in [("d3", A), ("d9", B)] {
        world.write(clone, ino, 100).await;
    }
    let plan = RepointPlan { policy: on_mount(), ..to("os", 2, CloneTarget::All, Writes::Keep) };
    let id = world.fleet.repoint(plan).await.unwrap().operation;
    let (used, commits) = (world.get("d7").id, world.log.count_commits());
    let mount = |name: &String| world.fleet.activate_mounted(world.get(name).id, Arc::new(Uses(used)));
    let done = futures_util::future::join_all(all.iter().map(mount)).await;
    let commits = world.log.count_commits() - commits;
    assert!(commits < 10, "{commits} commits for 200 mounts");
    let operation = world.catalog.state().find_operation(id).unwrap().clone();
    for (name, done) in all.iter().zip(done) {
        let (clone, done) = (world.get(name), done.unwrap().unwrap());
        assert_eq!((done.staged_by, done.clones[0].id), (id, clone.id));
        let left = match name.as_str() {
            "d7" => Some("is used"),
            "d9" => Some("conflict"),
            _ => None,
        };
        assert_eq!((clone.view.version, clone.staged.is_some()), (if left.is_some() { 1 } else { 2 }, left.is_some()));
        match (done.outcome, left) {
            (Ok(done), None) => assert_eq!((done.outcome.clones.len(), done.outcome.clones[0].id), (1, clone.id)),
            (Err(why), Some(words)) => assert!(why.what().contains(words) && why.what().contains(name), "{why}"),
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
    assert_eq!((operation.count(&[Fate::Switched]), operation.count(&[Fate::Kept])), (197, 1));
    assert_eq!(operation.count(&[Fate::Staged]), 2);
    assert_eq!((world.read("d3", A).await, world.read("d9", B).await), (100, 100));
    let again = world.fleet.activate_mounted(used, Arc::new(Nobody)).await.unwrap().unwrap();
    assert_eq!((again.outcome.unwrap().outcome.switched(), world.get("d7").view.version), (1, 2));
    assert!(world.fleet.mounts.lock().is_empty(), "nobody waits");
}

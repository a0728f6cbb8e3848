//! Operations: what their steps do to clones, and what is refused. Method: the steps are taken by hand;
//! who takes them in a daemon is tested beside `maintain::operations`.

use std::time::Duration;

use super::world::{A, B, World, names, select, to};
use super::*;
use crate::env::Time;
use crate::image::log::Fault;
use crate::image::policy::{Activation, SwitchPolicy};
use crate::image::{
    Fate, Gate, Next, OnFailure, OperationId, OperationKind, OperationRecord, OperationState, RepointPlan, Rollout,
    Writes,
};

const SIX: [&str; 6] = ["c0", "c1", "c2", "c3", "c4", "c5"];

/// All clones to v2, in waves, with a gate that nobody asks.
pub(super) fn gated(waves: &[&str]) -> NewOperation {
    let rollout = Rollout { gates: vec![Gate::Clients(1)], ..Rollout::default() };
    NewOperation {
        repoint: to("os", 2, CloneTarget::All, Writes::Keep),
        waves: waves.iter().map(|spec| spec.parse().unwrap()).collect(),
        rollout,
        at: None,
    }
}

pub(super) fn plain(waves: &[&str]) -> NewOperation {
    NewOperation { rollout: Rollout::default(), ..gated(waves) }
}

impl World {
    pub async fn six() -> Self {
        let world = Self::new().await;
        world.clones(&SIX).await;
        world
    }

    async fn start(&self, new: NewOperation) -> OperationId {
        self.fleet.start(new).await.unwrap().id
    }

    pub fn operation(&self, id: OperationId) -> Arc<OperationRecord> {
        self.catalog.state().operation(id).unwrap().clone()
    }

    fn at(&self, id: OperationId) -> (OperationState, Next) {
        let operation = self.operation(id);
        (operation.state.clone(), operation.next)
    }

    /// The versions that the six show; 0 for one that is gone.
    fn versions(&self) -> Vec<u32> {
        let state = self.catalog.state();
        SIX.iter().map(|name| state.clone_named(name).map_or(0, |clone| clone.view.version)).collect()
    }

    async fn kind_of_repoint(&self, clones: CloneTarget) -> Option<ErrorKind> {
        self.repoint(2, clones, Writes::Keep).await.err().map(|error| error.kind())
    }
}

fn active(next: Next) -> (OperationState, Next) {
    (OperationState::Active, next)
}

#[tokio::test]
async fn a_repoint_is_an_operation_of_one_wave_in_the_same_commit() {
    let mut world = World::six().await;
    world.repoint(2, names(&["c1"]), Writes::Keep).await.unwrap();
    let before = world.log.count_commits();
    let done = world.fleet.on_behalf_of("uid 7").repoint(to("os", 2, CloneTarget::All, Writes::Keep)).await.unwrap();
    assert_eq!(world.log.count_commits() - before, 1);
    world.crash().await;
    let operation = world.operation(done.operation);
    assert_eq!((&operation.state, operation.next, &*operation.who), (&OperationState::Done, Next::Nothing, "uid 7"));
    assert_eq!((operation.count(&[Fate::Switched]), operation.count(&[Fate::Unchanged])), (5, 1));
    let unchanged = operation.finished().find(|(_, outcome)| *outcome == Fate::Unchanged).unwrap();
    assert_eq!(unchanged.0, world.get("c1").id);
    assert_eq!(world.get("c0").pins[0].operation, done.operation);
}

#[tokio::test]
async fn waves_come_one_after_another_with_a_gate_behind_each() {
    let world = World::six().await;
    let id = world.start(gated(&["1", "50%"])).await;
    assert_eq!((world.at(id), world.versions()), (active(Next::Wave(0)), vec![1; 6]));
    world.fleet.switch_wave(id, 0).await.unwrap();
    assert_eq!((world.at(id), world.versions()), (active(Next::Gate(0)), vec![2, 1, 1, 1, 1, 1]));
    assert!(world.fleet.switch_wave(id, 1).await.is_err(), "the gate is not passed");
    assert!(world.fleet.switch_wave(id, 0).await.is_err(), "never twice");
    world.fleet.pass_gate(id, 0).await.unwrap();
    world.fleet.switch_wave(id, 1).await.unwrap();
    assert_eq!(world.versions(), [2, 2, 2, 1, 1, 1]);
    world.fleet.pass_gate(id, 1).await.unwrap();
    world.fleet.switch_wave(id, 2).await.unwrap();
    assert_eq!((world.at(id), world.versions()), (active(Next::Gate(2)), vec![2; 6]), "the last one has its gate too");
    world.fleet.pass_gate(id, 2).await.unwrap();
    assert_eq!(world.at(id), (OperationState::Done, Next::Nothing));
    assert_eq!(world.operation(id).count(&[Fate::Switched]), 6);
    assert!(SIX.iter().all(|name| world.get(name).view.number == 2));
}

#[tokio::test]
async fn a_wave_and_the_note_of_it_are_one_commit() {
    for fault in [Fault::Fail, Fault::FailLanded, Fault::UnknownLost, Fault::UnknownDone, Fault::Refuse] {
        let mut world = World::six().await;
        let id = world.start(gated(&["2"])).await;
        world.log.inject([fault]);
        let told = world.fleet.switch_wave(id, 0).await;
        world.crash().await;
        let landed = matches!(fault, Fault::FailLanded) || told.is_ok();
        let (next, versions) = match landed {
            true => (Next::Gate(0), [2, 2, 1, 1, 1, 1]),
            false => (Next::Wave(0), [1; 6]),
        };
        assert_eq!((world.at(id), world.versions()), (active(next), versions.to_vec()), "{fault:?}");
    }
}

#[tokio::test]
async fn clones_in_waves_to_come_belong_to_one_operation() {
    let mut world = World::six().await;
    let id = world.start(gated(&["1"])).await;
    for crashed in [false, true] {
        let refused = world.repoint(2, names(&["c0"]), Writes::Keep).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "crashed: {crashed}");
        assert!(refused.what().contains("\"c0\"") && refused.what().contains(&id.to_string()), "{refused}");
        let refused = world.fleet.start(plain(&["2"])).await.unwrap_err();
        assert!(refused.what().contains(&id.to_string()), "{refused}");
        world.crash().await;
    }
    world.fleet.switch_wave(id, 0).await.unwrap();
    world.repoint(1, names(&["c0"]), Writes::Keep).await.unwrap();
    assert_eq!(world.kind_of_repoint(names(&["c1"])).await, Some(ErrorKind::Conflict), "its wave is to come");
    world.fleet.abort(id).await.unwrap();
    assert_eq!(world.kind_of_repoint(CloneTarget::All).await, None);
}

#[tokio::test]
async fn too_many_operations_that_have_not_ended_are_refused() {
    let world = World::new().await;
    let many: Vec<_> = (0..=crate::image::MAX_UNFINISHED).map(|n| format!("d{n}")).collect();
    world.clones(&many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let of = |name: &str| {
        let repoint = to("os", 2, names(&[name]), Writes::Keep);
        NewOperation { repoint, ..gated(&[]) }
    };
    let first = world.start(of("d0")).await;
    for name in &many[1..many.len() - 1] {
        world.start(of(name)).await;
    }
    let last = of(many.last().unwrap());
    assert_eq!(world.fleet.start(last.clone()).await.unwrap_err().kind(), ErrorKind::Conflict);
    world.fleet.abort(first).await.unwrap();
    world.start(last).await;
}

#[tokio::test]
async fn a_clone_that_was_removed_is_skipped_and_named() {
    let mut world = World::six().await;
    let id = world.start(plain(&["3"])).await;
    world.fleet.remove_clones(names(&["c1", "c4"])).await.unwrap();
    world.crash().await;
    world.fleet.switch_wave(id, 0).await.unwrap();
    world.fleet.switch_wave(id, 1).await.unwrap();
    assert_eq!((world.at(id).0, world.versions()), (OperationState::Done, vec![2, 0, 2, 2, 0, 2]));
    let operation = world.operation(id);
    assert_eq!(operation.count(&[Fate::Gone]), 2);
    let gone = operation.finished().filter(|(_, outcome)| *outcome == Fate::Gone);
    let called: Vec<_> = gone.map(|(id, _)| operation.gone_name(id).unwrap().to_string()).collect();
    assert_eq!(called, ["c1", "c4"]);
}

#[tokio::test]
async fn a_wave_of_removed_clones_is_done() {
    let world = World::six().await;
    let id = world.start(plain(&["1"])).await;
    world.fleet.remove_clones(names(&["c0"])).await.unwrap();
    world.fleet.switch_wave(id, 0).await.unwrap();
    assert_eq!(world.at(id), active(Next::Wave(1)));
}

#[tokio::test]
async fn waves_of_which_nobody_is_left_need_no_version() {
    let world = World::six().await;
    let id = world.start(plain(&["2", "2"])).await;
    world.fleet.remove_clones(names(&SIX)).await.unwrap();
    world.catalog.remove_version("os@v2".parse().unwrap()).await.unwrap();
    for wave in 0..3 {
        world.fleet.switch_wave(id, wave).await.unwrap();
    }
    assert_eq!((world.at(id).0, world.operation(id).count(&[Fate::Gone])), (OperationState::Done, 6));
}

/// File B is another one in v2, so what a clone wrote there cannot go along.
#[tokio::test]
async fn as_many_clones_may_fail_as_are_allowed() {
    for (allowed, switched) in [(0, None), (1, None), (2, Some([2, 1, 2, 1, 2, 2]))] {
        let world = World::six().await;
        world.write("c1", B, 7).await;
        world.write("c3", B, 7).await;
        let repoint = RepointPlan { max_failures: allowed, ..to("os", 2, CloneTarget::All, Writes::Keep) };
        let id = world.start(NewOperation { repoint, ..plain(&["2"]) }).await;
        let waves = [world.fleet.switch_wave(id, 0).await, world.fleet.switch_wave(id, 1).await];
        assert_eq!(waves.iter().all(|wave| wave.is_ok()), switched.is_some(), "{allowed}: {waves:?}");
        let Some(versions) = switched else { continue };
        assert_eq!((world.versions(), world.at(id).0), (versions.to_vec(), OperationState::Done));
        let (operation, c1) = (world.operation(id), world.get("c1"));
        assert_eq!(operation.count(&[Fate::Conflicts]), 2);
        assert!(operation.outcomes[0].why(c1.id).is_some());
        assert_eq!((c1.lagging.unwrap().version, c1.lagging.unwrap().operation), (2, id));
        assert_eq!(world.read("c1", B).await, 7);
    }
}

#[tokio::test]
async fn what_failed_is_tried_again_when_it_is_resumed() {
    let world = World::six().await;
    world.write("c4", B, 7).await;
    let id = world.start(plain(&["2"])).await;
    world.fleet.switch_wave(id, 0).await.unwrap();
    let error = world.fleet.switch_wave(id, 1).await.unwrap_err();
    world.fleet.fail(&world.operation(id), &error.to_string()).await.unwrap();
    let (state, next) = world.at(id);
    assert!(matches!(&state, OperationState::Halted { why } if why.contains("c4")), "{state:?}");
    assert_eq!((next, world.versions()), (Next::Wave(1), vec![2, 2, 1, 1, 1, 1]));
    assert!(world.fleet.switch_wave(id, 1).await.is_err(), "it stands still");
    assert!(world.fleet.pause(id).await.is_err());
    world.fleet.remove_clones(names(&["c4"])).await.unwrap();
    world.fleet.resume(id).await.unwrap();
    world.fleet.switch_wave(id, 1).await.unwrap();
    assert_eq!((world.at(id).0, world.versions()), (OperationState::Done, vec![2, 2, 2, 2, 0, 2]));
}

/// A step that was refused because the operation stood still is no failure when it goes on.
#[tokio::test]
async fn an_operation_that_goes_on_again_is_not_halted_for_what_failed_before() {
    let world = World::six().await;
    let id = world.start(plain(&["2"])).await;
    let tried = world.operation(id);
    world.clock.advance(Duration::from_secs(1));
    world.fleet.pause(id).await.unwrap();
    let error = world.fleet.switch_wave(id, 0).await.unwrap_err();
    world.fleet.resume(id).await.unwrap();
    let refused = world.fleet.fail(&tried, &error.to_string()).await.unwrap_err();
    assert_eq!((refused.kind(), world.at(id)), (ErrorKind::Conflict, active(Next::Wave(0))));
    world.fleet.switch_wave(id, 0).await.unwrap();
}

#[tokio::test]
async fn a_failure_after_a_wave_rolls_back_if_that_was_chosen() {
    let world = World::six().await;
    let rollout = Rollout { on_failure: OnFailure::Rollback, ..gated(&[]).rollout };
    let id = world.start(NewOperation { rollout, ..gated(&["1"]) }).await;
    world.fleet.fail(&world.operation(id), "nothing is done yet").await.unwrap();
    assert!(matches!(world.at(id).0, OperationState::Halted { .. }));
    world.fleet.resume(id).await.unwrap();
    world.fleet.switch_wave(id, 0).await.unwrap();
    world.fleet.fail(&world.operation(id), "no").await.unwrap();
    assert_eq!(world.at(id), (OperationState::RollingBack { why: "no".into() }, Next::Gate(0)));
    world.fleet.fail_rollback(id, "no; nor that").await.unwrap();
    assert_eq!(world.at(id), (OperationState::Halted { why: "no; nor that".into() }, Next::Gate(0)));
}

#[tokio::test]
async fn paused_operations_stand_still_and_ended_ones_stay_ended() {
    let mut world = World::six().await;
    let id = world.start(gated(&["1"])).await;
    world.fleet.pause(id).await.unwrap();
    world.crash().await;
    assert_eq!(world.at(id), (OperationState::Paused, Next::Wave(0)));
    assert_eq!(world.fleet.switch_wave(id, 0).await.unwrap_err().kind(), ErrorKind::Conflict);
    world.fleet.pause(id).await.unwrap();
    world.fleet.resume(id).await.unwrap();
    world.fleet.resume(id).await.unwrap();
    world.fleet.switch_wave(id, 0).await.unwrap();
    world.fleet.abort(id).await.unwrap();
    assert_eq!(world.versions(), [2, 1, 1, 1, 1, 1], "what is switched stays");
    let refusals = [world.fleet.pause(id).await, world.fleet.resume(id).await, world.fleet.abort(id).await];
    for refused in refusals {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.what().contains(&id.to_string()), "{refused}");
    }
    let unknown = world.fleet.pause(OperationId(1)).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn scheduled_clones_are_staged_until_their_wave_or_an_abort() {
    let mut world = World::six().await;
    let at = Time::new(world.catalog.now().secs + 3600, 0);
    for aborted in [true, false] {
        let id = world.start(NewOperation { at: Some(at), ..plain(&["2"]) }).await;
        world.crash().await;
        assert_eq!(world.at(id), active(Next::Start));
        let staged = world.get("c5").staged.clone().unwrap();
        assert_eq!((staged.version, staged.operation, staged.at), (2, id, Some(at)));
        assert_eq!(world.kind_of_repoint(names(&["c5"])).await, Some(ErrorKind::Conflict));
        let refused = world.fleet.unstage(names(&["c5"])).await.unwrap_err();
        assert!(refused.remedy_text().unwrap().contains(&format!("mimeo ops abort {id}")), "{refused}");
        if aborted {
            world.fleet.abort(id).await.unwrap();
            assert!(SIX.iter().all(|name| world.get(name).staged.is_none()));
            continue;
        }
        world.fleet.begin(id).await.unwrap();
        world.fleet.switch_wave(id, 0).await.unwrap();
        let waiting = SIX.map(|name| world.get(name).staged.is_some());
        assert_eq!((waiting, world.versions()), ([false, false, true, true, true, true], vec![2, 2, 1, 1, 1, 1]));
    }
}

pub(super) fn on_mount() -> SwitchPolicy {
    SwitchPolicy { activation: Some(Activation::OnMount), ..SwitchPolicy::default() }
}

#[tokio::test]
async fn on_mount_stages_and_the_activation_is_part_of_the_same_operation() {
    let mut world = World::six().await;
    world.write("c2", A, 100).await;
    let plan = RepointPlan { policy: on_mount(), ..to("os", 2, CloneTarget::All, Writes::Keep) };
    let done = world.fleet.repoint(plan).await.unwrap();
    world.crash().await;
    assert_eq!((done.outcome.switched(), done.outcome.count(&[Fate::Staged]), world.versions()), (0, 6, vec![1; 6]));
    let staged = world.get("c0").staged.clone().unwrap();
    assert_eq!((staged.at, staged.operation), (None, done.operation));
    let activated = world.fleet.activate(names(&["c0"])).await.unwrap().remove(0).outcome.unwrap();
    assert_eq!((activated.operation, activated.outcome.switched()), (done.operation, 1));
    assert!(world.get("c0").staged.is_none());
    assert_eq!(world.get("c0").pins[0].operation, done.operation);
    assert_eq!(world.catalog.state().operations().count(), 1);
    world.fleet.abort(done.operation).await.unwrap();
    assert!(SIX.iter().all(|name| world.get(name).staged.is_none()), "those that waited still are withdrawn");
    assert_eq!(world.versions(), [2, 1, 1, 1, 1, 1]);
}

#[tokio::test]
async fn each_clone_waits_for_its_mount_if_it_or_its_image_says_so() {
    let world = World::six().await;
    let edits = crate::image::SwitchEdits { activation: Some(Some(Activation::OnMount)), ..Default::default() };
    let set = crate::image::PolicyEdits { switch: edits, ..Default::default() };
    world.catalog.set_clones(names(&["c3"]), set).await.unwrap();
    let done = world.repoint(2, select("pool=a"), Writes::Keep).await.unwrap();
    assert_eq!(
        (done.outcome.switched(), done.outcome.count(&[Fate::Staged]), world.versions()),
        (5, 1, vec![2, 2, 2, 1, 2, 2])
    );
    let live = SwitchPolicy { activation: Some(Activation::Live), ..SwitchPolicy::default() };
    let plan = RepointPlan { policy: live, ..to("os", 2, CloneTarget::All, Writes::Keep) };
    assert_eq!(world.fleet.repoint(plan).await.unwrap().outcome.switched(), 1, "the operation has the first word");
    assert!(world.get("c3").staged.is_none());
}

#[tokio::test]
async fn a_restore_is_an_operation_and_can_be_undone() {
    let mut world = World::six().await;
    world.snapshot("c0", "clean").await.unwrap();
    world.write("c0", A, 100).await;
    let done = world.fleet.on_behalf_of("uid 7").restore("c0", "clean").await.unwrap();
    world.crash().await;
    let operation = world.operation(done.operation);
    assert_eq!((operation.kind, &*operation.who), (OperationKind::Restore, "uid 7"));
    assert_eq!(operation.finished().collect::<Vec<_>>(), [(done.clone.id, Fate::Restored)]);
    assert_eq!(world.read("c0", A).await, 1);
    world.fleet.rollback(done.operation, 0).await.unwrap();
    assert_eq!(world.read("c0", A).await, 100);
}

#[tokio::test]
async fn a_rollback_leaves_what_another_operation_is_to_switch() {
    let world = World::six().await;
    let first = world.repoint(2, names(&["c0", "c1"]), Writes::Keep).await.unwrap().operation;
    let repoint = to("os", 1, names(&["c1"]), Writes::Keep);
    let planned = world.start(NewOperation { repoint, ..gated(&[]) }).await;
    let refused = world.fleet.rollback(first, 0).await.unwrap_err();
    assert!(refused.what().contains("\"c1\"") && refused.what().contains(&planned.to_string()), "{refused}");
    let done = world.fleet.rollback(first, 1).await.unwrap();
    assert_eq!((done.restored.len(), done.left.len(), world.versions()), (1, 1, vec![1, 2, 1, 1, 1, 1]));
}

#[tokio::test]
async fn a_version_that_is_gone_is_a_reason_to_halt() {
    let world = World::six().await;
    let id = world.start(plain(&["1"])).await;
    world.catalog.remove_version("os@v2".parse().unwrap()).await.unwrap();
    let error = world.fleet.switch_wave(id, 0).await.unwrap_err();
    assert!(error.what().contains("os@v2"), "{error}");
    assert_eq!((world.at(id), world.versions()), (active(Next::Wave(0)), vec![1; 6]));
}

#[tokio::test]
async fn ended_operations_are_forgotten_by_number_and_age_but_not_in_their_window() {
    let day = Duration::from_secs(24 * 3600);
    let world = World::six().await;
    let keep = Retention { operations: 2, age: 30 * day, window: 7 * day };
    let mut made = Vec::new();
    for number in [2, 1, 2, 1] {
        made.push(world.repoint(number, CloneTarget::All, Writes::Keep).await.unwrap().operation);
    }
    let halted = world.start(gated(&["1"])).await;
    world.fleet.fail(&world.operation(halted), "no").await.unwrap();
    let left = || world.catalog.state().operations().map(|operation| operation.id).collect::<Vec<_>>();
    assert_eq!(world.fleet.forget_operations(keep).await.unwrap(), 0, "all may yet be rolled back");
    world.clock.advance(8 * day);
    assert_eq!(world.fleet.forget_operations(keep).await.unwrap(), 2);
    assert_eq!(left(), [made[2], made[3], halted]);
    world.clock.advance(30 * day);
    assert_eq!(world.fleet.forget_operations(keep).await.unwrap(), 2);
    assert_eq!(left(), [halted], "it has not ended");
}

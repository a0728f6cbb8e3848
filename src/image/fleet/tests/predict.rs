//! Predictions of operations. Method: what is predicted is compared, field by field, with the record that the steps
//! of the operation then leave, taken as the daemon takes them.

use super::operations::{gated, plain};
use super::world::{A, B, World, select, to};
use super::*;
use crate::image::policy::{Activation, SwitchPolicy};
use crate::image::{
    Fate, Next, OnFailure, OperationId, OperationRecord, OperationState, RepointOutcome, RepointPlan, Rollout,
    VersionRef, Writes, wave_failure,
};

impl World {
    /// Until the operation stands still; every gate is passed.
    async fn run_to_end(&self, id: OperationId) -> Arc<OperationRecord> {
        loop {
            let operation = self.catalog.state().operation(id).unwrap().clone();
            match operation.next {
                _ if operation.state != OperationState::Active => return operation,
                Next::Start => self.fleet.begin(id).await.unwrap(),
                Next::Gate(wave) => self.fleet.pass_gate(id, wave).await.unwrap(),
                Next::Wave(wave) => {
                    if let Err(error) = self.fleet.switch_wave(id, wave).await {
                        self.fleet.fail(&operation, &wave_failure(wave, &error)).await.unwrap();
                    }
                }
                Next::Nothing => unreachable!("it goes on"),
            }
        }
    }
}

const FIXED: [&str; 6] = ["c0", "c1", "c2", "c3", "c4", "c5"];

/// `c0` to `c5`; what c1 and c4 wrote conflicts with v2, what c2 wrote does not.
async fn written() -> World {
    let world = World::six().await;
    for (clone, ino) in [("c1", B), ("c4", B), ("c2", A)] {
        world.write(clone, ino, 7).await;
    }
    world
}

#[tokio::test]
async fn an_operation_comes_to_what_was_predicted() {
    let (rollback, on_mount) = (OnFailure::Rollback, Some(Activation::OnMount));
    for (max_failures, on_failure, activation, waves) in [
        (0, OnFailure::Halt, None, &["1", "50%"][..]),
        (1, OnFailure::Halt, None, &["2", "1"]),
        (2, OnFailure::Halt, None, &["2", "1"]),
        (1, rollback, None, &["3"]),
        (0, rollback, None, &["3"]),
        (0, OnFailure::Halt, on_mount, &["1"]),
        (9, OnFailure::Halt, None, &[]),
    ] {
        for at in [None, Some(crate::env::Time::new(1_800_000_500, 0))] {
            let world = written().await;
            let policy = SwitchPolicy { activation, ..Writes::Keep.into() };
            let repoint = RepointPlan { max_failures, policy, ..to("os", 2, CloneTarget::All, Writes::Keep) };
            let rollout = Rollout { on_failure, ..gated(&[]).rollout };
            let new = NewOperation { repoint, rollout, at, ..gated(waves) };
            let before = (world.catalog.state().rev(), world.log.count_commits());
            let predicted = world.fleet.predict_operation(&new).await.unwrap();
            assert_eq!((world.catalog.state().rev(), world.log.count_commits()), before, "nothing comes of it");
            assert_eq!(predicted.outcome.clones.len(), 6);
            let ran = world.run_to_end(world.fleet.start(new).await.unwrap().id).await;
            let predicted = OperationRecord { id: ran.id, ..OperationRecord::clone(&predicted.operation) };
            assert_eq!(predicted, *ran, "{max_failures} {on_failure:?} {activation:?} {waves:?}");
        }
    }
}

/// The failures of all waves are added up; the waves before the one that is too many are switched.
#[tokio::test]
async fn a_prediction_says_which_wave_halts() {
    let world = written().await;
    let repoint = RepointPlan { max_failures: 1, ..to("os", 2, CloneTarget::All, Writes::Keep) };
    let new = NewOperation { repoint, ..plain(&["2", "2"]) };
    let predicted = world.fleet.predict_operation(&new).await.unwrap().operation;
    assert!(
        matches!(&predicted.state, OperationState::Halted { why } if why.starts_with("wave 3") && why.contains("c4")),
        "{:?}",
        predicted.state
    );
    let count = |fate| predicted.count(&[fate]);
    assert_eq!((predicted.next, predicted.outcomes.len()), (Next::Wave(2), 2));
    assert_eq!((count(Fate::Switched), count(Fate::Kept), count(Fate::Conflicts)), (2, 1, 1));
}

#[tokio::test]
async fn what_would_be_refused_is_refused_with_the_same_words() {
    let world = written().await;
    let nobody = RepointPlan { target: select("pool=b"), ..plain(&[]).repoint };
    let running = world.fleet.start(NewOperation { repoint: to("os", 2, names(&["c5"]), Writes::Keep), ..gated(&[]) });
    running.await.unwrap();
    for new in [
        plain(&["ring=tpyo"]),
        plain(&["1"]),
        NewOperation { repoint: nobody, ..plain(&["1"]) },
        NewOperation { rollout: Rollout { gate_timeout_secs: 0, ..Rollout::default() }, ..plain(&["1"]) },
    ] {
        let predicted = world.fleet.predict_operation(&new).await.map(|predicted| predicted.operation);
        let refused = world.fleet.start(new).await.unwrap_err();
        assert_eq!(predicted.unwrap_err().to_string(), refused.to_string());
    }
}

/// Of three dry runs and what was done meanwhile: who is told to have moved.
#[tokio::test]
async fn clones_that_moved_since_the_dry_run_are_named() {
    let world = World::six().await;
    let plan = || to("os", 2, CloneTarget::All, Writes::Keep);
    let moved = |outcome: &RepointOutcome| {
        let moved = outcome.clones.iter().filter(|clone| clone.moved);
        moved.map(|clone| clone.name.to_string()).collect::<Vec<_>>()
    };
    world.write("c1", A, 7).await;
    world.fleet.predict(&plan()).await.unwrap();
    world.write("c1", A, 8).await;
    world.write("c4", A, 8).await;
    world.repoint(2, names(&["c2"]), Writes::Keep).await.unwrap();
    let other = RepointPlan { max_failures: 1, ..plan() };
    let predicted = world.fleet.predict(&other).await.unwrap().outcome;
    assert_eq!(moved(&predicted), [""; 0]);
    let done = world.fleet.repoint(plan()).await.unwrap();
    assert_eq!(moved(&done.outcome), ["c1", "c2", "c4"]);
    let again = world.fleet.repoint(RepointPlan { to: VersionRef::number("os", 1), ..plan() }).await.unwrap();
    assert_eq!(moved(&again.outcome), [""; 0], "there was no dry run of this one");

    let new = NewOperation { repoint: to("os", 2, CloneTarget::All, Writes::Discard), ..plain(&["2"]) };
    world.fleet.predict_operation(&new).await.unwrap();
    world.write("c5", A, 9).await;
    let id = world.fleet.start(new.clone()).await.unwrap().id;
    world.write("c0", A, 9).await;
    let ran = world.run_to_end(id).await;
    let state = world.catalog.state();
    let told = |(wave, name): (usize, &&str)| ran.outcomes[wave].why(state.find_clone(name).unwrap().id).is_some();
    let told = |wave| FIXED.iter().filter(|name| told((wave, name))).copied().collect::<Vec<_>>();
    assert_eq!((told(0), told(1)), (vec!["c0"], vec!["c5"]));
    world.repoint(1, CloneTarget::All, Writes::Discard).await.unwrap();
    let second = world.run_to_end(world.fleet.start(new).await.unwrap().id).await;
    assert!(second.outcomes.iter().all(|outcome| outcome.whys.is_empty()), "a dry run is of one run");
}

//! Goal: what callers of the catalog rely on: groups, isolation, reruns, unknown outcomes, identifiers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::chunk::ChunkId;
use crate::env::{ManualClock, SeededRng, SimDisk, Time};
use crate::image::log::{Fault, MemoryCatalogLog, Rev};
use crate::image::record::VersionNumber;
use crate::image::{
    ChangeSet, CloneTarget, Export, LabelEdits, Labels, NewClones, NewVersion, SwitchEdits, VersionRef,
};

const START: u64 = 1_800_000_000;

fn env(clock: &Arc<ManualClock>) -> Env {
    Env { disk: Arc::new(SimDisk::new(1)), clock: clock.clone(), rng: Arc::new(SeededRng::new(1)) }
}

async fn open(log: &MemoryCatalogLog, clock: &Arc<ManualClock>) -> Arc<Catalog> {
    Catalog::open(Arc::new(log.clone()), env(clock)).await.unwrap()
}

async fn fresh() -> (MemoryCatalogLog, Arc<ManualClock>, Arc<Catalog>) {
    let (log, clock) = (MemoryCatalogLog::new(), Arc::new(ManualClock::at_secs(START)));
    let catalog = open(&log, &clock).await;
    (log, clock, catalog)
}

async fn add_version(catalog: &Catalog, image: &str) -> VersionNumber {
    let image = catalog.create_or_get_image(image, Labels::new()).await.unwrap().id;
    let new = NewVersion {
        image,
        manifest: ChunkId::of(b"tree"),
        created: Time::new(1, 0),
        source: "/src".into(),
        author: "me".into(),
        labels: Labels::new(),
        consistency: "unknown".into(),
        inodes: 1,
        bytes_logical: 0,
        bytes_stored: 0,
        bytes_added: 0,
    };
    catalog.add_version(new).await.unwrap().number
}

fn clones(image: &str, names: &[&str]) -> NewClones {
    let names = names.iter().map(|&n| n.to_owned()).collect();
    NewClones { version: VersionRef::newest(image), names, labels: Labels::parse(["pool=a"]).unwrap() }
}

fn names(names: &[&str]) -> CloneTarget {
    CloneTarget::Names(names.iter().map(|&name| name.to_owned()).collect())
}

#[tokio::test]
async fn a_new_store_has_an_identity_that_stays() {
    let (log, clock, catalog) = fresh().await;
    let first = catalog.state().store().unwrap().clone();
    assert_eq!(first.handle_keys.len(), 1);
    assert_eq!(first.handle_keys[0].0, 1);
    assert_ne!(first.store_id, [0; 16]);
    drop(catalog);
    assert_eq!(open(&log, &clock).await.state().store().unwrap(), &first);
}

#[tokio::test]
async fn callers_that_wait_together_share_a_commit() {
    let (log, _, catalog) = fresh().await;
    let before = log.count_commits();
    let callers = (0..16).map(|i| {
        let catalog = catalog.clone();
        async move { catalog.create_or_get_image(&format!("image-{i}"), Labels::new()).await.unwrap() }
    });
    futures_util::future::join_all(callers).await;
    assert_eq!(catalog.state().images().count(), 16);
    // One caller may go alone; the others gather while its change set is made.
    assert!(log.count_commits() - before <= 3, "{} commits", log.count_commits() - before);
}

#[tokio::test]
async fn a_failing_closure_leaves_no_trace_and_hurts_nobody() {
    let (_, _, catalog) = fresh().await;
    add_version(&catalog, "os").await;
    let failing = catalog.transact("fail late", |draft| {
        let (id, name) = (crate::image::ImageId(draft.new_id()?), "half-made");
        let image = crate::image::ImageRecord { id, name: name.into(), ..draft.find_image("os")?.as_ref().clone() };
        draft.apply(Change::PutImage(image))?;
        Err::<(), _>(Error::invalid("changed my mind"))
    });
    let panicking = catalog.transact::<()>("panic", |_| panic!("a bug, on purpose"));
    let good = catalog.create_clones(clones("os", &["a"]));
    let (failed, panicked, made) = tokio::join!(failing, panicking, good);
    assert_eq!(failed.unwrap_err().what(), "changed my mind");
    assert_eq!(panicked.unwrap_err().kind(), ErrorKind::Internal);
    made.unwrap();
    assert!(catalog.state().image_named("half-made").is_none());
}

#[tokio::test]
async fn who_is_overtaken_runs_again_on_the_newer_state() {
    let (log, clock, ours) = fresh().await;
    let theirs = open(&log, &clock).await;
    add_version(&theirs, "os").await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let seen = ours
        .transact("look", move |draft| {
            counted.fetch_add(1, Ordering::SeqCst);
            draft.new_id()?;
            Ok(draft.image_named("os").is_some())
        })
        .await
        .unwrap();
    assert!(seen, "the second run sees what the other front end did");
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    let taken = ours.create_clones(clones("os", &["a"])).await.unwrap();
    let error = theirs.create_clones(clones("os", &["a"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert_eq!(theirs.state().clone_named("a").unwrap().id, taken[0].id);
}

#[tokio::test]
async fn an_unknown_outcome_is_settled_before_anybody_is_answered() {
    for faults in [
        &[Fault::UnknownDone][..],
        &[Fault::UnknownLost],
        &[Fault::UnknownLost, Fault::UnknownDone],
        &[Fault::Refuse, Fault::UnknownDone],
    ] {
        let (log, clock, catalog) = fresh().await;
        add_version(&catalog, "os").await;
        let rev = catalog.state().rev();
        log.inject(faults.iter().copied());
        let made = catalog.create_clones(clones("os", &["a", "b"])).await.unwrap();
        assert_eq!(catalog.state().rev(), rev.next(), "{faults:?}: applied once");
        assert_eq!(catalog.state().clone_named("a"), Some(&made[0]), "{faults:?}");
        assert_eq!(*open(&log, &clock).await.state(), *catalog.state(), "{faults:?}");
    }
}

#[tokio::test]
async fn a_log_that_fails_leaves_the_state_and_says_so() {
    let (log, _, catalog) = fresh().await;
    add_version(&catalog, "os").await;
    let before = catalog.state();
    log.inject([Fault::Fail]);
    let error = catalog.create_clones(clones("os", &["a"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("as told"), "{error}");
    assert_eq!(*catalog.state(), *before);

    // Never a word from the log whether it took it, although it did: the next change finds out.
    log.inject([Fault::UnknownLost; 7].into_iter().chain([Fault::UnknownDone]));
    assert_eq!(catalog.create_clones(clones("os", &["b"])).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let after = catalog.create_clones(clones("os", &["c"])).await.unwrap();
    let state = catalog.state();
    assert!(state.clone_named("b").is_some());
    assert_ne!(state.clone_named("b").unwrap().id, after[0].id);
}

/// 70,000 identifiers one by one, which takes two grants, and a range.
async fn take_ids(catalog: &Catalog) -> Vec<u64> {
    let single = catalog.transact("ids", |draft| (0..70_000).map(|_| draft.new_id()).collect::<Result<Vec<_>>>());
    let (mut ids, range) = tokio::try_join!(single, catalog.id_range(1000)).unwrap();
    ids.extend(range);
    ids
}

#[tokio::test]
async fn identifiers_are_never_handed_out_twice() {
    let (log, clock, first) = fresh().await;
    let backup = log.copy();
    let mut ids = take_ids(&first).await;
    for step_back in [0, 1, 100] {
        clock.set_secs(START - step_back);
        ids.extend(take_ids(open(&log, &clock).await.as_ref()).await);
        ids.extend(take_ids(&first).await);
    }
    // The backup knows nothing of all these, but the time is later.
    clock.set_secs(START + 1);
    ids.extend(take_ids(open(&backup, &clock).await.as_ref()).await);

    assert_eq!(ids.len(), 8 * 71_000);
    assert!(ids.iter().all(|id| *id >= crate::image::FIRST_ID));
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    assert!(first.id_range(0).await.is_err());
    assert!(first.id_range(MAX_ID_RANGE + 1).await.is_err());
}

#[tokio::test]
async fn clones_are_created_all_or_none() {
    let (_, _, catalog) = fresh().await;
    add_version(&catalog, "os").await;
    catalog.create_clones(clones("os", &["b"])).await.unwrap();
    for (names, kind, named) in [
        (&["a", "b"][..], ErrorKind::Exists, "\"b\""),
        (&["a", "c", "a"], ErrorKind::Invalid, "\"a\""),
        (&["a", "x/y"], ErrorKind::Invalid, "slash"),
        (&[], ErrorKind::Invalid, "no clone"),
    ] {
        let error = catalog.create_clones(clones("os", names)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.what().contains(named), "{error}");
    }
    assert_eq!(catalog.create_clones(clones("nope", &["a"])).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(catalog.state().clone_count(), 1);
}

#[tokio::test]
async fn versions_grow_in_number_and_time_and_can_always_be_removed() {
    let (_, _, catalog) = fresh().await;
    assert_eq!([add_version(&catalog, "os").await, add_version(&catalog, "os").await], [1, 2]);
    let state = catalog.state();
    let image = state.image_named("os").unwrap().id;
    let exports = [1, 2].map(|n| state.version(image, n).unwrap().export);
    assert!(state.version(image, 2).unwrap().created > state.version(image, 1).unwrap().created);
    catalog.tag(VersionRef::number("os", 2), "stable").await.unwrap();
    catalog.create_clones(clones("os", &["a"])).await.unwrap();

    let refused = catalog.remove_image("os").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.remedy_text().is_some());
    catalog.remove_version("os@stable".parse().unwrap()).await.unwrap();
    let state = catalog.state();
    assert!(state.export(exports[1]).is_none() && matches!(state.export(exports[0]), Some(Export::Version(_))));
    assert!(state.version(image, 2).is_some_and(|version| version.removed), "the clone still reads it");
    assert!(state.image_named("os").unwrap().tags.is_empty());
    assert_eq!(catalog.remove_version(VersionRef::number("os", 2)).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(add_version(&catalog, "os").await, 3);

    let remove = |draft: &mut Draft| draft.apply(Change::RemoveClone(draft.find_clone("a")?.id));
    catalog.transact("remove a clone", remove).await.unwrap();
    assert!(catalog.state().version(image, 2).is_none());
    catalog.remove_image("os").await.unwrap();
    assert_eq!((catalog.state().images().count(), catalog.state().versions().count()), (0, 0));
}

#[tokio::test]
async fn labels_and_tags_are_edited() {
    let (_, _, catalog) = fresh().await;
    add_version(&catalog, "os").await;
    catalog.create_clones(clones("os", &["a", "b"])).await.unwrap();
    let edits = LabelEdits::parse(["tier=gold", "pool-"]).unwrap();
    let edited = catalog.label_clones(names(&["b"]), edits.clone()).await.unwrap();
    assert_eq!(edited[0].labels.to_string(), "tier=gold");
    assert_eq!(catalog.state().clone_named("a").unwrap().labels.to_string(), "pool=a");
    let unknown = catalog.label_clones(names(&["a", "c"]), edits.clone()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    assert_eq!(
        catalog.set_image("os", edits, Vec::new(), SwitchEdits::default()).await.unwrap().labels.to_string(),
        "tier=gold"
    );

    assert_eq!(catalog.tag(VersionRef::newest("os"), "stable").await.unwrap().tags["stable"], 1);
    assert!(catalog.tag(VersionRef::newest("os"), "v7").await.is_err());
    assert!(catalog.tag(VersionRef::number("os", 2), "next").await.is_err());
    let untag = |tags: &[&str]| tags.iter().map(ToString::to_string).collect::<Vec<_>>();
    let half_wrong = catalog
        .set_image("os", LabelEdits::parse::<&str>([]).unwrap(), untag(&["stable", "nope"]), SwitchEdits::default())
        .await;
    assert_eq!(half_wrong.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(catalog.state().image_named("os").unwrap().tags.len(), 1, "all or nothing");
    assert!(
        catalog
            .set_image("os", LabelEdits::parse::<&str>([]).unwrap(), untag(&["stable"]), SwitchEdits::default())
            .await
            .unwrap()
            .tags
            .is_empty()
    );
}

#[tokio::test]
async fn a_closed_catalog_refuses_changes_and_has_nothing_to_replay() {
    let (log, _, catalog) = fresh().await;
    add_version(&catalog, "os").await;
    catalog.close().await.unwrap();
    assert_eq!(log.backlog().sets, 0);
    let refused = catalog.create_clones(clones("os", &["a"])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(catalog.close().await.is_err());
    assert_eq!(catalog.state().images().count(), 1, "reading goes on");
}

#[tokio::test]
async fn a_long_log_is_saved_by_itself() {
    let (log, _, catalog) = fresh().await;
    // Somebody else's 5,000 small change sets; ours makes the committer look.
    for rev in 1..5000 {
        let grant = Change::GrantIds { next: u64::MAX / 2 + rev };
        log.commit(Rev(rev), Arc::new(ChangeSet { changes: vec![grant] })).await.unwrap();
    }
    assert!(log.backlog().sets >= 5000);
    add_version(&catalog, "os").await;
    let saved = async {
        while log.backlog().sets >= 4096 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), saved).await.unwrap();
}

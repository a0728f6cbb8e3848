//! Goal: private writes over other versions where several switches, deep trees, or handles that somebody holds
//! come together: what no single row of the table in docs/semantics.md can tell.

use std::path::PathBuf;

use mimeo::error::Result;
use mimeo::image::{CloneTarget, NewSnapshot, OnConflict, RepointPlan, VersionRef, Writes};
use mimeo::vfs::{Object, Place, Vfs};

use crate::rebase::{base, clean, expect, in_the_clone, in_the_image, plan, put};
use crate::world::World;

/// A clone of an image's first version, and the folder of which the next is made.
struct Desk {
    world: World,
    source: PathBuf,
    root: Object,
    version: u32,
}

impl Desk {
    async fn new() -> Self {
        let world = World::new().await;
        let source = world.source("img");
        base(&source);
        Self::over(world, source).await
    }

    async fn over(world: World, source: PathBuf) -> Self {
        world.import("img", &source).await.unwrap();
        let root = world.clone_of("img", "desk").await;
        Self { world, source, root, version: 1 }
    }

    async fn steps(&self, steps: &[&str]) {
        for step in steps {
            in_the_clone(&self.world, self.root, step).await;
        }
    }

    /// Import what `steps` make of the image, and repoint to it; the dry run says before what is done.
    async fn next(&mut self, steps: &[&str], how: impl FnOnce(RepointPlan) -> RepointPlan) -> Result<()> {
        steps.iter().for_each(|step| in_the_image(&self.source, step));
        self.world.import("img", &self.source).await.unwrap();
        self.version += 1;
        let plan = how(plan("img", "desk", self.version, OnConflict::Stop));
        let predicted = self.world.fleet.predict(&plan).await.unwrap();
        let done = self.world.fleet.repoint(plan).await;
        assert_eq!(predicted.refused.is_some(), done.is_err(), "{predicted:?}");
        let done = done?;
        assert_eq!(done.outcome, predicted.outcome);
        clean(&self.world, 0).await;
        Ok(())
    }

    async fn keep(&mut self, steps: &[&str], conflict: OnConflict) -> Result<()> {
        let number = self.version + 1;
        self.next(steps, |_| plan("img", "desk", number, conflict)).await
    }

    async fn with(&mut self, steps: &[&str], writes: Writes) -> Result<()> {
        self.next(steps, |plan| plan.with(writes)).await
    }

    async fn expect(&self, cell: &str) {
        expect(&self.world, self.root, cell, 0).await;
    }

    async fn find(&self, path: &str) -> Object {
        self.world.find(self.root, path).await.unwrap()
    }
}

fn preserve(paths: &[&str]) -> Writes {
    Writes::parse("preserve", &paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>()).unwrap()
}

/// Directories within each other: more than a thread's stack has room for, at a call each.
const DEEP: usize = 1900;

fn deep() -> String {
    vec!["d"; DEEP].join("/")
}

async fn deep_desk() -> Desk {
    let world = World::new().await;
    let source = world.source("img");
    std::fs::create_dir_all(source.join(deep())).unwrap();
    std::fs::write(source.join("a"), b"base").unwrap();
    Desk::over(world, source).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_folder_that_the_image_removed_is_there_for_what_the_clone_has_in_it() {
    for winner in [OnConflict::CloneWins, OnConflict::ImageWins] {
        let mut desk = deep_desk().await;
        let mine = deep() + "/mine";
        desk.steps(&[&format!("new {mine}")]).await;
        desk.keep(&["rmtree d"], OnConflict::Stop).await.unwrap_err();
        desk.keep(&["nothing"], winner).await.unwrap();
        let top = if winner == OnConflict::CloneWins { "d" } else { "d.clone-v1" };
        desk.expect(&format!("{top}{}=clone", &mine[1..])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_folder_that_the_clone_removed_comes_back_with_what_the_image_has_in_it() {
    let mut desk = deep_desk().await;
    let mut dirs = vec![desk.root];
    for at in 0..DEEP {
        dirs.push(desk.world.find(dirs[at], "d").await.unwrap());
    }
    for dir in dirs.into_iter().rev().skip(1) {
        desk.world.run(|vfs, rq| vfs.rmdir(rq, Place { dir, name: b"d" })).await.unwrap();
    }
    let theirs = deep() + "/theirs";
    desk.keep(&[&format!("new {theirs}")], OnConflict::ImageWins).await.unwrap();
    desk.expect(&format!("{theirs}=image")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_folder_of_the_clone_is_preserved() {
    let mut desk = Desk::new().await;
    let mut dir = desk.root;
    for _ in 0..DEEP {
        let made = desk.world.run(|vfs, rq| {
            let (new, attr) = (mimeo::vfs::NewObject::Directory, mimeo::vfs::NewAttr::default());
            vfs.make(rq, Place { dir, name: b"d" }, new, attr)
        });
        dir = made.await.unwrap().object.unwrap().0;
    }
    desk.with(&["write a"], preserve(&["d"])).await.unwrap();
    desk.expect(&format!("{}/ a=image", deep())).await;
}

/// A file that comes back because not all removals of its names are preserved is another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_file_that_is_not_preserved_comes_back_as_another() {
    let mut desk = Desk::new().await;
    let held = desk.find("tw1").await;
    desk.steps(&["write tw1", "rm tw1", "rm tw2"]).await;
    assert!(desk.world.attr(held).await.is_err(), "removed");
    desk.with(&["nothing"], preserve(&["tw1"])).await.unwrap();
    desk.expect("-tw1 tw2=base").await;
    assert_ne!(desk.find("tw2").await, held);
    assert!(desk.world.attr(held).await.is_err(), "the old handle stays dead");
}

/// What a private name hides counts no links, also those that later versions give it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_counts_no_links_in_later_versions() {
    for (first, second, name) in
        [(&["mkdir n", "new n/k"][..], "ln n/k x", "x"), (&["mkdir n", "mkdir n/m"], "ln a n/m/k", "a")]
    {
        let mut desk = Desk::new().await;
        desk.steps(&["new n"]).await;
        desk.keep(first, OnConflict::CloneWins).await.unwrap();
        desk.keep(&[second], OnConflict::CloneWins).await.unwrap();
        desk.expect("n=clone").await;
        let seen = desk.find(name).await;
        assert_eq!(desk.world.attr(seen).await.unwrap().nlink, 1, "{name}");
        desk.steps(&[&format!("rm {name}")]).await;
        assert!(desk.world.attr(seen).await.is_err(), "its last name was removed");
    }
}

/// What was written and removed before it came back is no change of the clone's.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_came_back_is_the_images() {
    let mut desk = Desk::new().await;
    desk.steps(&["write a"]).await;
    let snapshot = NewSnapshot {
        target: CloneTarget::Names(vec!["desk".into()]),
        name: "s".into(),
        labels: mimeo::image::Labels::default(),
    };
    desk.world.fleet.snapshot(snapshot).await.unwrap();
    desk.world.fleet.restore("desk", "s").await.unwrap();
    desk.steps(&["rm a"]).await;
    desk.keep(&["chmod a"], OnConflict::ImageWins).await.unwrap();
    desk.expect("a=base a:640").await;
    desk.keep(&["write a"], OnConflict::Stop).await.unwrap();
    desk.expect("a=image").await;
}

/// A folder that was removed is stale, whatever former views have.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_folder_does_not_live_on_in_a_former_view() {
    let mut desk = Desk::new().await;
    desk.steps(&["new dir/n"]).await;
    let held = desk.find("dir").await;
    desk.with(&["write a"], Writes::Discard).await.unwrap();
    assert!(desk.world.attr(held).await.is_ok());
    desk.steps(&["rmtree dir"]).await;
    assert!(desk.world.attr(held).await.is_err(), "removed");
}

/// Below a renamed folder, too, both its places have to be preserved.
#[tokio::test(flavor = "multi_thread")]
async fn what_lies_below_a_renamed_folder_is_preserved_where_it_is_or_not_at_all() {
    for path in ["d/x", "d/n"] {
        let mut desk = Desk::new().await;
        desk.steps(&["mv dir d", "write d/x", "new d/n"]).await;
        let refused = desk.with(&["nothing"], preserve(&[path])).await.unwrap_err();
        assert!(refused.to_string().contains("renamed"), "{path}: {refused}");
        desk.with(&["nothing"], preserve(&[path, "d", "dir"])).await.unwrap();
        desk.expect("d/x=clone d/n=clone -dir").await;
    }
}

/// A clone without room for one more switch stays alone, and the command that it names makes room.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_kept_its_writes_too_often_stays_alone() {
    let mut desk = Desk::new().await;
    desk.world.clone_of("img", "other").await;
    desk.steps(&["write b"]).await;
    let mut full = false;
    for round in 0..80 {
        let left = desk.find("a").await;
        // Written in a former view, and so told apart from then on.
        let number = desk.version + 1;
        std::fs::write(desk.source.join("a"), format!("{round}")).unwrap();
        desk.world.import("img", &desk.source).await.unwrap();
        desk.version = number;
        let both = RepointPlan::new("img", VersionRef::number("img", number), CloneTarget::All);
        let done = desk.world.fleet.repoint(RepointPlan { max_failures: 1, ..both }).await.unwrap();
        let stuck = done.outcome.clones.iter().find(|clone| clone.why.is_some());
        if let Some(stuck) = stuck {
            assert_eq!(&*stuck.name, "desk");
            full = true;
            break;
        }
        put(&desk.world, left, b"late").await;
    }
    assert!(full, "a clone has no end of switches");
    desk.expect("b=clone").await;
    let discard = |number| {
        let plan = RepointPlan::new("img", VersionRef::number("img", number), CloneTarget::Names(vec!["desk".into()]));
        plan.with(Writes::Discard)
    };
    let done = desk.world.fleet.repoint(discard(desk.version)).await.unwrap();
    desk.world.fleet.drop_pins(CloneTarget::Names(vec!["desk".into()])).await.unwrap();
    desk.world.fleet.restore("desk", &done.operation.snapshot_name()).await.unwrap();
    desk.expect("b=clone").await;
    desk.keep(&["write dir/y"], OnConflict::Stop).await.unwrap();
    desk.expect("b=clone dir/y=image").await;
}

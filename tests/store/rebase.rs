//! Goal: private writes go along to another version as docs/semantics.md says, row by row.
//! Method: the table there is read and run: an image for each row, a clone for each policy, the changes of
//! both sides, the repoint, what must be there then, a check of the store, and the way back.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use mimeo::error::ErrorKind;
use mimeo::image::{CloneTarget, Labels, NewSnapshot, OnConflict, RepointPlan, SwitchPolicy, VersionRef, Writes};
use mimeo::vfs::{CreateHow, FileKind, NewAttr, NewObject, Object, Place, SetTime, Vfs};

use crate::world::{World, chmod, write};

const HEADING: &str = "| in the clone | in the image | keep, stop | clone-wins | image-wins |";

struct Row {
    line: usize,
    clone: Vec<String>,
    image: Vec<String>,
    stop: String,
    clone_wins: String,
    image_wins: String,
}

/// The rows of the table.
fn rows() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/semantics.md");
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().enumerate().skip_while(|(_, line)| *line != HEADING).skip(2);
    let rows: Vec<_> =
        lines.take_while(|(_, line)| line.starts_with('|')).map(|(at, line)| row(at + 1, line)).collect();
    assert!(rows.len() > 30, "the table is in docs/semantics.md under its heading");
    rows
}

fn row(line: usize, text: &str) -> Row {
    let cells: Vec<_> = text.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    let [clone, image, stop, clone_wins, image_wins] = &cells[..] else { panic!("line {line}: {text}") };
    let steps = |cell: &str| cell.split(';').map(|step| step.trim().to_owned()).collect();
    let or_stop = |cell: &String| if cell == "same" { stop.clone() } else { cell.clone() };
    Row {
        line,
        clone: steps(clone),
        image: steps(image),
        clone_wins: or_stop(clone_wins),
        image_wins: or_stop(image_wins),
        stop: stop.clone(),
    }
}

/// The tree that every row begins with; a file holds `base`.
pub fn base(source: &Path) {
    for file in ["a", "b", "dir/x", "dir/y", "tw1", "disk.img"] {
        write(source, file, b"base");
    }
    fs::create_dir(source.join("empty")).unwrap();
    fs::hard_link(source.join("tw1"), source.join("tw2")).unwrap();
}

/// What the image's side does to its source folder.
pub fn in_the_image(source: &Path, step: &str) {
    let words: Vec<_> = step.split_whitespace().collect();
    let at = |name: &str| source.join(name);
    match words[..] {
        ["nothing"] => Ok(()),
        ["write" | "new", path] => fs::write(at(path), b"image"),
        ["rm", path] => fs::remove_file(at(path)),
        ["rmdir", path] => fs::remove_dir(at(path)),
        ["rmtree", path] => fs::remove_dir_all(at(path)),
        ["mkdir", path] => fs::create_dir(at(path)),
        ["mv", from, to] => fs::rename(at(from), at(to)),
        ["ln", from, to] => fs::hard_link(at(from), at(to)),
        ["chmod", path] => {
            chmod(source, path, 0o640);
            Ok(())
        }
        _ => panic!("unknown step {step:?}"),
    }
    .unwrap();
}

/// The directory and the name of a path.
async fn place<'a>(world: &World, root: Object, path: &'a str) -> Place<'a> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    Place { dir: world.find(root, dir).await.unwrap(), name: name.as_bytes() }
}

pub async fn put(world: &World, file: Object, text: &[u8]) {
    let cut = NewAttr { size: Some(0), ..NewAttr::default() };
    world.run(|vfs, rq| vfs.setattr(rq, file, cut, None)).await.unwrap();
    world.run(|vfs, rq| vfs.write(rq, file, 0, text, true)).await.unwrap();
}

async fn rmtree(world: &World, root: Object, path: &str) {
    let dir = world.find(root, path).await.unwrap();
    for name in world.names(dir).await {
        world.run(|vfs, rq| vfs.remove(rq, Place { dir, name: &name })).await.unwrap();
    }
    let place = place(world, root, path).await;
    world.run(|vfs, rq| vfs.rmdir(rq, place)).await.unwrap();
}

/// What the clone's side does, as a client does it.
pub async fn in_the_clone(world: &World, root: Object, step: &str) {
    let words: Vec<_> = step.split_whitespace().collect();
    match words[..] {
        ["nothing"] => {}
        ["write", path] => put(world, world.find(root, path).await.unwrap(), b"clone").await,
        ["new", path] => {
            let (place, how) = (place(world, root, path).await, CreateHow::Guarded(NewAttr::default()));
            let made = world.run(|vfs, rq| vfs.create(rq, place, how)).await.unwrap().object.unwrap().0;
            put(world, made, b"clone").await;
        }
        ["rm", path] => {
            let place = place(world, root, path).await;
            world.run(|vfs, rq| vfs.remove(rq, place)).await.unwrap();
        }
        ["rmdir", path] => {
            let place = place(world, root, path).await;
            world.run(|vfs, rq| vfs.rmdir(rq, place)).await.unwrap();
        }
        ["rmtree", path] => rmtree(world, root, path).await,
        ["mkdir", path] => {
            let place = place(world, root, path).await;
            world.run(|vfs, rq| vfs.make(rq, place, NewObject::Directory, NewAttr::default())).await.unwrap();
        }
        ["mv", from, to] => {
            let (from, to) = (place(world, root, from).await, place(world, root, to).await);
            world.run(|vfs, rq| vfs.rename(rq, from, to)).await.unwrap();
        }
        ["ln", from, to] => {
            let (from, to) = (world.find(root, from).await.unwrap(), place(world, root, to).await);
            world.run(|vfs, rq| vfs.link(rq, from, to)).await.unwrap();
        }
        ["chmod", path] => {
            let (file, new) =
                (world.find(root, path).await.unwrap(), NewAttr { mode: Some(0o600), ..NewAttr::default() });
            world.run(|vfs, rq| vfs.setattr(rq, file, new, None)).await.unwrap();
        }
        _ => panic!("unknown step {step:?}"),
    }
}

/// What a cell says of the clone: `p=text`, `p:mode`, `p/` (a directory), `-p` (not there).
pub async fn expect(world: &World, root: Object, cell: &str, line: usize) {
    for word in cell.split_whitespace() {
        let what = format!("docs/semantics.md:{line}: {word}");
        if let Some(path) = word.strip_prefix('-') {
            assert!(world.find(root, path).await.is_err(), "{what}: it is there");
        } else if let Some((path, text)) = word.split_once('=') {
            let file = world.find(root, path).await.unwrap_or_else(|e| panic!("{what}: {e:?}"));
            assert_eq!(String::from_utf8_lossy(&world.read(file).await.unwrap()), text, "{what}");
        } else if let Some((path, mode)) = word.split_once(':') {
            let file = world.find(root, path).await.unwrap_or_else(|e| panic!("{what}: {e:?}"));
            assert_eq!(format!("{:o}", world.attr(file).await.unwrap().mode), mode, "{what}");
        } else if let Some(path) = word.strip_suffix('/') {
            let dir = world.find(root, path).await.unwrap_or_else(|e| panic!("{what}: {e:?}"));
            assert_eq!(world.attr(dir).await.unwrap().kind, FileKind::Directory, "{what}");
        } else {
            panic!("{what}: not understood");
        }
    }
}

pub fn plan(image: &str, clone: &str, number: u32, conflict: OnConflict) -> RepointPlan {
    let policy = SwitchPolicy { conflict: Some(conflict), ..Writes::Keep.into() };
    RepointPlan::new(image, VersionRef::number(image, number), CloneTarget::Names(vec![clone.into()])).with(policy)
}

pub async fn clean(world: &World, line: usize) {
    let report = world.fsck().await;
    let told: Vec<_> = report.violations().iter().map(ToString::to_string).collect();
    assert!(report.is_clean(), "docs/semantics.md:{line}: {told:#?}");
}

/// Switch one clone, and check it as the cell says.
async fn check(world: &World, row: &Row, image: &str, conflict: OnConflict, cell: &str) {
    let clone = format!("{image}-{conflict}");
    let root = world.root(&format!("/clones/{clone}")).await;
    let plan = |number| plan(image, &clone, number, conflict);
    let predicted = world.fleet.predict(&plan(2)).await.unwrap();
    let line = row.line;
    if let Some(paths) = cell.strip_prefix("conflict ") {
        let outcome = &predicted.outcome.clones[0];
        let told: Vec<_> = outcome.conflicts.iter().map(|c| String::from_utf8(c.path.clone()).unwrap()).collect();
        assert_eq!(told, paths.split_whitespace().collect::<Vec<_>>(), "docs/semantics.md:{line}: {outcome:?}");
        assert!(predicted.refused.is_some());
        let before = world.catalog.state();
        assert_eq!(world.fleet.repoint(plan(2)).await.unwrap_err().kind(), ErrorKind::Conflict, "line {line}");
        assert_eq!(*world.catalog.state(), *before, "nothing was switched");
        return;
    }
    if cell == "refused" {
        assert!(predicted.refused.is_some(), "docs/semantics.md:{line}");
        assert_eq!(world.fleet.repoint(plan(2)).await.unwrap_err().kind(), ErrorKind::Conflict, "line {line}");
        return;
    }
    let done =
        world.fleet.repoint(plan(2)).await.unwrap_or_else(|e| panic!("docs/semantics.md:{line}: {conflict}: {e}"));
    assert_eq!(done.outcome, predicted.outcome, "docs/semantics.md:{line}: what was predicted was done");
    expect(world, root, cell, line).await;
    clean(world, line).await;
    let record = world.catalog.state().find_clone(&clone).unwrap().clone();
    world.fleet.flatten(&record).await.unwrap();
    expect(world, root, cell, line).await;
    clean(world, line).await;
    // The way back: nothing is lost or mixed, whatever it is.
    let back = SwitchPolicy { conflict: Some(OnConflict::CloneWins), ..plan(1).policy };
    if let Err(error) = world.fleet.repoint(plan(1).with(back)).await {
        assert_eq!(error.kind(), ErrorKind::Conflict, "docs/semantics.md:{line}: {error}");
    }
    clean(world, line).await;
}

async fn run(row: Row) {
    let world = &World::new().await;
    let image = format!("row{}", row.line);
    let source: PathBuf = world.source(&image);
    base(&source);
    world.import(&image, &source).await.unwrap();
    let policies = [
        (OnConflict::Stop, &row.stop),
        (OnConflict::CloneWins, &row.clone_wins),
        (OnConflict::ImageWins, &row.image_wins),
    ];
    for (conflict, _) in policies {
        let root = world.clone_of(&image, &format!("{image}-{conflict}")).await;
        for step in &row.clone {
            in_the_clone(world, root, step).await;
        }
    }
    row.image.iter().for_each(|step| in_the_image(&source, step));
    world.import(&image, &source).await.unwrap();
    for (conflict, cell) in policies {
        check(world, &row, &image, conflict, cell).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn private_writes_go_along_as_the_table_says() {
    let mut failed = 0;
    for row in rows() {
        // One row that fails must not hide the others.
        failed += usize::from(AssertUnwindSafe(run(row)).catch_unwind().await.is_err());
    }
    assert_eq!(failed, 0, "rows of the table failed");
}

/// A clone that was changed as `steps` say, and then switched to v2 with only what lies below `paths`.
async fn preserve(steps: &[&str], image: &[&str], paths: &[&str]) -> (World, Object, Result<(), mimeo::error::Error>) {
    let world = World::new().await;
    let source = world.source("img");
    base(&source);
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "desk").await;
    for step in steps {
        in_the_clone(&world, root, step).await;
    }
    image.iter().for_each(|step| in_the_image(&source, step));
    world.import("img", &source).await.unwrap();
    let paths: Vec<_> = paths.iter().map(|&path| path.to_owned()).collect();
    let plan = RepointPlan::new("img", VersionRef::number("img", 2), CloneTarget::All);
    let plan = plan.with(Writes::parse("preserve", &paths).unwrap());
    let predicted = world.fleet.predict(&plan).await;
    let done = world.fleet.repoint(plan).await;
    if let Ok(done) = &done {
        assert_eq!(done.outcome, predicted.unwrap().outcome);
        clean(&world, 0).await;
    }
    (world, root, done.map(drop))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_below_the_paths_is_preserved_and_nothing_else() {
    let steps = [
        "write dir/x",
        "write a",
        "new dir/n",
        "rm b",
        "rm dir/y",
        "mkdir s",
        "ln disk.img dir/l",
        "mv tw1 dir/tw",
        "new mine",
    ];
    let (world, root, done) = preserve(&steps, &["new theirs"], &["/dir"]).await;
    done.unwrap();
    let cell = "dir/x=clone dir/n=clone -dir/y dir/l=base disk.img=base dir/tw=base a=base b=base tw1=base tw2=base -s -mine theirs=image";
    expect(&world, root, cell, 0).await;
    let world = world.restart().await;
    clean(&world, 0).await;
    expect(&world, root, cell, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_above_what_is_preserved_come_along_without_the_rest() {
    let steps = ["mkdir s", "mkdir s/t", "new s/t/f", "new s/g", "chmod dir", "write dir/x", "mv dir/y empty/y"];
    let (world, root, done) = preserve(&steps, &["chmod dir", "rm tw2"], &["s/t", "empty/y", "tw1"]).await;
    done.unwrap();
    expect(&world, root, "s/t/f=clone -s/g dir:640 dir/x=base empty/y=base dir/y=base -tw2", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_renamed_across_the_border_refuses() {
    let (_, _, done) = preserve(&["mv dir empty/d"], &["nothing"], &["empty"]).await;
    let refused = done.unwrap_err();
    assert!(refused.to_string().contains("/empty/d was renamed to or from what is preserved"), "{refused}");
    let (world, root, done) = preserve(&["mv dir empty/d"], &["nothing"], &["empty", "dir"]).await;
    done.unwrap();
    expect(&world, root, "empty/d/x=base -dir", 0).await;
    let (_, _, done) = preserve(&["mv dir empty/d"], &["nothing"], &["dir"]).await;
    done.unwrap_err();
}

/// A file keeps the names of which the removal is not preserved.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_name_that_is_preserved_leaves_the_others() {
    let (world, root, done) = preserve(&["write tw1", "rm tw1", "rm tw2"], &["nothing"], &["tw1"]).await;
    done.unwrap();
    expect(&world, root, "-tw1 tw2=base", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_of_what_is_preserved_stop_and_of_the_rest_do_not() {
    let (_, _, done) = preserve(&["write a", "write dir/x"], &["write a", "write dir/x"], &["dir"]).await;
    let refused = done.unwrap_err().to_string();
    assert!(refused.contains("/dir/x: changed in the clone") && !refused.contains("/a:"), "{refused}");
    let (world, root, done) = preserve(&["write a", "write dir/x"], &["write a", "write dir/y"], &["dir"]).await;
    done.unwrap();
    expect(&world, root, "a=image dir/x=clone dir/y=image", 0).await;
}

/// A log that a client appends to goes along however often the clone is switched, also if a client writes to
/// what only a former view still has.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_log_goes_along_again_and_again() {
    let world = World::new().await;
    let source = world.source("img");
    base(&source);
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "desk").await;
    in_the_clone(&world, root, "write a").await;
    let (log, left) = (world.find(root, "a").await.unwrap(), world.find(root, "b").await.unwrap());
    for (number, step) in [(2, "rm b"), (3, "new c"), (4, "new d")] {
        in_the_image(&source, step);
        world.import("img", &source).await.unwrap();
        world.fleet.repoint(plan("img", "desk", number, OnConflict::Stop)).await.unwrap();
        let text = format!("line {number}");
        put(&world, log, text.as_bytes()).await;
        put(&world, left, text.as_bytes()).await;
        assert_eq!(world.read_path(root, "a").await, text.as_bytes());
        assert_eq!(world.read(left).await.unwrap(), text.as_bytes());
        assert!(world.find(root, "b").await.is_err());
    }
    clean(&world, 0).await;
}

/// One more sealed layer under clone `desk`.
async fn add_layer(world: &World, name: &str) {
    let target = CloneTarget::Names(vec!["desk".into()]);
    world.fleet.snapshot(NewSnapshot { target, name: name.into(), labels: Labels::default() }).await.unwrap();
    world.fleet.restore("desk", name).await.unwrap();
}

/// Zeros where the image had data are a change, whatever was done about the times.
#[tokio::test(flavor = "multi_thread")]
async fn data_that_was_cut_off_is_changed_also_if_size_and_times_are_as_before() {
    let world = World::new().await;
    let source = world.source("img");
    base(&source);
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "desk").await;
    let file = world.find(root, "b").await.unwrap();
    let mtime = SetTime::To(world.attr(file).await.unwrap().mtime);
    for new in [
        NewAttr { size: Some(0), ..NewAttr::default() },
        NewAttr { size: Some(4), ..NewAttr::default() },
        NewAttr { mtime, ..NewAttr::default() },
    ] {
        world.run(|vfs, rq| vfs.setattr(rq, file, new, None)).await.unwrap();
    }
    add_layer(&world, "cut").await;
    let file = world.find(root, "b").await.unwrap();
    let new = NewAttr { atime: SetTime::Now, ..NewAttr::default() };
    world.run(|vfs, rq| vfs.setattr(rq, file, new, None)).await.unwrap();
    in_the_image(&source, "write b");
    world.import("img", &source).await.unwrap();
    let refused = world.fleet.repoint(plan("img", "desk", 2, OnConflict::Stop)).await.unwrap_err().to_string();
    assert!(refused.contains("/b: changed in the clone, changed in the image"), "{refused}");
}

/// Two places of one directory are no matter of the other clones.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_cannot_go_along_stays_alone() {
    let world = World::new().await;
    let source = world.source("img");
    base(&source);
    world.import("img", &source).await.unwrap();
    let (torn, whole) = (world.clone_of("img", "torn").await, world.clone_of("img", "whole").await);
    in_the_clone(&world, torn, "mv dir empty/d").await;
    in_the_clone(&world, whole, "new empty/n").await;
    in_the_image(&source, "write a");
    world.import("img", &source).await.unwrap();
    let plan = RepointPlan::new("img", VersionRef::number("img", 2), CloneTarget::All);
    let plan = plan.with(Writes::parse("preserve", &["empty".into()]).unwrap());
    assert_eq!(world.fleet.repoint(plan.clone()).await.unwrap_err().kind(), ErrorKind::Conflict);
    let plan = RepointPlan { max_failures: 1, ..plan };
    let predicted = world.fleet.predict(&plan).await.unwrap();
    let done = world.fleet.repoint(plan).await.unwrap();
    assert_eq!(done.outcome, predicted.outcome);
    let why: Vec<_> = done.outcome.clones.iter().filter_map(|clone| clone.why.as_deref()).collect();
    assert!(matches!(why[..], [why] if why.contains("/empty/d was renamed")), "{why:?}");
    expect(&world, whole, "a=image empty/n=clone", 0).await;
    expect(&world, torn, "a=base empty/d/x=base", 0).await;
    clean(&world, 0).await;
}

/// Layers that the flattener has not come to yet do not make a dry run say what is then not so.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_predicted_of_many_layers_is_done() {
    let world = World::new().await;
    let source = world.source("img");
    base(&source);
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "desk").await;
    for name in ["s0", "s1", "s2", "s3", "s4", "s5"] {
        in_the_clone(&world, root, "write a").await;
        add_layer(&world, name).await;
    }
    in_the_clone(&world, root, "write b").await;
    in_the_image(&source, "new c");
    world.import("img", &source).await.unwrap();
    let plan = plan("img", "desk", 2, OnConflict::Stop);
    let predicted = world.fleet.predict(&plan).await.unwrap();
    assert_eq!(predicted.refused, None);
    assert_eq!(world.fleet.repoint(plan).await.unwrap().outcome, predicted.outcome);
    expect(&world, root, "a=clone b=clone c=image", 0).await;
}

/// A switch for which a clone has no room is refused, and that is predicted.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_without_room_is_refused_as_predicted() {
    let world = World::new().await;
    let source = world.source("img");
    base(&source);
    world.import("img", &source).await.unwrap();
    in_the_image(&source, "new c");
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "desk").await;
    for number in [1, 2].into_iter().cycle().take(200) {
        in_the_clone(&world, root, "write a").await;
        let plan = plan("img", "desk", number, OnConflict::Stop).with(Writes::Discard);
        let predicted = world.fleet.predict(&plan).await.unwrap();
        let done = world.fleet.repoint(plan).await;
        assert_eq!(done.as_ref().err().map(ToString::to_string), predicted.refused);
        if let Ok(done) = &done {
            assert_eq!(done.outcome, predicted.outcome);
            continue;
        }
        assert!(predicted.refused.unwrap().contains("pinned views"));
        return;
    }
    panic!("200 switches without a pin dropped");
}

/// What comes back is the image's: whoever held the clone's, before that was removed, does not hold it.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_file_that_comes_back_is_another() {
    let world = World::new().await;
    let source = world.source("img");
    base(&source);
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "desk").await;
    in_the_clone(&world, root, "write a").await;
    let held = world.find(root, "a").await.unwrap();
    in_the_clone(&world, root, "rm a").await;
    assert!(world.attr(held).await.is_err(), "removed");
    in_the_image(&source, "chmod a");
    world.import("img", &source).await.unwrap();
    world.fleet.repoint(plan("img", "desk", 2, OnConflict::ImageWins)).await.unwrap();
    expect(&world, root, "a=base a:640", 0).await;
    assert!(world.attr(held).await.is_err(), "the old handle stays dead");
    assert_ne!(world.find(root, "a").await.unwrap(), held);
    clean(&world, 0).await;
}

/// What goes along is the same file for whoever has it open; what does not, is open in the former view.
#[tokio::test(flavor = "multi_thread")]
async fn open_files_go_along_or_stay_behind_whole() {
    for preserved in [false, true] {
        let world = World::new().await;
        let source = world.source("img");
        base(&source);
        world.import("img", &source).await.unwrap();
        let root = world.clone_of("img", "desk").await;
        in_the_clone(&world, root, "write dir/x").await;
        in_the_clone(&world, root, "write a").await;
        let (kept, left) = (world.find(root, "dir/x").await.unwrap(), world.find(root, "a").await.unwrap());
        in_the_image(&source, "write b");
        world.import("img", &source).await.unwrap();
        let writes = if preserved { Writes::parse("preserve", &["dir".into()]).unwrap() } else { Writes::Keep };
        let plan = RepointPlan::new("img", VersionRef::number("img", 2), CloneTarget::All).with(writes);
        world.fleet.repoint(plan).await.unwrap();
        assert_eq!(world.find(root, "dir/x").await.unwrap(), kept, "the same handle");
        put(&world, kept, b"more").await;
        put(&world, left, b"late").await;
        assert_eq!(world.read_path(root, "dir/x").await, b"more");
        assert_eq!(world.read(left).await.unwrap(), b"late");
        assert_eq!(world.read_path(root, "a").await, if preserved { b"base" } else { b"late" });
        clean(&world, 0).await;
    }
}

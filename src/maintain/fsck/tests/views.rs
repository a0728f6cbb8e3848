//! Trees that do not fit together, made by changes that no file service makes.

use super::world::{A, DIR, F, H, LINK, NAME, SUB, World, cookie, desk, key, snapshot};
use crate::chunk::{Fetch, Step};
use crate::env::Time;
use crate::image::SnapshotTarget;
use crate::maintain::fsck::{LayerFlaw, NameFlaw, NodeFlaw, Report, ViewFlaw, ViewName, Violation};
use crate::manifest::{FileKind, Ino, MAX_FILE_SIZE};
use crate::overlay::{Node, Tree};

const ROOT: Ino = Ino::ROOT;
const GHOST: Ino = Ino(777);

fn found(report: &Report) -> Vec<Violation> {
    report.violations().to_vec()
}

fn of(view: ViewName, flaw: ViewFlaw) -> Violation {
    Violation::View { view, flaw }
}

fn node(ino: Ino, flaw: NodeFlaw) -> Violation {
    of(desk(), ViewFlaw::Node { ino, flaw })
}

fn touch(tree: &mut Tree<'_>, fetch: &mut Fetch<'_>, ino: Ino, edit: impl Fn(&mut Node)) -> Step<()> {
    let mut node = tree.node(fetch, ino)?.unwrap();
    edit(&mut node);
    tree.put(fetch, ino, node)
}

/// Take a name away and nothing else.
fn unname(tree: &mut Tree<'_>, fetch: &mut Fetch<'_>, dir: Ino, name: &str) -> Step<()> {
    let entry = tree.lookup(fetch, dir, name.as_bytes())?.unwrap();
    tree.remove_entry(fetch, dir, &entry)?;
    touch(tree, fetch, dir, |_| {})
}

/// Give a name and nothing else.
fn name(tree: &mut Tree<'_>, fetch: &mut Fetch<'_>, dir: Ino, name: &str, ino: Ino, kind: FileKind) -> Step<()> {
    tree.add_entry(fetch, dir, name.as_bytes(), ino, kind)?;
    touch(tree, fetch, dir, |_| {})
}

/// Make a change to the clone of a good store, and check.
async fn after(change: impl FnMut(&mut Tree<'_>, &mut Fetch<'_>) -> Step<()>) -> Vec<Violation> {
    let world = World::new().await;
    world.assert_clean().await;
    world.change("desk", change).await;
    found(&world.check().await)
}

fn remove(tree: &mut Tree<'_>, fetch: &mut Fetch<'_>, ino: Ino) -> Step<()> {
    let node = tree.node(fetch, ino)?.unwrap();
    tree.remove(fetch, ino, &node)
}

#[tokio::test]
async fn names_lead_to_objects() {
    let ghost = after(|tree, fetch| name(tree, fetch, DIR, "ghost", GHOST, FileKind::Regular)).await;
    assert_eq!(ghost, [of(desk(), ViewFlaw::NoObject { ino: GHOST, dir: Some(DIR) })]);
    // Those of the image too, of which nothing private is.
    let gone = after(|tree, fetch| remove(tree, fetch, A)).await;
    assert_eq!(gone, [of(desk(), ViewFlaw::NoObject { ino: A, dir: Some(ROOT) })]);
}

#[tokio::test]
async fn link_counts_are_those_that_can_be_counted() {
    let links = |ino, kept, counted| [node(ino, NodeFlaw::Links { kept, counted })];
    assert_eq!(after(|tree, fetch| touch(tree, fetch, A, |node| node.nlink = 2)).await, links(A, 2, 1));
    assert_eq!(after(|tree, fetch| touch(tree, fetch, DIR, |node| node.nlink = 7)).await, links(DIR, 7, 3));
    // A name less, or one more, of what is not private itself.
    assert_eq!(after(|tree, fetch| unname(tree, fetch, ROOT, "h1")).await, links(H, 2, 1));
    assert_eq!(after(|tree, fetch| name(tree, fetch, DIR, "h3", H, FileKind::Regular)).await, links(H, 2, 3));
    // A directory that moved, without its parents knowing.
    let moved = |tree: &mut Tree<'_>, fetch: &mut Fetch<'_>| {
        unname(tree, fetch, DIR, "sub")?;
        name(tree, fetch, ROOT, "sub", SUB, FileKind::Directory)?;
        touch(tree, fetch, SUB, |node| node.parent = ROOT)
    };
    assert_eq!(after(moved).await, [links(ROOT, 3, 4), links(DIR, 3, 2)].concat());
}

#[tokio::test]
async fn objects_have_names() {
    assert_eq!(after(|tree, fetch| unname(tree, fetch, ROOT, "a")).await, [node(A, NodeFlaw::Nameless)]);
    let new = Node::new(FileKind::Regular, ROOT, Time::default());
    assert_eq!(after(|tree, fetch| tree.put(fetch, GHOST, new.clone())).await, [node(GHOST, NodeFlaw::Nameless)]);
    let lost = |tree: &mut Tree<'_>, fetch: &mut Fetch<'_>| {
        unname(tree, fetch, DIR, "sub")?;
        touch(tree, fetch, DIR, |node| node.nlink -= 1)
    };
    assert_eq!(after(lost).await, [node(SUB, NodeFlaw::Nameless)]);
}

/// In a former view there may be objects that only open files still hold.
#[tokio::test]
async fn in_a_pinned_view_objects_need_no_name() {
    let world = World::new().await;
    world.write("desk", F, 0, b"x").await;
    world.snapshot("desk", "good").await;
    world.change("desk", |tree, fetch| unname(tree, fetch, ROOT, "a")).await;
    assert_eq!(found(&world.check().await), [node(A, NodeFlaw::Nameless)]);
    let before = world.fleet().restore("desk", "good").await.unwrap().before.name.to_string();
    let nameless = ViewFlaw::Node { ino: A, flaw: NodeFlaw::Nameless };
    assert_eq!(found(&world.check().await), [of(snapshot(&before), nameless)]);
    world.fleet().remove_snapshots("desk", SnapshotTarget::Names(vec![before])).await.unwrap();
    world.assert_clean().await;
}

#[tokio::test]
async fn directories_have_one_place_in_the_tree() {
    let twice = |tree: &mut Tree<'_>, fetch: &mut Fetch<'_>| {
        name(tree, fetch, ROOT, "dir2", DIR, FileKind::Directory)?;
        touch(tree, fetch, ROOT, |node| node.nlink += 1)
    };
    assert_eq!(after(twice).await, [node(DIR, NodeFlaw::Names(2))]);
    let root = |tree: &mut Tree<'_>, fetch: &mut Fetch<'_>| {
        name(tree, fetch, DIR, "top", ROOT, FileKind::Directory)?;
        touch(tree, fetch, DIR, |node| node.nlink += 1)
    };
    assert_eq!(after(root).await, [node(ROOT, NodeFlaw::Names(1))]);

    let parent = |ino, kept, named_in| [node(ino, NodeFlaw::Parent { kept, named_in })];
    let changed = after(|tree, fetch| touch(tree, fetch, SUB, |node| node.parent = ROOT)).await;
    assert_eq!(changed, parent(SUB, ROOT, DIR));
    let moved = |tree: &mut Tree<'_>, fetch: &mut Fetch<'_>| {
        unname(tree, fetch, DIR, "sub")?;
        name(tree, fetch, ROOT, "sub", SUB, FileKind::Directory)?;
        touch(tree, fetch, DIR, |node| node.nlink -= 1)?;
        touch(tree, fetch, ROOT, |node| node.nlink += 1)
    };
    assert_eq!(after(moved).await, parent(SUB, DIR, ROOT));
}

#[tokio::test]
async fn directories_lead_up_to_the_root() {
    let mut world = World::new().await;
    let upper = world.make("desk", ROOT, "upper", FileKind::Directory).await;
    let lower = world.make("desk", upper, "lower", FileKind::Directory).await;
    world.assert_clean().await;
    world.rename("desk", (ROOT, "upper"), (lower, "upper")).await;
    let expected = [node(upper, NodeFlaw::Unreachable), node(lower, NodeFlaw::Unreachable)];
    assert_eq!(found(&world.check().await), expected);
}

#[tokio::test]
async fn names_are_in_directories() {
    let gone = |tree: &mut Tree<'_>, fetch: &mut Fetch<'_>| {
        remove(tree, fetch, DIR)?;
        unname(tree, fetch, ROOT, "dir")?;
        touch(tree, fetch, ROOT, |node| node.nlink -= 1)
    };
    assert_eq!(after(gone).await, [node(DIR, NodeFlaw::NotEmpty)]);
    let below_a_file = |tree: &mut Tree<'_>, fetch: &mut Fetch<'_>| {
        tree.put(fetch, GHOST, Node::new(FileKind::Regular, A, Time::default()))?;
        name(tree, fetch, A, "child", GHOST, FileKind::Regular)
    };
    assert_eq!(after(below_a_file).await, [of(desk(), ViewFlaw::NoDirectory { dir: A })]);
}

#[tokio::test]
async fn kinds_do_not_change_and_names_know_them() {
    let (was, is) = (FileKind::Regular, FileKind::Fifo);
    let changed = after(|tree, fetch| touch(tree, fetch, A, |node| node.kind = FileKind::Fifo)).await;
    assert_eq!(changed, [node(A, NodeFlaw::Kind { was, is })]);
    let wrong = |tree: &mut Tree<'_>, fetch: &mut Fetch<'_>| {
        tree.put(fetch, GHOST, Node::new(FileKind::Regular, DIR, Time::default()))?;
        name(tree, fetch, DIR, "ghost", GHOST, FileKind::Symlink)
    };
    let flaw = NameFlaw::Kind { entry: FileKind::Symlink, object: FileKind::Regular };
    assert_eq!(after(wrong).await, [of(desk(), ViewFlaw::Name { dir: DIR, name: b"ghost".to_vec(), flaw })]);
}

#[tokio::test]
async fn names_can_be_found_once() {
    let flawed = |dir, name: &str, flaw| [of(desk(), ViewFlaw::Name { dir, name: name.into(), flaw })];
    for bad in ["", ".", "..", "a/b", "a\0b", &"n".repeat(256)] {
        let mut world = World::new().await;
        world.make("desk", DIR, bad, FileKind::Regular).await;
        assert_eq!(found(&world.check().await), flawed(DIR, bad, NameFlaw::Malformed), "{bad:?}");
    }
    // Once in the image and once in private; both in private.
    let mut world = World::new().await;
    world.make("desk", ROOT, "a", FileKind::Regular).await;
    assert_eq!(found(&world.check().await), flawed(ROOT, "a", NameFlaw::Twice));
    let mut world = World::new().await;
    world.make("desk", SUB, "n", FileKind::Regular).await;
    world.assert_clean().await;
    world.make("desk", SUB, "n", FileKind::Regular).await;
    assert_eq!(found(&world.check().await), flawed(SUB, "n", NameFlaw::Twice));

    let mut world = World::new().await;
    world.make("desk", SUB, "n", FileKind::Regular).await;
    let (top, at) = (world.top("desk"), cookie("n").0);
    let moved = |world: &World| {
        let row = world.row("heads", &key(top, NAME, SUB, at));
        world.delete("heads", &key(top, NAME, SUB, at));
        world.put("heads", &key(top, NAME, SUB, at + 16), row);
    };
    assert_eq!(found(&world.check_damaged(moved).await), flawed(SUB, "n", NameFlaw::Misplaced));
}

#[tokio::test]
async fn attributes_are_within_bounds() {
    let world = World::new().await;
    let flaw = |flaw| [of(desk(), ViewFlaw::Layer { overlay: world.top("desk"), flaw })];
    let size = MAX_FILE_SIZE + 1;
    let large = after(|tree, fetch| touch(tree, fetch, A, |node| node.size = size)).await;
    assert_eq!(large, flaw(LayerFlaw::Size { ino: A, size }));
    let longer = after(|tree, fetch| touch(tree, fetch, LINK, |node| node.target = "dir/f/x".into())).await;
    assert_eq!(longer, flaw(LayerFlaw::Target { ino: LINK }));
    let of_a_file = after(|tree, fetch| touch(tree, fetch, A, |node| node.target = "dir".into())).await;
    assert_eq!(of_a_file, flaw(LayerFlaw::Target { ino: A }));
    world.edit("desk", A, |_| {}).await;
    world.assert_clean().await;
    world.edit("desk", A, |node| node.size = 1).await;
    assert_eq!(found(&world.check().await), flaw(LayerFlaw::Below { ino: A, below: 100 }));
}

/// What was wrong at one moment is told of those who show that moment, and of nobody else.
#[tokio::test]
async fn damage_is_told_of_who_shows_it() {
    let world = World::new().await;
    let links = ViewFlaw::Node { ino: A, flaw: NodeFlaw::Links { kept: 2, counted: 1 } };
    world.write("desk", F, 0, b"x").await;
    world.snapshot("desk", "before").await;
    world.edit("desk", A, |node| node.nlink = 2).await;
    world.snapshot("desk", "bad").await;
    world.edit("desk", A, |node| node.nlink = 1).await;
    world.snapshot("desk", "after").await;
    world.write("desk", F, 0, b"y").await;
    assert_eq!(found(&world.check().await), [of(snapshot("bad"), links.clone())]);

    // Of a snapshot that is gone, its forks still show it: as they were made, and through what they wrote.
    world.fork("desk@bad", "fork").await;
    world.fleet().remove_snapshots("desk", SnapshotTarget::Names(vec!["bad".into()])).await.unwrap();
    let fork = ViewName::Clone("fork".into());
    assert_eq!(found(&world.check().await), [of(fork.clone(), links.clone())]);
    world.write("fork", F, 0, b"z").await;
    assert_eq!(found(&world.check().await), [of(fork, links)]);
    world.edit("fork", A, |node| node.nlink = 1).await;
    assert_eq!(found(&world.check().await), [], "what it stands on is shown by nobody");
}

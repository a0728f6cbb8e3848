//! Differences in a tree of 1,000,000 entries: of two versions, and of a clone and its version.
//!
//! The manifests are built directly, without a source: directories of equally many empty files of some
//! length. Each version has the same number of files that differ from the first one, in many directories
//! or in few. The clone has as many files with private bytes. Everything is asked through the library, on a
//! chunk store and overlays on a real disk, whose pages are cached after the first round.

mod common;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Parser;
use mimeo::chunk::{ChunkSource, Fetch};
use mimeo::config::Config;
use mimeo::daemon::{DataDir, Stores};
use mimeo::env::{Env, Time};
use mimeo::image::{Fleet, Labels, NewClones, NewVersion, VersionRef};
use mimeo::manifest::{
    self, Content, Cookie, Entry, FileKind, Ino, Inode, Manifest, ManifestBuilder, ManifestId, NameSeed, SubtreeHasher,
    Xattrs,
};
use mimeo::overlay::Tree;

use common::args::CommonArgs;
use common::report::{Cell, Report, Spread, Table};

const IMAGE: &str = "golden";
const SEED: NameSeed = NameSeed([7; 16]);
/// Changes are gathered in so many directories, or spread over all.
const FEW: u64 = 10;
/// Numbers of what a version changed begin here.
const CHANGED: u64 = 1 << 40;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    #[arg(long, default_value_t = 1000)]
    directories: u64,
    /// In each directory; with the directory itself, the entries of the tree.
    #[arg(long, default_value_t = 999)]
    files: u64,
    #[arg(long, default_value_t = 1000)]
    changes: u64,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.common.quick {
        (args.directories, args.files, args.changes, args.rounds) = (20, 49, 20, 2);
    }
    ensure!(args.changes <= args.directories * args.files && args.directories >= FEW, "fewer changes than files");
    let scratch = args.common.scratch_dir()?;
    let mut report = Report::new("diff", args.common.quick);
    tokio::runtime::Runtime::new()?.block_on(run(&args, scratch.path(), &mut report))?;
    args.common.publish(&report)
}

async fn run(args: &Args, scratch: &Path, report: &mut Report) -> Result<()> {
    let env = Env::real();
    let stores = Stores::open(&DataDir::open(scratch, &env)?, &Config::default(), &env).await?;
    let entries = args.directories * (args.files + 1);
    let title = format!("{} changes in {entries} entries: ms, median (least..greatest)", args.changes);
    let mut table = Table::new(title);
    let first = publish(&stores, &tree(args, 0)).await?;
    for (what, dirs) in [("all directories", args.directories), ("few directories", FEW)] {
        let second = publish(&stores, &tree(args, dirs)).await?;
        let mut times = Vec::new();
        for _ in 0..args.rounds {
            let begin = Instant::now();
            let found = count_versions(&stores, &first, &second).await?;
            times.push(begin.elapsed());
            ensure!(found == args.changes, "{found} files differ instead of {}", args.changes);
        }
        row(&mut table, &format!("image diff, spread over {what}"), times);
    }
    for (clone, dirs) in [("spread", args.directories), ("gathered", FEW)] {
        let times = clone_diffs(args, &stores, clone, dirs).await?;
        row(&mut table, &format!("clone diff, {clone}"), times);
    }
    report.add(table);
    Ok(stores.close().await?)
}

fn row(table: &mut Table, what: &str, times: Vec<Duration>) {
    let spread = Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e3));
    table.row([("what", Cell::text(what)), ("ms", Cell::spread(spread, 1))]);
}

/// The files that are changed: number `n` is one of directory `n % dirs`.
fn changed(dirs: u64, n: u64) -> (u64, u64) {
    (n % dirs, n / dirs)
}

/// What a tree is built of, sorted.
struct Plan {
    inodes: Vec<(Ino, Inode)>,
    entries: Vec<(Ino, Entry)>,
}

/// With files changed in the first `dirs` directories; 0: in none.
fn tree(args: &Args, dirs: u64) -> Plan {
    let names: Vec<Bytes> = (0..args.files).map(|n| Bytes::from(format!("file-{n:06}"))).collect();
    let (mut inodes, mut entries, mut root) = (Vec::new(), Vec::new(), Vec::new());
    let mut hasher = SubtreeHasher::new();
    for dir in 0..args.directories {
        let (ino, name) = (Ino(10 + dir), Bytes::from(format!("dir-{dir:06}")));
        let in_dir = |n: u64| n * dirs + dir;
        let is_changed = |n: u64| dir < dirs && in_dir(n) < args.changes;
        let mut below = SubtreeHasher::new();
        let mut inside = Vec::new();
        for (n, name) in (0..args.files).zip(&names) {
            let number = dir * args.files + n;
            let file = if is_changed(n) { Ino(CHANGED + number) } else { Ino(10 + args.directories + number) };
            let cookie = SEED.cookie_base(name);
            let inode = regular(number + u64::from(is_changed(n)) * 5, ino, cookie);
            below.child(name, &inode).expect("names ascend");
            inodes.push((file, inode));
            inside.push(Entry { name: name.clone(), cookie, ino: file, kind: FileKind::Regular });
        }
        inside.sort_unstable_by_key(|entry| entry.cookie);
        entries.extend(inside.into_iter().map(|entry| (ino, entry)));
        let cookie = SEED.cookie_base(&name);
        let inode = Inode { digest: below.finish(), ..directory(Ino::ROOT, cookie, 2) };
        hasher.child(&name, &inode).expect("names ascend");
        root.push(Entry { name, cookie, ino, kind: FileKind::Directory });
        inodes.push((ino, inode));
    }
    let top = directory(Ino::ROOT, Cookie::default(), 2 + args.directories as u32);
    inodes.push((Ino::ROOT, Inode { digest: hasher.finish(), ..top }));
    entries.extend(root.into_iter().map(|entry| (Ino::ROOT, entry)));
    inodes.sort_unstable_by_key(|(ino, _)| *ino);
    entries.sort_unstable_by_key(|(dir, entry)| (*dir, entry.cookie));
    Plan { inodes, entries }
}

fn regular(size: u64, parent: Ino, cookie: Cookie) -> Inode {
    let content = Content::Inline(Default::default());
    let digest = manifest::content_digest(size, &content);
    Inode { size, digest, content, ..inode(FileKind::Regular, 0o644, parent, cookie, 1) }
}

fn directory(parent: Ino, cookie: Cookie, nlink: u32) -> Inode {
    Inode { size: 4096, ..inode(FileKind::Directory, 0o755, parent, cookie, nlink) }
}

fn inode(kind: FileKind, mode: u32, parent: Ino, parent_cookie: Cookie, nlink: u32) -> Inode {
    let time = Time::new(1_000_000_000, 0);
    Inode {
        kind,
        mode,
        uid: 0,
        gid: 0,
        nlink,
        rdev: (0, 0),
        size: 0,
        used: 0,
        atime: time,
        mtime: time,
        ctime: time,
        parent,
        parent_cookie,
        digest: [0; 32],
        disk_image: false,
        content: Content::None,
        xattrs: Xattrs::None,
    }
}

/// Build the manifest and make it the next version.
async fn publish(stores: &Stores, plan: &Plan) -> Result<ManifestId> {
    let session = stores.chunks.begin()?;
    let mut builder = ManifestBuilder::new(&session, SEED);
    plan.inodes.iter().try_for_each(|(ino, inode)| builder.add_inode(*ino, inode))?;
    plan.entries.iter().try_for_each(|(dir, entry)| builder.add_entry(*dir, entry))?;
    let (manifest, stats) = builder.finish()?;
    session.commit().await?;
    let image = stores.catalog.create_or_get_image(IMAGE, Labels::new()).await?;
    let version = NewVersion {
        image: image.id,
        manifest,
        created: Time::new(1, 0),
        source: "bench".into(),
        author: "bench".into(),
        labels: Labels::new(),
        consistency: "unknown".into(),
        inodes: stats.inodes,
        bytes_logical: 0,
        bytes_stored: 0,
        bytes_added: 0,
    };
    stores.catalog.add_version(version).await?;
    Ok(manifest)
}

/// How many files differ.
async fn count_versions(stores: &Stores, old: &ManifestId, new: &ManifestId) -> Result<u64> {
    let mut found = 0;
    let mut visit = |_: manifest::Change| {
        found += 1;
        Ok(ControlFlow::Continue(()))
    };
    manifest::diff(&*stores.chunks, old, new, &mut visit).await?;
    Ok(found)
}

/// A clone with private bytes in so many files of so many directories, compared again and again.
async fn clone_diffs(args: &Args, stores: &Stores, clone: &str, dirs: u64) -> Result<Vec<Duration>> {
    let names = vec![clone.to_owned()];
    let new = NewClones { version: VersionRef::number(IMAGE, 1), names, labels: Labels::new() };
    stores.catalog.create_clones(new).await?;
    for n in 0..args.changes {
        let (dir, file) = changed(dirs, n);
        write(stores, clone, Ino(10 + args.directories + dir * args.files + file)).await?;
    }
    let fleet = Fleet::new(stores.catalog.clone(), stores.overlays.clone());
    let mut times = Vec::new();
    for _ in 0..args.rounds {
        let begin = Instant::now();
        let look = fleet.look(&clone.parse()?).await?;
        let private = look.private().await?;
        let chunks = stores.chunks.clone();
        let compare = move || {
            let mut found = 0;
            let mut visit = |_| {
                found += 1;
                Ok(ControlFlow::Continue(()))
            };
            look.diff(&*chunks, &private, &mut visit).map(|_| found)
        };
        let found: u64 = tokio::task::spawn_blocking(compare).await??;
        times.push(begin.elapsed());
        ensure!(found == args.changes, "{found} paths differ instead of {}", args.changes);
    }
    Ok(times)
}

/// A few private bytes at the start of a file.
async fn write(stores: &Stores, clone: &str, ino: Ino) -> Result<()> {
    let state = stores.catalog.state();
    let view = &state.find_clone(clone)?.view;
    let manifest = state.find_version(&VersionRef::number(IMAGE, 1))?.manifest;
    let source: Arc<dyn ChunkSource> = stores.chunks.clone();
    let mut fetch = Fetch::new(&*source);
    let written = fetch.run(|fetch| {
        let manifest = Manifest::open(fetch, &manifest)?;
        let mut tree = Tree::open_for_change(&stores.overlays, fetch, manifest, &view.layers, view.top)?;
        let Some(mut node) = tree.node(fetch, ino)? else { return Ok(false) };
        tree.write(fetch, ino, &mut node, 0, Bytes::from_static(b"private"))?;
        tree.put(fetch, ino, node)?;
        tree.commit(None)?;
        Ok(true)
    });
    ensure!(written.await.context("a private write")?, "inode {} is not in the image", ino.0);
    Ok(())
}

//! A small write into a large sparse disk image costs what it is, in the log and in its index.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use mimeo::meta::Durability;
use mimeo::overlay::Counts;
use mimeo::overlay::check::Row;
use mimeo::vfs::Vfs;

use crate::world::{World, noise};

const GIB: u64 = 1 << 30;
const SIZE: u64 = 40 * GIB;
const BLOCK: usize = 4096;

fn dir_bytes(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// What the store has for private writes: bytes of the log, bytes of the index's files.
async fn private_bytes(world: &World) -> (u64, u64) {
    world.overlays().flush(Durability::Synced).await.unwrap();
    (world.overlays().segments().values().sum(), dir_bytes(&world.dir.path().join("data/overlays")))
}

#[tokio::test]
async fn a_block_written_into_a_sparse_disk_of_40_gib_costs_a_block() {
    let world = World::new().await;
    let source = world.source("src");
    let disk = File::create(source.join("disk.img")).unwrap();
    disk.set_len(SIZE).unwrap();
    disk.write_all_at(&noise(1, 1 << 20), 20 * GIB).unwrap();
    world.import("img", &source).await.unwrap();
    let root = world.clone_of("img", "desk").await;
    let file = world.find(root, "disk.img").await.unwrap();
    let top = world.catalog.state().find_clone("desk").unwrap().view.top;

    // In a hole, over the image's data, and over what is private by then.
    for (offset, private_blocks) in [(33 * GIB + 4096, 1), (20 * GIB + 8192, 2), (33 * GIB + 4096, 2)] {
        let (before, data) = (private_bytes(&world).await, noise(offset + private_blocks, BLOCK));
        world.run(|vfs, rq| vfs.write(rq, file, offset, &data, true)).await.unwrap();
        let after = private_bytes(&world).await;
        let grown = (after.0 - before.0, after.1 - before.1);
        assert!((4096..4096 + 1024).contains(&grown.0), "the log grew by {}", grown.0);
        assert!(grown.1 < 32 << 10, "the index grew by {}", grown.1);
        let held = Counts { bytes: private_blocks * BLOCK as u64, inodes: 1 };
        assert_eq!(world.overlays().counts(top), held);
        let around = world.run(|vfs, rq| vfs.read(rq, file, offset, BLOCK as u32)).await.unwrap();
        assert!(around.slices.concat() == data);
    }
    let mut rows = 0;
    let mut count = |row: Row<'_>| rows += u32::from(matches!(row, Row::Value(value) if value.overlay == top));
    world.overlays().scan_rows(&mut count).unwrap();
    assert_eq!(rows, 3, "the object and two buckets");
    assert_eq!(world.attr(file).await.unwrap().size, SIZE);
    let hole = world.run(|vfs, rq| vfs.read(rq, file, 33 * GIB, 4096)).await.unwrap();
    assert!(hole.slices.concat() == [0; 4096]);
}

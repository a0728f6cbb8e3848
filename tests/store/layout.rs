//! Goal: an import that is told what a boot reads lays just that out first, in the boot's order, and is else as any
//! other. The order is taken from the packs.

use std::fs;
use std::ops::Range;

use mimeo::chunk::ChunkId;
use mimeo::chunk::cutter::{Cutting, cut};
use mimeo::image::import::Part;

use crate::world::World;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The chunks of a file that `range` touches.
fn chunks(bytes: &[u8], range: Range<usize>, cutting: Cutting) -> Vec<ChunkId> {
    let touched = cut(bytes, cutting).into_iter();
    let touched = touched.filter(|piece| piece.offset < range.end && piece.offset + piece.len > range.start);
    touched.map(|piece| ChunkId::of(piece.of(bytes))).collect()
}

fn part(path: &str, ranges: &[(u64, u64)]) -> Part {
    Part { path: path.into(), ranges: ranges.iter().map(|(start, end)| *start..*end).collect() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_boot_reads_lies_first_and_in_its_order() {
    let world = World::new().await;
    let source = world.source("os");
    let (a, z, disk) = (noise(1, 900_000), noise(2, 900_000), noise(3, 2 << 20));
    fs::create_dir(source.join("lib")).unwrap();
    fs::create_dir(source.join("empty")).unwrap();
    fs::write(source.join("a"), &a).unwrap();
    fs::write(source.join("lib/z"), &z).unwrap();
    fs::write(source.join("disk.img"), &disk).unwrap();
    fs::write(world.dir.path().join("outside"), noise(4, 100_000)).unwrap();
    std::os::unix::fs::symlink(world.dir.path(), source.join("away")).unwrap();
    let layout = vec![
        part("lib/z", &[(500_000, 600_000), (0, 1000)]),
        part("nothing", &[(0, 10)]),
        part("../outside", &[(0, 10)]),
        part("away/outside", &[(0, 10)]),
        part("empty", &[(0, 10)]),
        part("disk.img", &[(1 << 20, (1 << 20) + 4096), (5 << 20, 6 << 20)]),
        part("a", &[(300_000, 300_001)]),
        part("lib/z", &[(550_000, 620_000)]),
    ];
    world.import_laid_out("os", &source, layout).await.unwrap();
    let mut laid: Vec<ChunkId> = Vec::new();
    let files = [
        chunks(&z, 500_000..600_000, Cutting::ContentDefined),
        chunks(&z, 0..1000, Cutting::ContentDefined),
        chunks(&disk, 1 << 20..(1 << 20) + 4096, Cutting::FixedBlocks),
        chunks(&a, 300_000..300_001, Cutting::ContentDefined),
        chunks(&z, 550_000..620_000, Cutting::ContentDefined),
    ];
    for id in files.into_iter().flatten() {
        if !laid.contains(&id) {
            laid.push(id);
        }
    }
    let all = [
        chunks(&a, 0..a.len(), Cutting::ContentDefined),
        chunks(&z, 0..z.len(), Cutting::ContentDefined),
        chunks(&disk, 0..disk.len(), Cutting::FixedBlocks),
    ];
    let order = world.chunks.in_disk_order(all.concat()).unwrap();
    let order: Vec<ChunkId> = order.into_iter().map(|(id, _)| id).collect();
    assert_eq!(order.len(), all.concat().len());
    assert_eq!(order[..laid.len()], laid[..]);
    assert_eq!(world.chunks.usage().unwrap().packs, 2, "what was laid out is in a pack of its own");
    let outside = chunks(&noise(4, 100_000), 0..100_000, Cutting::ContentDefined);
    assert!(world.chunks.in_disk_order(outside).unwrap().is_empty());
    let root = world.clone_of("os", "desk").await;
    assert_eq!(world.read(world.find(root, "lib/z").await.unwrap()).await.unwrap(), z);
    assert_eq!(world.read(world.find(root, "disk.img").await.unwrap()).await.unwrap(), disk);
}

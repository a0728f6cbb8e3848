//! What an open does before anything else: finish commits that were decided, remove imports that
//! were not.
//!
//! | found | means | done |
//! |---|---|---|
//! | pack without record | an import that never committed | the pack is deleted |
//! | record "sealed" | a commit that was decided | its chunks are indexed from its table |
//! | record without pack | somebody removed a file | reported; its chunks are `Corrupt` when read, and an import stores them anew |
//! | pack of an epoch still to come, or packs and no index | the index is older than the packs | the open is refused: nothing is deleted on doubt |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::blocking;
use super::index::{Index, PackRecord, PackState};
use crate::chunk::blob::SharedBlobs;
use crate::chunk::pack::{PREFIX, PackId, read_table};
use crate::error::{Error, Result};

/// Bring index and packs together. Returns the epoch of this start.
pub async fn recover(index: &Arc<Index>, blobs: &SharedBlobs) -> Result<u64> {
    let shared = index.clone();
    let (epoch, records) = blocking(move || {
        shared.clear_scratch()?;
        let mut records = BTreeMap::new();
        shared.packs(&mut |pack, record| {
            records.insert(pack, record);
        })?;
        Ok((shared.epoch()?, records))
    })
    .await?;
    let packs = list_packs(blobs).await?;
    check_age(epoch, &packs)?;
    remove_orphans(blobs, &packs, &records).await?;
    index.set_missing(missing(&packs, &records));
    finish_commits(index, blobs, &records).await?;
    let next = epoch.unwrap_or(0) + 1;
    let shared = index.clone();
    blocking(move || shared.set_epoch(next)).await?;
    Ok(next)
}

/// The packs that are there, sorted.
async fn list_packs(blobs: &SharedBlobs) -> Result<Vec<PackId>> {
    let names = blobs.list(PREFIX).await?;
    let known = names.iter().filter_map(|name| {
        let pack = PackId::parse(name);
        if pack.is_none() {
            tracing::warn!(name, "a file among the packs is not a pack; it is left alone");
        }
        pack
    });
    Ok(known.collect())
}

fn check_age(epoch: Option<u64>, packs: &[PackId]) -> Result<()> {
    let Some(newest) = packs.iter().map(|pack| pack.epoch).max() else {
        return Ok(());
    };
    if epoch.is_some_and(|epoch| newest <= epoch) {
        return Ok(());
    }
    let what = format!(
        "the chunk index is older than the packs beside it (it is of start {}, pack {} of start {newest})",
        epoch.unwrap_or(0),
        packs.last().map_or_else(String::new, |pack| pack.name())
    );
    Err(Error::corrupt(what).remedy("restore index/ and packs/ from the same backup; nothing was changed"))
}

async fn remove_orphans(blobs: &SharedBlobs, packs: &[PackId], records: &BTreeMap<PackId, PackRecord>) -> Result<()> {
    for pack in packs.iter().filter(|pack| !records.contains_key(pack)) {
        tracing::info!(%pack, "removing a pack of an import that was not committed");
        blobs.delete(&pack.name()).await?;
    }
    Ok(())
}

fn missing(packs: &[PackId], records: &BTreeMap<PackId, PackRecord>) -> BTreeSet<PackId> {
    let missing: BTreeSet<_> = records.keys().filter(|pack| packs.binary_search(pack).is_err()).copied().collect();
    for pack in &missing {
        tracing::error!(%pack, "a pack is missing: restore it from a backup, or import its images again");
    }
    missing
}

/// Index the packs whose commit was decided and cut short.
async fn finish_commits(index: &Arc<Index>, blobs: &SharedBlobs, records: &BTreeMap<PackId, PackRecord>) -> Result<()> {
    for (pack, record) in records.iter().filter(|(_, record)| record.state == PackState::Sealed) {
        let frames = match read_table(blobs.as_ref(), *pack).await {
            Ok((frames, _)) => frames,
            Err(error) => {
                // Its commit was never answered; the rest of the store goes on without it.
                tracing::error!(%pack, %error, "the chunks of a pack cannot be indexed");
                continue;
            }
        };
        let (shared, pack, totals) = (index.clone(), *pack, record.totals);
        blocking(move || {
            shared.add_pack(pack, &frames)?;
            shared.record_packs(&[(pack, totals)], PackState::Indexed)
        })
        .await?;
    }
    Ok(())
}

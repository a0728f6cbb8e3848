//! Everything that is kept, opened in order: chunk store, catalog, delta log, overlays.
//!
//! The daemon serves from it and `mimeo fsck` checks it, so both see the same state: packs and index
//! brought together, the log replayed.

use std::path::PathBuf;
use std::sync::Arc;

use super::DataDir;
use crate::chunk::blob::LocalBlobs;
use crate::chunk::{ChunkStore, ChunkStoreOptions};
use crate::config::Config;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::image::{CATALOG_TABLES, Catalog, KvCatalogLog};
use crate::meta::{Durability, KvStore, RocksKv, RocksOptions, Table};
use crate::overlay::log::{DeltaLog, LocalLog, LogOptions};
use crate::overlay::{OverlayOptions, OverlayStore};

/// The stores of a data directory.
pub struct Stores {
    pub chunks: Arc<ChunkStore>,
    pub catalog: Arc<Catalog>,
    pub log: Arc<LocalLog>,
    pub overlays: Arc<OverlayStore>,
}

impl Stores {
    pub async fn open(dir: &DataDir, config: &Config, env: &Env) -> Result<Self> {
        let index_tables = [ChunkStore::TABLES, ChunkStore::SCRATCH].concat();
        let index = open_kv(dir.path().join("index"), index_tables, ChunkStore::SCRATCH).await?;
        let packs = Arc::new(LocalBlobs::open(env.disk.clone(), dir.path().to_path_buf())?);
        let chunks = ChunkStore::open(index, packs, env.clone(), chunk_options(config)?).await?;
        let log = open_kv(dir.path().join("catalog"), CATALOG_TABLES.to_vec(), &[]).await?;
        let log = blocking(move || KvCatalogLog::open(log)).await?;
        let catalog = Catalog::open(Arc::new(log), env.clone()).await?;
        let kv = open_private_index(dir).await?;
        let (epoch, log) = open_log(dir, env, kv.clone()).await?;
        let marks = catalog.state().marked_overlays().into_iter().collect();
        let options = OverlayOptions { cache_bytes: config.cache.private_bytes };
        let overlays = OverlayStore::open(log.clone(), kv, chunks.clone(), epoch, marks, options).await?;
        Ok(Self { chunks, catalog, log, overlays })
    }

    /// Leave nothing to replay.
    pub async fn close(self) -> Result<()> {
        // What could not be brought into the index is replayed at the next start, if the log has it.
        let flushed = self.overlays.flush(Durability::Synced).await;
        let closed = blocking(move || self.log.close()).await;
        let chunks = self.chunks;
        blocking(move || {
            chunks.close();
            Ok(())
        })
        .await?;
        self.catalog.close().await?;
        closed.and(flushed)
    }
}

/// The index of private writes alone.
pub async fn open_private_index(dir: &DataDir) -> Result<Arc<dyn KvStore>> {
    open_kv(dir.path().join("overlays"), OverlayStore::TABLES.to_vec(), &[]).await
}

async fn open_log(dir: &DataDir, env: &Env, kv: Arc<dyn KvStore>) -> Result<(u64, Arc<LocalLog>)> {
    let (env, path) = (env.clone(), dir.path().join("log"));
    blocking(move || {
        let epoch = OverlayStore::next_epoch(&*kv)?;
        Ok((epoch, LocalLog::open(env, path, epoch, LogOptions::default())?))
    })
    .await
}

async fn open_kv(path: PathBuf, tables: Vec<Table>, scratch: &[Table]) -> Result<Arc<dyn KvStore>> {
    let options = RocksOptions { scratch: scratch.to_vec(), ..RocksOptions::default() };
    Ok(Arc::new(blocking(move || RocksKv::open(path, &tables, options)).await?))
}

/// Run `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("a store was interrupted").because(e))?
}

fn chunk_options(config: &Config) -> Result<ChunkStoreOptions> {
    let pack_bytes = usize::try_from(config.store.pack_bytes)
        .map_err(|e| Error::invalid(format!("store.pack_bytes is {}", config.store.pack_bytes)).because(e))?;
    Ok(ChunkStoreOptions {
        cache_bytes: config.cache.bytes,
        read_ahead_bytes: config.cache.read_ahead_bytes,
        pack_bytes,
        zstd_level: config.store.zstd_level,
    })
}

//! What the daemon is, what it holds and what it measures.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Context;
use super::reply::{Answer, Refused};
use super::types::{StatusInfo, UsageInfo};
use crate::chunk::StoreUsage;
use crate::env::Space;
use crate::error::{Error, Result};
use crate::metrics::{self, Readings};

pub(super) async fn status(State(cx): State<Arc<Context>>) -> Json<StatusInfo> {
    Json(StatusInfo {
        mimeo: env!("CARGO_PKG_VERSION").into(),
        nfs: cx.nfs.iter().map(ToString::to_string).collect(),
        catalog_revision: cx.catalog.state().rev().0,
        uptime_secs: cx.env.clock.uptime().as_secs(),
    })
}

pub(super) async fn usage(State(cx): State<Arc<Context>>) -> Answer<UsageInfo> {
    let (store, disk) = measure(&cx).await?;
    let state = cx.catalog.state();
    let (cache, ahead) = (cx.chunks.cache().stats(), cx.chunks.ahead());
    Ok(Json(UsageInfo {
        images: state.images().count() as u64,
        versions: state.versions().count() as u64,
        clones: state.clone_count() as u64,
        pins: state.clones().map(|clone| clone.pins.len() as u64).sum(),
        snapshots: state.snapshot_count() as u64,
        chunks: store.chunks,
        bytes_logical: state.versions().map(|version| version.bytes_logical).sum(),
        bytes_raw: store.raw_bytes,
        bytes_stored: store.stored_bytes,
        chunks_quarantined: store.quarantined,
        bytes_cache_used: cache.bytes,
        bytes_cache_capacity: cache.capacity_bytes,
        bytes_cache_loaded: cache.loaded_bytes,
        bytes_ahead_loaded: ahead.loaded_bytes,
        bytes_ahead_used: ahead.used_bytes,
        bytes_disk_free: disk.free,
        bytes_disk_total: disk.total,
    }))
}

pub(super) async fn metrics(State(cx): State<Arc<Context>>) -> Result<Response, Refused> {
    let text = metrics::encode(read(&cx).await?);
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn read(cx: &Arc<Context>) -> Result<Readings> {
    let (store, _) = measure(cx).await?;
    let state = cx.catalog.state();
    let (cache, ahead) = (cx.chunks.cache().stats(), cx.chunks.ahead());
    Ok(Readings {
        images: state.images().count() as u64,
        versions: state.versions().count() as u64,
        clones: state.clone_count() as u64,
        catalog_revision: state.rev().0,
        cache_loads: cache.loads,
        cache_loaded_bytes: cache.loaded_bytes,
        ahead_loads: ahead.loads,
        ahead_loaded_bytes: ahead.loaded_bytes,
        ahead_used: ahead.used,
        ahead_used_bytes: ahead.used_bytes,
        ahead_wasted_bytes: ahead.wasted_bytes,
        cache_bytes: cache.bytes,
        cache_capacity_bytes: cache.capacity_bytes,
        store_chunks: store.chunks,
        store_bytes: store.stored_bytes,
        store_quarantined: store.quarantined,
        imports_done: cx.imports.done(),
        imports_failed: cx.imports.failed(),
        uptime_secs: cx.env.clock.uptime().as_secs(),
    })
}

/// What only blocking calls can tell.
async fn measure(cx: &Arc<Context>) -> Result<(StoreUsage, Space)> {
    let cx = cx.clone();
    let work = move || {
        let space = cx.env.disk.space(&cx.data_dir);
        let space = space.map_err(|e| Error::io(format!("data directory {}", cx.data_dir.display()), e))?;
        Ok((cx.chunks.usage()?, space))
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("measuring the store").because(e))?
}

//! `mimeo df`.

use anyhow::Result;

use super::client::Client;
use super::output::{Output, fields, size};
use crate::admin::types::UsageInfo;

pub(super) async fn df(client: &mut Client, output: &mut Output) -> Result<()> {
    output.show(&client.get::<UsageInfo>("/v1/df").await?, show)
}

fn show(usage: &UsageInfo) -> String {
    let of = |part, whole| format!("{} of {}", size(part), size(whole));
    fields(&[
        ("images", format!("{} with {} versions", usage.images, usage.versions)),
        ("clones", format!("{} with {} pins and {} snapshots", usage.clones, usage.pins, usage.snapshots)),
        ("all versions", size(usage.bytes_logical)),
        ("distinct", format!("{} in {} chunks", size(usage.bytes_raw), usage.chunks)),
        ("stored", size(usage.bytes_stored)),
        ("damaged", format!("{} chunks", usage.chunks_quarantined)),
        ("cache", of(usage.bytes_cache_used, usage.bytes_cache_capacity)),
        ("read into it", size(usage.bytes_cache_loaded)),
        ("read ahead", format!("{}, {} of it used", size(usage.bytes_ahead_loaded), size(usage.bytes_ahead_used))),
        ("disk free", of(usage.bytes_disk_free, usage.bytes_disk_total)),
    ])
}

//! That the bytes are right: storms of which every byte is compared. Comparing takes the generator's time, so these
//! are storms of their own, and their rates are nobody's.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::common::report::{Cell, Table};
use crate::load::Load;
use crate::stage::{Kind, Stage, drop_page_cache, text};
use crate::storms::{Order, Storms};

/// A cold storm of each load on each server that has bytes.
pub fn run(stage: &mut Stage, storms: &Storms, loads: &[Load], clients: u32, scratch: &Path) -> Result<Table> {
    let mut table = Table::new("Storms whose bytes were compared (cold)");
    for load in loads {
        let manifest = scratch.join(format!("{}.digests", load.key));
        storms.manifest(&load.source, &manifest)?;
        for kind in stage.kinds().into_iter().filter(|kind| *kind != Kind::Null) {
            let fleet = stage.fresh(kind, load, clients)?;
            drop_page_cache()?;
            let server = stage.start(kind)?;
            let file = format!("{}-{clients}-proof-{}", load.key, kind.key());
            eprintln!("{file} ...");
            let order = Order::new(stage, &server, &fleet, clients).replay(load).with(&["--verify", text(&manifest)?]);
            let storm = storms.run(&order, &file)?;
            server.stop()?;
            ensure!(storm.bytes_wrong == 0, "{file}: {:?}", storm.error_examples);
            let mib = |bytes: u64| Cell::count(bytes >> 20);
            table.row([
                ("load", Cell::text(load.name)),
                ("clients", Cell::count(clients.into())),
                ("server", Cell::text(kind.name())),
                ("MiB read", mib(storm.bytes_read)),
                ("compared and right", mib(storm.bytes_verified)),
                ("wrong", mib(storm.bytes_wrong)),
                ("not comparable", mib(storm.bytes_unverified)),
                ("errors", Cell::count(storm.errors_total())),
            ]);
        }
    }
    Ok(table)
}

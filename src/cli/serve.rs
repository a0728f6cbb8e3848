//! `mimeo serve`: configuration, flags over it, log, daemon.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use tracing_subscriber::EnvFilter;

use super::Global;
use crate::config::Config;
use crate::daemon::{self, Options};

#[derive(Args)]
pub(super) struct Serve {
    /// Address and port of NFS and MOUNT, in place of nfs.listen
    #[arg(long, value_name = "ADDR:PORT")]
    nfs: Option<SocketAddr>,
    /// Configuration file (TOML); without one the defaults hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(serve: Serve, global: &Global) -> Result<()> {
    let config = effective(serve, global)?;
    let warnings = config.validate()?;
    start_log(&config)?;
    for warning in warnings {
        tracing::warn!("configuration: {warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    let options = Options { data: absolute(&global.data)?, config };
    let outcome = runtime.block_on(daemon::run(options));
    Ok(outcome?)
}

/// The configuration file, with the flags over it.
fn effective(serve: Serve, global: &Global) -> Result<Config> {
    let mut config = serve.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
    if let Some(listen) = serve.nfs {
        config.nfs.listen = vec![listen];
    }
    if let Some(admin) = &global.admin {
        config.admin.socket = absolute(&admin.socket)?;
    }
    Ok(config)
}

/// `path` without the current directory, so that every message names it in full.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("path {}", path.display()))
}

fn start_log(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log.filter).context("log.filter")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
}

//! The arguments that every bench takes.

use std::path::PathBuf;

use anyhow::Result;

use super::report::Report;

#[derive(clap::Args, Clone, Debug)]
pub struct CommonArgs {
    /// A run of seconds that proves only that everything works; its figures mean nothing.
    #[arg(long)]
    pub quick: bool,
    /// Also write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Directory for scratch data; it should be on the disk that is to be measured.
    #[arg(long, value_name = "DIR", env = "MIMEO_BENCH_DIR")]
    pub scratch: Option<PathBuf>,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

impl CommonArgs {
    /// A directory that goes away with the value.
    pub fn scratch_dir(&self) -> Result<tempfile::TempDir> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("mimeo-bench-");
        Ok(match &self.scratch {
            Some(parent) => builder.tempdir_in(parent)?,
            None => builder.tempdir()?,
        })
    }

    /// Print the report, and write it where that was asked for.
    pub fn publish(&self, report: &Report) -> Result<()> {
        report.print();
        match &self.json {
            Some(path) => report.write_json(path),
            None => Ok(()),
        }
    }
}

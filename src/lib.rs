//! mimeo: a NAS that clones images.
//!
//! Layers, each importing only from those above it in this list (`docs/architecture.md`):
//!
//! | module | owns |
//! |---|---|
//! | [`error`], [`config`], [`metrics`], [`env`](mod@env) | what every layer uses |
//! | [`meta`] | ordered keys and values (RocksDB) |
//! | [`audit`] | the audit log: who changed what |
//! | [`trace`] | recorded boots: what a client asked, and when |
//! | [`chunk`] | the content-addressed chunk store and its cache |
//! | [`manifest`] | immutable trees as pages in the chunk store |
//! | [`overlay`] | private writes of clones: the log |
//! | [`image`] | images, versions, clones, the catalog, the view switch, import |
//! | [`vfs`] | the file service without a protocol |
//! | [`maintain`] | background work (reclaiming, flattening, deduplication, compaction); checking a store |
//! | [`nfs`], [`admin`] | the NFSv3 front end; the HTTP API |
//! | [`daemon`] | composition: open, serve, drain |
//! | [`storm`] | the storm tool: thousands of NFS clients, against any server |
//! | [`cli`] | the command line |

pub mod admin;
pub mod audit;
pub mod chunk;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod env;
pub mod error;
pub mod image;
pub mod maintain;
pub mod manifest;
pub mod meta;
pub mod metrics;
pub mod nfs;
pub mod overlay;
pub mod storm;
pub mod trace;
pub mod vfs;

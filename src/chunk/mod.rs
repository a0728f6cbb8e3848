//! The chunk store: bytes named by their BLAKE3-256, stored once.
//!
//! Owns packs (files of framed chunks), the index that finds a chunk in them, the cutting of files
//! into chunks, the import session that writes new ones, and the cache of verified chunks that all
//! readers share. Invariants: a chunk leaves this module only after its bytes were hashed and found
//! equal to its name; a pack is either whole or goes away by itself; a zero run is never stored.
//!
//! Failure story: a chunk whose bytes are not its name is quarantined and answered `Corrupt`; the
//! rest goes on. A full disk fails the import session, whose packs are removed.

mod ahead;
pub mod blob;
mod cache;
pub mod cutter;
mod fetch;
mod id;
mod loaders;
mod memo;
pub mod pack;
mod session;
mod store;
mod turns;

pub use ahead::AheadStats;
pub use cache::{CacheStats, ChunkCache};
pub use fetch::{BlockKey, ChunkSink, ChunkSource, Fetch, MemoryChunks, Step, Stop, Stored};
pub use id::ChunkId;
pub use memo::MemoKey;
pub use session::Session;
pub use store::{ChunkStore, ChunkStoreOptions, StoreUsage};
pub use turns::Lane;

/// No chunk is larger than this. A reader refuses a frame that says otherwise before it takes memory.
pub const MAX_CHUNK: usize = 256 * 1024;

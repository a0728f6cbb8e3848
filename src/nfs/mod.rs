//! The NFS front end: MOUNT v3, NFSv3 and a port mapper on one TCP port (RFC 1813, RFC 5531).
//!
//! | file | owns |
//! |---|---|
//! | `server`, `conn`, `budget` | listeners, workers, drain; one connection; memory of all of them |
//! | `record`, `xdr`, `rpc`, `args` | the way in: records, bounded decoding, call headers, arguments |
//! | `dispatch`, `proc3/`, `mount`, `portmap` | which procedure a call means; one function per procedure |
//! | `encode`, `status`, `reply` | the way out: attributes, statuses, the output queue |
//! | `handle` | file handles |
//! | `tap` | what a recording notes of a call |
//! | `drc` | the answers of calls that must not run twice |
//!
//! A request that finds everything in memory is decoded in place, answered on its connection's task
//! and queued; all that one read brought in leaves in one vectored write. One that has to wait goes
//! aside with a copy of its record and is run again when its chunks are there. A reply that may leave
//! only when a change is on stable storage goes aside by itself.
//!
//! Invariants: nothing that a client chooses (lengths, counts, requests in flight, connections) takes
//! memory before it was compared with a bound; the protocol goes no further inward than this module.
//!
//! Failure story: a stream that cannot be understood loses its connection; a call that cannot be is
//! answered with RPC's own errors; a procedure that panics is answered SYSTEM_ERR and logged.

pub mod args;
mod budget;
mod conn;
mod dispatch;
mod drc;
mod encode;
pub mod fuzz;
mod handle;
mod log;
mod mount;
mod portmap;
mod proc3;
mod record;
mod reply;
mod rpc;
mod server;
mod status;
mod tap;
pub mod xdr;

pub use fuzz::decode as fuzz_decode;
pub use handle::{BadHandle, HandleKeys};
pub use record::{MAX_FRAGMENTS, MAX_RECORD, RecordBuffer};
pub use server::{Bounds, Server, ServerOptions};

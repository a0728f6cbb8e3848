//! The documents of recordings and of warming up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ErrorInfo;
use crate::trace::{Header, Item};

/// One line of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceLine {
    /// The first.
    Header(Header),
    Item(Item),
    /// The last line of a recording that came to its end.
    Done {
        /// Operations that it had no room for.
        lost: u64,
    },
    Error(ErrorInfo),
}

/// What a recording is told by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceInfo {
    /// The file.
    pub trace: String,
    pub version: String,
    pub clone: String,
    pub client: String,
    pub started: String,
    pub millis: u64,
    pub operations: u64,
    pub operations_failed: u64,
    pub operations_lost: u64,
    pub procedures: BTreeMap<String, u64>,
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// Bytes of files that were read, each once, and the number of these files.
    pub bytes_working_set: u64,
    pub files_read: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmBody {
    /// `IMAGE@VERSION`
    pub version: String,
    /// Parts of files; `None`: all of the version.
    pub files: Option<Vec<WarmFile>>,
}

/// Parts of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmFile {
    /// From the root, without a leading slash, as bytes.
    pub path: Vec<u8>,
    /// From, to.
    pub ranges: Vec<(u64, u64)>,
}

/// One line of warming up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmLine {
    Progress { bytes_wanted: u64, bytes_done: u64 },
    Done(WarmInfo),
    Error(ErrorInfo),
}

/// What was warmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmInfo {
    pub version: String,
    /// Objects that were wanted, and those of them that the version does not have; some by name.
    pub objects: u64,
    pub objects_missing: u64,
    pub missing: Vec<String>,
    /// Chunks of data and their bytes.
    pub chunks: u64,
    pub bytes: u64,
    /// What of these was read from disk.
    pub chunks_loaded: u64,
    pub bytes_loaded: u64,
    /// What does not fit into the cache.
    pub bytes_left_out: u64,
    pub millis: u64,
}

//! The documents of the admin API, shared by the server and the command line.
//!
//! Field names are stable: scripts read them from `--json`. Times are RFC 3339 in UTC; sizes are in
//! bytes and say so in their names; `version` is always `IMAGE@vN`. A field may be added, never
//! renamed, and an unknown one is ignored, so that old clients understand new daemons.

mod operations;
mod traces;

pub use operations::*;
pub use traces::*;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::audit::Entry as AuditEntry;

/// Labels as they are written.
pub type LabelMap = BTreeMap<String, String>;

/// Every refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// What was wrong, with which object, and why.
    pub error: String,
    /// `not_found`, `exists`, `invalid`, ... : one word per `ErrorKind`.
    pub kind: String,
    pub remedy: Option<String>,
}

/// One image, in `image ls` and `image show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    pub name: String,
    pub created: String,
    pub labels: LabelMap,
    /// Tag to version.
    pub tags: LabelMap,
    /// The newest version, if there is any.
    pub version: Option<String>,
    /// How many clones there are of it.
    pub clones: u64,
    /// How its clones are switched, where they say nothing themselves.
    pub switch: SwitchWords,
    /// Oldest first.
    pub versions: Vec<VersionInfo>,
}

/// One version of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    pub version: String,
    pub created: String,
    pub source: String,
    pub author: String,
    /// `application`, `crash` or `unknown`.
    pub consistency: String,
    pub labels: LabelMap,
    pub tags: Vec<String>,
    /// The path that clients mount.
    pub export: String,
    pub manifest: String,
    /// How many clones show it.
    pub clones: u64,
    /// Objects of all kinds.
    pub inodes: u64,
    /// Sum of the files' lengths.
    pub bytes_logical: u64,
    /// Stored size of the distinct chunks.
    pub bytes_stored: u64,
    /// Of these, what its import added to the store.
    pub bytes_added: u64,
    /// Removed by name; kept because clones or pins still read it.
    pub removed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageList {
    pub images: Vec<ImageInfo>,
}

/// Edits of the labels of an image or a version, and tags of an image to take away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetImage {
    /// `k=v` sets, `k-` removes.
    #[serde(default)]
    pub edits: Vec<String>,
    #[serde(default)]
    pub untag: Vec<String>,
    /// How its clones are switched, where they say nothing themselves.
    #[serde(default)]
    pub switch: SwitchWords,
}

/// Which clones, images with versions, or snapshots of a clone are removed: by name, or those that match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    #[serde(default)]
    pub names: Vec<String>,
    #[serde(default)]
    pub select: Option<String>,
}

/// Edits of the labels of clones, named or selected: `k=v` sets, `k-` removes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelClones {
    #[serde(default)]
    pub names: Vec<String>,
    #[serde(default)]
    pub select: Option<String>,
    pub edits: Vec<String>,
}

/// Edits of the labels of a snapshot: `k=v` sets, `k-` removes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelSnapshot {
    pub edits: Vec<String>,
}

/// The body of a tag request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagRequest {
    /// `IMAGE@vN` or `IMAGE@TAG`.
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportBody {
    /// Absolute path of a folder on the daemon's machine.
    pub source: String,
    /// `k=v` each.
    #[serde(default)]
    pub labels: Vec<String>,
    #[serde(default = "unknown")]
    pub consistency: String,
    /// Parts of its files that are to lie in packs before all else, in this order.
    #[serde(default)]
    pub layout: Vec<WarmFile>,
}

fn unknown() -> String {
    "unknown".into()
}

/// One line of an import's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportLine {
    Progress(ImportProgress),
    /// The last line of an import that made a version.
    Done(Box<ImportInfo>),
    /// The last line of one that did not.
    Error(ErrorInfo),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportProgress {
    /// `reading`, `sorting` or `publishing`.
    pub phase: String,
    pub inodes_found: u64,
    pub inodes_done: u64,
    pub bytes_found: u64,
    pub bytes_done: u64,
}

/// What an import made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportInfo {
    pub name: String,
    #[serde(flatten)]
    pub version: VersionInfo,
    /// Objects that are what they were in the version before: same inode number, same handle.
    pub inodes_kept: u64,
    /// Directories left empty because another filesystem is mounted there.
    pub mounts_skipped: u64,
    pub millis: u64,
}

/// One line of `image diff`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffEntry {
    /// `A` added, `M` modified, `D` deleted.
    pub change: String,
    /// Of what was modified: `data`, `attributes`, `type`.
    pub what: Vec<String>,
    /// Length of the file or symbolic link on each side; 0 for all else.
    pub bytes_old: u64,
    pub bytes_new: u64,
    /// Of a clone: bytes of the file that are private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_private: Option<u64>,
    /// Bytes that are not printable ASCII, and the backslash, as `\xNN`.
    pub path: String,
}

/// All that a diff told, together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffTotals {
    pub paths_added: u64,
    pub paths_removed: u64,
    pub paths_changed: u64,
    /// Lengths of the paths that differ, on each side.
    pub bytes_old: u64,
    pub bytes_new: u64,
    /// Of a clone: private bytes of its files, each file counted once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_private: Option<u64>,
}

/// One line of a diff's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffLine {
    Entry(DiffEntry),
    /// The last line.
    Done(DiffTotals),
    /// The last line of a diff that broke off.
    Error(ErrorInfo),
}

/// One clone, in `clone ls` and `clone show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneInfo {
    pub name: String,
    pub image: String,
    /// The version that it shows.
    pub version: String,
    /// Counts the switches, from 1.
    pub view: u64,
    pub labels: LabelMap,
    pub created: String,
    /// When it was last switched, or else created.
    pub switched: String,
    /// The path that clients mount.
    pub export: String,
    /// How many former views are still readable.
    pub pins: u64,
    pub snapshots: u64,
    /// Bytes of file data that the clone has of its own, over all layers.
    pub bytes_private: u64,
    /// Objects that it changed, made or removed.
    pub inodes_private: u64,
    /// Most private bytes, if there is a limit.
    pub bytes_quota: Option<u64>,
    /// Sealed layers under the one that takes the writes.
    pub layers: u64,
    /// How many forks lie between it and a version.
    pub depth: u64,
    /// The version that a repoint meant it to show; it stayed because of its private writes.
    pub lagging: Option<String>,
    /// Since when it is lagging.
    pub lagging_since: Option<String>,
    /// The switch that waits for it.
    pub staged: Option<StagedInfo>,
    /// Where a switch waits for the next mount: why a mount would not set it off now.
    pub blocked_by: Vec<String>,
    pub policy: PolicyInfo,
    /// How it is switched.
    pub switch: SwitchWords,
}

/// A switch that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedInfo {
    pub version: String,
    pub operation: String,
    pub since: String,
    /// When it is due; `null`: at the clone's next mount.
    pub at: Option<String>,
}

/// What a clone's export has of its own; `null` is what the configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInfo {
    pub allow: Option<Vec<String>>,
    pub read_only: Option<bool>,
    /// `none`, `root` or `all`.
    pub squash: Option<String>,
    pub privileged_port: Option<bool>,
}

/// Changes to the export policy and the quota of clones, named or selected. What is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetClones {
    #[serde(default)]
    pub names: Vec<String>,
    #[serde(default)]
    pub select: Option<String>,
    /// First of all, back to what the configuration says; the quota stays.
    #[serde(default)]
    pub default: bool,
    /// Networks, or single addresses.
    #[serde(default)]
    pub allow: Option<Vec<String>>,
    #[serde(default)]
    pub read_only: Option<bool>,
    /// `none`, `root` or `all`.
    #[serde(default)]
    pub squash: Option<String>,
    #[serde(default)]
    pub privileged_port: Option<bool>,
    #[serde(default)]
    pub bytes_quota: Option<u64>,
    /// Take the quota away.
    #[serde(default)]
    pub no_quota: bool,
    /// How they are switched.
    #[serde(default)]
    pub switch: SwitchWords,
}

/// A snapshot to be of each of the clones named or selected, all at the same instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeSnapshots {
    #[serde(default)]
    pub names: Vec<String>,
    #[serde(default)]
    pub select: Option<String>,
    pub snapshot: String,
    /// `k=v` each.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// One snapshot of a clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    pub name: String,
    pub clone: String,
    /// The version that the clone showed.
    pub version: String,
    pub created: String,
    pub labels: LabelMap,
    /// What the clone had of its own then.
    pub bytes_private: u64,
    pub inodes_private: u64,
    pub layers: u64,
    /// Taken by mimeo itself, before the operation named.
    pub auto: bool,
    pub operation: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotList {
    pub snapshots: Vec<SnapshotInfo>,
}

/// Let a clone show what this snapshot of it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreBody {
    pub snapshot: String,
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreInfo {
    pub operation: String,
    /// The clone.
    pub name: String,
    pub snapshot: String,
    /// The version that it shows now.
    pub version: String,
    pub view: u64,
    /// The snapshot of what it showed before.
    pub before: String,
}

/// A version of what a clone shows. Answered as an import is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromoteBody {
    /// `CLONE` or `CLONE@SNAPSHOT`.
    pub source: String,
    /// Made if there is none of that name.
    pub image: String,
    /// `k=v` each.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// A clone of a clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkBody {
    /// `CLONE` or `CLONE@SNAPSHOT`.
    pub source: String,
    pub name: String,
    /// `k=v` each.
    #[serde(default)]
    pub labels: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneList {
    pub clones: Vec<CloneInfo>,
}

/// Which clones are made: those in `names`, or `count` of them from `pattern`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateClones {
    /// `IMAGE`, `IMAGE@vN` or `IMAGE@TAG`.
    pub image: String,
    #[serde(default)]
    pub names: Vec<String>,
    /// A name with one `{}` or `{:0N}` for the number.
    #[serde(default)]
    pub pattern: Option<String>,
    #[serde(default)]
    pub count: Option<usize>,
    /// `k=v` each.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClonesCreated {
    pub image: String,
    pub version: String,
    pub clones: u64,
    pub names: Vec<String>,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// As it was named in the request; several clones one per entry.
    pub names: Vec<String>,
}

/// Switch clones of `image` to version `to`: all of them, or those that match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepointBody {
    pub image: String,
    pub to: String,
    #[serde(default)]
    pub select: Option<String>,
    #[serde(default)]
    pub clones: Vec<String>,
    /// Only so many hundredths of them, from 1 to 100.
    #[serde(default)]
    pub percent: Option<u8>,
    #[serde(flatten)]
    pub policy: SwitchWords,
    /// Clones that may stay because of conflicts.
    #[serde(default)]
    pub max_failures: usize,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// How clones are switched; what is not given is left to the clone, then to its image, then it is `keep`,
/// `stop`, `live`. `default` for any of them is the same, and takes away what a clone or image says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchWords {
    /// What becomes of private writes: `keep`, `discard`, `preserve` or `stay`.
    pub writes: Option<String>,
    /// What `preserve` preserves: paths from the root.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Where both sides changed the same: `stop`, `clone-wins` or `image-wins`.
    pub conflict: Option<String>,
    /// `live` or `on-mount`.
    pub activate: Option<String>,
}

/// What a repoint did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepointInfo {
    /// `null` if nothing was done.
    pub operation: Option<String>,
    pub dry_run: bool,
    /// Why a repoint would be refused.
    pub refused: Option<String>,
    pub image: String,
    pub version: String,
    /// Clones that were switched.
    pub clones: u64,
    /// Of these, those whose private writes went along.
    pub kept: u64,
    /// Those of whose private writes some paths went along.
    pub preserved: u64,
    /// Those whose private writes were discarded.
    pub discarded: u64,
    /// The snapshot that each of these three kinds has of what it showed before.
    pub snapshot: Option<String>,
    /// Clones that stayed because of their private writes.
    pub lagging: u64,
    /// Clones that showed the version already.
    pub unchanged: u64,
    /// Clones that wait for their next mount.
    pub staged: u64,
    /// Clones that were written while the repoint was made ready, or moved since its dry run, and planned again.
    pub moved: Vec<String>,
    #[serde(flatten)]
    pub findings: Findings,
}

/// What a look at the private writes of clones finds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    pub conflicts: Vec<ConflictInfo>,
    /// All of them; `conflicts` has the first of each clone.
    pub conflicts_total: u64,
    /// Clones whose private writes cannot go along whoever wins.
    #[serde(default)]
    pub stuck: Vec<StuckInfo>,
    /// Of a dry run: former views that would stay readable.
    pub pins: Option<u64>,
    /// Of a dry run: bytes of the files that the version changed, which clients fetch anew if they read them.
    pub bytes_refetched: Option<u64>,
}

/// A clone whose private writes cannot go along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StuckInfo {
    /// The clone.
    pub name: String,
    pub why: String,
}

/// A path that a clone and the version changed both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictInfo {
    /// The clone.
    pub name: String,
    /// Bytes that are not printable ASCII, and the backslash, as `\xNN`.
    pub path: String,
    /// `added`, `changed`, `attributes`, `removed` or `renamed`.
    pub clone: String,
    pub image: String,
    /// A virtual disk.
    pub disk_image: bool,
    /// `stopped`, `clone-wins`, `image-wins`, or `undecidable`.
    pub outcome: String,
}

/// One former view that stays readable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinInfo {
    /// The clone.
    pub name: String,
    pub version: String,
    pub view: u64,
    /// When the clone was switched away from it.
    pub since: String,
    /// The operation that did.
    pub operation: String,
    /// The version was removed by name, and is read by this pin, if by nothing else.
    pub version_removed: bool,
    /// Addresses of machines that may hold handles into it: they used the clone and have not mounted it anew
    /// or unmounted it since. As far as is known since the daemon's start.
    pub clients: Vec<String>,
    /// When something was last resolved in it, as far as is known since the daemon's start; else `since`.
    pub idle_since: String,
    /// What the view has of its own, its layers included.
    pub bytes_private: u64,
    /// Of these, what nothing but this pin needs.
    pub bytes_held: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinList {
    pub pins: Vec<PinInfo>,
}

/// Which pins are dropped: those of the named clones, of the selected ones, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropPinsBody {
    #[serde(default)]
    pub select: Option<String>,
    #[serde(default)]
    pub clones: Vec<String>,
    /// Only that of this view, of the one clone that is named.
    #[serde(default)]
    pub view: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinsDropped {
    pub pins: u64,
    /// `CLONE view N` each.
    #[serde(default)]
    pub names: Vec<String>,
}

/// What became of the switch that waited for a clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivatedInfo {
    /// The clone.
    pub name: String,
    /// The version that it shows now.
    pub version: String,
    pub view: u64,
    /// A switch waits still, or again.
    pub staged: bool,
    /// The operation that staged it.
    pub staged_by: String,
    /// The operation that made the switch.
    pub operation: Option<String>,
    /// Why it was not made.
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationList {
    pub clones: Vec<ActivatedInfo>,
}

/// What was changed, by whom: oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditList {
    pub entries: Vec<AuditEntry>,
}

/// Space: of the store, of its filesystem, of the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageInfo {
    pub images: u64,
    pub versions: u64,
    pub clones: u64,
    pub pins: u64,
    pub snapshots: u64,
    pub chunks: u64,
    /// Sum of the files' lengths over all versions.
    pub bytes_logical: u64,
    /// Bytes of all distinct chunks.
    pub bytes_raw: u64,
    /// What they take in packs.
    pub bytes_stored: u64,
    /// Chunks known to be damaged.
    pub chunks_quarantined: u64,
    pub bytes_cache_used: u64,
    pub bytes_cache_capacity: u64,
    /// What was read from disk into it since the start, decompressed.
    #[serde(default)]
    pub bytes_cache_loaded: u64,
    /// Of that, what nobody had asked for yet.
    #[serde(default)]
    pub bytes_ahead_loaded: u64,
    /// And of this, what somebody asked for then.
    #[serde(default)]
    pub bytes_ahead_used: u64,
    /// Of the filesystem that holds the data directory.
    pub bytes_disk_free: u64,
    pub bytes_disk_total: u64,
}

/// That the daemon is there, and which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusInfo {
    /// Of the program.
    pub mimeo: String,
    /// Addresses and ports.
    pub nfs: Vec<String>,
    pub catalog_revision: u64,
    pub uptime_secs: u64,
}

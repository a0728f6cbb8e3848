//! The catalog's records. Encoded with postcard behind a version byte (`docs/formats/catalog.md`):
//! the order of the fields is the format.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use ipnet::IpNet;

use super::Labels;
use super::policy::SwitchPolicy;
use super::switch::Content;
use crate::env::Time;
use crate::error::Error;
use crate::manifest::ManifestId;
use crate::overlay::{Counts, Layer, OverlayId, Position};

/// Names one clone or one version as an NFS export; also its fsid. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExportId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImageId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotId(pub u64);

/// What the names of automatic snapshots begin with; others do not.
pub(super) const AUTOMATIC_SNAPSHOT: &str = "before-op-";

/// Prints as `op-N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId(pub u64);

impl OperationId {
    /// The name of the snapshots that it takes before it changes clones.
    pub fn snapshot_name(self) -> String {
        format!("{AUTOMATIC_SNAPSHOT}{}", self.0)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op-{}", self.0)
    }
}

impl FromStr for OperationId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = text.strip_prefix("op-").and_then(|n| n.parse().ok());
        number
            .map(Self)
            .ok_or_else(|| Error::invalid(format!("operation {text:?}")).remedy("write op-N, as repoint printed it"))
    }
}

/// Counts from 1 within an image; never reused.
pub type VersionNumber = u32;

/// What belongs to the store as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRecord {
    pub store_id: [u8; 16],
    /// Keys of handle MACs, newest last; a handle names the one it was made with.
    pub handle_keys: Vec<(u8, [u8; 32])>,
    pub created: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    pub id: ImageId,
    pub name: Arc<str>,
    pub created: Time,
    pub labels: Labels,
    /// Movable names for versions.
    pub tags: BTreeMap<String, VersionNumber>,
    /// The number that the next version gets.
    pub next_version: VersionNumber,
    /// Seed of the name hash that READDIR cookies are made of; the same in all versions.
    pub name_seed: [u8; 16],
    /// How its clones are switched, where they say nothing themselves.
    pub policy: SwitchPolicy,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The version as a read-only export.
    pub export: ExportId,
    pub image: ImageId,
    pub number: VersionNumber,
    pub manifest: ManifestId,
    pub created: Time,
    /// Where it was imported from, as given.
    pub source: String,
    pub author: String,
    pub labels: Labels,
    /// `application`, `crash` or `unknown`.
    pub consistency: String,
    /// Objects of all kinds.
    pub inodes: u64,
    /// Sum of the files' lengths.
    pub bytes_logical: u64,
    /// Stored size of the distinct chunks, pages included.
    pub bytes_stored: u64,
    /// Of these, what this import added to the store.
    pub bytes_added: u64,
    /// Removed by name; kept only because views still read it.
    pub removed: bool,
}

/// Most sealed layers of a view. Whatever adds one beyond it is refused.
pub const MAX_LAYERS: usize = 8;
/// Most changes of generations that a clone remembers; a switch that needs one more is refused.
pub const MAX_TURNS: usize = 64;

/// What a clone shows: a version under a stack of private layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Counts from 1 within a clone; a generation in a handle is the view that began it.
    pub number: u64,
    pub version: VersionNumber,
    /// Sealed, bottom first.
    pub layers: Vec<Layer>,
    /// Other versions that objects in the layers have their base data from, ascending.
    pub bases: Vec<VersionNumber>,
    /// What made it; `None`: the clone was made with it.
    pub operation: Option<OperationId>,
    /// The overlay above them, which takes the writes into this view and no other.
    pub top: OverlayId,
}

impl View {
    /// The view `number` of a version without private writes.
    pub fn of(number: u64, version: VersionNumber, top: OverlayId) -> Self {
        Self::showing(number, Content::of_version(version), top)
    }

    pub fn showing(number: u64, content: Content, top: OverlayId) -> Self {
        let Content { version, layers, bases } = content;
        Self { number, version, layers, bases, operation: None, top }
    }

    /// What its sealed layers hold in private.
    pub fn sealed_counts(&self) -> Counts {
        sum(&self.layers)
    }

    /// The versions that it reads.
    pub fn versions_read(&self) -> impl Iterator<Item = VersionNumber> {
        std::iter::once(self.version).chain(self.bases.iter().copied())
    }

    /// Whether both show the same bytes, as long as neither was written.
    pub fn same_content(&self, other: &Self) -> bool {
        self.version == other.version && self.layers == other.layers
    }
}

/// What was written to an overlay between two positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Not what it held then any more.
    pub after: Position,
    pub upto: Layer,
}

/// A change of generations: from view `view` on, what has private state in one of `layers` (and is no
/// directory) is served under the generation `view`, because another line of content began there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    pub view: u64,
    /// Everything that is no directory gets the new generation, touched or not. Now and then a turn
    /// does this, so that those before it can be forgotten together with the views that need them.
    pub all: bool,
    /// None where `all` is set.
    pub layers: Vec<Layer>,
    /// What was written into pins since the turn before. None where `all` is set.
    pub written: Vec<Span>,
    /// What has private state in one of these went along, and keeps its generation.
    pub except: Vec<Layer>,
    /// What was removed and comes back: it is another line, wherever it has private state.
    pub returned: Vec<Span>,
}

impl Turn {
    fn layers_named(&self) -> impl Iterator<Item = &Layer> {
        let spans = self.written.iter().chain(&self.returned).map(|span| &span.upto);
        self.layers.iter().chain(&self.except).chain(spans)
    }
}

/// How a caller's user id is mapped before permissions are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Squash {
    /// Nobody is mapped: root is root. Machines that boot from a clone need it.
    #[default]
    None,
    /// Root becomes the anonymous user.
    Root,
    /// Everybody becomes the anonymous user.
    All,
}

/// What a clone's export has of its own; `None` is what the configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExportOverrides {
    pub allow: Option<Vec<IpNet>>,
    pub read_only: Option<bool>,
    pub squash: Option<Squash>,
    pub anon_uid: Option<u32>,
    pub anon_gid: Option<u32>,
    pub privileged_port: Option<bool>,
}

/// A former view that stays readable because handles into it may be in use. Its top stays open: an
/// object that only this view still has is written there, as an unlinked open file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub view: View,
    /// When the switch away from it happened.
    pub since: Time,
    pub operation: OperationId,
    /// What the view's top held at the clone's last switch, if it was written by then.
    pub sealed: Option<Layer>,
}

/// What a repoint meant a clone to show that stayed as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lagging {
    pub version: VersionNumber,
    pub since: Time,
    pub operation: OperationId,
}

/// A switch that waits: for the clone to be mounted, for its time, or for somebody to activate it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    pub version: VersionNumber,
    /// What the operation says about private writes; where it says nothing, the clone and its image do,
    /// when the switch is made.
    pub policy: SwitchPolicy,
    pub operation: OperationId,
    pub since: Time,
    /// `None`: at its next mount.
    pub at: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneRecord {
    pub id: ExportId,
    pub name: Arc<str>,
    pub image: ImageId,
    pub created: Time,
    pub labels: Arc<Labels>,
    pub view: View,
    /// Newest first. No two show the same lines of content, and none shows those of `view`.
    pub pins: Vec<Pin>,
    /// When the view last changed; grows strictly. Directories serve it as their least ctime.
    pub switched: Time,
    /// Oldest first.
    pub turns: Vec<Turn>,
    /// What was written, since the last switch, into pins that were dropped: the next turn names it.
    pub loose: Vec<Span>,
    pub export: Arc<ExportOverrides>,
    /// Most bytes of private data, counted over all layers of the view.
    pub quota: Option<u64>,
    /// How it is switched; shared by all clones that say the same.
    pub policy: Arc<SwitchPolicy>,
    /// A repoint meant it to show something else, and left it because of its private writes.
    pub lagging: Option<Lagging>,
    /// A switch that is still to come.
    pub staged: Option<Arc<Staged>>,
    /// How many forks lie between it and a clone that was made from a version.
    pub depth: u32,
}

impl CloneRecord {
    /// The versions that its view and its pins read.
    pub(super) fn versions_read(&self) -> impl Iterator<Item = VersionNumber> {
        std::iter::once(&self.view).chain(self.pins.iter().map(|pin| &pin.view)).flat_map(View::versions_read)
    }

    /// The overlays that take writes: of its view and of its pins.
    pub fn tops(&self) -> impl Iterator<Item = OverlayId> {
        std::iter::once(self.view.top).chain(self.pins.iter().map(|pin| pin.view.top))
    }

    /// Every sealed layer that the record names, some of them several times.
    pub fn layers_named(&self) -> impl Iterator<Item = &Layer> {
        let pinned = self.pins.iter().flat_map(|pin| pin.view.layers.iter().chain(&pin.sealed));
        self.view.layers.iter().chain(pinned).chain(self.layers_told_apart())
    }

    /// The sealed layers by which the generations of objects are told.
    pub fn layers_told_apart(&self) -> impl Iterator<Item = &Layer> {
        let loose = self.loose.iter().map(|span| &span.upto);
        self.turns.iter().flat_map(Turn::layers_named).chain(loose)
    }
}

/// A clone at a moment: a version under sealed layers. It reads what it names for as long as it is
/// there, and no other snapshot, view or clone depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    pub id: SnapshotId,
    pub clone: ExportId,
    /// Unique among the clone's.
    pub name: Arc<str>,
    pub created: Time,
    pub labels: Arc<Labels>,
    pub version: VersionNumber,
    /// Bottom first; what was the open top is the last one, if it held anything.
    pub layers: Vec<Layer>,
    /// Other versions that objects in the layers have their base data from, ascending.
    pub bases: Vec<VersionNumber>,
    /// The operation that took it before it changed the clone; `None` if a person did.
    pub operation: Option<OperationId>,
}

impl SnapshotRecord {
    /// What the clone showed.
    pub fn content(&self) -> Content {
        Content { version: self.version, layers: self.layers.clone(), bases: self.bases.clone() }
    }

    /// The versions that it reads.
    pub fn versions_read(&self) -> impl Iterator<Item = VersionNumber> {
        std::iter::once(self.version).chain(self.bases.iter().copied())
    }

    /// What the clone had in private.
    pub fn counts(&self) -> Counts {
        sum(&self.layers)
    }

    /// Taken by mimeo itself, before an operation.
    pub fn auto(&self) -> bool {
        self.operation.is_some()
    }
}

fn sum(layers: &[Layer]) -> Counts {
    layers.iter().fold(Counts::default(), |sum, layer| Counts {
        bytes: sum.bytes + layer.counts.bytes,
        inodes: sum.inodes + layer.counts.inodes,
    })
}

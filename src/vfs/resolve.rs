//! From an object to its node: the current view first, then the pins, newest first.
//!
//! A handle names (export, inode number, generation). The generation of anything but a directory is,
//! in each view, the number of the last view that began another line of content for it
//! ([`Turn`](crate::image::Turn)), or 0; a view has the object if its number is there and its
//! generation is the handle's. So no handle ever passes from one line of content to another.
//!
//! A [`Tree`] holds the lock of its view's open overlay, and whatever else is asked meanwhile
//! (its layers, the layers of turns up to its view) is of older overlays only: nobody waits in a
//! circle. Before a newer view is opened, the tree goes.

use super::activity::{Footprint, Use};
use super::policy::{Identity, Rules};
use super::{Attr, Caller, FileKind, ImageVfs, Object, ReceiptMaker, Refusal, Refused, Verb};
use crate::chunk::{Fetch, Lane, Step, Stop};
use crate::env::Time;
use crate::error::Error;
use crate::image::{CloneRecord, Export, ExportId, Span, State, View};
use crate::manifest::{Ino, Manifest, ManifestId};
use crate::overlay::{Layer, Node, Tree};

/// Why a run of a verb ended without an answer.
#[derive(Debug)]
pub(super) enum End {
    Stopped(Stop),
    Refused(Refused),
    /// The view that it runs on was switched away meanwhile: run it again on the newest.
    Moved,
}

pub(super) type Ended<T> = Result<T, End>;

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Stopped(Stop::Failed(error))
    }
}

impl From<Refused> for End {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Refusal> for End {
    fn from(why: Refusal) -> Self {
        Self::Refused(why.into())
    }
}

/// A run's end as the service tells it.
pub(super) fn settle<T>(ended: Ended<T>) -> Verb<T> {
    match ended {
        Ok(answer) => Ok(Ok(answer)),
        Err(End::Refused(refused)) => Ok(Err(refused)),
        Err(End::Stopped(stop)) => Err(stop),
        Err(End::Moved) => Err(Stop::Failed(Error::internal("a verb that reads minds view switches"))),
    }
}

/// One run of one verb.
pub(super) struct Run<'s, 'f> {
    pub vfs: &'s ImageVfs,
    pub state: &'s State,
    pub caller: &'s Caller,
    pub footprint: Option<&'s Footprint>,
    pub fetch: &'s mut Fetch<'f>,
    pub receipt: Option<&'s ReceiptMaker>,
}

/// A view of an export.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s> {
    pub export: ExportId,
    /// Directories serve no ctime before this: the time of the clone's last view switch.
    floor: Time,
    pub rules: Rules<'s>,
    /// The clone, and which of its views; `None`: a version.
    pub shown: Option<(&'s CloneRecord, &'s View)>,
}

impl Scope<'_> {
    /// Whether it is what the export shows now, and no pin.
    pub fn is_current(&self) -> bool {
        self.shown.is_none_or(|(clone, view)| clone.view.number == view.number)
    }

    /// The attributes under which `node` is served.
    fn attr(&self, ino: Ino, generation: u64, node: &Node) -> Attr {
        let ctime = match node.kind {
            FileKind::Directory => node.ctime.max(self.floor),
            _ => node.ctime,
        };
        Attr {
            kind: node.kind,
            mode: node.mode,
            nlink: node.nlink,
            uid: node.uid,
            gid: node.gid,
            size: node.size,
            used: node.used(),
            rdev: node.rdev,
            fsid: self.export.0,
            fileid: fileid(ino, generation),
            atime: node.atime,
            mtime: node.mtime,
            ctime,
        }
    }
}

/// An object, found in a view.
pub(super) struct Found<'s> {
    pub scope: Scope<'s>,
    pub ino: Ino,
    pub generation: u64,
    pub node: Node,
}

impl Found<'_> {
    pub fn object(&self) -> Object {
        Object { export: self.scope.export, ino: self.ino.0, generation: self.generation }
    }

    pub fn attr(&self) -> Attr {
        self.scope.attr(self.ino, self.generation, &self.node)
    }

    /// A refusal that carries this object's attributes.
    pub fn refuse(&self, why: Refusal) -> End {
        End::Refused(Refused { why, attr: Some(self.attr()) })
    }

    pub fn is_dir(&self) -> bool {
        self.node.kind == FileKind::Directory
    }
}

/// What for a view is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    Change,
}

impl<'s> Run<'s, '_> {
    /// The identity under which the request's caller is judged in this export.
    pub fn identity(&self, scope: &Scope<'s>) -> Identity<'s> {
        scope.rules.identity(self.caller)
    }

    /// Find an object to read it.
    pub fn find(&mut self, object: Object) -> Ended<(Tree<'s>, Found<'s>)> {
        let scope = self.scope(object.export)?;
        self.find_in(scope, object, Purpose::Read)
    }

    /// Find an object to change it, or its entries.
    pub fn find_to_change(&mut self, object: Object) -> Ended<(Tree<'s>, Found<'s>)> {
        let scope = self.scope(object.export)?;
        if scope.rules.read_only {
            let (_, found) = self.find_in(scope, object, Purpose::Read)?;
            return Err(found.refuse(Refusal::ReadOnly));
        }
        self.find_in(scope, object, Purpose::Change)
    }

    /// The object `ino` of a tree that is open already, which an entry or a parent link names.
    pub fn named(&mut self, tree: &Tree<'s>, scope: Scope<'s>, ino: Ino) -> Ended<Found<'s>> {
        match self.find_here(tree, scope, ino)? {
            Some(found) => Ok(found),
            None => Err(Error::corrupt(format!("inode {} is named by an entry but not there", ino.0)).into()),
        }
    }

    /// The object `ino` of an open tree, whatever its generation.
    pub fn find_here(&mut self, tree: &Tree<'s>, scope: Scope<'s>, ino: Ino) -> Ended<Option<Found<'s>>> {
        let Some(node) = tree.node(self.fetch, ino)? else { return Ok(None) };
        let generation = self.generation(&scope, ino, node.kind)?;
        Ok(Some(Found { scope, ino, generation, node }))
    }

    /// What an export shows now, if it is there and admits the caller.
    fn scope(&mut self, export: ExportId) -> Ended<Scope<'s>> {
        let scope = match self.state.export(export) {
            None => return Err(Refusal::Stale.into()),
            Some(Export::Version(_)) => {
                let rules = Rules { read_only: true, ..self.vfs.policy().rules() };
                Scope { export, floor: Time::default(), rules, shown: None }
            }
            Some(Export::Clone(clone)) => {
                let rules = self.vfs.policy().with(&clone.export);
                Scope { export, floor: clone.switched, rules, shown: Some((clone, &clone.view)) }
            }
        };
        if !scope.rules.admits(self.caller) {
            return Err(Refusal::Access.into());
        }
        self.fetch.load_for(Lane::Export(export.0));
        self.note(&scope, Use::Request);
        Ok(scope)
    }

    /// Note a use of the clone, if it is one.
    pub fn note(&self, scope: &Scope<'s>, what: Use) {
        if let (Some(footprint), Some(_)) = (self.footprint, scope.shown) {
            footprint.note(scope.export, what);
        }
    }

    fn find_in(&mut self, scope: Scope<'s>, object: Object, why: Purpose) -> Ended<(Tree<'s>, Found<'s>)> {
        let Some((clone, _)) = scope.shown else {
            return self.find_in_view(scope, object, why, &mut false)?.ok_or(Refusal::Stale.into());
        };
        let mut removed = false;
        for view in std::iter::once(&clone.view).chain(clone.pins.iter().map(|pin| &pin.view)) {
            let scope = Scope { shown: Some((clone, view)), ..scope };
            if let Some(found) = self.find_in_view(scope, object, why, &mut removed)? {
                if removed && found.1.node.is_dir() {
                    // No generation tells that of its directory.
                    return Err(Refusal::Stale.into());
                }
                if !scope.is_current() {
                    self.note(&scope, Use::View(view.number));
                }
                return Ok(found);
            }
        }
        Err(Refusal::Stale.into())
    }

    /// `removed` if its number was removed in this view.
    fn find_in_view(
        &mut self,
        scope: Scope<'s>,
        object: Object,
        why: Purpose,
        removed: &mut bool,
    ) -> Ended<Option<(Tree<'s>, Found<'s>)>> {
        // A generation is the number of the view that it began with.
        if object.generation > scope.shown.map_or(0, |(_, view)| view.number) {
            return Ok(None);
        }
        let tree = self.open(&scope, why)?;
        let ino = Ino(object.ino);
        let Some(found) = self.find_here(&tree, scope, ino)? else {
            // If its line of content came to an end here, older views have what is past.
            *removed |= tree.is_removed_here(self.fetch, ino)?;
            let ended = tree.is_removed(self.fetch, ino)?
                && self.generation(&scope, ino, FileKind::Regular)? == object.generation;
            return if ended { Err(Refusal::Stale.into()) } else { Ok(None) };
        };
        let same_line = found.generation == object.generation;
        Ok(same_line.then_some((tree, found)))
    }

    fn open(&mut self, scope: &Scope<'s>, why: Purpose) -> Ended<Tree<'s>> {
        let manifest = Manifest::shared(self.fetch, &self.manifest(scope)?)?;
        let Some((clone, view)) = scope.shown else { return Ok(Tree::of_version(manifest)) };
        let overlays = self.vfs.overlays();
        if why == Purpose::Read {
            return Ok(Tree::open(overlays, self.fetch, manifest, &view.layers, view.top)?);
        }
        let tree = Tree::open_for_change(overlays, self.fetch, manifest, &view.layers, view.top)?;
        if self.vfs.shows(clone, view) { Ok(tree) } else { Err(End::Moved) }
    }

    fn manifest(&self, scope: &Scope<'s>) -> Result<ManifestId, Error> {
        let (image, number) = match (scope.shown, self.state.export(scope.export)) {
            (Some((clone, view)), _) => (clone.image, view.version),
            (None, Some(Export::Version(version))) => return Ok(version.manifest),
            (None, _) => return Err(Error::internal("a scope without an export")),
        };
        let version = self.state.version(image, number);
        let missing = || Error::corrupt(format!("version v{number} of image {} is read but not there", image.0));
        version.map(|version| version.manifest).ok_or_else(missing)
    }

    /// The view that began the object's line of content in this view, if any did.
    pub fn generation(&mut self, scope: &Scope<'s>, ino: Ino, kind: FileKind) -> Step<u64> {
        let Some((clone, view)) = scope.shown else { return Ok(0) };
        if clone.turns.is_empty() || kind == FileKind::Directory {
            return Ok(0);
        }
        for turn in clone.turns.iter().rev().filter(|turn| turn.view <= view.number) {
            if turn.all {
                return Ok(turn.view);
            }
            let touched = self.touched(&turn.layers, ino)? || self.written(&turn.written, ino)?;
            if self.written(&turn.returned, ino)? || (touched && !self.touched(&turn.except, ino)?) {
                return Ok(turn.view);
            }
        }
        Ok(0)
    }

    /// Whether the object was changed within one of these spans.
    fn written(&mut self, spans: &[Span], ino: Ino) -> Step<bool> {
        for span in spans {
            if self.vfs.overlays().touched_after(self.fetch, &span.upto, span.after, ino)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether one of the layers has private state of the object.
    fn touched(&mut self, layers: &[Layer], ino: Ino) -> Step<bool> {
        for layer in layers {
            if self.vfs.overlays().touched(self.fetch, layer, ino)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The number under which clients know an object. Generation 0 has the inode number itself; for any
/// other, inode numbers are mixed over 64 bits, one to one.
pub(super) fn fileid(ino: Ino, generation: u64) -> u64 {
    if generation == 0 { ino.0 } else { mixed(ino.0 ^ mixed(generation)) }
}

/// The finalizer of SplitMix64, which is a bijection.
pub(super) fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn fileids_of_generations_do_not_meet() {
        let mut seen = HashSet::new();
        for generation in 0..64 {
            for ino in (0..500).chain((1 << 40)..(1 << 40) + 500) {
                assert!(seen.insert(fileid(Ino(ino), generation)), "inode {ino} generation {generation}");
            }
        }
    }

    #[test]
    fn fileids_are_frozen() {
        assert_eq!(fileid(Ino(4711), 0), 4711);
        assert_eq!(fileid(Ino(4711), 3), 7_280_713_217_799_803_908);
    }
}

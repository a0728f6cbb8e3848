//! The file service over the catalog, the chunk store and the overlays.
//!
//! Owns what all requests share, and the way from the verbs of [`Vfs`] to the runs that do them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::activation::Activations;
use super::activity::Activity;
use super::inodes::Inodes;
use super::policy::{ExportPolicy, Rules};
use super::reserve::Reserve;
use super::resolve::{Run, settle};
use super::tap::Tap;
use super::{
    Attr, Caller, Changed, CreateHow, Durable, ExportLine, FsStat, LinkTarget, ListWindow, Listing, Looked, NewAttr,
    NewObject, Object, Place, ReadData, ReceiptKey, Request, Rights, Verb, Vfs,
};
use crate::chunk::{ChunkSource, Fetch};
use crate::env::{Env, MemoryFile, Time};
use crate::error::{Error, Result};
use crate::image::{Catalog, CloneRecord, Export, ExportId, Fleet, State, View};
use crate::overlay::OverlayStore;

/// Clones and versions as files.
pub struct ImageVfs {
    catalog: Arc<Catalog>,
    chunks: Arc<dyn ChunkSource>,
    overlays: Arc<OverlayStore>,
    policy: ExportPolicy,
    env: Env,
    inodes: Inodes,
    reserve: Reserve,
    activity: Arc<Activity>,
    tap: Arc<Tap>,
    /// Makes switches that wait for a MNT; without it they go on waiting.
    activations: Option<Arc<Activations>>,
}

impl ImageVfs {
    /// `data_dir` is where private writes go. Must be called on a tokio runtime, which lives as long.
    pub fn new(
        catalog: Arc<Catalog>,
        chunks: Arc<dyn ChunkSource>,
        overlays: Arc<OverlayStore>,
        policy: ExportPolicy,
        env: Env,
        data_dir: PathBuf,
    ) -> Self {
        let inodes = Inodes::new(catalog.clone());
        let reserve = Reserve::new(env.clone(), data_dir);
        let activity = Activity::new(env.clock.uptime());
        let tap = Tap::new(env.clock.clone());
        Self { catalog, chunks, overlays, policy, env, inodes, reserve, activity, tap, activations: None }
    }

    /// Let a MNT set off the switch that waits for it.
    #[must_use]
    pub fn activating(self, fleet: Fleet) -> Self {
        let activations = Activations::new(fleet, self.activity.clone(), self.env.clock.clone());
        Self { activations: Some(Arc::new(activations)), ..self }
    }

    pub(super) fn activations(&self) -> Option<&Arc<Activations>> {
        self.activations.as_ref()
    }

    pub(super) fn policy(&self) -> &ExportPolicy {
        &self.policy
    }

    pub(super) fn overlays(&self) -> &OverlayStore {
        &self.overlays
    }

    pub(super) fn inodes(&self) -> &Inodes {
        &self.inodes
    }

    pub(super) fn newest(&self) -> Arc<State> {
        self.catalog.state()
    }

    pub(super) fn now(&self) -> Time {
        self.env.clock.now()
    }

    pub(super) fn reserve(&self) -> &Reserve {
        &self.reserve
    }

    /// Whether the newest revision still shows `view`, of a clone as it was: now, or in a pin.
    pub(super) fn shows(&self, clone: &CloneRecord, view: &View) -> bool {
        let newest = self.catalog.load();
        newest.clone_by_id(clone.id).is_some_and(|now| {
            now.view == clone.view && (now.view == *view || now.pins.iter().any(|pin| pin.view == *view))
        })
    }

    /// A run on the revision that the request has.
    pub(super) fn run<'s, 'f>(&'s self, rq: &'s mut Request<'f>) -> Run<'s, 'f> {
        let Request { caller, footprint, state, fetch, receipt, .. } = rq;
        Run { vfs: self, state, caller, footprint: *footprint, fetch, receipt: receipt.as_ref() }
    }

    /// The policy of an export; of one that is not there, the default.
    pub(super) fn rules<'a>(&'a self, state: &'a State, export: ExportId) -> Rules<'a> {
        match state.export(export) {
            Some(Export::Clone(clone)) => self.policy.with(&clone.export),
            _ => self.policy.rules(),
        }
    }
}

/// A line of the export list, if its export admits the caller.
fn line(path: impl FnOnce() -> String, rules: Rules<'_>, caller: &Caller) -> Option<ExportLine> {
    let networks = || rules.networks.iter().map(ToString::to_string).collect();
    rules.admits(caller).then(|| ExportLine { path: path().into_bytes(), networks: networks() })
}

impl Vfs for ImageVfs {
    fn begin<'a>(&'a self, caller: &'a Caller) -> Request<'a> {
        Request::new(caller, self.catalog.state(), Fetch::new(self.chunks.as_ref()).keeping())
    }

    fn mount(&self, rq: &mut Request<'_>, path: &[u8]) -> Verb<Object> {
        self.mount_export(rq, path)
    }

    fn unmount(&self, rq: &Request<'_>, path: &[u8]) {
        self.unmount_export(rq, path);
    }

    fn exports(&self, rq: &mut Request<'_>, limit: usize) -> Vec<ExportLine> {
        let (state, caller) = (rq.state(), rq.caller);
        let versions = state.versions().filter(|version| !version.removed).filter_map(|version| {
            let image = state.image(version.image)?;
            line(|| format!("/images/{}@v{}", image.name, version.number), self.policy.rules(), caller)
        });
        let clones = state
            .clones()
            .filter_map(|clone| line(|| format!("/clones/{}", clone.name), self.rules(state, clone.id), caller));
        versions.chain(clones).take(limit).collect()
    }

    fn getattr(&self, rq: &mut Request<'_>, object: Object) -> Verb<Attr> {
        settle(self.run(rq).getattr(object))
    }

    fn lookup(&self, rq: &mut Request<'_>, dir: Object, name: &[u8]) -> Verb<Looked> {
        settle(self.run(rq).lookup(dir, name))
    }

    fn access(&self, rq: &mut Request<'_>, object: Object, asked: Rights) -> Verb<(Attr, Rights)> {
        settle(self.run(rq).access(object, asked))
    }

    fn readlink(&self, rq: &mut Request<'_>, object: Object) -> Verb<LinkTarget> {
        settle(self.run(rq).readlink(object))
    }

    fn read(&self, rq: &mut Request<'_>, object: Object, offset: u64, len: u32) -> Verb<ReadData> {
        settle(self.run(rq).read(object, offset, len))
    }

    fn list(&self, rq: &mut Request<'_>, dir: Object, window: ListWindow) -> Verb<Listing> {
        settle(self.run(rq).list(dir, window))
    }

    fn fsstat(&self, rq: &mut Request<'_>, object: Object) -> Verb<(Attr, FsStat)> {
        settle(self.run(rq).fsstat(object))
    }

    fn setattr(&self, rq: &mut Request<'_>, object: Object, new: NewAttr, guard: Option<Time>) -> Verb<Changed> {
        self.change(rq, |run| run.setattr(object, &new, guard))
    }

    fn write(&self, rq: &mut Request<'_>, file: Object, offset: u64, data: &[u8], stable: bool) -> Verb<Changed> {
        self.change(rq, |run| run.write(file, offset, data, stable))
    }

    fn commit(&self, rq: &mut Request<'_>, file: Object) -> Verb<Changed> {
        self.change(rq, |run| run.commit(file))
    }

    fn create(&self, rq: &mut Request<'_>, place: Place<'_>, how: CreateHow) -> Verb<Changed> {
        self.change(rq, |run| run.create(place, &how))
    }

    fn make(&self, rq: &mut Request<'_>, place: Place<'_>, what: NewObject<'_>, new: NewAttr) -> Verb<Changed> {
        self.change(rq, |run| run.make(place, &what, &new))
    }

    fn remove(&self, rq: &mut Request<'_>, place: Place<'_>) -> Verb<Changed> {
        self.change(rq, |run| run.remove(place))
    }

    fn rmdir(&self, rq: &mut Request<'_>, place: Place<'_>) -> Verb<Changed> {
        self.change(rq, |run| run.rmdir(place))
    }

    fn rename(&self, rq: &mut Request<'_>, from: Place<'_>, to: Place<'_>) -> Verb<Changed> {
        self.change(rq, |run| run.rename(from, to))
    }

    fn link(&self, rq: &mut Request<'_>, object: Object, to: Place<'_>) -> Verb<Changed> {
        self.change(rq, |run| run.link(object, to))
    }

    fn durable(&self, upto: Durable) -> Option<BoxFuture<'static, Result<(), Error>>> {
        self.overlays.durable(upto.0)
    }

    fn write_verifier(&self) -> [u8; 8] {
        self.overlays.write_verifier()
    }

    fn tap(&self) -> &Arc<Tap> {
        &self.tap
    }

    fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    fn admits(&self, rq: &Request<'_>, export: ExportId) -> bool {
        self.rules(rq.state(), export).admits(rq.caller)
    }

    fn memory(&self) -> Option<Arc<MemoryFile>> {
        self.chunks.memory()
    }

    fn uptime(&self) -> Duration {
        self.env.clock.uptime()
    }

    fn receipts(&self) -> Vec<(ReceiptKey, Bytes)> {
        self.overlays.receipts().iter().map(|receipt| (receipt.key, receipt.answer.clone())).collect()
    }

    fn handle_keys(&self) -> Vec<(u8, [u8; 32])> {
        self.catalog.state().store().map(|store| store.handle_keys.clone()).unwrap_or_default()
    }
}

//! A whole store on a real disk, without a network: what the daemon composes, for tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mimeo::chunk::ChunkStore;
use mimeo::config::Config;
use mimeo::daemon::{DataDir, Stores};
use mimeo::env::Env;
use mimeo::error::Result;
use mimeo::image::import::{ImportContext, ImportDone, ImportRequest, Part, Progress, Running, run_import};
use mimeo::image::{Catalog, CloneTarget, Fleet, Labels, NewClones, RepointPlan, VersionRef, Writes};
use mimeo::maintain::fsck::{self, Report};
use mimeo::overlay::OverlayStore;
use mimeo::vfs::{Attr, Caller, ExportPolicy, ImageVfs, ListWindow, Object, Refused, Request, Verb, Vfs};
use tempfile::TempDir;

pub struct World {
    pub dir: TempDir,
    pub catalog: Arc<Catalog>,
    pub chunks: Arc<ChunkStore>,
    pub fleet: Fleet,
    pub vfs: Arc<ImageVfs>,
    pub env: Env,
    running: Arc<Running>,
    stores: Stores,
    _data: DataDir,
}

impl World {
    pub async fn new() -> Self {
        Self::open(TempDir::new().unwrap()).await
    }

    /// Open the store in `dir`, as a restart of the daemon does.
    pub async fn open(dir: TempDir) -> Self {
        Self::open_with(dir, Env::real()).await
    }

    /// The same with a clock, a disk and dice of one's choice.
    pub async fn open_with(dir: TempDir, env: Env) -> Self {
        let data = DataDir::open(&dir.path().join("data"), &env).unwrap();
        let stores = Stores::open(&data, &Config::default(), &env).await.unwrap();
        let (catalog, chunks, overlays) = (stores.catalog.clone(), stores.chunks.clone(), stores.overlays.clone());
        let policy = ExportPolicy { privileged_port: false, ..ExportPolicy::default() };
        let path = data.path().to_owned();
        let vfs = Arc::new(ImageVfs::new(catalog.clone(), chunks.clone(), overlays.clone(), policy, env.clone(), path));
        let fleet = Fleet::new(catalog.clone(), overlays);
        Self { dir, catalog, chunks, fleet, vfs, env, running: Arc::default(), stores, _data: data }
    }

    /// An orderly stop; the store stays in its directory.
    pub async fn stop(self) -> TempDir {
        let Self { dir, stores, .. } = self;
        stores.close().await.unwrap();
        dir
    }

    /// Stop and open again.
    pub async fn restart(self) -> Self {
        let env = self.env.clone();
        Self::open_with(self.stop().await, env).await
    }

    /// Check everything and read all data.
    pub async fn fsck(&self) -> Report {
        let options = fsck::Options { read_data: true };
        fsck::check(&self.catalog, self.overlays(), self.chunks.clone(), options).await.unwrap()
    }

    pub fn overlays(&self) -> &Arc<OverlayStore> {
        &self.stores.overlays
    }

    /// A fresh source folder of this name.
    pub fn source(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn import_context(&self) -> ImportContext {
        ImportContext {
            catalog: self.catalog.clone(),
            chunks: self.chunks.clone(),
            env: self.env.clone(),
            threads: 2,
            running: self.running.clone(),
        }
    }

    pub async fn import(&self, image: &str, source: &Path) -> Result<ImportDone> {
        self.import_laid_out(image, source, Vec::new()).await
    }

    pub async fn import_laid_out(&self, image: &str, source: &Path, layout: Vec<Part>) -> Result<ImportDone> {
        let request = ImportRequest {
            image: image.into(),
            source: source.into(),
            labels: Labels::default(),
            author: "test".into(),
            consistency: "unknown".into(),
            layout,
        };
        run_import(&self.import_context(), request, Arc::new(Progress::default())).await
    }

    pub async fn clone_of(&self, image: &str, name: &str) -> Object {
        let new = NewClones { version: VersionRef::newest(image), names: vec![name.into()], labels: Labels::default() };
        self.catalog.create_clones(new).await.unwrap();
        self.root(&format!("/clones/{name}")).await
    }

    pub async fn repoint(&self, image: &str, number: u32) {
        let to = VersionRef::number(image, number);
        let plan = RepointPlan::new(image, to, CloneTarget::All).with(Writes::Keep);
        self.fleet.repoint(plan).await.unwrap();
    }

    pub async fn root(&self, path: &str) -> Object {
        self.run(|vfs, rq| vfs.mount(rq, path.as_bytes())).await.unwrap()
    }

    /// Run one verb as root from loopback, loading what it misses.
    pub async fn run<T>(&self, mut verb: impl FnMut(&ImageVfs, &mut Request<'_>) -> Verb<T>) -> Result<T, Refused> {
        let caller = Caller {
            peer: "127.0.0.1:700".parse().unwrap(),
            anonymous: false,
            uid: 0,
            gid: 0,
            groups: Default::default(),
        };
        let mut rq = self.vfs.begin(&caller);
        loop {
            match verb(&self.vfs, &mut rq) {
                Ok(outcome) => return outcome,
                Err(mimeo::vfs::Stop::Missing) => rq.fetch().fill().await.unwrap(),
                Err(mimeo::vfs::Stop::Failed(error)) => panic!("{error}"),
            }
        }
    }

    pub async fn attr(&self, object: Object) -> Result<Attr, Refused> {
        self.run(|vfs, rq| vfs.getattr(rq, object)).await
    }

    /// The object at `path` below `root`.
    pub async fn find(&self, root: Object, path: &str) -> Result<Object, Refused> {
        let mut at = root;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = self.run(|vfs, rq| vfs.lookup(rq, at, name.as_bytes())).await?.object;
        }
        Ok(at)
    }

    /// All bytes of a file, in reads of an odd size.
    pub async fn read(&self, object: Object) -> Result<Vec<u8>, Refused> {
        let mut bytes = Vec::new();
        loop {
            let data = self.run(|vfs, rq| vfs.read(rq, object, bytes.len() as u64, 70_001)).await?;
            data.slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
            if data.eof {
                return Ok(bytes);
            }
        }
    }

    pub async fn read_path(&self, root: Object, path: &str) -> Vec<u8> {
        self.read(self.find(root, path).await.unwrap()).await.unwrap()
    }

    /// Names and cookies from `after` on, one window of `budget` bytes.
    pub async fn list(&self, dir: Object, after: u64, budget: u32) -> (Vec<(Vec<u8>, u64)>, bool) {
        let window = ListWindow { after, budget, entry_cost: 24, with_attrs: true };
        let listing = self.run(|vfs, rq| vfs.list(rq, dir, window)).await.unwrap();
        (listing.entries.into_iter().map(|entry| (entry.name.to_vec(), entry.cookie)).collect(), listing.eof)
    }

    pub async fn names(&self, dir: Object) -> Vec<Vec<u8>> {
        let mut names: Vec<_> = self.list(dir, 0, u32::MAX).await.0.into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }
}

/// Write a file, with its folders.
pub fn write(root: &Path, path: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub fn chmod(root: &Path, path: &str, mode: u32) {
    fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
}

/// Bytes that neither compress nor repeat, from a seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

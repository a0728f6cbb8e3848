//! A daemon with an image in two versions and its clones, which are switched through the admin API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};

use super::admin::Admin;
use super::audience::{Place, clone_of};
use super::daemon::Daemon;
use super::tree::TreeFile;
use super::wire::{self, Client};

const IMAGE: &str = "golden";

pub struct Served {
    daemon: Daemon,
    admin: Admin,
    /// The handles of all clones' roots.
    roots: Vec<Vec<u8>>,
}

impl Served {
    /// With a new data directory. All clones show the first tree, and each has been mounted and used.
    pub fn set_up(data: &Path, trees: &[PathBuf; 2], clones: usize) -> Result<Self> {
        let daemon = Daemon::start(data, None)?;
        let import = |tree: &Path| daemon.command(&["image", "import", IMAGE, &tree.display().to_string()]);
        import(&trees[0])?;
        daemon.command(&["clone", "create", IMAGE, "--count", &clones.to_string(), "--name", "desk-{:06}"])?;
        import(&trees[1])?;
        let mut client = Client::connect(daemon.address)?;
        let exports: Vec<_> = (0..clones).map(|i| format!("/clones/desk-{i:06}")).collect();
        let roots = client.mount_all(&exports)?;
        client.call_all(roots.iter().map(|root| wire::getattr(root)).collect())?;
        let admin = Admin::connect(&daemon.socket())?;
        Ok(Self { daemon, admin, roots })
    }

    pub fn address(&self) -> SocketAddr {
        self.daemon.address
    }

    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    pub fn clones(&self) -> usize {
        self.roots.len()
    }

    /// Where a file is in so many clones, as they come: see [`clone_of`].
    pub fn places(&self, file: &TreeFile, count: usize) -> Result<Vec<Place>> {
        let root = |i| self.roots[clone_of(i, count, self.roots.len())].clone();
        let mut dirs: Vec<_> = (0..count).map(root).collect();
        let mut client = Client::connect(self.daemon.address)?;
        for part in file.dir.split('/').filter(|part| !part.is_empty()) {
            dirs = client.lookup_all(dirs.iter().map(|dir| (dir.as_slice(), part)))?;
        }
        Ok(dirs.into_iter().map(|dir| Place { dir, name: file.name.clone() }).collect())
    }

    /// All clones to the second version; the operation. `counted` is the answer's field that must name them all.
    pub fn repoint(&mut self, writes: &str, counted: &str) -> Result<String> {
        let body = json!({ "image": IMAGE, "to": format!("{IMAGE}@v2"), "writes": writes });
        self.switch("/v1/repoint", &body, counted)
    }

    pub fn roll_back(&mut self, operation: &str) -> Result<String> {
        self.switch(&format!("/v1/operations/{operation}/rollback"), &json!({}), "clones")
    }

    fn switch(&mut self, path: &str, body: &Value, counted: &str) -> Result<String> {
        let done = self.admin.ask(Method::POST, path, body)?;
        ensure!(done[counted] == self.roots.len(), "{path}: {counted} is {}", done[counted]);
        let operation = done["operation"].as_str().with_context(|| format!("{path}: no operation"))?;
        Ok(operation.to_owned())
    }

    pub fn drop_pins(&mut self) -> Result<()> {
        self.admin.ask(Method::DELETE, "/v1/pins", &json!({})).map(drop)
    }

    pub fn stop(self) -> Result<()> {
        self.daemon.stop()
    }
}

//! The verbs, over the catalog and the chunk store.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::policy::ExportPolicy;
use super::resolve::{Found, identity, resolve};
use super::{
    Attr, Caller, ExportLine, FileKind, FsStat, LinkTarget, ListEntry, ListWindow, Listing, Looked, MAX_READ, Object,
    ReadData, Refusal, Refused, Request, Rights, Verb, Vfs, access,
};
use crate::chunk::{ChunkSource, Fetch, Step, Stop};
use crate::env::Env;
use crate::error::Error;
use crate::image::{Catalog, ExportId, State, VersionRef};
use crate::manifest::{Content, Cookie, Entry, Extent, Ino, Inode, MAX_NAME};

/// Entries that one listing returns at most, whatever the client's buffer.
const MAX_LIST_ENTRIES: usize = 8192;

/// Clones and versions as files.
pub struct ImageVfs {
    catalog: Arc<Catalog>,
    chunks: Arc<dyn ChunkSource>,
    policy: ExportPolicy,
    env: Env,
    /// The filesystem whose free space FSSTAT tells.
    data_dir: PathBuf,
}

/// Answer a refusal from inside a verb.
macro_rules! granted {
    ($outcome:expr) => {
        match $outcome {
            Ok(value) => value,
            Err(refused) => return Ok(Err(refused)),
        }
    };
}

impl ImageVfs {
    pub fn new(
        catalog: Arc<Catalog>,
        chunks: Arc<dyn ChunkSource>,
        policy: ExportPolicy,
        env: Env,
        data_dir: PathBuf,
    ) -> Self {
        Self { catalog, chunks, policy, env, data_dir }
    }

    fn find(&self, rq: &mut Request<'_>, object: Object) -> Verb<Found> {
        resolve(rq, &self.policy, object)
    }

    /// Find a directory in which the caller may look up names.
    fn find_searchable(&self, rq: &mut Request<'_>, object: Object) -> Verb<Found> {
        let dir = granted!(self.find(rq, object)?);
        if !dir.is_dir() {
            return Ok(Err(dir.refuse(Refusal::NotDirectory)));
        }
        if !access::may_search(&identity(rq, &self.policy), &dir.inode) {
            return Ok(Err(dir.refuse(Refusal::Access)));
        }
        Ok(Ok(dir))
    }

    /// The inode number that `name` has in `dir`, `.` and `..` included.
    fn child(rq: &mut Request<'_>, dir: &Found, name: &[u8]) -> Verb<Ino> {
        match name {
            b"." => return Ok(Ok(dir.ino)),
            b".." => return Ok(Ok(dir.inode.parent)),
            _ => {}
        }
        if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
            return Ok(Err(dir.refuse(Refusal::Invalid)));
        }
        if name.len() > MAX_NAME {
            return Ok(Err(dir.refuse(Refusal::NameTooLong)));
        }
        let entry = dir.manifest.lookup(rq.fetch(), dir.ino, name)?;
        Ok(entry.map(|entry| entry.ino).ok_or_else(|| dir.refuse(Refusal::NotFound)))
    }

    /// The inode that an entry of `dir` names. In a directory that only a pin has, the object itself may
    /// be in a newer view all the same, and is then served as there, as by its handle.
    fn inode_of(&self, rq: &mut Request<'_>, dir: &Found, export: ExportId, ino: Ino) -> Step<Inode> {
        let inode = if dir.current {
            dir.manifest.inode(rq.fetch(), ino)?
        } else {
            let object = Object { export, ino: ino.0, generation: 0 };
            resolve(rq, &self.policy, object)?.ok().map(|found| found.inode)
        };
        inode.ok_or_else(|| Stop::Failed(Error::corrupt(format!("inode {} is named by an entry but not there", ino.0))))
    }

    /// Entries with attributes. Notes every missing page before it stops, so that they load together.
    fn full_entries(
        &self,
        rq: &mut Request<'_>,
        dir: &Found,
        export: ExportId,
        entries: Vec<Entry>,
    ) -> Step<Vec<ListEntry>> {
        let mut full = Vec::with_capacity(entries.len());
        let mut missing = false;
        for entry in entries {
            let inode = match self.inode_of(rq, dir, export, entry.ino) {
                Ok(inode) => inode,
                Err(Stop::Missing) => {
                    missing = true;
                    continue;
                }
                Err(failed) => return Err(failed),
            };
            let object = Object { export, ino: entry.ino.0, generation: 0 };
            let attr = dir.scope.attr(entry.ino, &inode);
            full.push(ListEntry {
                name: entry.name,
                fileid: entry.ino.0,
                cookie: entry.cookie.0,
                full: Some((object, attr)),
            });
        }
        if missing { Err(Stop::Missing) } else { Ok(full) }
    }

    /// The export that a MOUNT path names, and whether it exists.
    fn export_of(state: &State, path: &[u8]) -> Result<ExportId, Refusal> {
        let path = std::str::from_utf8(path).map_err(|_| Refusal::NotFound)?.trim_end_matches('/');
        if let Some(name) = path.strip_prefix("/clones/") {
            return state.clone_named(name).map(|clone| clone.id).ok_or(Refusal::NotFound);
        }
        let name = path.strip_prefix("/images/").ok_or(Refusal::NotFound)?;
        let version: VersionRef = name.parse().map_err(|_| Refusal::NotFound)?;
        state.find_version(&version).map(|version| version.export).map_err(|_| Refusal::NotFound)
    }
}

impl Vfs for ImageVfs {
    fn begin<'a>(&'a self, caller: &'a Caller) -> Request<'a> {
        Request::new(caller, self.catalog.state(), Fetch::new(self.chunks.as_ref()))
    }

    fn mount(&self, rq: &mut Request<'_>, path: &[u8]) -> Verb<Object> {
        if !self.policy.admits(rq.caller) {
            return Ok(Err(Refused { why: Refusal::Access, attr: None }));
        }
        let export = granted!(Self::export_of(rq.state(), path).map_err(|why| Refused { why, attr: None }));
        let root = Object { export, ino: Ino::ROOT.0, generation: 0 };
        Ok(self.find(rq, root)?.map(|_| root))
    }

    fn exports(&self, rq: &mut Request<'_>, limit: usize) -> Vec<ExportLine> {
        if !self.policy.admits(rq.caller) {
            return Vec::new();
        }
        let networks: Vec<String> = self.policy.networks.iter().map(ToString::to_string).collect();
        let state = rq.state();
        let versions = state.versions().filter(|version| !version.removed).filter_map(|version| {
            let image = state.image(version.image)?;
            Some(format!("/images/{}@v{}", image.name, version.number))
        });
        let clones = state.clones().map(|clone| format!("/clones/{}", clone.name));
        versions
            .chain(clones)
            .take(limit)
            .map(|path| ExportLine { path: path.into_bytes(), networks: networks.clone() })
            .collect()
    }

    fn getattr(&self, rq: &mut Request<'_>, object: Object) -> Verb<Attr> {
        Ok(self.find(rq, object)?.map(|found| found.attr()))
    }

    fn lookup(&self, rq: &mut Request<'_>, dir: Object, name: &[u8]) -> Verb<Looked> {
        let found = granted!(self.find_searchable(rq, dir)?);
        let ino = granted!(Self::child(rq, &found, name)?);
        let inode = self.inode_of(rq, &found, dir.export, ino)?;
        Ok(Ok(Looked {
            object: Object { export: dir.export, ino: ino.0, generation: 0 },
            attr: found.scope.attr(ino, &inode),
            dir_attr: found.attr(),
        }))
    }

    fn access(&self, rq: &mut Request<'_>, object: Object, asked: Rights) -> Verb<(Attr, Rights)> {
        let found = granted!(self.find(rq, object)?);
        let has = access::rights(&identity(rq, &self.policy), &found.inode);
        // Nothing can be changed yet: views have no private layers.
        let granted = Rights {
            read: asked.read && has.read,
            lookup: asked.lookup && has.lookup,
            execute: asked.execute && has.execute,
            ..Rights::default()
        };
        Ok(Ok((found.attr(), granted)))
    }

    fn readlink(&self, rq: &mut Request<'_>, object: Object) -> Verb<LinkTarget> {
        let found = granted!(self.find(rq, object)?);
        Ok(match &found.inode.content {
            Content::Symlink(target) => Ok(LinkTarget { attr: found.attr(), target: target.clone() }),
            _ => Err(found.refuse(Refusal::Invalid)),
        })
    }

    fn read(&self, rq: &mut Request<'_>, object: Object, offset: u64, len: u32) -> Verb<ReadData> {
        let found = granted!(self.find(rq, object)?);
        match found.inode.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Ok(Err(found.refuse(Refusal::IsDirectory))),
            _ => return Ok(Err(found.refuse(Refusal::Invalid))),
        }
        if !access::may_read_data(&identity(rq, &self.policy), &found.inode) {
            return Ok(Err(found.refuse(Refusal::Access)));
        }
        let size = found.inode.size;
        let start = offset.min(size);
        let end = start.saturating_add(u64::from(len.min(MAX_READ))).min(size);
        let extents = found.manifest.extents(rq.fetch(), &found.inode.content, start..end)?;
        let slices = slices(rq.fetch(), &extents, start, end)?;
        let len = u32::try_from(end - start).map_err(|_| Error::internal("a READ beyond its bound"))?;
        Ok(Ok(ReadData { attr: found.attr(), slices, len, eof: end == size }))
    }

    fn list(&self, rq: &mut Request<'_>, dir: Object, window: ListWindow) -> Verb<Listing> {
        let found = granted!(self.find(rq, dir)?);
        if !found.is_dir() {
            return Ok(Err(found.refuse(Refusal::NotDirectory)));
        }
        if !access::may_list(&identity(rq, &self.policy), &found.inode) {
            return Ok(Err(found.refuse(Refusal::Access)));
        }
        let (entries, eof) = collect(rq, &found, &window)?;
        let entries = if window.with_attrs {
            self.full_entries(rq, &found, dir.export, entries)?
        } else {
            plain_entries(entries)
        };
        Ok(Ok(Listing { dir_attr: found.attr(), entries, eof }))
    }

    fn fsstat(&self, rq: &mut Request<'_>, object: Object) -> Verb<(Attr, FsStat)> {
        let found = granted!(self.find(rq, object)?);
        let space =
            self.env.disk.space(&self.data_dir).map_err(|e| Error::io(format!("{}", self.data_dir.display()), e))?;
        let used = found.manifest.stats().inodes.min(MAX_FILES);
        let stat = FsStat {
            total_bytes: space.total,
            free_bytes: space.free,
            total_files: MAX_FILES,
            free_files: MAX_FILES - used,
        };
        Ok(Ok((found.attr(), stat)))
    }

    fn check_writable(&self, rq: &mut Request<'_>, object: Object) -> Verb<Attr> {
        let found = granted!(self.find(rq, object)?);
        Ok(Err(found.refuse(Refusal::ReadOnly)))
    }

    fn handle_keys(&self) -> Vec<(u8, [u8; 32])> {
        self.catalog.state().store().map(|store| store.handle_keys.clone()).unwrap_or_default()
    }
}

/// Inode numbers are 64 bits, so none are ever short; clients want a number all the same.
const MAX_FILES: u64 = 1 << 40;

/// The entries that fit the window, and whether the directory ends with them.
fn collect(rq: &mut Request<'_>, dir: &Found, window: &ListWindow) -> Step<(Vec<Entry>, bool)> {
    let mut entries = Vec::new();
    let mut left = u64::from(window.budget);
    let mut eof = true;
    dir.manifest.list(rq.fetch(), dir.ino, Cookie(window.after), &mut |entry| {
        let cost = u64::from(window.entry_cost) + (entry.name.len() as u64).next_multiple_of(4);
        if cost > left || entries.len() == MAX_LIST_ENTRIES {
            eof = false;
            return Ok(ControlFlow::Break(()));
        }
        left -= cost;
        entries.push(entry);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((entries, eof))
}

fn plain_entries(entries: Vec<Entry>) -> Vec<ListEntry> {
    entries.into_iter().map(|e| ListEntry { name: e.name, fileid: e.ino.0, cookie: e.cookie.0, full: None }).collect()
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The bytes `start..end` as slices of chunks and zeros. Notes every missing chunk before it stops.
fn slices(fetch: &mut Fetch<'_>, extents: &[Extent], start: u64, end: u64) -> Step<SmallVec<[Bytes; 4]>> {
    let mut out = SmallVec::new();
    let mut at = start;
    let mut missing = false;
    for extent in extents {
        push_zeros(&mut out, extent.offset.saturating_sub(at));
        at = at.max(extent.offset);
        let until = end.min(extent.offset + u64::from(extent.len));
        match fetch.get(&extent.chunk) {
            Ok(chunk) => out.push(part(&chunk, extent, at, until)?),
            Err(Stop::Missing) => missing = true,
            Err(failed) => return Err(failed),
        }
        at = until;
    }
    push_zeros(&mut out, end - at);
    if missing { Err(Stop::Missing) } else { Ok(out) }
}

/// The file bytes `at..until` out of the extent's chunk.
fn part(chunk: &Bytes, extent: &Extent, at: u64, until: u64) -> Step<Bytes> {
    if chunk.len() != extent.len as usize {
        let what = format!("chunk {} has {} bytes where the manifest says {}", extent.chunk, chunk.len(), extent.len);
        return Err(Stop::Failed(Error::corrupt(what)));
    }
    Ok(chunk.slice((at - extent.offset) as usize..(until - extent.offset) as usize))
}

fn push_zeros(out: &mut SmallVec<[Bytes; 4]>, mut len: u64) {
    while len > 0 {
        let run = len.min(ZEROS.len() as u64);
        out.push(Bytes::from_static(&ZEROS[..run as usize]));
        len -= run;
    }
}

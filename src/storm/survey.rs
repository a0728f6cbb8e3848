//! What a synthetic load can read: the files of one export, as all clones of one image have them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::connection::{Connection, Sources, garbage};
use super::plan::Objects;
use super::target::{Target, unusable};
use super::wire::{self, Answer, Attr, Caller, Fill, Handle, Head, ListPosition, Reply};
use crate::error::{Error, Result};
use crate::trace::{Call, Node, NodeId, Verb};

/// Files that are taken; an image with more is read in part.
const MAX_FILES: usize = 20_000;
/// Objects that are looked at, folders included.
const MAX_NODES: usize = 100_000;
/// What one listing may answer, in bytes.
const LISTING: u32 = 64 * 1024;

/// A file with something in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub file: NodeId,
    pub size: u64,
}

/// The files of an export, in the order of folders and names.
pub struct Survey {
    pub nodes: Vec<Node>,
    pub files: Vec<Found>,
}

impl Survey {
    /// Walk through `export`.
    pub async fn of_export(target: Target, sources: &Sources, caller: Caller, export: &str) -> Result<Self> {
        let walk = async {
            let mut walker = Walker::mount(target, sources, caller, export).await?;
            walker.walk().await?;
            io::Result::Ok(Self { nodes: walker.nodes, files: walker.files })
        };
        let survey = walk.await.map_err(|e| unusable(target, e))?;
        if survey.files.is_empty() {
            let what = format!("export {export} has no file with anything in it");
            return Err(Error::invalid(what).remedy("give an export with files, or a --trace"));
        }
        Ok(survey)
    }

    /// Only the file at `path`.
    pub fn only(mut self, path: &str) -> Result<Self> {
        let objects = Objects::new(self.nodes.clone());
        let wanted = path.trim_matches('/').as_bytes();
        self.files.retain(|found| objects.path(found.file).as_deref() == Some(wanted));
        if self.files.is_empty() {
            return Err(Error::not_found(format!("file {path:?} is not in the export")));
        }
        Ok(self)
    }

    /// With one more object, in the root.
    pub fn with_file(mut self, name: &[u8]) -> (Arc<Objects>, Vec<Found>, NodeId) {
        let known = self.nodes.iter().position(|node| node.parent == Some(NodeId::ROOT) && &*node.name == name);
        let at = known.unwrap_or_else(|| {
            self.nodes.push(Node { parent: Some(NodeId::ROOT), name: name.into() });
            self.nodes.len() - 1
        });
        let file = NodeId(u32::try_from(at).expect("bounded far below"));
        self.files.retain(|found| found.file != file);
        (Arc::new(Objects::new(self.nodes)), self.files, file)
    }
}

struct Walker {
    connection: Connection,
    caller: Caller,
    next_xid: u32,
    nodes: Vec<Node>,
    files: Vec<Found>,
    folders: VecDeque<(NodeId, Handle)>,
}

/// One entry as it is kept.
struct Seen {
    name: Vec<u8>,
    attr: Option<Attr>,
    handle: Option<Handle>,
}

/// A listing of one folder goes on there.
struct Listing<'a> {
    handle: &'a [u8],
    position: ListPosition,
}

impl Fill for Listing<'_> {
    fn handle(&self, _: NodeId) -> &[u8] {
        self.handle
    }

    fn position(&self, _: NodeId) -> ListPosition {
        self.position
    }

    fn data(&self, _: NodeId, _: u64, _: &mut [u8]) {}
}

impl Walker {
    async fn mount(target: Target, sources: &Sources, caller: Caller, export: &str) -> io::Result<Self> {
        let mut mount = Connection::open(sources, target.mount).await?;
        let put = |to: &mut Vec<u8>, xid| wire::put_mount(to, xid, caller, export);
        let take = |reply: Reply<'_>| {
            let results = reply.results.map_err(|why| io::Error::other(format!("MNT {export}: {}", why.name())))?;
            let root = wire::mounted(results).map_err(|_| garbage("an answer to MNT"))?;
            root.map_err(|status| {
                let status = wire::status_name(status).replace("NFS3", "MNT3");
                io::Error::other(format!("MNT {export}: {status}"))
            })
        };
        let root = mount.call(1, put, take).await?;
        let connection = Connection::open(sources, target.nfs).await?;
        let nodes = vec![Node { parent: None, name: [].into() }];
        let folders = VecDeque::from([(NodeId::ROOT, root)]);
        Ok(Self { connection, caller, next_xid: 1, nodes, files: Vec::new(), folders })
    }

    async fn walk(&mut self) -> io::Result<()> {
        while let Some((folder, handle)) = self.folders.pop_front() {
            let mut entries = self.list(&handle).await?;
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            for entry in entries {
                if self.files.len() >= MAX_FILES || self.nodes.len() >= MAX_NODES {
                    return Ok(());
                }
                self.take(folder, &handle, entry).await?;
            }
        }
        Ok(())
    }

    async fn take(&mut self, folder: NodeId, dir: &[u8], entry: Seen) -> io::Result<()> {
        let Seen { name, attr, handle } = entry;
        let (Some(attr), Some(handle)) = (match (attr, handle) {
            (Some(attr), Some(handle)) => (Some(attr), Some(handle)),
            // A server need not give them with a listing.
            _ => self.look_up(dir, &name).await?,
        }) else {
            return Ok(());
        };
        let node = NodeId(u32::try_from(self.nodes.len()).expect("bounded"));
        match attr.kind {
            wire::DIRECTORY => self.folders.push_back((node, handle)),
            wire::REGULAR if attr.size > 0 => self.files.push(Found { file: node, size: attr.size }),
            _ => return Ok(()),
        }
        self.nodes.push(Node { parent: Some(folder), name: name.into() });
        Ok(())
    }

    async fn list(&mut self, handle: &[u8]) -> io::Result<Vec<Seen>> {
        let mut seen = Vec::new();
        let mut position = ListPosition::default();
        loop {
            let call = Call::Object {
                object: NodeId::ROOT,
                verb: Verb::List { from_start: false, plus: true, max_bytes: LISTING },
            };
            let put = |to: &mut Vec<u8>| wire::put_arguments(to, &call, &Listing { handle, position });
            let (entries, behind, eof) = self.ask(wire::READDIRPLUS, put, listing).await?;
            let more = !entries.is_empty();
            seen.extend(entries.into_iter().filter(|entry| entry.name != b"." && entry.name != b".."));
            position = behind;
            if eof || !more || seen.len() > MAX_NODES {
                return Ok(seen);
            }
        }
    }

    async fn look_up(&mut self, dir: &[u8], name: &[u8]) -> io::Result<(Option<Attr>, Option<Handle>)> {
        let put = |to: &mut Vec<u8>| wire::put_lookup(to, dir, name);
        self.ask(wire::LOOKUP, put, |answer| (answer.attr, answer.handle.map(Into::into))).await
    }

    async fn ask<T>(
        &mut self,
        procedure: u32,
        arguments: impl FnOnce(&mut Vec<u8>),
        take: impl FnOnce(Answer<'_>) -> T,
    ) -> io::Result<T> {
        self.next_xid += 1;
        let caller = self.caller;
        let put = |to: &mut Vec<u8>, xid| {
            wire::put_call(to, Head { xid, program: wire::NFS, procedure, caller }, arguments);
        };
        let name = wire::PROCEDURES[procedure as usize];
        let take = |reply: Reply<'_>| {
            let results = reply.results.map_err(|why| io::Error::other(format!("{name}: {}", why.name())))?;
            let answer = wire::answer(procedure, results).map_err(|_| garbage("an answer"))?;
            match answer.status {
                wire::status::OK => Ok(take(answer)),
                other => Err(io::Error::other(format!("{name}: {}", wire::status_name(other)))),
            }
        };
        self.connection.call(self.next_xid, put, take).await
    }
}

fn listing(answer: Answer<'_>) -> (Vec<Seen>, ListPosition, bool) {
    let keep = |entry: &wire::Entry<'_>| Seen {
        name: entry.name.to_vec(),
        attr: entry.attr,
        handle: entry.handle.map(Into::into),
    };
    (answer.entries.iter().map(keep).collect(), answer.position, answer.eof)
}

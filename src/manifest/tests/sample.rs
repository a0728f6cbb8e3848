//! A small importer: a map of paths becomes a manifest, by the rules that the real one follows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::chunk::{ChunkSink, MemoryChunks};
use crate::env::Time;
use crate::manifest::*;

#[derive(Clone)]
pub struct Node {
    pub kind: FileKind,
    pub data: Vec<u8>,
    pub link_to: Option<String>,
    pub mode: u32,
    pub mtime: i64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Node {
    fn of(kind: FileKind, data: &[u8]) -> Self {
        Self { kind, data: data.to_vec(), link_to: None, mode: 0o755, mtime: 1000, xattrs: Vec::new() }
    }

    pub fn dir() -> Self {
        Self::of(FileKind::Directory, b"")
    }

    pub fn file(data: &[u8]) -> Self {
        Self::of(FileKind::Regular, data)
    }

    pub fn symlink(target: &str) -> Self {
        Self::of(FileKind::Symlink, target.as_bytes())
    }

    /// Another name of the file at `path`, which sorts before it or not.
    pub fn link_to(path: &str) -> Self {
        Self { link_to: Some(path.into()), ..Self::file(b"") }
    }

    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
}

/// Paths and what is there; missing parents are a mistake of the test.
pub struct Sample {
    pub seed: NameSeed,
    pub nodes: BTreeMap<String, Node>,
    pub inos: BTreeMap<String, Ino>,
    pub next_ino: u64,
    pub ctime: i64,
}

impl Sample {
    pub fn new(seed: NameSeed) -> Self {
        let nodes = BTreeMap::from([(String::new(), Node::dir())]);
        let inos = BTreeMap::from([(String::new(), Ino::ROOT)]);
        Self { seed, nodes, inos, next_ino: 10, ctime: 1 }
    }

    /// Put a node; other data gets a new inode number, as in an import.
    pub fn put(&mut self, path: &str, node: Node) {
        let same = self.nodes.get(path).is_some_and(|old| old.kind == node.kind && old.data == node.data);
        if !same {
            self.inos.insert(path.into(), Ino(self.next_ino));
            self.next_ino += 1;
        }
        self.nodes.insert(path.into(), node);
    }

    pub fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.nodes.retain(|p, _| p != path && !p.starts_with(&below));
    }

    pub fn ino(&self, path: &str) -> Ino {
        match &self.nodes[path].link_to {
            Some(target) => self.inos[target],
            None => self.inos[path],
        }
    }

    fn children(&self, dir: &str) -> impl Iterator<Item = (&String, &Node)> {
        self.nodes.iter().filter(move |(path, _)| !path.is_empty() && parent(path) == dir)
    }

    pub fn build(&self, chunks: &MemoryChunks) -> ManifestId {
        let cookies = self.cookies();
        let names: BTreeMap<Ino, Vec<&String>> = self.nodes.keys().fold(BTreeMap::new(), |mut names, path| {
            names.entry(self.ino(path)).or_default().push(path);
            names
        });
        let mut inodes: BTreeMap<Ino, Inode> = BTreeMap::new();
        let mut data = BTreeMap::new();
        // Depth first: a directory's digest needs its children's.
        let mut paths: Vec<_> = self.nodes.keys().collect();
        paths.sort_by_key(|path| std::cmp::Reverse(if path.is_empty() { 0 } else { path.matches('/').count() + 1 }));
        for path in paths {
            let first = names[&self.ino(path)][0];
            let mut inode = self.inode(path, chunks, &mut data, &inodes);
            inode.nlink = inode.nlink.max(names[&self.ino(path)].len() as u32);
            inode.parent = self.ino(parent(first));
            inode.parent_cookie = cookies.get(first).copied().unwrap_or_default();
            if self.nodes[path].link_to.is_none() {
                inodes.insert(self.ino(path), inode);
            }
        }
        let mut builder = ManifestBuilder::new(chunks, self.seed);
        for (ino, inode) in &inodes {
            builder.add_inode(*ino, inode).unwrap();
        }
        self.add_names(&mut builder, &cookies, &names);
        for (id, (raw, stored)) in data {
            builder.add_chunk(id, raw, stored).unwrap();
        }
        builder.finish().unwrap().0
    }

    fn add_names(
        &self,
        builder: &mut ManifestBuilder,
        cookies: &BTreeMap<String, Cookie>,
        names: &BTreeMap<Ino, Vec<&String>>,
    ) {
        let entry = |path: &String, cookie: &Cookie| {
            let name = Bytes::copy_from_slice(base_name(path).as_bytes());
            let kind = self.nodes[path].kind;
            ((self.ino(parent(path)), *cookie), Entry { name, cookie: *cookie, ino: self.ino(path), kind })
        };
        let entries: BTreeMap<_, _> = cookies.iter().map(|(path, cookie)| entry(path, cookie)).collect();
        for ((dir, _), entry) in &entries {
            builder.add_entry(*dir, entry).unwrap();
        }
        for (ino, paths) in names.iter().filter(|(_, paths)| paths.len() > 1) {
            let links: BTreeSet<_> = paths.iter().map(|p| (self.ino(parent(p)), cookies[*p])).collect();
            for (dir, cookie) in links {
                builder.add_link(*ino, dir, cookie).unwrap();
            }
        }
    }

    fn cookies(&self) -> BTreeMap<String, Cookie> {
        let mut taken = BTreeSet::new();
        let mut cookies = BTreeMap::new();
        for path in self.nodes.keys().filter(|path| !path.is_empty()) {
            let name = base_name(path).as_bytes();
            let cookie = self.seed.choose_cookie(name, |c| taken.contains(&(parent(path), c))).unwrap();
            taken.insert((parent(path), cookie));
            cookies.insert(path.clone(), cookie);
        }
        cookies
    }

    fn inode(
        &self,
        path: &str,
        chunks: &MemoryChunks,
        data: &mut BTreeMap<crate::chunk::ChunkId, (u32, u32)>,
        inodes: &BTreeMap<Ino, Inode>,
    ) -> Inode {
        let node = &self.nodes[path];
        let mut inode = blank(node, self.ctime);
        let (xattrs, stored) = Xattrs::store(&node.xattrs, chunks).unwrap();
        if let (Xattrs::Chunk { len, .. }, Some(stored)) = (&xattrs, stored) {
            data.insert(stored.id, (*len, stored.stored_len));
        }
        inode.xattrs = xattrs;
        match node.kind {
            FileKind::Regular => {
                let mut content = ContentBuilder::new(chunks);
                for (i, piece) in node.data.chunks(1000).enumerate().filter(|(_, piece)| piece.iter().any(|b| *b != 0))
                {
                    let stored = chunks.put(piece).unwrap();
                    data.insert(stored.id, (piece.len() as u32, stored.stored_len));
                    let extent = Extent { offset: i as u64 * 1000, len: piece.len() as u32, chunk: stored.id };
                    content.push(extent).unwrap();
                }
                let content = content.finish(node.data.len() as u64).unwrap();
                (inode.content, inode.digest, inode.used) = (content.content, content.digest, content.used);
            }
            FileKind::Symlink => {
                inode.content = Content::Symlink(Bytes::copy_from_slice(&node.data));
                inode.digest = content_digest(inode.size, &inode.content);
            }
            FileKind::Directory => {
                let mut hasher = SubtreeHasher::new();
                for (child, _) in self.children(path) {
                    // A hard link's target may not be built yet: the sample links only to files, by value.
                    let target = self.nodes[child].link_to.as_ref().unwrap_or(child);
                    let inode = match inodes.get(&self.inos[target]) {
                        Some(inode) => inode.clone(),
                        None => self.inode(target, chunks, data, inodes),
                    };
                    hasher.child(base_name(child).as_bytes(), &inode).unwrap();
                }
                inode.digest = hasher.finish();
            }
            _ => {}
        }
        inode
    }
}

fn blank(node: &Node, ctime: i64) -> Inode {
    let is_dir = node.kind == FileKind::Directory;
    Inode {
        kind: node.kind,
        mode: node.mode,
        uid: 0,
        gid: 0,
        nlink: if is_dir { 2 } else { 1 },
        rdev: (0, 0),
        size: if is_dir { 4096 } else { node.data.len() as u64 },
        used: 0,
        atime: Time::new(ctime, 1),
        mtime: Time::new(node.mtime, 2),
        ctime: Time::new(ctime, 3),
        parent: Ino::ROOT,
        parent_cookie: Cookie(0),
        digest: [0; 32],
        disk_image: false,
        content: Content::None,
        xattrs: Xattrs::None,
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn base_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

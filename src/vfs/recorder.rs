//! From the operations of a recording to the items of a trace: objects get numbers and places.
//!
//! Owns the numbers that were given. An object's place is where an answer of the recording found or made it;
//! one that the client knew before is looked for in the version that the clone showed when the recording began.
//! What is private of the clone and was known before has no place; a client that boots knows nothing before.
//!
//! Invariants: a node comes before the first operation that names it, and below a parent that came before. At
//! most as many nodes and operations as a trace may hold; what comes then is counted as lost.

use std::collections::HashMap;
use std::sync::Arc;

use super::Object;
use super::tap::{Listener, RecordedOp, Recording, Tap};
use crate::chunk::{ChunkSource, Fetch};
use crate::env::Time;
use crate::error::{Error, Result};
use crate::image::{Catalog, VersionRecord};
use crate::manifest::{Ino, MAX_DEPTH, Manifest};
use crate::trace::{Call, Header, Item, MAX_NODES, MAX_OPS, Name, NameVerb, Node, NodeId};

/// Operations that are taken at once.
const BATCH: usize = 256;

/// Makes a trace of what clients do with a clone.
pub struct Recorder {
    listener: Listener,
    chunks: Arc<dyn ChunkSource>,
    version: Arc<VersionRecord>,
    header: Header,
    /// By inode number and generation.
    known: HashMap<(u64, u64), NodeId>,
    nodes: usize,
    ops: usize,
    /// For which a trace has no room.
    lost: u64,
}

impl Recorder {
    /// Begin to record the clone `name`; `client` is what the caller knows of its client.
    pub fn begin(
        tap: &Arc<Tap>,
        catalog: &Catalog,
        chunks: Arc<dyn ChunkSource>,
        name: &str,
        client: String,
        now: Time,
    ) -> Result<Self> {
        let state = catalog.state();
        let clone = state.find_clone(name)?;
        let version = state.version(clone.image, clone.view.version).zip(state.image(clone.image));
        let (version, image) = version.ok_or_else(|| Error::internal(format!("clone {name:?} shows no version")))?;
        let header = Header {
            version: format!("{}@v{}", image.name, version.number),
            clone: name.to_owned(),
            started_secs: u64::try_from(now.secs).unwrap_or(0),
            client,
        };
        let listener = tap.listen(clone.id, format!("/clones/{name}").into_bytes())?;
        let root = HashMap::from([((Ino::ROOT.0, 0), NodeId::ROOT)]);
        let version = version.clone();
        Ok(Self { listener, chunks, version, header, known: root, nodes: 1, ops: 0, lost: 0 })
    }

    pub fn recording(&self) -> Arc<Recording> {
        self.listener.recording()
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next operations; none when it was stopped and all are taken. Nothing is lost if the future is dropped.
    pub async fn next(&mut self, ops: &mut Vec<RecordedOp>) {
        self.listener.next(ops, BATCH).await;
    }

    pub fn stop(&mut self) {
        self.listener.stop();
    }

    /// Operations that are not in the trace.
    pub fn lost(&self) -> u64 {
        self.lost + self.listener.lost()
    }

    /// Append `op` to `items`, behind the nodes that are new.
    pub async fn items(&mut self, op: RecordedOp, items: &mut Vec<Item>) -> Result<()> {
        // An operation names three objects at most, each with all directories on its way.
        if self.ops == MAX_OPS || self.nodes + 3 * MAX_DEPTH > MAX_NODES {
            self.lost += 1;
            return Ok(());
        }
        self.ops += 1;
        for object in objects(&op.call).into_iter().flatten() {
            self.place(object, items).await?;
        }
        if let Call::Name { dir, name, object: Some(object), verb } = &op.call {
            self.found(*dir, name, verb, *object, items).await?;
        }
        let known = &self.known;
        let number = |object: Object| known.get(&key(object)).copied();
        let op = op.try_map(|object| number(object).ok_or_else(|| Error::internal("an object without a number")))?;
        items.push(Item::Op(op));
        Ok(())
    }

    /// An answer gave `object` for a name.
    async fn found(
        &mut self,
        dir: Object,
        name: &Name,
        verb: &NameVerb,
        object: Object,
        items: &mut Vec<Item>,
    ) -> Result<()> {
        let is_way = *verb == NameVerb::Lookup && matches!(&**name, b"." | b"..");
        if is_way || self.known.contains_key(&key(object)) {
            return self.place(object, items).await;
        }
        let parent = self.known.get(&key(dir)).copied();
        self.add(object, Node { parent, name: name.clone() }, items);
        Ok(())
    }

    /// See that `object` has a number.
    async fn place(&mut self, object: Object, items: &mut Vec<Item>) -> Result<()> {
        if self.known.contains_key(&key(object)) {
            return Ok(());
        }
        // Outermost last.
        let mut way = Vec::new();
        let mut at = object;
        let parent = loop {
            if let Some(known) = self.known.get(&key(at)) {
                break Some(*known);
            }
            match self.in_version(at.ino).await? {
                Some((parent, name)) if way.len() < MAX_DEPTH => {
                    way.push((at, name));
                    at = Object { ino: parent.0, generation: 0, ..object };
                }
                _ => break None,
            }
        };
        let Some(mut parent) = parent else {
            self.add(object, Node { parent: None, name: Name::default() }, items);
            return Ok(());
        };
        for (object, name) in way.into_iter().rev() {
            parent = self.add(object, Node { parent: Some(parent), name }, items);
        }
        Ok(())
    }

    /// The directory and the name of an object in the version.
    async fn in_version(&self, ino: u64) -> Result<Option<(Ino, Name)>> {
        let mut fetch = Fetch::new(&*self.chunks);
        let find = |fetch: &mut Fetch<'_>| {
            let manifest = Manifest::open(fetch, &self.version.manifest)?;
            let Some(inode) = manifest.inode(fetch, Ino(ino))? else { return Ok(None) };
            let entry = manifest.entry_at(fetch, inode.parent, inode.parent_cookie)?;
            Ok(entry.map(|entry| (inode.parent, Name::from(&*entry.name))))
        };
        fetch.run(find).await
    }

    fn add(&mut self, object: Object, node: Node, items: &mut Vec<Item>) -> NodeId {
        let number = NodeId(u32::try_from(self.nodes).expect("less than MAX_NODES"));
        self.nodes += 1;
        self.known.insert(key(object), number);
        items.push(Item::Node(node));
        number
    }
}

fn key(object: Object) -> (u64, u64) {
    (object.ino, object.generation)
}

/// What the arguments of a call name.
fn objects(call: &Call<Object>) -> [Option<Object>; 2] {
    match call {
        Call::Mount => [None, None],
        Call::Object { object, .. } => [Some(*object), None],
        Call::Name { dir, .. } => [Some(*dir), None],
        Call::Rename { from_dir, to_dir, .. } => [Some(*from_dir), Some(*to_dir)],
        Call::Link { object, dir, .. } => [Some(*object), Some(*dir)],
    }
}

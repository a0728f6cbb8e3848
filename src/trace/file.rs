//! The format of a trace: `docs/formats/trace.md`.
//!
//! A writer keeps nothing but the numbers of what it wrote, so a recording may be as long as [`MAX_OPS`];
//! a reader takes the whole trace into memory. Items come in the order in which calls were answered; a
//! reader sorts operations by when they were asked.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use super::{Call, Name, NameVerb, Node, NodeId, Op};
use crate::error::{Error, Result};

/// What a trace begins with; then comes one byte, [`FORMAT`].
const MAGIC: &[u8; 8] = b"mimeoTRC";
/// The format that is written, and the only one that is read.
pub const FORMAT: u8 = 1;

/// Operations of one trace.
pub const MAX_OPS: usize = 1 << 20;
/// Objects of one trace.
pub const MAX_NODES: usize = 1 << 20;
/// Longest name, link target and text of a header, in bytes.
const MAX_NAME: usize = 4096;
/// Bytes of a trace before compression.
const MAX_BODY: u64 = 256 << 20;

const LEVEL: i32 = 12;

/// What is known of a recording before it begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// `NAME@vN`: what the clone showed.
    pub version: String,
    /// The clone.
    pub clone: String,
    /// Its start, in seconds since 1970.
    pub started_secs: u64,
    /// What somebody noted about the client, such as its kernel; may be empty.
    pub client: String,
}

/// A piece of a trace, in the order in which they are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// The next number's object; the root, 0, is not written.
    Node(Node),
    Op(Op),
    /// The last item: how many operations the recorder had to leave out.
    End {
        lost: u64,
    },
}

/// A whole trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub header: Header,
    /// By number.
    nodes: Vec<Node>,
    /// In the order in which they were asked.
    ops: Vec<Op>,
    /// Operations that the recorder had to leave out.
    pub lost: u64,
}

impl Trace {
    /// Read a trace whole; `name` is what errors call it.
    pub fn read(name: &str, from: impl Read) -> Result<Self> {
        let named = |error: Error| Error::new(error.kind(), format!("trace {name}")).because(error);
        body(from).and_then(|body| decode(&body)).map_err(|error| named(error).remedy("record it again"))
    }

    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// All objects; the first is the root.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Which objects, by number, the recorded client made itself: a creation gave them first.
    pub fn made(&self) -> Vec<bool> {
        let mut first_made = vec![None; self.nodes.len()];
        for op in &self.ops {
            if let Call::Name { verb, object: Some(object), .. } = &op.call {
                first_made[object.0 as usize].get_or_insert(*verb != NameVerb::Lookup);
            }
        }
        first_made.into_iter().map(|made| made.unwrap_or(false)).collect()
    }

    /// Where the object was when the trace first met it, from the root and without a leading slash; `None`
    /// if that was not found out.
    pub fn path(&self, node: NodeId) -> Option<Vec<u8>> {
        let mut names = Vec::new();
        let mut at = node;
        while at != NodeId::ROOT {
            let node = self.nodes.get(at.0 as usize)?;
            names.push(&*node.name);
            at = node.parent?;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }
}

/// What a trace may hold, checked item by item.
#[derive(Debug, Default)]
struct Bounds {
    /// Without the root.
    nodes: usize,
    ops: usize,
}

impl Bounds {
    fn admit(&mut self, item: &Item) -> Result<()> {
        match item {
            Item::Node(node) => self.admit_node(node),
            Item::Op(op) => self.admit_op(op),
            Item::End { .. } => Ok(()),
        }
    }

    fn admit_node(&mut self, node: &Node) -> Result<()> {
        if self.nodes + 1 == MAX_NODES {
            return Err(too_long(format!("{MAX_NODES} objects")));
        }
        node.parent.map_or(Ok(()), |parent| self.known(parent))?;
        self.nodes += 1;
        short("a name", &node.name)
    }

    fn admit_op(&mut self, op: &Op) -> Result<()> {
        if self.ops == MAX_OPS {
            return Err(too_long(format!("{MAX_OPS} operations")));
        }
        self.ops += 1;
        op.clone().try_map(|node| self.known(node))?;
        names(&op.call).into_iter().try_for_each(|name| short("a name", name))
    }

    fn known(&self, node: NodeId) -> Result<()> {
        let known = node.0 as usize <= self.nodes;
        known.then_some(()).ok_or_else(|| Error::corrupt(format!("object {} is not in the table", node.0)))
    }
}

/// The names in the arguments of a call.
fn names(call: &Call) -> Vec<&Name> {
    match call {
        Call::Mount | Call::Object { .. } => Vec::new(),
        Call::Name { name, verb: NameVerb::SymLink { target, .. }, .. } => vec![name, target],
        Call::Name { name, .. } | Call::Link { name, .. } => vec![name],
        Call::Rename { from, to, .. } => vec![from, to],
    }
}

fn short(what: &str, bytes: &[u8]) -> Result<()> {
    let error = || Error::corrupt(format!("{what} of {} bytes, at most {MAX_NAME}", bytes.len()));
    (bytes.len() <= MAX_NAME).then_some(()).ok_or_else(error)
}

fn too_long(what: String) -> Error {
    Error::invalid(format!("a trace of more than {what}")).remedy("record for a shorter time")
}

/// Writes a trace as it comes.
pub struct Writer<W: Write> {
    body: zstd::Encoder<'static, W>,
    body_bytes: u64,
    bounds: Bounds,
}

impl<W: Write> Writer<W> {
    pub fn new(mut to: W, header: &Header) -> Result<Self> {
        for text in [&header.version, &header.clone, &header.client] {
            short("a text of the header", text.as_bytes())?;
        }
        to.write_all(MAGIC).and_then(|()| to.write_all(&[FORMAT])).map_err(unwritten)?;
        let mut body = zstd::Encoder::new(to, LEVEL).map_err(unwritten)?;
        body.include_checksum(true).map_err(unwritten)?;
        let mut this = Self { body, body_bytes: 0, bounds: Bounds::default() };
        this.put(header)?;
        Ok(this)
    }

    /// Append an item; `Invalid` when the trace is full.
    pub fn item(&mut self, item: &Item) -> Result<()> {
        // Room for this one, whatever its names, and for the end.
        if self.body_bytes + 4 * MAX_NAME as u64 > MAX_BODY && !matches!(item, Item::End { .. }) {
            return Err(too_long(format!("{MAX_BODY} bytes")));
        }
        self.bounds.admit(item)?;
        self.put(item)
    }

    /// The trace is whole; `lost` operations are not in it.
    pub fn finish(mut self, lost: u64) -> Result<W> {
        self.item(&Item::End { lost })?;
        self.body.finish().map_err(unwritten)
    }

    fn put(&mut self, value: &impl Serialize) -> Result<()> {
        let bytes = postcard::to_stdvec(value).map_err(|e| Error::internal("a trace's item").because(e))?;
        self.body_bytes += bytes.len() as u64;
        self.body.write_all(&bytes).map_err(unwritten)
    }
}

fn unwritten(error: std::io::Error) -> Error {
    Error::io("a trace cannot be written", error)
}

/// What is behind the magic, decompressed.
fn body(mut from: impl Read) -> Result<Vec<u8>> {
    let mut start = [0; MAGIC.len() + 1];
    from.read_exact(&mut start).map_err(|e| Error::corrupt("it is no trace").because(e))?;
    let (magic, format) = start.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(Error::corrupt("it is no trace"));
    }
    if format != [FORMAT] {
        return Err(Error::corrupt(format!("its format is {}, this mimeo reads {FORMAT} only", format[0])));
    }
    let mut body = Vec::new();
    let decoder = zstd::Decoder::new(from).map_err(broken)?;
    decoder.take(MAX_BODY + 1).read_to_end(&mut body).map_err(broken)?;
    if body.len() as u64 > MAX_BODY {
        return Err(Error::corrupt(format!("it is longer than {MAX_BODY} bytes")));
    }
    Ok(body)
}

fn broken(error: std::io::Error) -> Error {
    Error::corrupt("it is damaged or cut short").because(error)
}

fn decode(mut body: &[u8]) -> Result<Trace> {
    let header: Header = take(&mut body)?;
    let root = Node { parent: None, name: Name::default() };
    let mut trace = Trace { header, nodes: vec![root], ..Trace::default() };
    let mut bounds = Bounds::default();
    loop {
        let item = take(&mut body)?;
        bounds.admit(&item)?;
        match item {
            Item::Node(node) => trace.nodes.push(node),
            Item::Op(op) => trace.ops.push(op),
            Item::End { lost } => {
                trace.lost = lost;
                break;
            }
        }
    }
    if !body.is_empty() {
        return Err(Error::corrupt(format!("{} bytes follow its end", body.len())));
    }
    trace.ops.sort_by_key(|op| op.at_micros);
    Ok(trace)
}

fn take<'a, T: Deserialize<'a>>(body: &mut &'a [u8]) -> Result<T> {
    let (value, rest) =
        postcard::take_from_bytes(body).map_err(|e| Error::corrupt("it is damaged or cut short").because(e))?;
    *body = rest;
    Ok(value)
}

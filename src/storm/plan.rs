//! What one client does: steps, what each waits for, and the objects that they are about.
//!
//! Owns the translation of recorded operations into steps. A plan is shared by all clients that follow it;
//! objects are numbered, and each client has its own handles for them.
//!
//! A step waits for up to three answers: the one after which the client thought (`trace::pace`; in a closed loop
//! only), and those that give the handles of its objects. An object that no step finds or makes is looked up by its path when it is
//! needed; one whose path is not known either cannot be used, and steps on it are left out and counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::schedule::Pace;
use super::wire::Caller;
use crate::trace::{Call, Name, Node, NodeId, Op, Trace, pace};

/// A step, by its place in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(u32);

impl StepId {
    pub fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("a trace has at most a million operations"))
    }

    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One call.
#[derive(Clone, Debug)]
pub struct Step {
    pub call: Call,
    pub caller: Caller,
    /// `nfsstat3` that it was answered when it was recorded.
    pub status: u32,
    /// Open loop: when it goes out.
    pub at: Duration,
    /// Closed loop: how long the client thinks before it.
    pub think: Duration,
    needs: Needs,
}

/// The answers that a step waits for.
#[derive(Clone, Debug, Default)]
struct Needs {
    /// The one after which the client thought, if it is not among `givers`. Only a closed loop waits for it.
    after: Option<StepId>,
    /// Those with the handles of its objects.
    givers: SmallVec<[StepId; 2]>,
}

impl Step {
    /// How many answers it waits for.
    pub fn needs(&self, pace: Pace) -> u8 {
        let after = pace == Pace::Closed && self.needs.after.is_some();
        u8::try_from(self.needs.givers.len()).expect("at most two") + u8::from(after)
    }

    /// Whether it waits for the answer of `step`.
    pub fn waits_for(&self, step: StepId, pace: Pace) -> bool {
        (pace == Pace::Closed && self.needs.after == Some(step)) || self.needs.givers.contains(&step)
    }
}

/// The objects that plans are about; the first is the root.
#[derive(Debug)]
pub struct Objects {
    nodes: Vec<Node>,
    /// By folder and name; `None` where several objects had the name one after another.
    children: HashMap<NodeId, HashMap<Name, Option<NodeId>>>,
}

impl Objects {
    pub fn new(nodes: Vec<Node>) -> Self {
        let mut children: HashMap<NodeId, HashMap<Name, Option<NodeId>>> = HashMap::new();
        for (number, node) in (0..).zip(&nodes) {
            let Some(parent) = node.parent else { continue };
            let named = children.entry(parent).or_default();
            named.entry(node.name.clone()).and_modify(|child| *child = None).or_insert(Some(NodeId(number)));
        }
        Self { nodes, children }
    }

    /// How many there are, with the root.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.0 as usize]
    }

    pub fn child(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        *self.children.get(&dir)?.get(name)?
    }

    /// Where an object was, from the root and without a leading slash; `None` if that is not known.
    pub fn path(&self, node: NodeId) -> Option<Vec<u8>> {
        let mut names = Vec::new();
        let mut at = node;
        while at != NodeId::ROOT {
            let node = self.node(at);
            names.push(&*node.name);
            at = node.parent?;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }
}

/// Steps about objects.
#[derive(Debug)]
pub struct Plan {
    objects: Arc<Objects>,
    steps: Vec<Step>,
    /// Behind each step, those that wait for it: `followers[starts[i]..starts[i + 1]]`.
    followers: Vec<StepId>,
    starts: Vec<u32>,
    /// Recorded operations that cannot be replayed.
    pub left_out: u64,
}

impl Plan {
    /// The plan that does again what was recorded.
    pub fn of_trace(trace: &Trace) -> Self {
        let start = trace.ops().first().map_or(0, |op| op.at_micros);
        Self::of_ops(Arc::new(Objects::new(trace.nodes().to_vec())), trace.ops(), start)
    }

    /// The plan of `ops`, which are in the order in which they are asked; it begins at `start_micros`.
    pub fn of_ops(objects: Arc<Objects>, ops: &[Op], start_micros: u64) -> Self {
        let paces = pace(ops);
        let mut builder = Builder { objects: &objects, givers: HashMap::new(), step_of: Vec::new(), left_out: 0 };
        let mut steps: Vec<Step> = Vec::with_capacity(ops.len());
        for (op, pace) in ops.iter().zip(paces) {
            let since_start = op.at_micros.saturating_sub(start_micros);
            let think = pace.after.map_or(since_start, |_| pace.think_micros);
            let step = builder.step(op, pace.after).map(|needs| Step {
                call: op.call.clone(),
                caller: Caller { uid: op.uid, gid: op.gid },
                status: op.status,
                at: Duration::from_micros(since_start),
                think: Duration::from_micros(think),
                needs,
            });
            let id = step.map(|step| {
                steps.push(step);
                StepId::from_index(steps.len() - 1)
            });
            builder.placed(op, pace.after, id);
        }
        let left_out = builder.left_out;
        let (starts, followers) = followers(&steps);
        Self { objects, steps, followers, starts, left_out }
    }

    pub fn objects(&self) -> &Arc<Objects> {
        &self.objects
    }

    /// How many steps it has.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Until its last step is due, by the clock.
    pub fn span(&self) -> Duration {
        self.steps.last().map_or(Duration::ZERO, |step| step.at)
    }

    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }

    pub fn step(&self, id: StepId) -> &Step {
        &self.steps[id.index()]
    }

    /// The steps that wait for this one, in one loop or in both.
    pub fn waiting_for(&self, id: StepId) -> &[StepId] {
        &self.followers[self.starts[id.index()] as usize..self.starts[id.index() + 1] as usize]
    }
}

/// The objects whose handles a call takes.
pub fn taken(call: &Call) -> SmallVec<[NodeId; 2]> {
    match *call {
        Call::Mount => SmallVec::new(),
        Call::Object { object, .. } => SmallVec::from_slice(&[object]),
        Call::Name { dir, .. } => SmallVec::from_slice(&[dir]),
        Call::Rename { from_dir, to_dir, .. } => SmallVec::from_slice(&[from_dir, to_dir]),
        Call::Link { object, dir, .. } => SmallVec::from_slice(&[object, dir]),
    }
}

/// What is known while steps are made of operations.
struct Builder<'a> {
    objects: &'a Objects,
    /// The step that gives an object's handle.
    givers: HashMap<NodeId, StepId>,
    /// By operation: its step, or that of the one it would have waited for.
    step_of: Vec<Option<StepId>>,
    left_out: u64,
}

impl Builder<'_> {
    /// What the operation waits for; `None` if it cannot be done again.
    fn step(&mut self, op: &Op, after: Option<usize>) -> Option<Needs> {
        if matches!(op.call, Call::Mount) {
            // Each client mounts before its first step.
            return None;
        }
        let mut givers = SmallVec::new();
        for object in taken(&op.call) {
            match self.givers.get(&object) {
                Some(giver) => givers.push(*giver),
                None if self.objects.path(object).is_some() => {}
                None => {
                    self.left_out += 1;
                    return None;
                }
            }
        }
        givers.dedup();
        let after = after.and_then(|after| self.step_of[after]).filter(|after| !givers.contains(after));
        Some(Needs { after, givers })
    }

    /// The operation became the step `id`, or none.
    fn placed(&mut self, op: &Op, after: Option<usize>, id: Option<StepId>) {
        self.step_of.push(id.or_else(|| after.and_then(|after| self.step_of[after])));
        if let (Call::Name { object: Some(object), .. }, Some(id), true) = (&op.call, id, op.is_ok()) {
            // The first: an object that was found keeps its handle.
            self.givers.entry(*object).or_insert(id);
        }
    }
}

fn followers(steps: &[Step]) -> (Vec<u32>, Vec<StepId>) {
    let mut starts = vec![0u32; steps.len() + 1];
    let needs = |step: &Step| step.needs.givers.clone().into_iter().chain(step.needs.after);
    for need in steps.iter().flat_map(needs) {
        starts[need.index() + 1] += 1;
    }
    for i in 1..starts.len() {
        starts[i] += starts[i - 1];
    }
    let mut next = starts.clone();
    let mut followers = vec![StepId(0); starts[steps.len()] as usize];
    for (i, step) in steps.iter().enumerate() {
        for need in needs(step) {
            let place = &mut next[need.index()];
            followers[*place as usize] = StepId::from_index(i);
            *place += 1;
        }
    }
    (starts, followers)
}

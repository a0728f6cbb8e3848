//! What the clients of a storm do: the same recorded trace, or plans of a mix.

use std::sync::Arc;

use super::digests::Digests;
use super::ledger::Expected;
use super::mix::Mixer;
use super::plan::{Objects, Plan};
use crate::trace::Trace;

/// Where plans come from.
pub enum Load {
    Replay(Arc<Plan>),
    Mix(Box<Mixer>),
}

impl Load {
    /// The plan that does again what was recorded.
    pub fn of_trace(trace: &Trace) -> Self {
        Self::Replay(Arc::new(Plan::of_trace(trace)))
    }

    fn objects(&self) -> &Arc<Objects> {
        match self {
            Self::Replay(plan) => plan.objects(),
            Self::Mix(mixer) => mixer.objects(),
        }
    }
}

/// A load, and what its bytes have to be.
pub struct Workload {
    load: Load,
    /// Without it nothing is verified.
    pub(super) expected: Option<Expected>,
}

impl Workload {
    pub fn new(load: Load, digests: Option<&Digests>) -> Self {
        let expected = digests.map(|digests| Expected::new(load.objects(), digests));
        Self { load, expected }
    }

    /// The `round`th plan of a client, if it has so many.
    pub(super) fn plan(&self, client: u32, round: u32) -> Option<Arc<Plan>> {
        match &self.load {
            Load::Replay(plan) => (round == 0).then(|| plan.clone()),
            Load::Mix(mixer) => mixer.plan(client, round),
        }
    }

    /// Recorded operations that cannot be done again.
    pub fn left_out(&self) -> u64 {
        match &self.load {
            Load::Replay(plan) => plan.left_out,
            Load::Mix(_) => 0,
        }
    }
}

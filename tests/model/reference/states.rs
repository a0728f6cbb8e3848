//! What something was since the last promise of stable storage, and what a crash may have left of it.

/// Counts the operations of one [`Driver`](super::Driver), in the order in which they were answered.
pub type Seq = u64;

/// The states of one thing, each with the operation that made it; the newest last, never none.
#[derive(Clone, Debug)]
pub struct States<T> {
    states: Vec<(Seq, T)>,
}

impl<T> States<T> {
    pub fn new(state: T) -> Self {
        Self { states: vec![(0, state)] }
    }

    pub fn now(&self) -> &T {
        &self.states[self.states.len() - 1].1
    }

    pub fn now_mut(&mut self) -> &mut T {
        let last = self.states.len() - 1;
        &mut self.states[last].1
    }

    /// The newest operation that a crash may take back.
    pub fn since(&self) -> Seq {
        if self.is_certain() { 0 } else { self.states[self.states.len() - 1].0 }
    }

    /// A change that a crash may take back.
    pub fn push(&mut self, seq: Seq, state: T) {
        self.states.push((seq, state));
    }

    /// All that it may be, for a change that is stable whatever becomes of the others.
    pub fn each(&mut self, change: impl FnMut(&mut T)) {
        self.states.iter_mut().map(|(_, state)| state).for_each(change);
    }

    pub fn is_certain(&self) -> bool {
        self.states.len() == 1
    }

    /// Operation `stable` and all before it are on stable storage.
    pub fn settle(&mut self, stable: Seq) {
        let superseded = self.states.iter().skip(1).take_while(|(seq, _)| *seq <= stable).count();
        self.states.drain(..superseded);
    }

    /// The newest state is what it is.
    pub fn settle_now(&mut self) {
        let last = self.states.len() - 1;
        self.states.drain(..last);
    }

    /// A crash left what `matches` accepts: narrow down when it happened, and keep that state. `false`
    /// if it never was like that.
    pub fn after_crash(&mut self, window: &mut Window, matches: impl Fn(&T) -> bool) -> bool {
        let mut spans = Vec::new();
        let mut found = None;
        for (i, (seq, state)) in self.states.iter().enumerate() {
            if matches(state) {
                let next = self.states.get(i + 1).map_or(Seq::MAX, |(next, _)| *next);
                // The first state is from before the window whatever its number says.
                spans.push((if i == 0 { 0 } else { *seq }, next));
                found = Some(i);
            }
        }
        let Some(found) = found else { return false };
        window.intersect(&spans);
        let (_, state) = self.states.swap_remove(found);
        self.states = vec![(0, state)];
        true
    }
}

/// When a crash can have happened, in operations: `from` is done, `to` is not, for each span. A log
/// that loses its tail and nothing else leaves at least one span.
#[derive(Clone, Debug)]
pub struct Window {
    spans: Vec<(Seq, Seq)>,
}

impl Window {
    /// After operation `stable`.
    pub fn since(stable: Seq) -> Self {
        Self { spans: vec![(stable, Seq::MAX)] }
    }

    fn intersect(&mut self, others: &[(Seq, Seq)]) {
        let both = |a: &(Seq, Seq), b: &(Seq, Seq)| {
            let span = (a.0.max(b.0), a.1.min(b.1));
            (span.0 < span.1).then_some(span)
        };
        self.spans = self.spans.iter().flat_map(|a| others.iter().filter_map(move |b| both(a, b))).collect();
    }

    pub fn is_possible(&self) -> bool {
        !self.spans.is_empty()
    }
}

#[test]
fn a_crash_loses_a_tail_and_nothing_in_the_middle() {
    let mut first = States::new('a');
    first.push(3, 'b');
    let mut second = States::new('x');
    second.push(4, 'y');
    let mut window = Window::since(2);
    assert!(second.clone().after_crash(&mut window, |state| *state == 'y') && window.is_possible());
    assert!(first.after_crash(&mut window, |state| *state == 'a'));
    assert!(!window.is_possible(), "operation 4 is there and 3 is not");
    let mut window = Window::since(2);
    assert!(!second.after_crash(&mut window, |state| *state == 'z'));
}

#[test]
fn what_is_stable_is_not_taken_back() {
    let mut states = States::new(1);
    states.push(5, 2);
    states.push(7, 3);
    states.settle(6);
    assert!(!states.clone().after_crash(&mut Window::since(6), |state| *state == 1));
    assert!(states.clone().after_crash(&mut Window::since(6), |state| *state == 2));
    states.settle(7);
    assert!(states.is_certain());
}

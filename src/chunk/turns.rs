//! Whose chunk is loaded next: readers take turns.
//!
//! Owns how many loads are under way at a time, and who waits for one. Each export has a lane, as has all that
//! mimeo does for itself, and lanes are served in a circle, one load each: a clone that wants a thousand chunks at
//! once delays one that wants a single one by a round of the circle and not by a thousand loads.
//!
//! Invariants: at most so many turns are held as there are; a turn that comes back goes to somebody who waits, if
//! anybody does; who gives up waiting leaves an empty place, at which his lane's go is the next lane's. A turn that
//! was given is held, whether its holder is polled or not: who waits for one must be polled whatever comes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Who wants chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Whatever mimeo does for itself.
    #[default]
    Upkeep,
    /// The clients of an export.
    Export(u64),
}

/// Turns to load a chunk.
pub struct Turns {
    state: Mutex<State>,
}

struct State {
    free: usize,
    waiting: HashMap<Lane, VecDeque<oneshot::Sender<Turn>>>,
    /// The lanes in which somebody waits, each once; the next one is first.
    order: VecDeque<Lane>,
}

/// Leave to load one chunk, until it is dropped.
pub struct Turn(Option<Arc<Turns>>);

impl Turns {
    /// `count` loads at a time.
    pub fn new(count: usize) -> Arc<Self> {
        let state = State { free: count, waiting: HashMap::new(), order: VecDeque::new() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Wait for a turn.
    pub async fn take(self: &Arc<Self>, lane: Lane) -> Turn {
        match self.wait(lane) {
            None => Turn(Some(self.clone())),
            Some(turn) => turn.await.expect("nobody who still waits is passed over"),
        }
    }

    /// `None`: there was a free turn, and the caller has it.
    fn wait(&self, lane: Lane) -> Option<oneshot::Receiver<Turn>> {
        let mut state = self.state.lock();
        if state.free > 0 {
            state.free -= 1;
            return None;
        }
        let (give, get) = oneshot::channel();
        let waiting = state.waiting.entry(lane).or_default();
        waiting.push_back(give);
        if waiting.len() == 1 {
            state.order.push_back(lane);
        }
        Some(get)
    }

    /// Give a turn to the next one who still waits.
    fn pass(self: Arc<Self>) {
        while let Some(next) = self.next() {
            match next.send(Turn(Some(self.clone()))) {
                Ok(()) => return,
                // He gave up.
                Err(mut turn) => drop(turn.0.take()),
            }
        }
    }

    /// The next one who waits; if there is none, the turn is free.
    fn next(&self) -> Option<oneshot::Sender<Turn>> {
        let mut state = self.state.lock();
        let Some(lane) = state.order.pop_front() else {
            state.free += 1;
            return None;
        };
        let waiting = state.waiting.get_mut(&lane).expect("somebody waits in a lane of the circle");
        let next = waiting.pop_front();
        if waiting.is_empty() {
            state.waiting.remove(&lane);
        } else {
            state.order.push_back(lane);
        }
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::*;

    const GREEDY: Lane = Lane::Export(1);
    const POLITE: Lane = Lane::Export(2);

    fn poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    fn take(turns: &Arc<Turns>, lane: Lane) -> BoxFuture<'static, Turn> {
        let turns = turns.clone();
        let mut taken = async move { turns.take(lane).await }.boxed();
        let early = poll(&mut taken);
        async move {
            match early {
                Some(turn) => turn,
                None => taken.await,
            }
        }
        .boxed()
    }

    #[test]
    fn lanes_are_served_in_a_circle() {
        let turns = Turns::new(1);
        let mut held = poll(&mut take(&turns, GREEDY)).unwrap();
        let mut greedy: VecDeque<_> = (0..3).map(|_| take(&turns, GREEDY)).collect();
        let mut polite: VecDeque<_> = (0..2).map(|_| take(&turns, POLITE)).collect();
        let mut order = Vec::new();
        for _ in 0..5 {
            drop(held);
            let served = [(GREEDY, &mut greedy), (POLITE, &mut polite)].into_iter().find_map(|(lane, waiting)| {
                let turn = poll(waiting.front_mut()?)?;
                waiting.pop_front();
                Some((lane, turn))
            });
            let (lane, turn) = served.unwrap();
            order.push(lane);
            held = turn;
        }
        assert_eq!(order, [GREEDY, POLITE, GREEDY, POLITE, GREEDY]);
    }

    #[test]
    fn who_gives_up_takes_no_turn_along() {
        let turns = Turns::new(1);
        let held = poll(&mut take(&turns, GREEDY)).unwrap();
        let gone = take(&turns, POLITE);
        let mut late = take(&turns, GREEDY);
        drop(gone);
        drop(held);
        let held = poll(&mut late).unwrap();
        // And one who goes away with a turn that he never looked at.
        let unread = take(&turns, POLITE);
        drop(held);
        drop(unread);
        assert!(poll(&mut take(&turns, GREEDY)).is_some());
        let state = turns.state.lock();
        assert_eq!((state.free, state.waiting.len(), state.order.len()), (1, 0, 0));
    }

    #[test]
    fn no_more_turns_than_there_are() {
        let turns = Turns::new(2);
        let held: Vec<_> = (0..2).map(|_| poll(&mut take(&turns, GREEDY)).unwrap()).collect();
        let mut third = take(&turns, POLITE);
        assert!(poll(&mut third).is_none());
        drop(held);
        assert!(poll(&mut third).is_some());
    }
}

//! Which message of a batch may leave when: pure bookkeeping, without a clock or a wire.
//!
//! Invariants:
//! - at most `in_flight` messages, and `per_key` of one key, await their confirmation;
//! - a message leaves only after all earlier ones of its key left, and (with `per_key` 1) were confirmed;
//! - after a fault that stops, nothing leaves; after a message that is refused for good, nothing behind it does, and
//!   what is before it still does, because the caller takes the answer to mean that it is safe.

use std::collections::{BTreeMap, HashMap, VecDeque};

use amibus_contract::{Decision, Fault, FaultKind, Published, Reach};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Sent,
    Safe,
    Failed,
}

#[derive(Debug, Default)]
struct Chain {
    in_flight: usize,
    waiting: VecDeque<usize>,
}

/// One batch on its way.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    keys: Vec<&'a str>,
    states: Vec<State>,
    chains: HashMap<&'a str, Chain>,
    /// Waiting messages whose predecessor was confirmed.
    ready: VecDeque<usize>,
    scanned: usize,
    /// Nothing from here on leaves.
    limit: usize,
    in_flight: usize,
    max_in_flight: usize,
    max_per_key: usize,
    faults: BTreeMap<usize, Fault>,
    halted: bool,
    /// Why nothing more leaves, where no message is to blame.
    why: Option<Fault>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(keys: Vec<&'a str>, max_in_flight: usize, max_per_key: usize) -> Self {
        Self {
            states: vec![State::Waiting; keys.len()],
            limit: keys.len(),
            keys,
            chains: HashMap::new(),
            ready: VecDeque::new(),
            scanned: 0,
            in_flight: 0,
            max_in_flight: max_in_flight.max(1),
            max_per_key: max_per_key.max(1),
            faults: BTreeMap::new(),
            halted: false,
            why: None,
        }
    }

    /// The next message to send now, counted as sent; `None`: wait for a confirmation, or it is over.
    pub(crate) fn next(&mut self) -> Option<usize> {
        if self.halted || self.in_flight >= self.max_in_flight {
            return None;
        }
        while let Some(index) = self.ready.pop_front() {
            if index < self.limit {
                return Some(self.send(index));
            }
        }
        while self.scanned < self.limit {
            let index = self.scanned;
            self.scanned += 1;
            let chain = self.chains.entry(self.keys.get(index)?).or_default();
            if chain.in_flight < self.max_per_key && chain.waiting.is_empty() {
                return Some(self.send(index));
            }
            chain.waiting.push_back(index);
        }
        None
    }

    fn send(&mut self, index: usize) -> usize {
        self.set(index, State::Sent);
        self.in_flight += 1;
        if let Some(chain) = self.chain(index) {
            chain.in_flight += 1;
        }
        index
    }

    /// Message `index` is confirmed. Of one that failed meanwhile nothing is changed.
    pub(crate) fn confirm(&mut self, index: usize) {
        if self.states.get(index) != Some(&State::Sent) {
            return;
        }
        self.set(index, State::Safe);
        self.in_flight -= 1;
        let released = self.chain(index).and_then(|chain| {
            chain.in_flight -= 1;
            chain.waiting.pop_front()
        });
        self.ready.extend(released);
    }

    /// Message `index` is not safe, because of `fault`. Its key stays blocked.
    pub(crate) fn fail(&mut self, index: usize, fault: Fault) {
        if self.states.get(index) != Some(&State::Sent) {
            return;
        }
        self.set(index, State::Failed);
        self.in_flight -= 1;
        if fault.decision == Decision::Skip {
            self.limit = self.limit.min(index);
        } else {
            self.halted = true;
        }
        self.faults.insert(index, fault);
    }

    /// Nothing more can be confirmed: everything in flight met `fault`.
    pub(crate) fn fail_all(&mut self, fault: &Fault) {
        self.halted = true;
        for index in self.sent() {
            self.fail(index, fault.clone());
        }
    }

    /// Nothing more leaves, because of `fault`; what is in flight may still be confirmed.
    pub(crate) fn halt(&mut self, fault: Fault) {
        self.halted = true;
        self.why = Some(fault);
    }

    /// Whether anything awaits its confirmation.
    pub(crate) fn is_waiting(&self) -> bool {
        self.in_flight > 0
    }

    /// What awaits its confirmation.
    pub(crate) fn sent(&self) -> Vec<usize> {
        (0..self.states.len()).filter(|index| self.states.get(*index) == Some(&State::Sent)).collect()
    }

    /// What is confirmed, though something before it is not: it will be offered again.
    pub(crate) fn confirmed_beyond(&self) -> Vec<usize> {
        let safe = |index: &usize| self.states.get(*index) == Some(&State::Safe);
        let mut rest = 0..self.states.len();
        let _ = rest.by_ref().find(|index| !safe(index));
        rest.filter(safe).collect()
    }

    /// The answer for the whole batch.
    pub(crate) fn finish(mut self, reach: Reach) -> Published {
        let safe = self.states.iter().position(|state| *state != State::Safe).unwrap_or(self.states.len());
        if safe == self.states.len() {
            return Published::all(safe, reach);
        }
        let fault = self.faults.remove(&safe).or_else(|| {
            // This one was held back by the fault of another: one that asks for the same again.
            self.faults.values().find(|fault| fault.decision != Decision::Skip).cloned()
        });
        let fault =
            fault.or(self.why).unwrap_or_else(|| Fault::new(FaultKind::TimedOut, "the batch was stopped"));
        Published::until(safe, reach, fault)
    }

    fn set(&mut self, index: usize, state: State) {
        if let Some(place) = self.states.get_mut(index) {
            *place = state;
        }
    }

    fn chain(&mut self, index: usize) -> Option<&mut Chain> {
        self.chains.get_mut(self.keys.get(index)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window<'a>(keys: &[&'a str], in_flight: usize, per_key: usize) -> Window<'a> {
        Window::new(keys.to_vec(), in_flight, per_key)
    }

    fn all_next(window: &mut Window<'_>) -> Vec<usize> {
        std::iter::from_fn(|| window.next()).collect()
    }

    fn fault(kind: FaultKind) -> Fault {
        Fault::new(kind, "test")
    }

    #[test]
    fn a_key_waits_for_its_predecessor_and_others_pass() {
        let mut w = window(&["a", "a", "b", "a", "b", "c"], 10, 1);
        assert_eq!(all_next(&mut w), [0, 2, 5]);
        w.confirm(2);
        assert_eq!(all_next(&mut w), [4]);
        w.confirm(0);
        assert_eq!(all_next(&mut w), [1]);
        for index in [1, 4, 5] {
            w.confirm(index);
        }
        assert_eq!(all_next(&mut w), [3]);
        w.confirm(3);
        assert_eq!(w.finish(Reach::Stored), Published::all(6, Reach::Stored));
    }

    #[test]
    fn several_of_a_key_leave_in_order_where_that_is_asked_for() {
        let mut w = window(&["a"; 6], 10, 3);
        assert_eq!(all_next(&mut w), [0, 1, 2]);
        w.confirm(1);
        assert_eq!(all_next(&mut w), [3]);
        w.confirm(0);
        w.confirm(2);
        assert_eq!(all_next(&mut w), [4, 5]);
    }

    #[test]
    fn in_flight_is_bounded() {
        let mut w = window(&["a", "b", "c", "d"], 2, 1);
        assert_eq!(all_next(&mut w), [0, 1]);
        w.confirm(1);
        assert_eq!(all_next(&mut w), [2]);
    }

    #[test]
    fn a_retryable_fault_stops_the_batch_and_blocks_its_key() {
        let mut w = window(&["a", "b", "a", "c"], 2, 1);
        assert_eq!(all_next(&mut w), [0, 1]);
        w.fail(1, fault(FaultKind::TimedOut));
        assert_eq!(all_next(&mut w), Vec::<usize>::new());
        w.confirm(0);
        assert_eq!(all_next(&mut w), Vec::<usize>::new());
        let published = w.finish(Reach::Stored);
        assert_eq!((published.safe, published.fault.map(|f| f.kind)), (1, Some(FaultKind::TimedOut)));
    }

    #[test]
    fn what_is_before_a_refused_message_still_leaves() {
        let mut w = window(&["a", "a", "b", "b", "c"], 10, 1);
        assert_eq!(all_next(&mut w), [0, 2, 4]);
        w.fail(2, fault(FaultKind::TooLarge));
        w.confirm(4);
        w.confirm(0);
        assert_eq!(all_next(&mut w), [1]);
        w.confirm(1);
        assert_eq!(all_next(&mut w), Vec::<usize>::new());
        let published = w.finish(Reach::Stored);
        assert_eq!((published.safe, published.fault.map(|f| f.kind)), (2, Some(FaultKind::TooLarge)));
    }

    #[test]
    fn a_message_held_back_is_never_reported_as_refused() {
        let mut w = window(&["a", "a", "b", "c"], 10, 1);
        assert_eq!(all_next(&mut w), [0, 2, 3]);
        w.fail(2, fault(FaultKind::TooLarge));
        w.fail(3, fault(FaultKind::Unreachable));
        w.confirm(0);
        let published = w.finish(Reach::Stored);
        assert_eq!((published.safe, published.fault.map(|f| f.kind)), (1, Some(FaultKind::Unreachable)));
    }

    #[test]
    fn what_was_sent_before_a_halt_may_still_be_confirmed() {
        let mut w = window(&["a", "b", "c"], 2, 1);
        assert_eq!(all_next(&mut w), [0, 1]);
        w.halt(fault(FaultKind::Closed));
        w.confirm(1);
        w.confirm(0);
        assert_eq!(all_next(&mut w), Vec::<usize>::new());
        let published = w.finish(Reach::Stored);
        assert_eq!((published.safe, published.fault.map(|f| f.kind)), (2, Some(FaultKind::Closed)));
    }

    #[test]
    fn a_broken_connection_fails_all_in_flight() {
        let mut w = window(&["a", "b", "c"], 10, 1);
        assert_eq!(all_next(&mut w), [0, 1, 2]);
        w.confirm(0);
        w.confirm(2);
        assert_eq!(w.confirmed_beyond(), [2]);
        w.fail_all(&fault(FaultKind::Unreachable));
        assert_eq!(w.confirmed_beyond(), [2]);
        let published = w.finish(Reach::Stored);
        assert_eq!((published.safe, published.fault.map(|f| f.decision)), (1, Some(Decision::Retry)));
    }
}

//! Which message of those on offer may leave when: pure bookkeeping, without a clock or a wire.
//!
//! Messages are numbered from zero in the order in which they are offered. Those at the front that are confirmed are
//! counted and no longer kept, and more may be offered behind the others.
//!
//! Invariants:
//! - at most `in_flight` messages, and `per_key` of one key, await their confirmation;
//! - a message leaves only after all earlier ones of its key left, and (with `per_key` 1) were confirmed;
//! - after a fault that stops, nothing leaves; after a message that is refused for good, nothing behind it does, and
//!   what is before it still does, because the caller takes the answer to mean that it is safe.

use std::collections::{BTreeMap, HashMap, VecDeque};

use amibus_contract::{ByteString, Decision, Fault, FaultKind, Published, Reach};

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

/// What is on offer and not confirmed as far as the first.
#[derive(Debug)]
pub(crate) struct Window {
    /// So many at the front are confirmed.
    safe: usize,
    /// Of those behind.
    messages: VecDeque<(ByteString, State)>,
    /// Of keys with messages that await their confirmation, where only some of one key may.
    chains: HashMap<ByteString, Chain>,
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

impl Window {
    pub(crate) fn new(max_in_flight: usize, max_per_key: usize) -> Self {
        Self {
            safe: 0,
            messages: VecDeque::new(),
            chains: HashMap::new(),
            ready: VecDeque::new(),
            scanned: 0,
            limit: usize::MAX,
            in_flight: 0,
            max_in_flight: max_in_flight.max(1),
            max_per_key: max_per_key.max(1),
            faults: BTreeMap::new(),
            halted: false,
            why: None,
        }
    }

    /// Messages of these keys follow.
    pub(crate) fn offer(&mut self, keys: impl Iterator<Item = ByteString>) {
        self.messages.extend(keys.map(|key| (key, State::Waiting)));
    }

    /// The number after the last that was offered.
    pub(crate) fn end(&self) -> usize {
        self.safe + self.messages.len()
    }

    /// How many from the first on are confirmed.
    pub(crate) fn safe(&self) -> usize {
        self.safe
    }

    /// Whether anything is wrong, so that what is on offer does not leave as a whole.
    pub(crate) fn has_failed(&self) -> bool {
        self.halted || !self.faults.is_empty()
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
        while self.scanned < self.limit.min(self.end()) {
            let index = self.scanned;
            self.scanned += 1;
            if !self.counts_keys() {
                return Some(self.send(index));
            }
            let key = self.messages.get(index - self.safe)?.0.clone();
            let chain = self.chains.entry(key).or_default();
            if chain.in_flight < self.max_per_key && chain.waiting.is_empty() {
                chain.in_flight += 1;
                return Some(self.send(index));
            }
            chain.waiting.push_back(index);
        }
        None
    }

    /// Whether fewer of one key may be in flight than of all.
    fn counts_keys(&self) -> bool {
        self.max_per_key < self.max_in_flight
    }

    fn send(&mut self, index: usize) -> usize {
        self.set(index, State::Sent);
        self.in_flight += 1;
        index
    }

    /// Message `index` is confirmed. Of one that failed meanwhile nothing is changed.
    pub(crate) fn confirm(&mut self, index: usize) {
        if self.state(index) != Some(State::Sent) {
            return;
        }
        self.set(index, State::Safe);
        self.in_flight -= 1;
        if self.counts_keys() {
            let released = self.release(index);
            self.ready.extend(released);
        }
        while self.messages.front().is_some_and(|(_, state)| *state == State::Safe) {
            self.messages.pop_front();
            self.safe += 1;
        }
    }

    /// The next of its key that waits, which may leave now.
    fn release(&mut self, index: usize) -> Option<usize> {
        let (key, _) = self.messages.get(index.checked_sub(self.safe)?)?;
        let chain = self.chains.get_mut(key)?;
        let next = chain.waiting.pop_front();
        if next.is_none() {
            chain.in_flight -= 1;
            if chain.in_flight == 0 {
                self.chains.remove(key);
            }
        }
        next
    }

    /// Message `index` is not safe, because of `fault`. Its key stays blocked.
    pub(crate) fn fail(&mut self, index: usize, fault: Fault) {
        if self.state(index) != Some(State::Sent) {
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
        self.all_in(State::Sent).collect()
    }

    /// What is confirmed, though something before it is not: it will be offered again.
    pub(crate) fn confirmed_beyond(&self) -> Vec<usize> {
        self.all_in(State::Safe).collect()
    }

    /// The answer for everything from number `first` on.
    pub(crate) fn finish(mut self, first: usize, reach: Reach) -> Published {
        let safe = self.safe.saturating_sub(first);
        if self.messages.is_empty() {
            return Published::all(safe, reach);
        }
        let fault = self.faults.remove(&self.safe).or_else(|| {
            // This one was held back by the fault of another: one that asks for the same again.
            self.faults.values().find(|fault| fault.decision != Decision::Skip).cloned()
        });
        let fault =
            fault.or(self.why).unwrap_or_else(|| Fault::new(FaultKind::TimedOut, "the batch was stopped"));
        Published::until(safe, reach, fault)
    }

    fn all_in(&self, state: State) -> impl Iterator<Item = usize> {
        let numbered = (self.safe..).zip(&self.messages);
        numbered.filter(move |(_, (_, of_it))| *of_it == state).map(|(index, _)| index)
    }

    fn state(&self, index: usize) -> Option<State> {
        Some(self.messages.get(index.checked_sub(self.safe)?)?.1)
    }

    fn set(&mut self, index: usize, state: State) {
        if let Some((_, place)) = index.checked_sub(self.safe).and_then(|at| self.messages.get_mut(at)) {
            *place = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(keys: &[&str], in_flight: usize, per_key: usize) -> Window {
        let mut window = Window::new(in_flight, per_key);
        window.offer(keys.iter().map(|key| ByteString::from(*key)));
        window
    }

    fn all_next(window: &mut Window) -> Vec<usize> {
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
        assert_eq!(w.finish(0, Reach::Stored), Published::all(6, Reach::Stored));
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
        let published = w.finish(0, Reach::Stored);
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
        let published = w.finish(0, Reach::Stored);
        assert_eq!((published.safe, published.fault.map(|f| f.kind)), (2, Some(FaultKind::TooLarge)));
    }

    #[test]
    fn a_message_held_back_is_never_reported_as_refused() {
        let mut w = window(&["a", "a", "b", "c"], 10, 1);
        assert_eq!(all_next(&mut w), [0, 2, 3]);
        w.fail(2, fault(FaultKind::TooLarge));
        w.fail(3, fault(FaultKind::Unreachable));
        w.confirm(0);
        let published = w.finish(0, Reach::Stored);
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
        let published = w.finish(0, Reach::Stored);
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
        let published = w.finish(0, Reach::Stored);
        assert_eq!((published.safe, published.fault.map(|f| f.decision)), (1, Some(Decision::Retry)));
    }

    #[test]
    fn more_may_follow_what_is_in_flight() {
        for per_key in [1, 4] {
            let mut w = window(&["a", "b", "c", "a"], 4, per_key);
            let waits = if per_key == 1 { vec![0, 1, 2] } else { vec![0, 1, 2, 3] };
            assert_eq!(all_next(&mut w), waits);
            w.confirm(1);
            assert_eq!(w.safe(), 0, "not without the first");
            w.confirm(0);
            assert_eq!((w.safe(), w.end()), (2, 4));
            w.offer(["b", "a"].into_iter().map(ByteString::from));
            assert_eq!(all_next(&mut w), if per_key == 1 { vec![3, 4] } else { vec![4, 5] });
            for index in 2..5 {
                w.confirm(index);
            }
            assert_eq!(all_next(&mut w), if per_key == 1 { vec![5] } else { vec![] });
            w.fail(5, fault(FaultKind::Refused));
            assert!(w.has_failed() && w.chains.len() <= 1 && w.messages.len() == 1);
            let published = w.finish(2, Reach::Stored);
            assert_eq!((published.safe, published.fault.map(|f| f.kind)), (3, Some(FaultKind::Refused)));
        }
    }

    #[test]
    fn what_is_confirmed_is_not_kept() {
        let mut w = window(&[], 8, 1);
        for round in 0..1_000 {
            w.offer((0..8).map(|n| format!("call-{round}-{n}").into()));
            for index in all_next(&mut w) {
                w.confirm(index);
            }
            assert_eq!((w.safe(), w.messages.len(), w.chains.len()), (8 * (round + 1), 0, 0));
        }
    }
}

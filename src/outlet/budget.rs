//! What all lanes of one bus may hold in memory together.
//!
//! Every lane may always have [`LANE_BYTES`]; beyond that it takes of what is left. Nobody waits for another: where nothing
//! is left, a lane takes less at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What every lane may hold whatever the others hold, in bytes of messages: some twenty events. A thousand lanes then hold
/// 16 MiB beyond the budget at the worst.
pub const LANE_BYTES: usize = 16 * 1024;

/// The bytes that the lanes of a bus may hold beyond [`LANE_BYTES`] each.
#[derive(Debug)]
pub struct Budget {
    left: AtomicUsize,
}

impl Budget {
    /// So many bytes.
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(bytes) })
    }

    /// Takes as much of `bytes` as is left.
    fn take(&self, bytes: usize) -> usize {
        let mut left = self.left.load(Ordering::Relaxed);
        loop {
            let taken = bytes.min(left);
            match self.left.compare_exchange_weak(left, left - taken, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return taken,
                Err(now) => left = now,
            }
        }
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What one lane has of the budget; given back when dropped.
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    pub(super) fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// How many bytes may be taken beside the `held` ones, at most `wanted`: they are this lane's from now on.
    pub(super) fn ask(&mut self, held: usize, wanted: usize) -> usize {
        let missing = held.saturating_add(wanted).saturating_sub(LANE_BYTES + self.bytes);
        self.bytes += self.budget.take(missing);
        (LANE_BYTES + self.bytes).saturating_sub(held).min(wanted)
    }

    /// Gives back what the `held` bytes do not need. The last message may end beyond what this lane has, for a message that
    /// is larger than all must go too; nobody pays for that.
    pub(super) fn keep(&mut self, held: usize) {
        let spare = self.bytes.saturating_sub(held.saturating_sub(LANE_BYTES));
        self.bytes -= spare;
        self.budget.give_back(spare);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: usize = 3 * LANE_BYTES;

    #[test]
    fn a_lane_always_has_its_own_and_the_rest_is_shared() {
        let budget = Budget::new(TOTAL);
        let (mut greedy, mut late) = (Share::of(&budget), Share::of(&budget));
        assert_eq!(greedy.ask(0, 10 * TOTAL), TOTAL + LANE_BYTES);
        assert_eq!(late.ask(0, TOTAL), LANE_BYTES, "nothing is left but its own");
        assert_eq!(late.ask(LANE_BYTES, 1), 0);
        greedy.keep(2 * LANE_BYTES);
        assert_eq!(late.ask(LANE_BYTES, TOTAL), TOTAL - LANE_BYTES);
        drop(greedy);
        assert_eq!(late.ask(TOTAL, 10), 10);
        late.keep(0);
        assert_eq!(budget.left.load(Ordering::Relaxed), TOTAL);
    }

    #[test]
    fn a_message_larger_than_all_goes_alone() {
        let budget = Budget::new(TOTAL);
        let mut share = Share::of(&budget);
        share.ask(0, TOTAL);
        share.keep(100 * TOTAL);
        assert_eq!(share.ask(100 * TOTAL, 1), 0);
        drop(share);
        assert_eq!(budget.left.load(Ordering::Relaxed), TOTAL);
    }

    #[test]
    fn many_lanes_at_once_never_have_more_than_there_is() {
        let budget = Budget::new(TOTAL);
        std::thread::scope(|scope| {
            for lane in 0..4 {
                let budget = &budget;
                scope.spawn(move || {
                    let mut share = Share::of(budget);
                    for round in 0..1000 {
                        let given = share.ask(0, TOTAL / 2 + lane * 97 + round);
                        assert!(given >= LANE_BYTES && share.bytes <= TOTAL);
                        share.keep(given / 3);
                    }
                });
            }
        });
        assert_eq!(budget.left.load(Ordering::Relaxed), TOTAL);
    }
}

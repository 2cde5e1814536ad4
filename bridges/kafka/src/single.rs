//! Whether each request holds one record: slower, but a refusal then names the right one.
//!
//! It begins when a broker refuses a request, and ends when enough records in a row were stored that way. Where no
//! record was refused alone, it was the request that was too large, and would be again: then it takes longer each time.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// After how many records in a row that were stored singly requests hold many again.
pub(crate) const FIRST_RECORDS: usize = 1_000;
/// How much longer it takes each time that no record was refused alone, and the most that it takes.
const GROWTH: usize = 8;
const MOST_RECORDS: usize = 1_000_000;

/// Shared by all outlets of a bridge.
pub(crate) struct Singly(Mutex<State>);

struct State {
    on: bool,
    /// How many records were stored since the last refusal.
    good: usize,
    /// How many that shall be.
    enough: usize,
    /// Whether a record was refused alone since it is on.
    found: bool,
}

impl Singly {
    /// Off.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State { on: false, good: 0, enough: FIRST_RECORDS, found: false }))
    }

    /// Whether it is on.
    pub(crate) fn is_on(&self) -> bool {
        self.lock().on
    }

    /// A request was refused, perhaps for another record of it. Answers whether this turns it on.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.lock();
        state.good = 0;
        if !state.on {
            state.found = false;
        }
        !std::mem::replace(&mut state.on, true)
    }

    /// A record was refused alone.
    pub(crate) fn found(&self) {
        let mut state = self.lock();
        (state.good, state.found) = (0, true);
    }

    /// So many records were stored singly.
    pub(crate) fn stored(&self, records: usize) {
        let mut state = self.lock();
        state.good = state.good.saturating_add(records);
    }

    /// Turns it off where that is due. Answers whether it did.
    pub(crate) fn end(&self) -> bool {
        let mut state = self.lock();
        if !state.on || state.good < state.enough {
            return false;
        }
        state.on = false;
        state.enough = if state.found { FIRST_RECORDS } else { (state.enough * GROWTH).min(MOST_RECORDS) };
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_after_enough_good_ones_in_a_row() {
        let singly = Singly::new();
        assert!(!singly.is_on() && !singly.end());
        assert!(singly.begin() && !singly.begin() && singly.is_on());
        singly.stored(FIRST_RECORDS - 1);
        singly.found();
        singly.stored(FIRST_RECORDS - 1);
        assert!(!singly.end(), "the row was broken");
        singly.stored(1);
        assert!(singly.end() && !singly.is_on() && !singly.end());
        assert!(singly.begin());
        singly.stored(FIRST_RECORDS);
        assert!(singly.end(), "a record was the culprit last time, so it takes no longer");
    }

    #[test]
    fn it_lasts_longer_where_no_record_was_the_culprit_and_not_forever() {
        let singly = Singly::new();
        let mut enough = FIRST_RECORDS;
        for _ in 0..10 {
            assert!(singly.begin());
            singly.stored(enough - 1);
            assert!(!singly.end(), "{enough}");
            singly.stored(1);
            assert!(singly.end(), "{enough}");
            enough = (enough * GROWTH).min(MOST_RECORDS);
        }
        assert!(singly.begin());
        singly.found();
        singly.stored(MOST_RECORDS);
        assert!(singly.end() && singly.begin());
        singly.stored(FIRST_RECORDS);
        assert!(singly.end(), "a culprit was found: as at first");
    }
}

//! What became of the records that are on their way, as the producer's thread reports it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Notify;

/// The outcomes of records, numbered from zero in the order in which they were sent. Those at the front that are stored
/// are counted and no longer kept.
#[derive(Debug)]
pub(crate) struct Reports {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// Of the records behind the first `stored`.
    outcomes: VecDeque<Option<Result<(), RDKafkaErrorCode>>>,
    stored: usize,
    reported: usize,
    failed: bool,
    /// What the waiting task wants to know.
    wanted: Wanted,
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// So many reports.
    Reports(usize),
    /// So many reports, or one that is a failure.
    ReportsOrFailure(usize),
    /// So many records that are stored, without a gap from the first on, or a failure.
    Stored(usize),
}

impl State {
    fn has(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Reports(count) => self.reported >= count,
            Wanted::ReportsOrFailure(count) => self.reported >= count || self.failed,
            Wanted::Stored(count) => self.stored >= count || self.failed,
        }
    }
}

impl Reports {
    /// For the first `count` records, none of them reported.
    pub(crate) fn new(count: usize) -> Self {
        let reports = Self {
            state: Mutex::new(State {
                outcomes: VecDeque::new(),
                stored: 0,
                reported: 0,
                failed: false,
                wanted: Wanted::Reports(usize::MAX),
            }),
            changed: Notify::new(),
        };
        reports.expect(count);
        reports
    }

    /// For `count` more.
    pub(crate) fn expect(&self, count: usize) {
        let outcomes = &mut self.lock().outcomes;
        outcomes.resize(outcomes.len() + count, None);
    }

    /// Record number `index` was stored, or was not.
    pub(crate) fn report(&self, index: usize, outcome: Result<(), RDKafkaErrorCode>) {
        let mut state = self.lock();
        let at = index.checked_sub(state.stored);
        let Some(slot) = at.and_then(|at| state.outcomes.get_mut(at)) else { return };
        if slot.replace(outcome).is_some() {
            return;
        }
        state.reported += 1;
        state.failed |= outcome.is_err();
        while state.outcomes.front() == Some(&Some(Ok(()))) {
            state.outcomes.pop_front();
            state.stored += 1;
        }
        if state.has(state.wanted) {
            // Whoever waits looks again, and says what it waits for next.
            state.wanted = Wanted::Reports(usize::MAX);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// How many are reported.
    pub(crate) fn reported(&self) -> usize {
        self.lock().reported
    }

    /// Whether one was not stored.
    pub(crate) fn failed(&self) -> bool {
        self.lock().failed
    }

    /// Waits for that. For one task at a time.
    pub(crate) async fn wait(&self, wanted: Wanted) {
        loop {
            {
                let mut state = self.lock();
                if state.has(wanted) {
                    return;
                }
                state.wanted = wanted;
            }
            self.changed.notified().await;
        }
    }

    /// How many records from the first on are stored, without a gap.
    pub(crate) fn stored(&self) -> usize {
        self.lock().stored
    }

    /// The first record that failed for a reason of its own, and the reason; not those that failed because the
    /// batch was stopped for another one.
    pub(crate) fn culprit(&self) -> Option<(usize, RDKafkaErrorCode)> {
        use RDKafkaErrorCode as Code;
        let own = |code: &RDKafkaErrorCode| {
            !matches!(
                code,
                Code::PurgeQueue
                    | Code::PurgeInflight
                    | Code::Fatal
                    | Code::GaplessGuarantee
                    | Code::InvalidDifferentRecord
                    | Code::OutOfOrderSequenceNumber
            )
        };
        let state = self.lock();
        let mut failures = (state.stored..).zip(&state.outcomes);
        failures.find_map(|(index, outcome)| match outcome {
            Some(Err(code)) if own(code) => Some((index, *code)),
            _ => None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_ends_at_the_first_gap_and_the_culprit_is_not_a_bystander() {
        let reports = Reports::new(5);
        reports.report(0, Ok(()));
        reports.report(2, Ok(()));
        reports.report(1, Err(RDKafkaErrorCode::PurgeInflight));
        reports.report(3, Err(RDKafkaErrorCode::InvalidRecord));
        reports.report(9, Ok(()));
        assert_eq!((reports.stored(), reports.reported()), (1, 4));
        assert_eq!(reports.culprit(), Some((3, RDKafkaErrorCode::InvalidRecord)));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_last_report_or_with_a_failure() {
        let reports = std::sync::Arc::new(Reports::new(3));
        let reporter = reports.clone();
        let task = tokio::spawn(async move {
            for index in 0..3 {
                tokio::task::yield_now().await;
                reporter.report(index, Ok(()));
            }
        });
        reports.wait(Wanted::ReportsOrFailure(3)).await;
        assert!(!reports.failed());
        task.await.expect("reported");
        let reports = Reports::new(2);
        reports.report(1, Err(RDKafkaErrorCode::InvalidRecord));
        reports.wait(Wanted::ReportsOrFailure(2)).await;
        assert!(reports.failed());
    }

    #[tokio::test]
    async fn what_is_stored_in_front_is_counted_and_not_kept() {
        let reports = Reports::new(2);
        for index in [1, 0] {
            reports.report(index, Ok(()));
        }
        reports.expect(3);
        for index in [2, 4, 4, 0] {
            reports.report(index, Ok(()));
        }
        reports.wait(Wanted::Stored(3)).await;
        assert_eq!((reports.stored(), reports.reported(), reports.lock().outcomes.len()), (3, 4, 2));
        reports.report(3, Err(RDKafkaErrorCode::InvalidRecord));
        reports.wait(Wanted::Stored(5)).await;
        assert_eq!((reports.stored(), reports.culprit()), (3, Some((3, RDKafkaErrorCode::InvalidRecord))));
    }
}

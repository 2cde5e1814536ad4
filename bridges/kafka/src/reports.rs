//! What became of the records of one batch, as the producer's thread reports it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Notify;

/// The outcomes of a batch, by position.
#[derive(Debug)]
pub(crate) struct Reports {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    outcomes: Vec<Option<Result<(), RDKafkaErrorCode>>>,
    reported: usize,
    failed: bool,
    /// At how many reports the waiting task wants to know.
    wanted: usize,
}

impl Reports {
    /// For `count` records, none of them reported.
    pub(crate) fn new(count: usize) -> Self {
        let state = State { outcomes: vec![None; count], reported: 0, failed: false, wanted: usize::MAX };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Record number `index` was stored, or was not.
    pub(crate) fn report(&self, index: usize, outcome: Result<(), RDKafkaErrorCode>) {
        let mut state = self.lock();
        let Some(slot) = state.outcomes.get_mut(index) else { return };
        if slot.replace(outcome).is_some() {
            return;
        }
        state.reported += 1;
        let first_failure = outcome.is_err() && !state.failed;
        state.failed |= outcome.is_err();
        if first_failure || state.reported >= state.wanted {
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

    /// Waits for `count` reports, or with `or_failure` for the first failure among fewer. For one task at a time.
    pub(crate) async fn wait(&self, count: usize, or_failure: bool) {
        loop {
            {
                let mut state = self.lock();
                if state.reported >= count || (or_failure && state.failed) {
                    return;
                }
                state.wanted = count;
            }
            self.changed.notified().await;
        }
    }

    /// How many records from the start are stored, without a gap.
    pub(crate) fn stored_prefix(&self) -> usize {
        let state = self.lock();
        state.outcomes.iter().take_while(|outcome| matches!(outcome, Some(Ok(())))).count()
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
        let mut failures = state.outcomes.iter().enumerate();
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
        assert_eq!((reports.stored_prefix(), reports.reported()), (1, 4));
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
        reports.wait(3, true).await;
        assert!(!reports.failed());
        task.await.expect("reported");
        let reports = Reports::new(2);
        reports.report(1, Err(RDKafkaErrorCode::InvalidRecord));
        reports.wait(2, true).await;
        assert!(reports.failed());
    }
}

//! Commits, on a thread of their own.
//!
//! A commit is answered when the broker answers, however long that takes: with a broker that hangs, for minutes. The
//! member must go on polling meanwhile, or it hands out nothing that it has and the group expels it. Asynchronous
//! commits do not serve: librdkafka tells how they went only where `offset_commit_cb` is set, and rdkafka does not set it.
//!
//! One commit at a time, so that an earlier position never comes after a later one.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use amibus_contract::{Fault, FaultKind};
use rdkafka::{
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{group::Group, member::Context};

/// What the committer is asked for.
#[derive(Default)]
pub(crate) struct Orders {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether what is done is to be committed.
    wanted: bool,
    /// Partitions that go: theirs at once, however the commit before went.
    going: Vec<i32>,
    /// How often somebody waits for that, and how many of them were served.
    asked: u64,
    served: u64,
    stop: bool,
}

impl Orders {
    /// Has what is done committed, without waiting for it.
    pub(crate) fn wake(&self) {
        self.lock().wanted = true;
        self.changed.notify_all();
    }

    /// Has what is done in these partitions committed, and waits for that. Answers whether it was tried in time.
    pub(crate) fn before_they_go(&self, partitions: &[i32], limit: Duration) -> bool {
        let mut state = self.lock();
        state.going.extend_from_slice(partitions);
        state.asked += 1;
        let mine = state.asked;
        self.changed.notify_all();
        let waited =
            self.changed.wait_timeout_while(state, limit, |state| state.served < mine && !state.stop);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.served >= mine
    }

    /// Ends the committer, after a last commit.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next thing to do: the partitions that go, and whether it is the last.
    fn next(&self) -> (Vec<i32>, u64, bool) {
        let idle = |state: &mut State| !state.wanted && state.served == state.asked && !state.stop;
        let waited = self.changed.wait_while(self.lock(), idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.wanted = false;
        (std::mem::take(&mut state.going), state.asked, state.stop)
    }

    fn served(&self, asked: u64) {
        self.lock().served = asked;
        self.changed.notify_all();
    }
}

/// Starts the thread. It ends after [`Orders::stop`].
pub(crate) fn start(
    orders: Arc<Orders>,
    group: Arc<Group>,
    consumer: Arc<BaseConsumer<Context>>,
    topic: String,
) -> Result<JoinHandle<()>, Fault> {
    let run = move || {
        loop {
            let (going, asked, last) = orders.next();
            if !going.is_empty() {
                commit(&consumer, &group, &topic, Some(&going));
            }
            orders.served(asked);
            commit(&consumer, &group, &topic, None);
            if last {
                break;
            }
        }
    };
    let thread = std::thread::Builder::new().name("kafka commits".into()).spawn(run);
    thread.map_err(|error| Fault::new(FaultKind::Full, format!("no thread for commits: {error}")))
}

/// Commits what is done, in these partitions or in all: each once. What is done meanwhile has its turn later, or
/// commands that end one after another would keep other partitions from their commit.
fn commit(consumer: &BaseConsumer<Context>, group: &Group, topic: &str, of: Option<&[i32]>) {
    for partition in group.dirty(of) {
        // A member that was expelled does not commit: of a group that is empty by now a broker takes that from anybody.
        if consumer.assignment_lost() {
            return;
        }
        let Some(commit) = group.commit(topic, partition) else { continue };
        let result = consumer.commit(&commit.offsets, CommitMode::Sync).and_then(|()| {
            match consumer.assignment_lost() {
                true => Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::AssignmentLost)),
                false => Ok(()),
            }
        });
        group.committed(&result, &commit);
        match result.as_ref().map_err(KafkaError::rdkafka_error_code) {
            Ok(()) => {}
            Err(Some(RDKafkaErrorCode::OffsetMetadataTooLarge)) => {
                tracing::error!(
                    partition,
                    "the broker keeps too little beside a position: nothing of this partition is begun until its \
                     offset.metadata.max.bytes is 4096"
                );
            }
            Err(_) => return tracing::debug!(error = ?result.err(), "a commit failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn who_waits_for_a_commit_that_hangs_goes_on_after_its_limit() {
        let orders = Orders::default();
        let begun = Instant::now();
        assert!(!orders.before_they_go(&[3], Duration::from_millis(30)), "nobody serves");
        assert!(begun.elapsed() < Duration::from_secs(5));
        let (going, asked, last) = orders.next();
        assert_eq!((going, last), (vec![3], false));
        orders.served(asked);
        orders.wake();
        assert_eq!(orders.next().0, Vec::<i32>::new());
        orders.stop();
        assert!(orders.next().2);
    }

    #[test]
    fn who_waits_is_let_go_when_it_was_served() {
        let orders = Arc::new(Orders::default());
        let server = Arc::clone(&orders);
        let thread = std::thread::spawn(move || {
            let (going, asked, _) = server.next();
            server.served(asked);
            going
        });
        assert!(orders.before_they_go(&[1, 2], Duration::from_secs(30)));
        assert_eq!(thread.join().expect("served"), [1, 2]);
    }
}

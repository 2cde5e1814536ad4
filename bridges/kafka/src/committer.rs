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
    time::{Duration, Instant},
};

use amibus_contract::{Fault, FaultKind};
use rdkafka::{
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{group::Group, member::Context};

/// How long after a failure what is done in partitions that go is committed again.
const GOING_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What became of what was done in partitions that go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// All of it is committed.
    Kept,
    /// Not all of it is, though it was tried again and again; nothing is on its way.
    Failed,
    /// A commit has not ended.
    Hangs,
}

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
    /// How long that may be tried.
    until: Option<Instant>,
    /// How often somebody waits for that, and how many of them were served.
    asked: u64,
    served: u64,
    /// Whether all was committed of those served last.
    kept: bool,
    stop: bool,
}

/// The next thing to do.
struct Order {
    going: Vec<i32>,
    until: Option<Instant>,
    asked: u64,
    /// Whether it is the last.
    last: bool,
}

impl Orders {
    /// Has what is done committed, without waiting for it.
    pub(crate) fn wake(&self) {
        self.lock().wanted = true;
        self.changed.notify_all();
    }

    /// Has what is done in these partitions committed, and waits for that.
    pub(crate) fn before_they_go(&self, partitions: &[i32], limit: Duration) -> Last {
        let mut state = self.lock();
        state.going.extend_from_slice(partitions);
        state.until = Some(Instant::now() + limit);
        state.asked += 1;
        let mine = state.asked;
        self.changed.notify_all();
        let waited =
            self.changed.wait_timeout_while(state, limit, |state| state.served < mine && !state.stop);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match (state.served >= mine, state.kept) {
            (true, true) => Last::Kept,
            (true, false) => Last::Failed,
            (false, _) => Last::Hangs,
        }
    }

    /// Ends the committer, after a last commit.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Order {
        let idle = |state: &mut State| !state.wanted && state.served == state.asked && !state.stop;
        let waited = self.changed.wait_while(self.lock(), idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.wanted = false;
        let (going, until) = (std::mem::take(&mut state.going), state.until);
        Order { going, until, asked: state.asked, last: state.stop }
    }

    fn served(&self, asked: u64, kept: bool) {
        let mut state = self.lock();
        (state.served, state.kept) = (asked, kept);
        drop(state);
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
    let committer = Committer { group, consumer, topic };
    let run = move || {
        loop {
            let Order { going, until, asked, last } = orders.next();
            let kept = going.is_empty() || until.is_some_and(|until| committer.going(&going, until));
            orders.served(asked, kept);
            committer.commit();
            if last {
                break;
            }
        }
    };
    let thread = std::thread::Builder::new().name("kafka commits".into()).spawn(run);
    thread.map_err(|error| Fault::new(FaultKind::Full, format!("no thread for commits: {error}")))
}

struct Committer {
    group: Arc<Group>,
    consumer: Arc<BaseConsumer<Context>>,
    topic: String,
}

/// How one commit went.
enum Outcome {
    /// It was made, or there was nothing to commit.
    Made,
    Failed,
    /// It fails as long as it says the same.
    Refused,
    /// The partitions are lost. A member that was expelled does not commit: of a group that is empty by now a broker takes
    /// that from anybody.
    Lost,
}

impl Committer {
    /// Commits what is done: each partition once, up to the first failure, since with a broker that does not answer each
    /// takes its time, and partitions that go would wait for all of them. What is done meanwhile has its turn later.
    fn commit(&self) {
        for partition in self.group.dirty(None) {
            if matches!(self.one(partition), Outcome::Failed | Outcome::Lost) {
                return;
            }
        }
    }

    /// Commits what is done in partitions that go, and again what failed or was done meanwhile. Answers whether nothing
    /// is left.
    fn going(&self, partitions: &[i32], until: Instant) -> bool {
        loop {
            let (mut again, mut failed) = (false, false);
            for partition in self.group.dirty(Some(partitions)) {
                match self.one(partition) {
                    Outcome::Made => again = true,
                    Outcome::Failed => (again, failed) = (true, true),
                    Outcome::Refused => {}
                    Outcome::Lost => return false,
                }
                if Instant::now() >= until {
                    return self.group.dirty(Some(partitions)).is_empty();
                }
            }
            if !again {
                return self.group.dirty(Some(partitions)).is_empty();
            }
            if failed {
                std::thread::sleep(GOING_AGAIN_AFTER);
            }
        }
    }

    fn one(&self, partition: i32) -> Outcome {
        if self.consumer.assignment_lost() {
            return Outcome::Lost;
        }
        let Some(commit) = self.group.commit(&self.topic, partition) else { return Outcome::Made };
        let result = self.consumer.commit(&commit.offsets, CommitMode::Sync).and_then(|()| {
            match self.consumer.assignment_lost() {
                true => Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::AssignmentLost)),
                false => Ok(()),
            }
        });
        self.group.committed(&result, &commit);
        match result.as_ref().map_err(KafkaError::rdkafka_error_code) {
            Ok(()) => Outcome::Made,
            Err(Some(RDKafkaErrorCode::OffsetMetadataTooLarge)) => {
                tracing::error!(
                    partition,
                    "the broker keeps too little beside a position: nothing of this partition is begun until its \
                     offset.metadata.max.bytes is 4096"
                );
                Outcome::Refused
            }
            Err(_) => {
                tracing::debug!(partition, error = ?result.err(), "a commit failed");
                Outcome::Failed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_commit_that_hangs_goes_on_after_its_limit() {
        let orders = Orders::default();
        let begun = Instant::now();
        assert_eq!(orders.before_they_go(&[3], Duration::from_millis(30)), Last::Hangs, "nobody serves");
        assert!(begun.elapsed() < Duration::from_secs(5));
        let order = orders.next();
        assert_eq!((order.going, order.last), (vec![3], false));
        assert!(order.until.is_some_and(|until| until <= Instant::now()), "its time is over");
        orders.served(order.asked, true);
        orders.wake();
        assert_eq!(orders.next().going, Vec::<i32>::new());
        orders.stop();
        assert!(orders.next().last);
    }

    #[test]
    fn who_waits_is_let_go_when_it_was_served_and_told_how_it_went() {
        for (kept, last) in [(true, Last::Kept), (false, Last::Failed)] {
            let orders = Arc::new(Orders::default());
            let server = Arc::clone(&orders);
            let thread = std::thread::spawn(move || {
                let order = server.next();
                server.served(order.asked, kept);
                order.going
            });
            assert_eq!(orders.before_they_go(&[1, 2], Duration::from_secs(30)), last);
            assert_eq!(thread.join().expect("served"), [1, 2]);
        }
    }
}

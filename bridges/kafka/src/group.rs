//! The partitions that this process holds as a member of the command group, and what is acknowledged in them.
//!
//! Shared between the member's thread, which reads, the committer's, and the handles of the commands. An acknowledge is
//! noted here; the committer commits what is noted, one commit at a time, in order. A partition that is taken away
//! takes its notes with it: handles of that time find another term, and do nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use amibus_contract::{Decision, Fault, FaultKind};
use rdkafka::{Offset, TopicPartitionList, error::KafkaResult, statistics::Partition};
use tokio::sync::{oneshot, watch};

use crate::{
    begins::Begins,
    tracker::{Coming, Tracker},
};

/// How long after a failed commit the next one follows.
const COMMIT_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Where the answer to an acknowledge goes.
type Waiter = oneshot::Sender<Result<(), Fault>>;

/// The held partitions of the command topic.
#[derive(Default)]
pub(crate) struct Group(Mutex<State>);

#[derive(Default)]
struct State {
    /// Counts assignments, so that a handle knows whether its partition was away meanwhile.
    terms: u64,
    held: HashMap<i32, Held>,
    /// When a commit failed last.
    failed: Option<Instant>,
    /// How many records lie behind what was handed out, by partition, as librdkafka saw it last.
    behind: HashMap<i32, u64>,
}

struct Held {
    term: u64,
    /// The term that it was assigned in: a commit of an earlier time says nothing about this one.
    born: u64,
    /// `None` until the committed position has been read.
    tracker: Option<Tracker>,
    /// Whether something is done that no commit has told yet.
    dirty: bool,
    waiting: Vec<Waiter>,
    /// Waiters whose acknowledges are in the commit on its way.
    told: Vec<Waiter>,
    /// Commands that wait to be begun.
    begins: Begins,
    /// Whether a commit is on its way.
    flying: bool,
    /// When commands were given back first.
    given_back: Option<Instant>,
    /// Whether the partition goes: its handles look.
    going: watch::Sender<bool>,
    /// The first record that came and could not be looked at: reading goes back to it.
    unread: Option<i64>,
}

/// What is to be committed of one partition.
pub(crate) struct Commit {
    pub(crate) offsets: TopicPartitionList,
    partition: i32,
    born: u64,
}

/// One command in somebody's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Whether somebody may have run it before it came.
    pub(crate) begun: bool,
    term: u64,
}

impl Group {
    /// These partitions are ours from now on.
    pub(crate) fn assigned(&self, partitions: impl Iterator<Item = i32>) {
        let mut state = self.lock();
        for partition in partitions {
            state.terms += 1;
            let term = state.terms;
            state.held.insert(partition, Held::new(term));
        }
    }

    /// These partitions go: what is not yet carried out of them must not be begun any more.
    pub(crate) fn going(&self, partitions: &[i32]) {
        let mut state = self.lock();
        for partition in partitions {
            if let Some(held) = state.held.get_mut(partition) {
                held.going.send_replace(true);
                held.dirty |= held.begins.refuse(&taken_away(*partition), held.tracker.as_mut());
            }
        }
    }

    /// How many commands of these partitions are in somebody's hands.
    pub(crate) fn open(&self, partitions: &[i32]) -> usize {
        let state = self.lock();
        let held = partitions.iter().filter_map(|partition| state.held.get(partition));
        held.filter_map(|held| held.tracker.as_ref()).map(Tracker::open).sum()
    }

    /// Tells when the partition of a command goes; it has gone where that cannot be waited for.
    pub(crate) fn withdrawal(&self, claim: &Claim) -> Option<watch::Receiver<bool>> {
        let state = self.lock();
        let held = state.held.get(&claim.partition).filter(|held| held.term == claim.term);
        held.map(|held| held.going.subscribe())
    }

    /// This partition is not ours any more.
    pub(crate) fn revoked(&self, partition: i32) {
        let mut gone = self.lock().held.remove(&partition);
        if let Some(held) = &mut gone {
            held.begins.refuse(&taken_away(partition), None);
        }
        for waiter in gone.into_iter().flat_map(|held| held.waiting.into_iter().chain(held.told)) {
            let _ = waiter.send(Err(taken_away(partition)));
        }
    }

    /// None is ours any more.
    pub(crate) fn end(&self) {
        let partitions: Vec<i32> = self.lock().held.keys().copied().collect();
        for partition in partitions {
            self.revoked(partition);
        }
    }

    /// Whether there is a partition that is ours.
    pub(crate) fn holds_any(&self) -> bool {
        !self.lock().held.is_empty()
    }

    /// Whether the committed position of a partition is yet to be read.
    pub(crate) fn is_fresh(&self, partition: i32) -> bool {
        self.lock().held.get(&partition).is_none_or(|held| held.tracker.is_none())
    }

    /// The committed position of a partition, and the metadata beside it.
    pub(crate) fn resume(&self, partition: i32, position: Option<i64>, metadata: &str) {
        if let Some(held) = self.lock().held.get_mut(&partition) {
            held.tracker = Some(Tracker::resume(position, metadata));
        }
    }

    /// Whether reading has yet to go back to records that came before that.
    pub(crate) fn is_unread(&self, partition: i32) -> bool {
        self.lock().held.get(&partition).is_some_and(|held| held.unread.is_some())
    }

    /// A record came before the committed position of its partition could be read. It is read again from there on.
    pub(crate) fn not_read(&self, partition: i32, offset: i64) {
        if let Some(held) = self.lock().held.get_mut(&partition) {
            held.unread = Some(held.unread.map_or(offset, |first| first.min(offset)));
            held.given_back.get_or_insert_with(Instant::now);
        }
    }

    /// A record came; a claim when it is to be handed out.
    pub(crate) fn comes(&self, partition: i32, offset: i64) -> Option<Claim> {
        let mut state = self.lock();
        let State { terms, held, .. } = &mut *state;
        let held = held.get_mut(&partition)?;
        match held.tracker.get_or_insert_default().comes(offset) {
            Coming::Known => return None,
            Coming::New => {}
            Coming::Reset => {
                tracing::warn!(
                    partition,
                    offset,
                    "the command topic starts anew: what was known of it is void"
                );
                *terms += 1;
                held.term = *terms;
            }
        }
        let begun = held.tracker.as_ref().is_some_and(|tracker| tracker.is_begun(offset));
        Some(Claim { partition, offset, begun, term: held.term })
    }

    /// A command is about to be run: the answer comes when that is committed.
    pub(crate) fn begin(&self, claim: Claim) -> oneshot::Receiver<Result<(), Fault>> {
        let mut state = self.lock();
        let held = state.held.get_mut(&claim.partition);
        match held.filter(|held| held.term == claim.term && !*held.going.borrow() && !claim.begun) {
            Some(held) => {
                held.dirty = true;
                held.begins.add(claim.offset)
            }
            None => {
                let (waiter, answer) = oneshot::channel();
                let _ = waiter.send(Err(taken_away(claim.partition)));
                answer
            }
        }
    }

    /// A command that was begun was not run: the next commit says so.
    pub(crate) fn take_back(&self, claim: Claim) {
        let mut state = self.lock();
        let held =
            state.held.get_mut(&claim.partition).filter(|held| held.term == claim.term && !claim.begun);
        if let Some(held) = held {
            held.dirty |= held.tracker.get_or_insert_default().unbegin(claim.offset);
        }
    }

    /// A command is done: the answer comes when that is committed.
    pub(crate) fn acknowledge(&self, claim: Claim) -> oneshot::Receiver<Result<(), Fault>> {
        let (waiter, answer) = oneshot::channel();
        let mut state = self.lock();
        match state.held.get_mut(&claim.partition).filter(|held| held.term == claim.term) {
            Some(held) => {
                if held.tracker.get_or_insert_default().finish(claim.offset) {
                    held.dirty = true;
                    held.waiting.push(waiter);
                } else {
                    let _ = waiter.send(Ok(()));
                }
            }
            None => drop(waiter.send(Err(taken_away(claim.partition)))),
        }
        answer
    }

    /// A command was dropped undone.
    pub(crate) fn give_back(&self, claim: Claim) {
        let mut state = self.lock();
        if let Some(held) = state.held.get_mut(&claim.partition).filter(|held| held.term == claim.term) {
            held.tracker.get_or_insert_default().give_back(claim.offset);
            held.given_back.get_or_insert_with(Instant::now);
        }
    }

    /// Partitions whose commands were given back before `since`, and where to read them again from. How that
    /// went is for [`Group::sought`].
    pub(crate) fn rewinds(&self, since: Instant) -> Vec<(i32, i64)> {
        let mut state = self.lock();
        let due = |held: &Held| held.given_back.is_some_and(|at| at <= since);
        let places = state.held.iter_mut().filter(|(_, held)| due(held)).filter_map(|(partition, held)| {
            held.given_back = None;
            let place = held.tracker.as_ref().and_then(Tracker::place);
            Some((*partition, held.unread.or(place)?))
        });
        places.collect()
    }

    /// Whether a partition is read again from there on. Where that failed, it is due again later.
    pub(crate) fn sought(&self, partition: i32, place: i64, done: bool) {
        let mut state = self.lock();
        let Some(held) = state.held.get_mut(&partition) else { return };
        if held.unread.is_some() {
            match done {
                true => held.unread = None,
                false => held.given_back = Some(Instant::now()),
            }
            return;
        }
        let Some(tracker) = &mut held.tracker else { return };
        if done {
            tracker.sought(place);
        } else {
            tracker.not_sought();
            held.given_back = Some(Instant::now());
        }
    }

    /// The partitions that have something to commit, of all or of those given: none for a moment after a commit that
    /// failed, unless they are given.
    pub(crate) fn dirty(&self, of: Option<&[i32]>) -> Vec<i32> {
        let state = self.lock();
        if of.is_none() && state.failed.is_some_and(|at| at.elapsed() < COMMIT_AGAIN_AFTER) {
            return Vec::new();
        }
        let wanted = |partition: &i32| of.is_none_or(|of| of.contains(partition));
        let dirty = state.held.iter().filter(|(partition, held)| held.dirty && wanted(partition));
        dirty.map(|(partition, _)| *partition).collect()
    }

    /// Whether something that is done in these partitions is not known to be committed.
    pub(crate) fn owes(&self, partitions: &[i32]) -> bool {
        let state = self.lock();
        let mut held = partitions.iter().filter_map(|partition| state.held.get(partition));
        held.any(|held| held.dirty || held.flying)
    }

    /// What is to be committed of this partition, if there is something. A partition at a time, since Kafka refuses each
    /// for itself and librdkafka tells one result.
    pub(crate) fn commit(&self, topic: &str, partition: i32) -> Option<Commit> {
        let mut state = self.lock();
        let held = state.held.get_mut(&partition).filter(|held| held.dirty)?;
        let born = held.born;
        let offsets = held.write(topic, partition)?;
        held.flying = true;
        Some(Commit { offsets, partition, born })
    }

    /// How a commit went. It may have taken long: where its partition went meanwhile, nobody waits any more.
    pub(crate) fn committed(&self, result: &KafkaResult<()>, commit: &Commit) {
        let mut state = self.lock();
        let State { held, failed, .. } = &mut *state;
        *failed = result.is_err().then(Instant::now);
        let held = held.get_mut(&commit.partition).filter(|held| held.born == commit.born);
        let Some(held) = held else { return };
        held.flying = false;
        if let Some(tracker) = &mut held.tracker {
            held.dirty |= held.begins.committed(result.is_ok(), tracker);
        }
        let told = std::mem::take(&mut held.told);
        if result.is_ok() {
            for waiter in told {
                let _ = waiter.send(Ok(()));
            }
        } else {
            // Said again with the next commit; the waiters have patience of their own.
            held.dirty = true;
            held.waiting.extend(told);
        }
    }

    /// Whether acknowledges wait for a commit.
    pub(crate) fn is_busy(&self) -> bool {
        self.lock().held.values().any(|held| held.dirty || held.span() > 0)
    }

    /// What librdkafka says of the topic's partitions.
    pub(crate) fn depth(&self, partitions: Option<&HashMap<i32, Partition>>) {
        let behind = |(number, one): (&i32, &Partition)| {
            // Negative where it does not know: nothing was read yet, or there is no committed position.
            let from = if one.app_offset >= 0 { one.app_offset } else { one.committed_offset };
            let behind = one.hi_offset.checked_sub(from).filter(|_| one.hi_offset >= 0 && from >= 0)?;
            Some((*number, u64::try_from(behind).unwrap_or(0)))
        };
        self.lock().behind = partitions.into_iter().flatten().filter_map(behind).collect();
    }

    /// How many records of the held partitions were handed to nobody yet.
    pub(crate) fn waiting(&self) -> u64 {
        let state = self.lock();
        state
            .behind
            .iter()
            .filter(|(partition, _)| state.held.contains_key(partition))
            .map(|(_, count)| count)
            .sum()
    }

    /// The partitions of ours whose stretch from the first command that is not done to the last that came is this long, or
    /// all of ours; and the others.
    pub(crate) fn full(&self, span: i64, all: bool) -> (BTreeSet<i32>, BTreeSet<i32>) {
        let state = self.lock();
        let is_full = |held: &Held| all || held.span() >= span;
        let of = |full: bool| {
            let some = state.held.iter().filter(|(_, held)| is_full(held) == full);
            some.map(|(partition, _)| *partition).collect()
        };
        (of(true), of(false))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn new(term: u64) -> Self {
        Self {
            term,
            born: term,
            tracker: None,
            dirty: false,
            waiting: Vec::new(),
            told: Vec::new(),
            begins: Begins::default(),
            going: watch::Sender::new(false),
            flying: false,
            given_back: None,
            unread: None,
        }
    }

    /// Nought while the partition is read again for commands that were given back: that must not be held up. While it
    /// waits for that, nothing more needs to come.
    fn span(&self) -> i64 {
        self.tracker.as_ref().filter(|tracker| !tracker.is_rewinding()).map_or(0, Tracker::span)
    }

    /// What there is to commit, as on its way.
    fn write(&mut self, topic: &str, partition: i32) -> Option<TopicPartitionList> {
        self.dirty = false;
        let tracker = self.tracker.as_mut()?;
        self.begins.write(tracker);
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(topic, partition);
        element.set_offset(Offset::Offset(tracker.position())).ok()?;
        element.set_metadata(tracker.metadata());
        self.waiting.retain(|waiter| !waiter.is_closed());
        self.told.append(&mut self.waiting);
        Some(list)
    }
}

fn taken_away(partition: i32) -> Fault {
    let message = format!(
        "partition {partition} went to another member of the group before this command was acknowledged: it is \
         delivered there again"
    );
    Fault::new(FaultKind::Refused, message).deciding(Decision::Skip)
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;

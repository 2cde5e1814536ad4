//! The member of the consumer group: a thread of its own that reads and takes part in rebalances.
//!
//! A thread, because librdkafka's consumer wants to be asked again and again (or the group expels the member), calls
//! back from within that question, and blocks in places, for at most some seconds each. While nobody asks for requests, its partitions are paused
//! and it goes on asking.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use amibus_contract::{Decision, Fault, FaultKind, Request};
use rdkafka::{
    ClientContext, Offset, Statistics, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, Message},
};
use tokio::sync::mpsc;

use crate::{
    clients, command,
    committer::{self, Last, Orders},
    faults,
    front::unusable,
    group::Group,
    health::Listener,
    hub::Hub,
    marks,
};

/// How many requests wait to be asked for.
const AHEAD_REQUESTS: usize = 16;
/// How far the last command that came may be ahead of the first that is not done, in offsets.
const MAX_SPAN: i64 = marks::WINDOW;
/// How long one question for records lasts while commands are in work, and while none are. At the end of each, rdkafka
/// spins for up to a millisecond.
const ASK_BUSY: Duration = Duration::from_millis(10);
const ASK_IDLE: Duration = Duration::from_millis(500);
/// How long after it was given back a command comes again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long commands in work may hold up that their partition goes, and how often that is looked at.
const DONE_BEFORE_GOING: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long what is done in partitions that go may take to be committed. Whoever gets them waits meanwhile.
const COMMIT_BEFORE_GOING: Duration = Duration::from_secs(3);
/// How long leaving the group may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// How long the committed positions may take to be read.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// How often the same trouble is told to who asks for requests.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// How often reading is resumed though it should be going on.
const RESUME_EVERY: Duration = Duration::from_secs(1);

/// What [`crate::inlet::KafkaInlet`] hands on.
pub(crate) type Coming = Result<Request, Fault>;

/// What is not read at the moment.
#[derive(Default)]
struct Paused {
    /// There is no room for any record.
    all: bool,
    partitions: BTreeSet<i32>,
}

/// The callbacks of the member.
pub(crate) struct Context {
    listener: Listener,
    group: Arc<Group>,
    orders: Arc<Orders>,
    topic: String,
    paused: Mutex<Paused>,
    leaving: AtomicBool,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.listener.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.group.depth(statistics.topics.get(&self.topic).map(|topic| &topic.partitions));
        self.listener.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(list) = rebalance else { return };
        let partitions = partitions(list);
        tracing::info!(?partitions, "partitions of the command topic are taken away");
        self.group.going(&partitions);
        let lost = consumer.assignment_lost();
        if !lost && !self.leaving.load(Ordering::Acquire) {
            self.wait_for_hands(&partitions);
        }
        if !lost && self.group.owes(&partitions) {
            let last = self.orders.before_they_go(&partitions, COMMIT_BEFORE_GOING);
            if last != Last::Kept {
                // One that hangs is not made in another's time: librdkafka joins anew only when none is on its way
                // (rd_kafka_assignment_serve, wait_commit_cnt), and nobody else has them before, unless the group
                // expels the member. Then the broker refuses it.
                tracing::warn!(
                    ?partitions,
                    ?last,
                    "not all that was done could be committed before they went: it comes again there, and what was not \
                     sent after all may still count as begun"
                );
            }
        }
        for partition in partitions {
            self.group.revoked(partition);
            self.paused().partitions.remove(&partition);
        }
        if lost && self.orders.before_they_go(&[], COMMIT_BEFORE_GOING) == Last::Hangs {
            // Who commits asks librdkafka whether they are lost, which it forgets after this.
            tracing::warn!("a commit of before the partitions were lost has not ended yet");
        }
        // librdkafka keeps a partition paused until it is resumed, also while it is somebody else's.
        if let Err(error) = consumer.resume(list) {
            tracing::debug!(%error, "partitions that go could not be resumed");
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(list) = rebalance else { return };
        tracing::info!(partitions = ?partitions(list), "partitions of the command topic are ours");
        self.group.assigned(partitions(list).into_iter());
        let mut paused = self.paused();
        if paused.all {
            match consumer.pause(list) {
                Ok(()) => paused.partitions.extend(partitions(list)),
                Err(error) => tracing::debug!(%error, "new partitions could not be paused"),
            }
        }
    }
}

impl Context {
    fn paused(&self) -> MutexGuard<'_, Paused> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the commands of partitions that go are given back or done, which those in the middle of being carried
    /// out may soon be: the next member would run them too.
    fn wait_for_hands(&self, partitions: &[i32]) {
        let begun = Instant::now();
        while self.group.open(partitions) > 0 && begun.elapsed() < DONE_BEFORE_GOING {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|element| element.partition()).collect()
}

/// The member, on its thread.
struct Member {
    hub: Arc<Hub>,
    group: Arc<Group>,
    consumer: Arc<BaseConsumer<Context>>,
    committer: std::thread::JoinHandle<()>,
    topic: String,
    /// Requests that found no room, oldest first: one, and one more a rebalance at the worst.
    held: VecDeque<Coming>,
    out: mpsc::Sender<Coming>,
    told: Option<Instant>,
    resumed: Instant,
    why: Why,
}

/// Why the member ended by itself, for who asks for requests: there may be no room for that among them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Why(Arc<Mutex<Option<Fault>>>);

impl Why {
    pub(crate) fn take(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, fault: Fault) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.deciding(Decision::Stop));
    }
}

/// The end of the member's thread, whatever ended it: nobody waits for it any more, and nothing holds the consumer.
struct End {
    group: Arc<Group>,
    orders: Arc<Orders>,
    why: Why,
}

impl Drop for End {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.why.set(Fault::new(FaultKind::Closed, "the command consumer's thread has panicked"));
        }
        self.group.end();
        self.orders.stop();
    }
}

/// Starts the thread. It ends when `stop` is set, or when the receiver is gone.
pub(crate) fn start(
    hub: &Arc<Hub>,
    topic: &str,
    stop: Arc<AtomicBool>,
    group: Arc<Group>,
) -> Result<(mpsc::Receiver<Coming>, Why, std::thread::JoinHandle<()>), Fault> {
    let listener = Listener(hub.health.clone());
    let leaving = AtomicBool::new(false);
    let orders = Arc::<Orders>::default();
    let context = Context {
        listener,
        group: group.clone(),
        orders: orders.clone(),
        topic: topic.to_owned(),
        paused: Mutex::default(),
        leaving,
    };
    let consumer: BaseConsumer<Context> =
        BaseConsumer::from_config_and_context(&clients::member(&hub.settings), context)
            .map_err(|error| unusable(&error))?;
    consumer.subscribe(&[topic]).map_err(|error| faults::of(&error, topic))?;
    let consumer = Arc::new(consumer);
    let committer = committer::start(orders.clone(), group.clone(), consumer.clone(), topic.to_owned())?;
    let (out, requests) = mpsc::channel(AHEAD_REQUESTS);
    let held = VecDeque::new();
    let (hub, topic, told, resumed) = (hub.clone(), topic.to_owned(), None, Instant::now());
    let why = Why::default();
    let end = End { group: group.clone(), orders, why: why.clone() };
    let mut member =
        Member { hub, group, consumer, committer, topic, held, out, told, resumed, why: why.clone() };
    let run = move || {
        let _end = end;
        member.run(&stop);
        member.leave();
    };
    let thread = std::thread::Builder::new().name("kafka commands".into()).spawn(run);
    let thread = thread
        .map_err(|error| Fault::new(FaultKind::Full, format!("no thread for the consumer: {error}")))?;
    Ok((requests, why, thread))
}

impl Member {
    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) && !self.out.is_closed() {
            self.hand_out();
            if !self.group.dirty(None).is_empty() {
                self.consumer.context().orders.wake();
            }
            self.read_again();
            let wait = if self.group.is_busy() || !self.held.is_empty() { ASK_BUSY } else { ASK_IDLE };
            if self.read(wait) {
                return;
            }
            if self.committer.is_finished() {
                return self.why.set(Fault::new(FaultKind::Closed, "the thread that commits has ended"));
            }
        }
    }

    /// Gives the partitions back, with what is done committed; records that still come are nobody's. Then the committer
    /// ends, and with it and the member the consumer.
    fn leave(self) {
        tracing::debug!("the member leaves its group");
        self.consumer.context().leaving.store(true, Ordering::Release);
        let orders = self.consumer.context().orders.clone();
        self.consumer.unsubscribe();
        let begun = Instant::now();
        while self.group.holds_any() && begun.elapsed() < LEAVE_WITHIN {
            let _ = self.consumer.poll(ASK_BUSY);
        }
        orders.stop();
        while !self.committer.is_finished() {
            if begun.elapsed() > LEAVE_WITHIN {
                return tracing::warn!("what was done last is not committed yet: it may come again");
            }
            let _ = self.consumer.poll(ASK_BUSY);
        }
    }

    /// Waits for a record, and takes those that are there while there is room. Answers whether the member has ended.
    fn read(&mut self, mut wait: Duration) -> bool {
        for _ in 0..AHEAD_REQUESTS {
            match self.consumer.poll(wait) {
                None => return false,
                Some(Ok(record)) => {
                    let request = self.take(&record);
                    self.held.extend(request.map(Ok));
                }
                Some(Err(error)) => return self.trouble(&error),
            }
            self.hand_out();
            if !self.held.is_empty() {
                return false;
            }
            wait = Duration::ZERO;
        }
        false
    }

    /// Passes on what is held, and pauses reading where there is no room.
    fn hand_out(&mut self) {
        while let Some(next) = self.held.pop_front() {
            if let Err(error) = self.out.try_send(next) {
                self.held.push_front(match error {
                    mpsc::error::TrySendError::Full(next) | mpsc::error::TrySendError::Closed(next) => next,
                });
                break;
            }
        }
        self.pause();
    }

    /// Pauses all partitions while there is no room for more, else those that hold as much as may be; resumes the others.
    fn pause(&mut self) {
        let all = !self.held.is_empty();
        let (full, others) = self.group.full(MAX_SPAN, all);
        let mut paused = self.consumer.context().paused();
        paused.all = all;
        // A pause or a resume that librdkafka drops is reported as done, so resuming is said again from time to time.
        let again = !others.is_empty() && self.resumed.elapsed() > RESUME_EVERY;
        if again {
            self.resumed = Instant::now();
        }
        let stop: Vec<i32> = full.iter().copied().filter(|one| !paused.partitions.contains(one)).collect();
        let go: Vec<i32> =
            others.into_iter().filter(|one| again || paused.partitions.contains(one)).collect();
        if let Err(error) = self.each(&stop, |list| self.consumer.pause(list)) {
            tracing::debug!(%error, "reading could not be paused");
        }
        if let Err(error) = self.each(&go, |list| self.consumer.resume(list)) {
            tracing::debug!(%error, "reading could not be resumed");
        }
        paused.partitions = full;
    }

    fn each(
        &self,
        partitions: &[i32],
        change: impl FnOnce(&TopicPartitionList) -> KafkaResult<()>,
    ) -> KafkaResult<()> {
        if partitions.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        change(&list)
    }

    /// A record as a request, unless it is one that was done before.
    fn take(&self, record: &BorrowedMessage<'_>) -> Option<Request> {
        let (partition, offset) = (record.partition(), record.offset());
        if self.group.is_fresh(partition)
            && (self.group.is_unread(partition) || !self.read_committed(partition, offset))
        {
            self.group.not_read(partition, offset);
            return None;
        }
        let claim = self.group.comes(partition, offset)?;
        Some(command::request(&self.hub, &self.group, record, claim))
    }

    /// What the group has committed for a partition that is new to us, of which this record came first. Until that can be
    /// read nothing of it is handed out: nobody knows what was begun. Answers whether it was.
    fn read_committed(&self, partition: i32, first: i64) -> bool {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        let found = self.consumer.committed_offsets(list, READ_WITHIN);
        // The call succeeds also where a partition does not.
        let found =
            found.and_then(|found| found.elements().iter().try_for_each(|one| one.error()).map(|()| found));
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(partition, %error, "what was done before cannot be read: commands wait for that");
                return false;
            }
        };
        let elements = found.elements_for_topic(&self.topic);
        let committed = elements.iter().find(|element| element.partition() == partition);
        let position = committed.and_then(|element| match element.offset() {
            Offset::Offset(position) => Some(position),
            _ => None,
        });
        // rdkafka panics where the metadata is not text; whoever may commit for the group may have written it.
        let text = || committed.map(|element| element.metadata().to_owned()).unwrap_or_default();
        let metadata = std::panic::catch_unwind(std::panic::AssertUnwindSafe(text)).unwrap_or_default();
        match position
            .filter(|position| first < *position)
            .map(|position| self.end(partition).map(|end| (position, end)))
        {
            None => self.group.resume(partition, position, &metadata),
            Some(Ok((committed, end))) if end >= committed => {
                // Nothing tells the two cases apart: what was committed has no epoch of its log.
                tracing::warn!(
                    partition,
                    first,
                    committed,
                    end,
                    "commands come from before the committed position, and count as done: it was committed after \
                     reading began, or the log was cut (an unclean election) and has grown beyond it again; then those \
                     from its cut to the position were never run"
                );
                self.group.resume(partition, position, &metadata);
            }
            Some(Ok(_)) => {
                tracing::warn!(
                    partition,
                    position,
                    "what was committed is not of this log, which was cut or made again: it is void"
                );
                self.group.resume(partition, None, "");
            }
            Some(Err(error)) => {
                tracing::warn!(partition, %error, "where the log ends cannot be read: commands wait for that");
                return false;
            }
        }
        true
    }

    /// Where the log of a partition ends. Where that is not before a position that was committed, and an earlier record came
    /// all the same, the position was committed after librdkafka had asked where to read from, or the log was cut and has
    /// grown again.
    fn end(&self, partition: i32) -> KafkaResult<i64> {
        let (_, end) = self.consumer.fetch_watermarks(&self.topic, partition, READ_WITHIN)?;
        Ok(end)
    }

    /// Goes back to commands that were dropped undone.
    fn read_again(&self) {
        let Some(since) = Instant::now().checked_sub(AGAIN_AFTER) else { return };
        for (partition, offset) in self.group.rewinds(since) {
            let sought = self.seek(partition, offset);
            self.group.sought(partition, offset, sought.is_ok());
            if let Err(error) = sought {
                tracing::warn!(partition, offset, %error, "commands that were given back cannot be read again yet");
            }
        }
    }

    fn seek(&self, partition: i32, offset: i64) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        let sought = self.consumer.seek_partitions(list, READ_WITHIN)?;
        // The call succeeds also where a partition does not.
        sought.elements().iter().try_for_each(|element| element.error())
    }

    /// Tells of trouble that no waiting mends. Answers whether the member has ended.
    fn trouble(&mut self, error: &KafkaError) -> bool {
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        let mut fault = faults::of(error, &self.topic);
        tracing::debug!(%error, "reading commands");
        if fatal {
            if let Some((code, text)) = self.consumer.client().fatal_error() {
                fault = faults::fatal(code, &text, &self.topic);
            }
            self.why.set(fault);
            return true;
        }
        let due = self.told.is_none_or(|at| at.elapsed() > TOLD_EVERY);
        if fault.decision == Decision::Stop && due && self.out.try_send(Err(fault)).is_ok() {
            self.told = Some(Instant::now());
        }
        false
    }
}

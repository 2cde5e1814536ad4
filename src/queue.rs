//! The queue between one server and the buses: bounded, and what it drops is counted and announced.
//!
//! It stands where the durable spool will be and has its shape: appending gives a record its sequence number,
//! each bus reads at its own place (a *lane*), and a dead bus costs the others nothing. What it does not do is
//! survive the process.
//!
//! Limits: `limit_bytes` of encoded records are kept for the slowest lane; beyond that the oldest record goes. Records
//! that a lane has taken are the lane's: at most one batch, bounded by the lane's own limits.
//!
//! Invariants: sequence numbers start at 1 and have no holes; a lane sees every number once, as a message or
//! inside a [`Lost`] range, in order.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use amibus_contract::Message;
use tokio::sync::Notify;

/// Bytes that a record costs beside its body, estimated: the message's own fields.
const RECORD_OVERHEAD_BYTES: usize = 256;

/// The queue of one server.
pub struct Queue {
    limit_bytes: usize,
    state: Mutex<State>,
    lanes: Vec<Notify>,
}

struct State {
    records: VecDeque<Record>,
    /// The sequence number of the first record, or of the next one where there is none.
    first: u64,
    bytes: usize,
    lanes: Vec<Lane>,
    closed: bool,
}

struct Record {
    message: Message,
    bytes: usize,
    appended: Instant,
    at: SystemTime,
}

#[derive(Default)]
struct Lane {
    /// The next number to hand out.
    next: u64,
    in_flight: usize,
    oldest_in_flight: Option<SystemTime>,
    lost: Option<Lost>,
    dropped: u64,
}

/// Records that a lane will not see, since the queue was full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first lost sequence number.
    pub first: u64,
    /// The last lost sequence number.
    pub last: u64,
    /// When the first was appended.
    pub from: SystemTime,
    /// When the last was appended.
    pub until: SystemTime,
}

impl Lost {
    /// How many records were lost.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// What a lane takes at a time: first what was lost, then what follows.
#[derive(Debug)]
pub struct Batch {
    /// What was dropped before the first message.
    pub lost: Option<Lost>,
    /// The messages, in the order of their sequence numbers.
    pub messages: Vec<Message>,
    /// When each was appended.
    pub appended: Vec<Instant>,
}

/// What a lane holds at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages appended and not yet committed.
    pub waiting: u64,
    /// Messages dropped since the start.
    pub dropped: u64,
    /// When the oldest waiting one was appended.
    pub oldest: Option<SystemTime>,
}

impl Queue {
    /// A queue with `lanes` readers, of at most `limit_bytes` of records.
    pub fn new(limit_bytes: usize, lanes: usize) -> Arc<Self> {
        let lane = || Lane { next: 1, ..Lane::default() };
        let state = State {
            records: VecDeque::new(),
            first: 1,
            bytes: 0,
            lanes: std::iter::repeat_with(lane).take(lanes).collect(),
            closed: false,
        };
        let lanes = std::iter::repeat_with(Notify::new).take(lanes).collect();
        Arc::new(Self { limit_bytes, state: Mutex::new(state), lanes })
    }

    /// Appends the message that `make` makes of its sequence number, and returns it. Never waits for a bus.
    pub fn append(&self, make: impl FnOnce(u64) -> Message) -> Message {
        let mut state = self.lock();
        let sequence = state.first + state.records.len() as u64;
        let message = make(sequence);
        let bytes = message.body.len() + RECORD_OVERHEAD_BYTES;
        state.bytes += bytes;
        let appended = message.clone();
        state.records.push_back(Record { message, bytes, appended: Instant::now(), at: SystemTime::now() });
        state.shrink(self.limit_bytes);
        drop(state);
        for lane in &self.lanes {
            lane.notify_one();
        }
        appended
    }

    /// The reader of lane number `lane`, counted from zero. Each lane has one reader.
    pub fn reader(self: &Arc<Self>, lane: usize) -> Reader {
        Reader { queue: Arc::clone(self), lane }
    }

    /// Nothing more will be appended; readers end once they have everything.
    pub fn close(&self) {
        self.lock().closed = true;
        for lane in &self.lanes {
            lane.notify_one();
        }
    }

    /// What lane number `lane` holds.
    pub fn backlog(&self, lane: usize) -> Backlog {
        let state = self.lock();
        let Some(one) = state.lanes.get(lane) else { return Backlog::default() };
        let queued = state.end() - one.next;
        let first_queued = state.record(one.next).map(|r| r.at);
        Backlog {
            waiting: queued + one.in_flight as u64,
            dropped: one.dropped,
            oldest: one.oldest_in_flight.or(first_queued),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn record(&self, sequence: u64) -> Option<&Record> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.records.get(index)
    }

    /// Removes what every lane has taken, and past the limit the oldest, which some lane then loses.
    fn shrink(&mut self, limit_bytes: usize) {
        let slowest = self.lanes.iter().map(|l| l.next).min().unwrap_or(u64::MAX);
        while self.first < slowest || self.bytes > limit_bytes {
            let Some(gone) = self.records.pop_front() else { break };
            self.bytes -= gone.bytes;
            for lane in self.lanes.iter_mut().filter(|l| l.next == self.first) {
                lane.lose(self.first, gone.at);
            }
            self.first += 1;
        }
    }

    fn take(&mut self, lane: usize, messages: usize, bytes: usize) -> Option<Batch> {
        let lost = self.lanes.get_mut(lane)?.lost.take();
        let mut next = self.lanes.get(lane)?.next;
        let oldest = self.record(next).map(|r| r.at);
        let (mut taken, mut appended, mut size) = (Vec::new(), Vec::new(), 0);
        while let Some(record) = self.record(next) {
            if taken.len() >= messages.max(1) || (size > 0 && size + record.bytes > bytes) {
                break;
            }
            size += record.bytes;
            next += 1;
            taken.push(record.message.clone());
            appended.push(record.appended);
        }
        let one = self.lanes.get_mut(lane)?;
        one.next = next;
        one.in_flight = taken.len();
        one.oldest_in_flight = oldest;
        self.shrink(usize::MAX);
        (lost.is_some() || !taken.is_empty()).then_some(Batch { lost, messages: taken, appended })
    }
}

impl Lane {
    fn lose(&mut self, sequence: u64, at: SystemTime) {
        self.next = sequence + 1;
        self.dropped += 1;
        match &mut self.lost {
            Some(lost) => (lost.last, lost.until) = (sequence, at),
            None => self.lost = Some(Lost { first: sequence, last: sequence, from: at, until: at }),
        }
    }
}

/// One lane's place in the queue.
pub struct Reader {
    queue: Arc<Queue>,
    lane: usize,
}

impl Reader {
    /// The next batch: at most `messages`, and at most `bytes` unless a single message is larger. Waits for the
    /// first; `None` once the queue is closed and everything was taken.
    ///
    /// # Cancellation
    /// Dropping the future takes nothing.
    pub async fn batch(&mut self, messages: usize, bytes: usize) -> Option<Batch> {
        loop {
            let closed = {
                let mut state = self.queue.lock();
                if let Some(batch) = state.take(self.lane, messages, bytes) {
                    return Some(batch);
                }
                state.closed
            };
            if closed {
                return None;
            }
            self.queue.lanes.get(self.lane)?.notified().await;
        }
    }

    /// The first `count` messages of those in flight are done with: published, or set aside.
    pub fn commit(&mut self, count: usize) {
        if let Some(lane) = self.queue.lock().lanes.get_mut(self.lane) {
            lane.in_flight = lane.in_flight.saturating_sub(count);
            if lane.in_flight == 0 {
                lane.oldest_in_flight = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use amibus_contract::{Attributes, Kind, Topic};

    use super::*;

    fn append(queue: &Queue, bytes: usize) -> u64 {
        let message = queue.append(|n| Message {
            topic: Topic::new("ami", Kind::Event, "pbx1", "X").expect("valid"),
            key: "k".into(),
            attributes: Attributes { sequence: Some(n.to_string().into()), ..Attributes::default() },
            body: vec![b'x'; bytes].into(),
        });
        message.attributes.sequence.and_then(|s| s.parse().ok()).expect("a number")
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        let number = |m: &Message| m.attributes.sequence.as_deref().and_then(|s| s.parse().ok());
        batch.messages.iter().filter_map(number).collect()
    }

    #[tokio::test]
    async fn lanes_read_independently_and_nothing_is_kept_for_nobody() {
        let queue = Queue::new(1 << 20, 2);
        let (mut fast, mut slow) = (queue.reader(0), queue.reader(1));
        for _ in 0..5 {
            append(&queue, 10);
        }
        assert_eq!(numbers(&fast.batch(3, 1 << 20).await.expect("open")), [1, 2, 3]);
        fast.commit(3);
        assert_eq!(numbers(&fast.batch(3, 1 << 20).await.expect("open")), [4, 5]);
        assert_eq!((queue.backlog(0).waiting, queue.backlog(1).waiting), (2, 5));
        assert_eq!(queue.lock().records.len(), 5);
        assert_eq!(numbers(&slow.batch(9, 1 << 20).await.expect("open")), [1, 2, 3, 4, 5]);
        assert_eq!(queue.lock().records.len(), 0);
        assert_eq!(queue.lock().bytes, 0);
    }

    #[tokio::test]
    async fn what_is_dropped_is_counted_once_for_the_lane_that_missed_it() {
        let queue = Queue::new(4 * (RECORD_OVERHEAD_BYTES + 10), 2);
        let (mut fast, mut slow) = (queue.reader(0), queue.reader(1));
        for expected in 1..=10 {
            assert_eq!(append(&queue, 10), expected);
            let batch = fast.batch(9, 1 << 20).await.expect("open");
            assert_eq!((numbers(&batch), &batch.lost), (vec![expected], &None));
            fast.commit(1);
        }
        let batch = slow.batch(9, 1 << 20).await.expect("open");
        let lost = batch.lost.as_ref().expect("lost some");
        assert_eq!((lost.first, lost.last, lost.count()), (1, 6, 6));
        assert_eq!(numbers(&batch), [7, 8, 9, 10]);
        assert_eq!((queue.backlog(0).dropped, queue.backlog(1).dropped), (0, 6));
    }

    #[tokio::test]
    async fn a_batch_is_bounded_in_bytes_but_never_empty() {
        let queue = Queue::new(1 << 20, 1);
        let mut reader = queue.reader(0);
        append(&queue, 5000);
        append(&queue, 10);
        assert_eq!(numbers(&reader.batch(9, 1000).await.expect("open")), [1]);
        assert_eq!(numbers(&reader.batch(9, 1000).await.expect("open")), [2]);
    }

    #[tokio::test]
    async fn a_closed_queue_is_read_to_its_end() {
        let queue = Queue::new(1 << 20, 1);
        let mut reader = queue.reader(0);
        append(&queue, 10);
        queue.close();
        assert_eq!(numbers(&reader.batch(9, 1000).await.expect("the rest")), [1]);
        assert!(reader.batch(9, 1000).await.is_none());
    }
}

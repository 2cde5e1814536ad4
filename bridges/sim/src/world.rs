//! What all sessions share: the order of events, their numbers, who receives them, and what was seen.
//!
//! One lock gives every event its place: number, timestamp and the queueing to each session happen under it,
//! so two sessions see the same bytes in the same order. Limits: [`ORIGINATES_KEPT_MAX`],
//! [`ACTIONS_KEPT_MAX`], [`SESSIONS_MAX`] and each session's outbox.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::event::{Event, Stamp};
use crate::faults::Door;
use crate::floor::Floor;
use crate::options::SimOptions;
use crate::originate::Originated;
use crate::outbox::OUTBOX_BYTES_MAX;
use crate::session::Session;

/// Originates kept for [`crate::Sim::originates`]; the oldest goes first.
pub(crate) const ORIGINATES_KEPT_MAX: usize = 200_000;
/// Raw actions kept for [`crate::Sim::actions`]; the oldest goes first.
pub(crate) const ACTIONS_KEPT_MAX: usize = 20_000;
/// Connections at once; further ones are closed without a banner.
pub(crate) const SESSIONS_MAX: usize = 1_024;
/// Who produces in bulk waits while a session has more than this queued.
const CROWDED_BYTES: usize = OUTBOX_BYTES_MAX / 4;
/// How often a bulk producer looks whether there is room again.
const CROWDED_POLL: Duration = Duration::from_millis(1);

/// The simulated server.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: SimOptions,
    pub(crate) door: watch::Sender<Door>,
    /// Whether the listening socket is open.
    pub(crate) listening: watch::Sender<bool>,
    /// How many sessions of this boot have asked for events.
    pub(crate) audience: watch::Sender<u64>,
    /// Every action is answered by Error, as during a graceful stop.
    pub(crate) stopping: AtomicBool,
    /// Bytes a write, 0 for no limit.
    pub(crate) write_chunk_bytes: AtomicUsize,
    /// Ends when the handle is dropped.
    pub(crate) ended: CancellationToken,
    stalled_until: watch::Sender<Option<Instant>>,
    state: Mutex<State>,
}

/// What lies under the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) sessions: Vec<Arc<Session>>,
    pub(crate) floor: Floor,
    /// Ends with this boot: calls and players live in it.
    pub(crate) boot: CancellationToken,
    pub(crate) booted_at_second: u64,
    pub(crate) sequence: u64,
    pub(crate) variables: HashMap<(String, String), String>,
    pub(crate) stats: Stats,
    pub(crate) live_calls: usize,
    /// ChannelIds of calls whose channel is up or about to be.
    pub(crate) claimed_ids: Vec<String>,
    originates: VecDeque<Originated>,
    actions: VecDeque<Bytes>,
    next_unique: u64,
    next_channel: u32,
    next_bridge: u64,
    last_micros: u64,
    unique_second_min: u64,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections taken, whatever became of them.
    pub connections: u64,
    /// Successful logins.
    pub logins: u64,
    /// Refused logins.
    pub failed_logins: u64,
    /// Actions received, the refused ones too.
    pub actions: u64,
    /// Originates that were answered by Success.
    pub originates: u64,
    /// Events published, whether or not anybody wanted them.
    pub events: u64,
    /// Sessions dropped because a write made no progress or their queue was full.
    pub slow_sessions_dropped: u64,
    /// Boots, the first included.
    pub boots: u64,
}

impl World {
    pub(crate) fn new(options: SimOptions) -> Arc<Self> {
        let ended = CancellationToken::new();
        let state = State {
            sessions: Vec::new(),
            floor: Floor::default(),
            boot: ended.child_token(),
            booted_at_second: clock::now_micros() / 1_000_000,
            sequence: 0,
            variables: HashMap::new(),
            stats: Stats { boots: 1, ..Stats::default() },
            live_calls: 0,
            claimed_ids: Vec::new(),
            originates: VecDeque::new(),
            actions: VecDeque::new(),
            next_unique: 0,
            next_channel: 0,
            next_bridge: 0,
            last_micros: 0,
            unique_second_min: 0,
        };
        Arc::new(Self {
            door: watch::Sender::new(Door::Open),
            listening: watch::Sender::new(true),
            audience: watch::Sender::new(0),
            stopping: AtomicBool::new(false),
            write_chunk_bytes: AtomicUsize::new(options.write_chunk_bytes.unwrap_or(0)),
            ended,
            stalled_until: watch::Sender::new(None),
            state: Mutex::new(state),
            options,
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the event its place and queues it to every session that wants it.
    pub(crate) fn publish(&self, event: &Event) {
        self.publish_locked(&mut self.lock(), event);
    }

    /// Publishes an event of a call, unless a Hangup action has ended that call; false when it has.
    pub(crate) fn publish_within(&self, event: &Event, linkedid: &str) -> bool {
        let mut state = self.lock();
        if state.floor.has_ended(linkedid) {
            return false;
        }
        self.publish_locked(&mut state, event);
        true
    }

    fn publish_locked(&self, state: &mut State, event: &Event) {
        state.floor.observe(event);
        let chunk = self.stamp(state, event);
        state.stats.events += 1;
        state.spread(&chunk, event.classes);
    }

    /// The bytes of an event that takes the next number now.
    pub(crate) fn stamp(&self, state: &mut State, event: &Event) -> Bytes {
        let now = state.now_micros();
        let sequence = self.options.sequence_numbers.then(|| state.take_sequence(1));
        let micros = self.options.timestamp.then(|| event.recorded_micros.unwrap_or(now));
        self.encode(event.write(Stamp { micros, sequence }))
    }

    /// Text as it goes over the wire.
    pub(crate) fn encode(&self, text: Vec<u8>) -> Bytes {
        if !self.options.latin1 || text.is_ascii() {
            return Bytes::from(text);
        }
        let latin1 = |letter: char| u8::try_from(u32::from(letter)).unwrap_or(b'?');
        String::from_utf8_lossy(&text).chars().map(latin1).collect::<Vec<u8>>().into()
    }

    /// Returns once the server is not stalled.
    pub(crate) async fn running(&self) {
        loop {
            let until = *self.stalled_until.borrow();
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }

    pub(crate) fn stall_until(&self, until: Instant) {
        self.stalled_until.send_replace(Some(until));
    }

    /// Waits while some session has much queued, so that bulk producers go at the readers' pace.
    pub(crate) async fn room(&self) {
        while self
            .lock()
            .sessions
            .iter()
            .any(|session| !is_up(&session.frozen) && session.outbox.queued_bytes() > CROWDED_BYTES)
        {
            tokio::time::sleep(CROWDED_POLL).await;
        }
    }

    /// Forgets a session that has ended.
    pub(crate) fn remove(&self, id: u64) {
        self.lock().sessions.retain(|session| session.id != id);
    }
}

impl State {
    /// Queues bytes to every session that wants these classes; a session without room is dropped.
    pub(crate) fn spread(&mut self, chunk: &Bytes, classes: u32) {
        for session in self.sessions.iter().filter(|session| session.wants(classes)) {
            if !session.outbox.push(chunk.clone()) && !session.killed.is_cancelled() {
                self.stats.slow_sessions_dropped += 1;
                session.killed.cancel();
            }
        }
    }

    /// Now, never earlier than before.
    pub(crate) fn now_micros(&mut self) -> u64 {
        self.last_micros = clock::now_micros().max(self.last_micros);
        self.last_micros
    }

    /// Takes `count` sequence numbers and returns the first.
    pub(crate) fn take_sequence(&mut self, count: u64) -> u64 {
        let first = self.sequence;
        self.sequence += count;
        first
    }

    /// A Uniqueid that no channel had before, across boots.
    pub(crate) fn fresh_uniqueid(&mut self) -> String {
        let second = (self.now_micros() / 1_000_000).max(self.unique_second_min);
        let number = self.next_unique;
        self.next_unique += 1;
        format!("{second}.{number}")
    }

    /// The number of the next channel, the eight hex digits at the end of its name.
    pub(crate) fn fresh_channel_number(&mut self) -> String {
        let number = self.next_channel;
        self.next_channel = self.next_channel.wrapping_add(1);
        format!("{number:08x}")
    }

    /// A UUID-shaped id for a bridge.
    pub(crate) fn fresh_bridge(&mut self) -> String {
        self.next_bridge += 1;
        let (boot, number) = (self.booted_at_second & 0xffff_ffff, self.next_bridge);
        format!("{boot:08x}-{:04x}-4000-8000-{number:012x}", self.stats.boots & 0xffff)
    }

    pub(crate) fn keep_originate(&mut self, originated: Originated) {
        self.stats.originates += 1;
        if self.originates.len() >= ORIGINATES_KEPT_MAX {
            self.originates.pop_front();
        }
        self.originates.push_back(originated);
    }

    pub(crate) fn keep_action(&mut self, raw: Bytes) {
        self.stats.actions += 1;
        if self.actions.len() >= ACTIONS_KEPT_MAX {
            self.actions.pop_front();
        }
        self.actions.push_back(raw);
    }

    pub(crate) fn originates(&self) -> Vec<Originated> {
        self.originates.iter().cloned().collect()
    }

    pub(crate) fn actions(&self) -> Vec<Bytes> {
        self.actions.iter().cloned().collect()
    }

    /// A new boot: numbers, channels and variables begin again; what was seen is kept.
    pub(crate) fn reboot(&mut self, ended: &CancellationToken) {
        self.boot.cancel();
        self.boot = ended.child_token();
        let second = self.now_micros() / 1_000_000;
        self.unique_second_min = second.max(self.unique_second_min) + 1;
        self.booted_at_second = second;
        self.sequence = 0;
        self.next_unique = 0;
        self.next_channel = 0;
        self.floor = Floor::default();
        self.variables.clear();
        self.claimed_ids.clear();
        self.live_calls = 0;
        self.stats.boots += 1;
    }
}

/// Whether a flag is up.
pub(crate) fn is_up(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}

//! What the gate has seen, in numbers.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{gate::Role, wire::Refusal};

/// A moment's view of the counters; all but the first three only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Subscribers whose handshake is done.
    pub subscribers: u64,
    /// Requesters whose handshake is done.
    pub requesters: u64,
    /// Bytes that wait in the queues of all peers.
    pub queued_bytes: u64,
    /// Peers turned away because `max_peers` were connected.
    pub turned_away: u64,
    /// Peers that did not end their handshake within `handshake_timeout`.
    pub silent: u64,
    /// Peers disconnected for reading too slowly; each missed what was published until it came back.
    pub slow: u64,
    /// Peers disconnected for anything else that they did wrong: no ZMTP 3, malformed or oversized frames.
    pub refused: u64,
    /// Messages that the engine could not write for another reason than a subscriber that left; some subscribers did
    /// not get them.
    pub unsent: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    subscribers: AtomicU64,
    requesters: AtomicU64,
    queued_bytes: AtomicU64,
    turned_away: AtomicU64,
    silent: AtomicU64,
    slow: AtomicU64,
    refused: AtomicU64,
    unsent: AtomicU64,
}

impl Counters {
    pub(crate) fn view(&self) -> Stats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            subscribers: load(&self.subscribers),
            requesters: load(&self.requesters),
            queued_bytes: load(&self.queued_bytes),
            turned_away: load(&self.turned_away),
            silent: load(&self.silent),
            slow: load(&self.slow),
            refused: load(&self.refused),
            unsent: load(&self.unsent),
        }
    }

    pub(crate) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unsent(&self, messages: u64) {
        self.unsent.fetch_add(messages, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, refusal: &Refusal) {
        let counter = match refusal {
            Refusal::Io(_) => return,
            Refusal::Silent => &self.silent,
            Refusal::Slow { .. } => &self.slow,
            _ => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a peer for as long as the answer lives.
    pub(crate) fn connected(&self, role: Role) -> Connected<'_> {
        let counter = match role {
            Role::Publish => &self.subscribers,
            Role::Commands => &self.requesters,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Connected(counter)
    }

    /// A queue's share in `queued_bytes`.
    pub(crate) fn queued(self: &Arc<Self>) -> Gauge {
        Gauge { counters: Arc::clone(self), value: 0 }
    }
}

pub(crate) struct Connected<'a>(&'a AtomicU64);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) struct Gauge {
    counters: Arc<Counters>,
    value: u64,
}

impl Gauge {
    pub(crate) fn set(&mut self, value: usize) {
        let value = value as u64;
        let total = &self.counters.queued_bytes;
        if value >= self.value {
            total.fetch_add(value - self.value, Ordering::Relaxed);
        } else {
            total.fetch_sub(self.value - value, Ordering::Relaxed);
        }
        self.value = value;
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.set(0);
    }
}

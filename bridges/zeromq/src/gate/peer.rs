//! One connected peer, as everybody but its own connection sees it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use crate::wire;

/// How many frames of ours (PONG, refusals, confirmations) may wait for their place in a peer's stream.
pub(crate) const OUTBOX_FRAMES: usize = 16;

/// A peer.
pub(crate) struct Peer {
    number: u64,
    label: String,
    outbox: mpsc::Sender<Bytes>,
    /// One permit for each command that may still be taken before one is answered.
    pub(crate) unanswered: Semaphore,
    unflushed_replies: AtomicU64,
    confirms: Mutex<HashMap<u64, Bytes>>,
    next: AtomicU64,
    gone: AtomicBool,
}

impl Peer {
    /// The identity by which the engine knows it.
    pub(crate) fn identity(&self) -> String {
        format!("{:016x}", self.number)
    }

    /// Who it is, for people: where it connected from.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Whether its connection has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// A number that this peer has not had before.
    pub(crate) fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Where whole frames of ours are put into its stream, between two messages.
    pub(crate) fn outbox(&self) -> &mpsc::Sender<Bytes> {
        &self.outbox
    }

    /// Remembers that `topic` is to be confirmed under a number.
    pub(crate) fn expect_confirm(&self, topic: Bytes) -> u64 {
        let number = self.next();
        lock(&self.confirms).insert(number, topic);
        number
    }

    /// The engine has come to the subscription of this number: all earlier ones are in force. A peer whose outbox
    /// is full is not told.
    pub(crate) fn confirm(&self, number: u64) {
        if let Some(topic) = lock(&self.confirms).remove(&number) {
            let _ = self.outbox.try_send(wire::message([&topic[..], b""]));
        }
    }

    /// A reply was accepted.
    pub(crate) fn replying(&self) {
        self.unflushed_replies.fetch_add(1, Ordering::AcqRel);
    }

    /// An accepted reply will not come after all.
    pub(crate) fn not_replying(&self) {
        self.unflushed_replies.fetch_sub(1, Ordering::AcqRel);
    }

    /// `count` replies have left.
    pub(crate) fn replied(&self, count: u64) {
        self.unflushed_replies.fetch_sub(count, Ordering::AcqRel);
        self.unanswered.add_permits(usize::try_from(count).unwrap_or_default());
    }
}

/// The peers of a gate, by number. Numbers are never used twice.
#[derive(Default)]
pub(crate) struct Peers {
    by_number: Mutex<HashMap<u64, Weak<Peer>>>,
    next: AtomicU64,
    /// The unflushed replies of those that left while the gate was closing.
    lost_replies: AtomicU64,
}

impl Peers {
    pub(crate) fn enter(
        &self,
        label: String,
        outbox: mpsc::Sender<Bytes>,
        max_unanswered: usize,
    ) -> Arc<Peer> {
        let peer = Arc::new(Peer {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            label,
            outbox,
            unanswered: Semaphore::new(max_unanswered),
            unflushed_replies: AtomicU64::new(0),
            confirms: Mutex::default(),
            next: AtomicU64::new(0),
            gone: AtomicBool::new(false),
        });
        lock(&self.by_number).insert(peer.number, Arc::downgrade(&peer));
        peer
    }

    /// Nobody waits for its replies any more; while the gate is `closing`, those that have not left count as lost.
    pub(crate) fn leave(&self, peer: &Peer, closing: bool) {
        peer.gone.store(true, Ordering::Release);
        let mut peers = lock(&self.by_number);
        if closing {
            self.lost_replies.fetch_add(peer.unflushed_replies.load(Ordering::Acquire), Ordering::Relaxed);
        }
        peers.remove(&peer.number);
    }

    /// The peer with an identity that we gave it.
    pub(crate) fn find(&self, identity: &[u8]) -> Option<Arc<Peer>> {
        let number = u64::from_str_radix(std::str::from_utf8(identity).ok()?, 16).ok()?;
        lock(&self.by_number).get(&number)?.upgrade()
    }

    /// Of those that are there.
    pub(crate) fn unflushed_replies(&self) -> u64 {
        unflushed(&lock(&self.by_number))
    }

    /// The same and those of who left while the gate was closing.
    pub(crate) fn undelivered_replies(&self) -> u64 {
        let peers = lock(&self.by_number);
        unflushed(&peers) + self.lost_replies.load(Ordering::Relaxed)
    }
}

fn unflushed(peers: &HashMap<u64, Weak<Peer>>) -> u64 {
    peers.values().filter_map(Weak::upgrade).map(|p| p.unflushed_replies.load(Ordering::Acquire)).sum()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

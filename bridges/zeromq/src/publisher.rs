//! Events out: one XPUB engine behind the gate, shared by all lanes.
//!
//! XPUB and not PUB, because the crate's PUB takes everything at once into queues of 100,000 messages and drops
//! silently what does not fit, while its XPUB writes each message to each subscriber before it takes the next. To a
//! subscriber the two are the same. So nothing is queued but what the gate's bounded queues hold, and a batch is done
//! when each subscriber's queue has it. The engine has a thread of its own; the module `thread` says why.

use std::sync::Arc;

use amibus_contract::{Fault, FaultKind, Message};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use zeromq::{Socket, SocketRecv, SocketSend, XPubSocket, ZmqMessage};

use crate::{
    config::Config,
    engine::PrivateSocket,
    gate::{CONFIRM_PREFIX, Gate, Role, Shared},
    stats::Counters,
    thread::{EngineThread, ended},
};

/// How many batches of all lanes may wait for the engine.
const WAITING_BATCHES: usize = 16;
/// After how many messages other tasks get their turn, and subscriptions theirs.
const YIELD_EVERY: usize = 64;
/// How many subscriptions are taken in one turn.
const SUBSCRIPTIONS_A_TURN: usize = 64;

/// A running engine with its gate.
pub(crate) struct Publisher {
    batches: mpsc::Sender<Batch>,
    stop: CancellationToken,
    gate: Gate,
    pub(crate) engine: EngineThread,
    _socket: PrivateSocket,
}

struct Batch {
    messages: Vec<ZmqMessage>,
    done: oneshot::Sender<()>,
}

impl Publisher {
    /// Listens as configured.
    pub(crate) async fn open(config: &Config, stats: Arc<Counters>) -> Result<Self, Fault> {
        let (socket, listener) = PrivateSocket::listen()?;
        let (batches, waiting) = mpsc::channel(WAITING_BATCHES);
        let stop = CancellationToken::new();
        let gate =
            Gate::open(&config.publish, Role::Publish, config.limits.clone(), stats, socket.path()).await?;
        let (stopped, shared) = (stop.clone(), Arc::clone(&gate.shared));
        let work = move |engine| run(engine, waiting, stopped, shared);
        let engine = EngineThread::listen("amibus-zmq-pub", listener, work).await?;
        Ok(Self { batches, stop, gate, engine, _socket: socket })
    }

    /// The address that subscribers connect to.
    pub(crate) fn address(&self) -> String {
        self.gate.address().to_string()
    }

    /// Whether it still works.
    pub(crate) fn is_alive(&self) -> bool {
        !self.engine.has_ended()
    }

    /// Publishes all of `messages` and waits until each subscriber's queue has them.
    pub(crate) async fn publish(&self, messages: &[Message]) -> Result<(), Fault> {
        let messages = messages.iter().map(frames).collect::<Option<Vec<_>>>();
        let messages = messages.ok_or_else(|| Fault::new(FaultKind::Refused, "a message without frames"))?;
        let (done, is_done) = oneshot::channel();
        self.batches.send(Batch { messages, done }).await.map_err(|_| ended())?;
        is_done.await.map_err(|_| ended())
    }

    /// Delivers what was accepted and ends, at most until `deadline`. Answers how many accepted messages at least
    /// one subscriber did not get.
    pub(crate) async fn close(&self, deadline: Instant) -> u64 {
        self.stop.cancel();
        if timeout_at(deadline, self.engine.ended()).await.is_err() {
            self.engine.abort();
        }
        self.gate.drain(deadline).await
    }
}

fn frames(message: &Message) -> Option<ZmqMessage> {
    let topic: Bytes = message.topic.text().into_bytes();
    ZmqMessage::try_from(vec![topic, message.body.clone()]).ok()
}

/// Serves batches and subscriptions in turn; told to stop, it takes no more batches, sends those that it has, and
/// ends.
async fn run(
    mut engine: XPubSocket,
    mut batches: mpsc::Receiver<Batch>,
    stop: CancellationToken,
    gate: Arc<Shared>,
) {
    loop {
        tokio::select! {
            batch = batches.recv() => match batch {
                Some(batch) => send(&mut engine, batch, &gate).await,
                None => break,
            },
            subscription = engine.recv() => confirm(&gate, subscription.ok()),
            () = stop.cancelled(), if !batches.is_closed() => batches.close(),
        }
    }
    for error in engine.close().await {
        tracing::debug!(%error, "the ZeroMQ engine did not close cleanly");
    }
}

async fn send(engine: &mut XPubSocket, batch: Batch, gate: &Shared) {
    let mut unsent = 0;
    let mut why = None;
    for (n, message) in batch.messages.into_iter().enumerate() {
        // Not that a subscriber left, of which the engine says nothing: those behind it in its list got nothing either.
        if let Err(error) = engine.send(message).await {
            unsent += 1;
            why = Some(error);
        }
        if n % YIELD_EVERY == YIELD_EVERY - 1 {
            take_subscriptions(engine, gate);
            yield_now().await;
        }
    }
    if let Some(error) = why {
        gate.stats.unsent(unsent);
        tracing::warn!(unsent, %error, "the ZeroMQ engine did not write to some subscribers");
    }
    // Whoever waited may have given up.
    let _ = batch.done.send(());
}

/// The engine takes a subscription in only when asked for it.
fn take_subscriptions(engine: &mut XPubSocket, gate: &Shared) {
    for _ in 0..SUBSCRIPTIONS_A_TURN {
        match engine.recv().now_or_never() {
            Some(subscription) => confirm(gate, subscription.ok()),
            None => return,
        }
    }
}

/// Tells a peer that asked by [`CONFIRM_PREFIX`] that its earlier subscriptions are in force.
fn confirm(gate: &Shared, subscription: Option<ZmqMessage>) {
    let Some(frame) = subscription.as_ref().and_then(|s| s.get(0)) else { return };
    let Some(token) = frame.strip_prefix(b"\x01").and_then(|topic| topic.strip_prefix(CONFIRM_PREFIX)) else {
        return;
    };
    let Some(at) = token.iter().position(|byte| *byte == b'.') else { return };
    let (identity, number) = (token.get(..at).unwrap_or_default(), token.get(at + 1..).unwrap_or_default());
    let number = std::str::from_utf8(number).ok().and_then(|n| u64::from_str_radix(n, 16).ok());
    if let (Some(peer), Some(number)) = (gate.peers.find(identity), number) {
        peer.confirm(number);
    }
}

//! The gate: what stands between a peer and the engine.
//!
//! The engine (the `zeromq` crate) reserves whatever a frame's header claims, waits for ever for a peer's handshake,
//! ends a connection at a PING, and keeps its peers by the identity that they chose. So it never listens where
//! a peer can reach it: it listens on a socket in a private directory, and the gate accepts the peers, checks what
//! they send, and carries it over. What the gate enforces:
//!
//! - at most `max_peers` connections, and the handshake within its deadline;
//! - no frame larger than its purpose allows, none of it reserved before it is there;
//! - subscriptions and unanswered commands are counted and bounded;
//! - PING is answered here; identities are ours; other commands never reach the engine;
//! - a peer that does not read costs at most its queue, and is disconnected when that stays full ([`pace`]).

mod accept;
mod handshake;
mod inbound;
mod outbound;
mod pace;
mod peer;
mod reply;
mod requests;
mod serve;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use amibus_contract::Fault;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use accept::Listener;
pub(crate) use inbound::{CONFIRM_PREFIX, control};
pub(crate) use outbound::Outbound;
pub(crate) use pace::Pace;
pub(crate) use peer::{Peer, Peers};
pub(crate) use reply::Accepted;
pub(crate) use requests::{MAX_SKIPPED_BYTES, split_envelope};

use crate::{address::Address, stats::Counters};

/// How long connections may take to end once they were told to.
const ABORT_WITHIN: Duration = Duration::from_secs(1);

/// What a gate guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Subscribers: they send subscriptions and nothing else.
    Publish,
    /// Requesters: they send commands.
    Commands,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "SUB and XSUB",
            Self::Commands => "REQ and DEALER",
        }
    }

    fn takes(self, socket: &str) -> bool {
        match self {
            Self::Publish => matches!(socket, "SUB" | "XSUB"),
            Self::Commands => matches!(socket, "REQ" | "DEALER"),
        }
    }
}

/// What a gate grants its peers.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) handshake_timeout: Duration,
    pub(crate) max_peers: usize,
    pub(crate) max_command_bytes: usize,
    pub(crate) max_unanswered: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) patience: Duration,
    pub(crate) least_bytes_per_second: u64,
}

/// What all connections of a gate share.
pub(crate) struct Shared {
    pub(crate) role: Role,
    pub(crate) limits: Limits,
    pub(crate) peers: Peers,
    pub(crate) stats: Arc<Counters>,
    /// Where the engine listens.
    engine: PathBuf,
    /// One permit for each connection that may be.
    slots: Arc<Semaphore>,
    /// Nothing more is taken from peers; what is on its way to them is still delivered.
    closing: CancellationToken,
    /// Everything ends.
    abort: CancellationToken,
    tracker: TaskTracker,
    /// Told whenever replies have left, or will not come any more.
    flushed: Notify,
    /// Among the peers, the most messages that one of them was not given.
    undelivered: AtomicU64,
}

/// A listening gate; dropping it ends its connections at once.
pub(crate) struct Gate {
    pub(crate) shared: Arc<Shared>,
    address: Address,
}

impl Gate {
    /// Listens on `address` and carries what comes in to the engine that listens on the path `engine`.
    pub(crate) async fn open(
        address: &Address,
        role: Role,
        limits: Limits,
        stats: Arc<Counters>,
        engine: PathBuf,
    ) -> Result<Self, Fault> {
        let listener = accept::Listener::bind(address).await?;
        let address = listener.address().clone();
        let shared = Arc::new(Shared {
            slots: Arc::new(Semaphore::new(limits.max_peers)),
            role,
            limits,
            peers: Peers::default(),
            stats,
            engine,
            closing: CancellationToken::new(),
            abort: CancellationToken::new(),
            tracker: TaskTracker::new(),
            flushed: Notify::new(),
            undelivered: AtomicU64::new(0),
        });
        shared.tracker.spawn(accept::run(listener, Arc::clone(&shared)));
        Ok(Self { shared, address })
    }

    /// Where the gate listens, with the port that it got.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts nobody any more, and takes nothing more from those that are there.
    pub(crate) fn stop_taking(&self) {
        self.shared.closing.cancel();
    }

    /// Waits until the connections have delivered everything and ended, which they do once the engine has ended;
    /// at `deadline` they are cut. Answers how many messages did not reach at least one of the peers.
    pub(crate) async fn drain(&self, deadline: Instant) -> u64 {
        self.stop_taking();
        self.shared.tracker.close();
        if timeout_at(deadline, self.shared.tracker.wait()).await.is_err() {
            self.cut().await;
        }
        self.shared.undelivered.load(Ordering::Relaxed)
    }

    /// Waits until every accepted reply has left, at most until `deadline`, and cuts the connections. Answers how
    /// many replies did not leave, also because their peer left meanwhile or read too slowly.
    pub(crate) async fn drain_replies(&self, deadline: Instant) -> u64 {
        self.stop_taking();
        let all_left = async {
            loop {
                let flushed = self.shared.flushed.notified();
                if self.shared.peers.unflushed_replies() == 0 {
                    return;
                }
                flushed.await;
            }
        };
        // What did not leave in time is counted below.
        let _ = timeout_at(deadline, all_left).await;
        self.cut().await;
        self.shared.peers.undelivered_replies()
    }

    async fn cut(&self) {
        self.shared.abort.cancel();
        self.shared.tracker.close();
        // They end at their next step; whoever waits for us does not wait for that for ever.
        let _ = timeout_at(Instant::now() + ABORT_WITHIN, self.shared.tracker.wait()).await;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.closing.cancel();
        self.shared.abort.cancel();
    }
}

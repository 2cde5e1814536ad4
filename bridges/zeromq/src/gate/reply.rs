//! A reply between the handle that gave it and the engine.

use std::sync::Arc;

use super::{Peer, Shared};

/// Counts among its peer's unflushed replies. Dropped before the engine has taken it, it will not come after all.
pub(crate) struct Accepted {
    gate: Arc<Shared>,
    peer: Arc<Peer>,
    taken: bool,
}

impl Accepted {
    /// Counts a reply to `peer`.
    pub(crate) fn new(gate: Arc<Shared>, peer: Arc<Peer>) -> Self {
        peer.replying();
        Self { gate, peer, taken: false }
    }

    /// The engine has it: it counts until it has left, or its peer has.
    pub(crate) fn taken(mut self) {
        self.taken = true;
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if !self.taken {
            self.peer.not_replying();
            self.gate.flushed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use amibus_contract::{Value, Values};
    use tokio::{sync::mpsc, time::Instant};

    use super::*;
    use crate::{
        config::Config,
        gate::{Gate, Role},
    };

    /// As where the engine's thread panics.
    #[tokio::test]
    async fn nobody_waits_for_a_reply_that_went_down_with_the_engine() {
        let directory = tempfile::tempdir().expect("a directory");
        let address = format!("ipc://{}", directory.path().join("commands").display());
        let values = Values::default().with("publish", Value::Text(address));
        let config = Config::read(&values).expect("a valid configuration");
        let engine = directory.path().join("engine");
        let gate = Gate::open(&config.publish, Role::Commands, config.limits, Arc::default(), engine).await;
        let gate = gate.expect("listening");
        let (outbox, _frames) = mpsc::channel(1);
        let peer = gate.shared.peers.enter("test".to_owned(), outbox, 1);
        let accepted = Accepted::new(Arc::clone(&gate.shared), Arc::clone(&peer));
        assert_eq!(gate.shared.peers.unflushed_replies(), 1);
        let (start, limit) = (Instant::now(), Duration::from_secs(20));
        let ends = async {
            tokio::task::yield_now().await;
            drop(accepted);
        };
        let (left, ()) = tokio::join!(gate.drain_replies(start + limit), ends);
        assert_eq!(left, 0);
        assert!(start.elapsed() < limit / 2, "it waited for {:?}", start.elapsed());
    }
}

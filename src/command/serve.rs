//! Taking commands from one bus, as many at once as may be held.
//!
//! What is held waits in memory for its server, its pace or its turn, and its bus keeps it meanwhile. Beyond the limits here
//! the rest waits on the bus, in its order; then a command for another server or another group waits with it.

use std::{sync::Arc, time::Duration};

use amibus_contract::Inlet;
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::engine::Engine;
use crate::metrics::BusMetrics;

/// Requests of one bus that are held at once, waiting or in work.
const MAX_HELD_REQUESTS: usize = 16_384;
/// Bytes of one bus's requests that are held at once. The last one taken may go beyond.
const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;
/// The pause after an inlet that cannot go on.
const INLET_RETRY: Duration = Duration::from_secs(30);

/// The bytes of the requests that are held.
#[derive(Clone, Debug, Default)]
struct HeldBytes(watch::Sender<usize>);

/// The bytes of one request.
struct Share {
    all: HeldBytes,
    bytes: usize,
}

impl HeldBytes {
    async fn room(&self) {
        // It cannot be closed: the sender is here.
        let _ = self.0.subscribe().wait_for(|held| *held < MAX_HELD_BYTES).await;
    }

    fn hold(&self, bytes: usize) -> Share {
        self.0.send_modify(|held| *held += bytes);
        Share { all: self.clone(), bytes }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.0.send_modify(|held| *held -= self.bytes);
    }
}

impl Engine {
    /// Takes commands from one bus until `stop`; then waits until those in work are done or `give_up`.
    pub async fn serve(
        self: Arc<Self>,
        mut inlet: Box<dyn Inlet>,
        bus: &'static str,
        metrics: BusMetrics,
        stop: CancellationToken,
        give_up: CancellationToken,
    ) {
        let (held, held_bytes) = (Arc::new(Semaphore::new(MAX_HELD_REQUESTS)), HeldBytes::default());
        let tasks = TaskTracker::new();
        loop {
            let next = async {
                held_bytes.room().await;
                let permit = Arc::clone(&held).acquire_owned().await;
                (permit, inlet.next().await)
            };
            let Some((permit, next)) = stop.run_until_cancelled(next).await else { break };
            match next {
                Ok(Some(request)) => {
                    metrics.commands_received.inc();
                    let share = held_bytes.hold(request.body.len());
                    let (engine, metrics) = (Arc::clone(&self), metrics.clone());
                    let (arrival, stop) = (engine.arrival(), stop.clone());
                    // On the heap: each future around it would have room for it twice.
                    let work = Box::pin(async move {
                        engine.handle_in_order(arrival, request, bus, &metrics, &stop).await;
                        drop((permit, share));
                    });
                    let give_up = give_up.clone();
                    tasks.spawn(async move { give_up.run_until_cancelled_owned(work).await });
                }
                Ok(None) => break,
                Err(fault) => {
                    warn!(bus, %fault, "commands cannot be taken; trying again");
                    if stop.run_until_cancelled(tokio::time::sleep(INLET_RETRY)).await.is_none() {
                        break;
                    }
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_is_room_again_once_enough_is_let_go() {
        let held = HeldBytes::default();
        let first = held.hold(MAX_HELD_BYTES - 1);
        held.room().await;
        let second = held.hold(10);
        let full = tokio::time::timeout(Duration::from_millis(20), held.room()).await;
        assert!(full.is_err());
        drop(first);
        held.room().await;
        drop(second);
        assert_eq!(*held.0.borrow(), 0);
    }
}

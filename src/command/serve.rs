//! Taking commands from one bus, as many at once as may be held.
//!
//! What is held waits in memory for its server, its pace or its turn, and its bus keeps it meanwhile. Beyond the limits here
//! the rest waits on the bus, in its order; then a command for another server or another group waits with it.

use std::{sync::Arc, time::Duration};

use amibus_contract::{Inlet, Request, Scope, SharedBridge};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::engine::Engine;
use crate::metrics::BusMetrics;

/// Requests of one bus that are held at once, waiting or in work.
const MAX_HELD_REQUESTS: usize = 16_384;
/// Bytes of one bus's requests that are held at once. The last one taken may go beyond.
const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;
/// The first wait after an inlet that could not be opened; doubled up to [`INLET_RETRY_MAX`].
const INLET_RETRY_MIN: Duration = Duration::from_millis(250);
/// The longest wait after an inlet that could not be opened.
const INLET_RETRY_MAX: Duration = Duration::from_secs(10);
/// How long an inlet has to last for the first wait to be that short again.
const INLET_LASTS: Duration = Duration::from_secs(30);
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

/// The commands of one bus that are held, through whichever of its inlets they came.
struct Taking {
    bus: &'static str,
    metrics: BusMetrics,
    stop: CancellationToken,
    give_up: CancellationToken,
    held: Arc<Semaphore>,
    held_bytes: HeldBytes,
    tasks: TaskTracker,
}

impl Taking {
    fn new(
        bus: &'static str,
        metrics: BusMetrics,
        stop: CancellationToken,
        give_up: CancellationToken,
    ) -> Self {
        let (held, held_bytes) = (Arc::new(Semaphore::new(MAX_HELD_REQUESTS)), HeldBytes::default());
        Self { bus, metrics, stop, give_up, held, held_bytes, tasks: TaskTracker::new() }
    }

    /// Waits until none is in work any more.
    async fn end(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Engine {
    /// Takes commands from one bus until `stop`; then waits until those in work are done or `give_up`. Its inlet is opened
    /// again and again until that works, and another one where it has closed by itself.
    pub async fn serve(
        self: Arc<Self>,
        bridge: SharedBridge,
        scope: Scope,
        metrics: BusMetrics,
        stop: CancellationToken,
        give_up: CancellationToken,
    ) {
        let bus = bridge.name();
        let taking = Taking::new(bus, metrics, stop.clone(), give_up);
        let mut pause = INLET_RETRY_MIN;
        while !stop.is_cancelled() {
            match stop.run_until_cancelled(bridge.inlet(&scope)).await {
                None | Some(Ok(None)) => break,
                Some(Ok(Some(inlet))) => {
                    info!(bus, "taking commands");
                    let opened = Instant::now();
                    self.take_from(inlet, &taking).await;
                    if stop.is_cancelled() {
                        break;
                    }
                    if opened.elapsed() >= INLET_LASTS {
                        pause = INLET_RETRY_MIN;
                    }
                    warn!(bus, retry_in = ?pause, "what commands are taken from has closed; it is opened anew");
                }
                Some(Err(fault)) => warn!(bus, %fault, retry_in = ?pause, "commands cannot be taken yet"),
            }
            let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(INLET_RETRY_MAX);
        }
        taking.end().await;
    }

    /// Takes commands from this inlet until it has closed, or until `stop`; then it is kept until those in work are done.
    async fn take_from(self: &Arc<Self>, mut inlet: Box<dyn Inlet>, taking: &Taking) {
        let Taking { bus, stop, .. } = taking;
        loop {
            let next = async {
                taking.held_bytes.room().await;
                let permit = Arc::clone(&taking.held).acquire_owned().await;
                (permit, inlet.next().await)
            };
            let Some((permit, next)) = stop.run_until_cancelled(next).await else { break };
            match next {
                Ok(Some(request)) => self.take(request, permit.ok(), taking),
                Ok(None) => return,
                Err(fault) => {
                    warn!(bus, %fault, "commands cannot be taken; trying again");
                    if stop.run_until_cancelled(tokio::time::sleep(INLET_RETRY)).await.is_none() {
                        break;
                    }
                }
            }
        }
        taking.end().await;
    }

    fn take(self: &Arc<Self>, request: Request, permit: Option<OwnedSemaphorePermit>, taking: &Taking) {
        taking.metrics.commands_received.inc();
        let share = taking.held_bytes.hold(request.body.len());
        let (engine, bus, metrics) = (Arc::clone(self), taking.bus, taking.metrics.clone());
        let (arrival, stop) = (engine.arrival(), taking.stop.clone());
        // On the heap: each future around it would have room for it twice.
        let work = Box::pin(async move {
            engine.handle_in_order(arrival, request, bus, &metrics, &stop).await;
            drop((permit, share));
        });
        let give_up = taking.give_up.clone();
        taking.tasks.spawn(async move { give_up.run_until_cancelled_owned(work).await });
    }
}

#[cfg(test)]
mod tests {
    use amibus_contract::{BoxFuture, Fault};

    use tokio::task::JoinHandle;

    use super::*;
    use crate::{
        buses::testing::{BUS, of_inlets},
        command::testing,
        metrics::Metrics,
    };

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

    struct Opened {
        closes: bool,
    }

    impl Inlet for Opened {
        fn next(&mut self) -> BoxFuture<'_, Result<Option<Request>, Fault>> {
            match self.closes {
                true => Box::pin(async { Ok(None) }),
                false => Box::pin(std::future::pending()),
            }
        }
    }

    /// Takes from a bus of which the first `close` inlets close by themselves; tells how many were opened.
    fn closing(
        engine: Arc<Engine>,
        close: u32,
        stop: &CancellationToken,
    ) -> (watch::Receiver<u32>, JoinHandle<()>) {
        let (open, opened) = watch::channel(0);
        let bridge = of_inlets(move || {
            open.send_modify(|opened| *opened += 1);
            Opened { closes: *open.borrow() <= close }
        });
        let scope = Scope { prefix: "ami".to_owned(), servers: Vec::new() };
        let metrics = Metrics::default().bus(BUS);
        let serving = engine.serve(bridge, scope, metrics, stop.clone(), stop.clone());
        (opened, tokio::spawn(serving))
    }

    #[tokio::test(start_paused = true)]
    async fn what_closes_at_once_each_time_is_opened_ever_less_often() {
        let dir = tempfile::tempdir().expect("a directory");
        let (engine, _spool) = testing::engine(dir.path());
        let stop = CancellationToken::new();
        let (opened, serving) = closing(engine, u32::MAX, &stop);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let opened = *opened.borrow();
        // At 0, 0.25, 0.75, 1.75, 3.75, 7.75, 15.75 s, and every 10 s from then on.
        assert!((8..=12).contains(&opened), "{opened} times in a minute");
        stop.cancel();
        tokio::time::timeout(INLET_RETRY_MAX, serving).await.expect("in time").expect("no panic");
    }

    #[tokio::test]
    async fn what_closes_by_itself_is_opened_anew_until_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let (engine, _spool) = testing::engine(dir.path());
        let stop = CancellationToken::new();
        let (mut opened, serving) = closing(engine, 1, &stop);
        let again = tokio::time::timeout(INLET_RETRY_MAX, opened.wait_for(|opened| *opened == 2)).await;
        assert!(again.is_ok_and(|again| again.is_ok()));
        assert!(!serving.is_finished());
        stop.cancel();
        tokio::time::timeout(INLET_RETRY_MAX, serving).await.expect("in time").expect("no panic");
        assert_eq!(*opened.borrow(), 2);
    }
}

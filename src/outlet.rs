//! One task per server and bus: take a batch, publish it, commit what is safe, and again.
//!
//! A bus that is away costs only its own lane: its messages wait in the spool. A message that a bus refuses for
//! good is set aside where the bus keeps such messages, counted, and does not block what follows.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use amibus_contract::{Decision, Fault, Message, Outlet, SharedBridge};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    link,
    metrics::{BusMetrics, LaneMetrics, ServerMetrics},
    spool::{Batch, Lost, Reader, Reason, Spool},
    writer::Writer,
};

/// The first wait after a fault that may pass, in milliseconds; doubled up to [`RETRY_MAX_MS`].
const RETRY_MIN_MS: u64 = 50;
/// The longest wait after a fault that may pass, in milliseconds.
const RETRY_MAX_MS: u64 = 5_000;
/// The wait after a fault that a person must mend.
const RETRY_STOPPED: Duration = Duration::from_secs(30);
/// How often the gauges are brought up to date while nothing happens.
const GAUGE_EVERY: Duration = Duration::from_secs(1);

/// The type of what announces a loss.
const GAP_TYPE: &str = "ami.link.gap";

/// One server's lane to one bus.
pub struct Lane {
    /// The server, for what the lane itself publishes.
    pub writer: Arc<Writer>,
    /// The server's spool.
    pub spool: Arc<Spool>,
    /// The lane's number in the spool.
    pub number: usize,
    /// The bus.
    pub bridge: SharedBridge,
    /// At most so many messages a batch.
    pub batch_messages: usize,
    /// At most so many bytes a batch.
    pub batch_bytes: usize,
    /// What is counted of the lane.
    pub metrics: LaneMetrics,
    /// What is counted of the bus.
    pub bus_metrics: BusMetrics,
    /// What is counted of the server.
    pub server_metrics: ServerMetrics,
}

impl Lane {
    /// Publishes until the spool is closed and empty, or until `give_up`. Answers how many messages were left.
    pub async fn run(self, give_up: CancellationToken) -> u64 {
        let mut reader = self.spool.reader(self.number);
        let worked = give_up.run_until_cancelled(self.publish_all(&mut reader)).await;
        self.refresh();
        if worked.is_some() { 0 } else { self.spool.backlog(self.number).waiting }
    }

    async fn publish_all(&self, reader: &mut Reader) {
        let mut outlet: Option<Box<dyn Outlet>> = None;
        let mut retry = Retry::default();
        loop {
            let batch = reader.batch(self.batch_messages, self.batch_bytes);
            let Ok(batch) = tokio::time::timeout(GAUGE_EVERY, batch).await else {
                self.refresh();
                continue;
            };
            let Some(mut batch) = batch else { return };
            self.announce_lost(&mut batch);
            let mut own = Own { before: batch.messages.len() - batch.appended.len(), instead: None };
            let mut done = 0;
            while done < batch.messages.len() {
                let before = done;
                done += self.step(&mut outlet, &mut batch, &mut own, done, &mut retry).await;
                // The announcement of a loss is not one of the spool's messages.
                reader.commit(done.saturating_sub(own.before) - before.saturating_sub(own.before));
                self.refresh();
            }
        }
    }

    /// Publishes what is left of a batch from `from` on; answers how many messages are done with.
    async fn step(
        &self,
        outlet: &mut Option<Box<dyn Outlet>>,
        batch: &mut Batch,
        own: &mut Own,
        from: usize,
        retry: &mut Retry,
    ) -> usize {
        let open = match outlet {
            Some(open) => open,
            None => match self.bridge.outlet(self.writer.server()).await {
                Ok(opened) => outlet.insert(opened),
                Err(fault) => {
                    self.wait(&fault, retry).await;
                    return 0;
                }
            },
        };
        let Some(rest) = batch.messages.get(from..) else { return 0 };
        let published = open.publish(rest).await;
        let safe = published.safe.min(rest.len());
        self.count(batch, own, from, safe);
        if safe > 0 {
            retry.succeeded(self);
        }
        match published.fault {
            Some(fault) if fault.decision == Decision::Skip => {
                let Some(refused) = rest.get(safe) else { return safe };
                match self.set_aside(open.as_mut(), refused, &fault).await {
                    Aside::Kept => safe + 1,
                    // The bus is told of it in its place, unless that is what it refused.
                    Aside::Lost(Some(gap)) => {
                        if let Some(place) = batch.messages.get_mut(from + safe) {
                            *place = *gap;
                            own.instead = Some(from + safe);
                        }
                        safe
                    }
                    Aside::Lost(None) => safe + 1,
                    Aside::Again(fault) => {
                        self.wait(&fault, retry).await;
                        safe
                    }
                }
            }
            Some(fault) => {
                self.wait(&fault, retry).await;
                safe
            }
            None => safe,
        }
    }

    /// Puts a refused message where the bus keeps such ones.
    async fn set_aside(&self, outlet: &mut dyn Outlet, message: &Message, fault: &Fault) -> Aside {
        self.bus_metrics.faults(fault.kind.as_str()).inc();
        let kept = match outlet.dead_letter(message, fault).await {
            Ok(kept) => kept,
            Err(also_refused) if also_refused.decision == Decision::Skip => {
                warn!(bus = self.bridge.name(), id = &*message.attributes.id, %also_refused, "dead letter refused");
                false
            }
            Err(again) => return Aside::Again(again),
        };
        error!(
            server = self.writer.server(),
            bus = self.bridge.name(),
            id = &*message.attributes.id,
            topic = message.topic.as_str(),
            bytes = message.body.len(),
            kept,
            %fault,
            "the bus refused a message for good"
        );
        if kept {
            self.metrics.dead_lettered.inc();
            return Aside::Kept;
        }
        self.metrics.dropped.inc();
        self.server_metrics.gaps("dropped").inc();
        let sequence = message.attributes.sequence.as_deref().and_then(|digits| digits.parse().ok());
        let own = &*message.attributes.kind == GAP_TYPE;
        Aside::Lost(sequence.filter(|_| !own).map(|sequence| {
            let now = SystemTime::now();
            let lost =
                Lost { first: sequence, last: sequence, from: now, until: now, reason: Reason::Dropped };
            Box::new(link::dropped(&self.writer, self.bridge.name(), &lost))
        }))
    }

    async fn wait(&self, fault: &Fault, retry: &mut Retry) {
        self.bus_metrics.faults(fault.kind.as_str()).inc();
        self.refresh();
        let pause = retry.failed(self, fault);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            tokio::time::sleep_until(until.min(Instant::now() + GAUGE_EVERY)).await;
            self.refresh();
        }
    }

    fn count(&self, batch: &Batch, own: &Own, from: usize, safe: usize) {
        let range = from.saturating_sub(own.before)..(from + safe).saturating_sub(own.before);
        let appended = batch.appended.get(range).unwrap_or_default();
        let instead = own.instead.is_some_and(|at| (from..from + safe).contains(&at));
        self.metrics.published.inc_by((appended.len() - usize::from(instead)) as u64);
        for at in appended {
            self.bus_metrics.latency(at.elapsed());
        }
    }

    /// What the spool dropped or lost becomes a gap in front of the batch, for this bus alone.
    fn announce_lost(&self, batch: &mut Batch) {
        let Some(lost) = batch.lost.take() else { return };
        self.metrics.dropped.inc_by(lost.count());
        self.server_metrics.gaps(lost.reason.as_str()).inc();
        warn!(
            server = self.writer.server(),
            bus = self.bridge.name(),
            missed = lost.count(),
            first = lost.first,
            last = lost.last,
            reason = lost.reason.as_str(),
            "messages will not reach the bus; announced as a gap"
        );
        batch.messages.insert(0, link::dropped(&self.writer, self.bridge.name(), &lost));
    }

    fn refresh(&self) {
        let backlog = self.spool.backlog(self.number);
        self.metrics.waiting.set(i64::try_from(backlog.waiting).unwrap_or(i64::MAX));
        self.metrics.oldest_waiting(backlog.oldest);
    }
}

/// Which messages of a batch are the lane's own words.
struct Own {
    /// So many stand in front of the spool's.
    before: usize,
    /// One stands in place of a message that the bus refused.
    instead: Option<usize>,
}

/// What became of a message that a bus refused for good.
enum Aside {
    /// The bus keeps it among its dead letters.
    Kept,
    /// The bus does not; this announcement takes its place.
    Lost(Option<Box<Message>>),
    /// It cannot be said yet.
    Again(Fault),
}

/// How long to wait after a fault, and when to say so.
#[derive(Default)]
struct Retry {
    failures: u32,
}

impl Retry {
    fn failed(&mut self, lane: &Lane, fault: &Fault) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let (server, bus) = (lane.writer.server(), lane.bridge.name());
        if fault.decision == Decision::Stop {
            error!(server, bus, %fault, "the bus takes nothing until this is mended");
            return RETRY_STOPPED;
        }
        match self.failures {
            1 => warn!(server, bus, %fault, "cannot publish; messages wait"),
            n => debug!(server, bus, %fault, tries = n, "still cannot publish"),
        }
        let doubled = RETRY_MIN_MS << (self.failures - 1).min(10);
        Duration::from_millis(doubled.min(RETRY_MAX_MS))
    }

    fn succeeded(&mut self, lane: &Lane) {
        if std::mem::take(&mut self.failures) > 0 {
            info!(server = lane.writer.server(), bus = lane.bridge.name(), "publishing again");
        }
    }
}

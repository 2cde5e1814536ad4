//! One task per server and bus: take a batch, publish it, commit what is safe, and again.
//!
//! A bus that is away costs only its own lane: its messages wait in the spool. A message that a bus refuses for
//! good is set aside where the bus keeps such messages, counted, and does not block what follows.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use amibus_contract::{Decision, Fault, FaultKind, Message, Outlet, SharedBridge};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    link,
    metrics::{BusMetrics, LaneMetrics},
    spool::{Batch, Lost, Reader, Reason, Spool, Tally},
    writer::Writer,
};

/// The first wait after a fault that may pass, in milliseconds; doubled up to [`RETRY_MAX_MS`].
const RETRY_MIN_MS: u64 = 50;
/// The longest wait after a fault that may pass, in milliseconds.
const RETRY_MAX_MS: u64 = 5_000;
/// The wait after a fault that a person must mend.
const RETRY_STOPPED: Duration = Duration::from_secs(30);

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
}

impl Lane {
    /// Publishes until the spool is closed and empty, or until `give_up`. Answers how many messages were left.
    pub async fn run(self, give_up: CancellationToken) -> u64 {
        let mut reader = self.spool.reader(self.number);
        let worked = give_up.run_until_cancelled(self.publish_all(&mut reader)).await;
        if worked.is_some() { 0 } else { self.spool.backlog(self.number).waiting }
    }

    async fn publish_all(&self, reader: &mut Reader) {
        let mut outlet: Option<Box<dyn Outlet>> = None;
        let mut retry = Retry::default();
        while let Some(mut batch) = reader.batch(self.batch_messages, self.batch_bytes).await {
            self.announce_lost(&mut batch);
            let mut own = Own { before: batch.messages.len() - batch.appended.len(), instead: None };
            let mut done = 0;
            while done < batch.messages.len() {
                let step = self.step(&mut outlet, &mut batch, &mut own, done, &mut retry).await;
                done += step.messages;
                reader.settle(step.tally);
            }
        }
    }

    /// Publishes what is left of a batch from `from` on.
    async fn step(
        &self,
        outlet: &mut Option<Box<dyn Outlet>>,
        batch: &mut Batch,
        own: &mut Own,
        from: usize,
        retry: &mut Retry,
    ) -> Step {
        let mut step = Step::default();
        let open = match outlet {
            Some(open) => open,
            None => match self.bridge.outlet(self.writer.server()).await {
                Ok(opened) => outlet.insert(opened),
                Err(fault) => {
                    self.wait(&fault, retry).await;
                    return step;
                }
            },
        };
        let Some(rest) = batch.messages.get(from..) else { return step };
        let published = open.publish(rest).await;
        let safe = published.safe.min(rest.len());
        for at in from..from + safe {
            step.add(own, at, Fate::Published);
        }
        self.latencies(batch, own, from, safe);
        if safe > 0 {
            retry.succeeded(self);
        }
        match published.fault {
            Some(fault) if fault.decision == Decision::Skip => {
                let Some(refused) = rest.get(safe) else { return step };
                match self.set_aside(open.as_mut(), refused, &fault).await {
                    Aside::Kept => step.add(own, from + safe, Fate::DeadLettered),
                    // The bus is told of it in its place, unless that is what it refused.
                    Aside::Lost(Some(gap)) => {
                        if let Some(place) = batch.messages.get_mut(from + safe) {
                            *place = *gap;
                            own.instead = Some(from + safe);
                        }
                    }
                    Aside::Lost(None) => step.add(own, from + safe, Fate::Refused),
                    Aside::Again(fault) => self.wait(&fault, retry).await,
                }
            }
            Some(fault) => self.wait(&fault, retry).await,
            None => {}
        }
        step
    }

    /// Puts a refused message where the bus keeps such ones.
    async fn set_aside(&self, outlet: &mut dyn Outlet, message: &Message, fault: &Fault) -> Aside {
        self.bus_metrics.faults(fault.kind.as_str()).inc();
        let kept = match outlet.dead_letter(message, fault).await {
            Ok(kept) => kept,
            // What may not be set aside blocks nothing either.
            Err(also_refused)
                if also_refused.decision == Decision::Skip || also_refused.kind == FaultKind::Forbidden =>
            {
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
            return Aside::Kept;
        }
        let sequence = message.attributes.sequence.as_deref().and_then(|digits| digits.parse().ok());
        let own = &*message.attributes.kind == GAP_TYPE;
        Aside::Lost(sequence.filter(|_| !own).map(|sequence| {
            // Told again after a crash, it is the same gap: it has the time of what it stands for.
            let at = message.attributes.time.parse::<Timestamp>();
            let at = at.map_or_else(|_| SystemTime::now(), SystemTime::from);
            let lost = Lost { first: sequence, last: sequence, from: at, until: at, reason: Reason::Dropped };
            self.metrics.gaps(lost.reason.as_str()).inc();
            Box::new(link::dropped(&self.writer, self.bridge.name(), &lost))
        }))
    }

    async fn wait(&self, fault: &Fault, retry: &mut Retry) {
        self.bus_metrics.faults(fault.kind.as_str()).inc();
        tokio::time::sleep(retry.failed(self, fault)).await;
    }

    fn latencies(&self, batch: &Batch, own: &Own, from: usize, safe: usize) {
        let range = from.saturating_sub(own.before)..(from + safe).saturating_sub(own.before);
        for at in batch.appended.get(range).unwrap_or_default() {
            self.bus_metrics.latency(at.elapsed());
        }
    }

    /// What the spool dropped or lost becomes a gap in front of the batch, for this bus alone.
    fn announce_lost(&self, batch: &mut Batch) {
        let Some(lost) = batch.lost.take() else { return };
        self.metrics.gaps(lost.reason.as_str()).inc();
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
}

/// Which messages of a batch are the lane's own words.
struct Own {
    /// So many stand in front of the spool's.
    before: usize,
    /// One stands in place of a message that the bus refused.
    instead: Option<usize>,
}

/// How far a batch got at once: messages done with, and what became of those that are the spool's.
#[derive(Default)]
struct Step {
    messages: usize,
    tally: Tally,
}

/// What became of one message.
#[derive(Clone, Copy)]
enum Fate {
    Published,
    DeadLettered,
    Refused,
}

impl Step {
    /// The announcement of a loss in front of a batch has no place in the spool; one in place of a message that the
    /// bus refused stands for that message, whatever became of the announcement.
    fn add(&mut self, own: &Own, at: usize, fate: Fate) {
        self.messages += 1;
        let counted = match fate {
            _ if at < own.before => return,
            _ if own.instead == Some(at) => &mut self.tally.refused,
            Fate::Published => &mut self.tally.published,
            Fate::DeadLettered => &mut self.tally.dead_lettered,
            Fate::Refused => &mut self.tally.refused,
        };
        *counted += 1;
    }
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

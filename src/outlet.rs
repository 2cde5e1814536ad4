//! One task per server and bus: take what there is, publish it, commit what is safe, take more behind what is still on
//! its way ([`flight`]), and again. After a fault nothing more is taken until everything that was taken is done with.
//!
//! A bus that is away costs only its own lane: its messages wait in the spool. A message that a bus refuses for
//! good is set aside where the bus keeps such messages, counted, and does not block what follows.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use amibus_contract::{Decision, Fault, FaultKind, Message, Outlet, SharedBridge};
use futures_util::FutureExt;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    link,
    metrics::{BusMetrics, LaneMetrics},
    spool::{Lost, Reader, Reason, Spool},
    writer::Writer,
};

mod budget;
mod drain;
mod flight;
#[cfg(test)]
mod tests;

use budget::Share;
pub use budget::{Budget, LANE_BYTES};
use drain::Drain;
use flight::{Fate, Flight};

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
    /// At most so many messages on their way.
    pub batch_messages: usize,
    /// At most so many bytes of them.
    pub batch_bytes: usize,
    /// What all lanes of the bus may hold together.
    pub budget: Arc<Budget>,
    /// Whether there are other buses, which a lane that catches up leaves room ([`drain`]).
    pub has_company: bool,
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
        let (mut flight, mut retry) = (Flight::default(), Retry::default());
        let mut share = Share::of(&self.budget);
        let mut drain = Drain::new(self.batch_messages, self.has_company);
        loop {
            let now = tokio::time::Instant::now();
            // One number for the whole round: what was not taken since it is too much must not be waited for either.
            let most = drain.messages(now, retry.failures > 0, || self.spool.place(self.number));
            if !self.take(reader, &mut flight, &mut share, most).await {
                return;
            }
            self.step(&mut outlet, reader, &mut flight, &mut retry, most).await;
        }
    }

    /// Takes what there is beside what is on its way, which does not wait for more; where nothing is, waits for the first.
    /// At most `most` messages are on their way then. Answers whether there ever will be something.
    async fn take(&self, reader: &mut Reader, flight: &mut Flight, share: &mut Share, most: usize) -> bool {
        // There was room for what is being read when it was asked for: it is taken even if there is less now.
        let most = if reader.is_reading() { self.batch_messages } else { most };
        if let Some((messages, bytes)) = flight.room(most, self.batch_bytes) {
            let bytes = share.ask(flight.bytes(), bytes);
            let taken = match (flight.is_empty(), bytes) {
                (true, bytes) => match reader.batch_now(messages, bytes).await {
                    Some(taken) => taken,
                    None => {
                        // It has nothing of what others could use while it waits.
                        share.keep(0);
                        reader.batch(messages, self.batch_bytes.min(LANE_BYTES)).await
                    }
                },
                (false, 0) => None,
                (false, bytes) => reader.batch(messages, bytes).now_or_never().flatten(),
            };
            match taken {
                Some(mut batch) => {
                    let announcement = batch.lost.take().map(|lost| self.announcement(&lost));
                    flight.take(announcement, batch);
                }
                None if flight.is_empty() => return false,
                None => {}
            }
        }
        // What is being read is this lane's already.
        if !reader.is_reading() {
            share.keep(flight.bytes());
        }
        true
    }

    /// Publishes of what there is until a good part is done with, or something is wrong.
    async fn step(
        &self,
        outlet: &mut Option<Box<dyn Outlet>>,
        reader: &mut Reader,
        flight: &mut Flight,
        retry: &mut Retry,
        most: usize,
    ) {
        let open = match outlet {
            Some(open) => open,
            None => match self.bridge.outlet(self.writer.server()).await {
                Ok(opened) => outlet.insert(opened),
                Err(fault) => return self.wait(&fault, retry).await,
            },
        };
        let published = match flight.drains() {
            true => open.publish(flight.messages()).await,
            false => {
                // What comes meanwhile follows at once, unless there is so much on its way that it may wait for company.
                let follows = flight.room(most / 2, self.batch_bytes / 2).is_some();
                let more = async { if follows { reader.more().await } else { pending().await } };
                open.advance_until(flight.messages(), Box::pin(more)).await
            }
        };
        if published.fault.is_some() {
            flight.drain();
        }
        if published.safe > 0 {
            let (tally, appended) = flight.done(published.safe, Fate::Published);
            let now = Instant::now();
            appended.iter().for_each(|at| self.bus_metrics.latency(now.saturating_duration_since(*at)));
            reader.settle(tally);
            retry.succeeded(self);
        }
        let fate = match (published.fault, flight.messages().first()) {
            (Some(fault), Some(refused)) if fault.decision == Decision::Skip => {
                match self.set_aside(open.as_mut(), refused, &fault).await {
                    Aside::Kept => Fate::DeadLettered,
                    // The bus is told of it in its place, unless that is what it refused.
                    Aside::Lost(Some(gap)) => return flight.replace_first(*gap),
                    Aside::Lost(None) => Fate::Refused,
                    Aside::Again(fault) => return self.wait(&fault, retry).await,
                }
            }
            (Some(fault), _) => return self.wait(&fault, retry).await,
            (None, _) => return,
        };
        reader.settle(flight.done(1, fate).0);
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
                warn!(bus = self.bridge.name(), id = message.attributes().id(), %also_refused, "dead letter refused");
                false
            }
            Err(again) => return Aside::Again(again),
        };
        error!(
            server = self.writer.server(),
            bus = self.bridge.name(),
            id = message.attributes().id(),
            topic = message.topic.as_str(),
            bytes = message.body.len(),
            kept,
            %fault,
            "the bus refused a message for good"
        );
        if kept {
            return Aside::Kept;
        }
        let sequence = message.attributes().sequence().and_then(|digits| digits.parse().ok());
        let own = message.attributes().kind() == GAP_TYPE;
        Aside::Lost(sequence.filter(|_| !own).map(|sequence| {
            // Told again after a crash, it is the same gap: it has the time of what it stands for.
            let at = message.attributes().time().parse::<Timestamp>();
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

    /// What the spool dropped or lost becomes a gap in front of what follows, for this bus alone.
    fn announcement(&self, lost: &Lost) -> Message {
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
        link::dropped(&self.writer, self.bridge.name(), lost)
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

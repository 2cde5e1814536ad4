//! One lane of messages to Kafka: how a batch is stored, and what is done when it is not. How messages follow those that
//! are still on their way is in [`flight`].

use std::{sync::Arc, time::Duration};

use amibus_contract::{BoxFuture, Decision, Fault, FaultKind, Message, Outlet, Published, Reach};
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    front::{Generation, Halt},
    hub::Hub,
    letters,
    reports::{Reports, Wanted},
};

mod flight;

use flight::Flight;

/// How long the records of a purged producer may take to be reported.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait for room where other lanes fill the queue.
const ROOM_EVERY: Duration = Duration::from_millis(10);

/// An outlet over the bridge's shared producer.
pub(crate) struct KafkaOutlet {
    hub: Arc<Hub>,
    /// The producer that holds records of a publish that was dropped half way.
    in_doubt: Option<Arc<Generation>>,
    /// What was offered last and is on its way still.
    flight: Option<Flight>,
}

/// How far one try got.
enum Try {
    /// All of it is stored.
    Whole,
    /// The first `safe` are, the rest is not and will not be.
    Part {
        safe: usize,
        /// The message that failed for a reason of its own (`None`: the batch as a whole), and the reason.
        culprit: Option<usize>,
        fault: Fault,
        /// Whether the broker refused it, perhaps for another message of the same request.
        by_broker: bool,
    },
}

impl KafkaOutlet {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, in_doubt: None, flight: None }
    }

    async fn store(&mut self, batch: &[Message]) -> Published {
        let until = |safe, fault| Published::until(safe, Reach::Stored, fault);
        let deadline = Instant::now() + self.hub.settings.publish_timeout;
        self.forget().await;
        if let Err(fault) = self.hub.ensure_classes(batch).await {
            self.hub.noted(&fault);
            return until(0, fault);
        }
        self.hub.front.batch_again();
        // Stored so far, and where the current try ends.
        let (mut at, mut end) = (0, batch.len());
        while at < batch.len() {
            let (safe, culprit, fault, by_broker) =
                match self.attempt(batch.get(at..end).unwrap_or_default(), deadline).await {
                    Try::Whole => {
                        (at, end) = (end, batch.len());
                        continue;
                    }
                    Try::Part { safe, culprit, fault, by_broker } => (safe, culprit, fault, by_broker),
                };
            let was_alone = end - at == 1;
            let culprit = culprit.map(|index| at + index);
            at += safe;
            if fault.decision != Decision::Skip || (culprit == Some(at) && (was_alone || !by_broker)) {
                self.hub.noted(&fault);
                if fault.decision == Decision::Skip && by_broker {
                    self.hub.front.singly.found();
                }
                return until(at, fault);
            }
            if Instant::now() >= deadline {
                return until(at, fault.deciding(Decision::Retry));
            }
            // The broker refuses whole requests. What came before the culprit is stored first; then it is tried alone.
            end = culprit.filter(|index| *index > at).unwrap_or(at + 1).min(batch.len());
            if self.hub.front.singly.begin() {
                tracing::warn!(%fault, "the broker refused a request: for a while one message a request, which is slow");
            }
        }
        Published::all(batch.len(), Reach::Stored)
    }

    /// Takes back what is on its way and in doubt.
    async fn forget(&mut self) {
        self.in_doubt = self.in_doubt.take().or(self.flight.take().map(|flight| flight.generation));
        if let Some(generation) = self.in_doubt.clone() {
            self.hub.front.retire(&generation).await;
            self.in_doubt = None;
        }
    }

    /// Sends all of `batch` and waits. On a failure the producer is retired before this answers.
    async fn attempt(&mut self, batch: &[Message], deadline: Instant) -> Try {
        let part = |safe, culprit, fault| Try::Part { safe, culprit, fault, by_broker: false };
        let generation = match self.lease().await {
            Ok(generation) => generation,
            Err(fault) => return part(0, None, fault),
        };
        let reports = Arc::new(Reports::new(batch.len()));
        self.in_doubt = Some(generation.clone());
        let (sent, halt) = send_all(&generation, batch, 0, &reports, deadline).await;
        let in_time = timeout_at(deadline, reports.wait(Wanted::ReportsOrFailure(sent))).await.is_ok();
        if in_time && !reports.failed() {
            self.in_doubt = None;
            if sent > 0 {
                self.hub.health.stored();
                self.hub.front.stored(&generation, sent);
            }
            return match halt {
                None => Try::Whole,
                Some(Halt::Refused(fault)) => part(sent, Some(sent), fault),
                Some(Halt::Full) => {
                    part(sent, None, Fault::new(FaultKind::Full, "the producer's queue is full"))
                }
                Some(Halt::Retired) => {
                    self.hub.front.retire(&generation).await;
                    part(sent, None, self.hub.late("another batch failed"))
                }
            };
        }
        let (safe, culprit) = self.take_back(&generation, &reports, sent).await;
        let Some((index, code)) = culprit else {
            let why = if in_time { "taken back since another batch failed" } else { "not stored in time" };
            return part(safe, None, self.hub.late(why));
        };
        let what = batch.get(index).map(|message| message.topic.as_str()).unwrap_or_default();
        Try::Part { safe, culprit: Some(index), fault: self.hub.fault(code, what), by_broker: true }
    }

    /// The current producer. One that another lane has made just before requests were to hold one record each goes: a refusal
    /// of its requests may mean another lane's record.
    async fn lease(&self) -> Result<Arc<Generation>, Fault> {
        let front = &self.hub.front;
        let generation = front.lease()?;
        if generation.is_single() || !front.singly.is_on() {
            return Ok(generation);
        }
        front.retire(&generation).await;
        front.lease()
    }

    /// Ends the producer after a failure and waits for what becomes of the `sent` records. Answers how many are stored, and
    /// which one failed for a reason of its own.
    async fn take_back(
        &mut self,
        generation: &Arc<Generation>,
        reports: &Reports,
        sent: usize,
    ) -> (usize, Option<(usize, RDKafkaErrorCode)>) {
        self.hub.front.retire(generation).await;
        if timeout(SETTLED_WITHIN, reports.wait(Wanted::Reports(sent))).await.is_err() {
            tracing::warn!(missing = sent - reports.reported(), "purged records were not reported");
        }
        self.in_doubt = None;
        (reports.stored(), reports.culprit())
    }
}

/// Queues all of `batch` as there is room; the first is number `first` in `reports`. Answers how many were taken, and why
/// not all.
async fn send_all(
    generation: &Generation,
    batch: &[Message],
    first: usize,
    reports: &Arc<Reports>,
    deadline: Instant,
) -> (usize, Option<Halt>) {
    let mut sent = 0;
    while let Some(rest) = batch.get(sent..).filter(|rest| !rest.is_empty()) {
        let (taken, halt) = generation.send(rest, first + sent, reports);
        sent += taken;
        match halt {
            None => tokio::task::yield_now().await,
            Some(Halt::Full) if Instant::now() < deadline && !reports.failed() => {
                let more = (reports.reported() + 1).min(first + sent);
                let _ = timeout(ROOM_EVERY, reports.wait(Wanted::ReportsOrFailure(more))).await;
                if reports.reported() == first + sent {
                    sleep(ROOM_EVERY).await;
                }
            }
            halt => return (sent, halt),
        }
    }
    (sent, None)
}

impl Outlet for KafkaOutlet {
    fn publish<'a>(&'a mut self, batch: &'a [Message]) -> BoxFuture<'a, Published> {
        Box::pin(self.store(batch))
    }

    fn advance<'a>(&'a mut self, batch: &'a [Message]) -> BoxFuture<'a, Published> {
        Box::pin(self.follow(batch, std::future::pending()))
    }

    fn advance_until<'a>(
        &'a mut self,
        batch: &'a [Message],
        more: BoxFuture<'a, ()>,
    ) -> BoxFuture<'a, Published> {
        Box::pin(self.follow(batch, more))
    }

    fn dead_letter<'a>(
        &'a mut self,
        message: &'a Message,
        cause: &'a Fault,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        Box::pin(async move {
            letters::refused_by_bus(&self.hub, message, cause).await?;
            Ok(true)
        })
    }
}

//! Messages that follow those that are still on their way, so that the producer always has something to send.
//!
//! All of a flight goes through one producer, in order, so that what is stored of a partition is a prefix of what was
//! sent, as within a batch. A flight ends with the first failure: its producer is retired, all its records are reported,
//! and what is not stored is offered again. Nothing follows anything while requests hold one record each.

use std::sync::Arc;

use amibus_contract::{Decision, Fault, FaultKind, Message, Published, Reach};
use tokio::time::{Instant, timeout_at};

use super::{KafkaOutlet, send_all};
use crate::{
    front::{Generation, Halt},
    reports::{Reports, Wanted},
};

/// After how many more stored records the caller is told, so that it sends as many again; half of all that are on their
/// way, where that is less. So what waits in the producer hardly shrinks meanwhile, and the caller is not woken for each
/// request.
const TOLD_RECORDS: usize = 1_024;

/// What is on its way.
pub(crate) struct Flight {
    pub(super) generation: Arc<Generation>,
    reports: Arc<Reports>,
    /// How many records were sent, and how many of them the caller knows to be stored.
    sent: usize,
    told: usize,
    /// The ids of the first and the last of the others.
    ends: Option<(String, String)>,
    /// Until when one more of them is to be stored.
    deadline: Instant,
}

impl Flight {
    fn new(generation: Arc<Generation>, deadline: Instant) -> Self {
        Self { generation, reports: Arc::new(Reports::new(0)), sent: 0, told: 0, ends: None, deadline }
    }

    /// How many of a batch's messages are on their way; none where it does not begin with all that are.
    fn known(&self, batch: &[Message]) -> Option<usize> {
        let known = self.sent - self.told;
        (ends(batch.get(..known)?) == self.ends).then_some(known)
    }
}

impl KafkaOutlet {
    /// See [`amibus_contract::Outlet::advance_until`].
    pub(super) async fn follow(&mut self, batch: &[Message], more: impl Future<Output = ()>) -> Published {
        let Some((mut flight, known)) = self.flight(batch).await else { return self.store(batch).await };
        let deadline = flight.deadline;
        let (before, rest) = batch.split_at(known);
        // Topics are made between two flights.
        let are_known = self.hub.unknown_classes(rest).is_empty();
        let rest = if are_known { rest } else { &[] };
        if before.is_empty() && rest.is_empty() && !batch.is_empty() {
            return self.store(batch).await;
        }
        // Until it is known what became of them, and where this is dropped.
        self.in_doubt = Some(Arc::clone(&flight.generation));
        flight.reports.expect(rest.len());
        let (sent, halt) = send_all(&flight.generation, rest, flight.sent, &flight.reports, deadline).await;
        flight.sent += sent;
        let (offered, on_way) = (before.len() + rest.len(), before.len() + sent);
        let ends_here = halt.is_some() || !are_known || offered == 0;
        let wanted = flight.told + if ends_here { on_way } else { offered.div_ceil(2).min(TOLD_RECORDS) };
        let stored = timeout_at(deadline, flight.reports.wait(Wanted::Stored(wanted)));
        let in_time = tokio::select! {
            biased;
            stored = stored => stored.is_ok(),
            () = more, if !ends_here => true,
        };
        if !in_time || flight.reports.failed() {
            return self.failed(&flight, batch, in_time).await;
        }
        let safe = flight.reports.stored() - flight.told;
        self.in_doubt = None;
        if safe > 0 {
            self.hub.health.stored();
            flight.deadline = self.deadline();
        }
        let until = |fault| {
            self.hub.noted(&fault);
            Published::until(safe, Reach::Stored, fault)
        };
        match halt {
            Some(Halt::Refused(fault)) => until(fault),
            Some(Halt::Full) => until(Fault::new(FaultKind::Full, "the producer's queue is full")),
            Some(Halt::Retired) => {
                self.hub.front.retire(&flight.generation).await;
                until(self.hub.late("another batch failed"))
            }
            None => {
                flight.told += safe;
                let left = batch.get(safe..offered).unwrap_or_default();
                flight.ends = ends(left);
                self.flight = flight.ends.is_some().then_some(flight);
                Published { safe, reach: Reach::Stored, fault: None }
            }
        }
    }

    /// The flight that a batch goes on with, or a new one, and how many of its messages are in it; none where it must be
    /// stored as a whole.
    async fn flight(&mut self, batch: &[Message]) -> Option<(Flight, usize)> {
        if let Some(flight) = self.flight.take() {
            if let Some(known) = flight.known(batch) {
                return Some((flight, known));
            }
            self.in_doubt = Some(flight.generation);
        }
        self.forget().await;
        let is_plain = !self.hub.front.singly.is_on() && self.hub.unknown_classes(batch).is_empty();
        let generation = self.hub.front.lease().ok().filter(|_| is_plain)?;
        let deadline = self.deadline();
        (!generation.is_single()).then(|| (Flight::new(generation, deadline), 0))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.hub.settings.publish_timeout
    }

    async fn failed(&mut self, flight: &Flight, batch: &[Message], in_time: bool) -> Published {
        let (stored, culprit) = self.take_back(&flight.generation, &flight.reports, flight.sent).await;
        let safe = stored - flight.told;
        let fault = match culprit {
            None if in_time => self.hub.late("taken back since another batch failed"),
            None => self.hub.late("not stored in time"),
            Some((index, code)) => {
                let message = batch.get(index - flight.told);
                self.hub.fault(code, message.map(|message| message.topic.as_str()).unwrap_or_default())
            }
        };
        if fault.decision != Decision::Skip {
            self.hub.noted(&fault);
            return Published::until(safe, Reach::Stored, fault);
        }
        // The broker refuses whole requests. Which message it means is found out as for any batch.
        let rest = self.store(batch.get(safe..).unwrap_or_default()).await;
        Published { safe: safe + rest.safe, ..rest }
    }
}

fn ends(messages: &[Message]) -> Option<(String, String)> {
    let id = |message: &Message| message.attributes().id().to_owned();
    messages.first().map(id).zip(messages.last().map(id))
}
